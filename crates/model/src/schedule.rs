//! Schedules: which thread moves when. Printed as one line, parsed back, and explained.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// One move of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A thread makes its next access. Printed as its number.
    Step(usize),
    /// A thread makes its choice. Printed as `thread=choice`.
    Choose(usize, u64),
    /// The oldest store in a thread's buffer gets to memory. Printed as `~thread`.
    Drain(usize),
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(thread) => write!(f, "{thread}"),
            Self::Choose(thread, choice) => write!(f, "{thread}={choice}"),
            Self::Drain(thread) => write!(f, "~{thread}"),
        }
    }
}

/// The moves of an execution, in order.
///
/// ```
/// let schedule: gracepoint_model::Schedule = "0 1 ~0 2=1".parse().expect("a schedule");
/// assert_eq!(schedule.to_string(), "0 1 ~0 2=1");
/// assert_eq!(schedule.moves().len(), 4);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    pub(crate) moves: Vec<Move>,
}

impl Schedule {
    /// The moves.
    #[must_use]
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, next) in self.moves.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            next.fmt(f)?;
        }
        Ok(())
    }
}

/// The text is not a schedule: this move of it is not a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotASchedule(String);

impl fmt::Display for NotASchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a move: expected `thread`, `thread=choice` or `~thread`", self.0)
    }
}

impl Error for NotASchedule {}

impl FromStr for Schedule {
    type Err = NotASchedule;

    fn from_str(text: &str) -> Result<Self, NotASchedule> {
        let one = |word: &str| {
            if let Some(thread) = word.strip_prefix('~') {
                return Some(Move::Drain(thread.parse().ok()?));
            }
            match word.split_once('=') {
                Some((thread, choice)) => {
                    Some(Move::Choose(thread.parse().ok()?, choice.parse().ok()?))
                }
                None => Some(Move::Step(word.parse().ok()?)),
            }
        };
        let moves = text
            .split_whitespace()
            .map(|word| one(word).ok_or_else(|| NotASchedule(word.to_owned())))
            .collect::<Result<_, _>>()?;
        Ok(Self { moves })
    }
}
