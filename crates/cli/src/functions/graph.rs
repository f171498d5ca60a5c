//! `gracepoint graph` and `gracepoint report --functions`: what a trace tells of functions.

use crate::args::{GraphArgs, ReportArgs, SortBy};
use crate::console::Console;
use crate::failure::Result;
use crate::quantity::count;
use crate::traces::{verdict_of_chosen, warn, warn_further};
use gracepoint_analysis::Trace;
use gracepoint_analysis::functions::graph::{Options, graph as draw};
use gracepoint_analysis::functions::table::{self, Sort};

/// Runs `graph`.
pub(crate) fn graph(args: &GraphArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let options = Options {
        functions: args.functions.clone(),
        depth: args.depth,
        filter: args.choose.filter(),
        json: args.json,
        tail: args.tail,
    };
    let done = draw(&trace, &options, console.out())?;
    console.flush()?;
    let parts = [
        (done.left, "left without an exit (panic, longjmp, or not in the trace)"),
        (done.open, "had not ended"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{} {what}", count(n)))
        .collect();
    if !parts.is_empty() {
        console.note(format_args!("of the calls {}", parts.join(", ")));
    }
    if done.without_entry > 0 {
        let n = count(done.without_entry);
        console.note(format_args!("{n} exits are of calls that had begun before, or were lost"));
    }
    warn_further(&trace, &done.damage, console);
    verdict_of_chosen(&trace, done.damage.len(), &args.choose, console)
}

/// Runs `report --functions`.
pub(crate) fn table(glob: &str, args: &ReportArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let options = table::Options {
        // Without a sidecar there are no names, and all functions all the same.
        functions: if glob == "*" { Vec::new() } else { vec![glob.to_owned()] },
        filter: args.choose.filter(),
        sort: args.sort.sort(),
        limit: args.limit,
    };
    let table = table::table(&trace, &options)?;
    let text = if args.json { table.to_json() } else { table.to_text() };
    console.bytes(text.as_bytes())?;
    console.flush()?;
    warn_further(&trace, &table.damage, console);
    verdict_of_chosen(&trace, table.damage.len(), &args.choose, console)
}

impl SortBy {
    fn sort(self) -> Sort {
        match self {
            SortBy::Total => Sort::Total,
            SortBy::Own => Sort::Own,
            SortBy::Calls => Sort::Calls,
            SortBy::Avg => Sort::Avg,
            SortBy::Max => Sort::Max,
            SortBy::P99 => Sort::P99,
            SortBy::Name => Sort::Name,
        }
    }
}
