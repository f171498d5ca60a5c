//! From waits to edges: what a task waits for as a node, and who ends it.

use super::frame::Frame;
use super::locks;
use super::model::{Cpu, Incident, Stall, SymptomKind, Task};
use super::rules::{self, IO_SERVERS, SRCU_NAMES, WORK_NAMES, What};
use super::waits::{self, Wait};
use crate::stuck::graph::{Confidence, Edge, EdgeKind, Graph, Node};
use std::collections::BTreeSet;

/// I/O of a device that the log does not name.
pub(super) const SOME_DEVICE: &str = "block device";
/// A page or buffer, likewise.
pub(super) const SOME_PAGE: &str = "page";
/// I/O of the devices that the one is made of whose name follows.
pub(super) const BELOW: &str = "what is below ";

/// A task that waits.
pub(super) struct Waiter<'a> {
    pub(super) task: &'a Task,
    pub(super) wait: Wait,
    pub(super) stack: Vec<Frame>,
    /// Whether it does so on a CPU.
    pub(super) running: bool,
    /// Whether the kernel does not trust any frame of the stack.
    pub(super) unsure: bool,
}

impl Waiter<'_> {
    fn what(&self) -> What {
        self.wait.rule.what
    }

    fn node(&self) -> Node {
        Node::Task(self.task.pid)
    }

    fn line(&self) -> u32 {
        self.stack.get(self.wait.at).map_or(self.task.line, |f| f.line)
    }

    /// The edge to what it waits for.
    pub(super) fn edge(&self, to: Node, kind: EdgeKind, confidence: Confidence) -> Edge {
        let mut lines = vec![self.line()];
        if let Some(site) = self.wait.site.and_then(|i| self.stack.get(i)) {
            lines.push(site.line);
            lines.dedup();
        }
        let why = waits::why(&self.stack, &self.wait);
        let confidence = if self.unsure { Confidence::Guess } else { confidence };
        Edge {
            from: self.node(),
            to,
            kind,
            confidence,
            rule: self.wait.rule.id,
            reading: None,
            lines,
            why,
        }
    }
}

/// Draws the graph of an incident.
pub(super) fn graph(incident: &Incident) -> Graph {
    let mut graph = Graph::default();
    let waiters: Vec<Waiter<'_>> = incident
        .tasks
        .values()
        .filter(|task| task.comm != "khungtaskd")
        .filter_map(|task| {
            let (wait, stack) = waits::of_task(incident, task)?;
            let running = incident.cpu_of(task.pid).is_some();
            Some(Waiter { task, wait, stack, running, unsure: incident.is_unsure(task.pid) })
        })
        .collect();
    locks::link(incident, &waiters, &mut graph);
    for waiter in &waiters {
        link(incident, &waiters, waiter, &mut graph);
    }
    for stall in &incident.stalls {
        link_stall(
            incident,
            stall,
            &Node::Gp(stall.flavour.clone()),
            Confidence::Printed,
            &mut graph,
        );
    }
    link_grace_periods(incident, &mut graph);
    link_lockups(incident, &mut graph);
    link_storms(incident, &mut graph);
    link_pools(incident, &mut graph);
    incident.orders.iter().for_each(|order| order.link(&mut graph));
    graph
}

fn link(incident: &Incident, waiters: &[Waiter<'_>], waiter: &Waiter<'_>, graph: &mut Graph) {
    let derived = Confidence::Derived;
    let to = match waiter.what() {
        What::Lock | What::Spin | What::Page | What::Idle => return,
        What::Gp(flavour) => Node::Gp(flavour.to_owned()),
        What::Srcu => {
            let name = waits::named(SRCU_NAMES, &waiter.stack, waiter.wait.at, 8);
            Node::Gp(format!("srcu:{}", name.unwrap_or("?")))
        }
        What::SrcuReaders => {
            graph.add(waiter.edge(Node::Event("SRCU readers".into()), EdgeKind::WaitsFor, derived));
            return;
        }
        What::Work => return link_work(incident, waiters, waiter, graph),
        What::Io => return link_io(incident, waiters, waiter, graph),
        What::Commit(kind) => return link_commit(waiters, waiter, kind, graph),
        What::Freeze => return link_freeze(waiters, waiter, graph),
        What::Ipi => return link_ipi(incident, waiter, graph),
        What::Event(name) => return link_event(incident, waiters, waiter, name, graph),
    };
    graph.add(waiter.edge(to.clone(), EdgeKind::WaitsFor, derived));
    if waiter.what() == What::Srcu {
        link_srcu(waiters, &to, graph);
    } else if waiter.running {
        // It asks the other CPUs to do something, and waits on its own.
        link_other_cpu(incident, waiter, &to, EdgeKind::HeldUpBy, graph);
    }
}

/// The worker of an SRCU domain does not say which domain; where there is one blocked, it is it.
fn link_srcu(waiters: &[Waiter<'_>], gp: &Node, graph: &mut Graph) {
    let works = waiters.iter().filter(|w| {
        w.task.work.as_ref().is_some_and(|work| work.function == "process_srcu")
            || w.stack.iter().any(|f| f.function == "process_srcu")
    });
    for worker in works.take(4) {
        let mut lines = vec![worker.line()];
        lines.extend(worker.task.work.as_ref().map(|work| work.line));
        graph.add(Edge {
            from: gp.clone(),
            to: worker.node(),
            kind: EdgeKind::CompletedBy,
            confidence: Confidence::Derived,
            rule: "srcu-worker",
            reading: None,
            lines,
            why: "Workqueue: rcu_gp process_srcu".to_owned(),
        });
    }
}

fn link_stall(incident: &Incident, stall: &Stall, gp: &Node, sure: Confidence, graph: &mut Graph) {
    let edge = |to: Node, line: u32, why: String| Edge {
        from: gp.clone(),
        to,
        kind: EdgeKind::HeldUpBy,
        confidence: sure,
        rule: "stall",
        reading: None,
        lines: vec![line],
        why,
    };
    for &(pid, line) in stall.tasks.iter().take(16) {
        graph.add(edge(Node::Task(pid), line, format!("P{pid}")));
    }
    for &(number, line) in stall.cpus.iter().take(16) {
        // An idle CPU that is named is slow to answer, or a victim of what starves the kthread.
        if incident.cpus.get(&number).is_some_and(|cpu| cpu.idle) {
            continue;
        }
        graph.add(edge(Node::Cpu(number), line, format!("{number}-... in the list of the stall")));
        link_cpu(incident, number, graph);
    }
}

/// A CPU and the task that was seen on it.
fn link_cpu(incident: &Incident, number: u32, graph: &mut Graph) {
    let Some(cpu) = incident.cpus.get(&number) else { return };
    let (Some(pid), false) = (cpu.pid, cpu.idle) else { return };
    if pid == 0 || cpu.comm == "khungtaskd" {
        return;
    }
    let work = waits::work_of(cpu);
    if waits::reports(work) {
        return;
    }
    let why = waits::inside(work).map(|f| f.function.clone()).unwrap_or_default();
    graph.add(Edge {
        from: Node::Cpu(number),
        to: Node::Task(pid),
        kind: EdgeKind::RunBy,
        confidence: Confidence::Printed,
        rule: "cpu",
        reading: None,
        lines: vec![cpu.line],
        why,
    });
}

/// A waiter without a stall of its own flavour: the readers of another may hold it up as well.
fn link_grace_periods(incident: &Incident, graph: &mut Graph) {
    let waited: Vec<String> = graph
        .edges
        .iter()
        .filter_map(|edge| match &edge.to {
            Node::Gp(flavour) => Some(flavour.clone()),
            _ => None,
        })
        .collect();
    for flavour in ["rcu", "rcu-exp", "rcu-sched", "rcu-bh"] {
        let node = Node::Gp(flavour.to_owned());
        let own = incident.stalls.iter().any(|s| s.flavour == flavour);
        if own || !waited.iter().any(|w| w == flavour) {
            continue;
        }
        for stall in incident.stalls.iter().filter(|s| s.flavour != "rcu-tasks") {
            link_stall(incident, stall, &node, Confidence::Derived, graph);
        }
    }
    let barrier = Node::Gp("rcu-barrier".to_owned());
    if !waited.iter().any(|w| w == "rcu-barrier") {
        return;
    }
    for stall in incident.stalls.iter().filter(|s| matches!(&*s.flavour, "rcu" | "rcu-sched")) {
        graph.add(Edge {
            from: barrier.clone(),
            to: Node::Gp(stall.flavour.clone()),
            kind: EdgeKind::HeldUpBy,
            confidence: Confidence::Derived,
            rule: "barrier-callbacks",
            reading: None,
            lines: vec![stall.line],
            why: "callbacks run after their grace period".to_owned(),
        });
    }
    for cpu in incident.cpus.values().filter(|cpu| !cpu.idle && cpu.shown) {
        let Some(frame) = softirq_that_stays(cpu) else { continue };
        graph.add(Edge {
            from: barrier.clone(),
            to: Node::Cpu(cpu.number),
            kind: EdgeKind::StarvedBy,
            confidence: Confidence::Guess,
            rule: "barrier-softirq",
            reading: None,
            lines: vec![frame.line],
            why: format!("callbacks run in the softirq that is in {}", frame.function),
        });
        link_cpu(incident, cpu.number, graph);
    }
}

/// The function of a timer or tasklet that a softirq thread is in. Packets have a budget, after
/// which others get their turn; timers have none.
fn softirq_that_stays(cpu: &Cpu) -> Option<&Frame> {
    let stack = waits::work_of(cpu);
    let in_softirq = stack.iter().any(|f| {
        matches!(f.function.as_str(), "run_ksoftirqd" | "__do_softirq" | "handle_softirqs")
    });
    let dispatch = stack.iter().position(|f| {
        matches!(f.function.as_str(), "call_timer_fn" | "tasklet_action_common" | "tasklet_action")
    })?;
    let packets = stack.iter().any(|f| f.function == "net_rx_action");
    stack.get(dispatch.checked_sub(1)?).filter(|_| in_softirq && !packets)
}

/// The only other CPU that takes no interrupts, by the kernel's word; if none is, the only one that was doing
/// something.
fn other_cpu<'a>(incident: &'a Incident, waiter: &Waiter<'_>) -> Option<&'a Cpu> {
    let own = incident.cpu_of(waiter.task.pid).map(|cpu| cpu.number);
    let hard = incident.symptoms.iter().filter(|s| s.kind == SymptomKind::HardLockup);
    let hard: BTreeSet<u32> = hard.filter_map(|s| s.cpu).filter(|cpu| Some(*cpu) != own).collect();
    if let Some(number) = hard.first().filter(|_| hard.len() == 1) {
        return incident.cpus.get(number);
    }
    let mut others = incident.cpus.values().filter(|cpu| {
        cpu.shown
            && !cpu.idle
            && Some(cpu.number) != own
            && cpu.pid.is_some_and(|pid| pid != 0 && pid != waiter.task.pid)
            && cpu.comm != "khungtaskd"
    });
    let first = others.next()?;
    others.next().is_none().then_some(first)
}

fn link_other_cpu(
    incident: &Incident,
    waiter: &Waiter<'_>,
    from: &Node,
    kind: EdgeKind,
    graph: &mut Graph,
) -> bool {
    let Some(cpu) = other_cpu(incident, waiter) else { return false };
    let mut edge = waiter.edge(Node::Cpu(cpu.number), kind, Confidence::Derived);
    edge.from = from.clone();
    edge.rule = "ipi";
    edge.lines.push(cpu.line);
    graph.add(edge);
    link_cpu(incident, cpu.number, graph);
    true
}

fn link_ipi(incident: &Incident, waiter: &Waiter<'_>, graph: &mut Graph) {
    if !waiter.running
        || !link_other_cpu(incident, waiter, &waiter.node(), EdgeKind::WaitsFor, graph)
    {
        let to = Node::Event("answer of other CPUs".to_owned());
        graph.add(waiter.edge(to, EdgeKind::WaitsFor, Confidence::Derived));
    }
}

fn link_work(incident: &Incident, waiters: &[Waiter<'_>], waiter: &Waiter<'_>, graph: &mut Graph) {
    let caller = (waiter.wait.at..waiter.stack.len()).find(|&i| {
        let name = &waiter.stack[i].function;
        !rules::fits_any(waiter.wait.rule.symbols, name)
            && !rules::RULES
                .iter()
                .any(|r| r.what == What::Work && rules::fits_any(r.symbols, name))
    });
    let caller = caller.and_then(|i| waiter.stack.get(i));
    let known = waits::named(WORK_NAMES, &waiter.stack, waiter.wait.at, 6);
    let node = match (known, caller) {
        (Some(name), _) => Node::Work(name.to_owned()),
        (None, Some(caller)) => Node::Work(format!("flushed by {}", caller.function)),
        (None, None) => Node::Work("?".to_owned()),
    };
    graph.add(waiter.edge(node.clone(), EdgeKind::WaitsFor, Confidence::Derived));
    let family = caller.and_then(|c| stem(&c.function));
    let fits = |function: &str, queue: &str| {
        known == Some(function)
            || known.is_none()
                && family.is_some_and(|f| stem(function) == Some(f) || stem(queue) == Some(f))
    };
    let mut workers: Vec<&Waiter<'_>> = waiters
        .iter()
        .filter(|w| w.task.pid != waiter.task.pid)
        .filter(|w| w.task.work.as_ref().is_some_and(|work| fits(&work.function, &work.queue)))
        .collect();
    if known.is_none() && workers.len() > 1 {
        workers.clear();
    }
    for worker in workers.into_iter().take(4) {
        let sure = if known.is_some() { Confidence::Derived } else { Confidence::Guess };
        let work = worker.task.work.as_ref();
        graph.add(Edge {
            from: node.clone(),
            to: worker.node(),
            kind: EdgeKind::RunBy,
            confidence: sure,
            rule: "worker",
            reading: None,
            lines: vec![work.map_or(worker.task.line, |w| w.line)],
            why: work.map(|w| format!("Workqueue: {} {}", w.queue, w.function)).unwrap_or_default(),
        });
    }
    for entry in incident.in_flight.iter().filter(|e| fits(&e.function, &e.queue)).take(4) {
        graph.add(Edge {
            from: node.clone(),
            to: Node::Task(entry.pid),
            kind: EdgeKind::RunBy,
            confidence: Confidence::Printed,
            rule: "in-flight",
            reading: None,
            lines: vec![entry.line],
            why: format!("in-flight: {}:{}", entry.pid, entry.function),
        });
    }
}

/// The first word of a function's name, where it names a part of the kernel.
pub(super) fn stem(name: &str) -> Option<&str> {
    const SAYS_NOTHING: &[&str] = &[
        "do", "sys", "vfs", "ksys", "x64", "se", "kernel", "process", "worker", "flush", "cancel",
        "work", "net", "mm", "task", "generic", "blk", "bdev", "block", "kthread", "destroy",
        "free", "put", "release", "close", "wait", "sync", "delayed", "drain", "exit", "events",
        "device", "cleanup", "remove", "kill", "mod", "ret", "call", "proc", "get", "dev", "del",
        "fs", "raw",
    ];
    let name = name.trim_start_matches('_');
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    let word = &name[..end];
    (word.len() >= 2 && !SAYS_NOTHING.contains(&word)).then_some(word)
}

fn link_io(incident: &Incident, waiters: &[Waiter<'_>], waiter: &Waiter<'_>, graph: &mut Graph) {
    if let Some(server) = waits::named(IO_SERVERS, &waiter.stack, waiter.wait.at, 12) {
        let to = Node::Io(server.to_owned());
        graph.add(waiter.edge(to, EdgeKind::WaitsFor, Confidence::Derived));
        return;
    }
    let own = loop_of(waiter.task).map(str::to_owned);
    let name = own.or_else(|| locks::device(incident, waiter));
    // A thread that is a device waits for those that its device is made of.
    let is_device = |name: &String| serves(waiter.task, name);
    if let Some(name) = name.as_ref().filter(|name| is_device(name)) {
        let to = Node::Io(format!("{BELOW}{name}"));
        graph.add(waiter.edge(to, EdgeKind::WaitsFor, Confidence::Derived));
        return;
    }
    let to = Node::Io(name.clone().unwrap_or_else(|| SOME_DEVICE.to_owned()));
    graph.add(waiter.edge(to.clone(), EdgeKind::WaitsFor, Confidence::Derived));
    let Some(name) = name else { return };
    let servers =
        waiters.iter().filter(|w| w.task.pid != waiter.task.pid).filter(|w| serves(w.task, &name));
    for server in servers.take(2) {
        let mut edge = server.edge(server.node(), EdgeKind::CompletedBy, Confidence::Derived);
        edge.from = to.clone();
        edge.rule = "device-thread";
        graph.add(edge);
    }
}

/// The threads that are a device: an array's, a loop device's.
fn serves(task: &Task, device: &str) -> bool {
    let comm = task.comm.as_str();
    let raid = device.starts_with("md")
        && comm.strip_prefix(device).is_some_and(|rest| rest.starts_with('_'));
    raid || loop_of(task) == Some(device)
}

/// The loop device whose requests a task serves: as its thread, or since 5.14 as a worker of its queue.
fn loop_of(task: &Task) -> Option<&str> {
    const SERVE: &[&str] = &["loop_workfn", "loop_rootcg_workfn"];
    let work = task.work.as_ref().filter(|work| SERVE.contains(&work.function.as_str()));
    let name = work.map_or(task.comm.as_str(), |work| work.queue.as_str());
    let number = name.strip_prefix("loop")?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// Whether a task makes the commits of this kind.
fn commits(w: &Waiter<'_>, kind: &str) -> bool {
    let comm = w.task.comm.as_str();
    let inside = |name: &str| w.stack.iter().any(|f| f.function == name);
    match kind {
        "jbd2" => comm.starts_with("jbd2/"),
        "btrfs" => inside("btrfs_commit_transaction"),
        "xfs-log" => comm.starts_with("xfsaild/"),
        "xfs-cil" => inside("xlog_cil_push_work"),
        "xfs-iclog" => inside("xlog_ioend_work"),
        "f2fs" => comm.starts_with("f2fs_ckpt") || inside("f2fs_write_checkpoint"),
        "nilfs2" => comm == "segctord" || inside("nilfs_segctor_thread"),
        "jfs" => comm == "jfsCommit",
        "reiserfs" => inside("do_journal_end"),
        "gfs2" => comm.starts_with("gfs2_logd") || inside("gfs2_log_flush"),
        "bcachefs" => comm.starts_with("bch-reclaim/"),
        "ubifs" => comm.starts_with("ubifs_bgt") || inside("do_commit"),
        _ => false,
    }
}

/// The device whose journal a task or worker is of, where its name says so.
fn instance<'a>(w: &Waiter<'a>) -> Option<&'a str> {
    let named = |name: &'a str| {
        let (kind, device) = name.split_once('/')?;
        (kind == "jbd2" || kind.starts_with("xfs")).then_some(device)
    };
    named(&w.task.comm).or_else(|| named(&w.task.work.as_ref()?.queue))
}

fn link_commit(waiters: &[Waiter<'_>], waiter: &Waiter<'_>, kind: &str, graph: &mut Graph) {
    let others = || waiters.iter().filter(|w| w.task.pid != waiter.task.pid);
    let same = |w: &&Waiter<'_>| match (instance(waiter), instance(w)) {
        (Some(own), Some(other)) => own == other,
        _ => true,
    };
    // One that waits for such a commit itself does not make it; it may well wait for one of another kind.
    let waits = |w: &&Waiter<'_>| match w.what() {
        What::Commit(other) => other == kind,
        what => what == What::Idle,
    };
    let makers: Vec<&Waiter<'_>> =
        others().filter(|w| commits(w, kind) && !waits(w)).filter(same).collect();
    let name = match (kind, makers.as_slice()) {
        ("jbd2", [only]) => format!("jbd2 {}", only.task.comm.trim_start_matches("jbd2/")),
        _ => kind.to_owned(),
    };
    let node = Node::Commit(name);
    graph.add(waiter.edge(node.clone(), EdgeKind::WaitsFor, Confidence::Derived));
    if let [only] = makers.as_slice() {
        let mut edge = only.edge(only.node(), EdgeKind::CompletedBy, Confidence::Derived);
        edge.from = node;
        edge.rule = "commit";
        graph.add(edge);
    }
}

fn link_freeze(waiters: &[Waiter<'_>], waiter: &Waiter<'_>, graph: &mut Graph) {
    let freezers = waiters.iter().filter(|w| {
        let freezes = |f: &Frame| {
            matches!(
                f.function.as_str(),
                "freeze_super" | "thaw_super" | "thaw_super_locked" | "bdev_freeze" | "freeze_bdev"
            )
        };
        w.task.pid != waiter.task.pid && w.stack.iter().skip(w.wait.at).any(freezes)
    });
    graph.add(waiter.edge(Node::Freeze, EdgeKind::WaitsFor, Confidence::Derived));
    for freezer in freezers.take(2) {
        let mut edge = freezer.edge(freezer.node(), EdgeKind::HeldBy, Confidence::Derived);
        edge.from = Node::Freeze;
        edge.rule = "freezer";
        graph.add(edge);
    }
}

fn link_event(
    incident: &Incident,
    waiters: &[Waiter<'_>],
    waiter: &Waiter<'_>,
    name: &str,
    graph: &mut Graph,
) {
    let rule = waiter.wait.rule;
    // What a completion is for, its caller says best.
    let caller = waits::why(&waiter.stack, &waiter.wait);
    let node = match rule.id {
        "completion" | "wait-bit" => {
            Node::Event(caller.split(" > ").next().unwrap_or(name).to_owned())
        }
        _ => Node::Event(name.to_owned()),
    };
    let sure = match rule.id {
        "jbd2-committer" => Confidence::Guess,
        _ => Confidence::Derived,
    };
    graph.add(waiter.edge(node.clone(), EdgeKind::WaitsFor, sure));
    let others = || waiters.iter().filter(|w| w.task.pid != waiter.task.pid);
    if rule.id == "async" {
        return link_async(&node, others(), graph);
    }
    let made = match rule.id {
        "vfork" => only(others().filter(|w| w.task.parent == Some(waiter.task.pid))),
        "runtime-pm" => only(others().filter(|w| {
            let pm = |f: &Frame| {
                matches!(f.function.as_str(), "rpm_suspend" | "rpm_resume" | "rpm_callback")
            };
            w.wait.rule.id != rule.id && w.stack.iter().any(pm)
        })),
        "jbd2-updates" | "jbd2-committer" => {
            only(others().filter(|w| has_handle(w, rules::IN_HANDLE)))
        }
        "btrfs-committer" => only(others().filter(|w| has_handle(w, rules::IN_BTRFS_HANDLE))),
        "cgroup-drain" => only(others().filter(|w| {
            let offline = |f: &Frame| f.function == "cgroup_lock_and_drain_offline";
            let work = w.task.work.as_ref().map_or("", |work| work.function.as_str());
            matches!(work, "css_killed_work_fn" | "css_release_work_fn" | "css_free_rwork_fn")
                && waiter.stack.iter().any(offline)
        })),
        "super-block" => only(others().filter(|w| {
            const MOUNTS: &[&str] =
                &["generic_shutdown_super", "get_tree_bdev*", "mount_bdev", "get_tree_nodev"];
            w.stack.iter().any(|f| rules::fits_any(MOUNTS, &f.function))
        })),
        "kthread-stop" | "sq-thread" => {
            if let Some((thread, line)) = thread_to_stop(incident, waiter) {
                let mut edge =
                    waiter.edge(Node::Task(thread), EdgeKind::CompletedBy, Confidence::Guess);
                edge.from = node.clone();
                edge.lines = vec![line];
                graph.add(edge);
            }
            None
        }
        _ => None,
    };
    if let Some(made) = made {
        let mut edge = made.edge(made.node(), EdgeKind::CompletedBy, Confidence::Guess);
        edge.from = node;
        graph.add(edge);
    }
}

/// All calls that were queued before have to return; those that wait for another of them are not the last.
fn link_async<'a, 'b: 'a>(
    node: &Node,
    others: impl Iterator<Item = &'a Waiter<'b>>,
    graph: &mut Graph,
) {
    let calls = others.filter(|w| {
        let queued = w.task.work.as_ref().is_some_and(|work| work.function == "async_run_entry_fn");
        (queued || w.stack.iter().any(|f| f.function == "async_run_entry_fn"))
            && !matches!(w.wait.rule.id, "async" | "device-suspend" | "idle")
    });
    for call in calls.take(4) {
        let mut edge = call.edge(call.node(), EdgeKind::CompletedBy, Confidence::Guess);
        edge.from = node.clone();
        edge.rule = "async-call";
        edge.lines.extend(call.task.work.as_ref().map(|work| work.line));
        graph.add(edge);
    }
}

/// Whether a task has a handle of a journal, by the functions that it is in, and waits for something else.
fn has_handle(w: &Waiter<'_>, inside: &[&str]) -> bool {
    !matches!(w.what(), What::Commit(_) | What::Idle)
        && w.wait.rule.id != "btrfs-committer"
        && w.stack.iter().any(|f| rules::fits_any(inside, &f.function))
}

/// The only thread of the kernel that is of the same part of it as who stops a thread, and a line of its
/// stack. What it does need not be known.
fn thread_to_stop(incident: &Incident, waiter: &Waiter<'_>) -> Option<(u32, u32)> {
    let caller = waiter.stack.get(waiter.wait.at + 1).and_then(|f| stem(&f.function))?;
    let mut found = incident.tasks.values().filter_map(|task| {
        let cpu = incident.cpu_of(task.pid);
        let stack = cpu.map_or_else(|| incident.stack(task.pid), waits::work_of);
        let entry = stack.iter().rposition(|f| f.function == "kthread")?.checked_sub(1)?;
        let entry = stack.get(entry).filter(|f| stem(&f.function) == Some(caller))?;
        (task.pid != waiter.task.pid).then_some((task.pid, entry.line))
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn only<'a, 'b>(mut found: impl Iterator<Item = &'a Waiter<'b>>) -> Option<&'a Waiter<'b>>
where
    'b: 'a,
{
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Lockups: the CPU and what runs on it.
fn link_lockups(incident: &Incident, graph: &mut Graph) {
    let lockups = incident
        .symptoms
        .iter()
        .filter(|s| matches!(s.kind, SymptomKind::SoftLockup | SymptomKind::HardLockup));
    for cpu in lockups.filter_map(|s| s.cpu) {
        link_cpu(incident, cpu, graph);
    }
}

/// A reader that is ready to run and gets no CPU, while interrupts take all of it.
fn link_storms(incident: &Incident, graph: &mut Graph) {
    let Some((name, beside)) =
        incident.besides.iter().find(|(name, _)| name.starts_with("interrupt storm"))
    else {
        return;
    };
    for stall in &incident.stalls {
        for (pid, _) in &stall.tasks {
            let ready = incident.tasks.get(pid).is_some_and(|task| task.state == Some(b'R'));
            if ready {
                graph.add(Edge {
                    from: Node::Task(*pid),
                    to: Node::Event((*name).to_owned()),
                    kind: EdgeKind::StarvedBy,
                    confidence: Confidence::Derived,
                    rule: "interrupt-storm",
                    reading: None,
                    lines: vec![beside.first],
                    why: format!("{} such messages", beside.count),
                });
            }
        }
    }
}

/// The pool of workers of a complaint: `pool cpus=0`.
pub(super) fn pool(complaint: &str) -> Option<Node> {
    let rest = complaint.split_once("pool cpus=")?.1;
    let cpus = rest.split_ascii_whitespace().next()?;
    Some(Node::Queue(format!("pool cpus={cpus}")))
}

/// Pools of workers that do not get on: who is at work in them, or the CPU that they are bound to.
fn link_pools(incident: &Incident, graph: &mut Graph) {
    let lockups = incident.symptoms.iter().filter(|s| s.kind == SymptomKind::WorkqueueLockup);
    for symptom in lockups {
        let Some(from) = pool(&symptom.text) else { continue };
        let Node::Queue(name) = &from else { continue };
        let edge = |to: Node, confidence, line: u32, why: String| Edge {
            from: from.clone(),
            to,
            kind: EdgeKind::RunBy,
            confidence,
            rule: "worker-pool",
            reading: None,
            lines: vec![symptom.line, line],
            why,
        };
        let cpus = name.trim_start_matches("pool ");
        let mut busy = 0;
        for entry in incident.in_flight.iter().filter(|e| e.pool == cpus).take(8) {
            let why = format!("in-flight: {}:{} of {}", entry.pid, entry.function, entry.queue);
            graph.add(edge(Node::Task(entry.pid), Confidence::Printed, entry.line, why));
            busy += 1;
        }
        let number = cpus.trim_start_matches("cpus=").parse();
        if let (0, Ok(number)) = (busy, number)
            && incident.cpus.get(&number).is_some_and(|cpu| !cpu.idle && cpu.pid.is_some())
        {
            let why = "workers of a CPU run on that CPU alone".to_owned();
            graph.add(edge(Node::Cpu(number), Confidence::Derived, symptom.line, why));
            link_cpu(incident, number, graph);
        }
    }
}
