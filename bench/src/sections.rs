//! Results that are distributions: sections of rows, each section with columns and a unit of its own.

use std::fmt::Write;

use crate::table::{Goal, verdicts};

/// Rows that are compared with each other.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// Of all values that are not said to be something else by their column.
    pub(crate) unit: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<(String, Vec<f64>)>,
    /// What is not in the rows, and why; how it was measured where that is not obvious.
    pub(crate) notes: Vec<String>,
    pub(crate) goals: Vec<Goal>,
}

impl Section {
    /// A value, if there is such a row.
    pub(crate) fn value(&self, row: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|name| *name == column)?;
        let (_, values) = self.rows.iter().find(|(name, _)| name == row)?;
        values.get(at).copied()
    }
}

/// Sorted samples of something.
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn of(mut samples: Vec<f64>) -> Samples {
        samples.sort_by(f64::total_cmp);
        Samples(samples)
    }

    /// The value that the share `q` of all is not above.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// The columns of [`LATENCY`].
    pub(crate) fn latency(&self) -> Vec<f64> {
        [0.0, 0.5, 0.99, 1.0].map(|q| self.quantile(q)).to_vec()
    }
}

pub(crate) const LATENCY: &[&str] = &["min", "p50", "p99", "max"];

/// A table, and the goals below it.
pub(crate) fn text(section: &Section) -> String {
    let names = section.rows.iter().map(|(name, _)| name.chars().count());
    let title = format!("{} [{}]", section.title, section.unit);
    let width = names.max().unwrap_or(0).max(title.chars().count());
    let mut text = format!("\n{title:width$}");
    for column in section.columns {
        let _ = write!(text, "  {column:>12}");
    }
    text.push('\n');
    for (name, values) in &section.rows {
        let _ = write!(text, "{name:width$}");
        for value in values {
            let _ = write!(text, "  {:>12}", number(*value));
        }
        text.push('\n');
    }
    for note in &section.notes {
        let _ = writeln!(text, "  ({note})");
    }
    text + &verdicts(&section.goals)
}

/// Three digits or more, whatever the size.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1000.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// One JSON object per row and goal, each on a line.
pub(crate) fn json(suite: &str, section: &Section) -> String {
    let Section { title, unit, .. } = section;
    let mut text = String::new();
    for (name, values) in &section.rows {
        let mut row =
            serde_json::json!({"suite": suite, "section": title, "row": name, "unit": unit});
        for (column, value) in section.columns.iter().zip(values) {
            row[*column] = serde_json::json!(value);
        }
        // As in the suites whose rows are times of one thing; these have no floor.
        let in_ns = [("ns", 1.0), ("µs", 1e3), ("ms", 1e6)].iter().find(|(name, _)| name == unit);
        if let Some((_, factor)) = in_ns {
            for (column, name) in [("min", "min_ns"), ("p50", "median_ns")] {
                if let Some(value) = section.value(row["row"].as_str().unwrap_or_default(), column)
                {
                    row[name] = serde_json::json!(value * factor);
                }
            }
            row["floor_ns"] = serde_json::Value::Null;
        }
        text += &format!("{row}\n");
    }
    for Goal { what, met } in &section.goals {
        let row = serde_json::json!({"suite": suite, "section": title, "goal": what, "met": met});
        text += &format!("{row}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let samples = Samples::of((1..=1001).rev().map(f64::from).collect());
        Section {
            title: "wait",
            unit: "ns",
            columns: LATENCY,
            rows: vec![("a".to_owned(), samples.latency())],
            notes: vec!["b is not here".to_owned()],
            goals: vec![Goal { what: "soon".to_owned(), met: true }],
        }
    }

    #[test]
    fn quantiles() {
        let section = section();
        assert_eq!(section.rows[0].1, [1.0, 501.0, 991.0, 1001.0]);
        assert_eq!(section.value("a", "p99"), Some(991.0));
        assert_eq!(section.value("b", "p99"), None);
        assert!(Samples::of(vec![]).quantile(0.5).is_nan());
    }

    #[test]
    fn on_paper() {
        let text = text(&section());
        assert!(
            text.contains("a                     1           501           991          1001\n"),
            "{text}"
        );
        assert!(text.contains("(b is not here)\nmet: soon\n"), "{text}");
        let json = json("s", &section());
        let row: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!((row["row"].as_str(), row["p50"].as_f64()), (Some("a"), Some(501.0)));
        assert_eq!((row["min_ns"].as_f64(), row["median_ns"].as_f64()), (Some(1.0), Some(501.0)));
    }
}
