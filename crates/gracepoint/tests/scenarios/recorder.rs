//! Recorders that leave while a reader sleeps in a probe: killed, by Ctrl-C, and by the book. Each is
//! a process of its own; the traced program sees to it that their sessions end.

use crate::client::Tool;
use crate::program::{command, run, until};
use crate::teardown_stall::{GATE, sleeper};
use gracepoint::Tracer;
use gracepoint_wire::control::Message;
use libtest_mimic::Failed;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

/// An event that only sessions are attached to.
#[derive(gracepoint::Event)]
#[event(name = "recorded:tick")]
struct Tick {
    n: u64,
}

/// Records until it is told on standard input to stop, by the book.
pub(crate) fn program_recorder() {
    let path = std::env::var_os("SCENARIO_SOCKET").unwrap();
    let (mut tool, _) = Tool::connect(Path::new(&path));
    let session = tool.record(&["recorded:*", "stall:*"]).session;
    println!("recording");
    let _ = std::io::stdin().read(&mut [0]);
    let stopped = tool.ask(&Message::Stop(session));
    let Message::Stopped(stopped) = stopped else { panic!("{stopped:?}") };
    println!("settled: {}, {}", stopped.settled, stopped.holdouts.join("; "));
}

fn recorder(socket: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = command("recorder");
    command.env("SCENARIO_SOCKET", socket).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "recording\n");
    (child, lines)
}

/// Sessions that the event is on for.
fn sessions(socket: &Path) -> u32 {
    let events = Tool::connect(socket).0.events();
    events.into_iter().find(|(name, _)| name == "recorded:tick").expect("it has a site").1
}

pub(crate) fn program() {
    let Ok(gracepoint::Status::Listening(socket)) = gracepoint::init() else { panic!("no agent") };
    gracepoint::trace!(Tick { n: 0 });
    let tracer = Tracer::new("recorded");
    let (probe, reader) = sleeper(&tracer);
    for signal in [libc::SIGKILL, libc::SIGINT] {
        let (mut child, _lines) = recorder(&socket);
        assert_eq!(sessions(&socket), 1);
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(child.id().cast_signed(), signal) };
        child.wait().unwrap();
        until(|| sessions(&socket) == 0);
    }
    let (mut child, mut lines) = recorder(&socket);
    drop(child.stdin.take());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(GATE.standing(), 1, "the reader sleeps all the time");
    assert!(line.starts_with("settled: false, thread "), "{line}");
    assert!(line.contains("(the-reader)"), "{line}");
    assert!(line.contains("running probe \"sleeper\" of stall:same"), "{line}");
    until(|| sessions(&socket) == 0);
    GATE.open();
    reader.join().unwrap();
    probe.detach_wait().unwrap();
    println!("all recorders have left");
}

pub(crate) fn test() -> Result<(), Failed> {
    let directory = std::env::temp_dir().join(format!("gp-recorders-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let mut program = command("recorded");
    program.env("GRACEPOINT_DIR", &directory);
    let output = run(program);
    let _ = fs::remove_dir_all(&directory);
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("all recorders have left") { Ok(()) } else { Err(format!("{text:?}").into()) }
}
