//! Typed doors to the system calls of the runtime. Nothing else in the crate calls `libc` but for
//! clocks and thread-directed set-up.

pub(crate) mod timers;

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Bytes of a page of memory.
#[cfg_attr(gp_branch, allow(dead_code, reason = "there is no code to patch"))]
pub(crate) fn page_size() -> usize {
    // SAFETY: asks for a number; no precondition.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Makes pages of code writable (they stay executable), or read-only again.
#[cfg_attr(gp_branch, allow(dead_code, reason = "there is no code to patch"))]
pub(crate) fn protect_code(pages: Range<usize>, writable: bool) -> io::Result<()> {
    let write = if writable { libc::PROT_WRITE } else { 0 };
    let protection = libc::PROT_READ | libc::PROT_EXEC | write;
    // SAFETY: the range covers code of loaded objects, which keeps being readable and executable;
    // adding or taking the right to write breaks nobody's assumption but a writer's, and the only
    // writer is the caller.
    check(unsafe { libc::mprotect(pages.start as *mut _, pages.len(), protection) })?;
    Ok(())
}

/// What [`object_of`] looks for, and finds.
struct Search {
    address: usize,
    /// Objects seen before; the program itself comes first.
    seen: usize,
    found: Option<CString>,
}

/// The shared object that `address` lies in, as the loader names it; `None` for the program itself,
/// and for addresses in no object. Takes the loader's lock.
pub(crate) fn object_of(address: usize) -> Option<CString> {
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's description of an object, and our own search, for this call.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
        let first = search.seen == 0;
        search.seen += 1;
        // SAFETY: the loader's table of this object's segments, of this length.
        let segments =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let inside = segments.iter().filter(|s| s.p_type == libc::PT_LOAD).any(|s| {
            let start = (info.dlpi_addr as usize).wrapping_add(s.p_vaddr as usize);
            search.address.wrapping_sub(start) < s.p_memsz as usize
        });
        if inside && !first && !info.dlpi_name.is_null() {
            // SAFETY: the loader's C string.
            search.found = Some(unsafe { CStr::from_ptr(info.dlpi_name) }.to_owned());
        }
        c_int::from(inside)
    }
    let mut search = Search { address, seen: 0, found: None };
    // SAFETY: calls `look` with descriptions of the loaded objects and the search, which lives.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

/// An executable or shared object, as the loader describes it.
#[derive(Debug)]
pub(crate) struct Object {
    /// Address of its first segment, and bytes to the end of the last one.
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// What to add to an address in its file.
    #[cfg_attr(gp_branch, allow(dead_code, reason = "there is no code to patch"))]
    pub(crate) bias: u64,
    /// The executable ranges of it.
    #[cfg_attr(gp_branch, allow(dead_code, reason = "there is no code to patch"))]
    pub(crate) code: Vec<Range<u64>>,
    pub(crate) build_id: Vec<u8>,
    /// Empty for the program.
    pub(crate) name: CString,
}

/// The objects that are loaded, the program first, and how many were loaded in its life; `None` if
/// that is `before`. Takes the loader's lock.
pub(crate) fn objects(before: Option<u64>) -> Option<(u64, Vec<Object>)> {
    struct List {
        before: Option<u64>,
        loaded: u64,
        found: Vec<Object>,
    }
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        list: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's description of an object, and our own list, for this call.
        let (info, list) = unsafe { (&*info, &mut *list.cast::<List>()) };
        list.loaded = info.dlpi_adds;
        if list.before == Some(list.loaded) {
            return 1;
        }
        // SAFETY: a description that the loader has just given, of an object that it keeps mapped
        // during this call.
        list.found.extend(unsafe { object(info) });
        0
    }
    let mut list = List { before, loaded: 0, found: Vec::new() };
    // SAFETY: the callback has the wanted signature; it and `list` live during the call, and it does
    // not unwind: it can only run out of memory, which aborts.
    let cut = unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut list).cast()) } != 0;
    (!cut).then_some((list.loaded, list.found))
}

/// # Safety
/// `info` is the loader's description of an object that stays mapped during the call.
unsafe fn object(info: &libc::dl_phdr_info) -> Option<Object> {
    // SAFETY: the loader's table of this object's segments, of this length.
    let segments = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let loads = || segments.iter().filter(|s| s.p_type == libc::PT_LOAD);
    let start = loads().map(|s| s.p_vaddr).min()?;
    let end = loads().map(|s| s.p_vaddr.saturating_add(s.p_memsz)).max()?;
    let mut build_id = Vec::new();
    for note in segments.iter().filter(|s| s.p_type == libc::PT_NOTE) {
        // What no segment maps from the file is not there to be read.
        let mapped = loads().any(|s| {
            let at = note.p_vaddr.wrapping_sub(s.p_vaddr);
            at.checked_add(note.p_filesz).is_some_and(|end| end <= s.p_filesz)
                && s.p_flags & libc::PF_R != 0
        });
        if mapped && build_id.is_empty() {
            let at = info.dlpi_addr.wrapping_add(note.p_vaddr);
            // SAFETY: these bytes lie in a readable segment of the object (above), which the loader
            // has mapped and nobody writes.
            let notes =
                unsafe { std::slice::from_raw_parts(at as *const u8, note.p_filesz as usize) };
            build_id = find_build_id(notes, if note.p_align == 8 { 8 } else { 4 });
        }
    }
    let name = match info.dlpi_name.is_null() {
        true => CString::default(),
        // SAFETY: the loader's C string.
        false => unsafe { CStr::from_ptr(info.dlpi_name) }.to_owned(),
    };
    let base = info.dlpi_addr.wrapping_add(start);
    let bias = info.dlpi_addr;
    let code = loads().filter(|s| s.p_flags & libc::PF_X != 0).map(|s| {
        let start = bias.wrapping_add(s.p_vaddr);
        start..start.saturating_add(s.p_memsz)
    });
    Some(Object { base, size: end - start, bias, code: code.collect(), build_id, name })
}

/// The build id among `notes`, which begin on `align` bytes each; empty if there is none.
fn find_build_id(mut notes: &[u8], align: usize) -> Vec<u8> {
    const BUILD_ID: u32 = 3;
    const MOST: usize = 64;
    let word = |notes: &[u8], at: usize| {
        notes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
    };
    let mut found = || {
        let (name, desc) = (word(notes, 0)? as usize, word(notes, 4)? as usize);
        let at = 12usize.checked_add(name)?.checked_next_multiple_of(align)?;
        let end = at.checked_add(desc)?;
        let content = notes.get(at..end)?;
        let ours = word(notes, 8)? == BUILD_ID && notes.get(12..12 + name)? == b"GNU\0";
        notes = notes.get(end.checked_next_multiple_of(align)?..).unwrap_or_default();
        Some((ours && content.len() <= MOST).then(|| content.to_vec()))
    };
    while let Some(note) = found() {
        if let Some(id) = note {
            return id;
        }
    }
    Vec::new()
}

/// A page or more of executable memory at just this place.
///
/// # Errors
/// When it is taken, or the system allows none.
#[cfg(not(gp_branch))]
pub(crate) fn map_code(at: usize, len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: a new mapping, and the flag says that it replaces none.
    let base = unsafe { libc::mmap(at as *mut _, len, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if base as usize != at {
        unmap_code(base as usize, len); // a kernel that does not know the flag
        return Err(io::Error::from(io::ErrorKind::AddrInUse));
    }
    Ok(at)
}

/// Undoes [`map_code`].
#[cfg(not(gp_branch))]
pub(crate) fn unmap_code(at: usize, len: usize) {
    // SAFETY: callers pass what `map_code` mapped and nobody uses.
    unsafe { libc::munmap(at as *mut _, len) };
}

/// Makes the object that `address` lies in stay loaded to the end, whoever closes it. False if the
/// loader does not want to. Takes the loader's lock, and must not be called under one of ours that
/// unloading takes.
pub(crate) fn keep_loaded(address: usize) -> bool {
    // A program that is linked statically has no other objects, and no loader.
    #[cfg(not(target_feature = "crt-static"))]
    if let Some(name) = object_of(address) {
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // SAFETY: a C string; the object is loaded already, so that no code of it is run.
        return !unsafe { libc::dlopen(name.as_ptr(), flags) }.is_null();
    }
    let _ = address;
    true
}

/// A mapping, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is memory that belongs to the process; whoever holds the value may use it from
// any thread under the rules of what lies in it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private zeroed memory that is zero again in a forked child; costs nothing until touched.
    pub(crate) fn wiped_on_fork(len: usize) -> io::Result<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mapping = Mapping::new(len, flags, -1)?;
        mapping.advise(0..len, libc::MADV_WIPEONFORK)?;
        Ok(mapping)
    }

    /// The whole of `fd`, shared; absent from a forked child.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        let mapping = Mapping::new(len, libc::MAP_SHARED, fd.as_raw_fd())?;
        mapping.advise(0..len, libc::MADV_DONTFORK)?;
        Ok(mapping)
    }

    fn new(len: usize, flags: libc::c_int, fd: RawFd) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Mapping { base, len })
    }

    fn advise(&self, range: Range<usize>, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range lies in this mapping (callers pass parts of it), whose content no
        // advice used here changes in this process.
        check(unsafe {
            libc::madvise(self.base.as_ptr().add(range.start).cast(), range.len(), advice)
        })?;
        Ok(())
    }

    /// From now on whoever touches that part faults.
    pub(crate) fn forbid(&self, range: Range<usize>) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: part of this mapping. Nobody has a reference to what lies there: that is the callers' promise where
        // they hand out parts, and a fault is not undefined behaviour of ours but the end of the process.
        check(unsafe {
            let start = self.base.as_ptr().add(range.start);
            libc::mprotect(start.cast(), range.len(), libc::PROT_NONE)
        })?;
        Ok(())
    }

    /// Touches pages ahead of time, where the kernel can.
    pub(crate) fn populate(&self, range: Range<usize>) {
        // Older kernels refuse; then pages are touched when they are first written.
        let _ = self.advise(range, libc::MADV_POPULATE_WRITE);
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nobody uses it after the value.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// In a forked child: puts private zeroes where a mapping of the parent is absent, so that code
/// that the fork caught in the middle of a store stores into memory that nobody reads.
pub(crate) fn fill_hole(base: usize, len: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the range is a hole that MADV_DONTFORK left in this child, which has one thread and
    // has mapped nothing since the fork.
    unsafe { libc::mmap(base as *mut _, len, protection, flags, -1, 0) };
}

/// Makes a new file `len` bytes long, and gives memory or disk to `ranges` of it at once.
pub(crate) fn allocate(fd: OwnedFd, len: u64, ranges: &[Range<u64>]) -> io::Result<OwnedFd> {
    let size = |n: u64| i64::try_from(n).map_err(|_| io::Error::other("buffer too large"));
    // SAFETY: changes the size of our own new file.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), size(len)?) })?;
    for range in ranges {
        let (at, bytes) = (size(range.start)?, size(range.end - range.start)?);
        // SAFETY: allocates inside our own new file.
        check(unsafe { libc::fallocate(fd.as_raw_fd(), 0, at, bytes) })?;
    }
    Ok(fd)
}

/// An anonymous file of `len` bytes, of which `allocate_now` are given memory at once. Sealed against
/// a change of its size.
pub(crate) fn memory_file(
    name: &CStr,
    len: u64,
    allocate_now: &[Range<u64>],
) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is a C string; the call makes a new descriptor.
    let raw = check(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: `raw` is a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    let fd = allocate(fd, len, allocate_now)?;
    seal(&fd, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)?;
    Ok(fd)
}

/// Takes the lock of an open file, which its last descriptor gives back; false if another has it.
pub(crate) fn lock(file: BorrowedFd<'_>) -> bool {
    // SAFETY: a request on a descriptor that the caller has.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Adds seals to a memory file.
pub(crate) fn seal(fd: &OwnedFd, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor that we own.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(())
}

/// Seal: no further right to write can be had, neither by `write` nor by a new mapping.
pub(crate) const NO_MORE_WRITERS: libc::c_int = libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;

/// How late the kernel may wake this thread when it sleeps, in nanoseconds; 0 of a thread that may not be late
/// at all. Threads hand it down to those that they make.
pub(crate) fn timer_slack() -> u64 {
    // SAFETY: asks for a number; no precondition.
    let slack = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) };
    u64::try_from(slack).unwrap_or(0)
}

/// Sets it; in vain where that is not allowed.
pub(crate) fn set_timer_slack(ns: u64) {
    // 0 would mean the default.
    if ns > 0 {
        // SAFETY: takes a number; no precondition.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, ns, 0, 0, 0) };
    }
}

/// The calling thread's id.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: asks for a number; no precondition.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// The calling thread's name, NUL-padded.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes 16 bytes to the buffer.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// The CPU that the calling thread runs on.
pub(crate) fn cpu() -> u32 {
    // SAFETY: asks for a number; no precondition.
    unsafe { libc::sched_getcpu() }.cast_unsigned()
}

/// Copies memory of this process at `address`, as far as it is readable; how many bytes that was.
/// Wrong addresses are the kernel's business, and no fault.
pub(crate) fn peek(address: u64, into: &mut [u8]) -> usize {
    // SAFETY: asks for a number; no precondition.
    peek_in(unsafe { libc::getpid() }, address, into)
}

/// The same where this process's number `pid` is known: the C library asks the kernel for it each time.
pub(crate) fn peek_in(pid: libc::pid_t, address: u64, into: &mut [u8]) -> usize {
    let page = 4096 - (address % 4096).min(4095) as usize;
    // What lies on the next page may not be there: two parts, of which the second may fail alone.
    let first = into.len().min(page);
    let part = |at: u64, len| libc::iovec { iov_base: at as *mut _, iov_len: len };
    let from = [part(address, first), part(address.wrapping_add(first as u64), into.len() - first)];
    let to = part(into.as_mut_ptr() as u64, into.len());
    // SAFETY: writes to `into` alone, whose address and length `to` has; what it reads is checked by
    // the kernel, which copies what is readable.
    let n = unsafe { libc::process_vm_readv(pid, &raw const to, 1, from.as_ptr(), 2, 0) };
    usize::try_from(n).unwrap_or(0)
}

/// Copies words of this process's memory from `address` on, as far as pages of it are readable; how many.
/// One call for all of it. `pid` is this process.
pub(crate) fn peek_far(pid: libc::pid_t, address: u64, into: &mut [u64]) -> usize {
    const PARTS: usize = 17;
    let bytes = size_of_val(into);
    let none = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    let (mut from, mut parts, mut at) = ([none; PARTS], 0, 0);
    // A page that is not there ends the copy at its begin: one part for each.
    while at < bytes && parts < PARTS {
        let start = address.wrapping_add(at as u64);
        let len = (4096 - (start % 4096) as usize).min(bytes - at);
        from[parts] = libc::iovec { iov_base: start as *mut _, iov_len: len };
        (parts, at) = (parts + 1, at + len);
    }
    let to = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: bytes };
    let parts = parts as libc::c_ulong;
    // SAFETY: as in `peek`: writes to `into` alone, and any bits are words.
    let n = unsafe { libc::process_vm_readv(pid, &raw const to, 1, from.as_ptr(), parts, 0) };
    usize::try_from(n).unwrap_or(0) / 8
}

/// May processes of other rights than root's read this one's memory?
pub(crate) fn dumpable() -> bool {
    // SAFETY: asks for a number; no precondition.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

/// Does this program run with other rights than its caller's (set-uid, capabilities)?
pub(crate) fn privileged() -> bool {
    // SAFETY: asks for a number; no precondition.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The effective user.
pub(crate) fn user() -> u32 {
    // SAFETY: asks for a number; no precondition.
    unsafe { libc::geteuid() }
}

/// Who is at the other end of a connected Unix socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerUser {
    /// In our pid namespace; 0 for a process that has no number there.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

/// The process and user at the other end of a connected Unix socket.
pub(crate) fn peer_user(socket: BorrowedFd<'_>) -> io::Result<PeerUser> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` and `len` describe a buffer of the size that SO_PEERCRED writes.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    })?;
    Ok(PeerUser { pid: peer.pid.try_into().unwrap_or(0), uid: peer.uid })
}

/// Sends bytes, and a descriptor with the first of them. Never raises SIGPIPE, never blocks.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0u64; 4];
    // SAFETY: all-zero is a valid msghdr: null pointers with lengths of 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(fd) = descriptor {
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE computes a number.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
        // SAFETY: the control buffer is aligned, and larger than one header and one descriptor.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `message` describes `bytes` and `control`, both of which outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Pause where waiting is refused.
const REFUSED: Duration = Duration::from_millis(100);

/// One descriptor to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) fd: RawFd,
    /// Return when something can be read.
    pub(crate) read: bool,
    /// Return when it can be written to.
    pub(crate) write: bool,
    /// Out: something can be read, or the peer has gone (which shows even where nothing is to be read).
    pub(crate) ready: bool,
}

/// Waits until one is ready, at most `timeout_ms` (−1: for ever). Interruption counts as nothing
/// ready. Where the system refuses to wait (the limit of descriptors was lowered below what is
/// open, a filter forbids the call), sleeps a little instead of spinning, and calls all of them
/// ready: the sockets do not block.
pub(crate) fn poll(waits: &mut [Wait], timeout_ms: i32) {
    let mut list: Vec<libc::pollfd> = waits
        .iter()
        .map(|w| {
            let read = if w.read { libc::POLLIN } else { 0 };
            let write = if w.write { libc::POLLOUT } else { 0 };
            libc::pollfd { fd: w.fd, events: read | write, revents: 0 }
        })
        .collect();
    // SAFETY: `list` is an array of as many entries as its length says.
    let polled = unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, timeout_ms) };
    if polled < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
        std::thread::sleep(REFUSED);
        for entry in &mut list {
            entry.revents = entry.events & libc::POLLIN;
        }
    }
    for (wait, polled) in waits.iter_mut().zip(&list) {
        let read = libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
        wait.ready = polled.revents & read != 0;
    }
}

/// Runs `body` with all signals blocked in this thread, so that a thread made by it blocks them.
pub(crate) fn with_signals_blocked<T>(body: impl FnOnce() -> T) -> T {
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
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, ptr::null_mut()) };
    result
}

/// Registers functions to run on the forking thread: before each fork, and after it in the parent
/// and in the child.
pub(crate) fn at_fork(before: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    let hook = |f: extern "C" fn()| -> Option<unsafe extern "C" fn()> { Some(f) };
    // SAFETY: the functions are this program's, and do only what they may around a fork.
    unsafe { libc::pthread_atfork(hook(before), hook(parent), hook(child)) };
}

/// Registers a function to run when the program exits.
pub(crate) fn at_exit(exit: extern "C" fn()) {
    // SAFETY: `exit` is a function of this program without preconditions.
    unsafe { libc::atexit(exit) };
}

/// Removes a file by a path that is ready to use; fit for exit handlers.
pub(crate) fn unlink(path: &CStr) {
    // SAFETY: `path` is a C string.
    unsafe { libc::unlink(path.as_ptr()) };
}

/// What a descriptor refers to, by device and inode; `None` if it is not open.
pub(crate) fn identity(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: all-zero is a valid stat to be filled in.
    let mut about: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `about` is a stat to write to.
    let result = unsafe { libc::fstat(fd, &raw mut about) };
    (result == 0).then_some((about.st_dev, about.st_ino))
}

/// Closes a descriptor that is only known by number (in a forked child).
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the caller owns the number; nothing else in the child uses it.
    unsafe { libc::close(fd) };
}

/// Sleeps while `word` is 0, at most so long. False if the time is over; true also without a reason.
pub(crate) fn sleep_while_zero(word: &AtomicU32, most: Duration) -> bool {
    let most = libc::timespec {
        tv_sec: i32::try_from(most.as_secs()).unwrap_or(i32::MAX).into(),
        tv_nsec: most.subsec_nanos().into(),
    };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word, which is borrowed, and the time, which is a local.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 0, &raw const most) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ETIMEDOUT)
}

/// Wakes whoever sleeps on `word`. Fit for signal handlers.
pub(crate) fn wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel only uses the word's address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) };
}

/// An eventfd that does not block.
pub(crate) fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor.
    let raw = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: `raw` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes an eventfd readable. Keeps `errno`; fit for signal handlers.
pub(crate) fn signal_event(fd: BorrowedFd<'_>) {
    let _errno = Errno::keep();
    let one = 1u64;
    // SAFETY: reads 8 bytes of a local.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// This thread's `errno`, as it was when the value was made and is again when it goes.
pub(crate) struct Errno(c_int);

impl Errno {
    /// Fit for signal handlers.
    pub(crate) fn keep() -> Errno {
        // SAFETY: the C library's place of this thread's `errno`, which is there as long as the thread.
        Errno(unsafe { *libc::__errno_location() })
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as in `keep`.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

/// Makes an eventfd unreadable.
pub(crate) fn clear_event(fd: BorrowedFd<'_>) {
    let mut count = 0u64;
    // SAFETY: writes 8 bytes to a local.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
}

/// The kernel's counter `config` of software events for a thread of this process (and for those that it
/// makes, with `inherit`), counting from now on, in the group of `leader`. Where the kernel's own part may not be counted there is
/// none: a switch of context, say, never happens outside of it.
pub(crate) fn perf_event(
    config: u64,
    tid: u32,
    inherit: bool,
    leader: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    /// `struct perf_event_attr`, its first published version.
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        kind: u32,
        size: u32,
        config: u64,
        period: u64,
        sample: u64,
        read: u64,
        flags: u64,
        wakeup: u32,
        breakpoint: u32,
        address: u64,
    }
    const SOFTWARE: u32 = 1;
    const INHERIT: u64 = 1 << 1;
    /// Threads inherit, forked children do not (Linux 5.13).
    const INHERIT_THREAD: u64 = 1 << 35;
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    /// Reading tells of the whole group.
    const GROUP: u64 = 1 << 3;
    let flags = if inherit { INHERIT | INHERIT_THREAD } else { 0 };
    let size = size_of::<Attr>() as u32;
    let read = if inherit { 0 } else { GROUP };
    let attr = Attr { kind: SOFTWARE, size, config, read, flags, ..Attr::default() };
    let group = leader.map_or(-1, |leader| leader.as_raw_fd());
    let tid = i32::try_from(tid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: the kernel reads `attr`, whose size it says; the call makes a new descriptor.
    let raw = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, tid, -1, group, CLOSE_ON_EXEC)
    };
    let raw = check(raw as libc::c_int)?;
    if let Some(leader) = leader {
        // One that joins a group that counts already is not begun with (seen on Linux 6.18) before the thread is
        // next switched to, or the group switched off and on.
        const ENABLE: libc::c_ulong = 0x2400;
        const DISABLE: libc::c_ulong = 0x2401;
        for request in [DISABLE, ENABLE] {
            // SAFETY: requests to a perf event, without an argument.
            unsafe { libc::ioctl(leader.as_raw_fd(), request as _, 0) };
        }
    }
    // SAFETY: `raw` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Most counters of a group that are read.
pub(crate) const PERF_GROUP: usize = 64;

/// What the counters of a group have counted, the leader's first.
pub(crate) fn perf_counts(leader: BorrowedFd<'_>) -> io::Result<Vec<u64>> {
    let mut words = [0u64; 1 + PERF_GROUP];
    // SAFETY: writes to a local, whose size it is told.
    let n =
        unsafe { libc::read(leader.as_raw_fd(), words.as_mut_ptr().cast(), size_of_val(&words)) };
    if n < 8 {
        return Err(io::Error::last_os_error());
    }
    let members = usize::try_from(words[0]).unwrap_or(0).min(PERF_GROUP);
    Ok(words[1..1 + members].to_vec())
}

/// What a counter that is inherited has counted.
pub(crate) fn perf_count(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count = 0u64;
    // SAFETY: writes 8 bytes to a local.
    let n = unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    if n == 8 { Ok(count) } else { Err(io::Error::last_os_error()) }
}

/// The clock of a thread's CPU time, as the kernel numbers them: the complement of the thread, and 6 for "a
/// thread's, scheduled".
fn cpu_clock(tid: u32) -> libc::clockid_t {
    (!tid.cast_signed()) << 3 | 6
}

/// Nanoseconds of CPU time of a thread of this process, or of the process; `None` if there is no such
/// thread (any more).
pub(crate) fn cpu_time(tid: Option<u32>) -> Option<u64> {
    let clock = match tid {
        None => libc::CLOCK_PROCESS_CPUTIME_ID,
        Some(tid) => cpu_clock(tid),
    };
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a timespec to write to.
    let result = unsafe { libc::clock_gettime(clock, &raw mut t) };
    let ns = t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned();
    (result == 0).then_some(ns)
}

/// Page faults and switches of context of this process, of threads that have ended too.
pub(crate) fn usage() -> (u64, u64) {
    // SAFETY: all-zero is a valid rusage to be filled in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a rusage to write to.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let sum = |a: libc::c_long, b: libc::c_long| a.cast_unsigned() + b.cast_unsigned();
    (sum(usage.ru_minflt, usage.ru_majflt), sum(usage.ru_nvcsw, usage.ru_nivcsw))
}
