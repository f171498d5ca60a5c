//! From the graph to an account that a person can follow: chains from symptoms to their end, what
//! the end is, what it explains and what it does not.
//!
//! What is known of the nodes beside the graph is asked of a `Scene`: a log, or a program that lives.

use super::Frame;
use super::graph::{Confidence, Edge, Graph, Node};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Most chains that are told of one incident.
pub(crate) const CHAINS: usize = 3;

/// What is known of the nodes of a graph beside its edges.
pub(crate) trait Scene {
    /// A task's name and number, as a part of a sentence.
    fn name(&self, task: u32) -> String;

    /// What the end of a chain is, in words; the end may be told to lie one node before.
    fn end(&self, end: Node, hops: &[Edge]) -> (Node, Verdict, String);

    /// Whether something is known of a task that complains and waits for nothing that is known.
    fn knows_of(&self, task: u32) -> bool;
}

/// What was seen in one stretch of the log, or in one look at a program.
#[derive(Debug, Default, Serialize)]
pub struct Account {
    /// First and last line of the log that belong to it.
    pub lines: (u32, u32),
    /// Who complained, in the kernel's words.
    pub symptoms: Vec<Complaint>,
    /// From symptom to end, the one that explains most first.
    pub chains: Vec<Chain>,
    /// All edges that were found.
    pub edges: Vec<Edge>,
    /// Names of the tasks that occur.
    pub tasks: BTreeMap<u32, String>,
    /// Symptoms that no chain explains, and stacks that are missing.
    pub unexplained: Vec<String>,
    /// What was seen beside and may be a cause: it is no link of a chain.
    pub besides: Vec<Sight>,
    /// Stacks of the tasks on the chains.
    pub stacks: Vec<TaskStack>,
    /// What to collect to know more.
    pub collect: Vec<&'static str>,
    /// What was left out because there was too much of it.
    pub dropped: u64,
}

/// A complaint of the kernel.
#[derive(Debug, Serialize)]
pub struct Complaint {
    /// Line of the log.
    pub line: u32,
    /// Its words.
    pub text: String,
    /// Who suffers, as a node of the graph.
    pub node: Option<Node>,
}

/// From a symptom to an end.
#[derive(Debug, Serialize)]
pub struct Chain {
    /// The hops, in order. Empty if the symptom is the end.
    pub hops: Vec<Edge>,
    /// Where it ends.
    pub end: Node,
    /// What the end is.
    pub verdict: Verdict,
    /// The end in words.
    pub words: String,
    /// How many complaints it explains.
    pub explains: usize,
    /// Other tasks with the same end.
    pub same_root: Vec<u32>,
    /// That of its weakest hop.
    pub confidence: Confidence,
}

/// What the end of a chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It acts, or does not act, by itself.
    Culprit,
    /// It waits for itself.
    Cycle,
    /// The log does not say what is behind it.
    Unknown,
}

/// Something seen beside.
#[derive(Debug, Serialize)]
pub struct Sight {
    /// What it means.
    pub name: &'static str,
    /// How many lines say so.
    pub count: u64,
    /// The first of them.
    pub line: u32,
    /// Its words.
    pub text: String,
}

/// The stack of a task on a chain.
#[derive(Debug, Serialize)]
pub struct TaskStack {
    /// Its number.
    pub pid: u32,
    /// Its work, if it is a worker.
    pub work: Option<String>,
    /// The innermost function first.
    #[serde(serialize_with = "functions")]
    pub frames: Vec<Frame>,
}

fn functions<S: serde::Serializer>(frames: &[Frame], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(frames.iter().map(|f| &f.function))
}

/// Ends, and the starts that lead to them.
type Reached<'s> = BTreeMap<Node, BTreeSet<&'s Node>>;

/// The ends that `starts` lead to, and which of them are on a cycle.
fn ends<'s>(
    scene: &impl Scene,
    graph: &Graph,
    starts: &'s BTreeSet<Node>,
) -> (Reached<'s>, BTreeSet<Node>) {
    let mut reached = Reached::new();
    let mut turning = turning(graph, Confidence::Derived);
    // Who reaches neither an end nor such a cycle goes round in one that is guessed in part.
    let mut lost = Vec::new();
    for start in starts {
        let reach = graph.reach(start);
        let mut found = reach.len() == 1;
        for node in reach.iter().filter(|node| graph.has_end(node) || turning.contains(node)) {
            found = true;
            if node != start || starts_at_its_end(scene, graph, node, &turning) {
                reached.entry(node.clone()).or_default().insert(start);
            }
        }
        if !found {
            lost.push((start, reach));
        }
    }
    if !lost.is_empty() {
        let guessed = self::turning(graph, Confidence::Guess);
        for (start, reach) in lost {
            for node in reach.into_iter().filter(|node| guessed.contains(node)) {
                turning.insert(node.clone());
                reached.entry(node).or_default().insert(start);
            }
        }
    }
    (reached, turning)
}

/// The chains from `starts` to their ends, those first that explain most.
pub(crate) fn chains(scene: &impl Scene, graph: &Graph, starts: &BTreeSet<Node>) -> Vec<Chain> {
    let (reached, turning) = ends(scene, graph, starts);
    let mut chains: Vec<Chain> = Vec::new();
    let mut told: BTreeSet<Node> = BTreeSet::new();
    let mut ends: Vec<(Node, BTreeSet<&Node>)> = reached.into_iter().collect();
    ends.sort_by_key(|(node, from)| std::cmp::Reverse((turning.contains(node), from.len())));
    for (end, from) in ends.into_iter().take(64) {
        if told.contains(&end) {
            continue;
        }
        let cycle = if turning.contains(&end) { graph.cycle(&end) } else { None };
        told.extend(cycle.iter().flatten().map(|e| e.from.clone()));
        let mut hops: Vec<Edge> = graph.longest(starts, &end).into_iter().cloned().collect();
        if let Some(cycle) = &cycle {
            enter(&mut hops, cycle);
        }
        let confidence = hops.iter().map(|e| e.confidence).min().unwrap_or(Confidence::Printed);
        let (end, verdict, words) = match cycle {
            Some(cycle) => cycle_words(scene, &end, &cycle),
            None => scene.end(end, &hops),
        };
        let same_root = from.iter().filter_map(|node| match node {
            Node::Task(pid) if !hops.iter().any(|e| e.from == **node) && **node != end => {
                Some(*pid)
            }
            _ => None,
        });
        let same_root = same_root.collect();
        chains.push(Chain {
            hops,
            end,
            verdict,
            words,
            explains: from.len(),
            same_root,
            confidence,
        });
    }
    chains.sort_by_key(|c| {
        let known = c.verdict != Verdict::Unknown;
        std::cmp::Reverse((
            c.verdict == Verdict::Cycle,
            c.explains,
            known,
            c.hops.len(),
            c.confidence,
        ))
    });
    chains
}

/// Lets a chain go once round a cycle, from the node where it comes to it.
fn enter(hops: &mut Vec<Edge>, cycle: &[&Edge]) {
    let on_cycle = |node: &Node| cycle.iter().position(|e| e.from == *node);
    let entry = hops.iter().position(|hop| on_cycle(&hop.from).is_some());
    let first = entry.and_then(|at| on_cycle(&hops[at].from)).unwrap_or(0);
    hops.truncate(entry.unwrap_or(hops.len()));
    hops.extend(cycle[first..].iter().chain(&cycle[..first]).map(|e| (*e).clone()));
}

/// A complaint that is its own end is worth a chain if something is known of it.
fn starts_at_its_end(
    scene: &impl Scene,
    graph: &Graph,
    node: &Node,
    turning: &BTreeSet<Node>,
) -> bool {
    let known = match node {
        Node::Task(task) => scene.knows_of(*task),
        _ => true,
    };
    turning.contains(node) || graph.has_end(node) && known
}

/// Nodes on cycles whose every hop is at least this sure.
fn turning(graph: &Graph, least: Confidence) -> BTreeSet<Node> {
    let mut sure = Graph::default();
    for edge in graph.edges.iter().filter(|e| e.confidence >= least) {
        sure.add(edge.clone());
    }
    // What leads to an end for certain is on no cycle: take it away until nothing changes.
    let mut left: BTreeSet<Node> = sure.edges.iter().map(|e| e.from.clone()).collect();
    loop {
        let gone: Vec<Node> = left
            .iter()
            .filter(|node| !sure.from(node).any(|e| left.contains(&e.to)))
            .cloned()
            .collect();
        if gone.is_empty() {
            break;
        }
        for node in gone {
            left.remove(&node);
        }
    }
    left.into_iter().take(256).filter(|node| sure.cycle(node).is_some()).collect()
}

fn cycle_words(scene: &impl Scene, end: &Node, cycle: &[&Edge]) -> (Node, Verdict, String) {
    let names: Vec<String> = cycle
        .iter()
        .filter_map(|e| match &e.from {
            Node::Task(pid) => Some(scene.name(*pid)),
            _ => None,
        })
        .collect();
    let locks = || {
        let name = |e: &&Edge| e.from.to_string();
        let names: Vec<String> = cycle.iter().map(name).collect();
        names.join(", ").replace("lock:", "").replace(" [order]", "")
    };
    let words = match names.as_slice() {
        [] => {
            format!("{} can be taken in a circle; this warns, and need not stop anybody", locks())
        }
        [only] => format!("{only} waits for something that it has itself"),
        names => format!("{} wait for each other", names.join(", ")),
    };
    (end.clone(), Verdict::Cycle, words)
}
