//! `gracepoint report`, `info` and `hist`: what a trace tells.

use crate::args::{HistArgs, InfoArgs, ReportArgs, TimeFormat};
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::quantity;
use gracepoint_analysis::report::{Format, Options, Time};
use gracepoint_analysis::{Damage, Trace, hist, info, report};

/// Damage told one by one; more is only counted.
const DAMAGE_SHOWN: usize = 5;

/// Runs `report`.
pub(crate) fn report(args: &ReportArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let options = Options {
        format: if args.json { Format::JsonLines } else { Format::Text },
        time: match args.time {
            TimeFormat::Utc => Time::Utc,
            TimeFormat::Date => Time::UtcDate,
            TimeFormat::Relative => Time::Relative,
        },
        events: args.events.clone(),
        limit: args.limit,
    };
    let reported = report::report(&trace, &options, console.out())?;
    console.flush()?;
    warn(&reported.damage, console);
    if trace.sidecar().is_some_and(|about| !about.complete) {
        console.note("the recorder did not come to its end, or came late: events may be missing");
    }
    verdict(&trace, reported.damage.len())
}

/// Runs `info`.
pub(crate) fn info(args: &InfoArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    let info = info::info(&trace)?;
    let text = if args.json { info.to_json() } else { info.to_text() };
    console.line(text.trim_end())?;
    console.flush()?;
    verdict(&trace, info.damage.len())
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
    warn(&hist.damage, console);
    verdict(&trace, hist.damage.len())
}

/// An error at the end, when all that can be read has been shown.
fn verdict(trace: &Trace, damage: usize) -> Result<u8> {
    let all = damage.max(trace.damage().len());
    if all == 0 {
        return Ok(0);
    }
    Err(Failure::new(format!(
        "{} is damaged in {}, and what could be read is above: copy it again from where it was \
         recorded, or record anew",
        shown(&trace.dir().to_string_lossy()),
        quantity::plural(all as u64, "place", "places"),
    )))
}

/// Columns of the terminal, or 80.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(80, |size| usize::from(size.ws_col)).clamp(40, 200)
}

fn warn(damage: &[Damage], console: &mut Console) {
    for one in damage.iter().take(DAMAGE_SHOWN) {
        console.note(format_args!("damaged: {}", shown(&one.to_string())));
    }
    if damage.len() > DAMAGE_SHOWN {
        let more = damage.len() - DAMAGE_SHOWN;
        console.note(format_args!("damaged at {more} more places: see gracepoint info"));
    }
}
