//! Taking pages back from threads that are not writing; the handshake is argued in `ring.rs`.

use super::turn::{content, seal};
use super::{ASKED, BORROWED, Ring, SLOTS, TAKEN, twin};
use gracepoint_wire::packet::HEADER;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

impl Ring {
    /// Closes the partly filled pages of all slots that are not in the middle of a record, and
    /// hands them to the consumer. Returns how many. One caller at a time (the agent).
    pub(crate) fn take_back(&self) -> u32 {
        let used = gracepoint_rcu::high_water();
        let slots = (0..used).chain(SLOTS - BORROWED..SLOTS);
        let asked: Vec<u32> = slots
            .filter(|&slot| {
                let writer = self.writer(slot);
                content(writer) > HEADER as u64
                    && writer.claim.compare_exchange(0, ASKED, AcqRel, Relaxed).is_ok()
            })
            .collect();
        if asked.is_empty() {
            return 0;
        }
        // Pairs with the order of `depth` and `claim` in `Ring::place`.
        if !gracepoint_rcu::heavy_barrier() {
            // Then nothing orders the writers' two accesses, and their pages stay theirs until they
            // are full, or read where they lie when the session ends.
            for slot in asked {
                let _ = self.writer(slot).claim.compare_exchange(ASKED, 0, AcqRel, Relaxed);
            }
            return 0;
        }
        asked.into_iter().map(|slot| u32::from(self.take_one(slot))).sum()
    }

    /// After the barrier: takes the page of a slot that was asked, if its owner is not writing.
    fn take_one(&self, slot: u32) -> bool {
        let writer = self.writer(slot);
        let withdraw = || {
            let _ = writer.claim.compare_exchange(ASKED, 0, AcqRel, Relaxed);
            false
        };
        // Acquire pairs with the release of a portable decrement; x86 keeps stores in order.
        if writer.depth.load(Acquire) != 0 && !twin!(self, IgnoresDepth) {
            return withdraw();
        }
        let (packet, pos) = (writer.packet.load(Relaxed), writer.pos.load(Relaxed));
        let page = writer.page.load(Relaxed);
        // Of these two words and no others: the owner may be back, and between two pages. Then it denies.
        if packet == 0 || pos.saturating_sub(packet) <= HEADER as u64 {
            return withdraw();
        }
        let end = self.end_of(packet);
        // The owner opens its next packet no earlier than this; it must know before it may go on. Never lower: it
        // may be back, and have closed a packet itself.
        writer.floor.fetch_max(end, Release);
        if writer.claim.compare_exchange(ASKED, TAKEN, AcqRel, Relaxed).is_err() {
            return false; // the owner came back and denied it
        }
        let start = self.arena.page_address(page);
        let page_end = start + u64::from(self.arena.header().page_bytes);
        let discarded = self.arena.slot(slot).discarded.load(Relaxed);
        let next = seal(packet, pos, page_end, end, discarded);
        self.arena.fill(page, (next - start) as u32);
        true
    }
}
