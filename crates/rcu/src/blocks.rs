//! Memory for small callbacks: places side by side in blocks, a block in use per thread.
//!
//! Who retires a `Box` has allocated once already, and its callback is a few words. So a thread gives those
//! places in a block of its own, one after the other: an allocation for [`PLACES`] callbacks, and memory that
//! the processor's caches like. What does not fit is boxed, as are callbacks of threads without an index.
//!
//! * *Giving a place* is the thread's own business: `used` and the pointer to the block are touched by it
//!   alone. A block whose last place was given out is forgotten by its thread.
//! * *Freeing* is counted: `left` begins at [`PLACES`], each place that was run takes one away, and a thread that
//!   ends takes those that it has not given out. Who takes the last frees the block. Release on each taking
//!   and an acquire fence before freeing, as in `Arc`: the block is freed after everybody's last use of
//!   a place (twin in `tests/loom_updaters.rs`). A runner takes its places away in one go ([`Spent`]), because
//!   most of those that it runs in sequence are of one block.
//! * *Memory goes round* between the thread that gives places and the one that runs callbacks, each of which finds it in
//!   the other's cache. So lines are asked for some places before they are needed, or a block's all at once: a
//!   third of what it takes to free by the domain's thread (`gracepoint-bench -- grace-period`).
//! * *What it costs:* one callback that waits for long keeps its whole block (968 bytes).
//! * *In a forked child* blocks are as the parent's. What a lost thread was giving out of, or was
//!   running from, is never freed: a block each.

use crate::arch;
use crate::sync::{AtomicUsize, Ordering, fence, unexplored};
use std::alloc::{Layout, alloc, dealloc};
use std::mem::{MaybeUninit, offset_of};
use std::ptr::{self, NonNull};

/// Places of a block. They make it less than 1 KiB, from where on allocators call a request large: glibc's
/// then consolidates what is free, which costs more than blocks gain.
pub(crate) const PLACES: usize = 17;

/// Room for a callback.
pub(crate) type Place = MaybeUninit<[u64; 7]>;

/// See the module's text.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Block {
    /// Places that were neither run nor left unused for ever.
    left: AtomicUsize,
    /// Places given out. The owner's.
    used: usize,
    places: [Place; PLACES],
}

/// How many lines ahead of the place that is given out the next ones are fetched.
const AHEAD: usize = 5;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Where a thread keeps its block; null if it has none. Only that thread uses it.
pub(crate) type Shelf = unexplored::AtomicPtr<Block>;

/// A place in the calling thread's block, and the block; the caller fills it. `None` if there is no memory.
#[inline]
pub(crate) fn give(shelf: &Shelf) -> Option<(NonNull<Place>, NonNull<Block>)> {
    let block = NonNull::new(shelf.load(Ordering::Relaxed)).or_else(|| fresh(shelf))?;
    let at = block.as_ptr();
    // SAFETY: a block on a shelf is live, because it has places that were not given out; `used` is this
    // thread's alone and less than PLACES, since the block is taken off the shelf below otherwise.
    let (place, used) = unsafe {
        let used = (*at).used;
        (*at).used = used + 1;
        (NonNull::new_unchecked((&raw mut (*at).places).cast::<Place>().add(used)), used + 1)
    };
    fetch(place.as_ptr(), AHEAD);
    if used == PLACES {
        shelf.store(ptr::null_mut(), Ordering::Relaxed);
    }
    Some((place, block))
}

#[cold]
fn fresh(shelf: &Shelf) -> Option<NonNull<Block>> {
    #[expect(clippy::cast_ptr_alignment, reason = "allocated with the alignment of a Block")]
    // SAFETY: the layout has a size.
    let block = NonNull::new(unsafe { alloc(Layout::new::<Block>()) }.cast::<Block>())?;
    // SAFETY: allocated just now for a Block, whose places need no value.
    unsafe {
        (&raw mut (*block.as_ptr()).left).write(AtomicUsize::new(PLACES));
        (&raw mut (*block.as_ptr()).used).write(0);
    }
    (0..=AHEAD).for_each(|line| fetch(block.as_ptr(), line));
    // An allocator that retires something itself may have put one there meanwhile.
    put_away(shelf.swap(block.as_ptr(), Ordering::Relaxed));
    Some(block)
}

/// Begins to fetch what is so many lines behind `from`.
#[inline]
fn fetch<T>(from: *const T, lines: usize) {
    arch::prefetch(MaybeUninit::new(from.cast::<u8>().wrapping_add(lines * LINE)));
}

/// Begins to fetch all of a block, for who goes through its places from the last to the first and is at `place`: if
/// that is the last.
#[inline]
pub(crate) fn fetch_below(place: *const Place, block: NonNull<Block>) {
    const LAST: usize = offset_of!(Block, places) + (PLACES - 1) * size_of::<Place>();
    if place.addr() == block.addr().get() + LAST {
        (0..LAST / LINE).rev().for_each(|line| fetch(block.as_ptr(), line));
    }
}

/// Ends the use of a shelf, when its thread ends.
pub(crate) fn clear(shelf: &Shelf) {
    put_away(shelf.swap(ptr::null_mut(), Ordering::Relaxed));
}

fn put_away(block: *mut Block) {
    if let Some(block) = NonNull::new(block) {
        // SAFETY: it was on this thread's shelf, so it is live and has places that were not given
        // out, which nobody else takes away; and it is on the shelf no more.
        unsafe { take_away(block, PLACES - (*block.as_ptr()).used) };
    }
}

/// # Safety
/// `block` is live, `count` of its places were not taken away yet, are the caller's to take, and are not
/// used any more.
unsafe fn take_away(block: NonNull<Block>, count: usize) {
    // SAFETY: live until the last place is taken away, by this function's contract. No reference to all of
    // it, since its owner writes `used` meanwhile.
    let left = unsafe { &(*block.as_ptr()).left };
    // Release and the acquire below: see the module's text.
    if left.fetch_sub(count, Ordering::Release) == count {
        fence(Ordering::Acquire);
        crate::sync::block_ends();
        // SAFETY: no place is left, so nobody else has a pointer to it that he will use; allocated
        // in `fresh` with this layout.
        unsafe {
            ptr::drop_in_place(&raw mut (*block.as_ptr()).left);
            dealloc(block.as_ptr().cast(), Layout::new::<Block>());
        }
    }
}

/// Places of one block that were run and not yet taken away.
#[derive(Debug)]
pub(crate) struct Spent {
    block: Option<NonNull<Block>>,
    count: usize,
}

impl Spent {
    pub(crate) const NONE: Self = Self { block: None, count: 0 };

    /// Takes one place of `block` away, now or later, at the latest when this is dropped.
    ///
    /// # Safety
    /// The place was given out, is not used any more, and is added here and nowhere else, once.
    #[inline]
    pub(crate) unsafe fn add(&mut self, block: NonNull<Block>) {
        if self.block != Some(block) {
            self.take_away();
            self.block = Some(block);
        }
        self.count += 1;
    }

    fn take_away(&mut self) {
        if let Some(block) = self.block.take() {
            // SAFETY: `count` places of this block were added, by `add`'s contract each for good.
            unsafe { take_away(block, std::mem::take(&mut self.count)) };
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.take_away();
    }
}
