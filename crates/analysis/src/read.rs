//! Events of all streams in order of time, one at a time.
//!
//! A heap holds one entry per stream: the time of its next record or, before its next packet is in
//! memory, the time at which that packet begins, which no record of it precedes. So a stream's
//! packet is loaded when its time has come, and memory holds only packets that overlap in time.

use crate::damage::DamageLog;
use crate::filter::{Choice, Packets};
use crate::stream::{Budget, Kinds, Packet, Record, StreamFile};
use crate::trace::{EventType, ToNs, Trace};
use crate::{Damage, Value, escape};
use gracepoint_wire::packet::PacketHeader;
use gracepoint_wire::schema::Field;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Reads a trace's events in order of time; ties go by stream, then by order in the stream.
#[derive(Debug)]
pub struct Reader<'t> {
    kinds: Kinds<'t>,
    choice: Choice,
    /// Events still to be left out.
    skip: u64,
    to_ns: ToNs,
    lanes: Vec<Lane>,
    /// Time and lane; the earliest on top.
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// The lane on top has handed out its record; the record's bytes are in use until the next call.
    used: bool,
    budget: Budget,
    damage: DamageLog,
}

/// A stream and where it stands.
#[derive(Debug)]
struct Lane {
    file: StreamFile,
    packet: Packet,
    loaded: bool,
    packets: u64,
    thread: String,
    /// `) name/tid`, as a report spells it.
    who: Vec<u8>,
    record: Option<Record>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(trace: &'t Trace, choice: Choice) -> Reader<'t> {
        let mut reader = Reader {
            kinds: Kinds::new(trace.events()),
            skip: choice.skip,
            to_ns: ToNs::new(trace.clock()),
            lanes: Vec::with_capacity(trace.streams.len()),
            heap: BinaryHeap::with_capacity(trace.streams.len()),
            used: false,
            budget: Budget::new(trace.streams.len(), choice.is_sparse()),
            choice,
            damage: trace.damage_log(),
        };
        for source in &trace.streams {
            let mut file = StreamFile::new(source);
            let (choice, budget) = (&reader.choice, &mut reader.budget);
            let Some(packet) = next_packet(&mut file, choice, budget, &mut reader.damage) else {
                continue;
            };
            let lane = reader.lanes.len() as u32;
            reader.heap.push(Reverse((packet.header.begin, lane)));
            let (thread, who, record) = (String::new(), Vec::new(), None);
            reader.lanes.push(Lane {
                file,
                packet,
                loaded: false,
                packets: 0,
                thread,
                who,
                record,
            });
        }
        reader
    }

    /// The next event; it borrows from the reader.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        let mut index = self.advance()?;
        while self.skip > 0 {
            self.skip -= 1;
            index = self.advance()?;
        }
        let lane = &self.lanes[index];
        let record = lane.record.as_ref()?;
        Some(Event {
            kind: &self.kinds.events[record.event as usize],
            index: record.event,
            ticks: record.ticks,
            ns: self.to_ns.real(record.ticks),
            stream: lane.packet.header.stream,
            tid: lane.packet.header.tid,
            thread: &lane.thread,
            who: &lane.who,
            header: &lane.packet.header,
            payload: &lane.file.window()[record.payload.clone()],
        })
    }

    /// Moves on to the next wanted record, and says in which lane it is.
    #[inline]
    fn advance(&mut self) -> Option<usize> {
        if self.used {
            self.used = false;
            self.step();
        }
        loop {
            let index = self.heap.peek()?.0.1 as usize;
            if self.lanes[index].record.is_some() {
                self.used = true;
                return Some(index);
            }
            self.step();
        }
    }

    /// Moves the earliest lane on by one wanted record or one packet.
    #[inline]
    fn step(&mut self) {
        let Some(mut top) = self.heap.peek_mut() else { return };
        let lane = &mut self.lanes[top.0.1 as usize];
        let damage = &mut self.damage;
        match lane.step(&self.kinds, &self.choice, &mut self.budget, damage) {
            Some(time) => top.0.0 = time,
            None => {
                PeekMut::pop(top);
            }
        }
    }

    /// What was found damaged so far, opening the trace included.
    pub fn damage(&self) -> &[Damage] {
        self.damage.list()
    }

    /// Packets read so far.
    pub(crate) fn packets(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.packets).sum()
    }

    /// Bytes of the stream files behind which it is.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.packet.at).sum()
    }

    pub(crate) fn into_damage_log(self) -> DamageLog {
        self.damage
    }

    pub(crate) fn into_damage(self) -> Vec<Damage> {
        self.damage.into_list()
    }
}

impl Lane {
    /// The time of the next wanted record, or at which the next packet begins.
    #[inline]
    fn step(
        &mut self,
        kinds: &Kinds<'_>,
        choice: &Choice,
        budget: &mut Budget,
        damage: &mut DamageLog,
    ) -> Option<u64> {
        self.record = None;
        if !self.loaded {
            self.load(budget, damage);
        }
        while let Some(record) = self.file.next_record(&mut self.packet, kinds, damage) {
            if choice.has(record.event, record.ticks) {
                let ticks = record.ticks;
                self.record = Some(record);
                return Some(ticks);
            }
        }
        self.packet = next_packet(&mut self.file, choice, budget, damage)?;
        self.loaded = false;
        Some(self.packet.header.begin)
    }

    #[cold]
    fn load(&mut self, budget: &mut Budget, damage: &mut DamageLog) {
        self.file.load(&mut self.packet, budget, damage);
        self.loaded = true;
        self.packets += 1;
        self.thread = self.packet.header.thread_name();
        write_who(&mut self.who, &self.thread, self.packet.header.tid);
    }
}

/// The header of the next packet in which there may be something wanted.
pub(crate) fn next_packet(
    file: &mut StreamFile,
    choice: &Choice,
    budget: &mut Budget,
    damage: &mut DamageLog,
) -> Option<Packet> {
    loop {
        let packet = file.next_header(budget, damage)?;
        match choice.packet(&packet.header) {
            Packets::Read => return Some(packet),
            Packets::Skip => {}
            Packets::End => {
                file.close(budget);
                return None;
            }
        }
    }
}

/// `) name/tid`, as it stands in a line of a report.
pub(crate) fn write_who(who: &mut Vec<u8>, thread: &str, tid: u32) {
    who.clear();
    who.extend_from_slice(b") ");
    escape::push_name(who, thread);
    who.extend_from_slice(format!("/{tid}").as_bytes());
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What kind of record it is.
    pub kind: &'a EventType,
    /// Raw time.
    pub ticks: u64,
    /// Nanoseconds since 1970.
    pub ns: u64,
    /// Ring slot.
    pub stream: u64,
    /// Thread id, as the traced program saw it.
    pub tid: u32,
    /// Thread name; may hold any character, so escape it.
    pub thread: &'a str,
    /// Position of `kind` in [`Trace::events`].
    pub(crate) index: u32,
    /// `) name/tid`, escaped.
    pub(crate) who: &'a [u8],
    pub(crate) header: &'a PacketHeader,
    pub(crate) payload: &'a [u8],
}

impl<'a> Event<'a> {
    /// Name with the role's suffix; may hold any character, so escape it.
    pub fn name(&self) -> &'a str {
        &self.kind.name
    }

    /// Fields and values in the order in which they were written. Each is decoded when it is asked
    /// for.
    pub fn values(&self) -> impl Iterator<Item = (&'a Field, Value<'a>)> + use<'a> {
        let (kind, mut rest) = (self.kind, self.payload);
        kind.fields.iter().enumerate().map_while(move |(i, field)| {
            let (value, n) = kind.plan.decode(i, rest)?;
            rest = rest.get(n..)?;
            Some((field, value))
        })
    }

    /// The value of the field at this position of `kind.fields`.
    pub fn value(&self, index: usize) -> Option<Value<'a>> {
        self.values().nth(index).map(|(_, value)| value)
    }
}
