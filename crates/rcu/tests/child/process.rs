//! Children of `fork` that run a part of a test.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Forks; true if `child` returned without a panic in the child. One that hangs is killed after three minutes, and
/// has failed.
pub(crate) fn in_child(child: impl FnOnce()) -> bool {
    // SAFETY: the child runs only code that works after fork in a threaded process: glibc
    // keeps malloc and threads usable, and what else it touches is what is being tested.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        // SAFETY: asks for a signal, whose default ends the child.
        unsafe { libc::alarm(180) };
        let code = i32::from(catch_unwind(AssertUnwindSafe(child)).is_err());
        // SAFETY: leaves the child at once, running nothing of the test harness.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child; the status goes to a variable of ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}
