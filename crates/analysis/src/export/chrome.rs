//! Chrome's JSON trace events. Times are microseconds with three decimals since the first event, since
//! a reader that keeps them as floats has no digits for more; when that was is told beside them.
//!
//! Spans on their thread's track are complete events (`X`, or `B` where there is no end), others
//! asynchronous ones (`b`, `e`). Everything is valid JSON whatever the names and values are.
//!
//! CPUs are threads of a process of their own, and what a thread did (running, runnable, blocked) is a thread beside
//! it, both under numbers that the kernel gives to none. Samples are the profiles that browsers write (`Profile` and
//! `ProfileChunk`, one for each thread), whose times are whole microseconds.

use super::sched::State;
use super::stacks::{KERNEL, MOST, New, Stacks, UNKNOWN};
use super::{About, Counter, Note, Record, Sink, Span, Thread, push_field};
use crate::escape::push_json;
use crate::profile::{Sample, Sampler};
use crate::report::spell::push_json_value;
use crate::{EventType, Result, Trace, Value};
use gracepoint_wire::schema::{Field, Role, Type};
use std::collections::{HashMap, HashSet};
use std::io::Write;

/// The kernel's numbers end here: of the process whose threads are CPUs, which have the numbers that follow; and of
/// the first thread's states.
const CPUS: u32 = 1 << 22 | 1;
const STATES: u32 = 1 << 23;

pub(super) struct Chrome<'t> {
    out: Vec<u8>,
    /// Of each kind, `,"name":…,"cat":…`, and of each of its fields, `"key":`.
    kinds: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    counters: &'t [Counter],
    /// `,"pid":…`
    pid: String,
    tids: Vec<u32>,
    /// Whether there is an event already, behind which a comma goes.
    any: bool,
    /// When the first event happened.
    first_ns: Option<u64>,
    apart: u64,
    program: String,
    /// Which have been named.
    cpus: HashSet<u32>,
    states: HashSet<usize>,
    stacks: Stacks,
    /// By thread: its profile.
    profiles: HashMap<usize, Profile>,
    last_profile: u64,
}

/// A thread's samples.
struct Profile {
    id: u64,
    /// The node that everything is below.
    root: u32,
    /// When the latest one was, in microseconds.
    last_us: u64,
}

impl<'t> Chrome<'t> {
    pub(super) fn new(trace: &Trace, kinds: &[EventType], counters: &'t [Counter]) -> Chrome<'t> {
        let program = crate::info::program(trace);
        let kind = |event: &EventType| {
            let name = match event.declared.role {
                Role::Begin | Role::Enter => &event.declared.schema.name,
                _ => &event.name,
            };
            let mut head = b",\"name\":".to_vec();
            push_json(&mut head, name);
            head.extend_from_slice(b",\"cat\":");
            push_json(&mut head, name.split(':').next().unwrap_or_default());
            let key = |field: &gracepoint_wire::schema::Field| {
                let mut key = Vec::new();
                push_json(&mut key, &field.name);
                key.push(b':');
                key
            };
            (head, event.fields.iter().map(key).collect())
        };
        let mut chrome = Chrome {
            out: b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n".to_vec(),
            kinds: kinds.iter().map(kind).collect(),
            counters,
            pid: format!(",\"pid\":{}", program.pid),
            tids: Vec::new(),
            any: false,
            first_ns: None,
            apart: 0,
            program: program.name.clone(),
            cpus: HashSet::new(),
            states: HashSet::new(),
            stacks: Stacks::new(MOST),
            profiles: HashMap::new(),
            last_profile: 0,
        };
        chrome.metadata("process_name", 0, &program.name);
        chrome
    }

    fn metadata(&mut self, what: &str, tid: u32, name: &str) {
        self.open('M');
        self.named(what, tid, name);
    }

    fn named(&mut self, what: &str, tid: u32, name: &str) {
        let _ = write!(self.out, ",\"tid\":{tid},\"name\":\"{what}\",\"args\":{{\"name\":");
        push_json(&mut self.out, name);
        self.out.extend_from_slice(b"}}");
    }

    /// Begins an event.
    fn open(&mut self, phase: char) {
        self.comma();
        let _ = write!(self.out, "{{\"ph\":\"{phase}\"{}", self.pid);
    }

    /// Begins an event of the process whose threads are CPUs.
    fn open_of_cpus(&mut self, phase: char) {
        self.comma();
        let _ = write!(self.out, "{{\"ph\":\"{phase}\",\"pid\":{CPUS}");
    }

    fn comma(&mut self) {
        if std::mem::replace(&mut self.any, true) {
            self.out.extend_from_slice(b",\n");
        }
    }

    /// Begins a part of a thread's profile.
    fn part(&mut self, name: &str, thread: usize, ns: u64, id: u64) {
        self.open('P');
        self.at(ns);
        self.tid(thread);
        let _ = write!(
            self.out,
            ",\"cat\":\"disabled-by-default-v8.cpu_profiler\",\"name\":\"{name}\",\
             \"id\":\"0x{id:x}\",\"args\":{{\"data\":{{"
        );
    }

    /// Begins a thread's profile.
    fn profile(&mut self, thread: usize, ns: u64) {
        let first = *self.first_ns.get_or_insert(ns);
        let last_us = ns.saturating_sub(first) / 1000;
        self.last_profile += 1;
        let (id, root) = (self.last_profile, self.stacks.root());
        self.part("Profile", thread, ns, id);
        let _ = write!(self.out, "\"startTime\":{last_us}}}}}}}");
        self.part("ProfileChunk", thread, ns, id);
        self.out.extend_from_slice(b"\"cpuProfile\":{\"nodes\":[");
        push_node(&mut self.out, root, None, "(root)", "");
        self.out.extend_from_slice(b"],\"samples\":[]},\"timeDeltas\":[]}}}");
        self.profiles.insert(thread, Profile { id, root, last_us });
    }

    fn time(&mut self, key: &str, ns: u64) {
        let _ = write!(self.out, ",\"{key}\":{}.{:03}", ns / 1000, ns % 1000);
    }

    /// Since the first event.
    fn at(&mut self, ns: u64) {
        let first = *self.first_ns.get_or_insert(ns);
        self.time("ts", ns.saturating_sub(first));
    }

    fn tid(&mut self, thread: usize) {
        let _ = write!(self.out, ",\"tid\":{}", self.tids[thread]);
    }

    /// Name, category and, as `args`, the fields, those that came later included.
    fn describe(&mut self, record: Record<'_>, later: &[Record<'_>]) {
        self.out.extend_from_slice(&self.kinds[record.index as usize].0);
        self.out.extend_from_slice(b",\"args\":{");
        let mut first = true;
        for (at, field, value) in record.values() {
            // What a call site left out may come later.
            if value != Value::None || field.ty != Type::Any {
                self.field(record, at, field, &value, &mut first);
            }
        }
        for later in later {
            for (at, field, value) in later.own_values().filter(|(.., v)| *v != Value::None) {
                self.field(*later, at, field, &value, &mut first);
            }
        }
        self.out.push(b'}');
    }

    fn field(
        &mut self,
        record: Record<'_>,
        at: usize,
        field: &Field,
        value: &Value<'_>,
        first: &mut bool,
    ) {
        if !std::mem::replace(first, false) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(&self.kinds[record.index as usize].1[at]);
        push_field(field, value, &mut self.out);
    }

    /// One end of an asynchronous slice.
    fn apart(&mut self, phase: char, span: &Span<'_>, ns: u64) {
        self.open(phase);
        self.at(ns);
        self.tid(span.open.thread);
        let _ = write!(self.out, ",\"id2\":{{\"local\":\"0x{:x}\"}}", self.apart);
        match phase {
            'b' => self.describe(span.begin, &span.later),
            _ => self.out.extend_from_slice(&self.kinds[span.begin.index as usize].0),
        }
        self.out.push(b'}');
    }
}

/// A node of a profile: a function below another.
fn push_node(out: &mut Vec<u8>, id: u32, parent: Option<u32>, name: &str, url: &str) {
    let _ = write!(out, "{{\"id\":{id},");
    if let Some(parent) = parent {
        let _ = write!(out, "\"parent\":{parent},");
    }
    out.extend_from_slice(b"\"callFrame\":{\"functionName\":");
    push_json(out, name);
    out.extend_from_slice(b",\"url\":");
    push_json(out, url);
    out.extend_from_slice(
        b",\"scriptId\":\"0\",\"lineNumber\":-1,\"columnNumber\":-1,\"codeType\":\"other\"}}",
    );
}

impl Sink for Chrome<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn thread(&mut self, at: usize, thread: &Thread) {
        if self.tids.len() <= at {
            self.tids.resize(at + 1, 0);
        }
        self.tids[at] = thread.tid;
        match thread.name.is_empty() {
            true => self.metadata("thread_name", thread.tid, &thread.label()),
            false => self.metadata("thread_name", thread.tid, &thread.name),
        }
    }

    fn begin(&mut self, ns: u64, _thread: &Thread, _kind: u32, _parent: Option<u32>) -> u32 {
        // Spans are written later than what happens inside them.
        self.first_ns.get_or_insert(ns);
        0
    }

    fn span(&mut self, span: &Span<'_>) {
        let open = span.open;
        if open.apart {
            self.apart += 1;
            self.apart('b', span, open.begin_ns);
            if let Some(end_ns) = span.end_ns {
                self.apart('e', span, end_ns);
            }
            return;
        }
        self.open(if span.end_ns.is_some() { 'X' } else { 'B' });
        self.at(open.begin_ns);
        if let Some(end_ns) = span.end_ns {
            self.time("dur", end_ns - open.begin_ns);
        }
        self.tid(open.thread);
        self.describe(span.begin, &span.later);
        self.out.push(b'}');
    }

    fn instant(&mut self, thread: usize, ns: u64, record: Record<'_>) {
        self.open('i');
        self.at(ns);
        self.tid(thread);
        self.out.extend_from_slice(b",\"s\":\"t\"");
        self.describe(record, &[]);
        self.out.push(b'}');
    }

    fn flow(&mut self, id: u64, from: (usize, u64), to: (usize, u64)) {
        for (phase, (thread, ns)) in [('s', from), ('f', to)] {
            self.open(phase);
            self.at(ns);
            self.tid(thread);
            let bind = if phase == 'f' { ",\"bp\":\"e\"" } else { "" };
            let _ = write!(
                self.out,
                ",\"id\":\"0x{id:x}\",\"name\":\"follows\",\"cat\":\"follows\"{bind}}}"
            );
        }
    }

    fn note(&mut self, note: &Note<'_>) {
        self.open('i');
        self.at(note.ns);
        let category = match note.about {
            About::Loss => "gp:loss",
            About::Throttle => "gp:throttle",
        };
        let _ = write!(self.out, ",\"tid\":0,\"s\":\"p\",\"cat\":\"{category}\",\"name\":");
        push_json(&mut self.out, note.name);
        self.out.extend_from_slice(b",\"args\":{");
        for (at, (name, value)) in note.details.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            push_json(&mut self.out, name);
            self.out.push(b':');
            push_json_value(value, &mut self.out);
        }
        self.out.extend_from_slice(b"}}");
    }

    fn sample(&mut self, counter: usize, ns: u64, value: &Value<'_>) {
        self.open('C');
        self.at(ns);
        self.out.extend_from_slice(b",\"tid\":0,\"name\":");
        push_json(&mut self.out, &self.counters[counter].name);
        self.out.extend_from_slice(b",\"args\":{\"value\":");
        match value {
            Value::Bool(b) => push_json_value(&Value::Uint(u64::from(*b)), &mut self.out),
            value => push_json_value(value, &mut self.out),
        }
        self.out.extend_from_slice(b"}}");
    }

    fn stack(&mut self, thread: usize, ns: u64, sample: &Sample, sampler: &mut Sampler) {
        if self.stacks.make_room(sample) {
            self.profiles.clear();
        }
        if !self.profiles.contains_key(&thread) {
            self.profile(thread, ns);
        }
        let now_us = ns.saturating_sub(self.first_ns.unwrap_or(ns)) / 1000;
        let Some(profile) = self.profiles.get_mut(&thread) else { return };
        let (id, root) = (profile.id, profile.root);
        let delta = now_us.saturating_sub(profile.last_us);
        profile.last_us = profile.last_us.max(now_us);
        self.part("ProfileChunk", thread, ns, id);
        self.out.extend_from_slice(b"\"cpuProfile\":{\"nodes\":[");
        let (out, mut first) = (&mut self.out, true);
        let number = self.stacks.take(Some(root), sample, |new| {
            let New::Stack { number, caller, place, .. } = new else { return };
            if !std::mem::replace(&mut first, false) {
                out.push(b',');
            }
            match place {
                KERNEL => push_node(out, number, caller, "[kernel]", ""),
                UNKNOWN => push_node(out, number, caller, "[unknown]", ""),
                place => {
                    let path = sampler.object(place).map(|(_, object)| object.path.clone());
                    let path = path.unwrap_or_default();
                    push_node(out, number, caller, sampler.name(place), &path);
                }
            }
        });
        let _ = write!(out, "],\"samples\":[{number}]}},\"timeDeltas\":[{delta}]}}}}}}");
    }

    fn ran(&mut self, cpu: u32, thread: &Thread, (begin_ns, end_ns): (u64, u64)) {
        let track = CPUS + 1 + cpu;
        if self.cpus.insert(cpu) {
            if self.cpus.len() == 1 {
                let name = format!("CPUs that {} ran on", self.program);
                self.open_of_cpus('M');
                self.named("process_name", track, &name);
            }
            self.open_of_cpus('M');
            self.named("thread_name", track, &format!("CPU {cpu}"));
        }
        self.open_of_cpus('X');
        self.at(begin_ns);
        self.time("dur", end_ns - begin_ns);
        let _ = write!(self.out, ",\"tid\":{track},\"cat\":\"sched\",\"name\":");
        push_json(&mut self.out, &thread.label());
        let _ = write!(self.out, ",\"args\":{{\"tid\":{}}}}}", thread.tid);
    }

    fn state(&mut self, at: usize, thread: &Thread, state: State, of: (u64, Option<u64>)) {
        let track = STATES + at as u32;
        if self.states.insert(at) {
            self.metadata("thread_name", track, &format!("{}: state", thread.label()));
        }
        self.open(if of.1.is_some() { 'X' } else { 'B' });
        self.at(of.0);
        if let Some(end_ns) = of.1 {
            self.time("dur", end_ns - of.0);
        }
        let name = state.name();
        let _ = write!(self.out, ",\"tid\":{track},\"cat\":\"sched\",\"name\":\"{name}\"}}");
    }

    fn finish(&mut self) -> Result<()> {
        let first = self.first_ns.unwrap_or(0);
        let tool = concat!("gracepoint ", env!("CARGO_PKG_VERSION"));
        let _ = write!(
            self.out,
            "\n],\"otherData\":{{\"tool\":\"{tool}\",\"first_event_unix_ns\":\"{first}\"}}}}\n"
        );
        Ok(())
    }
}
