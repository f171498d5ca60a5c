//! CTF 1.8 packets as they lie in the arena and in a trace's stream files.
//!
//! ```text
//!  0 magic u32            C1FC1FC1
//!  4 stream_id u32        0
//!  8 stream_instance u64  ring slot; one stream file each
//! 16 begin u64            ticks, not after the first event, not before the previous packet's end
//! 24 end u64              ticks, not before the last event
//! 32 content_size u64     bits, this header included: THE COMMIT WORD of an open packet
//! 40 packet_size u64      bits; 0 while the packet is open
//! 48 seq u64              packets of this stream, counted from 0
//! 56 events_discarded u64 of this stream up to this packet
//! 64 tid u32
//! 68 thread [u8;16]       name, NUL-padded
//! 84 reserved u32         0
//! 88 events …
//! ```
//!
//! A packet starts on 8 bytes. A writer commits by one release store to `content_size`; whatever
//! lies before that mark is whole. A closed packet has a `packet_size`, which is its content
//! rounded up to 8 bytes; the next packet of the page follows at once.
//!
//! Event header: a 12-bit id and a 28-bit time in 5 bytes; or, where the id is over 4094 or the
//! time since the previous record (or the packet's begin) does not fit in 28 bits, the id 4095 in
//! 16 bits, then the id as u32 and the full time as u64: 14 bytes.

use crate::{Error, Result};

/// First word of a packet.
pub const MAGIC: u32 = 0xC1FC_1FC1;
/// Bytes before a packet's first event.
pub const HEADER: usize = 88;
/// Packets start on a multiple of this many bytes.
pub const ALIGN: usize = 8;
/// Byte offset of `end`.
pub const END_AT: usize = 24;
/// Byte offset of `content_size`, the commit word.
pub const CONTENT_AT: usize = 32;
/// Byte offset of `packet_size`.
pub const PACKET_AT: usize = 40;
/// Byte offset of `seq`.
pub const SEQ_AT: usize = 48;
/// Byte offset of `events_discarded`.
pub const DISCARDED_AT: usize = 56;
/// Bytes of a thread's name.
pub const NAME: usize = 16;

/// The id that announces an extended event header.
pub const EXTENDED: u32 = 4095;
/// Bits of time in a compact event header.
pub const TIME_BITS: u32 = 28;
/// Bytes of a compact event header.
pub const COMPACT_HEADER: usize = 5;
/// Bytes of an extended event header.
pub const EXTENDED_HEADER: usize = 14;

/// The fields of a packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketHeader {
    /// Ring slot.
    pub stream: u64,
    /// Ticks at the beginning.
    pub begin: u64,
    /// Ticks at the end.
    pub end: u64,
    /// Committed bits, header included.
    pub content_bits: u64,
    /// Bits up to the next packet; 0 while the packet is open.
    pub packet_bits: u64,
    /// Position among the packets of the stream.
    pub seq: u64,
    /// Events of the stream lost so far.
    pub discarded: u64,
    /// Thread id, as the traced program sees it.
    pub tid: u32,
    /// Thread name, NUL-padded.
    pub thread: [u8; NAME],
}

impl PacketHeader {
    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[8..16].copy_from_slice(&self.stream.to_le_bytes());
        b[16..24].copy_from_slice(&self.begin.to_le_bytes());
        b[24..32].copy_from_slice(&self.end.to_le_bytes());
        b[32..40].copy_from_slice(&self.content_bits.to_le_bytes());
        b[40..48].copy_from_slice(&self.packet_bits.to_le_bytes());
        b[48..56].copy_from_slice(&self.seq.to_le_bytes());
        b[56..64].copy_from_slice(&self.discarded.to_le_bytes());
        b[64..68].copy_from_slice(&self.tid.to_le_bytes());
        b[68..84].copy_from_slice(&self.thread);
        b
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// When there are too few bytes, the magic is another, or a size is smaller than the header.
    /// Sizes may still exceed what is there: the caller compares with what it has.
    pub fn parse(bytes: &[u8]) -> Result<PacketHeader> {
        let b: &[u8; HEADER] = bytes
            .first_chunk()
            .ok_or_else(|| Error::new(format!("packet header cut after {} bytes", bytes.len())))?;
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let u64_at = |at| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(0) != MAGIC {
            return Err(Error::new(format!("no packet here (magic {:#010x})", u32_at(0))));
        }
        let mut thread = [0; NAME];
        thread.copy_from_slice(&b[68..84]);
        let header = PacketHeader {
            stream: u64_at(8),
            begin: u64_at(16),
            end: u64_at(24),
            content_bits: u64_at(32),
            packet_bits: u64_at(40),
            seq: u64_at(48),
            discarded: u64_at(56),
            tid: u32_at(64),
            thread,
        };
        let least = HEADER as u64 * 8;
        let open = header.packet_bits == 0;
        if header.content_bits < least || (!open && header.packet_bits < header.content_bits) {
            return Err(Error::new(format!(
                "packet sizes make no sense ({} of {} bits)",
                header.content_bits, header.packet_bits
            )));
        }
        Ok(header)
    }

    /// Committed bytes, header included.
    pub fn content_bytes(&self) -> u64 {
        self.content_bits / 8
    }

    /// Bytes up to the next packet: for an open packet, its content rounded up.
    pub fn packet_bytes(&self) -> u64 {
        if self.packet_bits == 0 { round_up(self.content_bytes()) } else { self.packet_bits / 8 }
    }

    /// The thread's name up to its first NUL, with what is not UTF-8 replaced.
    pub fn thread_name(&self) -> String {
        let end = self.thread.iter().position(|&b| b == 0).unwrap_or(NAME);
        String::from_utf8_lossy(&self.thread[..end]).into_owned()
    }
}

/// `bytes` rounded up to a packet boundary.
pub const fn round_up(bytes: u64) -> u64 {
    bytes.saturating_add(ALIGN as u64 - 1) & !(ALIGN as u64 - 1)
}

/// Must the event after `gap` ticks use the extended header?
#[inline]
pub const fn needs_extended(id: u32, gap: u64) -> bool {
    id >= EXTENDED || gap >> TIME_BITS != 0
}

/// A compact header: the low 5 bytes of the result.
#[inline]
pub const fn compact_header(id: u32, ticks: u64) -> u64 {
    id as u64 | (ticks & ((1 << TIME_BITS) - 1)) << 12
}

/// An extended header.
pub fn extended_header(id: u32, ticks: u64) -> [u8; EXTENDED_HEADER] {
    let mut b = [0; EXTENDED_HEADER];
    b[..2].copy_from_slice(&(EXTENDED as u16).to_le_bytes());
    b[2..6].copy_from_slice(&id.to_le_bytes());
    b[6..].copy_from_slice(&ticks.to_le_bytes());
    b
}

/// An event header as read: id, full time in ticks, bytes taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader {
    /// Numeric id in the session.
    pub id: u32,
    /// Full time in ticks.
    pub ticks: u64,
    /// Bytes of the header.
    pub len: usize,
}

/// Reads the event header at the start of `bytes`; `previous` is the full time of the record
/// before it, or the packet's begin.
#[inline]
pub fn parse_event_header(bytes: &[u8], previous: u64) -> Option<EventHeader> {
    let low: &[u8; COMPACT_HEADER] = bytes.first_chunk()?;
    let word = u64::from_le_bytes([low[0], low[1], low[2], low[3], low[4], 0, 0, 0]);
    let id = (word & 0xfff) as u32;
    if id == EXTENDED {
        let b: &[u8; EXTENDED_HEADER] = bytes.first_chunk()?;
        let id = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
        let ticks = u64::from_le_bytes([b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13]]);
        return Some(EventHeader { id, ticks, len: EXTENDED_HEADER });
    }
    const MASK: u64 = (1 << TIME_BITS) - 1;
    let time = word >> 12;
    let mut ticks = (previous & !MASK) | time;
    if ticks < previous {
        ticks = ticks.wrapping_add(MASK + 1);
    }
    Some(EventHeader { id, ticks, len: COMPACT_HEADER })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let h = PacketHeader {
            stream: 3,
            begin: 10,
            end: 20,
            content_bits: 1000,
            packet_bits: 1024,
            seq: 7,
            discarded: 9,
            tid: 4242,
            thread: *b"worker-1\0\0\0\0\0\0\0\0",
        };
        assert_eq!(PacketHeader::parse(&h.to_bytes()), Ok(h));
        assert_eq!(h.thread_name(), "worker-1");
        assert!(PacketHeader::parse(&h.to_bytes()[..80]).is_err());
        assert!(PacketHeader::parse(&[0; HEADER]).is_err());
        let lie = PacketHeader { content_bits: 8, ..h };
        assert!(PacketHeader::parse(&lie.to_bytes()).is_err());
    }

    #[test]
    fn times_survive_the_compact_header() {
        for previous in [0u64, 5, (1 << 28) - 1, 1 << 28, 0x1234_5678_9abc] {
            for gap in [0, 1, 1000, (1 << 28) - 1] {
                let now = previous + gap;
                assert!(!needs_extended(4094, gap));
                let bytes = compact_header(77, now).to_le_bytes();
                let want = EventHeader { id: 77, ticks: now, len: COMPACT_HEADER };
                assert_eq!(parse_event_header(&bytes, previous), Some(want));
            }
        }
        assert!(needs_extended(4095, 0) && needs_extended(0, 1 << 28));
        let bytes = extended_header(70_000, u64::MAX);
        let want = EventHeader { id: 70_000, ticks: u64::MAX, len: EXTENDED_HEADER };
        assert_eq!(parse_event_header(&bytes, 0), Some(want));
        assert_eq!(parse_event_header(&bytes[..13], 0), None);
        assert_eq!(parse_event_header(&[], 0), None);
    }
}
