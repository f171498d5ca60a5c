//! Which points there are, and which sessions take new ones in.
//!
//! # No point is missed
//! One lock, the *door*, orders the two things that may cross: a session that is being made looks which
//! points there are and enters itself, a point that is being declared enters itself and looks which
//! sessions there are. Whichever comes second sees the other. The door is taken before the tracer's lock,
//! never under it; no code of the program runs under it, and the loader is not asked (`module.rs`).
//!
//! A session is switched on and off in one batch, outside of the door: what it has by then is switched
//! by the batch, what it takes in after that by whoever declares it. Under the door it says which.

use super::{Change, Level, OpenTasks, Point};
use crate::drive;
use crate::session::Session;
use std::cell::RefCell;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// What lies behind the door.
pub(crate) struct Registry {
    sessions: Vec<Weak<Session>>,
}

static DOOR: Mutex<Registry> = Mutex::new(Registry { sessions: Vec::new() });
/// All points. Written behind the door; read also under the tracer's lock, so it has a lock of its own,
/// under which no other is taken.
static POINTS: Mutex<Vec<&'static Point>> = Mutex::new(Vec::new());
static CHANGED: OnceLock<fn(Change)> = OnceLock::new();
static TASKS: OnceLock<fn() -> OpenTasks> = OnceLock::new();
/// Somebody watches this program: [`Builder::watch`](crate::Builder::watch).
static WATCHED: AtomicBool = AtomicBool::new(false);
/// A call of it is queued, in the process with this pid; 0 for none.
static QUEUED: AtomicU32 = AtomicU32::new(0);
/// Some event of this program may be declared at run time.
static USED: AtomicBool = AtomicBool::new(false);

/// The door, held.
pub(crate) fn door() -> MutexGuard<'static, Registry> {
    DOOR.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Lets a session know of points that come from now on.
    pub(crate) fn enter(&mut self, session: Weak<Session>) {
        self.sessions.retain(|session| session.strong_count() > 0);
        self.sessions.push(session);
    }
}

/// A new point.
pub(super) fn add(point: &'static Point) {
    USED.store(true, Relaxed);
    let door = door();
    points().push(point);
    for session in door.sessions.iter().filter_map(Weak::upgrade) {
        session.take_in(point);
    }
}

/// All points, locked.
pub(crate) fn points() -> MutexGuard<'static, Vec<&'static Point>> {
    POINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn on_change(changed: fn(Change)) {
    USED.store(true, Relaxed);
    let _first = CHANGED.set(changed);
}

pub(super) fn on_tasks(tell: fn() -> OpenTasks) {
    let _first = TASKS.set(tell);
}

/// What a bridge knows of tasks. Under no lock.
pub(crate) fn open_tasks() -> OpenTasks {
    TASKS.get().map_or_else(OpenTasks::default, |tell| tell())
}

/// From now on the program is watched.
pub(crate) fn watch() {
    WATCHED.store(true, Relaxed);
    call_soon();
}

#[inline]
pub(super) fn is_watched() -> bool {
    WATCHED.load(Relaxed)
}

/// May events be declared at run time?
pub(crate) fn is_used() -> bool {
    USED.load(Relaxed)
}

/// Tells whoever declares points. Under no lock.
pub(crate) fn changed(what: Change) {
    if let Some(changed) = CHANGED.get() {
        changed(what);
    }
}

pub(super) fn awaited() -> Option<Level> {
    let sessions: Vec<_> = door().sessions.iter().filter_map(Weak::upgrade).collect();
    // Outside of the door: the last hold of a session may be ours.
    sessions.iter().filter_map(|session| session.awaits()).max()
}

pub(super) fn call_soon() {
    let pid = std::process::id();
    if CHANGED.get().is_none() || QUEUED.swap(pid, AcqRel) == pid {
        return;
    }
    drive::after_grace_period(0, || {
        QUEUED.store(0, Relaxed);
        changed(Change::Switched);
    });
}

thread_local! {
    /// Both locks, held by a thread from before its fork to after it.
    static ACROSS_FORK: RefCell<(Option<MutexGuard<'static, Registry>>, Points)> =
        const { RefCell::new((None, None)) };
}

type Points = Option<MutexGuard<'static, Vec<&'static Point>>>;

/// Before a fork, and before the tracer's lock: so that the child does not inherit a lock from a thread
/// that it does not have. A thread never forks behind the door itself: nothing of the program runs there.
pub(crate) fn before_fork() {
    let door = door();
    let _ = ACROSS_FORK.try_with(|held| held.borrow_mut().0 = Some(door));
}

/// The same, after the tracer's lock.
pub(crate) fn before_fork_last() {
    let points = points();
    let _ = ACROSS_FORK.try_with(|held| held.borrow_mut().1 = Some(points));
}

/// After a fork, in both processes.
pub(crate) fn after_fork() {
    let _ = ACROSS_FORK.try_with(|held| *held.borrow_mut() = (None, None));
}

/// In a forked child: the parent's sessions take nothing in.
pub(crate) fn child_after_fork() {
    door().sessions.clear();
}
