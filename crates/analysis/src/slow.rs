//! Where the time of slow spans went: running, runnable, blocked in which system call, woken by whom.
//!
//! What a trace has of the kernel decides how much is known: switches (`record -k` or `--profile`) tell running
//! from not running; `syscalls:*` (or `raw_syscalls:*`) in what it was blocked; `sched:sched_waking`, which
//! a thread of the program records when it wakes another, when it could have gone on, and which span the
//! waker was in. A span counts on the thread on which it began; one that threads enter and leave, as those of
//! `tracing`, on each as long as that is in it. The rest of its time it is in no thread: its task is not polled.

mod text;

use crate::export::role_fields;
use crate::read::Event;
use crate::{Damage, Error, EventType, Result, Trace, Value, escape};
use gracepoint_wire::profile::{FIRST_KERNEL_ID, SWITCH_ID, SWITCH_NAME};
use gracepoint_wire::schema::Role;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Slow spans that are kept; of more, the shortest go.
const MOST_KEPT: usize = 10_000;
/// Spans of one thread that are open at once.
const MOST_OPEN: usize = 1 << 12;
/// Spans that no thread is in.
const MOST_OUTSIDE: usize = 1 << 17;
/// What the kernel's times and the program's own are apart at most, in nanoseconds.
pub(crate) const APART_NS: u64 = 50_000;

/// Where time went, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Parts {
    /// From begin to end.
    pub total_ns: u64,
    /// On a CPU.
    pub running_ns: u64,
    /// It could have run: preempted, or woken and not on a CPU yet.
    pub runnable_ns: u64,
    /// No thread was in it: its task was not polled.
    pub outside_ns: u64,
    /// It waited, by what for: `futex`, `read, until db:query of worker-2/17 woke it`.
    pub blocked_ns: BTreeMap<String, u64>,
}

impl Parts {
    fn add(&mut self, other: &Parts) {
        self.total_ns += other.total_ns;
        self.running_ns += other.running_ns;
        self.runnable_ns += other.runnable_ns;
        self.outside_ns += other.outside_ns;
        for (why, ns) in &other.blocked_ns {
            *self.blocked_ns.entry(why.clone()).or_default() += ns;
        }
    }

    fn off(&self) -> u64 {
        self.runnable_ns + self.outside_ns + self.blocked_ns.values().sum::<u64>()
    }
}

/// A slow span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct One {
    /// When it began, nanoseconds since 1970.
    pub begin_ns: u64,
    /// Its thread's name, escaped.
    pub thread: String,
    /// The kernel's number of that.
    pub tid: u32,
    /// Where its time went.
    pub parts: Parts,
}

/// What is slow, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Slow {
    /// The spans' name, escaped.
    pub event: String,
    /// From this length on one is slow.
    pub over_ns: u64,
    /// Spans that have begun and ended.
    pub spans: u64,
    /// How many of them are slow.
    pub slow: u64,
    /// All slow ones added up.
    pub sum: Parts,
    /// The slowest first.
    pub slowest: Vec<One>,
    /// The trace tells of system calls.
    pub has_calls: bool,
    /// The trace tells who woke whom.
    pub has_wakers: bool,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// A span that is watched.
struct Target {
    id: u64,
    begin_ns: u64,
    /// How often the thread is in it, if it is entered and left.
    inside: u32,
    parts: Parts,
}

impl Target {
    fn new(id: u64, begin_ns: u64) -> Target {
        Target { id, begin_ns, inside: 0, parts: Parts::default() }
    }
}

/// One that no thread is in.
struct Outside {
    target: Target,
    since_ns: u64,
    /// Where it was last, or began.
    tid: u32,
}

#[derive(Default)]
struct Thread {
    name: String,
    /// When it left its CPU, and whether it could have gone on.
    left: Option<(u64, bool)>,
    /// When it was woken since, and by whom.
    woken: Option<(u64, String)>,
    call: Option<String>,
    open: Vec<(u64, u32)>,
    targets: Vec<Target>,
}

/// Looks at the spans called `event` that took at least `over_ns`.
///
/// ```
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let error = gracepoint_analysis::slow::slow(&trace, "db:query", 0).unwrap_err();
/// assert!(error.to_string().contains("record -k"));
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// When there is no such span, or the trace does not tell when threads ran.
pub fn slow(trace: &Trace, event: &str, over_ns: u64) -> Result<Slow> {
    let is_target =
        |kind: &EventType| kind.declared.role != Role::Event && kind.declared.schema.name == event;
    if !trace.events().iter().any(is_target) {
        if trace.events().iter().any(|kind| kind.name == event) {
            return Err(Error::new(format!(
                "{} is a point in time and takes none: `slow` is about spans",
                escape::name(event)
            )));
        }
        return Err(trace.no_such_event(event));
    }
    if !trace.events().iter().any(|kind| kind.name == SWITCH_NAME) {
        return Err(Error::new(
            "the trace does not tell when threads ran: record with `gracepoint record -k \
             'syscalls:*,sched:sched_waking'` (or --profile, which tells only that they did not)",
        ));
    }
    let is_entered = |kind: &EventType| is_target(kind) && kind.declared.role == Role::Enter;
    let mut looking = Looking {
        is_target: trace.events().iter().map(is_target).collect(),
        is_on_cpu: trace.events().iter().map(is_on_cpu).collect(),
        entered: trace.events().iter().any(is_entered),
        outside: HashMap::new(),
        names: trace.events().iter().map(|kind| escape::name(&kind.declared.schema.name)).collect(),
        threads: HashMap::new(),
        slow: Slow { event: escape::name(event), over_ns, ..Slow::default() },
    };
    let has = |begin: &str| trace.events().iter().any(|kind| kind.name.starts_with(begin));
    looking.slow.has_calls = has("syscalls:sys_enter_") || has("raw_syscalls:sys_enter");
    looking.slow.has_wakers = has("sched:sched_waking");
    let mut reader = trace.reader();
    while let Some(event) = reader.next_event() {
        looking.take(&event);
    }
    let mut slow = looking.slow;
    slow.slowest.sort_by_key(|one| std::cmp::Reverse(one.parts.total_ns));
    slow.slowest.truncate(MOST_KEPT);
    slow.damage = reader.into_damage();
    Ok(slow)
}

struct Looking {
    is_target: Vec<bool>,
    /// See the function of that name.
    is_on_cpu: Vec<bool>,
    /// The spans are entered and left.
    entered: bool,
    /// By their ids.
    outside: HashMap<u64, Outside>,
    names: Vec<String>,
    threads: HashMap<u32, Thread>,
    slow: Slow,
}

impl Looking {
    fn take(&mut self, event: &Event<'_>) {
        let thread = self.threads.entry(event.tid).or_default();
        if thread.name != event.thread {
            event.thread.clone_into(&mut thread.name);
        }
        let (tid, ns, kind) = (event.tid, event.ns, event.index);
        let id = role_fields(event).map(|(id, _)| id);
        if self.is_on_cpu[event.index as usize] {
            thread.runs(ns);
        }
        match (event.kind.declared.role, id) {
            (Role::Begin, Some(id)) => self.begin(id, tid, ns, kind),
            (Role::Enter, Some(id)) => self.enter(id, tid, ns, kind),
            (Role::Exit, Some(id)) => self.exit(id, tid, ns),
            (Role::End, Some(id)) => self.end(id, tid, ns),
            _ if event.kind.declared.id == SWITCH_ID => self.switch(event),
            _ if event.kind.declared.id >= FIRST_KERNEL_ID => self.kernel(event),
            _ => {}
        }
    }

    fn begin(&mut self, id: u64, tid: u32, ns: u64, kind: u32) {
        let is_target = self.is_target[kind as usize];
        if is_target && self.entered {
            if self.outside.len() < MOST_OUTSIDE {
                let outside = Outside { target: Target::new(id, ns), since_ns: ns, tid };
                self.outside.insert(id, outside);
            }
            return;
        }
        let thread = self.threads.entry(tid).or_default();
        if thread.open.len() < MOST_OPEN {
            thread.open.push((id, kind));
        }
        if is_target && thread.targets.len() < MOST_OPEN {
            thread.targets.push(Target::new(id, ns));
        }
    }

    fn enter(&mut self, id: u64, tid: u32, ns: u64, kind: u32) {
        let thread = self.threads.entry(tid).or_default();
        if thread.open.len() < MOST_OPEN {
            thread.open.push((id, kind));
        }
        if let Some(Outside { mut target, since_ns, .. }) = self.outside.remove(&id) {
            target.parts.outside_ns += ns.saturating_sub(since_ns);
            target.inside = 1;
            thread.targets.push(target);
        } else if let Some(target) = thread.targets.iter_mut().find(|target| target.id == id) {
            target.inside += 1;
        }
    }

    fn exit(&mut self, id: u64, tid: u32, ns: u64) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        if let Some(at) = thread.open.iter().rposition(|(open, _)| *open == id) {
            thread.open.remove(at);
        }
        let Some(at) = thread.targets.iter().position(|target| target.id == id) else { return };
        let target = &mut thread.targets[at];
        target.inside = target.inside.saturating_sub(1);
        if target.inside == 0 {
            let target = thread.targets.remove(at);
            self.outside.insert(id, Outside { target, since_ns: ns, tid });
        }
    }

    fn end(&mut self, id: u64, tid: u32, ns: u64) {
        if let Some(Outside { mut target, since_ns, tid }) = self.outside.remove(&id) {
            target.parts.outside_ns += ns.saturating_sub(since_ns);
            return self.ended(target, tid, ns);
        }
        let on = |thread: &Thread| thread.open.iter().any(|(open, _)| *open == id);
        let tid = match self.threads.get(&tid).is_some_and(on) {
            true => tid,
            // Carried to another thread.
            false => match self.threads.iter().find(|(_, thread)| on(thread)) {
                Some((&tid, _)) => tid,
                None => return,
            },
        };
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        thread.open.retain(|(open, _)| *open != id);
        let Some(at) = thread.targets.iter().position(|target| target.id == id) else { return };
        if thread.left.is_some() {
            // Where it ends on another thread, this one may be off its CPU.
            thread.off_until(ns);
            thread.left = thread.left.map(|(_, preempted)| (ns, preempted));
        }
        let target = thread.targets.remove(at);
        self.ended(target, tid, ns);
    }

    /// A span has ended that was last on this thread.
    fn ended(&mut self, target: Target, tid: u32, ns: u64) {
        let Target { begin_ns, mut parts, .. } = target;
        parts.total_ns = ns.saturating_sub(begin_ns);
        parts.running_ns = parts.total_ns.saturating_sub(parts.off());
        let slow = &mut self.slow;
        slow.spans += 1;
        if parts.total_ns < slow.over_ns {
            return;
        }
        slow.slow += 1;
        slow.sum.add(&parts);
        let thread = self.threads.get(&tid).map_or("", |thread| &thread.name);
        slow.slowest.push(One { begin_ns, thread: escape::name(thread), tid, parts });
        if slow.slowest.len() >= 2 * MOST_KEPT {
            slow.slowest.sort_by_key(|one| std::cmp::Reverse(one.parts.total_ns));
            slow.slowest.truncate(MOST_KEPT);
        }
    }

    fn switch(&mut self, event: &Event<'_>) {
        let is = |name: &str| {
            event.kind.field(name).and_then(|at| event.value(at)) == Some(Value::Bool(true))
        };
        let Some(thread) = self.threads.get_mut(&event.tid) else { return };
        if is("out") {
            thread.left = Some((event.ns, is("preempted")));
            thread.woken = None;
        } else {
            thread.is_back(event.ns);
        }
    }

    /// A tracepoint of the kernel, on the thread that hit it.
    fn kernel(&mut self, event: &Event<'_>) {
        let name = event.name();
        let number = |field: &str| match event.kind.field(field).and_then(|at| event.value(at))? {
            Value::Int(n) => Some(n),
            Value::Uint(n) => i64::try_from(n).ok(),
            _ => None,
        };
        if name == "sched:sched_waking" {
            let Some(sleeper) = number("pid").and_then(|pid| u32::try_from(pid).ok()) else {
                return;
            };
            let waker = self.threads.get(&event.tid).map(|thread| {
                let who = format!("{}/{}", escape::name(&thread.name), event.tid);
                match thread.open.last() {
                    Some((_, kind)) => format!("{} of {who}", self.names[*kind as usize]),
                    None => who,
                }
            });
            let Some(thread) = self.threads.get_mut(&sleeper) else { return };
            if thread.left.is_some() && thread.woken.is_none() {
                thread.woken = Some((event.ns, waker.unwrap_or_default()));
            }
            return;
        }
        let Some(thread) = self.threads.get_mut(&event.tid) else { return };
        if let Some(call) = name.strip_prefix("syscalls:sys_enter_") {
            thread.call = Some(escape::name(call));
        } else if name == "raw_syscalls:sys_enter" {
            thread.call = number("id").map(|id| format!("system call {id}"));
        } else if name.starts_with("syscalls:sys_exit_") || name == "raw_syscalls:sys_exit" {
            thread.call = None;
        }
    }
}

/// Whether whoever recorded this was running then: it is an event of the program's own, or of the way in and out of
/// a system call. What the kernel does on the way to another thread still counts as the first one's.
pub(crate) fn is_on_cpu(kind: &EventType) -> bool {
    let name = &kind.name;
    match kind.declared.id < FIRST_KERNEL_ID {
        true => !name.starts_with("gp:"),
        false => name.starts_with("syscalls:") || name.starts_with("raw_syscalls:"),
    }
}

impl Thread {
    /// It runs now. Where it was off its CPU, the switch back is missing: rings run over, and tracefs does not
    /// note each.
    fn runs(&mut self, now: u64) {
        if self.left.is_some_and(|(left, _)| now > left + APART_NS) {
            self.is_back(now);
        }
    }

    fn is_back(&mut self, now: u64) {
        self.off_until(now);
        (self.left, self.woken) = (None, None);
    }

    /// It was off its CPU until now: adds that to the spans that were open.
    fn off_until(&mut self, now: u64) {
        let Some((left, preempted)) = self.left else { return };
        let waits_until = match (&self.woken, preempted) {
            (_, true) => left,
            (Some((woken, _)), false) => *woken,
            (None, false) => now,
        };
        let mut why = self.call.clone().unwrap_or_else(|| "(no system call known)".to_owned());
        if let Some((_, waker)) = self.woken.as_ref().filter(|(_, waker)| !waker.is_empty()) {
            why += &format!(", until {waker} woke it");
        }
        for target in &mut self.targets {
            let from = left.max(target.begin_ns);
            let split = waits_until.clamp(from, now.max(from));
            if split > from {
                *target.parts.blocked_ns.entry(why.clone()).or_default() += split - from;
            }
            target.parts.runnable_ns += now.saturating_sub(split);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(begin_ns: u64) -> Target {
        Target::new(1, begin_ns)
    }

    #[test]
    fn time_off_is_blocked_up_to_the_waking_and_runnable_after() {
        let mut thread = Thread {
            left: Some((100, false)),
            woken: Some((160, "b of c/2".into())),
            call: Some("read".into()),
            targets: vec![target(0), target(120), target(170)],
            ..Thread::default()
        };
        thread.off_until(200);
        let told = |at: usize| {
            let parts = &thread.targets[at].parts;
            (parts.runnable_ns, parts.blocked_ns.values().sum::<u64>())
        };
        assert_eq!((told(0), told(1), told(2)), ((40, 60), (40, 40), (30, 0)));
        let why = "read, until b of c/2 woke it";
        assert_eq!(thread.targets[0].parts.blocked_ns.get(why), Some(&60));
    }

    #[test]
    fn a_preempted_thread_is_runnable() {
        let mut thread =
            Thread { left: Some((100, true)), targets: vec![target(50)], ..Thread::default() };
        thread.off_until(130);
        assert_eq!(thread.targets[0].parts.runnable_ns, 30);
        assert!(thread.targets[0].parts.blocked_ns.is_empty());
    }

    /// What it records after it has left tells that it is back, though the switch is missing; not what it recorded just
    /// before, by another clock.
    #[test]
    fn a_thread_that_records_is_back() {
        let mut thread = Thread {
            left: Some((1_000_000, false)),
            call: Some("read".into()),
            targets: vec![target(0)],
            ..Thread::default()
        };
        thread.runs(1_000_000 + APART_NS);
        assert!(thread.left.is_some() && thread.targets[0].parts.off() == 0);
        thread.runs(4_000_000);
        thread.runs(5_000_000);
        assert_eq!(thread.left, None);
        assert_eq!(thread.targets[0].parts.blocked_ns.get("read"), Some(&3_000_000));
    }

    /// A task that is polled on two threads, and twice at once on one: its time in between is nobody's, and what
    /// its threads do meanwhile is none of its.
    #[test]
    fn a_span_counts_where_threads_are_in_it() {
        let mut looking = Looking {
            is_target: vec![true],
            is_on_cpu: vec![true],
            names: vec!["task".into()],
            entered: true,
            outside: HashMap::new(),
            threads: HashMap::new(),
            slow: Slow::default(),
        };
        let off = |looking: &mut Looking, tid: u32, from: u64, to: u64| {
            let thread = looking.threads.get_mut(&tid).unwrap();
            thread.left = Some((from, false));
            thread.off_until(to);
            thread.left = None;
        };
        looking.begin(7, 1, 100, 0);
        looking.enter(7, 1, 110, 0);
        off(&mut looking, 1, 120, 125); // blocked within a poll
        looking.enter(7, 1, 126, 0);
        looking.exit(7, 1, 128);
        looking.exit(7, 1, 130);
        off(&mut looking, 1, 140, 190); // and outside of one
        looking.enter(7, 2, 200, 0);
        looking.exit(7, 2, 220);
        looking.end(7, 1, 230);
        let [one] = &looking.slow.slowest[..] else { panic!("{:?}", looking.slow) };
        let Parts { total_ns, running_ns, runnable_ns, outside_ns, blocked_ns } = &one.parts;
        assert_eq!((one.tid, *total_ns, *outside_ns), (2, 130, 10 + 70 + 10));
        assert_eq!((*running_ns, *runnable_ns, blocked_ns.values().sum()), (35, 0, 5));
        assert!(looking.outside.is_empty() && looking.threads.values().all(|t| t.open.is_empty()));
    }
}
