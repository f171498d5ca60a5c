//! The scenario *teardown-stall*: closing a perf event while a storm of interrupts keeps one CPU from
//! ever passing through a quiescent state.
//!
//! In the kernel, the worker of SRCU-fast blocks in `synchronize_rcu()`, and with it everybody who waits for any
//! grace period that this worker would drive. Ours never blocks: detach returns, another domain's
//! grace periods end, and what was detached is freed once the stalled reader has left.
#![allow(clippy::print_stdout, reason = "the chain that was found is printed")]

use crate::srcu::{Rcu, SlowGp, SrcuStruct};
use crate::world::World;
use crate::{Form, Twin, counters, door};
use gracepoint_model::{Cause, Explorer, Program, Until};

/// The tracepoint's readers and its teardown. With `stalled`, CPU 1 never leaves its interrupts.
fn srcu_teardown(slow_gp: SlowGp, stalled: bool) -> Program {
    let mut program = Program::new(format!("SRCU-fast, {slow_gp:?}, stalled: {stalled}"));
    let rcu = Rcu::new(&mut program, 2);
    let tracepoint_srcu = SrcuStruct::new(&mut program, "tracepoint_srcu", &rcu, slow_gp);
    let probe = program.object("the probe");
    let probes = program.word("tp->funcs", probe.address());

    let reader = tracepoint_srcu.clone();
    program.thread("reader", move |cx| reader.do_trace(cx, 0, probes));
    if stalled {
        let nesting = rcu.nesting[1];
        program.thread("repro2 4093", move |cx| {
            cx.increment(nesting)?; // in an RCU section, and in no section of SRCU at all
            cx.fence()?;
            cx.call("futex_wake", |cx| cx.stall())
        });
    }
    let closing = tracepoint_srcu.clone();
    program.thread("repro2 4086", move |cx| {
        cx.call("perf_trace_destroy", |cx| {
            cx.store(probes, 0)?;
            cx.call("tracepoint_synchronize_unregister", |cx| closing.synchronize_srcu(cx))?;
            cx.free(probe)
        })
    });
    program.server("kworker/0:0", move |cx| {
        cx.wait(tracepoint_srcu.srcu_gp_seq_needed, Until::IsNot(0))?;
        tracepoint_srcu.process_srcu(cx)
    });
    program
}

#[test]
fn teardown_stall() {
    // The kernel's machine: right, as long as every CPU gets around.
    Explorer::new().explore(&srcu_teardown(SlowGp::SynchronizeRcu, false)).expect_sound();
    // Its barrier is needed.
    let unsafe_twin = Explorer::new().explore(&srcu_teardown(SlowGp::SmpMb, false));
    assert!(matches!(unsafe_twin.expect_failure().cause, Cause::UseAfterFree { .. }));

    // And where one CPU does not, it hangs, although nobody is inside a section of SRCU.
    let report = Explorer::new().explore(&srcu_teardown(SlowGp::SynchronizeRcu, true));
    let failure = report.expect_failure();
    crate::schedule::is_told("teardown_stall", failure);
    let chain = failure.cause.to_string();
    println!("{chain}\n    ({} moves)", failure.schedule.moves().len());
    for link in [
        "repro2 4086: perf_trace_destroy > tracepoint_synchronize_unregister > synchronize_srcu > \
         wait_for_completion > wait until tracepoint_srcu.srcu_gp_seq >= 4",
        "kworker/0:0: process_srcu > srcu_advance_state > try_check_zero > \
         srcu_readers_active_idx_check > synchronize_rcu > wait until rcu_completed >=",
        "rcu_preempt: rcu_gp_fqs_loop > wait until rcu_nesting[1] == 0",
        "repro2 4093: futex_wake > is stalled",
    ] {
        assert!(chain.contains(link), "{link}\nis not in:\n{chain}");
    }
}

/// Workers are bounded: while one blocks, the grace periods of others wait in its queue.
#[test]
fn teardown_stall_takes_other_domains_with_it() {
    let mut program = Program::new("SRCU-fast, two domains and one worker");
    let rcu = Rcu::new(&mut program, 2);
    let first = SrcuStruct::new(&mut program, "tracepoint_srcu", &rcu, SlowGp::SynchronizeRcu);
    // The second one's readers have barriers: its grace periods need no synchronize_rcu().
    let second = SrcuStruct::new(&mut program, "other_srcu", &rcu, SlowGp::SmpMb);
    let nesting = rcu.nesting[1];
    program.thread("storm", move |cx| {
        cx.increment(nesting)?;
        cx.stall()
    });
    let (closing, other) = (first.clone(), second.clone());
    program.server("closing", move |cx| closing.synchronize_srcu(cx));
    program.thread("innocent", move |cx| other.synchronize_srcu(cx));
    program.server("kworker/0:0", move |cx| {
        cx.wait(first.srcu_gp_seq_needed, Until::IsNot(0))?;
        first.process_srcu(cx)?;
        cx.wait(second.srcu_gp_seq_needed, Until::IsNot(0))?;
        second.process_srcu(cx)
    });
    let report = Explorer::new().preemptions(2).explore(&program);
    let chain = report.expect_failure().cause.to_string();
    assert!(chain.contains("innocent: synchronize_srcu > wait_for_completion"), "{chain}");
}

/// How long the reader that is stalled inside of a section of ours stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storm {
    /// Until the teardown is through: who waits for it, waits for ever.
    UntilTornDown,
    /// For ever.
    ForEver,
}

/// Ours in the same setting, and harder: the stalled thread is *inside* of a section, one agent
/// drives two domains, and whoever detaches must return before the storm ends.
fn our_teardown(storm: Storm) -> Program {
    let program = Program::new(format!("ours, a storm {storm:?}"));
    let (program, traced) = World::add(program, Twin::Sound, Form::Membarrier, 1, 0);
    let (mut program, other) = World::add(program, Twin::Sound, Form::Membarrier, 1, 0);
    let (inside, torn_down) = (program.word("inside", 0), program.word("torn down", 0));

    traced.thread(&mut program, "stalled reader", move |world| {
        let pair = world.enter(0);
        world.touch_published();
        door::access(|cx| cx.store(inside, 1));
        match storm {
            Storm::UntilTornDown => drop(door::access(|cx| cx.wait(torn_down, Until::Is(1)))),
            Storm::ForEver => door::access(gracepoint_model::Context::stall),
        }
        counters::leave(pair);
    });
    traced.thread(&mut program, "detaching", move |world| {
        door::access(|cx| cx.wait(inside, Until::Is(1)));
        world.remove();
        world.start_poll();
        // It has returned: the closure is in the agent's hands.
        door::access(|cx| cx.store(torn_down, 1));
    });
    other.thread(&mut program, "innocent", |world| {
        let cookie = world.start_poll();
        world.wait(cookie);
        world.free_old();
    });
    let innocent = std::rc::Rc::clone(&other);
    traced.server(&mut program, "agent", move |world| {
        World::serve(&[(world, true), (&*innocent, false)], 4);
    });
    let (freed, old) = (traced.old, other.old);
    program.at_end(move |end| {
        let as_it_should = end.is_freed(freed) == (storm == Storm::UntilTornDown);
        match (end.is_freed(old), as_it_should) {
            (true, true) => Ok(()),
            (false, _) => Err("the other domain's grace period did not end".to_owned()),
            (_, false) => Err(format!("freed, or kept, in a storm {storm:?}")),
        }
    });
    program
}

#[test]
fn teardown_stall_is_none_with_ours() {
    for storm in [Storm::UntilTornDown, Storm::ForEver] {
        let report = Explorer::new().explore(&our_teardown(storm));
        report.expect_sound();
        println!("{}: {} states, {} ends", report.program, report.states, report.ends);
    }
}
