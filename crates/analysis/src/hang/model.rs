//! What a log says, before anybody draws conclusions: tasks, CPUs, locks, stalls.
//!
//! Everything here is bounded, so that a log of any length fits: see the constants.

use super::frame::Frame;
use super::order::LockOrder;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// Most tasks of one incident.
pub(super) const TASKS: usize = 2048;
/// Most frames of one stack.
pub(super) const FRAMES: usize = 64;
/// Most locks of one task (lockdep's own limit is 48).
pub(super) const LOCKS: usize = 48;
/// Most things of any other kind.
pub(super) const THINGS: usize = 256;

/// What was seen between one quiet time and the next.
#[derive(Debug, Default)]
pub(super) struct Incident {
    pub(super) tasks: BTreeMap<u32, Task>,
    pub(super) cpus: BTreeMap<u32, Cpu>,
    pub(super) stalls: Vec<Stall>,
    pub(super) symptoms: Vec<Symptom>,
    pub(super) besides: BTreeMap<&'static str, Beside>,
    /// Lines of `Showing busy workqueues`: who works on what.
    pub(super) in_flight: Vec<InFlight>,
    /// Reports of lockdep.
    pub(super) orders: Vec<LockOrder>,
    /// Whether the held locks of all tasks were shown.
    pub(super) all_locks_shown: bool,
    /// Whether that list came to its end.
    pub(super) locks_end_shown: bool,
    pub(super) lockdep_off: bool,
    /// Whether all blocked or all tasks were shown (sysrq-w, sysrq-t).
    pub(super) all_tasks_shown: bool,
    /// Things that were left out because there were too many.
    pub(super) dropped: u64,
    pub(super) first_line: u32,
    pub(super) last_line: u32,
    /// The block device of the log, if it names only one, and the kinds of file systems that are seen on it.
    pub(super) device: OnceCell<Option<(String, BTreeSet<&'static str>)>>,
}

impl Incident {
    /// The task of this number, made if it is new.
    pub(super) fn task(&mut self, pid: u32, line: u32) -> Option<&mut Task> {
        if self.tasks.len() >= TASKS && !self.tasks.contains_key(&pid) {
            self.dropped += 1;
            return None;
        }
        Some(self.tasks.entry(pid).or_insert_with(|| Task { pid, line, ..Task::default() }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.symptoms.is_empty() && self.tasks.is_empty() && self.stalls.is_empty()
    }

    /// The stack of a task, also where the log says that it is the same as another's.
    pub(super) fn stack(&self, pid: u32) -> &[Frame] {
        let mut task = self.tasks.get(&pid);
        for _ in 0..4 {
            match task {
                Some(Task { same_as: Some(other), stack, .. }) if stack.is_empty() => {
                    task = self.tasks.get(other);
                }
                Some(task) => return &task.stack,
                None => break,
            }
        }
        &[]
    }

    /// Kernels without frame pointers print every frame as one that they do not trust. Those are better than no
    /// stack, and what follows from them is a guess. `is_entry`: where a stack comes to its end.
    pub(super) fn use_stale_stacks(&mut self, is_entry: impl Fn(&str) -> bool) {
        let whole = |stale: &mut Vec<Frame>| {
            let mut frames = std::mem::take(stale);
            let end = frames.iter().position(|frame| is_entry(&frame.function));
            frames.truncate(end.map_or(frames.len(), |at| at + 1));
            frames
        };
        for task in self.tasks.values_mut() {
            let stale = whole(&mut task.stale);
            if task.stack.is_empty() && task.same_as.is_none() && !stale.is_empty() {
                (task.stack, task.unsure) = (stale, true);
            }
        }
        for cpu in self.cpus.values_mut() {
            let stale = whole(&mut cpu.stale);
            if cpu.stack.is_empty() && cpu.interrupts.is_empty() && !stale.is_empty() {
                (cpu.stack, cpu.unsure) = (stale, true);
            }
        }
    }

    /// Whether what a task waits for is known by frames alone that the kernel does not trust.
    pub(super) fn is_unsure(&self, pid: u32) -> bool {
        let shown = |task: &Task| match task.same_as {
            Some(other) if task.stack.is_empty() => {
                self.tasks.get(&other).is_some_and(|task| task.unsure)
            }
            _ => task.unsure,
        };
        match self.cpu_of(pid) {
            Some(cpu) => cpu.unsure,
            None => self.tasks.get(&pid).is_some_and(shown),
        }
    }

    /// The CPU on which a task was seen running.
    pub(super) fn cpu_of(&self, pid: u32) -> Option<&Cpu> {
        self.cpus.values().find(|cpu| cpu.pid == Some(pid) && !cpu.idle)
    }
}

/// A task.
#[derive(Debug, Default, Clone)]
pub(super) struct Task {
    pub(super) pid: u32,
    pub(super) comm: String,
    /// `D`, `R`, `S`, `I`, …; a blank where it is not known.
    pub(super) state: Option<u8>,
    /// Which work, of which workqueue.
    pub(super) work: Option<Work>,
    /// What it waits in; without interrupts.
    pub(super) stack: Vec<Frame>,
    /// Frames that the kernel does not trust, of a stack that has no other so far.
    pub(super) stale: Vec<Frame>,
    /// The stack is made of such frames.
    pub(super) unsure: bool,
    /// `<Same stack as pid N>`.
    pub(super) same_as: Option<u32>,
    pub(super) held: Vec<Held>,
    /// How many locks were announced; the list may have been cut.
    pub(super) held_count: Option<u32>,
    pub(super) held_line: u32,
    /// How long it has been blocked, in seconds.
    pub(super) blocked: Option<u64>,
    pub(super) owners: Vec<Owner>,
    pub(super) parent: Option<u32>,
    /// Where the log speaks of it first.
    pub(super) line: u32,
}

/// `Workqueue: events_unbound cleanup_net`.
#[derive(Debug, Default, Clone)]
pub(super) struct Work {
    pub(super) queue: String,
    pub(super) function: String,
    /// `flush-8:0`, if the queue is of a device.
    pub(super) about: String,
    pub(super) line: u32,
}

/// A lock in a list of lockdep. The list names also the lock that a task waits for.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) index: u32,
    /// Without `#12` and `/1`.
    pub(super) class: String,
    pub(super) address: Option<u64>,
    /// Where it was asked for.
    pub(super) at: Option<Frame>,
    pub(super) line: u32,
}

/// The kernel's own word on who has the lock that a task waits for.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) comm: String,
    pub(super) pid: u32,
    /// `last held`: a semaphore's last owner need not be the one that matters.
    pub(super) last: bool,
    pub(super) line: u32,
}

/// What a CPU was doing when it was asked.
#[derive(Debug, Default, Clone)]
pub(super) struct Cpu {
    pub(super) number: u32,
    pub(super) pid: Option<u32>,
    pub(super) comm: String,
    pub(super) idle: bool,
    /// Whether an interrupt for the purpose (NMI) showed it.
    pub(super) shown: bool,
    /// In interrupts, the innermost first.
    pub(super) interrupts: Vec<Frame>,
    /// In the task.
    pub(super) stack: Vec<Frame>,
    /// As of a task.
    pub(super) stale: Vec<Frame>,
    pub(super) unsure: bool,
    pub(super) work: Option<Work>,
    pub(super) line: u32,
}

/// A grace period that does not end.
#[derive(Debug, Default, Clone)]
pub(super) struct Stall {
    /// `rcu`, `rcu-exp`, `rcu-sched`, `rcu-bh`, `rcu-tasks`.
    pub(super) flavour: String,
    /// CPUs that did not pass through a quiescent state, each with its line.
    pub(super) cpus: Vec<(u32, u32)>,
    /// Tasks that were preempted as readers, each with its line.
    pub(super) tasks: Vec<(u32, u32)>,
    /// Line that says that the kthread of the grace period gets no CPU.
    pub(super) starved: Option<u32>,
    pub(super) line: u32,
}

/// Somebody complained.
#[derive(Debug, Clone)]
pub(super) struct Symptom {
    pub(super) kind: SymptomKind,
    pub(super) line: u32,
    /// Place in `stalls`, if it is one.
    pub(super) stall: Option<usize>,
    /// Place in `orders`, if it is one.
    pub(super) order: Option<usize>,
    pub(super) pid: Option<u32>,
    pub(super) cpu: Option<u32>,
    /// The words of the kernel.
    pub(super) text: String,
}

/// Kinds of complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SymptomKind {
    HungTask,
    Stall,
    SoftLockup,
    HardLockup,
    WorkqueueLockup,
    Lockdep,
}

/// Something that was seen beside: it may be a cause, and is not a mechanism.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) count: u64,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) text: String,
}

/// `in-flight: 12:cleanup_net`.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) queue: String,
    pub(super) function: String,
    /// `cpus=0`, as the pool is named in a complaint.
    pub(super) pool: String,
    pub(super) pid: u32,
    pub(super) line: u32,
}
