//! Signals to single threads, for backtraces: Linux on processors whose frames we know.

use crate::sync::{AtomicPtr, Ordering};
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ptr;

/// What the handler calls.
static THEN: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// # Safety
/// Called by the system as a signal's handler, with a `ucontext_t`.
unsafe extern "C" fn handler(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let _errno = super::Errno::keep();
    let then = THEN.load(Ordering::Acquire);
    if then.is_null() {
        return;
    }
    // SAFETY: `handle` is the one that writes it, with this type.
    let then = unsafe { mem::transmute::<*mut (), fn(usize, usize)>(then) };
    // SAFETY: SA_SIGINFO handlers are given the context that they interrupted, by this type.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let (instruction, frame) = registers(context);
    then(instruction, frame);
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> (usize, usize) {
    let of = |register: c_int| context.uc_mcontext.gregs[register as usize] as usize;
    (of(libc::REG_RIP), of(libc::REG_RBP))
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> (usize, usize) {
    (context.uc_mcontext.pc as usize, context.uc_mcontext.regs[29] as usize)
}

/// Makes `then` the handler of a signal, which is given the interrupted instruction and frame pointer.
pub(crate) fn handle(signal: i32, then: fn(usize, usize)) -> io::Result<()> {
    // SAFETY: all-zero is a valid sigaction.
    let mut known: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: asks for what there is; the answer goes to a variable of ours.
    if unsafe { libc::sigaction(signal, ptr::null(), &raw mut known) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if known.sa_sigaction != libc::SIG_DFL {
        let text = format!("signal {signal} is in use: choose one that has no handler");
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    THEN.store(then as *mut (), Ordering::Release);
    // SAFETY: all-zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // No other handler on top of this one: a third frame of the kernel's does not fit on 8 KiB.
    // SAFETY: fills a set of ours.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    // SAFETY: the handler has the type that SA_SIGINFO asks for and does only what handlers may: system
    // calls and atomics.
    if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a thread of this process a signal. False if there is no such thread.
pub(crate) fn send_to_thread(tid: u32, signal: i32) -> bool {
    // SAFETY: three integers; that the signal has a handler, `handle` has seen to.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) == 0 }
}

/// Two words of this process's memory, if they can be read. Safe in signal handlers.
pub(crate) fn read_words(address: usize) -> Option<[usize; 2]> {
    let mut words = [0_usize; 2];
    let length = size_of_val(&words);
    let to = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: length };
    let from = libc::iovec { iov_base: ptr::without_provenance_mut(address), iov_len: length };
    // SAFETY: the kernel writes at most `length` bytes to `words`, and checks the other side: an
    // address that cannot be read is an error and not a fault.
    let copied = unsafe {
        libc::syscall(
            libc::SYS_process_vm_readv,
            libc::getpid(),
            &raw const to,
            1 as libc::c_ulong,
            &raw const from,
            1 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    (usize::try_from(copied) == Ok(length)).then_some(words)
}
