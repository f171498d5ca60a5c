//! Suite `grace-period`: how soon what was removed is freed, at what price, and whether readers notice.
//!
//! | section | module |
//! |---|---|
//! | `synchronize()` beside idle and busy threads | [`synchronize`] |
//! | membarriers of a grace period whose reader is preempted | [`membarriers`] |
//! | from `call` to the callback, cookies, `barrier()` | [`latency`] |
//! | deferred freeing: throughput, and how much piles up | [`deferred`] |
//! | 64 readers on few processors | [`crowd`] |
//!
//! crossbeam-epoch and seize have no `synchronize`: who waits for them loops over pin and flush, which
//! polls and frees but promises nothing for a moment of time. They are compared where they free.

mod crowd;
mod deferred;
mod latency;
mod membarriers;
mod synchronize;

use std::error::Error;
use std::thread;

use gracepoint_bench_peers::{Liburcu, Registered, flavours};
use gracepoint_rcu::Domain;

use crate::sections::{self, Section};
use crate::table::machine;

const SUITE: &str = "grace-period";
const ROUNDS: usize = 100;
const OURS: &str = "gracepoint";

static DOMAIN: Domain = Domain::new("bench grace periods");

/// The sections, in order. Those that leave worker threads of liburcu behind come last.
const SECTIONS: &[fn(usize) -> Section] = &[
    synchronize::alone,
    synchronize::beside_idle,
    synchronize::beside_busy,
    membarriers::run,
    crowd::run,
    latency::cookies,
    latency::calls,
    latency::barriers,
    deferred::throughput,
    deferred::flood,
];

/// Prints each section when it is done.
pub(crate) fn run(rounds: Option<usize>, json: bool) -> Result<(), Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    if !json {
        for note in machine(None, rounds) {
            println!("{note}");
        }
        println!("read sections by {:?}", gracepoint_rcu::strategy());
        if flavours().is_empty() {
            println!("liburcu: not installed, so goals beside it are not checked");
        }
    } else if flavours().is_empty() {
        println!("{}", serde_json::json!({"suite": SUITE, "peer": "liburcu", "installed": false}));
    }
    for measure in SECTIONS {
        let section = on_a_thread(|| measure(rounds));
        print!("{}", if json { sections::json(SUITE, &section) } else { sections::text(&section) });
    }
    Ok(())
}

/// Runs `f` on a thread of its own, which it may pin, and whose registrations end with it.
fn on_a_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        scope.spawn(f).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts the threads that run callbacks: ours (`domains`), and liburcu's. They go where the caller may go, so this
/// comes before it is pinned: all of them alike may then use the other processors.
fn start_workers(domains: &[&'static Domain]) {
    for domain in domains {
        domain.call(|| ());
        domain.barrier().expect("no section is open here");
    }
    flavours().iter().for_each(|flavour| flavour.register().barrier());
}

/// Somebody who has grace periods, for the calling thread.
enum Engine {
    Ours(&'static Domain),
    Peer(&'static str, Registered),
}

impl Engine {
    /// Ours, and liburcu's flavours if they are there.
    fn all(ours: &'static Domain) -> Vec<Engine> {
        Engine::some(ours, |_| true)
    }

    /// Ours, and the flavours that `wanted` picks.
    fn some(ours: &'static Domain, wanted: impl Fn(&Liburcu) -> bool) -> Vec<Engine> {
        let peers = flavours().iter().filter(|peer| wanted(peer));
        let peers = peers.map(|peer| Engine::Peer(peer.name, peer.register()));
        [Engine::Ours(ours)].into_iter().chain(peers).collect()
    }

    fn name(&self) -> String {
        match self {
            Engine::Ours(_) => OURS.to_owned(),
            Engine::Peer(name, _) => format!("liburcu {name}"),
        }
    }

    fn synchronize(&self) {
        match self {
            Engine::Ours(domain) => domain.synchronize().expect("no section is open here"),
            Engine::Peer(_, here) => here.synchronize(),
        }
    }

    /// `n` read sections, and for qsbr as many quiescent states.
    fn read(&self, n: u64) {
        match self {
            Engine::Ours(domain) => (0..n).for_each(|_| drop(domain.read())),
            Engine::Peer(_, here) => here.quiet_pairs(n),
        }
    }

    /// A section that is as long as `f`.
    fn section(&self, f: impl FnOnce()) {
        match self {
            Engine::Ours(domain) => {
                let _guard = domain.read();
                f();
            }
            Engine::Peer(_, here) => {
                here.section(f);
                here.quiescent();
            }
        }
    }
}

/// Runs `f`, which may sleep, while none of the engines waits for this thread.
fn offline<R>(engines: &[Engine], f: impl FnOnce() -> R) -> R {
    match engines.split_first() {
        None => f(),
        Some((Engine::Ours(_), rest)) => offline(rest, f),
        Some((Engine::Peer(_, here), rest)) => here.offline(|| offline(rest, f)),
    }
}
