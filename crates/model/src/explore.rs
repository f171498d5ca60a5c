//! The search: depth first through all schedules, without visiting a state twice.
//!
//! Where the number of preemptions is bounded, a state that was reached before is entered again if it was
//! reached with fewer preemptions this time, since more can follow then. A *preemption* is a
//! switch away from a thread that could have gone on; draining a buffer is none.

use crate::failure::{Cause, Failure};
use crate::machine::{Digest, State};
use crate::program::Program;
use crate::schedule::{Move, Schedule};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// How a program is explored.
#[derive(Clone, Debug)]
pub struct Explorer {
    preemptions: Option<u32>,
    max_moves: usize,
    max_states: usize,
}

impl Default for Explorer {
    fn default() -> Self {
        Self::new()
    }
}

/// What was found.
#[derive(Clone, Debug)]
#[must_use = "it may hold a failure"]
pub struct Report {
    /// The program's name.
    pub program: String,
    /// States visited.
    pub states: usize,
    /// States visited in which nothing moves any more.
    pub ends: usize,
    /// Whether every schedule within the bound on preemptions was explored. False after a failure.
    pub complete: bool,
    /// The first failure found, made simpler.
    pub failure: Option<Failure>,
    outcomes: BTreeSet<Vec<Option<u64>>>,
}

impl Report {
    /// Whether some execution ends with these results of its threads, in the order in which they were added.
    #[must_use]
    pub fn reached(&self, results: &[u64]) -> bool {
        let wanted: Vec<_> = results.iter().copied().map(Some).collect();
        self.outcomes.contains(&wanted)
    }

    /// The results of the threads in all executions; `None` for a thread that was not done.
    #[must_use]
    pub fn outcomes(&self) -> &BTreeSet<Vec<Option<u64>>> {
        &self.outcomes
    }

    /// For programs that must be right.
    ///
    /// # Panics
    /// If something was found, with all of it; or if not everything was explored.
    pub fn expect_sound(&self) {
        if let Some(failure) = &self.failure {
            panic!("{failure}");
        }
        assert!(self.complete, "{}: more than {} states", self.program, self.states);
        assert_ne!(self.ends, 0, "{}: no execution comes to an end", self.program);
    }

    /// For programs that must go wrong.
    ///
    /// # Panics
    /// If nothing was found.
    #[must_use]
    pub fn expect_failure(&self) -> &Failure {
        let Some(failure) = &self.failure else {
            panic!("{}: nothing wrong in {} states", self.program, self.states)
        };
        failure
    }
}

impl Explorer {
    /// No bound on preemptions, executions of up to 2,000 moves, up to 20 million states.
    #[must_use]
    pub fn new() -> Self {
        Self { preemptions: None, max_moves: 2_000, max_states: 20_000_000 }
    }

    /// At most so many preemptions in one execution.
    #[must_use]
    pub fn preemptions(mut self, bound: u32) -> Self {
        self.preemptions = Some(bound);
        self
    }

    /// An execution of more moves is a failure, [`Cause::Endless`].
    #[must_use]
    pub fn max_moves(mut self, bound: usize) -> Self {
        self.max_moves = bound;
        self
    }

    /// Stop, incomplete, after so many states.
    #[must_use]
    pub fn max_states(mut self, bound: usize) -> Self {
        self.max_states = bound;
        self
    }

    /// Explores the program until something goes wrong or all was seen. A failure is looked
    /// for again with as few preemptions as possible, so that its story is short.
    pub fn explore(&self, program: &Program) -> Report {
        let mut report = self.search(program, self.preemptions);
        if report.failure.is_some() {
            for bound in 0..self.preemptions.unwrap_or(3) {
                let simpler = self.search(program, Some(bound));
                if simpler.failure.is_some() {
                    report.failure = simpler.failure;
                    break;
                }
            }
        }
        report
    }

    /// Makes the moves of a schedule, and goes on where it ends as long as one move alone is possible.
    ///
    /// `Ok` is the story of an execution in which nothing went wrong.
    ///
    /// # Errors
    /// What went wrong.
    ///
    /// # Panics
    /// If the schedule has a move that the program does not offer there: it is another program's.
    pub fn replay(
        &self,
        program: &Program,
        schedule: &Schedule,
    ) -> Result<Vec<String>, Box<Failure>> {
        let fail = |cause: Cause, moves: &[Move], story: &[String]| {
            Box::new(Failure {
                program: program.name.clone(),
                cause,
                schedule: Schedule { moves: moves.to_vec() },
                story: story.to_vec(),
            })
        };
        let mut story = Vec::new();
        let mut made = Vec::new();
        let mut state = State::first(program).map_err(|cause| fail(cause, &made, &story))?;
        loop {
            let offered = state.moves(0);
            let next = match schedule.moves.get(made.len()) {
                Some(next) => {
                    assert!(
                        offered.contains(next),
                        "move {}, `{next}`, is not possible",
                        made.len()
                    );
                    *next
                }
                None if made.len() > self.max_moves => {
                    return Err(fail(Cause::Endless, &made, &story));
                }
                None => match offered[..] {
                    [only] => only,
                    [] => {
                        let outcome = state.end(program).map(drop);
                        return outcome.map_err(|cause| fail(cause, &made, &story)).map(|()| story);
                    }
                    _ => return Ok(story),
                },
            };
            story.push(state.tell(program, next));
            made.push(next);
            state.make(program, next).map_err(|cause| fail(cause, &made, &story))?;
        }
    }

    fn search(&self, program: &Program, bound: Option<u32>) -> Report {
        let mut search = Search {
            program,
            bound,
            max_moves: self.max_moves,
            seen: HashMap::default(),
            path: Vec::new(),
            ends: 0,
            outcomes: BTreeSet::new(),
        };
        let found = match State::first(program) {
            Err(cause) => Err(cause),
            Ok(first) => search.run(first, self.max_states),
        };
        let moves =
            search.path.iter().filter_map(|node| node.moves.get(node.tried.checked_sub(1)?));
        let schedule = Schedule { moves: moves.copied().collect() };
        let failure = found.as_ref().err().map(|cause| {
            let story = tell(program, &schedule);
            Failure { program: program.name.clone(), cause: cause.clone(), schedule, story }
        });
        Report {
            program: program.name.clone(),
            states: search.seen.len(),
            ends: search.ends,
            complete: found == Ok(true),
            failure,
            outcomes: search.outcomes,
        }
    }
}

fn tell(program: &Program, schedule: &Schedule) -> Vec<String> {
    let mut story = Vec::new();
    let Ok(mut state) = State::first(program) else { return story };
    for made in &schedule.moves {
        story.push(state.tell(program, *made));
        if state.make(program, *made).is_err() {
            break;
        }
    }
    story
}

/// A state on the path, and which of its moves were tried.
struct Node {
    state: State,
    moves: Vec<Move>,
    tried: usize,
    /// The thread that made the last access.
    last: usize,
    preemptions: u32,
}

struct Search<'p> {
    program: &'p Program,
    bound: Option<u32>,
    max_moves: usize,
    /// States, with the fewest preemptions that they were reached with.
    seen: HashMap<(Digest, usize), u32, BuildHasherDefault<Taken>>,
    path: Vec<Node>,
    ends: usize,
    outcomes: BTreeSet<Vec<Option<u64>>>,
}

impl Search<'_> {
    /// True if all was explored, false if there were too many states.
    fn run(&mut self, first: State, max_states: usize) -> Result<bool, Cause> {
        self.enter(first, 0, 0)?;
        while let Some(node) = self.path.last_mut() {
            let Some(made) = node.moves.get(node.tried).copied() else {
                self.path.pop();
                continue;
            };
            node.tried += 1;
            let (last, preemptions) = node.after(made);
            if self.bound.is_some_and(|bound| preemptions > bound) {
                continue;
            }
            let mut state = node.state.clone();
            state.make(self.program, made)?;
            if self.path.len() >= self.max_moves {
                return Err(Cause::Endless);
            }
            if self.seen.len() >= max_states {
                return Ok(false);
            }
            self.enter(state, last, preemptions)?;
        }
        Ok(true)
    }

    fn enter(&mut self, state: State, last: usize, preemptions: u32) -> Result<(), Cause> {
        // Without a bound it does not matter who moved last.
        let key = (state.digest(), if self.bound.is_some() { last } else { 0 });
        let known = self.seen.get(&key);
        if known.is_some_and(|fewest| *fewest <= preemptions || self.bound.is_none()) {
            return Ok(());
        }
        self.seen.insert(key, preemptions);
        let moves = state.moves(last);
        if moves.is_empty() {
            self.ends += 1;
            let results = state.end(self.program)?.results;
            self.outcomes.insert(results);
            return Ok(());
        }
        self.path.push(Node { state, moves, tried: 0, last, preemptions });
        Ok(())
    }
}

impl Node {
    /// Who moved last, and the preemptions, after this move.
    fn after(&self, made: Move) -> (usize, u32) {
        match made {
            Move::Drain(_) => (self.last, self.preemptions),
            Move::Step(thread) | Move::Choose(thread, _) => {
                let preempts = thread != self.last && self.state.is_ready(self.last);
                (thread, self.preemptions + u32::from(preempts))
            }
        }
    }
}

/// A hasher for keys that are digests already.
#[derive(Debug, Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = self.0.rotate_left(23) ^ value;
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}
