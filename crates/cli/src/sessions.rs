//! Sessions that stay in a program when the command that made them has ended: `start`, `stop`,
//! `restart`, `reset`. What there is, whose it is and where it goes is in `show` and `extract`.
//!
//! Each verb takes all programs that are meant in turn. What goes wrong in one does not keep it from
//! the others; it is said, and the exit status tells.

pub(crate) mod extract;
pub(crate) mod show;

use crate::args::{ResetArgs, SessionArgs, StartArgs};
use crate::console::Console;
use crate::discover::Live;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::quantity;
use crate::record::session::{ask, check_globs, unexpected};
use gracepoint_wire::control::{Create, Message, Mode, SessionInfo, Sessions, Stopped};
use gracepoint_wire::glob;
use gracepoint_wire::schema::{FIRST_USER_ID, Role};

/// `kv (pid 4242)`.
fn title(live: &Live) -> String {
    format!("{} (pid {})", shown(&live.program.name), live.pid)
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
    let (mut programs, silent) = args.targets.find(console)?;
    if programs.len() > 1 {
        // A pattern that is some program's need not be every program's.
        programs = having(programs, &args.events)?;
    }
    let status = each(programs, console, |mut live, console| {
        let Message::Events(events) = ask(&mut live.link, &Message::List)? else {
            return Err(unexpected());
        };
        let matches = |glob: &&String| events.iter().any(|e| glob::matches(glob, &e.schema.name));
        let globs: Vec<String> = args.events.iter().filter(matches).cloned().collect();
        if globs.is_empty() {
            check_globs(&args.events, &events, &live.program)?;
        }
        sessions(&mut live)?; // a program that cannot show a session is too old to keep one
        let create = Message::Create(Create {
            globs,
            buffer_bytes: args.buffer.unwrap_or(0),
            mode: if args.flight_recorder { Mode::Overwrite } else { Mode::Discard },
            keep: true,
            name: args.session.clone(),
            tool: "gracepoint start".into(),
            ..Create::default()
        });
        let Message::Created(created) = ask(&mut live.link, &create)? else {
            return Err(unexpected());
        };
        if let Err(failure) = ask(&mut live.link, &Message::Start(created.session)) {
            let _ = ask(&mut live.link, &Message::End(created.session));
            return Err(failure);
        }
        let kinds =
            created.events.iter().filter(|e| e.role != Role::End && e.id >= FIRST_USER_ID).count();
        console.note(format_args!(
            "{}: {} on in {}",
            shown(&args.session),
            quantity::plural(kinds as u64, "kind of event", "kinds of event"),
            title(&live),
        ));
        Ok(())
    })?;
    if status == 0 {
        console.words("see: gracepoint show; end it: gracepoint extract, or gracepoint reset");
    }
    Ok(status.max(silent))
}

/// Those of the programs that have an event which one of the patterns matches.
fn having(programs: Vec<Live>, globs: &[String]) -> Result<Vec<Live>> {
    let mut found = Vec::new();
    for mut live in programs {
        if let Ok(Message::Events(events)) = ask(&mut live.link, &Message::List) {
            let any = |name: &str| globs.iter().any(|glob| glob::matches(glob, name));
            if events.iter().any(|event| any(&event.schema.name)) {
                found.push(live);
            }
        }
    }
    if found.is_empty() {
        let globs: Vec<_> = globs.iter().map(|glob| format!("`{}`", shown(glob))).collect();
        return Err(Failure::new(format!(
            "no program has an event that matches {}: `gracepoint list` shows what there is",
            globs.join(" or ")
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
    verb: fn(u64) -> Message,
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
        }
        Ok(())
    })
}

/// Runs `stop`.
pub(crate) fn stop(args: &SessionArgs, console: &mut Console) -> Result<u8> {
    command(args, console, Message::Stop, |reply, what| {
        let Message::Stopped(stopped) = reply else { return None };
        Some(format!("{what} is off{}", holdouts(stopped)))
    })
}

/// Who is still inside an event, where that is worth a word.
fn holdouts(stopped: &Stopped) -> String {
    match (stopped.settled, stopped.holdouts.first()) {
        (false, Some(who)) => format!("; {} is still inside an event", shown(who)),
        _ => String::new(),
    }
}

/// Runs `restart`.
pub(crate) fn restart(args: &SessionArgs, console: &mut Console) -> Result<u8> {
    command(args, console, Message::Start, |reply, what| {
        matches!(reply, Message::Started(_)).then(|| format!("{what} is on"))
    })
}

/// Runs `reset`.
pub(crate) fn reset(args: &ResetArgs, console: &mut Console) -> Result<u8> {
    let (programs, silent) = args.targets.find(console)?;
    let status = each(programs, console, |mut live, console| {
        let Message::WasReset(reset) = ask(&mut live.link, &Message::Reset)? else {
            return Err(unexpected());
        };
        if reset.sessions > 0 {
            console.note(format_args!(
                "{} of {} ended",
                quantity::plural(reset.sessions.into(), "session", "sessions"),
                title(&live)
            ));
        }
        for who in reset.holdouts.iter().take(10) {
            console.note(format_args!(
                "{} is still inside an event: the session is freed when it leaves it",
                shown(who)
            ));
        }
        Ok(())
    })?;
    Ok(status.max(silent))
}
