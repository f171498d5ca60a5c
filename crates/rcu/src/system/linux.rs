//! Linux: raw system calls.

use std::ffi::{c_int, c_long};
use std::ptr::{self, NonNull};

/// A thread's name in the kernel, with the terminating zero.
pub(crate) const NAME_LEN: usize = 16;

/// Puts `errno` back when dropped. Read sections are entered in signal handlers, and a handler
/// must not change the `errno` of the code that it interrupts.
#[derive(Debug)]
pub(crate) struct Errno(c_int);

impl Errno {
    pub(crate) fn keep() -> Self {
        // SAFETY: returns this thread's errno location, always valid.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as in `keep`.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

// From linux/membarrier.h; not all of them are in the libc crate for every target.
const QUERY: c_int = 0;
const PRIVATE_EXPEDITED: c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;
const PRIVATE_EXPEDITED_SYNC_CORE: c_int = 1 << 5;
const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: c_int = 1 << 6;

fn call_membarrier(command: c_int) -> c_long {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0 as c_int, 0 as c_int) }
}

fn register(command: c_int, registration: c_int) -> bool {
    let wanted = c_long::from(command | registration);
    let offered = call_membarrier(QUERY);
    offered >= 0 && offered & wanted == wanted && call_membarrier(registration) == 0
}

/// Registers for [`membarrier`] and tries it once. False if it cannot be had.
pub(crate) fn register_membarrier() -> bool {
    register(PRIVATE_EXPEDITED, REGISTER_PRIVATE_EXPEDITED) && membarrier()
}

/// Registers for [`membarrier_for_code`]. About 15 ms in a process that already has threads,
/// microseconds in one that has not.
pub(crate) fn register_membarrier_for_code() -> bool {
    register(PRIVATE_EXPEDITED_SYNC_CORE, REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)
}

/// A full barrier on every running thread of the process. False if it did not happen.
pub(crate) fn membarrier() -> bool {
    call_membarrier(PRIVATE_EXPEDITED) == 0
}

/// A core-serialising instruction on every running thread of the process.
pub(crate) fn membarrier_for_code() -> bool {
    call_membarrier(PRIVATE_EXPEDITED_SYNC_CORE) == 0
}

/// Gives `f` the value of `GRACEPOINT_RCU`, if it is in the environment, and the environment is not that of a caller with
/// fewer rights than the program. Not for signal handlers.
pub(crate) fn with_wish<R>(f: impl FnOnce(&[u8]) -> R) -> Option<R> {
    // SAFETY: asks for a number; no precondition.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    // SAFETY: the name is a C string. This runs at load time, before the program can have
    // threads that change the environment.
    let value = unsafe { libc::getenv(c"GRACEPOINT_RCU".as_ptr()) };
    // SAFETY: getenv returns null or a C string, which is read at once.
    (!value.is_null()).then(|| f(unsafe { std::ffi::CStr::from_ptr(value) }.to_bytes()))
}

/// Writes to stderr, past everything that could allocate or lock; what cannot be written is lost.
pub(crate) fn write_to_stderr(bytes: &[u8]) {
    // SAFETY: the address and length of a slice.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

/// The kernel's number for this thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    u32::try_from(tid).unwrap_or(0)
}

/// This thread's name, padded with zeros.
pub(crate) fn thread_name() -> [u8; NAME_LEN] {
    let mut name = [0_u8; NAME_LEN];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, which is what `name` has. On failure it
    // writes nothing and the name stays empty.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// The name of any thread of this process now; `None` if it cannot be read.
/// Opens a file and allocates: not for signal handlers.
pub(crate) fn task_name(tid: u32) -> Option<[u8; NAME_LEN]> {
    let text = std::fs::read(format!("/proc/self/task/{tid}/comm")).ok()?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut name = [0_u8; NAME_LEN];
    let len = text.len().min(NAME_LEN - 1);
    name[..len].copy_from_slice(&text[..len]);
    Some(name)
}

/// Whether this process certainly has no such thread. Asked of the kernel and not of
/// `/proc`, which may be that of another pid namespace, with other numbers.
pub(crate) fn thread_is_gone(tid: u32) -> bool {
    // SAFETY: signal 0 is only checked and never sent; the call takes three integers.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, 0 as c_int) };
    sent != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// Makes pages of `map_zeroed` read as zeros in a forked child, and gives them a name in `/proc/PID/maps` where
/// the kernel has that. False if the first is refused.
pub(crate) fn keep_from_children(
    pages: NonNull<u8>,
    len: usize,
    name: &'static std::ffi::CStr,
) -> bool {
    // SAFETY: advice on a mapping of the caller's; it changes what a child finds there, and nothing here.
    let wiped = unsafe { libc::madvise(pages.as_ptr().cast(), len, libc::MADV_WIPEONFORK) };
    // SAFETY: the kernel copies the name; an old one answers EINVAL.
    unsafe {
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            pages.as_ptr(),
            len,
            name.as_ptr(),
        )
    };
    wiped == 0
}

/// Zeroed pages that take no memory until they are touched. Never given back.
pub(crate) fn map_zeroed(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice overlaps
    // nothing that exists.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // A huge page would cost 2 MiB for the first thread. Failure changes nothing else.
    // SAFETY: advice on the mapping that was just made.
    unsafe { libc::madvise(address, len, libc::MADV_NOHUGEPAGE) };
    NonNull::new(address.cast())
}
