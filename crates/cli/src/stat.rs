//! `gracepoint stat`: how often events happen, counted in the programs themselves.

use crate::args::StatArgs;
use crate::connection::{Connection, wait_for};
use crate::console::Console;
use crate::discover::Live;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use crate::quantity;
use crate::record::session::{ask, check_globs, unexpected};
use gracepoint_wire::clock::Triple;
use gracepoint_wire::control::{Create, Message};
use gracepoint_wire::glob;
use gracepoint_wire::schema::{FIRST_USER_ID, Role};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest wait before Ctrl-C and the end are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// A program that counts.
struct Counted {
    link: Connection,
    pid: u32,
    program: String,
    session: u64,
    /// Names by id.
    names: BTreeMap<u32, String>,
    /// When it was asked last, and what it had counted by then.
    last: (Triple, BTreeMap<u32, u64>),
}

/// What one event came to.
struct Row {
    pid: u32,
    program: String,
    event: String,
    hits: u64,
    total: u64,
    seconds: f64,
}

impl Row {
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.hits as f64 / self.seconds } else { 0.0 }
    }
}

/// Runs `stat`.
pub(crate) fn stat(args: &StatArgs, console: &mut Console) -> Result<u8> {
    let mut interrupts = Interrupts::catch(true)?;
    let mut counted = begin(args, console)?;
    let began = Instant::now();
    let end = args.duration.map(|length| began + length);
    let mut next = args.interval.map(|interval| began + interval);
    loop {
        let now = Instant::now();
        let over = interrupts.take().is_some() || end.is_some_and(|end| now >= end);
        if over || next.is_some_and(|next| now >= next) {
            let rows = look(&mut counted);
            print(&rows, args, over && args.interval.is_none(), console)?;
            console.flush()?;
            next = args.interval.map(|interval| now + interval);
        }
        if over {
            return Ok(0);
        }
        if counted.is_empty() {
            return Err(Failure::new(
                "the programs have ended: what they counted is gone with them",
            ));
        }
        let until = [end, next].into_iter().flatten().min();
        let most = until.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
        wait_for(&interrupts.interest(), most);
        // A program that has ended shows only here, where it is not asked otherwise.
        counted.retain_mut(|one| one.link.try_receive().is_ok());
    }
}

/// Switches the counting on.
fn begin(args: &StatArgs, console: &mut Console) -> Result<Vec<Counted>> {
    let programs = args.targets.find(console)?.0;
    let alone = programs.len() == 1;
    let mut counted = Vec::new();
    for live in programs {
        let Live { mut link, pid, program } = live;
        let Message::Events(events) = ask(&mut link, &Message::List)? else {
            return Err(unexpected());
        };
        let names = |glob: &String| events.iter().any(|e| glob::matches(glob, &e.schema.name));
        let globs: Vec<String> = args.events.iter().filter(|glob| names(glob)).cloned().collect();
        if globs.is_empty() {
            if alone {
                check_globs(&args.events, &events, &program)?;
            }
            continue;
        }
        let tool = "gracepoint stat".into();
        let count = Message::Count(Create { globs, tool, ..Create::default() });
        let Message::Created(created) = ask(&mut link, &count)? else {
            return Err(unexpected());
        };
        let Message::Started(at) = ask(&mut link, &Message::Start(created.session))? else {
            return Err(unexpected());
        };
        let told = created.events.iter().filter(|e| e.id >= FIRST_USER_ID && e.role != Role::End);
        let names = told.map(|event| (event.id, event.schema.name.clone())).collect();
        let last = (at, BTreeMap::new());
        let (session, program) = (created.session, program.name);
        counted.push(Counted { link, pid, program, session, names, last });
    }
    if counted.is_empty() {
        let globs: Vec<_> = args.events.iter().map(|glob| format!("`{}`", shown(glob))).collect();
        return Err(Failure::new(format!(
            "no program has an event that matches {}: `gracepoint list` shows what there is",
            globs.join(" or ")
        )));
    }
    Ok(counted)
}

/// Asks all programs for what they have counted since the last time. One that does not answer is left
/// out from now on.
fn look(counted: &mut Vec<Counted>) -> Vec<Row> {
    let mut rows = Vec::new();
    counted.retain_mut(|one| {
        let Ok(Message::Counts(counts)) = ask(&mut one.link, &Message::Stat(one.session)) else {
            return false;
        };
        let mut now: BTreeMap<u32, u64> = BTreeMap::new();
        for count in counts.counts {
            now.insert(count.id, count.hits);
        }
        let (before, had) = std::mem::replace(&mut one.last, (counts.at, now));
        let nanoseconds = counts.at.mono_ns.saturating_sub(before.mono_ns);
        for (id, event) in &one.names {
            let total = one.last.1.get(id).copied().unwrap_or(0);
            rows.push(Row {
                pid: one.pid,
                program: one.program.clone(),
                event: event.clone(),
                hits: total.saturating_sub(had.get(id).copied().unwrap_or(0)),
                total,
                seconds: nanoseconds as f64 / 1e9,
            });
        }
        true
    });
    rows
}

fn print(rows: &[Row], args: &StatArgs, last: bool, console: &mut Console) -> Result<()> {
    if args.json {
        for row in rows {
            console.line(json!({
                "pid": row.pid,
                "program": row.program,
                "event": row.event,
                "hits": row.hits,
                "total": row.total,
                "seconds": row.seconds,
                "rate": row.rate(),
            }))?;
        }
        return Ok(());
    }
    let mut rows: Vec<&Row> = rows.iter().filter(|row| row.total > 0 || last).collect();
    rows.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| a.event.cmp(&b.event)));
    console.line(console.bold(&format!("{:>15} {:>15}  EVENT", "HITS/S", "HITS")))?;
    let several = rows.iter().any(|row| row.pid != rows[0].pid);
    for row in rows {
        let rate = quantity::count(row.rate().round() as u64);
        let program = match several {
            true => console.faint(&format!("  {} (pid {})", shown(&row.program), row.pid)),
            false => String::new(),
        };
        let hits = quantity::count(row.hits);
        console.line(format_args!("{rate:>15} {hits:>15}  {}{program}", shown(&row.event)))?;
    }
    Ok(())
}
