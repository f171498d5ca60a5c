//! Events of packets as they come from a program, before there is a trace: gathered, put in order of
//! time, handed out, forgotten.

use crate::Trace;
use crate::read::{Event, write_who};
use crate::trace::ToNs;
use gracepoint_wire::packet::{HEADER, PacketHeader, parse_event_header};
use std::collections::HashMap;
use std::ops::Range;

/// Gathers packets and hands out their events.
///
/// ```
/// use gracepoint_analysis::{Trace, live::Live};
/// use gracepoint_wire::clock::{Clock, Source, Triple};
/// use gracepoint_wire::packet::{self, PacketHeader};
/// use gracepoint_wire::schema::{Context, Declared, Role, Schema};
///
/// let schema = Schema { name: "a:tick".into(), docs: String::new(), fields: vec![] };
/// let at = Triple { ticks: 0, mono_ns: 0, real_ns: 1_000_000 };
/// let clock =
///     Clock { source: Source::Tsc, freq_hz: 1_000_000_000, boot_id: [0; 16], triples: vec![at] };
/// let events = [Declared { id: 16, role: Role::Event, schema }];
/// let trace = Trace::of(&events, Context::default(), clock)?;
///
/// let bits = 8 * (packet::HEADER + 2 * packet::COMPACT_HEADER) as u64;
/// let header =
///     PacketHeader { content_bits: bits, packet_bits: bits.next_multiple_of(64), ..Default::default() };
/// let mut bytes = header.to_bytes().to_vec();
/// for ticks in [7, 9] {
///     bytes.extend_from_slice(&packet::compact_header(16, ticks).to_le_bytes()[..5]);
/// }
/// bytes.resize(header.packet_bytes() as usize, 0);
///
/// let mut live = Live::new(&trace);
/// live.push(&bytes);
/// let mut times = Vec::new();
/// live.drain(8, |event| times.push(event.ns));
/// assert_eq!(times, [1_000_007]);
/// live.drain(u64::MAX, |event| times.push(event.ns));
/// assert_eq!(times, [1_000_007, 1_000_009]);
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
#[derive(Debug)]
pub struct Live<'t> {
    trace: &'t Trace,
    to_ns: ToNs,
    /// Position in the trace's events, by id.
    kinds: HashMap<u32, u32>,
    packets: Vec<PacketHeader>,
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Packets in which not everything could be read.
    pub spoilt: u64,
}

#[derive(Debug, Clone)]
struct Record {
    ticks: u64,
    event: u32,
    packet: usize,
    payload: Range<usize>,
}

impl<'t> Live<'t> {
    /// For packets of the session that `trace` describes.
    pub fn new(trace: &'t Trace) -> Live<'t> {
        let kinds = trace.events().iter().zip(0..).map(|(kind, at)| (kind.declared.id, at));
        Live {
            trace,
            to_ns: ToNs::new(trace.clock()),
            kinds: kinds.collect(),
            packets: Vec::new(),
            bytes: Vec::new(),
            records: Vec::new(),
            spoilt: 0,
        }
    }

    /// Takes closed packets, back to back. What cannot be read ends its packet, and is counted.
    pub fn push(&mut self, mut packets: &[u8]) {
        while let Ok(header) = PacketHeader::parse(packets) {
            let content = usize::try_from(header.content_bytes()).unwrap_or(usize::MAX);
            let Some(records) = packets.get(HEADER..content) else { break };
            self.push_packet(header, records);
            let size = usize::try_from(header.packet_bytes()).unwrap_or(usize::MAX);
            packets = packets.get(size..).unwrap_or_default();
        }
    }

    fn push_packet(&mut self, header: PacketHeader, records: &[u8]) {
        let start = self.bytes.len();
        let packet = self.packets.len();
        let (mut at, mut ticks) = (0, header.begin);
        while at < records.len() {
            let Some((head, event, len)) = self.record(&records[at..], ticks) else {
                self.spoilt += 1;
                break;
            };
            ticks = head.ticks;
            let from = at + head.len;
            at = from + len;
            self.records.push(Record { ticks, event, packet, payload: start + from..start + at });
        }
        self.packets.push(header);
        self.bytes.extend_from_slice(&records[..at]);
    }

    fn record(
        &self,
        bytes: &[u8],
        previous: u64,
    ) -> Option<(gracepoint_wire::packet::EventHeader, u32, usize)> {
        let head = parse_event_header(bytes, previous)?;
        let event = *self.kinds.get(&head.id)?;
        let len = self.trace.events()[event as usize].plan.skip(bytes.get(head.len..)?)?;
        Some((head, event, len))
    }

    /// Hands out the events up to `ticks`, in order of time, and keeps the later ones.
    pub fn drain(&mut self, ticks: u64, mut each: impl FnMut(&Event<'_>)) {
        self.records.sort_by_key(|record| record.ticks); // stable: a thread's own order stays
        let due = self.records.partition_point(|record| record.ticks <= ticks);
        let mut who = Vec::new();
        for record in &self.records[..due] {
            let header = &self.packets[record.packet];
            write_who(&mut who, &header.thread_name(), header.tid);
            each(&Event {
                kind: &self.trace.events()[record.event as usize],
                index: record.event,
                ticks: record.ticks,
                ns: self.to_ns.real(record.ticks),
                stream: header.stream,
                tid: header.tid,
                thread: &header.thread_name(),
                who: &who,
                header,
                payload: &self.bytes[record.payload.clone()],
            });
        }
        self.records.drain(..due);
        self.compact();
    }

    /// Forgets what no record needs any more.
    fn compact(&mut self) {
        let Some(first) = self.records.iter().map(|record| record.payload.start).min() else {
            self.packets.clear();
            self.bytes.clear();
            return;
        };
        let packet = self.records.iter().map(|record| record.packet).min().unwrap_or(0);
        self.bytes.drain(..first);
        self.packets.drain(..packet);
        for record in &mut self.records {
            record.payload = record.payload.start - first..record.payload.end - first;
            record.packet -= packet;
        }
    }
}
