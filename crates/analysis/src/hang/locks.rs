//! Who has a lock. In this order: the kernel's own word, lockdep's lists, a task that is further in
//! the function that takes it, and functions in which a task has it by all experience.
//!
//! Lockdep's list of a task names also the lock that the task waits for, as its last entry. So the
//! last entry says "has it" only if the task's stack is known and waits elsewhere.

use super::frame::Frame;
use super::links::{SOME_PAGE, Waiter, stem};
use super::model::{Held, Incident, Task};
use super::rules::{
    FILE_SYSTEMS, LOCK_DROPS, LOCK_GPS, LOCK_HOLDERS, LOCK_NAMES, LOCK_NAMES_BY_KIND, OBJECT_LOCKS,
    What, beside, fits, fits_any,
};
use super::waits::{self, Wait};
use crate::stuck::graph::{Confidence, Edge, EdgeKind, Graph, Node};
use std::collections::{BTreeMap, BTreeSet};

/// Most holders of one lock that are named: more say that it is shared by many.
const HOLDERS: usize = 4;

/// Rules whose locks are always in lockdep's lists.
const WATCHED: &[&str] = &["mutex", "rwsem", "rt-mutex", "percpu-rwsem", "ldsem", "freeze", "spin"];

/// A lock of a list, as far as lists tell locks apart.
type Key = (String, Option<u64>);

struct Entrant<'a> {
    task: &'a Task,
    held: &'a Held,
    last: bool,
    waits: bool,
    known: bool,
}

/// Adds the edges from waiters to locks and from locks to their holders.
pub(super) fn link(incident: &Incident, waiters: &[Waiter<'_>], graph: &mut Graph) {
    let entrants = entrants(incident, waiters);
    let whole = lists_are_whole(incident);
    let mut names: BTreeMap<String, BTreeSet<Option<u64>>> = BTreeMap::new();
    let mut linked: BTreeSet<Key> = BTreeSet::new();
    let mut searched: BTreeSet<(Node, Option<(String, u32)>)> = BTreeSet::new();
    for waiter in waiters {
        let spins = waiter.wait.rule.what == What::Spin;
        if !spins && !matches!(waiter.wait.rule.what, What::Lock | What::Page) {
            continue;
        }
        let key = key_of(waiter, &entrants);
        let node = node_of(incident, waiter, key.as_ref(), &mut names);
        let kind = if spins { EdgeKind::SpinsOn } else { EdgeKind::WaitsFor };
        let mut edge = waiter.edge(node.clone(), kind, Confidence::Derived);
        if let Some(entry) = key.as_ref().and_then(|k| own_entry(waiter.task, k)) {
            edge.lines.push(entry.line);
        }
        graph.add(edge);
        if waiter.wait.rule.what == What::Page {
            // The I/O or the task that has locked the page; the log rarely tells.
            continue;
        }
        if printed(waiter, &node, graph) {
            continue;
        }
        if let Some(key) = &key {
            linked.insert(key.clone());
            if listed(key, &node, waiter, &entrants, whole, graph) {
                continue;
            }
        }
        // What is found depends on the lock and the place alone.
        let site = waiter.wait.site.and_then(|i| waiter.stack.get(i));
        let place = site.map(|f| (f.function.clone(), f.offset));
        if !searched.insert((node.clone(), place)) {
            continue;
        }
        let found = if spins {
            other_spinner(incident, waiter, &node, graph)
        } else {
            further_in(waiters, waiter, &node, graph) || by_function(incident, waiter, &node, graph)
        };
        if let (false, Node::Lock(name)) = (found, &node)
            && let Some((_, gp)) = LOCK_GPS.iter().find(|(lock, _)| lock == name)
        {
            let mut edge =
                waiter.edge(Node::Gp((*gp).to_owned()), EdgeKind::HeldBy, Confidence::Guess);
            edge.from = node.clone();
            edge.rule = "lock-of-grace-period";
            graph.add(edge);
        }
    }
    presumed(&entrants, &linked, &mut names, graph);
}

/// Whether the locks of all tasks are in the log: the list came to its end, no entry is missing,
/// and no task was running, whose locks are not shown.
fn lists_are_whole(incident: &Incident) -> bool {
    incident.all_locks_shown
        && incident.locks_end_shown
        && incident.tasks.values().all(|task| {
            task.held_count.is_none_or(|count| usize::try_from(count) == Ok(task.held.len()))
        })
}

/// All entries of all lists, by lock.
fn entrants<'a>(incident: &'a Incident, waiters: &[Waiter<'_>]) -> BTreeMap<Key, Vec<Entrant<'a>>> {
    let waits: BTreeMap<u32, &Waiter<'_>> = waiters.iter().map(|w| (w.task.pid, w)).collect();
    let mut map: BTreeMap<Key, Vec<Entrant<'a>>> = BTreeMap::new();
    for task in incident.tasks.values() {
        let waiter = waits.get(&task.pid);
        // A stack that no rule knows may be one whose lines were lost.
        let known = waiter.is_some() || incident.cpu_of(task.pid).is_some();
        for held in &task.held {
            let last = task.held_count.is_none_or(|count| held.index + 1 == count);
            // Lockdep lists what is waited for, if it watches that kind of lock at all.
            let waiting = last
                && waiter.is_some_and(|w| {
                    matches!(w.wait.rule.what, What::Lock | What::Freeze | What::Spin)
                        && (WATCHED.contains(&w.wait.rule.id)
                            || waits::asked_here(held, &w.stack, &w.wait))
                });
            let entry = Entrant { task, held, last, waits: waiting, known };
            map.entry((held.class.clone(), held.address)).or_default().push(entry);
        }
    }
    map
}

fn own_entry<'a>(task: &'a Task, key: &Key) -> Option<&'a Held> {
    task.held.iter().rev().find(|h| h.class == key.0 && h.address == key.1)
}

/// Which lock of the lists a task waits for: its own last entry, or the lock that another task took
/// at the same place.
fn key_of(waiter: &Waiter<'_>, entrants: &BTreeMap<Key, Vec<Entrant<'_>>>) -> Option<Key> {
    let mut of_task = entrants
        .iter()
        .filter(|(_, list)| list.iter().any(|e| e.task.pid == waiter.task.pid && e.waits));
    if let Some((key, _)) = of_task.next() {
        return Some(key.clone());
    }
    if waiter.task.held_count.is_some() && !waiter.task.held.is_empty() {
        return None;
    }
    let site = waiter.stack.get(waiter.wait.site?)?;
    let mut at_site = entrants.iter().filter(|(key, list)| {
        let here =
            |e: &Entrant<'_>| e.held.at.as_ref().is_some_and(|at| waits::same_place(at, site));
        // Objects of one class are many; only a global lock is the same for all who ask here.
        (!key.0.starts_with('&') || key.1.is_none()) && list.iter().any(here)
    });
    let first = at_site.next()?;
    at_site.next().is_none().then(|| first.0.clone())
}

fn node_of(
    incident: &Incident,
    waiter: &Waiter<'_>,
    key: Option<&Key>,
    names: &mut BTreeMap<String, BTreeSet<Option<u64>>>,
) -> Node {
    if let Some((class, address)) = key {
        return named(class, *address, names);
    }
    if waiter.wait.rule.what == What::Page {
        let device = device(incident, waiter);
        return Node::Io(device.unwrap_or_else(|| SOME_PAGE.to_owned()));
    }
    if let Some(name) = lock_name(&waiter.stack, &waiter.wait) {
        return Node::Lock(name.to_owned());
    }
    let site = waiter.wait.site.and_then(|i| waiter.stack.get(i));
    match site {
        Some(site) => Node::Lock(format!("{} in {}", waiter.wait.rule.id, site.function)),
        None => Node::Lock(waiter.wait.rule.id.to_owned()),
    }
}

/// The name of the lock that is asked for, by the functions from the wait to the caller.
fn lock_name(stack: &[Frame], wait: &Wait) -> Option<&'static str> {
    let mut last = wait.site.unwrap_or(wait.at);
    while stack.get(last).is_some_and(|f| f.inlined) {
        last += 1;
    }
    let most = last + 1 - wait.at;
    let by_kind = stack.iter().skip(wait.at).take(most).find_map(|frame| {
        let known = |(rule, function, _): &&(&str, &str, &str)| {
            *rule == wait.rule.id && fits(function, &frame.function)
        };
        LOCK_NAMES_BY_KIND.iter().find(known).map(|(_, _, lock)| *lock)
    });
    by_kind.or_else(|| waits::named(LOCK_NAMES, stack, wait.at, most))
}

/// The first lock of a class has the class as its name, others have their address with it.
fn named(
    class: &str,
    address: Option<u64>,
    names: &mut BTreeMap<String, BTreeSet<Option<u64>>>,
) -> Node {
    let known = names.entry(class.to_owned()).or_default();
    let first = known.is_empty() || known.first() == Some(&address) && known.len() == 1;
    known.insert(address);
    match address {
        Some(address) if !first => Node::Lock(format!("{class}@{address:x}")),
        _ => Node::Lock(class.to_owned()),
    }
}

fn held_by(
    lock: &Node,
    pid: u32,
    sure: Confidence,
    rule: &'static str,
    line: u32,
    why: String,
) -> Edge {
    let to = Node::Task(pid);
    Edge {
        from: lock.clone(),
        to,
        kind: EdgeKind::HeldBy,
        confidence: sure,
        rule,
        reading: None,
        lines: vec![line],
        why,
    }
}

/// "likely owned by task x:1".
fn printed(waiter: &Waiter<'_>, node: &Node, graph: &mut Graph) -> bool {
    for owner in &waiter.task.owners {
        let why = if owner.last { "last held by" } else { "likely owned by" };
        let sure = if owner.last { Confidence::Derived } else { Confidence::Printed };
        graph.add(held_by(node, owner.pid, sure, "owner", owner.line, why.to_owned()));
    }
    !waiter.task.owners.is_empty()
}

/// Holders by the lists of lockdep.
fn listed(
    key: &Key,
    node: &Node,
    waiter: &Waiter<'_>,
    entrants: &BTreeMap<Key, Vec<Entrant<'_>>>,
    whole: bool,
    graph: &mut Graph,
) -> bool {
    let list = entrants.get(key).map(Vec::as_slice).unwrap_or_default();
    let mut holders: Vec<&Entrant<'_>> =
        list.iter().filter(|e| !e.waits && (e.known || !e.last)).collect();
    if holders.is_empty() && whole {
        // One task has it in its list, and nothing says that it waits.
        let unknown: Vec<&Entrant<'_>> =
            list.iter().filter(|e| !e.waits && e.task.pid != waiter.task.pid).collect();
        if let [only] = unknown.as_slice() {
            holders.push(only);
        }
    }
    let own = own_twice(waiter.task, key);
    holders.retain(|e| e.task.pid != waiter.task.pid || own);
    // A class without an address may be another object's lock.
    let vague = key.1.is_none() && key.0.starts_with('&');
    if holders.len() > HOLDERS || vague && holders.len() > 1 {
        return false;
    }
    for entry in &holders {
        let sure = if vague || !entry.known { Confidence::Guess } else { Confidence::Derived };
        let why = entry.held.at.as_ref().map(|at| format!("took it in {}", at.function));
        let why = why.unwrap_or_default();
        graph.add(held_by(node, entry.task.pid, sure, "lockdep", entry.held.line, why));
    }
    !holders.is_empty()
}

/// Whether the task has the lock that it waits for.
fn own_twice(task: &Task, key: &Key) -> bool {
    task.held.iter().filter(|h| h.class == key.0 && h.address == key.1).count() > 1
}

/// Tasks whose stack is not shown, but whose last lock is one that another task has for sure.
fn presumed(
    entrants: &BTreeMap<Key, Vec<Entrant<'_>>>,
    linked: &BTreeSet<Key>,
    names: &mut BTreeMap<String, BTreeSet<Option<u64>>>,
    graph: &mut Graph,
) {
    for key in linked {
        let list = entrants.get(key).map(Vec::as_slice).unwrap_or_default();
        let sure = list.iter().filter(|e| !e.waits && (e.known || !e.last)).count();
        if sure != 1 || key.0.starts_with('&') && key.1.is_none() {
            continue;
        }
        for entry in list.iter().filter(|e| !e.waits && !e.known && e.last) {
            let why = entry.held.at.as_ref().map(|at| at.function.clone()).unwrap_or_default();
            graph.add(Edge {
                from: Node::Task(entry.task.pid),
                to: named(&key.0, key.1, names),
                kind: EdgeKind::WaitsFor,
                confidence: Confidence::Guess,
                rule: "lockdep-last",
                reading: None,
                lines: vec![entry.held.line],
                why,
            });
        }
    }
}

/// A task that is further in the very function that asks for the lock: it has got it already.
fn further_in(waiters: &[Waiter<'_>], waiter: &Waiter<'_>, node: &Node, graph: &mut Graph) -> bool {
    let Some(site) = waiter.wait.site.and_then(|i| waiter.stack.get(i)) else { return false };
    let between = waiter.stack.iter().take(waiter.wait.site.unwrap_or(0)).skip(waiter.wait.at);
    let of_object = between.into_iter().any(|f| fits_any(OBJECT_LOCKS, &f.function));
    if site.size == 0 || of_object {
        return false;
    }
    let further = |frame: &Frame| {
        frame.function == site.function && frame.size == site.size && frame.offset > site.offset
    };
    let mut found = waiters.iter().filter_map(|other| {
        if other.task.pid == waiter.task.pid {
            return None;
        }
        let from = other.wait.site.unwrap_or(other.wait.at);
        let at = other.stack.iter().skip(from + 1).position(further)? + from + 1;
        let gives_back = gave_back(node, &other.stack, at) || unlocks(node, &other.stack, at);
        (!gives_back).then(|| (other, &other.stack[at]))
    });
    let (Some((other, frame)), None) = (found.next(), found.next()) else { return false };
    let why = format!("is further in {}", site.function);
    graph.add(held_by(node, other.task.pid, Confidence::Guess, "same-function", frame.line, why));
    true
}

/// Whether a function further in than the frame at this place has given the lock back, or gives it back for as long
/// as it sleeps.
fn gave_back(node: &Node, stack: &[Frame], at: usize) -> bool {
    let Node::Lock(name) = node else { return false };
    let mut drops = LOCK_DROPS.iter().filter(|(lock, _, _)| lock == name);
    drops.any(|(_, function, caller)| {
        (0..at).any(|inner| {
            let outer = || stack[inner + 1..=at].iter().find(|f| !fits(function, &f.function));
            fits(function, &stack[inner].function)
                && (caller.is_empty() || outer().is_some_and(|f| fits(caller, &f.function)))
        })
    })
}

/// Whether what the frame at this place calls is an unlock: it had the lock, and what keeps it is something else.
fn unlocks(node: &Node, stack: &[Frame], at: usize) -> bool {
    let Some(called) = at.checked_sub(1).and_then(|inner| stack.get(inner)) else { return false };
    let name = called.function.as_str();
    let still = |(lock, function): &(&str, &str)| {
        matches!(node, Node::Lock(node) if node == lock) && fits(function, name)
    };
    let gives = name.contains("unlock") || fits_any(&["up_*", "__up_*", "percpu_up_*"], name);
    gives && !LOCK_HOLDERS.iter().any(still)
}

/// A task or CPU in a function in which it has the lock.
fn by_function(incident: &Incident, waiter: &Waiter<'_>, node: &Node, graph: &mut Graph) -> bool {
    let Node::Lock(name) = node else { return false };
    let functions: Vec<&str> =
        LOCK_HOLDERS.iter().filter(|(lock, _)| lock == name).map(|(_, f)| *f).collect();
    let place = |stack: &[Frame]| {
        let at = stack.iter().position(|f| functions.iter().any(|p| fits(p, &f.function)))?;
        (!gave_back(node, stack, at)).then_some(at)
    };
    let inside = |stack: &[Frame]| place(stack).map(|at| stack[at].line);
    let mut found: BTreeMap<u32, u32> = BTreeMap::new();
    for cpu in incident.cpus.values().filter(|cpu| !cpu.idle && cpu.comm != "khungtaskd") {
        let line = inside(&cpu.interrupts).or_else(|| inside(&cpu.stack));
        if let (Some(pid), Some(line)) = (cpu.pid, line) {
            found.insert(pid, line);
        }
    }
    for task in incident.tasks.values() {
        let stack = incident.stack(task.pid);
        let at = place(stack);
        // Who waits for the lock in that function has it not.
        let asks = at.is_some()
            && waits::classify(stack, false)
                .is_some_and(|w| w.rule.what == What::Lock && lock_name(stack, &w) == Some(name));
        if let (Some(at), false) = (at, asks) {
            found.insert(task.pid, stack[at].line);
        }
    }
    found.remove(&waiter.task.pid);
    let (Some((pid, line)), 1) = (found.first_key_value(), found.len()) else { return false };
    let why = "is in a function that has it".to_owned();
    graph.add(held_by(node, *pid, Confidence::Guess, "lock-function", *line, why));
    true
}

/// The only other CPU that is busy in the same part of the kernel.
fn other_spinner(incident: &Incident, waiter: &Waiter<'_>, node: &Node, graph: &mut Graph) -> bool {
    let site = waiter.wait.site.and_then(|i| waiter.stack.get(i));
    let Some(family) = site.and_then(|f| stem(&f.function)) else { return false };
    let own = incident.cpu_of(waiter.task.pid).map(|cpu| cpu.number);
    let mut busy = incident.cpus.values().filter(|cpu| {
        let work = waits::work_of(cpu);
        let spins = waits::classify(work, true).is_some_and(|w| w.rule.what == What::Spin);
        let near = work.iter().take(12).any(|f| stem(&f.function) == Some(family));
        !cpu.idle
            && Some(cpu.number) != own
            && cpu.pid.is_some_and(|p| p != waiter.task.pid)
            && !spins
            && near
    });
    let (Some(cpu), None) = (busy.next(), busy.next()) else { return false };
    let Some(pid) = cpu.pid else { return false };
    let why = format!("CPU {} is busy in {family}", cpu.number);
    graph.add(held_by(node, pid, Confidence::Guess, "other-cpu", cpu.line, why));
    true
}

/// The block device that a task's I/O goes to, where the log has a name for it.
pub(super) fn device(incident: &Incident, waiter: &Waiter<'_>) -> Option<String> {
    if let Some(own) = device_of(waiter.task) {
        return Some(own);
    }
    let only = || {
        let named = |task: &'_ Task| Some((device_of(task)?, file_system_of(incident, task)));
        let all: BTreeSet<_> = incident.tasks.values().filter_map(named).collect();
        let names: BTreeSet<&String> = all.iter().map(|(name, _)| name).collect();
        let name = names.first().filter(|_| names.len() == 1)?;
        Some(((*name).clone(), all.iter().filter_map(|(_, system)| *system).collect()))
    };
    let (name, systems) = incident.device.get_or_init(only).as_ref()?;
    // What is in a file system of another kind is on another device.
    let fits =
        file_system(&waiter.stack).is_none_or(|own| systems.is_empty() || systems.contains(&own));
    fits.then(|| name.clone())
}

/// The kind of a task's file system: a journal's thread has one by its name.
fn file_system_of(incident: &Incident, task: &Task) -> Option<&'static str> {
    let threads =
        [("jbd2/", "ext4"), ("xfsaild/", "xfs"), ("xfs-buf/", "xfs"), ("f2fs_ckpt-", "f2fs")];
    let by_name = threads.iter().find(|(start, _)| task.comm.starts_with(start));
    by_name.map(|(_, system)| *system).or_else(|| file_system(incident.stack(task.pid)))
}

/// The kind of the file system that a stack is in.
fn file_system(stack: &[Frame]) -> Option<&'static str> {
    stack.iter().find_map(|f| beside(FILE_SYSTEMS, &f.function))
}

fn device_of(task: &Task) -> Option<String> {
    let comm = task.comm.as_str();
    for start in ["jbd2/", "xfsaild/", "xfs-buf/", "f2fs_ckpt-", "ext4-rsv-conver/"] {
        if let Some(rest) = comm.strip_prefix(start) {
            let name = rest.rsplit_once('-').map_or(rest, |(name, _)| name);
            return Some(name.to_owned());
        }
    }
    if let Some((array, _)) = comm.split_once("_raid")
        && array.starts_with("md")
    {
        return Some(array.to_owned());
    }
    let numbers = task.work.as_ref()?.about.strip_prefix("flush-")?;
    let (major, minor) = numbers.split_once(':').unwrap_or((numbers, ""));
    let minor: u32 = minor.parse().ok()?;
    match major {
        "8" => Some(format!("sd{}", char::from(b'a' + u8::try_from(minor / 16 % 26).ok()?))),
        "7" => Some(format!("loop{minor}")),
        "9" => Some(format!("md{minor}")),
        "253" | "254" | "252" => Some(format!("device {major}:{minor}")),
        _ => None,
    }
}
