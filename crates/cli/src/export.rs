//! `gracepoint export`: a trace for other viewers; `gracepoint view`: a page that is one itself.
//!
//! The file appears under its name when it is whole (see `draft`).

mod browser;

use crate::args::{ChooseArgs, ExportArgs, ExportFormat, ViewArgs};
use crate::console::Console;
use crate::draft::Draft;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, STATUS};
use crate::quantity::{bytes, count, plural};
use crate::traces::{verdict_of_chosen, warn, warn_further};
use gracepoint_analysis::export::{Exported, Format, Options, Progress, export as write_out};
use gracepoint_analysis::{Trace, hints};
use rustix::io::Errno;
use serde_json::json;
use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_millis(100);

impl ExportFormat {
    fn format(self) -> Format {
        match self {
            ExportFormat::Perfetto => Format::Perfetto,
            ExportFormat::Chrome => Format::Chrome,
            ExportFormat::Folded => Format::Folded,
            ExportFormat::Flamegraph => Format::Flamegraph,
            ExportFormat::Pprof => Format::Pprof,
        }
    }

    fn default_file(self) -> &'static str {
        match self {
            ExportFormat::Perfetto => "gracepoint.pftrace",
            ExportFormat::Chrome => "gracepoint.json",
            ExportFormat::Folded => "gracepoint.folded",
            ExportFormat::Flamegraph => "gracepoint.svg",
            ExportFormat::Pprof => "gracepoint.pb",
        }
    }

    /// What to do with the file.
    fn next(self) -> &'static str {
        match self {
            ExportFormat::Perfetto | ExportFormat::Chrome => "open it in https://ui.perfetto.dev",
            ExportFormat::Folded => "draw it with inferno-flamegraph",
            ExportFormat::Flamegraph => "open it in a browser",
            ExportFormat::Pprof => "look at it with `go tool pprof`",
        }
    }
}

/// Runs the command; returns its exit status.
pub(crate) fn export(args: &ExportArgs, console: &mut Console) -> Result<u8> {
    let path = args.output.clone().unwrap_or_else(|| args.to.default_file().into());
    let stdout = path == Path::new("-");
    if stdout && args.json {
        return Err(Failure::new(
            "--json would be mixed into what goes to stdout: give a file by -o",
        ));
    }
    if stdout && args.to == ExportFormat::Perfetto && std::io::stdout().is_terminal() {
        return Err(Failure::new("this is not for a terminal: give a file by -o, or redirect it"));
    }
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let mut interrupts = Interrupts::catch(false)?;
    let options = Options {
        format: args.to.format(),
        filter: args.choose.filter(),
        counters: args.counters.clone(),
        profile: args.profile,
    };
    let done = if stdout {
        let mut out = File::from(own_stdout()?);
        let done = run(&trace, &options, &mut out, &mut interrupts, console)?;
        console.clear_progress();
        done.ok_or_else(|| interrupted("what went to stdout is not whole"))?
    } else {
        let draft = Draft::new(&path, args.force)?;
        write_file(&trace, &options, &args.choose, draft, &mut interrupts, console)?
    };
    let next = args.to.next();
    tell(&done, &path, &args.to.name(), args.json, next, console)?;
    tell_missing(&trace, &done, console)?;
    hints::samples(&trace).filter(|_| args.profile).into_iter().for_each(|hint| console.note(hint));
    if args.choose.strict && !stdout {
        return Ok(0); // it would not have been written
    }
    warn_further(&trace, &done.damage, console);
    verdict_of_chosen(&trace, done.damage.len(), &args.choose, console)
}

/// Runs `view`; returns its exit status.
pub(crate) fn view(args: &ViewArgs, console: &mut Console) -> Result<u8> {
    let trace = Trace::open(&args.dir)?;
    warn(trace.damage(), console);
    let mut interrupts = Interrupts::catch(false)?;
    let options = Options {
        format: Format::Page,
        filter: args.choose.filter(),
        counters: args.counters.clone(),
        ..Options::default()
    };
    // A page that is only looked at goes where such things go, under a name that nobody has.
    let path = match &args.output {
        Some(path) => path.clone(),
        None if args.open => browser::passing_file()?,
        None => "gracepoint.html".into(),
    };
    let draft = Draft::new(&path, args.force)?;
    let done = write_file(&trace, &options, &args.choose, draft, &mut interrupts, console)?;
    let next = if args.open { "opening it" } else { "open it in a browser, or give --open" };
    tell(&done, &path, "page", args.json, next, console)?;
    tell_missing(&trace, &done, console)?;
    if args.open {
        browser::open(&path)?;
    }
    if args.choose.strict {
        return Ok(0); // it would not have been written
    }
    warn_further(&trace, &done.damage, console);
    verdict_of_chosen(&trace, done.damage.len(), &args.choose, console)
}

/// Writes a file that is there when it is whole, and with `--strict` only where the trace is, too.
fn write_file(
    trace: &Trace,
    options: &Options,
    choose: &ChooseArgs,
    mut draft: Draft,
    interrupts: &mut Interrupts,
    console: &mut Console,
) -> Result<Exported> {
    let done = run(trace, options, &mut draft.file, interrupts, console);
    console.clear_progress();
    let done =
        done.map_err(|e| draft.named(e))?.ok_or_else(|| interrupted("nothing was written"))?;
    if choose.strict {
        warn_further(trace, &done.damage, console);
        verdict_of_chosen(trace, done.damage.len(), choose, console)
            .map_err(|e| draft.unwritten(e))?;
    }
    draft.keep()?;
    Ok(done)
}

fn interrupted(left: &str) -> Failure {
    Failure::new(format!("interrupted: {left}")).with_status(STATUS)
}

/// A descriptor of our own, which no buffer of the standard library lies behind.
fn own_stdout() -> Result<rustix::fd::OwnedFd> {
    let cannot = |e: Errno| Failure::new(format!("cannot use stdout: {e}"));
    rustix::io::dup(std::io::stdout()).map_err(cannot)
}

/// What was exported, or nothing where Ctrl-C came before the end.
fn run(
    trace: &Trace,
    options: &Options,
    out: &mut File,
    interrupts: &mut Interrupts,
    console: &mut Console,
) -> Result<Option<Exported>> {
    let (mut shown_at, mut interrupted) = (Instant::now(), false);
    let whole = trace.bytes().max(1);
    let mut go_on = |progress: Progress| {
        if shown_at.elapsed() >= PROGRESS {
            interrupted = interrupts.take().is_some();
            shown_at = Instant::now();
            show(progress, whole, console);
        }
        !interrupted
    };
    let done = write_out(trace, options, out, &mut go_on)?;
    Ok((!interrupted).then_some(done))
}

/// Says where what was drawn has numbers for names.
fn tell_missing(trace: &Trace, done: &Exported, console: &mut Console) -> Result<()> {
    if done.calls > 0 {
        hints::names(trace, &[])?.into_iter().for_each(|hint| console.note(hint));
    }
    Ok(())
}

/// Draws how far it is, where somebody is watching.
fn show(progress: Progress, whole: u64, console: &mut Console) {
    if console.is_live() {
        console.progress(bar(progress, whole));
    }
}

/// `[#####     ]  50%  1,234,567 events`
fn bar(progress: Progress, whole: u64) -> String {
    const WIDTH: usize = 30;
    let part = (progress.bytes as f64 / whole as f64).min(1.0);
    let full = (part * WIDTH as f64) as usize;
    let percent = (part * 100.0) as u32;
    let events = count(progress.events);
    format!("[{:WIDTH$}] {percent:3}%  {events} events", "#".repeat(full))
}

/// What was done: an object on stdout, or a line on stderr.
fn tell(
    done: &Exported,
    path: &Path,
    format: &str,
    json: bool,
    next: &str,
    console: &mut Console,
) -> Result<()> {
    let name = path.to_string_lossy();
    if json {
        let mut summary = json!({ "output": name, "format": format });
        let told = serde_json::to_value(done).unwrap_or_default();
        if let (Some(summary), serde_json::Value::Object(told)) = (summary.as_object_mut(), told) {
            summary.extend(told);
        }
        console.line(summary)?;
        return console.flush();
    }
    if name == "-" {
        return Ok(());
    }
    let mut spans = plural(done.spans, "span", "spans");
    if done.calls > 0 {
        spans += &format!(", {}", plural(done.calls, "call", "calls"));
    }
    let mut text = format!(
        "{}: {}, {spans} from {}, {}",
        shown(&name),
        plural(done.events, "event", "events"),
        plural(done.threads, "thread", "threads"),
        bytes(done.bytes),
    );
    // Of a profile there are samples alone.
    if done.samples > 0 && done.events == 0 {
        text = format!(
            "{}: {} from {}, {}",
            shown(&name),
            plural(done.samples, "sample", "samples"),
            plural(done.threads, "thread", "threads"),
            bytes(done.bytes),
        );
    }
    if done.stacks > 0 {
        text += &format!("; {}", plural(done.stacks, "sample", "samples"));
    }
    if done.runs > 0 {
        text += &format!("; {} on CPUs", plural(done.runs, "slice", "slices"));
    }
    let parts = [
        (done.lost, "lost while recording"),
        (done.unfinished, "without an end"),
        (done.without_begin, "without a begin, left out"),
    ];
    for (n, what) in parts.into_iter().filter(|(n, _)| *n > 0) {
        text += &format!("; {} {what}", count(n));
    }
    console.note(format_args!("{text}; {next}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    /// What was written, which its clones share.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn at(bytes: u64, events: u64) -> Progress {
        Progress { events, bytes }
    }

    #[test]
    fn the_bar_grows_with_what_was_read() {
        let full = |n: usize| format!("[{:30}]", "#".repeat(n));
        for (bytes, whole, want) in [
            (0, 1000, format!("{}   0%  0 events", full(0))),
            (500, 1000, format!("{}  50%  1,234,567 events", full(15))),
            (999, 1000, format!("{}  99%  1,234,567 events", full(29))),
            (1000, 1000, format!("{} 100%  1,234,567 events", full(30))),
            // A trace that grew meanwhile.
            (5000, 1000, format!("{} 100%  1,234,567 events", full(30))),
        ] {
            let events = if bytes == 0 { 0 } else { 1_234_567 };
            assert_eq!(bar(at(bytes, events), whole), want);
        }
    }

    #[test]
    fn it_is_one_line_that_is_rewritten_and_goes() {
        let (out, err) = (Written::default(), Written::default());
        let mut console = Console::of(Box::new(out.clone()), Box::new(err.clone()), true);
        show(at(250, 8192), 1000, &mut console);
        let first = err.take();
        assert!(first.starts_with("\r\u{1b}[K[#######  "), "{first:?}");
        assert!(first.ends_with("]  25%  8,192 events") && !first.contains('\n'), "{first:?}");
        show(at(500, 16_384), 1000, &mut console);
        let second = err.take();
        assert!(second.starts_with("\r\u{1b}[K[") && second.contains(" 50%"), "{second:?}");
        console.clear_progress();
        assert_eq!(err.take(), "\r\u{1b}[K", "nothing is left of it");
        console.clear_progress();
        assert_eq!((err.take(), out.take()), (String::new(), String::new()));
        // A message takes its place and does not stand behind it.
        show(at(500, 16_384), 1000, &mut console);
        err.take();
        console.note("done");
        assert_eq!(err.take(), "\r\u{1b}[Kgracepoint: done\n");
    }

    #[test]
    fn nobody_who_watches_means_no_bar() {
        let (out, err) = (Written::default(), Written::default());
        let mut console = Console::of(Box::new(out.clone()), Box::new(err.clone()), false);
        show(at(500, 16_384), 1000, &mut console);
        console.clear_progress();
        assert_eq!((err.take(), out.take()), (String::new(), String::new()));
    }
}
