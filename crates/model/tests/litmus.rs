//! Litmus tests: what the machine allows and what it forbids, both ways.
//!
//! The names are those of the literature. On x86-TSO only store buffering (SB) and its relatives show
//! anything; the others must not.

use gracepoint_model::{Context, Explorer, Program, Report, Step, Word};

/// What stands between the two accesses of a thread of SB.
#[derive(Clone, Copy)]
enum Between {
    /// A compiler fence: no instruction.
    Nothing,
    Fence,
    Membarrier,
    /// A locked instruction on some other word.
    Locked,
}

fn between(cx: &Context, what: Between, other: Word) -> Step {
    match what {
        Between::Nothing => Ok(()),
        Between::Fence => cx.fence(),
        Between::Membarrier => cx.membarrier(),
        Between::Locked => cx.fetch_add(other, 1).map(drop),
    }
}

fn store_buffering(first: Between, second: Between) -> Report {
    let mut program = Program::new("SB");
    let (x, y, z) = (program.word("x", 0), program.word("y", 0), program.word("z", 0));
    program.thread("P0", move |cx| {
        cx.store(x, 1)?;
        between(cx, first, z)?;
        cx.load(y)
    });
    program.thread("P1", move |cx| {
        cx.store(y, 1)?;
        between(cx, second, z)?;
        cx.load(x)
    });
    let report = Explorer::new().explore(&program);
    report.expect_sound();
    // Whatever is between: these are there in every machine.
    assert!(report.reached(&[0, 1]) && report.reached(&[1, 0]) && report.reached(&[1, 1]));
    report
}

#[test]
fn sb_is_allowed_unless_both_sides_have_a_barrier() {
    use Between::{Fence, Locked, Nothing};
    for (first, second) in [(Nothing, Nothing), (Fence, Nothing), (Nothing, Locked)] {
        assert!(store_buffering(first, second).reached(&[0, 0]));
    }
    for (first, second) in [(Fence, Fence), (Locked, Fence), (Locked, Locked)] {
        assert!(!store_buffering(first, second).reached(&[0, 0]));
    }
}

#[test]
fn sb_is_forbidden_by_one_membarrier() {
    use Between::{Fence, Membarrier, Nothing};
    assert!(!store_buffering(Nothing, Membarrier).reached(&[0, 0]));
    assert!(!store_buffering(Membarrier, Nothing).reached(&[0, 0]));
    assert!(!store_buffering(Membarrier, Membarrier).reached(&[0, 0]));
    // A fence in its place is not enough: the reader has none.
    assert!(store_buffering(Nothing, Fence).reached(&[0, 0]));
}

/// What a missing compiler fence comes to: the reader's load is done before its store.
#[test]
fn a_membarrier_does_not_help_a_reader_whose_compiler_reorders() {
    let mut program = Program::new("SB, reordered");
    let (x, y) = (program.word("x", 0), program.word("y", 0));
    program.thread("reader", move |cx| {
        let seen = cx.load(y)?;
        cx.store(x, 1)?;
        Ok(seen)
    });
    program.thread("updater", move |cx| {
        cx.store(y, 1)?;
        cx.membarrier()?;
        cx.load(x)
    });
    assert!(Explorer::new().explore(&program).reached(&[0, 0]));
}

/// Threads are not stopped while the others' barriers are awaited: each has its own moment.
#[test]
fn a_membarrier_is_a_fence_at_some_moment_of_each_thread_and_no_lock() {
    let mut program = Program::new("stores around a membarrier");
    let (x, y) = (program.word("x", 0), program.word("y", 0));
    program.thread("reader", move |cx| {
        cx.store(x, 1)?;
        cx.store(y, 1)
    });
    program.thread("updater", move |cx| {
        cx.membarrier()?;
        Ok(cx.load(x)? * 10 + cx.load(y)?)
    });
    let report = Explorer::new().explore(&program);
    for seen in [0, 10, 11, 1] {
        // 1: x was read before its store came, y after; the loads are two accesses.
        assert!(report.reached(&[0, seen]), "{seen}");
    }
}

/// Message passing: stores of a thread get to memory in order.
#[test]
fn mp_is_forbidden() {
    let mut program = Program::new("MP");
    let (data, flag) = (program.word("data", 0), program.word("flag", 0));
    program.thread("P0", move |cx| {
        cx.store(data, 1)?;
        cx.store(flag, 1)
    });
    program.thread("P1", move |cx| Ok(cx.load(flag)? * 10 + cx.load(data)?));
    let report = Explorer::new().explore(&program);
    report.expect_sound();
    assert!(!report.reached(&[0, 10]));
    for seen in [0, 1, 11] {
        assert!(report.reached(&[0, seen]));
    }
}

/// The same with its loads the other way round: not a law of the machine but of the program.
#[test]
fn mp_with_its_loads_reordered_is_allowed() {
    let mut program = Program::new("MP, reordered");
    let (data, flag) = (program.word("data", 0), program.word("flag", 0));
    program.thread("P0", move |cx| {
        cx.store(data, 1)?;
        cx.store(flag, 1)
    });
    program.thread("P1", move |cx| {
        let data = cx.load(data)?;
        Ok(cx.load(flag)? * 10 + data)
    });
    assert!(Explorer::new().explore(&program).reached(&[0, 10]));
}

/// Load buffering: a store does not overtake a load before it.
#[test]
fn lb_is_forbidden() {
    let mut program = Program::new("LB");
    let (x, y) = (program.word("x", 0), program.word("y", 0));
    program.thread("P0", move |cx| {
        let seen = cx.load(x)?;
        cx.store(y, 1)?;
        Ok(seen)
    });
    program.thread("P1", move |cx| {
        let seen = cx.load(y)?;
        cx.store(x, 1)?;
        Ok(seen)
    });
    let report = Explorer::new().explore(&program);
    report.expect_sound();
    assert!(!report.reached(&[1, 1]));
    assert!(report.reached(&[0, 0]) && report.reached(&[0, 1]) && report.reached(&[1, 0]));
}

/// Independent reads of independent writes: all threads see stores in one order.
#[test]
fn iriw_is_forbidden() {
    let mut program = Program::new("IRIW");
    let (x, y) = (program.word("x", 0), program.word("y", 0));
    program.thread("P0", move |cx| cx.store(x, 1));
    program.thread("P1", move |cx| cx.store(y, 1));
    program.thread("P2", move |cx| Ok(cx.load(x)? * 10 + cx.load(y)?));
    program.thread("P3", move |cx| Ok(cx.load(y)? * 10 + cx.load(x)?));
    let report = Explorer::new().explore(&program);
    report.expect_sound();
    assert!(!report.reached(&[0, 0, 10, 10]));
    assert!(report.reached(&[0, 0, 10, 0]) && report.reached(&[0, 0, 11, 1]));
}

/// A thread sees its own stores before anybody else does (SB with forwarding, "n6").
#[test]
fn a_thread_reads_its_own_buffer_first() {
    let mut program = Program::new("n6");
    let (x, y) = (program.word("x", 0), program.word("y", 0));
    program.thread("P0", move |cx| {
        cx.store(x, 1)?;
        let own = cx.load(x)?;
        Ok(own * 10 + cx.load(y)?)
    });
    program.thread("P1", move |cx| {
        cx.store(y, 2)?;
        cx.store(x, 2)
    });
    program.at_end(move |end| {
        let odd = end.results()[0] == Some(10) && end.value(x) == 1;
        if odd { Err("x == 1, seen 1 and 0".to_owned()) } else { Ok(()) }
    });
    let failure = Explorer::new().explore(&program);
    assert!(failure.expect_failure().to_string().contains("x == 1, seen 1 and 0"));
}

/// Increments without a lock prefix lose each other; with one they do not.
#[test]
fn plain_increments_of_two_threads_lose_and_locked_ones_do_not() {
    for locked in [false, true] {
        let mut program = Program::new("two increments");
        let x = program.word("x", 0);
        for name in ["P0", "P1"] {
            program.thread(name, move |cx| {
                if locked { cx.fetch_add(x, 1).map(drop) } else { cx.increment(x) }
            });
        }
        program.at_end(
            move |end| {
                if end.value(x) == 2 { Ok(()) } else { Err("one was lost".to_owned()) }
            },
        );
        assert_eq!(Explorer::new().explore(&program).failure.is_none(), locked);
    }
}
