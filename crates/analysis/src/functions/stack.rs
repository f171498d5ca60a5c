//! The calls that are under way on a thread, from the entries and exits that it left in the trace.
//!
//! Some records are missing: a panic or `longjmp` leaves functions without an exit, a session begins and ends
//! in the middle of calls, records are lost. What the rest says is told by *frames* (where a call's return address
//! lies, in units of 8 bytes, 32 bits of it). Stacks grow down, so on one stack:
//!
//! 1. A call inside another has the lower frame. Whoever enters or leaves at frame *f* proves that what has a
//!    frame below *f*, and at an entry also what has *f* itself, is over: it was *left*.
//! 2. Frames [`FAR`] from all of a stack's belong to another stack: a signal's, a coroutine's. They prove nothing
//!    about each other. A stack that nobody is on keeps its calls until somebody is on it again.
//! 3. An exit ends the call with its frame and function. Where that is not there, its entry is not in the trace.
//! 4. The frame of a function with the attribute is where its guard lies, and guards of functions that were inlined
//!    into one another lie in one stack frame in any order. Of two of these a frame that is higher by less than
//!    [`SLACK`] proves nothing.
//!
//! Nothing here is more than a guess where stacks lie closer to each other than [`FAR`]; then calls are told to be
//! left that are not. Whatever comes in, every call that goes in comes out once, and memory is bounded.

use std::collections::{HashMap, VecDeque};

/// Frames that are further apart, in units of 8 bytes (1 MiB), are on different stacks.
const FAR: u32 = 1 << 17;
/// How far the guards in one stack frame can lie apart, in the same units (16 KiB).
const SLACK: u32 = 1 << 11;
/// Calls of a thread that are kept open; of more the outermost one counts as left.
const MOST_OPEN: usize = 1 << 18;
/// Stacks of a thread that are told apart; of more the one that nobody was on for the longest time goes.
const MOST_STACKS: usize = 256;

/// A function enters or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) function: u32,
    pub(crate) frame: u32,
    /// Whether the frame is that of a guard; see 4 above.
    pub(crate) guard: bool,
    pub(crate) ns: u64,
}

/// A call that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Counted from 1 on this thread.
    pub(crate) id: u64,
    pub(crate) began: Point,
    /// The call that it was made from, 0 for none.
    pub(crate) parent: u64,
    /// How many calls are around it.
    pub(crate) depth: u32,
    /// Nanoseconds that the calls took that it made, as far as their ends were seen.
    pub(crate) inside_ns: u64,
    /// There is a call of the same function around it.
    pub(crate) recursive: bool,
}

impl Call {
    /// Whether it must be over when a function enters there, or leaves there of which it is not the call.
    fn is_over_at(&self, point: Point) -> bool {
        let higher = above(point.frame, self.began.frame);
        higher == 0 || higher > 0 && !(self.began.guard && point.guard && higher < SLACK as i32)
    }
}

/// By how much a frame is above another.
fn above(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// One of a thread's stacks; never empty between two records. The innermost call is the last.
#[derive(Debug, Default)]
struct Stack {
    calls: VecDeque<Call>,
}

impl Stack {
    /// How far a frame is from what is known of the stack.
    fn distance(&self, frame: u32) -> u32 {
        let (Some(outer), Some(inner)) = (self.calls.front(), self.calls.back()) else {
            return u32::MAX;
        };
        let over = above(frame, outer.began.frame);
        let under = above(inner.began.frame, frame);
        over.max(under).max(0).unsigned_abs()
    }
}

/// All stacks of a thread.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    /// The one that the thread is on is the last; before it the one that it was on before.
    stacks: Vec<Stack>,
    open: usize,
    last_id: u64,
    /// Calls under way of each function.
    active: HashMap<u32, u32>,
}

impl Stacks {
    /// A function enters. Calls that turn out to be over go to `left`, the innermost first.
    pub(crate) fn enter(&mut self, point: Point, left: &mut Vec<Call>) -> Call {
        while self.go_to(point.frame) {
            self.leave(point, left);
            if !self.tidy() {
                break;
            }
        }
        while self.open >= MOST_OPEN || self.stacks.len() >= MOST_STACKS {
            self.forget(left);
        }
        let around = self.innermost().copied();
        self.last_id += 1;
        let active = self.active.entry(point.function).or_default();
        let call = Call {
            id: self.last_id,
            began: point,
            parent: around.map_or(0, |call| call.id),
            depth: around.map_or(0, |call| call.depth + 1),
            inside_ns: 0,
            recursive: *active > 0,
        };
        *active += 1;
        self.open += 1;
        match self.stacks.last_mut() {
            Some(stack) if stack.distance(point.frame) < FAR => stack.calls.push_back(call),
            _ => self.stacks.push(Stack { calls: VecDeque::from([call]) }),
        }
        call
    }

    /// A function leaves: its call, if it was seen to begin.
    pub(crate) fn exit(&mut self, point: Point, left: &mut Vec<Call>) -> Option<Call> {
        if !self.go_to(point.frame) {
            return None;
        }
        if let Some(at) = self.find(point) {
            while self.stacks.last().is_some_and(|stack| stack.calls.len() > at + 1) {
                left.extend(self.pop());
            }
            let call = self.pop()?;
            let took = point.ns.saturating_sub(call.began.ns);
            self.charge(call.parent, took);
            self.tidy();
            return Some(call);
        }
        self.leave(point, left);
        self.tidy();
        None
    }

    /// The call inside which the thread is.
    pub(crate) fn innermost(&self) -> Option<&Call> {
        self.stacks.last()?.calls.back()
    }

    /// All that have not ended, the innermost first.
    pub(crate) fn rest(&mut self) -> Vec<Call> {
        let mut rest = Vec::with_capacity(self.open);
        while !self.stacks.is_empty() {
            rest.extend(self.pop());
            self.tidy();
        }
        rest
    }

    /// Goes to the stack that `frame` is on; false if that is one without calls.
    fn go_to(&mut self, frame: u32) -> bool {
        // The last one most likely, and it wins over one that is as near.
        let near = self.stacks.iter().enumerate().rev();
        let near = near.map(|(at, stack)| (stack.distance(frame), at));
        let Some((distance, at)) = near.min_by_key(|(distance, _)| *distance) else { return false };
        if distance >= FAR {
            return false;
        }
        if at + 1 < self.stacks.len() {
            let stack = self.stacks.remove(at);
            self.stacks.push(stack);
        }
        true
    }

    /// Ends what `point` proves to be over on the stack that the thread is on. (At an exit what has its very
    /// frame is another function's, or it would have been found.)
    fn leave(&mut self, point: Point, left: &mut Vec<Call>) {
        while let Some(stack) = self.stacks.last()
            && stack.calls.back().is_some_and(|call| call.is_over_at(point))
        {
            left.extend(self.pop());
        }
    }

    /// Where on the last stack the call is that leaves.
    fn find(&self, point: Point) -> Option<usize> {
        let calls = &self.stacks.last()?.calls;
        for (at, call) in calls.iter().enumerate().rev() {
            let higher = above(call.began.frame, point.frame);
            if higher == 0 && call.began.function == point.function {
                return Some(at);
            }
            if higher >= SLACK as i32 {
                return None;
            }
        }
        None
    }

    /// Takes the innermost call of the last stack off.
    fn pop(&mut self) -> Option<Call> {
        let call = self.stacks.last_mut()?.calls.pop_back()?;
        self.closed(&call);
        Some(call)
    }

    fn closed(&mut self, call: &Call) {
        self.open -= 1;
        if let Some(active) = self.active.get_mut(&call.began.function) {
            *active -= 1;
            if *active == 0 {
                self.active.remove(&call.began.function);
            }
        }
    }

    /// Removes the last stack if it is empty; whether it was.
    fn tidy(&mut self) -> bool {
        let empty = self.stacks.last().is_some_and(|stack| stack.calls.is_empty());
        if empty {
            self.stacks.pop();
        }
        empty
    }

    /// Makes room: the outermost call of the stack that nobody was on for the longest time, or all of it.
    fn forget(&mut self, left: &mut Vec<Call>) {
        let all = self.stacks.len() >= MOST_STACKS;
        let Some(stack) = self.stacks.first_mut() else { return };
        let gone: Vec<Call> = match all {
            true => stack.calls.drain(..).rev().collect(),
            false => stack.calls.pop_front().into_iter().collect(),
        };
        if stack.calls.is_empty() {
            self.stacks.remove(0);
        }
        gone.iter().for_each(|call| self.closed(call));
        left.extend(gone);
    }

    /// Adds to the time that a call spent in others.
    fn charge(&mut self, parent: u64, took: u64) {
        let mut innermost = self.stacks.iter_mut().rev().filter_map(|stack| stack.calls.back_mut());
        if let Some(call) = innermost.find(|call| call.id == parent) {
            call.inside_ns = call.inside_ns.saturating_add(took);
        }
    }
}

#[cfg(test)]
mod tests;
