//! The samples of a session: what the handler in `sampler.rs` writes down, and how the rate is kept to its cost.
//!
//! # Storms
//! What a sample costs is measured by the handler itself, from its first instruction to its last but the counting of
//! that. When it has been more than the wanted part of the program's CPU time for [`JUDGED_OVER`], the rate is halved, and a record
//! says so.

use super::failure;
use crate::context::{Copied, walk};
use crate::ring::Ring;
use crate::sampler::{self, Desks, Timers};
use crate::sys::timers::Registers;
use crate::{clock, own_stack, sys};
use gracepoint_wire::control::{Failure, SamplesWanted};
use gracepoint_wire::profile::{RATE_ID, SAMPLE_ID, STACK_ID, profile_events, stack_event};
use gracepoint_wire::schema::Declared;
use std::ffi::c_int;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// Most return addresses.
const DEEPEST: usize = 127;
/// Bytes of stack that are copied at once for frame pointers. One read of the kernel's: depth 32 fits.
const CHUNK: usize = 4096;
/// Between two judgements, of this much CPU time at least.
const JUDGED_OVER: u64 = 200_000_000;
/// Slower than that it does not become.
const SLOWEST_HZ: u64 = 10;
/// The highest rate that can be asked for.
const FASTEST_HZ: u32 = 100_000;
/// Part of a page that a copied stack may take.
const PART_OF_PAGE: usize = 2;

/// See the top.
pub(crate) struct Sampling {
    ring: *const Ring,
    wanted: SamplesWanted,
    /// Words of stack to copy; 0 to follow frame pointers.
    copied: usize,
    desks: Desks,
    period_ns: AtomicU64,
    /// Ticks that handlers took, all together and one by one.
    spent: AtomicU64,
    took: Durations,
    /// Ours: the timers are this process's, so no other one's threads come here.
    pid: libc::pid_t,
    timers: Mutex<Kept>,
}

/// What the agent alone changes.
#[derive(Default)]
struct Kept {
    timers: Timers,
    /// While it is on.
    signal: Option<c_int>,
    hz: u64,
    /// CPU time and `spent` at the latest judgement.
    judged: (u64, u64),
}

/// How many of what length: sixteen steps for each doubling, up to 2^18 ticks. And the least of them.
struct Durations {
    steps: [AtomicU64; 240],
    least: AtomicU64,
}

impl Default for Durations {
    fn default() -> Durations {
        let steps = [const { AtomicU64::new(0) }; 240];
        Durations { steps, least: AtomicU64::new(u64::MAX) }
    }
}

impl Durations {
    fn step(ticks: u64) -> usize {
        if ticks < 16 {
            return ticks as usize;
        }
        let exponent = ticks.ilog2();
        let part = (ticks >> (exponent - 4)) & 15;
        (exponent as usize - 3) * 16 + part as usize
    }

    /// The first length that is longer than those of a step.
    fn end(step: usize) -> u64 {
        match step {
            0..16 => step as u64 + 1,
            _ => (17 + step as u64 % 16) << (step / 16 - 1),
        }
    }

    fn count(&self, ticks: u64) {
        let step = Self::step(ticks).min(self.steps.len() - 1);
        self.steps[step].fetch_add(1, Relaxed);
        self.least.fetch_min(ticks, Relaxed);
    }

    fn least(&self) -> u64 {
        match self.least.load(Relaxed) {
            u64::MAX => 0,
            least => least,
        }
    }

    /// How many there are, and what half of them are not longer than.
    fn median(&self) -> (u64, u64) {
        let counts: Vec<u64> = self.steps.iter().map(|count| count.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let mut so_far = 0;
        let half = counts.iter().position(|count| {
            so_far += count;
            so_far * 2 >= all
        });
        (all, half.filter(|_| all > 0).map_or(0, Self::end))
    }
}

/// Writes fields one after the other.
struct Fields(*mut u8);

impl Fields {
    /// # Safety
    /// There is room for it.
    unsafe fn put<T>(&mut self, value: T) {
        // SAFETY: the caller's promise.
        unsafe {
            self.0.cast::<T>().write_unaligned(value);
            self.0 = self.0.add(size_of::<T>());
        }
    }

    /// A sequence as records have it: how many there are, how many of them follow, and these.
    ///
    /// # Safety
    /// There is room for it: [`sequence`] bytes.
    unsafe fn put_words(&mut self, words: &[u64]) {
        // SAFETY: the caller's promise.
        unsafe {
            self.put(words.len() as u32);
            self.put(words.len() as u16);
            self.0.copy_from_nonoverlapping(words.as_ptr().cast(), size_of_val(words));
        }
    }
}

/// Bytes of a sequence of so many words.
fn sequence(words: usize) -> usize {
    6 + words * 8
}

impl Sampling {
    /// # Errors
    /// `memory`: there is none for the handlers.
    pub(super) fn new(wanted: SamplesWanted, ring: &Ring) -> Result<Sampling, Failure> {
        let page = ring.arena.header().page_bytes as usize;
        let most = page / PART_OF_PAGE / 8;
        let copied = (wanted.stack_bytes as usize).div_ceil(8).min(most);
        let desks = Desks::new(copied.max(DEEPEST + CHUNK / 8))
            .map_err(|error| failure("memory", format!("no memory for samples: {error}")))?;
        Ok(Sampling {
            ring,
            wanted,
            copied,
            desks,
            period_ns: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            took: Durations::default(),
            pid: std::process::id().cast_signed(),
            timers: Mutex::default(),
        })
    }

    pub(super) fn declared(wanted: SamplesWanted) -> Vec<Declared> {
        let [sample, _switch, rate] = profile_events();
        let first = if wanted.stack_bytes > 0 { stack_event() } else { sample };
        vec![first, rate]
    }

    fn ring(&self) -> &Ring {
        // SAFETY: the ring of the session that this is part of.
        unsafe { &*self.ring }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins. The session that this is part of lives until a grace period after `end`.
    ///
    /// # Errors
    /// `busy`: another session does. `samples`: the system gives no signal.
    pub(super) fn begin(&self) -> Result<(), Failure> {
        let mut kept = self.kept();
        own_stack::learn();
        kept.hz = self.wanted.hz.clamp(1, FASTEST_HZ).into();
        self.period_ns.store(1_000_000_000 / kept.hz, Relaxed);
        // SAFETY: a session is freed two grace periods after it was switched off, and that calls `end`.
        let begun = unsafe { sampler::begin(self) };
        let signal = begun.map_err(|error| {
            failure("samples", format!("the program cannot sample itself: {error}"))
        })?;
        let Some(signal) = signal else {
            let text = "another recording has the program sample itself: wait for its end, or end it \
                        (gracepoint show)";
            return Err(failure("busy", text));
        };
        kept.signal = Some(signal);
        kept.judged = (sys::cpu_time(None).unwrap_or(0), self.spent.load(Relaxed));
        drop(kept);
        self.tend();
        Ok(())
    }

    /// Ends; handlers under way may go on for a grace period.
    pub(super) fn end(&self) {
        sampler::end(self);
        *self.kept() = Kept::default();
    }

    /// What is to be done each [`sampler::LOOK`], by the agent: threads that have come, and what it costs.
    pub(super) fn tend(&self) {
        let kept = &mut *self.kept();
        let Some(signal) = kept.signal else { return };
        own_stack::look_again();
        if let Some(refused) = kept.timers.look(signal, self.period_ns.load(Relaxed)) {
            let why = format!("threads without a timer: {refused}; raise `ulimit -i`");
            self.tell(kept.hz as u32, &why);
        }
        let now = (sys::cpu_time(None).unwrap_or(0), self.spent.load(Relaxed));
        let (cpu_ns, ticks) = (now.0 - kept.judged.0, now.1 - kept.judged.1);
        if cpu_ns < JUDGED_OVER {
            return;
        }
        kept.judged = now;
        let spent_ns = u128::from(ticks) * 1_000_000_000 / u128::from(clock::frequency());
        let ppm = spent_ns * 1_000_000 / u128::from(cpu_ns);
        let hz = (kept.hz / 2).max(SLOWEST_HZ.min(kept.hz));
        if ppm > u128::from(self.wanted.max_cpu_ppm) && hz < kept.hz {
            kept.hz = hz;
            let period_ns = 1_000_000_000 / hz;
            self.period_ns.store(period_ns, Relaxed);
            kept.timers.set(period_ns);
            let why = format!("taking them took {:.2} % of the CPU time", ppm as f64 / 10_000.0);
            self.tell(hz as u32, &why);
        }
    }

    /// Writes down where the calling thread was interrupted; the handler has begun at `begun`. Called by a signal's handler, and does what is
    /// allowed there alone: see `sampler.rs`.
    pub(crate) fn take(&self, registers: &Registers, expirations: u64, begun: u64) {
        let weight = self.period_ns.load(Relaxed).saturating_mul(expirations);
        match self.desks.take() {
            Some(mut desk) if self.copied > 0 => self.copy(registers, weight, desk.words()),
            Some(mut desk) => self.follow(registers, weight, desk.words()),
            // So many handlers at once that there is no memory left: where it was, without callers.
            None if self.copied > 0 => self.write_stack(registers, weight, &[]),
            None => self.write_sample(weight, &[registers.pc]),
        }
        let took = clock::ticks(clock::source()).saturating_sub(begun);
        self.spent.fetch_add(took, Relaxed);
        self.took.count(took);
    }

    /// What it has cost so far, in words.
    pub(super) fn cost(&self) -> String {
        let us = |ticks: u64| ticks as f64 * 1e6 / clock::frequency() as f64;
        let (samples, median) = self.took.median();
        format!(
            "took {samples} samples of itself, the quickest in {:.2} µs, half of them in at most {:.2} µs each, \
             {:.1} ms in all",
            us(self.took.least()),
            us(median),
            us(self.spent.load(Relaxed)) / 1e3
        )
    }

    fn follow(&self, registers: &Registers, weight: u64, words: &mut [u64]) {
        let (stack, chunk) = words.split_at_mut(1 + DEEPEST);
        stack[0] = registers.pc;
        // SAFETY: words are bytes, and these are nobody else's; a chunk of them is left.
        let chunk = unsafe {
            std::slice::from_raw_parts_mut(chunk.as_mut_ptr().cast::<u8>(), size_of_val(chunk))
        };
        // A frame pointer that is not on the stack above us is something else.
        let fp = if registers.fp >= registers.sp { registers.fp } else { 0 };
        let known = own_stack::known(registers.sp);
        let mut copied = Copied::new(chunk, |at, into: &mut [u8]| sys::peek_in(self.pid, at, into));
        let callers = walk(fp, &mut stack[1..], |at| {
            // SAFETY: the interrupted code goes on when this handler has returned, and so its stack is there.
            unsafe { own_stack::pair(&known, at) }.or_else(|| copied.pair(at))
        });
        self.write_sample(weight, &stack[..1 + callers]);
    }

    fn write_sample(&self, weight: u64, stack: &[u64]) {
        let context = self.ring().context as usize;
        let len = context + 13 + sequence(stack.len());
        let Some(place) = self.ring().place(SAMPLE_ID, len) else { return };
        // SAFETY: the place has room for `len` bytes, and this writes as many.
        unsafe {
            place.fields.write_bytes(0, context);
            let mut fields = Fields(place.fields.add(context));
            fields.put(weight);
            fields.put(sys::cpu());
            fields.put(false);
            fields.put_words(stack);
        }
        self.ring().publish(&place);
    }

    fn copy(&self, registers: &Registers, weight: u64, words: &mut [u64]) {
        let words = &mut words[..self.copied];
        let known = own_stack::known(registers.sp);
        let copied = if known.is_empty() {
            sys::peek_far(self.pid, registers.sp, words)
        } else {
            // SAFETY: as in `follow`.
            unsafe { own_stack::copy(&known, words) }
        };
        self.write_stack(registers, weight, &words[..copied]);
    }

    fn write_stack(&self, registers: &Registers, weight: u64, memory: &[u64]) {
        let context = self.ring().context as usize;
        let len = context + 45 + sequence(memory.len());
        let Some(place) = self.ring().place(STACK_ID, len) else { return };
        let Registers { pc, sp, fp, lr } = *registers;
        // SAFETY: the place has room for `len` bytes, and this writes as many.
        unsafe {
            place.fields.write_bytes(0, context);
            let mut fields = Fields(place.fields.add(context));
            fields.put(weight);
            fields.put(sys::cpu());
            fields.put(false);
            [pc, sp, fp, lr].into_iter().for_each(|register| fields.put(register));
            fields.put_words(memory);
        }
        self.ring().publish(&place);
    }

    /// Says that the rate is another from here on.
    fn tell(&self, hz: u32, why: &str) {
        let context = self.ring().context as usize;
        let Some(place) = self.ring().place(RATE_ID, context + 4 + why.len() + 1) else { return };
        // SAFETY: the place has room for the context, a u32, the text and a NUL.
        unsafe {
            place.fields.write_bytes(0, context);
            let mut fields = Fields(place.fields.add(context));
            fields.put(hz);
            fields.0.copy_from_nonoverlapping(why.as_ptr(), why.len());
            fields.0.add(why.len()).write(0);
        }
        self.ring().publish(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_lie_in_their_steps() {
        assert_eq!(Durations::default().least(), 0);
        for ticks in (0..5000).chain([1 << 17, (1 << 18) - 1]) {
            let step = Durations::step(ticks);
            let begin = step.checked_sub(1).map_or(0, Durations::end);
            assert!((begin..Durations::end(step)).contains(&ticks), "{ticks} in {step}");
        }
        let durations = Durations::default();
        assert_eq!(durations.median(), (0, 0));
        [1000, 1000, 1000, 5, u64::MAX].into_iter().for_each(|ticks| durations.count(ticks));
        let (all, median) = durations.median();
        assert!(all == 5 && (1000..=1063).contains(&median), "{median}");
        assert_eq!(durations.least(), 5);
    }
}
