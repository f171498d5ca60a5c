//! What is retired is dropped on whichever thread runs callbacks, and whenever.

use gracepoint_rcu::Domain;
use std::rc::Rc;

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    DOMAIN.retire(Rc::new(1));
    let local = 1;
    DOMAIN.call(|| assert_eq!(local, 1));
}
