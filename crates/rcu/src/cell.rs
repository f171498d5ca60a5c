//! [`RcuCell`]: a value that many read and some replace, without `unsafe` at the caller.
//!
//! One pointer to an immutable value. Readers load it inside of a section; who replaces it leaves the
//! old value to the domain ([`Domain::retire`]), which drops it after a grace period.
//!
//! Why a reference is good for as long as it can be held: it borrows the guard and the cell. While
//! the guard is there, its section is open, and [`assert_of`](RcuCell::assert_of) has seen that it is
//! one of the cell's own domain. A value that is replaced after it was found in the section is retired
//! after that, so its grace period began while the section was open and waits for it. A cell that is
//! dropped is borrowed by nobody.
//!
//! Orderings: the load is an acquire and pairs with the release of the exchange that published the value:
//! without it the reader might see the pointer before what is behind it (not on x86, where the test
//! would not notice; it is the release and acquire of every published pointer).

use crate::domain::Domain;
use crate::guard::{Any, ReadGuard};
use crate::sync::{AtomicPtr, Ordering};
use crate::typed::AnyDomain;
use std::fmt;
use std::marker::PhantomData;

/// A value that is read inside of sections of one domain and replaced at any time.
///
/// Readers never wait. What is replaced is dropped after a grace period, by whoever
/// [drives](Domain::drive) the domain then.
///
/// ```
/// use gracepoint_rcu::{Domain, RcuCell};
///
/// static DOMAIN: Domain = Domain::new("routes");
///
/// let routes = RcuCell::new(&DOMAIN, vec!["here"]);
/// let guard = DOMAIN.read();
/// let before = routes.load(&guard);
/// routes.update(|routes| routes.iter().copied().chain(["there"]).collect());
/// assert_eq!(before, &["here"]); // kept while the guard is
/// assert_eq!(routes.load(&guard), &["here", "there"]);
/// drop(guard);
/// DOMAIN.barrier().expect("not inside a section"); // the first list is dropped
/// ```
///
/// A reference does not outlive its guard:
///
/// ```compile_fail,E0505
/// # use gracepoint_rcu::{Domain, RcuCell};
/// # static DOMAIN: Domain = Domain::new("doc");
/// let cell = RcuCell::new(&DOMAIN, 1);
/// let guard = DOMAIN.read();
/// let value = cell.load(&guard);
/// drop(guard);
/// assert_eq!(*value, 1);
/// ```
///
/// nor its cell:
///
/// ```compile_fail,E0505
/// # use gracepoint_rcu::{Domain, RcuCell};
/// # static DOMAIN: Domain = Domain::new("doc");
/// let cell = RcuCell::new(&DOMAIN, 1);
/// let guard = DOMAIN.read();
/// let value = cell.load(&guard);
/// drop(cell);
/// assert_eq!(*value, 1);
/// ```
///
/// and a cell whose value must stay on its thread does not leave it:
///
/// ```compile_fail,E0277
/// # use gracepoint_rcu::{Domain, RcuCell};
/// # static DOMAIN: Domain = Domain::new("doc");
/// let cell = RcuCell::new(&DOMAIN, std::rc::Rc::new(1));
/// ```
///
/// `D` is the type of its domain: [`Any`] for a plain [`Domain`], of which the right one is asked for when
/// the program runs; or that of a domain which was declared by [`domain!`](crate::domain!), whose
/// cells other domains' guards do not open at all.
pub struct RcuCell<'d, T: Send + Sync + 'static, D = Any> {
    domain: &'d Domain,
    /// From `Box::into_raw`, never null. The value is immutable from then on.
    value: AtomicPtr<T>,
    /// It drops a `T` and lends `&T` to several threads.
    owns: PhantomData<T>,
    tag: PhantomData<fn() -> D>,
}

impl<'d, T: Send + Sync + 'static, D> RcuCell<'d, T, D> {
    /// A cell whose readers are those of `domain`. Allocates.
    ///
    /// ```
    /// # use gracepoint_rcu::{Domain, RcuCell};
    /// static DOMAIN: Domain = Domain::new("limits");
    /// let limit = RcuCell::new(&DOMAIN, 100_u32);
    /// assert_eq!(*limit.load(&DOMAIN.read()), 100);
    /// ```
    #[must_use]
    pub fn new(domain: &'d impl AnyDomain<Tag = D>, value: T) -> Self {
        let value = AtomicPtr::new(Box::into_raw(Box::new(value)));
        Self { domain: domain.plain(), value, owns: PhantomData, tag: PhantomData }
    }

    /// The domain that its readers must be in.
    ///
    /// ```
    /// # use gracepoint_rcu::{Domain, RcuCell};
    /// # static DOMAIN: Domain = Domain::new("doc");
    /// fn sum(list: &RcuCell<'_, Vec<u32>>) -> u32 {
    ///     let guard = list.domain().read();
    ///     list.load(&guard).iter().sum()
    /// }
    /// assert_eq!(sum(&RcuCell::new(&DOMAIN, vec![1, 2])), 3);
    /// ```
    #[must_use]
    pub fn domain(&self) -> &'d Domain {
        self.domain
    }

    /// The value as it is now. It stays as it is, and stays there, until the guard is dropped.
    ///
    /// Any guard of the domain will do: a [`Guard`](crate::Guard) or an [`OwnedGuard`](crate::OwnedGuard).
    /// A few loads and comparisons, whether it is the right one included; never waits.
    ///
    /// # Panics
    /// If the guard is of another domain: it would keep the wrong things from being dropped.
    ///
    /// ```
    /// # use gracepoint_rcu::{Domain, RcuCell};
    /// # static DOMAIN: Domain = Domain::new("doc");
    /// let name = RcuCell::new(&DOMAIN, String::from("first"));
    /// let guard = DOMAIN.read();
    /// let first = name.load(&guard);
    /// name.replace(String::from("second"));
    /// assert_eq!((first.as_str(), name.load(&guard).as_str()), ("first", "second"));
    /// ```
    #[inline]
    pub fn load<'g>(&'g self, guard: &'g impl ReadGuard<D>) -> &'g T {
        self.assert_of(guard);
        // Acquire: pairs with the exchange in `replace` and `update`; see the module's text.
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: from `Box::into_raw` and never null (the field's invariant). It is freed only by
        // `retire`, after a grace period that begins after it was replaced, thus after this
        // load, in a section of the same domain (just asserted) that `'g` keeps open; or by
        // the cell's drop, which `'g` excludes. Nobody has a `&mut` to it before that.
        unsafe { &*value }
    }

    #[inline]
    fn assert_of(&self, guard: &impl ReadGuard<D>) {
        if !self.domain.is_guarded_by(guard) {
            other_domain(self.domain.name());
        }
    }

    /// Replaces the value. The old one is dropped after a grace period.
    ///
    /// Allocates; never waits. Inside of sections too, and from `Drop`; not in signal handlers.
    ///
    /// ```
    /// # use gracepoint_rcu::{Domain, RcuCell};
    /// # static DOMAIN: Domain = Domain::new("doc");
    /// let level = RcuCell::new(&DOMAIN, "info");
    /// level.replace("debug");
    /// assert_eq!(*level.load(&DOMAIN.read()), "debug");
    /// ```
    #[track_caller]
    pub fn replace(&self, value: T) {
        let new = Box::into_raw(Box::new(value));
        // Release: pairs with the acquire in `load`. Acquire: the old value is ours as its
        // writer left it.
        let old = self.value.swap(new, Ordering::AcqRel);
        self.retire(old);
    }

    /// Replaces the value by one that is made from it. If others replace it meanwhile, `make` is
    /// called again, with what they left, so no update is lost.
    ///
    /// If `make` panics, the value stays. If `make` replaces this very cell, it is called for ever.
    ///
    /// ```
    /// # use gracepoint_rcu::{Domain, RcuCell};
    /// # static DOMAIN: Domain = Domain::new("doc");
    /// let hits = RcuCell::new(&DOMAIN, 0_u64);
    /// hits.update(|hits| hits + 1);
    /// assert_eq!(*hits.load(&DOMAIN.read()), 1);
    /// ```
    #[track_caller]
    pub fn update(&self, mut make: impl FnMut(&T) -> T) {
        // Keeps the old value, and thereby its address: no other value can be there when the
        // exchange compares it.
        let guard = self.domain.read().of_type();
        let old = loop {
            let old = self.load(&guard);
            let old_address = std::ptr::from_ref(old).cast_mut();
            let new = Box::into_raw(Box::new(make(old)));
            // As in `replace`. The failure's value is loaded again.
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            // What the cell gives back may be freed; `old_address` came from a reference, and may not.
            if let Ok(old) = self.value.compare_exchange(old_address, new, order.0, order.1) {
                break old;
            }
            // SAFETY: from `Box::into_raw` above; the exchange failed, so nobody else has it.
            drop(unsafe { Box::from_raw(new) });
        };
        drop(guard);
        self.retire(old);
    }

    /// Leaves a value that was just taken out of the cell to the domain.
    #[track_caller]
    fn retire(&self, old: *mut T) {
        // SAFETY: it was in the cell, hence from `Box::into_raw`, and the caller's exchange took it
        // out, which only one caller's can. Readers may refer to it still: as `&T`, which `T: Sync` allows
        // to be on other threads than the one that drops it.
        unsafe { self.domain.retire_ptr(old) };
    }
}

#[cold]
#[inline(never)]
fn other_domain(cell: &str) -> ! {
    panic!(
        "the guard is not of domain `{cell}`, whose cell was to be read with it: it would not keep \
         the value from being dropped; enter a section of `{cell}`"
    );
}

impl<T: Send + Sync + 'static, D> Drop for RcuCell<'_, T, D> {
    fn drop(&mut self) {
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: from `Box::into_raw` and never null; references to it borrow the cell, which
        // is borrowed mutably here, so there are none; nobody else can take it out now.
        drop(unsafe { Box::from_raw(value) });
    }
}

impl<T: Send + Sync + fmt::Debug + 'static, D> fmt::Debug for RcuCell<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = self.domain.read().of_type();
        f.debug_tuple("RcuCell").field(self.load(&guard)).finish()
    }
}
