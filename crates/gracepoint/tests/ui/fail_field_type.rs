//! Types that cannot be recorded.
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

struct NoDisplay;

enum Outcome {
    Hit,
}

#[derive(gracepoint::Event)]
struct Connected<'a> {
    peer: SocketAddr,
    outcome: &'a Outcome,
    names: Vec<String>,
    #[event(display)]
    state: NoDisplay,
}

#[derive(gracepoint::Event)]
struct Counted<'a> {
    hits: &'a AtomicU64,
}

#[derive(gracepoint::Event)]
struct Nested {
    maybe: Option<Option<u8>>,
}

fn main() {}
