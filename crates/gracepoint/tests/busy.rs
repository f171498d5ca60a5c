//! A program that does all that a profiler has to live with, while its events and its samples are recorded: 24
//! threads with deep recursion, threads that come and go, signals with handlers of its own to all of them, `fork` and
//! `exec`, objects that are loaded and unloaded. It ends well, and the trace is whole.
//!
//! `GRACEPOINT_BUSY` says for how many seconds; else each thread does a few rounds. The program is this very binary
//! (`--program`), and so is the recorder (`--cli`).

#![allow(clippy::print_stdout, reason = "what programs and checks say")]

#[path = "busy/small.rs"]
mod small;

use gracepoint_analysis::Trace;
use libtest_mimic::{Arguments, Trial};
use std::ffi::CStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

const THREADS: u64 = 24;
/// Rounds of each, where no time is given.
const ROUNDS: u64 = 20;
/// Calls of a recursion.
const DEEP: u64 = 5_000;
/// What ending may take longer: only a hang does.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--program") => {
            program();
            ExitCode::SUCCESS
        }
        Some("--small-stacks") => {
            small::program();
            ExitCode::SUCCESS
        }
        Some("--cli") => {
            let args = std::iter::once("gracepoint".into()).chain(std::env::args_os().skip(2));
            gracepoint_cli::main_with(args)
        }
        _ => {
            let trial_of = |name: &str, program: &'static str, more: &'static [&'static str]| {
                Trial::test(name, move || {
                    check(program, more);
                    Ok(())
                })
            };
            let trial = |name: &str, more| trial_of(name, "--program", more);
            let trials = vec![
                trial("a_busy_program_is_recorded_and_profiled", &[]),
                trial("a_busy_program_is_recorded_and_profiles_itself", &["--in-program"]),
                trial(
                    "a_busy_program_is_recorded_and_copies_its_stacks",
                    &["--in-program", "--stack-copy", "4K"],
                ),
                trial_of(
                    "a_sample_fits_on_the_smallest_signal_stack",
                    "--small-stacks",
                    &["--in-program"],
                ),
                trial_of(
                    "a_copied_stack_fits_on_the_smallest_signal_stack",
                    "--small-stacks",
                    &["--in-program", "--stack-copy", "4K"],
                ),
            ];
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

/// So many seconds, if they are given.
fn seconds() -> Option<u64> {
    std::env::var("GRACEPOINT_BUSY").ok().and_then(|text| text.parse().ok())
}

// ---- The program. ----

/// A round begins.
#[derive(gracepoint::Event)]
#[event(name = "busy:round")]
struct Round {
    worker: u64,
    round: u64,
}

static HANDLED: AtomicU64 = AtomicU64::new(0);
static FORKED: AtomicU64 = AtomicU64::new(0);
static LOADED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(signal: libc::c_int) {
    HANDLED.fetch_add(1, Relaxed);
    gracepoint::trace!(Round { worker: signal.unsigned_abs().into(), round: u64::MAX });
}

fn catch(signal: libc::c_int) {
    // SAFETY: all-zero is a valid sigaction; the handler counts and hits a tracepoint, which a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
        // Not on the signal stack, as most programs: three at once do not fit on that of the standard library.
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

fn deep(n: u64) -> u64 {
    let here = std::hint::black_box([n; 16]);
    if n == 0 { here[0] } else { deep(n - 1) + here[15] }
}

/// Forks, and waits for the child, which hits a tracepoint and recurses.
fn fork() {
    // SAFETY: the child does what a child of a program with threads may: no allocation, no lock.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        gracepoint::trace!(Round { worker: 0, round: 0 });
        std::hint::black_box(deep(500));
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    loop {
        // SAFETY: waits for our own child.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited == child {
            break;
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
    }
    assert_eq!(status, 0, "the child ends well");
    FORKED.fetch_add(1, Relaxed);
}

/// Loads an object of the C library's that nobody needs, and unloads it.
fn load() {
    const OBJECTS: [&CStr; 4] = [c"libanl.so.1", c"libutil.so.1", c"librt.so.1", c"libm.so.6"];
    for object in OBJECTS {
        // SAFETY: objects of the C library have nothing in their constructors that others must be ready for.
        unsafe {
            let handle = libc::dlopen(object.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            if !handle.is_null() {
                LOADED.fetch_add(1, Relaxed);
                libc::dlclose(handle);
            }
        }
    }
}

fn say(word: &str) {
    println!("{word}");
    std::io::stdout().flush().unwrap();
}

fn wait() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn work(worker: u64, until: Option<Instant>) {
    let goes_on = |round: u64| until.map_or(round < ROUNDS, |at| Instant::now() < at);
    for round in (0..).take_while(|&round| goes_on(round)) {
        let _span = gracepoint::span!(Round { worker, round });
        std::hint::black_box(deep(DEEP));
        std::thread::scope(|inner| {
            inner.spawn(|| gracepoint::trace!(Round { worker, round }));
        });
        match worker {
            0 if round.is_multiple_of(5) => {
                assert!(Command::new("true").status().unwrap().success());
            }
            1 => load(),
            2 if round.is_multiple_of(4) => fork(),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn program() {
    const SIGNALS: [libc::c_int; 3] = [libc::SIGUSR1, libc::SIGPROF, libc::SIGALRM];
    SIGNALS.into_iter().for_each(catch);
    gracepoint::Builder::new().name("busy").start().unwrap();
    say("ready");
    wait();
    let until = seconds().map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            for signal in SIGNALS.into_iter().cycle().take_while(|_| !over.load(Relaxed)) {
                // SAFETY: a signal with a handler, to ourselves.
                unsafe { libc::kill(libc::getpid(), signal) };
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let workers: Vec<_> =
            (0..THREADS).map(|worker| scope.spawn(move || work(worker, until))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        over.store(true, Relaxed);
        storm.join().unwrap();
    });
    for (what, count) in [("signals", &HANDLED), ("forks", &FORKED), ("objects", &LOADED)] {
        assert!(count.load(Relaxed) > 0, "no {what}");
    }
    say("done");
    wait();
}

// ---- The check. ----

fn itself(args: &[&str], dir: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(args).env("GRACEPOINT_DIR", dir.join("sockets"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a line that begins so, and hands on those after it, so that nobody waits for us.
fn find(
    from: impl Read + Send + 'static,
    begin: &'static str,
    most: Duration,
) -> Result<(), String> {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut other = Vec::new();
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let found = line.starts_with(begin);
            other.push(line);
            if found {
                let _ = send.send(None);
            }
        }
        let _ = send.send(Some(other));
    });
    match receive.recv_timeout(most) {
        Ok(None) => Ok(()),
        Ok(Some(other)) => Err(format!("no line {begin:?}, but {other:#?}")),
        Err(_) => Err(format!("no line {begin:?} in {most:?}")),
    }
}

fn end(mut child: Child, what: &str, most: Duration) {
    drop(child.stdin.take());
    let deadline = Instant::now() + most;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the {what}: {status}");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    panic!("the {what} does not end");
}

fn check(program: &str, more: &[&str]) {
    let name = format!("gracepoint-busy-{}{program}-{}", std::process::id(), more.len());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(dir.join("sockets")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(dir.join("sockets"), mode).unwrap();
    let mut program = itself(&[program], &dir);
    let mut program = program.stderr(Stdio::inherit()).spawn().unwrap();
    let (said, mut told) = (program.stdout.take().unwrap(), program.stdin.take().unwrap());
    let mut said = BufReader::new(said);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    let (pid, trace) = (program.id().to_string(), dir.join("t.trace"));
    let mut recorder = itself(&["--cli", "record", "-p", &pid, "--profile", "-o"], &dir);
    // A long run would fill the disk.
    let hz = if seconds().is_some() { "199" } else { "999" };
    recorder.arg(&trace).args(["--freq", hz]).args(more);
    let mut recorder = recorder.spawn().unwrap();
    // Where the kernel takes no samples the program does: that is told before.
    find(recorder.stderr.take().unwrap(), "gracepoint: recording ", PATIENCE).unwrap();
    writeln!(told, "go").unwrap();
    let most = PATIENCE + Duration::from_secs(seconds().unwrap_or(0));
    if let Err(why) = find(said, "done", most) {
        panic!("{why}; the program: {:?}", program.try_wait());
    }
    drop(told);
    end(program, "program", most);
    end(recorder, "recorder", most); // it counts what it has written: of a long run, much

    let trace = Trace::open(&trace).unwrap();
    let profile = gracepoint_analysis::profile::profile(&trace, &Default::default()).unwrap();
    assert!(profile.samples > 0 && profile.damage.is_empty(), "{:?}", profile.damage);
    let is_deep = |function: &gracepoint_analysis::profile::Function| {
        function.name.ends_with("busy::deep") && function.total_ns > 0
    };
    assert!(profile.functions.iter().any(is_deep), "{:?}", profile.functions);
    println!("{} samples, {} lost", profile.samples, profile.lost);
    std::fs::remove_dir_all(dir).unwrap();
}
