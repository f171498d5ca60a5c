//! `gracepoint perf stat`: counts of a process, by the kernel's perf events and by its own tracepoints.

use super::launch;
use super::own::{Awaited, Counted};
use super::rings::is_permission;
use super::tracefs;
use crate::args::PerfStatArgs;
use crate::connection::{Connection, wait_for};
use crate::console::Console;
use crate::discover::{self, Which};
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, Signal};
use crate::quantity;
use crate::record::session::{ask, is_ready, process};
use gracepoint_wire::control::Message;
use perf_event::events::{Software, Tracepoint};
use perf_event::{Builder, Counter};
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use serde_json::json;
use std::fs;
use std::io;
use std::process::Child;
use std::time::{Duration, Instant};

/// Longest wait before the process's end is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Where a count comes from.
enum Source {
    /// A counter for each thread that was there; those that it made are in it, unless each is told apart.
    Kernel(Vec<(u32, Counter)>),
    /// The program's tracepoint.
    Program(Counted),
    /// The program's, which has not come yet.
    Awaited,
    /// It cannot be counted, and why.
    Not(String),
}

/// Something that is counted.
struct Event {
    name: String,
    source: Source,
    /// What was counted by the last look, for each thread or once.
    before: Vec<u64>,
}

struct Stat {
    pid: u32,
    events: Vec<Event>,
    link: Option<Connection>,
    awaited: Option<Awaited>,
    began: Instant,
    shown: Instant,
}

/// Runs the command; returns its exit status.
pub(crate) fn run(args: &PerfStatArgs, console: &mut Console) -> Result<u8> {
    let mut interrupts = Interrupts::catch(args.command.is_empty())?;
    if args.command.is_empty() {
        let pid = args.pid.unwrap_or_default();
        let mut stat = Stat::begin(pid, args, false)?;
        stat.warn(args, console);
        console.note(format_args!("counting what process {pid} does; Ctrl-C ends it"));
        stat.watch(args, &mut interrupts, None, console)?;
        return Ok(0);
    }
    // It waits for somebody in `init` if it is told that there is one.
    let awaited = args.events.iter().any(|name| is_unknown(name)).then(Awaited::new);
    let waiting = launch::spawn(&args.command, awaited.as_ref().map(|it| it.token.as_str()))?;
    let mut stat = match Stat::begin(waiting.pid(), args, true) {
        Ok(stat) => stat,
        Err(failure) => {
            waiting.cancel();
            return Err(failure.with_status(125));
        }
    };
    stat.warn(args, console);
    stat.awaited = awaited;
    let mut child = waiting.go();
    stat.began = Instant::now();
    stat.watch(args, &mut interrupts, Some(&mut child), console)?;
    let status =
        child.wait().map_err(|e| Failure::new(format!("cannot wait for the command: {e}")))?;
    Ok(crate::record::launch::status(status))
}

fn software(name: &str) -> Option<Software> {
    Some(match name {
        "task-clock" => Software::TASK_CLOCK,
        "cpu-clock" => Software::CPU_CLOCK,
        "page-faults" | "faults" => Software::PAGE_FAULTS,
        "minor-faults" => Software::PAGE_FAULTS_MIN,
        "major-faults" => Software::PAGE_FAULTS_MAJ,
        "context-switches" | "cs" => Software::CONTEXT_SWITCHES,
        "cpu-migrations" | "migrations" => Software::CPU_MIGRATIONS,
        _ => return None,
    })
}

/// Whether neither the system nor the kernel has such an event: a program may.
fn is_unknown(name: &str) -> bool {
    software(name).is_none() && tracefs::number(name).is_err()
}

/// Whether it can be counted for what the process does outside of the kernel.
fn has_user_part(name: &str) -> bool {
    name.ends_with("-clock") || name.ends_with("faults")
}

impl Stat {
    fn begin(pid: u32, args: &PerfStatArgs, on_exec: bool) -> Result<Stat> {
        let now = Instant::now();
        let mut stat =
            Stat { pid, events: Vec::new(), link: None, awaited: None, began: now, shown: now };
        if !fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
            return Err(Failure::new(format!("there is no process {pid} (any more)")));
        }
        for name in &args.events {
            let mut label = name.clone();
            let source = match software(name) {
                Some(software) => {
                    let open = |kernel: bool| {
                        let build = || {
                            let mut builder = Builder::new(software);
                            builder.exclude_kernel(!kernel);
                            builder
                        };
                        counters(pid, build, !args.per_thread, on_exec)
                    };
                    match open(true) {
                        // Switches happen in the kernel alone: without it they would be none.
                        Source::Not(_) if has_user_part(name) => {
                            label += ":u";
                            open(false)
                        }
                        source => source,
                    }
                }
                None => stat.tracepoint(name, args, on_exec)?,
            };
            let threads = match &source {
                Source::Kernel(counters) if args.per_thread => counters.len(),
                _ => 1,
            };
            stat.events.push(Event { name: label, source, before: vec![0; threads] });
        }
        Ok(stat)
    }

    /// A tracepoint of the program, else of the kernel.
    fn tracepoint(&mut self, name: &str, args: &PerfStatArgs, on_exec: bool) -> Result<Source> {
        if args.command.is_empty()
            && let Some(source) = self.of_program(name)?
        {
            return Ok(source);
        }
        match tracefs::number(name) {
            Ok(number) => {
                let build = || {
                    let mut builder = Builder::new(Tracepoint::with_id(number));
                    builder.exclude_kernel(false);
                    builder
                };
                Ok(counters(self.pid, build, !args.per_thread, on_exec))
            }
            Err(_) if !args.command.is_empty() => Ok(Source::Awaited),
            Err(why) if name.contains(':') => Ok(Source::Not(why)),
            Err(_) => Err(Failure::new(format!(
                "`{}` is no event: there are task-clock, cpu-clock, page-faults, minor-faults, major-faults, \
                 context-switches, cpu-migrations, tracepoints of the program (`gracepoint list -p PID`) and \
                 of the kernel",
                shown(name)
            ))),
        }
    }

    fn of_program(&mut self, name: &str) -> Result<Option<Source>> {
        if self.link.is_none() {
            // A process without an agent has no tracepoints of ours.
            self.link = discover::find(&Which::Pid(self.pid)).ok().map(|live| live.link);
        }
        let Some(link) = &mut self.link else { return Ok(None) };
        let counted = Counted::begin(link, &[name])?.pop();
        Ok(counted.and_then(std::result::Result::ok).map(Source::Program))
    }

    /// Whether the program has come that was waited for: then it is counted, and goes on.
    fn look(&mut self, console: &mut Console) -> Result<()> {
        let Some(awaited) = &mut self.awaited else { return Ok(()) };
        let Some(mut link) = awaited.look(console) else { return Ok(()) };
        let is_awaited = |event: &&mut Event| matches!(event.source, Source::Awaited);
        let awaited: Vec<&mut Event> = self.events.iter_mut().filter(is_awaited).collect();
        let names: Vec<&str> = awaited.iter().map(|event| event.name.as_str()).collect();
        let begun = Counted::begin(&mut link, &names)?;
        for (event, counted) in awaited.into_iter().zip(begun) {
            event.source = match counted {
                Ok(counted) => Source::Program(counted),
                Err(why) => {
                    not_counted(&event.name, &why, console);
                    Source::Not(why)
                }
            };
        }
        // Where nothing is counted it waits still; else it may be at its end already.
        let _ = ask(&mut link, &Message::Proceed);
        self.link = Some(link);
        Ok(())
    }

    /// What is not counted, a line each.
    fn warn(&self, args: &PerfStatArgs, console: &mut Console) {
        for event in &self.events {
            match &event.source {
                Source::Not(why) => not_counted(&event.name, why, console),
                Source::Program(_) | Source::Awaited if args.per_thread => {
                    console.note(format_args!(
                        "{} is counted for all threads together: --per-thread tells apart what the system and the \
                         kernel count",
                        shown(&event.name)
                    ));
                }
                _ => {}
            }
        }
    }

    fn watch(
        &mut self,
        args: &PerfStatArgs,
        interrupts: &mut Interrupts,
        mut child: Option<&mut Child>,
        console: &mut Console,
    ) -> Result<()> {
        let process = process(self.pid);
        let mut next = args.interval.map(|interval| self.began + interval);
        loop {
            let signal = interrupts.take();
            self.look(console)?;
            let ended = match &mut child {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => process.as_ref().is_none_or(is_ready),
            };
            let told = match child.is_some() {
                true => signal == Some(Signal::Terminate), // Ctrl-C is the command's
                false => signal.is_some(),
            };
            let over =
                ended || told || args.duration.is_some_and(|most| self.began.elapsed() >= most);
            if over || next.is_some_and(|at| Instant::now() >= at) {
                self.show(args, console)?;
                console.flush()?;
                next = args.interval.map(|interval| Instant::now() + interval);
            }
            if over {
                for event in self.events.iter().filter(|e| matches!(e.source, Source::Awaited)) {
                    let why = "no such event is the system's or the kernel's, and no traceable program came of the \
                               command (one that calls gracepoint::init)";
                    not_counted(&event.name, why, console);
                }
                if let (Some(child), false) = (child, ended) {
                    let _ = rustix::process::kill_process(
                        rustix::process::Pid::from_child(child),
                        rustix::process::Signal::TERM,
                    );
                }
                return Ok(());
            }
            let mut fds = interrupts.interest().to_vec();
            fds.extend(process.iter().map(|fd| (fd.as_fd(), PollFlags::IN)));
            let wait =
                next.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
            let wait = self.awaited.as_ref().map_or(wait, |awaited| awaited.pause(wait));
            wait_for(&fds, wait);
        }
    }

    fn show(&mut self, args: &PerfStatArgs, console: &mut Console) -> Result<()> {
        let seconds = match args.interval {
            Some(_) => self.shown.elapsed(),
            None => self.began.elapsed(),
        };
        self.shown = Instant::now();
        let mut rows = Vec::new();
        for event in &mut self.events {
            let counts = counts(event, args.per_thread);
            for (at, (tid, count)) in counts.into_iter().enumerate() {
                let value = count.map(|count| match args.interval {
                    Some(_) => {
                        count.saturating_sub(std::mem::replace(&mut event.before[at], count))
                    }
                    None => count,
                });
                rows.push((tid, event.name.clone(), value));
            }
        }
        // By thread first, where threads are told apart.
        rows.sort_by_key(|(tid, ..)| *tid);
        let clock = |tid| {
            let is = |row: &&(Option<u32>, String, Option<u64>)| row.0 == tid && is_clock(&row.1);
            rows.iter().find(is).and_then(|row| row.2).filter(|&ns| ns > 0)
        };
        for (tid, name, value) in &rows {
            if args.json {
                console.line(json!({
                    "pid": self.pid,
                    "tid": tid,
                    "event": name,
                    "value": value,
                    "seconds": seconds.as_secs_f64(),
                }))?;
                continue;
            }
            let of = tid.map_or_else(String::new, |tid| thread_label(self.pid, tid));
            console.line(format_args!("{of}{}", line(name, *value, clock(*tid), seconds)))?;
        }
        if !args.json {
            console.line(format_args!("\n{:>18} elapsed\n", quantity::length(seconds)))?;
        }
        Ok(())
    }
}

fn not_counted(name: &str, why: &str, console: &mut Console) {
    console.note(format_args!("{} is not counted: {}", shown(name), shown(why)));
}

fn thread_label(pid: u32, tid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
    format!("{:>24}  ", format!("{}/{tid}", shown(name.trim_end())))
}

fn is_clock(name: &str) -> bool {
    ["task-clock", "cpu-clock"].contains(&name.trim_end_matches(":u"))
}

/// A count, and what it is of each second or of the CPU time.
fn line(name: &str, value: Option<u64>, clock_ns: Option<u64>, time: Duration) -> String {
    let Some(value) = value else {
        return format!("{:>18}  {}", "not counted", shown(name));
    };
    let seconds = time.as_secs_f64().max(1e-9);
    if is_clock(name) {
        let ms = format!("{:.2} ms", value as f64 / 1e6);
        return format!("{ms:>18}  {name:<24}  {:.3} CPUs", value as f64 / 1e9 / seconds);
    }
    let rate = match clock_ns {
        Some(ns) => format!("{:.1}/s of CPU time", value as f64 * 1e9 / ns as f64),
        None => format!("{:.1}/s", value as f64 / seconds),
    };
    format!("{:>18}  {:<24}  {rate}", quantity::count(value), shown(name))
}

/// What an event has come to, of each thread where they are told apart.
fn counts(event: &mut Event, per_thread: bool) -> Vec<(Option<u32>, Option<u64>)> {
    match &mut event.source {
        Source::Not(_) | Source::Awaited => vec![(None, None)],
        Source::Program(counted) => vec![(None, counted.read())],
        Source::Kernel(counters) if per_thread => {
            counters.iter_mut().map(|(tid, counter)| (Some(*tid), counter.read().ok())).collect()
        }
        Source::Kernel(counters) => {
            let sum = counters.iter_mut().map(|(_, counter)| counter.read().unwrap_or(0)).sum();
            vec![(None, Some(sum))]
        }
    }
}

fn counters(
    pid: u32,
    build: impl Fn() -> Builder<'static>,
    inherit: bool,
    on_exec: bool,
) -> Source {
    let open = |tid: u32| -> io::Result<Counter> {
        let mut builder = build();
        builder.observe_pid(tid.cast_signed()).inherit(inherit);
        if on_exec {
            builder.enable_on_exec(true);
        } else {
            builder.enabled(true);
        }
        builder.build()
    };
    let tid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut counters = Vec::new();
    for tid in threads.filter_map(tid) {
        match open(tid) {
            Ok(counter) => counters.push((tid, counter)),
            Err(e) if e.raw_os_error() == Some(3) => {} // it has ended meanwhile
            Err(e) if is_permission(&e) => {
                return Source::Not(
                    "it takes the program's own user and CAP_PERFMON, or sysctl \
                     kernel.perf_event_paranoid=1 (for the kernel's tracepoints -1)"
                        .into(),
                );
            }
            Err(e) => return Source::Not(e.to_string()),
        }
    }
    counters.sort_by_key(|(tid, _)| *tid);
    Source::Kernel(counters)
}
