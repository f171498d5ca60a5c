//! A reference lives no longer than its cell.

use gracepoint_rcu::{Domain, RcuCell};

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    let cell = RcuCell::new(&DOMAIN, 1);
    let guard = DOMAIN.read();
    let value = cell.load(&guard);
    drop(cell);
    assert_eq!(*value, 1);
}
