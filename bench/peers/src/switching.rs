//! The system calls that switching one site off takes, and nothing else: the floor of whoever patches code.

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU32;

const PAGE: usize = 4096;
/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE`, and what registers for it.
const BARRIER: i32 = 1 << 5;
const REGISTER: i32 = 1 << 6;

/// A page of code that nobody executes.
#[derive(Debug)]
pub struct Switching {
    page: *mut libc::c_void,
    nobody: AtomicU32,
}

impl Switching {
    /// # Errors
    /// When the system refuses one of the calls.
    pub fn new() -> io::Result<Switching> {
        // SAFETY: a new mapping, of memory that nobody else has; and a registration.
        let page = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            let page = libc::mmap(ptr::null_mut(), PAGE, protection, flags, -1, 0);
            if page == libc::MAP_FAILED || libc::syscall(libc::SYS_membarrier, REGISTER, 0, 0) != 0
            {
                return Err(io::Error::last_os_error());
            }
            page
        };
        let this = Switching { page, nobody: AtomicU32::new(0) };
        if this.switch() { Ok(this) } else { Err(io::Error::last_os_error()) }
    }

    /// A barrier, the page made writable and executable again with a store in between, a barrier, a wakeup of nobody. False
    /// if one of them fails.
    pub fn switch(&self) -> bool {
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: our own page, which has room for the word and is writable when it is stored; the others take numbers.
        unsafe {
            libc::syscall(libc::SYS_membarrier, BARRIER, 0, 0) == 0
                && libc::mprotect(self.page, PAGE, all) == 0
                && {
                    self.page.cast::<u64>().write_volatile(0x9090_9090);
                    libc::mprotect(self.page, PAGE, libc::PROT_READ | libc::PROT_EXEC) == 0
                }
                && libc::syscall(libc::SYS_membarrier, BARRIER, 0, 0) == 0
                && libc::syscall(libc::SYS_futex, self.nobody.as_ptr(), libc::FUTEX_WAKE, 1) == 0
        }
    }
}

impl Drop for Switching {
    fn drop(&mut self) {
        // SAFETY: our own page, to which nobody has a reference.
        unsafe { libc::munmap(self.page, PAGE) };
    }
}
