//! The guards: what keeps a read section open.
//!
//! A [`Guard`] stays on its thread and is one word: the address of its pair of counters, whose low
//! bits are free and say how to leave.
//!
//! | low bits | slot | entered by | left by |
//! |---|---|---|---|
//! | 0 | own | `inc`, compiler fence | `inc` with release |
//! | FENCED | own | `inc`, SeqCst fence | `inc` with release |
//! | SHARED | the region's | atomic add, barrier of the form in force | atomic add (release) |
//! | NOTED, with one of the above | | and noted (see `sites`) | and noted |
//!
//! The SeqCst fence pairs with the one that `barrier::heavy` then is.
//!
//! An [`OwnedGuard`] belongs to no thread. Its section is counted in the entry of its owner (see
//! `owners`), entered and left as on a shared slot.

use crate::arch;
use crate::counters::{self, Pair};
use crate::domain::Domain;
use crate::sites;
use crate::sync::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::ptr;

pub(crate) const FENCED: usize = 1;
pub(crate) const SHARED: usize = 2;
pub(crate) const NOTED: usize = 4;
pub(crate) const HOW: usize = FENCED | SHARED | NOTED;

/// The type of guards and cells of a domain that has no type of its own: of any [`Domain`] that is a
/// plain value. Which of them, is compared when a guard is used. See [`domain!`](crate::domain!).
#[derive(Debug)]
pub enum Any {}

/// A borrow of a domain whose guards have this type, of which they have no value.
type DomainOfType<'d, D> = (&'d Domain, fn() -> D);

/// A guard that opens the cells of domains of type `D`: [`Guard`] or [`OwnedGuard`].
///
/// ```
/// # use gracepoint_rcu::{Domain, RcuCell, ReadGuard};
/// # static DOMAIN: Domain = Domain::new("doc");
/// fn sum(cell: &RcuCell<'_, Vec<u32>>, guard: &impl ReadGuard) -> u32 {
///     cell.load(guard).iter().sum()
/// }
///
/// let cell = RcuCell::new(&DOMAIN, vec![1, 2]);
/// assert_eq!(sum(&cell, &DOMAIN.read()), 3);
/// assert_eq!(sum(&cell, &DOMAIN.read_owned("adder")), 3);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a guard of this cell's domain",
    label = "a guard of another domain",
    note = "it would not keep the cell's value from being dropped; enter a section of the cell's own domain"
)]
pub trait ReadGuard<D = Any>: sealed::Counted {}

impl<D> ReadGuard<D> for Guard<'_, D> {}
impl<D> ReadGuard<D> for OwnedGuard<'_, D> {}

pub(crate) mod sealed {
    /// Where a guard's section is counted. Only this crate implements it, so that an address in a
    /// domain's region is proof of an open section of it.
    pub trait Counted {
        #[doc(hidden)]
        fn address(&self) -> usize;
    }
}

/// An open read section. Dropping it ends the section.
///
/// It stays on its thread; see [`Domain::read`], and [`Domain::read_owned`] for one that does not.
#[must_use = "the read section ends when the guard is dropped"]
pub struct Guard<'d, D = Any> {
    /// The section's pair of counters, with `HOW` to leave in the low bits.
    pair: *const Pair,
    domain: PhantomData<DomainOfType<'d, D>>,
}

impl<'d, D> Guard<'d, D> {
    #[inline(always)]
    pub(crate) fn new(pair: &Pair, how: usize) -> Self {
        const { assert!(align_of::<Pair>() > HOW) };
        Self { pair: ptr::from_ref(pair).map_addr(|address| address | how), domain: PhantomData }
    }

    /// Keeps the section open; see [`from_address`](Self::from_address).
    #[cfg(all(
        target_arch = "x86_64",
        target_os = "linux",
        target_pointer_width = "64",
        not(miri)
    ))]
    pub(crate) fn into_address(self) -> usize {
        std::mem::ManuallyDrop::new(self).pair.expose_provenance()
    }

    /// The guard that `into_address` was called on.
    ///
    /// # Safety
    /// It is the address of a pair of a region, with `HOW` to leave in the low bits, whose section is
    /// open, was entered by this thread, and has no other guard.
    #[cfg(all(
        target_arch = "x86_64",
        target_os = "linux",
        target_pointer_width = "64",
        not(miri)
    ))]
    pub(crate) unsafe fn from_address(address: usize) -> Self {
        Self { pair: ptr::with_exposed_provenance(address), domain: PhantomData }
    }

    /// The same section, as that of a domain of another type: the one that it is of.
    #[inline(always)]
    pub(crate) fn of_type<E>(self) -> Guard<'d, E> {
        let pair = std::mem::ManuallyDrop::new(self).pair;
        Guard { pair, domain: PhantomData }
    }
}

/// A [`Guard`] that is left by one increment, whatever happens: for code that counts instructions.
#[doc(hidden)]
#[derive(Debug)]
#[must_use = "the read section ends when the guard is dropped"]
pub struct QuickGuard<'d> {
    pair: *const Pair,
    domain: PhantomData<&'d Domain>,
}

impl QuickGuard<'_> {
    #[inline(always)]
    pub(crate) fn new(pair: &Pair) -> Self {
        Self { pair, domain: PhantomData }
    }
}

impl Drop for QuickGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `Guard::drop`.
        counters::leave(unsafe { &*self.pair });
    }
}

impl<D> sealed::Counted for Guard<'_, D> {
    #[inline(always)]
    fn address(&self) -> usize {
        self.pair.addr()
    }
}

impl<D> Drop for Guard<'_, D> {
    #[inline]
    fn drop(&mut self) {
        if self.pair.addr() & HOW != 0 {
            leave_slowly(self.pair);
            return;
        }
        // SAFETY: without low bits this is the pair that `Guard::new` was given: of a region, which is
        // never unmapped, and in this thread's own slot, since guards are not Send and the
        // index is not given back while a section is open.
        counters::leave(unsafe { &*self.pair });
    }
}

#[cold]
#[inline(never)]
fn leave_slowly(pair: *const Pair) {
    let how = pair.addr() & HOW;
    // SAFETY: the pair that `Guard::new` was given; regions are never unmapped.
    let pair = unsafe { &*pair.map_addr(|address| address & !HOW) };
    if how & NOTED != 0 {
        sites::leave(pair);
    }
    if how & SHARED != 0 {
        counters::leave_among_many(pair);
        arch::with_thread(|thread| thread.shared.fetch_sub(1, Ordering::Relaxed));
    } else {
        // (More than a noted section needs where readers execute no barrier.)
        counters::leave(pair);
    }
}

impl<D> fmt::Debug for Guard<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// An open read section that belongs to no thread: it may be held across `.await`, moved to another
/// thread and used by several at once. Dropping it, wherever, ends the section. See [`Domain::read_owned`].
#[must_use = "the read section ends when the guard is dropped"]
pub struct OwnedGuard<'d, D = Any> {
    /// The section's pair of counters, in an entry of `owners` or the region's `nameless` slot: written
    /// by atomic additions only.
    pair: *const Pair,
    domain: PhantomData<DomainOfType<'d, D>>,
}

// SAFETY: the pair is only ever added to atomically, and counted for the whole section on whatever thread;
// that accesses of the section are over when its end is counted, is the release in `leave_among_many`
// after whatever brought the guard to the thread that drops it. Nothing else is in it (`D` is not).
unsafe impl<D> Send for OwnedGuard<'_, D> {}
// SAFETY: a shared one gives out an address and nothing else; the section is open while any
// reference to it lives, since dropping it needs it alone.
unsafe impl<D> Sync for OwnedGuard<'_, D> {}

impl<'d, D> OwnedGuard<'d, D> {
    #[inline(always)]
    pub(crate) fn new(pair: &Pair) -> Self {
        Self { pair: ptr::from_ref(pair), domain: PhantomData }
    }

    /// As [`Guard::of_type`].
    #[inline(always)]
    pub(crate) fn of_type<E>(self) -> OwnedGuard<'d, E> {
        let pair = std::mem::ManuallyDrop::new(self).pair;
        OwnedGuard { pair, domain: PhantomData }
    }
}

impl<D> sealed::Counted for OwnedGuard<'_, D> {
    #[inline(always)]
    fn address(&self) -> usize {
        self.pair.addr()
    }
}

impl<D> Drop for OwnedGuard<'_, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the pair that `new` was given, of a region, which is never unmapped.
        counters::leave_among_many(unsafe { &*self.pair });
    }
}

impl<D> fmt::Debug for OwnedGuard<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedGuard").finish_non_exhaustive()
    }
}

const _: () = {
    const fn may_go_anywhere<T: Send + Sync>() {}
    may_go_anywhere::<OwnedGuard<'static>>();
};
