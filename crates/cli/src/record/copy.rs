//! From the arena to the stream files.
//!
//! Full pages are copied in the order of their ordinals, slot by slot. A slot's page whose
//! predecessor is not written yet is held back; if a look at the whole table, begun after the page
//! was seen full, shows no such predecessor, there is none (a slot takes a page only after it is
//! done with the one before, and only we give full pages back).
//!
//! Packet headers are checked on the way, which costs little (a page has few packets): a broken
//! program then spoils its own packets and not the trace, and at the end we know where each stream
//! stands. Pages are used again without being cleared, so behind a page's last packet there may be
//! an older one: its sequence number gives it away, which in a stream only ever grows.
//!
//! Pages go to the file as they are, with two exceptions. Readers of CTF take losses from the
//! difference between two packets, so a stream whose first packet tells of losses already gets an
//! empty one before it, and all its sequence numbers move up by one. And a copy of a buffer that goes
//! on leaves out pages that were used again, and may begin in the middle: its packets are numbered
//! anew, since what is left out is counted as lost.

use super::arena::{Arena, is_full, is_owned};
use super::own::Own;
use super::streams::Streams;
use gracepoint_wire::arena::PageEntry;
use gracepoint_wire::packet::{
    ALIGN, END_AT, HEADER, NAME, PacketHeader, SEQ_AT, parse_event_header, round_up,
};
use gracepoint_wire::schema::{Context, LOSS_ID};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{Ordering, fence};

/// Where one stream stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    pub(crate) next_ordinal: u64,
    /// Whether anything is in its file.
    pub(crate) begun: bool,
    /// Sequence number of the next packet, as the program counts.
    pub(crate) next_seq: u64,
    /// What to add to that for the file, modulo 2⁶⁴.
    pub(crate) shift: u64,
    /// Latest end of a packet.
    pub(crate) end: u64,
    /// Losses that its packets tell so far.
    pub(crate) discarded: u64,
    /// Losses that were told before its file began.
    pub(crate) base: u64,
    pub(crate) tid: u32,
    pub(crate) thread: [u8; NAME],
}

/// Copies packets.
#[derive(Debug)]
pub(crate) struct Copier {
    pub(crate) arena: Arena,
    pub(crate) streams: Streams,
    pub(crate) slots: HashMap<u32, Slot>,
    /// When the session began, in ticks.
    pub(crate) since: u64,
    /// Pages in which not everything was a packet.
    pub(crate) spoilt: u64,
    /// Losses by id that the `gp:loss` records copied so far tell.
    pub(crate) told: BTreeMap<u32, u64>,
    /// Of these, what was told before the trace began that is being written.
    pub(crate) told_before: BTreeMap<u32, u64>,
    /// The session has `gp:unthrottle` among its events.
    pub(crate) tells_throttling: bool,
    /// What lies before the fields of each event.
    pub(crate) context: Context,
    /// What the recorder writes itself.
    pub(crate) own: Own,
    /// The arena is copied as it is, while the program and other consumers go on, or after them.
    pub(crate) as_it_is: bool,
    page: Vec<u8>,
}

/// Two copies of a page, the second begun when the first was done.
pub(crate) type Copies = (Vec<u8>, Vec<u8>);

/// One page of a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) index: u32,
    pub(crate) entry: PageEntry,
}

impl Copier {
    pub(crate) fn new(arena: Arena, streams: Streams) -> Copier {
        Copier {
            arena,
            streams,
            slots: HashMap::new(),
            since: 0,
            spoilt: 0,
            told: BTreeMap::new(),
            told_before: BTreeMap::new(),
            tells_throttling: false,
            context: Context::default(),
            own: Own::default(),
            as_it_is: false,
            page: Vec::new(),
        }
    }

    /// Goes on in other files, which are a trace of their own.
    pub(crate) fn next_piece(&mut self, streams: Streams) {
        self.streams = streams;
        self.told_before = self.told.clone();
        self.own.next_piece();
        for slot in self.slots.values_mut() {
            slot.begun = false;
            slot.base = slot.discarded;
            self.since = self.since.max(slot.end);
        }
    }

    /// Copies what is full; returns the pages (index, ordinal) that may be given back.
    ///
    /// # Errors
    /// When the arena cannot be read or a file cannot be written.
    pub(crate) fn copy_full(&mut self) -> io::Result<Vec<(u32, u64)>> {
        self.arena.refresh()?;
        let mut full = self.full_pages()?;
        let mut done = Vec::new();
        if full.is_empty() {
            return Ok(done);
        }
        let mut held = self.copy_in_order(&full, &mut done)?;
        if held.is_empty() {
            return Ok(done);
        }
        self.arena.refresh()?;
        full = self.full_pages()?;
        held = self.copy_in_order(&full, &mut done)?;
        // `held` is in order, so a page skipped to makes its successors follow.
        for page in held {
            let slot = self.slots.entry(page.entry.slot).or_default();
            let next = slot.next_ordinal;
            let waits = |e: &PageEntry| {
                e.slot == page.entry.slot
                    && (next..page.entry.ordinal).contains(&e.ordinal)
                    && (is_owned(e) || is_full(e))
            };
            let awaited = self.arena.entries().any(|(_, e)| waits(&e));
            if !awaited && page.entry.ordinal >= next {
                self.copy_page(page)?;
                done.push((page.index, page.entry.ordinal));
            }
        }
        Ok(done)
    }

    /// Whether most pages are held by threads, as last seen: many of which may be idle.
    pub(crate) fn pages_are_short(&self) -> bool {
        let owned = self.arena.entries().filter(|(_, entry)| is_owned(entry)).count();
        owned * 2 > self.arena.header.pages as usize
    }

    /// Full pages that are not copied yet, by slot and ordinal.
    fn full_pages(&self) -> io::Result<Vec<Page>> {
        let mut full = Vec::new();
        for (index, entry) in self.arena.entries() {
            if !is_full(&entry) {
                continue;
            }
            // Again, now that it is known to be full: the first look may have mixed old and new.
            let entry = self.arena.entry(index)?;
            let next = self.slots.get(&entry.slot).map_or(0, |slot| slot.next_ordinal);
            if is_full(&entry) && entry.slot < self.arena.header.slots && entry.ordinal >= next {
                full.push(Page { index, entry });
            }
        }
        full.sort_by_key(|page| (page.entry.slot, page.entry.ordinal));
        Ok(full)
    }

    /// Copies the pages whose turn it is and returns the others.
    fn copy_in_order(
        &mut self,
        pages: &[Page],
        done: &mut Vec<(u32, u64)>,
    ) -> io::Result<Vec<Page>> {
        let mut held = Vec::new();
        for &page in pages {
            let next = self.slots.entry(page.entry.slot).or_default().next_ordinal;
            if page.entry.ordinal == next {
                self.copy_page(page)?;
                done.push((page.index, page.entry.ordinal));
            } else {
                held.push(page);
            }
        }
        Ok(held)
    }

    fn copy_page(&mut self, page: Page) -> io::Result<()> {
        let used = page.entry.used.min(self.arena.header.page_bytes) as usize;
        self.page.resize(used, 0);
        self.arena.read_page(page.index, 0, &mut self.page)?;
        let slot = self.slots.entry(page.entry.slot).or_default();
        slot.next_ordinal = page.entry.ordinal.saturating_add(1);
        let mut after = *slot;
        let good = walk_closed(&self.page, page.entry.slot, &mut after);
        self.spoilt += u64::from(good < used);
        append(&mut self.streams, page.entry.slot, &mut self.page[..good], &mut after, self.since)?;
        *slot = after;
        note_told(&self.page[..good], self.context.empty_len(), &mut self.told);
        Ok(())
    }

    /// Copies what is committed in the pages that are being filled, in order; for the end, when
    /// full pages are copied. `discarded` tells a slot's losses, which go into its last packet.
    ///
    /// # Errors
    /// As for [`Copier::copy_full`].
    pub(crate) fn copy_owned(&mut self, discarded: impl Fn(u32) -> u64) -> io::Result<()> {
        self.arena.refresh()?;
        let mut pages: Vec<Page> = self
            .arena
            .entries()
            .filter(|(_, entry)| is_owned(entry) || is_full(entry))
            .filter(|(_, entry)| entry.slot < self.arena.header.slots)
            .map(|(index, entry)| Page { index, entry })
            .collect();
        pages.sort_by_key(|page| (page.entry.slot, page.entry.ordinal));
        for page in pages {
            let next = self.slots.get(&page.entry.slot).map_or(0, |slot| slot.next_ordinal);
            if page.entry.ordinal < next {
                continue;
            }
            if is_full(&page.entry) {
                self.copy_page(page)?;
            } else {
                self.copy_open_page(page, discarded(page.entry.slot))?;
            }
        }
        Ok(())
    }

    /// A page as two copies, for [`Copier::append_committed`].
    pub(crate) fn read_twice(&self, index: u32) -> io::Result<Copies> {
        let mut marks = vec![0; self.arena.header.page_bytes as usize];
        self.arena.read_page(index, 0, &mut marks)?;
        fence(Ordering::Acquire); // the content after the marks
        let mut content = vec![0; marks.len()];
        self.arena.read_page(index, 0, &mut content)?;
        Ok((marks, content))
    }

    /// Appends what is committed on a page that was copied while it may have been filled; returns how
    /// many bytes that is. `next` is when the slot's next page begins, where that is known.
    pub(crate) fn append_committed(
        &mut self,
        entry: &PageEntry,
        (marks, content): &Copies,
        discarded: u64,
        next: Option<u64>,
    ) -> io::Result<usize> {
        let stream = entry.slot;
        let mut after = self.slots.get(&stream).copied().unwrap_or_default();
        let most = if self.as_it_is { discarded } else { u64::MAX };
        let mut bytes = committed(marks, content, stream, &mut after, discarded..=most, next);
        after.next_ordinal = entry.ordinal.saturating_add(1);
        // The first packets of a stream may be gone. Readers are told by the count of lost events, where
        // they are lost, and not by a gap.
        if !after.begun && self.as_it_is {
            let first = PacketHeader::parse(&bytes).map_or(0, |header| header.seq);
            after.shift = 0u64.wrapping_sub(first);
        }
        append(&mut self.streams, stream, &mut bytes, &mut after, self.since)?;
        self.slots.insert(stream, after);
        note_told(&bytes, self.context.empty_len(), &mut self.told);
        Ok(bytes.len())
    }

    fn copy_open_page(&mut self, page: Page, discarded: u64) -> io::Result<()> {
        let copies = self.read_twice(page.index)?;
        self.append_committed(&page.entry, &copies, discarded, None).map(drop)
    }
}

/// Adds up the losses that packets tell. A program writes them down when it opens a packet, before
/// anything else in it, each after an empty context of so many bytes.
fn note_told(mut packets: &[u8], context: usize, told: &mut BTreeMap<u32, u64>) {
    while let Ok(header) = PacketHeader::parse(packets) {
        let (mut at, mut now) = (HEADER, header.begin);
        let content = usize::try_from(header.content_bytes()).unwrap_or(0).min(packets.len());
        while let Some(event) = parse_event_header(&packets[at.min(content)..content], now)
            && event.id == LOSS_ID
            && let Some(rest) = packets[..content].get(at + event.len + context..)
            && let Some(fields) = rest.first_chunk::<12>()
        {
            let [a, b, c, d, count @ ..] = *fields;
            let lost = told.entry(u32::from_le_bytes([a, b, c, d])).or_default();
            *lost = lost.saturating_add(u64::from_le_bytes(count));
            (at, now) = (at + event.len + context + fields.len(), event.ticks);
        }
        let size = usize::try_from(header.packet_bytes()).unwrap_or(usize::MAX);
        packets = packets.get(size..).unwrap_or_default();
    }
}

/// Appends whole packets to a stream's file; see the top for the one exception.
fn append(
    streams: &mut Streams,
    stream: u32,
    packets: &mut [u8],
    slot: &mut Slot,
    since: u64,
) -> io::Result<()> {
    let Ok(first) = PacketHeader::parse(packets) else { return Ok(()) };
    if !slot.begun && first.discarded > slot.base {
        let mut empty = empty_packet(&first, since.min(first.begin));
        empty.seq = first.seq.wrapping_add(slot.shift);
        empty.discarded = slot.base;
        streams.append(stream.into(), &empty.to_bytes())?;
        slot.shift = slot.shift.wrapping_add(1);
    }
    slot.begun = true;
    let mut at = 0;
    while slot.shift != 0
        && let Ok(header) = PacketHeader::parse(&packets[at..])
    {
        let seq = header.seq.wrapping_add(slot.shift);
        packets[at + SEQ_AT..at + SEQ_AT + 8].copy_from_slice(&seq.to_le_bytes());
        at += header.packet_bytes() as usize;
    }
    streams.append(stream.into(), packets)
}

/// A packet without events or losses at the beginning of a stream that `first` continues.
pub(crate) fn empty_packet(first: &PacketHeader, at: u64) -> PacketHeader {
    PacketHeader {
        begin: at,
        end: at,
        content_bits: HEADER as u64 * 8,
        packet_bits: HEADER as u64 * 8,
        seq: 0,
        discarded: 0,
        ..*first
    }
}

/// Whether `header` can be the next packet of the stream.
fn follows(header: &PacketHeader, stream: u32, slot: &Slot) -> bool {
    header.stream == u64::from(stream)
        && header.seq >= slot.next_seq
        && header.begin >= slot.end
        && header.content_bits.is_multiple_of(8)
        && header.packet_bits.is_multiple_of(64)
}

fn step(slot: &mut Slot, header: &PacketHeader) {
    slot.next_seq = header.seq.saturating_add(1);
    slot.end = header.end;
    slot.discarded = header.discarded;
    slot.tid = header.tid;
    slot.thread = header.thread;
}

/// How many bytes at the start of `bytes` are closed packets that continue the stream.
fn walk_closed(bytes: &[u8], stream: u32, slot: &mut Slot) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let Ok(header) = PacketHeader::parse(&bytes[at..]) else { break };
        let size = header.packet_bytes();
        let whole = header.packet_bits != 0 && size <= (bytes.len() - at) as u64;
        if !whole || header.end < header.begin || !follows(&header, stream, slot) {
            break;
        }
        step(slot, &header);
        at += size as usize;
    }
    at
}

/// The packets of a page that a thread may still be filling: closed ones as they are, the open one
/// closed by us at its commit mark, or left out where it is empty. `marks` and `content` are two
/// copies of the page, the second begun when the first was done: what lies before a commit mark, and
/// the end of the last event, is read after the mark. `discarded` is what the last packet tells of
/// losses at least, and what any tells at most: in overwrite mode losses go on while pages are copied.
///
/// A packet ends when the next one begins, at the latest: one that says otherwise (`next` is the
/// moment for the page's last) has been scribbled on, and would make all that follows look too early.
fn committed(
    marks: &[u8],
    content: &[u8],
    stream: u32,
    slot: &mut Slot,
    discarded: RangeInclusive<u64>,
    next: Option<u64>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Ok(mut header) = PacketHeader::parse(&marks[at..]) {
        let size = header.packet_bytes();
        if !follows(&header, stream, slot) || size > (marks.len() - at) as u64 {
            break;
        }
        let length = header.content_bytes() as usize;
        let open = header.packet_bits == 0;
        if open {
            let end = content[at + END_AT..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            header.end = end.max(header.begin);
            header.packet_bits = round_up(header.content_bytes()) * 8;
            header.discarded = header.discarded.max(*discarded.start());
        } else if header.end < header.begin {
            break;
        }
        header.discarded = header.discarded.min(*discarded.end());
        let later = successor(&marks[at + (size as usize).max(HEADER)..], &header).or(next);
        match later {
            Some(later) if later >= header.begin => header.end = header.end.min(later),
            // Its own begin is the one that lies: the next one's could follow what came before.
            Some(later) if !open && later >= slot.end => {
                at += size as usize;
                continue;
            }
            _ => {}
        }
        // An empty packet that is closed stays: sequence numbers without gaps tell readers that no
        // packet is missing.
        if !open || length > HEADER {
            step(slot, &header);
            // What was checked, not what the second look found in its place.
            out.extend_from_slice(&header.to_bytes());
            out.extend_from_slice(&content[at + HEADER..at + length]);
            out.resize(out.len().next_multiple_of(ALIGN), 0);
            out.resize(out.len() + (size - round_up(length as u64)) as usize, 0);
        }
        if open {
            break;
        }
        at += size as usize;
    }
    out
}

/// When the packet begins that lies behind `header`'s on its page, if there is such a one.
fn successor(behind: &[u8], header: &PacketHeader) -> Option<u64> {
    let next = PacketHeader::parse(behind).ok()?;
    let ours = next.stream == header.stream && Some(next.seq) == header.seq.checked_add(1);
    (ours && header.packet_bits != 0).then_some(next.begin)
}

#[cfg(test)]
mod tests;
