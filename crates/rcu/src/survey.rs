//! [`survey`]: all domains of the process, as a report of what is stuck needs them.

use crate::clock;
use crate::region;
use crate::running::RunningCallback;
use crate::stall::Stall;
use std::time::Duration;

/// Who drives a domain of itself; see [`Executor`](crate::Executor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Drives {
    /// Nobody but those who use it.
    Users,
    /// A thread of its own.
    Thread,
    /// A thread of its own, which hands callbacks to an executor of the user's.
    Executor,
}

/// A domain and what it waits for, if it waits for anything.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// The domain's name.
    pub domain: &'static str,
    /// Grace periods that have ended.
    pub ended: u64,
    /// The grace period that was left unfinished, and who holds it up.
    pub stall: Option<Stall>,
    /// The callback that runs.
    pub callback: Option<RunningCallback>,
    /// Callbacks that are queued or running.
    pub pending: usize,
    /// For how long the oldest of those has been waiting.
    pub oldest: Option<Duration>,
    /// Callbacks could run now if somebody ran them.
    pub ready: bool,
    /// Who runs callbacks and drives grace periods of itself.
    pub drives: Drives,
    /// A job was handed to the user's executor that has neither run nor been dropped.
    pub job_waits: bool,
}

/// Looks at all domains of the process that this copy of the crate has. Allocates, and asks the kernel about
/// threads that are waited for; takes no lock that a driver waits for.
///
/// ```
/// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
/// DOMAIN.call(|| {});
/// let all = gracepoint_rcu::survey();
/// let mine = all.iter().find(|survey| survey.domain == "doc").expect("it is used");
/// assert_eq!(mine.pending, 1);
/// assert_eq!(mine.drives, gracepoint_rcu::Drives::Users);
/// ```
#[must_use]
pub fn survey() -> Vec<Survey> {
    let used = region::all().filter(|region| region.is_in_use());
    used.map(|region| {
        let now = clock::now();
        let stall = region.watch.with(|state| region.stall(&mut state.sightings, now)).flatten();
        let (drives, job_waits) = region.service.survey();
        let age = |since| Duration::from_nanos(clock::coarse().saturating_sub(since));
        let mut stall = stall;
        stall.iter_mut().for_each(Stall::look_closer);
        Survey {
            domain: region.engine.observed.name(),
            ended: region.engine.grace.ended(),
            stall,
            callback: region.running_callback().map(RunningCallback::look_closer),
            pending: region.pending(),
            oldest: region.engine.oldest().map(age),
            ready: region.engine.has_ready(),
            drives,
            job_waits,
        }
    })
    .collect()
}
