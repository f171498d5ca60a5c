//! The graph as a page that needs nothing else: boxes in columns, arrows, and the account in words.

use super::Explanation;
use super::account::Account;
use super::graph::{Confidence, Edge, Node};
use super::tell::node;
use crate::escape;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Most boxes of a drawing; what is not on a chain is left out first.
const BOXES: usize = 80;
const WIDTH: usize = 230;
const HEIGHT: usize = 40;
const COLUMN: usize = WIDTH + 130;
const ROW: usize = HEIGHT + 26;
/// How far below the boxes a way back bends.
const BACK: usize = 44;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c1c1c;--paper:#fff;--line:#667;--box:#eef1f6;--end:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#17181b;--line:#99a;--box:#272a31;--end:#ff8a80}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2em}
pre{overflow-x:auto}figure{overflow-x:auto;margin:0}
svg text{fill:var(--ink);font:13px system-ui,sans-serif}
rect{fill:var(--box);stroke:var(--line)}rect.end{stroke:var(--end);stroke-width:3}
path{fill:none;stroke:var(--line);stroke-width:1.5}path.printed{stroke-width:2.5}path.guess{stroke-dasharray:5 4}
svg .label{font-size:11px}marker path{fill:var(--line);stroke:none}";

pub(super) fn text(explanation: &Explanation) -> String {
    let title = explanation.shown_title();
    let title = title.as_deref().unwrap_or("no hang");
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{0}</title>\n\
         <style>{STYLE}</style>\n<h1>{0}</h1>\n",
        escaped(title)
    );
    for account in &explanation.accounts {
        let (from, to) = account.lines;
        if to != 0 {
            let _ = writeln!(out, "<h2>lines {from} to {to}</h2>");
        }
        draw(account, &mut out);
    }
    let _ = writeln!(out, "<pre>{}</pre>\n</html>", escaped(&explanation.to_text()));
    out
}

/// Safe inside an element and inside quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        for c in escape::name(line.trim_end_matches('\n')).chars() {
            match c {
                '&' => out += "&amp;",
                '<' => out += "&lt;",
                '>' => out += "&gt;",
                '"' => out += "&quot;",
                c => out.push(c),
            }
        }
        out += end;
    }
    out
}

/// Where a box stands: column and row.
type Places<'a> = BTreeMap<&'a Node, (usize, usize)>;

fn draw(account: &Account, out: &mut String) {
    let edges = shown(account);
    let places = places(account, &edges);
    if places.is_empty() {
        return;
    }
    let columns = places.values().map(|p| p.0).max().unwrap_or(0) + 1;
    let rows = places.values().map(|p| p.1).max().unwrap_or(0) + 1;
    let (width, height) = (columns * COLUMN, rows * ROW + BACK);
    let _ = writeln!(
        out,
        "<figure><svg width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"who waits for whom\">\n\
         <marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" \
         markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker>"
    );
    edges.iter().for_each(|edge| arrow(edge, &places, out));
    let ends: BTreeSet<&Node> = account.chains.iter().map(|chain| &chain.end).collect();
    for (what, at) in &places {
        let (x, y) = corner(*at);
        let class = if ends.contains(what) { " class=\"end\"" } else { "" };
        let full = node(account, what);
        let label: String = full.chars().take(28).collect();
        let cut = if label.len() < full.len() { "…" } else { "" };
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect{class} x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             rx=\"6\"/><text x=\"{}\" y=\"{}\">{}{cut}</text></g>",
            escaped(&full),
            x + 10,
            y + 25,
            escaped(&label)
        );
    }
    *out += "</svg></figure>\n";
}

/// The edges of the chains, and of the others as many as there is room for.
fn shown(account: &Account) -> Vec<&Edge> {
    let chained = account.chains.iter().flat_map(|chain| &chain.hops);
    let mut nodes: BTreeSet<&Node> = BTreeSet::new();
    let mut edges: Vec<&Edge> = Vec::new();
    for edge in chained.chain(&account.edges) {
        let known = edges.iter().any(|e| e.from == edge.from && e.to == edge.to);
        let new = [&edge.from, &edge.to].into_iter().filter(|n| !nodes.contains(*n)).count();
        if !known && nodes.len() + new <= BOXES {
            nodes.extend([&edge.from, &edge.to]);
            edges.push(edge);
        }
    }
    edges
}

/// A column for each step from where nothing leads to; a cycle is entered where it is met first.
fn places<'a>(account: &'a Account, edges: &[&'a Edge]) -> Places<'a> {
    let mut columns: BTreeMap<&Node, usize> = BTreeMap::new();
    let led_to: BTreeSet<&Node> = edges.iter().map(|e| &e.to).collect();
    let firsts = edges.iter().map(|e| &e.from).filter(|n| !led_to.contains(*n));
    let starts = account.chains.iter().filter_map(|c| c.hops.first()).map(|hop| &hop.from);
    let mut todo: std::collections::VecDeque<(&Node, usize)> = firsts
        .chain(starts.filter(|n| edges.iter().any(|e| e.from == **n)))
        .map(|n| (n, 0))
        .collect();
    todo.extend(edges.iter().map(|e| (&e.from, 0)));
    while let Some((node, column)) = todo.pop_front() {
        if columns.contains_key(node) {
            continue;
        }
        columns.insert(node, column);
        for edge in edges.iter().filter(|e| e.from == *node).rev() {
            // Before what still waits: a chain is drawn to its end in one go.
            todo.push_front((&edge.to, column + 1));
        }
    }
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    let place = |(node, column): (&'a Node, usize)| {
        let row = rows.entry(column).or_default();
        *row += 1;
        (node, (column, *row - 1))
    };
    columns.into_iter().map(place).collect()
}

fn corner((column, row): (usize, usize)) -> (usize, usize) {
    (column * COLUMN + 10, row * ROW + 10)
}

fn arrow(edge: &Edge, places: &Places<'_>, out: &mut String) {
    let (Some(from), Some(to)) = (places.get(&edge.from), places.get(&edge.to)) else { return };
    let ((x1, y1), (x2, y2)) = (corner(*from), corner(*to));
    let class = match edge.confidence {
        Confidence::Printed => "printed",
        Confidence::Derived => "derived",
        Confidence::Guess => "guess",
    };
    let (way, x, y) = if to.0 > from.0 {
        let (x1, y1, y2) = (x1 + WIDTH, y1 + HEIGHT / 2, y2 + HEIGHT / 2);
        let bend = (x1 + x2) / 2;
        (format!("M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}"), x1 + 12, (y1 + y2) / 2 - 5)
    } else {
        // Back, below the boxes.
        let (x1, x2) = (x1 + WIDTH / 2, x2 + WIDTH / 2);
        let (y1, y2) = (y1 + HEIGHT, y2 + HEIGHT);
        let low = y1.max(y2) + BACK;
        (format!("M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}"), (x1 + x2) / 2, low - BACK / 4 - 6)
    };
    let lines: Vec<String> = edge.lines.iter().map(u32::to_string).collect();
    let shown = edge.reading.map_or_else(|| format!("line {}", lines.join(", ")), str::to_owned);
    let why = format!("{} ({shown}, {class})", edge.why);
    let _ = writeln!(
        out,
        "<g><title>{}</title><path class=\"{class}\" marker-end=\"url(#tip)\" \
         d=\"{way}\"/><text class=\"label\" x=\"{x}\" y=\"{y}\">{}</text></g>",
        escaped(&why),
        edge.kind.words()
    );
}
