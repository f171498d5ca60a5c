//! `gracepoint export`: a trace for other viewers.
//!
//! The file appears under its name when it is whole: until then it is written beside it under a hidden
//! name, which goes away when the command fails or is interrupted.

use crate::args::{ExportArgs, ExportFormat};
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, STATUS};
use crate::quantity::{bytes, count, plural};
use crate::traces::{verdict, warn};
use gracepoint_analysis::Trace;
use gracepoint_analysis::export::{Exported, Format, Options, Progress, export as write_out};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
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
        }
    }

    fn default_file(self) -> &'static str {
        match self {
            ExportFormat::Perfetto => "gracepoint.pftrace",
            ExportFormat::Chrome => "gracepoint.json",
            ExportFormat::Folded => "gracepoint.folded",
            ExportFormat::Flamegraph => "gracepoint.svg",
        }
    }

    /// What to do with the file.
    fn next(self) -> &'static str {
        match self {
            ExportFormat::Perfetto | ExportFormat::Chrome => "open it in https://ui.perfetto.dev",
            ExportFormat::Folded => "draw it with inferno-flamegraph",
            ExportFormat::Flamegraph => "open it in a browser",
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
    };
    let done = if stdout {
        let mut out = File::from(own_stdout()?);
        run(&trace, &options, &mut out, &mut interrupts, console)?
    } else {
        let mut draft = Draft::new(&path, args.force)?;
        let done = run(&trace, &options, &mut draft.file, &mut interrupts, console)
            .map_err(|e| draft.named(e))?;
        if done.is_some() {
            draft.keep()?;
        }
        done
    };
    console.clear_progress();
    let Some(done) = done else {
        let left = if stdout { "what went to stdout is not whole" } else { "nothing was written" };
        return Err(Failure::new(format!("interrupted: {left}")).with_status(STATUS));
    };
    tell(&done, &path, args, console)?;
    warn(done.damage.get(trace.damage().len()..).unwrap_or_default(), console);
    verdict(&trace, done.damage.len(), args.choose.strict, console)
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
            if console.is_live() {
                console.progress(bar(progress, whole));
            }
        }
        !interrupted
    };
    let done = write_out(trace, options, out, &mut go_on)?;
    Ok((!interrupted).then_some(done))
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
fn tell(done: &Exported, path: &Path, args: &ExportArgs, console: &mut Console) -> Result<()> {
    let name = path.to_string_lossy();
    if args.json {
        let mut summary = json!({ "output": name, "format": args.to.name() });
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
    let parts = [
        (done.lost, "lost while recording"),
        (done.unfinished, "without an end"),
        (done.without_begin, "without a begin, left out"),
    ];
    for (n, what) in parts.into_iter().filter(|(n, _)| *n > 0) {
        text += &format!("; {} {what}", count(n));
    }
    console.note(format_args!("{text}; {}", args.to.next()));
    Ok(())
}

/// A file on its way to its name; it goes away with this unless it is kept.
struct Draft {
    file: File,
    hidden: PathBuf,
    path: PathBuf,
    force: bool,
    kept: bool,
}

impl Draft {
    fn new(path: &Path, force: bool) -> Result<Draft> {
        // The file that a link leads to is replaced, and not the link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = shown(&path.to_string_lossy()).into_owned();
        match std::fs::symlink_metadata(&path) {
            Ok(about) if !about.is_file() => {
                let text = format!("{name} is no file that can be replaced: give another by -o");
                return Err(Failure::new(text));
            }
            Ok(_) if !force => return Err(exists(&path)),
            _ => {}
        }
        let Some(leaf) = path.file_name() else {
            return Err(Failure::new(format!("{name} is no name for a file")));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(leaf);
        hidden.push(format!(".{}.part", std::process::id()));
        let hidden = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden);
        let file = file.map_err(|e| Failure::new(format!("cannot create {name}: {e}")))?;
        Ok(Draft { file, hidden, path, force, kept: false })
    }

    /// Says of which file an error tells.
    fn named(&self, error: Failure) -> Failure {
        match error {
            Failure::Said { text, status } if text.starts_with("cannot write the output") => {
                let name = shown(&self.path.to_string_lossy()).into_owned();
                Failure::Said { text: format!("{text}; {name} was not written"), status }
            }
            other => other,
        }
    }

    fn keep(&mut self) -> Result<()> {
        let fail = |e: &dyn std::fmt::Display| {
            Failure::new(format!("cannot name {}: {e}", shown(&self.path.to_string_lossy())))
        };
        if self.force {
            std::fs::rename(&self.hidden, &self.path).map_err(|e| fail(&e))?;
        } else {
            match renameat_with(CWD, &self.hidden, CWD, &self.path, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(exists(&self.path)),
                // The filesystem cannot do it at once. A link fails too where there is a file.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    std::fs::hard_link(&self.hidden, &self.path).map_err(|e| match e.kind() {
                        ErrorKind::AlreadyExists => exists(&self.path),
                        _ => fail(&e),
                    })?;
                    return Ok(()); // the hidden name goes with this
                }
                Err(e) => return Err(fail(&e)),
            }
        }
        self.kept = true;
        Ok(())
    }
}

fn exists(path: &Path) -> Failure {
    let name = shown(&path.to_string_lossy()).into_owned();
    Failure::new(format!("{name} exists: give another file by -o, or --force to replace it"))
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.hidden);
        }
    }
}
