//! Who waits for whom: nodes, edges with their evidence, and the two questions that are asked of
//! the graph, cycles and the longest way to an end.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that waits or is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// A task or thread, by its number.
    Task(u32),
    /// A grace period, by its flavour: `rcu`, `rcu-exp`, `rcu-barrier`, `srcu:NAME`, …; of a program, by
    /// its domain and number: `routes #7`.
    Gp(String),
    /// A lock, by its class, or by the function that takes it; a futex, by its address.
    Lock(String),
    /// A work, by its function; callbacks of a domain.
    Work(String),
    /// A workqueue or a pool of workers; the executor of a domain's callbacks.
    Queue(String),
    /// Anything else that ends by an act of somebody.
    Event(String),
    /// I/O of a device.
    Io(String),
    /// A commit of a journal.
    Commit(String),
    /// A frozen file system.
    Freeze,
    /// A CPU.
    Cpu(u32),
    /// What nobody can name, by the reason for that.
    Unknown(String),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Task(pid) => write!(f, "task:{pid}"),
            Node::Gp(name) => write!(f, "gp:{name}"),
            Node::Lock(name) => write!(f, "lock:{name}"),
            Node::Work(name) => write!(f, "work:{name}"),
            Node::Event(name) => write!(f, "wait:{name}"),
            Node::Io(name) => write!(f, "io:{name}"),
            Node::Commit(name) => write!(f, "commit:{name}"),
            Node::Freeze => f.write_str("freeze:file system"),
            Node::Queue(name) => write!(f, "queue:{name}"),
            Node::Cpu(number) => write!(f, "cpu:{number}"),
            Node::Unknown(why) => write!(f, "unknown:{why}"),
        }
    }
}

impl Serialize for Node {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an edge means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeKind {
    /// A task sleeps until this is over.
    WaitsFor,
    /// A lock, and who has it.
    HeldBy,
    /// A CPU, and what runs on it.
    RunBy,
    /// Who has to do something for it to end.
    CompletedBy,
    /// A grace period, and what it waits for.
    HeldUpBy,
    /// A CPU burns its time until it gets the lock.
    SpinsOn,
    /// A lock, and another that is taken while it is held.
    HeldTaking,
    /// It could go on, and gets no CPU.
    StarvedBy,
}

impl EdgeKind {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            EdgeKind::WaitsFor => "waits for",
            EdgeKind::HeldBy => "held by",
            EdgeKind::RunBy => "runs",
            EdgeKind::CompletedBy => "completed by",
            EdgeKind::HeldUpBy => "held up by",
            EdgeKind::SpinsOn => "spins on",
            EdgeKind::HeldTaking => "held while taking",
            EdgeKind::StarvedBy => "starved by",
        }
    }
}

/// How sure an edge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// From the name of a function alone.
    Guess,
    /// From two or more lines that fit together.
    Derived,
    /// The kernel says so, or the program itself.
    Printed,
}

impl Confidence {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Confidence::Guess => "guess",
            Confidence::Derived => "derived",
            Confidence::Printed => "printed",
        }
    }
}

/// One hop.
#[derive(Debug, Clone, Serialize)]
pub struct Edge {
    /// Who waits.
    pub from: Node,
    /// For what.
    pub to: Node,
    /// What the hop means.
    pub kind: EdgeKind,
    /// How sure it is.
    pub confidence: Confidence,
    /// Which rule found it.
    pub rule: &'static str,
    /// Lines of the log that show it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<u32>,
    /// Where it was read, in a program that lives: `agent`, `/proc/PID/task/TID/stat`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading: Option<&'static str>,
    /// The functions or words that show it.
    pub why: String,
}

/// The whole graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) edges: Vec<Edge>,
    out: BTreeMap<Node, Vec<usize>>,
}

/// Most edges of a graph.
const EDGES: usize = 20_000;

impl Graph {
    /// Adds an edge; of two between the same nodes the surer one stays.
    pub(crate) fn add(&mut self, edge: Edge) {
        if edge.from == edge.to || self.edges.len() >= EDGES {
            return;
        }
        let places = self.out.entry(edge.from.clone()).or_default();
        let known = places.iter().copied().find(|&at| self.edges[at].to == edge.to);
        match known {
            Some(at) if self.edges[at].confidence >= edge.confidence => {}
            Some(at) => self.edges[at] = edge,
            None => {
                places.push(self.edges.len());
                self.edges.push(edge);
            }
        }
    }

    /// Where a node's edges go.
    pub(crate) fn from(&self, node: &Node) -> impl Iterator<Item = &Edge> {
        let places = self.out.get(node).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|&at| &self.edges[at])
    }

    pub(crate) fn has_end(&self, node: &Node) -> bool {
        self.from(node).next().is_none()
    }

    /// Everything that can be reached from a node, itself included.
    pub(crate) fn reach(&self, start: &Node) -> BTreeSet<Node> {
        let mut seen = BTreeSet::from([start.clone()]);
        let mut todo = vec![start.clone()];
        while let Some(node) = todo.pop() {
            for edge in self.from(&node) {
                if seen.insert(edge.to.clone()) {
                    todo.push(edge.to.clone());
                }
            }
        }
        seen
    }

    /// A cycle that begins and ends at this node, as edges.
    pub(crate) fn cycle(&self, start: &Node) -> Option<Vec<&Edge>> {
        // Breadth first: the shortest one is the clearest.
        let mut came: BTreeMap<&Node, &Edge> = BTreeMap::new();
        let mut todo = std::collections::VecDeque::from([start]);
        while let Some(node) = todo.pop_front() {
            for edge in self.from(node) {
                if edge.to == *start {
                    let mut path = vec![edge];
                    while path[path.len() - 1].from != *start {
                        path.push(came[&path[path.len() - 1].from]);
                    }
                    path.reverse();
                    return Some(path);
                }
                if !came.contains_key(&edge.to) {
                    came.insert(&edge.to, edge);
                    todo.push_back(&edge.to);
                }
            }
        }
        None
    }

    /// The longest way to `end` from any of `starts`, as edges.
    pub(crate) fn longest(&self, starts: &BTreeSet<Node>, end: &Node) -> Vec<&Edge> {
        // From the end backwards, a layer at a time; a node is entered once, so cycles do no harm.
        let mut back: BTreeMap<&Node, Vec<&Edge>> = BTreeMap::new();
        for edge in &self.edges {
            back.entry(&edge.to).or_default().push(edge);
        }
        let mut next: BTreeMap<&Node, &Edge> = BTreeMap::new();
        let mut layer = vec![end];
        let mut farthest = None;
        while !layer.is_empty() {
            let mut further = Vec::new();
            for node in layer {
                for edge in back.get(node).into_iter().flatten() {
                    if edge.from != *end && !next.contains_key(&edge.from) {
                        next.insert(&edge.from, edge);
                        further.push(&edge.from);
                    }
                }
            }
            // Of several that are as far away, a task: it is somebody.
            let begins = || further.iter().copied().filter(|node| starts.contains(*node));
            let task = begins().find(|node| matches!(node, Node::Task(_)));
            farthest = task.or(begins().next()).or(farthest);
            layer = further;
        }
        let mut path = Vec::new();
        let mut at = farthest;
        while let Some(edge) = at.and_then(|node| next.get(node)) {
            path.push(*edge);
            at = Some(&edge.to);
        }
        path
    }
}
