//! Why this program is stuck: what the agent answers when it is asked, what it looks for of itself
//! ([`Watch`]), and what is left in memory for who looks from outside because nobody answers.
//!
//! # For who looks from outside
//!
//! The words of `gracepoint_rcu`'s page that are ours (`docs/abi.md`): where the probes are that each thread
//! runs (`running`), the names of probes (a table here, since the registry is no place for a stranger to walk), and
//! the agent's thread and since when it has been busy. The table is written under the tracer's lock; who reads it
//! outside may see an entry half-written, which is a wrong name in a report and nothing worse.

use crate::{clock, running, sys, tracer};
use gracepoint_rcu::{Culprit, Drives, RunningCallback, Stall, Survey, WaitKind};
use gracepoint_wire::control::{
    DomainState, OpenReader, OpenTask, RunningCall, RunningPeriod, RunningProbe, SpansKept, Stuck,
    WaitingThread,
};
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

/// Probes whose names can be read from outside.
const NAMED: usize = 256;
/// Words of a text in the table: 48 bytes.
const TEXT: usize = 6;
/// Words of an entry: the first id, how many ids, the probe's name, its first tracepoint's.
const ENTRY: usize = 2 + 2 * TEXT;
/// Our first word of the page.
const FIRST: usize = 80;
const AGENT: usize = FIRST + 8;
const BUSY_SINCE: usize = FIRST + 9;

/// Zero pages of the program's image until probes are attached.
static NAMES: [AtomicU64; NAMED * ENTRY] = [const { AtomicU64::new(0) }; NAMED * ENTRY];

/// Fills in our words of the page. Once; also in a forked child, where the page is new.
pub(crate) fn tell_outside() {
    let (slots, stride, ids, depth) = running::places();
    let names = ptr::from_ref(&NAMES).addr();
    let words = [slots, stride, ids, depth, names, ENTRY * 8, NAMED, TEXT * 8];
    for (at, value) in (FIRST..).zip(words) {
        set(at, value as u64);
    }
}

fn set(at: usize, value: u64) {
    if let Some(word) = gracepoint_rcu::mirror_word(at) {
        word.store(value, Relaxed);
    }
}

/// The calling thread is the agent's, or it is not any more.
pub(crate) fn agent(is: bool) {
    set(AGENT, if is { sys::thread_id().into() } else { 0 });
    set(BUSY_SINCE, 0);
}

/// The agent begins to do something, or waits again.
pub(crate) fn agent_is_busy(is: bool) {
    set(BUSY_SINCE, if is { clock::coarse_ns() } else { 0 });
}

/// Notes the name of a probe. Under the tracer's lock.
pub(crate) fn remember(id: u64, count: usize, name: &str, tracepoint: &str) {
    tell_outside();
    let Some(entry) = NAMES.chunks_exact(ENTRY).find(|entry| entry[0].load(Relaxed) == 0) else {
        return; // It has a number from outside, and no name.
    };
    for (words, text) in entry[2..].chunks_exact(TEXT).zip([name, tracepoint]) {
        let mut bytes = [0; TEXT * 8];
        let len = text.len().min(bytes.len());
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().unwrap_or([0; 8])), Relaxed);
        }
    }
    entry[1].store(count as u64, Relaxed);
    entry[0].store(id, Release);
}

/// Forgets it. Under the tracer's lock.
pub(crate) fn forget(id: u64) {
    let mut entries = NAMES.chunks_exact(ENTRY);
    if let Some(entry) = entries.find(|entry| entry[0].load(Relaxed) == id) {
        entry[0].store(0, Release);
    }
}

/// The agent's answer. The thread is the agent's own.
pub(crate) fn answer() -> Stuck {
    let tasks = crate::dynamic::registry::open_tasks();
    Stuck {
        domains: gracepoint_rcu::survey().into_iter().map(domain).collect(),
        agent: sys::thread_id(),
        agent_busy_ns: 0,
        tasks: tasks.tasks.into_iter().map(task).collect(),
        more_tasks: tasks.more,
        spans: match tasks.kept {
            None => SpansKept::Unknown,
            Some(false) => SpansKept::No,
            Some(true) => SpansKept::Yes,
        },
    }
}

fn task(task: crate::dynamic::OpenTask) -> OpenTask {
    OpenTask {
        spans: task.spans,
        location: task.location,
        since_ns: task.since_ns,
        begun_ns: task.begun_ns,
        polls: task.polls,
        tid: task.tid,
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn domain(survey: Survey) -> DomainState {
    let stall = survey.stall;
    let mut waiters: Vec<&gracepoint_rcu::Waiter> = Vec::new();
    let of_stall = stall.iter().flat_map(|stall| &stall.waiters);
    for waiter in of_stall.chain(survey.callback.iter().flat_map(|callback| &callback.waiters)) {
        // Who waits for callbacks is in both.
        if waiters.iter().all(|known| known.index != waiter.index) {
            waiters.push(waiter);
        }
    }
    DomainState {
        name: survey.domain.to_owned(),
        ended: survey.ended,
        running: stall.as_ref().map(|stall| RunningPeriod {
            number: stall.grace_period.number,
            phase: if stall.phase == gracepoint_rcu::Phase::SecondScan { 2 } else { 1 },
            age_ns: ns(stall.age),
        }),
        waiters: waiters.into_iter().map(waiter).collect(),
        futures: stall.as_ref().map_or(0, |stall| stall.async_waiters as u64),
        readers: stall.iter().flat_map(|stall| &stall.culprits).map(reader).collect(),
        callback: survey.callback.as_ref().map(callback),
        pending: survey.pending as u64,
        oldest_ns: survey.oldest.map_or(0, ns),
        ready: survey.ready,
        drives: match survey.drives {
            Drives::Thread => 1,
            Drives::Executor => 2,
            _ => 0,
        },
        job_waits: survey.job_waits,
    }
}

fn waiter(waiter: &gracepoint_rcu::Waiter) -> WaitingThread {
    WaitingThread {
        tid: waiter.thread.tid,
        name: waiter.thread.name.to_string(),
        for_callbacks: waiter.kind == WaitKind::Callbacks,
        waited_ns: ns(waiter.waited),
        number: waiter.grace_period.number,
        call: waiter.call.name().to_owned(),
    }
}

fn reader(culprit: &Culprit) -> OpenReader {
    let reader = &culprit.reader;
    let named = |(name, tracepoint)| RunningProbe { name, tracepoint };
    OpenReader {
        tid: reader.thread.map_or(0, |thread| thread.tid),
        name: reader.thread.map_or_else(String::new, |thread| thread.name.to_string()),
        ended: reader.thread.is_some_and(|thread| thread.ended),
        owner: reader.owner.map(str::to_owned),
        sections: reader.sections,
        inherited: reader.inherited,
        seen_ns: ns(culprit.seen),
        entered_at: culprit.entered.map_or_else(String::new, |entered| entered.at.to_string()),
        entered_ns: culprit.entered.and_then(|entered| entered.ago).map_or(0, ns),
        probes: reader
            .index
            .map_or_else(Vec::new, tracer::probes_on)
            .into_iter()
            .map(named)
            .collect(),
        backtrace: addresses(culprit.backtrace.as_deref()),
    }
}

fn callback(running: &RunningCallback) -> RunningCall {
    RunningCall {
        number: running.number,
        name: running.name.to_owned(),
        ran_ns: ns(running.ran_for),
        tid: running.thread.map_or(0, |thread| thread.tid),
        thread: running.thread.map_or_else(String::new, |thread| thread.name.to_string()),
        backtrace: addresses(running.backtrace.as_deref()),
    }
}

fn addresses(backtrace: Option<&[usize]>) -> Vec<u64> {
    backtrace.unwrap_or_default().iter().map(|address| *address as u64).collect()
}

/// Looks at all domains now and then, and has a sentence for each thing that takes too long.
pub(crate) struct Watch {
    threshold: Duration,
    looked: Instant,
    told: Option<Instant>,
    /// What was told of, and how old it must be to be told of again.
    known: HashMap<(&'static str, What, u64), Duration>,
    /// Reports that were left out since the last.
    suppressed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    GracePeriod,
    Callback,
    /// Callbacks that nobody runs.
    Queue,
}

/// At most one report in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Things that are remembered as told.
const KNOWN: usize = 1024;

impl Watch {
    pub(crate) fn new(threshold: Duration) -> Watch {
        let looked = Instant::now();
        Watch { threshold, looked, told: None, known: HashMap::new(), suppressed: 0 }
    }

    /// How long it is until the next look.
    pub(crate) fn due(&self) -> Duration {
        let every = (self.threshold / 2).clamp(Duration::from_millis(1), Duration::from_secs(1));
        every.saturating_sub(self.looked.elapsed())
    }

    /// Looks, if it is time. What is to be told, if anything is.
    pub(crate) fn look(&mut self) -> Vec<String> {
        if !self.due().is_zero() {
            return Vec::new();
        }
        self.looked = Instant::now();
        let surveys = gracepoint_rcu::survey();
        self.report(&surveys, Instant::now())
    }

    fn report(&mut self, surveys: &[Survey], now: Instant) -> Vec<String> {
        let mut reports = Vec::new();
        for survey in surveys {
            if let Some(stall) = &survey.stall {
                let number = stall.grace_period.number;
                self.tell(
                    survey.domain,
                    What::GracePeriod,
                    number,
                    stall.age,
                    now,
                    &mut reports,
                    || stalled(stall),
                );
            }
            if let Some(running) = &survey.callback {
                let (number, age) = (running.number, running.ran_for);
                self.tell(survey.domain, What::Callback, number, age, now, &mut reports, || {
                    running.to_string()
                });
            }
            if let (true, Some(age)) =
                (survey.stall.is_none() && survey.callback.is_none(), survey.oldest)
            {
                self.tell(survey.domain, What::Queue, survey.ended, age, now, &mut reports, || {
                    format!(
                        "{} callbacks of domain {:?} wait for somebody to run them, the oldest for {age:.1?}",
                        survey.pending, survey.domain
                    )
                });
            }
        }
        reports
    }

    #[allow(clippy::too_many_arguments, reason = "what, how old, and where it goes")]
    fn tell(
        &mut self,
        domain: &'static str,
        what: What,
        number: u64,
        age: Duration,
        now: Instant,
        reports: &mut Vec<String>,
        words: impl FnOnce() -> String,
    ) {
        let key = (domain, what, number);
        let from = self.known.get(&key).copied().unwrap_or(self.threshold);
        if age < from {
            return;
        }
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL_EVERY) {
            self.suppressed += 1;
            return;
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(key, age.saturating_mul(2));
        self.told = Some(now);
        let more = match std::mem::take(&mut self.suppressed) {
            0 => String::new(),
            more => format!(" ({more} reports before this were left out)"),
        };
        reports.push(format!("stuck: {}{more}; `gracepoint why` tells more", words()));
    }
}

fn stalled(stall: &Stall) -> String {
    stall.to_string().replace('\n', ";")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch whose time is given, and a domain that has callbacks and nobody to run them.
    #[test]
    fn a_report_comes_once_and_again_at_twice_the_age_and_not_more_often() {
        static DOMAIN: gracepoint_rcu::Domain = gracepoint_rcu::Domain::new("watched");
        DOMAIN.call(|| {});
        let at = |seconds| Duration::from_secs(seconds);
        let survey = |age| {
            let all = gracepoint_rcu::survey().into_iter();
            let mut mine: Vec<Survey> = all.filter(|survey| survey.domain == "watched").collect();
            mine[0].oldest = Some(at(age));
            mine
        };
        let mut watch = Watch::new(at(10));
        let start = Instant::now();
        assert!(watch.report(&survey(9), start).is_empty(), "it is younger than the threshold");
        let first = watch.report(&survey(10), start);
        assert_eq!(first.len(), 1);
        assert!(first[0].contains("callbacks of domain \"watched\" wait"), "{first:?}");
        assert!(watch.report(&survey(19), start + at(9)).is_empty(), "it was told of");
        assert_eq!(watch.report(&survey(20), start + at(10)).len(), 1, "it is twice as old");
        assert!(watch.report(&survey(40), start + at(10)).is_empty(), "too soon after the last");
        let later = watch.report(&survey(41), start + at(12));
        assert!(later[0].contains("(1 reports before this were left out)"), "{later:?}");
        DOMAIN.barrier().expect("not inside a section");
    }
}
