//! What is found, and that a schedule shows it again.

use gracepoint_model::{Cause, Explorer, Object, Program, Schedule, Until};

fn no_barrier(heavy: bool) -> Program {
    let mut program = Program::new("free while reading");
    let reading = program.word("reading", 0);
    let old = program.object("old");
    let published = program.word("published", old.address());
    program.thread("reader", move |cx| {
        cx.store(reading, 1)?;
        if let Some(object) = Object::at(cx.load(published)?) {
            cx.call("probe", |cx| cx.touch(object))?;
        }
        cx.store(reading, 0)
    });
    program.thread("updater", move |cx| {
        cx.store(published, 0)?;
        if heavy {
            cx.membarrier()?;
        }
        cx.wait(reading, Until::Is(0))?;
        cx.free(old)
    });
    program
}

#[test]
fn a_use_after_free_is_found_and_shown_again() {
    Explorer::new().explore(&no_barrier(true)).expect_sound();
    let program = no_barrier(false);
    let report = Explorer::new().explore(&program);
    let failure = report.expect_failure();
    assert!(!report.complete);
    assert_eq!(
        failure.cause,
        Cause::UseAfterFree { thread: "reader".to_owned(), object: "old".to_owned() }
    );
    let text = failure.to_string();
    assert!(text.contains("probe: use old"), "{text}");
    let schedule: Schedule = failure.schedule.to_string().parse().expect("it parses");
    assert_eq!(schedule, failure.schedule);
    let again = Explorer::new().replay(&program, &schedule).expect_err("it fails again");
    assert_eq!((again.cause, again.story), (failure.cause.clone(), failure.story.clone()));
}

#[test]
fn a_schedule_of_a_sound_execution_tells_its_story() {
    let story = Explorer::new()
        .replay(&no_barrier(true), &"0 0 0 0 ~0 ~0 1 1 1 1".parse().expect("it parses"));
    let story = story.expect("nothing is wrong");
    assert!(story[0].contains("store reading = 1"), "{story:?}");
    assert!(story.last().is_some_and(|last| last.contains("free old")), "{story:?}");
}

#[test]
fn a_text_that_is_no_schedule_is_refused() {
    for text in ["x", "~", "1=", "1 ~b", "-1"] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}

#[test]
fn locks_in_two_orders_hang_and_the_report_says_who_waits_for_what() {
    let mut program = Program::new("two locks");
    let (a, b) = (program.word("a", 0), program.word("b", 0));
    for (name, first, second) in [("P0", a, b), ("P1", b, a)] {
        program.thread(name, move |cx| {
            for lock in [first, second] {
                cx.call("lock", |cx| {
                    while cx.compare_exchange(lock, 0, 1)? != 0 {
                        cx.wait(lock, Until::Is(0))?;
                    }
                    Ok(())
                })?;
            }
            cx.store(second, 0)?;
            cx.store(first, 0)
        });
    }
    let report = Explorer::new().explore(&program);
    let Cause::Hang(blocked) = &report.expect_failure().cause else { panic!("{report:?}") };
    assert_eq!(blocked.len(), 2);
    assert_eq!(blocked[0].to_string(), "P0: lock > wait until b == 0");
}

#[test]
fn stalled_threads_and_servers_do_not_hang_a_program_but_who_waits_for_them_does() {
    let program = |waits: bool| {
        let mut program = Program::new("stalled");
        let done = program.word("done", 0);
        program.thread("stalled", move |cx| {
            cx.stall()?;
            cx.store(done, 1)
        });
        program.server("server", move |cx| cx.wait(done, Until::Is(2)).map(drop));
        program.thread(
            "other",
            move |cx| {
                if waits { cx.wait_for_change(&[(done, 0)]) } else { Ok(()) }
            },
        );
        program
    };
    Explorer::new().explore(&program(false)).expect_sound();
    let report = Explorer::new().explore(&program(true));
    assert!(report.expect_failure().to_string().contains("other: wait until done != 0"));
}

#[test]
fn threads_that_keep_each_other_busy_do_not_come_to_an_end() {
    let mut program = Program::new("ping-pong");
    let ball = program.word("ball", 0);
    for mine in [0, 1] {
        program.thread(format!("P{mine}"), move |cx| {
            loop {
                cx.wait(ball, Until::Is(mine))?;
                cx.store(ball, 1 - mine)?;
                cx.fence()?;
            }
            #[allow(unreachable_code, reason = "it says what the loop would return")]
            Ok(())
        });
    }
    let report = Explorer::new().max_moves(100).explore(&program);
    assert_eq!(report.expect_failure().cause, Cause::Endless);
}

#[test]
fn choices_are_all_made_and_checks_fail() {
    let program = |limit: u64| {
        let mut program = Program::new("choices");
        program.thread("P0", move |cx| {
            let sum = cx.choose(3)? + cx.choose(2)?;
            cx.check(sum < limit, "the sum is small")?;
            Ok(sum)
        });
        program
    };
    let report = Explorer::new().explore(&program(4));
    report.expect_sound();
    assert_eq!(report.outcomes().len(), 4);
    let report = Explorer::new().explore(&program(3));
    let failure = report.expect_failure();
    assert_eq!(failure.schedule.to_string(), "0=2 0=1");
    assert!(failure.to_string().contains("does not hold: the sum is small"));
}

#[test]
fn freeing_twice_is_found() {
    let mut program = Program::new("twice");
    let object = program.object("probe");
    for name in ["P0", "P1"] {
        program.thread(name, move |cx| cx.free(object));
    }
    let report = Explorer::new().explore(&program);
    assert!(matches!(report.expect_failure().cause, Cause::FreedTwice { .. }));
}

#[test]
fn code_that_cannot_return_a_stop_unwinds() {
    let mut program = Program::new("unwinding");
    let x = program.word("x", 0);
    for name in ["P0", "P1"] {
        program.thread(name, move |cx| {
            let old: u64 = cx.fetch_add(x, 1).unwrap_or_else(|stop| stop.unwind());
            Ok(old)
        });
    }
    let report = Explorer::new().explore(&program);
    report.expect_sound();
    assert!(report.reached(&[0, 1]) && report.reached(&[1, 0]) && !report.reached(&[0, 0]));
}

/// The bound leaves out what needs more preemptions, and nothing else.
#[test]
fn a_bound_on_preemptions_is_kept() {
    let program = || {
        let mut program = Program::new("three preemptions");
        let x = program.word("x", 0);
        program.thread("P0", move |cx| {
            let first = cx.load(x)?;
            let second = cx.load(x)?;
            let third = cx.load(x)?;
            cx.check(!(first == 0 && second == 1 && third == 2), "nobody came in between, twice")
        });
        program.thread("P1", move |cx| {
            cx.fetch_add(x, 1)?;
            cx.fetch_add(x, 1).map(drop)
        });
        program
    };
    for bound in 0..=3 {
        let report = Explorer::new().preemptions(bound).explore(&program());
        assert_eq!(report.failure.is_some(), bound == 3, "{bound} preemptions");
    }
}
