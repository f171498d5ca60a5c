//! `gracepoint show`: the sessions of all programs, whose they are, and how full.

use super::{sessions, title};
use crate::args::ShowArgs;
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::quantity;
use gracepoint_wire::control::{LogEntry, SessionInfo, SessionState};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Cells of a row; those of the numbers stand to the right.
const COLUMNS: [(&str, bool); 12] = [
    ("PID", true),
    ("PROGRAM", false),
    ("SESSION", false),
    ("STATE", false),
    ("EVENTS", true),
    ("FUNCTIONS", true),
    ("BUFFER", false),
    ("WHEN FULL", false),
    ("LOST", true),
    ("AGE", true),
    ("BY", false),
    ("PATTERNS", false),
];
/// Patterns that are named in a row; JSON has more.
const PATTERNS: usize = 3;

/// Runs `show`.
pub(crate) fn show(args: &ShowArgs, console: &mut Console) -> Result<u8> {
    let mut rows: Vec<[String; 12]> = Vec::new();
    let mut log = Vec::new();
    let mut any = false;
    for mut live in args.targets.find(console)?.0 {
        let all = match sessions(&mut live) {
            Ok(all) => all,
            Err(failure) => {
                console.note(format_args!("{}: {failure}", title(&live)));
                continue;
            }
        };
        let (pid, name) = (live.pid, live.program.name.clone());
        for session in &all.sessions {
            any = true;
            if args.json {
                console.line(as_json(pid, &name, session))?;
            } else {
                rows.push(row(pid, &name, session));
            }
        }
        log.extend(all.log.into_iter().map(|entry| (title(&live), entry)));
    }
    if !rows.is_empty() {
        table(&rows, console)?;
    }
    let nothing = Failure::no("nothing is on: `gracepoint start` or `record` does that");
    let told = args.log && !log.is_empty();
    if args.log {
        print_log(log, args.json, console)?;
    }
    match (any, told) {
        (true, _) => Ok(0),
        (false, true) => {
            console.flush()?;
            console.note(nothing);
            Ok(0)
        }
        (false, false) => Err(nothing),
    }
}

fn table(rows: &[[String; 12]], console: &mut Console) -> Result<()> {
    let head = COLUMNS.map(|(name, _)| name.to_owned());
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    for (i, row) in [&head].into_iter().chain(rows).enumerate() {
        let cells = row.iter().zip(COLUMNS).zip(&widths).map(|((cell, (_, right)), &width)| {
            if right { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let line = line.trim_end();
        console.line(if i == 0 { console.bold(line) } else { line.to_owned() })?;
    }
    Ok(())
}

fn age(made_ns: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(made_ns))
}

/// `on`, `off`; and whether somebody drains it.
fn state(session: &SessionInfo) -> String {
    let on = if session.state == SessionState::On { "on" } else { "off" };
    match (session.counts, session.kept, session.consumer) {
        (true, ..) => format!("{on}, counting"),
        (false, true, 0) => on.to_owned(),
        (false, _, pid) => format!("{on}, drained by {pid}"),
    }
}

fn by(session: &SessionInfo) -> String {
    let tool = if session.origin.tool.is_empty() { "?" } else { &session.origin.tool };
    format!("{} (pid {}, uid {})", shown(tool), session.origin.pid, session.origin.uid)
}

/// What it does when its buffer is full.
fn when_full(session: &SessionInfo) -> &'static str {
    match (session.buffer_bytes, session.mode) {
        (0, _) => "-",
        (_, 1) => "overwrites",
        _ => "discards",
    }
}

/// `kv:*, http:*`
fn patterns(session: &SessionInfo) -> String {
    let some: Vec<_> = session.globs.iter().take(PATTERNS).map(|glob| shown(glob)).collect();
    match session.globs.len() {
        0 => "-".to_owned(),
        n if n > PATTERNS => format!("{} and {} more", some.join(", "), n - PATTERNS),
        _ => some.join(", "),
    }
}

fn row(pid: u32, program: &str, session: &SessionInfo) -> [String; 12] {
    let name = if session.name.is_empty() {
        format!("#{}", session.session)
    } else {
        shown(&session.name).into_owned()
    };
    let buffer = match session.buffer_bytes {
        0 => "-".to_owned(),
        bytes => format!("{} of {}", quantity::bytes(session.filled_bytes), quantity::bytes(bytes)),
    };
    [
        pid.to_string(),
        shown(program).into_owned(),
        name,
        state(session),
        session.events.to_string(),
        session.functions.to_string(),
        buffer,
        when_full(session).to_owned(),
        quantity::count(session.lost),
        quantity::age(age(session.made_ns)),
        by(session),
        patterns(session),
    ]
}

fn as_json(pid: u32, program: &str, session: &SessionInfo) -> Value {
    json!({
        "pid": pid,
        "program": program,
        "session": session.session,
        "name": session.name,
        "on": session.state == SessionState::On,
        "kept": session.kept,
        "counts": session.counts,
        "events": session.events,
        "functions": session.functions,
        "globs": session.globs,
        "overwrites": session.mode == 1,
        "buffer_bytes": session.buffer_bytes,
        "filled_bytes": session.filled_bytes,
        "lost": session.lost,
        "age_seconds": age(session.made_ns).as_secs_f64(),
        "by": {
            "tool": session.origin.tool,
            "pid": session.origin.pid,
            "uid": session.origin.uid,
        },
        "drained_by": (session.consumer != 0).then_some(session.consumer),
    })
}

fn print_log(log: Vec<(String, LogEntry)>, json: bool, console: &mut Console) -> Result<()> {
    for (program, entry) in log {
        if json {
            console.line(json!({ "at_ns": entry.at_ns, "program": program, "log": entry.text }))?;
        } else {
            let age = quantity::age(age(entry.at_ns));
            console.line(format_args!("{age:>5} ago  {program}: {}", shown(&entry.text)))?;
        }
    }
    Ok(())
}
