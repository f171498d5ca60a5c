//! Stacks of samples as a viewer wants them: each frame and each stack is told once and has a number from then on.
//!
//! What has been told is remembered up to a limit. Beyond it everything is forgotten and told again under new
//! numbers, as far as it comes again: the output grows somewhat, memory does not, and no sample is left out.

use crate::profile::Sample;
use std::collections::HashMap;

/// Places and stacks that are remembered, each.
pub(super) const MOST: usize = 1 << 16;
/// In place of an address: the kernel, called from the innermost function.
pub(super) const KERNEL: u64 = u64::MAX;
/// Nothing is known of where it was.
pub(super) const UNKNOWN: u64 = u64::MAX - 1;

/// A place or a stack that was not known before.
pub(super) enum New {
    /// Its number, and where it is.
    Frame(u32, u64),
    /// Its number, that of the stack that it was called from, its innermost frame and where that is.
    Stack { number: u32, caller: Option<u32>, frame: u32, place: u64 },
}

/// What has been told.
pub(super) struct Stacks {
    most: usize,
    /// By place; numbers count up from 1 and never come again.
    frames: HashMap<u64, u32>,
    /// By what they are parts of: a caller's number, or that of a root.
    stacks: HashMap<(Option<u32>, u32), u32>,
    last_frame: u32,
    last_stack: u32,
}

impl Stacks {
    pub(super) fn new(most: usize) -> Stacks {
        let (frames, stacks) = (HashMap::new(), HashMap::new());
        Stacks { most, frames, stacks, last_frame: 0, last_stack: 0 }
    }

    /// Forgets all where this sample may be too much; says whether it did.
    pub(super) fn make_room(&mut self, sample: &Sample) -> bool {
        let more = sample.places.len() + 2;
        let full = self.frames.len() + more > self.most || self.stacks.len() + more > self.most;
        // One that is larger than the limit has no room either way, and goes through an empty table.
        let full = full && !self.stacks.is_empty();
        if full {
            (self.frames, self.stacks) = (HashMap::new(), HashMap::new());
        }
        full
    }

    /// A number for the root of a tree of stacks.
    pub(super) fn root(&mut self) -> u32 {
        self.last_stack += 1;
        self.last_stack
    }

    /// The number of a sample's stack, below `root` if there is one. `tell` is told what is new, callers first.
    pub(super) fn take(
        &mut self,
        root: Option<u32>,
        sample: &Sample,
        mut tell: impl FnMut(New),
    ) -> u32 {
        let kernel = sample.kernel.then_some(KERNEL);
        let unknown = (sample.places.is_empty() && !sample.kernel).then_some(UNKNOWN);
        let places = sample.places.iter().rev().copied().chain(kernel).chain(unknown);
        let mut at = root;
        for place in places {
            let frame = *self.frames.entry(place).or_insert_with(|| {
                self.last_frame += 1;
                tell(New::Frame(self.last_frame, place));
                self.last_frame
            });
            let stack = *self.stacks.entry((at, frame)).or_insert_with(|| {
                self.last_stack += 1;
                tell(New::Stack { number: self.last_stack, caller: at, frame, place });
                self.last_stack
            });
            at = Some(stack);
        }
        at.unwrap_or(0)
    }

    /// How much is remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.frames.len().max(self.stacks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn sample(places: &[u64], kernel: bool) -> Sample {
        Sample { weight: 1, cpu: 0, kernel, places: places.to_vec() }
    }

    /// Puts stacks together again from what was told.
    #[derive(Default)]
    struct Reader {
        frames: HashMap<u32, u64>,
        stacks: HashMap<u32, Vec<u64>>,
    }

    impl Reader {
        fn take(&mut self, stacks: &mut Stacks, sample: &Sample) -> Vec<u64> {
            if stacks.make_room(sample) {
                self.frames.clear();
                self.stacks.clear();
            }
            let number = stacks.take(None, sample, |new| match new {
                New::Frame(number, place) => {
                    assert_eq!(self.frames.insert(number, place), None, "told twice");
                }
                New::Stack { number, caller, frame, place } => {
                    let mut whole =
                        caller.map_or(Vec::new(), |caller| self.stacks[&caller].clone());
                    assert_eq!(self.frames[&frame], place);
                    whole.push(place);
                    assert_eq!(self.stacks.insert(number, whole), None, "told twice");
                }
            });
            self.stacks[&number].clone()
        }
    }

    #[test]
    fn each_is_told_once_and_a_full_table_begins_anew() {
        let (mut stacks, mut reader) = (Stacks::new(20), Reader::default());
        let mut told = std::collections::HashSet::new();
        for round in 0..100_u64 {
            for places in [&[3, 2, 1][..], &[9, 2, 1], &[round + 100, 1], &[2, 1]] {
                let want: Vec<u64> = places.iter().rev().copied().collect();
                assert_eq!(reader.take(&mut stacks, &sample(places, false)), want);
                assert!(stacks.len() <= 20);
            }
            told.extend(reader.frames.iter().map(|(number, place)| (*number, *place)));
        }
        let numbers: std::collections::HashSet<u32> = told.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers.len(), told.len(), "no number has two meanings, ever");
        assert!(told.len() > 110, "it was forgotten and told again");
    }

    #[test]
    fn the_kernel_is_innermost_and_nothing_is_unknown() {
        let (mut stacks, mut reader) = (Stacks::new(20), Reader::default());
        assert_eq!(reader.take(&mut stacks, &sample(&[2, 1], true)), [1, 2, KERNEL]);
        assert_eq!(reader.take(&mut stacks, &sample(&[], true)), [KERNEL]);
        assert_eq!(reader.take(&mut stacks, &sample(&[], false)), [UNKNOWN]);
        // One that is larger than the table comes through.
        let large: Vec<u64> = (1..=50).collect();
        assert_eq!(reader.take(&mut stacks, &sample(&large, false)).len(), 50);
        assert_eq!(reader.take(&mut stacks, &sample(&[1], false)), [1]);
    }
}
