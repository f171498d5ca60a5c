//! The page by which a tool outside finds the state of the domains in this process's memory, also when no
//! thread here answers any more: where the words are, and how they are laid out.
//!
//! A private page of words, made with the first domain's memory and never unmapped. It holds addresses and
//! offsets, not the state itself, so keeping it up to date costs nothing: what it leads to is what the
//! engine itself uses. Who reads it (`/proc/PID/mem`, a core file) finds it by its name in `/proc/PID/maps`,
//! `[anon:gracepoint-why]`, or by its first words, and believes it only if it says its own address. The
//! layout is in `docs/abi.md`; words are only ever added.
//!
//! A forked child must not seem to have its parent's threads: the page reads as zeros there
//! (`MADV_WIPEONFORK`) until the hook has written it anew. In a child made behind libc's back it stays so.
//!
//! Orderings: the first two words are written last, with release. Whoever reads from outside has no ordering
//! of ours to pair with; it sees them in this order because the stores are made in it, and checks what it reads.

use crate::counters::{Pair, Slot};
use crate::engine::Engine;
use crate::executor::Service;
use crate::grace::Grace;
use crate::observer::Observed;
use crate::region::{self, Owners, Region};
use crate::sites::Sites;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};
use crate::system;
use crate::threads::{self, MAX_THREADS};
use crate::waiters;
use crate::watch::Watch;
use std::mem::offset_of;
use std::ptr;

/// `gracepoint-why`, and two bytes that no text has.
const MAGIC: [u8; 16] = *b"gracepoint-why\x01\xa9";
const VERSION: u64 = 1;
const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;
/// Words that this file fills in, from the first.
const OWN: usize = 63;

static MIRROR: AtomicPtr<[AtomicU64; WORDS]> = AtomicPtr::new(ptr::null_mut());

/// Makes the page if there is none. A few system calls, once; for signal handlers too.
pub(crate) fn ensure() {
    if !MIRROR.load(Ordering::Relaxed).is_null() {
        return;
    }
    let Some(page) = system::map_zeroed(PAGE) else { return };
    // A page that a child would inherit is worse than none.
    if !system::keep_from_children(page, PAGE, c"gracepoint-why") {
        return;
    }
    let order = (Ordering::AcqRel, Ordering::Relaxed);
    let made = MIRROR.compare_exchange(ptr::null_mut(), page.as_ptr().cast(), order.0, order.1);
    // If another was first, this page stays as it is: zeros.
    if made.is_ok() {
        fill();
    }
}

/// In a forked child: the page is zeros.
pub(crate) fn child_after_fork() {
    fill();
}

/// A word for the crates above, by its number in the layout; `None` where there is no page.
#[must_use]
pub fn word(at: usize) -> Option<&'static AtomicU64> {
    ensure();
    page()?.get(at).filter(|_| at >= 80)
}

fn page() -> Option<&'static [AtomicU64; WORDS]> {
    // SAFETY: null, or a mapping of zeros of that size, aligned to a page and never unmapped. Acquire: pairs with the
    // exchange in `ensure`.
    unsafe { MIRROR.load(Ordering::Acquire).as_ref() }
}

fn fill() {
    let Some(page) = page() else { return };
    let words = words();
    for (word, value) in page.iter().zip(words).skip(2) {
        word.store(value, Ordering::Relaxed);
    }
    page[3].store(ptr::from_ref(page).addr() as u64, Ordering::Relaxed);
    page[4].store(u64::from(std::process::id()), Ordering::Relaxed);
    // Release: see the top.
    page[1].store(words[1], Ordering::Release);
    page[0].store(words[0], Ordering::Release);
}

/// The layout, as numbers. The order is that of `docs/abi.md`.
fn words() -> [u64; OWN] {
    let [all, lifeboat, next, in_use, slots, owners, shared, nameless] = region::places();
    let [records, high_water, record, version, tid, name, wait] = threads::places();
    let [wait_region, wait_cookie, wait_since, wait_kind, wait_call] = waiters::Entry::PLACES;
    let engine = offset_of!(Region, engine);
    let grace = engine + offset_of!(Engine, grace);
    let observed = engine + offset_of!(Engine, observed);
    let [sequence, flipped, rank] = Grace::PLACES;
    let [name_start, name_len] = Observed::PLACES;
    let [number, since] = Watch::PLACES;
    let [mode, submitted] = Service::PLACES;
    let [table, site, entered] = Sites::PLACES;
    let (watch, service) = (offset_of!(Region, watch), offset_of!(Region, service));
    let mut words = [0; OWN];
    let mut at = 0;
    let mut put = |values: &[usize]| {
        for value in values {
            words[at] = *value as u64;
            at += 1;
        }
    };
    put(&[0, 0, 0, 0, 0, OWN]); // 0: magic, version, address, pid, count
    put(&[all, lifeboat, records, high_water, MAX_THREADS]); // 6
    put(&[record, version, tid, name]); // 11
    put(&[wait + wait_region, wait + wait_cookie, wait + wait_since, wait + wait_kind]); // 15
    put(&[next, in_use, slots, owners, shared, nameless]); // 19
    put(&[grace + sequence, grace + flipped, grace + rank]); // 25
    put(&[observed + name_start, observed + name_len]); // 28
    put(&[watch + number, watch + since]); // 30
    put(&Engine::PLACES.map(|place| engine + place)); // 32
    put(&[service + mode, service + submitted]); // 42
    put(&[size_of::<Slot>(), size_of::<Pair>(), offset_of!(Pair, lock), offset_of!(Pair, unlock)]); // 44
    put(&[offset_of!(Slot, called), region::slot_offset(0)]); // 48
    put(&Owners::PLACES); // 50
    put(&[offset_of!(Region, sites) + table, site, entered]); // 58
    put(&[size_of::<Region>()]); // 61
    put(&[wait + wait_call]); // 62
    debug_assert_eq!(at, OWN);
    let (low, high) = MAGIC.split_at(8);
    words[0] = u64::from_ne_bytes(low.try_into().unwrap_or([0; 8]));
    words[1] = u64::from_ne_bytes(high.try_into().unwrap_or([0; 8]));
    words[2] = VERSION;
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_where_it_is_and_leads_to_the_domains() {
        static DOMAIN: crate::Domain = crate::Domain::new("mirror test");
        let _guard = DOMAIN.read();
        let page = page().expect("made with the first domain");
        let word = |at: usize| page[at].load(Ordering::Relaxed);
        assert_eq!(word(3), ptr::from_ref(page).addr() as u64);
        assert_eq!(word(4), u64::from(std::process::id()));
        assert_eq!(word(5), OWN as u64);
        let region = ptr::from_ref(DOMAIN.region()).addr() as u64;
        // SAFETY: the layout says that the name's address and length are there, which is what is tested; a
        // region is never unmapped.
        let name = unsafe {
            let start = ((region + word(28)) as *const *const u8).read();
            let len = ((region + word(29)) as *const usize).read();
            std::slice::from_raw_parts(start, len)
        };
        assert_eq!(name, b"mirror test");
    }
}
