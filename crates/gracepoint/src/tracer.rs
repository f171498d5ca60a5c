//! Which keys have which probes, and the lock under which that changes.
//!
//! On: the sites of keys that had no probes are switched on, in one batch, then the new arrays are
//! published. Off: the sites are switched off, then the arrays are replaced, and the old ones retired.
//! A hit in between finds an array or finds none; both are fine.
//!
//! # The lock
//! No code of the program runs under it: closures, hooks and what probes captured are called and dropped
//! outside. But allocating under it may hit a tracepoint (of a traced allocator), and so may a
//! signal handler, and a probe there may want to attach or detach. Hence the lock knows who holds it:
//! attaching is refused then, and detaching marks the probe dead, so that no call of it begins, and leaves
//! the rest to the callback thread.
//!
//! | file | what |
//! |---|---|
//! | `tracer/state.rs` | the lock, the keys' arrays, patching |
//! | `tracer/probes.rs` | user probes: attaching, detaching, what is left of them |

mod probes;
mod state;

pub(crate) use crate::drive::after_grace_period;
pub(crate) use probes::{
    add, bury_later, candidates, failures, hook, on_failure, probes_on, remove, remove_all, stalls,
    statistics, unhook, wait,
};
pub(crate) use state::{KeyId, after_fork, before_fork};

use crate::dynamic::{Change, Point, registry};
use crate::key::{Call, Entry, Key, Member, TRACE};
use crate::module;
use crate::patch::{self, PatchError};
use crate::site::SiteKind;
use gracepoint_wire::schema::Schema;
use state::{Garbage, KeySet, lock};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A tracepoint that a probe of many may be attached to.
pub(crate) struct Candidate {
    pub(crate) key: &'static Key,
    pub(crate) name: Cow<'static, str>,
}

/// Runs `body` under the lock.
pub(crate) fn locked<T>(body: impl FnOnce() -> T) -> T {
    let _state = lock();
    body()
}

/// How sites are switched; see `patch.rs`.
pub(crate) fn patching() -> &'static str {
    // From a probe that interrupted our own change, too.
    let _state = state::lock_unless_held();
    patch::way()
}

/// Switches all sites of the events that `glob` matches, whatever probes they have: for tests and
/// benchmarks of patching alone.
pub(crate) fn switch_sites(glob: &str, on: bool) -> Result<(), PatchError> {
    let _state = lock();
    let matches = |key: &Key| gracepoint_wire::glob::matches(glob, &key.desc.name());
    let wanted = module::records().filter(|found| matches(found.record.site().key));
    patch::switch(wanted.map(|found| (found, on)))
}

/// Switches the sites of these keys, whatever probes they have; for benchmarks. The caller holds the lock.
pub(crate) fn switch(keys: &[&'static Key], on: bool) -> Result<(), PatchError> {
    state::switch(keys, on)
}

/// Makes the objects that have sites of these keys stay loaded (see `module.rs`). Not under the lock, because
/// the loader has one of its own, which it holds while it tells us of objects.
fn pin(keys: impl Iterator<Item = KeyId>) {
    let open = {
        let _state = lock();
        if module::all_pinned() {
            return;
        }
        let keys: KeySet = keys.collect();
        match keys.is_empty() {
            true => Vec::new(),
            false => module::unpinned(|key| keys.contains(&KeyId::of(key))),
        }
    };
    module::pin(&open);
}

/// [`locked`], unless this thread holds the lock.
pub(crate) fn locked_unless_held<T>(body: impl FnOnce() -> T) -> Option<T> {
    let _state = state::lock_unless_held()?;
    Some(body())
}

/// Adds a session's probe to each key that is still there.
///
/// # Errors
/// When sites cannot be switched on; then no probe has been added.
pub(crate) fn attach(probes: &[(KeyId, Entry)]) -> Result<(), PatchError> {
    pin(probes.iter().map(|(key, _)| *key));
    let mut garbage = Garbage::new();
    let (result, due, touched) = {
        let mut state = state::prepare(&probes.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        let loaded = state::loaded();
        let member = |entry: &Entry| Member::new(*entry, 0, true);
        let found = |(key, entry): &(KeyId, Entry)| Some((loaded.get(*key)?, member(entry)));
        let members = probes.iter().filter_map(found).collect();
        let result = state.add(members, &[], &mut garbage);
        let due = state.hooks_due(probes.iter().map(|(key, _)| *key));
        (result, due, state.take_touched())
    };
    retire(garbage);
    settle_session(&due, touched);
    result
}

/// Adds a session's probe to a key that is being made at run time. Whoever makes it is not told: he is
/// the caller.
pub(crate) fn attach_new(key: &'static Key, entry: Entry) {
    let mut garbage = Garbage::new();
    {
        let mut state = lock();
        // There is no site to switch, so nothing can be refused.
        let _ = state.add(vec![(key, Member::new(entry, 0, true))], &[], &mut garbage);
        state.take_touched();
    }
    retire(garbage);
}

/// After a change, outside of the lock: tells the hooks of the keys, and whoever makes events at run time.
fn settle(due: &[std::sync::Arc<crate::hooks::Hook>], touched: bool) {
    due.iter().for_each(|hook| hook.settle());
    if touched {
        registry::changed(Change::Switched);
    }
}

/// Removes from each key the session's probe with this data. Waits for nobody: a hit whose read section is
/// open may still call it, so the data must live until a grace period after this returns.
pub(crate) fn detach(probes: &[(KeyId, Entry)]) {
    let mut garbage = Garbage::new();
    let places: Vec<_> = probes.iter().map(|(key, entry)| (*key, entry.data)).collect();
    let (due, touched) = {
        let mut state = lock();
        state.take(&places, &mut garbage);
        (state.hooks_due(probes.iter().map(|(key, _)| *key)), state.take_touched())
    };
    retire(garbage);
    settle_session(&due, touched);
}

/// The same after a session has come or gone, which may await other points than those before, whatever was touched.
fn settle_session(due: &[std::sync::Arc<crate::hooks::Hook>], touched: bool) {
    settle(due, touched);
    if !touched {
        registry::changed(Change::Awaited);
    }
}

/// Leaves arrays of sessions to a grace period, which the agent drives.
fn retire(garbage: Garbage) {
    if !garbage.is_empty() {
        TRACE.retire(garbage);
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
    /// It was declared at run time.
    pub(crate) at_run_time: bool,
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
    let functions = |found: &module::Found| found.record.site().kind == SiteKind::Function;
    for found in module::records().filter(|found| !functions(found)) {
        let site = found.record.site();
        let fresh = || Places { key: site.key, sites: BTreeMap::new() };
        let entry = places.entry(KeyId::of(site.key)).or_insert_with(fresh);
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
            at_run_time: false,
        });
        let spans = sites.values().filter(|&&kind| kind == SiteKind::Span).count() as u32;
        entry.spans += spans;
        entry.sites += sites.len() as u32 - spans;
        entry.on = entry.on.max(state.count(KeyId::of(key)) as u32);
        entry.keys.push((KeyId::of(key), key.record));
    }
    for point in registry::points().iter() {
        let fresh = point_known(point);
        // One with sites of its own has ids of another kind, and keeps the name.
        let entry = known.entry((fresh.schema.name.clone(), fresh.schema.hash())).or_insert(fresh);
        if entry.at_run_time {
            let key = point.key();
            entry.keys.push((KeyId::of(key), key.record));
            entry.on = entry.on.max(state.count(KeyId::of(key)) as u32);
            *if point.is_span() { &mut entry.spans } else { &mut entry.sites } += 1;
        }
    }
    known.into_values().collect()
}

/// What is known of a point but for its keys.
pub(crate) fn point_known(point: &'static Point) -> Known {
    let desc = point.key().desc;
    Known {
        schema: desc.schema(),
        keys: Vec::new(),
        sites: 0,
        spans: 0,
        on: 0,
        location: format!("{}:{}", desc.file, desc.line),
        at_run_time: true,
    }
}

/// Runs `unload`, after which an object's records are gone, and takes the probes off the keys that
/// only it had. Called from the object's destructor: it is still mapped, and at exit other threads
/// go on hitting its sites, so the keys must lead nowhere before their arrays are retired.
pub(crate) fn forget(unload: impl FnOnce()) {
    let mut garbage = Garbage::new();
    {
        // Without the lock nobody else can be waited for: in a child that was made past the hooks; and where
        // a handler that interrupted our own change ends the program.
        let lock = if crate::start::is_past_hooks() { None } else { state::lock_unless_held() };
        let Some(mut state) = lock else { return unload() };
        let before = state::loaded();
        unload();
        let left = state::loaded();
        let gone = before.keys().map(KeyId::of).filter(|key| left.get(*key).is_none());
        state.clear(gone, &mut garbage);
    }
    retire(garbage);
}

/// For an object that has just been registered: switches its sites on whose keys have probes already. A
/// constructor that runs before the one of the sites may have attached them.
pub(crate) fn catch_up() {
    if !state::was_ever_used() {
        return;
    }
    let Some(state) = state::lock_unless_held() else { return };
    let keys = state.attached();
    // Refused, they stay off, as they would have if the probes had come later and failed.
    let _ = state::switch(&keys, true);
}

/// In a forked child, before its next session: no session of the parent's is attached any more. Probes
/// are the child's as much as the rest of its memory.
pub(crate) fn reset() {
    let mut garbage = Garbage::new();
    {
        let mut state = lock();
        let sessions = state.sessions();
        state.take(&sessions, &mut garbage);
        // What a fork in the middle of a change has left on.
        let used: KeySet = state.keys();
        let is_unused =
            |key: &'static Key| key.point().is_none() && !used.contains(&KeyId::of(key));
        let unused = module::records().filter(|found| is_unused(found.record.site().key));
        let _ = patch::switch(unused.map(|found| (found, false)));
    }
    retire(garbage);
}
