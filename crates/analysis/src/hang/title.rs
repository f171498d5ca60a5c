//! The name under which a tracker of bugs files such a log: what happened, in which function.
//!
//! The conventions are those of the public syzbot dashboard, so that a log can be looked up there.
//! A hung task is named by the first function that is not about waiting; a stall or lockup by the
//! function below a well-known entry (a system call, a work, a softirq, a file operation), since
//! the innermost functions of a loop differ from one look to the next.

use super::frame::{self, Frame, StackLine};
use super::line::{Line, Tag, after, find, trim_start};
use super::rules::fits_any;

/// Lines after the complaint that are looked at.
const LINES: u32 = 600;
const FRAMES: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    HungTask,
    CannotDie,
    Stall,
    SoftLockup,
    HardLockup,
    /// A report of lockdep whose function stands behind `at:`, after a line with these words.
    At(&'static str, &'static [u8]),
    /// A report that is named by its stack.
    Stack(&'static str),
    Whole(&'static str),
}

/// Complaints: words of the line, what they are.
const KINDS: &[(&[u8], Kind)] = &[
    (
        b"possible circular locking dependency",
        Kind::At("possible deadlock in", b"is trying to acquire lock"),
    ),
    (b"possible recursive locking", Kind::At("possible deadlock in", b"is trying to acquire lock")),
    (b"lock order detected", Kind::Stack("possible deadlock in")),
    (b"Invalid wait context", Kind::Stack("WARNING: locking bug in")),
    (
        b"possible irq lock inversion",
        Kind::At("possible deadlock in", b"just changed the state of lock"),
    ),
    (b"inconsistent lock state", Kind::At("inconsistent lock state in", b" takes")),
    (
        b"WARNING: bad unlock balance detected",
        Kind::At("WARNING: bad unlock balance in", b"is trying to release lock"),
    ),
    (
        b"BUG: bad unlock balance detected",
        Kind::At("BUG: bad unlock balance in", b"is trying to release lock"),
    ),
    (b"WARNING: held lock freed", Kind::At("WARNING: held lock freed in", b"")),
    (b"BUG: held lock freed", Kind::At("BUG: held lock freed in", b"")),
    (b"still has locks held", Kind::At("WARNING: still has locks held in", b"")),
    (b"WARNING: nested lock was not taken", Kind::At("WARNING: nested lock was not taken in", b"")),
    (b"WARNING: Nested lock was not taken", Kind::At("WARNING: nested lock was not taken in", b"")),
    (b"at kernel/locking/lockdep.c", Kind::Stack("WARNING: locking bug in")),
    (b"BUG: spinlock recursion", Kind::Stack("BUG: spinlock recursion in")),
    (b"BUG: spinlock lockup suspected", Kind::Stack("BUG: spinlock lockup suspected in")),
    (b"BUG: spinlock bad magic", Kind::Stack("BUG: spinlock bad magic in")),
    (b"BUG: spinlock already unlocked", Kind::Stack("BUG: spinlock already unlocked in")),
    (b"BUG: spinlock wrong owner", Kind::Stack("BUG: spinlock wrong owner in")),
    (b"BUG: spinlock wrong CPU", Kind::Stack("BUG: spinlock wrong CPU in")),
    (
        b"WARNING: lock held when returning to user space",
        Kind::At(
            "WARNING: lock held when returning to user space in",
            b"leaving the kernel with locks still held",
        ),
    ),
    (
        b"BUG: lock held when returning to user space",
        Kind::At(
            "BUG: lock held when returning to user space in",
            b"leaving the kernel with locks still held",
        ),
    ),
    (b"BUG: workqueue lockup", Kind::Whole("BUG: workqueue lockup")),
    (b"BUG: soft lockup", Kind::SoftLockup),
    (b"hard LOCKUP on ", Kind::HardLockup),
    (b"blocked for more than", Kind::HungTask),
    (b"blocked in I/O wait for more than", Kind::HungTask),
    (b"can't die for more than", Kind::CannotDie),
    (b"self-detected stall", Kind::Stall),
    (b"detected stalls on", Kind::Stall),
    (b"detected expedited stall", Kind::Stall),
    (
        b"Kernel panic - not syncing: hung_task",
        Kind::Whole("kernel panic: hung_task: blocked tasks"),
    ),
];

/// Functions (parts of their names) that do not name a hung task.
const WAITING: &[&str] = &[
    "sched",
    "_lock",
    "_slowlock",
    "down",
    "rwsem",
    "completion",
    "kthread",
    "wait",
    "synchronize",
    "context_switch",
    "__switch_to",
    "cancel_delayed_work",
    "rcu_barrier",
    "__flush_work",
    "__cancel_work",
    "cancel_work",
    "flush_work",
    "drain_workqueue",
    "destroy_workqueue",
    "mutex_",
    "__bio_queue_enter",
    "submit_bio",
    "d_alloc_parallel",
    "msleep",
    "__lock_page",
];

/// Below these, the caller says what was going on.
const ENTRIES: &[&str] = &[
    "process_one_work",
    "do_syscall_*",
    "do_fast_syscall_*",
    "sysenter_dispatch",
    "tracesys_phase2",
    "invoke_syscall",
    "el0_svc*",
    "system_call*",
    "netif_receive_skb*",
    "__netif_receive_skb*",
    "__do_softirq",
    "do_softirq*",
    "handle_softirqs",
    "call_timer_fn",
    "__run_timers",
    "_run_timers",
    "run_timer_softirq",
    "run_ksoftirqd",
    "smpboot_thread_fn",
    "kthread",
    "start_secondary",
    "cpu_startup_entry",
    "ret_from_fork*",
    "vfs_write",
    "vfs_read",
    "__vfs_write",
    "__vfs_read",
    "new_sync_*",
    "vfs_iter_*",
    "do_iter_read*",
    "do_iter_write*",
    "*do_iter_readv_writev",
    "vfs_ioctl",
    "blkdev_driver_ioctl",
    "__blkdev_driver_ioctl",
    "blkdev_ioctl",
    "blkdev_common_ioctl",
    "*_compat_ioctl",
    "compat_blkdev_ioctl",
    "call_read_iter",
    "call_write_iter",
    "call_mmap",
    "mmap_region",
    "do_mmap*",
    "do_dentry_open",
    "vfs_open",
    "sock_sendmsg*",
    "sock_recvmsg*",
    "sock_release",
    "__sock_release",
    "__sys_setsockopt",
    "do_sock_setsockopt",
    "kernel_setsockopt",
    "sock_common_setsockopt",
    "__sys_listen",
    "kernel_listen",
    "sk_common_release",
    "sock_mmap",
    "__sys_accept*",
    "kernel_accept",
    "sock_do_ioctl*",
    "sock_ioctl*",
    "compat_sock_ioctl*",
    "nfnetlink_rcv_msg",
    "rtnetlink_rcv_msg",
    "netlink_dump",
    "genl_lock_dumpit",
    "do_vfs_ioctl",
    "__sys_socketpair",
    "__sys_connect",
    "__do_sys_ioctl",
    "__se_sys_ioctl",
    "__x64_sys_ioctl",
    "__arm64_sys_ioctl",
    "SYSC_ioctl",
    "SyS_ioctl",
    "SYSC_connect",
    "SyS_connect",
    "SYSC_socketpair",
    "ksys_ioctl",
    "compat_SyS_ioctl",
    "compat_SYSC_ioctl",
    "__do_compat_sys_ioctl",
    "__se_compat_sys_ioctl",
    "__fput",
    "task_work_run",
    "exit_to_usermode*",
    "exit_to_user_mode*",
    "__hrtimer_run_queues",
    "vfs_get_tree",
    "irq_exit*",
    "tracehook_notify_resume",
    "ret_from_intr",
    "__do_sys_exit_group",
    "generic_file_splice_read",
];

/// Functions that never name a report by stack.
const MACHINERY: &[&str] = &[
    "lock_",
    "_lock",
    "lockdep",
    "spin_",
    "dump_stack",
    "show_stack",
    "warn",
    "bug",
    "rip",
    "print_",
    "register_lock_class",
    "trap",
    "asm_exc",
    "invalid_op",
    "fixup",
    "panic",
    "release_sock",
    "mutex",
    "handle_bug",
    "do_error",
    "exc_",
    "asan",
    "static_obj",
    "read_lock",
    "write_lock",
    "debug_",
    "flush_workqueue",
    "drain_workqueue",
    "destroy_workqueue",
    "process_one_work",
    "worker_thread",
    "kthread",
    "ret_from_fork",
    "might_fault",
    "dump_backtrace",
    "reacquire_held",
    "up_read",
    "up_write",
    "down_read",
    "down_write",
    "__down",
    "flush_work",
    "cancel_work",
    "validate_chain",
    "check_",
    "noncircular",
    "mark_held",
    "trace_hardirqs",
];

/// Functions that take a lock for others: the stack says for whom.
const BLAMELESS: &[&str] =
    &["flush_work", "process_one_work", "might_fault", "lock_acquire", "drain_workqueue"];

/// Finds the title while the lines go by.
#[derive(Debug, Default)]
pub(super) struct Titles {
    kind: Option<Kind>,
    tag: Option<Tag>,
    since: u32,
    /// `at:` functions are taken from here on.
    armed: bool,
    name: Option<String>,
    /// Frames count from the next `Call Trace:` on.
    waiting_for_trace: bool,
    traces: u32,
    other_cpus: bool,
    frames: Vec<String>,
    /// Functions that the kernel does not trust: they count where there are no others.
    stale: Vec<String>,
    /// Functions of earlier stacks, where the one that counts is still to come.
    before: Vec<String>,
}

impl Titles {
    /// Takes the next line.
    pub(super) fn line(&mut self, number: u32, raw: &[u8]) {
        if self.since > LINES || self.name.is_some() {
            return;
        }
        let line = Line::new(number, raw);
        let Some(kind) = self.kind else {
            let known = KINDS.iter().find(|(words, _)| find(line.body, words).is_some());
            if let Some((_, kind)) = known {
                self.kind = Some(*kind);
                self.tag = Some(line.tag);
                self.armed = matches!(kind, Kind::At(_, words) if words.is_empty());
            }
            return;
        };
        self.since += 1;
        if self.tag != Some(line.tag) && !(self.other_cpus && matches!(line.tag, Tag::Cpu(_))) {
            return;
        }
        match kind {
            Kind::At(_, words) => self.lockdep(&line, words),
            Kind::Whole(_) => {}
            _ => self.stack(&line),
        }
    }

    fn lockdep(&mut self, line: &Line<'_>, words: &[u8]) {
        if !self.armed {
            self.armed = find(line.body, words).is_some();
            // The function may stand on the same line.
            if !self.armed || find(line.body, b"at: ").is_none() {
                return;
            }
        }
        let text = after(line.body, b"at: ").unwrap_or(line.body);
        let text = trim_start(text);
        let frame = frame::parse_function(text, line.number).or_else(|| {
            let text = text.first().filter(|b| **b == b'[').and_then(|_| after(text, b"] "));
            frame::parse_function(trim_start(text?), line.number)
        });
        match frame {
            Some(frame) if BLAMELESS.iter().any(|part| frame.function.contains(part)) => {
                // The stack below says whose doing it is; lists of what happened before do not.
                self.kind = self.kind.map(|kind| match kind {
                    Kind::At(words, _) => Kind::Stack(words),
                    other => other,
                });
                self.waiting_for_trace = true;
            }
            Some(frame) => self.name = Some(frame.function),
            None => {}
        }
    }

    fn stack(&mut self, line: &Line<'_>) {
        let body = line.body;
        self.other_cpus |= find(body, b"Sending NMI from CPU").is_some();
        let lower = trim_start(body);
        if lower.starts_with(b"Call Trace")
            || lower.starts_with(b"Call trace")
            || lower.starts_with(b"Backtrace")
        {
            self.traces += 1;
            self.waiting_for_trace = false;
            return;
        }
        let frame = match frame::parse_program_counter(body, line.number) {
            Some(frame) => Some(frame),
            None => match frame::parse(body, line.number) {
                StackLine::Frame(frame) => Some(frame),
                StackLine::Stale(frame) => return self.untrusted(frame),
                StackLine::Other => None,
            },
        };
        let Some(frame) = frame else { return };
        if self.waiting_for_trace {
            if self.before.len() < FRAMES {
                self.before.push(frame.function);
            }
            return;
        }
        if self.takes(self.frames.len()) {
            self.frames.push(frame.function);
        }
    }

    fn untrusted(&mut self, frame: Frame) {
        if !self.waiting_for_trace && self.frames.is_empty() && self.takes(self.stale.len()) {
            self.stale.push(frame.function);
        }
    }

    /// Whether the next frame belongs to the report, which has so many already.
    fn takes(&self, known: usize) -> bool {
        let first_trace = matches!(self.kind, Some(Kind::HungTask | Kind::CannotDie));
        !(first_trace && self.traces > 1) && known < FRAMES
    }

    /// The title, if anybody complained.
    pub(super) fn finish(self) -> Option<String> {
        let frames = if self.frames.is_empty() { &self.stale } else { &self.frames };
        let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
        let (words, name) = match self.kind? {
            Kind::HungTask => ("INFO: task hung in", hung(&frames)),
            Kind::CannotDie => ("INFO: task can't die in", hung(&frames)),
            Kind::Stall => ("INFO: rcu detected stall in", stalled(&frames)),
            Kind::SoftLockup => ("BUG: soft lockup in", looping(&frames)),
            Kind::HardLockup => ("BUG: hard lockup in", looping(&frames)),
            Kind::At(words, _) => (words, self.name),
            // A worker's own stack may have nothing but machinery: then what happened before says it.
            Kind::Stack(words) => {
                let before: Vec<&str> = self.before.iter().map(String::as_str).collect();
                (words, by_stack(&frames).or_else(|| by_stack(&before)))
            }
            Kind::Whole(words) => return Some(words.to_owned()),
        };
        Some(format!("{words} {}", name.as_deref().unwrap_or("corrupted")))
    }
}

fn hung(frames: &[&str]) -> Option<String> {
    for frame in frames {
        if frame.starts_with("rtnl_lock") {
            return Some((*frame).to_owned());
        }
        let waits = ["synchronize_rcu", "synchronize_srcu", "synchronize_net", "synchronize_sched"];
        if waits.iter().any(|start| frame.contains(start)) {
            return Some("synchronize_rcu".to_owned());
        }
    }
    let named = frames.iter().find(|frame| !WAITING.iter().any(|part| frame.contains(part)));
    named.map(|frame| (*frame).to_owned())
}

/// What was interrupted by the timer that noticed.
fn stalled(frames: &[&str]) -> Option<String> {
    let timer = |frame: &&str| {
        frame.contains("apic_timer_interrupt")
            || matches!(
                *frame,
                "el1_irq"
                    | "el1h_64_irq"
                    | "el1_interrupt"
                    | "__irq_svc"
                    | "el0_irq"
                    | "timer_interrupt"
                    | "gic_handle_irq"
            )
    };
    let from = frames.iter().position(&timer)?;
    let rest: Vec<&str> =
        frames[from..].iter().copied().filter(|f| !timer(f) && !f.contains("rcu")).collect();
    looping(&rest)
}

fn looping(frames: &[&str]) -> Option<String> {
    // Who waits for other CPUs is the same story everywhere.
    if frames.iter().take(6).any(|f| f.starts_with("smp_call_function")) {
        return Some("smp_call_function".to_owned());
    }
    let mut previous = *frames.first()?;
    for (at, frame) in frames.iter().enumerate() {
        // Where the entry of system calls is no frame of its own.
        if let Some(call) = frame.strip_prefix("sys_")
            && frames.get(at + 1).is_none_or(|next| !fits_any(ENTRIES, next))
        {
            return Some(call.to_owned());
        }
        if fits_any(ENTRIES, frame) {
            let mut name = previous;
            for start in [
                "__x64_",
                "__ia32_",
                "__arm64_",
                "SYSC_",
                "SyS_",
                "compat_SYSC_",
                "compat_SyS_",
                "__do_",
                "__se_",
            ] {
                name = name.strip_prefix(start).unwrap_or(name);
            }
            return Some(name.to_owned());
        }
        previous = frame;
    }
    None
}

fn by_stack(frames: &[&str]) -> Option<String> {
    let named = frames.iter().find(|frame| !MACHINERY.iter().any(|part| frame.contains(part)));
    named.map(|frame| (*frame).to_owned())
}
