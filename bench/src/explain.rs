//! How well kernel logs are explained: `explain DIR` reads `NAME.txt` with the expert reading
//! `NAME.json` beside it, and compares.
//!
//! - *titles*: equal to `expected_title`, over the logs that are not `corrupted`.
//! - *who blocks whom*: pairs of a task or grace period and the next task on its way, through locks,
//!   CPUs, works and commits. A reading lists the tasks that matter, not every waiter: pairs whose
//!   first half is not in the reading are left out (`strict` counts them too).
//! - *wait facts*: pairs of a task and the kind of thing it waits for, in the same way.
//! - *false blame*: a culprit is named, and the reading ends at something unknown or elsewhere.
//! - *robustness*: the precision of pairs when logs are cut, interleaved, or lose lines.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use gracepoint_analysis::hang::{self, Explanation, Node, Verdict};
use serde_json::{Value, json};

type Pairs = BTreeSet<(String, String)>;

/// Rounds of each kind of damage.
const ROUNDS: u64 = 20;

struct Log {
    name: String,
    bytes: Vec<u8>,
    reading: Value,
}

#[derive(Default, Clone, Copy)]
struct Score {
    hits: usize,
    said: usize,
    wanted: usize,
}

impl Score {
    fn add(&mut self, said: &Pairs, wanted: &Pairs) {
        self.hits += said.intersection(wanted).count();
        self.said += said.len();
        self.wanted += wanted.len();
    }

    fn precision(&self) -> f64 {
        ratio(self.hits, self.said)
    }

    fn recall(&self) -> f64 {
        ratio(self.hits, self.wanted)
    }

    fn json(&self) -> Value {
        let (p, r) = (self.precision(), self.recall());
        let f1 = if p + r > 0.0 { 2.0 * p * r / (p + r) } else { 0.0 };
        json!({"precision": round(p), "recall": round(r), "f1": round(f1), "said": self.said, "wanted": self.wanted})
    }
}

fn ratio(a: usize, b: usize) -> f64 {
    if b == 0 { 1.0 } else { a as f64 / b as f64 }
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Runs the comparison and prints it.
pub(crate) fn run(dir: &Path, as_json: bool) -> Result<(), Box<dyn Error>> {
    let logs = load(dir)?;
    if logs.is_empty() {
        return Err(format!("{}: no NAME.txt with NAME.json beside it", dir.display()).into());
    }
    let mut misses = Vec::new();
    let titles = titles(&logs, &mut misses);
    let readings = readings(&logs, &mut misses);
    let robustness = robustness(&logs);
    let speed = speed(&logs);
    let all = json!({
        "logs": logs.len(), "titles": titles, "readings": readings, "robustness": robustness,
        "speed": speed, "misses": misses,
    });
    if as_json {
        println!("{all}");
    } else {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(())
}

fn load(dir: &Path) -> Result<Vec<Log>, Box<dyn Error>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
        let path = entry?.path();
        let reading = path.with_extension("json");
        if path.extension().is_some_and(|e| e == "txt") && reading.exists() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let reading = serde_json::from_slice(&std::fs::read(reading)?)?;
            logs.push(Log { name, bytes: std::fs::read(&path)?, reading });
        }
    }
    logs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(logs)
}

fn explain(bytes: &[u8]) -> Explanation {
    // A slice cannot fail to be read.
    hang::explain(bytes).unwrap_or_else(|e| unreachable!("{e}"))
}

fn titles(logs: &[Log], misses: &mut Vec<String>) -> Value {
    let (mut exact, mut any, mut all) = (0, 0, 0);
    for log in logs.iter().filter(|l| l.reading["corrupted"] != true) {
        let Some(wanted) = log.reading["expected_title"].as_str() else { continue };
        all += 1;
        let title = explain(&log.bytes).title.unwrap_or_default();
        let others = log.reading["alt_titles"].as_array();
        exact += usize::from(title == wanted);
        if title == wanted || others.is_some_and(|o| o.iter().any(|t| t == &title)) {
            any += 1;
        } else {
            misses.push(format!("{}: title {title:?}, expected {wanted:?}", log.name));
        }
    }
    json!({"logs": all, "exact": exact, "any": any, "share": round(ratio(exact, all))})
}

fn readings(logs: &[Log], misses: &mut Vec<String>) -> Value {
    let (mut links, mut strict, mut facts) = (Score::default(), Score::default(), Score::default());
    let (mut all, mut right, mut blamed) = (0, 0, 0);
    for log in logs.iter().filter(|l| l.reading["expected"].is_object()) {
        all += 1;
        let explanation = explain(&log.bytes);
        let (said, wanted) = (links_of(&edges(&explanation)), links_of(&expected(&log.reading)));
        let known = known(&log.reading);
        strict.add(&said, &wanted);
        links.add(&only(&said, &known), &wanted);
        let (said_facts, wanted_facts) =
            (facts_of(&edges(&explanation)), facts_of(&expected(&log.reading)));
        facts.add(&only(&said_facts, &known), &wanted_facts);
        report(&log.name, "pair", &only(&said, &known), &wanted, misses);
        report(&log.name, "wait", &only(&said_facts, &known), &wanted_facts, misses);
        let culprit = log.reading["expected"]["culprit"].as_str().unwrap_or_default();
        let chain = explanation.accounts.first().and_then(|a| a.chains.first());
        let end = chain.map(|c| c.end.to_string()).unwrap_or_default();
        right += usize::from(end == culprit);
        let names_one = chain.is_some_and(|c| c.verdict == Verdict::Culprit);
        if names_one && end != culprit {
            blamed += 1;
        }
        if end != culprit {
            misses.push(format!("{}: culprit {end:?}, expected {culprit:?}", log.name));
        }
    }
    json!({
        "logs": all, "who_blocks_whom": links.json(), "who_blocks_whom_strict": strict.json(),
        "wait_facts": facts.json(), "culprit_first": round(ratio(right, all)),
        "false_blame": round(blamed as f64 / all.max(1) as f64),
    })
}

fn report(name: &str, what: &str, said: &Pairs, wanted: &Pairs, misses: &mut Vec<String>) {
    misses.extend(said.difference(wanted).map(|p| format!("{name}: {what} too much {p:?}")));
    misses.extend(wanted.difference(said).map(|p| format!("{name}: {what} missing {p:?}")));
}

fn edges(explanation: &Explanation) -> Vec<(String, String)> {
    let edges = explanation.accounts.iter().flat_map(|a| &a.edges);
    // A storm is a cause beside, not a link.
    let edges = edges
        .filter(|e| !matches!(&e.to, Node::Event(name) if name.starts_with("interrupt storm")));
    edges.map(|e| (e.from.to_string(), e.to.to_string())).collect()
}

fn expected(reading: &Value) -> Vec<(String, String)> {
    let edges = reading["expected"]["edges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    edges.iter().map(|e| (text(&e[0]), text(&e[1]))).collect()
}

/// Every node that a reading speaks of.
fn known(reading: &Value) -> BTreeSet<String> {
    let mut known: BTreeSet<String> =
        expected(reading).into_iter().flat_map(|(a, b)| [a, b]).collect();
    let blocked = reading["expected"]["blocked_tasks"].as_array();
    known.extend(blocked.into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)));
    known
}

fn only(pairs: &Pairs, known: &BTreeSet<String>) -> Pairs {
    pairs.iter().filter(|(from, _)| known.contains(from)).cloned().collect()
}

/// A task or grace period, and the next tasks on its way.
fn links_of(edges: &[(String, String)]) -> Pairs {
    let mut out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in edges {
        out.entry(from).or_default().push(to);
    }
    let mut pairs = Pairs::new();
    for start in out.keys().filter(|n| n.starts_with("task:") || n.starts_with("gp:")) {
        let mut todo = out[start].clone();
        let mut seen: BTreeSet<&str> = todo.iter().copied().collect();
        while let Some(node) = todo.pop() {
            if node.starts_with("task:") {
                pairs.insert(((*start).to_owned(), node.to_owned()));
                continue;
            }
            for next in out.get(node).into_iter().flatten() {
                if seen.insert(next) {
                    todo.push(next);
                }
            }
        }
    }
    pairs
}

/// A task and the kind of what it waits for.
fn facts_of(edges: &[(String, String)]) -> Pairs {
    let kind = |node: &str| node.split(':').next().unwrap_or_default().to_owned();
    let of_tasks =
        edges.iter().filter(|(from, to)| from.starts_with("task:") && !to.starts_with("task:"));
    of_tasks.map(|(from, to)| (from.clone(), kind(to))).collect()
}

/// A generator of numbers that a run can repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % most.max(1)
    }
}

fn robustness(logs: &[Log]) -> Value {
    let mut result = serde_json::Map::new();
    for kind in ["cut", "interleaved", "dropped"] {
        let mut score = Score::default();
        let mut wrong: BTreeMap<String, usize> = BTreeMap::new();
        for seed in 0..ROUNDS {
            let mut dice = Dice(seed + 1);
            for log in logs {
                let damaged = damage(kind, log, logs, &mut dice);
                let explanation = explain(&damaged);
                if log.reading["expected"].is_object() {
                    let wanted = links_of(&expected(&log.reading));
                    let said = links_of(&edges(&explanation));
                    let said = only(&said, &known(&log.reading));
                    for (from, to) in said.difference(&wanted) {
                        *wrong.entry(format!("{}: {from} by {to}", log.name)).or_default() += 1;
                    }
                    score.add(&said, &wanted);
                }
            }
        }
        let mut wrong: Vec<(usize, String)> = wrong.into_iter().map(|(w, n)| (n, w)).collect();
        wrong.sort_by(|a, b| b.cmp(a));
        let mut row = score.json();
        row["most_wrong"] = wrong.into_iter().take(8).map(|(n, w)| format!("{n} x {w}")).collect();
        result.insert(kind.to_owned(), row);
    }
    Value::Object(result)
}

fn damage(kind: &str, log: &Log, logs: &[Log], dice: &mut Dice) -> Vec<u8> {
    let lines: Vec<&[u8]> = log.bytes.split(|&b| b == b'\n').collect();
    let kept: Vec<&[u8]> = match kind {
        "cut" => lines[..dice.below(lines.len())].to_vec(),
        "dropped" => lines.iter().copied().filter(|_| dice.below(10) >= 3).collect(),
        _ => {
            let other = &logs[dice.below(logs.len())];
            let mut others = other.bytes.split(|&b| b == b'\n').peekable();
            let mut mixed = Vec::new();
            for line in lines {
                mixed.push(line);
                if dice.below(4) == 0 {
                    mixed.extend(others.next());
                }
            }
            mixed.extend(others);
            mixed
        }
    };
    kept.join(&b'\n')
}

fn speed(logs: &[Log]) -> Value {
    let mut text = Vec::new();
    while text.len() < 8 << 20 {
        for log in logs {
            text.extend_from_slice(&log.bytes);
            text.push(b'\n');
        }
    }
    let megabytes = text.len() as f64 / 1e6;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let explanation = explain(&text);
        std::hint::black_box(explanation);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let first: Vec<u8> = text.into_iter().take(1_000_000).collect();
    let mut one = f64::MAX;
    for _ in 0..9 {
        let start = Instant::now();
        std::hint::black_box(explain(&first).to_text());
        one = one.min(start.elapsed().as_secs_f64());
    }
    json!({"ms_for_1_mb": round(one * 1e3), "mb_per_s": round(megabytes / best)})
}
