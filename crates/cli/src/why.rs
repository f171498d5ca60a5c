//! `gracepoint why`: why a program is stuck, from what it says, from its memory, or from its core file.
//!
//! The agent is asked first. One that does not answer within [`ANSWER_WITHIN`] (its thread is stuck, or the
//! whole program is stopped) is not waited for: the same state is read from the program's memory. The kernel
//! is asked about the threads in either case. Nothing of the program is changed, and no thread of it is stopped.

mod process;

use crate::args::{WhyArgs, WhyForm};
use crate::connection::{Lost, wait_for};
use crate::console::Console;
use crate::discover::{self, Live, Which};
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use gracepoint_analysis::stuck::Explanation;
use gracepoint_analysis::stuck::account::Verdict;
use gracepoint_analysis::why::core_file::Core;
use gracepoint_analysis::why::memory::Memory;
use gracepoint_analysis::why::stack::Objects;
use gracepoint_analysis::why::{self, FullSession, Look, Source, Thread, mirror};
use gracepoint_wire::control::{Message, SessionInfo, SpansKept, Stuck};
use process::Process;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the agent may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at a session that is full: a recorder that is slow is not one that does not drain.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// Of [`SessionInfo::mode`]: new events are lost when the buffers are full.
const DISCARD: u8 = 0;

/// Runs `why`: 0 when a culprit or a cycle was found, 1 when nothing is stuck or nobody can say.
pub(crate) fn why(args: &WhyArgs, console: &mut Console) -> Result<u8> {
    if let Some(core) = &args.core {
        let look = of_core(core)?;
        return print(args, &look, &why::explain(&look, args.older_than), console);
    }
    if args.watch {
        return watch(args, console);
    }
    let look = of_program(&args.which(), args.from_memory)?;
    print(args, &look, &why::explain(&look, args.older_than), console)
}

/// Looks until Ctrl-C or the program's end, and prints each time that something else is stuck.
fn watch(args: &WhyArgs, console: &mut Console) -> Result<u8> {
    let mut interrupts = Interrupts::catch(true)?;
    let mut told: Vec<String> = Vec::new();
    let mut pid = None;
    loop {
        let which = pid.map_or_else(|| args.which(), Which::Pid);
        let look = match of_program(&which, args.from_memory) {
            Ok(look) => look,
            // What was found once and is gone has ended.
            Err(_) if pid.is_some_and(process::has_ended) => {
                console.note("the program has ended");
                return Ok(0);
            }
            Err(failure) => return Err(failure),
        };
        pid = Some(look.pid);
        let explanation = why::explain(&look, args.older_than);
        let news = stuck_things(&explanation);
        if news.iter().any(|thing| !told.contains(thing)) {
            print(args, &look, &explanation, console)?;
            console.flush()?;
        } else if news.is_empty() && !told.is_empty() {
            console.note("nothing is stuck any more");
        }
        told = news;
        wait_for(&interrupts.interest(), args.interval);
        if interrupts.take().is_some() {
            return Ok(0);
        }
    }
}

/// What complains and where chains end, without ages.
fn stuck_things(explanation: &Explanation) -> Vec<String> {
    let accounts = || explanation.accounts.iter();
    let symptoms = accounts().flat_map(|account| &account.symptoms);
    let ends = accounts().flat_map(|account| &account.chains);
    let symptoms = symptoms.filter_map(|symptom| Some(symptom.node.as_ref()?.to_string()));
    symptoms.chain(ends.map(|chain| format!("ends at {}", chain.end))).collect()
}

fn print(
    args: &WhyArgs,
    look: &Look,
    explanation: &Explanation,
    console: &mut Console,
) -> Result<u8> {
    let text = match args.form() {
        WhyForm::Text => explanation.to_text(),
        WhyForm::Dot => explanation.to_dot(),
        WhyForm::Html => explanation.to_html(),
        WhyForm::Json => as_json(look, explanation).to_string(),
    };
    console.line(text.trim_end())?;
    if look.source == Source::Memory && args.form() == WhyForm::Text && !args.from_memory {
        console.note("read from the program's memory, because it did not answer");
    }
    if explanation.accounts.is_empty() && look.stuck.spans == SpansKept::No {
        console.note(
            "async tasks are not looked at: the program keeps no track of its spans \
             (gracepoint_tracing::watch_spans, or Builder::watch)",
        );
    }
    let found = matches!(explanation.verdict(), Some(Verdict::Culprit | Verdict::Cycle));
    Ok(u8::from(!found))
}

fn as_json(look: &Look, explanation: &Explanation) -> Value {
    let value = serde_json::from_str::<Value>(&explanation.to_json()).unwrap_or_default();
    let domains = look.stuck.domains.iter().map(|domain| {
        json!({
            "name": domain.name,
            "grace_periods": domain.ended,
            "running": domain.running.map(|r| json!({"number": r.number, "phase": r.phase, "age_ns": r.age_ns})),
            "waiters": domain.waiters.len(),
            "futures": domain.futures,
            "callbacks": domain.pending,
            "oldest_callback_ns": domain.oldest_ns,
        })
    });
    let threads = look.threads.iter().map(|(tid, thread)| {
        json!({
            "tid": tid,
            "name": thread.name,
            "state": thread.state.map(String::from),
            "sleeps_in": thread.sleeps_in,
            "call": thread.call,
            "futex": thread.futex.as_ref().map(|futex| json!({
                "address": format!("{:#x}", futex.address), "kind": futex.kind, "owner": futex.owner,
                "waited_ns": thread.waited_ns,
            })),
        })
    });
    json!({
        "pid": look.pid,
        "program": look.name,
        "read_from": look.source.words(),
        "title": value["title"],
        "accounts": value["accounts"],
        "domains": domains.collect::<Vec<_>>(),
        "threads": threads.collect::<Vec<_>>(),
    })
}

/// A program that lives.
fn of_program(which: &Which, from_memory: bool) -> Result<Look> {
    let found = match (which, from_memory) {
        (Which::Pid(pid), true) => Err((*pid, Failure::new(""))),
        (Which::Pid(pid), false) => discover::find(which).map_err(|failure| (*pid, failure)),
        (Which::Name(_), _) => Ok(discover::find(which)?),
    };
    let (pid, name, asked) = match found {
        Ok(live) => {
            let (pid, name) = (live.pid, live.program.name.clone());
            let asked = if from_memory { Err(None) } else { ask(live) };
            (pid, Some(name), asked)
        }
        Err((pid, failure)) => {
            if process::has_ended(pid) {
                return Err(failure);
            }
            (pid, None, Err((!from_memory).then(|| ("does not answer".to_owned(), failure))))
        }
    };
    let process = Process::open(pid);
    let name = name.unwrap_or_else(|| process.name());
    let (stuck, source, sessions, silent) = match asked {
        Ok((stuck, sessions)) => (stuck, Source::Agent, sessions, None),
        Err(silent) => {
            let stuck = outside(&process, silent.as_ref().map(|(_, failure)| failure))?;
            (stuck, Source::Memory, Vec::new(), silent.map(|(words, _)| words))
        }
    };
    let mut look = Look {
        name,
        pid,
        source,
        stuck: process.in_our_numbers(stuck),
        threads: BTreeMap::new(),
        full: sessions,
        silent,
        besides: Vec::new(),
        wanted: Vec::new(),
    };
    process.look_at_threads(&mut look);
    Ok(look)
}

/// The state of the domains by the process's memory.
fn outside(process: &Process, refused: Option<&Failure>) -> Result<Stuck> {
    if let Some(error) = &process.denied {
        let first = refused.map(|failure| format!("{failure}; and ")).unwrap_or_default();
        return Err(Failure::new(format!(
            "{first}the memory of process {} cannot be read ({error}): try as that user or as root \
             (kernel.yama.ptrace_scope says who may)",
            process.pid
        )));
    }
    mirror::read(process, process.own_pid).map_err(|why| match refused {
        Some(failure) => Failure::new(format!("{failure} (and in its memory: {why})")),
        None => Failure::new(format!("process {}: {why}", process.pid)),
    })
}

type Asked = std::result::Result<(Stuck, Vec<FullSession>), Option<(String, Failure)>>;

/// Asks the agent. `Err` with why it could not be asked.
fn ask(mut live: Live) -> Asked {
    let mut request = |message: &Message| {
        live.link.send(message);
        live.link.receive(Instant::now() + ANSWER_WITHIN)
    };
    let silent = |lost: &Lost| {
        let words = match lost {
            Lost::Silent => "does not answer".to_owned(),
            Lost::Closed => "closed the connection".to_owned(),
            Lost::Garbled(what) => format!("answers what makes no sense ({})", shown(what)),
        };
        Some((words.clone(), Failure::new(format!("the program {words}"))))
    };
    let stuck = match request(&Message::Why) {
        Ok(Message::Stuck(stuck)) => stuck,
        Ok(_) => {
            let failure = Failure::new(
                "the program is older than `why`: its agent does not know the question; build it with a newer \
                 version of the library",
            );
            return Err(Some(("does not know the question".to_owned(), failure)));
        }
        Err(lost) => return Err(silent(&lost)),
    };
    let mut sessions = || match request(&Message::Show) {
        Ok(Message::Sessions(all)) => all.sessions,
        _ => Vec::new(),
    };
    let mut full: Vec<SessionInfo> = sessions().into_iter().filter(is_full).collect();
    if !full.is_empty() {
        std::thread::sleep(SECOND_LOOK);
        let again = sessions();
        full.retain(|one| again.iter().any(|now| now.session == one.session && is_full(now)));
    }
    let full = full.into_iter().map(|session| FullSession {
        session: session.session,
        name: session.name,
        lost: session.lost,
        consumer: session.consumer,
        thread: process::thread_of(session.consumer, session.consumer),
    });
    Ok((stuck, full.collect()))
}

/// Whether somebody should drain it, and it loses events because it is full.
fn is_full(session: &SessionInfo) -> bool {
    let no_room = session.filled_bytes >= session.buffer_bytes && session.buffer_bytes != 0;
    session.mode == DISCARD
        && !session.counts
        && session.consumer != 0
        && no_room
        && session.lost != 0
}

/// A program that has left a core file.
fn of_core(path: &Path) -> Result<Look> {
    let shown_path = shown(&path.display().to_string()).into_owned();
    let core = Core::open(path).map_err(|error| {
        Failure::new(format!("cannot read {shown_path}: {error}; give a core file"))
    })?;
    let stuck = mirror::read(&core, None).map_err(|why| {
        Failure::no(format!(
            "{shown_path} shows nothing: {why} (a core needs private anonymous memory: bit 0 of \
             /proc/PID/coredump_filter)"
        ))
    })?;
    let objects = Objects::new(core.mappings(), |path| PathBuf::from(path));
    let mut threads = BTreeMap::new();
    for (tid, registers) in &core.threads {
        let stack = objects.name(&core, &objects.unwind(&core, *registers));
        threads.insert(*tid, Thread { stack, ..Thread::default() });
    }
    let files = core.mappings().iter().map(|mapping| mapping.path.as_str());
    let name = files
        .into_iter()
        .find(|path| path.starts_with('/'))
        .and_then(|path| path.rsplit('/').next());
    Ok(Look {
        name: name.unwrap_or("a program").to_owned(),
        pid: core.threads.first().map_or(0, |(tid, _)| *tid),
        source: Source::Core,
        stuck,
        threads,
        full: Vec::new(),
        silent: None,
        besides: Vec::new(),
        wanted: vec![
            "since when, and what the kernel says of the threads: `gracepoint why -p` while it lives",
        ],
    })
}
