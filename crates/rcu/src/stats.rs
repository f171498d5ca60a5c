//! What a domain has done and has to do, as numbers; and who is told as it happens.

use crate::clock;
use crate::domain::Domain;
use crate::observer::Observer;
use std::time::Duration;

/// What a domain has done and has to do. Not a snapshot: the numbers are read one after the other
/// while others change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Grace periods that have ended.
    pub grace_periods: u64,
    /// How long the grace period that runs has been running, to within a few milliseconds; `None`
    /// if none is.
    pub running_since: Option<Duration>,
    /// Barriers on all running threads (`membarrier`) that grace periods have taken: one each, and rarely more.
    pub heavy_barriers: u64,
    /// Callbacks that have run, those that panicked included.
    pub callbacks_run: u64,
    /// Callbacks that have panicked.
    pub callbacks_panicked: u64,
    /// Callbacks that are queued or running.
    pub callbacks_pending: usize,
    /// How long ago the oldest of those was queued, to within a few milliseconds.
    pub oldest_callback: Option<Duration>,
}

impl Domain {
    /// What this domain has done and has to do. A few loads; waits for nobody.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// DOMAIN.retire(vec![0; 1000]);
    /// let stats = DOMAIN.stats();
    /// assert_eq!(stats.callbacks_pending, 1);
    /// assert!(stats.oldest_callback.is_some());
    /// DOMAIN.barrier().expect("not inside a section");
    /// assert_eq!(DOMAIN.stats().callbacks_pending, 0);
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let region = self.region();
        let engine = &region.engine;
        let age = |since: u64| Duration::from_nanos(clock::coarse().saturating_sub(since));
        let (grace_periods, callbacks_run) = engine.totals();
        Stats {
            grace_periods,
            running_since: engine.begun().map(age),
            heavy_barriers: engine.barriers(),
            callbacks_run,
            callbacks_panicked: engine.panics(),
            callbacks_pending: region.pending(),
            oldest_callback: engine.oldest().map(age),
        }
    }

    /// Tells `observer` from now on about grace periods and callbacks of this domain, instead of
    /// the one before. Costs a load per step when there is none.
    ///
    /// Meant to be called once or twice; each call keeps two words of memory. The example is at [`Observer`].
    pub fn observe(&self, observer: &'static dyn Observer) {
        self.region().engine.observed.set(observer);
    }
}
