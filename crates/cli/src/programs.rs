//! `gracepoint ps` and `gracepoint list`: which programs can be traced, and what they can tell.

use crate::args::{ListArgs, PsArgs};
use crate::console::Console;
use crate::discover::{self, Answer, Directory};
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::quantity;
use crate::record::session::{ask, unexpected};
use gracepoint_wire::control::{Listed, Message, Program};
use gracepoint_wire::glob;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Runs `ps`.
pub(crate) fn ps(args: &PsArgs, console: &mut Console) -> Result<u8> {
    let directory = Directory::from_env();
    let mut answers = discover::survey(directory.all_sockets());
    if answers.is_empty() {
        let place = if directory.only { " in GRACEPOINT_DIR" } else { "" };
        return Err(Failure::no(format!(
            "no traceable program{place}: a program becomes one by calling gracepoint::init()"
        )));
    }
    answers.sort_by_key(pid_of);
    if args.json {
        for answer in &answers {
            console.line(ps_json(answer))?;
        }
        return Ok(0);
    }
    let rows: Vec<[String; 5]> = answers.iter().map(ps_row).collect();
    let head = ["PID", "NAME", "UP", "EVENTS", "SESSIONS"].map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let (pid, name, up, on) = (width(0), width(1), width(2), width(3));
    for (i, row) in [&head].into_iter().chain(&rows).enumerate() {
        let [a, b, c, d, e] = row;
        let line = format!("{a:>pid$}  {b:name$}  {c:>up$}  {d:on$}  {e}");
        let line = line.trim_end();
        console.line(if i == 0 { console.bold(line) } else { line.to_owned() })?;
    }
    Ok(0)
}

fn pid_of(answer: &Answer) -> u32 {
    match answer {
        Answer::Ready(live) => live.pid,
        Answer::Silent(pid) | Answer::Foreign(pid, _) | Answer::Garbled(pid, _) => *pid,
    }
}

fn up(program: &Program) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(program.since_ns))
}

/// The program's name, and where else than in the executable its events are.
fn name(program: &Program) -> String {
    let file = Path::new(&program.object).file_name().map(|file| file.to_string_lossy());
    match file {
        Some(file) if file != program.name => {
            format!("{} ({})", shown(&program.name), shown(&file))
        }
        Some(_) => {
            let exe = Path::new(&program.exe).file_name().unwrap_or_default().to_string_lossy();
            format!("{} (in {})", shown(&program.name), shown(&exe))
        }
        None => shown(&program.name).into_owned(),
    }
}

/// How many events are on, and whether they can be.
fn events(program: &Program) -> String {
    let how = match program.patching.as_str() {
        "refused" => ", which the system does not let it switch",
        "mem" => ", switched through /proc/self/mem",
        _ => "",
    };
    format!("{} of {} on{how}", program.events_on, program.events)
}

fn ps_row(answer: &Answer) -> [String; 5] {
    let unusable = |what: &str| ["?".into(), "?".into(), what.to_owned(), String::new()];
    let [name, up, events, sessions] = match answer {
        Answer::Ready(live) => {
            let there = match live.program.pid == live.pid {
                true => String::new(),
                false => format!(" (pid {} there)", live.program.pid),
            };
            let sessions: Vec<_> = live.program.sessions.iter().map(|name| shown(name)).collect();
            let age = quantity::age(up(&live.program));
            [name(&live.program) + &there, age, events(&live.program), sessions.join(", ")]
        }
        Answer::Silent(_) => unusable("not answering"),
        Answer::Foreign(_, hello) => {
            unusable(&format!("speaks another version ({}.{})", hello.major, hello.minor))
        }
        Answer::Garbled(..) => unusable("answers something else than gracepoint's protocol"),
    };
    [pid_of(answer).to_string(), name, up, events, sessions]
}

fn ps_json(answer: &Answer) -> Value {
    match answer {
        Answer::Ready(live) => json!({
            "pid": live.pid,
            "answers": true,
            "name": live.program.name,
            "exe": live.program.exe,
            "own_pid": live.program.pid,
            "up_seconds": up(&live.program).as_secs_f64(),
            "object": (!live.program.object.is_empty()).then_some(&live.program.object),
            "patching": live.program.patching,
            "events_on": live.program.events_on,
            "events": live.program.events,
            "sessions": live.program.sessions,
        }),
        Answer::Foreign(pid, hello) => json!({
            "pid": pid,
            "answers": false,
            "version": format!("{}.{}", hello.major, hello.minor),
        }),
        Answer::Silent(pid) | Answer::Garbled(pid, _) => json!({ "pid": pid, "answers": false }),
    }
}

/// Runs `list`.
pub(crate) fn list(args: &ListArgs, console: &mut Console) -> Result<u8> {
    let mut live = discover::find(&args.target.which())?;
    let Message::Events(mut events) = ask(&mut live.link, &Message::List)? else {
        return Err(unexpected());
    };
    events.sort_by(|a, b| a.schema.name.cmp(&b.schema.name));
    let wanted = |event: &&Listed| {
        args.globs.is_empty()
            || args.globs.iter().any(|glob| glob::matches(glob, &event.schema.name))
    };
    let chosen: Vec<&Listed> = events.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err(nothing_listed(&args.globs, &events, &live.program));
    }
    for (i, event) in chosen.into_iter().enumerate() {
        if args.json {
            console.line(list_json(event))?;
        } else {
            if i > 0 {
                console.line("")?;
            }
            print_event(event, console)?;
        }
    }
    Ok(0)
}

fn nothing_listed(globs: &[String], events: &[Listed], program: &Program) -> Failure {
    let name = shown(&program.name);
    if events.is_empty() {
        return Failure::no(format!(
            "{name} has no events: declare some with #[derive(gracepoint::Event)] and trace!"
        ));
    }
    let names = || events.iter().map(|event| event.schema.name.as_str());
    let near: Vec<_> = globs.iter().flat_map(|g| glob::near(g, names(), 3)).map(shown).collect();
    let globs: Vec<_> = globs.iter().map(|glob| format!("`{}`", shown(glob))).collect();
    let hint = if near.is_empty() {
        format!("it has {}", quantity::plural(events.len() as u64, "event", "events"))
    } else {
        format!("did you mean {}?", near.join(", "))
    };
    Failure::no(format!("no event of {name} matches {}: {hint}", globs.join(" or ")))
}

fn print_event(event: &Listed, console: &mut Console) -> Result<()> {
    let name = console.bold(&shown(&event.schema.name));
    let on = if event.on > 0 { console.green("on") } else { "off".to_owned() };
    let mut sites = Vec::new();
    if event.sites > 0 || event.spans == 0 {
        sites.push(quantity::plural(event.sites.into(), "site", "sites"));
    }
    if event.spans > 0 {
        sites.push(quantity::plural(event.spans.into(), "span", "spans"));
    }
    let place = match event.location.as_str() {
        "" => String::new(),
        place => format!("  {}", console.faint(&shown(place))),
    };
    console.line(format_args!("{name}  {on}  {}{place}", sites.join(", ")))?;
    for line in event.schema.docs.lines().filter(|line| !line.trim().is_empty()) {
        console.line(format_args!("    {}", shown(line.trim())))?;
    }
    let cells: Vec<(String, &str)> = event
        .schema
        .fields
        .iter()
        .map(|f| (format!("{}: {}", shown(&f.name), shown(&f.ty.to_string())), f.docs.as_str()))
        .collect();
    let width = cells.iter().map(|(cell, _)| cell.chars().count()).max().unwrap_or(0).min(40);
    for (cell, docs) in cells {
        let docs = docs.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = format!("  {cell:width$}  {}", console.faint(&shown(&docs)));
        console.line(if docs.is_empty() { format!("  {cell}") } else { line })?;
    }
    Ok(())
}

fn list_json(event: &Listed) -> Value {
    let fields: Vec<Value> = event
        .schema
        .fields
        .iter()
        .map(|f| json!({
            "name": f.name, "type": f.ty.to_string(), "docs": f.docs, "sensitive": f.is_sensitive(),
        }))
        .collect();
    json!({
        "name": event.schema.name,
        "docs": event.schema.docs,
        "hash": format!("{:016x}", event.schema.hash()),
        "fields": fields,
        "sites": event.sites,
        "spans": event.spans,
        "on": event.on,
        "location": event.location,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_the_events_are() {
        let mut program =
            Program { name: "kv".into(), exe: "/bin/kv".into(), ..Program::default() };
        assert_eq!(name(&program), "kv");
        program.object = "/lib/libplugin.so".into();
        assert_eq!(name(&program), "kv (libplugin.so)");
        program.name = "libplugin.so".into();
        assert_eq!(name(&program), "libplugin.so (in kv)");
    }

    #[test]
    fn what_the_system_refuses_is_said() {
        let program = |how: &str| Program { patching: how.into(), events: 3, ..Program::default() };
        assert_eq!(events(&program("text")), "0 of 3 on");
        assert_eq!(
            events(&program("refused")),
            "0 of 3 on, which the system does not let it switch"
        );
    }
}
