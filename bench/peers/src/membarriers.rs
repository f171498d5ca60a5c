//! Counts the `membarrier` calls of a thread and of those that it starts, whoever makes them.
//!
//! A seccomp filter turns the call into a signal; the handler counts, and makes the call itself,
//! with a number in the third argument (which the kernel ignores) that the filter lets pass. So the
//! count is exact, and what is counted needs no code for it. Each call costs about 2 µs more.
//!
//! A filter cannot be taken away: count on a thread made for it. A call that is made while SIGSYS
//! is blocked ends the process (liburcu's bp flavour makes such).

use std::fmt;

/// What has been counted so far; see [`Counter::on_this_thread`].
#[derive(Clone, Copy, Debug)]
pub struct Counter(());

/// Why `membarrier` calls cannot be counted here.
#[derive(Debug)]
pub enum CountError {
    /// The handler knows x86-64 Linux only.
    OtherSystem,
    /// The system refused the filter or the handler.
    Refused(std::io::Error),
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherSystem => write!(f, "membarriers are counted on x86-64 Linux only"),
            Self::Refused(why) => write!(f, "no seccomp filter to count membarriers: {why}"),
        }
    }
}

impl std::error::Error for CountError {}

impl Counter {
    /// Counts, from now on, the calls of this thread and of threads that it starts.
    ///
    /// # Errors
    /// If the system or the processor cannot.
    pub fn on_this_thread() -> Result<Self, CountError> {
        imp::install().map(|()| Self(()))
    }

    /// Calls so far, of all threads that are counted.
    #[must_use]
    pub fn calls(self) -> u64 {
        imp::CALLS.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod imp {
    use super::CountError;
    use libc::{c_int, c_void, siginfo_t, sock_filter, ucontext_t};
    use std::io::Error;
    use std::ptr;
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(super) static CALLS: AtomicU64 = AtomicU64::new(0);

    /// The third argument of the handler's own calls.
    const OURS: u32 = 0x6770_6d62;
    /// Offsets in `struct seccomp_data`: the call's number, and the low half of its third argument.
    const NUMBER: u32 = 0;
    const THIRD: u32 = 16 + 2 * 8;

    fn load(offset: u32) -> sock_filter {
        sock_filter { code: 0x20, jt: 0, jf: 0, k: offset } // BPF_LD | BPF_W | BPF_ABS
    }

    fn jump_if_equal(k: u32, yes: u8, no: u8) -> sock_filter {
        sock_filter { code: 0x15, jt: yes, jf: no, k } // BPF_JMP | BPF_JEQ | BPF_K
    }

    fn answer(what: u32) -> sock_filter {
        sock_filter { code: 0x06, jt: 0, jf: 0, k: what } // BPF_RET | BPF_K
    }

    /// Counts, makes the call, and puts its result where the interrupted code expects it.
    extern "C" fn on_call(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel hands an SA_SIGINFO handler this thread's context, which nobody else uses.
        let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
        let at = |register: c_int| register as usize;
        CALLS.fetch_add(1, Ordering::Relaxed);
        let (command, flags) = (registers[at(libc::REG_RDI)], registers[at(libc::REG_RSI)]);
        // SAFETY: errno's location is always valid.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: the call that was interrupted, with a third argument that it ignores.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, command, flags, OURS) };
        // SAFETY: as above, twice.
        let failed = unsafe { std::mem::replace(&mut *libc::__errno_location(), errno) };
        registers[at(libc::REG_RAX)] = if result < 0 { -i64::from(failed) } else { result };
    }

    pub(super) fn install() -> Result<(), CountError> {
        let program = [
            load(NUMBER),
            jump_if_equal(libc::SYS_membarrier as u32, 0, 2), // another call: to the first answer
            load(THIRD),
            jump_if_equal(OURS, 0, 1),
            answer(libc::SECCOMP_RET_ALLOW),
            answer(libc::SECCOMP_RET_TRAP),
        ];
        let filter =
            libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: all-zero is a valid sigaction; it and the filter live during the calls, which
        // read them; the handler does only what a handler may (a counter and a system call).
        let refused = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_call as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) != 0
                || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
                    != 0
        };
        if refused { Err(CountError::Refused(Error::last_os_error())) } else { Ok(()) }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod imp {
    use super::CountError;
    use std::sync::atomic::AtomicU64;

    pub(super) static CALLS: AtomicU64 = AtomicU64::new(0);

    pub(super) fn install() -> Result<(), CountError> {
        Err(CountError::OtherSystem)
    }
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::print_stderr, reason = "says why there is nothing to test")]
    fn each_call_is_counted_and_made() {
        let counted = std::thread::spawn(|| {
            let counter = Counter::on_this_thread()?;
            let before = counter.calls();
            for _ in 0..10 {
                // SAFETY: asks which commands there are.
                let offered = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) };
                assert!(offered > 0, "the result comes through: {offered}");
                // SAFETY: no such command; the error must come through.
                assert_eq!(unsafe { libc::syscall(libc::SYS_membarrier, 1 << 20, 0, 0) }, -1);
                assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
            }
            Ok::<u64, CountError>(counter.calls() - before)
        });
        match counted.join().expect("no panic") {
            Ok(calls) => assert_eq!(calls, 20),
            Err(why) => eprintln!("skipped, {why}"),
        }
    }
}
