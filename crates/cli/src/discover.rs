//! Finding traceable programs: sockets `DIR/<pid>.gp1.sock` on which their agents listen.
//!
//! A socket's name proves nothing, its listener's credentials do: only programs of our own user
//! are spoken to, unless we are root, and `-p PID` is answered by the process with that pid.

use crate::connection::{Connection, Lost, wait_for};
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use gracepoint_wire::control::{Hello, Message, Program};
use gracepoint_wire::glob;
use rustix::fd::AsFd;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How the name of every agent's socket ends; the number is that of the ABI.
const SUFFIX: &str = ".gp1.sock";
/// How long a program may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(1);
/// Connections open at once while looking around.
const AT_ONCE: usize = 200;
/// A dead socket is removed only when it is this old: a younger one may be about to listen.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// Which program is meant.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// The process with this pid.
    Pid(u32),
    /// The only program whose name matches.
    Name(String),
}

/// A program that answered.
#[derive(Debug)]
pub(crate) struct Live {
    /// The connection, greeted in both directions.
    pub(crate) link: Connection,
    /// Its pid in our namespace.
    pub(crate) pid: u32,
    /// What it says about itself.
    pub(crate) program: Program,
}

/// What became of one socket.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A program that we can speak to.
    Ready(Box<Live>),
    /// Somebody listens and does not answer.
    Silent(u32),
    /// It speaks another version of the protocol.
    Foreign(u32, Hello),
    /// What it says is no message of ours.
    Garbled(u32, String),
}

/// Where sockets are, and whether that is the only place to look.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    /// The directory; need not exist.
    pub(crate) path: PathBuf,
    /// Set by `GRACEPOINT_DIR`: look nowhere else.
    pub(crate) only: bool,
}

impl Directory {
    /// The directory that a program started with our environment would use.
    pub(crate) fn from_env() -> Directory {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(path) = set("GRACEPOINT_DIR") {
            return Directory { path, only: true };
        }
        let path = match set("XDG_RUNTIME_DIR").filter(|dir| dir.is_dir()) {
            Some(runtime) => runtime.join("gracepoint"),
            None => PathBuf::from(format!("/tmp/gracepoint-{}", own_uid())),
        };
        Directory { path, only: false }
    }

    /// The sockets in it.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter(|path| is_agents(path)).collect()
    }

    /// The sockets in it and, unless it is the only place to look, those that our network namespace
    /// knows of.
    pub(crate) fn sockets_nearby(&self) -> Vec<PathBuf> {
        let mut paths = self.sockets();
        if !self.only {
            paths.extend(listening(Path::new("/proc/net/unix")));
        }
        without_doubles(paths)
    }

    /// Those, and the ones in containers.
    pub(crate) fn all_sockets(&self) -> Vec<PathBuf> {
        let mut paths = self.sockets_nearby();
        if !self.only {
            paths.extend(elsewhere().into_iter().flat_map(sockets_seen_by));
        }
        without_doubles(paths)
    }
}

/// One path per socket.
fn without_doubles(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    paths.retain(|path| fs::metadata(path).is_ok_and(|meta| seen.insert((meta.dev(), meta.ino()))));
    paths
}

/// For each pair of mount and network namespace that is not ours, a process that lives in it, as
/// far as we may look into processes.
fn elsewhere() -> Vec<u32> {
    let namespaces = |pid: &str| {
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
        Some((link("mnt")?, link("net")?))
    };
    let mut seen: HashSet<_> = namespaces("self").into_iter().collect();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    pids.filter(|pid| namespaces(pid).is_some_and(|both| seen.insert(both)))
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The sockets that process `pid` could reach, by paths through its root.
fn sockets_seen_by(pid: u32) -> Vec<PathBuf> {
    let paths = listening(&PathBuf::from(format!("/proc/{pid}/net/unix")));
    paths.iter().map(|path| through_root(pid, path)).collect()
}

/// How we reach what process `pid` calls `path`: it may live in another mount namespace.
fn through_root(pid: u32, path: &Path) -> PathBuf {
    Path::new(&format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap_or(path))
}

/// Our effective uid.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn is_agents(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(SUFFIX.as_bytes())
}

/// The number that a socket's name begins with.
fn pid_in_name(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    name.split('-').next()?.parse().ok()
}

/// Paths of listening agents' sockets in a `/proc/…/net/unix`.
fn listening(table: &Path) -> Vec<PathBuf> {
    const ACCEPTS: u64 = 0x10000;
    let Ok(table) = fs::read(table) else { return Vec::new() };
    let mut found = Vec::new();
    for line in table.split(|&b| b == b'\n').skip(1) {
        // Num: RefCount Protocol Flags Type St Inode Path; the path may hold spaces.
        let Some(slash) = line.iter().position(|&b| b == b'/') else { continue };
        let (head, path) = line.split_at(slash);
        let flags = String::from_utf8_lossy(head);
        let flags = flags.split_whitespace().nth(3).and_then(|f| u64::from_str_radix(f, 16).ok());
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        if flags.is_some_and(|f| f & ACCEPTS != 0) && is_agents(&path) {
            found.push(path);
        }
    }
    found
}

/// Whom a pid belongs to, and its numbers in the pid namespaces that it is in.
struct Process {
    uid: u32,
    pids: Vec<u32>,
}

impl Process {
    fn read(pid: u32) -> io::Result<Process> {
        let status = fs::read(format!("/proc/{pid}/status"))?;
        let status = String::from_utf8_lossy(&status);
        let numbers = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|l| l.split_whitespace().filter_map(|n| n.parse().ok()).collect())
                .unwrap_or_default()
        };
        let mut pids = numbers("NSpid:");
        pids.push(pid);
        // Effective uid: the second of four.
        let uid = numbers("Uid:").get(1).copied().unwrap_or(u32::MAX);
        Ok(Process { uid, pids })
    }
}

/// Programs that were found, and what an exit status is at least.
pub(crate) type Found = (Vec<Live>, u8);

/// Finds and greets all programs that are meant: those with the pids, or with a name that matches; all
/// that answer where nothing is asked for. Those that do not, and may be meant too, are named; the status
/// then tells of an error.
///
/// # Errors
/// When one of the pids is not traceable, or there is no such program.
pub(crate) fn find_all(pids: &[u32], name: Option<&str>, console: &mut Console) -> Result<Found> {
    if !pids.is_empty() {
        return Ok((pids.iter().map(|&pid| find_pid(pid)).collect::<Result<_>>()?, 0));
    }
    let directory = Directory::from_env();
    let mut found = Vec::new();
    let mut silent = Vec::new();
    for answer in survey(directory.all_sockets()) {
        match answer {
            Answer::Ready(live) => {
                if name.is_none_or(|name| glob::matches(name, &live.program.name)) {
                    found.push(*live);
                }
            }
            other => silent.push(no_use(&other)),
        }
    }
    if found.is_empty() {
        let what = match name {
            Some(name) => format!("no traceable program is named `{}`", shown(name)),
            None => "no traceable program".to_owned(),
        };
        return Err(Failure::no(match silent.len() {
            0 => format!("{what}: a program becomes one by calling gracepoint::init()"),
            1 => format!("{what}: one process does not answer (gracepoint ps)"),
            n => format!("{what}: {n} processes do not answer (gracepoint ps)"),
        }));
    }
    silent.iter().for_each(|failure| console.note(failure));
    found.sort_by_key(|live| live.pid);
    Ok((found, if silent.is_empty() { 0 } else { 2 }))
}

/// Finds and greets the program that is meant.
///
/// # Errors
/// When there is no such process, it is somebody else's, it has no agent, or more than one program
/// has the name.
pub(crate) fn find(which: &Which) -> Result<Live> {
    match which {
        Which::Pid(pid) => find_pid(*pid),
        Which::Name(name) => find_name(name),
    }
}

fn find_pid(pid: u32) -> Result<Live> {
    let process = Process::read(pid).map_err(|_| {
        Failure::new(format!("no process {pid}: `gracepoint ps` shows the traceable programs"))
    })?;
    let us = own_uid();
    if us != 0 && process.uid != us {
        return Err(Failure::new(format!(
            "no permission to trace process {pid}, which is another user's (uid {}): try as that \
             user or as root",
            process.uid
        )));
    }
    let named = |path: &PathBuf| pid_in_name(path).is_some_and(|n| process.pids.contains(&n));
    let directory = Directory::from_env();
    let mut paths: Vec<PathBuf> = directory.sockets().into_iter().filter(named).collect();
    for path in listening(&PathBuf::from(format!("/proc/{pid}/net/unix"))) {
        if named(&path) {
            paths.push(through_root(pid, &path));
            paths.push(path);
        }
    }
    // `PID.gp1.sock` belongs to the first that called `init` in that process; a plugin that carries a
    // runtime of its own has a later one, and is chosen by its name.
    paths.sort_by_key(|path| path.file_name().map_or(0, |name| name.len()));
    let deadline = Instant::now() + HELLO_WITHIN;
    for path in paths {
        let Ok(link) = Connection::open(&path) else { continue };
        if link.pid == pid {
            return greeted(link, deadline);
        }
    }
    if Process::read(pid).is_err() {
        return Err(Failure::new(format!("process {pid} has just ended")));
    }
    Err(Failure::new(format!(
        "process {pid} is not traceable: call gracepoint::init() in it, and see that \
         GRACEPOINT=off is not set"
    )))
}

fn greeted(link: Connection, deadline: Instant) -> Result<Live> {
    let mut answers = survey_links(vec![link], deadline);
    match answers.pop() {
        Some(Answer::Ready(live)) => Ok(*live),
        Some(other) => Err(no_use(&other)),
        None => Err(Failure::new("the program closed the connection: try again")),
    }
}

/// Why a program that was found cannot be used.
fn no_use(answer: &Answer) -> Failure {
    Failure::new(match answer {
        Answer::Silent(pid) => format!(
            "process {pid} does not answer: it may be stopped (`kill -CONT {pid}` lets it go on), or \
             have no file descriptor left"
        ),
        Answer::Foreign(pid, hello) => format!(
            "process {pid} speaks version {}.{} of the protocol and this is {}.{}: use the \
             gracepoint command of its version",
            hello.major,
            hello.minor,
            gracepoint_wire::ABI_MAJOR,
            gracepoint_wire::ABI_MINOR
        ),
        Answer::Garbled(pid, what) => format!(
            "process {pid} answers something else than gracepoint's protocol ({})",
            shown(what)
        ),
        Answer::Ready(live) => format!("process {} is ready", live.pid),
    })
}

fn find_name(name: &str) -> Result<Live> {
    let (mut matching, mut others, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for answer in survey(Directory::from_env().all_sockets()) {
        match answer {
            Answer::Ready(live) if glob::matches(name, &live.program.name) => matching.push(live),
            Answer::Ready(live) => others.push(live.program.name),
            Answer::Silent(pid) | Answer::Foreign(pid, _) | Answer::Garbled(pid, _) => {
                silent.push(pid.to_string());
            }
        }
    }
    match matching.len() {
        1 => Ok(*matching.remove(0)),
        0 => {
            let near = glob::near(name, others.iter().map(String::as_str), 3);
            let mut text = format!("no traceable program is named `{}`", shown(name));
            match near.first() {
                Some(near) => text += &format!(": did you mean `{}`?", shown(near)),
                None if !silent.is_empty() => {
                    let pids = silent.join(", ");
                    text += &format!(
                        ", of those that answer; choose one that does not with -p (pids {pids})"
                    );
                }
                None => text += ": `gracepoint ps` shows the traceable programs",
            }
            Err(Failure::new(text))
        }
        n => {
            let pids: Vec<String> = matching.iter().map(|live| live.pid.to_string()).collect();
            Err(Failure::new(format!(
                "{n} programs are named `{}` (pids {}): choose one with -p",
                shown(name),
                pids.join(", ")
            )))
        }
    }
}

/// Connects to all of `paths` and collects what they say, hung ones included, in about a second
/// however many there are.
pub(crate) fn survey(paths: Vec<PathBuf>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for some in paths.chunks(AT_ONCE) {
        let mut links = Vec::new();
        for path in some {
            match Connection::open(path) {
                Ok(link) if is_ours(&link) => links.push(link),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    answers.push(Answer::Silent(pid_in_name(path).unwrap_or(0)));
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => remove_dead(path),
                Err(_) => {}
            }
        }
        answers.extend(survey_links(links, Instant::now() + HELLO_WITHIN));
    }
    // One socket may have been reached by two paths.
    let mut seen = HashSet::new();
    answers.retain(|answer| match answer {
        Answer::Ready(live) => live.pid == 0 || seen.insert((live.pid, live.program.since_ns)),
        _ => true,
    });
    answers
}

/// May we speak to this peer, and it to us?
pub(crate) fn is_ours(link: &Connection) -> bool {
    let us = own_uid();
    us == 0 || link.uid == us
}

/// Greets all and waits for their hellos.
fn survey_links(mut links: Vec<Connection>, deadline: Instant) -> Vec<Answer> {
    links.iter_mut().for_each(Connection::greet);
    let mut answers = Vec::new();
    loop {
        let mut waiting = Vec::new();
        for mut link in links {
            match link.try_receive() {
                Ok(None) => waiting.push(link),
                Ok(Some(message)) => answers.push(answer(link, message)),
                Err(Lost::Garbled(what)) => answers.push(Answer::Garbled(link.pid, what)),
                Err(Lost::Closed | Lost::Silent) => {}
            }
        }
        links = waiting;
        let left = deadline.saturating_duration_since(Instant::now());
        if links.is_empty() || left.is_zero() {
            answers.extend(links.iter().map(|link| Answer::Silent(link.pid)));
            return answers;
        }
        let fds: Vec<_> = links.iter().map(|link| (link.as_fd(), link.interest())).collect();
        wait_for(&fds, left);
    }
}

/// What an agent's first message means.
pub(crate) fn answer(link: Connection, message: Message) -> Answer {
    match message {
        Message::Hello(hello) if !Hello::current(None).speaks_to(&hello) => {
            Answer::Foreign(link.pid, hello)
        }
        Message::Hello(Hello { program: Some(program), .. }) => {
            Answer::Ready(Box::new(Live { pid: link.pid, link, program }))
        }
        Message::Failure(failure) => Answer::Garbled(link.pid, failure.text),
        _ => Answer::Garbled(link.pid, "no hello".into()),
    }
}

/// Removes a socket on which nobody listens any more, where that is our business.
fn remove_dead(path: &Path) {
    let us = own_uid();
    let (Ok(socket), Some(Ok(directory))) =
        (fs::symlink_metadata(path), path.parent().map(fs::symlink_metadata))
    else {
        return;
    };
    let age = socket.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if socket.uid() == us && directory.uid() == us && age.is_some_and(|age| age > DEAD_AFTER) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(pid_in_name(Path::new("/x/12.gp1.sock")), Some(12));
        assert_eq!(pid_in_name(Path::new("/x/12-2.gp1.sock")), Some(12));
        assert_eq!(pid_in_name(Path::new("/x/y.gp1.sock")), None);
        assert_eq!(pid_in_name(Path::new("/x/12.sock")), None);
    }

    #[test]
    fn our_own_process_is_read() {
        let process = Process::read(std::process::id()).expect("/proc is mounted");
        assert_eq!(process.uid, own_uid());
        assert!(process.pids.contains(&std::process::id()));
    }
}
