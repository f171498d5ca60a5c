//! Whether the recorder that launched this program has begun: what `init` waits for.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whether the recorder that launched this program has begun, or has said that it will not.
#[derive(Default)]
pub(crate) struct Launch {
    state: Mutex<LaunchState>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct LaunchState {
    /// `init` waits.
    waiting: bool,
    /// A tool has said hello and is connected.
    pub(super) company: bool,
    pub(super) decided: bool,
}

impl Launch {
    pub(super) fn change(&self, change: impl FnOnce(&mut LaunchState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting
    }

    /// `init` is going to wait.
    pub(crate) fn expect(&self) {
        self.change(|state| state.waiting = true);
    }

    /// Waits for a decision: `alone` while no tool is there, and `together` more while one is.
    pub(crate) fn wait(&self, alone: Duration, together: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let nobody = |state: &mut LaunchState| !state.decided && !state.company;
        let waited = self.changed.wait_timeout_while(state, alone, nobody);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let undecided = |state: &mut LaunchState| !state.decided && state.company;
        let waited = self.changed.wait_timeout_while(state, together, undecided);
        waited.unwrap_or_else(PoisonError::into_inner).0.waiting = false;
    }
}
