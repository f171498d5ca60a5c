//! User probes: what a hit calls, the handle that detaches, and what becomes of a probe afterwards.
//!
//! # Who owns what
//! A probe is one allocation, a [`Body`]: its [`Head`] and what the program's closure captured. The
//! tracer's state has it from attach until a grace period after detach; the handle has it as long as
//! the program keeps the handle. Entries of probe arrays point into it. What was captured is dropped
//! where the grace period ends, on the callback thread, whoever else still has the allocation: so a
//! hit never runs a program's `Drop`, and none runs in the traced thread.
//!
//! # Panics
//! A probe that panics is *dead* from that moment: no call of it begins. It is taken off its tracepoints
//! and reported ([`Tracer::failures`](crate::Tracer::failures)) on the callback thread. The panic never
//! reaches the traced code, which may be an `extern "C"` function or a signal handler. In a program
//! that is built with `panic = "abort"` a panic ends the program, as everywhere. A thread must not be
//! cancelled (`pthread_cancel`, `pthread_exit`) inside a probe: Rust does not let that unwinding pass.

use crate::error::{Error, ErrorKind};
use crate::running;
use crate::tracer::{self, KeyId};
use gracepoint_rcu::WaitCall;
use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What is the same in all probes.
pub(crate) struct Head {
    /// Its id on its first tracepoint; those of its others follow. Never used again, never 0.
    pub(crate) id: u64,
    /// Which tracer attached it.
    pub(crate) owner: u64,
    pub(crate) priority: i32,
    /// No call begins any more. Set before a panic is reported, and by a detach that cannot take the
    /// tracer's lock; otherwise the probe arrays say who is called.
    dead: AtomicBool,
    skipped: AtomicU64,
    failure: OnceLock<Box<Panicked>>,
    name: Box<str>,
}

/// How a probe ended by a panic.
pub(crate) struct Panicked {
    pub(crate) id: u64,
    pub(crate) message: String,
}

impl Head {
    pub(crate) fn new(owner: u64, tracepoints: usize, name: Option<String>, priority: i32) -> Head {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Head {
            id: NEXT.fetch_add(tracepoints as u64, Relaxed),
            owner,
            priority,
            dead: AtomicBool::new(false),
            skipped: AtomicU64::new(0),
            failure: OnceLock::new(),
            name: name.unwrap_or_default().into(),
        }
    }

    /// Runs the probe's closure on behalf of tracepoint `id`, unless too many are running on this
    /// thread or it is dead. True if it ran.
    #[inline(always)]
    pub(crate) fn run(&self, id: u64, call: impl FnOnce()) -> bool {
        // Relaxed: it is for soon; who needs certainty waits for a grace period.
        if self.dead.load(Relaxed) {
            return false;
        }
        let Some(running) = running::enter(id) else { return self.skip() };
        let outcome = catch_unwind(AssertUnwindSafe(call));
        running.leave();
        match outcome {
            Ok(()) => true,
            Err(payload) => self.fail(id, payload),
        }
    }

    #[cold]
    #[inline(never)]
    fn skip(&self) -> bool {
        self.skipped.fetch_add(1, Relaxed);
        false
    }

    #[cold]
    #[inline(never)]
    fn fail(&self, id: u64, payload: Box<dyn Any + Send>) -> bool {
        if !self.dead.swap(true, Release) {
            let message = message_of(&*payload);
            let _first = self.failure.set(Box::new(Panicked { id, message }));
            tracer::bury_later(self.id);
        }
        discard(payload);
        false
    }

    /// From now on no call begins.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Release);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    pub(crate) fn panicked(&self) -> Option<&Panicked> {
        self.failure.get().map(|failure| &**failure)
    }
}

pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "(a panic without a message)".into())
}

/// Drops what a panic carried. That may panic too, with something of its own, which is leaked.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        let _leaked = ManuallyDrop::new(second);
    }
}

/// What a closure captured, dropped once, by hand.
pub(crate) struct Captured<F>(UnsafeCell<ManuallyDrop<F>>);

// SAFETY: readers share the closure, which is Sync; it is dropped by whichever thread runs callbacks,
// for which it is Send, when there are no readers any more (`Body::drop_captured`).
unsafe impl<F: Send + Sync> Sync for Captured<F> {}

impl<F> Captured<F> {
    pub(crate) fn new(f: F) -> Captured<F> {
        Captured(UnsafeCell::new(ManuallyDrop::new(f)))
    }

    /// # Safety
    /// It has not been dropped, and is not while the reference lives.
    #[inline(always)]
    pub(crate) unsafe fn get(&self) -> &F {
        // SAFETY: nobody has a unique reference but `drop`, which comes later by the caller's promise.
        unsafe { &*self.0.get() }
    }

    /// # Safety
    /// Called once, and no reference from `get` is used from now on.
    pub(crate) unsafe fn drop(&self) {
        // SAFETY: the caller's promise.
        unsafe { ManuallyDrop::drop(&mut *self.0.get()) }
    }
}

/// Where a probe is attached: the tracepoint, and the data of its entry there.
pub(crate) struct Place {
    pub(crate) key: KeyId,
    pub(crate) data: *const (),
}

/// A probe, whatever its closure's type.
pub(crate) trait Body: Send + Sync {
    fn head(&self) -> &Head;
    /// Its places, in the order of their ids.
    fn places(&self) -> Box<dyn Iterator<Item = Place> + '_>;
    /// The event's name at that place.
    fn tracepoint(&self, place: usize) -> String;
    fn len(&self) -> usize;
    /// Bytes of memory, but for what the closure has allocated itself.
    fn bytes(&self) -> usize;
    /// Drops what the closure captured.
    ///
    /// # Safety
    /// Called once, a grace period after the probe was taken off its last tracepoint.
    unsafe fn drop_captured(&self);
}

/// An attached probe. Dropping it detaches, as [`detach`](Self::detach) does.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use std::sync::Arc;
///
/// #[derive(gracepoint::Event)]
/// struct Tick { n: u32 }
///
/// let sum = Arc::new(AtomicU32::new(0));
/// let captured = Arc::clone(&sum);
/// let probe = Tick::tracepoint()
///     .attach(move |tick: &Tick| { captured.fetch_add(tick.n, Relaxed); })
///     .expect("sites can be switched here");
/// gracepoint::trace!(Tick { n: 3 });
/// probe.detach_wait().expect("not inside a probe");
/// gracepoint::trace!(Tick { n: 4 });
/// assert_eq!(sum.load(Relaxed), 3);
/// # }
/// ```
#[must_use = "the probe is detached when this is dropped"]
pub struct Probe {
    /// `None` once it was told what to become of it.
    body: Option<Arc<dyn Body>>,
}

impl Probe {
    pub(crate) fn new(body: Arc<dyn Body>) -> Probe {
        Probe { body: Some(body) }
    }

    pub(crate) fn body(&self) -> Option<&Arc<dyn Body>> {
        self.body.as_ref()
    }

    fn head(&self) -> Option<&Head> {
        self.body.as_deref().map(Body::head)
    }

    /// The name that it was given; empty without.
    #[must_use]
    pub fn name(&self) -> &str {
        self.head().map_or("", Head::name)
    }

    /// Hits for which it was not called, because four probes were running on that thread already.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.head().map_or(0, Head::skipped)
    }

    /// Whether it is called: it has not panicked, and its tracer is there.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.head().is_some_and(|head| !head.is_dead())
    }

    /// Detaches. A hit whose read section begins after this returned never calls the probe; one that is
    /// under way may. What the probe captured is dropped when those have ended, on the callback thread.
    ///
    /// Never waits for a hit, however long it takes. May be called from inside a probe (its own too) and
    /// from `Drop` of what a probe captured; not from a signal handler.
    pub fn detach(self) {
        drop(self);
    }

    fn detach_now(&mut self) {
        if let Some(body) = self.body.take() {
            tracer::remove(&[body]);
        }
    }

    /// Detaches, and waits until the last call of the probe has ended, on whatever thread.
    ///
    /// Do not hold a lock that the probe takes.
    ///
    /// # Errors
    /// [`ErrorKind::InsideProbe`] from inside a probe, where it would wait for itself. The probe is detached
    /// all the same, as by [`detach`](Self::detach).
    pub fn detach_wait(mut self) -> Result<(), Error> {
        self.detach_now();
        tracer::wait(WaitCall::DetachWait, None).map(drop)
    }

    /// Detaches, and waits at most so long until the last call of the probe has ended. False if it has not;
    /// [`Tracer::stalls`](crate::Tracer::stalls) says who is inside.
    ///
    /// # Errors
    /// As [`detach_wait`](Self::detach_wait).
    pub fn detach_timeout(mut self, most: Duration) -> Result<bool, Error> {
        self.detach_now();
        tracer::wait(WaitCall::DetachTimeout, Some(most))
    }

    /// Detaches at once. The future is ready when the last call of the probe has ended; it belongs to
    /// no executor, and may be dropped. In a forked child a future of its parent's is never ready. A probe
    /// that blocks until it is ready waits for itself.
    pub fn detach_async(mut self) -> Detached {
        self.detach_now();
        let ended: Arc<Mutex<Ended>> = Arc::default();
        let told = Arc::clone(&ended);
        tracer::after_grace_period(0, move || {
            let waker = {
                let mut ended = told.lock().unwrap_or_else(PoisonError::into_inner);
                ended.done = true;
                ended.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Detached { ended }
    }

    /// Leaves the probe attached as long as its tracer lives; for ever on [`Tracer::global`](crate::Tracer::global).
    pub fn keep(mut self) {
        self.body = None;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.detach_now();
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tracepoints = self.body.as_deref().map_or(0, Body::len);
        f.debug_struct("Probe")
            .field("name", &self.name())
            .field("tracepoints", &tracepoints)
            .field("attached", &self.is_attached())
            .finish()
    }
}

#[derive(Debug, Default)]
struct Ended {
    done: bool,
    waker: Option<Waker>,
}

/// The end of a probe's last call; see [`Probe::detach_async`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited; the probe is detached already"]
pub struct Detached {
    ended: Arc<Mutex<Ended>>,
}

impl Future for Detached {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.done {
            return Poll::Ready(());
        }
        ended.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

pub(crate) fn inside(what: &str) -> Error {
    Error::new(ErrorKind::InsideProbe, what)
}

const _: () = {
    const fn goes_anywhere<T: Send + Sync + 'static>() {}
    goes_anywhere::<Probe>();
    goes_anywhere::<Detached>();
    goes_anywhere::<crate::Tracer>();
};
