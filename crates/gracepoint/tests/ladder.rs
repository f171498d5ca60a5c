//! The ways to switch sites, where the system allows them, refuses them, and changes its mind. Each
//! test runs this file again as a program of its own, since policies cannot be taken back.
//!
//! `GRACEPOINT_TOGGLES=1000000 cargo test -p gracepoint --release --test ladder` is the long form.
#![allow(clippy::print_stdout, reason = "what a program prints is what its test looks at")]
#![cfg_attr(not(target_os = "linux"), allow(unused, reason = "nothing is switched elsewhere"))]

use gracepoint::__private::switch_sites;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// Something happened.
#[derive(gracepoint::Event)]
#[event(name = "ladder:event")]
struct Happened {
    n: u64,
}

/// Hits a site; was it on?
#[inline(never)]
fn hit() -> bool {
    let mut on = false;
    gracepoint::trace!(Happened {
        n: {
            on = true;
            1
        }
    });
    on
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, program] = &args[..]
        && flag == "--program"
    {
        PROGRAMS.iter().find(|(name, _)| name == program).expect("a program").1();
        return ExitCode::SUCCESS;
    }
    let trials = TESTS.iter().map(|&(name, test)| Trial::test(name, test)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

#[cfg(target_os = "linux")]
const PROGRAMS: &[(&str, fn())] = &[
    ("toggle", || toggle("toggled")),
    ("memory-deny-write-execute", memory_deny_write_execute),
    ("no-mprotect", no_mprotect),
    ("no-mprotect-later", no_mprotect_later),
    ("no-way", no_way),
    ("no-membarrier", no_membarrier),
    ("no-membarrier-later", no_membarrier_later),
    ("trap-while-blocked", trap_while_blocked),
    ("all-signals-blocked", all_signals_blocked),
    ("fork", forked),
    ("hammer", hammer),
    ("exec", || {
        toggle("before exec");
        let program = std::env::current_exe().unwrap();
        let error = std::os::unix::process::CommandExt::exec(
            Command::new(program).args(["--program", "toggle"]),
        );
        panic!("{error}");
    }),
];

type Test = fn() -> Result<(), Failed>;

#[cfg(target_os = "linux")]
const TESTS: &[(&str, Test)] = &[
    ("each_way_switches", each_way_switches),
    ("an_impossible_way_is_an_error", an_impossible_way_is_an_error),
    ("memory_deny_write_execute_leads_to_mem", || policy("memory-deny-write-execute", "mem")),
    ("seccomp_without_mprotect_leads_to_mem", || policy("no-mprotect", "mem")),
    ("a_policy_that_comes_later_leads_to_mem", || policy("no-mprotect-later", "mem")),
    ("without_any_way_sites_stay_off", || policy("no-way", "refused")),
    ("without_membarrier_sites_stay_off", || policy("no-membarrier", "refused")),
    ("without_membarrier_sites_stay_on", || policy("no-membarrier-later", "stays on")),
    ("a_breakpoint_would_kill_threads_that_block_it", a_breakpoint_would_kill),
    ("threads_that_block_all_signals_live", || each_way("all-signals-blocked", "all live")),
    ("a_child_switches_only_itself", || each_way("fork", "only itself")),
    ("a_program_that_executes_another_leaves_nothing_on", || each_way("exec", "toggled")),
    ("every_later_hit_sees_a_switch", every_later_hit_sees_a_switch),
    ("the_check_of_later_hits_can_fail", the_check_of_later_hits_can_fail),
];

fn is_patched() -> bool {
    gracepoint::patching() != "branch"
}

/// The ways that this build has.
fn ways() -> &'static [&'static str] {
    if is_patched() { &["text", "mem"] } else { &["branch"] }
}

fn run(program: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--program", program]).env_remove("GRACEPOINT_PATCH");
    command.envs(environment.iter().copied()).output().unwrap()
}

#[track_caller]
fn says(output: &Output, words: &str) -> Result<(), Failed> {
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.contains(words) {
        return Ok(());
    }
    Err(format!("no {words:?} in {output:?}").into())
}

fn each_way(program: &str, words: &str) -> Result<(), Failed> {
    ways().iter().try_for_each(|way| says(&run(program, &[("GRACEPOINT_PATCH", way)]), words))
}

/// Runs a program that puts a policy on itself; a site that loads and branches does not mind any.
fn policy(program: &str, words: &str) -> Result<(), Failed> {
    if !is_patched() {
        return Ok(());
    }
    let output = run(program, &[]);
    if output.status.success() && output.stdout.starts_with(b"skipped") {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        return Ok(());
    }
    says(&output, words)
}

/// Switches on and off, and says how.
fn toggle(word: &str) {
    assert!(!hit(), "off at first");
    for _ in 0..3 {
        switch_sites("ladder:*", true).unwrap();
        assert!(hit(), "on");
        switch_sites("ladder:*", false).unwrap();
        assert!(!hit(), "off again");
    }
    println!("{word} by {}", gracepoint::patching());
}

fn each_way_switches() -> Result<(), Failed> {
    for way in ways() {
        says(&run("toggle", &[("GRACEPOINT_PATCH", way)]), &format!("toggled by {way}\n"))?;
    }
    says(&run("toggle", &[]), &format!("toggled by {}\n", ways()[0]))
}

fn an_impossible_way_is_an_error() -> Result<(), Failed> {
    let other = if is_patched() { "branch" } else { "text" };
    for (way, words) in [(other, "build it again"), ("magic", "is no way to switch sites")] {
        let output = run("toggle", &[("GRACEPOINT_PATCH", way)]);
        let text = String::from_utf8_lossy(&output.stderr);
        // A site that branches needs nobody's leave to, so only `init` looks at the variable there.
        if is_patched() && (output.status.success() || !text.contains(words)) {
            return Err(format!("no {words:?} in {output:?}").into());
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod system {
    //! Policies, by system calls.

    use std::mem::offset_of;

    const PR_SET_MDWE: libc::c_int = 65;

    /// No memory is executable any more that was not from its start. False on kernels without.
    pub(super) fn deny_write_execute() -> bool {
        // SAFETY: takes integers and touches no memory.
        unsafe { libc::prctl(PR_SET_MDWE, 1, 0, 0, 0) == 0 }
    }

    fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }

    /// Refuses system call `number`; with `bits`, only where its third argument has all of them.
    pub(super) fn refuse(number: libc::c_long, bits: u32) {
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let third = offset_of!(libc::seccomp_data, args) as u32 + 16;
        let program = [
            instruction(load, 0, 0, offset_of!(libc::seccomp_data, nr) as u32),
            instruction(equal, 0, 3, number as u32),
            instruction(load, 0, 0, third),
            instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits),
            instruction(equal, 1, 0, bits),
            instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
            instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        ];
        let program =
            libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: `program` describes an array of instructions that the kernel copies.
        let set = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(set, 0, "a filter: {}", std::io::Error::last_os_error());
    }

    pub(super) fn refuse_writable_code() {
        refuse(libc::SYS_mprotect, (libc::PROT_EXEC | libc::PROT_WRITE) as u32);
    }
}

fn memory_deny_write_execute() {
    if !system::deny_write_execute() {
        println!("skipped, needs Linux 6.3: PR_SET_MDWE");
        return;
    }
    toggle("toggled");
}

fn no_mprotect() {
    system::refuse_writable_code();
    toggle("toggled");
}

/// The first batch goes through writable text, the next cannot.
fn no_mprotect_later() {
    toggle("at first");
    assert_eq!(gracepoint::patching(), "text");
    switch_sites("ladder:*", true).unwrap();
    system::refuse_writable_code();
    assert!(hit());
    switch_sites("ladder:*", false).unwrap();
    toggle("toggled");
}

fn refused(on: bool, words: &str) {
    let error = switch_sites("ladder:*", on).unwrap_err();
    assert!(error.contains(words), "{error}");
    assert!(error.contains("GRACEPOINT_PATCH=branch"), "what to do: {error}");
}

fn no_way() {
    system::refuse_writable_code();
    system::refuse(libc::SYS_pwrite64, 0);
    refused(true, "/proc/self/mem: Operation not permitted");
    refused(true, "mprotect: Operation not permitted");
    assert!(!hit());
    println!("{}", gracepoint::patching());
}

fn no_membarrier() {
    system::refuse(libc::SYS_membarrier, 0);
    refused(true, "refuses membarrier");
    assert!(!hit());
    println!("{}", gracepoint::patching());
}

/// What is on stays on, and finds no probes when they have been taken off: slower, but right.
fn no_membarrier_later() {
    switch_sites("ladder:*", true).unwrap();
    system::refuse(libc::SYS_membarrier, 0);
    refused(false, "refuses membarrier");
    assert!(hit());
    println!("stays on");
}

/// Lets the thread that switches go first, where there are fewer processors than threads.
fn step_back() {
    // SAFETY: takes integers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

fn block_all_signals() {
    // SAFETY: fills a set of this frame, and blocks it in this thread.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

static TRAPS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_trap(_signal: libc::c_int) {
    TRAPS.fetch_add(1, Relaxed);
}

fn handle_traps() {
    // SAFETY: a handler that only counts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut());
    }
}

/// A function that is a breakpoint and a return.
#[cfg(target_arch = "x86_64")]
fn breakpoint() -> extern "C" fn() {
    let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new page, to which two instructions are written that may be called.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        page.cast::<[u8; 2]>().write([0xcc, 0xc3]); // int3; ret
        std::mem::transmute(page)
    }
}

/// What the kernel's way of patching, a breakpoint, would do to a program.
#[cfg(target_arch = "x86_64")]
fn trap_while_blocked() {
    handle_traps();
    let breakpoint = breakpoint();
    breakpoint();
    println!("{} caught", TRAPS.load(Relaxed));
    block_all_signals();
    breakpoint(); // the end of the program
    println!("lived");
}

#[cfg(not(target_arch = "x86_64"))]
fn trap_while_blocked() {}

fn a_breakpoint_would_kill() -> Result<(), Failed> {
    use std::os::unix::process::ExitStatusExt;
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(());
    }
    let output = run("trap-while-blocked", &[]);
    assert!(output.stdout.starts_with(b"1 caught"), "{output:?}");
    assert_eq!(output.status.signal(), Some(libc::SIGTRAP), "{output:?}");
    Ok(())
}

/// Threads that block all signals hit sites that are being switched; the program's own handler of
/// SIGTRAP is never asked and stays in its place.
fn all_signals_blocked() {
    handle_traps();
    static STOP: AtomicBool = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                step_back();
                block_all_signals();
                while !STOP.load(Relaxed) {
                    hit();
                }
            });
        }
        for _ in 0..500 {
            switch_sites("ladder:*", true).unwrap();
            switch_sites("ladder:*", false).unwrap();
        }
        STOP.store(true, Relaxed);
    });
    assert_eq!(TRAPS.load(Relaxed), 0);
    // SAFETY: raises a signal that is handled.
    unsafe { libc::raise(libc::SIGTRAP) };
    assert_eq!(TRAPS.load(Relaxed), 1, "the program's handler is in its place");
    println!("all live");
}

/// Parent on, child off, and the other way round.
fn forked() {
    for on in [true, false] {
        switch_sites("ladder:*", on).unwrap();
        // SAFETY: the child does what a forked child of this runtime may do.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let inherited = hit() == on;
            let switched = switch_sites("ladder:*", !on).is_ok() && hit() != on;
            // SAFETY: ends the child.
            unsafe { libc::_exit(if inherited && switched { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the child has what it inherited, and changes it");
        assert_eq!(hit(), on, "the parent stays as it was");
    }
    println!("only itself");
}

const HAMMERERS: u64 = 4;

/// Switches that have begun, and that have ended: on where the number is odd.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// What the hammering threads have seen while no switch was under way: hits while on, and off.
static QUIET: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Hits that were not what they should have been: missed while on, taken while off.
static WRONG: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// One hit. If the switch that had ended before it is the last that had begun after it, none was
/// under way meanwhile, and the hit must see what that one made.
///
/// Acquire pairs with the toggler's release: whoever sees a switch ended hits the site after it. A
/// hit that saw a later switch's code came after that had begun, which the second load then sees.
fn watched_hit() {
    let ended = ENDED.load(Acquire);
    let on = hit();
    if BEGUN.load(Acquire) == ended {
        let expected = ended % 2 == 1;
        QUIET[usize::from(expected)].fetch_add(1, Relaxed);
        if on != expected {
            WRONG[usize::from(expected)].fetch_add(1, Relaxed);
        }
    }
}

/// Four threads hit one site while it is switched; see [`watched_hit`]. With `TWIN` in the
/// environment, a switch says that it has ended before it has begun to.
fn hammer() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let toggles: u64 = number("GRACEPOINT_TOGGLES").unwrap_or(2_000);
    let twin = std::env::var_os("TWIN").is_some();
    std::thread::scope(|scope| {
        for _ in 0..HAMMERERS {
            scope.spawn(|| {
                step_back();
                while !STOP.load(Relaxed) {
                    watched_hit();
                }
            });
        }
        for n in 1..=toggles {
            let on = n % 2 == 1;
            BEGUN.store(n, Release);
            if twin {
                ENDED.store(n, Release);
                std::thread::yield_now();
            }
            switch_sites("ladder:*", on).unwrap();
            ENDED.store(n, Release);
            // Now and then, and at the ends: until somebody has looked while nothing moved.
            let quiet = &QUIET[usize::from(on)];
            let before = quiet.load(Relaxed);
            while (n % 100 < 2 || n + 2 > toggles) && quiet.load(Relaxed) == before {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        STOP.store(true, Relaxed);
    });
    let [off, on] = [0, 1].map(|i| QUIET[i].load(Relaxed));
    let [taken, missed] = [0, 1].map(|i| WRONG[i].load(Relaxed));
    println!(
        "{toggles} switches by {}; looked {on} times while on, {off} while off",
        gracepoint::patching()
    );
    println!("missed {missed}, taken {taken}");
}

fn every_later_hit_sees_a_switch() -> Result<(), Failed> {
    for way in ways() {
        let output = run("hammer", &[("GRACEPOINT_PATCH", way)]);
        print!("{}", String::from_utf8_lossy(&output.stdout));
        says(&output, "missed 0, taken 0")?;
    }
    Ok(())
}

fn the_check_of_later_hits_can_fail() -> Result<(), Failed> {
    let output = run("hammer", &[("TWIN", "1"), ("GRACEPOINT_TOGGLES", "2000")]);
    match says(&output, "missed 0, taken 0") {
        Err(_) if output.status.success() => Ok(()),
        _ => Err(format!("a switch that lies is not noticed: {output:?}").into()),
    }
}
