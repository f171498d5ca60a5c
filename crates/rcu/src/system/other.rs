//! Systems other than Linux: no membarrier, and names that are not known.

use std::ptr::NonNull;

/// A thread's name, with the terminating zero.
pub(crate) const NAME_LEN: usize = 16;

/// On Linux this keeps `errno`; nothing here changes it.
#[derive(Debug)]
pub(crate) struct Errno(());

impl Errno {
    pub(crate) fn keep() -> Self {
        Self(())
    }
}

/// Gives `f` the value of `GRACEPOINT_RCU`, if it is in the environment. Not for signal handlers.
pub(crate) fn with_wish<R>(f: impl FnOnce(&[u8]) -> R) -> Option<R> {
    std::env::var_os("GRACEPOINT_RCU").map(|value| f(value.as_encoded_bytes()))
}

/// Writes to stderr; what cannot be written is lost.
pub(crate) fn write_to_stderr(bytes: &[u8]) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), bytes);
}

/// Cannot be had.
pub(crate) fn register_membarrier() -> bool {
    false
}

/// Cannot be had.
pub(crate) fn register_membarrier_for_code() -> bool {
    false
}

/// Cannot be had.
pub(crate) fn membarrier() -> bool {
    false
}

/// Cannot be had.
pub(crate) fn membarrier_for_code() -> bool {
    false
}

/// The system's number for this thread.
#[cfg(windows)]
pub(crate) fn thread_id() -> u32 {
    unsafe extern "system" {
        safe fn GetCurrentThreadId() -> u32;
    }
    GetCurrentThreadId()
}

/// The system's number for this thread (its low half).
#[cfg(target_vendor = "apple")]
pub(crate) fn thread_id() -> u32 {
    let mut id = 0_u64;
    // SAFETY: 0 means the calling thread; the result goes to a u64 of ours.
    unsafe { libc::pthread_threadid_np(0, &raw mut id) };
    id as u32
}

/// Not known here.
#[cfg(not(any(windows, target_vendor = "apple")))]
pub(crate) fn thread_id() -> u32 {
    0
}

/// Not known here.
pub(crate) fn thread_name() -> [u8; NAME_LEN] {
    [0; NAME_LEN]
}

/// Not known here.
pub(crate) fn task_name(_tid: u32) -> Option<[u8; NAME_LEN]> {
    None
}

/// Never certain here.
pub(crate) fn thread_is_gone(_tid: u32) -> bool {
    false
}

/// Zeroed pages. Never given back.
#[cfg(unix)]
pub(crate) fn map_zeroed(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice overlaps
    // nothing that exists.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANON,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED { None } else { NonNull::new(address.cast()) }
}

/// Zeroed memory, aligned to a page. Never given back.
#[cfg(not(unix))]
pub(crate) fn map_zeroed(len: usize) -> Option<NonNull<u8>> {
    let layout = std::alloc::Layout::from_size_align(len, 4096).ok()?;
    assert!(len > 0, "an empty mapping");
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
}
