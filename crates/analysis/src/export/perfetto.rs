//! Perfetto's TrackEvent protocol buffers, by the published `perfetto_trace.proto`.
//!
//! Each thread is a packet sequence of its own, which begins with the defaults of its packets (the
//! clock, the thread's track); names of events, categories and fields are interned in it, each with the
//! first event that needs it. What belongs to the process (its track, counters, losses, CPUs, what threads did) is on
//! sequence 1, samples of a profile are on sequence 2 (`samples`).
//! Times are nanoseconds of the realtime clock, which a snapshot makes the trace's clock.

mod samples;

use super::proto::{double, fixed, int, message, text, uint};
use super::sched::State;
use super::{About, Counter, Note, Record, Sink, Span, Thread};
use crate::profile::{Sample, Sampler};
use crate::value::Numbers;
use crate::{EventType, Trace, Value};
use gracepoint_wire::schema::Role;
use samples::Samples;
use std::collections::{HashMap, HashSet};

/// Clocks by their numbers in `BuiltinClock`.
const REALTIME: u64 = 1;
const MONOTONIC: u64 = 3;
/// `TrackEvent.Type`.
const SLICE_BEGIN: u64 = 1;
const SLICE_END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;
/// `TracePacket.SequenceFlags`.
const STATE_CLEARED: u64 = 1;
const NEEDS_STATE: u64 = 2;
/// Bits of `CounterDescriptor.Unit`.
const UNIT_TIME_NS: u64 = 1;
/// The process's sequence; that of samples; a thread's is its position and that and one more.
const PROCESS_SEQUENCE: u64 = 1;
const SAMPLES_SEQUENCE: u64 = 2;

/// What a track is for; [`Perfetto::uuid`] makes its id of it.
#[derive(Clone, Copy)]
enum Track {
    Process,
    Loss,
    Throttle,
    Counter(usize),
    Thread(usize),
    /// The how manieth span with a track of its own.
    Apart(u64),
    Cpu(u32),
    /// What a thread did.
    State(usize),
}

/// A kind of event, prepared.
struct Kind {
    name: String,
    name_iid: u64,
    category_iid: u64,
    fields: Vec<Label>,
    /// Its `InternedData`.
    interned: Vec<u8>,
}

struct Label {
    iid: u64,
    sensitive: bool,
    /// Numbers in it are addresses.
    addresses: bool,
}

pub(super) struct Perfetto<'t> {
    out: Vec<u8>,
    kinds: Vec<Kind>,
    counters: &'t [Counter],
    pid: Option<u32>,
    seed: u64,
    /// By thread, a bit for each kind whose names are interned on its sequence.
    known: Vec<Vec<u64>>,
    /// By thread, its number.
    tids: Vec<u32>,
    apart: u64,
    /// Whether the tracks of losses and of throttling have begun.
    noted: [bool; 2],
    /// CPUs, and threads whose states, have tracks.
    cpus: HashSet<u32>,
    states: HashSet<usize>,
    samples: Samples,
}

impl<'t> Perfetto<'t> {
    pub(super) fn new(trace: &Trace, all: &[EventType], counters: &'t [Counter]) -> Perfetto<'t> {
        let program = crate::info::program(trace);
        let pid = Some(program.pid).filter(|&pid| pid != 0 && i32::try_from(pid).is_ok());
        let triple = trace.clock().triples.first().copied().unwrap_or_default();
        let seed = mix(triple.real_ns ^ mix(u64::from(program.pid) ^ mix(triple.ticks)));
        let mut perfetto = Perfetto {
            out: Vec::new(),
            kinds: kinds(all),
            counters,
            pid,
            seed,
            known: Vec::new(),
            tids: Vec::new(),
            apart: 0,
            noted: [false; 2],
            cpus: HashSet::new(),
            states: HashSet::new(),
            samples: Samples::new(),
        };
        message(&mut perfetto.out, 1, |packet| {
            uint(packet, 10, PROCESS_SEQUENCE);
            message(packet, 6, |snapshot| {
                for (clock, ns) in [(REALTIME, triple.real_ns), (MONOTONIC, triple.mono_ns)] {
                    if ns != 0 {
                        message(snapshot, 1, |it| {
                            uint(it, 1, clock);
                            uint(it, 2, ns);
                        });
                    }
                }
                uint(snapshot, 2, REALTIME);
            });
        });
        perfetto.start_process(&program);
        for at in 0..counters.len() {
            perfetto.start_counter(at);
        }
        perfetto
    }

    /// No two tracks of a trace have one id, and of different traces hardly any.
    fn uuid(&self, track: Track) -> u64 {
        let number = match track {
            Track::Process => 0,
            Track::Loss => 1,
            Track::Throttle => 2,
            Track::Counter(at) => 1 << 60 | at as u64,
            Track::Thread(at) => 2 << 60 | at as u64,
            Track::Apart(n) => 3 << 60 | n,
            Track::Cpu(cpu) => 4 << 60 | u64::from(cpu),
            Track::State(at) => 5 << 60 | at as u64,
        };
        mix(self.seed.wrapping_add(number)).max(1)
    }

    fn start_process(&mut self, program: &crate::info::ProgramInfo) {
        let (uuid, pid) = (self.uuid(Track::Process), self.pid);
        message(&mut self.out, 1, |packet| {
            start_sequence(packet, PROCESS_SEQUENCE, uuid);
            message(packet, 60, |track| {
                uint(track, 1, uuid);
                let Some(pid) = pid else { return text(track, 2, &program.name) };
                message(track, 3, |process| {
                    uint(process, 1, u64::from(pid));
                    text(process, 6, &program.name);
                    if !program.exe.is_empty() {
                        text(process, 2, &program.exe);
                        program.args.iter().for_each(|arg| text(process, 2, arg));
                    }
                });
            });
        });
    }

    fn start_counter(&mut self, at: usize) {
        let counter = &self.counters[at];
        let (uuid, parent) = (self.uuid(Track::Counter(at)), self.uuid(Track::Process));
        message(&mut self.out, 1, |packet| {
            uint(packet, 10, PROCESS_SEQUENCE);
            message(packet, 60, |track| {
                uint(track, 1, uuid);
                text(track, 2, &counter.name);
                uint(track, 5, parent);
                message(track, 8, |descriptor| {
                    if counter.time {
                        uint(descriptor, 3, UNIT_TIME_NS);
                    }
                });
            });
        });
    }

    /// A track of the process that has a name and nothing else.
    fn start_plain(&mut self, sequence: u64, track: Track, name: &str) -> u64 {
        self.start_below(Track::Process, sequence, track, name)
    }

    fn start_below(&mut self, above: Track, sequence: u64, track: Track, name: &str) -> u64 {
        let (uuid, parent) = (self.uuid(track), self.uuid(above));
        message(&mut self.out, 1, |packet| {
            uint(packet, 10, sequence);
            message(packet, 60, |track| {
                uint(track, 1, uuid);
                text(track, 2, name);
                uint(track, 5, parent);
            });
        });
        uuid
    }

    /// A slice of scheduling on a track.
    fn scheduled(
        &mut self,
        track: u64,
        name: &str,
        tid: Option<u32>,
        (begin_ns, end_ns): (u64, Option<u64>),
    ) {
        let times = [(begin_ns, SLICE_BEGIN)].into_iter().chain(end_ns.map(|ns| (ns, SLICE_END)));
        for (ns, ty) in times {
            message(&mut self.out, 1, |packet| {
                uint(packet, 8, ns);
                uint(packet, 10, PROCESS_SEQUENCE);
                uint(packet, 13, NEEDS_STATE);
                message(packet, 11, |event| {
                    uint(event, 9, ty);
                    uint(event, 11, track);
                    if ty == SLICE_END {
                        return;
                    }
                    text(event, 22, "sched");
                    text(event, 23, name);
                    if let Some(tid) = tid {
                        message(event, 4, |annotation| {
                            text(annotation, 10, "tid");
                            uint(annotation, 3, u64::from(tid));
                        });
                    }
                });
            });
        }
    }

    /// A packet with an event of a thread's.
    fn event(
        &mut self,
        thread: usize,
        ns: u64,
        kind: Option<u32>,
        fill: impl FnOnce(&mut Vec<u8>, Option<&Kind>),
    ) {
        let new = kind.filter(|&kind| {
            let bits = &mut self.known[thread];
            let (word, bit) = (kind as usize / 64, 1 << (kind % 64));
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            let known = bits[word] & bit != 0;
            bits[word] |= bit;
            !known
        });
        let kinds = &self.kinds;
        message(&mut self.out, 1, |packet| {
            uint(packet, 8, ns);
            uint(packet, 10, sequence(thread));
            uint(packet, 13, NEEDS_STATE);
            if let Some(kind) = new {
                let interned = &kinds[kind as usize].interned;
                message(packet, 12, |data| data.extend_from_slice(interned));
            }
            let kind = kind.map(|kind| &kinds[kind as usize]);
            message(packet, 11, |event| fill(event, kind));
        });
    }
}

fn sequence(thread: usize) -> u64 {
    SAMPLES_SEQUENCE + 1 + thread as u64
}

/// The first packet of a sequence says what is the same in all of them.
fn start_sequence(packet: &mut Vec<u8>, sequence: u64, track: u64) {
    uint(packet, 10, sequence);
    uint(packet, 13, STATE_CLEARED);
    uint(packet, 87, 1);
    message(packet, 59, |defaults| {
        uint(defaults, 58, REALTIME);
        message(defaults, 11, |event| uint(event, 11, track));
    });
}

/// Splitmix's last step: distinct numbers stay distinct.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn kinds(events: &[EventType]) -> Vec<Kind> {
    let mut iids: HashMap<String, u64> = HashMap::new();
    let mut iid = |name: &str| {
        let next = iids.len() as u64 + 1;
        *iids.entry(name.to_owned()).or_insert(next)
    };
    let kind = |event: &EventType| {
        let name = match event.declared.role {
            Role::Begin | Role::Enter => event.declared.schema.name.clone(),
            _ => event.name.clone(),
        };
        let category = name.split(':').next().unwrap_or_default().to_owned();
        let mut interned = Vec::new();
        let mut intern = |field: u64, name: &str| {
            let iid = iid(name);
            message(&mut interned, field, |entry| {
                uint(entry, 1, iid);
                text(entry, 2, name);
            });
            iid
        };
        let (category_iid, name_iid) = (intern(1, &category), intern(2, &name));
        let fields = event.fields.iter().map(|field| Label {
            iid: intern(3, &field.name),
            sensitive: field.is_sensitive(),
            addresses: field.name == "callstack",
        });
        let fields = fields.collect();
        Kind { name, name_iid, category_iid, fields, interned }
    };
    events.iter().map(kind).collect()
}

/// Name, category and fields.
fn describe(event: &mut Vec<u8>, kind: &Kind, record: Record<'_>) {
    uint(event, 3, kind.category_iid);
    uint(event, 10, kind.name_iid);
    for (at, _, value) in record.values() {
        let Some(label) = kind.fields.get(at) else { continue };
        // What is nothing has no annotation.
        if value == Value::None && !label.sensitive {
            continue;
        }
        message(event, 4, |annotation| {
            uint(annotation, 1, label.iid);
            push_value(annotation, &value, label.addresses);
        });
    }
}

/// The value of a `DebugAnnotation`.
fn push_value(out: &mut Vec<u8>, value: &Value<'_>, addresses: bool) {
    match *value {
        Value::Uint(n) if addresses => uint(out, 7, n),
        Value::Uint(n) | Value::Duration(n) | Value::Enum(None, n) => uint(out, 3, n),
        Value::Int(n) => int(out, 4, n),
        Value::Wide(n) => text(out, 6, &n.to_string()),
        Value::WideInt(n) => text(out, 6, &n.to_string()),
        Value::Float32(n) => double(out, 5, f64::from(n)),
        Value::Float(n) => double(out, 5, n),
        Value::Bool(b) => uint(out, 2, u64::from(b)),
        Value::Char(c) => text(out, 6, c.encode_utf8(&mut [0; 4])),
        Value::Text(of) => text(out, 6, &of.to_string_lossy()),
        Value::Enum(Some(name), _) => text(out, 6, name),
        Value::None => text(out, 6, "***"),
        Value::Seq { total, kept } => {
            push_list(out, kept, addresses);
            let beyond = (total as usize).saturating_sub(kept.len());
            if beyond > 0 {
                message(out, 12, |more| text(more, 6, &format!("... {beyond} more")));
            }
        }
        Value::Array(numbers) => push_list(out, numbers, addresses),
    }
}

fn push_list(out: &mut Vec<u8>, numbers: Numbers<'_>, addresses: bool) {
    for value in numbers.iter() {
        message(out, 12, |element| push_value(element, &value, addresses));
    }
}

impl Sink for Perfetto<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn thread(&mut self, at: usize, thread: &Thread) {
        let (uuid, process) = (self.uuid(Track::Thread(at)), self.uuid(Track::Process));
        let new = self.known.len() <= at;
        if new {
            self.known.resize_with(at + 1, Vec::new);
            self.tids.resize(at + 1, 0);
        }
        self.tids[at] = thread.tid;
        let pid = self.pid;
        message(&mut self.out, 1, |packet| {
            match new {
                true => start_sequence(packet, sequence(at), uuid),
                false => uint(packet, 10, sequence(at)),
            }
            message(packet, 60, |track| {
                uint(track, 1, uuid);
                // A thread 0 is the idle one there.
                match pid {
                    Some(pid) if thread.tid != 0 && i32::try_from(thread.tid).is_ok() => {
                        message(track, 4, |descriptor| {
                            uint(descriptor, 1, u64::from(pid));
                            uint(descriptor, 2, u64::from(thread.tid));
                            text(descriptor, 5, &thread.name);
                        });
                    }
                    _ => {
                        text(track, 2, &thread.label());
                        uint(track, 5, process);
                    }
                }
            });
        });
    }

    fn span(&mut self, span: &Span<'_>) {
        let (open, record) = (span.open, span.begin);
        let own = open.apart.then(|| {
            self.apart += 1;
            let name = self.kinds[open.kind as usize].name.clone();
            self.start_plain(sequence(open.thread), Track::Apart(self.apart), &name)
        });
        // A flow leads from the parent, where that is another track's.
        let seed = self.seed;
        let itself = (open.apart && open.parent != 0 && open.of == 0).then_some(open.id);
        let labels: Vec<Vec<u64>> = span
            .later
            .iter()
            .map(|later| self.kinds[later.index as usize].fields.iter().map(|f| f.iid).collect())
            .collect();
        self.event(open.thread, open.begin_ns, Some(open.kind), |event, kind| {
            uint(event, 9, SLICE_BEGIN);
            own.iter().for_each(|&own| uint(event, 11, own));
            kind.iter().for_each(|kind| describe(event, kind, record));
            for (later, iids) in span.later.iter().zip(&labels) {
                // The begin's kind has the same fields, so their names are interned.
                for (at, _, value) in later.own_values().filter(|(.., v)| *v != Value::None) {
                    message(event, 4, |annotation| {
                        uint(annotation, 1, iids[at]);
                        push_value(annotation, &value, false);
                    });
                }
            }
            for flow in open.flows.iter().copied().chain(itself) {
                fixed(event, 47, mix(seed ^ mix(flow)));
            }
        });
        let Some(end_ns) = span.end_ns else { return };
        self.event(open.thread, end_ns, None, |event, _| {
            uint(event, 9, SLICE_END);
            own.iter().for_each(|&own| uint(event, 11, own));
        });
    }

    fn instant(&mut self, thread: usize, ns: u64, record: Record<'_>) {
        self.event(thread, ns, Some(record.index), |event, kind| {
            uint(event, 9, INSTANT);
            kind.iter().for_each(|kind| describe(event, kind, record));
        });
    }

    fn note(&mut self, note: &Note<'_>) {
        let (track, name, at) = match note.about {
            About::Loss => (Track::Loss, "lost events", 0),
            About::Throttle => (Track::Throttle, "throttled events", 1),
        };
        let uuid = match std::mem::replace(&mut self.noted[at], true) {
            true => self.uuid(track),
            false => self.start_plain(PROCESS_SEQUENCE, track, name),
        };
        message(&mut self.out, 1, |packet| {
            uint(packet, 8, note.ns);
            uint(packet, 10, PROCESS_SEQUENCE);
            uint(packet, 13, NEEDS_STATE);
            message(packet, 11, |event| {
                uint(event, 9, INSTANT);
                uint(event, 11, uuid);
                text(event, 22, "gp");
                text(event, 23, note.name);
                for (name, value) in note.details {
                    message(event, 4, |annotation| {
                        text(annotation, 10, name);
                        push_value(annotation, value, false);
                    });
                }
            });
        });
    }

    fn stack(&mut self, thread: usize, ns: u64, sample: &Sample, sampler: &mut Sampler) {
        let ids = samples::Ids { pid: self.pid, tid: self.tids[thread], ns };
        self.samples.take(&mut self.out, &ids, sample, sampler);
    }

    fn ran(&mut self, cpu: u32, thread: &Thread, (begin_ns, end_ns): (u64, u64)) {
        let track = match self.cpus.insert(cpu) {
            true => self.start_plain(PROCESS_SEQUENCE, Track::Cpu(cpu), &format!("CPU {cpu}")),
            false => self.uuid(Track::Cpu(cpu)),
        };
        self.scheduled(track, &thread.label(), Some(thread.tid), (begin_ns, Some(end_ns)));
    }

    fn state(&mut self, at: usize, _: &Thread, state: State, of: (u64, Option<u64>)) {
        let (track, above) = (Track::State(at), Track::Thread(at));
        let track = match self.states.insert(at) {
            true => self.start_below(above, PROCESS_SEQUENCE, track, "state"),
            false => self.uuid(track),
        };
        self.scheduled(track, state.name(), None, of);
    }

    fn sample(&mut self, counter: usize, ns: u64, value: &Value<'_>) {
        let uuid = self.uuid(Track::Counter(counter));
        message(&mut self.out, 1, |packet| {
            uint(packet, 8, ns);
            uint(packet, 10, PROCESS_SEQUENCE);
            uint(packet, 13, NEEDS_STATE);
            message(packet, 11, |event| {
                uint(event, 9, COUNTER);
                uint(event, 11, uuid);
                match *value {
                    Value::Int(n) => int(event, 30, n),
                    Value::Bool(b) => int(event, 30, i64::from(b)),
                    Value::Uint(n) | Value::Duration(n) if i64::try_from(n).is_ok() => {
                        int(event, 30, n as i64);
                    }
                    Value::Uint(n) | Value::Duration(n) => double(event, 44, n as f64),
                    Value::Wide(n) => double(event, 44, n as f64),
                    Value::WideInt(n) => double(event, 44, n as f64),
                    Value::Float32(n) => double(event, 44, f64::from(n)),
                    Value::Float(n) => double(event, 44, n),
                    _ => {}
                }
            });
        });
    }
}
