//! A reference lives no longer than the guard it was had by.

use gracepoint_rcu::{Domain, RcuCell};

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    let cell = RcuCell::new(&DOMAIN, 1);
    let guard = DOMAIN.read();
    let value = cell.load(&guard);
    drop(guard);
    assert_eq!(*value, 1);
}
