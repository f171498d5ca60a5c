//! Sessions that stay in a program when the command that made them has ended: `start`, `stop`,
//! `restart`, `reset`. What there is, whose it is and where it goes is in `show` and `extract`.
//!
//! Each verb takes all programs that are meant in turn. What goes wrong in one does not keep it from
//! the others; it is said, and the exit status tells.

pub(crate) mod extract;
pub(crate) mod show;

use crate::args::{ChooseFunctions, ResetArgs, SessionArgs, StartArgs};
use crate::console::Console;
use crate::discover::Live;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::functions;
use crate::quantity;
use crate::record::arena::Arena;
use crate::record::session::{ask, check_globs, unexpected};
use gracepoint_wire::control::{
    Create, FunctionsWanted, Message, Mode, SessionInfo, Sessions, Stopped,
};
use gracepoint_wire::glob;
use gracepoint_wire::schema::{Declared, FIRST_USER_ID};
use serde_json::{Value, json};

/// `kv (pid 4242)`.
fn title(live: &Live) -> String {
    format!("{} (pid {})", shown(&live.program.name), live.pid)
}

/// What a verb did, for scripts: `more` are the fields that it has beside those of all.
fn did(verb: &str, pid: u32, program: &str, session: (u64, &str), more: Value) -> Value {
    let mut all = json!({
        "did": verb,
        "pid": pid,
        "program": program,
        "session": session.0,
        "name": session.1,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

/// Does `work` in each of the programs. With one program its failure is the command's; with several
/// each is said, and the last exit status counts.
fn each(
    programs: Vec<Live>,
    console: &mut Console,
    mut work: impl FnMut(Live, &mut Console) -> Result<()>,
) -> Result<u8> {
    let alone = programs.len() == 1;
    let mut status = 0;
    for live in programs {
        let name = title(&live);
        match work(live, console) {
            Ok(()) => {}
            Err(Failure::Said { text, status: failed }) if !alone => {
                console.note(format_args!("{name}: {text}"));
                status = failed;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(status)
}

/// All sessions of a program.
fn sessions(live: &mut Live) -> Result<Sessions> {
    match ask(&mut live.link, &Message::Show)? {
        Message::Sessions(sessions) => Ok(sessions),
        _ => Err(unexpected()),
    }
}

/// Runs `start`.
pub(crate) fn start(args: &StartArgs, console: &mut Console) -> Result<u8> {
    let (events, functions) = args.wanted().map_err(Failure::new)?;
    let (mut programs, silent) = args.targets.find(console)?;
    if args.is_nothing() {
        return Ok(nothing(programs, args, console)?.max(silent));
    }
    if programs.len() > 1 {
        // A pattern that is some program's need not be every program's.
        programs = having(programs, &events, &functions)?;
    }
    let alone = programs.len() == 1;
    let status = each(programs, console, |mut live, console| {
        let wanted = match functions.is_any() {
            true => wanted_functions(&mut live, &functions, alone, console)?,
            false => None,
        };
        start_one(args, live, &events, wanted, console)
    })?;
    if status == 0 {
        console.words("see: gracepoint show; end it: gracepoint extract, or gracepoint reset");
    }
    Ok(status.max(silent))
}

fn start_one(
    args: &StartArgs,
    mut live: Live,
    events: &[String],
    functions: Option<FunctionsWanted>,
    console: &mut Console,
) -> Result<()> {
    let Message::Events(listed) = ask(&mut live.link, &Message::List)? else {
        return Err(unexpected());
    };
    let matches = |glob: &&String| listed.iter().any(|e| glob::matches(glob, &e.schema.name));
    let any = live.program.makes_events;
    let wanted = |glob: &&String| any || matches(glob);
    let globs: Vec<String> = events.iter().filter(wanted).cloned().collect();
    if globs.is_empty() && functions.is_none() {
        check_globs(events, &listed, &live.program)?;
    }
    sessions(&mut live)?; // a program that cannot show a session is too old to keep one
    let ranges = functions.as_ref().map_or(&[][..], |functions| &functions.ids);
    let many: u64 = ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
    let create = Message::Create(Create {
        globs,
        buffer_bytes: args.buffer.unwrap_or(0),
        mode: if args.flight_recorder { Mode::Overwrite } else { Mode::Discard },
        keep: true,
        name: args.session.clone(),
        context: args.hits.context(),
        limits: args.hits.limits(),
        tool: "gracepoint start".into(),
        level: args.level,
        functions,
        ..Create::default()
    });
    let Message::Created(created) = ask(&mut live.link, &create)? else {
        return Err(unexpected());
    };
    let arena = Arena::open(live.link.take_descriptor().ok_or_else(unexpected)?);
    if let Err(failure) = ask(&mut live.link, &Message::Start(created.session)) {
        let _ = ask(&mut live.link, &Message::End(created.session));
        return Err(failure);
    }
    console.note(format_args!(
        "{}: {} on in {}",
        shown(&args.session),
        what_is_on(&created.events, many),
        title(&live),
    ));
    let arena = arena?;
    if let Some(note) = arena.larger_than(args.buffer.unwrap_or(u64::MAX)) {
        console.note(note);
    }
    if args.json {
        let session = (created.session, args.session.as_str());
        let more = json!({
            "events": kinds(&created.events),
            "functions": many,
            "buffer_bytes": arena.bytes(),
            "overwrites": arena.overwrites(),
        });
        console.line(did("start", live.pid, &live.program.name, session, more))?;
    }
    Ok(())
}

/// How many kinds of event of the program's own there are.
fn kinds(events: &[Declared]) -> u64 {
    let own = |event: &&Declared| event.role.is_first() && event.id >= FIRST_USER_ID;
    events.iter().filter(own).count() as u64
}

/// `3 kinds of event and 12 functions`
pub(crate) fn what_is_on(events: &[Declared], functions: u64) -> String {
    let events = quantity::plural(kinds(events), "kind of event", "kinds of event");
    let of = quantity::plural(functions, "function", "functions");
    match functions {
        0 => events,
        _ if events.starts_with("0 ") => of,
        _ => format!("{events} and {of}"),
    }
}

/// The functions that a program is to record; none where it has none of them and others may.
fn wanted_functions(
    live: &mut Live,
    choice: &ChooseFunctions,
    alone: bool,
    console: &mut Console,
) -> Result<Option<FunctionsWanted>> {
    let listing = match functions::listing(live) {
        Ok(listing) => listing,
        Err(failure) if alone => return Err(failure),
        Err(_) => return Ok(None),
    };
    if !alone && !listing.has_some(choice) {
        return Ok(None);
    }
    let idle = listing.idle(choice, &live.program);
    listing.notes.iter().chain(&idle).for_each(|note| console.note(shown(note)));
    Ok(Some(listing.choose(choice, &live.program)?.0))
}

/// Ends what `start` left on under this name.
fn nothing(programs: Vec<Live>, args: &StartArgs, console: &mut Console) -> Result<u8> {
    let name = &args.session;
    each(programs, console, |mut live, console| {
        for session in sessions(&mut live)?.sessions {
            if session.name != *name || !session.kept {
                continue;
            }
            let attach = Message::Attach { session: session.session, look: false };
            let Message::Created(_) = ask(&mut live.link, &attach)? else {
                return Err(unexpected());
            };
            drop(live.link.take_descriptor());
            ask(&mut live.link, &Message::End(session.session))?;
            console.note(format_args!("{} of {} ended", shown(name), title(&live)));
            if args.json {
                let session = (session.session, session.name.as_str());
                console.line(did("end", live.pid, &live.program.name, session, json!({})))?;
            }
        }
        Ok(())
    })
}

/// Those of the programs that have an event, or a function, which one of the patterns matches.
fn having(programs: Vec<Live>, globs: &[String], choice: &ChooseFunctions) -> Result<Vec<Live>> {
    let mut found = Vec::new();
    for mut live in programs {
        let any = |name: &str| globs.iter().any(|glob| glob::matches(glob, name));
        let has_event = match ask(&mut live.link, &Message::List) {
            Ok(Message::Events(events)) => events.iter().any(|event| any(&event.schema.name)),
            _ => false,
        };
        let mut has_function =
            || functions::listing(&mut live).is_ok_and(|listing| listing.has_some(choice));
        if has_event || choice.is_any() && has_function() {
            found.push(live);
        }
    }
    if found.is_empty() {
        let all = globs.iter().chain(&choice.functions);
        let all: Vec<_> = all.map(|glob| format!("`{}`", shown(glob))).collect();
        let (what, list) = match choice.is_any() {
            true => ("a function", "gracepoint functions"),
            false => ("an event", "gracepoint list"),
        };
        return Err(Failure::new(format!(
            "no program has {what} that matches {}: `{list}` shows what there is",
            all.join(" or ")
        )));
    }
    Ok(found)
}

/// The kept sessions that are meant, and the programs that they are in.
fn kept(args: &SessionArgs, console: &mut Console) -> Result<Vec<(Live, Vec<SessionInfo>)>> {
    chosen(args, console, |session| session.kept && !session.counts)
}

/// The sessions of the programs that are meant, as far as they are `wanted`.
fn chosen(
    args: &SessionArgs,
    console: &mut Console,
    wanted: impl Fn(&SessionInfo) -> bool,
) -> Result<Vec<(Live, Vec<SessionInfo>)>> {
    let name = args.session.as_deref();
    let mut programs = Vec::new();
    let mut others = Vec::new();
    let mut unable = None;
    for mut live in args.targets.find(console)?.0 {
        let all = match sessions(&mut live) {
            Ok(all) => all.sessions,
            Err(failure) => {
                unable = Some(failure);
                continue;
            }
        };
        let (theirs, rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(&wanted)
            .partition(|session| name.is_none_or(|name| session.name == name));
        others.extend(rest.into_iter().map(|session| session.name));
        if !theirs.is_empty() {
            programs.push((live, theirs));
        }
    }
    if programs.is_empty() {
        if let Some(failure) = unable {
            return Err(failure);
        }
        let near = name.map(|name| glob::near(name, others.iter().map(String::as_str), 1));
        return Err(Failure::no(match (name, near.as_deref()) {
            (Some(name), Some([near, ..])) => {
                format!("no session is named `{}`: did you mean `{}`?", shown(name), shown(near))
            }
            (Some(name), _) => format!("no session is named `{}` (gracepoint show)", shown(name)),
            (None, _) => "nothing was left on: `gracepoint start` does that".to_owned(),
        }));
    }
    Ok(programs)
}

/// Takes over each kept session that is meant, and asks `verb` of it.
fn command(
    args: &SessionArgs,
    console: &mut Console,
    (name, verb): (&str, fn(u64) -> Message),
    said: impl Fn(&Message, &str) -> Option<String>,
) -> Result<u8> {
    let mut programs = Vec::new();
    let mut theirs = Vec::new();
    for (live, sessions) in kept(args, console)? {
        programs.push(live);
        theirs.push(sessions);
    }
    let mut theirs = theirs.into_iter();
    each(programs, console, |mut live, console| {
        for session in theirs.next().unwrap_or_default() {
            let attach = Message::Attach { session: session.session, look: false };
            let Message::Created(_) = ask(&mut live.link, &attach)? else {
                return Err(unexpected());
            };
            drop(live.link.take_descriptor());
            let reply = ask(&mut live.link, &verb(session.session))?;
            let what = format!("{} of {}", shown(&session.name), title(&live));
            console.note(said(&reply, &what).ok_or_else(unexpected)?);
            if args.json {
                let session = (session.session, session.name.as_str());
                let holdouts = match reply {
                    Message::Stopped(stopped) => stopped.holdouts,
                    _ => Vec::new(),
                };
                let more = json!({ "holdouts": holdouts });
                console.line(did(name, live.pid, &live.program.name, session, more))?;
            }
        }
        Ok(())
    })
}

/// Runs `stop`.
pub(crate) fn stop(args: &SessionArgs, console: &mut Console) -> Result<u8> {
    command(args, console, ("stop", Message::Stop), |reply, what| {
        let Message::Stopped(stopped) = reply else { return None };
        Some(format!("{what} is off{}", holdouts(stopped)))
    })
}

/// Who is still inside an event, where that is worth a word.
fn holdouts(stopped: &Stopped) -> String {
    match (stopped.settled, stopped.holdouts.first()) {
        (false, Some(who)) => format!("; {}", shown(who)),
        _ => String::new(),
    }
}

/// Runs `restart`.
pub(crate) fn restart(args: &SessionArgs, console: &mut Console) -> Result<u8> {
    command(args, console, ("restart", Message::Start), |reply, what| {
        matches!(reply, Message::Started(_)).then(|| format!("{what} is on"))
    })
}

/// Runs `reset`.
pub(crate) fn reset(args: &ResetArgs, console: &mut Console) -> Result<u8> {
    let removed = crate::perf::instance::remove_leftovers() as u64;
    if removed > 0 {
        let what = quantity::plural(removed, "instance", "instances");
        console.note(format_args!("{what} of tracefs removed that a killed recorder had left"));
    }
    let (programs, silent) = args.targets.find(console)?;
    let mut ended = removed;
    let status = each(programs, console, |mut live, console| {
        let Message::WasReset(reset) = ask(&mut live.link, &Message::Reset)? else {
            return Err(unexpected());
        };
        ended += u64::from(reset.sessions);
        if reset.sessions > 0 {
            console.note(format_args!(
                "{} of {} ended",
                quantity::plural(reset.sessions.into(), "session", "sessions"),
                title(&live)
            ));
        }
        for who in reset.holdouts.iter().take(10) {
            console.note(format_args!("{}: the session is freed when it leaves", shown(who)));
        }
        if args.json {
            console.line(json!({
                "did": "reset",
                "pid": live.pid,
                "program": live.program.name,
                "sessions": reset.sessions,
                "holdouts": reset.holdouts,
            }))?;
        }
        Ok(())
    })?;
    if ended == 0 && status == 0 {
        console.note("nothing was on");
    }
    Ok(status.max(silent))
}
