//! What a trace contains, counted without decoding values.

mod text;

pub use text::grouped;

use crate::damage::DamageLog;
use crate::filter::{Choice, Filter};
use crate::read::next_packet;
use crate::stream::{Budget, Kinds, Packet, StreamFile};
use crate::trace::{ToNs, is_loss, is_unthrottle};
use crate::{Damage, Result, Trace, escape};
use gracepoint_wire::packet::{NAME, PacketHeader};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Threads that are told apart, and ids of lost events: memory must not depend on the trace's length.
const MOST_KEYS: usize = 1 << 16;
/// Name of the threads beyond that.
const OTHERS: &[u8; NAME] = b"(other threads)\0";
/// Contradictions that are listed.
const MOST_CONTRADICTIONS: usize = 50;

/// What a trace contains. Counts of events are without `gp:*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Events of the program.
    pub events: u64,
    /// Events lost, by the trace's `gp:loss` records.
    pub lost: u64,
    /// Events that the session's limits left out, by the trace's `gp:unthrottle` records: fired =
    /// events + lost + throttled.
    pub throttled: u64,
    /// Stream files.
    pub streams: u64,
    /// Packets in them.
    pub packets: u64,
    /// First event, nanoseconds since 1970.
    pub begin_ns: Option<u64>,
    /// Last event, nanoseconds since 1970.
    pub end_ns: Option<u64>,
    /// What ticks mean.
    pub clock: ClockInfo,
    /// The traced program, where the sidecar or the metadata's `env` tells.
    pub program: ProgramInfo,
    /// By event, in order of ids; those that never happened included.
    pub per_event: Vec<EventInfo>,
    /// By thread, most events first.
    pub threads: Vec<ThreadInfo>,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Whether the recorder came to its end; `false` too where the sidecar is missing.
    pub complete: bool,
    /// Why the recording ended; empty where unknown.
    pub ended: String,
    /// Who could still have been writing at the end.
    pub holdouts: Vec<String>,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Where the trace contradicts itself: totals of the sidecar that differ from what was counted.
    pub contradictions: Vec<String>,
}

/// A trace's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockInfo {
    /// `tsc` or `monotonic`.
    pub source: String,
    /// Ticks per second.
    pub freq_hz: u64,
}

/// A traced program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProgramInfo {
    /// Its name.
    pub name: String,
    /// Its pid, as it saw itself; 0 where unknown.
    pub pid: u32,
    /// Path of its executable.
    pub exe: String,
    /// Its arguments, where known.
    pub args: Vec<String>,
    /// How its sites were switched (`text`, `mem`, `branch`); empty where that is not known.
    pub patching: String,
}

/// Counts of one kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventInfo {
    /// Its name with the role's suffix.
    pub name: String,
    /// How many are in the trace.
    pub events: u64,
    /// How many were lost.
    pub lost: u64,
    /// How many the session's limits left out.
    pub throttled: u64,
}

/// Counts of one thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThreadInfo {
    /// Thread id, as the traced program saw it.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// How many events it recorded.
    pub events: u64,
}

/// Counts what is in `trace`.
///
/// ```
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let info = gracepoint_analysis::info::info(&trace)?;
/// assert_eq!((info.events, info.lost), (186, 12));
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// None today; damage is part of the result.
pub fn info(trace: &Trace) -> Result<Info> {
    info_of(trace, &Filter::default())
}

/// Counts what `filter` leaves of `trace`. Losses are those told by what is left, and packets those
/// that were read.
///
/// ```
/// use gracepoint_analysis::{filter::Filter, info::info_of};
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let filter = Filter { threads: vec!["t1".into()], ..Filter::default() };
/// assert_eq!(info_of(&trace, &filter)?.threads.len(), 1);
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// When a glob matches no event of the trace; damage is part of the result.
pub fn info_of(trace: &Trace, filter: &Filter) -> Result<Info> {
    let choice = trace.choose(filter)?;
    let mut count = Count::new(trace, choice);
    count.filtered = !filter.is_empty();
    if count.choice.skip > 0 {
        // What is left out first is known in the order of all streams alone.
        count.merged();
    } else {
        for source in &trace.streams {
            count.stream(StreamFile::new(source));
        }
    }
    Ok(count.finish())
}

/// A count under way.
struct Count<'t> {
    trace: &'t Trace,
    choice: Choice,
    /// Which events are asked for; `choice` has `gp:loss` beside.
    asked: Vec<bool>,
    /// Something is left out, so that totals are not those of the trace.
    filtered: bool,
    kinds: Kinds<'t>,
    budget: Budget,
    damage: DamageLog,
    /// Records and losses by position in the trace's events.
    events: Vec<u64>,
    /// Lost events by id, from `gp:loss`.
    lost: BTreeMap<u32, u64>,
    /// The same of events left out, from `gp:unthrottle`.
    throttled: BTreeMap<u32, u64>,
    /// Positions of `gp:loss` and `gp:unthrottle`.
    loss: u32,
    unthrottle: u32,
    own: Vec<bool>,
    threads: HashMap<(u32, [u8; NAME]), u64>,
    packets: u64,
    discarded: u64,
    /// First and last time of an event of the program.
    range: (u64, u64),
}

impl<'t> Count<'t> {
    fn new(trace: &'t Trace, mut choice: Choice) -> Count<'t> {
        let events = trace.events();
        let loss = events.iter().position(is_loss).map_or(u32::MAX, |i| i as u32);
        let unthrottle = events.iter().position(is_unthrottle).map_or(u32::MAX, |i| i as u32);
        let asked = choice.wanted.clone();
        for teller in [loss, unthrottle] {
            if let Some(wanted) = choice.wanted.get_mut(teller as usize)
                && choice.skip == 0
            {
                *wanted = true; // it tells of the others
            }
        }
        Count {
            trace,
            kinds: Kinds::new(events),
            budget: Budget::new(1, choice.is_sparse()),
            choice,
            asked,
            filtered: false,
            damage: trace.damage_log(),
            events: vec![0; events.len()],
            lost: BTreeMap::new(),
            throttled: BTreeMap::new(),
            loss,
            unthrottle,
            own: events.iter().map(|e| e.is_own() && !e.is_function()).collect(),
            threads: HashMap::new(),
            packets: 0,
            discarded: 0,
            range: (u64::MAX, 0),
        }
    }

    fn stream(&mut self, mut file: StreamFile) {
        let (mut discarded, mut before) = (0, None);
        loop {
            let (budget, damage) = (&mut self.budget, &mut self.damage);
            let Some(mut packet) = next_packet(&mut file, &self.choice, budget, damage) else {
                break;
            };
            file.load(&mut packet, &mut self.budget, &mut self.damage);
            self.packets += 1;
            discarded = packet.header.discarded;
            before.get_or_insert(discarded);
            let n = self.packet(&file, &mut packet);
            self.thread(&packet.header, n);
        }
        // As readers of CTF take it: the difference to the stream's first packet.
        let here = discarded.saturating_sub(before.unwrap_or(0));
        self.discarded = self.discarded.saturating_add(here);
    }

    /// Counts the events of one packet.
    fn packet(&mut self, file: &StreamFile, packet: &mut Packet) -> u64 {
        let mut n = 0;
        let (mut first, mut last) = self.range;
        while let Some(record) = file.next_record(packet, &self.kinds, &mut self.damage) {
            if !self.choice.has(record.event, record.ticks) {
                continue;
            }
            self.events[record.event as usize] += 1;
            if !self.own[record.event as usize] {
                n += 1;
                first = first.min(record.ticks);
                last = last.max(record.ticks);
            } else {
                self.told(record.event, &file.window()[record.payload]);
            }
        }
        self.range = (first, last);
        n
    }

    /// Counts events in order of time.
    fn merged(&mut self) {
        let mut reader = self.trace.reader_of(&self.choice);
        let mut begin = None;
        while let Some(event) = reader.next_event() {
            begin.get_or_insert(event.ticks);
            self.events[event.index as usize] += 1;
            if !self.own[event.index as usize] {
                self.range = (self.range.0.min(event.ticks), self.range.1.max(event.ticks));
                self.thread(event.header, 1);
            }
        }
        self.packets = reader.packets();
        self.damage = reader.into_damage_log();
        let mut losses = self.choice.clone();
        let tells = |i| i == self.loss || i == self.unthrottle;
        losses.wanted = (0..).zip(&self.own).map(|(i, _): (u32, _)| tells(i)).collect();
        losses.span = begin.zip(losses.span).map(|(begin, (_, last))| (begin, last));
        losses.skip = 0;
        let mut reader = self.trace.reader_of(&losses);
        while let Some(event) = reader.next_event() {
            self.told(event.index, event.payload);
        }
    }

    /// A record of the tracer's own: `gp:loss` and `gp:unthrottle` tell an id and a count, which come
    /// last, after the context.
    fn told(&mut self, event: u32, payload: &[u8]) {
        let counts = match event {
            event if event == self.loss => &mut self.lost,
            event if event == self.unthrottle => &mut self.throttled,
            _ => return,
        };
        let Some([a, b, c, d, count @ ..]) = payload.last_chunk::<12>() else { return };
        let mut id = u32::from_le_bytes([*a, *b, *c, *d]);
        if counts.len() >= MOST_KEYS && !counts.contains_key(&id) {
            id = u32::MAX;
        }
        let counted = counts.entry(id).or_default();
        *counted = counted.saturating_add(u64::from_le_bytes(*count));
    }

    /// `n` more events of a thread.
    fn thread(&mut self, header: &PacketHeader, n: u64) {
        if n == 0 {
            return;
        }
        let mut thread = (header.tid, header.thread);
        if self.threads.len() >= MOST_KEYS && !self.threads.contains_key(&thread) {
            thread = (0, *OTHERS);
        }
        *self.threads.entry(thread).or_default() += n;
    }

    fn finish(self) -> Info {
        let contradictions = self.contradictions();
        let trace = self.trace;
        let to_ns = ToNs::new(trace.clock());
        let lost = |id: u32| self.lost.get(&id).copied().unwrap_or(0);
        let throttled = |id: u32| self.throttled.get(&id).copied().unwrap_or(0);
        let mut per_event = Vec::new();
        let wanted = trace.events().iter().zip(&self.asked);
        for ((event, wanted), &events) in wanted.zip(&self.events) {
            if *wanted && (!event.is_own() || event.is_function()) {
                let (name, id) = (event.name.clone(), event.declared.id);
                let (lost, throttled) = (lost(id), throttled(id));
                per_event.push(EventInfo { name, events, lost, throttled });
            }
        }
        let all =
            trace.events().iter().zip(&self.asked).all(|(e, asked)| *asked || e.is_for_tools());
        let unknown = |id: &u32| self.kinds.index(*id).is_none() && all;
        for (&id, &lost) in self.lost.iter().filter(|(id, _)| unknown(id)) {
            per_event.push(EventInfo {
                name: format!("(id {id})"),
                events: 0,
                lost,
                throttled: throttled(id),
            });
        }
        let thread = |((tid, name), events): (&(u32, [u8; NAME]), &u64)| {
            let header = PacketHeader { thread: *name, ..PacketHeader::default() };
            ThreadInfo { tid: *tid, name: header.thread_name(), events: *events }
        };
        let mut threads: Vec<ThreadInfo> = self.threads.iter().map(thread).collect();
        threads.sort_by(|a, b| {
            b.events.cmp(&a.events).then_with(|| (a.tid, &a.name).cmp(&(b.tid, &b.name)))
        });
        let clock = trace.clock();
        let (begin, end) = self.range;
        let sidecar = trace.sidecar();
        Info {
            events: per_event.iter().map(|e| e.events).sum(),
            lost: per_event.iter().fold(0, |sum, e| u64::saturating_add(sum, e.lost)),
            throttled: per_event.iter().fold(0, |sum, e| u64::saturating_add(sum, e.throttled)),
            streams: trace.streams() as u64,
            packets: self.packets,
            begin_ns: (begin <= end).then(|| to_ns.real(begin)),
            end_ns: (begin <= end).then(|| to_ns.real(end)),
            clock: ClockInfo { source: clock.source.name().into(), freq_hz: clock.freq_hz },
            program: program(trace),
            per_event,
            threads,
            bytes: trace.bytes(),
            complete: sidecar.is_some_and(|s| s.complete) && self.damage.list().is_empty(),
            ended: sidecar.map_or_else(String::new, |s| s.ended.clone()),
            holdouts: sidecar.map_or_else(Vec::new, |s| s.holdouts.clone()),
            damage: self.damage.into_list(),
            contradictions,
        }
    }

    /// Where the sidecar's totals, or the packets' own counters, differ from what was counted.
    fn contradictions(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.filtered {
            return out;
        }
        let told = self.trace.sidecar().filter(|s| s.complete || !s.lost.is_empty());
        if let Some(sidecar) = told {
            let ids: BTreeSet<u32> = sidecar.lost.keys().chain(self.lost.keys()).copied().collect();
            for id in ids {
                let told = sidecar.lost.get(&id).copied().unwrap_or(0);
                let counted = self.lost.get(&id).copied().unwrap_or(0);
                if told != counted && out.len() < MOST_CONTRADICTIONS {
                    let name = match self.kinds.index(id) {
                        Some(index) => escape::name(&self.kinds.events[index as usize].name),
                        None => format!("(id {id})"),
                    };
                    out.push(format!(
                        "{name}: the recorder counted {told} lost, the gp:loss records of the \
                         trace tell of {counted}"
                    ));
                }
            }
        }
        let lost = self.lost.values().fold(0u64, |sum, n| sum.saturating_add(*n));
        // Of a piece of a recording, the next one may tell what was lost last.
        let whole = self.trace.sidecar().is_none_or(|s| s.piece == 0);
        if self.discarded > lost && whole {
            out.push(format!(
                "the packets' own counters say that {} events were lost, the gp:loss records of \
                 the trace tell of {lost}",
                self.discarded
            ));
        }
        out
    }
}

/// Who was traced: by the sidecar, else by the metadata's `env`.
pub(crate) fn program(trace: &Trace) -> ProgramInfo {
    let env = |keys: &[&str]| {
        let found = trace.env().iter().find(|(key, _)| keys.contains(&key.as_str()));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let patching = env(&["patching"]);
    if let Some(sidecar) = trace.sidecar() {
        let p = sidecar.program.clone();
        return ProgramInfo { name: p.name, pid: p.pid, exe: p.exe, args: p.args, patching };
    }
    let pid = env(&["pid", "vpid"]).parse().unwrap_or(0);
    let name = env(&["program", "procname", "program_name"]);
    ProgramInfo { name, pid, exe: env(&["exe"]), args: Vec::new(), patching }
}

impl Info {
    /// One JSON object, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// From when to when there are events; `None` if there are none.
    ///
    /// ```
    /// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
    /// let range = gracepoint_analysis::info::info(&trace)?.range();
    /// assert!(range.is_some_and(|range| range.starts_with("from 20") && range.ends_with(" UTC")));
    /// # Ok::<(), gracepoint_analysis::Error>(())
    /// ```
    pub fn range(&self) -> Option<String> {
        let (begin, end) = (self.begin_ns?, self.end_ns?);
        Some(format!("from {} to {}", text::moment(begin), text::moment(end)))
    }

    /// For people; names are escaped.
    pub fn to_text(&self) -> String {
        text::spell(self)
    }
}
