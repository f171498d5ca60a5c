//! What concerns a whole process: starting the agent, twice, in odd places, after a fork. Each test
//! runs this file again as a program of its own.
#![allow(clippy::print_stdout, reason = "what a program prints is what its test looks at")]
#![cfg_attr(not(target_os = "linux"), allow(unused, reason = "the agent exists on Linux alone"))]

#[allow(dead_code, reason = "what others of its users need")]
mod client;
#[path = "process/protocol.rs"]
mod protocol;
#[cfg(target_arch = "x86_64")]
#[path = "../src/arch/steps_x86_64.rs"]
mod steps;

use client::Tool;
use gracepoint_wire::control::{Create, Hello, MAX_REPLY, Message, next_frame};
use libtest_mimic::{Arguments, Failed, Trial};
use protocol::{
    program_agent, program_silent, silent_connections_do_not_wake_the_agent, talk,
    the_agent_keeps_to_the_protocol,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Something happened.
#[derive(gracepoint::Event)]
#[event(name = "process:event")]
struct Happened {
    n: u32,
}

/// A program: what it prints is what its test looks at.
type Program = fn();
type Test = fn() -> Result<(), Failed>;

fn programs() -> BTreeMap<&'static str, Program> {
    BTreeMap::from([
        ("init", program_init as Program),
        ("init-twice", program_init_twice),
        ("init-as-namesake", program_init_as_namesake),
        ("fork", program_fork),
        ("fork-and-exit", program_fork_and_exit),
        ("fork-while-counted", program_fork_while_counted),
        ("fork-while-listing", program_fork_while_listing),
        ("fork-in-handlers", program_fork_in_handlers),
        ("fork-at-each-instruction", program_fork_at_each_instruction),
        ("agent", program_agent),
        ("close-all", program_close_all),
        ("exit-while-recorded", program_exit_while_recorded),
        ("fork-with-an-ended-session", program_fork_with_an_ended_session),
        ("signals", program_signals),
        ("silent", program_silent),
        ("other-user", program_other_user),
    ])
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--program") {
        let name = args.next().unwrap_or_default();
        programs()[name.as_str()]();
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, Test); 20] = [
        ("the_socket_comes_and_goes", the_socket_comes_and_goes),
        ("a_second_init_is_an_error", a_second_init_is_an_error),
        ("off_means_off", off_means_off),
        ("a_directory_that_cannot_be_made", a_directory_that_cannot_be_made),
        ("a_directory_open_to_others", a_directory_open_to_others),
        ("a_directory_that_is_a_link", a_directory_that_is_a_link),
        ("what_a_dead_namesake_left_is_taken_over", what_a_dead_namesake_left_is_taken_over),
        ("a_living_namesake_is_left_alone", a_living_namesake_is_left_alone),
        ("a_forked_child_is_its_own_program", a_forked_child_is_its_own_program),
        ("a_fork_does_not_inherit_the_agents_lock", a_fork_does_not_inherit_the_agents_lock),
        ("a_childs_hits_are_not_its_parents", a_childs_hits_are_not_its_parents),
        (
            "a_fork_in_the_middle_of_a_record_hurts_nobody",
            a_fork_in_the_middle_of_a_record_hurts_nobody,
        ),
        (
            "a_fork_after_any_instruction_of_a_hit_hurts_nobody",
            a_fork_after_any_instruction_of_a_hit_hurts_nobody,
        ),
        ("a_recorded_program_exits_while_threads_run", a_recorded_program_exits_while_threads_run),
        ("a_child_frees_nothing_of_its_parents", a_child_frees_nothing_of_its_parents),
        ("a_program_may_close_all_it_finds", a_program_may_close_all_it_finds),
        ("the_agent_keeps_to_the_protocol", the_agent_keeps_to_the_protocol),
        ("silent_connections_do_not_wake_the_agent", silent_connections_do_not_wake_the_agent),
        ("the_way_to_patch_is_the_builds", the_way_to_patch_is_the_builds),
        ("the_agent_takes_no_signals", the_agent_takes_no_signals),
    ];
    let mut trials: Vec<Trial> = tests.map(|(name, test)| Trial::test(name, test)).into();
    // SAFETY: asks for a number; no precondition.
    let root = unsafe { libc::geteuid() } == 0;
    let trial = Trial::test("other_users_are_not_answered", other_users_are_not_answered);
    trials.push(if root {
        trial
    } else {
        trial.with_kind("skipped, needs root").with_ignored_flag(true)
    });
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A directory of the test's own, mode 0700, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("gp-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Place(path)
    }

    fn sockets(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap();
        names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--program", program]).env("GRACEPOINT_DIR", directory);
    command.env_remove("GRACEPOINT").env_remove("GRACEPOINT_RECORDER");
    command
}

/// Runs a program to its end; one that does not end within two minutes is killed and has failed.
fn run(program: &str, directory: &Path) -> Output {
    let mut command = command(program, directory);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{program} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn says(output: &Output, words: &str) -> Result<(), Failed> {
    let text = text(output);
    if text.contains(words) { Ok(()) } else { Err(format!("no {words:?} in {text:?}").into()) }
}

fn init() -> String {
    match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => {
            assert!(UnixStream::connect(&path).is_ok(), "somebody listens");
            format!("listening on {}", path.file_name().unwrap().to_string_lossy())
        }
        Ok(status) => format!("{status:?}"),
        Err(error) => format!("{:?}: {error}", error.kind()),
    }
}

fn program_init() {
    println!("{}", init());
    gracepoint::trace!(Happened { n: 1 });
}

fn program_init_twice() {
    println!("{}\n{}", init(), init());
}

fn the_socket_comes_and_goes() -> Result<(), Failed> {
    let place = Place::new("comes");
    let missing = place.0.join("made/on/the/way");
    says(&run("init", &missing), ".gp1.sock")?;
    let mode = fs::metadata(&missing).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(fs::read_dir(&missing).unwrap().next().is_none(), "the name is gone after exit");
    Ok(())
}

fn a_second_init_is_an_error() -> Result<(), Failed> {
    let place = Place::new("twice");
    let output = run("init-twice", &place.0);
    says(&output, "listening on")?;
    says(&output, "AlreadyStarted: this process has an agent already, which goes on")
}

fn off_means_off() -> Result<(), Failed> {
    let place = Place::new("off");
    let output = command("init", &place.0).env("GRACEPOINT", "off").output().unwrap();
    says(&output, "Off")?;
    assert!(place.sockets().is_empty());
    Ok(())
}

fn a_directory_that_cannot_be_made() -> Result<(), Failed> {
    let place = Place::new("unmade");
    let file = place.0.join("file");
    fs::write(&file, "").unwrap();
    says(&run("init", &file.join("below")), "Directory: tracing is off")?;
    says(&run("init", &file), "is not a directory; set GRACEPOINT_DIR")?;
    says(&run("init", Path::new("/proc/nowhere")), "set GRACEPOINT_DIR")?;
    says(&run("init", &place.0.join("long".repeat(30))), "path too long for a socket")
}

fn a_directory_open_to_others() -> Result<(), Failed> {
    let place = Place::new("open");
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).unwrap();
    says(&run("init", &place.0), "is open to other users; chmod 700 it")
}

fn a_directory_that_is_a_link() -> Result<(), Failed> {
    let place = Place::new("link");
    let link = place.0.join("link");
    std::os::unix::fs::symlink(&place.0, &link).unwrap();
    says(&run("init", &link), "is not a directory")
}

/// Lays something at the place of this process's own socket before `init`.
fn program_init_as_namesake() {
    let dir = PathBuf::from(std::env::var_os("GRACEPOINT_DIR").unwrap());
    let name = dir.join(format!("{}.gp1.sock", std::process::id()));
    let listener = UnixListener::bind(&name).unwrap();
    if std::env::var_os("NAMESAKE_LIVES").is_none() {
        drop(listener);
        println!("{}", init());
    } else {
        println!("{}", init());
        drop(listener);
    }
}

fn what_a_dead_namesake_left_is_taken_over() -> Result<(), Failed> {
    let place = Place::new("stale");
    let output = run("init-as-namesake", &place.0);
    says(&output, "listening on")?;
    assert!(!text(&output).contains("-2"), "{output:?}");
    assert!(place.sockets().is_empty(), "the name is gone after exit");
    Ok(())
}

fn a_living_namesake_is_left_alone() -> Result<(), Failed> {
    let place = Place::new("alive");
    let output = command("init-as-namesake", &place.0).env("NAMESAKE_LIVES", "1").output().unwrap();
    says(&output, "-2.gp1.sock")
}

/// In the child: what it says of itself. The child leaves without exit handlers.
fn in_child(body: impl FnOnce()) {
    // SAFETY: the child uses what a forked child of this runtime may use; that is what is tested.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        body();
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child ends well");
}

fn program_fork() {
    let parent = init();
    println!("parent {parent}");
    in_child(|| {
        gracepoint::trace!(Happened { n: 2 });
        let child = init();
        assert_ne!(parent, child);
        println!("child {child}");
        println!("again {}", init());
    });
    println!("parent {}", init());
}

fn program_fork_and_exit() {
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    // SAFETY: as in `in_child`; this child runs its exit handlers.
    let child = unsafe { libc::fork() };
    if child == 0 {
        std::process::exit(0);
    }
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    println!("still there: {}", UnixStream::connect(&path).is_ok());
}

fn a_forked_child_is_its_own_program() -> Result<(), Failed> {
    let place = Place::new("fork");
    let output = run("fork", &place.0);
    says(&output, "child listening on")?;
    says(&output, "again AlreadyStarted")?;
    says(&output, "parent AlreadyStarted")?;
    says(&run("fork-and-exit", &place.0), "still there: true")
}

/// The memory that a tool reads, too, is the parent's alone.
fn program_fork_while_counted() {
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    let (mut tool, _) = Tool::connect(&path);
    let create = Create { globs: vec!["process:event".into()], ..Create::default() };
    let Message::Created(created) = tool.ask(&Message::Count(create)) else { panic!("no session") };
    tool.ask(&Message::Start(created.session));
    let hit = |times| (0..times).for_each(|n| gracepoint::trace!(Happened { n }));
    hit(10);
    in_child(|| hit(1000));
    hit(1);
    let Message::Counts(told) = tool.ask(&Message::Stat(created.session)) else { panic!("none") };
    println!("counted {:?}", told.counts.iter().map(|count| count.hits).collect::<Vec<_>>());
}

fn a_childs_hits_are_not_its_parents() -> Result<(), Failed> {
    let place = Place::new("counted");
    says(&run("fork-while-counted", &place.0), "counted [11]")
}

/// Children exit by their exit handlers while the parent's agent is busy under its lock.
fn program_fork_while_listing() {
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let running = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut link = UnixStream::connect(&path).unwrap();
            link.write_all(&Message::Hello(Hello::current(None)).to_frame()).unwrap();
            let mut drain = link.try_clone().unwrap();
            scope.spawn(move || drain.read_to_end(&mut Vec::new()));
            while !stop.load(running) {
                link.write_all(&Message::List.to_frame().repeat(100)).unwrap();
            }
            link.shutdown(std::net::Shutdown::Both).unwrap();
        });
        for _ in 0..300 {
            // SAFETY: as in `in_child`; the child runs its exit handlers, and nothing else.
            let child = unsafe { libc::fork() };
            if child == 0 {
                std::process::exit(0);
            }
            // SAFETY: waits for our own child.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        }
        stop.store(true, running);
    });
    println!("300 children ended");
}

fn a_fork_does_not_inherit_the_agents_lock() -> Result<(), Failed> {
    let place = Place::new("lock");
    says(&run("fork-while-listing", &place.0), "300 children ended")
}

/// Switches this program's events on, over its own socket, as a recorder does.
fn record_myself(path: &Path) -> UnixStream {
    let mut link = UnixStream::connect(path).unwrap();
    let create =
        Create { globs: vec!["process:*".into()], buffer_bytes: 1 << 20, ..Create::default() };
    for message in
        [Message::Hello(Hello::current(None)), Message::Create(create), Message::Start(1)]
    {
        link.write_all(&message.to_frame()).unwrap();
    }
    let mut inbox = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = link.read(&mut chunk).unwrap();
        assert!(n > 0, "the agent answers");
        inbox.extend_from_slice(&chunk[..n]);
        while let Some((payload, taken)) = next_frame(&inbox, MAX_REPLY).unwrap() {
            let message = Message::parse(payload).unwrap();
            inbox.drain(..taken);
            match message {
                Message::Started(_) => return link,
                Message::Failure(failure) => panic!("{failure:?}"),
                _ => {}
            }
        }
    }
}

/// Becomes a daemon of the old school: closes every descriptor, and opens files in their places.
fn program_close_all() {
    let Ok(gracepoint::Status::Listening(path)) = gracepoint::init() else { panic!("no agent") };
    let hello = Message::Hello(Hello::current(None)).to_frame();
    let list = [hello, Message::List.to_frame()];
    let _link = ManuallyDrop::new(record_myself(&path)); // its descriptor goes with the others
    for fd in 3..1024 {
        // SAFETY: nobody in this test uses them any more but the agent, which is what is tested.
        unsafe { libc::close(fd) };
    }
    let files: Vec<_> = (0..20).map(|_| fs::File::open("/proc/self/exe").unwrap()).collect();
    in_child(|| assert!(files.iter().all(|file| file.metadata().is_ok()), "nor in a child"));
    // Sooner or later it notices; a connection at the old place may be what wakes it.
    while UnixStream::connect(&path).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(files.iter().all(|file| file.metadata().is_ok()), "our files are left alone");
    let path = loop {
        match gracepoint::init() {
            Ok(gracepoint::Status::Listening(path)) => break path,
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    assert!(matches!(&talk(&path, &list, 2)[1], Message::Events(_)));
    gracepoint::trace!(Happened { n: 3 });
    println!("another agent");
}

fn a_program_may_close_all_it_finds() -> Result<(), Failed> {
    let place = Place::new("close");
    says(&run("close-all", &place.0), "another agent")
}

/// A destructor that takes its time, after the one of the sites (which the linker puts behind the
/// numbered ones, and which therefore runs first).
#[unsafe(link_section = ".fini_array.00101")]
#[used]
static SLOW: extern "C" fn() = slow_destructor;

extern "C" fn slow_destructor() {
    let milliseconds = SLOWNESS.load(Relaxed);
    std::thread::sleep(Duration::from_millis(milliseconds.into()));
}

static SLOWNESS: AtomicU32 = AtomicU32::new(0);

/// Leaves `main` while four threads hit an event that is being recorded, and takes long to exit.
fn program_exit_while_recorded() {
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    let mut link = record_myself(&path);
    for t in 0..4 {
        std::thread::spawn(move || {
            for n in (t..).step_by(4) {
                gracepoint::trace!(Happened { n });
            }
        });
    }
    // Keeps the agent at work, and with it the grace periods.
    std::thread::spawn(move || {
        while link.write_all(&Message::Flush(1).to_frame()).is_ok() {
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    SLOWNESS.store(300, Relaxed);
    println!("leaving");
}

fn a_recorded_program_exits_while_threads_run() -> Result<(), Failed> {
    let place = Place::new("leaving");
    for _ in 0..3 {
        says(&run("exit-while-recorded", &place.0), "leaving")?;
    }
    Ok(())
}

/// An event whose field takes as long to render as the gate is closed.
#[derive(gracepoint::Event)]
#[event(name = "process:slow")]
struct Slow {
    #[event(display)]
    gate: Gate,
}

struct Gate;

static RENDERING: AtomicU32 = AtomicU32::new(0);

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        RENDERING.store(1, Relaxed);
        while RENDERING.load(Relaxed) == 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        f.write_str("gate")
    }
}

/// A session ends while a thread is still inside; the child inherits what waits for it.
fn program_fork_with_an_ended_session() {
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    let link = record_myself(&path);
    let inside = std::thread::spawn(|| gracepoint::trace!(Slow { gate: Gate }));
    while RENDERING.load(Relaxed) == 0 {
        std::thread::yield_now();
    }
    drop(link);
    // Two more connections: when the second is answered, the first's end has been seen to.
    let hello = Message::Hello(Hello::current(None)).to_frame();
    for _ in 0..2 {
        talk(&path, &[hello.clone(), Message::List.to_frame()], 2);
    }
    in_child(|| {
        // The parent's arena is a hole here, which these blocks may fill.
        let blocks: Vec<Vec<u8>> = (1..=40).map(|n| vec![n; 1 << 20]).collect();
        let Ok(gracepoint::Status::Listening(path)) = gracepoint::init() else {
            panic!("no agent in the child")
        };
        // The child's agent drives grace periods in each of its steps.
        for _ in 0..50 {
            talk(&path, &[hello.clone(), Message::List.to_frame()], 2);
        }
        for (block, n) in blocks.iter().zip(1..) {
            assert!(block.iter().all(|&b| b == n), "a block of the child's is gone");
        }
    });
    RENDERING.store(2, Relaxed);
    inside.join().unwrap();
    println!("the child keeps what is its own");
}

fn a_child_frees_nothing_of_its_parents() -> Result<(), Failed> {
    let place = Place::new("ended");
    says(&run("fork-with-an-ended-session", &place.0), "the child keeps what is its own")
}

static FORKS: AtomicU32 = AtomicU32::new(0);
static IN_CHILD: AtomicU32 = AtomicU32::new(0);

/// Forks; the child goes on where the handler came in, which may be the middle of a record.
extern "C" fn fork_in_handler(_signal: libc::c_int) {
    // SAFETY: fork and waitpid may be called in a handler; both sides return from it.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            IN_CHILD.store(1, Relaxed);
        } else {
            let mut status = 0;
            libc::waitpid(child, &raw mut status, 0);
            if status != 0 {
                libc::abort();
            }
            FORKS.fetch_add(1, Relaxed);
        }
    }
}

fn program_fork_in_handlers() {
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    let _link = record_myself(&path);
    // SAFETY: a handler for a signal of our own, and a timer of this process that raises it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = fork_in_handler as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGVTALRM, &raw const action, std::ptr::null_mut());
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        libc::setitimer(libc::ITIMER_VIRTUAL, &raw const timer, std::ptr::null_mut());
    }
    let mut left = 1000;
    let mut n = 0;
    while FORKS.load(Relaxed) < 200 && left > 0 {
        n += 1;
        gracepoint::trace!(Happened { n });
        left -= IN_CHILD.load(Relaxed);
    }
    if IN_CHILD.load(Relaxed) == 1 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    println!("{} children went on and ended well", FORKS.load(Relaxed));
}

fn a_fork_in_the_middle_of_a_record_hurts_nobody() -> Result<(), Failed> {
    let place = Place::new("middle");
    says(&run("fork-in-handlers", &place.0), "200 children went on and ended well")
}

static STEP: AtomicU32 = AtomicU32::new(0);
static FORK_AT: AtomicU32 = AtomicU32::new(0);

#[cfg(target_arch = "x86_64")]
extern "C" fn fork_at_step(signal: libc::c_int) {
    if STEP.fetch_add(1, Relaxed) + 1 == FORK_AT.load(Relaxed) {
        fork_in_handler(signal);
    }
}

/// Hits a tracepoint that is recorded once for each instruction of such a hit, and forks after that instruction. The
/// trap flag makes each instruction end in a signal.
#[cfg(target_arch = "x86_64")]
fn program_fork_at_each_instruction() {
    use steps::{trap_each_instruction, trap_no_more};
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    let _link = record_myself(&path);
    // SAFETY: a handler for a signal that nothing else here uses.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = fork_at_step as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut());
    }
    gracepoint::trace!(Happened { n: 0 }); // takes a page
    for at in 1.. {
        FORK_AT.store(at, Relaxed);
        STEP.store(0, Relaxed);
        // SAFETY: the handler above.
        unsafe { trap_each_instruction() };
        gracepoint::trace!(Happened { n: at });
        trap_no_more();
        if IN_CHILD.load(Relaxed) == 1 {
            (0..1000).for_each(|n| gracepoint::trace!(Happened { n }));
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        if STEP.load(Relaxed) < at {
            break;
        }
    }
    let (steps, forks) = (STEP.load(Relaxed), FORKS.load(Relaxed));
    assert!(steps > 20, "{steps} instructions are no hit");
    println!("{forks} children of {steps} instructions went on and ended well");
    println!("one after each: {}", forks == steps);
}

#[cfg(not(target_arch = "x86_64"))]
fn program_fork_at_each_instruction() {
    println!("one after each: there is no such flag, so it is not known");
}

fn a_fork_after_any_instruction_of_a_hit_hurts_nobody() -> Result<(), Failed> {
    let place = Place::new("each");
    let output = run("fork-at-each-instruction", &place.0);
    says(&output, if cfg!(target_arch = "x86_64") { "one after each: true" } else { "not known" })
}

fn the_way_to_patch_is_the_builds() -> Result<(), Failed> {
    let place = Place::new("patch");
    let other = if gracepoint::patching() == "branch" { "text" } else { "branch" };
    let output = command("init", &place.0).env("GRACEPOINT_PATCH", other).output().unwrap();
    says(&output, "build it again with the variable set")?;
    let same = gracepoint::patching();
    let output = command("init", &place.0).env("GRACEPOINT_PATCH", same).output().unwrap();
    says(&output, "listening on")?;
    let output = command("init", &place.0).env("GRACEPOINT_RCU", "fense").output().unwrap();
    says(&output, "GRACEPOINT_RCU=fense is not known")
}

fn program_signals() {
    let Ok(gracepoint::Status::Listening(path)) = gracepoint::init() else { panic!("no agent") };
    // The agent's thread has named itself once it says hello.
    UnixStream::connect(path).unwrap().read_exact(&mut [0]).unwrap();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let blocked = status.lines().find_map(|l| l.strip_prefix("SigBlk:")).unwrap_or("").trim();
        let mask = u64::from_str_radix(blocked, 16).unwrap_or(0);
        // SIGUSR1, SIGPROF and SIGTERM stand for all that a handler may be installed for.
        let all = [libc::SIGUSR1, libc::SIGPROF, libc::SIGTERM];
        let blocks = all.iter().all(|signal| mask >> (signal - 1) & 1 == 1);
        println!("{} blocks: {blocks}", name.trim());
    }
}

fn the_agent_takes_no_signals() -> Result<(), Failed> {
    let place = Place::new("signals");
    let output = run("signals", &place.0);
    says(&output, "gracepoint blocks: true")?;
    says(&output, "process blocks: false").or_else(|_| says(&output, "blocks: false"))
}

/// Becomes another user in one thread, and asks the agent, whose socket the file system would let it
/// use.
fn program_other_user() {
    let Ok(gracepoint::Status::Listening(path)) = gracepoint::init() else { panic!("no agent") };
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let other = std::thread::spawn(move || {
        // SAFETY: changes the rights of this thread alone, where glibc's would change all of them.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
        let mut link = UnixStream::connect(path).unwrap();
        let mut all = Vec::new();
        // The agent may be gone before this is read, which makes an error of the end.
        let _ = link.write_all(&Message::Hello(Hello::current(None)).to_frame());
        let _ = link.read_to_end(&mut all);
        all.len()
    });
    println!("another user is told {} bytes", other.join().unwrap());
}

fn other_users_are_not_answered() -> Result<(), Failed> {
    let place = Place::new("other");
    says(&run("other-user", &place.0), "another user is told 0 bytes")
}
