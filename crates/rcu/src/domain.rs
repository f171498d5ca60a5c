//! [`Domain`]: the reader's path, and the door to everything else.
//!
//! # The reader's path
//!
//! Two words decide: the thread's (`threads::Word`, an offset plus one) and the domain's
//! (`fast`, an address minus one). Both are odd once they are there and 0 before, so one
//! `test` of the two says whether this thread has a slot in this domain, and their sum is the slot.
//! Then: the active rank's offset is added, and the counter incremented. Where readers must
//! fence, `fast` stays null, so the fast path never asks which form of the barrier is in force.

use crate::arch;
use crate::barrier;
#[cfg(feature = "canary")]
use crate::canary::Canary;
use crate::counters::{self, ActiveRank, RANKS, Slot};
use crate::engine::Progress;
use crate::fast::Fast;
use crate::grace::Readers;
use crate::guard::sealed::Counted;
use crate::guard::{FENCED, Guard, NOTED, OwnedGuard, QuickGuard, SHARED};
use crate::region::{self, Region};
use crate::start;
use crate::sync::{AtomicPtr, Ordering, fence};
use crate::system::Errno;
use crate::threads;
use std::fmt;
use std::panic::Location;
use std::ptr;

/// Readers and the grace periods that wait for them.
///
/// A plain value; [`domain!`](crate::domain!) declares one whose guards and cells have a type of their own.
/// Data that is removed in one domain waits for the readers of that domain only. A domain
/// is usually a `static`; it takes its memory (4 MiB of addresses, a few pages of memory) when
/// it is first used.
///
/// ```
/// use gracepoint_rcu::Domain;
///
/// static CONFIG: Domain = Domain::new("config");
///
/// {
///     let _guard = CONFIG.read();
///     // What is loaded from a published pointer here stays valid until the guard is dropped.
/// }
/// CONFIG.synchronize().expect("not inside a section");
/// // Every section that was open before `synchronize` has ended.
/// ```
///
/// Dropping a domain (one that is not a `static`) ends its thread, if it has one, and runs the callbacks that
/// it still has.
#[repr(C, align(64))]
pub struct Domain {
    /// Keeps `fast` where `ActiveRank` has its word, for the same reasons.
    beside_counters: [u8; 32],
    region: AtomicPtr<Region>,
    name: &'static str,
    /// `Region::base` once readers may take the fast path; null before, and for ever where they
    /// may not.
    fast: Fast,
    /// See `Domain::with_thread`.
    pub(crate) own_thread: bool,
    #[cfg(feature = "canary")]
    canary: Canary,
}

impl Domain {
    /// A domain. The name is for reports. Takes nothing until it is used.
    ///
    /// ```
    /// use gracepoint_rcu::Domain;
    ///
    /// static SHARED: Domain = Domain::new("shared");
    /// let own = Domain::new("a value of one's own");
    /// let _inside = SHARED.read();
    /// own.synchronize().expect("a reader of one domain does not hold up another");
    /// ```
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            beside_counters: [0; 32],
            fast: Fast::new(),
            region: AtomicPtr::new(ptr::null_mut()),
            name,
            own_thread: false,
            #[cfg(feature = "canary")]
            canary: Canary::None,
        }
    }

    /// A domain whose grace periods are wrong in one thing, to show that a test would notice.
    ///
    /// # Safety
    /// It does not protect: what is retired may be freed while it is read.
    #[cfg(feature = "canary")]
    #[doc(hidden)]
    #[must_use]
    pub const unsafe fn new_canary(name: &'static str, canary: Canary) -> Self {
        let mut domain = Self::new(name);
        domain.canary = canary;
        domain
    }

    /// The name that it was made with.
    ///
    /// ```
    /// assert_eq!(gracepoint_rcu::Domain::new("routes").name(), "routes");
    /// ```
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Enters a read section, which lasts until the guard is dropped.
    ///
    /// What was reachable through a published pointer inside the section is not freed by
    /// this domain before it ends. Sections may nest, overlap and end in any order; they may be
    /// entered on any thread, registered or not, in signal handlers, in destructors of
    /// thread-locals. About two increments; never waits, locks, allocates or panics.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// let outer = DOMAIN.read();
    /// let inner = DOMAIN.read();
    /// drop(outer); // in any order
    /// drop(inner);
    /// ```
    ///
    /// A guard stays on its thread:
    ///
    /// ```compile_fail,E0277
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// let guard = DOMAIN.read();
    /// std::thread::spawn(move || drop(guard));
    /// ```
    ///
    /// and its domain stays for as long:
    ///
    /// ```compile_fail,E0505
    /// let domain = gracepoint_rcu::Domain::new("doc");
    /// let guard = domain.read();
    /// drop(domain);
    /// drop(guard);
    /// ```
    ///
    /// A guard that is leaked (`mem::forget`) keeps its section open for ever: then memory
    /// is kept, too.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> Guard<'_> {
        let word = arch::slot_word();
        let base = self.fast.get();
        if word & base.addr() == 0 {
            return self.read_slow();
        }
        #[expect(clippy::cast_ptr_alignment, reason = "base + word is a multiple of 64")]
        // SAFETY: `base` is odd and thus not null, so it is `Region::base` of a region that is
        // never unmapped, and `word` is odd and thus not 0, so it is the offset of a slot in
        // any region, plus one; the sum is that slot's address, with the mapping's provenance. It
        // is this thread's own, because a thread's word is taken from it before its index is.
        let slot = unsafe { &*base.wrapping_add(word).cast::<Slot>() };
        // SAFETY: `base + 1` is the start of the mapping, a Region (see `Region::base`).
        let rank = unsafe { active_rank(base) };
        Guard::new(counters::enter(rank, slot), 0)
    }

    /// [`read`](Self::read) where that is two increments and no more; `None` where it is not.
    #[doc(hidden)]
    #[inline(always)]
    pub fn read_quick(&self) -> Option<QuickGuard<'_>> {
        let word = arch::slot_word();
        let base = self.fast.get();
        if word & base.addr() == 0 {
            return None;
        }
        #[expect(clippy::cast_ptr_alignment, reason = "base + word is a multiple of 64")]
        // SAFETY: as in `read`.
        let slot = unsafe { &*base.wrapping_add(word).cast::<Slot>() };
        // SAFETY: as in `read`.
        let rank = unsafe { active_rank(base) };
        Some(QuickGuard::new(counters::enter(rank, slot)))
    }

    /// The first section of a thread or of a domain, and every one where readers must fence,
    /// have no slot, or are noted.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn read_slow(&self) -> Guard<'_> {
        let _errno = Errno::keep();
        let index = threads::thread_index();
        let region = self.region();
        let rank = &region.engine.grace.rank;
        let noting = region.sites.is_noting();
        let Some((index, slot)) = index.and_then(|index| Some((index, region.slot(index)?))) else {
            arch::with_thread(|thread| thread.shared.fetch_add(1, Ordering::Relaxed));
            if noting {
                region.sites.note_unregistered(Location::caller());
            }
            return Guard::new(counters::enter_among_many(rank, &region.shared), SHARED);
        };
        if barrier::readers_are_cheap() && !noting {
            self.fast.offer(region.base(), || region.sites.is_noting());
            return Guard::new(counters::enter(rank, slot), 0);
        }
        let pair = rank.pair(slot);
        let how = if noting {
            region.sites.enter(index, pair, Location::caller());
            FENCED | NOTED
        } else {
            FENCED
        };
        arch::increment(&pair.lock);
        // Pairs with the heavy barrier of a scan, which is a SeqCst fence too, or more.
        fence(Ordering::SeqCst);
        Guard::new(pair, how)
    }

    /// Makes all sections that are entered from now on come by `read_slow`, while it sees that
    /// sections are to be noted.
    pub(crate) fn keep_off_fast_path(&self) {
        self.fast.withdraw();
    }

    /// Enters a read section that belongs to no thread, but to an owner with a name: its guard may be
    /// held across `.await`, moved to another thread, and used by several at once.
    ///
    /// The name is for reports, which tell it as that of who is waited for; use one for each kind of
    /// owner (`"session reader"`), up to 64 in a domain. (More are counted together.) Two atomic additions,
    /// about ten times what [`read`](Self::read) costs; never waits, locks, allocates or panics. May be
    /// entered in signal handlers.
    ///
    /// ```
    /// # use gracepoint_rcu::{Domain, RcuCell};
    /// static DOMAIN: Domain = Domain::new("routes");
    ///
    /// let routes = RcuCell::new(&DOMAIN, vec!["here"]);
    /// let guard = DOMAIN.read_owned("lookup");
    /// std::thread::scope(|scope| {
    ///     let routes = &routes;
    ///     scope.spawn(move || assert_eq!(routes.load(&guard), &["here"])); // and dropped there
    /// });
    /// DOMAIN.synchronize().expect("not inside a section");
    /// ```
    ///
    /// # Waiting for oneself
    ///
    /// No thread is inside of such a section, so [`synchronize`](Self::synchronize) cannot refuse to wait
    /// for it: a thread, or a task, that holds an owned guard and waits for a grace period of its domain
    /// waits for ever. Drop the guard first; or use [`synchronize_timeout`](Self::synchronize_timeout),
    /// [`stalls`](Self::stalls) or [`holdouts`](Self::holdouts), which name the owner.
    ///
    /// # In a forked child
    ///
    /// Nobody can know which owned guards a child will use: one may be in its memory, in a task or a
    /// queue. So those of the parent stay open in the child, which is the safe side: grace periods of this
    /// domain may never end there, reports say how many sections are inherited, and
    /// [`forget_inherited`](Self::forget_inherited) ends them.
    #[inline]
    #[track_caller]
    pub fn read_owned(&self, owner: &'static str) -> OwnedGuard<'_> {
        let region = self.region();
        let entry = region.owners().and_then(|owners| owners.find(owner));
        let slot = match entry {
            // By the thread's index (0 if it has none), so that threads keep apart.
            Some(entry) => {
                &entry.slots[(arch::slot_word() / size_of::<Slot>()) % entry.slots.len()]
            }
            None => &region.nameless,
        };
        if region.sites.is_noting()
            && let Some(entry) = entry
        {
            entry.note(Location::caller());
        }
        OwnedGuard::new(counters::enter_among_many(&region.engine.grace.rank, slot))
    }

    /// In a forked child: ends the owned sections that the child has from its parent, in this domain. Returns how
    /// many there were.
    ///
    /// Without it they stay open; see [`read_owned`](Self::read_owned). Sections that were entered in the
    /// child stay open in any case. Does nothing in a process that was not forked.
    ///
    /// # Safety
    /// No [`OwnedGuard`] of this domain that was there when the process was forked is used or
    /// dropped in this process after this call, and none has been dropped since the fork; no
    /// reference that was had by one of them is used any more. (They may be forgotten, by
    /// [`std::mem::forget`], or be on the stacks of threads that the child does not have.)
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// // In the child, before anything else uses the domain; its tasks were the parent's.
    /// // SAFETY: the child's only thread has no owned guard, and the tasks are never polled here.
    /// let forgotten = unsafe { DOMAIN.forget_inherited() };
    /// # assert_eq!(forgotten, 0);
    /// ```
    pub unsafe fn forget_inherited(&self) -> u64 {
        let region = self.region();
        let named = region.owners().map_or(0, |owners| owners.forget_inherited());
        named + region.watch.forget_nameless(&region.nameless)
    }

    /// The domain's region, which is made at first use.
    pub(crate) fn region(&self) -> &'static Region {
        // Acquire: pairs with the exchange below.
        let known = self.region.load(Ordering::Acquire);
        // SAFETY: null, or a region, which is never unmapped.
        if let Some(region) = unsafe { known.as_ref::<'static>() } {
            return region;
        }
        let _errno = Errno::keep();
        start::ensure();
        let fresh = region::acquire();
        if !fresh.is_lifeboat() {
            // Ours alone. The lifeboat is many domains', and has no name.
            fresh.engine.observed.set_name(self.name);
        }
        if self.own_thread {
            fresh.wants_thread();
        }
        let raced = self.region.compare_exchange(
            ptr::null_mut(),
            ptr::from_ref(fresh).cast_mut(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match raced {
            Ok(_) => fresh,
            Err(first) => {
                fresh.give_back(arch::thread_token());
                // SAFETY: as above; the exchange failed because it was not null.
                unsafe { &*first }
            }
        }
    }

    /// Whether the calling thread is inside a section of this domain.
    ///
    /// Exact for threads that have an index. One that has none (see
    /// [`thread_index`](crate::thread_index)) cannot tell domains apart, and answers for any of them.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// assert!(!DOMAIN.in_read_section());
    /// let _guard = DOMAIN.read();
    /// assert!(DOMAIN.in_read_section());
    /// ```
    #[must_use]
    pub fn in_read_section(&self) -> bool {
        if arch::shared_sections() != 0 {
            return true;
        }
        let index = threads::thread_index();
        index.and_then(|index| self.region().slot(index)).is_some_and(Slot::is_open)
    }

    /// Whether a grace period of this domain waits for the guard: it is a guard of this domain.
    /// (Or of one that shares the lifeboat with it, whose grace periods are the same.)
    #[inline]
    pub(crate) fn is_guarded_by(&self, guard: &impl Counted) -> bool {
        // Acquire: as in `region`. Null has no guards; then the guard is another domain's.
        let region = self.region.load(Ordering::Acquire);
        // SAFETY: null, or a region, which is never unmapped.
        unsafe { region.as_ref() }.is_some_and(|region| region.contains(guard.address()))
    }

    /// The cookie that is done once every section that is open now has ended. Does not ask for
    /// a grace period: somebody else's may serve; to be sure, use [`start_poll`](Self::start_poll).
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// let cookie = DOMAIN.get_state();
    /// DOMAIN.synchronize().expect("not inside a section");
    /// assert!(DOMAIN.poll_state(cookie));
    /// ```
    #[must_use]
    pub fn get_state(&self) -> Cookie {
        Cookie(self.region().engine.grace.snapshot())
    }

    /// Like [`get_state`](Self::get_state), and asks for the grace period. It advances when
    /// somebody calls [`poll`](Self::poll), [`drive`](Self::drive) or [`synchronize`](Self::synchronize),
    /// and by the domain's thread if it has one.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// // Remove something from where readers find it; then:
    /// let cookie = DOMAIN.start_poll();
    /// while !DOMAIN.poll_state(cookie) {
    ///     DOMAIN.poll();
    /// }
    /// // Nobody reads it any more.
    /// ```
    #[must_use = "the cookie tells when the grace period has ended"]
    pub fn start_poll(&self) -> Cookie {
        let cookie = self.ask();
        self.region().wake_if_asleep();
        cookie
    }

    /// `start_poll` for a caller that drives, and so need not wake the domain's thread.
    pub(crate) fn ask(&self) -> Cookie {
        let grace = &self.region().engine.grace;
        let cookie = grace.snapshot();
        grace.request(cookie);
        Cookie(cookie)
    }

    /// Asks for the grace period of a cookie, and returns the cookie to wait for: the same, or
    /// today's, which no cookie of this domain is larger than, if it was another domain's.
    pub(crate) fn request(&self, cookie: Cookie) -> Cookie {
        let grace = &self.region().engine.grace;
        let cookie = cookie.0.min(grace.snapshot());
        grace.request(cookie);
        Cookie(cookie)
    }

    /// Whether the grace period of `cookie` has ended. If so, everything after this call
    /// comes after all sections that were open when the cookie was taken.
    ///
    /// A cookie means something only to the domain that gave it.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// let cookie = DOMAIN.get_state();
    /// assert!(!DOMAIN.poll_state(cookie));
    /// DOMAIN.synchronize().expect("not inside a section");
    /// assert!(DOMAIN.poll_state(cookie));
    /// ```
    #[must_use]
    pub fn poll_state(&self, cookie: Cookie) -> bool {
        self.region().engine.grace.is_done(cookie.0)
    }

    /// One bounded step of the grace-period machine. Never waits for readers, and runs no
    /// callbacks; so it may be called anywhere but in a signal handler, inside a section too. (If it ends
    /// a grace period it wakes tasks that await it, and tells the observer.)
    ///
    /// `Pending` while another thread is driving, also if all is done by then: only who has looked
    /// himself says `Idle`.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use gracepoint_rcu::Progress;
    ///
    /// let guard = DOMAIN.read();
    /// let cookie = DOMAIN.start_poll();
    /// while DOMAIN.poll() == Progress::Advanced {}
    /// assert!(!DOMAIN.poll_state(cookie), "this thread is inside");
    /// drop(guard);
    /// while DOMAIN.poll() != Progress::Idle {}
    /// assert!(DOMAIN.poll_state(cookie));
    /// ```
    pub fn poll(&self) -> Progress {
        self.region().poll(&self.readers(), arch::thread_token())
    }

    /// One bounded step, and callbacks that are ready (at most 4096), on this thread and outside
    /// of any lock of the engine. Do not hold locks that callbacks take.
    ///
    /// `Idle` only when no callback is left.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use gracepoint_rcu::Progress;
    ///
    /// DOMAIN.retire(String::from("dropped after a grace period"));
    /// while DOMAIN.drive() != Progress::Idle {}
    /// assert_eq!(DOMAIN.pending_callbacks(), 0);
    /// ```
    pub fn drive(&self) -> Progress {
        self.region().drive(&self.readers(), arch::thread_token())
    }

    /// Runs `f` after a grace period, where [`run_callbacks_on`](Self::run_callbacks_on) says: unless that was
    /// called, on the thread of whoever calls [`drive`](Self::drive) or [`barrier`](Self::barrier), and somebody must, or
    /// callbacks pile up.
    ///
    /// Callbacks run one at a time in the order in which they were queued. One that panics is
    /// counted, told to the [`Observer`](crate::Observer), and stops nobody. Allocates for those that
    /// are larger than three words, and now and then for the others; waits for nobody (with a thread and very
    /// many callbacks it pauses; see `run_callbacks_on`). May be called inside a section and from `Drop`, not
    /// from a signal handler.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.call(|| println!("every section that was open at the call has ended"));
    /// DOMAIN.barrier().expect("not inside a section");
    /// ```
    pub fn call(&self, f: impl FnOnce() + Send + 'static) {
        self.region().call(f);
    }

    /// Drops `value` after a grace period. Like [`call`](Self::call).
    ///
    /// ```
    /// # use gracepoint_rcu::Domain;
    /// use std::sync::Arc;
    ///
    /// static DOMAIN: Domain = Domain::new("shared");
    /// let value = Arc::new(7);
    /// DOMAIN.retire(Arc::clone(&value));
    /// assert_eq!(Arc::strong_count(&value), 2);
    /// DOMAIN.barrier().expect("not inside a section");
    /// assert_eq!(Arc::strong_count(&value), 1);
    /// ```
    pub fn retire<T: Send + 'static>(&self, value: T) {
        self.call(move || drop(value));
    }

    /// Callbacks that are queued or running. Adds up a counter of each thread.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.call(|| {});
    /// assert_eq!(DOMAIN.pending_callbacks(), 1);
    /// DOMAIN.barrier().expect("not inside a section");
    /// assert_eq!(DOMAIN.pending_callbacks(), 0);
    /// ```
    #[must_use]
    pub fn pending_callbacks(&self) -> usize {
        self.region().pending()
    }

    /// Callbacks that have panicked.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.call(|| panic!("stops nobody"));
    /// DOMAIN.barrier().expect("not inside a section");
    /// assert_eq!(DOMAIN.panicked_callbacks(), 1);
    /// ```
    #[must_use]
    pub fn panicked_callbacks(&self) -> u64 {
        self.region().engine.panics()
    }

    fn readers(&self) -> DomainReaders {
        DomainReaders {
            region: self.region(),
            #[cfg(feature = "canary")]
            canary: self.canary,
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let region = self.region.load(Ordering::Acquire);
        // SAFETY: null, or a region, which is never unmapped.
        if let Some(region) = unsafe { region.as_ref() } {
            // Nobody is inside and nobody can come: guards borrow the domain, and this
            // is the only reference to it.
            region.give_back(arch::thread_token());
        }
    }
}

/// Where `fast` is, for those who enter in assembly.
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64", not(miri)))]
pub(crate) const FAST: usize = std::mem::offset_of!(Domain, fast);
/// Where the offset of the active rank's pair is, from [`Region::base`].
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64", not(miri)))]
pub(crate) const RANK: usize =
    1 + std::mem::offset_of!(Region, engine.grace.rank) + ActiveRank::PLACE;

/// # Safety
/// `base` is `Region::base` of a region that is never unmapped.
#[inline(always)]
unsafe fn active_rank<'r>(base: *mut u8) -> &'r ActiveRank {
    const OFFSET: usize = std::mem::offset_of!(Region, engine.grace.rank);
    #[expect(clippy::cast_ptr_alignment, reason = "a field of an aligned Region")]
    // SAFETY: `base + 1` is a Region, by this function's contract, and this is its field.
    unsafe {
        &*base.wrapping_add(1 + OFFSET).cast::<ActiveRank>()
    }
}

struct DomainReaders {
    region: &'static Region,
    #[cfg(feature = "canary")]
    canary: Canary,
}

impl Readers for DomainReaders {
    fn unlocks(&self) -> [u64; RANKS] {
        #[cfg(feature = "canary")]
        if let Some(wrong) = self.canary.unlocks(self.region) {
            return wrong;
        }
        self.region.unlocks()
    }

    fn locks(&self) -> [u64; RANKS] {
        #[cfg(feature = "canary")]
        if let Some(wrong) = self.canary.locks(self.region) {
            return wrong;
        }
        self.region.locks()
    }

    fn heavy_barrier(&self) -> bool {
        #[cfg(feature = "canary")]
        if self.canary.has_no_heavy_barrier() {
            return true;
        }
        self.region.heavy_barrier()
    }
}

/// A promise to look later whether a grace period has ended. See [`Domain::start_poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub(crate) u64);

impl Cookie {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl Cookie {
    /// A cookie that is done, in every domain.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// assert!(DOMAIN.poll_state(gracepoint_rcu::Cookie::COMPLETED));
    /// ```
    pub const COMPLETED: Self = Self(0);
}

const _: () = {
    const fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Domain>();
};
