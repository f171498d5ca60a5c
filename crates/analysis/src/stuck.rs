//! Why something is stuck: one model for kernels and for programs of ours.
//!
//! Who waits for whom is a [`graph`]: nodes are tasks, grace periods, locks, works, queues, events, I/O, CPUs, and
//! what nobody can name; each edge says by which rule it was found, how sure it is, and what shows it. The
//! [`account`] goes from each complaint along the edges to an end: a culprit, a cycle, or unknown. Symptom,
//! mechanism and end are kept apart, and no commit is ever blamed.
//!
//! Two halves fill it: [`hang`](crate::hang) from the text of a kernel log, and [`why`](crate::why) from a program that lives,
//! or from what is left of it.
//!
//! | module | what it does |
//! |---|---|
//! | [`graph`] | nodes, edges, ways and cycles |
//! | [`account`] | chains and their ends |
//! | `tell` | the account as text |
//! | `dot`, `html` | the graph for Graphviz, and as a page |

pub mod account;
mod dot;
pub mod graph;
mod html;
mod tell;

pub(crate) use tell::node;

use account::{Account, Verdict};
use serde::Serialize;

/// One function on a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// Without what the compiler appended: `.isra.0`, `.constprop.1`, `.cold`.
    pub function: String,
    /// Where in the function, and how long it is; zeros for an inlined frame.
    pub offset: u32,
    /// Length of the function in bytes.
    pub size: u32,
    /// Whether the compiler put this function into the next one.
    pub inlined: bool,
    /// `file:line`, where the log has it.
    pub source: Option<String>,
    /// Line of the log.
    pub line: u32,
}

/// What a log, or a look at a program, says about why it is stuck.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The name of the first complaint, as a tracker of bugs would file it; of a program, a summary.
    pub title: Option<String>,
    /// One account per incident, in order.
    pub accounts: Vec<Account>,
    /// Incidents that are not among `accounts`, because there were too many before them.
    pub incidents_left_out: usize,
    /// Lines of a log that were read.
    pub lines: u32,
}

impl Explanation {
    /// The title for people: the name under which a tracker files a stack that it cannot read ends in
    /// `corrupted`, which says nothing to a reader.
    pub(crate) fn shown_title(&self) -> Option<String> {
        let title = self.title.as_deref()?;
        Some(match title.strip_suffix(" in corrupted") {
            Some(what) => format!("{what} in an unknown place"),
            None => title.to_owned(),
        })
    }

    /// What there is beyond the accounts, for people.
    pub(crate) fn left_out(&self) -> Option<String> {
        let (left, told) = (self.incidents_left_out, self.accounts.len());
        let incidents = if left == 1 { "incident was" } else { "incidents were" };
        (left > 0).then(|| format!("{left} more {incidents} left out: the first {told} are told"))
    }

    /// For people: title, chains, ends, stacks, what to collect.
    pub fn to_text(&self) -> String {
        tell::text(self)
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut json = crate::escape::calm_json(&json);
        json.push('\n');
        json
    }

    /// The graph in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        dot::text(self)
    }

    /// The graph and the account as a page that loads nothing.
    pub fn to_html(&self) -> String {
        html::text(self)
    }

    /// The best verdict of all chains: a cycle or culprit if there is one.
    pub fn verdict(&self) -> Option<Verdict> {
        let chains = || self.accounts.iter().flat_map(|a| &a.chains);
        let known = chains().find(|c| c.verdict != Verdict::Unknown);
        known.or_else(|| chains().next()).map(|c| c.verdict)
    }
}
