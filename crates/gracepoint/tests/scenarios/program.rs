//! Running this file as a program, and waiting for things.

use crate::{places, recorder, system_calls, teardown_stall};
use libtest_mimic::Failed;
use std::panic::Location;
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

pub(crate) type Test = fn() -> Result<(), Failed>;

/// As long as nothing happens that should: ten times what the slowest machine needs.
const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) fn begin(name: &str) {
    let programs: [(&str, fn()); 16] = [
        ("teardown-stall", teardown_stall::program),
        ("exit", teardown_stall::program_exit),
        ("system-calls", system_calls::program),
        ("batches", system_calls::batches),
        ("recorded", recorder::program),
        ("recorder", recorder::program_recorder),
        ("main", places::program_main),
        ("earliest", places::program_earliest),
        ("fork-exit", places::program_fork_exit),
        ("thread-locals", places::program_thread_locals),
        ("signals", places::program_signals),
        ("fork", places::program_fork),
        ("allocator", places::program_allocator),
        ("exit-in-probe", places::program_exit_in_probe),
        ("exit-in-callback", places::program_exit_in_callback),
        ("fork-while-attaching", places::program_fork_while_attaching),
    ];
    let found = programs.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no program {name:?}")).1();
}

/// Ten times as long as usual?
pub(crate) fn is_full() -> bool {
    std::env::var_os("GRACEPOINT_SCENARIOS").is_some_and(|value| value == "full")
}

pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--program", program]).env_remove("GRACEPOINT_RECORDER");
    command
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn run(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// Runs a program that must say so.
pub(crate) fn says(program: &str, words: &str) -> Result<(), Failed> {
    let text = String::from_utf8_lossy(&run(command(program)).stdout).into_owned();
    if text.contains(words) { Ok(()) } else { Err(format!("no {words:?} in {text:?}").into()) }
}

/// Waits for what other threads are about to do.
#[track_caller]
pub(crate) fn until(mut what: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < PATIENCE, "{} waits in vain", Location::caller());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A closed gate, at which probes stand until it is opened.
pub(crate) struct Gate {
    state: Mutex<(u32, bool)>,
    changed: Condvar,
}

impl Gate {
    pub(crate) const fn new() -> Gate {
        Gate { state: Mutex::new((0, false)), changed: Condvar::new() }
    }

    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        drop(self.changed.wait_while(state, |state| !state.1).unwrap());
    }

    pub(crate) fn standing(&self) -> u32 {
        self.state.lock().unwrap().0
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}
