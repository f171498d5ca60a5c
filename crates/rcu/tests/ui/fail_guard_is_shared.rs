//! Nor do others use it from theirs.

use gracepoint_rcu::{Domain, RcuCell};

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    let cell = RcuCell::new(&DOMAIN, 1);
    let guard = DOMAIN.read();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(*cell.load(&guard), 1));
    });
}
