//! `gracepoint scenario`: three ways in which switching tracing off has gone wrong in the kernel, each told for
//! newcomers: what the kernel does and the schedule on which it fails, as a model checker found it; ours on
//! the same schedule; and the kernel of this machine, measured where it lets us.
//!
//! The schedules are files beside (`scenario/*.schedule`), which the tests of the models in `crates/rcu` write and
//! compare: what is printed is what the models find today. The command does not run them, since it
//! does not link the runtime.

mod measure;

use crate::args::{Scenario, ScenarioArgs};
use crate::console::Console;
use crate::failure::Result;
use serde_json::json;

/// What is told of a scenario.
struct Told {
    /// What happened, and why it matters.
    story: &'static str,
    /// How the schedule is read.
    reading: &'static str,
    /// What the model found for the kernel's way.
    schedule: &'static str,
    /// How ours differs.
    ours: &'static str,
    /// Where to see ours run.
    command: &'static str,
}

const TEARDOWN_STALL: Told = Told {
    story: "\
Closing a perf event on a tracepoint takes a probe off. The kernel may free what the probe used only when nobody
can be inside it any more, and it waits for that while the program sits in close(). Since 7.0-rc1 the wait is one
for SRCU, whose worker itself waits for RCU, which waits for every CPU. When interrupts storm one CPU, it
never comes around: the CPU stalls RCU, RCU stalls the worker, the worker stalls close(), and everybody
else who waits for any SRCU. Nobody in this chain is inside the tracepoint.",
    reading: "\
Who, and what he does, a step a line. \"repro2 4086\" closes the event; \"repro2 4093\" is on the CPU that interrupts
storm; \"kworker\" is SRCU's worker, and \"rcu_preempt\" RCU's. A store is seen by others when it \"gets to memory\"
(~); a membarrier has all of them do so. In the end each waits for another, and for ever.",
    schedule: include_str!("scenario/teardown_stall.schedule"),
    ours: "\
Closing takes the probe out of an array, which is one store, and returns. What the probe used is handed to a
thread that looks, without ever waiting itself, whether those who may be inside have left. The model has the
same storm, and harder: the stalled thread is inside the tracepoint. Closing returns; another domain's grace
periods end; what was detached is kept while he is inside, and freed when he leaves. Every schedule.",
    command: "cargo test -p gracepoint-bench --test perf_close_storm   (2,000 handles, a storm, a sleeping reader)",
};

const BLIND_SPOT: Told = Told {
    story: "\
A function tracer's callback runs wherever functions run: also in the first instructions after user space, and
on the way out of idle, where the kernel has not yet told RCU that this CPU is busy. A grace period takes such
a CPU for quiet and does not wait for it. Who then frees the callback frees it under its user. The kernel's
answer was to make every CPU run something (schedule_on_each_cpu), which wakes all of them.",
    reading: "\
Who, and what he does, a step a line. CPU 1 is in the tracer's callback, where nothing has told RCU of it
(dynticks_watching is 0); CPU 0 takes the callback off, waits for those whom RCU knows of, and frees it. A store
is seen by others when it \"gets to memory\" (~); a membarrier has all of them do so.",
    schedule: include_str!("scenario/blind_spot.schedule"),
    ours: "\
There is no thread that is not seen: a section is a count in memory, made wherever the thread is, before it is
registered, in a signal handler, in its last destructors; and the barrier that makes counts visible reaches
every thread (membarrier). The model has all of these places. None is blind; two twins that are blind on
purpose (a slot used after it was given back, a thread looked for too late) are caught.",
    command: "cargo test -p gracepoint-rcu --test model -- --nocapture blind_spot",
};

const STALE_DATA: Told = Told {
    story: "\
A tracepoint calls a function with data. The kernel keeps the two in two words, so that the call can be a direct
one, and changes one after the other. A CPU that is held up between reading the one and the other, while
the tracepoint goes from one probe to none to another one, calls the new function with the old probe's data.",
    reading: "\
Who, and what he does, a step a line. Probe 1 is function 1 with data 1 (tp->funcs), probe 2 the same with 2;
static_call is the function that is called directly, and 99 one that looks the functions up. A store is seen by others
when it \"gets to memory\" (~). The last load is of the new function, and the data was loaded long before.",
    schedule: include_str!("scenario/stale_data.schedule"),
    ours: "\
Function and data are one entry of an array behind one pointer. A hit loads the pointer once; whatever array it
finds is whole, and lives until the hit has left. There is no second word that could disagree, so no change
has to wait for anything.",
    command: "cargo test -p gracepoint --test scenarios -- stale_data   (and its twin with two words, which is caught)",
};

/// Runs the command; returns its exit status.
pub(crate) fn run(args: &ScenarioArgs, console: &mut Console) -> Result<u8> {
    let (name, told, measured) = match args.scenario {
        Scenario::TeardownStall => ("teardown-stall", TEARDOWN_STALL, measure::closing()),
        Scenario::BlindSpot => ("blind-spot", BLIND_SPOT, measure::nothing()),
        Scenario::StaleData => ("stale-data", STALE_DATA, measure::switching()),
    };
    let schedule = told.schedule.trim_end();
    if args.json {
        console.line(json!({
            "scenario": name,
            "story": told.story,
            "reading": told.reading,
            "schedule": schedule.lines().collect::<Vec<_>>(),
            "ours": told.ours,
            "command": told.command,
            "measured": measured.rows.iter().map(|(what, ms)| json!({"what": what, "ms": ms})).collect::<Vec<_>>(),
            "not_measured": measured.missing,
        }))?;
        return Ok(0);
    }
    let title = console.bold(name);
    console.line(format_args!("{title}\n\n{}\n", told.story))?;
    let head = console.bold("The kernel's way, on the schedule that the model found");
    console.line(format_args!("{head}\n\n{}\n", told.reading))?;
    for line in schedule.lines() {
        console.line(format_args!("  {line}"))?;
    }
    let head = console.bold("Ours");
    console.line(format_args!("\n{head}\n\n{}\n\n  {}\n", told.ours, told.command))?;
    let head = console.bold("The kernel of this machine");
    console.line(format_args!("{head}\n"))?;
    for (what, ms) in &measured.rows {
        console.line(format_args!("  {ms:>10.3} ms  {what}"))?;
    }
    if let Some(missing) = &measured.missing {
        console.line(format_args!("  not measured: {missing}"))?;
    }
    Ok(0)
}
