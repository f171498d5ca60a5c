//! The memory of a domain: its engine, and one slot for each thread of the process.
//!
//! ```text
//!  0            OWNERS          SLOTS          SLOTS + 64         …        4 MiB
//!  ├ Region ─ ─ ┼─ owned ─ ─ ─ ┼─ slot of 0 ──┼─ slot of 1 ──┼─ …
//! ```
//!
//! One mapping of 4 MiB, of which only what is used takes memory: a page for the engine and
//! one per 64 threads, and those of the owners that there are. It is made when the domain is first used, possibly in a signal
//! handler, so by `mmap` and a compare-exchange.
//!
//! Regions are never unmapped; one whose domain was dropped is used again for the next. So a
//! list of them can be walked by anybody at any time (by a thread that ends, around a fork)
//! without asking whether they are still there.
//!
//! If there are no addresses left for that, the domain's region is a page, without slots: all threads count
//! on its shared slot, which is slower. And if there is not even a page left, it uses the *lifeboat*, a static such
//! region, together with others that could not get one. Its grace periods wait for all those domains, whoever
//! asked for them, and it has no name and one executor: slower still, and right.

use crate::barrier;
use crate::counters::{RANKS, Slot};
use crate::engine::Engine;
use crate::executor::Service;
use crate::grace::Readers;
use crate::owners;
use crate::prove::Prover;
use crate::sites::Sites;
use crate::sync::{AtomicBool, AtomicPtr, Ordering};
use crate::system;
use crate::threads::{self, MAX_THREADS};
use crate::watch::Watch;
use std::ptr;
use std::slice;

/// The owners of a region: how many names, and slots for each.
pub(crate) type Owners = owners::Owners<64, 4>;
pub(crate) type Owner = owners::Owner<4>;

/// Where the owners' counters begin.
const OWNERS: usize = 4096;
/// Where the slots begin.
const SLOTS: usize = OWNERS + 6 * 4096;

/// The offset of a thread's slot in a region.
pub(crate) const fn slot_offset(index: usize) -> usize {
    SLOTS + index * size_of::<Slot>()
}

/// The inverse of [`slot_offset`].
pub(crate) const fn slot_index(offset: usize) -> usize {
    (offset - SLOTS) / size_of::<Slot>()
}

/// The head of a region. See the module's text.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Region {
    pub(crate) engine: Engine,
    pub(crate) service: Service,
    /// For sections of threads without an index. Written by many: atomic increments.
    pub(crate) shared: Slot,
    /// For owned sections whose owner has no entry. Written by many, too; not `shared`, because a
    /// forked child keeps these.
    pub(crate) nameless: Slot,
    pub(crate) sites: Sites,
    pub(crate) watch: Watch,
    pub(crate) prover: Prover,
    /// The next in the list of all regions; written once, before the region is in it.
    next: AtomicPtr<Region>,
    in_use: AtomicBool,
    /// The first of `MAX_THREADS` slots, or null. With the mapping's own provenance, which a
    /// `&Region` has not.
    slots: AtomicPtr<Slot>,
    /// As `slots`.
    owners: AtomicPtr<Owners>,
}

const _: () = assert!(size_of::<Region>() <= OWNERS);
const _: () = assert!(size_of::<Owners>() <= SLOTS - OWNERS);

/// Whose section a slot counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader<'r> {
    Thread(u32),
    /// Threads without an index.
    Unregistered,
    Owner(&'r Owner),
    /// Owners without an entry.
    Nameless,
}

static LIFEBOAT: Region = Region::new(ptr::null_mut(), ptr::null_mut());
/// The newest region.
static ALL: AtomicPtr<Region> = AtomicPtr::new(ptr::null_mut());

/// All mapped regions and the lifeboat.
pub(crate) fn all() -> impl Iterator<Item = &'static Region> {
    // Acquire: pairs with the release in `map`.
    let mut next = ALL.load(Ordering::Acquire);
    let mapped = std::iter::from_fn(move || {
        // SAFETY: null or a region in the list: initialised before it was put there, never unmapped.
        let region = unsafe { next.as_ref::<'static>() }?;
        next = region.next.load(Ordering::Acquire);
        Some(region)
    });
    mapped.chain(std::iter::once(&LIFEBOAT))
}

/// Whether the thread with this index is inside a section of any domain.
pub(crate) fn is_inside_any(index: u32) -> bool {
    all().any(|region| region.slot(index).is_some_and(Slot::is_open))
}

/// The region that this pair of counters is of.
pub(crate) fn of_pair(address: usize) -> Option<&'static Region> {
    all().find(|region| region.contains(address))
}

/// A region for a domain of its own, or the lifeboat.
pub(crate) fn acquire() -> &'static Region {
    let whole = || unused(true).or_else(|| map(true));
    whole().or_else(|| unused(false)).or_else(|| map(false)).unwrap_or(&LIFEBOAT)
}

/// A region, with slots or without, whose domain was dropped.
fn unused(slots: bool) -> Option<&'static Region> {
    all().find(|region| {
        // Acquire: pairs with the release in `give_back`.
        let order = (Ordering::Acquire, Ordering::Relaxed);
        region.has_slots() == slots
            && region.in_use.compare_exchange(false, true, order.0, order.1).is_ok()
    })
}

fn map(slots: bool) -> Option<&'static Region> {
    let size = if slots { slot_offset(MAX_THREADS) } else { OWNERS };
    let memory = system::map_zeroed(size)?.cast::<Region>();
    // SAFETY: the mapping is new, large enough (OWNERS >= size_of::<Region>(), and where there are to be slots
    // up to the end of the last one), aligned to a page,
    // and ours alone until it is published below. Never unmapped, hence 'static.
    let region: &'static Region = unsafe {
        memory.write(if slots {
            let slots = memory.byte_add(SLOTS).cast::<Slot>();
            let owners = memory.byte_add(OWNERS).cast::<Owners>();
            Region::new(slots.as_ptr(), owners.as_ptr())
        } else {
            Region::new(ptr::null_mut(), ptr::null_mut())
        });
        memory.as_ref()
    };
    let mut newest = ALL.load(Ordering::Relaxed);
    loop {
        region.next.store(newest, Ordering::Relaxed);
        // Release: pairs with the acquire in `all`; the region is whole before it is seen.
        match ALL.compare_exchange_weak(
            newest,
            memory.as_ptr(),
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => return Some(region),
            Err(now) => newest = now,
        }
    }
}

impl Region {
    const fn new(slots: *mut Slot, owners: *mut Owners) -> Self {
        Self {
            engine: Engine::new(),
            service: Service::new(),
            shared: Slot::new(),
            nameless: Slot::new(),
            sites: Sites::new(),
            watch: Watch::new(),
            prover: Prover::new(),
            next: AtomicPtr::new(ptr::null_mut()),
            in_use: AtomicBool::new(true),
            slots: AtomicPtr::new(slots),
            owners: AtomicPtr::new(owners),
        }
    }

    /// The owners; none where there are no slots; there owned sections are all nameless.
    #[inline]
    pub(crate) fn owners(&self) -> Option<&Owners> {
        // SAFETY: null, or where `map` found a zeroed, aligned table in the mapping, which is never
        // unmapped; all-zero is a valid one.
        unsafe { self.owners.load(Ordering::Relaxed).as_ref() }
    }

    /// All who may be inside, and the slots that count their sections.
    pub(crate) fn readers(&self) -> impl Iterator<Item = (Reader<'_>, &[Slot])> {
        let threads = (0..).map(Reader::Thread).zip(self.slots().chunks(1));
        let owners = self.owners().into_iter().flat_map(|owners| owners.used());
        let owners = owners.map(|owner| (Reader::Owner(owner), &owner.slots[..]));
        let rest = [
            (Reader::Unregistered, slice::from_ref(&self.shared)),
            (Reader::Nameless, slice::from_ref(&self.nameless)),
        ];
        threads.chain(owners).chain(rest)
    }

    /// The index whose slot has this address.
    pub(crate) fn index_of_pair(&self, address: usize) -> Option<u32> {
        let offset = address.wrapping_sub(ptr::from_ref(self).addr());
        let index = offset.checked_sub(SLOTS)? / size_of::<Slot>();
        u32::try_from(index).ok().filter(|index| (*index as usize) < MAX_THREADS)
    }

    /// Whether this is the region of all domains for which there was no memory.
    pub(crate) fn is_lifeboat(&self) -> bool {
        ptr::eq(self, &raw const LIFEBOAT)
    }

    /// Whether threads have slots of their own here.
    pub(crate) fn has_slots(&self) -> bool {
        !self.slots.load(Ordering::Relaxed).is_null()
    }

    /// The start of the mapping minus one: what a `Word` is added to (see `threads`). Only for
    /// a region that has slots.
    pub(crate) fn base(&self) -> *mut u8 {
        debug_assert!(self.has_slots());
        self.slots.load(Ordering::Relaxed).cast::<u8>().wrapping_sub(SLOTS + 1)
    }

    /// Whether this address is one of a pair of counters of this region.
    #[inline]
    pub(crate) fn contains(&self, address: usize) -> bool {
        let size = if self.has_slots() { slot_offset(MAX_THREADS) } else { size_of::<Self>() };
        address.wrapping_sub(ptr::from_ref(self).addr()) < size
    }

    /// The slots of all indices that were ever taken.
    pub(crate) fn slots(&self) -> &[Slot] {
        if !self.has_slots() {
            return &[];
        }
        let used = MAX_THREADS.min(threads::high_water() as usize);
        // SAFETY: `map` set the pointer to where MAX_THREADS slots follow the head in the same
        // mapping, aligned, never unmapped, zeroed at first, and all-zero is a valid Slot.
        unsafe { std::slice::from_raw_parts(self.slots.load(Ordering::Relaxed), used) }
    }

    /// One thread's slot.
    pub(crate) fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots().get(index as usize)
    }

    /// Forgets open sections of a thread that does not exist in this process.
    pub(crate) fn forget_thread(&self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.balance();
        }
    }

    /// Runs what callbacks are left and makes the region free for another domain. Only when
    /// no section is open here and nobody can reach it any more.
    pub(crate) fn give_back(&'static self, me: usize) {
        if self.is_lifeboat() {
            return; // Others use the lifeboat; callbacks there wait for their turn.
        }
        if !self.retire_service(me) {
            return; // Its thread does it, at its end.
        }
        self.slots().iter().for_each(Slot::balance);
        self.shared.balance();
        self.nameless.balance();
        self.owners().into_iter().for_each(owners::Owners::clear);
        self.sites.clear();
        self.watch.clear(me);
        self.prover.clear(me);
        // Release: pairs with the acquire in `acquire`.
        self.in_use.store(false, Ordering::Release);
    }

    fn sum(&self, counter: impl Fn(&Slot, usize) -> u64) -> [u64; RANKS] {
        let mut sums = [0_u64; RANKS];
        let owned = self.owners().into_iter().flat_map(|owners| owners.used());
        let owned = owned.flat_map(|owner| &owner.slots);
        let slots = self.slots().iter().chain([&self.shared, &self.nameless]).chain(owned);
        for slot in slots {
            for (rank, sum) in sums.iter_mut().enumerate() {
                *sum = sum.wrapping_add(counter(slot, rank));
            }
        }
        sums
    }
}

/// What orders the reads of `lock`s is the heavy barrier before them, and that `unlock`s acquire (see `grace`).
impl Readers for Region {
    fn unlocks(&self) -> [u64; RANKS] {
        self.sum(|slot, rank| slot.pairs[rank].unlock.load(Ordering::Acquire))
    }

    fn locks(&self) -> [u64; RANKS] {
        self.sum(|slot, rank| slot.pairs[rank].lock.load(Ordering::Relaxed))
    }

    fn heavy_barrier(&self) -> bool {
        barrier::heavy()
    }
}
