//! Starting the agent: where its socket lies, and what may go wrong.

use crate::agent::{self, Launch, Setup};
use crate::dynamic::registry;
use crate::error::{Error, ErrorKind};
use crate::{drive, field, flight, module, patch, running, session, sys, tracer, why};
use gracepoint_wire::control::Program;
use std::ffi::CString;
use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind as Io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32};
use std::sync::{Arc, Once};
use std::time::Duration;

/// How long `init` waits for the recorder that launched the program to come.
const RECORDER_WAIT: Duration = Duration::from_secs(1);
/// How long it waits for a tool that is there to begin: large buffers take their time.
const BEGIN_WAIT: Duration = Duration::from_secs(10);
/// Longest path of a Unix socket on Linux, without its NUL.
const LONGEST_PATH: usize = 107;
/// How many programs may share one pid in one directory (in pid namespaces of their own).
const MOST_NAMESAKES: u32 = 64;

/// Pid of the process whose agent runs; 0 for none. A forked child finds its parent's pid here.
static RUNNING: AtomicU32 = AtomicU32::new(0);
/// Path of the socket, for the exit handler.
static SOCKET: AtomicPtr<CString> = AtomicPtr::new(ptr::null_mut());

/// What a builder has gathered.
pub(crate) struct Options {
    pub(crate) name: Option<String>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) most_bytes: u64,
    pub(crate) hook: Option<fn(&str)>,
    pub(crate) sensitive: bool,
    pub(crate) watch: Option<Duration>,
}

/// Starts the agent; the socket's path, or `None` if the environment says off.
pub(crate) fn start(options: Options) -> Result<Option<PathBuf>, Error> {
    let environment = |name: &str| {
        let value = if sys::privileged() { None } else { std::env::var_os(name) };
        value.filter(|value| !value.is_empty())
    };
    if environment("GRACEPOINT").is_some_and(|value| value == "off") {
        return Ok(None);
    }
    patch::check().map_err(|error| Error::new(ErrorKind::System, error.to_string()))?;
    gracepoint_rcu::requested_strategy()
        .map_err(|error| Error::new(ErrorKind::System, error.to_string()))?;
    // The agent's thread runs this code for as long as the process lives.
    module::pin(&[]);
    tracer::patching(); // decides it now, before a sandbox that the program may build around itself
    let pid = std::process::id();
    let before = RUNNING.load(Acquire);
    if before == pid || RUNNING.compare_exchange(before, pid, AcqRel, Relaxed).is_err() {
        return Err(Error::new(
            ErrorKind::AlreadyStarted,
            "this process has an agent already, which goes on",
        ));
    }
    let launched_by = environment("GRACEPOINT_RECORDER").unwrap_or_default();
    let launched_by = launched_by.to_string_lossy().into_owned();
    let launch = Arc::new(Launch::default());
    if !launched_by.is_empty() {
        launch.expect();
    }
    let result = directory(&options, environment).and_then(|dir| {
        let wanted = flight_wanted(&options, environment)?;
        let (listener, path) = bind(&dir, pid)?;
        prepare(before != 0);
        let name = options.name.unwrap_or_else(program_name);
        let program = Program { name: name.clone(), pid, exe: agent::exe(), ..Program::default() };
        let flight =
            wanted.map(|wanted| flight::begin(&wanted, program, flight::now())).transpose();
        let flight = flight.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        let identity = agent::remember(listener.as_raw_fd());
        let setup = Setup {
            listener,
            identity,
            name,
            launched_by: launched_by.clone(),
            most_bytes: options.most_bytes,
            hook: options.hook,
            watch: options.watch,
            launch: Arc::clone(&launch),
            flight,
        };
        // Before anybody can switch an event on.
        field::allow_sensitive(options.sensitive);
        spawn(setup).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        if options.watch.is_some() {
            registry::watch();
        }
        Ok(path)
    });
    let path = result.inspect_err(|_| RUNNING.store(0, Release))?;
    remove_at_exit(&path);
    if !launched_by.is_empty() {
        launch.wait(RECORDER_WAIT, BEGIN_WAIT);
    }
    Ok(Some(path))
}

/// Hooks of the process, once: for the agent, or for the first probe.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        HOOKED.store(std::process::id(), Relaxed);
        sys::at_fork(before_fork, after_fork, child_after_fork);
        sys::at_exit(exit);
        gracepoint_rcu::on_thread_exit(session::thread_ends);
    });
}

/// Before an agent; in a forked child also what it inherited and must not use.
fn prepare(forked: bool) {
    register();
    if forked {
        tracer::reset();
        crate::function::reset();
    }
}

/// Pid of the process that the hooks know of; 0 before they are registered.
static HOOKED: AtomicU32 = AtomicU32::new(0);

/// Is this a child that was made past the hooks, by a bare system call? Then a lock may be held by a
/// thread that it does not have.
pub(crate) fn is_past_hooks() -> bool {
    let pid = HOOKED.load(Relaxed);
    pid != 0 && pid != std::process::id()
}

/// The agent's thread has ended, because its socket was closed under it: `init` may start another.
pub(crate) fn agent_is_gone() {
    exit();
    RUNNING.store(0, Release);
}

extern "C" fn before_fork() {
    registry::before_fork();
    tracer::before_fork();
    registry::before_fork_last();
}

extern "C" fn after_fork() {
    registry::after_fork();
    tracer::after_fork();
}

extern "C" fn child_after_fork() {
    HOOKED.store(std::process::id(), Relaxed);
    after_fork();
    registry::child_after_fork();
    running::child_after_fork();
    drive::child_after_fork();
    session::child_after_fork();
    agent::child_after_fork();
    why::tell_outside();
}

fn spawn(setup: Setup) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name("gracepoint".into()).stack_size(256 << 10);
    let spawned = sys::with_signals_blocked(|| thread.spawn(move || agent::run(setup)));
    spawned.map(drop).map_err(|e| Error::new(ErrorKind::System, format!("no thread for it ({e})")))
}

/// The name of what the runtime was linked into: the executable, or a plugin that carries its own.
fn program_name() -> String {
    let exe = module::own_object().or_else(|| std::env::current_exe().ok()).unwrap_or_default();
    exe.file_name().map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned())
}

/// The socket's directory: made if need be, and checked.
fn directory(
    options: &Options,
    environment: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<PathBuf, Error> {
    let given = options.directory.clone().or_else(|| environment("GRACEPOINT_DIR").map(Into::into));
    let runtime = || {
        let dir = PathBuf::from(environment("XDG_RUNTIME_DIR")?);
        dir.is_dir().then(|| dir.join("gracepoint"))
    };
    let dir = given
        .or_else(runtime)
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/gracepoint-{}", sys::user())));
    own_directory(dir, "GRACEPOINT_DIR")
}

/// A directory that is this user's alone, made if need be.
fn own_directory(dir: PathBuf, variable: &str) -> Result<PathBuf, Error> {
    let bad = |what: String| {
        Error::new(ErrorKind::Directory, format!("{}: {what}; set {variable}", dir.display()))
    };
    match DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == Io::AlreadyExists => {}
        Err(error) => return Err(bad(error.to_string())),
    }
    let meta = std::fs::symlink_metadata(&dir).map_err(|error| bad(error.to_string()))?;
    if !meta.is_dir() {
        return Err(bad("is not a directory".into()));
    }
    if meta.uid() != sys::user() {
        return Err(bad(format!("belongs to user {}, not to this program's", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(bad("is open to other users; chmod 700 it, or use another".into()));
    }
    Ok(dir)
}

/// What the environment says of a flight recorder.
fn flight_wanted(
    options: &Options,
    environment: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Option<flight::Wanted>, Error> {
    let Some(directory) = environment("GRACEPOINT_FLIGHT") else { return Ok(None) };
    let text =
        |name| environment(name).map_or_else(String::new, |v| v.to_string_lossy().into_owned());
    Ok(Some(flight::Wanted {
        directory: own_directory(directory.into(), "GRACEPOINT_FLIGHT")?,
        events: text("GRACEPOINT_FLIGHT_EVENTS"),
        size: text("GRACEPOINT_FLIGHT_SIZE"),
        most_bytes: options.most_bytes,
    }))
}

/// Binds `PID.gp1.sock`, taking over what a dead program left; `PID-2.gp1.sock` and so on where a
/// living one (of another pid namespace) has the name.
fn bind(dir: &Path, pid: u32) -> Result<(UnixListener, PathBuf), Error> {
    for n in 1..=MOST_NAMESAKES {
        let name = if n == 1 { format!("{pid}.gp1.sock") } else { format!("{pid}-{n}.gp1.sock") };
        let path = dir.join(name);
        if path.as_os_str().len() > LONGEST_PATH {
            let text =
                format!("{}: path too long for a socket; set GRACEPOINT_DIR", path.display());
            return Err(Error::new(ErrorKind::Directory, text));
        }
        let mut bound = UnixListener::bind(&path);
        if bound.as_ref().is_err_and(|e| e.kind() == Io::AddrInUse) && is_stale(&path) {
            let _ = std::fs::remove_file(&path);
            bound = UnixListener::bind(&path);
        }
        let listener = match bound {
            Ok(listener) => listener,
            Err(error) if error.kind() == Io::AddrInUse => continue,
            Err(error) => {
                let text = format!("{}: {error}; set GRACEPOINT_DIR", path.display());
                return Err(Error::new(ErrorKind::Directory, text));
            }
        };
        let ready = std::fs::set_permissions(&path, Permissions::from_mode(0o600))
            .and_then(|()| listener.set_nonblocking(true));
        return match ready {
            Ok(()) => Ok((listener, path)),
            Err(error) => {
                Err(Error::new(ErrorKind::System, format!("{}: {error}", path.display())))
            }
        };
    }
    let text = format!("{}: too many programs with pid {pid}; set GRACEPOINT_DIR", dir.display());
    Err(Error::new(ErrorKind::Directory, text))
}

/// Is nobody behind this socket any more?
fn is_stale(path: &Path) -> bool {
    matches!(UnixStream::connect(path), Err(error) if error.kind() == Io::ConnectionRefused)
}

fn remove_at_exit(path: &Path) {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return };
    // The one before (of a parent process) is leaked: an exit handler may be reading it.
    SOCKET.store(Box::into_raw(Box::new(path)), Release);
}

/// At exit: the socket's name goes, unless it is the parent's and this is a forked child.
extern "C" fn exit() {
    if RUNNING.load(Acquire) != std::process::id() {
        return;
    }
    // SAFETY: null or a leaked box.
    if let Some(path) = unsafe { SOCKET.load(Acquire).as_ref() } {
        sys::unlink(path);
    }
}
