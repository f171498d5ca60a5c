//! A crate that re-exports Gracepoint under another path.

mod vendor {
    pub use ::gracepoint as trace;
}

#[derive(gracepoint::Field)]
#[event(crate = "crate::vendor::trace")]
enum Outcome {
    Hit,
}

#[derive(gracepoint::Event)]
#[event(crate = "crate::vendor::trace", name = "paths:get")]
struct Get {
    outcome: Outcome,
}

fn main() {
    let get = Get { outcome: Outcome::Hit };
    let _ = get.outcome;
}
