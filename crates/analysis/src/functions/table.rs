//! What the calls of each function took: how many, in total, by themselves, and how that is distributed.
//!
//! Of a call that was left without an exit (a panic, `longjmp`, a lost record) the time is not known; it is
//! counted and adds to nothing. Time in a call of the same function around it counts once.

use super::stack::{Call, Stacks};
use super::{Functions, Hit, Lanes};
use crate::filter::Filter;
use crate::hist::{Counts, Scalar};
use crate::{Damage, Result, Trace, escape};
use serde::Serialize;
use std::collections::HashMap;

/// Calls told at their end, of one thread, whose callers are not known yet.
const MOST_PENDING: usize = 1 << 16;

/// What of a trace to add up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Which functions, as globs on their paths; all where there are none.
    pub functions: Vec<String>,
    /// Which threads and when. (Its globs on events mean nothing here.)
    pub filter: Filter,
    /// By what to sort.
    pub sort: Sort,
    /// Only the first so many.
    pub limit: Option<u64>,
}

/// By what a table is sorted, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Time from entry to exit.
    #[default]
    Total,
    /// Time outside of other functions that were recorded.
    Own,
    /// How often.
    Calls,
    /// The average of a call.
    Avg,
    /// The longest call.
    Max,
    /// What 99 % of the calls do not exceed.
    P99,
    /// By path, from A to Z.
    Name,
}

/// One function. Times are nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its path; may hold any character, so escape it.
    pub function: String,
    /// Its source file; empty where that is not known.
    pub file: String,
    /// The line there.
    pub line: u32,
    /// Calls that were seen to end.
    pub calls: u64,
    /// Time from entry to exit, of the outermost of calls inside one another.
    pub total_ns: u64,
    /// Of that, outside of other functions that were recorded.
    pub self_ns: u64,
    /// The shortest call.
    pub min_ns: u64,
    /// The average of all.
    pub avg_ns: u64,
    /// The longest one.
    pub max_ns: u64,
    /// What 99 % of the calls do not exceed; at most 1/32 too high.
    pub p99_ns: u64,
    /// Calls without an exit: unwound by a panic, left by `longjmp`, not over, or it was lost.
    pub without_exit: u64,
    /// Exits without an entry: it was before the recording, or was lost.
    pub without_entry: u64,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// One row for each function that was seen, sorted.
    pub rows: Vec<Row>,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

#[derive(Debug, Default)]
struct Sum {
    total_ns: u64,
    self_ns: u64,
    all_ns: u64,
    took: Counts,
    without_exit: u64,
    without_entry: u64,
}

#[derive(Debug, Default)]
struct Lane {
    stacks: Stacks,
    /// Begin and length of calls told at their end, in order of their ends.
    pending: Vec<(u64, u64)>,
}

/// Adds up the calls of a trace.
///
/// # Errors
/// When no function was recorded, or a glob matches none.
pub fn table(trace: &Trace, options: &Options) -> Result<Table> {
    let functions = Functions::of(trace);
    functions.check(trace)?;
    let wanted = functions.wanted(trace, &options.functions)?;
    let filter = Filter { events: Vec::new(), last: None, ..options.filter.clone() };
    let mut choice = functions.choose(trace, &filter)?;
    for (wanted, event) in choice.wanted.iter_mut().zip(trace.events()) {
        *wanted = event.is_function();
    }
    let mut sums = Sums { by_function: HashMap::new() };
    let mut lanes: Lanes<Lane> = Lanes::new();
    let mut reader = trace.reader_of(&choice);
    let mut left = Vec::new();
    while let Some(event) = reader.next_event() {
        let Some(hit) = functions.hit(&event) else { continue };
        let lane = lanes.of(&event, |mut gone| left.extend(gone.stacks.rest()));
        sums.take(hit, lane, &mut left);
        left.drain(..).for_each(|call| sums.of(call.began.function).without_exit += 1);
    }
    for call in lanes.rest().into_iter().flat_map(|mut lane| lane.stacks.rest()) {
        sums.of(call.began.function).without_exit += 1;
    }
    let seen = sums.by_function.into_iter();
    let seen = seen.filter(|(id, _)| wanted.as_ref().is_none_or(|w| w.binary_search(id).is_ok()));
    let mut rows: Vec<Row> = seen.map(|(id, sum)| row(&functions, id, &sum)).collect();
    sort(&mut rows, options.sort);
    rows.truncate(options.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)));
    Ok(Table { rows, damage: reader.into_damage() })
}

struct Sums {
    by_function: HashMap<u32, Sum>,
}

impl Sums {
    fn of(&mut self, function: u32) -> &mut Sum {
        self.by_function.entry(function).or_default()
    }

    fn take(&mut self, hit: Hit, lane: &mut Lane, left: &mut Vec<Call>) {
        match hit {
            Hit::Entry(point) => {
                lane.stacks.enter(point, left);
            }
            Hit::Exit(point) => match lane.stacks.exit(point, left) {
                Some(call) => {
                    let took = point.ns.saturating_sub(call.began.ns);
                    let own = took.saturating_sub(call.inside_ns);
                    self.of(point.function).add(took, own, !call.recursive);
                }
                None => self.of(point.function).without_entry += 1,
            },
            Hit::Whole(point, began) => {
                let took = point.ns.saturating_sub(began);
                let mut inside = 0u64;
                // Its callees are told before it.
                while let Some((_, theirs)) = lane.pending.pop_if(|(at, _)| *at >= began) {
                    inside = inside.saturating_add(theirs);
                }
                if lane.pending.len() >= MOST_PENDING {
                    lane.pending.drain(..MOST_PENDING / 2);
                }
                lane.pending.push((began, took));
                self.of(point.function).add(took, took.saturating_sub(inside), true);
            }
        }
    }
}

impl Sum {
    fn add(&mut self, took: u64, own: u64, outermost: bool) {
        if outermost {
            self.total_ns = self.total_ns.saturating_add(took);
        }
        self.all_ns = self.all_ns.saturating_add(took);
        self.self_ns = self.self_ns.saturating_add(own);
        self.took.add(Scalar::Whole(i128::from(took)));
    }
}

fn row(functions: &Functions, id: u32, sum: &Sum) -> Row {
    let entry = functions.entry(id);
    let whole = |scalar: Option<Scalar>| match scalar {
        Some(Scalar::Whole(n)) => u64::try_from(n).unwrap_or(u64::MAX),
        _ => 0,
    };
    let calls = sum.took.count();
    Row {
        function: functions.name(id),
        file: entry.map_or_else(String::new, |entry| entry.file.clone()),
        line: entry.map_or(0, |entry| entry.line),
        calls,
        total_ns: sum.total_ns,
        self_ns: sum.self_ns,
        min_ns: whole(sum.took.min()),
        avg_ns: sum.all_ns / calls.max(1),
        max_ns: whole(sum.took.max()),
        p99_ns: whole(sum.took.percentile(0.99)),
        without_exit: sum.without_exit,
        without_entry: sum.without_entry,
    }
}

fn sort(rows: &mut [Row], by: Sort) {
    rows.sort_by(|a, b| a.function.cmp(&b.function));
    let key: fn(&Row) -> u64 = match by {
        Sort::Total => |row| row.total_ns,
        Sort::Own => |row| row.self_ns,
        Sort::Calls => |row| row.calls,
        Sort::Avg => |row| row.avg_ns,
        Sort::Max => |row| row.max_ns,
        Sort::P99 => |row| row.p99_ns,
        Sort::Name => return,
    };
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
}

impl Table {
    /// A line of JSON for each function.
    pub fn to_json(&self) -> String {
        let line = |row: &Row| serde_json::to_string(row).unwrap_or_default() + "\n";
        self.rows.iter().map(line).collect()
    }

    /// Columns of text, times in microseconds.
    pub fn to_text(&self) -> String {
        let head = ["CALLS", "TOTAL us", "SELF us", "MIN us", "AVG us", "MAX us", "P99 us"];
        let mut rows = vec![(head.map(str::to_owned), "FUNCTION".to_owned())];
        for row in &self.rows {
            let times = [row.total_ns, row.self_ns, row.min_ns, row.avg_ns, row.max_ns, row.p99_ns];
            let mut cells = vec![crate::info::grouped(row.calls)];
            cells.extend(times.iter().map(|&ns| match row.calls {
                0 => "-".to_owned(),
                _ => format!("{}.{:03}", crate::info::grouped(ns / 1000), ns % 1000),
            }));
            let mut name = escape::name(&row.function);
            let notes = [(row.without_exit, "without exit"), (row.without_entry, "without entry")];
            for (n, what) in notes.into_iter().filter(|(n, _)| *n > 0) {
                name += &format!("  ({} {what})", crate::info::grouped(n));
            }
            rows.push((cells.try_into().unwrap_or_default(), name));
        }
        let width = |at: usize| rows.iter().map(|(cells, _)| cells[at].len()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut text = String::new();
        for (cells, name) in &rows {
            for (cell, width) in cells.iter().zip(widths) {
                text += &format!("{cell:>width$}  ");
            }
            text += name;
            text.push('\n');
        }
        text
    }
}
