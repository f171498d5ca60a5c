//! The results on paper: a table for people, rows of JSON for programs.

use std::fmt::Write;

use crate::measure::Cost;

/// What a suite found.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) suite: &'static str,
    /// How it was measured: machine, rounds, what else is worth knowing.
    pub(crate) notes: Vec<String>,
    pub(crate) costs: Vec<Cost>,
    /// What is no time: a row, how much, and of what.
    pub(crate) figures: Vec<(String, f64, &'static str)>,
    /// Name of the row that the others are compared with.
    pub(crate) floor: &'static str,
    pub(crate) goals: Vec<Goal>,
    /// Peers that are not installed, and so have no rows.
    pub(crate) absent: Vec<&'static str>,
}

/// What was hoped for, and whether it came true.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) met: bool,
}

impl Outcome {
    /// The cost of the row of this name; every suite asks for its own rows only.
    pub(crate) fn cost(&self, name: &str) -> &Cost {
        let found = self.costs.iter().find(|c| c.name == name);
        found.unwrap_or_else(|| panic!("suite {} has no row {name}", self.suite))
    }
}

/// One JSON object per row and line.
pub(crate) fn json(outcome: &Outcome) -> String {
    let floor = outcome.cost(outcome.floor).min_ns;
    let mut text = String::new();
    for cost in &outcome.costs {
        let row = serde_json::json!({
            "suite": outcome.suite,
            "row": cost.name,
            "min_ns": rounded(cost.min_ns),
            "median_ns": rounded(cost.median_ns),
            "floor_ns": rounded(floor),
        });
        text += &format!("{row}\n");
    }
    for (name, value, unit) in &outcome.figures {
        let row = serde_json::json!({
            "suite": outcome.suite, "row": name, "value": rounded(*value), "unit": unit,
        });
        text += &format!("{row}\n");
    }
    for peer in &outcome.absent {
        let row = serde_json::json!({"suite": outcome.suite, "peer": peer, "installed": false});
        text += &format!("{row}\n");
    }
    text
}

/// To a thousandth of a nanosecond, which is finer than anything measured.
fn rounded(ns: f64) -> f64 {
    (ns * 1000.0).round() / 1000.0
}

/// A table with ratios, then the goals.
pub(crate) fn text(outcome: &Outcome) -> String {
    let floor = outcome.cost(outcome.floor);
    let width = outcome.costs.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for note in &outcome.notes {
        let _ = writeln!(text, "{note}");
    }
    let _ = writeln!(
        text,
        "\n{:width$}  {:>9}  {:>9}  {:>8}  {:>8}",
        outcome.suite, "min ns", "median ns", "x floor", "x median"
    );
    for cost in &outcome.costs {
        let mark = if cost.name == outcome.floor { "  <- floor" } else { "" };
        let _ = writeln!(
            text,
            "{:width$}  {:9.2}  {:9.2}  {:8.2}  {:8.2}{mark}",
            cost.name,
            cost.min_ns,
            cost.median_ns,
            cost.min_ns / floor.min_ns,
            cost.median_ns / floor.median_ns,
        );
    }
    for (name, value, unit) in &outcome.figures {
        let _ = writeln!(text, "{name}: {value:.2} {unit}");
    }
    for peer in &outcome.absent {
        let _ = writeln!(text, "{peer}: not installed, so goals beside it are not checked");
    }
    text.push('\n');
    text + &verdicts(&outcome.goals)
}

/// A line for each goal.
pub(crate) fn verdicts(goals: &[Goal]) -> String {
    let line =
        |goal: &Goal| format!("{}: {}\n", if goal.met { "met" } else { "NOT MET" }, goal.what);
    goals.iter().map(line).collect()
}

/// The machine and the patching mode, for the head of a table.
pub(crate) fn machine(cpu: impl Into<Option<usize>>, rounds: usize) -> Vec<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let place = match cpu.into() {
        Some(cpu) => format!("pinned to CPU {cpu}"),
        None => std::thread::available_parallelism()
            .map_or_else(|e| e.to_string(), |n| format!("{n} CPUs")),
    };
    vec![
        format!("{model}, Linux {}, {place}", kernel.trim()),
        format!("{rounds} rounds, all rows in turn; sites switched by {}", gracepoint::patching()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let cost = |name, min_ns, median_ns| Cost { name, min_ns, median_ns };
        Outcome {
            suite: "s",
            notes: vec!["a machine".to_owned()],
            costs: vec![cost("base", 2.0, 4.0), cost("other", 3.0, 12.0)],
            figures: vec![("memory".to_owned(), 1.5, "MiB")],
            floor: "base",
            goals: vec![Goal { what: "be quick".to_owned(), met: false }],
            absent: vec!["nobody"],
        }
    }

    #[test]
    fn rows_of_json() {
        let text = json(&outcome());
        let last: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        assert_eq!(
            last,
            serde_json::json!({"suite": "s", "row": "other", "min_ns": 3.0, "median_ns": 12.0, "floor_ns": 2.0})
        );
        let figure: serde_json::Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
        assert_eq!(
            figure,
            serde_json::json!({"suite": "s", "row": "memory", "value": 1.5, "unit": "MiB"})
        );
    }

    #[test]
    fn a_table() {
        let text = text(&outcome());
        assert!(text.contains("other       3.00      12.00      1.50      3.00\n"), "{text}");
        assert!(text.contains("memory: 1.50 MiB\n"), "{text}");
        assert!(text.contains("NOT MET: be quick"), "{text}");
        assert!(text.contains("nobody: not installed"), "{text}");
    }
}
