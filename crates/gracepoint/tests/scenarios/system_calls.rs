//! A trace of the system calls that `detach` makes while a reader sleeps in a probe: none of them waits.
//!
//! The program runs under `ptrace`, its main thread alone. Two marks in its calls say where the cycles
//! begin and end. The twin waits for the last call, with a bound, and must be caught.

use crate::program::command;
use crate::teardown_stall::{Other, Same, sleeper};
use gracepoint::{Probe, Tracer};
use libtest_mimic::Failed;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

/// `getpgid` of these, which nobody else asks for.
const MARKS: [u64; 2] = [0x0ace_0001, 0x0ace_0002];
const CYCLES: u64 = 200;
/// Sites that one batch switches, in one region.
const SITES: usize = 64;
const BATCHES: u64 = 10;

/// One of many sites.
#[derive(gracepoint::Event)]
#[event(name = "batch:event")]
struct Batched {
    n: u32,
}

/// A site for each number.
fn hit<const N: usize>() {
    gracepoint::trace!(Batched { n: N as u32 });
}

macro_rules! sites {
    ($($n:literal)*) => { [$(hit::<{ 8 * $n }>, hit::<{ 8 * $n + 1 }>, hit::<{ 8 * $n + 2 }>, hit::<{ 8 * $n + 3 }>,
        hit::<{ 8 * $n + 4 }>, hit::<{ 8 * $n + 5 }>, hit::<{ 8 * $n + 6 }>, hit::<{ 8 * $n + 7 }>),*] };
}

static ALL: [fn(); SITES] = sites!(0 1 2 3 4 5 6 7);

/// `struct ptrace_syscall_info` up to what an entry has.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    number: u64,
    arguments: [u64; 6],
}

const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const ENTRY: u8 = 1;

fn mark(mark: u64) {
    // SAFETY: asks for a number.
    unsafe { libc::syscall(libc::SYS_getpgid, mark) };
}

pub(crate) fn program() {
    let waits = std::env::var_os("SCENARIO_WAITS").is_some();
    let tracer = Tracer::new("system calls");
    let _asleep = sleeper(&tracer);
    let attach = |n: u64| -> Probe {
        if n.is_multiple_of(2) {
            tracer.tracepoint::<Same>().attach(|_| {}).unwrap()
        } else {
            tracer.tracepoint::<Other>().attach(|_| {}).unwrap()
        }
    };
    attach(0).detach(); // whoever drives is there from now on
    mark(MARKS[0]);
    for n in 0..CYCLES {
        let probe = attach(n);
        if waits {
            assert!(!probe.detach_timeout(Duration::from_millis(1)).unwrap());
        } else {
            probe.detach();
        }
    }
    mark(MARKS[1]);
    // The reader sleeps on; so does whoever joins it.
    std::process::exit(0);
}

/// Switches many sites at once, on and off.
pub(crate) fn batches() {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    let tracer = Tracer::new("batches");
    let attach =
        || tracer.tracepoint::<Batched>().attach(|_| _ = CALLED.fetch_add(1, Relaxed)).unwrap();
    attach().detach();
    mark(MARKS[0]);
    for _ in 0..BATCHES {
        let probe = attach();
        ALL.iter().for_each(|hit| hit());
        probe.detach();
    }
    mark(MARKS[1]);
    assert_eq!(CALLED.load(Relaxed), SITES * BATCHES as usize);
    std::process::exit(0);
}

/// One change of protection there and one back for the region, and a few barriers (those of the grace periods that
/// this thread drives included), whatever the number of sites.
pub(crate) fn test_batches() -> Result<(), Failed> {
    let (counts, _) = trace("batches", false);
    let of = |call| counts.get(&call).copied().unwrap_or(0);
    let (protections, barriers) = (of(libc::SYS_mprotect), of(libc::SYS_membarrier));
    println!(
        "{SITES} sites on and off, {BATCHES} times: {protections} changes of protection, {barriers} barriers"
    );
    let switches = 2 * BATCHES;
    let once = (switches..=2 * switches).contains(&protections)
        && (switches..=4 * switches).contains(&barriers);
    match once || gracepoint::patching() != "text" {
        true => Ok(()),
        false => Err(format!("not once for a batch: {counts:?}").into()),
    }
}

/// Calls that never wait for anybody else's doing. `futex` is among them where it wakes.
fn never_waits(number: i64, arguments: &[u64; 6]) -> bool {
    const FUTEX_WAKE: u64 = 1;
    const FUTEX_COMMAND: u64 = 0x7f;
    match number {
        libc::SYS_futex => arguments[1] & FUTEX_COMMAND == FUTEX_WAKE,
        libc::SYS_mprotect
        | libc::SYS_membarrier
        | libc::SYS_brk
        | libc::SYS_mmap
        | libc::SYS_munmap
        | libc::SYS_mremap
        | libc::SYS_madvise
        | libc::SYS_getpid
        | libc::SYS_gettid => true,
        // `/proc/self/mem`, where sites are switched through that. (`fcntl` is a check of debug builds.)
        libc::SYS_openat | libc::SYS_pwrite64 | libc::SYS_fcntl | libc::SYS_close => {
            gracepoint::patching() == "mem"
        }
        _ => false,
    }
}

/// Runs the program; how often it made each call between its marks, and those of them that may wait.
fn trace(program: &str, waits: bool) -> (BTreeMap<i64, u64>, Vec<i64>) {
    let mut command = command(program);
    command.stdout(Stdio::null());
    if waits {
        command.env("SCENARIO_WAITS", "1");
    }
    // SAFETY: between fork and exec the child asks to be traced, and does no more.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    #[expect(clippy::zombie_processes, reason = "the loop waits for it, by its number")]
    let child = command.spawn().expect("this system refuses ptrace, which this test needs");
    let pid = child.id().cast_signed();
    let (mut counts, mut waiting) = (BTreeMap::new(), Vec::new());
    let (mut options_set, mut between) = (false, false);
    loop {
        let mut status = 0;
        // SAFETY: waits for our own child.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }, pid);
        if libc::WIFEXITED(status) {
            assert_eq!(libc::WEXITSTATUS(status), 0, "the program ends well");
            return (counts, waiting);
        }
        assert!(libc::WIFSTOPPED(status), "status {status:#x}");
        let mut deliver = libc::WSTOPSIG(status);
        if !options_set {
            // SAFETY: sets options of our own, stopped child.
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_TRACESYSGOOD) };
            (options_set, deliver) = (true, 0);
        } else if deliver == libc::SIGTRAP | 0x80 {
            deliver = 0;
            let mut info = Info::default();
            // SAFETY: the kernel writes at most as many bytes as are said to be there.
            unsafe { libc::ptrace(PTRACE_GET_SYSCALL_INFO, pid, size_of::<Info>(), &raw mut info) };
            if info.op == ENTRY {
                let number = info.number.cast_signed();
                if number == libc::SYS_getpgid && MARKS.contains(&info.arguments[0]) {
                    between = info.arguments[0] == MARKS[0];
                } else if between {
                    *counts.entry(number).or_insert(0) += 1;
                    if !never_waits(number, &info.arguments) {
                        waiting.push(number);
                    }
                }
            }
        }
        // SAFETY: lets our own, stopped child go on to its next call.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, deliver) };
    }
}

pub(crate) fn test() -> Result<(), Failed> {
    let (counts, waiting) = trace("system-calls", false);
    println!("system calls of {CYCLES} cycles, by number: {counts:?}");
    if !waiting.is_empty() {
        return Err(format!("calls that may wait, by number: {waiting:?}").into());
    }
    // It was the cycles that were traced: sites were switched.
    let patches = match gracepoint::patching() {
        "text" => Some(libc::SYS_mprotect),
        "mem" => Some(libc::SYS_pwrite64),
        _ => None,
    };
    if patches.is_some_and(|call| counts.get(&call).is_none_or(|&times| times < CYCLES)) {
        return Err(format!("not each cycle has patched: {counts:?}").into());
    }
    let (_, waiting) = trace("system-calls", true);
    if waiting.is_empty() { Err("the twin that waits was not caught".into()) } else { Ok(()) }
}
