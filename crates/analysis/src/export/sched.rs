//! When threads ran, by the kernel's word: what ran on each CPU, and of each thread whether it was running, could have
//! run, or waited.
//!
//! A trace may lack any of it: rings run over, and tracefs does not note each switch. So a slice is drawn where both of
//! its ends are known. What is recorded by a thread tells that it runs then, wherever it was; a thread whose switch out
//! is missing is known to have run up to the last such record; where the kernel's records were lost, nothing is
//! known of the thread until the next. One that is off its CPU when the trace ends has a slice without an end: it waits
//! still, or has ended. On a CPU slices never overlap.

use super::{Export, Format, Options, Sink, Thread};
use crate::filter::Choice;
use crate::profile::Sampler;
use crate::read::Event;
use crate::slow::{APART_NS, is_on_cpu};
use crate::{EventType, Value};
use gracepoint_wire::profile::{SAMPLE_ID, STACK_ID, SWITCH_ID, SWITCH_NAME};
use std::collections::HashMap;

/// CPUs that have tracks.
const MOST_CPUS: usize = 1 << 12;
/// `prev_state` of a thread that was preempted, beside 0: this bit.
const PREEMPTED: i64 = 0x100;

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// It could run, and does not: preempted, or woken.
    Runnable,
    /// It waits for something.
    Blocked,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Runnable => "runnable",
            State::Blocked => "blocked",
        }
    }
}

/// What an event tells of scheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Nothing,
    /// Who records it is running.
    OnCpu,
    /// `gp:sample` or `gp:stack`.
    Sample,
    /// `gp:switch`.
    Switch,
    /// The kernel's own `sched:sched_switch`, where there is no `gp:switch`.
    KernelSwitch,
    /// `sched:sched_waking`.
    Waking,
}

/// What each of these events tells, where the format has a place for it.
pub(super) fn parts(events: &[EventType], options: &Options, choice: &Choice) -> Vec<Part> {
    let draws = matches!(options.format, Format::Perfetto | Format::Chrome);
    let all = options.filter.events.is_empty();
    let wanted = |at: usize| draws && (all || choice.wanted[at]);
    let has_own = events.iter().any(|event| event.name == SWITCH_NAME);
    let has_kernels = events.iter().any(|event| event.name == "sched:sched_switch");
    let part = |event: &EventType| match (event.is_own(), event.declared.id) {
        (true, SAMPLE_ID | STACK_ID) => Part::Sample,
        (true, SWITCH_ID) => Part::Switch,
        _ if !has_own && !has_kernels => Part::Nothing,
        _ if event.name == "sched:sched_switch" && !has_own => Part::KernelSwitch,
        _ if event.name == "sched:sched_waking" => Part::Waking,
        _ if is_on_cpu(event) => Part::OnCpu,
        _ => Part::Nothing,
    };
    let events = events.iter().enumerate();
    events.map(|(at, event)| if wanted(at) { part(event) } else { Part::Nothing }).collect()
}

#[derive(Debug, Clone, Copy)]
struct Now {
    state: State,
    since_ns: u64,
    /// When it was last known to be so.
    seen_ns: u64,
    cpu: Option<u32>,
}

/// What is known of all threads, by their positions, and of CPUs.
#[derive(Default)]
pub(super) struct Sched {
    now: Vec<Option<Now>>,
    /// By CPU: who is there, and until when something is drawn.
    cpus: HashMap<u32, (Option<usize>, u64)>,
    /// Slices drawn on CPUs.
    runs: u64,
}

/// A slice's output.
struct Out<'a> {
    threads: &'a [Thread],
    sink: &'a mut dyn Sink,
}

impl Sched {
    /// Takes an event of a thread's that tells something; `find` knows the position of another.
    fn take(
        &mut self,
        part: Part,
        event: &Event<'_>,
        thread: usize,
        find: impl Fn(u32) -> Option<usize>,
        out: &mut Out<'_>,
    ) {
        let number = |name: &str| number(event, name);
        let cpu = || number("cpu").and_then(|cpu| u32::try_from(cpu).ok());
        match part {
            Part::Nothing => {}
            Part::OnCpu => self.runs(thread, event.ns, None, out),
            Part::Sample => self.runs(thread, event.ns, cpu(), out),
            Part::Switch => match number("out") {
                Some(0) => self.comes(thread, event.ns, cpu(), out),
                Some(_) => {
                    self.leaves(thread, event.ns, cpu(), number("preempted") == Some(1), out)
                }
                None => {}
            },
            Part::KernelSwitch => {
                let state = number("prev_state").unwrap_or(0);
                let preempted = state == 0 || state & PREEMPTED != 0;
                self.leaves(thread, event.ns, cpu(), preempted, out);
                let next = number("next_pid").and_then(|next| find(u32::try_from(next).ok()?));
                if let Some(next) = next.filter(|next| *next != thread) {
                    self.comes(next, event.ns, cpu(), out);
                }
            }
            Part::Waking => {
                let woken = number("pid").and_then(|pid| find(u32::try_from(pid).ok()?));
                if let Some(woken) = woken {
                    self.wakes(woken, event.ns, out);
                }
            }
        }
    }

    fn at(&mut self, thread: usize) -> &mut Option<Now> {
        if self.now.len() <= thread {
            self.now.resize(thread + 1, None);
        }
        &mut self.now[thread]
    }

    fn begins(&mut self, thread: usize, state: State, ns: u64, cpu: Option<u32>) {
        *self.at(thread) = Some(Now { state, since_ns: ns, seen_ns: ns, cpu });
    }

    /// It is running, as its record tells.
    fn runs(&mut self, thread: usize, ns: u64, cpu: Option<u32>, out: &mut Out<'_>) {
        match *self.at(thread) {
            Some(now) if now.state == State::Running => {
                if cpu.is_some() && now.cpu.is_some() && cpu != now.cpu {
                    // It went to another CPU in between, and nothing told of it.
                    self.ends(thread, now.seen_ns, None, out);
                    self.comes(thread, ns, cpu, out);
                } else if let Some(Some(now)) = self.now.get_mut(thread) {
                    now.seen_ns = ns;
                }
            }
            // The kernel's times and the program's own are not quite the same.
            Some(now) if cpu.is_none() && ns <= now.since_ns.saturating_add(APART_NS) => {}
            _ => self.comes(thread, ns, cpu, out),
        }
    }

    fn comes(&mut self, thread: usize, ns: u64, cpu: Option<u32>, out: &mut Out<'_>) {
        match *self.at(thread) {
            // Its switch out is missing.
            Some(now) if now.state == State::Running => self.ends(thread, now.seen_ns, None, out),
            Some(_) => self.ends(thread, ns, None, out),
            None => {}
        }
        if let Some(cpu) = cpu {
            self.evict(cpu, thread, ns, out);
            if self.cpus.len() < MOST_CPUS || self.cpus.contains_key(&cpu) {
                self.cpus.entry(cpu).or_default().0 = Some(thread);
            }
        }
        self.begins(thread, State::Running, ns, cpu);
    }

    /// Nobody else is on that CPU any more.
    fn evict(&mut self, cpu: u32, thread: usize, ns: u64, out: &mut Out<'_>) {
        let Some((Some(other), _)) = self.cpus.get(&cpu).copied() else { return };
        let on = |now: &Now| now.state == State::Running && now.cpu == Some(cpu);
        if other != thread
            && let Some(now) = self.at(other).filter(on)
        {
            self.ends(other, now.seen_ns.min(ns), None, out);
        }
    }

    fn leaves(
        &mut self,
        thread: usize,
        ns: u64,
        cpu: Option<u32>,
        preempted: bool,
        out: &mut Out<'_>,
    ) {
        match *self.at(thread) {
            Some(now) if now.state == State::Running => {
                let other = cpu.is_some() && now.cpu.is_some() && cpu != now.cpu;
                let until = if other { now.seen_ns } else { ns };
                self.ends(thread, until, cpu.filter(|_| !other), out);
            }
            // It came back, and nothing told when; so nothing is known of the time since it left.
            _ => *self.at(thread) = None,
        }
        let state = if preempted { State::Runnable } else { State::Blocked };
        self.begins(thread, state, ns, None);
    }

    /// What blocked it is over.
    fn wakes(&mut self, thread: usize, ns: u64, out: &mut Out<'_>) {
        if let Some(now) = *self.at(thread)
            && now.state == State::Blocked
            && now.since_ns <= ns
        {
            self.ends(thread, ns, None, out);
            self.begins(thread, State::Runnable, ns, None);
        }
    }

    /// The kernel's records about a thread were lost.
    fn lost(&mut self, thread: usize, out: &mut Out<'_>) {
        if let Some(now) = self.at(thread).filter(|now| now.state == State::Running) {
            self.ends(thread, now.seen_ns, None, out);
        }
        *self.at(thread) = None;
    }

    /// Nothing more comes.
    fn finish(&mut self, out: &mut Out<'_>) {
        for thread in 0..self.now.len() {
            match self.now[thread] {
                Some(now) if now.state == State::Running => {
                    self.ends(thread, now.seen_ns, None, out);
                }
                Some(now) => {
                    out.sink.state(thread, &out.threads[thread], now.state, (now.since_ns, None));
                }
                None => {}
            }
        }
    }

    /// Draws what it has done until then; `cpu` is where it ran, if that was not known.
    fn ends(&mut self, thread: usize, ns: u64, cpu: Option<u32>, out: &mut Out<'_>) {
        let Some(now) = self.at(thread).take() else { return };
        if ns > now.since_ns {
            out.sink.state(thread, &out.threads[thread], now.state, (now.since_ns, Some(ns)));
        }
        if now.state != State::Running {
            return;
        }
        let Some(cpu) = now.cpu.or(cpu) else { return };
        if self.cpus.len() >= MOST_CPUS && !self.cpus.contains_key(&cpu) {
            return;
        }
        if now.cpu.is_none() {
            self.evict(cpu, thread, now.since_ns, out);
        }
        let (who, drawn_ns) = self.cpus.entry(cpu).or_default();
        *who = who.filter(|who| *who != thread);
        let begin_ns = now.since_ns.max(*drawn_ns);
        if ns > begin_ns {
            *drawn_ns = ns;
            self.runs += 1;
            out.sink.ran(cpu, &out.threads[thread], (begin_ns, ns));
        }
    }
}

impl Export<'_> {
    /// An event that tells where a thread is, or whether it is on a CPU.
    pub(super) fn kernel(&mut self, event: &Event<'_>, thread: usize) {
        let part = self.parts[event.index as usize];
        // Of more threads than are told apart, one stands for the rest.
        if event.tid == 0 || self.threads[thread].tid != event.tid {
            return;
        }
        // So that the output knows of the time.
        self.sink.begin(event.ns, &self.threads[thread], event.index, None);
        let find = |tid: u32| self.by_tid.get(&tid).copied();
        let mut out = Out { threads: &self.threads, sink: &mut *self.sink };
        self.sched.take(part, event, thread, find, &mut out);
        if part == Part::Sample {
            let sampler = self.sampler.get_or_insert_with(|| Sampler::new(self.trace));
            if let Some(sample) = sampler.read(event) {
                self.done.stacks += 1;
                self.sink.stack(thread, event.ns, &sample, sampler);
            }
        }
    }

    /// Losses of these were told.
    pub(super) fn kernel_lost(&mut self, id: u64, thread: usize) {
        // The three share a ring.
        if [SAMPLE_ID, STACK_ID, SWITCH_ID].map(u64::from).contains(&id) {
            let mut out = Out { threads: &self.threads, sink: &mut *self.sink };
            self.sched.lost(thread, &mut out);
        }
    }

    /// Nothing more comes.
    pub(super) fn kernel_ends(&mut self) {
        self.sched.finish(&mut Out { threads: &self.threads, sink: &mut *self.sink });
        self.done.runs = self.sched.runs;
    }
}

fn number(event: &Event<'_>, name: &str) -> Option<i64> {
    match event.kind.field(name).and_then(|at| event.value(at))? {
        Value::Int(n) => Some(n),
        Value::Uint(n) => i64::try_from(n).ok(),
        Value::Bool(b) => Some(i64::from(b)),
        _ => None,
    }
}
