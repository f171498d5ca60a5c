//! What is known of a program, as edges: one place for each kind of node that is stuck.

use super::{FullSession, Look, Thread};
use crate::stuck::account::Complaint;
use crate::stuck::graph::{Confidence, Edge, EdgeKind, Graph, Node};
use gracepoint_wire::control::{DomainState, OpenReader, OpenTask};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most threads that are followed from lock to lock.
const FOLLOWED: usize = 1024;

/// The graph, and what has taken longer than `threshold`.
pub(super) fn graph(look: &Look, threshold: Duration) -> (Graph, Vec<Complaint>) {
    let mut links = Links { look, threshold, graph: Graph::default(), complaints: Vec::new() };
    for domain in &look.stuck.domains {
        links.grace_period(domain);
        links.callbacks(domain);
    }
    look.full.iter().for_each(|full| links.session(full));
    links.agent();
    links.tasks();
    links.locks();
    (links.graph, links.complaints)
}

struct Links<'l> {
    look: &'l Look,
    threshold: Duration,
    graph: Graph,
    complaints: Vec<Complaint>,
}

/// `12.3 s`.
pub(super) fn span(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    if seconds >= 1.0 { format!("{seconds:.1} s") } else { format!("{:.1} ms", seconds * 1e3) }
}

fn for_time(ns: u64) -> String {
    if ns == 0 { String::new() } else { format!(" for {}", span(ns)) }
}

fn period(domain: &DomainState, number: u64) -> Node {
    Node::Gp(format!("{} #{number}", domain.name))
}

fn callbacks(domain: &DomainState) -> Node {
    Node::Work(format!("callbacks of {}", domain.name))
}

impl Links<'_> {
    fn add(&mut self, from: Node, to: Node, kind: EdgeKind, rule: &'static str, why: String) {
        let reading = Some(self.look.source.words());
        let confidence = Confidence::Printed;
        self.graph.add(Edge { from, to, kind, confidence, rule, lines: Vec::new(), reading, why });
    }

    fn complain(&mut self, text: String, node: Node) {
        self.complaints.push(Complaint { line: 0, text, node: Some(node) });
    }

    /// Whether something of this age is worth a complaint. Of a core the age is not known, and what was under
    /// way is what there is.
    fn is_old(&self, ns: u64) -> bool {
        u128::from(ns) >= self.threshold.as_nanos() || self.look.source == super::Source::Core
    }

    fn grace_period(&mut self, domain: &DomainState) {
        let Some(running) = domain.running else { return self.waiting_for_nobody(domain) };
        let this = period(domain, running.number);
        let age = match running.age_ns {
            0 => domain.waiters.iter().map(|waiter| waiter.waited_ns).max().unwrap_or(0),
            age => age,
        };
        if self.is_old(age) {
            let text = format!(
                "grace period {} of domain {} has run{}",
                running.number,
                domain.name,
                for_time(age)
            );
            self.complain(text, this.clone());
        }
        self.waiters(domain);
        let next = period(domain, running.number + 1);
        if domain
            .waiters
            .iter()
            .any(|waiter| !waiter.for_callbacks && waiter.number > running.number)
        {
            let why = "one runs at a time".to_owned();
            self.add(next, this.clone(), EdgeKind::WaitsFor, "grace-period-after", why);
        }
        if domain.futures != 0 {
            let from = Node::Event(format!("{} futures of {}", domain.futures, domain.name));
            self.add(from, this.clone(), EdgeKind::WaitsFor, "future", "synchronized".to_owned());
        }
        for reader in &domain.readers {
            let (node, why) = (self.reader(domain, reader), inside(reader, running.phase));
            self.add(this.clone(), node, EdgeKind::HeldUpBy, "reader", why);
        }
    }

    /// Threads wait, and no grace period was left unfinished.
    fn waiting_for_nobody(&mut self, domain: &DomainState) {
        self.waiters(domain);
    }

    fn waiters(&mut self, domain: &DomainState) {
        for waiter in &domain.waiters {
            let (to, call) = match waiter.for_callbacks {
                true => (callbacks(domain), "barrier"),
                // A program that is older than the question, or a call that is younger than this.
                false => (period(domain, waiter.number), "a call that waits for a grace period"),
            };
            let call = if waiter.call.is_empty() { call } else { &waiter.call };
            let why = format!("in {call}{}", for_time(waiter.waited_ns));
            self.add(Node::Task(waiter.tid), to, EdgeKind::WaitsFor, "waiter", why);
        }
    }

    /// The node of a reader: its thread, or what it is where it is no thread.
    fn reader(&self, domain: &DomainState, reader: &OpenReader) -> Node {
        match &reader.owner {
            Some(owner) => {
                Node::Event(format!("owned read section `{owner}` of domain {}", domain.name))
            }
            None if reader.tid != 0 => Node::Task(reader.tid),
            None => Node::Unknown(format!(
                "a read section of domain {} is open on a thread that is not registered (there are too many, or it was ending)",
                domain.name
            )),
        }
    }

    fn callbacks(&mut self, domain: &DomainState) {
        let this = callbacks(domain);
        if let Some(call) = &domain.callback {
            if self.is_old(call.ran_ns) {
                let text = format!(
                    "callback {} of domain {} has run{}",
                    call.number,
                    domain.name,
                    for_time(call.ran_ns)
                );
                self.complain(text, this.clone());
            }
            let to = match call.tid {
                0 => Node::Unknown(format!("which thread runs the callback of {}", domain.name)),
                tid => Node::Task(tid),
            };
            let name = if call.name.is_empty() { String::new() } else { format!(" {}", call.name) };
            let why = format!("callback {}{name}{}", call.number, for_time(call.ran_ns));
            self.add(this, to, EdgeKind::RunBy, "callback", why);
            return;
        }
        if domain.pending == 0 {
            return;
        }
        let queued = match domain.pending {
            1 => "1 callback is queued".to_owned(),
            n => format!("{n} callbacks are queued"),
        };
        let why = format!("{queued}{}", for_time(domain.oldest_ns));
        if let Some(running) = domain.running.filter(|_| !domain.readers.is_empty()) {
            let to = period(domain, running.number);
            self.add(this, to, EdgeKind::WaitsFor, "callbacks-wait", why);
            return;
        }
        if self.is_old(domain.oldest_ns) {
            self.complain(
                format!("callbacks of domain {} do not run: {why}", domain.name),
                this.clone(),
            );
        }
        self.nobody_runs(domain, this, why);
    }

    /// Callbacks could run, and do not.
    fn nobody_runs(&mut self, domain: &DomainState, this: Node, why: String) {
        match domain.drives {
            2 if domain.job_waits => {
                let to = Node::Queue(format!("the executor of domain {}", domain.name));
                let why = format!("it was given a job that it does not run; {why}");
                self.add(this, to, EdgeKind::RunBy, "executor", why);
            }
            1 | 2 => {
                // As the kernel cuts it: 15 bytes.
                let name: String = format!("rcu:{}", domain.name).chars().take(15).collect();
                let thread = self.look.threads.iter().find(|(_, thread)| thread.name == name);
                let to = match thread {
                    Some((tid, _)) => Node::Task(*tid),
                    None => Node::Queue(format!(
                        "the thread of domain {}, which could not be started",
                        domain.name
                    )),
                };
                self.add(this, to, EdgeKind::RunBy, "domain-thread", why);
            }
            _ => {
                let to = Node::Queue(format!("nobody drives domain {}", domain.name));
                let why = format!(
                    "its callbacks run in drive() and barrier() alone, and nobody calls those; {why}"
                );
                self.add(this, to, EdgeKind::RunBy, "nobody-drives", why);
            }
        }
    }

    fn session(&mut self, full: &FullSession) {
        let name = if full.name.is_empty() { String::new() } else { format!(" ({})", full.name) };
        let this = Node::Event(format!("session {}{name}", full.session));
        self.complain(
            format!("session {}{name} is full and has lost {} events", full.session, full.lost),
            this.clone(),
        );
        let why = "its pages are not given back".to_owned();
        self.add(this, Node::Task(full.consumer), EdgeKind::HeldUpBy, "consumer", why);
    }

    fn agent(&mut self) {
        let Some(silent) = &self.look.silent else { return };
        let this = Node::Event("the agent's answer".to_owned());
        let busy = match self.look.stuck.agent_busy_ns {
            0 => String::new(),
            ns => format!(", and is at what it does{}", for_time(ns)),
        };
        let text = format!("the agent {silent}{busy}");
        let tid = self.look.stuck.agent;
        if tid == 0 {
            self.complaints.push(Complaint { line: 0, text, node: None });
            return;
        }
        self.complain(text, this.clone());
        self.add(this, Node::Task(tid), EdgeKind::HeldUpBy, "agent", silent.clone());
    }

    /// Tasks of async runtimes: those that were not polled for long, equal ones as one, and polls that do not
    /// return.
    fn tasks(&mut self) {
        // A span that was entered once, on a thread that polls no tasks, is as well one of code that is no task's.
        let polls = |task: &OpenTask| {
            let name = self.look.thread_name(task.tid);
            task.tid == 0 || task.polls > 1 || name.starts_with("tokio-r")
        };
        let old = self.look.stuck.tasks.iter();
        let old = old.filter(|task| self.is_old(task.since_ns) && polls(task));
        let mut alike: BTreeMap<(Vec<&str>, u32), Vec<&OpenTask>> = BTreeMap::new();
        for task in old {
            let names = task.spans.iter().map(|span| span.split('{').next().unwrap_or_default());
            alike.entry((names.collect(), task.tid)).or_default().push(task);
        }
        // Those that have waited for longest come first.
        let mut alike: Vec<Vec<&OpenTask>> = alike.into_values().collect();
        let since = |tasks: &[&OpenTask]| tasks.iter().map(|task| task.since_ns).max();
        alike.sort_by_key(|tasks| (std::cmp::Reverse(since(tasks)), tasks[0].spans.clone()));
        for tasks in alike {
            let oldest = tasks.iter().max_by_key(|task| task.since_ns);
            if let Some(oldest) = oldest {
                self.task(oldest, tasks.len() - 1);
            }
        }
    }

    /// A task, and so many more like it.
    fn task(&mut self, task: &OpenTask, more: usize) {
        let name = format!("task `{}`", task.spans.join(" > "));
        let this = Node::Event(name.clone());
        let more = match more {
            0 => String::new(),
            n => format!(", nor have {n} more in such spans"),
        };
        let place = match task.location.as_str() {
            "" => String::new(),
            place => format!(", at {place}"),
        };
        let polls = match task.polls {
            0 => "never polled".to_owned(),
            1 => "polled once".to_owned(),
            n => format!("polled {n} times"),
        };
        let age = span(task.since_ns);
        if task.tid != 0 {
            self.complain(format!("a poll of {name} has run for {age}"), this.clone());
            let why = format!("in a poll{}{place}", for_time(task.since_ns));
            self.add(this, Node::Task(task.tid), EdgeKind::HeldUpBy, "poll", why);
            return;
        }
        self.complain(format!("{name} has not been polled for {age}{more}"), this.clone());
        let to = Node::Unknown(format!("what {name} awaits"));
        let why = format!("{polls}, not{}{place}{more}", for_time(task.since_ns));
        self.add(this, to, EdgeKind::WaitsFor, "not-polled", why);
    }

    /// From threads on the graph to what they wait for themselves; and threads that wait for a lock for long, or for
    /// each other, whether anything else is stuck or not.
    fn locks(&mut self) {
        let tasks = self.graph.edges.iter().flat_map(|edge| [&edge.from, &edge.to]);
        let known: BTreeSet<u32> = tasks
            .filter_map(|node| if let Node::Task(tid) = node { Some(*tid) } else { None })
            .collect();
        let mut todo: Vec<u32> = known.iter().copied().collect();
        let circles = self.deadlocks(&known);
        let told = &known | &circles;
        todo.extend(circles);
        todo.extend(self.old_locks(&told));
        let mut seen = BTreeSet::new();
        while let Some(tid) = todo.pop() {
            if !seen.insert(tid) || seen.len() > FOLLOWED {
                continue;
            }
            if let Some(thread) = self.look.threads.get(&tid) {
                todo.extend(self.lock(tid, thread));
            }
        }
    }

    /// Circles of threads each of which waits for the next; a complaint for each of which nothing else tells. The
    /// threads of all of them.
    fn deadlocks(&mut self, known: &BTreeSet<u32>) -> BTreeSet<u32> {
        let owner = |tid: &u32| self.look.threads.get(tid)?.futex.as_ref()?.owner;
        let mut done: BTreeSet<u32> = BTreeSet::new();
        let mut circles: Vec<Vec<u32>> = Vec::new();
        for tid in self.look.threads.keys() {
            let (mut way, mut next) = (Vec::new(), Some(*tid));
            // Each thread is gone through once, and waits for one other at most.
            while let Some(tid) = next.filter(|tid| done.insert(*tid)) {
                way.push(tid);
                next = owner(&tid);
            }
            let back = next.and_then(|next| way.iter().position(|tid| *tid == next));
            circles.extend(back.map(|at| way.split_off(at)));
        }
        for circle in circles.iter().filter(|circle| circle.iter().all(|tid| !known.contains(tid)))
        {
            let names: Vec<String> = circle.iter().map(|tid| self.who(*tid)).collect();
            let text = match names.split_last() {
                Some((last, [])) => format!("{last} waits for a lock that it has"),
                Some((last, all)) => format!("{} and {last} wait for each other", all.join(", ")),
                None => continue,
            };
            self.complain(text, Node::Task(circle[0]));
        }
        circles.into_iter().flatten().collect()
    }

    /// Threads that have waited for a lock for long, of which nothing else tells; those at one lock as one complaint.
    fn old_locks(&mut self, told: &BTreeSet<u32>) -> Vec<u32> {
        let mut alike: BTreeMap<u64, Vec<(u32, u64)>> = BTreeMap::new();
        for (tid, thread) in &self.look.threads {
            let Some(futex) = thread.futex.as_ref().filter(|futex| futex.is_lock()) else {
                continue;
            };
            let waited = thread.waited_ns.unwrap_or(0);
            if self.is_old(waited) && !told.contains(tid) {
                alike.entry(futex.address).or_default().push((*tid, waited));
            }
        }
        for waiters in alike.values() {
            let Some((tid, waited)) = waiters.iter().max_by_key(|(_, waited)| *waited) else {
                continue;
            };
            let kind = self.look.threads[tid].futex.as_ref().map_or("lock", |futex| futex.kind);
            let more = match waiters.len() {
                1 => String::new(),
                n => format!(", and {} more with it", n - 1),
            };
            let text =
                format!("{} has waited for a {kind}{}{more}", self.who(*tid), for_time(*waited));
            self.complain(text, Node::Task(*tid));
        }
        alike.into_values().flatten().map(|(tid, _)| tid).collect()
    }

    fn who(&self, tid: u32) -> String {
        match self.look.thread_name(tid) {
            name if name.is_empty() => format!("thread {tid}"),
            name => format!("{name}/{tid}"),
        }
    }

    /// The thread that this one waits for, if it is known.
    fn lock(&mut self, tid: u32, thread: &Thread) -> Option<u32> {
        let this = Node::Task(tid);
        if let Some(signal) = thread.storm {
            let to = Node::Event(format!("a storm of signal {signal}"));
            let why = "that signal was pending each time it was looked at".to_owned();
            self.edge(
                this,
                to,
                EdgeKind::StarvedBy,
                "signal-storm",
                "/proc/PID/task/TID/status",
                why,
            );
            return None;
        }
        // A thread in one of our own waits sleeps there; that it does so in a futex or not says no more.
        let waits = self.graph.from(&this).any(|edge| edge.rule == "waiter");
        let futex = thread.futex.as_ref().filter(|_| !waits)?;
        let reading = "/proc/PID/mem";
        if let Some(owner) = futex.owner.filter(|_| futex.joined) {
            let why = "the word of the futex is that thread's number".to_owned();
            self.edge(this, Node::Task(owner), EdgeKind::WaitsFor, "join", reading, why);
            return Some(owner);
        }
        if futex.owner.is_none() && !futex.is_lock() {
            return None;
        }
        let lock = Node::Lock(match futex.is_own_parker() {
            true => format!("a {} that {this} waits for", futex.kind),
            false => format!("{} at {:#x}", futex.kind, futex.address),
        });
        let why = thread.call.clone().unwrap_or_default();
        self.edge(
            this,
            lock.clone(),
            EdgeKind::WaitsFor,
            "futex",
            "/proc/PID/task/TID/syscall",
            why,
        );
        let owner = futex.owner?;
        let why = "its owner's number".to_owned();
        self.edge(lock, Node::Task(owner), EdgeKind::HeldBy, "owner", reading, why);
        Some(owner)
    }

    fn edge(
        &mut self,
        from: Node,
        to: Node,
        kind: EdgeKind,
        rule: &'static str,
        reading: &'static str,
        why: String,
    ) {
        let (confidence, reading) = (Confidence::Derived, Some(reading));
        self.graph.add(Edge { from, to, kind, confidence, rule, lines: Vec::new(), reading, why });
    }
}

/// What is known of a reader's sections.
fn inside(reader: &OpenReader, phase: u8) -> String {
    let mut why = match reader.sections {
        1 => "1 section open".to_owned(),
        n => format!("{n} sections open"),
    };
    let since = if reader.entered_ns != 0 { reader.entered_ns } else { reader.seen_ns };
    why += &for_time(since);
    if !reader.entered_at.is_empty() {
        why += &format!(", entered at {}", reader.entered_at);
    }
    for probe in &reader.probes {
        why += &format!(", in probe `{}` on {}", probe.name, probe.tracepoint);
    }
    if reader.inherited != 0 {
        why += &format!(", {} from before a fork", reader.inherited);
    }
    why + if phase == 1 { ", first scan" } else { ", second scan" }
}
