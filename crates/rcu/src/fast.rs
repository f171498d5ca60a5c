//! The word that opens a domain's fast path, and how it is taken back.
//!
//! It is an address minus one (`Region::base`), so it is odd, or null: then sections are entered by `Domain::read_slow`.
//! Who comes by there offers the address again and again; somebody else withdraws it when sections are to be noted.
//! Both may happen at once, and the word must not stay offered then:
//!
//! * who withdraws has set that sections are noted; fence; stores null;
//! * who offers stores the address; fence; looks whether sections are noted, and takes the address back if so.
//!
//! Whose fence comes second sees what the other stored before his. If that is who offers, he takes it back; if it is
//! who withdraws, his null comes after the address. (Each fence has a twin in `tests/loom/orderings.rs`, and so has the
//! release with which the address is offered.)

use crate::sync::{AtomicPtr, Ordering, constant, fence};
use std::ptr;

/// See the module's text.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Fast {
    base: AtomicPtr<u8>,
}

impl Fast {
    constant! {
        pub(crate) fn new() -> Self {
            Self { base: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// The address, or null.
    #[inline(always)]
    pub(crate) fn get(&self) -> *mut u8 {
        // Acquire: pairs with the release in `offer`; the region is whole before it is used.
        self.base.load(Ordering::Acquire)
    }

    /// Opens the fast path, unless sections are to be noted.
    #[inline]
    pub(crate) fn offer(&self, base: *mut u8, is_noting: impl FnOnce() -> bool) {
        // Release: pairs with the acquire in `get`.
        self.base.store(base, Ordering::Release);
        // Pairs with the fence in `withdraw`.
        fence(Ordering::SeqCst);
        if is_noting() {
            self.base.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Closes it, after what `is_noting` looks at was set.
    pub(crate) fn withdraw(&self) {
        // Pairs with the fence in `offer`.
        fence(Ordering::SeqCst);
        self.base.store(ptr::null_mut(), Ordering::Relaxed);
    }
}
