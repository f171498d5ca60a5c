//! Our machine, right as it ships and wrong in each of its twins.
#![allow(clippy::print_stdout, reason = "the table of twins is printed")]

use crate::world::World;
use crate::{Form, Twin};
use gracepoint_model::{Explorer, Program};
use std::io::Write as _;

/// One reader with two sections, and an updater that drives.
fn one_reader(twin: Twin) -> Program {
    reader_and_updater("one reader", twin, Form::Membarrier)
}

/// The same where both sides fence.
fn one_fencing_reader(twin: Twin) -> Program {
    reader_and_updater("one fencing reader", twin, Form::Fence)
}

fn reader_and_updater(name: &str, twin: Twin, form: Form) -> Program {
    let (mut program, world) = World::new(name, twin, form, 1);
    world.thread(&mut program, "reader", |world| {
        world.section(0);
        world.section(0);
    });
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

/// Two readers: a section of one must not make up for one of the other.
fn two_readers(twin: Twin) -> Program {
    let (mut program, world) = World::new("two readers", twin, Form::Membarrier, 2);
    world.thread(&mut program, "reader 0", |world| world.section(0));
    world.thread(&mut program, "reader 1", |world| world.section(1));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

/// A grace period that had to flip, then a removal: the reader may have loaded the rank
/// before the flip and enter after it.
fn straggler(twin: Twin) -> Program {
    let (mut program, world) = World::new("straggler", twin, Form::Membarrier, 2);
    world.thread(&mut program, "reader", |world| world.section(0));
    world.thread(&mut program, "updater", |world| {
        let own = world.enter(1);
        let first = world.start_poll();
        world.poll(64);
        crate::counters::leave(own);
        world.finish(first, 64);
        if world.twin == Twin::NoFirstScan || world.twin == Twin::NoSecondScan {
            let inactive = 1 - world.grace.rank.get() as u64;
            crate::door::access(|cx| cx.store(world.inactive_at_start, inactive));
        }
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

/// A removal while somebody else drives a grace period that began before it.
fn late_removal(twin: Twin) -> Program {
    let (mut program, world) = World::new("late removal", twin, Form::Membarrier, 1);
    world.thread(&mut program, "reader", |world| world.section(0));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.wait(cookie);
        world.free_old();
    });
    world.server(&mut program, "driver", |world| {
        let first = world.start_poll();
        world.finish(first, 64);
        world.wait_for_request(first + 4);
        world.finish(first + 4, 64);
    });
    program
}

/// Two who wait, and both drive.
fn two_drivers(twin: Twin) -> Program {
    let (mut program, world) = World::new("two drivers", twin, Form::Membarrier, 1);
    world.thread(&mut program, "reader", |world| world.section(0));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    world.thread(&mut program, "driver", |world| {
        let cookie = world.start_poll();
        world.finish(cookie, 128);
    });
    program
}

/// One who waits, and one who comes by and does a single step.
fn passer_by(twin: Twin) -> Program {
    let (mut program, world) = World::new("passer-by", twin, Form::Membarrier, 1);
    world.thread(&mut program, "passer-by", |world| {
        world.start_poll();
        world.poll(128);
    });
    world.thread(&mut program, "reader", |world| world.section(0));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

/// A driver that may be stopped anywhere in its step, and one who waits and steps beside it.
fn beside_the_driver(twin: Twin) -> Program {
    let (mut program, world) = World::new("beside the driver", twin, Form::Membarrier, 1);
    world.server(&mut program, "driver", |world| {
        world.start_poll();
        world.poll(128);
    });
    world.thread(&mut program, "reader", |world| world.section(0));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish_beside(cookie);
        world.free_old();
    });
    program
}

/// A driver whose grace period ends without it, so that its step comes to its end in the next one.
fn late_driver(twin: Twin) -> Program {
    let (mut program, world) = World::new("late driver", twin, Form::Membarrier, 1);
    let first = 4;
    world.server(&mut program, "driver", move |world| {
        world.grace.request(first);
        world.poll(128);
    });
    world.thread(&mut program, "reader", move |world| {
        world.wait(first);
        world.section(0);
    });
    world.thread(&mut program, "updater", move |world| {
        world.grace.request(first);
        world.finish_beside(first);
        world.remove();
        let cookie = world.start_poll();
        world.finish_beside(cookie);
        world.free_old();
    });
    program
}

/// Two threads without slots of their own.
fn shared_slot(twin: Twin) -> Program {
    let (mut program, world) = World::new("shared slot", twin, Form::Membarrier, 1);
    world.thread(&mut program, "reader 0", |world| world.section_on_shared(0));
    world.thread(&mut program, "reader 1", |world| world.section_on_shared(0));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

/// An owned guard, which is entered on one thread and left on another.
fn owned_guard(twin: Twin) -> Program {
    handed_over("owned guard", twin, Form::Membarrier)
}

/// The same where both sides fence.
fn fencing_owned_guard(twin: Twin) -> Program {
    handed_over("fencing owned guard", twin, Form::Fence)
}

fn handed_over(name: &str, twin: Twin, form: Form) -> Program {
    let (mut program, world) = World::new(name, twin, form, 1);
    world.thread(&mut program, "first", |world| world.enter_owned_and_hand_over(0));
    world.thread(&mut program, "second", |world| world.take_over_and_leave(0));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

/// A thread whose first section it is, while a scan goes over the slots.
fn newcomer(twin: Twin) -> Program {
    let (mut program, world) = World::with_newcomers("newcomer", twin, Form::Membarrier, 2, 1);
    world.thread(&mut program, "newcomer", |world| world.first_section(1));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

/// A reader whose increments may be interrupted by a handler that reads, too.
fn interrupted(twin: Twin) -> Program {
    let (mut program, world) = World::new("interrupted", twin, Form::Membarrier, 1);
    world.thread(&mut program, "reader", |world| world.interrupted_section(0));
    world.thread(&mut program, "updater", |world| {
        world.remove();
        let cookie = world.start_poll();
        world.finish(cookie, 64);
        world.free_old();
    });
    program
}

type Make = fn(Twin) -> Program;

/// Each twin, and a program in which it is caught.
const TWINS: &[(Twin, Make)] = &[
    (Twin::NoHeavyBarrier, one_reader),
    (Twin::FenceForMembarrier, one_reader),
    (Twin::BarrierLast, one_reader),
    (Twin::LocksFirst, two_readers),
    (Twin::NoFirstScan, straggler),
    (Twin::NoSecondScan, one_reader),
    (Twin::OldConfirmations, one_reader),
    (Twin::LateBegin, late_removal),
    (Twin::EarlyCookie, late_removal),
    (Twin::NoSnapshotFence, late_removal),
    (Twin::NoFenceInEnter, one_reader),
    (Twin::NoFenceInLeave, one_reader),
    (Twin::SplitIncrement, interrupted),
    (Twin::SharedSlotNotAtomic, shared_slot),
    (Twin::NoFenceInLeave, owned_guard),
    (Twin::LateHighWater, newcomer),
    (Twin::LateConfirmation, late_driver),
    (Twin::NoReaderFence, one_fencing_reader),
];

#[test]
fn every_twin_is_caught() {
    let mut table = format!("{:<22} {:<20} {:>6} moves  what happens\n", "twin", "program", "");
    let mut missed = Vec::new();
    for (twin, make) in TWINS {
        // Few preemptions are enough to go wrong.
        let report = Explorer::new().preemptions(3).explore(&make(*twin));
        let name = report.program.split(',').next().unwrap_or_default().to_owned();
        match &report.failure {
            Some(failure) => {
                let length = failure.schedule.moves().len();
                let twin = format!("{twin:?}");
                let cause = &failure.cause;
                table += &format!("{twin:<22} {name:<20} {length:>6} moves  {cause}\n");
            }
            None => missed.push(format!("{twin:?}: nothing in {} states of {name}", report.states)),
        }
    }
    // Past the test's capture, so that it is there when all is well.
    std::io::stdout().write_all(table.as_bytes()).expect("a place to write to");
    assert!(missed.is_empty(), "{missed:#?}");
}

macro_rules! sound {
    ($($test:ident $program:ident),*) => {$(
        #[test]
        fn $test() {
            let report = Explorer::new().explore(&$program(Twin::Sound));
            report.expect_sound();
            println!("{}: {} states, all schedules", report.program, report.states);
        }
    )*};
}

sound!(
    sound_one_reader one_reader,
    sound_one_fencing_reader one_fencing_reader,
    sound_two_readers two_readers,
    sound_straggler straggler,
    sound_late_removal late_removal,
    sound_two_drivers two_drivers,
    sound_passer_by passer_by,

    sound_shared_slot shared_slot,
    sound_owned_guard owned_guard,
    sound_fencing_owned_guard fencing_owned_guard,
    sound_newcomer newcomer,
    sound_interrupted interrupted
);

macro_rules! sound_and_large {
    ($($test:ident $program:ident),*) => {$(
        /// A million states and more, all of them sound, with `GRACEPOINT_MODEL=all`.
        #[test]
        fn $test() {
            let report = crate::bounded(3).explore(&$program(Twin::Sound));
            report.expect_sound();
            println!("{}: {} states", report.program, report.states);
        }
    )*};
}

sound_and_large!(
    sound_beside_the_driver beside_the_driver,
    sound_late_driver late_driver
);

/// The fast path is an argument in `src/grace.rs`; here it is taken, in all schedules in which
/// it can be, and nothing goes wrong.
#[test]
fn one_heavy_barrier_can_end_a_grace_period_and_few_always_do() {
    let report = Explorer::new().explore(&one_reader(Twin::Sound));
    report.expect_sound();
    let barriers = report.outcomes().iter().filter_map(|results| results[1]);
    let (fewest, most) = barriers.fold((u64::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
    println!("heavy barriers per grace period: {fewest} to {most}");
    assert_eq!(fewest, 1);
    assert!(most <= 4, "{most} heavy barriers in one grace period");
}
