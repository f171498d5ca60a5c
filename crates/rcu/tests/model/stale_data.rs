//! The scenario *stale-data*: the kernel's tracepoints keep what to call (a static call) and what to call
//! it with (the first entry of `tp->funcs`) in two words, changed apart.
//!
//! A CPU that is delayed between the two reads calls the new function with the old data, after 1→0→1 and
//! after N→2→1. The kernel's fix takes a cookie where such a transition begins and waits for it,
//! if it is not done by then, where it ends. Ours has one word, and waits for nothing.
#![allow(clippy::print_stdout, reason = "what was found is printed")]

use crate::door::{access, run};
use crate::world::World;
use crate::{Form, Twin, bounded, counters};
use gracepoint_model::{Cause, Explorer, Program, Word};
use std::rc::Rc;

/// `__traceiter_*`, which walks the whole array and so pairs function and data itself.
const ITERATOR: u64 = 99;

/// Who keeps function and data together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fix {
    Nobody,
    /// `synchronize_rcu()` at each transition.
    Always,
    /// `tp_rcu_get_state` and `tp_rcu_cond_sync`.
    Cookies,
}

/// A `struct tracepoint`. An array is a number whose digits are its probes, first one first; a
/// probe's function and its data have the same digit.
#[derive(Clone, Copy)]
struct Tracepoint {
    funcs: Word,
    static_call: Word,
}

fn first_probe(funcs: u64) -> u64 {
    if funcs >= 10 { first_probe(funcs / 10) } else { funcs }
}

impl Tracepoint {
    /// `__DO_TRACE_CALL`, in a read section.
    fn do_trace_call(self, world: &World) {
        let pair = world.enter(0);
        let it_func_ptr = access(|cx| cx.load(self.funcs));
        if it_func_ptr != 0 {
            let data = first_probe(it_func_ptr);
            // Delayed here on one CPU (e.g. its virtual CPU is preempted by the host).
            let function = access(|cx| cx.load(self.static_call));
            let agree = function == ITERATOR || function == data;
            run()
                .cx
                .check(agree, "a function is called with its own data")
                .unwrap_or_else(|stop| stop.unwind());
        }
        counters::leave(pair);
    }

    /// `tracepoint_update_call`.
    fn update_call(self, function: u64) {
        access(|cx| cx.store(self.static_call, function));
    }

    /// `rcu_assign_pointer(tp->funcs, …)`.
    fn assign(self, funcs: u64) {
        access(|cx| cx.store(self.funcs, funcs));
    }
}

/// `tp_rcu_get_state`.
fn tp_rcu_get_state(world: &World, fix: Fix) -> u64 {
    match fix {
        Fix::Nobody => 0,
        Fix::Always => {
            let cookie = world.start_poll();
            world.finish(cookie, 64);
            cookie
        }
        Fix::Cookies => world.grace.snapshot(),
    }
}

/// `tp_rcu_cond_sync`: as `cond_synchronize_rcu`, it waits only if it must.
fn tp_rcu_cond_sync(world: &World, fix: Fix, cookie: u64) {
    if fix == Fix::Cookies && !world.grace.is_done(cookie) {
        world.grace.request(cookie);
        world.finish(cookie, 64);
    }
}

fn tracepoint(name: &str, fix: Fix, funcs: u64, call: u64) -> (Program, Rc<World>, Tracepoint) {
    let program = Program::new(format!("{name}, {fix:?}"));
    let (mut program, world) = World::add(program, Twin::Sound, Form::Membarrier, 1, 0);
    let tp = Tracepoint {
        funcs: program.word("tp->funcs", funcs),
        static_call: program.word("static_call", call),
    };
    world.thread(&mut program, "hit", move |world| {
        tp.do_trace_call(world);
        tp.do_trace_call(world);
    });
    (program, world, tp)
}

/// 1→0→1: probe 1 is removed, probe 2 is added.
fn one_zero_one(fix: Fix) -> Program {
    let (mut program, world, tp) = tracepoint("1->0->1", fix, 1, 1);
    world.thread(&mut program, "updater", move |world| {
        // tracepoint_remove_func, TP_FUNC_0
        tp.update_call(ITERATOR);
        tp.assign(0);
        let cookie = tp_rcu_get_state(world, fix);
        // tracepoint_add_func, TP_FUNC_1
        tp_rcu_cond_sync(world, fix, cookie);
        tp.update_call(2);
        tp.assign(2);
    });
    program
}

/// 3→2→1: probe 1 is removed, which changes the first data; then probe 3, and the iterator gives way to probe 2.
fn n_two_one(fix: Fix) -> Program {
    let (mut program, world, tp) = tracepoint("N->2->1", fix, 123, ITERATOR);
    world.thread(&mut program, "updater", move |world| {
        // tracepoint_remove_func, TP_FUNC_N
        tp.assign(23);
        let cookie = tp_rcu_get_state(world, fix);
        // tracepoint_remove_func, TP_FUNC_1
        tp.assign(2);
        tp_rcu_cond_sync(world, fix, cookie);
        tp.update_call(2);
    });
    program
}

/// Ours: function and data are in one immutable array behind one pointer; what was removed is freed later.
fn ours() -> Program {
    let (mut program, world) = World::new("one pointer", Twin::Sound, Form::Membarrier, 1);
    world.thread(&mut program, "hit", |world| {
        // `section` loads the pointer once and uses what is behind it: nothing else could disagree.
        world.section(0);
        world.section(0);
    });
    world.thread(&mut program, "updater", |world| {
        world.remove();
        world.start_poll();
    });
    world.server(&mut program, "agent", |world| {
        world.wait_for_request(4);
        world.finish(4, 64);
        world.free_old();
    });
    let old = world.old;
    program.at_end(move |end| {
        if !end.is_freed(old) {
            return Err("the old array was not freed".to_owned());
        }
        // The second thread's result is how many heavy barriers it took part in.
        if end.results()[1] == Some(0) { Ok(()) } else { Err("the updater waited".to_owned()) }
    });
    program
}

#[test]
fn stale_data() {
    for (name, make) in [("1->0->1", one_zero_one as fn(Fix) -> Program), ("N->2->1", n_two_one)] {
        let report = Explorer::new().explore(&make(Fix::Nobody));
        let failure = report.expect_failure();
        println!("{name}: {} ({} moves)", failure.cause, failure.schedule.moves().len());
        assert!(matches!(failure.cause, Cause::Check { .. }), "{failure}");
        if name == "1->0->1" {
            crate::schedule::is_told("stale_data", failure);
        }
        for fix in [Fix::Always, Fix::Cookies] {
            let report = Explorer::new().explore(&make(fix));
            report.expect_sound();
            let barriers = report.outcomes().iter().filter_map(|results| results[1]).min();
            println!(
                "{name}, {fix:?}: {} states, at least {barriers:?} heavy barriers",
                report.states
            );
            assert_ne!(barriers, Some(0), "nobody else drives here, so it has to wait itself");
        }
    }
}

#[test]
fn stale_data_cookies_wait_for_nothing_that_has_passed() {
    let (mut program, world, tp) = tracepoint("1->0->1 with a driver", Fix::Cookies, 1, 1);
    world.thread(&mut program, "updater", move |world| {
        tp.update_call(ITERATOR);
        tp.assign(0);
        let cookie = tp_rcu_get_state(world, Fix::Cookies);
        world.grace.request(cookie);
        tp_rcu_cond_sync(world, Fix::Cookies, cookie);
        tp.update_call(2);
        tp.assign(2);
    });
    world.server(&mut program, "somebody", |world| {
        world.wait_for_request(4);
        world.finish(4, 128);
    });
    let report = bounded(1).explore(&program);
    report.expect_sound();
    let mut barriers = report.outcomes().iter().filter_map(|results| results[1]);
    assert!(barriers.any(|barriers| barriers == 0), "somebody else's grace period was not used");
}

#[test]
fn stale_data_is_none_with_ours() {
    let report = Explorer::new().explore(&ours());
    report.expect_sound();
    println!("{}: {} states", report.program, report.states);
}
