//! "Why is it stuck?", of a program that lives or has left a core file.
//!
//! A [`Look`] is all that is known at one moment: what the program says of its domains (its agent's answer, or its
//! memory by [`mirror`]), and what the kernel says of its threads. [`explain`] makes the graph of
//! [`stuck`](crate::stuck) of it, and an account: who waits → for which grace period → who holds it up → what that one
//! does. What the program says is exact, so those hops are `printed`; a lock's owner that was read from memory is
//! `derived`; nothing is guessed.
//!
//! | module | what it does |
//! |---|---|
//! | [`memory`] | what can be read of a process |
//! | [`mirror`] | the state of the domains, found in the memory of a program that does not answer |
//! | [`core_file`] | a core file as the memory of a process |
//! | [`stack`] | stacks of threads, from outside |
//! | [`futex`] | who has the lock behind a futex |
//! | [`calls`] | names of system calls |
//! | `links` | what is known, as edges |
//!
//! Tasks of an async runtime are known by the spans that they are in, where the bridge from `tracing` keeps track of
//! those: one that was not polled for long is told, and the chain ends there, since nobody but itself knows what it
//! awaits. An owned guard is a node by its owner's name: which task has it is not known.

pub mod calls;
pub mod core_file;
pub mod futex;
mod links;
pub mod memory;
pub mod mirror;
pub mod stack;

use crate::stuck::account::{Account, CHAINS, Chain, Scene, Sight, TaskStack, Verdict, chains};
use crate::stuck::graph::{Edge, EdgeKind, Graph, Node};
use crate::stuck::{Explanation, Frame};
use futex::Futex;
use gracepoint_wire::control::{SpansKept, Stuck};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How the state of the domains was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The program's agent answered.
    Agent,
    /// It was read from the memory of the program.
    Memory,
    /// From a core file.
    Core,
}

impl Source {
    /// In words, as evidence.
    pub fn words(self) -> &'static str {
        match self {
            Source::Agent => "agent",
            Source::Memory => "its memory",
            Source::Core => "core file",
        }
    }
}

/// Everything that is known of a program at one moment. Numbers of threads are those of the reader's pid
/// namespace.
#[derive(Debug)]
pub struct Look {
    /// What it is called.
    pub name: String,
    /// Its number.
    pub pid: u32,
    /// How the state of its domains was come by.
    pub source: Source,
    /// Its domains.
    pub stuck: Stuck,
    /// Its threads, as far as they are known.
    pub threads: BTreeMap<u32, Thread>,
    /// Recording sessions that are full.
    pub full: Vec<FullSession>,
    /// Why its agent could not be asked, if it could not: `does not answer`.
    pub silent: Option<String>,
    /// What was seen beside, and may be a cause.
    pub besides: Vec<(&'static str, String)>,
    /// What would tell more, as far as whoever looked knows.
    pub wanted: Vec<&'static str>,
}

/// A thread, as the kernel sees it.
#[derive(Debug, Clone, Default)]
pub struct Thread {
    /// Its name.
    pub name: String,
    /// `R`, `S`, `D`, `T`, … as in `ps`.
    pub state: Option<char>,
    /// The kernel's function that it sleeps in.
    pub sleeps_in: Option<String>,
    /// The system call that it is in: its name, and what it is about.
    pub call: Option<String>,
    /// The futex that it sleeps on.
    pub futex: Option<Futex>,
    /// For how long it has slept there, nanoseconds, where the kernel tells.
    pub waited_ns: Option<u64>,
    /// The signal that came again and again while it was looked at, so that it does not get on.
    pub storm: Option<u32>,
    /// Its calls, innermost first.
    pub stack: Vec<Frame>,
}

/// A recording session that has no room and loses events.
#[derive(Debug, Clone, Default)]
pub struct FullSession {
    /// Its number in the program.
    pub session: u64,
    /// Its name.
    pub name: String,
    /// Events that it has lost.
    pub lost: u64,
    /// The process that drains it.
    pub consumer: u32,
    /// That process's name and state.
    pub thread: Thread,
}

/// Says why a program is stuck, as far as anything is older than `threshold`.
pub fn explain(look: &Look, threshold: Duration) -> Explanation {
    let (graph, complaints) = links::graph(look, threshold);
    let starts: BTreeSet<Node> =
        complaints.iter().filter_map(|complaint| complaint.node.clone()).collect();
    let begins = led_to(&graph, &starts);
    let scene = LookScene { look, graph: &graph };
    let mut found =
        if complaints.is_empty() { Vec::new() } else { chains(&scene, &graph, &begins) };
    let explained = |node: &Node| {
        let reach = graph.reach(node);
        found.iter().any(|chain| reach.contains(&chain.end))
    };
    let unexplained: Vec<String> = complaints
        .iter()
        .filter(|complaint| !complaint.node.as_ref().is_some_and(explained))
        .map(|complaint| complaint.text.clone())
        .collect();
    found.truncate(CHAINS.max(complaints.len()).min(16));
    let mut tasks = BTreeMap::new();
    for node in graph.edges.iter().flat_map(|e| [&e.from, &e.to]).chain(&begins) {
        if let Node::Task(tid) = node {
            tasks.insert(*tid, scene.look.thread_name(*tid));
        }
    }
    let stacks = stacks(look, &found);
    let unexplained = [unexplained, without_stack(look, &found)].concat();
    let besides = look.besides.iter().map(|(name, text)| Sight {
        name,
        count: 1,
        line: 0,
        text: text.clone(),
    });
    let account = Account {
        collect: collect(look, &found),
        symptoms: complaints,
        chains: found,
        edges: graph.edges.clone(),
        tasks,
        unexplained,
        besides: besides.collect(),
        stacks,
        ..Account::default()
    };
    let title = title(look, &account);
    let accounts = if account.symptoms.is_empty() { Vec::new() } else { vec![account] };
    Explanation { title: Some(title), accounts, incidents_left_out: 0, lines: 0 }
}

/// What complains, and whoever waits for it, however far: that is where a chain begins.
fn led_to(graph: &Graph, starts: &BTreeSet<Node>) -> BTreeSet<Node> {
    let mut begins = starts.clone();
    let mut todo: Vec<Node> = starts.iter().cloned().collect();
    while let Some(node) = todo.pop() {
        for edge in graph.edges.iter().filter(|edge| edge.to == node) {
            if begins.insert(edge.from.clone()) {
                todo.push(edge.from.clone());
            }
        }
    }
    begins
}

fn title(look: &Look, account: &Account) -> String {
    let who = format!("{} (pid {})", look.name, look.pid);
    match account.symptoms.as_slice() {
        // A lock of std's has no owner that can be read: no circle of those is found before they are old.
        [] => format!("{who}: no grace period, callback, task, session, lock or agent is stuck"),
        [one] => format!("{who}: {}", one.text),
        [first, more @ ..] => format!("{who}: {}, and {} more", first.text, more.len()),
    }
}

impl Look {
    pub(crate) fn thread_name(&self, tid: u32) -> String {
        if let Some(thread) = self.threads.get(&tid).filter(|thread| !thread.name.is_empty()) {
            return thread.name.clone();
        }
        let domains = &self.stuck.domains;
        let readers = domains.iter().flat_map(|domain| &domain.readers);
        let reader =
            readers.filter(|reader| reader.tid == tid).map(|reader| reader.name.clone()).next();
        let full = || {
            self.full.iter().find(|full| full.consumer == tid).map(|full| full.thread.name.clone())
        };
        reader.or_else(full).unwrap_or_default()
    }
}

/// What is known of the nodes beside the graph.
struct LookScene<'l> {
    look: &'l Look,
    graph: &'l Graph,
}

impl Scene for LookScene<'_> {
    fn name(&self, task: u32) -> String {
        match self.look.thread_name(task) {
            name if name.is_empty() => format!("thread {task}"),
            name => format!("{name}/{task}"),
        }
    }

    fn end(&self, end: Node, hops: &[Edge]) -> (Node, Verdict, String) {
        match &end {
            Node::Event(storm)
                if hops.last().is_some_and(|hop| hop.kind == EdgeKind::StarvedBy) =>
            {
                let reader = hops[hops.len() - 1].from.clone();
                let who = match &reader {
                    Node::Task(task) => self.name(*task),
                    other => other.to_string(),
                };
                let words = format!("{who} is ready to run and does not get on: {storm}");
                (reader, Verdict::Culprit, words)
            }
            Node::Task(task) => {
                let (verdict, words) = self.task(*task, hops);
                (end, verdict, words)
            }
            Node::Event(_) => {
                let words = format!("{} has not ended", capital(&end, hops));
                (end, Verdict::Culprit, words)
            }
            Node::Queue(name) => {
                let words = format!("{name}{}", queue_words(hops));
                (end, Verdict::Culprit, words)
            }
            Node::Lock(lock) => {
                let words = format!("unknown: the memory of {lock} does not say who has it");
                (end, Verdict::Unknown, words)
            }
            Node::Gp(gp) => {
                let words = format!(
                    "unknown: no reader of grace period {gp} was seen inside; it ends when somebody drives it"
                );
                (end, Verdict::Unknown, words)
            }
            Node::Unknown(why) => {
                let rest = match hops.last() {
                    Some(hop) if hop.rule == "not-polled" => {
                        "; nobody has woken it, or it is not run. It may be at rest, as a connection without requests"
                    }
                    _ => "",
                };
                let words = format!("unknown: {why}{rest}");
                (end, Verdict::Unknown, words)
            }
            other => {
                let words = format!("unknown: nothing shows what {other} lacks");
                (end, Verdict::Unknown, words)
            }
        }
    }

    fn knows_of(&self, _: u32) -> bool {
        true
    }
}

fn capital(end: &Node, hops: &[Edge]) -> String {
    let why = hops.last().map(|hop| format!(" ({})", hop.why)).unwrap_or_default();
    match end {
        Node::Event(name) => format!("{name}{why}"),
        other => other.to_string(),
    }
}

fn queue_words(hops: &[Edge]) -> String {
    hops.last().map(|hop| format!(": {}", hop.why)).unwrap_or_default()
}

impl LookScene<'_> {
    /// What the thread at the end of a chain is doing.
    fn task(&self, tid: u32, hops: &[Edge]) -> (Verdict, String) {
        let who = self.name(tid);
        let mut parts = Vec::new();
        let readers = self.look.stuck.domains.iter().flat_map(|domain| &domain.readers);
        let reader = readers.clone().find(|reader| reader.tid == tid);
        let ended = reader.is_some_and(|reader| reader.ended);
        if ended {
            parts.push("has ended inside a read section, whose guard was leaked".to_owned());
        } else if let Some(sections) = reader.map(|reader| reader.sections) {
            parts.push(match sections {
                1 => "is inside a read section".to_owned(),
                n => format!("is inside {n} read sections"),
            });
        }
        if let Some(reader) = reader {
            if !reader.entered_at.is_empty() {
                parts.push(format!("entered at {}", reader.entered_at));
            }
            for probe in &reader.probes {
                parts.push(format!("runs probe `{}` on {}", probe.name, probe.tracepoint));
            }
        }
        let callback = self.look.stuck.domains.iter().find_map(|domain| {
            domain
                .callback
                .as_ref()
                .filter(|call| call.tid == tid && tid != 0)
                .map(|call| (domain, call))
        });
        if let Some((domain, call)) = callback {
            let name =
                if call.name.is_empty() { String::new() } else { format!(", {}", call.name) };
            parts.push(format!("runs callback {} of domain {}{name}", call.number, domain.name));
        }
        let consumer = self.look.full.iter().find(|full| full.consumer == tid);
        if let Some(full) = consumer {
            parts.push(format!("does not drain session {}", full.session));
        }
        let agent = self.look.silent.is_some() && self.look.stuck.agent == tid;
        if agent {
            parts.push("is the agent's thread".to_owned());
        }
        let thread = self.look.threads.get(&tid).or(consumer.map(|full| &full.thread));
        if let Some(thread) = thread.filter(|_| !ended) {
            parts.extend(thread.does());
            if let Some(kept) =
                reader.and_then(|reader| gone_from_stack(&reader.entered_at, &thread.stack))
            {
                parts.push(kept);
            }
        }
        let known = ended || thread.is_some() || reader.is_some();
        let verdict =
            if known && !hops.is_empty() || agent { Verdict::Culprit } else { Verdict::Unknown };
        let _ = self.graph;
        match parts.is_empty() {
            true => (Verdict::Unknown, format!("unknown: nothing is known of {who}")),
            false => (verdict, format!("{who} {}", parts.join("; "))),
        }
    }
}

/// Whether the function that entered a section has returned since: the whole stack is known, with lines, and
/// none of it is in that file.
fn gone_from_stack(entered_at: &str, stack: &[Frame]) -> Option<String> {
    let file = entered_at.rsplitn(3, ':').nth(2)?;
    // Where threads and the program begin.
    let begin = ["__rust_begin_short_backtrace", "clone3", "_start"];
    let whole = stack.iter().any(|frame| begin.iter().any(|name| frame.function.ends_with(name)));
    let sources = stack.iter().filter_map(|frame| frame.source.as_ref());
    let mut lines = sources.clone().filter(|source| source.contains(file));
    let none = whole && sources.count() > 0 && lines.next().is_none();
    none.then(|| {
        "the function that entered is not on its stack any more: the guard is kept somewhere, or was forgotten"
            .to_owned()
    })
}

impl Thread {
    /// Whether it sleeps, so that a signal would wake it.
    pub fn is_asleep(&self) -> bool {
        self.state == Some('S')
    }

    /// Parts of a sentence.
    fn does(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let handler = self.stack.iter().any(|frame| frame.function == stack::HANDLER);
        let place =
            self.sleeps_in.as_ref().map(|f| format!(" in the kernel's {f}")).unwrap_or_default();
        match self.state {
            Some('R') => parts.push("runs, or is ready to run".to_owned()),
            Some('T' | 't') => {
                parts.push(
                    "is stopped by a signal or a debugger (kill -CONT lets it go on)".to_owned(),
                );
            }
            Some('D') => parts.push(format!("sleeps{place} and cannot be disturbed")),
            Some('Z' | 'X') => parts.push("has ended".to_owned()),
            Some(_) => parts.push(format!("sleeps{place}")),
            None => {}
        }
        if let Some(call) = &self.call {
            parts.push(format!("in system call {call}"));
        }
        if let Some(futex) = self.futex.as_ref().filter(|futex| futex.owner.is_none()) {
            parts.push(match futex.is_on_own_stack() {
                true => "waits on a word on its own stack, which nobody else knows: so the C library sleeps for ever \
                         where the kernel has found a deadlock of priority-inheritance mutexes"
                    .to_owned(),
                false => format!(
                    "waits on a {} at {:#x}, whose owner is not known",
                    futex.kind, futex.address
                ),
            });
        }
        if handler {
            parts.push("in a signal handler".to_owned());
        }
        parts
    }
}

fn stacks(look: &Look, chains: &[Chain]) -> Vec<TaskStack> {
    let ends = chains.iter().map(|chain| &chain.end);
    let nodes = chains.iter().flat_map(|chain| chain.hops.iter().map(|hop| &hop.from)).chain(ends);
    let mut told = BTreeSet::new();
    let mut stacks = Vec::new();
    for node in nodes {
        let Node::Task(tid) = node else { continue };
        let stack = look.threads.get(tid).map(|thread| &thread.stack);
        if let Some(stack) = stack.filter(|stack| !stack.is_empty() && told.insert(*tid)) {
            stacks.push(TaskStack { pid: *tid, work: None, frames: stack.clone() });
        }
    }
    stacks
}

/// Threads at the end of a chain that run, whose registers nobody outside can read as long as they do.
fn without_stack(look: &Look, chains: &[Chain]) -> Vec<String> {
    let ends: BTreeSet<u32> = chains
        .iter()
        .filter_map(|chain| if let Node::Task(tid) = chain.end { Some(tid) } else { None })
        .collect();
    let runs = ends.into_iter().filter(|tid| {
        let thread = look.threads.get(tid);
        thread.is_some_and(|thread| thread.state == Some('R') && thread.stack.is_empty())
    });
    let words = |tid| {
        format!(
            "where {}/{tid} is in its program: there is no user stack of a thread that runs",
            look.thread_name(tid)
        )
    };
    runs.map(words).collect()
}

/// What would tell more, by where the chains end.
fn collect(look: &Look, chains: &[Chain]) -> Vec<&'static str> {
    let mut wanted = look.wanted.clone();
    if !without_stack(look, chains).is_empty() {
        wanted.push(
            "the stack of the thread that runs: `gdb -p PID -batch -ex 'thread apply all backtrace'` (it stops the \
             program meanwhile), `perf record -g -t TID`, or gracepoint_rcu::backtraces_by_signal in the program",
        );
    }
    let readers = || look.stuck.domains.iter().flat_map(|domain| &domain.readers);
    let held =
        chains.iter().any(|chain| chain.hops.iter().any(|hop| hop.kind == EdgeKind::HeldUpBy));
    if held && readers().any(|reader| reader.entered_at.is_empty()) && look.source == Source::Agent
    {
        wanted.push(
            "where sections are entered: Domain::note_call_sites(true), before it happens again",
        );
    }
    if held && readers().any(|reader| reader.owner.is_some()) {
        wanted.push(
            "which task holds an owned guard: a name of its own for each kind of task (read_owned)",
        );
    }
    if look.stuck.spans == SpansKept::No {
        wanted.push(
            "which async tasks are not polled: gracepoint_tracing::watch_spans or Builder::watch, in the program",
        );
    }
    if chains.iter().any(|chain| matches!(chain.end, Node::Lock(_))) {
        wanted.push("who has the lock: a pthread or priority-inheritance mutex says so, std's and parking_lot's do not");
    }
    wanted
}
