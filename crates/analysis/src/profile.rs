//! Where the time of a program's threads went, from the samples and switches of a trace that was recorded
//! with a profile.
//!
//! The trace is read twice: for where objects lay, then for samples. Each sample stands for the CPU time
//! in its `weight`. Functions come from the objects' symbol tables, found by the paths in the trace; where
//! the file is another by now (its build id says so) or has no symbols, the object's name stands for
//! its functions. Memory depends on how many different functions and stacks there are.
//!
//! A sample is a stack of return addresses, or registers and what the stack held (`gp:stack`); the callers are
//! then found here, by the objects' unwind tables (`unwind`).
//!
//! A thread's time off its CPUs is what lies between a switch out and the next switch in: *runnable* where it was
//! preempted and could have gone on, else *blocked*. Spans are those that are open on the thread at the
//! sample; the innermost counts.

mod sampler;
mod symbols;
mod text;
mod unwind;

use crate::export::{role_fields, visited};
use crate::filter::Filter;
use crate::read::Event;
use crate::{Damage, Error, EventType, Result, Trace, Value, escape};
use gracepoint_wire::profile::{
    SAMPLE_ID, SAMPLE_NAME, STACK_ID, STACK_NAME, SWITCH_ID, SWITCH_NAME,
};
use gracepoint_wire::schema::{LOSS_ID, Role};
pub(crate) use sampler::{Sample, Sampler};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
pub(crate) use symbols::Lies;

/// Different stacks; more are counted where they were called from.
const MOST_NODES: usize = 1 << 20;
/// Spans that are open at once on one thread.
const MOST_OPEN: usize = 1 << 12;

/// A function and its part of the CPU time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// Its name, demangled; an object's in brackets where its functions are not known.
    pub name: String,
    /// Nanoseconds in itself.
    pub self_ns: u64,
    /// Nanoseconds in itself and in what it called.
    pub total_ns: u64,
}

/// A thread and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThreadTime {
    /// Its name, escaped.
    pub thread: String,
    /// The kernel's number of it.
    pub tid: u32,
    /// Nanoseconds on a CPU, by samples.
    pub cpu_ns: u64,
    /// Nanoseconds off it that it could have run, by switches.
    pub runnable_ns: u64,
    /// Nanoseconds off it that it waited for something, by switches.
    pub blocked_ns: u64,
}

/// The innermost open spans of one kind, and their time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpanTime {
    /// Name of the span.
    pub span: String,
    /// Nanoseconds on a CPU.
    pub cpu_ns: u64,
    /// Nanoseconds off it.
    pub off_ns: u64,
}

/// What a profile tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Profile {
    /// Samples.
    pub samples: u64,
    /// Samples lost; where switches were recorded they are among these.
    pub lost: u64,
    /// When threads left their CPUs was recorded, too; else times off them are 0.
    pub knows_off_cpu: bool,
    /// Nanoseconds that the samples stand for.
    pub cpu_ns: u64,
    /// Of these, in the kernel.
    pub kernel_ns: u64,
    /// Most time in itself first.
    pub functions: Vec<Function>,
    /// Most CPU time first.
    pub threads: Vec<ThreadTime>,
    /// Most CPU time first; empty where no span was recorded.
    pub spans: Vec<SpanTime>,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Objects whose functions have no names here, and why.
    pub unnamed: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) stacks: Stacks,
}

/// A frame below another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// The frame that called it; itself for a thread.
    pub(crate) parent: u32,
    /// Position among the names.
    pub(crate) name: u32,
    pub(crate) self_ns: u64,
    pub(crate) samples: u64,
}

/// All stacks, as a tree whose roots are threads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stacks {
    pub(crate) names: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    by_name: HashMap<String, u32>,
    /// By frame outside (`u32::MAX` for a thread) and name.
    by_place: HashMap<(u32, u32), u32>,
}

impl Stacks {
    fn name(&mut self, name: &str) -> u32 {
        if let Some(&known) = self.by_name.get(name) {
            return known;
        }
        let at = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), at);
        at
    }

    fn node(&mut self, parent: Option<u32>, name: u32) -> u32 {
        let key = (parent.unwrap_or(u32::MAX), name);
        if let Some(&node) = self.by_place.get(&key) {
            return node;
        }
        if self.nodes.len() >= MOST_NODES {
            return parent.unwrap_or(0);
        }
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { parent: parent.unwrap_or(node), name, self_ns: 0, samples: 0 });
        self.by_place.insert(key, node);
        node
    }

    /// Names from the innermost frame to the thread.
    pub(crate) fn path(&self, mut at: u32) -> Vec<u32> {
        let mut path = vec![self.nodes[at as usize].name];
        while self.nodes[at as usize].parent != at {
            at = self.nodes[at as usize].parent;
            path.push(self.nodes[at as usize].name);
        }
        path
    }
}

/// What is known of a thread while the trace is read.
#[derive(Default)]
struct Thread {
    name: String,
    cpu_ns: u64,
    runnable_ns: u64,
    blocked_ns: u64,
    /// When it left its CPU, and whether it could have gone on.
    left: Option<(u64, bool)>,
    /// Open spans: id and position of the kind.
    open: Vec<(u64, u32)>,
    root: Option<u32>,
}

/// Adds up the profile of what `filter` chooses: threads and moments. (Its events do not matter here.)
///
/// ```
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let none = gracepoint_analysis::profile::profile(&trace, &Default::default());
/// assert!(none.unwrap_err().to_string().contains("record --profile"));
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// When the trace has no profile.
pub fn profile(trace: &Trace, filter: &Filter) -> Result<Profile> {
    let has = |name: &str| trace.events().iter().any(|event| event.name == name);
    if ![SAMPLE_NAME, STACK_NAME, SWITCH_NAME].into_iter().any(has) {
        return Err(Error::new(format!(
            "{} has no profile: record one with `gracepoint record --profile` or `gracepoint profile`",
            escape::name(&trace.dir().display().to_string())
        )));
    }
    let mut adding = Adding {
        sampler: Sampler::new(trace),
        profile: Profile { knows_off_cpu: has(SWITCH_NAME), ..Profile::default() },
        totals: HashMap::new(),
        threads: BTreeMap::new(),
        spans: HashMap::new(),
        visited: visited(trace.events()),
    };
    let filter = Filter { events: Vec::new(), last: None, ..filter.clone() };
    let mut choice = trace.choose(&filter)?;
    choice.wanted = trace.events().iter().map(matters).collect();
    let mut reader = trace.reader_of(&choice);
    while let Some(event) = reader.next_event() {
        adding.take(&event);
    }
    let mut profile = adding.finish(trace);
    profile.damage = reader.into_damage();
    Ok(profile)
}

fn matters(event: &EventType) -> bool {
    let own =
        [SAMPLE_ID, STACK_ID, SWITCH_ID, LOSS_ID].contains(&event.declared.id) && event.is_own();
    own || event.declared.role != Role::Event
}

struct Adding {
    sampler: Sampler,
    profile: Profile,
    /// By name: the time with what it called.
    totals: HashMap<u32, u64>,
    threads: BTreeMap<u32, Thread>,
    /// By position of the kind.
    spans: HashMap<u32, (u64, u64)>,
    /// By position of the kind: whether its spans are entered and left.
    visited: Vec<bool>,
}

impl Adding {
    fn take(&mut self, event: &Event<'_>) {
        let thread = self.threads.entry(event.tid).or_default();
        if thread.name.is_empty() {
            thread.name = event.thread.to_owned();
        }
        match (event.kind.declared.role, event.kind.declared.id) {
            // One that threads enter and leave is theirs between the two alone.
            (Role::Begin, _) if self.visited[event.index as usize] => {}
            (Role::Begin | Role::Enter, _) => {
                if let Some((id, _)) = role_fields(event)
                    && thread.open.len() < MOST_OPEN
                {
                    thread.open.push((id, event.index));
                }
            }
            (Role::End, _) if self.visited[event.index as usize] => {}
            (Role::End | Role::Exit, _) => self.end(event),
            (Role::Record | Role::Follows, _) => {}
            (_, SAMPLE_ID | STACK_ID) => self.sample(event),
            (_, SWITCH_ID) => self.switch(event),
            (_, LOSS_ID) => {
                let value = |name: &str| event.kind.field(name).and_then(|at| event.value(at));
                if let (Some(Value::Uint(id)), Some(Value::Uint(count))) =
                    (value("id"), value("count"))
                    && [SAMPLE_ID, STACK_ID].map(u64::from).contains(&id)
                {
                    self.profile.lost += count;
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, event: &Event<'_>) {
        let Some((id, _)) = role_fields(event) else { return };
        let close = |thread: &mut Thread| {
            let at = thread.open.iter().rposition(|(open, _)| *open == id);
            at.map(|at| thread.open.remove(at)).is_some()
        };
        let here = self.threads.get_mut(&event.tid).is_some_and(close);
        // It may have been carried to another thread.
        let _ = here || self.threads.values_mut().any(close);
    }

    fn sample(&mut self, event: &Event<'_>) {
        let Some(sample) = self.sampler.read(event) else { return };
        let Sample { weight, kernel, places, .. } = sample;
        let Some(thread) = self.threads.get_mut(&event.tid) else { return };
        thread.cpu_ns += weight;
        let profile = &mut self.profile;
        profile.samples += 1;
        profile.cpu_ns += weight;
        profile.kernel_ns += if kernel { weight } else { 0 };
        let stacks = &mut profile.stacks;
        let mut node = *thread.root.get_or_insert_with(|| {
            let label = match thread.name.is_empty() {
                true => format!("thread {}", event.tid),
                false => escape::name(&thread.name),
            };
            let name = stacks.name(&label);
            stacks.node(None, name)
        });
        let mut names = Vec::with_capacity(places.len() + 1);
        for &place in places.iter().rev() {
            names.push(stacks.name(self.sampler.name(place)));
        }
        if kernel {
            names.push(stacks.name("[kernel]"));
        }
        if names.is_empty() {
            names.push(stacks.name("[unknown]"));
        }
        for &name in &names {
            node = stacks.node(Some(node), name);
        }
        stacks.nodes[node as usize].self_ns += weight;
        stacks.nodes[node as usize].samples += 1;
        names.sort_unstable();
        names.dedup(); // one that calls itself is not counted twice
        for name in names {
            *self.totals.entry(name).or_default() += weight;
        }
        if let Some((_, kind)) = thread.open.last() {
            self.spans.entry(*kind).or_default().0 += weight;
        }
    }

    fn switch(&mut self, event: &Event<'_>) {
        let is = |name: &str| {
            event.kind.field(name).and_then(|at| event.value(at)) == Some(Value::Bool(true))
        };
        let Some(thread) = self.threads.get_mut(&event.tid) else { return };
        if is("out") {
            thread.left = Some((event.ns, is("preempted")));
            return;
        }
        let Some((at, preempted)) = thread.left.take() else { return };
        let off = event.ns.saturating_sub(at);
        match preempted {
            true => thread.runnable_ns += off,
            false => thread.blocked_ns += off,
        }
        if let Some((_, kind)) = thread.open.last() {
            self.spans.entry(*kind).or_default().1 += off;
        }
    }

    fn finish(self, trace: &Trace) -> Profile {
        let mut profile = self.profile;
        let mut own: HashMap<u32, u64> = HashMap::new();
        for node in &profile.stacks.nodes {
            *own.entry(node.name).or_default() += node.self_ns;
        }
        let function = |(name, total_ns): (u32, u64)| Function {
            name: profile.stacks.names[name as usize].clone(),
            self_ns: own.get(&name).copied().unwrap_or(0),
            total_ns,
        };
        profile.functions = self.totals.into_iter().map(function).collect();
        profile.functions.sort_by(|a, b| {
            let most = (b.self_ns, b.total_ns).cmp(&(a.self_ns, a.total_ns));
            most.then_with(|| a.name.cmp(&b.name))
        });
        let time = |(tid, thread): (u32, Thread)| ThreadTime {
            thread: escape::name(&thread.name),
            tid,
            cpu_ns: thread.cpu_ns,
            runnable_ns: thread.runnable_ns,
            blocked_ns: thread.blocked_ns,
        };
        let is_told = |time: &ThreadTime| time.cpu_ns + time.runnable_ns + time.blocked_ns > 0;
        profile.threads = self.threads.into_iter().map(time).filter(is_told).collect();
        profile.threads.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then(a.tid.cmp(&b.tid)));
        let span = |(kind, (cpu_ns, off_ns)): (u32, (u64, u64))| SpanTime {
            span: escape::name(&trace.events()[kind as usize].declared.schema.name),
            cpu_ns,
            off_ns,
        };
        profile.spans = self.spans.into_iter().map(span).collect();
        profile.spans.sort_by(|a, b| b.cpu_ns.cmp(&a.cpu_ns).then_with(|| a.span.cmp(&b.span)));
        profile.unnamed = self.sampler.unnamed();
        profile
    }
}
