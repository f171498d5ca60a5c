//! A task that may go to another thread cannot hold a guard while it waits.

use gracepoint_rcu::Domain;

static DOMAIN: Domain = Domain::new("ui");

async fn holds_a_guard() {
    let guard = DOMAIN.read();
    std::future::ready(()).await;
    drop(guard);
}

fn spawn(_: impl Future<Output = ()> + Send) {}

fn main() {
    spawn(holds_a_guard());
}
