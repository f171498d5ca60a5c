//! Waiting for grace periods and callbacks without blocking a thread: futures.
//!
//! Who wakes the task? Polling it drives: most grace periods end in that, and nothing more is needed.
//! If readers are inside, the task registers its waker, and the domain's thread (see `executor`), which is
//! started for it if there is none, drives until they have left. A task that polled itself again
//! and again instead would keep a processor busy for as long as a reader sleeps. In a domain whose users drive
//! that thread drives grace periods only; callbacks then run where the task is polled.
//!
//! In a forked child nobody drives until the domain is used there; see `fork`.
//!
//! A waker is called by whoever ends the grace period, outside of all locks of the engine. A future that is
//! dropped takes its waker out; a grace period that it has asked for takes place all the same.

use crate::arch;
use crate::domain::{Cookie, Domain};
use crate::engine::Progress;
use crate::marker::Marker;
use crate::region::Region;
use crate::wait::{BarrierError, InReadSection};
use crate::wakers::RUNNER;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Steps made by one poll of a future at most.
const STEPS: usize = 16;

/// A place among the wakers of a domain, given up when dropped.
#[derive(Debug)]
struct Place {
    region: &'static Region,
    key: Option<usize>,
}

impl Place {
    fn take(&mut self, until: u64, waker: &Waker) {
        let wakers = &self.region.engine.wakers;
        self.key = Some(wakers.register(arch::thread_token(), self.key, until, waker));
    }

    /// Makes sure that somebody drives until what this waits for has come. Otherwise the task does,
    /// by being polled again.
    fn leave_to_thread(&self, waker: &Waker) {
        if self.region.ensure_thread().is_err() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.region.engine.wakers.forget(arch::thread_token(), key);
        }
    }
}

/// Ends when every section that was open when it was made has ended. See [`Domain::synchronized`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Synchronized<'d> {
    domain: &'d Domain,
    cookie: Cookie,
    refused: Option<InReadSection>,
    place: Place,
}

impl Domain {
    /// Like [`synchronize`](Self::synchronize), as a future: for every section that is open at this call, not at
    /// the first poll. On any executor; may be dropped at any time.
    ///
    /// # Errors
    /// [`InReadSection`] if the calling thread is inside a section of this domain at this call. Later
    /// sections are not looked at: a task that awaits this with a guard in its hands waits for ever.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// # use std::future::Future;
    /// async fn replace() {
    ///     // Remove something from where readers find it; then:
    ///     DOMAIN.synchronized().await.expect("not inside a section");
    ///     // Nobody reads it any more.
    /// }
    /// # let mut task = std::pin::pin!(replace());
    /// # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    /// # assert!(task.as_mut().poll(&mut cx).is_ready());
    /// ```
    pub fn synchronized(&self) -> Synchronized<'_> {
        Synchronized {
            domain: self,
            cookie: self.get_state(),
            refused: self.refuse_inside().err(),
            place: Place { region: self.region(), key: None },
        }
    }
}

impl Future for Synchronized<'_> {
    type Output = Result<(), InReadSection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(inside) = this.refused {
            return Poll::Ready(Err(inside));
        }
        if this.domain.poll_state(this.cookie) {
            return Poll::Ready(Ok(()));
        }
        this.domain.request(this.cookie);
        for _ in 0..STEPS {
            let progress = this.domain.poll();
            if this.domain.poll_state(this.cookie) {
                return Poll::Ready(Ok(()));
            }
            if progress != Progress::Advanced {
                break;
            }
        }
        this.place.take(this.cookie.number(), cx.waker());
        // Again, now that who ends it sees the waker; see `wakers`.
        if this.domain.poll_state(this.cookie) {
            return Poll::Ready(Ok(()));
        }
        this.place.leave_to_thread(cx.waker());
        Poll::Pending
    }
}

impl fmt::Debug for Synchronized<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synchronized").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

/// Ends when the callbacks that were queued before have run. See [`Domain::barrier_async`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Barrier<'d> {
    domain: &'d Domain,
    marker: Option<Arc<Marker>>,
    place: Place,
}

impl Domain {
    /// Like [`barrier`](Self::barrier), as a future: for the callbacks that are queued before it is first polled.
    /// On any executor; may be dropped at any time.
    ///
    /// In a domain with [`Executor::Driver`](crate::Executor::Driver), polling it runs callbacks that are ready, up to 65,536
    /// of them at a time; else they run on the domain's executor.
    ///
    /// # Errors
    /// [`BarrierError`] if it is first polled inside a section of this domain on this thread, or in one of its
    /// callbacks.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// # use std::future::Future;
    /// async fn shut_down() {
    ///     DOMAIN.call(|| println!("the last one"));
    ///     DOMAIN.barrier_async().await.expect("not inside a section or a callback");
    /// }
    /// # let mut task = std::pin::pin!(shut_down());
    /// # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    /// # assert!(task.as_mut().poll(&mut cx).is_ready());
    /// ```
    pub fn barrier_async(&self) -> Barrier<'_> {
        Barrier { domain: self, marker: None, place: Place { region: self.region(), key: None } }
    }
}

impl Barrier<'_> {
    fn begin(&mut self) -> Result<Arc<Marker>, BarrierError> {
        if let Some(marker) = &self.marker {
            return Ok(Arc::clone(marker));
        }
        self.domain.refuse_inside()?;
        self.domain.refuse_in_callback()?;
        let marker = Arc::new(Marker::new());
        self.marker = Some(Arc::clone(&marker));
        // Callbacks run in order: once this one has run, those before it have.
        let last = Arc::clone(&marker);
        self.domain.call(move || last.reach());
        Ok(marker)
    }

    /// Drives, and runs callbacks if this domain's users do. What it came to, and whether all have run.
    fn drive(&self, marker: &Marker) -> (Progress, bool) {
        let by_users = self.place.region.service.is_driven_by_users();
        let mut progress = Progress::Idle;
        for _ in 0..STEPS {
            progress = if by_users { self.domain.drive() } else { self.domain.poll() };
            if marker.is_reached() {
                return (progress, true);
            }
            if progress != Progress::Advanced {
                break;
            }
        }
        (progress, false)
    }
}

impl Future for Barrier<'_> {
    type Output = Result<(), BarrierError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let marker = match this.begin() {
            Ok(marker) => marker,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let (mut progress, mut reached) = this.drive(&marker);
        if reached {
            return Poll::Ready(Ok(()));
        }
        marker.waits(Some(cx.waker().clone()));
        if this.place.region.service.is_driven_by_users() && progress != Progress::Advanced {
            // What is waited for: the grace period of what is queued now, or that callbacks which are ready
            // are run by somebody else. Then again, as in `Synchronized`.
            let ready = this.place.region.engine.has_ready();
            let until = if ready { RUNNER } else { this.domain.start_poll().number() };
            this.place.take(until, cx.waker());
            (progress, reached) = this.drive(&marker);
        }
        if reached || marker.is_reached() {
            return Poll::Ready(Ok(()));
        }
        if progress == Progress::Advanced {
            cx.waker().wake_by_ref(); // there is more to do at once, after others
        }
        this.place.leave_to_thread(cx.waker());
        Poll::Pending
    }
}

impl Drop for Barrier<'_> {
    fn drop(&mut self) {
        if let Some(marker) = &self.marker {
            marker.waits(None);
        }
    }
}

impl fmt::Debug for Barrier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("domain", &self.domain).finish_non_exhaustive()
    }
}
