//! A callback runs when its caller may long be gone.

use gracepoint_rcu::Domain;

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    let local = 1;
    DOMAIN.call(|| assert_eq!(local, 1));
}
