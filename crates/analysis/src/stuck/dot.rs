//! The graph in the language of Graphviz.

use super::Explanation;
use super::graph::{Confidence, Node};
use crate::escape;
use std::fmt::Write;

pub(super) fn text(explanation: &Explanation) -> String {
    let mut out = String::from("digraph stuck {\n  rankdir=LR;\n  node [shape=box];\n");
    for (place, account) in explanation.accounts.iter().enumerate() {
        let id = |node: &Node| quoted(&format!("{place} {node}"));
        let ends: Vec<&Node> = account.chains.iter().map(|c| &c.end).collect();
        let mut nodes: Vec<&Node> = account.edges.iter().flat_map(|e| [&e.from, &e.to]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let label = match node {
                Node::Task(pid) => format!("{}/{pid}", account.tasks.get(pid).map_or("", |c| c)),
                other => other.to_string(),
            };
            let style = if ends.contains(&node) { ", penwidth=3" } else { "" };
            let _ = writeln!(out, "  {} [label={}{style}];", id(node), quoted(&label));
        }
        for edge in &account.edges {
            let style = match edge.confidence {
                Confidence::Printed => "bold",
                Confidence::Derived => "solid",
                Confidence::Guess => "dashed",
            };
            let label = quoted(edge.kind.words());
            let (from, to) = (id(&edge.from), id(&edge.to));
            let _ = writeln!(out, "  {from} -> {to} [label={label}, style={style}];");
        }
    }
    out += "}\n";
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escape::name(text).replace('"', "'"))
}
