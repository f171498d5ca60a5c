//! A process as the kernel shows it: its memory, its threads, their states, stacks and numbers.
//!
//! Every file may be gone or refused at any time; then that part is not known. A process in a pid namespace of its
//! own has other numbers for its threads: those in messages and in its memory are its own, and are
//! translated where they are used.

use gracepoint_analysis::stuck::Frame;
use gracepoint_analysis::why::futex::{self, Futex};
use gracepoint_analysis::why::memory::{Mapping, Memory, parse_maps};
use gracepoint_analysis::why::stack::{Objects, Registers};
use gracepoint_analysis::why::{Look, Thread, calls};
use gracepoint_wire::control::Stuck;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// Most threads that are looked at.
const THREADS: usize = 4096;
/// Most threads in futexes that are looked at beside those that are on a chain.
const IN_FUTEXES: usize = 512;
/// How often a thread that is ready to run is looked at, and in which time, to tell a storm of signals.
const LOOKS: usize = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A process, by its number in our pid namespace.
pub(super) struct Process {
    pub(super) pid: u32,
    /// Its number in its own pid namespace.
    pub(super) own_pid: Option<u32>,
    /// Why its memory cannot be read.
    pub(super) denied: Option<String>,
    memory: Option<File>,
    mappings: Vec<Mapping>,
    /// Its threads by their own numbers.
    threads: BTreeMap<u32, u32>,
}

/// What a line of `/proc/PID/task/TID/syscall` says.
#[derive(Clone, PartialEq, Eq)]
struct Call {
    number: u64,
    arguments: [u64; 6],
    registers: Registers,
}

impl Call {
    fn is_futex(&self) -> bool {
        calls::name(self.number) == Some("futex")
    }
}

fn text(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

impl Process {
    pub(super) fn open(pid: u32) -> Process {
        let memory = File::open(format!("/proc/{pid}/mem"));
        let maps = text(&format!("/proc/{pid}/maps"));
        let denied = memory.as_ref().err().map(ToString::to_string);
        let mappings = parse_maps(&maps.unwrap_or_default());
        let names = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        let tids = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let tids: Vec<u32> = tids.take(THREADS).collect();
        let own = |tid: &u32| innermost(&format!("/proc/{pid}/task/{tid}/status")).unwrap_or(*tid);
        let threads = tids.iter().map(|tid| (own(tid), *tid)).collect();
        let own_pid = innermost(&format!("/proc/{pid}/status"));
        Process { pid, own_pid, denied, memory: memory.ok(), mappings, threads }
    }

    /// Its name, where it does not tell one.
    pub(super) fn name(&self) -> String {
        let comm = text(&format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        comm.trim_end_matches('\n').to_owned()
    }

    /// The same with our numbers for threads.
    pub(super) fn in_our_numbers(&self, mut stuck: Stuck) -> Stuck {
        let ours = |tid: &mut u32| {
            if let Some(known) = self.threads.get(tid) {
                *tid = *known;
            }
        };
        ours(&mut stuck.agent);
        stuck.tasks.iter_mut().for_each(|task| ours(&mut task.tid));
        for domain in &mut stuck.domains {
            domain.readers.iter_mut().for_each(|reader| ours(&mut reader.tid));
            domain.waiters.iter_mut().for_each(|waiter| ours(&mut waiter.tid));
            domain.callback.iter_mut().for_each(|call| ours(&mut call.tid));
        }
        stuck
    }

    /// What the kernel says of the threads; of those that matter their stacks and locks, too.
    pub(super) fn look_at_threads(&self, look: &mut Look) {
        let tids: BTreeSet<u32> = self.threads.values().copied().collect();
        for tid in &tids {
            look.threads.insert(*tid, thread_of(self.pid, *tid));
        }
        let mut todo = matter(look);
        todo.retain(|tid| tids.contains(tid));
        self.look_for_storms(&todo, look);
        if self.denied.is_some() && !todo.is_empty() {
            look.wanted.push(
                "stacks and locks of its threads: run this as the program's user or as root (kernel.yama.ptrace_scope)",
            );
        }
        let root = format!("/proc/{}/root", self.pid);
        let find = |path: &str| match PathBuf::from(format!("{root}{path}")) {
            // One that was replaced or unlinked is still there as the program that runs.
            there if there.exists() => there,
            _ => PathBuf::from(format!("/proc/{}/exe", self.pid)),
        };
        let objects = self.memory.as_ref().map(|_| Objects::new(&self.mappings, find));
        let told = told_stacks(look);
        let sleeps = |tid: &u32| look.threads.get(tid).is_some_and(|thread| thread.is_asleep());
        let in_futex = |tid: &u32| call_of(self.pid, *tid).is_some_and(|call| call.is_futex());
        todo.extend(tids.iter().copied().filter(sleeps).filter(in_futex).take(IN_FUTEXES));
        let mut seen = BTreeMap::new();
        while let Some(tid) = todo.pop_first() {
            if seen.contains_key(&tid) {
                continue;
            }
            let switches = switches_of(self.pid, tid);
            let call = call_of(self.pid, tid);
            let addresses = match (&objects, told.get(&tid), &call) {
                (_, Some(told), _) => told.clone(),
                (Some(objects), None, Some(call)) => objects.unwind(self, call.registers),
                _ => Vec::new(),
            };
            let stack = objects.as_ref().map(|objects| objects.name(self, &addresses));
            let stack = stack.unwrap_or_default();
            let futex = call.as_ref().and_then(|call| self.futex_of(call, &stack));
            todo.extend(
                futex.as_ref().and_then(|futex| futex.owner).filter(|tid| tids.contains(tid)),
            );
            let slept = call.as_ref().filter(|_| futex.is_some());
            seen.insert(tid, slept.map(|call| (call.clone(), switches)));
            let Some(thread) = look.threads.get_mut(&tid) else { continue };
            // One that sleeps elsewhere, or is stopped, has no number.
            let call = call.filter(|call| call.number != u64::MAX);
            thread.call = call.map(|call| self.words(&call));
            (thread.stack, thread.futex) = (stack, futex);
        }
        let slept = seen.into_iter().filter_map(|(tid, slept)| Some((tid, slept?)));
        slept.for_each(|(tid, (call, switches))| self.look_again(tid, &call, switches, look));
    }

    /// Threads are looked at one after another. Those that sleep in the same futexes of the same owners when all have
    /// been looked at did so at one moment in between; of others nothing is said.
    fn look_again(&self, tid: u32, call: &Call, switches: Option<u64>, look: &mut Look) {
        let Some(thread) = look.threads.get_mut(&tid) else { return };
        let futex = self.futex_of(call, &thread.stack);
        let same = call_of(self.pid, tid).as_ref() == Some(call)
            && switches_of(self.pid, tid) == switches
            && futex == thread.futex;
        if same {
            thread.waited_ns = asleep_for(self.pid, tid);
        } else {
            thread.futex = None;
        }
    }

    fn futex_of(&self, call: &Call, stack: &[Frame]) -> Option<Futex> {
        if !call.is_futex() || self.memory.is_none() {
            return None;
        }
        let known = |tid: u32| self.threads.contains_key(&tid);
        let mut futex = futex::futex(self, call.arguments, call.registers.sp, stack, known);
        futex.owner = futex.owner.and_then(|owner| self.threads.get(&owner).copied());
        Some(futex)
    }

    /// `read of pipe:[123] (descriptor 7)`.
    fn words(&self, call: &Call) -> String {
        let Some(name) = calls::name(call.number) else { return format!("number {}", call.number) };
        if !calls::has_descriptor(name) {
            return name.to_owned();
        }
        let descriptor = call.arguments[0] as u32;
        let link = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.pid));
        match link {
            Ok(to) => format!("{name} of {} (descriptor {descriptor})", to.display()),
            Err(_) => format!("{name} of descriptor {descriptor}"),
        }
    }

    /// Readers that are ready to run and have the same signal pending whenever they are looked at.
    fn look_for_storms(&self, tids: &BTreeSet<u32>, look: &mut Look) {
        let mut ready: Vec<(u32, u64, usize)> = tids
            .iter()
            .filter(|tid| look.threads.get(tid).is_some_and(|thread| thread.state == Some('R')))
            .map(|tid| (*tid, u64::MAX, 0))
            .collect();
        for _ in 0..LOOKS {
            ready.retain_mut(|(tid, pending, _)| {
                // A signal that is blocked is pending for another reason, unless it is its own handler that blocks it.
                let now = pending_of(self.pid, *tid);
                *pending &= now;
                *pending != 0
            });
            if ready.is_empty() {
                return;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        for (tid, pending, _) in ready {
            if let Some(thread) = look.threads.get_mut(&tid) {
                thread.storm = Some(pending.trailing_zeros() + 1);
            }
        }
    }
}

impl Memory for Process {
    fn read_some(&self, address: u64, into: &mut [u8]) -> usize {
        let Some(memory) = &self.memory else { return 0 };
        let mut done = 0;
        while done < into.len() {
            match memory.read_at(&mut into[done..], address.wrapping_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn now(&self) -> Option<u64> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).ok()?;
        Some(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).ok()?)
    }
}

/// Threads that may be on a chain.
fn matter(look: &Look) -> BTreeSet<u32> {
    let mut tids = BTreeSet::new();
    for domain in &look.stuck.domains {
        tids.extend(domain.readers.iter().filter(|reader| !reader.ended).map(|reader| reader.tid));
        tids.extend(domain.waiters.iter().map(|waiter| waiter.tid));
        tids.extend(domain.callback.iter().map(|call| call.tid));
        let name: String = format!("rcu:{}", domain.name).chars().take(15).collect();
        let own =
            look.threads.iter().filter(|(_, thread)| domain.pending != 0 && thread.name == name);
        tids.extend(own.map(|(tid, _)| *tid));
    }
    tids.extend(look.stuck.tasks.iter().map(|task| task.tid));
    if look.silent.is_some() {
        tids.insert(look.stuck.agent);
    }
    tids.remove(&0);
    tids
}

/// Stacks that the program itself has told.
fn told_stacks(look: &Look) -> BTreeMap<u32, Vec<u64>> {
    let domains = || look.stuck.domains.iter();
    let readers = domains().flat_map(|domain| &domain.readers).map(|r| (r.tid, &r.backtrace));
    let calls =
        domains().filter_map(|domain| domain.callback.as_ref()).map(|c| (c.tid, &c.backtrace));
    let told = readers.chain(calls).filter(|(_, backtrace)| !backtrace.is_empty());
    told.map(|(tid, backtrace)| (tid, backtrace.clone())).collect()
}

/// Whether there is no such process any more, or nothing of it but its number.
pub(super) fn has_ended(pid: u32) -> bool {
    let stat = text(&format!("/proc/{pid}/stat"));
    stat.is_none_or(|stat| {
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

/// Name, state and kernel function of a thread of a process.
pub(super) fn thread_of(pid: u32, tid: u32) -> Thread {
    let read = |file: &str| text(&format!("/proc/{pid}/task/{tid}/{file}"));
    let state = read("stat").and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
    Thread {
        name: read("comm").unwrap_or_default().trim_end_matches('\n').to_owned(),
        state,
        sleeps_in: read("wchan").filter(|name| !name.is_empty() && name != "0"),
        ..Thread::default()
    }
}

/// The number in the innermost pid namespace.
fn innermost(status: &str) -> Option<u32> {
    let status = text(status)?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Signals that are pending for a thread.
fn pending_of(pid: u32, tid: u32) -> u64 {
    let status = text(&format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    set("SigPnd:")
}

/// How often a thread has gone to sleep of itself.
fn switches_of(pid: u32, tid: u32) -> Option<u64> {
    let status = text(&format!("/proc/{pid}/task/{tid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// For how long a thread has not run, nanoseconds, where the kernel keeps such notes. Its clock is one of its own: this
/// thread runs now.
fn asleep_for(pid: u32, tid: u32) -> Option<u64> {
    let ran = |path: &str| {
        let notes = text(path)?;
        let line = notes.lines().find_map(|line| line.strip_prefix("se.exec_start"))?;
        line.trim_start_matches([' ', ':']).trim().parse::<f64>().ok()
    };
    let then = ran(&format!("/proc/{pid}/task/{tid}/sched"))?;
    let now = ran("/proc/thread-self/sched")?;
    Some(((now - then).max(0.0) * 1e6) as u64)
}

/// Where a thread is, if it sleeps: in a system call, or (with number −1) not in one.
fn call_of(pid: u32, tid: u32) -> Option<Call> {
    let line = text(&format!("/proc/{pid}/task/{tid}/syscall"))?;
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let hex = |at: usize| u64::from_str_radix(fields.get(at)?.strip_prefix("0x")?, 16).ok();
    match *fields.first()? {
        "running" => None,
        "-1" => Some(Call {
            number: u64::MAX,
            arguments: [0; 6],
            registers: Registers { sp: hex(1)?, pc: hex(2)?, bp: None },
        }),
        number => {
            let mut arguments = [0; 6];
            for (at, argument) in (1..).zip(&mut arguments) {
                *argument = hex(at)?;
            }
            let registers = Registers { sp: hex(7)?, pc: hex(8)?, bp: None };
            Some(Call { number: number.parse().ok()?, arguments, registers })
        }
    }
}
