//! How many events a second come, as the progress line tells it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long. Pages that are not full come once a second, so a shorter time would show nothing, and then
/// all of it.
const WINDOW: Duration = Duration::from_secs(2);

/// What was counted when, not long ago.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// Notes that `events` had come by `now`; returns how many a second that is since [`WINDOW`] ago, or
    /// since the first note.
    pub(super) fn note(&mut self, now: Instant, events: u64) -> u64 {
        let long_ago = |at: Instant| now.saturating_duration_since(at) >= WINDOW;
        // One stays that is as old as the window.
        while self.0.get(1).is_some_and(|&(at, _)| long_ago(at)) {
            self.0.pop_front();
        }
        self.0.push_back((now, events));
        let &(at, before) = self.0.front().unwrap_or(&(now, events));
        let millis = now.saturating_duration_since(at).as_millis() as u64;
        events.saturating_sub(before).saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_once_a_second_is_steady() {
        let mut pace = Pace::default();
        let begin = Instant::now();
        assert_eq!(pace.note(begin, 0), 0, "nothing is known yet");
        let told: Vec<u64> = (1..20)
            .map(|half| pace.note(begin + Duration::from_millis(500 * half), half / 2 * 5000))
            .collect();
        assert!(told[4..].iter().all(|rate| (3_000..=7_000).contains(rate)), "{told:?}");
        assert!(told[4..].iter().filter(|&&rate| rate == 5_000).count() > 10, "{told:?}");
        assert_eq!(pace.note(begin + Duration::from_secs(60), 9 * 5000), 0, "and it ends");
    }
}
