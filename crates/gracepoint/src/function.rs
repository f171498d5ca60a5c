//! The function tracer: what is called when the program's functions begin and end.
//!
//! Two kinds of function can be traced: those with [`#[function]`](macro@crate::function), and, in a program
//! built with `-Z instrument-xray`, all that the compiler gave sleds. [`FunctionOps`] calls closures of the program itself;
//! a recorder comes through the agent.
//!
//! | file | what |
//! |---|---|
//! | `function/ops.rs` | the published operations, and why none is freed while it is in use |
//! | `function/hit.rs` | a hit |
//! | `function/point.rs` | functions with the attribute |
//! | `function/table.rs`, `function/elf.rs` | all functions by id, and where objects have theirs |
//! | `function/excluded.rs` | the few that are never traced, and why |
//! | `function/registry.rs` | who wants which; switching |
//! | `function/frames.rs` | calls under way, for depth and duration |
//! | `function/probe.rs` | [`FunctionOps`] |
//! | `function/symbols.rs` | names, for [`FunctionOps`] |
//! | `arch/trampoline_x86_64.rs` | what sleds call |

mod frames;
mod hit;
pub(crate) mod ops;
pub(crate) mod point;
mod probe;
mod registry;
mod symbols;
mod table;

#[cfg(not(gp_branch))]
mod elf;
#[cfg(not(gp_branch))]
mod excluded;

pub(crate) use frames::Frames;
pub use hit::FunctionCall;
#[cfg(test)]
pub(crate) use hit::GUARD;
#[cfg(any(test, not(gp_branch)))]
pub(crate) use hit::NO_DEPTH;
pub(crate) use ops::{Op, Owner, Set};
pub use point::{Call, Point};
pub use probe::{FunctionFilter, FunctionOps, FunctionSet, RegisteredOps, StaticFunctionOps};
pub(crate) use registry::{attach, detach, list, reset};

#[cfg(not(gp_branch))]
pub(crate) use crate::arch::trampoline_x86_64::{apart, with_guard};

use table::Place;

/// How many functions there are.
pub(crate) fn count() -> u32 {
    registry::with_table(table::Table::len)
}

/// The path of the function with this number, if there is one and its symbol was not stripped. Reads the program's files:
/// for reports, not for callbacks.
///
/// ```
/// assert_eq!(gracepoint::function_name(0), None);
/// ```
#[must_use]
pub fn function_name(id: u32) -> Option<String> {
    registry::with_table(|table| {
        let mut found = None;
        symbols::each(table, |of, name| {
            if of == id {
                found = Some(name.to_owned());
            }
        });
        found
    })
}

/// Hits that were passed by because the thread was inside a callback or a record at that moment: of functions that callbacks
/// call, and of signal handlers that came in between.
#[must_use]
pub fn missed_function_hits() -> u64 {
    missed_hits::COUNT.load(std::sync::atomic::Ordering::Relaxed)
}

/// Names of the events of the arguments and results of these functions.
pub(crate) fn events_of(set: &Set) -> Vec<String> {
    registry::with_table(|table| {
        let wanted = table.functions().filter(|(id, _)| set.has(*id));
        let keys = wanted.flat_map(|(_, function)| match function.place {
            Place::Attribute(point, _) => [point.args, point.returns, point.whole],
            #[cfg(not(gp_branch))]
            Place::Sleds { .. } => [None; 3],
        });
        keys.flatten().map(|key| key.desc.name()).collect()
    })
}

/// Where each function lies, by its id; 0 for those with the attribute, whose frame says so.
pub(crate) fn addresses() -> Box<[u64]> {
    registry::with_table(|table| {
        let address = |(_, function): (u32, &table::Function)| match function.place {
            Place::Attribute(..) => 0,
            #[cfg(not(gp_branch))]
            Place::Sleds { function, .. } => function as u64,
        };
        std::iter::once(0).chain(table.functions().map(address)).collect()
    })
}

/// Without trampolines nothing has to be kept.
#[cfg(gp_branch)]
#[inline(always)]
pub(crate) fn apart<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// Runs `f` on a word of the thread's own, which is its guard.
#[cfg(gp_branch)]
#[inline(always)]
pub(crate) fn with_guard<R>(f: impl FnOnce(&std::sync::atomic::AtomicUsize) -> R) -> R {
    thread_local! {
        static GUARD: std::sync::atomic::AtomicUsize = const { std::sync::atomic::AtomicUsize::new(0) };
    }
    // It has no destructor, so it is there to the thread's very end.
    GUARD.with(f)
}

/// For a handler that runs on a stack of its own: functions that it calls are not heard of, until this is dropped, if it has
/// interrupted a trampoline. Its stack may lie above the trampoline's, and then a hit would be taken for the proof that the
/// trampoline is no more.
pub(crate) struct Unheard(usize);

/// Above all stacks.
const ABOVE: usize = usize::MAX;

impl Unheard {
    pub(crate) fn new() -> Unheard {
        use std::sync::atomic::Ordering::Relaxed;
        with_guard(|guard| {
            let there = guard.load(Relaxed);
            if there != 0 {
                guard.store(ABOVE, Relaxed);
            }
            Unheard(there)
        })
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        with_guard(|guard| guard.store(self.0, std::sync::atomic::Ordering::Relaxed));
    }
}

/// Hits on a thread that was inside an operation already: of functions that operations call, and of signal handlers that
/// interrupted one.
pub(crate) mod missed_hits {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    pub(crate) static COUNT: AtomicU64 = AtomicU64::new(0);

    #[cold]
    pub(crate) fn count() {
        COUNT.fetch_add(1, Relaxed);
    }
}
