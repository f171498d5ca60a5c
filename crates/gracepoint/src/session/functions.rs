//! The functions of a session: what is written when one begins and ends.
//!
//! The record is 8 bytes, which two stores write; the page is turned by `Ring::place_slowly`, with all registers kept that the
//! traced function may have in use (`function/hit.rs`).

use super::failure;
use super::target::Target;
use crate::context::Top;
use crate::function::{self, Frames, FunctionCall, Op, Owner, Set, ops};
use crate::limit::Limit;
use crate::ring::{Ring, Unpublished, Writers};
use crate::{clock, sys};
use gracepoint_wire::control::{
    ENTRY_ID, EXIT_ID, Failure, FunctionsWanted, Limits, WHOLE_ID, function_events,
};
use gracepoint_wire::schema::{Context, Declared};

/// See the top.
pub(super) struct Recorder {
    target: Target,
    set: Set,
    /// Where just two numbers are written for each hit: no threads, depth, threshold or context; and the ring is
    /// [plain](Ring::is_plain).
    quick: Option<Writers>,
    /// Thread ids, sorted; none for all.
    threads: Vec<u32>,
    depth: u32,
    threshold: Option<u64>,
    frames: Option<Frames>,
    /// By id, where stacks are recorded.
    addresses: Box<[u64]>,
}

/// Most threads that a session may be for: each hit looks for its own among them.
const MOST_THREADS: usize = 256;

/// The ids of these ranges, up to `most`, each once however often a peer names it.
fn each_once(ranges: &[(u32, u32)], most: u32) -> impl Iterator<Item = u32> {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable();
    let mut next = 1;
    ranges.into_iter().flat_map(move |(first, last)| {
        let from = first.max(next);
        let last = last.min(most);
        next = next.max(last.saturating_add(1));
        from..=last
    })
}

/// What is wanted of functions, before the ring is there.
pub(super) struct Chosen {
    wanted: FunctionsWanted,
    set: Set,
}

impl Chosen {
    /// # Errors
    /// `functions`: none of the ids names a function, or there are limits, too.
    pub(super) fn of(wanted: &FunctionsWanted, limits: Limits) -> Result<Chosen, Failure> {
        if limits != Limits::default() {
            let text = "limits leave out single events, and half a call is none: record functions \
                        without --max-rate, --sample and --max-overhead, and with --depth or --threshold";
            return Err(failure("functions", text));
        }
        let known = function::count();
        if wanted.threads.len() > MOST_THREADS {
            let text = format!(
                "{} threads are too many: name {MOST_THREADS}, or none for all",
                wanted.threads.len()
            );
            return Err(failure("functions", text));
        }
        let set: Set = each_once(&wanted.ids, known).collect();
        if set == Set::default() {
            let text = if known == 0 {
                "this program has no functions that can be traced: build it with \
                 `-Z instrument-xray`, or put #[gracepoint::function] on them"
            } else {
                "none of the ids is that of a function; ask again, the list may be out of date"
            };
            return Err(failure("functions", text));
        }
        Ok(Chosen { wanted: wanted.clone(), set })
    }

    /// The events that the session declares for them.
    pub(super) fn declared(&self) -> Vec<Declared> {
        function_events(self.wanted.threshold_ns > 0)
    }

    /// Names of the events of the arguments and results of these functions.
    pub(super) fn events(&self) -> Vec<String> {
        function::events_of(&self.set)
    }

    /// # Errors
    /// `memory`: there are no addresses left.
    pub(super) fn recorder(self, ring: *const Ring, extras: u32) -> Result<Recorder, Failure> {
        let FunctionsWanted { depth, threshold_ns, threads, .. } = self.wanted;
        let needs_frames = depth > 0 || threshold_ns > 0;
        let frames = needs_frames.then(Frames::new).transpose().map_err(|error| {
            failure("memory", format!("no addresses for --depth and --threshold ({error})"))
        })?;
        let ticks =
            |ns: u64| (u128::from(ns) * u128::from(clock::frequency()) / 1_000_000_000) as u64;
        let target = Target {
            ring,
            event: ENTRY_ID,
            begin: WHOLE_ID,
            end: EXIT_ID,
            extras,
            pid: std::process::id(),
            limit: Limit::new(0, 0),
        };
        Ok(Recorder {
            quick: target
                .ring()
                .writers()
                .filter(|_| extras == 0 && !needs_frames && threads.is_empty()),
            target,
            set: self.set,
            threads: sorted(threads),
            depth: if depth == 0 { u32::MAX } else { depth },
            threshold: (threshold_ns > 0).then(|| ticks(threshold_ns)),
            frames,
            addresses: match Context::from_bits(extras).has(Context::STACK) {
                true => function::addresses(),
                false => Box::default(),
            },
        })
    }
}

impl Recorder {
    pub(super) fn count(&self) -> u64 {
        self.set.len() as u64
    }

    pub(super) fn op(&self) -> Op {
        let calls = [record::<false> as ops::Call, record::<true>].map(Some);
        Op::new(Owner::Session, calls, (&raw const *self).cast(), &self.set)
    }

    /// Of a hit for which there was no quick place.
    #[cold]
    #[inline(never)]
    fn record_late(&self, hit: &FunctionCall, exit: bool) {
        let ring = self.target.ring();
        let id = if exit { EXIT_ID } else { ENTRY_ID };
        let Some(place) = function::apart(|| ring.place(id, 8)) else { return };
        // SAFETY: the place has room for 8 bytes.
        unsafe { place.fields.cast::<u64>().write_unaligned(fields(hit)) };
        ring.publish(&place);
    }

    /// Of a hit in the middle of which a handler has recorded.
    #[cold]
    #[inline(never)]
    fn publish_late(&self, unpublished: Unpublished<'_>) {
        function::apart(|| self.target.ring().publish_after_all(unpublished));
    }

    #[inline(never)]
    fn record_chosen(&self, hit: &FunctionCall, exit: bool) {
        if !self.threads.is_empty() && self.threads.binary_search(&this_thread()).is_err() {
            return;
        }
        let Some(frames) = &self.frames else { return self.write(hit, exit) };
        let ticks = clock::ticks(clock::source());
        if !exit {
            let depth = frames.begin(hit.id, hit.frame, ticks);
            if self.threshold.is_none() && depth.is_some_and(|depth| depth < self.depth) {
                self.write(hit, exit);
            }
            return;
        }
        let Some(call) = frames.end(hit.id, hit.frame) else { return };
        if call.depth >= self.depth {
            return;
        }
        match self.threshold {
            None => self.write(hit, exit),
            Some(least) => {
                let took = ticks.saturating_sub(call.ticks);
                if took >= least {
                    self.write_record(WHOLE_ID, hit, Some(took));
                }
            }
        }
    }

    fn write(&self, hit: &FunctionCall, exit: bool) {
        self.write_record(if exit { EXIT_ID } else { ENTRY_ID }, hit, None);
    }

    /// With the session's context.
    fn write_record(&self, id: u32, hit: &FunctionCall, ticks: Option<u64>) {
        let len = if ticks.is_some() { 16 } else { 8 };
        // The context and a turn of the page may use wide vectors.
        function::apart(|| {
            let address = self.addresses.get(hit.id as usize).copied().unwrap_or(0);
            let Some((place, at)) = self.target.place_in(id, len, Top::Call(hit, address)) else {
                return;
            };
            // SAFETY: the place has room for `len` bytes.
            unsafe {
                at.cast::<u64>().write_unaligned(fields(hit));
                if let Some(ticks) = ticks {
                    at.add(8).cast::<u64>().write_unaligned(ticks);
                }
            }
            self.target.ring().publish(&place);
        });
    }
}

fn sorted(mut ids: Vec<u32>) -> Vec<u32> {
    ids.sort_unstable();
    ids
}

/// The calling thread's id, as the program sees it.
fn this_thread() -> u32 {
    let info = gracepoint_rcu::thread_index().and_then(gracepoint_rcu::thread_info);
    info.map_or_else(sys::thread_id, |info| info.tid)
}

/// `function` and `frame`.
fn fields(hit: &FunctionCall) -> u64 {
    let frame = (hit.frame >> 3) as u32;
    u64::from(hit.id) | u64::from(frame) << 32
}

/// The functions that write, for the list of those that are never traced.
#[cfg(not(gp_branch))]
pub(crate) fn recorded_by() -> [usize; 5] {
    let chosen = Recorder::record_chosen as fn(&'static Recorder, &'static FunctionCall, bool);
    let late = Recorder::record_late as fn(&'static Recorder, &'static FunctionCall, bool);
    let publish = Recorder::publish_late as fn(&'static Recorder, Unpublished<'static>);
    let [entry, exit]: [ops::Call; 2] = [record::<false>, record::<true>];
    [entry as usize, exit as usize, chosen as usize, late as usize, publish as usize]
}

/// What a session's operation calls. Where nothing is special all of it is here, and needs few registers.
///
/// # Safety
/// `data` is a `Recorder` whose session lives while the read section lasts.
unsafe extern "C" fn record<const EXIT: bool>(data: *const (), hit: &FunctionCall) {
    // SAFETY: the caller's promise.
    let this = unsafe { &*data.cast::<Recorder>() };
    let Some(writers) = this.quick else {
        this.record_chosen(hit, EXIT);
        return;
    };
    // SAFETY: the ring lives as long as the session; the trampoline is on this thread's stack.
    let Some(place) = (unsafe { writers.place(if EXIT { EXIT_ID } else { ENTRY_ID }, 8) }) else {
        this.record_late(hit, EXIT);
        return;
    };
    // SAFETY: the place has room for 8 bytes.
    unsafe { place.fields.cast::<u64>().write_unaligned(fields(hit)) };
    if let Err(unpublished) = place.publish() {
        this.publish_late(unpublished);
    }
}

#[cfg(test)]
mod tests {
    use super::each_once;

    #[test]
    fn ranges_may_overlap_and_reach_too_far() {
        let all = |ranges: &[(u32, u32)]| each_once(ranges, 10).collect::<Vec<_>>();
        assert_eq!(all(&[(0, 2), (2, 3), (1, 1)]), [1, 2, 3]);
        assert_eq!(all(&[(9, u32::MAX), (8, 9)]), [8, 9, 10]);
        assert_eq!(all(&[(11, 20), (4, 4)]), [4]);
        assert_eq!(all(&vec![(1, u32::MAX); 100_000]).len(), 10, "and at no greater cost");
    }
}
