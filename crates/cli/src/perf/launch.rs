//! Starts a command that is watched from its first instruction: this very program again, which stops itself,
//! and becomes the command when it is told to go on. What is opened on it meanwhile is there when the
//! command begins.

use crate::args::LaunchArgs;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::record::launch::TOKEN;
use crate::record::session::arguments;
use rustix::process::{Pid, Signal, getpid, kill_process};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long it may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// What stands before the command.
const WORDS: [&str; 2] = ["launch", "--"];

/// Whether process `pid` has not become its command yet.
pub(crate) fn is_waiting(pid: u32) -> bool {
    arguments(pid).iter().map(String::as_str).take(WORDS.len()).eq(WORDS)
}

/// A command that waits to begin.
pub(crate) struct Waiting {
    child: Child,
}

/// Starts it, up to where it waits. With a token a traceable program that comes of it waits in `init` for whoever has
/// the same.
///
/// # Errors
/// When it cannot be started; that there is no such command shows when it goes on.
pub(crate) fn spawn(command: &[OsString], token: Option<&str>) -> Result<Waiting> {
    let failed = |what: String| Failure::new(format!("cannot start the command: {what}"));
    let exe = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let mut launcher = Command::new(exe);
    launcher.arg0("gracepoint").args(WORDS).args(command);
    launcher.envs(token.map(|token| (TOKEN, token)));
    let mut waiting = Waiting { child: launcher.spawn().map_err(|e| failed(e.to_string()))? };
    let deadline = Instant::now() + STOPS_WITHIN;
    while !is_stopped(waiting.pid()) {
        if waiting.child.try_wait().is_ok_and(|status| status.is_some())
            || Instant::now() > deadline
        {
            return Err(failed("it did not come to its begin".into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(waiting)
}

fn is_stopped(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

impl Waiting {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin.
    pub(crate) fn go(self) -> Child {
        let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
        self.child
    }

    /// It shall not be.
    pub(crate) fn cancel(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The launcher itself: stops, and becomes the command.
///
/// # Errors
/// When it cannot, with the exit status that shells have for it.
pub(crate) fn become_command(args: &LaunchArgs) -> Result<u8> {
    let Some((program, rest)) = args.command.split_first() else { return Ok(0) };
    let _ = kill_process(getpid(), Signal::STOP);
    let error = Command::new(program).args(rest).exec();
    let name = shown(&program.to_string_lossy()).into_owned();
    Err(match error.kind() {
        ErrorKind::NotFound => Failure::new(format!("{name}: command not found")).with_status(127),
        _ => Failure::new(format!("{name}: cannot be executed: {error}")).with_status(126),
    })
}
