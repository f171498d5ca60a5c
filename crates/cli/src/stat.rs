//! `gracepoint stat`: how often events happen, counted in the programs themselves.
//!
//! A program whose sessions are reset tells its last counts before it says so, unasked; what one had counted
//! that ends goes with it.

use crate::args::StatArgs;
use crate::connection::{Connection, Lost, wait_for};
use crate::console::Console;
use crate::discover::Live;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use crate::quantity;
use crate::record::session::{REPLY_WITHIN, ask, check_globs, unexpected};
use gracepoint_wire::clock::Triple;
use gracepoint_wire::control::{Counts, Create, Message};
use gracepoint_wire::glob;
use gracepoint_wire::schema::FIRST_USER_ID;
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
    /// What it told unasked.
    told: Option<Counts>,
    over: Option<Over>,
}

/// Why a program counts no more.
enum Over {
    Gone,
    /// Who reset it.
    Reset(String),
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
    let mut printed = false;
    loop {
        counted.iter_mut().for_each(|one| one.listen(console));
        let now = Instant::now();
        let asked = interrupts.take().is_some() || end.is_some_and(|end| now >= end);
        let over = asked || counted.iter().all(|one| one.over.is_some());
        if over || next.is_some_and(|next| now >= next) {
            let rows: Vec<Row> = counted.iter_mut().flat_map(|one| one.look(console)).collect();
            if asked || !rows.is_empty() {
                print(&rows, args, over && args.interval.is_none(), console)?;
                console.flush()?;
                printed = true;
            }
            counted.retain(|one| one.over.is_none());
            next = args.interval.map(|interval| now + interval);
        }
        if over {
            return match printed {
                true => Ok(0),
                false => Err(Failure::new(
                    "nothing is left of what was counted: --interval 1s shows it while programs go on",
                )),
            };
        }
        let until = [end, next].into_iter().flatten().min();
        let most = until.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
        wait_for(&interrupts.interest(), most);
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
        let count = Message::Count(Create { globs, tool, level: args.level, ..Create::default() });
        let Message::Created(created) = ask(&mut link, &count)? else {
            return Err(unexpected());
        };
        let Message::Started(at) = ask(&mut link, &Message::Start(created.session))? else {
            return Err(unexpected());
        };
        let told = created.events.iter().filter(|e| e.id >= FIRST_USER_ID && e.role.is_first());
        let names = told.map(|event| (event.id, event.schema.name.clone())).collect();
        let last = (at, BTreeMap::new());
        let (session, program) = (created.session, program.name);
        let (told, over) = (None, None);
        counted.push(Counted { link, pid, program, session, names, last, told, over });
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

impl Counted {
    /// Takes what comes unasked: that it is over, and says that.
    fn listen(&mut self, console: &mut Console) {
        while self.over.is_none() {
            match self.link.try_receive() {
                Ok(None) => return,
                Ok(Some(message)) => self.take(message),
                Err(_) => self.over = Some(Over::Gone),
            }
            self.say(console);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Counts(counts) => self.told = Some(counts),
            Message::Ended { by, .. } => self.over = Some(Over::Reset(by)),
            _ => {}
        }
    }

    /// Asks for what it has counted. One that does not answer is over.
    fn ask(&mut self) {
        self.link.send(&Message::Stat(self.session));
        let deadline = Instant::now() + REPLY_WITHIN;
        while self.told.is_none() && self.over.is_none() {
            match self.link.receive(deadline) {
                // Somebody is ending it, and the counts will be told.
                Ok(Message::Failure(failure)) if failure.code == "session" => {}
                Ok(Message::Failure(_)) | Err(Lost::Closed | Lost::Silent | Lost::Garbled(_)) => {
                    self.over = Some(Over::Gone);
                }
                Ok(message) => self.take(message),
            }
        }
    }

    /// What came since the last time.
    fn look(&mut self, console: &mut Console) -> Vec<Row> {
        if self.over.is_none() {
            self.ask();
            self.say(console);
        }
        let Some(counts) = self.told.take() else { return Vec::new() };
        let now = counts.counts.iter().map(|count| (count.id, count.hits)).collect();
        let (before, had) = std::mem::replace(&mut self.last, (counts.at, now));
        let nanoseconds = counts.at.mono_ns.saturating_sub(before.mono_ns);
        let row = |(id, event): (&u32, &String)| {
            let total = self.last.1.get(id).copied().unwrap_or(0);
            Row {
                pid: self.pid,
                program: self.program.clone(),
                event: event.clone(),
                hits: total.saturating_sub(had.get(id).copied().unwrap_or(0)),
                total,
                seconds: nanoseconds as f64 / 1e9,
            }
        };
        self.names.iter().map(row).collect()
    }

    /// Says why it is over, if it is.
    fn say(&self, console: &mut Console) {
        let who = format!("{} (pid {})", shown(&self.program), self.pid);
        match &self.over {
            Some(Over::Reset(by)) => console.note(format_args!(
                "the counting in {who} was ended by {}: gracepoint reset",
                shown(by)
            )),
            Some(Over::Gone) => console.note(format_args!(
                "{who} has ended, or does not answer: what it counted since it was last asked is gone"
            )),
            None => {}
        }
    }
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
