//! The spans that this thread is in, innermost last.

use std::cell::Cell;

/// Levels that are remembered. A span further in is the child of the last of these.
const DEPTH: usize = 64;

struct Stack {
    ids: [Cell<u64>; DEPTH],
    depth: Cell<usize>,
}

thread_local! {
    // Without a destructor it is there to the thread's very end.
    static STACK: Stack =
        const { Stack { ids: [const { Cell::new(0) }; DEPTH], depth: Cell::new(0) } };
}

/// The innermost span.
#[inline]
pub(crate) fn innermost() -> Option<u64> {
    STACK.with(|stack| {
        let last = stack.depth.get().min(DEPTH).checked_sub(1)?;
        Some(stack.ids[last].get())
    })
}

#[inline]
pub(crate) fn enter(id: u64) {
    STACK.with(|stack| {
        let depth = stack.depth.get();
        if let Some(place) = stack.ids.get(depth) {
            place.set(id);
        }
        stack.depth.set(depth + 1);
    });
}

/// Leaves the latest entry with this id. Spans may be left in any order.
#[inline]
pub(crate) fn exit(id: u64) {
    STACK.with(|stack| {
        let depth = stack.depth.get();
        let kept = depth.min(DEPTH);
        let found = stack.ids[..kept].iter().rposition(|place| place.get() == id);
        match found {
            Some(at) => {
                for place in at + 1..kept {
                    stack.ids[place - 1].set(stack.ids[place].get());
                }
                stack.depth.set(depth - 1);
            }
            // One that was too deep to be remembered.
            None if depth > DEPTH => stack.depth.set(depth - 1),
            None => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_left_in_any_order() {
        assert_eq!(innermost(), None);
        [1, 2, 3, 2].into_iter().for_each(enter);
        exit(2);
        assert_eq!(innermost(), Some(3));
        exit(1);
        assert_eq!(innermost(), Some(3));
        exit(3);
        assert_eq!(innermost(), Some(2));
        exit(9);
        assert_eq!(innermost(), Some(2));
        exit(2);
        assert_eq!(innermost(), None);
    }

    #[test]
    fn what_is_too_deep_is_left_again() {
        let many = DEPTH as u64 + 10;
        (1..=many).for_each(enter);
        assert_eq!(innermost(), Some(DEPTH as u64));
        (1..=many).rev().for_each(exit);
        assert_eq!(innermost(), None);
    }
}
