//! Systems that refuse `membarrier`: from the start, where readers then fence; and only later, when it is too
//! late for that.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr, reason = "a child can report in no other way")]

#[path = "child/process.rs"]
mod process;

use gracepoint_rcu::{
    Domain, Progress, RcuCell, Strategy, heavy_barrier, requested_strategy, strategy,
};
use process::in_child;
use std::io;
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// From now on this thread, those that it starts and what it executes get this error from `membarrier`.
fn refuse_membarrier(error: i32) -> io::Result<()> {
    let instruction =
        |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, number),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_membarrier as u32),
        instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` describes an array of instructions that the kernel copies.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Tells a test of this file that it is the child.
const CHILD: &str = "GRACEPOINT_REFUSED_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs a test of this file in a program of its own, which is told `how` before it begins; what it wrote to stderr.
fn expect_good(test: &str, how: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "--nocapture", test]).env_remove("GRACEPOINT_RCU").env(CHILD, "1");
    how(&mut command);
    let output = command.output().expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    let good = output.status.success() && text.contains("1 passed");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(good, "{text}{stderr}");
    stderr
}

#[test]
fn refused_from_the_start() {
    if is_child() {
        assert!(!heavy_barrier(), "it was not refused");
        assert!(!gracepoint_rcu::heavy_barrier_code());
        return works_with_fences();
    }
    for error in [libc::ENOSYS, libc::EPERM] {
        expect_good("refused_from_the_start", |command| {
            // SAFETY: prctl may be called after fork.
            unsafe { command.pre_exec(move || refuse_membarrier(error)) };
        });
    }
}

#[test]
fn told_to_fence() {
    if is_child() {
        assert_eq!(requested_strategy(), Ok(Some(Strategy::Fence)));
        return works_with_fences();
    }
    let stderr = expect_good("told_to_fence", |command| {
        command.env("GRACEPOINT_RCU", "fence");
    });
    assert!(!stderr.contains("GRACEPOINT_RCU"), "{stderr}");
}

#[test]
fn told_nothing() {
    if is_child() {
        assert_eq!(requested_strategy(), Ok(None));
        return;
    }
    for empty in [false, true] {
        let stderr = expect_good("told_nothing", |command| {
            if empty {
                command.env("GRACEPOINT_RCU", "");
            }
        });
        assert!(!stderr.contains("GRACEPOINT_RCU"), "{stderr}");
    }
}

/// A value that means nothing is told, once and at the start, and in a way that a program can refuse.
#[test]
fn told_what_is_not_known() {
    let long = format!("fence{}", "s".repeat(400));
    if is_child() {
        let unknown = requested_strategy().expect_err("no strategy");
        assert_eq!(requested_strategy(), Err(unknown.clone()));
        let value = std::env::var_os("GRACEPOINT_RCU").expect("told");
        let value = value.to_str().unwrap_or("fe?nse");
        assert!(value.starts_with(unknown.value()) && unknown.value().starts_with("fe"));
        let text = unknown.to_string();
        assert!(
            text.starts_with("GRACEPOINT_RCU=fe") && text.contains("set it to \"fence\""),
            "{text}"
        );
        Domain::new("ignored").synchronize().expect("outside");
        return;
    }
    for (value, told) in [
        (&b"fense"[..], "GRACEPOINT_RCU=fense is not known: set it to \"fence\""),
        (b"fe\x9bnse", "GRACEPOINT_RCU=fe?nse is not known"),
        (b"fence ", "GRACEPOINT_RCU=fence  is not known"),
        (long.as_bytes(), "sss… is not known"),
    ] {
        let stderr = expect_good("told_what_is_not_known", |command| {
            command.env("GRACEPOINT_RCU", std::ffi::OsStr::from_bytes(value));
        });
        let lines: Vec<_> =
            stderr.lines().filter(|line| line.contains("gracepoint-rcu:")).collect();
        assert!(matches!(lines[..], [line] if line.contains(told)), "{stderr}");
    }
}

/// A value that shows that it was dropped.
struct Value(u64);

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Value {
    fn drop(&mut self) {
        self.0 = u64::MAX;
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

fn works_with_fences() {
    static DOMAIN: Domain = Domain::new("fences");
    const UPDATES: usize = 2_000;
    assert_eq!(strategy(), Strategy::Fence);
    let cell = RcuCell::new(&DOMAIN, Value(0));
    let (inside, leave, stop) = (Barrier::new(2), Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let guard = DOMAIN.read();
            let first = cell.load(&guard);
            inside.wait();
            leave.wait();
            assert_eq!(first.0, 0, "kept while the guard is");
        });
        inside.wait();
        cell.replace(Value(1));
        for _ in 0..20 {
            DOMAIN.drive();
        }
        assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
        leave.wait();
        DOMAIN.barrier().expect("outside");
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);

        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_ne!(cell.load(&DOMAIN.read()).0, u64::MAX, "read after it was dropped");
                assert_ne!(cell.load(&DOMAIN.read_owned("reader")).0, u64::MAX);
            }
        });
        for _ in 0..UPDATES {
            cell.update(|value| Value(value.0 + 1));
            DOMAIN.drive();
        }
        stop.store(true, Ordering::Relaxed);
    });
    DOMAIN.barrier().expect("outside");
    assert_eq!(cell.load(&DOMAIN.read()).0, 1 + UPDATES as u64);
    assert_eq!(DROPPED.load(Ordering::Relaxed), 1 + UPDATES);
    DOMAIN.synchronize().expect("outside");
}

/// Readers have no fences by then. So nothing is freed, those who can give up do, and a report says why. Where they do,
/// nobody needs the call.
#[test]
fn refused_later() {
    assert!(in_child(|| {
        static DOMAIN: Domain = Domain::new("refused later");
        static FREED: AtomicBool = AtomicBool::new(false);
        DOMAIN.synchronize().expect("outside");
        refuse_membarrier(libc::EPERM).expect("a filter");
        DOMAIN.call(|| FREED.store(true, Ordering::Relaxed));
        if strategy() == Strategy::Fence {
            DOMAIN.barrier().expect("outside");
            assert!(FREED.load(Ordering::Relaxed));
            return;
        }
        let ended = DOMAIN.synchronize_timeout(Duration::from_millis(20)).expect("outside");
        assert!(!ended, "by what barrier?");
        for _ in 0..100 {
            assert!(matches!(DOMAIN.drive(), Progress::Pending(_)));
        }
        assert!(!FREED.load(Ordering::Relaxed));
        let stall = DOMAIN.stalls().remove(0);
        assert!(stall.barrier_refused && stall.culprits.is_empty());
        let text = stall.to_string();
        assert!(text.contains("the system refuses membarrier"), "{text}");
        assert!(text.contains("GRACEPOINT_RCU=fence"), "{text}");
        drop(DOMAIN.read()); // Readers go on.
    }));
}
