//! The operations that are called when functions begin and end, and why one that is taken away is not freed too early.
//!
//! [`OPS`] leads to an immutable array of [`Op`]s: function, data and the set of function ids that it wants, together
//! behind one pointer, so no hit can call one operation's function with another's data. A change publishes a new
//! array. The old one, and what an operation captured that is not in the new one, are freed a grace period of
//! [`TRACE`] later. Nobody waits for that.
//!
//! # Why nobody can still be inside when it is freed
//! The kernel could not use a grace period here, because its callbacks run where RCU does not look, and touched every
//! CPU instead. Let a thread T be anywhere on its way from a traced function's first instruction to the
//! operation, and let U take the operation off: U stores the new array (release), then asks for a grace period.
//!
//! 1. *T is before its section.* T may be descheduled between the sled's push and its call, in the trampoline before the
//!    increment, for ever. It has loaded nothing that is freed: the sled leads to a trampoline that is never freed or
//!    changed, and carries a constant, the function's id. When T goes on it enters its section, and only then loads `OPS`.
//! 2. *T's section is counted.* `lock` of T's slot (or of the shared one) is incremented in the trampoline before `OPS` is
//!    loaded, and `unlock` after the last operation has returned. There is no thread whose counter is not looked at:
//!    one without an index, before registration or after its thread-locals are gone, counts on the shared
//!    slot; a signal handler counts where its thread does; a thread that is blocked or preempted stays counted.
//!    So a grace period that sees the increment waits for T, wherever T is.
//! 3. *Does it see the increment?* T executes no barrier between the increment and the load of `OPS`, so the processor
//!    may load the old array while the increment is still in its store buffer. The grace period's heavy barrier
//!    (`membarrier`) decides: it comes after U's store and before the counters are read. If T's load comes before
//!    T's barrier (the one that the heavy barrier makes T execute, or the one of the scheduler while T
//!    is not running), so does the increment, which is older in program order, and the counters show it.
//!    If T's load comes after, it finds the new array. A `membarrier` *skips* threads that are not
//!    running: it proves nothing by itself about one that is descheduled in the middle of an operation. The
//!    count does (2.), and the barrier makes the count visible. Neither would do alone: without the count a sleeping T is not
//!    seen; without the barrier a running T is seen too late. (`crates/rcu/tests/model/blind_spot.rs` has
//!    both twins, and each is caught.) With `GRACEPOINT_RCU=fence` T executes the barrier itself, in `enter`.
//! 4. *The loads and calls of a section end before it is counted out*: x86 makes stores visible in order,
//!    after earlier loads; `leave` releases.
//!
//! An operation for some threads alone (`probe::Control`) has its words among what it captured, so
//! all this goes for them too.
//!
//! Orderings: the store to [`OPS`] is a release and pairs with the acquire in [`each`], and with the trampoline's load, which on
//! x86 acquires: who finds an array finds it whole.

use super::hit::FunctionCall;
use crate::key::TRACE;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

/// What an operation calls.
pub(crate) type Call = unsafe extern "C" fn(*const (), &FunctionCall);

/// One operation; an array ends with one whose `words` is null. Read by `arch/trampoline_x86_64.s`, too.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Op {
    pub(crate) entry: Option<Call>,
    pub(crate) exit: Option<Call>,
    pub(crate) data: *const (),
    /// A bit for each function id that it wants.
    pub(crate) words: *const u64,
    pub(crate) len: usize,
    /// It may use any register, so in a trampoline everything is kept for it. (A session's keeps to xmm registers by itself.)
    /// Those that do come first, so the first one tells.
    pub(crate) apart: bool,
    pub(crate) of: Owner,
}

/// Whose operations these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Program,
    Session,
}

// SAFETY: `data` is only handed to `entry` and `exit`, which are made for it and may run on any thread; the set is not changed.
unsafe impl Send for Op {}
// SAFETY: as above.
unsafe impl Sync for Op {}

impl Op {
    const END: Op = Op {
        entry: None,
        exit: None,
        data: ptr::null(),
        words: ptr::null(),
        len: 0,
        apart: false,
        of: Owner::Program,
    };

    /// Operations; `set` stays where it is as long as this.
    pub(crate) fn new(of: Owner, calls: [Option<Call>; 2], data: *const (), set: &Set) -> Op {
        let [entry, exit] = calls;
        // Code that is built for AVX, or calls `memset` anywhere because it was not optimised, may use all of it.
        let anything = cfg!(any(target_feature = "avx", debug_assertions));
        let apart = of == Owner::Program || anything;
        Op { entry, exit, data, words: set.words.as_ptr(), len: set.words.len(), apart, of }
    }

    /// # Safety
    /// It is published, and the read section is open in which it was found.
    #[inline(always)]
    unsafe fn wants(&self, id: u32) -> bool {
        let word = id as usize / 64;
        // SAFETY: the set has `len` words and lives as long as the operation is published, and longer.
        word < self.len && unsafe { *self.words.add(word) } >> (id % 64) & 1 != 0
    }
}

/// What is published while there is none.
struct Nothing([Op; 1]);

static NOTHING: Nothing = Nothing([Op::END]);

pub(crate) static OPS: AtomicPtr<Op> = AtomicPtr::new((&raw const NOTHING.0).cast_mut().cast());

/// Calls each operation that wants this function.
///
/// # Safety
/// A read section of `TRACE` is open.
#[inline(always)]
pub(crate) unsafe fn each<const EXIT: bool>(call: &FunctionCall) {
    let mut at = OPS.load(Acquire);
    loop {
        // SAFETY: a published array ends with `Op::END` and lives until a grace period after it was replaced, so
        // as long as the section.
        let op = unsafe { &*at };
        if op.words.is_null() {
            return;
        }
        // SAFETY: as above.
        let wanted = unsafe { op.wants(call.id) };
        if let Some(f) = (if EXIT { op.exit } else { op.entry }).filter(|_| wanted) {
            // SAFETY: functions and data were put in as one.
            unsafe { f(op.data, call) };
        }
        // SAFETY: this was not the last.
        at = unsafe { at.add(1) };
    }
}

/// The published operations, as whoever changes them sees them: under the tracer's lock.
pub(crate) struct Published(Option<Box<[Op]>>);

impl Published {
    pub(crate) const fn new() -> Published {
        Published(None)
    }

    /// All but the end.
    pub(crate) fn all(&self) -> &[Op] {
        self.0.as_deref().and_then(|ops| ops.split_last()).map_or(&[], |(_end, ops)| ops)
    }

    /// Publishes these instead. The array before is freed a grace period later.
    pub(crate) fn replace(&mut self, mut ops: Vec<Op>) {
        let mut new = None;
        let mut at = (&raw const NOTHING.0).cast_mut().cast();
        if !ops.is_empty() {
            ops.sort_by_key(|op| !op.apart);
            let array: Box<[Op]> = ops.into_iter().chain([Op::END]).collect();
            at = new.insert(array).as_mut_ptr();
        }
        OPS.store(at, Release); // pairs with the load in `each`, and with the trampoline's
        if let Some(old) = std::mem::replace(&mut self.0, new) {
            TRACE.retire(old);
        }
    }
}

/// A set of function ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set {
    words: Box<[u64]>,
}

impl FromIterator<u32> for Set {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Set {
        let mut words = Vec::new();
        for id in ids {
            let word = id as usize / 64;
            if word >= words.len() {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (id % 64);
        }
        Set { words: words.into() }
    }
}

impl Set {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn has(&self, id: u32) -> bool {
        self.words.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 != 0)
    }
}

impl Op {
    /// Is the function among those that it wants? For whoever holds the tracer's lock.
    pub(crate) fn has(&self, id: u32) -> bool {
        // SAFETY: operations in `Published` are published, and taken off only under the lock that the caller holds.
        unsafe { self.wants(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let set: Set = [1, 63, 64, 1000].into_iter().collect();
        let op = Op::new(Owner::Session, [None; 2], ptr::null(), &set);
        for id in 0..1200 {
            let wanted = [1, 63, 64, 1000].contains(&id);
            assert_eq!((set.has(id), op.has(id)), (wanted, wanted), "{id}");
        }
        assert!(!set.has(u32::MAX) && !Set::default().has(0));
    }
}
