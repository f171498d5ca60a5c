//! What the kernel counts for a thread or for the process.
//!
//! A thread's counts come from a perf event of the kernel where it allows one, else from the thread's CPU clock
//! and from `/proc`. The whole process's come from its CPU clock and `getrusage`, which have all threads in
//! them, those that have ended too, and need no permission. Migrations alone have no other source
//! than perf events: there the process is one event for each of its threads, which threads
//! made later inherit.
//!
//! Events of one thread that are opened together are a group of the kernel's (`group_fd`), whose counts are read at one
//! moment, by one call (`PERF_FORMAT_GROUP`). Events that threads inherit are read one by one: the kernel adds up no
//! groups of them.
//!
//! Closing a perf event of the kernel's *software* kind waits for nothing (it is tracepoints whose closing waits for
//! grace periods), so a handle closes it where it is dropped.

use super::SystemEvent;
use crate::error::{Error, ErrorKind};
use crate::sys;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// Whose counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Process,
    Thread(u32),
}

/// A count that only grows.
#[derive(Debug)]
pub(super) enum Counter {
    /// Events of the kernel; the sum of them.
    Events(Vec<OwnedFd>),
    /// One of a group of the kernel's, which its leader tells of.
    Member {
        leader: Arc<OwnedFd>,
        position: usize,
        /// What keeps it open, if it is not the leader.
        _own: Option<OwnedFd>,
    },
    /// Nanoseconds of CPU time.
    Clock(Whose),
    Usage(SystemEvent),
    /// From `/proc/self/task/TID`.
    File(SystemEvent, u32),
}

/// The leaders of groups that are being opened, by thread, and how many they lead.
#[derive(Default)]
pub(super) struct Leaders(Vec<(u32, Arc<OwnedFd>, usize)>);

/// Counts that were read together: what asks with the same value is told of the same moment.
#[derive(Default)]
pub(super) struct Counts {
    /// By leader.
    groups: Vec<(i32, Option<Vec<u64>>)>,
    usage: Option<(u64, u64)>,
}

impl Counts {
    fn of(&mut self, leader: &OwnedFd, position: usize) -> Option<u64> {
        let raw = leader.as_raw_fd();
        let at = self.groups.iter().position(|(known, _)| *known == raw).unwrap_or_else(|| {
            self.groups.push((raw, sys::perf_counts(leader.as_fd()).ok()));
            self.groups.len() - 1
        });
        self.groups[at].1.as_ref()?.get(position).copied()
    }

    fn usage(&mut self) -> (u64, u64) {
        *self.usage.get_or_insert_with(sys::usage)
    }
}

/// Tries to list the process's threads while none is made.
const TRIES: usize = 20;

impl Counter {
    /// # Errors
    /// When the kernel refuses and there is no other source.
    pub(super) fn open(
        what: SystemEvent,
        whose: Whose,
        inherit: bool,
        leaders: &mut Leaders,
    ) -> Result<Counter, Error> {
        match (what, whose) {
            (SystemEvent::CpuClock, Whose::Process) => Ok(Counter::Clock(whose)),
            (SystemEvent::Migrations, Whose::Process) => {
                all_threads(what).map_err(|e| refused(what, &e))
            }
            (_, Whose::Process) => Ok(Counter::Usage(what)),
            (_, Whose::Thread(tid)) => match leaders.open(what, tid, inherit) {
                Ok(counter) => Ok(counter),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                    let text = format!("this process has no thread {tid} (any more)");
                    Err(Error::new(ErrorKind::NoMatch, text))
                }
                Err(error) if inherit || what == SystemEvent::Migrations => {
                    Err(refused(what, &error))
                }
                Err(_) if what == SystemEvent::CpuClock => Ok(Counter::Clock(whose)),
                Err(_) => Ok(Counter::File(what, tid)),
            },
        }
    }

    /// The count now; `None` where its thread has ended and it was only kept with it.
    pub(super) fn now(&self, counts: &mut Counts) -> Option<u64> {
        match self {
            Counter::Member { leader, position, .. } => counts.of(leader, *position),
            Counter::Events(events) => {
                events.iter().map(|event| sys::perf_count(event.as_fd()).ok()).sum()
            }
            Counter::Clock(Whose::Process) => sys::cpu_time(None),
            Counter::Clock(Whose::Thread(tid)) => sys::cpu_time(Some(*tid)),
            Counter::Usage(SystemEvent::PageFaults) => Some(counts.usage().0),
            Counter::Usage(_) => Some(counts.usage().1),
            Counter::File(what, tid) => from_file(*what, *tid),
        }
    }
}

impl Leaders {
    /// An event of a thread's, in the group of those that were opened before it.
    fn open(&mut self, what: SystemEvent, tid: u32, inherit: bool) -> io::Result<Counter> {
        if inherit {
            return Ok(Counter::Events(vec![sys::perf_event(config(what), tid, true, None)?]));
        }
        let mut groups = self.0.iter_mut();
        let known = groups.find(|(known, _, n)| *known == tid && *n < sys::PERF_GROUP);
        let leader = known.as_ref().map(|(_, leader, _)| leader.as_fd());
        let event = sys::perf_event(config(what), tid, false, leader)?;
        Ok(match known {
            Some((_, leader, members)) => {
                *members += 1;
                let (leader, position) = (Arc::clone(leader), *members - 1);
                Counter::Member { leader, position, _own: Some(event) }
            }
            None => {
                let leader = Arc::new(event);
                self.0.push((tid, Arc::clone(&leader), 1));
                Counter::Member { leader, position: 0, _own: None }
            }
        })
    }
}

fn config(what: SystemEvent) -> u64 {
    match what {
        SystemEvent::CpuClock => 1, // PERF_COUNT_SW_TASK_CLOCK
        SystemEvent::PageFaults => 2,
        SystemEvent::ContextSwitches => 3,
        SystemEvent::Migrations => 4,
    }
}

fn refused(what: SystemEvent, error: &io::Error) -> Error {
    let text = format!(
        "the kernel does not open a perf event of {what:?} ({error}): it takes CAP_PERFMON, or \
         sysctl kernel.perf_event_paranoid=1, and a seccomp filter that allows perf_event_open"
    );
    Error::new(ErrorKind::Refused, text)
}

/// One event for each thread, inherited by those that they make. A thread that is made while others are
/// being opened would be counted twice or not at all, so it begins again until there was none.
fn all_threads(what: SystemEvent) -> io::Result<Counter> {
    let mut before = threads()?;
    for _ in 0..TRIES {
        let opened: io::Result<Vec<_>> =
            before.iter().map(|tid| sys::perf_event(config(what), *tid, true, None)).collect();
        let after = threads()?;
        match opened {
            Ok(events) if after == before => return Ok(Counter::Events(events)),
            Err(error) if after == before => return Err(error),
            _ => before = after,
        }
    }
    Err(io::Error::other("threads come and go too fast to be listed"))
}

fn threads() -> io::Result<Vec<u32>> {
    let tid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut all: Vec<u32> = fs::read_dir("/proc/self/task")?.flatten().filter_map(tid).collect();
    all.sort_unstable();
    Ok(all)
}

fn from_file(what: SystemEvent, tid: u32) -> Option<u64> {
    if what == SystemEvent::PageFaults {
        let text = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
        // The name before may hold anything, parentheses too.
        let (_, rest) = text.rsplit_once(')')?;
        let field = |n: usize| rest.split_ascii_whitespace().nth(n)?.parse::<u64>().ok();
        return Some(field(7)? + field(9)?); // minor and major faults
    }
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
    let of = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    Some(of("voluntary_ctxt_switches:")? + of("nonvoluntary_ctxt_switches:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_tells_grows_with_what_the_thread_does() {
        let tid = sys::thread_id();
        for what in [SystemEvent::PageFaults, SystemEvent::ContextSwitches] {
            let counter = Counter::File(what, tid);
            let now = || counter.now(&mut Counts::default());
            let before = now().unwrap();
            match what {
                SystemEvent::PageFaults => {
                    let pages = sys::Mapping::wiped_on_fork(64 << 12).unwrap();
                    for page in 0..64 {
                        // SAFETY: inside of our own mapping, which nobody else uses.
                        unsafe { pages.base().add(page << 12).write_volatile(1) };
                    }
                    assert!(now().unwrap() >= before + 64, "{counter:?}");
                }
                _ => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    assert!(now().unwrap() > before, "{counter:?}");
                }
            }
        }
        let gone = Counter::File(SystemEvent::PageFaults, u32::MAX);
        assert_eq!(gone.now(&mut Counts::default()), None);
    }

    /// What is asked with the same `Counts` is of the moment when the first of them was asked.
    #[test]
    #[allow(clippy::print_stdout, reason = "what is missing here")]
    fn a_group_is_read_at_one_moment() {
        let mut leaders = Leaders::default();
        let mut open = |what| leaders.open(what, sys::thread_id(), false);
        let (clock, faults) = match (open(SystemEvent::CpuClock), open(SystemEvent::PageFaults)) {
            (Ok(clock), Ok(faults)) => (clock, faults),
            (clock, _) => {
                println!("skipped, needs perf_event_open: {clock:?}");
                return;
            }
        };
        let mut early = Counts::default();
        let at = clock.now(&mut early).unwrap();
        let pages = sys::Mapping::wiped_on_fork(64 << 12).unwrap();
        for page in 0..64 {
            // SAFETY: inside of our own mapping, which nobody else uses.
            unsafe { pages.base().add(page << 12).write_volatile(1) };
        }
        let (before, after) = (faults.now(&mut early), faults.now(&mut Counts::default()));
        assert!(after.unwrap() >= before.unwrap() + 64, "{before:?} {after:?}");
        assert_eq!(clock.now(&mut early), Some(at));
        assert!(clock.now(&mut Counts::default()).unwrap() > at);
    }
}
