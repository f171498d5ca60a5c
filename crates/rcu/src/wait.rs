//! Waiting for grace periods: loops around the polled step, for callers that want to block.
//!
//! A thread that waits helps: it does the steps itself when nobody else does. Where waiting
//! could never end, because the caller itself is what is waited for, it is refused.

use crate::arch;
use crate::domain::{Cookie, Domain};
use crate::engine::{self, Progress};
use crate::sync::{AtomicBool, Ordering};
use crate::waiters::{WaitCall, Waiting};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The calling thread is inside a read section of the domain that it wants to wait for:
/// it would wait for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InReadSection {
    domain: &'static str,
}

impl fmt::Display for InReadSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "waiting for a grace period of domain `{}` inside a read section of it would never end; \
             drop the guard first, or use `start_poll`",
            self.domain
        )
    }
}

impl Error for InReadSection {}

/// Why [`Domain::barrier`] would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarrierError {
    /// The calling thread is inside a read section.
    InReadSection(InReadSection),
    /// The caller is itself a callback of the domain, and would wait for itself to return.
    InCallback {
        /// The domain's name.
        domain: &'static str,
    },
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InReadSection(inside) => inside.fmt(f),
            Self::InCallback { domain } => write!(
                f,
                "waiting for the callbacks of domain `{domain}` in one of them would never end; \
                 queue another callback instead"
            ),
        }
    }
}

impl Error for BarrierError {}

impl From<InReadSection> for BarrierError {
    fn from(inside: InReadSection) -> Self {
        Self::InReadSection(inside)
    }
}

impl Domain {
    pub(crate) fn refuse_inside(&self) -> Result<(), InReadSection> {
        if self.in_read_section() { Err(InReadSection { domain: self.name() }) } else { Ok(()) }
    }

    pub(crate) fn refuse_in_callback(&self) -> Result<(), BarrierError> {
        let inside = self.region().engine.is_running_callbacks(arch::thread_token());
        if inside { Err(BarrierError::InCallback { domain: self.name() }) } else { Ok(()) }
    }

    /// Waits until every section that is open now has ended. Runs no callbacks.
    ///
    /// Not for signal handlers.
    ///
    /// # Errors
    /// [`InReadSection`] if this thread is inside a section of this domain.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.synchronize().expect("not inside a section");
    /// let guard = DOMAIN.read();
    /// assert!(DOMAIN.synchronize().is_err());
    /// # drop(guard);
    /// ```
    pub fn synchronize(&self) -> Result<(), InReadSection> {
        self.synchronize_in(WaitCall::Synchronize)
    }

    /// The same for the crates above, whose own call it is that a report should name.
    #[doc(hidden)]
    pub fn synchronize_in(&self, call: WaitCall) -> Result<(), InReadSection> {
        self.refuse_inside()?;
        let cookie = self.ask();
        self.wait_until_done(cookie, call);
        Ok(())
    }

    /// Waits for the grace period of a cookie, unless it has ended already: what was removed when
    /// the cookie was taken costs nothing if enough time has passed since, whoever drove.
    ///
    /// Not for signal handlers. With a cookie of another domain, which means nothing here, it
    /// may wait for one grace period.
    ///
    /// # Errors
    /// [`InReadSection`] if it would have to wait and this thread is inside a section of this domain.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// // Remove something; then:
    /// let cookie = DOMAIN.get_state();
    /// // … much later, where it must not be in use any more:
    /// DOMAIN.cond_synchronize(cookie).expect("not inside a section");
    /// assert!(DOMAIN.poll_state(cookie));
    /// ```
    pub fn cond_synchronize(&self, cookie: Cookie) -> Result<(), InReadSection> {
        if self.poll_state(cookie) {
            return Ok(());
        }
        self.refuse_inside()?;
        self.wait_until_done(self.request(cookie), WaitCall::CondSynchronize);
        Ok(())
    }

    fn wait_until_done(&self, cookie: Cookie, call: WaitCall) {
        let mut patience = Patience::new(self);
        let mut waiting = None;
        while !self.poll_state(cookie) {
            if let Progress::Pending(delay) = self.poll() {
                waiting.get_or_insert_with(|| self.waits(cookie, call));
                pause(patience.lengthen(delay));
            }
        }
    }

    /// Shows that this thread waits, until the result is dropped.
    fn waits(&self, cookie: Cookie, call: WaitCall) -> Waiting {
        Waiting::begin(self.region(), cookie.0, call)
    }

    /// Like [`synchronize`](Self::synchronize), but gives up after `timeout`. True if the
    /// grace period has ended. If not, it goes on whenever somebody polls, and
    /// [`holdouts`](Self::holdouts) says whom it waits for.
    ///
    /// # Errors
    /// [`InReadSection`] if this thread is inside a section of this domain.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use std::time::Duration;
    ///
    /// if !DOMAIN.synchronize_timeout(Duration::from_secs(1)).expect("not inside a section") {
    ///     for holdout in DOMAIN.holdouts() {
    ///         println!("{holdout}");
    ///     }
    /// }
    /// ```
    pub fn synchronize_timeout(&self, timeout: Duration) -> Result<bool, InReadSection> {
        self.synchronize_timeout_in(WaitCall::SynchronizeTimeout, timeout)
    }

    /// The same for the crates above, as [`synchronize_in`](Self::synchronize_in).
    #[doc(hidden)]
    pub fn synchronize_timeout_in(
        &self,
        call: WaitCall,
        timeout: Duration,
    ) -> Result<bool, InReadSection> {
        self.refuse_inside()?;
        let cookie = self.ask();
        let begun = Instant::now();
        let mut patience = Patience::new(self);
        let mut waiting = None;
        loop {
            if self.poll_state(cookie) {
                return Ok(true);
            }
            let Progress::Pending(delay) = self.poll() else { continue };
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(self.poll_state(cookie));
            }
            waiting.get_or_insert_with(|| self.waits(cookie, call));
            pause(patience.lengthen(delay).min(left));
        }
    }

    /// Waits until all callbacks that were queued before the call have run, running them on
    /// this thread if nobody else does, whatever the domain's executor. Do not hold locks that callbacks take.
    ///
    /// # Errors
    /// [`BarrierError`] if this thread is inside a section of this domain or in one of
    /// its callbacks.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// static RUN: AtomicBool = AtomicBool::new(false);
    /// DOMAIN.call(|| RUN.store(true, Ordering::Relaxed));
    /// DOMAIN.barrier().expect("not inside a section or a callback");
    /// assert!(RUN.load(Ordering::Relaxed));
    /// ```
    pub fn barrier(&self) -> Result<(), BarrierError> {
        self.refuse_inside()?;
        self.refuse_in_callback()?;
        // Callbacks run in order, one at a time: once this one has run, those before it have.
        let reached = Arc::new(AtomicBool::new(false));
        let marker = Arc::clone(&reached);
        // Release: pairs with the acquire below; what the callbacks did is seen after.
        self.call(move || marker.store(true, Ordering::Release));
        let mut patience = Patience::new(self);
        let mut waiting = None;
        while !reached.load(Ordering::Acquire) {
            match self.drive() {
                Progress::Advanced => patience.renew(),
                Progress::Pending(delay) => {
                    waiting.get_or_insert_with(|| self.waits(self.get_state(), WaitCall::Barrier));
                    pause(patience.lengthen(delay));
                }
                // Another thread runs the last of them.
                Progress::Idle => std::thread::yield_now(),
            }
        }
        Ok(())
    }
}

/// Makes grace periods of a domain be driven without pauses, until it is dropped. See [`Domain::expedite`].
#[derive(Debug)]
#[must_use = "grace periods are expedited until this is dropped"]
pub struct Expedited<'d> {
    domain: &'d Domain,
}

impl Drop for Expedited<'_> {
    fn drop(&mut self) {
        self.domain.region().engine.expedite(false);
    }
}

impl Domain {
    /// While the result lives, who drives this domain is told to come back after 5 µs and
    /// not after up to 10 ms, however long readers have been inside. A thread that waits
    /// notices the end of a long section that much sooner, and uses a processor for it.
    ///
    /// Grace periods of short sections are that fast anyway. May be asked for by any number at once.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// let hurry = DOMAIN.expedite();
    /// DOMAIN.synchronize().expect("not inside a section");
    /// drop(hurry);
    /// ```
    pub fn expedite(&self) -> Expedited<'_> {
        self.region().engine.expedite(true);
        Expedited { domain: self }
    }
}

/// How long to pause, for one who has looked in vain: longer and longer, also where somebody else has
/// a lock, who may need this processor to get on.
#[derive(Debug)]
struct Patience<'d> {
    domain: &'d Domain,
    vain: usize,
}

impl<'d> Patience<'d> {
    fn new(domain: &'d Domain) -> Self {
        Self { domain, vain: 0 }
    }

    fn renew(&mut self) {
        self.vain = 0;
    }

    fn lengthen(&mut self, delay: Duration) -> Duration {
        self.vain += 1;
        let expedited = self.domain.region().engine.is_expedited();
        if expedited { delay } else { delay.max(engine::delay(self.vain / 8)) }
    }
}

/// Lets time pass: spinning for a delay that is shorter than what going to sleep takes.
pub(crate) fn pause(delay: Duration) {
    if delay > Duration::from_micros(20) {
        std::thread::sleep(delay);
        return;
    }
    let begun = Instant::now();
    while begun.elapsed() < delay {
        std::hint::spin_loop();
    }
}
