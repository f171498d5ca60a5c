//! The lock, and under it: the keys that have probes, their arrays, and whose sites are on.

use super::probes::Registry;
use crate::dynamic::registry as dynamic;
use crate::hooks::Hook;
use crate::key::{Entry, Key, Member};
use crate::module;
use crate::patch::{self, PatchError};
use crate::session::{Alone, Merged};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, fn_addr_eq};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Arrays that were replaced, to be freed a grace period later.
pub(super) type Garbage = Vec<Arrays>;

static STATE: Mutex<State> = Mutex::new(State {
    keys: HashMap::with_hasher(BuildHasherDefault::new()),
    hooks: BTreeMap::new(),
    registry: Registry::new(),
    touched: false,
});
/// Token of the thread that holds the lock; 0 for none. Only compared with one's own, which no other
/// thread writes, so relaxed accesses do.
static HOLDER: AtomicUsize = AtomicUsize::new(0);
/// Has a site ever been switched?
static USED: AtomicBool = AtomicBool::new(false);

/// Called after an object has been registered.
pub(super) fn was_ever_used() -> bool {
    fence(SeqCst); // pairs with the one in `switch`
    USED.load(Relaxed)
}

/// See the top.
pub(super) struct State {
    keys: ByKey<Attached>,
    hooks: BTreeMap<KeyId, Vec<Arc<Hook>>>,
    pub(super) registry: Registry,
    /// A key that was made at run time has got or lost probes since somebody looked.
    touched: bool,
}

/// A key that has probes.
struct Attached {
    key: &'static Key,
    arrays: Arrays,
}

impl Attached {
    fn members(&self) -> &[Member] {
        self.arrays.members.split_last().map_or(&[], |(_end, members)| members)
    }
}

/// The probes of a key. What is published is the array of them all, or, where there are several sessions,
/// one in which these are a single entry that encodes the event once.
pub(super) struct Arrays {
    members: Box<[Member]>,
    merged: Option<(Box<[Member]>, Box<Merged>)>,
}

impl Arrays {
    fn new(key: &'static Key, mut members: Box<[Member]>) -> Arrays {
        members.iter_mut().for_each(|member| member.alone = None);
        let is_session = |member: &&Member| {
            member.session && member.entry.call.is_some_and(|call| fn_addr_eq(call, key.record))
        };
        let sessions = members.iter().filter(is_session).count();
        if let ([only, _end], 1) = (&mut *members, sessions) {
            // SAFETY: its function is `record`, and it is being attached or is attached.
            only.alone = unsafe { Alone::new(only.entry.data) };
        }
        if !(2..=Merged::MOST).contains(&sessions) {
            return Arrays { members, merged: None };
        }
        let all = members.iter().filter(is_session).map(|member| member.entry.data).collect();
        let list = Box::new(Merged::new(all));
        let entry = Entry { call: Some(key.record_all), data: (&raw const *list).cast() };
        let mut first = Some(Member::new(entry, 0, true));
        let merge = |member: &Member| match is_session(&member) {
            true => first.take(),
            false => Some(*member),
        };
        let published = members.iter().filter_map(merge).collect();
        Arrays { members, merged: Some((published, list)) }
    }

    /// The array that hits walk.
    fn published(&mut self) -> *mut Member {
        match &mut self.merged {
            Some((published, _)) => published.as_mut_ptr(),
            None => self.members.as_mut_ptr(),
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let merged = self.merged.as_ref();
        size_of::<Self>()
            + size_of_val(&*self.members)
            + merged.map_or(0, |(published, list)| size_of_val(&**published) + list.bytes())
    }
}

/// A key, named by its address: its object may have been unloaded since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(usize);

/// Spreads addresses of this process's own statics, which nobody chooses to collide.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(byte.into()));
    }

    fn write_usize(&mut self, n: usize) {
        self.0 = (self.0 ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type ByKey<V> = HashMap<KeyId, V, BuildHasherDefault<Spread>>;
pub(super) type KeySet = HashSet<KeyId, BuildHasherDefault<Spread>>;
/// Keys and the data of entries.
type PlaceSet = HashSet<(KeyId, usize), BuildHasherDefault<Spread>>;

impl KeyId {
    pub(crate) fn of(key: &'static Key) -> KeyId {
        KeyId(ptr::from_ref(key) as usize)
    }
}

/// The held lock.
pub(super) struct Locked(MutexGuard<'static, State>);

impl Drop for Locked {
    fn drop(&mut self) {
        HOLDER.store(0, Relaxed);
    }
}

impl Deref for Locked {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

/// A number that no other living thread has.
fn token() -> usize {
    thread_local! {
        static TOKEN: u8 = const { 0 };
    }
    // Without a destructor it is there to the thread's very end.
    TOKEN.try_with(|token| ptr::from_ref(token) as usize).unwrap_or(usize::MAX)
}

/// Does this thread hold the lock, so that it must not take it (see `tracer.rs`)?
pub(super) fn is_held_here() -> bool {
    HOLDER.load(Relaxed) == token()
}

pub(super) fn lock() -> Locked {
    // A panic under the lock leaves a state that is still true of what is published.
    let guard = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    HOLDER.store(token(), Relaxed);
    Locked(guard)
}

/// The lock, unless this thread has it.
pub(super) fn lock_unless_held() -> Option<Locked> {
    (!is_held_here()).then(lock)
}

/// The lock, for a change that brings probes to these keys: before that, hooks of those that have none yet
/// are told, outside of it.
pub(super) fn prepare(keys: &[KeyId]) -> Locked {
    let state = lock();
    if state.hooks.is_empty() {
        return state;
    }
    let first = |key: &&KeyId| state.hooks.contains_key(key) && !state.keys.contains_key(key);
    let due: Vec<Arc<Hook>> = keys
        .iter()
        .filter(first)
        .flat_map(|key| &state.hooks[key])
        .filter(|hook| hook.want(true))
        .cloned()
        .collect();
    if due.is_empty() {
        return state;
    }
    drop(state);
    due.iter().for_each(|hook| hook.settle());
    lock()
}

/// The keys of all loaded objects, by address. The caller holds the lock, so none of them goes meanwhile.
pub(super) struct Loaded(Vec<&'static Key>);

pub(super) fn loaded() -> Loaded {
    // Mostly in order already: the linker puts keys and records in the order of their files, and what is made at
    // run time comes one after the other. So the stable sort, which finds such runs and only merges them.
    let mut keys: Vec<_> = module::records().map(|found| found.record.site().key).collect();
    keys.extend(dynamic::points().iter().map(|point| point.key()));
    keys.sort_by_key(|key| KeyId::of(key));
    keys.dedup_by_key(|key| KeyId::of(key));
    Loaded(keys)
}

impl Loaded {
    pub(super) fn get(&self, id: KeyId) -> Option<&'static Key> {
        let at = self.0.binary_search_by_key(&id, |key| KeyId::of(key)).ok()?;
        Some(self.0[at])
    }

    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &'static Key> {
        self.0.iter().copied()
    }
}

/// Switches all sites of these keys, in one batch. The caller holds the lock. (Marks make it one walk over
/// all records without looking anything up.)
pub(super) fn switch(keys: &[&'static Key], on: bool) -> Result<(), PatchError> {
    if keys.iter().all(|key| key.is_at_run_time()) {
        return Ok(());
    }
    keys.iter().for_each(|key| key.mark(true));
    USED.store(true, Relaxed);
    // Pairs with the fence in `was_ever_used`: an object that is registered meanwhile is found below, or
    // finds the word set.
    fence(SeqCst);
    let sites = module::records().filter(|found| found.record.site().key.is_marked());
    let switched = patch::switch(sites.map(|found| (found, on)));
    keys.iter().for_each(|key| key.mark(false));
    switched
}

impl State {
    /// Adds probes; sites of keys that had none are switched on. Where one of those at `instead` is, it goes in
    /// the same step: a hit finds the one or the other.
    ///
    /// # Errors
    /// When sites cannot be switched on; then nothing has changed.
    pub(super) fn add(
        &mut self,
        members: Vec<(&'static Key, Member)>,
        instead: &[(KeyId, *const ())],
        garbage: &mut Garbage,
    ) -> Result<(), PatchError> {
        // What is published says it, and is at hand: nobody else writes it while the lock is held.
        let is_fresh = |(key, _): &&(&'static Key, Member)| !key.has_probes();
        let fresh: Vec<_> = members.iter().filter(is_fresh).map(|(key, _)| *key).collect();
        // Before the arrays: a hit in between finds none.
        switch(&fresh, true)?;
        self.keys.reserve(members.len());
        let goes: HashMap<_, _, BuildHasherDefault<Spread>> = instead.iter().copied().collect();
        for (key, member) in members {
            let id = KeyId::of(key);
            let known = key.has_probes().then(|| self.keys.get(&id)).flatten();
            let before = known.map_or(&[][..], Attached::members);
            let array: Box<[Member]> = if before.is_empty() {
                Box::new([member, Member::END])
            } else {
                let goes = goes.get(&id);
                let stays = |other: &&Member| goes != Some(&other.entry.data);
                let at = before.partition_point(|other| other.priority >= member.priority);
                let (first, last) = before.split_at(at);
                let (first, last) = (first.iter().filter(stays), last.iter().filter(stays));
                first.chain([&member]).chain(last).chain([&Member::END]).copied().collect()
            };
            self.replace(key, array, garbage);
        }
        Ok(())
    }

    /// Removes from each key the probe with this data; sites of keys that have none left are switched off
    /// first.
    pub(super) fn take(&mut self, places: &[(KeyId, *const ())], garbage: &mut Garbage) {
        // Several of one key may go at once, and only together be its last.
        let mut gone: PlaceSet =
            HashSet::with_capacity_and_hasher(places.len(), Default::default());
        gone.extend(places.iter().map(|&(key, data)| (key, data as usize)));
        let is_last = |&(key, _): &(KeyId, *const ())| {
            let known = self.keys.get(&key)?;
            let goes = |member: &Member| gone.contains(&(key, member.entry.data as usize));
            known.members().iter().all(goes).then_some(known.key)
        };
        let last: Vec<_> = places.iter().filter_map(is_last).collect();
        // Refused, the sites stay on and find no probes: slower, but right.
        let _ = switch(&last, false);
        self.take_off(places, garbage);
    }

    /// A key that has the probe not (any more: see [`clear`](Self::clear)) is left alone.
    fn take_off(&mut self, places: &[(KeyId, *const ())], garbage: &mut Garbage) {
        garbage.reserve(places.len());
        for &(key, data) in places {
            let Some(known) = self.keys.get(&key) else { continue };
            let stays = |member: &&Member| member.entry.data != data;
            let left = known.members().iter().filter(stays).count();
            if left == 0 {
                self.empty(key, garbage);
            } else if left < known.members().len() {
                // Exact: a list that grows has room to spare, which would be kept with it.
                let mut array = Vec::with_capacity(left + 1);
                array.extend(known.members().iter().filter(stays).chain([&Member::END]));
                self.replace(known.key, array.into(), garbage);
            }
        }
    }

    /// Takes all probes off keys whose sites are going.
    pub(super) fn clear(&mut self, keys: impl Iterator<Item = KeyId>, garbage: &mut Garbage) {
        for key in keys {
            self.hooks.remove(&key);
            self.empty(key, garbage);
        }
    }

    /// Publishes the array, which has members and then the end, as the key's; the one before is garbage.
    fn replace(&mut self, key: &'static Key, array: Box<[Member]>, garbage: &mut Garbage) {
        let mut arrays = Arrays::new(key, array);
        self.touched |= key.is_at_run_time();
        key.publish(arrays.published());
        let old = self.keys.insert(KeyId::of(key), Attached { key, arrays });
        garbage.extend(old.map(|old| old.arrays));
    }

    /// Publishes that the key has no probes; the array before is garbage.
    fn empty(&mut self, key: KeyId, garbage: &mut Garbage) {
        let Some(known) = self.keys.remove(&key) else { return };
        self.touched |= known.key.is_at_run_time();
        known.key.publish(ptr::null_mut());
        garbage.push(known.arrays);
    }

    /// Whether whoever declares events at run time has to be told, once the lock is free.
    pub(super) fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }

    /// How many probes a key has.
    pub(super) fn count(&self, key: KeyId) -> usize {
        self.keys.get(&key).map_or(0, |known| known.members().len())
    }

    /// The keys that have probes.
    pub(super) fn keys(&self) -> KeySet {
        self.keys.keys().copied().collect()
    }

    /// The same, to be switched.
    pub(super) fn attached(&self) -> Vec<&'static Key> {
        self.keys.values().map(|known| known.key).collect()
    }

    /// Where sessions are attached.
    pub(super) fn sessions(&self) -> Vec<(KeyId, *const ())> {
        let of = |(key, known): (&KeyId, &Attached)| {
            let sessions = known.members().iter().filter(|member| member.session);
            sessions.map(|member| (*key, member.entry.data)).collect::<Vec<_>>()
        };
        self.keys.iter().flat_map(of).collect()
    }

    /// Tells the hooks of these keys what is, and returns those to settle once the lock is free.
    pub(super) fn hooks_due(&self, keys: impl Iterator<Item = KeyId>) -> Vec<Arc<Hook>> {
        if self.hooks.is_empty() {
            return Vec::new();
        }
        let of = |key| self.hooks.get(&key).into_iter().flatten().map(move |hook| (key, hook));
        let due = keys.flat_map(of).filter(|(key, hook)| hook.want(self.count(*key) > 0));
        due.map(|(_, hook)| Arc::clone(hook)).collect()
    }

    pub(super) fn add_hook(&mut self, key: KeyId, hook: Arc<Hook>) {
        self.hooks.entry(key).or_default().push(hook);
    }

    /// Takes a hook away; what it captured is the caller's to drop, outside the lock.
    pub(super) fn take_hook(&mut self, key: KeyId, hook: &Arc<Hook>) -> Option<Arc<Hook>> {
        let hooks = self.hooks.get_mut(&key)?;
        let at = hooks.iter().position(|known| Arc::ptr_eq(known, hook))?;
        let taken = hooks.swap_remove(at);
        if hooks.is_empty() {
            self.hooks.remove(&key);
        }
        Some(taken)
    }
}

thread_local! {
    /// The lock, held by a thread from before its fork to after it.
    static ACROSS_FORK: RefCell<Option<Locked>> = const { RefCell::new(None) };
}

/// Before a fork: takes the lock, so that the child does not inherit it from a thread (the agent)
/// that the child does not have.
pub(crate) fn before_fork() {
    // A fork in a signal handler or a probe that interrupted our own change: it goes on in both.
    let Some(guard) = lock_unless_held() else { return };
    // At a thread's very end its thread-locals are gone; then the lock stays as it is.
    let _ = ACROSS_FORK.try_with(|held| *held.borrow_mut() = Some(guard));
}

/// After a fork, in both processes.
pub(crate) fn after_fork() {
    let _ = ACROSS_FORK.try_with(|held| held.borrow_mut().take());
}
