//! The demonstration: a key-value server with tracepoints, traced from another terminal.
//!
//! One program plays three parts, each a process of its own:
//!
//! | started as | part | module |
//! |---|---|---|
//! | `gracepoint-demo` | the user at a terminal, who starts the server and types commands | [`terminal`] |
//! | `gracepoint-demo --serve` | the HTTP server, and the clients that keep it busy | [`server`], [`load`] |
//! | `gracepoint …` | the command line, run by the user | `gracepoint_cli` |
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person")]

mod events;
mod load;
mod server;
mod store;
mod terminal;

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
A key-value server with tracepoints, traced as from another terminal.

Usage: gracepoint-demo [--duration TIME]   play the whole demonstration (a few seconds)
       gracepoint-demo --serve             run the server alone, for you to trace; end it by Ctrl-C

Options:
  --duration TIME   how long to record, such as 2s or 300ms [default: 2s]
  --until-eof       with --serve: end when standard input does
  --help            print this
";

/// What the program was asked to do.
#[derive(Debug, PartialEq)]
enum Task {
    Demonstrate { duration: String },
    Serve { until_eof: bool },
    Help,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|n| n == "gracepoint") {
        return gracepoint_cli::main_with(std::env::args_os());
    }
    let done = parse(args).map_err(Into::into).and_then(run);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gracepoint-demo: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(task: Task) -> Result<(), Box<dyn Error>> {
    match task {
        Task::Demonstrate { duration } => terminal::play(&duration),
        Task::Serve { until_eof } => server::run(until_eof),
        Task::Help => {
            print!("{HELP}");
            Ok(())
        }
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Task, String> {
    let (mut serve, mut until_eof, mut duration) = (false, false, None);
    let mut args = args.map(|a| a.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--serve" => serve = true,
            "--until-eof" => until_eof = true,
            "--duration" => {
                duration = Some(args.next().ok_or("--duration needs a time, as in 2s")?)
            }
            "--help" | "-h" => return Ok(Task::Help),
            other => return Err(format!("no option is called {other}; see --help")),
        }
    }
    match (serve, duration) {
        (true, None) => Ok(Task::Serve { until_eof }),
        (false, duration) if !until_eof => {
            Ok(Task::Demonstrate { duration: duration.unwrap_or_else(|| "2s".to_owned()) })
        }
        _ => Err("--until-eof goes with --serve, --duration without it; see --help".to_owned()),
    }
}

#[test]
fn options_are_understood() {
    let parse = |args: &[&str]| parse(args.iter().map(OsString::from));
    assert_eq!(parse(&[]), Ok(Task::Demonstrate { duration: "2s".to_owned() }));
    assert_eq!(parse(&["--serve", "--until-eof"]), Ok(Task::Serve { until_eof: true }));
    assert_eq!(parse(&["--help"]), Ok(Task::Help));
    for wrong in [&["--until-eof"][..], &["--duration"], &["--serve", "--duration", "1s"], &["x"]] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}
