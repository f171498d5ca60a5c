//! The account of an incident: what complained, what the ends of its chains are, what it does not
//! explain, and what would have to be known.

use super::links;
use super::model::{Incident, Symptom, SymptomKind, Task};
use super::order::LockOrder;
use super::rules::IO_SERVERS;
use super::waits;
use crate::stuck::account::{
    Account, CHAINS, Chain, Complaint, Scene, Sight, TaskStack, Verdict, chains,
};
use crate::stuck::graph::{Edge, EdgeKind, Graph, Node};
use std::collections::{BTreeMap, BTreeSet};

/// Gives the account of an incident.
pub(super) fn account(incident: &Incident) -> Account {
    let graph = links::graph(incident);
    let complaints: Vec<Complaint> =
        incident.symptoms.iter().map(|s| complaint(incident, s)).collect();
    let starts = starts(incident, &complaints, &graph);
    let mut chains = chains(incident, &graph, &starts);
    let explained: BTreeSet<Node> = chains
        .iter()
        .flat_map(|chain| starts.iter().filter(|s| graph.reach(s).contains(&chain.end)))
        .cloned()
        .collect();
    chains.truncate(CHAINS);
    let unexplained = complaints
        .iter()
        .filter(|c| c.node.as_ref().is_none_or(|node| !explained.contains(node)))
        .map(|c| format!("line {}: {}", c.line, c.text))
        .collect();
    let stacks = stacks(incident, &chains);
    let collect = collect(incident, &chains);
    let mut tasks = BTreeMap::new();
    for node in graph.edges.iter().flat_map(|e| [&e.from, &e.to]).chain(&starts) {
        if let Node::Task(pid) = node {
            let comm = incident.tasks.get(pid).map(|t| t.comm.clone()).unwrap_or_default();
            tasks.insert(*pid, comm);
        }
    }
    let sight = |(name, b): (&&'static str, &super::model::Beside)| Sight {
        name,
        count: b.count,
        line: b.first,
        text: b.text.clone(),
    };
    Account {
        lines: (incident.first_line, incident.last_line),
        symptoms: complaints,
        chains,
        edges: graph.edges,
        tasks,
        unexplained,
        besides: incident.besides.iter().map(sight).collect(),
        stacks,
        collect,
        dropped: incident.dropped,
    }
}

fn complaint(incident: &Incident, symptom: &Symptom) -> Complaint {
    let on_cpu = || symptom.cpu.and_then(|cpu| incident.cpus.get(&cpu)?.pid);
    let node = match symptom.kind {
        SymptomKind::HungTask => symptom.pid.map(Node::Task),
        SymptomKind::Stall => {
            let stall = symptom.stall.and_then(|at| incident.stalls.get(at));
            stall.map(|stall| Node::Gp(stall.flavour.clone()))
        }
        SymptomKind::SoftLockup | SymptomKind::HardLockup => {
            let task = symptom.pid.or_else(on_cpu).map(Node::Task);
            task.or_else(|| symptom.cpu.map(Node::Cpu))
        }
        SymptomKind::WorkqueueLockup => links::pool(&symptom.text),
        SymptomKind::Lockdep => {
            let order = symptom.order.and_then(|at| incident.orders.get(at));
            order.and_then(LockOrder::start)
        }
    };
    Complaint { line: symptom.line, text: symptom.text.clone(), node }
}

/// Where chains begin: at the complaints, and at every other task that is shown blocked.
fn starts(incident: &Incident, complaints: &[Complaint], graph: &Graph) -> BTreeSet<Node> {
    let mut starts: BTreeSet<Node> = complaints.iter().filter_map(|c| c.node.clone()).collect();
    let blocked = |task: &&Task| task.state == Some(b'D');
    let nodes = incident.tasks.values().filter(blocked).map(|task| Node::Task(task.pid));
    starts.extend(nodes.filter(|node| !graph.has_end(node)));
    starts
}

impl Scene for Incident {
    fn name(&self, task: u32) -> String {
        name(self, task)
    }

    fn end(&self, end: Node, hops: &[Edge]) -> (Node, Verdict, String) {
        end_words(self, end, hops)
    }

    fn knows_of(&self, task: u32) -> bool {
        self.cpu_of(task).is_some() || !self.stack(task).is_empty()
    }
}

/// `comm/pid`.
pub(super) fn name(incident: &Incident, pid: u32) -> String {
    match incident.tasks.get(&pid) {
        Some(task) if !task.comm.is_empty() => format!("{}/{pid}", task.comm),
        _ => format!("task {pid}"),
    }
}

fn end_words(incident: &Incident, end: Node, hops: &[Edge]) -> (Node, Verdict, String) {
    let unknown = |words: String| (end.clone(), Verdict::Unknown, format!("unknown: {words}"));
    match &end {
        Node::Event(storm) if hops.last().is_some_and(|e| e.kind == EdgeKind::StarvedBy) => {
            let reader = hops[hops.len() - 1].from.clone();
            let words = match &reader {
                Node::Task(pid) => {
                    format!("{} is ready to run and starved: {storm}", name(incident, *pid))
                }
                other => format!("{other} is starved: {storm}"),
            };
            (reader, Verdict::Culprit, words)
        }
        Node::Task(pid) => {
            let (verdict, words) = task_words(incident, *pid);
            (end, verdict, words)
        }
        Node::Io(name) if name == links::SOME_DEVICE || name == links::SOME_PAGE => {
            unknown(format!("the log does not name the {name} that is waited for"))
        }
        Node::Io(device) if device.starts_with(links::BELOW) => {
            unknown(format!("the log does not name {device}, whose I/O is waited for"))
        }
        Node::Io(server) if IO_SERVERS.iter().any(|(_, known)| known == server) => {
            unknown(format!(
                "{server} has not answered; whether it, the network or this machine is the cause, the log does not say"
            ))
        }
        Node::Io(device) => {
            let words = format!("I/O of {device} does not come to an end, as far as the log shows");
            (end, Verdict::Culprit, words)
        }
        Node::Gp(flavour) if flavour.starts_with("srcu:") => {
            unknown(format!("the kernel cannot name the readers of {flavour}"))
        }
        Node::Gp(flavour) => {
            unknown(format!("the log does not say which reader or CPU holds up {flavour}"))
        }
        Node::Lock(lock) => unknown(format!("the log does not say who has {lock}")),
        Node::Work(name) | Node::Queue(name) => {
            unknown(format!("the log does not show the worker ({name})"))
        }
        Node::Cpu(number) => {
            let words = cpu_words(incident, *number);
            (end, Verdict::Unknown, words)
        }
        other => unknown(nothing_shows(other, hops)),
    }
}

/// Of an end that nothing in the log completes.
fn nothing_shows(end: &Node, hops: &[Edge]) -> String {
    let by = hops.last().and_then(|e| super::rules::RULES.iter().find(|r| r.id == e.rule));
    let by = by.map_or_else(String::new, |rule| format!("; it is up to {}", rule.by));
    let what = match end {
        Node::Event(name) | Node::Unknown(name) => name.clone(),
        Node::Commit(name) => format!("the commit of {name}"),
        Node::Freeze => "the thaw of a file system".to_owned(),
        other => other.to_string(),
    };
    format!("nothing shows why the wait for {what} does not end{by}")
}

/// Of a CPU that no task could be named for.
fn cpu_words(incident: &Incident, number: u32) -> String {
    let cpu = incident.cpus.get(&number);
    if cpu.is_some_and(|cpu| cpu.idle || cpu.pid == Some(0)) {
        return format!("unknown: CPU {number} was idle when it was looked at");
    }
    if cpu.is_some_and(|cpu| waits::reports(waits::work_of(cpu))) {
        return format!(
            "unknown: CPU {number} printed the report; the log does not show what it did before"
        );
    }
    format!("unknown: the log does not show what CPU {number} does")
}

/// What a task runs, as far as the log has it: ` in spin_work`.
fn runs(incident: &Incident, pid: u32, stack: &[super::frame::Frame]) -> String {
    if let Some(frame) = waits::inside(stack) {
        return format!(" in {}", frame.function);
    }
    let work = incident.tasks.get(&pid).and_then(|task| task.work.as_ref()).map(|w| &w.function);
    let listed = || incident.in_flight.iter().find(|e| e.pid == pid).map(|e| &e.function);
    match work.or_else(listed).filter(|function| !function.is_empty()) {
        Some(function) => format!(" in the work {function}"),
        None => String::new(),
    }
}

fn task_words(incident: &Incident, pid: u32) -> (Verdict, String) {
    let who = name(incident, pid);
    if let Some(cpu) = incident.cpu_of(pid) {
        let inside = runs(incident, pid, waits::work_of(cpu));
        return (Verdict::Culprit, format!("{who} runs on CPU {}{inside}", cpu.number));
    }
    let task = incident.tasks.get(&pid);
    if task.is_some_and(|t| t.state == Some(b'R')) {
        let inside = runs(incident, pid, incident.stack(pid));
        return (Verdict::Culprit, format!("{who} is ready to run, or runs{inside}"));
    }
    if task.is_some_and(|t| t.held_count.is_some_and(|n| n > 0) && t.held.is_empty()) {
        let words =
            format!("{who} was running when the locks were listed; its stack is not in the log");
        return (Verdict::Unknown, words);
    }
    let stack = incident.stack(pid);
    let inside =
        stack.iter().find(|f| !super::rules::fits_any(super::rules::SCHEDULER, &f.function));
    let words = match inside {
        Some(frame) => {
            format!("unknown: {who} sleeps in {}; nothing shows what for", frame.function)
        }
        None => format!("unknown: the log has no stack of {who}"),
    };
    (Verdict::Unknown, words)
}

fn stacks(incident: &Incident, chains: &[Chain]) -> Vec<TaskStack> {
    let mut told = BTreeSet::new();
    let mut stacks = Vec::new();
    let ends = chains.iter().map(|c| &c.end);
    for node in chains.iter().flat_map(|c| c.hops.iter().map(|e| &e.from)).chain(ends) {
        let Node::Task(pid) = node else { continue };
        if !told.insert(*pid) {
            continue;
        }
        let cpu = incident.cpu_of(*pid);
        let frames = cpu.map_or_else(|| incident.stack(*pid), waits::work_of);
        let work = incident.tasks.get(pid).and_then(|t| t.work.as_ref());
        let work = work.or_else(|| cpu.and_then(|c| c.work.as_ref()));
        let work = work.map(|w| format!("{} {}", w.queue, w.function));
        if !frames.is_empty() {
            stacks.push(TaskStack { pid: *pid, work, frames: frames.to_vec() });
        }
    }
    stacks
}

/// What would tell more, by where the chains end.
fn collect(incident: &Incident, chains: &[Chain]) -> Vec<&'static str> {
    let mut wanted: Vec<&'static str> = Vec::new();
    let mut want = |text| {
        if !wanted.contains(&text) {
            wanted.push(text);
        }
    };
    for chain in chains {
        match (&chain.end, chain.verdict) {
            (_, Verdict::Cycle) => {}
            (Node::Gp(name), _) if name.starts_with("srcu:") => {
                want("all stacks (sysrq-t): a sleeping reader of the SRCU domain is among them");
            }
            (Node::Gp(_), _) => {
                want(
                    "the RCU stall report (rcupdate.rcu_cpu_stall_timeout), which names CPUs and readers",
                );
                want("what the CPUs do: sysrq-l, or kernel.hung_task_all_cpu_backtrace=1");
            }
            (Node::Lock(_), _) => {
                want(
                    "who has the lock: CONFIG_PROVE_LOCKING and sysrq-d, or CONFIG_DETECT_HUNG_TASK_BLOCKER (6.16 or later)",
                );
                want("all blocked tasks: sysrq-w");
            }
            (Node::Io(_), _) => {
                want(
                    "requests that are under way: /sys/kernel/debug/block/DEVICE, and messages of the driver",
                );
            }
            (Node::Work(_) | Node::Queue(_), _) => {
                want("who runs the work: sysrq-t lists the workqueues and the workers' stacks")
            }
            (Node::Task(_), Verdict::Culprit) | (Node::Cpu(_), _) => {
                want(
                    "more than one look at the CPU (sysrq-l twice, or perf top): is it in the same loop?",
                );
                want("vmlinux of this kernel, for lines of the source");
            }
            (Node::Task(_), _) => {
                want("the stack of the task at the end: sysrq-w, or /proc/PID/stack")
            }
            _ => want("all stacks: sysrq-t, to see who should end the wait"),
        }
    }
    if incident.lockdep_off {
        want("lockdep was off: nothing follows from locks that are not listed");
    }
    if chains.is_empty() {
        want("all blocked tasks: sysrq-w, and what the CPUs do: sysrq-l");
    }
    wanted
}
