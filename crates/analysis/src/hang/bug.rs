//! An explanation as the report of a bug: what somebody who was not there needs, in numbered steps.
//!
//! It says what the log shows. It names no commit and blames nobody; where the log ends, so does it.

use super::Explanation;
use crate::escape;
use crate::stuck::account::{Account, Chain, Verdict};
use crate::stuck::graph::{Edge, EdgeKind, Node};
use crate::stuck::node;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Frames of a stack that are shown.
const FRAMES: usize = 32;
/// Tasks that are listed as affected.
const TASKS: usize = 12;

/// Whether a workaround is for a chain, and what it is.
type Workaround = (fn(&Chain) -> bool, &'static str);

/// What helps until the cause is found, by what a chain runs into. The first row that fits is told.
const WORKAROUNDS: &[Workaround] = &[
    (
        |chain| meets(chain, |node| matches!(node, Node::Event(e) if e.contains("storm (perf)"))),
        "Lower the rate of the interrupts: kernel.perf_event_max_sample_rate, or \
         kernel.perf_cpu_time_max_percent (25 by default; 0 switches the limit off). Close events one after \
         the other and not all at once.",
    ),
    (
        |chain| {
            chain.verdict == Verdict::Cycle
                && chain.hops.iter().all(|e| e.kind == EdgeKind::HeldTaking)
        },
        "None is needed as long as the two paths do not meet.",
    ),
    (
        |chain| chain.verdict == Verdict::Cycle,
        "None: these tasks wait for each other until the machine is restarted (sysrq-s, sysrq-u, sysrq-b).",
    ),
    (
        |chain| meets(chain, |node| *node == Node::Freeze),
        "Thaw the file system: fsfreeze -u MOUNTPOINT.",
    ),
    (
        |chain| meets(chain, |node| matches!(node, Node::Io(_))),
        "See whether the device still answers (its driver's messages, another machine); if it does not, \
         take it out of use or reset it: what waits goes on with errors.",
    ),
    (
        |chain| {
            meets(chain, |node| matches!(node, Node::Gp(_))) && chain.verdict == Verdict::Culprit
        },
        "Let the task at the end of the chain go on or end it, if it can be ended: what waits for the \
         grace period then goes on.",
    ),
];

fn meets(chain: &Chain, what: impl Fn(&Node) -> bool) -> bool {
    chain.hops.iter().any(|hop| what(&hop.from) || what(&hop.to)) || what(&chain.end)
}

pub(super) fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    let title = explanation.shown_title();
    let title = title.as_deref().unwrap_or("a hang without a complaint of the kernel");
    for (at, account) in explanation.accounts.iter().enumerate() {
        match at {
            0 => out += &format!("# {}\n", escape::name(title)),
            at => out += &format!("\n# Incident {}\n", at + 1),
        }
        report(account, &mut out);
    }
    if explanation.accounts.is_empty() {
        let _ = writeln!(out, "# no hang in {} lines", explanation.lines);
    }
    if let Some(more) = explanation.left_out() {
        let _ = writeln!(out, "\n{more}.");
    }
    out
}

fn report(account: &Account, out: &mut String) {
    let (from, to) = account.lines;
    let _ = writeln!(out, "\n## Summary\n");
    match account.chains.first() {
        Some(chain) => {
            let _ =
                writeln!(out, "{} (lines {from} to {to} of the log).", escape::name(&chain.words));
        }
        None => {
            let _ = writeln!(out, "Unknown: the log does not show what anybody waits for.");
        }
    }
    let _ = writeln!(out, "Severity: {}.", severity(account));
    *out += "\n## Complaints of the kernel\n\n";
    for complaint in account.symptoms.iter().take(TASKS) {
        let _ = writeln!(out, "- line {}: {}", complaint.line, escape::name(&complaint.text));
    }
    more(account.symptoms.len(), TASKS, out);
    chains(account, out);
    contexts(account, out);
    affected(account, out);
    if !account.besides.is_empty() {
        *out += "\n## Seen beside\n\n";
    }
    for sight in &account.besides {
        let text = escape::name(&sight.text);
        let _ =
            writeln!(out, "- {}: {} lines, first {}: {text}", sight.name, sight.count, sight.line);
    }
    *out += "\n## Workaround\n\n";
    let known =
        account.chains.first().and_then(|chain| WORKAROUNDS.iter().find(|row| row.0(chain)));
    let _ = writeln!(out, "{}", known.map_or("None is known for this mechanism.", |row| row.1));
    if !account.unexplained.is_empty() {
        *out += "\n## Not explained\n\n";
    }
    for one in account.unexplained.iter().take(TASKS) {
        let _ = writeln!(out, "- {}", escape::name(one));
    }
    more(account.unexplained.len(), TASKS, out);
    if !account.collect.is_empty() {
        *out += "\n## To collect\n\n";
    }
    for what in &account.collect {
        let _ = writeln!(out, "- {what}");
    }
}

fn severity(account: &Account) -> String {
    let stuck: BTreeSet<&Node> = account.symptoms.iter().filter_map(|c| c.node.as_ref()).collect();
    let how_many = match stuck.len() {
        1 => "one complaint".to_owned(),
        many => format!("{many} complaints"),
    };
    let kind = match account.chains.first() {
        Some(chain) if chain.hops.iter().any(|e| e.kind == EdgeKind::HeldTaking) => {
            return "a warning; nobody is stuck by it".to_owned();
        }
        Some(Chain { verdict: Verdict::Cycle, .. }) => "a deadlock, which does not end by itself",
        Some(Chain { verdict: Verdict::Culprit, .. }) => {
            "tasks are stuck as long as the one at the end of the chain does not go on"
        }
        _ => "tasks are stuck; whether for ever, the log does not say",
    };
    format!("{kind} ({how_many})")
}

fn chains(account: &Account, out: &mut String) {
    for (at, chain) in account.chains.iter().enumerate().filter(|(_, chain)| !chain.hops.is_empty())
    {
        let which = if at == 0 { String::new() } else { format!(" {}", at + 1) };
        let _ = writeln!(out, "\n## Chain{which}\n");
        for (number, hop) in (1..).zip(&chain.hops) {
            let _ = writeln!(out, "{number}. {}", step(account, hop));
        }
        let _ = writeln!(out, "{}. {}.", chain.hops.len() + 1, escape::name(&chain.words));
    }
}

fn step(account: &Account, hop: &Edge) -> String {
    let lines: Vec<String> = hop.lines.iter().take(4).map(u32::to_string).collect();
    format!(
        "{} {} {} ({}; line {}; {})",
        node(account, &hop.from),
        hop.kind.words(),
        node(account, &hop.to),
        escape::name(&hop.why),
        lines.join(", "),
        hop.confidence.words()
    )
}

fn contexts(account: &Account, out: &mut String) {
    if account.stacks.is_empty() {
        return;
    }
    *out += "\n## Contexts\n";
    for (number, stack) in (1..).zip(&account.stacks) {
        let who = node(account, &Node::Task(stack.pid));
        let work = stack.work.as_ref().map(|work| format!(", work {}", escape::name(work)));
        let _ = writeln!(out, "\n{number}. {who}{}\n", work.unwrap_or_default());
        out.push_str("```\n");
        for frame in stack.frames.iter().take(FRAMES) {
            let function = escape::name(&frame.function);
            let source = frame.source.as_ref().map(|s| format!("  [{}]", escape::name(s)));
            let inlined = if frame.inlined { "  (inlined)" } else { "" };
            let _ = writeln!(out, "{function}{}{inlined}", source.unwrap_or_default());
        }
        more(stack.frames.len(), FRAMES, out);
        out.push_str("```\n");
    }
}

fn affected(account: &Account, out: &mut String) {
    let mut tasks: BTreeSet<u32> =
        account.chains.iter().flat_map(|c| c.same_root.clone()).collect();
    let sufferers = account.symptoms.iter().filter_map(|c| match c.node {
        Some(Node::Task(pid)) => Some(pid),
        _ => None,
    });
    tasks.extend(sufferers);
    if tasks.is_empty() {
        return;
    }
    *out += "\n## Affected\n\n";
    for pid in tasks.iter().take(TASKS) {
        let _ = writeln!(out, "- {}", node(account, &Node::Task(*pid)));
    }
    more(tasks.len(), TASKS, out);
}

fn more(all: usize, shown: usize, out: &mut String) {
    if all > shown {
        let _ = writeln!(out, "- and {} more", all - shown);
    }
}
