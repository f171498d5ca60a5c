//! Benchmarks: what tracepoints and grace periods cost, each number beside its floor and its peers.
//!
//! ```text
//! cargo run --release -p gracepoint-bench -- SUITE [--json] [--rounds N]
//! ```
//!
//! | suite | question | module |
//! |---|---|---|
//! | `site` | what does a tracepoint cost that is off? | [`site`] |
//! | `record` | what does an event cost that is recorded? | [`record`] |
//! | `reader` | what does a read section cost? | [`reader`] |
//! | `grace-period` | how soon is what was removed freed, and at what price? | [`grace_period`] |
//! | `toggle` | how long does it take to switch thousands of tracepoints? | [`toggle`] |
//! | `perf` | how long does it take to open and close perf events? what does a profile cost? | [`perf`] |
//! | `function` | what does a traced function cost? | [`function`] |
//! | `read` | how fast is a trace read? | [`read`] |
//! | `bridge` | what do call sites of `tracing` cost that lead to us? and an export? | [`bridge`] |
//! | `drain` | does a recorder keep up? (`--seconds N` instead of rounds) | [`drain`] |
//!
//! `explain DIR` is no benchmark of time alone: it compares explanations of kernel logs with
//! expert readings ([`explain`]).
//!
//! One thread, pinned to one CPU; all rows are measured in turn, in short chunks, many times over
//! ([`measure`]), so that a slow second of the machine hits every row alike. (`grace-period` has
//! threads, and distributions in place of minimum and median.)
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its results")]

mod bridge;
mod drain;
mod explain;
mod function;
mod grace_period;
mod lttng;
mod measure;
mod perf;
mod read;
mod reader;
mod record;
mod recorder;
mod sections;
mod site;
mod table;
mod toggle;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use crate::table::Outcome;

const USAGE: &str =
    "usage: gracepoint-bench site|record|bridge|reader|grace-period|toggle|function|perf|read [--json] [--rounds N]
       gracepoint-bench drain [--json] [--seconds N]
       gracepoint-bench explain DIR [--json]";

/// The event that is measured: two numbers and a string of 16 bytes.
#[derive(gracepoint::Event)]
#[event(name = "bench:sample")]
pub(crate) struct Sample<'a> {
    /// The iteration.
    pub(crate) number: u64,
    /// Another number.
    pub(crate) size: u64,
    /// 16 bytes.
    pub(crate) name: &'a str,
}

/// The string of the measured event.
pub(crate) const NAME: &str = "sixteen bytes ok";

#[derive(Default)]
struct Task {
    suite: String,
    dir: Option<String>,
    json: bool,
    rounds: Option<usize>,
    seconds: Option<u64>,
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|n| n == "gracepoint") {
        return gracepoint_cli::main_with(std::env::args_os());
    }
    if std::env::args().nth(1).is_some_and(|word| word == "burn") {
        perf::burning(&std::env::args().skip(2).collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    if std::env::args().nth(1).is_some_and(|word| word == "export-part") {
        return status(bridge::export::part(std::env::args_os().skip(2)));
    }
    let done = parse(std::env::args().skip(1)).map_err(Into::into).and_then(|task| run(&task));
    status(done)
}

fn status(done: Result<(), Box<dyn Error>>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gracepoint-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut task = Task::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => task.json = true,
            "--rounds" => {
                let number = args.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                task.rounds = Some(number.ok_or("--rounds needs a number, from 1")?);
            }
            "--seconds" => {
                let number = args.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                task.seconds = Some(number.ok_or("--seconds needs a number, from 1")?);
            }
            suite if task.suite.is_empty() && !suite.starts_with('-') => {
                suite.clone_into(&mut task.suite)
            }
            dir if ["explain", "bridge-part"].contains(&task.suite.as_str())
                && task.dir.is_none()
                && !dir.starts_with('-') =>
            {
                task.dir = Some(dir.to_owned());
            }
            other => return Err(format!("{other}? {USAGE}")),
        }
    }
    Ok(task)
}

fn run(task: &Task) -> Result<(), Box<dyn Error>> {
    if task.suite == "explain" {
        let dir = task.dir.as_deref().ok_or(USAGE)?;
        return explain::run(Path::new(dir), task.json);
    }
    if task.suite == "bridge-part" {
        return bridge::part(task.dir.as_deref().ok_or(USAGE)?, task.rounds);
    }
    if task.suite == "toggle" {
        return toggle::run(task.rounds, task.json);
    }
    if task.suite == "perf" {
        return perf::run(task.rounds, task.json);
    }
    if task.suite == "drain" {
        return drain::run(task.seconds, task.json);
    }
    let outcome: Outcome = match task.suite.as_str() {
        "site" => site::run(task.rounds)?,
        "record" => record::run(task.rounds)?,
        "bridge" => bridge::run(task.rounds)?,
        "reader" => reader::run(task.rounds)?,
        "grace-period" => return grace_period::run(task.rounds, task.json),
        "function" => function::run(task.rounds)?,
        "read" => read::run(task.rounds)?,
        _ => return Err(USAGE.into()),
    };
    print!("{}", if task.json { table::json(&outcome) } else { table::text(&outcome) });
    Ok(())
}
