//! The gracepoint command line: finds traceable programs, lists their events, records them into a
//! trace and shows what is in it. It never links the runtime; what it knows of a traced program is
//! what comes over its socket and lies in its arena, and none of that is trusted.
//!
//! | module | what it does |
//! |---|---|
//! | `args` | the command line as clap's definitions |
//! | `discover` | finds programs and greets them |
//! | `connection` | frames over a socket that never blocks |
//! | `programs` | `ps`, `list` |
//! | `record` | `record`: `session` drives, `copy` moves pages, `launch` runs a command; `recover`, `stream` |
//! | `sessions` | `start`, `stop`, `restart`, `show`, `extract`, `snapshot`, `reset` |
//! | `stat` | `stat` |
//! | `profile`, `perf` | `profile`: the kernel's perf events of a process |
//! | `scenario` | `scenario`: how the kernel's ways fail, and ours on the same schedules |
//! | `explain` | `explain`: kernel logs |
//! | `export`, `draft` | `export`, `view`: traces for other viewers, and a page that is one |
//! | `functions` | `functions`, `graph`, `report --functions` |
//! | `traces` | `report`, `info`, `hist` |
//! | `console`, `escape`, `quantity` | what people read |
//! | `interrupt`, `failure` | how a command ends early |
#![forbid(unsafe_code)]

mod args;
mod connection;
mod console;
mod discover;
mod draft;
mod escape;
mod explain;
mod export;
mod failure;
mod functions;
#[cfg(fuzzing)]
pub mod fuzzing;
mod interrupt;
mod perf;
mod profile;
mod programs;
mod quantity;
mod record;
mod scenario;
mod sessions;
mod stat;
mod traces;
mod why;

use args::{Cli, Command, PerfCommand};
use clap::Parser;
use console::Console;
use failure::{Failure, Result};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line `args`, the program's name first, and returns its exit status.
///
/// Writes to the process's stdout and stderr. `record` catches SIGINT, SIGTERM and SIGHUP while it
/// runs.
///
/// ```
/// use std::process::ExitCode;
///
/// let args = ["gracepoint", "--version"].map(Into::into);
/// assert_eq!(gracepoint_cli::main_with(args), ExitCode::SUCCESS);
/// ```
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if perf::kernel::asks_for_list(&args) {
        return end(perf::kernel::list, &mut Console::standard());
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream they go to.
            let status = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    let mut console = Console::standard();
    console.set_color(cli.color);
    end(|console| run(&cli.command, console), &mut console)
}

/// Runs a command to its end, and says what is to be said of it.
fn end(command: impl FnOnce(&mut Console) -> Result<u8>, console: &mut Console) -> ExitCode {
    let result = command(console);
    let status = match result.and_then(|status| console.flush().map(|()| status)) {
        Ok(status) => status,
        Err(Failure::ClosedPipe) => 0,
        Err(Failure::Said { text, status }) => {
            let _ = console.flush();
            console.note(text);
            status
        }
    };
    ExitCode::from(status)
}

fn run(command: &Command, console: &mut Console) -> Result<u8> {
    match command {
        Command::Ps(args) => programs::ps(args, console),
        Command::List(args) => programs::list(args, console),
        Command::Functions(args) => functions::functions(args, console),
        Command::Graph(args) => functions::graph(args, console),
        Command::Record(args) => record::run(args, console),
        Command::Perf(args) => match &args.command {
            PerfCommand::Stat(args) => perf::stat::run(args, console),
        },
        Command::KernelSide(args) => perf::kernel::take(args),
        Command::Launch(args) => perf::launch::become_command(args),
        Command::Profile(args) => profile::run(args, console),
        Command::Start(args) => sessions::start(args, console),
        Command::Stop(args) => sessions::stop(args, console),
        Command::Restart(args) => sessions::restart(args, console),
        Command::Show(args) => sessions::show::show(args, console),
        Command::Extract(args) => sessions::extract::extract(args, console),
        Command::Snapshot(args) => sessions::extract::snapshot(args, console),
        Command::Reset(args) => sessions::reset(args, console),
        Command::Stat(args) => stat::stat(args, console),
        Command::Stream(args) => record::stream::stream(args, console),
        Command::Recover(args) => record::recover::run(args, console),
        Command::Report(args) => traces::report(args, console),
        Command::Info(args) => traces::info(args, console),
        Command::Export(args) => export::export(args, console),
        Command::Scenario(args) => scenario::run(args, console),
        Command::View(args) => export::view(args, console),
        Command::Explain(args) => explain::explain(args, console),
        Command::Why(args) => why::why(args, console),
        Command::Slow(args) => traces::slow(args, console),
        Command::Hist(args) => traces::hist(args, console),
    }
}
