//! User probes in the tracer's state: attached, leaving, buried; what is reported of them.
//!
//! A probe is *attached* until it is removed, by its handle, with its tracer, or because it panicked. Then it
//! is *leaving*: off its tracepoints, but hits under way may be inside, and reports must find its name. A
//! grace period later it is *buried*: what it captured is dropped, and its counts go into its tracer's ledger.

use super::state::{self, Arrays, Garbage, Locked, is_held_here, lock, lock_unless_held};
use super::{Candidate, KeyId};
use crate::drive;
use crate::error::{Error, ErrorKind};
use crate::hooks::Hook;
use crate::key::{Entry, Key, Member, TRACE};
use crate::owner::{ProbeFailure, Stall, Statistics};
use crate::probe::{Body, discard, inside, message_of};
use crate::{running, start, why};
use gracepoint_rcu::WaitCall;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Failures that a tracer remembers.
const MOST_FAILURES: usize = 64;

/// Bytes that a probe takes beside its own: the counts of its `Arc`, and its entry in a half-full node
/// of the registry.
const REGISTERED: usize = 16 + 2 * size_of::<(u64, Registered)>();

type Tell = dyn Fn(&ProbeFailure) + Send + Sync;

/// See the top.
pub(super) struct Registry {
    /// By the first of their ids.
    probes: BTreeMap<u64, Registered>,
    ledgers: BTreeMap<u64, Ledger>,
}

struct Registered {
    body: Arc<dyn Body>,
    leaving: bool,
}

/// What is kept of a tracer's probes when they are buried.
#[derive(Default)]
struct Ledger {
    skipped: u64,
    failed: u64,
    failures: VecDeque<ProbeFailure>,
    tell: Option<Arc<Tell>>,
}

impl Ledger {
    /// Enters a buried probe. Whom to tell of its failure.
    fn enter(&mut self, skipped: u64, failed: Option<&ProbeFailure>) -> Option<Arc<Tell>> {
        self.skipped += skipped;
        let failed = failed?;
        self.failed += 1;
        if self.failures.len() == MOST_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(failed.clone());
        self.tell.clone()
    }
}

impl Registry {
    pub(super) const fn new() -> Registry {
        Registry { probes: BTreeMap::new(), ledgers: BTreeMap::new() }
    }

    /// Name and tracepoint behind an id.
    fn named(&self, id: u64) -> Option<(String, String)> {
        let (first, known) = self.probes.range(..=id).next_back()?;
        let place = usize::try_from(id - first).ok().filter(|place| *place < known.body.len())?;
        Some((known.body.head().name().to_owned(), known.body.tracepoint(place)))
    }

    /// Is this probe there, and not leaving?
    fn stays(&self, id: u64) -> bool {
        self.probes.get(&id).is_some_and(|known| !known.leaving)
    }

    fn leaves(&mut self, id: u64) {
        if let Some(known) = self.probes.get_mut(&id) {
            known.leaving = true;
        }
    }

    fn of_owner(&self, owner: u64) -> impl Iterator<Item = &Registered> {
        self.probes.values().filter(move |known| known.body.head().owner == owner)
    }
}

fn failure(body: &dyn Body) -> Option<ProbeFailure> {
    let panicked = body.head().panicked()?;
    let place = usize::try_from(panicked.id - body.head().id).ok()?;
    Some(ProbeFailure {
        probe: body.head().name().to_owned(),
        tracepoint: body.tracepoint(place),
        message: panicked.message.clone(),
    })
}

/// Attaches a probe; one that is there already goes in the same step.
///
/// # Errors
/// See [`Tracepoint::attach`](crate::Tracepoint::attach).
pub(crate) fn add(
    body: Arc<dyn Body>,
    entries: Vec<(&'static Key, Entry)>,
    instead: Option<&Arc<dyn Body>>,
) -> Result<(), Error> {
    start::register();
    if is_held_here() {
        // SAFETY: nobody has seen the probe yet but its maker, who gives it up with the error.
        unsafe { body.drop_captured() };
        return Err(inside(
            "a probe cannot be attached from a probe that interrupted a change of probes; attach it later",
        ));
    }
    let mut keys: Vec<KeyId> = entries.iter().map(|(key, _)| KeyId::of(key)).collect();
    // What is declared at run time lies in no object.
    let in_objects = entries.iter().filter(|(key, _)| !key.is_at_run_time());
    super::pin(in_objects.map(|(key, _)| KeyId::of(key)));
    let (id, priority) = (body.head().id, body.head().priority);
    let member = |(key, entry)| (key, Member::new(entry, priority, false));
    let members = entries.into_iter().map(member).collect();
    let (mut garbage, mut leaving) = (Garbage::new(), Vec::new());
    let (result, due, touched) = {
        let mut state = state::prepare(&keys);
        let old = instead.filter(|old| state.registry.stays(old.head().id));
        let places = old.into_iter().flat_map(|old| old.places());
        let places: Vec<_> = places.map(|place| (place.key, place.data)).collect();
        let result = state.add(members, &places, &mut garbage);
        if result.is_ok() {
            why::remember(id, body.len(), body.head().name(), &body.tracepoint(0));
            state
                .registry
                .probes
                .insert(id, Registered { body: Arc::clone(&body), leaving: false });
            state.registry.ledgers.entry(body.head().owner).or_default();
        }
        if let (Ok(()), Some(old)) = (&result, old) {
            // Not killed: a hit that has found it calls it, since it does not find the other.
            state.registry.leaves(old.head().id);
            leaving.push(Arc::clone(old));
            state.take(&places, &mut garbage);
            keys.extend(places.iter().map(|(key, _)| *key));
        }
        let due = state.hooks_due(keys.into_iter());
        (result, due, state.take_touched())
    };
    if !leaving.is_empty() {
        leave(leaving, garbage);
    } else if !garbage.is_empty() {
        drive::after_grace_period(bytes(&mut garbage), move || drop(garbage));
    }
    super::settle(&due, touched);
    result.map_err(|error| {
        // SAFETY: nothing has been published, so nobody has seen the probe but its maker.
        unsafe { body.drop_captured() };
        Error::new(ErrorKind::Patching, error.to_string())
    })
}

/// Bytes of memory that arrays keep, whose own list is made to fit.
fn bytes(garbage: &mut Garbage) -> usize {
    garbage.shrink_to_fit();
    garbage.iter().map(Arrays::bytes).sum()
}

/// Detaches probes, those that are not detached already, in one batch. Waits for nobody.
pub(crate) fn remove(bodies: &[Arc<dyn Body>]) {
    let Some(state) = lock_unless_held() else {
        // Inside our own change: from now on they are not called; the rest is done later.
        for body in bodies {
            body.head().kill();
            bury_later(body.head().id);
        }
        return;
    };
    remove_locked(state, bodies);
}

fn remove_locked(mut state: Locked, bodies: &[Arc<dyn Body>]) {
    let mut garbage = Garbage::new();
    let mut places = Vec::new();
    let mut leaving = Vec::with_capacity(1);
    for body in bodies {
        let known = state.registry.probes.get_mut(&body.head().id);
        let Some(known) = known.filter(|known| !known.leaving) else { continue };
        known.leaving = true;
        // For the handle, if it is another who removes.
        body.head().kill();
        places.extend(body.places().map(|place| (place.key, place.data)));
        leaving.push(Arc::clone(body));
    }
    state.take(&places, &mut garbage);
    let due = state.hooks_due(places.iter().map(|(key, _)| *key));
    let touched = state.take_touched();
    drop(state);
    if !leaving.is_empty() {
        leave(leaving, garbage);
    }
    super::settle(&due, touched);
}

/// Buries probes that are off their tracepoints, and frees arrays, when hits under way have ended.
fn leave(bodies: Vec<Arc<dyn Body>>, mut garbage: Garbage) {
    let each = |body: &Arc<dyn Body>| body.bytes() + size_of_val(body) + REGISTERED;
    let bytes = bodies.iter().map(each).sum::<usize>() + bytes(&mut garbage);
    drive::after_grace_period(bytes, move || {
        drop(garbage);
        for body in bodies {
            bury(&*body);
        }
    });
}

/// Drops what a probe captured, reports what is to be reported, and forgets it. On the callback thread.
fn bury(body: &dyn Body) {
    // SAFETY: a probe gets here once (who sets `leaving` brings it here) and a grace period after it was
    // taken off its tracepoints.
    let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { body.drop_captured() }));
    let mut failed = failure(body);
    if let Err(payload) = dropped {
        failed.get_or_insert_with(|| ProbeFailure {
            probe: body.head().name().to_owned(),
            tracepoint: body.tracepoint(0),
            message: format!("(dropping what it captured) {}", message_of(&*payload)),
        });
        discard(payload);
    }
    let tell = {
        let mut state = lock();
        let registry = &mut state.registry;
        let buried = registry.probes.remove(&body.head().id);
        why::forget(body.head().id);
        let skipped = body.head().skipped();
        // A tracer that is gone has no ledger.
        let ledger = registry.ledgers.get_mut(&body.head().owner);
        let told = ledger.and_then(|ledger| ledger.enter(skipped, failed.as_ref()));
        drop(state);
        drop(buried);
        told
    };
    if let (Some(tell), Some(failed)) = (tell, failed)
        && let Err(payload) = catch_unwind(AssertUnwindSafe(|| tell(&failed)))
    {
        // The program's panic hook has said so; others wait to be buried.
        discard(payload);
    }
}

/// Sees to it that a probe that is dead is detached: on the callback thread, since it is not known what this
/// thread is doing.
pub(crate) fn bury_later(id: u64) {
    drive::after_grace_period(0, move || {
        let state = lock();
        let body = state.registry.probes.get(&id).map(|known| Arc::clone(&known.body));
        if let Some(body) = body {
            remove_locked(state, &[body]);
        }
    });
}

/// Detaches all probes of a tracer, and forgets it.
pub(crate) fn remove_all(owner: u64) {
    let Some(mut state) = lock_unless_held() else {
        drive::after_grace_period(0, move || remove_all(owner));
        return;
    };
    let bodies: Vec<_> =
        state.registry.of_owner(owner).map(|known| Arc::clone(&known.body)).collect();
    let ledger = state.registry.ledgers.remove(&owner);
    remove_locked(state, &bodies);
    // The program's function, which has a `Drop` of its own.
    drop(ledger);
}

/// Waits until every hit under way has ended; at most so long. False if that was not enough.
///
/// # Errors
/// From inside a hit, which would wait for itself.
pub(crate) fn wait(call: WaitCall, most: Option<Duration>) -> Result<bool, Error> {
    drive::wait(call, most).map_err(|_| {
        inside(
            "the probe is detached, but from inside a probe the end of its last call cannot be waited for; \
             wait on another thread, or use detach_async",
        )
    })
}

/// All tracepoints with a site. Functions are none: theirs are switched as operations want them.
///
/// # Errors
/// As [`add`].
pub(crate) fn candidates() -> Result<Vec<Candidate>, Error> {
    if is_held_here() {
        return Err(inside("a probe cannot be attached from inside a change of probes"));
    }
    let _state = lock();
    let named = |key: &'static Key| Candidate { key, name: key.desc.name_as_is() };
    Ok(state::loaded().keys().filter(|key| key.point().is_none()).map(named).collect())
}

/// Adds a hook to a key.
///
/// # Errors
/// As [`add`].
pub(crate) fn hook(
    key: &'static Key,
    make: impl FnOnce(bool) -> Arc<Hook>,
) -> Result<Arc<Hook>, Error> {
    start::register();
    let Some(mut state) = lock_unless_held() else {
        return Err(inside("a hook cannot be added from inside a change of probes"));
    };
    let hook = make(state.count(KeyId::of(key)) > 0);
    state.add_hook(KeyId::of(key), Arc::clone(&hook));
    Ok(hook)
}

/// Takes a hook off its key.
pub(crate) fn unhook(key: KeyId, hook: &Arc<Hook>) {
    let Some(mut state) = lock_unless_held() else { return };
    let taken = state.take_hook(key, hook);
    drop(state);
    drop(taken);
}

pub(crate) fn failures(owner: u64) -> Vec<ProbeFailure> {
    let Some(state) = lock_unless_held() else { return Vec::new() };
    let kept = state.registry.ledgers.get(&owner).map(|ledger| &ledger.failures);
    let buried = kept.into_iter().flatten().cloned();
    let leaving = state.registry.of_owner(owner).filter_map(|known| failure(&*known.body));
    buried.chain(leaving).collect()
}

pub(crate) fn on_failure(owner: u64, tell: Box<Tell>) {
    let Some(mut state) = lock_unless_held() else { return };
    let before = state.registry.ledgers.entry(owner).or_default().tell.replace(tell.into());
    drop(state);
    drop(before);
}

/// Names of the probes that the thread with this index runs, and their tracepoints, innermost first.
pub(crate) fn probes_on(index: u32) -> Vec<(String, String)> {
    let Some(state) = lock_unless_held() else { return Vec::new() };
    running::ids(index).filter_map(|id| state.registry.named(id)).collect()
}

/// Threads that a grace period waits for, and what they run there.
pub(crate) fn stalls() -> Vec<Stall> {
    let holdouts = TRACE.holdouts();
    let known: Vec<_> = TRACE.stalls().into_iter().flat_map(|stall| stall.culprits).collect();
    let Some(state) = lock_unless_held() else { return Vec::new() };
    let stall = |holdout: gracepoint_rcu::Holdout| Stall {
        seen: known
            .iter()
            .find(|known| {
                // Of owners, and of threads without an index, it is not known which is which.
                holdout.index.is_some() && known.reader.index == holdout.index
            })
            .map(|known| known.seen),
        probes: holdout
            .index
            .map(|index| running::ids(index).filter_map(|id| state.registry.named(id)).collect())
            .unwrap_or_default(),
        tid: holdout.thread.map(|thread| thread.tid),
        holdout: holdout.to_string(),
    };
    holdouts.into_iter().map(stall).collect()
}

pub(crate) fn statistics(owner: u64) -> Statistics {
    let (waiting_callbacks, waiting_bytes) = drive::waiting();
    let mut sum = Statistics { waiting_callbacks, waiting_bytes, ..Statistics::default() };
    let Some(state) = lock_unless_held() else { return sum };
    if let Some(ledger) = state.registry.ledgers.get(&owner) {
        (sum.skipped, sum.failures) = (ledger.skipped, ledger.failed);
    }
    for known in state.registry.of_owner(owner) {
        if known.leaving {
            sum.leaving += 1;
        } else {
            sum.attached += 1;
        }
        sum.skipped += known.body.head().skipped();
        sum.failures += u64::from(known.body.head().panicked().is_some());
    }
    sum
}
