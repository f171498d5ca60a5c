//! A guard stays on its thread.

use gracepoint_rcu::Domain;

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    let guard = DOMAIN.read();
    std::thread::spawn(move || drop(guard));
}
