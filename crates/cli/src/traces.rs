//! `gracepoint report`, `info` and `hist`: what a trace tells.

use crate::args::{ChooseArgs, HistArgs, InfoArgs, ReportArgs, SlowArgs};
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::quantity;
use gracepoint_analysis::report::{Format, Options};
use gracepoint_analysis::{Damage, Trace, hints, hist, info, profile, report, slow};

/// Damage told one by one; more is only counted.
const DAMAGE_SHOWN: usize = 5;

/// Runs `report`.
pub(crate) fn report(args: &ReportArgs, console: &mut Console) -> Result<u8> {
    if let Some(glob) = &args.functions {
        return crate::functions::table(glob, args, console);
    }
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    if args.profile {
        let profile = profile::profile(&trace, &args.choose.filter())?;
        let text = if args.json { profile.to_json() } else { profile.to_text() };
        console.line(text.trim_end())?;
        console.flush()?;
        hints::samples(&trace).into_iter().for_each(|hint| console.note(hint));
        warn_further(&trace, &profile.damage, console);
        return verdict_of_chosen(&trace, profile.damage.len(), &args.choose, console);
    }
    let options = Options {
        format: if args.json { Format::JsonLines } else { Format::Text },
        time: args.time.time(),
        filter: args.choose.filter(),
        limit: args.limit,
    };
    let reported = report::report(&trace, &options, console.out())?;
    console.flush()?;
    let globs = &options.filter.events;
    let missing = [hints::names(&trace, globs)?, hints::stacks(&trace, globs)?];
    missing.into_iter().flatten().for_each(|hint| console.note(hint));
    warn_further(&trace, &reported.damage, console);
    if reported.lines == 0 && args.limit != Some(0) && args.choose.is_choice() {
        console.note(shown(&why_nothing(&trace)?));
    }
    verdict_of_chosen(&trace, reported.damage.len(), &args.choose, console)
}

/// What there is, where nothing was shown.
fn why_nothing(trace: &Trace) -> Result<String> {
    let all = info::info(trace)?;
    Ok(match all.range() {
        Some(range) => format!(
            "no event meets the conditions: there are {}, {range} (gracepoint info)",
            quantity::plural(all.events, "event", "events")
        ),
        None => "the trace has no events (gracepoint info tells what it has)".into(),
    })
}

/// Runs `info`.
pub(crate) fn info(args: &InfoArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    let info = info::info_of(&trace, &args.choose.filter())?;
    let text = if args.json { info.to_json() } else { info.to_text() };
    console.line(text.trim_end())?;
    console.flush()?;
    hints::stacks(&trace, &args.choose.filter().events)?.into_iter().for_each(|h| console.note(h));
    verdict_of_chosen(&trace, info.damage.len(), &args.choose, console)
}

/// Runs `slow`.
pub(crate) fn slow(args: &SlowArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let over_ns = u64::try_from(args.over.as_nanos()).unwrap_or(u64::MAX);
    let slow = slow::slow(&trace, &args.event, over_ns)?;
    let text = if args.json { slow.to_json() } else { slow.to_text() };
    console.line(text.trim_end())?;
    console.flush()?;
    warn_further(&trace, &slow.damage, console);
    let status = verdict(&trace, slow.damage.len(), args.strict, console)?;
    Ok(if slow.slow == 0 { 1 } else { status })
}

/// Runs `hist`.
pub(crate) fn hist(args: &HistArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let options =
        hist::Options { event: args.event.clone(), field: args.field.clone(), by: args.by.clone() };
    let hist = hist::hist(&trace, &options)?;
    let text = if args.json { hist.to_json() } else { hist.to_text(width()) };
    console.line(text.trim_end())?;
    console.flush()?;
    warn_further(&trace, &hist.damage, console);
    verdict(&trace, hist.damage.len(), args.strict, console)
}

/// [`verdict`] where only what `choose` wants has been read: `--strict` is about all of the trace.
pub(crate) fn verdict_of_chosen(
    trace: &Trace,
    damage: usize,
    choose: &ChooseArgs,
    console: &mut Console,
) -> Result<u8> {
    let mut damage = damage.max(trace.damage().len());
    if choose.strict && damage == 0 && choose.steps_over() {
        let elsewhere = trace.check();
        warn(&elsewhere, console);
        damage = elsewhere.len();
    }
    verdict(trace, damage, choose.strict, console)
}

/// What to say at the end, when all that can be read has been shown: of a trace that is damaged or
/// not whole that it is, and with `strict` as an error.
pub(crate) fn verdict(
    trace: &Trace,
    damage: usize,
    strict: bool,
    console: &mut Console,
) -> Result<u8> {
    let all = damage.max(trace.damage().len());
    let dir = trace.dir().to_string_lossy();
    let text = if all > 0 {
        format!(
            "{} is damaged in {}, and only what could be read is shown: copy it again from where it was \
             recorded, or record anew",
            shown(&dir),
            quantity::plural(all as u64, "place", "places"),
        )
    } else {
        match trace.sidecar() {
            Some(about) if about.complete => return Ok(0),
            Some(about) if about.ended == "write-failed" => {
                "the recorder could not write on (a full disk?): what came after that is missing"
                    .into()
            }
            Some(_) => {
                "the recorder did not come to its end, or came late: events may be missing".into()
            }
            // Also a copy of the visible files alone, as other readers need them.
            None if !strict => return Ok(0),
            None => format!(
                "{} has no .gracepoint.json, which says whether it is whole: copy it with the hidden \
                 files",
                shown(&dir)
            ),
        }
    };
    if strict {
        return Err(Failure::new(text));
    }
    console.note(text);
    Ok(0)
}

/// Columns of the terminal, or 80.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(80, |size| usize::from(size.ws_col)).clamp(40, 200)
}

pub(crate) fn warn(damage: &[Damage], console: &mut Console) {
    for one in damage.iter().take(DAMAGE_SHOWN) {
        console.note(format_args!("damaged: {}", shown(&one.to_string())));
    }
    if damage.len() > DAMAGE_SHOWN {
        let more = damage.len() - DAMAGE_SHOWN;
        console.note(format_args!("damaged at {more} more places: see gracepoint info"));
    }
}

/// Says what was met while the trace was read; what opening it has told, with which `damage` begins, was said.
pub(crate) fn warn_further(trace: &Trace, damage: &[Damage], console: &mut Console) {
    warn(damage.get(trace.damage().len()..).unwrap_or_default(), console);
}
