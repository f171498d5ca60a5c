//! What readers of any thread see, and any thread may drop, is `Send` and `Sync`.

use gracepoint_rcu::{Domain, RcuCell};
use std::rc::Rc;

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    RcuCell::new(&DOMAIN, Rc::new(1));
}
