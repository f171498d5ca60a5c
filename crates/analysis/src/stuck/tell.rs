//! An explanation as text. Names come from the log, and a log may hold anything: they are escaped.

use super::Explanation;
use super::account::{Account, Chain, Verdict};
use super::graph::{Confidence, Edge, EdgeKind, Node};
use crate::escape;
use std::fmt::Write;

/// Frames of a stack that are shown.
const FRAMES: usize = 20;
/// Hops of one chain that are shown.
const HOPS: usize = 40;

pub(super) fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    match explanation.shown_title() {
        Some(title) => out += &format!("{}\n", escape::name(&title)),
        None if explanation.accounts.is_empty() => {
            out += &format!("no hang in {} lines\n", explanation.lines);
        }
        None => {}
    }
    for (at, account) in explanation.accounts.iter().enumerate() {
        if explanation.accounts.len() > 1 {
            let (from, to) = account.lines;
            let _ = writeln!(out, "\nincident {}, lines {from} to {to}", at + 1);
        }
        tell(account, &mut out);
    }
    if let Some(more) = explanation.left_out() {
        let _ = writeln!(out, "\n{more}");
    }
    out
}

fn tell(account: &Account, out: &mut String) {
    for chain in &account.chains {
        chain_text(account, chain, out);
    }
    if account.chains.is_empty() {
        *out += "\nunknown: the log does not show what anybody waits for\n";
    }
    for sight in &account.besides {
        let text = escape::name(&sight.text);
        if sight.line == 0 {
            let _ = writeln!(out, "beside: {}, {text}", sight.name);
            continue;
        }
        let _ = writeln!(
            out,
            "beside: {}, {} lines, first {}: {text}",
            sight.name, sight.count, sight.line
        );
    }
    match account.unexplained.as_slice() {
        [] => *out += "not explained: nothing\n",
        some => {
            let _ = writeln!(out, "not explained:");
            for one in some.iter().take(8) {
                let _ = writeln!(out, "  {}", escape::name(one));
            }
            if some.len() > 8 {
                let _ = writeln!(out, "  and {} more", some.len() - 8);
            }
        }
    }
    for stack in &account.stacks {
        let work = stack.work.as_ref().map(|w| format!(", work {}", escape::name(w)));
        let name = node(account, &Node::Task(stack.pid));
        let _ = writeln!(out, "\nstack of {name}{}", work.unwrap_or_default());
        for frame in stack.frames.iter().take(FRAMES) {
            let function = escape::name(&frame.function);
            let source = frame.source.as_ref().map(|s| format!("  {}", escape::name(s)));
            let inline = if frame.inlined { "  (inlined)" } else { "" };
            let _ = writeln!(out, "  {function}{}{inline}", source.unwrap_or_default());
        }
        if stack.frames.len() > FRAMES {
            let _ = writeln!(out, "  … {} more", stack.frames.len() - FRAMES);
        }
    }
    if !account.collect.is_empty() {
        *out += "\nto know more, collect\n";
        for what in &account.collect {
            let _ = writeln!(out, "  - {what}");
        }
    }
    if account.dropped > 0 {
        let _ = writeln!(out, "\n{} things were left out: the log has too many", account.dropped);
    }
}

fn chain_text(account: &Account, chain: &Chain, out: &mut String) {
    *out += "\n";
    let hop = |edge: &Edge| {
        let lines: Vec<String> = edge.lines.iter().take(3).map(u32::to_string).collect();
        [
            node(account, &edge.from),
            words(edge).to_owned(),
            node(account, &edge.to),
            escape::name(&edge.why),
            edge.reading.map_or_else(|| format!("line {}", lines.join(", ")), str::to_owned),
            edge.confidence.words().to_owned(),
        ]
    };
    let rows: Vec<[String; 6]> = chain.hops.iter().take(HOPS).map(hop).collect();
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        widest.min(44)
    };
    let widths = [width(0), width(1), width(2), width(3), width(4)];
    for row in &rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        let _ = writeln!(out, "  {}{}", text, row[5]);
    }
    let label = match chain.verdict {
        Verdict::Culprit if chain.confidence == Confidence::Guess => "likely culprit: ",
        Verdict::Culprit => "culprit: ",
        Verdict::Cycle => "cycle: ",
        Verdict::Unknown => "",
    };
    let words = escape::name(&chain.words);
    let sure = match chain.confidence {
        _ if chain.hops.is_empty() => String::new(),
        Confidence::Printed if chain.hops.iter().any(|hop| hop.reading.is_some()) => {
            ". The program says each hop".to_owned()
        }
        Confidence::Printed => ". The kernel printed each hop".to_owned(),
        sure => format!(". Weakest hop: {}", sure.words()),
    };
    let _ = writeln!(out, "{label}{words}{sure}.");
    if !chain.same_root.is_empty() {
        let names: Vec<String> =
            chain.same_root.iter().take(6).map(|pid| node(account, &Node::Task(*pid))).collect();
        let more = chain.same_root.len().saturating_sub(6);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(out, "same root: {}{more}", names.join(", "));
    }
}

/// What a hop means, in words.
fn words(edge: &Edge) -> &'static str {
    match (&edge.from, edge.kind) {
        (Node::Work(_), EdgeKind::RunBy) => "run by",
        (_, kind) => kind.words(),
    }
}

/// A node in words, safe for a terminal.
pub(crate) fn node(account: &Account, node: &Node) -> String {
    let name = match node {
        Node::Task(pid) => match account.tasks.get(pid) {
            Some(comm) if !comm.is_empty() => format!("{comm}/{pid}"),
            _ => format!("task {pid}"),
        },
        Node::Gp(flavour) => match flavour.strip_prefix("srcu:") {
            Some(domain) => format!("SRCU grace period ({domain})"),
            // Of a program: its domain and number.
            None if flavour.contains(" #") => format!("grace period {flavour}"),
            None => format!("{} grace period", flavour.to_uppercase()),
        },
        Node::Lock(name) => name.clone(),
        Node::Work(name) => format!("work {name}"),
        Node::Queue(name) | Node::Unknown(name) => name.clone(),
        Node::Event(name) => name.clone(),
        Node::Io(name) => format!("I/O of {name}"),
        Node::Commit(name) => format!("commit of {name}"),
        Node::Freeze => "frozen file system".to_owned(),
        Node::Cpu(number) => format!("CPU {number}"),
    };
    escape::name(&name)
}
