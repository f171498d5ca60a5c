//! Chrome's JSON trace events. Times are microseconds with three decimals since the first event, since
//! a reader that keeps them as floats has no digits for more; when that was is told beside them.
//!
//! Spans on their thread's track are complete events (`X`, or `B` where there is no end), others
//! asynchronous ones (`b`, `e`). Everything is valid JSON whatever the names and values are.

use super::{About, Counter, Note, Record, Sink, Span, Thread, push_field};
use crate::escape::push_json;
use crate::report::spell::push_json_value;
use crate::{EventType, Result, Trace, Value};
use gracepoint_wire::schema::{Field, Role, Type};
use std::io::Write;

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
        };
        chrome.metadata("process_name", 0, &program.name);
        chrome
    }

    fn metadata(&mut self, what: &str, tid: u32, name: &str) {
        self.open('M');
        let _ = write!(self.out, ",\"tid\":{tid},\"name\":\"{what}\",\"args\":{{\"name\":");
        push_json(&mut self.out, name);
        self.out.extend_from_slice(b"}}");
    }

    /// Begins an event.
    fn open(&mut self, phase: char) {
        if std::mem::replace(&mut self.any, true) {
            self.out.extend_from_slice(b",\n");
        }
        let _ = write!(self.out, "{{\"ph\":\"{phase}\"{}", self.pid);
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
