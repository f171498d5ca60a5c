//! Which keys have which probes, and the lock under which that changes.
//!
//! On: the new arrays are published, then the sites of keys that had none are switched on, in one
//! batch. Off: the sites are switched off, then the arrays are replaced, and the old ones retired.
//! A hit in between finds an array or finds none; both are fine.

use crate::key::{Call, Entry, Key, TRACE};
use crate::module;
use crate::patch::{self, PatchError};
use crate::session::Merged;
use crate::site::SiteKind;
use gracepoint_wire::schema::Schema;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::{self, fn_addr_eq};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys by address.
type State = BTreeMap<KeyId, Attached>;

static STATE: Mutex<State> = Mutex::new(BTreeMap::new());

/// A key that has probes.
struct Attached {
    key: &'static Key,
    /// Each probe for itself.
    probes: Vec<Entry>,
    /// What is published: sessions are one entry, which encodes the event once for all.
    array: Published,
}

/// A published array, and what its entries point to.
struct Published {
    array: Box<[Entry]>,
    /// See [`Merged`]; never looked at from here.
    _merged: Option<Box<Merged>>,
}

impl Published {
    fn new(key: &'static Key, probes: &[Entry]) -> Published {
        let is_session =
            |entry: &&Entry| entry.call.is_some_and(|call| fn_addr_eq(call, key.record));
        let sessions: Box<[*const ()]> =
            probes.iter().filter(is_session).map(|entry| entry.data).collect();
        let (mut array, mut merged) = (probes.to_vec(), None);
        if (2..=Merged::MOST).contains(&sessions.len()) {
            array.retain(|entry| !is_session(&entry));
            let list: &mut Box<Merged> = merged.insert(Box::new(Merged::new(sessions)));
            let data = (&raw const **list).cast();
            array.insert(0, Entry { call: Some(key.record_all), data });
        }
        array.push(Entry::END);
        Published { array: array.into_boxed_slice(), _merged: merged }
    }
}

fn lock() -> MutexGuard<'static, State> {
    // A panic under the lock leaves a map that is still true of what is published.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key, named by its address: its object may have been unloaded since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyId(usize);

fn id(key: &'static Key) -> KeyId {
    KeyId(ptr::from_ref(key) as usize)
}

/// The keys of all loaded objects. The caller holds the lock, so none of them goes meanwhile.
fn loaded() -> BTreeMap<KeyId, &'static Key> {
    module::records().map(|f| f.record.site().key).map(|key| (id(key), key)).collect()
}

/// Adds a probe to each key that is still there.
///
/// # Errors
/// When sites cannot be switched on; then no probe has been added.
pub(crate) fn attach(probes: &[(KeyId, Entry)]) -> Result<(), PatchError> {
    let mut state = lock();
    let loaded = loaded();
    let mut fresh = BTreeSet::new();
    for (key, entry) in probes {
        let Some(&key) = loaded.get(key) else { continue };
        let before = entries(&state, id(key));
        if before.is_empty() {
            fresh.insert(id(key));
        }
        replace(&mut state, key, [before, vec![*entry]].concat());
    }
    let on = module::records().filter(|f| fresh.contains(&id(f.record.site().key)));
    let result = patch::switch(on.map(|found| (found, true)));
    if result.is_err() {
        for (key, entry) in probes {
            remove(&mut state, *key, entry.data);
        }
    }
    result
}

/// Removes from each key the probe with this data. Waits for nobody: a hit whose read section is
/// open may still call it, so the data must live until a grace period after this returns.
pub(crate) fn detach(probes: &[(KeyId, Entry)]) {
    let mut state = lock();
    let last: BTreeSet<KeyId> = probes
        .iter()
        .filter(|(key, entry)| without(&state, *key, entry.data).is_empty())
        .map(|(key, _)| *key)
        .collect();
    let off = module::records().filter(|f| last.contains(&id(f.record.site().key)));
    // Refused, the sites stay on and find no probes: slower, but right.
    let _ = patch::switch(off.map(|found| (found, false)));
    for (key, entry) in probes {
        remove(&mut state, *key, entry.data);
    }
}

fn entries(state: &State, key: KeyId) -> Vec<Entry> {
    state.get(&key).map_or_else(Vec::new, |attached| attached.probes.clone())
}

fn without(state: &State, key: KeyId, data: *const ()) -> Vec<Entry> {
    let mut all = entries(state, key);
    all.retain(|entry| entry.data != data);
    all
}

/// Takes a probe off a key; a key that has it not (any more: see [`forget`]) is left alone.
fn remove(state: &mut State, key: KeyId, data: *const ()) {
    if let Some(attached) = state.get(&key) {
        let (key, left) = (attached.key, without(state, key, data));
        if left.len() < entries(state, id(key)).len() {
            replace(state, key, left);
        }
    }
}

/// Publishes `probes` as the key's array and retires the one before.
fn replace(state: &mut State, key: &'static Key, probes: Vec<Entry>) {
    let old = if probes.is_empty() {
        key.publish(ptr::null_mut());
        state.remove(&id(key))
    } else {
        let mut array = Published::new(key, &probes);
        key.publish(array.array.as_mut_ptr());
        state.insert(id(key), Attached { key, probes, array })
    };
    if let Some(old) = old {
        TRACE.retire(old.array);
    }
}

/// An event and all that is known of it. Equal events of several shared objects are one.
pub(crate) struct Known {
    pub(crate) schema: Schema,
    /// Its keys, with the session writer made for each.
    pub(crate) keys: Vec<(KeyId, Call)>,
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
    let mut places: BTreeMap<KeyId, Places> = BTreeMap::new();
    for found in module::records() {
        let site = found.record.site();
        let fresh = || Places { key: site.key, sites: BTreeMap::new() };
        let entry = places.entry(id(site.key)).or_insert_with(fresh);
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
        entry.on = entry.on.max(entries(&state, id(key)).len() as u32);
        entry.keys.push((id(key), key.record));
    }
    known.into_values().collect()
}

/// Runs `unload`, after which an object's records are gone, and takes the probes off the keys that
/// only it had. Called from the object's destructor: it is still mapped, and at exit other threads
/// go on hitting its sites, so the keys must lead nowhere before their arrays are retired.
pub(crate) fn forget(unload: impl FnOnce()) {
    let mut state = lock();
    let before = loaded();
    unload();
    let left = loaded();
    for (gone, key) in before {
        if !left.contains_key(&gone) && state.contains_key(&gone) {
            replace(&mut state, key, Vec::new());
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
    let keys: Vec<&'static Key> = state.values().map(|attached| attached.key).collect();
    for key in keys {
        replace(&mut state, key, Vec::new());
    }
}
