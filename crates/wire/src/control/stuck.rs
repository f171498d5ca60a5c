//! What a program says of itself when it is asked why it is stuck: its domains, who waits in each, who is
//! waited for. The same values are read from the memory of a program that does not answer.

use super::body::{list, number, number32, text};
use crate::Result;
use crate::tlv::{Builder, Item};

/// Reply to `Why`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stuck {
    /// Every domain of the program.
    pub domains: Vec<DomainState>,
    /// The agent's thread; 0 if it is not known.
    pub agent: u32,
    /// For how long the agent has been at what it does, nanoseconds; 0 while it waits for requests.
    pub agent_busy_ns: u64,
    /// Tasks of async runtimes, by the spans that they are in, those first that were not polled for longest.
    pub tasks: Vec<OpenTask>,
    /// Tasks that were left out of that list.
    pub more_tasks: u64,
    /// Who could tell of tasks, and whether it does.
    pub spans: SpansKept,
}

/// Whether a program keeps track of its open spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpansKept {
    /// It has none that could be kept track of, or it does not say.
    #[default]
    Unknown,
    /// It could, and was not asked to.
    No,
    /// It does.
    Yes,
}

/// An open span without open spans inside: where a task of an async runtime is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenTask {
    /// Names of its spans, with fields where they have some, the outermost first: `fetch{url="x"}`.
    pub spans: Vec<String>,
    /// `file:line` of the innermost one.
    pub location: String,
    /// How long ago it was entered (if it is inside now) or left, nanoseconds; if it never was, how long ago it began.
    pub since_ns: u64,
    /// How long ago it began, nanoseconds.
    pub begun_ns: u64,
    /// How often it was entered.
    pub polls: u64,
    /// The thread that is inside now; 0 for none.
    pub tid: u32,
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainState {
    /// Its name.
    pub name: String,
    /// Grace periods that have ended.
    pub ended: u64,
    /// The grace period that runs and was left unfinished by who drives.
    pub running: Option<RunningPeriod>,
    /// Threads that wait.
    pub waiters: Vec<WaitingThread>,
    /// Futures that wait, of which no thread is known.
    pub futures: u64,
    /// Whom the grace period waits for.
    pub readers: Vec<OpenReader>,
    /// The callback that runs.
    pub callback: Option<RunningCall>,
    /// Callbacks that are queued or running.
    pub pending: u64,
    /// For how long the oldest of those has been waiting, nanoseconds; 0 if it is not known.
    pub oldest_ns: u64,
    /// Callbacks could run now if somebody ran them.
    pub ready: bool,
    /// Who drives of itself: 0 nobody but users, 1 a thread, 2 a thread and an executor.
    pub drives: u8,
    /// A job was handed to the executor and has not run.
    pub job_waits: bool,
}

/// A grace period that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunningPeriod {
    /// Which of its domain's.
    pub number: u64,
    /// 1 or 2: which scan it waits in.
    pub phase: u8,
    /// For how long it has been running, nanoseconds.
    pub age_ns: u64,
}

/// A thread that waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WaitingThread {
    /// The kernel's number for it, in the program's pid namespace.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// It waits for callbacks to run, and not for a grace period.
    pub for_callbacks: bool,
    /// For how long, nanoseconds.
    pub waited_ns: u64,
    /// The grace period that it waits for.
    pub number: u64,
    /// The function that it waits in: `detach_wait`. Empty if it is not known.
    pub call: String,
}

/// A reader that a grace period waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenReader {
    /// The kernel's number for its thread; 0 if it is none or not known.
    pub tid: u32,
    /// Its thread's name.
    pub name: String,
    /// The thread has ended inside the section.
    pub ended: bool,
    /// The owner of owned sections, which belong to no thread.
    pub owner: Option<String>,
    /// Sections that are open.
    pub sections: u64,
    /// So many of those come from the process that this one was forked from.
    pub inherited: u64,
    /// How long ago it was first seen inside, nanoseconds; 0 if it is not known.
    pub seen_ns: u64,
    /// `file:line:column` where it entered, if sections are noted.
    pub entered_at: String,
    /// How long ago it entered, nanoseconds; 0 if it is not known.
    pub entered_ns: u64,
    /// Probes that it runs, innermost first.
    pub probes: Vec<RunningProbe>,
    /// Addresses of its calls, innermost first, if the program lets threads be asked.
    pub backtrace: Vec<u64>,
}

/// A probe that a thread runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunningProbe {
    /// Its name.
    pub name: String,
    /// The tracepoint that was hit.
    pub tracepoint: String,
}

/// A callback that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunningCall {
    /// Which of its domain's.
    pub number: u64,
    /// Its type; empty if it is not known.
    pub name: String,
    /// For how long, nanoseconds.
    pub ran_ns: u64,
    /// The thread that runs it; 0 if it is not known.
    pub tid: u32,
    /// That thread's name.
    pub thread: String,
    /// Addresses of that thread's calls, as of a reader.
    pub backtrace: Vec<u64>,
}

pub(super) fn write(b: &mut Builder, stuck: &Stuck) {
    for domain in &stuck.domains {
        b.nested(1, |b| write_domain(b, domain));
    }
    b.u64(2, stuck.agent.into()).u64(3, stuck.agent_busy_ns);
    for task in &stuck.tasks {
        b.nested(4, |b| {
            for span in &task.spans {
                b.str(1, span);
            }
            b.str(2, &task.location).u64(3, task.since_ns).u64(4, task.begun_ns);
            b.u64(5, task.polls).u64(6, task.tid.into());
        });
    }
    let spans = match stuck.spans {
        SpansKept::Unknown => 0,
        SpansKept::No => 1,
        SpansKept::Yes => 2,
    };
    b.u64(5, stuck.more_tasks).u64(6, spans);
}

fn read_task(body: &[u8]) -> Result<OpenTask> {
    Ok(OpenTask {
        spans: list(body, 1, |b| Item { tag: 1, value: b }.string())?,
        location: text(body, 2)?,
        since_ns: number(body, 3)?,
        begun_ns: number(body, 4)?,
        polls: number(body, 5)?,
        tid: number32(body, 6)?,
    })
}

pub(super) fn read(body: &[u8]) -> Result<Stuck> {
    Ok(Stuck {
        domains: list(body, 1, read_domain)?,
        agent: number32(body, 2)?,
        agent_busy_ns: number(body, 3)?,
        tasks: list(body, 4, read_task)?,
        more_tasks: number(body, 5)?,
        spans: match number(body, 6)? {
            1 => SpansKept::No,
            2 => SpansKept::Yes,
            _ => SpansKept::Unknown,
        },
    })
}

fn write_domain(b: &mut Builder, d: &DomainState) {
    b.str(1, &d.name).u64(2, d.ended);
    if let Some(running) = &d.running {
        b.nested(3, |b| {
            b.u64(1, running.number).u64(2, running.phase.into()).u64(3, running.age_ns);
        });
    }
    for waiter in &d.waiters {
        b.nested(4, |b| {
            b.u64(1, waiter.tid.into()).str(2, &waiter.name).u64(3, waiter.for_callbacks.into());
            b.u64(4, waiter.waited_ns).u64(5, waiter.number).str(6, &waiter.call);
        });
    }
    b.u64(5, d.futures);
    for reader in &d.readers {
        b.nested(6, |b| write_reader(b, reader));
    }
    if let Some(call) = &d.callback {
        b.nested(7, |b| {
            b.u64(1, call.number).str(2, &call.name).u64(3, call.ran_ns).u64(4, call.tid.into());
            b.str(5, &call.thread);
            for address in &call.backtrace {
                b.u64(6, *address);
            }
        });
    }
    b.u64(8, d.pending).u64(9, d.oldest_ns).u64(10, d.ready.into()).u64(11, d.drives.into());
    b.u64(12, d.job_waits.into());
}

fn first<T>(body: &[u8], tag: u16, read: impl Fn(&[u8]) -> Result<T>) -> Result<Option<T>> {
    Ok(list(body, tag, read)?.into_iter().next())
}

fn read_domain(body: &[u8]) -> Result<DomainState> {
    let running = |b: &[u8]| {
        let phase = number(b, 2)?.try_into().unwrap_or(u8::MAX);
        Ok(RunningPeriod { number: number(b, 1)?, phase, age_ns: number(b, 3)? })
    };
    let waiter = |b: &[u8]| {
        Ok(WaitingThread {
            tid: number32(b, 1)?,
            name: text(b, 2)?,
            for_callbacks: number(b, 3)? != 0,
            waited_ns: number(b, 4)?,
            number: number(b, 5)?,
            call: text(b, 6)?,
        })
    };
    let call = |b: &[u8]| {
        Ok(RunningCall {
            number: number(b, 1)?,
            name: text(b, 2)?,
            ran_ns: number(b, 3)?,
            tid: number32(b, 4)?,
            thread: text(b, 5)?,
            backtrace: list(b, 6, |b| Item { tag: 6, value: b }.u64())?,
        })
    };
    Ok(DomainState {
        name: text(body, 1)?,
        ended: number(body, 2)?,
        running: first(body, 3, running)?,
        waiters: list(body, 4, waiter)?,
        futures: number(body, 5)?,
        readers: list(body, 6, read_reader)?,
        callback: first(body, 7, call)?,
        pending: number(body, 8)?,
        oldest_ns: number(body, 9)?,
        ready: number(body, 10)? != 0,
        drives: number(body, 11)?.try_into().unwrap_or(u8::MAX),
        job_waits: number(body, 12)? != 0,
    })
}

fn write_reader(b: &mut Builder, r: &OpenReader) {
    b.u64(1, r.tid.into()).str(2, &r.name).u64(3, r.ended.into());
    if let Some(owner) = &r.owner {
        b.str(4, owner);
    }
    b.u64(5, r.sections).u64(6, r.inherited).u64(7, r.seen_ns);
    b.str(8, &r.entered_at).u64(9, r.entered_ns);
    for probe in &r.probes {
        b.nested(10, |b| {
            b.str(1, &probe.name).str(2, &probe.tracepoint);
        });
    }
    for address in &r.backtrace {
        b.u64(11, *address);
    }
}

fn read_reader(body: &[u8]) -> Result<OpenReader> {
    let probe = |b: &[u8]| Ok(RunningProbe { name: text(b, 1)?, tracepoint: text(b, 2)? });
    Ok(OpenReader {
        tid: number32(body, 1)?,
        name: text(body, 2)?,
        ended: number(body, 3)? != 0,
        owner: first(body, 4, |b| Item { tag: 4, value: b }.string())?,
        sections: number(body, 5)?,
        inherited: number(body, 6)?,
        seen_ns: number(body, 7)?,
        entered_at: text(body, 8)?,
        entered_ns: number(body, 9)?,
        probes: list(body, 10, probe)?,
        backtrace: list(body, 11, |b| Item { tag: 11, value: b }.u64())?,
    })
}
