//! What is retired is dropped on whichever thread runs callbacks.

use gracepoint_rcu::Domain;
use std::rc::Rc;

static DOMAIN: Domain = Domain::new("ui");

fn main() {
    DOMAIN.retire(Rc::new(1));
}
