//! The scenario *blind-spot*: function-trace callbacks run where RCU is not watching, on a CPU that is on its
//! way out of user space or idle, and a normal grace period does not wait for such a CPU.
//!
//! The kernel's answer was to touch every CPU (`schedule_on_each_cpu(ftrace_sync)`). Ours: there is no
//! thread that is not seen. A section is counted wherever it is, by whatever thread: registered or
//! not, ending, in a handler; and the heavy barrier reaches every thread.
#![allow(clippy::print_stdout, reason = "what was found is printed")]

use crate::world::World;
use crate::{Form, Twin, counters};
use gracepoint_model::{Cause, Context, Explorer, Object, Program, Step, Until, Word};

/// How `unregister_ftrace_function` waits before it frees a dynamic `ftrace_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Each CPU that RCU is watching has been outside of a section.
    SynchronizeSched,
    /// Each CPU has run `ftrace_sync`, watched or not.
    ScheduleOnEachCpu,
}

#[derive(Clone, Copy)]
struct Cpu {
    /// 0 in user space and idle: RCU takes it for quiescent.
    dynticks_watching: Word,
    preempt_count: Word,
}

impl Cpu {
    /// `preempt_disable_notrace()`, the callbacks that are registered, and enable again.
    fn ftrace_ops_list_func(self, cx: &Context, ftrace_ops_list: Word) -> Step {
        cx.call("ftrace_ops_list_func", |cx| {
            cx.increment(self.preempt_count)?;
            if let Some(ops) = Object::at(cx.load(ftrace_ops_list)?) {
                cx.touch(ops)?;
            }
            cx.store(self.preempt_count, 0)
        })
    }

    /// Whether RCU looks at this CPU; if so, until it is outside of a section.
    fn synchronize_sched(self, cx: &Context) -> Step {
        if cx.load(self.dynticks_watching)? == 0 {
            return Ok(());
        }
        cx.wait(self.preempt_count, Until::Is(0)).map(drop)
    }
}

fn ftrace(wait: Wait) -> Program {
    let mut program = Program::new(format!("ftrace, {wait:?}"));
    let ops = program.object("the dynamic ftrace_ops");
    let ftrace_ops_list = program.word("ftrace_ops_list", ops.address());
    let cpu = Cpu {
        dynticks_watching: program.word("dynticks_watching", 0),
        preempt_count: program.word("preempt_count", 0),
    };
    program.thread("CPU 1", move |cx| {
        cx.call("user_exit", |cx| {
            // Traced before RCU is told: the blind spot.
            cpu.ftrace_ops_list_func(cx, ftrace_ops_list)?;
            cx.store(cpu.dynticks_watching, 1)?;
            cx.fence()
        })?;
        cx.call("do_syscall", |cx| cpu.ftrace_ops_list_func(cx, ftrace_ops_list))
    });
    program.thread("CPU 0", move |cx| {
        cx.call("unregister_ftrace_function", |cx| {
            cx.store(ftrace_ops_list, 0)?;
            cx.membarrier()?;
            match wait {
                Wait::SynchronizeSched => cpu.synchronize_sched(cx)?,
                Wait::ScheduleOnEachCpu => {
                    cx.call("ftrace_sync", |cx| cx.wait(cpu.preempt_count, Until::Is(0)))?;
                }
            }
            cx.membarrier()?;
            cx.free(ops)
        })
    });
    program
}

#[test]
fn blind_spot() {
    let report = Explorer::new().explore(&ftrace(Wait::SynchronizeSched));
    let failure = report.expect_failure();
    println!("{} ({} moves)", failure.cause, failure.schedule.moves().len());
    assert!(matches!(failure.cause, Cause::UseAfterFree { .. }));
    // A CPU that is watched is waited for: what is used too late is used in the blind spot.
    assert!(failure.story.iter().any(|line| line.contains("dynticks_watching -> 0")), "{failure}");
    Explorer::new().explore(&ftrace(Wait::ScheduleOnEachCpu)).expect_sound();
}

/// The life of a thread of ours, with a section in each spot that could be blind: before it is
/// registered, on its own slot, and in a destructor after it has given its slot back, while another
/// thread takes that slot over.
fn our_threads(twin: Twin) -> Program {
    let (mut program, world) = World::with_newcomers("ours", twin, Form::Membarrier, 2, 1);
    let free_index = program.word("index is free", 0);
    let give_back = move || crate::door::access(|cx| cx.swap(free_index, 1));
    // Slot 0 is the one that threads share; slot 1 this thread's own.
    world.thread(&mut program, "thread that ends", move |world| {
        world.first_section(1);
        if world.twin == Twin::SlotAfterGivingBack {
            give_back();
            world.section(1);
        } else {
            give_back();
            world.section_on_shared(0);
        }
    });
    world.thread(&mut program, "its successor", move |world| {
        crate::door::access(|cx| cx.wait(free_index, Until::Is(1)));
        world.section(1);
    });
    world.thread(&mut program, "detaching", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

#[test]
fn blind_spot_is_none_with_ours() {
    let report = Explorer::new().explore(&our_threads(Twin::Sound));
    report.expect_sound();
    println!("{}: {} states", report.program, report.states);
    for twin in [Twin::LateHighWater, Twin::SlotAfterGivingBack] {
        let report = Explorer::new().preemptions(3).explore(&our_threads(twin));
        let failure = report.expect_failure();
        println!("{twin:?}: {} ({} moves)", failure.cause, failure.schedule.moves().len());
    }
}

/// A handler that interrupts its thread anywhere in a section of ours, and has one of its own.
#[test]
fn a_signal_handler_is_no_blind_spot() {
    let (mut program, world) = World::new("handler", Twin::Sound, Form::Membarrier, 1);
    world.thread(&mut program, "reader", |world| {
        let choose = || crate::door::access(|cx| cx.choose(2)) == 1;
        let before = choose().then(|| world.enter(0));
        before.into_iter().for_each(counters::leave);
        let outer = world.enter(0);
        if choose() {
            world.section(0);
        }
        world.touch_published();
        counters::leave(outer);
        if choose() {
            world.section(0);
        }
    });
    world.thread(&mut program, "detaching", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    Explorer::new().explore(&program).expect_sound();
}

/// How the function tracer's trampoline or its `unregister` is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trampoline {
    /// Not at all.
    Sound,
    /// The operations are loaded before the section is counted.
    LoadsFirst,
    /// The section is not counted.
    DoesNotCount,
    /// `unregister` passes the heavy barrier and does not look at the counters: a thread that is preempted inside of
    /// an operation has passed it too.
    BarrierAlone,
}

/// A traced function: the sled, one byte that is on or off; the guard; the section, counted before anything is loaded that may
/// be freed.
fn traced(world: &World, sled: Word, guard: Word, broken: Trampoline) {
    if crate::door::access(|cx| cx.load(sled)) == 0 {
        return;
    }
    if crate::door::access(|cx| cx.load(guard)) != 0 {
        return;
    }
    crate::door::access(|cx| cx.store(guard, 1));
    match broken {
        Trampoline::LoadsFirst => world.section_of_what_was_found(0),
        Trampoline::DoesNotCount => world.touch_published(),
        Trampoline::Sound | Trampoline::BarrierAlone => world.section(0),
    }
    crate::door::access(|cx| cx.store(guard, 0));
}

fn function_tracer(twin: Twin, form: Form, broken: Trampoline) -> Program {
    let (mut program, world) = World::new(&format!("functions, {broken:?}"), twin, form, 1);
    let (sled, guard) = (program.word("sled", 1), program.word("guard", 0));
    world.thread(&mut program, "traced", move |world| {
        traced(world, sled, guard, broken);
        traced(world, sled, guard, broken);
    });
    world.thread(&mut program, "unregistering", move |world| {
        world.remove();
        crate::door::access(|cx| cx.store(sled, 0));
        // That of the code; without it the sled may be seen on for longer, and no more than that.
        crate::door::access(Context::membarrier);
        if broken != Trampoline::BarrierAlone {
            let cookie = world.start_poll();
            world.finish(cookie, 64);
        }
        world.free_old();
    });
    program
}

#[test]
fn blind_spot_is_none_in_the_trampoline() {
    for form in [Form::Membarrier, Form::Fence] {
        let report =
            Explorer::new().explore(&function_tracer(Twin::Sound, form, Trampoline::Sound));
        report.expect_sound();
        println!("{}: {} states", report.program, report.states);
    }
    let twins = [
        (Twin::Sound, Trampoline::LoadsFirst),
        (Twin::Sound, Trampoline::DoesNotCount),
        (Twin::Sound, Trampoline::BarrierAlone),
    ];
    for (twin, broken) in twins {
        let report = Explorer::new().explore(&function_tracer(twin, Form::Membarrier, broken));
        let failure = report.expect_failure();
        println!("{broken:?}: {} ({} moves)", failure.cause, failure.schedule.moves().len());
        assert!(matches!(failure.cause, Cause::UseAfterFree { .. }), "{}", failure.cause);
    }
}

/// The twin of the scenario: the count without the heavy barrier. The barrier that follows a change of code
/// would hide it, so this operation's functions stay on for another one.
#[test]
fn blind_spot_is_seen_without_the_heavy_barrier() {
    let stays_on = |twin: Twin| {
        let (mut program, world) = World::new("functions that stay on", twin, Form::Membarrier, 1);
        let (sled, guard) = (program.word("sled", 1), program.word("guard", 0));
        world.thread(&mut program, "traced", move |world| {
            traced(world, sled, guard, Trampoline::Sound);
        });
        world.thread(&mut program, "unregistering", |world| {
            world.remove();
            let cookie = world.start_poll();
            world.finish(cookie, 64);
            world.free_old();
        });
        program
    };
    Explorer::new().explore(&stays_on(Twin::Sound)).expect_sound();
    for twin in [Twin::NoHeavyBarrier, Twin::FenceForMembarrier] {
        let report = Explorer::new().explore(&stays_on(twin));
        let failure = report.expect_failure();
        println!("{twin:?}: {} ({} moves)", failure.cause, failure.schedule.moves().len());
        assert!(matches!(failure.cause, Cause::UseAfterFree { .. }), "{}", failure.cause);
    }
}
