//! Stacks of spans and calls, and the time spent in each: text for programs that draw flame graphs, or the
//! drawing itself, by `inferno`.
//!
//! A span's time without that of its children goes to its stack: the thread on which it began, the spans
//! that were open around it, itself. Threads of one name are added up. A span that has not ended is not
//! counted.

use super::{Note, Record, Sink, Span, Thread};
use crate::{Error, EventType, Result, Trace, Value, escape};
use inferno::flamegraph;
use std::collections::HashMap;

/// Different stacks; what would be one more is counted where it was called from.
const MOST_NODES: usize = 1 << 17;

/// A frame of a stack.
struct Node {
    /// The frame outside; itself for a thread.
    parent: u32,
    /// Position among `names`.
    name: u32,
    self_ns: u64,
}

pub(super) struct Folded {
    out: Vec<u8>,
    /// Whether to draw.
    draw: bool,
    title: String,
    /// Of spans by position in the trace's events, then of threads.
    names: Vec<String>,
    by_name: HashMap<String, u32>,
    nodes: Vec<Node>,
    /// By frame outside (`u32::MAX` for a thread) and name.
    by_place: HashMap<(u32, u32), u32>,
}

impl Folded {
    pub(super) fn new(trace: &Trace, kinds: &[EventType], draw: bool) -> Folded {
        let program = crate::info::program(trace).name;
        let title = match program.is_empty() {
            true => "Spans".to_owned(),
            false => format!("Spans of {}", escape::name(&program)),
        };
        let names = kinds.iter().map(|event| frame(&event.declared.schema.name));
        Folded {
            out: Vec::new(),
            draw,
            title,
            names: names.collect(),
            by_name: HashMap::new(),
            nodes: Vec::new(),
            by_place: HashMap::new(),
        }
    }

    /// The frame called `name` inside `parent`; where there are too many, `parent`.
    fn node(&mut self, parent: Option<u32>, name: u32) -> u32 {
        let key = (parent.unwrap_or(u32::MAX), name);
        if let Some(&node) = self.by_place.get(&key) {
            return node;
        }
        let node = self.nodes.len() as u32;
        if self.nodes.len() >= MOST_NODES {
            return parent.unwrap_or(0);
        }
        self.nodes.push(Node { parent: parent.unwrap_or(node), name, self_ns: 0 });
        self.by_place.insert(key, node);
        node
    }

    fn thread_name(&mut self, thread: &Thread) -> u32 {
        let mut label = frame(&thread.label());
        if self.by_name.len() >= MOST_NODES && !self.by_name.contains_key(&label) {
            label = "(other_threads)".to_owned();
        }
        if let Some(&name) = self.by_name.get(&label) {
            return name;
        }
        let name = self.names.len() as u32;
        self.names.push(label.clone());
        self.by_name.insert(label, name);
        name
    }

    /// One line for each stack, sorted.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (node, at) in self.nodes.iter().zip(0..).filter(|(node, _)| node.self_ns > 0) {
            let mut stack = vec![node.name];
            let mut at: u32 = at;
            while self.nodes[at as usize].parent != at {
                at = self.nodes[at as usize].parent;
                stack.push(self.nodes[at as usize].name);
            }
            let names: Vec<&str> =
                stack.iter().rev().map(|&name| self.names[name as usize].as_str()).collect();
            lines.push(format!("{} {}", names.join(";"), node.self_ns.div_ceil(1000)));
        }
        lines.sort();
        lines
    }
}

/// A name as a frame: no separators, and no spaces, since the last one stands before the number and
/// what follows the one before may be taken for another number.
pub(super) fn frame(name: &str) -> String {
    let name = escape::name(name);
    name.chars()
        .map(|c| {
            if c == ';' {
                ':'
            } else if c.is_whitespace() {
                '_'
            } else {
                c
            }
        })
        .collect()
}

impl Sink for Folded {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn thread(&mut self, _at: usize, _thread: &Thread) {}

    fn begin(&mut self, _ns: u64, thread: &Thread, kind: u32, parent: Option<u32>) -> u32 {
        let parent = parent.unwrap_or_else(|| {
            let name = self.thread_name(thread);
            self.node(None, name)
        });
        self.node(Some(parent), kind)
    }

    fn span(&mut self, span: &Span<'_>) {
        let Some(end_ns) = span.end_ns.filter(|_| !span.open.whole) else { return };
        let ns = (end_ns - span.open.begin_ns).saturating_sub(span.open.inside_ns);
        let node = &mut self.nodes[span.open.node as usize];
        node.self_ns = node.self_ns.saturating_add(ns);
    }

    fn instant(&mut self, _thread: usize, _ns: u64, _record: Record<'_>) {}

    fn note(&mut self, _note: &Note<'_>) {}

    fn sample(&mut self, _counter: usize, _ns: u64, _value: &Value<'_>) {}

    fn finish(&mut self) -> Result<()> {
        let lines = self.lines();
        if !self.draw {
            for line in lines {
                self.out.extend_from_slice(line.as_bytes());
                self.out.push(b'\n');
            }
            return Ok(());
        }
        if lines.is_empty() {
            return Err(Error::new(
                "there is no flame graph to draw: no span ended among the chosen events; `gracepoint \
                 info` lists what there is",
            ));
        }
        self.out.extend(draw(&lines, self.title.clone())?);
        Ok(())
    }
}

/// A flame graph of folded lines whose numbers are microseconds.
pub(super) fn draw(lines: &[String], title: String) -> Result<Vec<u8>> {
    let mut options = flamegraph::Options::default();
    options.title = title;
    options.count_name = "µs".into();
    options.deterministic = true;
    let mut drawn = Vec::new();
    let lines = lines.iter().map(String::as_str);
    flamegraph::from_lines(&mut options, lines, &mut drawn)
        .map_err(|e| Error::new(format!("cannot draw the flame graph: {e}")))?;
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_one_word() {
        for (name, want) in [
            ("db:query", "db:query"),
            ("a;b c 7", "a:b_c_7"),
            ("x\ny\u{2028}\u{a0}z", "x\\ny\\u{2028}_z"),
        ] {
            assert_eq!(frame(name), want);
        }
    }
}
