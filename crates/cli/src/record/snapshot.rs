//! Copies what lies in an arena, as it lies there, while the program goes on or long after its end:
//! a session that overwrites, what a flight recorder left, and a session that another consumer drains.
//!
//! Any page may be used again while it is copied. Its entry is looked at twice before and once
//! after, as the top of the runtime's `ring/arena.rs` argues; a copy that may be mixed is left out
//! and counted, and with it what is older in its stream, so that streams have no gaps. Losses are
//! those of the moment before the first page was copied.
//!
//! Nothing in a flight recorder's file need be true. Pages that no packet begins, that belong to no
//! slot, or that repeat another's place in its stream are left out; packets that do not continue
//! their stream end their page.

use super::arena::{Loss, SlotLoss, is_full};
use super::copy::{Copier, Copies, Page};
use super::residue;
use gracepoint_wire::arena::PageEntry;
use gracepoint_wire::packet::PacketHeader;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{Ordering, fence};

/// What a snapshot did not get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// Pages that were written over while they were copied.
    pub(crate) rejected: u64,
    /// All losses, by event id.
    pub(crate) lost: BTreeMap<u32, u64>,
    /// How many of them were written over, and are older than what is there; the others found no page.
    pub(crate) overwritten: u64,
}

/// Copies all pages, in the order of each stream, and writes down the losses; `now` is a moment
/// after the last event.
///
/// # Errors
/// When the arena cannot be read or a file cannot be written.
pub(crate) fn copy(copier: &mut Copier, now: u64) -> io::Result<Missed> {
    copier.as_it_is = true;
    let (losses, mut slots) = (copier.arena.losses()?, copier.arena.slot_losses()?);
    let mut missed = Missed::default();
    let overwritten = losses.iter().map(|loss| loss.folded.min(loss.lost));
    missed.overwritten = match copier.arena.overwrites() {
        true => overwritten.fold(0, u64::saturating_add),
        false => 0,
    };
    let pages = pages(copier)?;
    balance(&losses, &mut slots, |slot| pages.iter().any(|page| page.entry.slot == slot));
    for of_slot in pages.chunk_by(|a, b| a.entry.slot == b.entry.slot) {
        let discarded = slots.iter().find(|slot| slot.slot == of_slot[0].entry.slot);
        missed.rejected += copy_stream(copier, of_slot, discarded.map_or(0, |s| s.discarded))?;
    }
    missed.lost = residue::write_these(copier, now, &losses, slots)?;
    Ok(missed)
}

/// Makes the counts by stream agree with those by event. A loss is counted by event and then by
/// stream; what was in between when the tables were read, or when the program was killed, goes to
/// the stream that lost the most. Where more is amiss somebody has scribbled, and no stream is made
/// up for what may be nothing.
fn balance(losses: &[Loss], slots: &mut Vec<SlotLoss>, in_use: impl Fn(u32) -> bool) {
    const MOST: u64 = 1 << 20;
    let sum = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
    let by_event = sum(&mut losses.iter().map(|loss| loss.lost));
    let by_slot = sum(&mut slots.iter().map(|slot| slot.discarded));
    if by_event.abs_diff(by_slot) > MOST {
        slots.retain(|slot| in_use(slot.slot));
    } else if let Some(most) = slots.iter_mut().max_by_key(|slot| slot.discarded) {
        most.discarded = most.discarded.saturating_add(by_event).saturating_sub(by_slot);
    }
}

/// The pages in use, in order.
fn pages(copier: &mut Copier) -> io::Result<Vec<Page>> {
    copier.arena.refresh()?;
    fence(Ordering::Acquire); // before the second look
    let slots = copier.arena.header.slots;
    let used = copier.arena.entries().filter(|(_, e)| e.continues(e) && e.slot < slots);
    let mut pages: Vec<Page> = used.map(|(index, entry)| Page { index, entry }).collect();
    pages.sort_by_key(|page| (page.entry.slot, page.entry.ordinal));
    Ok(pages)
}

/// Copies the pages of a slot, the newest first, because the oldest go first; returns how many were
/// left out.
fn copy_stream(copier: &mut Copier, pages: &[Page], discarded: u64) -> io::Result<u64> {
    let mut copied = Vec::new();
    for page in pages.iter().rev() {
        match copy_page(copier, page)? {
            Some(copy) => copied.push(copy),
            None => break,
        }
    }
    let rejected = pages.len() - copied.len();
    for at in (0..copied.len()).rev() {
        let (entry, copies) = &copied[at];
        let next = copier.slots.get(&entry.slot).map_or(0, |slot| slot.next_ordinal);
        if entry.ordinal < next {
            copier.spoilt += 1;
            continue;
        }
        // The newest come first.
        let later = at.checked_sub(1).and_then(|at| begin(&copied[at]));
        let bytes = copier.append_committed(entry, copies, discarded, later)?;
        // A full page is packets from end to end.
        copier.spoilt += u64::from(is_full(entry) && bytes < entry.used as usize);
    }
    Ok(rejected as u64)
}

/// When a page begins.
fn begin((entry, copies): &(PageEntry, Copies)) -> Option<u64> {
    let first = PacketHeader::parse(&copies.0).ok()?;
    (first.stream == u64::from(entry.slot)).then_some(first.begin)
}

/// Copies one page; `None` if it was written over meanwhile.
fn copy_page(copier: &Copier, page: &Page) -> io::Result<Option<(PageEntry, Copies)>> {
    let before = copier.arena.entry(page.index)?;
    if !before.continues(&page.entry) {
        return Ok(None);
    }
    fence(Ordering::Acquire); // the content after the second look
    let copies = copier.read_twice(page.index)?;
    fence(Ordering::Acquire); // the third look after the content
    let after = copier.arena.entry(page.index)?;
    Ok(after.continues(&before).then_some((before, copies)))
}
