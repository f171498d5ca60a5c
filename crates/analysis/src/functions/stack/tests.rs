//! Stacks against a machine that knows the truth, and against rules that are spelled out the slow way.

use super::*;
use std::collections::BTreeMap;

/// Xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Runs `round` with so many seeds, or with the one in `GRACEPOINT_SEED`; a failure names it.
fn rounds(most: u64, round: impl Fn(&mut Dice) + std::panic::RefUnwindSafe) {
    let chosen = std::env::var("GRACEPOINT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = chosen.map_or(1..=most, |seed: u64| seed..=seed);
    for seed in seeds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(&mut dice)));
        assert!(told.is_ok(), "GRACEPOINT_SEED={seed} fails");
    }
}

fn point(function: u32, frame: u32, ns: u64) -> Point {
    Point { function, frame, guard: false, ns }
}

/// A call as the machine knows it: number, function, frame, number of the caller.
type True = (u64, u32, u32, u64);

/// A thread with several stacks that calls, returns, panics, calls in place of itself and changes stacks.
struct Machine {
    stacks: Vec<(u32, Vec<True>)>,
    on: usize,
    calls: u64,
    now: u64,
    real: Stacks,
    /// By number: its caller and whether it returned; of the model, of those that came out.
    truth: BTreeMap<u64, (u64, bool)>,
    told: BTreeMap<u64, (u64, bool)>,
}

impl Machine {
    fn new(stacks: usize) -> Machine {
        let bottom = |n: usize| (0xffff_f000u32).wrapping_add(n as u32 * 4 * FAR);
        Machine {
            stacks: (0..stacks).map(|n| (bottom(n), Vec::new())).collect(),
            on: 0,
            calls: 0,
            now: 0,
            real: Stacks::default(),
            truth: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn told_left(&mut self, left: &[Call]) {
        for call in left {
            assert_eq!(self.told.insert(call.id, (call.parent, false)), None, "told twice");
        }
    }

    fn call(&mut self, dice: &mut Dice) {
        let (bottom, calls) = &mut self.stacks[self.on];
        let top = calls.last().map_or(*bottom, |call| call.2);
        let frame = top.wrapping_sub(2 + dice.roll(600) as u32);
        let caller = calls.last().map_or(0, |call| call.0);
        self.calls += 1;
        let function = dice.roll(5) as u32;
        calls.push((self.calls, function, frame, caller));
        self.enter(function, frame);
    }

    fn enter(&mut self, function: u32, frame: u32) {
        self.now += 1;
        let mut left = Vec::new();
        let call = self.real.enter(point(function, frame, self.now), &mut left);
        assert_eq!(call.id, self.calls);
        self.told_left(&left);
    }

    fn return_(&mut self) {
        let Some((id, function, frame, caller)) = self.stacks[self.on].1.pop() else { return };
        self.truth.insert(id, (caller, true));
        self.exit(id, function, frame);
    }

    fn exit(&mut self, id: u64, function: u32, frame: u32) {
        self.now += 1;
        let mut left = Vec::new();
        let call = self.real.exit(point(function, frame, self.now), &mut left);
        self.told_left(&left);
        let call = call.expect("its entry was seen");
        assert_eq!(call.id, id, "another call's exit");
        assert_eq!(self.told.insert(id, (call.parent, true)), None, "told twice");
    }

    /// Ends in a call of another function, which takes its place.
    fn tail_call(&mut self, dice: &mut Dice) {
        let Some(&(.., frame, caller)) = self.stacks[self.on].1.last() else { return };
        self.return_();
        self.calls += 1;
        let function = dice.roll(5) as u32;
        self.stacks[self.on].1.push((self.calls, function, frame, caller));
        self.enter(function, frame);
    }

    /// Unwinds some frames, and goes on in the one that caught it.
    fn panic(&mut self, dice: &mut Dice) {
        let calls = &mut self.stacks[self.on].1;
        let keep = dice.roll(calls.len() as u64 + 1) as usize;
        for (id, .., caller) in calls.drain(keep..) {
            self.truth.insert(id, (caller, false));
        }
    }
}

#[test]
fn what_is_recorded_whole_is_told_as_it_was() {
    rounds(200, |dice| {
        // Callers of the first call on a stack are not compared where there are more stacks than one.
        let stacks = 1 + dice.roll(4) as usize;
        let mut machine = Machine::new(stacks);
        for _ in 0..300 {
            match dice.roll(20) {
                0..8 => machine.call(dice),
                8..15 => machine.return_(),
                15..17 => machine.tail_call(dice),
                17 => machine.panic(dice),
                _ => machine.on = dice.roll(stacks as u64) as usize,
            }
        }
        for on in 0..stacks {
            machine.on = on;
            while !machine.stacks[on].1.is_empty() {
                machine.return_();
            }
        }
        let rest = machine.real.rest();
        machine.told_left(&rest);
        assert_eq!(machine.told.len() as u64, machine.calls);
        for (id, (caller, returned)) in &machine.truth {
            let (parent, ended) = machine.told[id];
            assert_eq!(ended, *returned, "call {id}");
            // Calls that were unwound stay until something proves it, so a parent may be one of them.
            if stacks == 1 && machine.truth.values().all(|(_, returned)| *returned) {
                assert_eq!(parent, *caller, "caller of {id}");
            }
        }
    });
}

/// The rules of the module, on one list, for one stack.
#[derive(Default)]
struct Slow {
    open: Vec<(u64, Point)>,
    last: u64,
}

impl Slow {
    fn over(open: Point, point: Point) -> bool {
        let higher = i64::from(point.frame) - i64::from(open.frame);
        let both = open.guard && point.guard;
        higher == 0 || higher >= if both { i64::from(SLACK) } else { 1 }
    }

    fn leave(&mut self, point: Point) -> Vec<u64> {
        let mut left = Vec::new();
        while self.open.last().is_some_and(|(_, open)| Slow::over(*open, point)) {
            left.extend(self.open.pop().map(|(id, _)| id));
        }
        left
    }

    fn enter(&mut self, point: Point) -> (u64, Vec<u64>) {
        let left = self.leave(point);
        let parent = self.open.last().map_or(0, |(id, _)| *id);
        self.last += 1;
        self.open.push((self.last, point));
        (parent, left)
    }

    fn exit(&mut self, point: Point) -> (Option<u64>, Vec<u64>) {
        let mut hidden = false;
        let at = self.open.iter().rposition(|(_, open)| {
            let found = !hidden && open.frame == point.frame && open.function == point.function;
            hidden |= i64::from(open.frame) - i64::from(point.frame) >= i64::from(SLACK);
            found
        });
        match at {
            Some(at) => {
                let mut gone: Vec<u64> = self.open.drain(at..).map(|(id, _)| id).collect();
                gone.reverse();
                (gone.pop(), gone)
            }
            None => (None, self.leave(point)),
        }
    }
}

#[test]
fn any_records_are_told_by_the_rules() {
    rounds(200, |dice| {
        let (mut fast, mut slow) = (Stacks::default(), Slow::default());
        // Nearer than FAR to each other, so all is one stack.
        let range = [20, 300, 2 * u64::from(SLACK), 20 * u64::from(SLACK)][dice.roll(4) as usize];
        for ns in 0..400 {
            let point = Point {
                function: dice.roll(3) as u32,
                frame: 1_000_000 - dice.roll(range) as u32,
                guard: dice.roll(2) == 0,
                ns,
            };
            let mut left = Vec::new();
            if dice.roll(2) == 0 {
                let call = fast.enter(point, &mut left);
                let (parent, gone) = slow.enter(point);
                assert_eq!(call.parent, parent, "at {ns}");
                assert_eq!(left.iter().map(|call| call.id).collect::<Vec<_>>(), gone, "at {ns}");
                assert_eq!(call.depth as usize + 1, slow.open.len(), "at {ns}");
            } else {
                let call = fast.exit(point, &mut left);
                let (id, gone) = slow.exit(point);
                assert_eq!(call.map(|call| call.id), id, "at {ns}");
                assert_eq!(left.iter().map(|call| call.id).collect::<Vec<_>>(), gone, "at {ns}");
            }
        }
        let rest: Vec<u64> = fast.rest().iter().map(|call| call.id).collect();
        let open: Vec<u64> = slow.open.iter().rev().map(|(id, _)| *id).collect();
        assert_eq!(rest, open);
    });
}

#[test]
fn every_call_comes_out_once_whatever_comes_in() {
    rounds(20, |dice| {
        let mut stacks = Stacks::default();
        let (mut came, mut went) = (0, Vec::new());
        for ns in 0..1000 {
            let frame = (dice.roll(1 << 32)) as u32;
            let point = Point { function: 1, frame, guard: dice.roll(2) == 0, ns };
            let mut left = Vec::new();
            if dice.roll(3) > 0 {
                stacks.enter(point, &mut left);
                came += 1;
            } else {
                went.extend(stacks.exit(point, &mut left));
            }
            went.extend(left);
            assert!(stacks.stacks.len() <= MOST_STACKS);
            assert!(stacks.stacks.iter().all(|stack| !stack.calls.is_empty()));
        }
        went.extend(stacks.rest());
        let mut ids: Vec<u64> = went.iter().map(|call| call.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=came).collect::<Vec<u64>>());
        assert!(stacks.active.is_empty() && stacks.open == 0);
    });
}

#[test]
fn time_inside_is_that_of_the_calls_made() {
    let (mut stacks, mut left) = (Stacks::default(), Vec::new());
    stacks.enter(point(1, 100, 0), &mut left);
    stacks.enter(point(2, 90, 10), &mut left);
    let inner = stacks.enter(point(2, 80, 20), &mut left);
    assert!(inner.recursive && inner.depth == 2);
    assert_eq!(
        stacks.exit(point(2, 80, 25), &mut left).map(|c| (c.inside_ns, c.recursive)),
        Some((0, true))
    );
    assert_eq!(
        stacks.exit(point(2, 90, 40), &mut left).map(|c| (c.inside_ns, c.recursive)),
        Some((5, false))
    );
    assert_eq!(stacks.exit(point(1, 100, 99), &mut left).map(|c| c.inside_ns), Some(30));
    assert_eq!(left, []);
}

#[test]
fn a_signal_on_its_own_stack_disturbs_nothing() {
    for far in [FAR * 2, u32::MAX / 3, u32::MAX - 2 * FAR] {
        let (mut stacks, mut left) = (Stacks::default(), Vec::new());
        let here = 7_000_000;
        let there = u32::wrapping_add(here, far);
        stacks.enter(point(1, here, 0), &mut left);
        let handler = stacks.enter(point(2, there, 1), &mut left);
        assert_eq!((handler.depth, handler.parent), (1, 1));
        stacks.enter(point(3, there - 5, 2), &mut left);
        stacks.exit(point(3, there - 5, 3), &mut left).expect("it is inside");
        stacks.exit(point(2, there, 4), &mut left).expect("it is there");
        assert_eq!(stacks.enter(point(4, here - 9, 5), &mut left).parent, 1);
        assert!(stacks.exit(point(1, here, 6), &mut left).is_some());
        assert_eq!(left.len(), 1, "only 4 has no exit");
    }
}

#[test]
fn coroutines_keep_their_calls_while_others_run() {
    let (mut stacks, mut left) = (Stacks::default(), Vec::new());
    let (main, one, two) = (9 * FAR, 6 * FAR, 3 * FAR);
    stacks.enter(point(1, main, 0), &mut left); // resumes one
    stacks.enter(point(11, one, 1), &mut left); // which yields
    stacks.exit(point(1, main, 2), &mut left).expect("resume returns");
    stacks.enter(point(1, main, 3), &mut left); // resumes two
    stacks.enter(point(22, two, 4), &mut left);
    stacks.exit(point(1, main, 5), &mut left).expect("resume returns");
    let inner = stacks.enter(point(12, one - 4, 6), &mut left);
    assert_eq!((inner.parent, inner.depth), (2, 2), "inside of what one was in");
    assert!(stacks.exit(point(12, one - 4, 7), &mut left).is_some());
    assert!(stacks.exit(point(11, one, 8), &mut left).is_some());
    assert!(stacks.exit(point(22, two, 9), &mut left).is_some());
    assert_eq!((left.len(), stacks.rest().len()), (0, 0));
}

#[test]
fn deep_recursion_takes_bounded_memory() {
    let (mut stacks, mut left) = (Stacks::default(), Vec::new());
    let most = MOST_OPEN as u32;
    for n in 0..most + 100 {
        stacks.enter(point(1, u32::MAX - 2 * n, n.into()), &mut left);
    }
    assert_eq!((stacks.open, left.len()), (MOST_OPEN, 100));
    assert_eq!(left[0].id, 1, "the outermost goes first");
    for n in (100..most + 100).rev() {
        assert!(stacks.exit(point(1, u32::MAX - 2 * n, 0), &mut left).is_some(), "{n}");
    }
    assert!(stacks.exit(point(1, u32::MAX - 2 * 99, 0), &mut left).is_none());
}

#[test]
fn guards_in_one_stack_frame_lie_in_any_order() {
    let guard = |function, frame, ns| Point { function, frame, guard: true, ns };
    let (mut stacks, mut left) = (Stacks::default(), Vec::new());
    stacks.enter(guard(1, 1000, 0), &mut left);
    assert_eq!(stacks.enter(guard(2, 1004, 1), &mut left).parent, 1);
    assert!(stacks.exit(guard(2, 1004, 2), &mut left).is_some());
    assert!(stacks.exit(guard(1, 1000, 3), &mut left).is_some());
    assert_eq!(left, []);
    // The one in the very place of another is proof.
    stacks.enter(guard(1, 1000, 4), &mut left);
    assert_eq!(stacks.enter(guard(2, 1000, 5), &mut left).parent, 0);
    assert_eq!(left.len(), 1);
}
