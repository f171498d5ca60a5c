//! A trace in the formats of other viewers: Perfetto's protocol buffers, Chrome's JSON, stacks of
//! spans for flame graphs; and as a page that is a viewer itself.
//!
//! The trace is read once and written as it is read; memory depends on how many threads there are,
//! how many spans are open at once and, for flame graphs, how many different stacks (for a page, how
//! many events). Spans are written when they end (`spans` says where they are drawn), so times in the
//! output are not in order; the viewers sort.

mod calls;
mod chrome;
mod folded;
mod functions;
mod page;
mod perfetto;
mod proto;
mod sched;
mod spans;
mod stacks;
mod visits;

use crate::filter::{Choice, Filter};
use crate::hist::{is_number, no_such_field};
use crate::profile::{Sample, Sampler};
use crate::read::{Event, Reader};
use crate::report::spell::push_json_value;
use crate::trace::is_loss;
use crate::{Damage, Error, EventType, Result, Trace, Value, escape};
use calls::{Calls, is_call};
use gracepoint_wire::schema::{Field, LOSS_ID, Role, THROTTLE_ID, Type, UNTHROTTLE_ID};
use sched::{Part, Sched, State};
use serde::Serialize;
use spans::{Open, Spans};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use visits::{Life, Visits};

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Perfetto's TrackEvent protocol buffers: for <https://ui.perfetto.dev> and its SQL.
    #[default]
    Perfetto,
    /// Chrome's JSON: for `chrome://tracing`, Perfetto, Speedscope.
    Chrome,
    /// A line `thread;outer;inner NUMBER` for each stack of spans: the microseconds spent in it and
    /// not in a span inside it, rounded up. For `inferno-flamegraph` and its like.
    Folded,
    /// The same, drawn as an SVG.
    Flamegraph,
    /// Stacks of functions of a profile, for `pprof`.
    Pprof,
    /// A page (HTML) with a timeline of threads, search and details, which loads nothing.
    Page,
}

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// What to write.
    pub format: Format,
    /// Which events. What tells of losses and throttling of these is exported with them; samples of a profile and
    /// when threads ran where no events are named, or these (`gp:sample`, `gp:switch`) among them.
    pub filter: Filter,
    /// Stacks of functions from a profile, in place of spans: for folded and flame graphs.
    pub profile: bool,
    /// Fields to draw as curves beside those that the program has marked, as `EVENT.FIELD`; of a span, those of its
    /// begin.
    pub counters: Vec<String>,
}

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Events read.
    pub events: u64,
    /// Bytes of the trace that were read or stepped over.
    pub bytes: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Exported {
    /// Events of the program, begins and ends included.
    pub events: u64,
    /// Spans whose begin and end are there.
    pub spans: u64,
    /// Calls of functions that have ended, or were left without an exit.
    pub calls: u64,
    /// Of spans and calls, how many do not nest on their thread and have tracks of their own.
    pub apart: u64,
    /// Slices of spans that threads enter and leave.
    pub visits: u64,
    /// Spans and calls that have begun and not ended.
    pub unfinished: u64,
    /// Spans and calls that have ended and not begun, which are not exported.
    pub without_begin: u64,
    /// Values of counters.
    pub samples: u64,
    /// Samples of a profile that are drawn beside, with their stacks.
    pub stacks: u64,
    /// Slices of threads on CPUs.
    pub runs: u64,
    /// Events lost, as far as what was exported tells.
    pub lost: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// Bytes to gather before they are written.
const GATHER: usize = 256 << 10;
/// Events between two looks at the progress.
const LOOK: u64 = 1 << 13;
/// Threads that are told apart.
const MOST_THREADS: usize = 1 << 16;
/// Ring slots whose counters of losses are remembered.
const MOST_STREAMS: usize = 1 << 18;

/// A thread of the trace.
struct Thread {
    tid: u32,
    name: String,
}

impl Thread {
    /// Its name, or what to call it.
    fn label(&self) -> String {
        match self.name.is_empty() {
            true => format!("thread {}", self.tid),
            false => escape::name(&self.name),
        }
    }
}

/// A record whose fields can be read.
#[derive(Clone, Copy)]
struct Record<'a> {
    kind: &'a EventType,
    /// Position of `kind` in the trace's events.
    index: u32,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The event's own fields.
    fn own_values(self) -> impl Iterator<Item = (usize, &'a Field, Value<'a>)> {
        let own = self.kind.declared.schema.fields.len();
        let first = self.kind.fields.len().saturating_sub(own);
        self.values().skip_while(move |(at, ..)| *at < first)
    }

    fn values(self) -> impl Iterator<Item = (usize, &'a Field, Value<'a>)> {
        let (kind, mut rest) = (self.kind, self.payload);
        kind.fields.iter().enumerate().map_while(move |(i, field)| {
            let (value, n) = kind.plan.decode(i, rest)?;
            rest = rest.get(n..)?;
            Some((i, field, value))
        })
    }
}

/// A field's value as JSON; what was masked says so.
fn push_field(field: &Field, value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::None if field.is_sensitive() => out.extend_from_slice(b"\"***\""),
        value => push_json_value(value, out),
    }
}

/// A span that is over, or will not be.
struct Span<'a> {
    begin: Record<'a>,
    /// Records with values that came later.
    later: Vec<Record<'a>>,
    open: &'a Open,
    end_ns: Option<u64>,
}

/// Of what the tracer itself tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Loss,
    Throttle,
}

/// What the tracer itself tells.
struct Note<'a> {
    about: About,
    name: &'a str,
    ns: u64,
    details: &'a [(&'a str, Value<'a>)],
}

/// A field that is drawn as a curve.
struct Counter {
    name: String,
    /// Events, and which field of theirs it is. More than one where events of one name differ in their fields, as those
    /// of two versions of a crate do.
    places: Vec<(u32, usize)>,
    /// Whether it is nanoseconds.
    time: bool,
}

/// Writes one format.
trait Sink {
    /// What is ready to be written.
    fn out(&mut self) -> &mut Vec<u8>;
    /// A thread that is new, or has another name now.
    fn thread(&mut self, at: usize, thread: &Thread);
    /// A span begins; `parent` is what this returned for its parent.
    fn begin(&mut self, ns: u64, thread: &Thread, kind: u32, parent: Option<u32>) -> u32 {
        let _ = (ns, thread, kind, parent);
        0
    }
    /// A span is over.
    fn span(&mut self, span: &Span<'_>);
    fn instant(&mut self, thread: usize, ns: u64, record: Record<'_>);
    fn note(&mut self, note: &Note<'_>);
    fn sample(&mut self, counter: usize, ns: u64, value: &Value<'_>);
    /// Where a thread was on its CPU.
    fn stack(&mut self, thread: usize, ns: u64, sample: &Sample, sampler: &mut Sampler) {
        let _ = (thread, ns, sample, sampler);
    }
    /// A thread ran on a CPU between these times.
    fn ran(&mut self, cpu: u32, thread: &Thread, of: (u64, u64)) {
        let _ = (cpu, thread, of);
    }
    /// What a thread did between these times; without an end where that is not known.
    fn state(&mut self, at: usize, thread: &Thread, state: State, of: (u64, Option<u64>)) {
        let _ = (at, thread, state, of);
    }
    /// An arrow with an id between slices that begin on these threads at these times.
    fn flow(&mut self, id: u64, from: (usize, u64), to: (usize, u64)) {
        let _ = (id, from, to);
    }
    /// Whether more would only be thrown away; then `finish` says why.
    fn is_full(&self) -> bool {
        false
    }
    /// Nothing more comes.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Writes what is chosen of `trace` to `out`. `go_on` is called now and then; where it returns `false`
/// the export ends there, and what was written is not complete.
///
/// ```
/// use gracepoint_analysis::export::{Format, Options, export};
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let options = Options { format: Format::Chrome, ..Options::default() };
/// let mut json = Vec::new();
/// let exported = export(&trace, &options, &mut json, &mut |_| true)?;
/// assert_eq!((exported.events, exported.spans), (186, 60));
/// assert!(json.starts_with(b"{\"displayTimeUnit\":\"ns\""));
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// When a glob matches no event, a counter is no number of an event, or `out` fails (see
/// [`crate::Error::is_closed_pipe`]); a flame graph also when no span has ended, and a page when the
/// events are too many for one.
pub fn export(
    trace: &Trace,
    options: &Options,
    out: &mut dyn Write,
    go_on: &mut dyn FnMut(Progress) -> bool,
) -> Result<Exported> {
    if options.profile || options.format == Format::Pprof {
        return functions::export(trace, options, out);
    }
    let counters = counters(trace, &options.counters)?;
    let mut choice = trace.choose(&options.filter)?;
    let parts = sched::parts(trace.events(), options, &choice);
    with_notes(trace, &mut choice);
    let whole = options.filter.is_empty();
    let mut reader = trace.reader_of(&choice);
    let calls = Calls::of(trace)?;
    let kinds = &calls.kinds;
    let sink: Box<dyn Sink + '_> = match options.format {
        Format::Perfetto => Box::new(perfetto::Perfetto::new(trace, kinds, &counters)),
        Format::Chrome => Box::new(chrome::Chrome::new(trace, kinds, &counters)),
        Format::Folded | Format::Pprof => Box::new(folded::Folded::new(trace, kinds, false)),
        Format::Flamegraph => Box::new(folded::Folded::new(trace, kinds, true)),
        Format::Page => Box::new(page::Page::new(trace, kinds, &counters)),
    };
    let mut export = Export::new(trace, sink, &counters, calls, parts);
    export.run(&mut reader, out, go_on)?;
    if whole {
        export.untold();
    }
    export.finish()?;
    export.write(out)?;
    out.flush().map_err(|e| Error::output(&e))?;
    let mut done = export.done;
    done.damage = reader.into_damage();
    Ok(done)
}

/// Takes `gp:loss` and its like in, which tell what is missing among the chosen events.
fn with_notes(trace: &Trace, choice: &mut Choice) {
    if choice.skip > 0 {
        return; // the first so many events are left out, of which these must not be some
    }
    for (event, wanted) in trace.events().iter().zip(&mut choice.wanted) {
        *wanted |= event.is_own() && !event.is_function();
    }
}

/// What the program has marked (`#[event(counter)]`), and what is asked for.
fn counters(trace: &Trace, names: &[String]) -> Result<Vec<Counter>> {
    let mut counters = Vec::new();
    for (index, event) in trace.events().iter().enumerate() {
        let declared = &event.declared;
        if !matches!(declared.role, Role::Event | Role::Begin) {
            continue;
        }
        // Those of the session and the ids of spans come before the event's own.
        let first = event.fields.len().saturating_sub(declared.schema.fields.len());
        for (field, known) in event.fields.iter().enumerate().skip(first) {
            if let Some(inner) = curve_type(&known.ty).filter(|_| known.is_counter()) {
                let name = format!("{}.{}", declared.schema.name, known.name);
                add(&mut counters, &name, (index as u32, field), inner);
            }
        }
    }
    for name in names {
        for (place, inner) in places(trace, name)? {
            add(&mut counters, name, place, inner);
        }
    }
    Ok(counters)
}

/// Of one name there is one curve, unless the unit differs.
fn add(counters: &mut Vec<Counter>, name: &str, place: (u32, usize), ty: &Type) {
    let (name, time) = (escape::name(name), *ty == Type::Duration);
    match counters.iter_mut().find(|known| known.name == name && known.time == time) {
        Some(known) if known.places.contains(&place) => {}
        Some(known) => known.places.push(place),
        None => counters.push(Counter { name, places: vec![place], time }),
    }
}

/// The type of the values, if they may be those of a curve.
fn curve_type(ty: &Type) -> Option<&Type> {
    let inner = match ty {
        Type::Option(of) => of,
        ty => ty,
    };
    let fits = is_number(inner) || matches!(inner, Type::Bool | Type::Any);
    fits.then_some(inner)
}

/// Whether a value is one of a curve. (Of type `any` it may be text.)
fn is_curve(value: &Value<'_>) -> bool {
    !matches!(value, Value::None | Value::Text(_) | Value::Char(_))
}

/// Where a counter that is asked for is found, and of which type: in all events of that name that have numbers there.
fn places<'t>(trace: &'t Trace, name: &str) -> Result<Vec<((u32, usize), &'t Type)>> {
    let Some((event_name, field_name)) = name.rsplit_once('.') else {
        let name = escape::name(name);
        return Err(Error::new(format!("`{name}` is no counter: write EVENT.FIELD")));
    };
    let fits = |(_, event): &(usize, &EventType)| {
        let begin = event.declared.role == Role::Begin && event.declared.schema.name == event_name;
        event.name == event_name || begin
    };
    let (mut found, mut refused) = (Vec::new(), None);
    for (index, event) in trace.events().iter().enumerate().filter(fits) {
        match place(event, field_name, name) {
            Ok((field, inner)) => found.push(((index as u32, field), inner)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        _ if !found.is_empty() => Ok(found),
        Some(error) => Err(error),
        None => Err(trace.no_such_event(event_name)),
    }
}

/// The field of one of them.
fn place<'t>(event: &'t EventType, field_name: &str, name: &str) -> Result<(usize, &'t Type)> {
    let field = event.field(field_name).ok_or_else(|| no_such_field(event, field_name))?;
    let ty = &event.fields[field].ty;
    let inner = curve_type(ty).ok_or_else(|| {
        Error::new(format!("`{}` is of type {ty}, and a counter needs numbers", escape::name(name)))
    })?;
    Ok((field, inner))
}

/// An export under way.
struct Export<'t> {
    trace: &'t Trace,
    sink: Box<dyn Sink + 't>,
    counters: &'t [Counter],
    threads: Vec<Thread>,
    by_tid: HashMap<u32, usize>,
    spans: Spans,
    visits: Visits,
    /// Which of the trace's events are begins and ends of spans that are entered and left.
    visited: Vec<bool>,
    calls: Calls,
    /// What each of the trace's events tells of samples and scheduling.
    parts: Vec<Part>,
    sched: Sched,
    /// Made when the first sample comes.
    sampler: Option<Sampler>,
    /// Names by id, of `gp:loss` and its like.
    names: HashMap<u32, u32>,
    /// Per stream, events discarded by the first and the last packet's header.
    discarded: HashMap<u64, (u64, u64)>,
    /// Which of the trace's events has the layout of `gp:loss`.
    own: Vec<bool>,
    last_ns: u64,
    done: Exported,
}

impl<'t> Export<'t> {
    fn new(
        trace: &'t Trace,
        sink: Box<dyn Sink + 't>,
        counters: &'t [Counter],
        calls: Calls,
        parts: Vec<Part>,
    ) -> Export<'t> {
        let events = trace.events();
        Export {
            trace,
            sink,
            counters,
            threads: Vec::new(),
            by_tid: HashMap::new(),
            spans: Spans::default(),
            visits: Visits::default(),
            visited: visited(events),
            calls,
            parts,
            sched: Sched::default(),
            sampler: None,
            names: events.iter().zip(0..).map(|(event, i)| (event.declared.id, i)).collect(),
            discarded: HashMap::new(),
            own: events.iter().map(EventType::is_own).collect(),
            last_ns: 0,
            done: Exported::default(),
        }
    }

    fn run(
        &mut self,
        reader: &mut Reader<'_>,
        out: &mut dyn Write,
        go_on: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<()> {
        let mut events = 0;
        while let Some(event) = reader.next_event() {
            self.take(&event);
            events += 1;
            if events % LOOK == 0 {
                if self.sink.out().len() >= GATHER {
                    self.write(out)?;
                }
                let progress = Progress { events, bytes: reader.bytes_read() };
                if !go_on(progress) || self.sink.is_full() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, out: &mut dyn Write) -> Result<()> {
        let ready = self.sink.out();
        self.done.bytes += ready.len() as u64;
        out.write_all(ready).map_err(|e| Error::output(&e))?;
        ready.clear();
        Ok(())
    }

    fn take(&mut self, event: &Event<'_>) {
        let thread = self.thread(event);
        self.last_ns = self.last_ns.max(event.ns);
        let counts = (event.stream, event.header.discarded);
        if self.discarded.len() < MOST_STREAMS || self.discarded.contains_key(&counts.0) {
            self.discarded.entry(counts.0).or_insert((counts.1, 0)).1 = counts.1;
        }
        if let Some(hit) = self.calls.functions.hit(event) {
            return self.call(hit, event, thread);
        }
        if self.parts[event.index as usize] != Part::Nothing {
            self.kernel(event, thread);
        }
        if self.own[event.index as usize] {
            return self.own(event, thread);
        }
        self.done.events += 1;
        for (at, counter) in self.counters.iter().enumerate() {
            let of_event = |&&(index, _): &&(u32, usize)| index == event.index;
            if let Some(&(_, field)) = counter.places.iter().find(of_event)
                && let Some(value) = event.value(field)
                && is_curve(&value)
            {
                self.done.samples += 1;
                self.sink.sample(at, event.ns, &value);
            }
        }
        let record = Record { kind: event.kind, index: event.index, payload: event.payload };
        match event.kind.declared.role {
            Role::Event => self.sink.instant(thread, event.ns, record),
            Role::Begin => self.begin(event, thread),
            Role::End => self.end(event, thread),
            Role::Enter => self.enter(event, thread),
            Role::Exit => self.exit(event, thread),
            Role::Record => self.later(event, thread),
            Role::Follows => {
                if let Some((span, other)) = role_fields(event) {
                    self.visits.follow(span, other);
                }
            }
        }
    }

    /// Position of the thread of `event`, told to the output where that does not know it.
    fn thread(&mut self, event: &Event<'_>) -> usize {
        let many = self.threads.len() >= MOST_THREADS;
        let (tid, name) = match self.by_tid.get(&event.tid) {
            Some(&at) if self.threads[at].name == event.thread => return at,
            None if many => (0, "(other threads)"),
            _ => (event.tid, event.thread),
        };
        let at = *self.by_tid.entry(tid).or_insert(self.threads.len());
        let thread = Thread { tid, name: name.to_owned() };
        if at == self.threads.len() {
            self.threads.push(thread);
            self.done.threads += 1;
        } else if self.threads[at].name == name {
            return at;
        } else {
            self.threads[at] = thread;
        }
        self.sink.thread(at, &self.threads[at]);
        at
    }

    fn begin(&mut self, event: &Event<'_>, thread: usize) {
        let Some((id, parent)) = role_fields(event) else { return };
        if self.visited[event.index as usize] {
            let life = Life::new(id, thread, event.index, event.ns, event.payload);
            // So that the output knows of the time.
            self.sink.begin(event.ns, &self.threads[thread], event.index, None);
            if let Some(gone) = self.visits.begin(life) {
                self.live(gone, None);
            }
            return;
        }
        let parent = self.around(parent, thread);
        let node =
            self.sink.begin(event.ns, &self.threads[thread], event.index, self.spans.node(parent));
        let (kind, begin_ns) = (event.index, event.ns);
        let span = Open { id, parent, thread, kind, begin_ns, node, ..Open::default() };
        let mut gone = Vec::new();
        self.spans.begin(span, event.payload, |span| gone.push(span));
        for span in gone {
            self.over(span, None);
        }
    }

    fn end(&mut self, event: &Event<'_>, thread: usize) {
        let Some((id, _)) = role_fields(event) else { return };
        if self.visited[event.index as usize] {
            return match self.visits.end(id) {
                Some(life) => self.live(life, Some(event.ns)),
                None => self.done.without_begin += 1,
            };
        }
        match self.spans.end(id, thread, event.ns) {
            Some((span, end_ns)) => self.over(span, Some(end_ns)),
            None => self.done.without_begin += 1,
        }
    }

    /// A span goes to the output.
    fn over(&mut self, open: Open, end_ns: Option<u64>) {
        let kind = &self.calls.kinds[open.kind as usize];
        let begin = Record { kind, index: open.kind, payload: &open.payload };
        let later = self.visits.get(open.of).map_or(&[][..], |life| &life.later);
        let later = later_records(self.trace, later);
        self.sink.span(&Span { begin, later, open: &open, end_ns });
        let done = &mut self.done;
        match end_ns {
            _ if open.of != 0 => done.visits += 1,
            Some(_) => {
                match is_call(open.id) {
                    true => done.calls += 1,
                    false => done.spans += 1,
                }
                done.apart += u64::from(open.apart);
            }
            None => done.unfinished += 1,
        }
        self.spans.recycle(open);
    }

    /// A thread enters a span.
    fn enter(&mut self, event: &Event<'_>, thread: usize) {
        let Some((span, _)) = role_fields(event) else { return };
        let Some(visit) = self.visits.enter(span, thread, event.ns) else { return };
        let around = self.spans.innermost(thread).unwrap_or(0);
        let life = self.visits.get(span);
        let kind = life.map_or(event.index, |life| life.kind);
        let mut flows = vec![span];
        if let Some(life) = life.filter(|_| visit.first) {
            flows.extend(life.follows.iter().map(|(other, _)| *other));
        }
        let node = self.sink.begin(event.ns, &self.threads[thread], kind, self.spans.node(around));
        let mut gone = Vec::new();
        let open = Open {
            id: visit.id,
            of: span,
            parent: around,
            thread,
            kind,
            begin_ns: event.ns,
            node,
            flows,
            ..Open::default()
        };
        let life = self.visits.get(span);
        let payload = life.map_or(event.payload, |life| &life.payload);
        let begun = self.spans.begin(open, payload, |span| gone.push(span));
        for (other, from) in life.filter(|_| visit.first).map_or(&[][..], |life| &life.follows) {
            if let Some(from) = from {
                self.sink.flow(span ^ other.rotate_left(32), *from, (thread, begun));
            }
        }
        for span in gone {
            self.over(span, None);
        }
    }

    /// It leaves.
    fn exit(&mut self, event: &Event<'_>, thread: usize) {
        let Some((span, _)) = role_fields(event) else { return };
        let visit = self.visits.exit(span, thread);
        match visit.and_then(|visit| self.spans.end(visit, thread, event.ns)) {
            Some((open, end_ns)) => self.over(open, Some(end_ns)),
            None => self.done.without_begin += 1,
        }
    }

    /// Values of a span that come later.
    fn later(&mut self, event: &Event<'_>, thread: usize) {
        let Some((span, _)) = role_fields(event) else { return };
        if !self.visits.record(span, event.index, event.payload) {
            let record = Record { kind: event.kind, index: event.index, payload: event.payload };
            self.sink.instant(thread, event.ns, record);
        }
    }

    /// A span that is entered and left is over, or will not be.
    fn live(&mut self, life: Life, end_ns: Option<u64>) {
        match end_ns {
            Some(_) => self.done.spans += 1,
            None => self.done.unfinished += 1,
        }
        if life.is_one_visit() && end_ns.is_some() {
            return;
        }
        self.done.apart += 1;
        let mut open = Open {
            id: life.id,
            thread: life.thread,
            kind: life.kind,
            begin_ns: life.begin_ns,
            apart: true,
            whole: true,
            ..Open::default()
        };
        open.payload = life.payload;
        let kind = &self.trace.events()[open.kind as usize];
        let begin = Record { kind, index: open.kind, payload: &open.payload };
        let later = later_records(self.trace, &life.later);
        let end_ns = end_ns.map(|end| end.max(open.begin_ns));
        self.sink.span(&Span { begin, later, open: &open, end_ns });
    }

    /// An event of the tracer's own.
    fn own(&mut self, event: &Event<'_>, thread: usize) {
        let mut values = event.values().map(|(_, value)| value);
        // After what the session adds.
        let skip = event.kind.fields.len().saturating_sub(2);
        let (id, count) = match (values.nth(skip), values.next()) {
            (Some(Value::Uint(id)), Some(Value::Uint(count))) => (id, count),
            _ => return,
        };
        let (about, verb, what) = match event.kind.declared.id {
            LOSS_ID if is_loss(event.kind) => (About::Loss, "lost", "count"),
            THROTTLE_ID => (About::Throttle, "throttled", "per second"),
            UNTHROTTLE_ID => (About::Throttle, "no longer throttled", "left out"),
            _ => return,
        };
        if about == About::Loss {
            self.done.lost = self.done.lost.saturating_add(count);
            self.kernel_lost(id, thread);
        }
        let of = match self.names.get(&(id as u32)) {
            Some(&index) => escape::name(&self.trace.events()[index as usize].name),
            None => format!("id {id}"),
        };
        let name = format!("{verb}: {of}");
        let label = self.threads[thread].label();
        let details = [
            (what, Value::Uint(count)),
            ("thread", Value::Text(crate::value::Text(label.as_bytes()))),
        ];
        self.sink.note(&Note { about, name: &name, ns: event.ns, details: &details });
    }

    /// Losses of which the packets' headers or the recorder know and no record tells.
    fn untold(&mut self) {
        let sum = |sum: u64, n: u64| sum.saturating_add(n);
        let packets = self.discarded.values().map(|(first, last)| last.saturating_sub(*first));
        let packets = packets.fold(0, sum);
        let recorder = self.trace.sidecar().map_or(0, |s| s.lost.values().copied().fold(0, sum));
        let count = packets.max(recorder).saturating_sub(self.done.lost);
        if count > 0 {
            self.done.lost += count;
            let details = [("count", Value::Uint(count))];
            let name = "lost: nothing tells when";
            let note = Note { about: About::Loss, name, ns: self.last_ns, details: &details };
            self.sink.note(&note);
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.tell_rest();
        for span in self.spans.rest() {
            self.over(span, None);
        }
        for life in self.visits.rest() {
            self.live(life, None);
        }
        self.kernel_ends();
        self.sink.finish()
    }
}

/// Of each event, whether it is the begin or the end of a span that is entered and left.
pub(crate) fn visited(events: &[EventType]) -> Vec<bool> {
    let of = |event: &EventType| (event.declared.schema.name.clone(), event.declared.role);
    let entered = events.iter().map(of).filter(|(_, role)| *role == Role::Enter);
    let entered: HashSet<String> = entered.map(|(name, _)| name).collect();
    let is = |event: &EventType| {
        matches!(event.declared.role, Role::Begin | Role::End)
            && entered.contains(&event.declared.schema.name)
    };
    events.iter().map(is).collect()
}

fn later_records<'a>(trace: &'a Trace, later: &'a [(u32, Vec<u8>)]) -> Vec<Record<'a>> {
    let record = |(index, payload): &'a (u32, Vec<u8>)| Record {
        kind: &trace.events()[*index as usize],
        index: *index,
        payload,
    };
    later.iter().map(record).collect()
}

/// The ids that the role adds, a missing second one as 0: behind what the session adds and before
/// the event's own fields, which may have the same names.
pub(crate) fn role_fields(event: &Event<'_>) -> Option<(u64, u64)> {
    let declared = &event.kind.declared;
    let ids = declared.role.ids();
    if ids == 0 {
        return None;
    }
    let own = ids + if declared.role.has_fields() { declared.schema.fields.len() } else { 0 };
    let mut values = event.values().map(|(_, value)| value);
    let Value::Uint(span) = values.nth(event.kind.fields.len().checked_sub(own)?)? else {
        return None;
    };
    match values.next() {
        Some(Value::Uint(second)) if ids == 2 => Some((span, second)),
        _ => Some((span, 0)),
    }
}
