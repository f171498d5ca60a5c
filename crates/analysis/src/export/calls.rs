//! Calls of functions as slices, among the spans of their threads.
//!
//! Each function is a kind of its own to the output, after the trace's events, with its place in the source as fields. A
//! call is a span whose id no span of the program has. What a session with a threshold tells at the end of
//! calls is gathered (`functions::whole`) and written as complete slices.

use super::spans::Open;
use super::{Export, Record, Span};
use crate::functions::stack::{Call, Point, Stacks};
use crate::functions::whole::{Step, Whole};
use crate::functions::{Functions, Hit, Lanes};
use crate::read::Event;
use crate::{EventType, Result, Trace};
use gracepoint_wire::schema::{Declared, Field, Role, Schema, Type};
use std::collections::HashMap;

/// Ids of calls have this bit; the runtime's ids of spans do not come that far.
const CALL: u64 = 1 << 63;
/// Bits for the number of a call on its thread.
const NUMBER: u32 = 40;

/// The functions of a trace as the output knows them, and who is in them.
pub(super) struct Calls {
    pub(super) functions: Functions,
    /// The trace's events, and then the functions.
    pub(super) kinds: Vec<EventType>,
    /// By position among `kinds`, from the first function on.
    payloads: Vec<Vec<u8>>,
    first: u32,
    by_id: HashMap<u32, u32>,
    lanes: Lanes<Lane>,
    threads: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// From 1; 0 for a thread that is new.
    number: u64,
    /// Position among the export's threads.
    thread: usize,
    stacks: Stacks,
    whole: Whole<Point>,
}

/// Whether a span is a call.
pub(super) fn is_call(id: u64) -> bool {
    id & CALL != 0
}

impl Lane {
    fn id(&self, call: u64) -> u64 {
        CALL | (self.number & 0x7f_ffff) << NUMBER | call & ((1 << NUMBER) - 1)
    }
}

impl Calls {
    pub(super) fn of(trace: &Trace) -> Result<Calls> {
        let functions = Functions::of(trace);
        let mut kinds = trace.events().to_vec();
        let first = kinds.len() as u32;
        let (mut payloads, mut by_id) = (Vec::new(), HashMap::new());
        // The last one is for those that the sidecar does not name.
        let all = trace.sidecar().map_or(&[][..], |sidecar| &sidecar.functions);
        for entry in all.iter().filter(|_| !functions.is_empty()) {
            by_id.insert(entry.id, kinds.len() as u32);
            let known = !entry.file.is_empty() && !entry.file.contains('\0');
            kinds.push(kind(&functions.name(entry.id), known)?);
            payloads.push(match known {
                true => [entry.file.as_bytes(), b"\0", &entry.line.to_le_bytes()].concat(),
                false => Vec::new(),
            });
        }
        kinds.push(kind("function", false)?);
        payloads.push(Vec::new());
        Ok(Calls { functions, kinds, payloads, first, by_id, lanes: Lanes::new(), threads: 0 })
    }

    fn kind(&self, function: u32) -> u32 {
        self.by_id.get(&function).copied().unwrap_or(self.kinds.len() as u32 - 1)
    }

    fn payload(&self, kind: u32) -> &[u8] {
        &self.payloads[(kind - self.first) as usize]
    }

    fn lane(&mut self, event: &Event<'_>, thread: usize) -> &mut Lane {
        // What a thread that is gone was inside of stays open.
        let lane = self.lanes.of(event, |_| ());
        if lane.number == 0 {
            self.threads += 1;
            lane.number = self.threads;
        }
        lane.thread = thread;
        lane
    }
}

fn kind(name: &str, known: bool) -> Result<EventType> {
    let field = |name: &str, ty| Field { name: name.into(), ty, docs: String::new() };
    let fields = match known {
        true => vec![field("file", Type::Str), field("line", Type::Uint(4))],
        false => Vec::new(),
    };
    let schema = Schema { name: name.into(), docs: String::new(), fields };
    EventType::new(Declared { id: 0, role: Role::Event, schema }, &[])
}

impl Export<'_> {
    /// A record of a function.
    pub(super) fn call(&mut self, hit: Hit, event: &Event<'_>, thread: usize) {
        let mut left = Vec::new();
        let lane = self.calls.lane(event, thread);
        match hit {
            Hit::Entry(point) => {
                let call = lane.stacks.enter(point, &mut left);
                let (id, parent) = (lane.id(call.id), lane.id(call.parent));
                let left: Vec<u64> = left.iter().map(|call| lane.id(call.id)).collect();
                left.into_iter().for_each(|id| self.call_over(id, thread, point.ns));
                self.call_begins(&call, id, parent, thread);
            }
            Hit::Exit(point) => {
                let call = lane.stacks.exit(point, &mut left);
                let over = left.iter().chain(&call).map(|call| lane.id(call.id));
                let over: Vec<u64> = over.collect();
                over.into_iter().for_each(|id| self.call_over(id, thread, point.ns));
                self.done.without_begin += u64::from(call.is_none());
            }
            Hit::Whole(point, began) => {
                lane.whole.call(began, point.ns, point);
                if lane.whole.is_full() {
                    let whole = std::mem::take(&mut lane.whole);
                    self.tell(whole, thread);
                }
            }
        }
    }

    fn call_begins(&mut self, call: &Call, id: u64, parent: u64, thread: usize) {
        let kind = self.calls.kind(call.began.function);
        // Inside of what the thread entered last: the caller, or a span in it.
        let inner = self.spans.innermost(thread);
        let parent = inner.filter(|inner| self.spans.is_older(parent, *inner)).unwrap_or(parent);
        let node = self.spans.node(parent);
        let node = self.sink.begin(call.began.ns, &self.threads[thread], kind, node);
        let begin_ns = call.began.ns;
        let open = Open { id, parent, thread, kind, begin_ns, node, ..Open::default() };
        let mut gone = Vec::new();
        self.spans.begin(open, self.calls.payload(kind), |span| gone.push(span));
        gone.into_iter().for_each(|span| self.over(span, None));
    }

    fn call_over(&mut self, id: u64, thread: usize, ns: u64) {
        if let Some((span, end_ns)) = self.spans.end(id, thread, ns) {
            self.over(span, Some(end_ns));
        }
    }

    /// The span that a new one on `thread` is inside of: its parent, or a call that began inside of that.
    pub(super) fn around(&self, parent: u64, thread: usize) -> u64 {
        match self.spans.innermost(thread) {
            Some(inner) if is_call(inner) && self.spans.is_older(parent, inner) => inner,
            _ => parent,
        }
    }

    /// Writes calls that were told at their end.
    fn tell(&mut self, mut whole: Whole<Point>, thread: usize) {
        let mut open: Vec<Open> = Vec::new();
        // Begins differ, and ends are not before what is inside: a viewer that sorts by time must not be misled.
        let (mut last_begin, mut last) = (0u64, 0u64);
        whole.tell(|step| match step {
            Step::Enter(ns, point) => {
                let kind = self.calls.kind(point.function);
                let around = open.last().map(|open| open.node);
                let node = self.sink.begin(ns, &self.threads[thread], kind, around);
                let begin_ns = ns.max(last_begin.saturating_add(1)).max(last);
                (last_begin, last) = (begin_ns, begin_ns);
                open.push(Open { id: CALL, thread, kind, begin_ns, node, ..Open::default() });
            }
            Step::Exit(ns) => {
                let Some(call) = open.pop() else { return };
                last = last.max(ns);
                if let Some(around) = open.last_mut() {
                    around.inside_ns = around.inside_ns.saturating_add(last - call.begin_ns);
                }
                let payload = self.calls.payload(call.kind);
                let kind = &self.calls.kinds[call.kind as usize];
                let begin = Record { kind, index: call.kind, payload };
                self.sink.span(&Span { begin, later: Vec::new(), open: &call, end_ns: Some(last) });
                self.done.calls += 1;
            }
            Step::Moment(..) => {}
        });
    }

    /// Writes what is gathered.
    pub(super) fn tell_rest(&mut self) {
        for lane in self.calls.lanes.rest() {
            self.tell(lane.whole, lane.thread);
        }
    }
}
