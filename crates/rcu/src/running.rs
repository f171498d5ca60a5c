//! [`RunningCallback`]: the callback that runs now, as a value, for the day on which it does not return.
//!
//! Callbacks run one at a time, so one that hangs holds up all that are queued behind it, and whoever
//! waits for those. No reader is to blame then, and no grace period need be running: [`Domain::stalls`] may be empty.

use crate::backtrace;
use crate::clock;
use crate::domain::Domain;
use crate::kernel_state::KernelState;
use crate::observer::Event;
use crate::region::Region;
use crate::stall::{HeldCallbacks, Link, Node, Waiter};
use crate::threads::{self, ThreadInfo};
use crate::waiters::WaitKind;
use std::fmt;
use std::time::Duration;

/// A callback that has begun to run and not ended, and what waits behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningCallback {
    /// The domain's name.
    pub domain: &'static str,
    /// Which of the domain's callbacks it is, in the order in which they run, from 1.
    pub number: u64,
    /// The name of its type, as by [`std::any::type_name`]: it tells the function in which
    /// [`call`](Domain::call) was given a closure, or the type of what was retired.
    pub name: &'static str,
    /// How long it has been running, to within a few milliseconds.
    pub ran_for: Duration,
    /// The index of the thread that runs it; `None` if the thread has none.
    pub index: Option<u32>,
    /// That thread.
    pub thread: Option<ThreadInfo>,
    /// Callbacks that are queued behind it.
    pub behind: HeldCallbacks,
    /// Threads that wait for callbacks: in [`barrier`](Domain::barrier).
    pub waiters: Vec<Waiter>,
    /// What the kernel says of the thread that runs it, if it can be asked.
    pub kernel: Option<KernelState>,
    /// Addresses of that thread's calls, the innermost first, if it was asked for them; see
    /// [`backtraces_by_signal`](crate::backtraces_by_signal).
    pub backtrace: Option<Vec<usize>>,
}

impl RunningCallback {
    /// Who waits for whom: threads for the callbacks that are queued, and those for this one.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use gracepoint_rcu::Node;
    ///
    /// DOMAIN.call(|| {
    ///     let running = DOMAIN.running_callback().expect("this one");
    ///     assert!(matches!(running.links()[0].to, Node::Running(_)));
    /// });
    /// DOMAIN.call(|| {});
    /// DOMAIN.barrier().expect("not inside a section");
    /// # assert_eq!(DOMAIN.panicked_callbacks(), 0);
    /// ```
    #[must_use]
    pub fn links(&self) -> Vec<Link<'_>> {
        let queued = Node::Callbacks(&self.behind);
        let waiters = self.waiters.iter();
        let mut links: Vec<Link<'_>> =
            waiters.map(|waiter| Link { from: Node::Waiter(waiter), to: queued }).collect();
        if self.behind.number != 0 {
            links.push(Link { from: queued, to: Node::Running(self) });
        }
        links
    }

    /// What takes system calls, and is asked outside of the locks.
    pub(crate) fn look_closer(mut self) -> Self {
        if let Some(thread) = self.thread.filter(|thread| !thread.ended) {
            self.kernel = KernelState::of_thread(thread.tid);
            self.backtrace = backtrace::of_thread(thread.tid);
        }
        self
    }
}

impl Domain {
    /// The callback that runs now, if one does, however short a time: whether that is too long is the caller's
    /// to say. One that hangs holds up those behind it; [`on_callback_stall`](Self::on_callback_stall) has it told.
    ///
    /// Allocates, and asks the kernel about the thread; takes no lock.
    ///
    /// ```
    /// # static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("doc");
    /// use std::sync::mpsc;
    ///
    /// let (sender, receiver) = mpsc::channel();
    /// DOMAIN.call(move || sender.send(DOMAIN.running_callback()).expect("received"));
    /// DOMAIN.barrier().expect("not inside a section");
    /// let running = receiver.recv().expect("sent").expect("it was running");
    /// assert_eq!(running.index, gracepoint_rcu::thread_index());
    /// println!("{running}");
    /// assert!(DOMAIN.running_callback().is_none());
    /// ```
    #[must_use]
    pub fn running_callback(&self) -> Option<RunningCallback> {
        self.region().running_callback().map(RunningCallback::look_closer)
    }
}

impl Region {
    pub(crate) fn running_callback(&self) -> Option<RunningCallback> {
        let domain = self.engine.observed.name();
        let running = self.engine.running()?;
        let index = threads::index_of_word(running.runner);
        let ago = |since| Duration::from_nanos(clock::coarse().saturating_sub(since));
        // Itself is one of those.
        let number = self.pending().saturating_sub(1);
        let oldest = self.engine.oldest().filter(|_| number != 0).map(ago);
        let period = self.engine.grace.running().filter(|_| number != 0);
        let (for_running, for_next) =
            period.map_or((false, false), |period| self.engine.callbacks_wait_for(period));
        let waiters = self.waiters(domain, None, clock::now());
        Some(RunningCallback {
            domain,
            number: running.number,
            name: running.kind.name(),
            ran_for: ago(running.since),
            index,
            thread: index.and_then(threads::thread_info),
            behind: HeldCallbacks { number, oldest, for_running, for_next },
            waiters: waiters
                .into_iter()
                .filter(|waiter| waiter.kind == WaitKind::Callbacks)
                .collect(),
            kernel: None,
            backtrace: None,
        })
    }

    /// Tells the hook of [`Domain::on_callback_stall`] and the observer, if there is one and it is time: by who drives
    /// or waits.
    /// (Not by who queues callbacks: he may hold a lock that the hook takes.)
    #[inline]
    pub(crate) fn watch_callbacks(&'static self) {
        if self.watch.has_callback_hook() || self.engine.observed.is_on() {
            self.tell_of_callback();
        }
    }

    #[cold]
    fn tell_of_callback(&'static self) {
        let Some(running) = self.engine.running() else { return };
        let age = clock::coarse().saturating_sub(running.since);
        let Some(hook) = self.watch.callback_hook_if_due(running.number, age) else { return };
        let now = self.running_callback().filter(|now| now.number == running.number);
        if let Some(now) = now {
            let now = now.look_closer();
            if let Some(hook) = hook {
                crate::watch::catching(|| hook(&now));
            }
            self.engine.observed.tell(&Event::CallbackStalled { running: &now });
        }
    }
}

/// For people, in a few lines that end without a newline.
impl fmt::Display for RunningCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, number, name, ran_for, .. } = self;
        write!(f, "callback {number} of domain {domain:?}, {name}, has run for {ran_for:.1?} on ")?;
        match self.thread {
            Some(ThreadInfo { tid, name, .. }) => write!(f, "thread {tid} ({name})")?,
            None => f.write_str("a thread that is not known")?,
        }
        if let Some(kernel) = &self.kernel {
            write!(f, "; it is {kernel}")?;
        }
        if let Some(backtrace) = &self.backtrace {
            f.write_str("; called from")?;
            for address in backtrace {
                write!(f, " {address:#x}")?;
            }
        }
        for waiter in &self.waiters {
            write!(f, "\n  {waiter}")?;
        }
        if self.behind.number != 0 {
            let plural = if self.behind.number == 1 { " waits" } else { "s wait" };
            write!(f, "\n  {} callback{plural} behind it", self.behind.number)?;
            if let Some(oldest) = self.behind.oldest {
                write!(f, ", the oldest for {oldest:.1?}")?;
            }
        }
        Ok(())
    }
}
