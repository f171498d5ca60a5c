//! What the trace must still tell when all packets are copied: losses that no packet tells.
//!
//! A program counts its losses in the arena and writes them into packets when it comes to it
//! (`gp:loss` records, `events_discarded` of a packet's header). What it did not come to is added
//! here: the former in a stream of the recorder's own, the latter in an empty last packet, so that
//! our totals and those of babeltrace2 agree with the arena's.

use super::arena::{Loss, SlotLoss};
use super::copy::{Copier, empty_packet};
use gracepoint_wire::packet::{HEADER, PacketHeader, compact_header};
use gracepoint_wire::schema::{LOSS_ID, UNTHROTTLE_ID};
use std::collections::BTreeMap;
use std::io;

/// Adds losses that the packets do not tell; `now` is a moment after the last event.
///
/// # Errors
/// When the arena cannot be read or a file cannot be written.
pub(crate) fn write(copier: &mut Copier, now: u64) -> io::Result<BTreeMap<u32, u64>> {
    let (losses, slots) = (copier.arena.losses()?, copier.arena.slot_losses()?);
    write_these(copier, now, &losses, slots)
}

/// The same for losses that were read before.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_these(
    copier: &mut Copier,
    now: u64,
    losses: &[Loss],
    slots: Vec<SlotLoss>,
) -> io::Result<BTreeMap<u32, u64>> {
    let after_all = copier.slots.values().map(|slot| slot.end).fold(now, u64::max);
    let after_all = after_all.max(copier.own.at);
    for loss in slots {
        write_discarded(copier, loss, now)?;
    }
    let told = |loss: &Loss| copier.told.get(&loss.id).copied().unwrap_or(0);
    let untold: Vec<Loss> =
        losses.iter().map(|loss| Loss { folded: told(loss).min(loss.lost), ..*loss }).collect();
    let untold: Vec<&Loss> = untold.iter().filter(|loss| loss.lost > loss.folded).collect();
    let throttled = copier.arena.throttled()?;
    let left_out: Vec<&Loss> = throttled.iter().filter(|entry| entry.lost > entry.folded).collect();
    let told = copier.tells_throttling && !left_out.is_empty();
    if !untold.is_empty() || told {
        let context = copier.context.empty_len();
        let mut records = records(LOSS_ID, context, after_all, &untold);
        if told {
            records.extend(self::records(UNTHROTTLE_ID, context, after_all, &left_out));
        }
        copier.append_own(after_all, &records)?;
    }
    let before = |id| copier.told_before.get(&id).copied().unwrap_or(0);
    let here = losses.iter().map(|loss| (loss.id, loss.lost.saturating_sub(before(loss.id))));
    Ok(here.filter(|&(_, lost)| lost > 0).collect())
}

fn write_discarded(copier: &mut Copier, loss: SlotLoss, now: u64) -> io::Result<()> {
    let since = copier.since;
    let slot = copier.slots.entry(loss.slot).or_default();
    if loss.discarded <= slot.discarded {
        return Ok(());
    }
    let at = if slot.begun { slot.end } else { now };
    let last = PacketHeader {
        stream: loss.slot.into(),
        begin: at,
        end: at,
        content_bits: HEADER as u64 * 8,
        packet_bits: HEADER as u64 * 8,
        seq: slot.next_seq.wrapping_add(slot.shift),
        discarded: loss.discarded,
        tid: if loss.tid == 0 { slot.tid } else { loss.tid },
        thread: slot.thread,
    };
    if slot.begun {
        return copier.streams.append(loss.slot.into(), &last.to_bytes());
    }
    // A difference takes two.
    let first = PacketHeader { discarded: slot.base, ..empty_packet(&last, since.min(at)) };
    let both = [first.to_bytes(), PacketHeader { seq: first.seq + 1, ..last }.to_bytes()].concat();
    copier.streams.append(loss.slot.into(), &both)
}

/// Records of one of the tracer's own events, with an id and a number each, after an empty context.
fn records(id: u32, context: usize, at: u64, losses: &[&Loss]) -> Vec<u8> {
    let mut events = Vec::new();
    for loss in losses {
        events.extend_from_slice(&compact_header(id, at).to_le_bytes()[..5]);
        events.resize(events.len() + context, 0);
        events.extend_from_slice(&loss.id.to_le_bytes());
        events.extend_from_slice(&(loss.lost - loss.folded).to_le_bytes());
    }
    events
}
