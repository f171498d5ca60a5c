//! Timers of threads' CPU time that interrupt their threads by a signal.

use super::check;
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;

/// What a handler is given, as far as the signal of a timer has it.
#[repr(C)]
pub(crate) struct Info {
    signal: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    timer: c_int,
    overrun: c_int,
    value: usize,
}

/// `si_code` of a timer's signal.
const BY_TIMER: c_int = -2;

impl Info {
    /// How often the timer has come due since its last signal, if this is from one of ours.
    pub(crate) fn expirations(&self, mark: usize) -> Option<u64> {
        let is_ours = self.code == BY_TIMER && self.value == mark;
        is_ours.then(|| 1 + u64::from(self.overrun.max(0).unsigned_abs()))
    }
}

/// Where a signal has interrupted its thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    /// What follows by it is a chain of frames as x86-64 and AArch64 have it; 0 elsewhere.
    pub(crate) fp: u64,
    pub(crate) lr: u64,
}

impl Registers {
    /// # Safety
    /// `context` is what a handler with `SA_SIGINFO` was given.
    pub(crate) unsafe fn of(context: *const c_void) -> Registers {
        // SAFETY: the caller's promise: it is a `ucontext_t` that lives as long as the handler runs.
        let machine = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        #[cfg(target_arch = "x86_64")]
        let found = {
            let of = |n: c_int| machine.gregs[n as usize].cast_unsigned();
            let (pc, sp, fp) = (of(libc::REG_RIP), of(libc::REG_RSP), of(libc::REG_RBP));
            Registers { pc, sp, fp, lr: 0 }
        };
        #[cfg(target_arch = "aarch64")]
        let found = Registers {
            pc: machine.pc,
            sp: machine.sp,
            fp: machine.regs[29],
            lr: machine.regs[30],
        };
        #[cfg(target_arch = "riscv64")]
        let found = {
            let registers = &machine.__gregs;
            Registers { pc: registers[0], sp: registers[2], fp: 0, lr: registers[1] }
        };
        found
    }
}

/// What a signal calls: its number, who sent it, where it interrupted.
pub(crate) type Handler = unsafe extern "C" fn(c_int, *const Info, *const c_void);

/// Gives `handler` a real-time signal that nobody has a handler for, the highest one. Slow system calls go on
/// after it; it runs on the thread's signal stack where there is one, and no other signal interrupts it there: a
/// second frame of the kernel's would not fit beside it (3.5 KiB with wide vectors, of 8).
///
/// # Safety
/// The handler does only what handlers may, for the rest of the process's life.
pub(crate) unsafe fn handle_unused(handler: Handler) -> io::Result<c_int> {
    for signal in (libc::SIGRTMIN() + 1..libc::SIGRTMAX()).rev() {
        // SAFETY: all-zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks for what there is; the answer goes to a variable of ours.
        check(unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) })?;
        if action.sa_sigaction != libc::SIG_DFL {
            continue;
        }
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: fills a set of ours.
        unsafe { libc::sigfillset(&raw mut action.sa_mask) };
        // SAFETY: the handler has the type that SA_SIGINFO asks for, and the caller vouches for it.
        check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;
        return Ok(signal);
    }
    Err(io::Error::other("all real-time signals are in use"))
}

/// A timer of a thread's CPU time, which goes with the value.
#[derive(Debug)]
pub(crate) struct Timer(libc::timer_t);

// SAFETY: a number of the kernel's that any thread of the process may use.
unsafe impl Send for Timer {}

impl Timer {
    /// Sends thread `tid` of this process the signal, with `mark`, each time that it has run so long.
    pub(crate) fn of_thread(
        tid: u32,
        signal: c_int,
        mark: usize,
        period_ns: u64,
    ) -> io::Result<Timer> {
        // SAFETY: all-zero is a valid sigevent.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = tid.cast_signed();
        event.sigev_value.sival_ptr = ptr::without_provenance_mut(mark);
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: reads the event and writes the timer.
        check(unsafe {
            libc::timer_create(super::cpu_clock(tid), &raw mut event, &raw mut timer)
        })?;
        let timer = Timer(timer);
        timer.set(period_ns)?;
        Ok(timer)
    }

    /// From now on each time that it has run so long.
    pub(crate) fn set(&self, period_ns: u64) -> io::Result<()> {
        let (s, ns) = (period_ns / 1_000_000_000, period_ns % 1_000_000_000);
        let every = libc::timespec { tv_sec: s.cast_signed(), tv_nsec: ns.cast_signed() };
        let spec = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: a timer of ours, and the times to set it to.
        check(unsafe { libc::timer_settime(self.0, 0, &raw const spec, ptr::null_mut()) })?;
        Ok(())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: a timer that `of_thread` has made and that nobody uses any more.
        unsafe { libc::timer_delete(self.0) };
    }
}
