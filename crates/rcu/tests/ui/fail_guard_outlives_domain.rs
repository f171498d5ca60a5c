//! A domain stays for as long as its guards.

use gracepoint_rcu::Domain;

fn main() {
    let domain = Domain::new("ui");
    let guard = domain.read();
    drop(domain);
    drop(guard);
}
