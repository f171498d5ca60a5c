//! Lockdep's reports of locks that are taken in orders that can deadlock.
//!
//! ```text
//! repro/4091 is trying to acquire lock:
//! ffff8880 (&a){+.+.}-{3:3}, at: take_a+0x1/0x2
//! but task is already holding lock:
//! ffff8881 (&b){+.+.}-{3:3}, at: take_b+0x1/0x2
//! the existing dependency chain (in reverse order) is:
//! -> #1 (&b){+.+.}-{3:3}:          taken while the lock of the highest number's successor, #0, is held
//!        stack
//! -> #0 (&a){+.+.}-{3:3}:          taken while #1 is held
//!        stack
//! ```
//!
//! So whoever has #k+1 goes on to take #k, and whoever has #0 the highest: a circle of locks. It is a
//! warning about what can happen. Nobody need be stuck, so these locks are nodes of their own, which
//! no task that waits for a lock of the same class leads to.

use super::frame::{self, Frame};
use super::line::{after, find, leading_number};
use super::parse::{lock_class, text};
use super::rules::{LOCK_WRAPPERS, fits_any};
use crate::stuck::graph::{Confidence, Edge, EdgeKind, Graph, Node};

/// Most locks of one report (lockdep's own limit for a chain is 64).
const LOCKS: usize = 64;

/// A lock of such a report.
#[derive(Debug, Clone)]
pub(super) struct Ordered {
    pub(super) class: String,
    /// Where it is taken.
    pub(super) at: Option<String>,
    pub(super) line: u32,
}

/// A report.
#[derive(Debug, Default)]
pub(super) struct LockOrder {
    /// `repro/4091`.
    who: String,
    wanted: Option<Ordered>,
    held: Option<Ordered>,
    /// `#n` … `#0`, as they are listed.
    chain: Vec<Ordered>,
    /// Which lock the next line names.
    next: Next,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Next {
    #[default]
    Nothing,
    Wanted,
    Held,
}

impl LockOrder {
    /// A line of the report. Whether it was one.
    pub(super) fn line(&mut self, body: &[u8], number: u32) -> bool {
        if let Some(end) = find(body, b" is trying to acquire lock") {
            self.who = text(&body[..end]);
            self.next = Next::Wanted;
            return true;
        }
        if find(body, b"already holding lock").is_some() {
            self.next = Next::Held;
            return true;
        }
        if let Some((_, rest)) = body.strip_prefix(b"-> #").and_then(leading_number) {
            if let Some(lock) = lock(rest, number)
                && self.chain.len() < LOCKS
            {
                self.chain.push(lock);
            }
            return true;
        }
        let place = match self.next {
            Next::Nothing => return false,
            Next::Wanted => &mut self.wanted,
            Next::Held => &mut self.held,
        };
        let Some(lock) = lock(body, number) else { return false };
        *place = Some(lock);
        self.next = Next::Nothing;
        true
    }

    /// A frame of the stack below a lock of the chain.
    pub(super) fn frame(&mut self, frame: &Frame) {
        let name = frame.function.as_str();
        let about_locks = fits_any(LOCK_WRAPPERS, name)
            || ["lock_acquire", "check_prev", "validate_chain", "__lock_acquire", "check_prevs"]
                .iter()
                .any(|own| name.starts_with(own));
        if let Some(lock) = self.chain.last_mut()
            && lock.at.is_none()
            && !about_locks
        {
            lock.at = Some(name.to_owned());
        }
    }

    /// The lock at which its chain begins: the one that was asked for.
    pub(super) fn start(&self) -> Option<Node> {
        let lock = self.chain.last().or(self.wanted.as_ref())?;
        (!self.circle().is_empty()).then(|| node(lock))
    }

    /// The locks in the order in which one is held while the next is taken.
    fn circle(&self) -> Vec<&Ordered> {
        match (self.chain.as_slice(), &self.wanted, &self.held) {
            ([_, _, ..], _, _) => self.chain.iter().collect(),
            (_, Some(wanted), Some(held)) if wanted.class == held.class => vec![held, wanted],
            _ => Vec::new(),
        }
    }

    /// Adds its circle.
    pub(super) fn link(&self, graph: &mut Graph) {
        let circle = self.circle();
        let Some((first, last)) = circle.first().zip(circle.last()) else { return };
        if first.class == last.class {
            // One class inside itself, which may be two locks that have a rule between them.
            let again = Node::Lock(format!("another {} [order]", last.class));
            graph.add(self.edge(node(first), again.clone(), last));
            graph.add(self.edge(again, node(first), first));
            return;
        }
        for pair in circle.windows(2) {
            graph.add(self.edge(node(pair[0]), node(pair[1]), pair[1]));
        }
        graph.add(self.edge(node(last), node(first), first));
    }

    fn edge(&self, from: Node, to: Node, taken: &Ordered) -> Edge {
        let at = taken.at.as_deref().unwrap_or("an unknown place");
        let now = self.chain.last().is_some_and(|asked| asked.line == taken.line);
        let why = if now { format!("{at}, by {}", self.who) } else { at.to_owned() };
        Edge {
            from,
            to,
            kind: EdgeKind::HeldTaking,
            confidence: Confidence::Printed,
            rule: "lock-order",
            reading: None,
            lines: vec![taken.line],
            why,
        }
    }
}

fn node(lock: &Ordered) -> Node {
    Node::Lock(format!("{} [order]", lock.class))
}

/// ` (&a){+.+.}-{3:3}, at: take_a+0x1/0x2`.
fn lock(body: &[u8], line: u32) -> Option<Ordered> {
    let (open, close) = (find(body, b"(")?, find(body, b"){")?);
    if open >= close {
        return None;
    }
    let at = after(body, b", at: ").and_then(|at| frame::parse_function(at, line));
    let class = lock_class(&body[open + 1..close]);
    Some(Ordered { class, at: at.map(|frame| frame.function), line })
}
