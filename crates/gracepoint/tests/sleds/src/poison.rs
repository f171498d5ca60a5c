//! An allocator that writes over what is freed.

use std::alloc::{GlobalAlloc, Layout, System};

/// See the top.
pub(crate) struct Poisoned;

/// What a freed byte is.
const POISON: u8 = 0xde;

// SAFETY: the system's allocator, whose promises are passed on; a block that is handed back is its last owner's to
// write to until it is handed on.
unsafe impl GlobalAlloc for Poisoned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; all of the block is the caller's.
        unsafe {
            at.write_bytes(POISON, layout.size());
            System.dealloc(at, layout);
        }
    }
}
