//! The scenarios that the life cycle of tracepoints must stand, and the odd places in which a tracepoint
//! may be hit. `stale_data` runs here; the others are programs: this file again, run as a process of its own.
//!
//! `GRACEPOINT_SCENARIOS=full` makes the two scenarios ten times as long.
#![allow(clippy::print_stdout, reason = "what a program prints is what its test looks at")]
#![cfg_attr(not(target_os = "linux"), allow(unused, reason = "probes exist on Linux alone"))]

#[cfg(target_os = "linux")]
#[path = "../client/mod.rs"]
mod client;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod places;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod recorder;
#[cfg(target_os = "linux")]
mod stale_data;
#[cfg(target_os = "linux")]
mod system_calls;
#[cfg(target_os = "linux")]
mod teardown_stall;

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use libtest_mimic::{Arguments, Trial};
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--program") {
        program::begin(&args.next().unwrap_or_default());
        return std::process::ExitCode::SUCCESS;
    }
    let tests: [(&str, program::Test); 16] = [
        ("stale_data", stale_data::ours),
        ("stale_data_is_caught_in_the_kernels_design", stale_data::twin),
        ("teardown_stall", teardown_stall::test),
        ("teardown_stall_detach_makes_no_call_that_waits", system_calls::test),
        ("a_batch_takes_one_change_of_protection", system_calls::test_batches),
        ("teardown_stall_the_program_exits", teardown_stall::test_exit),
        ("teardown_stall_recorders_leave", recorder::test),
        ("before_main_and_after", places::test_main),
        ("before_the_sites_are_known", places::test_earliest),
        ("a_forked_child_exits", places::test_fork_exit),
        ("a_program_ends_inside_a_hit_and_on_the_callback_thread", places::test_exit_inside),
        ("in_destructors_of_thread_locals", places::test_thread_locals),
        ("in_signal_handlers", places::test_signals),
        ("in_forked_children", places::test_fork),
        ("in_the_programs_allocator", places::test_allocator),
        ("a_program_that_never_inits_forks_while_it_attaches", places::test_fork_while_attaching),
    ];
    let trials = tests.map(|(name, test)| Trial::test(name, test)).into_iter().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
