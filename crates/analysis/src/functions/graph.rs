//! Who called whom: calls indented by depth, with their durations, as the kernel's `function_graph` draws them.
//!
//! ```text
//!  main/100               |   0.382 us     |  kv::get(id = 7);
//!  main/100               |                |  kv::put() {
//!  main/100               |                |    /* kv:slow: { took = 90us } */
//!  main/100               | ! 102.000 us   |  }
//! ```
//!
//! The trace is read once and a line is written when it is known: that of a call without anything inside when it
//! ends, so lines of different threads are in order of that. Calls of a session with a threshold are told at their
//! end, and are brought into order thread by thread (`whole`).

use super::stack::{Call, Point, Stacks};
use super::whole::{Step, Whole};
use super::{Functions, Hit, Lanes};
use crate::escape::{self, push_json};
use crate::filter::Filter;
use crate::read::Event;
use crate::report::spell::{push_json_value, push_value};
use crate::report::{self, Lines};
use crate::{Damage, Error, Result, Trace, Value};
use std::io::Write;

/// Bytes to gather before they are written.
const GATHER: usize = 64 << 10;
/// Columns of the thread; a longer one takes more.
const WHO: usize = 22;
/// Columns of a duration; a longer one takes more.
const TIME: usize = 12;
/// Calls further in are not indented further.
const MOST_INDENT: u32 = 200;

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Only calls of functions that match one of these globs, and what is called by them; all where there are none.
    pub functions: Vec<String>,
    /// Only so many levels.
    pub depth: Option<u32>,
    /// Which threads, when, and which events to show inside; none of those where there are no globs.
    pub filter: Filter,
    /// A line of JSON for each call, when it ends, and for each event.
    pub json: bool,
    /// Name the function also where it ends.
    pub tail: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graphed {
    /// Calls whose entry and exit are there.
    pub calls: u64,
    /// Calls that were left without an exit: by a panic, by `longjmp`, or it was lost.
    pub left: u64,
    /// Calls that had not ended when the trace did.
    pub open: u64,
    /// Exits whose entry is not there: it was before the recording, or was lost.
    pub without_entry: u64,
    /// Other events shown.
    pub events: u64,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// Draws the calls of `trace` to `out`, which is buffered here.
///
/// # Errors
/// When no function was recorded, a glob matches none, or `out` fails (see [`crate::Error::is_closed_pipe`]).
pub fn graph(trace: &Trace, options: &Options, out: &mut dyn Write) -> Result<Graphed> {
    let functions = Functions::of(trace);
    functions.check(trace)?;
    let wanted = functions.wanted(trace, &options.functions)?;
    let mut choice = functions.choose(trace, &options.filter)?;
    if options.filter.events.is_empty() {
        for (wanted, event) in choice.wanted.iter_mut().zip(trace.events()) {
            *wanted &= !event.is_own() || event.is_function() || crate::trace::is_loss(event);
        }
    }
    let format = if options.json { report::Format::JsonLines } else { report::Format::Text };
    let mut graph = Graph {
        functions: &functions,
        wanted,
        options,
        lines: Lines::new(trace, format, report::Time::Utc).with_symbols(trace),
        text: Vec::with_capacity(2 * GATHER),
        done: Graphed::default(),
    };
    if !options.json {
        graph.text.extend_from_slice(HEAD);
    }
    let mut lanes: Lanes<Lane> = Lanes::new();
    let mut reader = trace.reader_of(&choice);
    while let Some(event) = reader.next_event() {
        let mut gone = Vec::new();
        let lane = lanes.of(&event, |lane| gone.push(lane));
        gone.into_iter().for_each(|lane| graph.end(lane));
        graph.take(&event, lane);
        if graph.text.len() >= GATHER {
            out.write_all(&graph.text).map_err(|e| Error::output(&e))?;
            graph.text.clear();
        }
    }
    lanes.rest().into_iter().for_each(|lane| graph.end(lane));
    out.write_all(&graph.text).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    let mut done = graph.done;
    done.damage = reader.into_damage();
    Ok(done)
}

const HEAD: &[u8] = b"\
# THREAD                    DURATION           FUNCTION CALLS
# |                          |   |              |   |   |   |
";

/// A thread.
#[derive(Debug, Default)]
struct Lane {
    stacks: Stacks,
    whole: Whole<Told>,
    /// `name/tid`.
    who: String,
    tid: u32,
    thread: String,
    /// A call whose entry is not written yet: nothing is inside it so far.
    held: Option<Held>,
    /// What the innermost call returned, spelled.
    result: Vec<u8>,
    /// Arguments of calls, for their lines of JSON.
    args: Vec<(u64, Vec<u8>)>,
    /// Calls that are shown because of what they are (with globs): depth of the outermost one, and its id.
    root: Option<(u32, u64)>,
}

#[derive(Debug)]
struct Held {
    call: Call,
    args: Vec<u8>,
}

/// Something gathered of a session with a threshold.
#[derive(Debug)]
enum Told {
    Call(Point),
    /// A line, or the part of one that stands in a comment.
    Line(Vec<u8>),
}

struct Graph<'t> {
    functions: &'t Functions,
    wanted: Option<Vec<u32>>,
    options: &'t Options,
    lines: Lines,
    text: Vec<u8>,
    done: Graphed,
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Exit,
    Left,
    Open,
}

impl Graph<'_> {
    fn take(&mut self, event: &Event<'_>, lane: &mut Lane) {
        if lane.who.is_empty() || lane.thread != event.thread {
            lane.tid = event.tid;
            event.thread.clone_into(&mut lane.thread);
            lane.who = format!("{}/{}", escape::name(event.thread), event.tid);
        }
        match self.functions.hit(event) {
            Some(Hit::Entry(point)) => self.enter(point, lane),
            Some(Hit::Exit(point)) => self.exit(point, lane),
            Some(Hit::Whole(point, began)) => {
                lane.whole.call(began, point.ns, Told::Call(point));
                if lane.whole.is_full() {
                    self.tell(lane);
                }
            }
            None => self.event(event, lane),
        }
    }

    /// A thread is over, or the trace.
    fn end(&mut self, mut lane: Lane) {
        self.tell(&mut lane);
        self.open_held(&mut lane);
        let rest = lane.stacks.rest();
        for call in rest {
            self.over(&call, call.began.ns, How::Open, &mut lane);
        }
    }

    fn enter(&mut self, point: Point, lane: &mut Lane) {
        let mut left = Vec::new();
        let call = lane.stacks.enter(point, &mut left);
        self.left(left, point.ns, lane);
        lane.result.clear();
        if lane.root.is_none()
            && self.wanted.as_ref().is_none_or(|w| w.binary_search(&point.function).is_ok())
        {
            lane.root = Some((call.depth, call.id));
        }
        if self.is_shown(&call, lane) {
            self.open_held(lane);
            lane.held = Some(Held { call, args: Vec::new() });
        }
    }

    fn exit(&mut self, point: Point, lane: &mut Lane) {
        let mut left = Vec::new();
        let call = lane.stacks.exit(point, &mut left);
        self.left(left, point.ns, lane);
        match call {
            Some(call) => self.over(&call, point.ns, How::Exit, lane),
            None if self.wanted.is_none() => {
                self.open_held(lane);
                self.done.without_entry += 1;
                if !self.options.json {
                    let depth = lane.stacks.innermost().map_or(0, |call| call.depth + 1);
                    let name = escape::name(&self.functions.name(point.function));
                    self.line(lane, None, depth, &closing(&name, ""));
                }
            }
            None => {}
        }
        lane.result.clear();
    }

    fn left(&mut self, calls: Vec<Call>, ns: u64, lane: &mut Lane) {
        for call in calls {
            self.over(&call, ns, How::Left, lane);
        }
    }

    /// Whether a call is among those that are wanted, and not too deep.
    fn is_shown(&self, call: &Call, lane: &Lane) -> bool {
        let Some((outermost, _)) = lane.root else { return false };
        self.options.depth.is_none_or(|most| call.depth.saturating_sub(outermost) < most)
    }

    /// How far a call, or something inside one, is indented.
    fn depth(&self, depth: u32, lane: &Lane) -> u32 {
        match &self.wanted {
            Some(_) => lane.root.map_or(0, |(outermost, _)| depth.saturating_sub(outermost)),
            None => depth,
        }
    }

    /// A call is over.
    fn over(&mut self, call: &Call, ns: u64, how: How, lane: &mut Lane) {
        let shown = self.is_shown(call, lane);
        if shown {
            match how {
                How::Exit => self.done.calls += 1,
                How::Left => self.done.left += 1,
                How::Open => self.done.open += 1,
            }
            let took = ns.saturating_sub(call.began.ns);
            match self.options.json {
                true => self.json_call(call, took, how, lane),
                false => self.text_call(call, took, how, lane),
            }
        }
        if lane.root.is_some_and(|(_, id)| id == call.id) {
            lane.root = None;
        }
    }

    fn text_call(&mut self, call: &Call, took: u64, how: How, lane: &mut Lane) {
        let depth = self.depth(call.depth, lane);
        let result = std::mem::take(&mut lane.result);
        let mut text = Vec::new();
        let name = escape::name(&self.functions.name(call.began.function));
        match lane.held.take_if(|held| held.call.id == call.id && how == How::Exit) {
            Some(held) => {
                text.extend_from_slice(format!("{name}(").as_bytes());
                text.extend_from_slice(&held.args);
                text.extend_from_slice(b");");
            }
            None => {
                self.open_held(lane);
                text = match how {
                    How::Exit if self.options.tail => closing(&name, ""),
                    How::Exit => b"}".to_vec(),
                    How::Left => closing(&name, ": left without an exit"),
                    How::Open => return, // it has no end to draw
                };
            }
        }
        if !result.is_empty() && how == How::Exit {
            text.extend_from_slice(b" /* = ");
            push_comment(&mut text, &result);
            text.extend_from_slice(b" */");
        }
        self.line(lane, (how == How::Exit).then_some(took), depth, &text);
    }

    fn json_call(&mut self, call: &Call, took: u64, how: How, lane: &mut Lane) {
        let (began, id) = (call.began, call.id);
        let at = lane.args.iter().rposition(|(of, _)| *of == id);
        let args = at.map(|at| lane.args.swap_remove(at).1);
        let depth = self.depth(call.depth, lane);
        let out = &mut self.text;
        let _ = write!(out, "{{\"ts_ns\":{},\"call\":", began.ns);
        push_json(out, &self.functions.name(began.function));
        let _ = write!(out, ",\"tid\":{},\"thread\":", lane.tid);
        push_json(out, &lane.thread);
        let _ = write!(out, ",\"depth\":{depth}");
        match how {
            How::Exit => {
                let own = took.saturating_sub(call.inside_ns);
                let _ = write!(out, ",\"end\":\"exit\",\"duration_ns\":{took},\"self_ns\":{own}");
            }
            How::Left | How::Open => {
                let how = if how == How::Left { "left" } else { "open" };
                let _ = write!(out, ",\"end\":\"{how}\",\"duration_ns\":null,\"self_ns\":null");
            }
        }
        if let Some(entry) = self.functions.entry(began.function).filter(|e| !e.file.is_empty()) {
            out.extend_from_slice(b",\"file\":");
            push_json(out, &entry.file);
            let _ = write!(out, ",\"line\":{}", entry.line);
        }
        if let Some(args) = args {
            out.extend_from_slice(b",\"args\":");
            out.extend_from_slice(&args);
        }
        if !lane.result.is_empty() && how == How::Exit {
            out.extend_from_slice(b",\"returns\":");
            out.extend_from_slice(&lane.result);
        }
        lane.result.clear();
        out.extend_from_slice(b"}\n");
    }

    /// An event that is no call's begin or end.
    fn event(&mut self, event: &Event<'_>, lane: &mut Lane) {
        let innermost = lane.stacks.innermost().copied();
        if let Some(held) = &mut lane.held
            && innermost.is_some_and(|call| call.id == held.call.id)
            && self.functions.is_args_of(event.index, held.call.began.function)
        {
            match self.options.json {
                true => lane.args.push((held.call.id, fields_json(event))),
                false => held.args = spell(own(event)),
            }
            return;
        }
        if let Some(call) = innermost
            && self.functions.is_result_of(event.index, call.began.function)
        {
            lane.result = if self.options.json { fields_json(event) } else { spell(own(event)) };
            return;
        }
        if self.wanted.is_some() && lane.root.is_none() && !event.kind.is_own() {
            return; // outside of what is wanted
        }
        let mut line = Vec::new();
        match self.options.json {
            true => self.lines.push(event, &mut line),
            false => line = comment(event, &mut self.lines),
        }
        if self.functions.are_whole() {
            lane.whole.moment(event.ns, Told::Line(line));
            if lane.whole.is_full() {
                self.tell(lane);
            }
            return;
        }
        self.moment(&line, lane);
    }

    fn moment(&mut self, line: &[u8], lane: &mut Lane) {
        self.done.events += 1;
        self.open_held(lane);
        if self.options.json {
            self.text.extend_from_slice(line);
            return;
        }
        let depth = lane.stacks.innermost().map_or(0, |call| call.depth + 1);
        let depth = self.depth(depth, lane);
        self.line(lane, None, depth, line);
    }

    /// Tells what was gathered of a thread in a session with a threshold.
    fn tell(&mut self, lane: &mut Lane) {
        let mut whole = std::mem::take(&mut lane.whole);
        let mut open: Vec<Point> = Vec::new();
        whole.tell(|step| match step {
            Step::Enter(ns, Told::Call(point)) => {
                // By depth, since what is told here nests.
                let frame = u32::MAX / 2 - open.len() as u32;
                let point = Point { frame, ns, guard: false, ..point };
                open.push(point);
                self.enter(point, lane);
            }
            Step::Exit(ns) => {
                if let Some(point) = open.pop() {
                    self.exit(Point { ns, ..point }, lane);
                }
            }
            Step::Enter(_, Told::Line(line)) | Step::Moment(_, Told::Line(line)) => {
                self.moment(&line, lane);
            }
            Step::Moment(_, Told::Call(_)) => {}
        });
        lane.whole = whole;
    }

    /// Writes the entry of a call in which something is.
    fn open_held(&mut self, lane: &mut Lane) {
        let Some(held) = lane.held.take() else { return };
        if self.options.json {
            return;
        }
        let mut text = escape::name(&self.functions.name(held.call.began.function)).into_bytes();
        text.push(b'(');
        text.extend_from_slice(&held.args);
        text.extend_from_slice(b") {");
        let depth = self.depth(held.call.depth, lane);
        self.line(lane, None, depth, &text);
    }

    fn line(&mut self, lane: &Lane, took: Option<u64>, depth: u32, text: &[u8]) {
        let out = &mut self.text;
        let _ = match took {
            Some(ns) => {
                let time = format!("{}.{:03} us", ns / 1000, ns % 1000);
                write!(out, " {:WHO$} | {} {time:TIME$} | ", lane.who, mark(ns))
            }
            None => write!(out, " {:WHO$} |   {:TIME$} | ", lane.who, ""),
        };
        let indent = depth.min(MOST_INDENT) as usize * 2;
        let _ = write!(out, " {:indent$}", "");
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

/// How long a call took, at a glance; the kernel's.
fn mark(ns: u64) -> char {
    match ns {
        1_000_000_001.. => '$',
        100_000_001.. => '@',
        10_000_001.. => '*',
        1_000_001.. => '#',
        100_001.. => '!',
        10_001.. => '+',
        _ => ' ',
    }
}

type Fields<'a> = (&'a gracepoint_wire::schema::Field, Value<'a>);

/// `a = 1, b = 2`
fn spell<'a>(values: impl Iterator<Item = Fields<'a>>) -> Vec<u8> {
    let mut text = Vec::new();
    for (field, value) in values {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        escape::push_name(&mut text, &field.name);
        text.extend_from_slice(b" = ");
        match value {
            Value::None if field.is_sensitive() => text.extend_from_slice(b"***"),
            value => push_value(&value, &mut text),
        }
    }
    text
}

/// The event's own fields as an object.
fn fields_json(event: &Event<'_>) -> Vec<u8> {
    let mut text = b"{".to_vec();
    for (field, value) in own(event) {
        if text.len() > 1 {
            text.push(b',');
        }
        push_json(&mut text, &field.name);
        text.push(b':');
        match value {
            Value::None if field.is_sensitive() => text.extend_from_slice(b"\"***\""),
            value => push_json_value(&value, &mut text),
        }
    }
    text.push(b'}');
    text
}

/// Fields without those that the session adds.
fn own<'a>(event: &Event<'a>) -> impl Iterator<Item = Fields<'a>> + use<'a> {
    let own = event.kind.declared.schema.fields.len();
    event.values().skip(event.kind.fields.len().saturating_sub(own))
}

/// `/* name: { … } */`, as a report tells it.
fn comment(event: &Event<'_>, lines: &mut Lines) -> Vec<u8> {
    let mut told = Vec::new();
    lines.push_told(event, &mut told);
    let mut text = b"/*".to_vec();
    push_comment(&mut text, &told);
    text.extend_from_slice(b" */");
    text
}

/// `} /* name */`
fn closing(name: &str, how: &str) -> Vec<u8> {
    let mut text = b"} /* ".to_vec();
    push_comment(&mut text, name.as_bytes());
    text.extend_from_slice(how.as_bytes());
    text.extend_from_slice(b" */");
    text
}

/// Appends what stands in a comment, which it must not end.
fn push_comment(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, b"*/") {
        out.extend_from_slice(&rest[..=at]);
        out.push(b' ');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
