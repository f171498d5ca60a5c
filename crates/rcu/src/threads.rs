//! Every thread of the process, by a small number.
//!
//! A thread gets an *index* at its first read section (or first call of [`thread_index`]) and
//! gives it back when it ends; the lowest free one is taken, so a program's indices stay about as
//! small as its number of threads, and arrays by index stay short.
//!
//! # Taking an index
//!
//! That first section may be in a signal handler, which may have interrupted anything. So
//! taking an index is a compare-exchange on a bitmap, a few plain system calls and no more:
//! no lock, no allocation, `errno` kept. If a handler interrupts this thread while it
//! is taking one, both take one, and the thread's word decides by compare-exchange which is
//! kept; the other goes back.
//!
//! The orderings of taking and giving back are in `indices`.
//!
//! # Giving it back
//!
//! At the thread's end (`system::notify_exit`), after destructors of thread-locals. From
//! then on the thread uses shared slots, which are slower and always right.
//! A thread that ends *inside* a section (its guard was leaked) keeps its index for ever:
//! what the guard protects may still be referred to, through a leaked guard by any thread,
//! so the section never ends, and its culprit stays known by name (`Holdout::ended`). When its domain is gone,
//! [`refresh_names`] takes the index back.
//!
//! A thread whose first section comes in the last rounds of its pthread-key destructors gets no
//! notice; [`refresh_names`] finds such indices, by asking the kernel for their threads.

use crate::arch;
use crate::blocks;
use crate::indices;
use crate::record::{ENDED, FREE, Known, LIVE, Read};
use crate::region;
use crate::start;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use crate::system::{self, Errno, NAME_LEN};
use crate::waiters;
use std::fmt;
use std::ptr;

/// The number of thread indices (fewer in Miri). Threads beyond it use shared slots.
pub const MAX_THREADS: usize = if cfg!(miri) { 256 } else { 65_536 };

/// Where a thread's slot is in every region: the offset in bytes, plus one. Regions keep
/// their address minus one, so that one `test` of the two tells whether both are there
/// (both are odd) and their sum is the slot. 0 is *no index*.
pub(crate) type Word = usize;

const fn word_of(index: u32) -> Word {
    region::slot_offset(index as usize) + 1
}

const fn index_of(word: Word) -> u32 {
    region::slot_index(word - 1) as u32
}

/// The index of a thread that had this word; `None` if that was 0.
pub(crate) fn index_of_word(word: Word) -> Option<u32> {
    (word != 0).then(|| index_of(word))
}

/// One bit per index, set while it is taken.
static TAKEN: [AtomicU64; MAX_THREADS / 64] = [const { AtomicU64::new(0) }; MAX_THREADS / 64];
/// One more than the highest index ever taken.
static HIGH_WATER: AtomicU32 = AtomicU32::new(0);
/// The records, `MAX_THREADS` of them, once mapped.
static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// What is known of the thread that has an index. All zero is a free record.
#[derive(Debug)]
#[repr(C, align(64))]
struct Record {
    known: Known,
    /// Whom the thread waits for.
    wait: waiters::Entry,
}

const _: () = assert!(size_of::<Record>() == 64);

impl Record {
    /// What is in it, if it belongs together.
    fn read(&self) -> Option<(u32, ThreadInfo)> {
        let Read { version, tid, name, ended } = self.known.read()?;
        Some((version, ThreadInfo { tid, name: ThreadName(name), ended }))
    }

    fn occupy(&self) {
        self.known.occupy(system::thread_id(), system::thread_name());
    }
}

/// A thread's name in the kernel: up to 15 bytes, not always UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThreadName([u8; NAME_LEN]);

impl ThreadName {
    /// The name's bytes, without padding.
    ///
    /// ```
    /// let index = gracepoint_rcu::thread_index().expect("an index");
    /// let info = gracepoint_rcu::thread_info(index).expect("this thread is alive");
    /// assert!(info.name.as_bytes().len() <= 15);
    /// ```
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        &self.0[..len]
    }
}

/// The name as text, with replacement characters where it is not UTF-8.
impl fmt::Display for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

/// A thread, as it was when it took its index or when [`refresh_names`] was last called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadInfo {
    /// The kernel's number for the thread (`gettid`).
    pub tid: u32,
    /// Its name.
    pub name: ThreadName,
    /// It ended inside a read section, and keeps its index for that.
    pub ended: bool,
}

/// For `mirror`: the addresses of the word that points to the records and of the one that says how many
/// were ever taken; a record's size; where version, number, name and wait are.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn places() -> [usize; 7] {
    [
        ptr::from_ref(&RECORDS).addr(),
        ptr::from_ref(&HIGH_WATER).addr(),
        size_of::<Record>(),
        std::mem::offset_of!(Record, known.version),
        std::mem::offset_of!(Record, known.tid),
        std::mem::offset_of!(Record, known.name),
        std::mem::offset_of!(Record, wait),
    ]
}

fn records() -> Option<&'static [Record]> {
    let address = RECORDS.load(Ordering::Acquire);
    if address.is_null() {
        return None;
    }
    // SAFETY: non-null only after `map_records` stored a zeroed mapping of MAX_THREADS
    // records, page-aligned and never unmapped; all-zero is a valid Record.
    Some(unsafe { std::slice::from_raw_parts(address, MAX_THREADS) })
}

fn map_records() -> Option<&'static [Record]> {
    if records().is_none() {
        let fresh = system::map_zeroed(MAX_THREADS * size_of::<Record>())?.cast::<Record>();
        // If another thread (or a signal handler) was first, this mapping stays unused: a
        // stretch of addresses and no memory.
        let _ = RECORDS.compare_exchange(
            ptr::null_mut(),
            fresh.as_ptr(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }
    records()
}

fn record(index: u32) -> Option<&'static Record> {
    records()?.get(index as usize)
}

/// This thread's word, taking an index if it has none and may have one. 0 if it may not.
#[cold]
pub(crate) fn register() -> Word {
    start::ensure();
    let known = arch::slot_word();
    if known != 0 {
        return known;
    }
    let _errno = Errno::keep();
    if arch::with_thread(|thread| thread.gone.load(Ordering::Relaxed)) != 0 {
        return 0;
    }
    let Some(records) = map_records() else { return 0 };
    if !system::notify_exit() {
        return 0;
    }
    let Some(index) = indices::claim(&TAKEN) else { return 0 };
    records[index as usize].wait.clear();
    records[index as usize].occupy();
    // Before this thread's first increment, so that a scan whose heavy barrier comes after
    // that increment looks at this slot.
    HIGH_WATER.fetch_max(index + 1, Ordering::Relaxed);
    let word = word_of(index);
    // Only this thread and its signal handlers write the word; the exchange is against those.
    let kept = arch::with_thread(|thread| {
        thread.slot.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed)
    });
    match kept {
        Ok(_) => word,
        Err(by_handler) => {
            free_record(index);
            by_handler
        }
    }
}

fn free_record(index: u32) {
    if let Some(record) = record(index) {
        record.wait.clear();
        record.known.end(FREE);
    }
    indices::put_back(&TAKEN, index);
}

/// Called by the system on a thread that is about to end, when nothing but signal handlers
/// and destructors of others can still run on it.
pub(crate) fn thread_ends() {
    let word = arch::with_thread(|thread| {
        thread.gone.store(1, Ordering::Relaxed);
        let word = thread.slot.swap(0, Ordering::Relaxed);
        blocks::clear(&thread.shelf);
        word
    });
    // From here on a signal handler of this thread uses shared slots, so what follows sees
    // the slot's last values.
    compiler_fence(Ordering::SeqCst);
    if word == 0 {
        return;
    }
    let index = index_of(word);
    tell_hook(index);
    if region::is_inside_any(index) {
        if let Some(record) = record(index) {
            record.known.end(ENDED);
        }
    } else {
        free_record(index);
    }
}

/// Before an index becomes free, when no thread uses it any more.
fn tell_hook(index: u32) {
    // Acquire: pairs with the release in `on_thread_exit`.
    let hook = EXIT_HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `on_thread_exit` stores to EXIT_HOOK, and what it stores is a `fn(u32)`.
        let hook = unsafe { std::mem::transmute::<*mut (), fn(u32)>(hook) };
        hook(index);
    }
}

static EXIT_HOOK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Calls `hook` with the index of each thread that ends, when no code of that thread uses the index
/// any more and nobody else does yet. One hook for the process; a later one replaces it.
///
/// The hook runs after destructors of thread-locals, usually on the thread that ends. It may enter
/// read sections, and must not panic.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// static LATEST: AtomicU32 = AtomicU32::new(u32::MAX);
/// gracepoint_rcu::on_thread_exit(|index| LATEST.store(index, Relaxed));
/// let index = std::thread::spawn(gracepoint_rcu::thread_index).join().expect("joined");
/// assert_eq!(Some(LATEST.load(Relaxed)), index);
/// ```
pub fn on_thread_exit(hook: fn(u32)) {
    // Release: pairs with the acquire in `thread_ends`; what the hook reads is written.
    EXIT_HOOK.store(hook as *mut (), Ordering::Release);
}

/// The calling thread's index, taken on first use; then one load.
///
/// `None` at the very end of a thread, when [`MAX_THREADS`] threads have one, or when the
/// system cannot tell when the thread ends. Read sections work without.
///
/// Safe in signal handlers.
///
/// ```
/// let mine = gracepoint_rcu::thread_index();
/// assert_eq!(mine, gracepoint_rcu::thread_index());
/// let other = std::thread::spawn(gracepoint_rcu::thread_index).join().expect("joined");
/// assert_ne!(mine, other);
/// ```
#[inline]
#[must_use]
pub fn thread_index() -> Option<u32> {
    match arch::slot_word() {
        0 => match register() {
            0 => None,
            word => Some(index_of(word)),
        },
        word => Some(index_of(word)),
    }
}

/// 64 times the calling thread's index, if it has one already: where its element begins in an array of
/// cache lines. The index itself costs a shift more, and the product another.
#[doc(hidden)]
#[inline]
#[must_use]
pub fn thread_line() -> Option<usize> {
    match arch::slot_word() {
        0 => None,
        word => Some(word - word_of(0)),
    }
}

/// The thread that has this index now, if any.
///
/// Allocates nothing and takes no lock. (`None` also if its owner is being written at this moment.)
///
/// ```
/// let index = gracepoint_rcu::thread_index().expect("an index");
/// let info = gracepoint_rcu::thread_info(index).expect("this thread is alive");
/// println!("{} is {}", info.tid, info.name);
/// assert!(gracepoint_rcu::thread_info(u32::MAX).is_none());
/// ```
#[must_use]
pub fn thread_info(index: u32) -> Option<ThreadInfo> {
    record(index)?.read().map(|(_, info)| info)
}

/// Where the thread with this index says whom it waits for.
pub(crate) fn wait_entry(index: u32) -> Option<&'static waiters::Entry> {
    record(index).map(|record| &record.wait)
}

/// One more than the highest index that was ever taken: how long an array by index must be.
///
/// ```
/// let index = gracepoint_rcu::thread_index().expect("an index");
/// assert!(index < gracepoint_rcu::high_water());
/// ```
#[must_use]
pub fn high_water() -> u32 {
    HIGH_WATER.load(Ordering::Relaxed)
}

/// The threads that have an index, in order of index. Not a snapshot: threads come and go
/// while it runs.
///
/// ```
/// let mine = gracepoint_rcu::thread_index().expect("an index");
/// assert!(gracepoint_rcu::live_threads().any(|(index, _)| index == mine));
/// ```
pub fn live_threads() -> impl Iterator<Item = (u32, ThreadInfo)> {
    (0..high_water()).filter_map(|index| Some((index, thread_info(index)?)))
}

/// Reads the names of all threads again, since threads may rename themselves, and takes back
/// indices whose thread turns out to be gone. Opens a file per thread and allocates: not
/// for signal handlers. Does nothing where there is no `/proc`.
///
/// ```
/// gracepoint_rcu::refresh_names();
/// ```
pub fn refresh_names() {
    let mine = thread_index();
    for index in 0..high_water() {
        let Some(record) = record(index) else { return };
        let Some((version, info)) = record.read() else { continue };
        // Never this thread's own, which is alive whatever its record says: a child made by
        // a bare `clone` has its parent's number there.
        if info.ended || Some(index) != mine && system::thread_is_gone(info.tid) {
            // Gone without notice, or ended inside of sections (then the kernel is not asked: it may know another
            // thread by that number). The fence is for the counters, which the thread wrote before the
            // kernel forgot it.
            fence(Ordering::SeqCst);
            if region::is_inside_any(index) {
                continue;
            }
            // Pairs with the release of the sections' ends, which a thread that has ended may have counted late, from
            // destructors after ours; that was the last of what it did with its index.
            fence(Ordering::Acquire);
            if record.known.amend(version, FREE, None) {
                if !info.ended {
                    tell_hook(index); // It was told when the thread ended.
                }
                indices::put_back(&TAKEN, index);
            }
        } else if let Some(name) = system::task_name(info.tid) {
            record.known.amend(version, LIVE, Some(name));
        }
    }
}

/// After `fork`, in the child: frees the indices of threads that it does not have, and gives
/// this thread its new number. `neutralise` is called with each index that is freed.
pub(crate) fn child_after_fork(neutralise: impl Fn(u32)) {
    let mine = match arch::slot_word() {
        0 => None,
        word => Some(index_of(word)),
    };
    // All of the bitmap, and not up to the high-water mark: a lost thread may have been
    // between its claim and raising the mark.
    for (position, word) in TAKEN.iter().enumerate() {
        let mut taken = word.load(Ordering::Relaxed);
        while taken != 0 {
            let index = position as u32 * 64 + taken.trailing_zeros();
            taken &= taken - 1;
            let Some(record) = record(index) else { return };
            if Some(index) == mine {
                record.occupy();
            } else if record.known.state() != ENDED {
                neutralise(index);
                free_record(index);
            }
        }
    }
}
