//! Kinds of wait that logs show in layouts of their own, each with a log in which it occurs, and logs that differ
//! from it in one thing and must not be read the same.

use super::{chain, read};
use gracepoint_analysis::hang::{Confidence, Explanation, Verdict};

const STALE: &[u8] = include_bytes!("stale.log");

/// Whether the log has this hop, and how sure it is.
fn hop(explanation: &Explanation, from: &str, to: &str) -> Option<Confidence> {
    let mut edges = explanation.accounts.iter().flat_map(|account| &account.edges);
    let found = edges.find(|e| e.from.to_string() == from && e.to.to_string() == to)?;
    Some(found.confidence)
}

#[test]
fn frames_that_the_kernel_does_not_trust_are_better_than_no_stack() {
    let explanation = read(STALE);
    assert_eq!(explanation.title.as_deref(), Some("INFO: task hung in qx_commit_table"));
    let (nodes, verdict) = chain(&explanation);
    assert_eq!(nodes, ["task:2711", "lock:mutex in qx_commit_table", "task:2702", "gp:rcu-sched"]);
    assert_eq!(verdict, Verdict::Unknown);
    for edge in &explanation.accounts[0].edges {
        assert_eq!(edge.confidence, Confidence::Guess, "{edge:?}");
    }
    // One that is trusted is enough to leave the others out.
    let text = String::from_utf8_lossy(STALE).replace("] ? schedule_timeout", "] schedule_timeout");
    let mixed = read(text.replace("] ? wait_for_common", "] wait_for_common").as_bytes());
    assert_eq!(hop(&mixed, "task:2702", "gp:rcu-sched"), None);
    assert_eq!(hop(&mixed, "task:2702", "wait:wait_for_common"), Some(Confidence::Derived));
    assert_eq!(
        hop(&mixed, "task:2711", "lock:mutex in qx_commit_table"),
        Some(Confidence::Guess),
        "each stack by itself"
    );
}
