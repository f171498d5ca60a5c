//! `gracepoint graph` and `gracepoint report --functions`: what a trace tells of functions.

use crate::args::{ChooseArgs, GraphArgs, ReportArgs, SortBy};
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::quantity::count;
use crate::traces::{verdict_of_chosen, warn, warn_further};
use gracepoint_analysis::functions::graph::{Options, graph as draw};
use gracepoint_analysis::functions::table::{self, Sort};
use gracepoint_analysis::{Trace, hints};

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
    let any = done.calls + done.left + done.open + done.without_entry > 0;
    tell_missing(&trace, any, &args.choose, !args.functions.is_empty(), console)?;
    warn_further(&trace, &done.damage, console);
    verdict_of_chosen(&trace, done.damage.len(), &args.choose, console)
}

/// Says what of functions is missing: calls where there are not `any`, names where the trace was copied without them, and
/// records that were lost.
fn tell_missing(
    trace: &Trace,
    any: bool,
    choose: &ChooseArgs,
    by_name: bool,
    console: &mut Console,
) -> Result<()> {
    if !any && (by_name || choose.steps_over()) {
        console.note("no function was called in what is chosen of the trace: choose more of it");
    } else if !any {
        console.note(
            "no function that was on was called: record for longer, or others (`gracepoint functions -p PID` lists \
             them); those that the compiler inlined are never called",
        );
    }
    hints::names(trace, &[])?.into_iter().for_each(|hint| console.note(hint));
    let functions = || trace.events().iter().filter(|event| event.is_function());
    let lost: u64 = match trace.sidecar().filter(|about| about.complete) {
        Some(about) => functions().filter_map(|kind| about.lost.get(&kind.declared.id)).sum(),
        // The recorder has not counted them: that takes all of the trace again.
        None => {
            let counted = gracepoint_analysis::info::info(trace)?.per_event.into_iter();
            let of = |name: &str| functions().any(|kind| kind.name == name);
            counted.filter(|event| of(&event.name)).map(|event| event.lost).sum()
        }
    };
    if lost > 0 {
        console.note(format_args!(
            "{} records of functions were lost: calls are missing, and some stand without their begin or end; \
             record with a larger --buffer, or fewer functions",
            count(lost)
        ));
    }
    Ok(())
}

/// Runs `report --functions`.
pub(crate) fn table(glob: &str, args: &ReportArgs, console: &mut Console) -> Result<u8> {
    let filter = args.choose.filter();
    if !filter.events.is_empty() || filter.last.is_some() {
        return Err(Failure::new(
            "the table of functions adds up calls: choose them by --functions GLOB, --thread, --since and \
             --until, not by -e or --last",
        ));
    }
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let options = table::Options {
        // Without a sidecar there are no names, and all functions all the same.
        functions: if glob == "*" { Vec::new() } else { vec![glob.to_owned()] },
        filter,
        sort: args.sort.sort(),
        limit: args.limit,
    };
    let table = table::table(&trace, &options)?;
    let text = if args.json { table.to_json() } else { table.to_text() };
    console.bytes(text.as_bytes())?;
    console.flush()?;
    let any = !table.rows.is_empty();
    tell_missing(&trace, any, &args.choose, glob != "*", console)?;
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
