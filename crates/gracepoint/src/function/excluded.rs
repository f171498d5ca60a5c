//! Functions that are never traced, and why: only those that each hit itself runs through. Everything else of ours can be
//! traced, the engine of grace periods too.
//!
//! The guard keeps a hit from itself in any case, so this list is for what it would cost: a hit in each hit, passed
//! by and counted as missed. It names what is compiled out of line; what is inlined into these has no sleds.

use crate::arch::trampoline_x86_64 as arch;
use crate::ring::Ring;
use crate::session;

/// Addresses and reasons.
pub(super) fn list() -> [(usize, &'static str); 14] {
    let [enter, leave] = arch::called();
    let [record_entry, record_exit, chosen, late, publish] = session::recorded_by();
    let [entry, exit, chosen_entry, chosen_exit] = super::probe::called();
    [
        (enter, "how the trampoline enters a section where its own instructions do not do"),
        (leave, "the same for leaving it"),
        (gracepoint_rcu::assembly::enter as fn(&_) -> _ as usize, "called by that"),
        (gracepoint_rcu::assembly::leave as unsafe fn(_) as usize, "called by that"),
        (entry, "calls a closure of the program"),
        (exit, "the same at an exit"),
        (chosen_entry, "the same with a depth, or on some threads"),
        (chosen_exit, "the same at an exit"),
        (record_entry, "writes a session's record"),
        (record_exit, "the same at an exit"),
        (chosen, "the same with a depth, a threshold, threads or a context"),
        (late, "the same where the page is to be turned"),
        (publish, "the same where a handler has recorded in the middle"),
        (
            Ring::find_slowly as fn(&'static Ring, _, _, _) -> _ as usize,
            "turns the page of a record",
        ),
    ]
}

/// Is the function at this address one of them?
pub(super) fn has(address: usize) -> bool {
    list().iter().any(|(excluded, _)| *excluded == address)
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_are_functions_of_this_program_and_have_reasons() {
        let mut addresses: Vec<usize> = super::list().iter().map(|(address, _)| *address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), super::list().len(), "one is there twice, or two were merged");
        assert!(super::list().iter().all(|(address, why)| super::has(*address) && !why.is_empty()));
        assert!(!super::has(super::has as fn(_) -> _ as usize));
    }
}
