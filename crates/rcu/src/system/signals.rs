//! Threads of ours do not run the program's signal handlers.

/// Runs `body` with all signals blocked in this thread, so that a thread made by it blocks them.
#[cfg(unix)]
pub(crate) fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    if cfg!(miri) {
        return body(); // Miri has no signals
    }
    // SAFETY: all-zero is a valid sigset_t to be filled; both sets live through the calls.
    let old = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        old
    };
    let result = body();
    // SAFETY: restores the mask that was read above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    result
}

/// There are no signals here.
#[cfg(not(unix))]
pub(crate) fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
    body()
}
