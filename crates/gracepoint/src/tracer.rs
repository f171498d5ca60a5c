//! Which keys have which probes, and the lock under which that changes.
//!
//! On: the new arrays are published, then the sites of keys that had none are switched on, in one
//! batch. Off: the sites are switched off, then the arrays are replaced, and the old ones retired.
//! A hit in between finds an array or finds none; both are fine.

use crate::key::{Entry, Key, TRACE};
use crate::module;
use crate::patch::{self, PatchError};
use crate::site::SiteKind;
use gracepoint_wire::schema::Schema;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys by address.
type State = BTreeMap<usize, Attached>;

static STATE: Mutex<State> = Mutex::new(BTreeMap::new());

/// A key that has probes. The array is the published one.
struct Attached {
    key: &'static Key,
    array: Box<[Entry]>,
}

fn lock() -> MutexGuard<'static, State> {
    // A panic under the lock leaves a map that is still true of what is published.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(key: &'static Key) -> usize {
    ptr::from_ref(key) as usize
}

/// Adds a probe to each key.
///
/// # Errors
/// When sites cannot be switched on; then no probe has been added.
pub(crate) fn attach(probes: &[(&'static Key, Entry)]) -> Result<(), PatchError> {
    let mut state = lock();
    let mut fresh = BTreeSet::new();
    for &(key, entry) in probes {
        let before = entries(&state, key);
        if before.is_empty() {
            fresh.insert(address(key));
        }
        replace(&mut state, key, [before, vec![entry]].concat());
    }
    let on = module::records().filter(|f| fresh.contains(&address(f.record.site().key)));
    let result = patch::switch(on.map(|found| (found, true)));
    if result.is_err() {
        for (key, entry) in probes {
            let left = without(&state, key, entry.data);
            replace(&mut state, key, left);
        }
    }
    result
}

/// Removes from each key the probe with this data. Waits for nobody: a hit whose read section is
/// open may still call it, so the data must live until a grace period after this returns.
pub(crate) fn detach(probes: &[(&'static Key, *const ())]) {
    let mut state = lock();
    let last: BTreeSet<usize> = probes
        .iter()
        .filter(|(key, data)| without(&state, key, *data).is_empty())
        .map(|(key, _)| address(key))
        .collect();
    let off = module::records().filter(|f| last.contains(&address(f.record.site().key)));
    // Refused, the sites stay on and find no probes: slower, but right.
    let _ = patch::switch(off.map(|found| (found, false)));
    for &(key, data) in probes {
        let left = without(&state, key, data);
        replace(&mut state, key, left);
    }
}

fn entries(state: &State, key: &'static Key) -> Vec<Entry> {
    let array = state.get(&address(key)).map_or(&[][..], |attached| &attached.array);
    array.iter().filter(|entry| entry.call.is_some()).copied().collect()
}

fn without(state: &State, key: &'static Key, data: *const ()) -> Vec<Entry> {
    let mut all = entries(state, key);
    all.retain(|entry| entry.data != data);
    all
}

/// Publishes `entries` as the key's array and retires the one before.
fn replace(state: &mut State, key: &'static Key, mut entries: Vec<Entry>) {
    let old = if entries.is_empty() {
        key.publish(ptr::null_mut());
        state.remove(&address(key))
    } else {
        entries.push(Entry::END);
        let mut array = entries.into_boxed_slice();
        key.publish(array.as_mut_ptr());
        state.insert(address(key), Attached { key, array })
    };
    if let Some(old) = old {
        TRACE.retire(old.array);
    }
}

/// An event and all that is known of it. Equal events of several shared objects are one.
pub(crate) struct Known {
    pub(crate) schema: Schema,
    pub(crate) keys: Vec<&'static Key>,
    pub(crate) sites: u32,
    pub(crate) spans: u32,
    pub(crate) on: u32,
    pub(crate) location: String,
}

/// A key's sites in the source.
struct Places {
    key: &'static Key,
    sites: BTreeMap<(&'static str, u32), SiteKind>,
}

/// All events with at least one site, by name.
pub(crate) fn catalogue() -> Vec<Known> {
    let state = lock();
    let mut places: BTreeMap<usize, Places> = BTreeMap::new();
    for found in module::records() {
        let site = found.record.site();
        let fresh = || Places { key: site.key, sites: BTreeMap::new() };
        let entry = places.entry(address(site.key)).or_insert_with(fresh);
        entry.sites.insert((site.file, site.line), site.kind);
    }
    let mut known: BTreeMap<(String, u64), Known> = BTreeMap::new();
    for Places { key, sites } in places.into_values() {
        let schema = key.desc.schema();
        let (file, line) = *sites.keys().next().expect("a key is here because of a site");
        let entry = known.entry((schema.name.clone(), schema.hash())).or_insert(Known {
            schema,
            keys: Vec::new(),
            sites: 0,
            spans: 0,
            on: 0,
            location: format!("{file}:{line}"),
        });
        let spans = sites.values().filter(|&&kind| kind == SiteKind::Span).count() as u32;
        entry.spans += spans;
        entry.sites += sites.len() as u32 - spans;
        entry.on = entry.on.max(entries(&state, key).len() as u32);
        entry.keys.push(key);
    }
    known.into_values().collect()
}

/// Runs `unload`, after which an object's records are gone, and forgets the keys that only it had.
/// Does not touch these keys: they lie in the object that goes.
pub(crate) fn forget(unload: impl FnOnce()) {
    let mut state = lock();
    let keys = || -> BTreeSet<usize> {
        module::records().map(|found| address(found.record.site().key)).collect()
    };
    let before = keys();
    unload();
    let left = keys();
    for gone in before.difference(&left) {
        if let Some(attached) = state.remove(gone) {
            TRACE.retire(attached.array);
        }
    }
}

thread_local! {
    /// The lock, held by a thread from before its fork to after it.
    static ACROSS_FORK: RefCell<Option<MutexGuard<'static, State>>> = const { RefCell::new(None) };
}

/// Before a fork: takes the lock, so that the child does not inherit it from a thread (the agent)
/// that the child does not have.
pub(crate) extern "C" fn before_fork() {
    let guard = lock();
    // At a thread's very end its thread-locals are gone; then the lock stays as it is.
    let _ = ACROSS_FORK.try_with(|held| *held.borrow_mut() = Some(guard));
}

/// After a fork, in both processes.
pub(crate) extern "C" fn after_fork() {
    let _ = ACROSS_FORK.try_with(|held| held.borrow_mut().take());
}

/// In a forked child, before its next session: no probe of the parent's is attached any more.
pub(crate) fn reset() {
    let mut state = lock();
    let _ = patch::switch(module::records().map(|found| (found, false)));
    for (_, attached) in std::mem::take(&mut *state) {
        attached.key.publish(ptr::null_mut());
        TRACE.retire(attached.array);
    }
}
