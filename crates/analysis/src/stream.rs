//! One stream file: finds its packets, holds at most one window of it in memory, and walks the
//! records of a packet. Sizes come from a file that may be damaged or hostile, so each is compared
//! with what is there, and with [`MOST`], before it is used.

use crate::damage::DamageLog;
use crate::trace::EventType;
use gracepoint_wire::arena::PAGE_RANGE;
use gracepoint_wire::packet::{HEADER, PacketHeader, parse_event_header};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Largest packet, in bytes: a packet lies in a page.
pub(crate) const MOST: u64 = *PAGE_RANGE.end() as u64;
/// Stream files that stay open; the others are opened for each packet.
const OPEN_FILES: usize = 128;
/// Bytes that a file's first read asks for.
const AHEAD_FIRST: usize = 4 << 10;
/// Memory that all windows together may take beyond the packets that they must hold.
const READ_AHEAD: usize = 64 << 20;

/// What the stream files of one reader share.
#[derive(Debug)]
pub(crate) struct Budget {
    open: usize,
    spare: Vec<Vec<u8>>,
    /// Bytes to read at once, at most, beyond what must be.
    chunk: usize,
    /// Too many streams to keep a window for each, or too little of each is wanted.
    crowded: bool,
}

impl Budget {
    /// `sparse` says that packets are stepped over: then headers are read alone.
    pub(crate) fn new(streams: usize, sparse: bool) -> Budget {
        let chunk = (READ_AHEAD / streams.max(1)).min(256 << 10);
        Budget { open: 0, spare: Vec::new(), chunk, crowded: sparse || streams > 256 }
    }
}

/// Where a stream is.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    File(PathBuf),
    /// In memory, under this name.
    Memory(String, Arc<[u8]>),
}

/// A stream file and the part of it that is in memory.
#[derive(Debug)]
pub(crate) struct StreamFile {
    source: Stored,
    /// The file's name, for messages.
    pub(crate) name: String,
    file: Option<File>,
    window: Vec<u8>,
    /// Bytes to read at once: few at first, since most files are short, then twice as many each time.
    ahead: usize,
    /// Offset in the file, and how much of `window` is filled.
    window_at: u64,
    window_len: usize,
    /// Offset of the next packet.
    next: u64,
    /// The last packet's sequence number and end.
    last: Option<(u64, u64)>,
}

/// A packet whose events can be walked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packet {
    pub(crate) header: PacketHeader,
    /// Offset in the file.
    pub(crate) at: u64,
    /// Next record and end of the content, as offsets in the window.
    from: usize,
    to: usize,
    /// Time of the last record.
    ticks: u64,
    latest: u64,
    /// The file ends before the content does; that is reported already.
    cut: bool,
    backwards: bool,
}

/// One record: which kind, when, and where in the window.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) event: u32,
    pub(crate) ticks: u64,
    pub(crate) payload: Range<usize>,
}

#[cfg(unix)]
fn read_some(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, at)
}

#[cfg(windows)]
fn read_some(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, at)
}

impl StreamFile {
    pub(crate) fn new(source: &Stored) -> StreamFile {
        let name = match source {
            Stored::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into(),
            Stored::Memory(name, _) => name.clone(),
        };
        StreamFile {
            source: source.clone(),
            name,
            file: None,
            window: Vec::new(),
            ahead: AHEAD_FIRST,
            window_at: 0,
            window_len: 0,
            next: 0,
            last: None,
        }
    }

    /// The bytes that [`Record::payload`] points into.
    pub(crate) fn window(&self) -> &[u8] {
        &self.window
    }

    /// Reads the header of the next packet; `None` at the end of what can be read.
    pub(crate) fn next_header(
        &mut self,
        budget: &mut Budget,
        damage: &mut DamageLog,
    ) -> Option<Packet> {
        let at = self.next;
        let mut bytes = [0; HEADER];
        let have = match self.peek(at, &mut bytes, budget) {
            Ok(have) => have,
            Err(e) => {
                damage.add(&self.name, at, format!("cannot be read: {e}; nothing from here on is"));
                return None;
            }
        };
        if have == 0 {
            self.close(budget);
            return None;
        }
        let header = PacketHeader::parse(&bytes[..have]).map_err(|e| e.to_string());
        let header = header.and_then(|h| match h.packet_bytes() > MOST {
            true => Err(format!("packet of {} bytes, more than any has", h.packet_bytes())),
            false => Ok(h),
        });
        let header = match header {
            Ok(header) => header,
            Err(what) => {
                let left = self.len().saturating_sub(at);
                damage.add(&self.name, at, format!("{what}; {left} bytes are not read"));
                self.close(budget);
                return None;
            }
        };
        self.check_sequence(&header, at, damage);
        self.next = at + header.packet_bytes();
        Some(Packet { header, at, ..Packet::default() })
    }

    fn check_sequence(&mut self, header: &PacketHeader, at: u64, damage: &mut DamageLog) {
        if let Some((seq, end)) = self.last {
            if header.seq > seq.saturating_add(1) {
                let what = format!("packets {} to {} are missing", seq + 1, header.seq - 1);
                damage.add(&self.name, at, what);
            } else if header.seq <= seq {
                damage.add(&self.name, at, format!("packet {} follows packet {seq}", header.seq));
            }
            if header.begin < end {
                damage.add(&self.name, at, "packet begins before the one before it ended");
            }
        }
        self.last = Some((header.seq, header.end));
    }

    /// Brings the packet's content into memory and makes it ready to be walked.
    pub(crate) fn load(
        &mut self,
        packet: &mut Packet,
        budget: &mut Budget,
        damage: &mut DamageLog,
    ) {
        let wanted = packet.header.content_bytes() as usize;
        // The next header comes with it, so that a file that does not stay open is opened once.
        let have =
            self.bring(packet.at, wanted, packet.header.packet_bytes() as usize + HEADER, budget);
        let have = have.unwrap_or_else(|e| {
            damage.add(
                &self.name,
                packet.at,
                format!("cannot be read: {e}; the packet is not read"),
            );
            packet.cut = true;
            HEADER
        });
        if have < wanted && !packet.cut {
            let what = format!("the file ends after {have} of a packet's {wanted} bytes");
            damage.add(&self.name, packet.at, what);
            packet.cut = true;
        }
        let start = (packet.at.saturating_sub(self.window_at)) as usize;
        packet.from = start + HEADER;
        packet.to = start + have.clamp(HEADER, wanted);
        packet.ticks = packet.header.begin;
        packet.latest = packet.header.begin;
    }

    /// Makes at least `wanted` bytes at `at` part of the window, more if that is cheap; says how
    /// many of `wanted` there are.
    fn bring(
        &mut self,
        at: u64,
        wanted: usize,
        hint: usize,
        budget: &mut Budget,
    ) -> io::Result<usize> {
        let end = self.window_at + self.window_len as u64;
        if at >= self.window_at && at + wanted as u64 <= end {
            return Ok(wanted);
        }
        let size = hint.max(self.ahead.min(budget.chunk)).max(wanted);
        self.ahead = self.ahead.saturating_mul(2);
        if self.window.is_empty() {
            self.window = budget.spare.pop().unwrap_or_default();
        }
        if self.window.len() < size {
            self.window.resize(size, 0);
        }
        self.window_at = at;
        self.window_len = 0;
        let mut window = std::mem::take(&mut self.window);
        let got = self.read_at(at, &mut window[..size], budget);
        self.window = window;
        self.window_len = got?;
        Ok(self.window_len.min(wanted))
    }

    /// Copies from the window, or else from the file, without moving the window.
    fn peek(&mut self, at: u64, into: &mut [u8; HEADER], budget: &mut Budget) -> io::Result<usize> {
        let end = self.window_at + self.window_len as u64;
        if at >= self.window_at && at + HEADER as u64 <= end {
            let from = (at - self.window_at) as usize;
            into.copy_from_slice(&self.window[from..from + HEADER]);
            return Ok(HEADER);
        }
        if !budget.crowded {
            let have = self.bring(at, HEADER, HEADER, budget)?;
            into[..have].copy_from_slice(&self.window[..have]);
            return Ok(have);
        }
        self.release(budget);
        self.read_at(at, into, budget)
    }

    fn read_at(&mut self, at: u64, into: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        let opened;
        let file = match (&self.file, &self.source) {
            (Some(file), _) => file,
            (None, Stored::Memory(_, bytes)) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let have = into.len().min(bytes.len() - from);
                into[..have].copy_from_slice(&bytes[from..from + have]);
                return Ok(have);
            }
            (None, Stored::File(path)) => {
                let file = File::open(path)?;
                if budget.open < OPEN_FILES {
                    budget.open += 1;
                    self.file.insert(file)
                } else {
                    opened = file;
                    &opened
                }
            }
        };
        let mut have = 0;
        while have < into.len() {
            match read_some(file, &mut into[have..], at + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(have)
    }

    /// Gives the window's memory to another stream.
    fn release(&mut self, budget: &mut Budget) {
        self.window_len = 0;
        let window = std::mem::take(&mut self.window);
        if !window.is_empty() && budget.spare.len() < 64 {
            budget.spare.push(window);
        }
    }

    pub(crate) fn close(&mut self, budget: &mut Budget) {
        self.release(budget);
        if self.file.take().is_some() {
            budget.open -= 1;
        }
    }

    fn len(&self) -> u64 {
        match &self.source {
            Stored::File(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
            Stored::Memory(_, bytes) => bytes.len() as u64,
        }
    }

    /// The next record of a loaded packet; at its end, or where it makes no sense, `None`.
    #[inline]
    pub(crate) fn next_record(
        &self,
        packet: &mut Packet,
        kinds: &Kinds<'_>,
        damage: &mut DamageLog,
    ) -> Option<Record> {
        let bytes = &self.window[packet.from..packet.to];
        if bytes.is_empty() {
            self.end_packet(packet, damage);
            return None;
        }
        match find_record(bytes, packet.ticks, kinds) {
            Ok((event, ticks, header, payload)) => {
                packet.backwards |= ticks < packet.ticks;
                packet.ticks = ticks;
                packet.latest = packet.latest.max(ticks);
                let from = packet.from + header;
                packet.from = from + payload;
                Some(Record { event, ticks, payload: from..packet.from })
            }
            Err(bad) => {
                self.bad_record(packet, &bad, damage);
                None
            }
        }
    }

    #[cold]
    fn bad_record(&self, packet: &mut Packet, bad: &Bad, damage: &mut DamageLog) {
        let left = packet.to - packet.from;
        let what = match bad {
            // The file's end is in the middle of a record, which is no news.
            Bad::Cut if packet.cut => return self.end_packet(packet, damage),
            Bad::Cut => "a record runs over the packet's end".to_owned(),
            Bad::Unknown(id) => format!("a record has id {id}, which the metadata does not name"),
        };
        let offset = self.window_at + packet.from as u64;
        let what = format!("{what}; the last {left} bytes of the packet are not read");
        damage.add(&self.name, offset, what);
        self.end_packet(packet, damage);
    }

    fn end_packet(&self, packet: &mut Packet, damage: &mut DamageLog) {
        packet.from = packet.to;
        if packet.backwards {
            damage.add(&self.name, packet.at, "time goes backwards in this packet");
        }
        if packet.header.packet_bits != 0 && packet.latest > packet.header.end {
            damage.add(&self.name, packet.at, "a record is later than its packet's end");
        }
        (packet.backwards, packet.latest) = (false, 0);
    }
}

/// Why no record could be read.
enum Bad {
    Cut,
    Unknown(u32),
}

/// Kind, time, bytes of the header and bytes of the payload of the record at `bytes`.
#[inline]
fn find_record(
    bytes: &[u8],
    previous: u64,
    kinds: &Kinds<'_>,
) -> std::result::Result<(u32, u64, usize, usize), Bad> {
    let header = parse_event_header(bytes, previous).ok_or(Bad::Cut)?;
    let event = kinds.index(header.id).ok_or(Bad::Unknown(header.id))?;
    let payload = bytes.get(header.len..).ok_or(Bad::Cut)?;
    let n = kinds.events[event as usize].plan.skip(payload).ok_or(Bad::Cut)?;
    Ok((event, header.ticks, header.len, n))
}

/// Events by numeric id.
#[derive(Debug)]
pub(crate) struct Kinds<'t> {
    pub(crate) events: &'t [EventType],
    /// For small ids: position in `events`, or `u32::MAX`.
    dense: Vec<u32>,
    sparse: HashMap<u32, u32>,
}

/// Ids below this are looked up in a table.
const DENSE: u32 = 1 << 16;

impl<'t> Kinds<'t> {
    pub(crate) fn new(events: &'t [EventType]) -> Kinds<'t> {
        let mut kinds = Kinds { events, dense: Vec::new(), sparse: HashMap::new() };
        for (event, index) in events.iter().zip(0..) {
            let id = event.declared.id;
            if id >= DENSE {
                kinds.sparse.insert(id, index);
                continue;
            }
            if kinds.dense.len() <= id as usize {
                kinds.dense.resize(id as usize + 1, u32::MAX);
            }
            kinds.dense[id as usize] = index;
        }
        kinds
    }

    #[inline]
    pub(crate) fn index(&self, id: u32) -> Option<u32> {
        match self.dense.get(id as usize) {
            Some(&index) => (index != u32::MAX).then_some(index),
            None => self.sparse.get(&id).copied(),
        }
    }
}
