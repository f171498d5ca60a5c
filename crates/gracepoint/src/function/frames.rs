//! Calls that are under way on each thread, for operations that want to know how deep a call is or how long it took.
//!
//! A frame is where a call's return address lies: the inner of two calls on one stack has the lower one, and entry
//! and exit of one call have the same. So frames that ended without an exit (a panic unwound them, `longjmp` left
//! them, the function was switched off) are found by looking: a call that begins at the same place as one that is noted, or
//! above it, is proof that that one is over. Frames that are far from each other lie on different stacks (a
//! signal stack, a coroutine's), prove nothing of each other, and stay.
//!
//! Guards of the attribute lie anywhere in the frame of the function that they were inlined into, the outer one's below
//! the inner one's too. So between two guards that are near each other the place proves nothing, unless it is the same; a guard is dropped
//! in any case, but by `longjmp`.
//!
//! Only the thread itself comes here, with its guard set, so nothing interrupts it half way. What another thread
//! left in the place (it ended, and its index was given to this one) is told by the thread's token.

use super::hit::GUARD;
use crate::sys::Mapping;
use std::cell::UnsafeCell;
use std::io;

/// Calls noted for each thread; those further in are not.
const MOST: usize = 254;
/// Two guards nearer than this may lie in one stack frame.
const NEAR: usize = 16 << 10;
/// Frames further apart than this are of different stacks.
const FAR: usize = 1 << 20;

#[derive(Clone, Copy)]
#[repr(C)]
struct Frame {
    at: usize,
    depth: u32,
    id: u32,
    ticks: u64,
}

#[repr(C, align(64))]
struct Thread {
    token: usize,
    len: usize,
    frames: [Frame; MOST],
}

/// A page or two for each thread that is in use; see the top.
pub(crate) struct Frames(Mapping);

/// What is known of a call that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) depth: u32,
    pub(crate) ticks: u64,
}

impl Frames {
    /// # Errors
    /// When there are no addresses left for it.
    pub(crate) fn new() -> io::Result<Frames> {
        Mapping::wiped_on_fork(gracepoint_rcu::MAX_THREADS * size_of::<Thread>()).map(Frames)
    }

    /// The calls of the calling thread.
    fn here<R>(&self, body: impl FnOnce(&mut Thread) -> R) -> Option<R> {
        let index = gracepoint_rcu::thread_index()?;
        let token = super::with_guard(|guard| std::ptr::from_ref(guard) as usize);
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
        let threads = self.0.base().cast::<UnsafeCell<Thread>>();
        // SAFETY: the mapping has a place for each index, and all-zero is a valid one; the index is this thread's, which
        // comes here once at a time (see the top).
        let thread = unsafe { &mut *(*threads.add(index as usize)).get() };
        if thread.token != token {
            thread.token = token;
            thread.len = 0;
        }
        Some(body(thread))
    }

    /// A call begins; how many that are noted are around it. `None` where it is not noted: too deep, or a
    /// thread without an index.
    pub(crate) fn begin(&self, id: u32, at: usize, ticks: u64) -> Option<u32> {
        self.here(|thread| thread.begin(id, at, ticks)).flatten()
    }

    /// A call ends. `None` where it was not noted.
    pub(crate) fn end(&self, id: u32, at: usize) -> Option<Ended> {
        self.here(|thread| thread.end(id, at)).flatten()
    }
}

/// Does it prove that the call at `noted` is over when one begins at `at`, on the same stack?
fn is_over(noted: usize, at: usize) -> bool {
    let guards = noted & at & GUARD != 0;
    noted == at || (noted < at && !(guards && at - noted < NEAR))
}

fn same_stack(a: usize, b: usize) -> bool {
    a.abs_diff(b) < FAR
}

impl Thread {
    fn begin(&mut self, id: u32, at: usize, ticks: u64) -> Option<u32> {
        // A guard where one was that `longjmp` left: that one is over, and so are those that began after it.
        let near = |frame: &&Frame| frame.at & at & GUARD != 0 && frame.at.abs_diff(at) < NEAR;
        let mut guards = self.frames[..self.len].iter().rev().take_while(near);
        if let Some(above) = guards.position(|frame| frame.at == at) {
            self.len -= above + 1;
        }
        while let Some(top) = self.top() {
            if !same_stack(top.at, at) || !is_over(top.at, at) {
                break;
            }
            self.len -= 1;
        }
        // The innermost call on this stack, or else this is the first one here.
        let around = |frame: &&Frame| same_stack(frame.at, at) && !is_over(frame.at, at);
        let around = self.frames[..self.len].iter().rev().find(around);
        let depth = around.map_or(0, |frame| frame.depth + 1);
        let place = self.frames.get_mut(self.len)?;
        *place = Frame { at, depth, id, ticks };
        self.len += 1;
        Some(depth)
    }

    fn top(&self) -> Option<Frame> {
        self.len.checked_sub(1).and_then(|top| self.frames.get(top)).copied()
    }

    fn end(&mut self, id: u32, at: usize) -> Option<Ended> {
        let place = self.frames[..self.len].iter().rposition(|frame| frame.at == at)?;
        let found = self.frames[place];
        // What lies above on this stack is over, too; what lies on others is not.
        let mut left = place;
        for next in place + 1..self.len {
            let frame = self.frames[next];
            if !same_stack(frame.at, at) {
                self.frames[left] = frame;
                left += 1;
            }
        }
        self.len = left;
        // Another id at the same place: a function that ended in a tail call, whose exit was not seen.
        (found.id == id).then_some(Ended { depth: found.depth, ticks: found.ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> Box<Thread> {
        let frame = Frame { at: 0, depth: 0, id: 0, ticks: 0 };
        Box::new(Thread { token: 0, len: 0, frames: [frame; MOST] })
    }

    const TOP: usize = 0x7f00_0000_0000;

    #[test]
    fn calls_nest_and_end() {
        let mut thread = thread();
        assert_eq!(thread.begin(1, TOP, 10), Some(0));
        assert_eq!(thread.begin(2, TOP - 64, 11), Some(1));
        assert_eq!(thread.end(2, TOP - 64), Some(Ended { depth: 1, ticks: 11 }));
        assert_eq!(thread.begin(3, TOP - 64, 12), Some(1));
        assert_eq!(thread.end(3, TOP - 64), Some(Ended { depth: 1, ticks: 12 }));
        assert_eq!(thread.end(1, TOP), Some(Ended { depth: 0, ticks: 10 }));
        assert_eq!(thread.end(1, TOP), None, "its entry was not seen");
    }

    #[test]
    fn what_unwound_is_over_when_the_stack_says_so() {
        let mut thread = thread();
        for round in 0..1000 {
            assert_eq!(thread.begin(1, TOP, round), Some(0), "round {round}");
            assert_eq!(thread.begin(2, TOP - 64, round), Some(1));
            assert_eq!(thread.begin(3, TOP - 128, round), Some(2));
            // A panic: the next call begins where 2 was.
            assert_eq!(thread.begin(4, TOP - 64, round), Some(1));
        }
        // longjmp: the outermost ends, and the others with it.
        assert!(thread.end(1, TOP).is_some() && thread.len == 0);
    }

    #[test]
    fn a_tail_call_replaces_its_caller() {
        let mut thread = thread();
        thread.begin(1, TOP, 1);
        assert!(thread.end(1, TOP).is_some());
        assert_eq!(thread.begin(2, TOP, 2), Some(0));
        // One without a sled for the tail call: 3 is at 2's place when it ends.
        assert_eq!(thread.begin(3, TOP, 3), Some(0));
        assert_eq!(thread.end(3, TOP), Some(Ended { depth: 0, ticks: 3 }));
    }

    /// Functions with the attribute that were inlined into one another.
    #[test]
    fn guards_lie_in_any_order() {
        let (outer, inner) = (TOP - 96 + GUARD, TOP - 64 + GUARD);
        let mut thread = thread();
        assert_eq!(thread.begin(9, TOP, 0), Some(0));
        for round in 1..1000 {
            assert_eq!(thread.begin(1, outer, round), Some(1), "round {round}");
            assert_eq!(thread.begin(2, inner, round), Some(2));
            assert_eq!(thread.end(2, inner), Some(Ended { depth: 2, ticks: round }));
            assert_eq!(thread.begin(2, inner, round), Some(2));
            if round % 7 == 0 {
                continue; // longjmp
            }
            assert_eq!(thread.end(2, inner), Some(Ended { depth: 2, ticks: round }));
            assert_eq!(thread.end(1, outer), Some(Ended { depth: 1, ticks: round }));
        }
        // A real function below is inside, and proves that those below it are over.
        assert_eq!(thread.begin(1, outer, 0), Some(1));
        assert_eq!(thread.begin(3, TOP - 200, 0), Some(2));
        assert_eq!(thread.begin(4, TOP - 80, 0), Some(1));
        assert!(thread.end(9, TOP).is_some() && thread.len == 0);
    }

    #[test]
    fn other_stacks_are_left_alone() {
        let mut thread = thread();
        let other = TOP + (64 << 20);
        thread.begin(1, TOP, 1);
        thread.begin(2, TOP - 64, 2);
        assert_eq!(thread.begin(7, other, 3), Some(0), "a handler on a stack of its own");
        assert_eq!(thread.begin(8, other - 64, 4), Some(1));
        // A coroutine that goes back before it has ended.
        assert_eq!(thread.begin(3, TOP - 128, 5), Some(2));
        assert_eq!(thread.end(3, TOP - 128), Some(Ended { depth: 2, ticks: 5 }));
        assert_eq!(thread.end(1, TOP), Some(Ended { depth: 0, ticks: 1 }));
        assert_eq!(thread.end(8, other - 64), Some(Ended { depth: 1, ticks: 4 }));
        assert_eq!(thread.end(7, other), Some(Ended { depth: 0, ticks: 3 }));
        assert_eq!(thread.len, 0);
    }

    #[test]
    fn deep_recursion_is_noted_as_far_as_there_is_room() {
        let mut thread = thread();
        for depth in 0..10_000_usize {
            let noted = thread.begin(1, TOP - depth * 32, 0);
            assert_eq!(noted, (depth < MOST).then_some(depth as u32));
        }
        for depth in (0..10_000_usize).rev() {
            assert_eq!(thread.end(1, TOP - depth * 32).is_some(), depth < MOST);
        }
        assert_eq!(thread.len, 0);
    }
}
