//! Nor than an owned one.

use gracepoint_rcu::{Domain, RcuCell};

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    let cell = RcuCell::new(&DOMAIN, 1);
    let value = {
        let guard = DOMAIN.read_owned("owner");
        cell.load(&guard)
    };
    assert_eq!(*value, 1);
}
