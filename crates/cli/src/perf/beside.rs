//! A profile beside a recording, or alone: rings are read now and then, and what they tell goes into the trace.
//!
//! # Storms
//! What a sample costs the program is the kernel's own interrupt, whose share it bounds itself
//! (`kernel.perf_cpu_time_max_percent`, `kernel.perf_event_max_sample_rate`): where it takes fewer
//! samples for that, it says so and the trace has it. What reading costs is ours: its CPU time is measured,
//! and when it is more than `--max-cpu` of the time that goes by, the rate is halved, which the trace says too. When
//! the rings run over they become larger, since it may well be switches that fill them, of which a lower rate makes no
//! fewer; the rate is halved where they cannot.

use super::rings::{Rings, Told, Wanted, What, is_permission};
use super::writer::{Writer, ticks};
use crate::failure::{Failure, Result};
use crate::record::streams::Streams;
use gracepoint_wire::clock::Clock;
use gracepoint_wire::control::SamplesWanted;
use gracepoint_wire::schema::Context;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// Between two readings of the rings.
const READ_EVERY: Duration = Duration::from_millis(10);
/// Between two looks at what it costs.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// Slower than that it does not become.
const SLOWEST_HZ: u64 = 10;

/// How to profile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) hz: u64,
    /// Most of a CPU that reading may take, in millionths.
    pub(crate) max_cpu_ppm: u64,
    /// Bytes of stack to copy into each sample, for code without frame pointers; 0 to follow these.
    pub(crate) copied: u32,
}

impl Rate {
    fn wanted(self) -> Wanted {
        Wanted::Profile { hz: self.hz, copied: self.copied }
    }

    /// The same, to be done by the program itself.
    pub(crate) fn in_program(self) -> SamplesWanted {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (hz, max_cpu_ppm) = (number(self.hz), number(self.max_cpu_ppm));
        SamplesWanted { hz, max_cpu_ppm, stack_bytes: self.copied }
    }
}

/// Why the kernel takes no samples of process `pid`, where that is for good: it has no perf events, or not for us.
pub(crate) fn is_refused(pid: u32) -> Option<Failure> {
    let error = Rings::probe(pid).err()?;
    is_for_good(&error).then(|| refused(pid, &error))
}

/// See the top.
pub(crate) struct Beside {
    rings: Rings,
    writer: Writer,
    rate: Rate,
    read_at: Instant,
    judged_at: Instant,
    /// CPU time that reading took since then, and losses by then.
    spent: Duration,
    lost: u64,
}

fn now(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned()
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    now(ClockId::Monotonic)
}

/// `CLOCK_REALTIME`, in nanoseconds since 1970.
pub(crate) fn real_ns() -> u64 {
    now(ClockId::Realtime)
}

/// No rights, or no such system call.
pub(super) fn is_for_good(error: &io::Error) -> bool {
    is_permission(error) || error.raw_os_error() == Some(38)
}

/// What to do where the kernel opens no perf event of a process.
fn refused(pid: u32, error: &io::Error) -> Failure {
    let paranoid =
        std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    let text = match error.kind() {
        io::ErrorKind::NotFound => format!("there is no process {pid} (any more)"),
        _ if error.raw_os_error() == Some(38) => {
            "this kernel has no perf events (CONFIG_PERF_EVENTS)".to_owned()
        }
        _ if is_permission(error) => format!(
            "the kernel does not let us profile process {pid}: it takes the program's own user or CAP_PERFMON, \
             sysctl kernel.perf_event_paranoid at most 2 (it is {}), and a seccomp filter that \
             allows perf_event_open",
            paranoid.trim()
        ),
        _ if error.raw_os_error() == Some(24) => {
            "too many open files: a profile takes one for each thread and CPU; raise `ulimit -n`"
                .to_owned()
        }
        _ => format!("cannot profile process {pid}: {error}"),
    };
    Failure::new(text)
}

impl Beside {
    /// Begins to sample the threads of `pid`, into streams from the number `first` on.
    ///
    /// # Errors
    /// When the kernel refuses, in words.
    pub(crate) fn begin(pid: u32, rate: Rate, first: u64, context: Context) -> Result<Beside> {
        let rings = Rings::open(pid, &[rate.wanted()]).map_err(|error| match error {
            error if is_for_good(&error) => Failure::new(format!(
                "{}; a program that has gracepoint can sample itself: record --profile",
                refused(pid, &error)
            )),
            error => refused(pid, &error),
        })?;
        let (now, writer) = (Instant::now(), Writer::new(pid, first, context));
        let (spent, lost) = (Duration::ZERO, 0);
        Ok(Beside { rings, writer, rate, read_at: now, judged_at: now, spent, lost })
    }

    /// The kernel allows samples of its own code.
    pub(crate) fn with_kernel(&self) -> bool {
        self.rings.with_kernel
    }

    /// Samples so far.
    pub(crate) fn samples(&self) -> u64 {
        self.writer.samples
    }

    /// Samples for which there was no room.
    pub(crate) fn lost(&self) -> u64 {
        self.writer.lost
    }

    /// The same by event.
    pub(crate) fn losses(&self) -> &BTreeMap<u32, u64> {
        &self.writer.losses
    }

    /// Reads the rings, if it is time to.
    ///
    /// # Errors
    /// When the trace cannot be written, or the kernel gives no other rate.
    pub(crate) fn tend(&mut self, clock: &Clock, out: &mut Streams) -> io::Result<()> {
        if self.read_at.elapsed() < READ_EVERY {
            return Ok(());
        }
        let before = now(ClockId::ThreadCPUTime);
        let told = self.rings.drain(monotonic_ns(), false);
        self.write(&told, clock, out)?;
        self.read_at = Instant::now();
        self.spent += Duration::from_nanos(now(ClockId::ThreadCPUTime) - before);
        self.judge(clock, out)
    }

    fn write(&mut self, told: &[Told], clock: &Clock, out: &mut Streams) -> io::Result<()> {
        for told in told {
            // How fast the kernel wakes a thread is not told before it has slept: nothing is left out.
            if let What::Throttled(false) = told.what {
                self.writer.rate(
                    ticks(clock, told.at_ns),
                    self.rate.hz as u32,
                    "as before",
                    out,
                )?;
                continue;
            }
            self.writer.take(told, clock, out)?;
        }
        Ok(())
    }

    fn judge(&mut self, clock: &Clock, out: &mut Streams) -> io::Result<()> {
        let passed = self.judged_at.elapsed();
        if passed < JUDGE_EVERY {
            return Ok(());
        }
        self.writer.flush(out)?;
        self.rings.ask_for_losses(monotonic_ns());
        let ppm = self.spent.as_nanos() * 1_000_000 / passed.as_nanos();
        let lost = self.writer.lost - self.lost;
        (self.judged_at, self.spent, self.lost) =
            (Instant::now(), Duration::ZERO, self.writer.lost);
        let why = match ppm > u128::from(self.rate.max_cpu_ppm) {
            true => format!("reading them took {:.1} % of a CPU", ppm as f64 / 10_000.0),
            false if lost > 0 && self.rings.grow(&[self.rate.wanted()])? => {
                let why = format!("{lost} found no room: from here on there is twice as much");
                return self.writer.rate(
                    ticks(clock, monotonic_ns()),
                    self.rate.hz as u32,
                    &why,
                    out,
                );
            }
            false if lost > 0 => format!("{lost} found no room"),
            false => return Ok(()),
        };
        let hz = (self.rate.hz / 2).max(SLOWEST_HZ.min(self.rate.hz));
        if hz < self.rate.hz {
            self.rate.hz = hz;
            self.rings.reopen(&[self.rate.wanted()])?;
            self.writer.rate(ticks(clock, monotonic_ns()), hz as u32, &why, out)?;
        }
        Ok(())
    }

    /// Takes what is left.
    ///
    /// # Errors
    /// As [`tend`](Self::tend).
    pub(crate) fn finish(&mut self, clock: &Clock, out: &mut Streams) -> io::Result<()> {
        let told = self.rings.drain(monotonic_ns(), true);
        self.write(&told, clock, out)?;
        self.writer.flush(out)
    }
}
