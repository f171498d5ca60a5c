//! What `signals.rs` leaves to chance, one by one: after every single instruction of a record a handler records, or
//! the agent takes the page back, or both. The processor itself stops there: the trap flag makes each
//! instruction end in a signal.

#[path = "../../arch/steps_x86_64.rs"]
mod trap;

use super::signals::is_published;
use super::*;
use std::cell::Cell;

/// What happens after an instruction.
type Act = fn(&Ring);

/// What a thread does at which of its steps.
struct Plan {
    ring: *const Ring,
    act: Act,
    at: u64,
    step: u64,
}

thread_local! {
    static PLAN: Cell<*mut Plan> = const { Cell::new(std::ptr::null_mut()) };
}

const BY_HANDLER: u32 = 17;

extern "C" fn stepped(_signal: libc::c_int) {
    // SAFETY: null, or the plan of the event under way on this thread, which nothing else uses meanwhile.
    if let Some(plan) = unsafe { PLAN.get().as_mut() } {
        plan.step += 1;
        if plan.step == plan.at {
            // SAFETY: the ring outlives the plan.
            (plan.act)(unsafe { &*plan.ring });
        }
    }
}

/// Runs `body` with `act` after its instruction `at`. Returns how many there were.
fn step_through(ring: &Ring, act: Act, at: u64, body: impl FnOnce()) -> u64 {
    let mut plan = Plan { ring, act, at, step: 0 };
    PLAN.set(&raw mut plan);
    // SAFETY: whoever comes here has called `catch_steps`.
    unsafe { trap::trap_each_instruction() };
    body();
    trap::trap_no_more();
    PLAN.set(std::ptr::null_mut());
    plan.step
}

fn nested(ring: &Ring) {
    HANDLED.set(HANDLED.get() + 1);
    KEPT.set(KEPT.get() + u64::from(put(ring, BY_HANDLER, HANDLED.get())));
}

fn agent(ring: &Ring) {
    TAKEN_BACK.set(TAKEN_BACK.get() + u64::from(ring.take_back()));
}

fn nested_then_agent(ring: &Ring) {
    nested(ring);
    agent(ring);
}

fn agent_then_nested(ring: &Ring) {
    agent(ring);
    nested(ring);
}

thread_local! {
    static HANDLED: Cell<u64> = const { Cell::new(0) };
    static KEPT: Cell<u64> = const { Cell::new(0) };
    static TAKEN_BACK: Cell<u64> = const { Cell::new(0) };
}

/// Where the writer stands before the event.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// In the middle of a page.
    Middle,
    /// At the end of one.
    Full,
    /// The agent has taken its page.
    Taken,
}

/// Acts once after each instruction of an event that begins in this state.
fn each_step(twin: Twin, act: Act, before: Before) -> Result<(), String> {
    let ring = shaped(4096, 256, Mode::Discard, twin);
    [&HANDLED, &KEPT, &TAKEN_BACK].iter().for_each(|count| count.set(0));
    let mut consumer = Consumer::new(&ring);
    let mut values = 0..;
    let mut kept = Vec::new();
    let mut record = || {
        let value = values.next().unwrap() * 8;
        kept.extend(put(&ring, 16, value).then_some(value));
    };
    let writer = ring.writer(gracepoint_rcu::thread_index().unwrap());
    let left = || writer.limit.load(Relaxed).saturating_sub(writer.pos.load(Relaxed));
    let (mut at, mut end) = (0, None);
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        loop {
            record();
            match before {
                Before::Middle => {}
                Before::Full => (0..200).take_while(|_| left() >= 21).for_each(|_| record()),
                Before::Taken => assert!(ring.take_back() > 0),
            }
            // The turning of a page is long: some of its instructions, the first and the last among them.
            at = match (before, end) {
                (_, Some(end)) => end,
                (Before::Middle, _) => at + 1,
                _ if at == 0 => 1,
                _ => at + 61,
            };
            let steps = step_through(&ring, act, at, &mut record);
            assert!(
                is_published(&ring),
                "after {at} of {steps} instructions: the commit word lags behind"
            );
            assert_eq!(writer.depth.load(Relaxed), 0, "after {at} of {steps} instructions");
            consumer.drain();
            if end.is_some() || at > steps && matches!(before, Before::Middle) {
                return steps;
            }
            end = (at > steps).then_some(steps);
        }
    }));
    let steps = looked.map_err(|_| format!("after instruction {at}"))?;
    assert!(steps > 20, "{steps} instructions are no record");
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| consumer.finish()));
    let found = found.map_err(|_| "the pages make no sense at the end".to_owned())?;
    let mut values = found.values(16);
    values.sort_unstable(); // some went to borrowed slots
    if values != kept {
        return Err(format!("{} written, {} found", kept.len(), values.len()));
    }
    let nested = found.values(BY_HANDLER).len() as u64;
    if nested != KEPT.get() || nested != HANDLED.get() {
        return Err(format!("{} by handlers, {nested} found", HANDLED.get()));
    }
    match ring.arena.loss(16).lost.load(Relaxed) + ring.arena.loss(17).lost.load(Relaxed) {
        0 => Ok(()),
        lost => Err(format!("{lost} lost")),
    }
}

/// The signal is the process's, and other tests have no use for it.
fn catch_steps() {
    // SAFETY: a zeroed sigaction is valid to be filled in; the handler does what is tested.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = stepped as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// The agent takes a page back on the writer's own thread here: with fences for a barrier it never does, since a
/// writer has none.
#[allow(clippy::print_stdout, reason = "what is missing here")]
fn needs_membarrier() -> bool {
    let has = gracepoint_rcu::strategy() == gracepoint_rcu::Strategy::Membarrier;
    if !has {
        println!("skipped, needs membarrier");
    }
    !has
}

#[test]
fn whatever_happens_after_each_instruction_of_a_record() {
    if needs_membarrier() {
        return;
    }
    catch_steps();
    let acts: [Act; 4] = [nested, agent, nested_then_agent, agent_then_nested];
    for before in [Before::Middle, Before::Full, Before::Taken] {
        for (n, act) in acts.into_iter().enumerate() {
            let result = each_step(Twin::None, act, before);
            assert_eq!(result, Ok(()), "act {n}, {before:?}");
            assert!(n == 0 || TAKEN_BACK.get() > 0, "the agent took nothing");
        }
    }
}

/// The twins of which one instruction is enough to tell, of those that `signals.rs` and the threads of `tests.rs` catch
/// sooner or later.
#[test]
fn each_broken_twin_is_caught_at_an_instruction() {
    if needs_membarrier() {
        return;
    }
    catch_steps();
    caught("quick, by steps", || each_step(Twin::StoresDepth, nested, Before::Middle));
    caught("republish, by steps", || each_step(Twin::PublishesOnce, nested, Before::Middle));
    caught("depth, by steps", || each_step(Twin::IgnoresDepth, agent, Before::Middle));
    caught("claim, by steps", || each_step(Twin::IgnoresClaim, agent, Before::Middle));
}
