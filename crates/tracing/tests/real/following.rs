//! `log` is off while nobody records, and recordings from outside find every record: of threads that make them all the
//! time, of places that are known and of new ones, from the moment on when the command says that it records.

use crate::trace::Folder;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const THREADS: u64 = 2;
const ROUNDS: u64 = 4;
/// Between records, so that a slow machine's buffer holds them.
const PAUSE: Duration = Duration::from_micros(100);

/// Says `ready` when nobody wants records any more; then does what it is told, a line each, and answers each by a line:
/// `level`; `new TARGET`, a record of a place of its own; `begin` and `end`, between which the records count that
/// two threads make; the answer to `end` is how many those were.
pub(crate) fn program() {
    gracepoint_tracing::init().expect("the agent starts");
    // Even: none count. Odd: those of round n / 2 do, if it is odd still when they are made.
    let (phase, counted, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let inside = [const { AtomicU64::new(0) }; THREADS as usize];
    thread::scope(|scope| {
        for inside in &inside {
            let (phase, counted, over) = (&phase, &counted, &over);
            scope.spawn(move || {
                while over.load(SeqCst) == 0 {
                    inside.store(1, SeqCst);
                    let now = phase.load(SeqCst);
                    if now % 2 == 1 {
                        let target = format!("following.{now}"); // a new place in each round
                        log::debug!(target: &target, "counted");
                        log::debug!(target: "following", "counted");
                        counted.fetch_add(2, SeqCst);
                    } else {
                        log::debug!(target: "following", "not counted");
                    }
                    inside.store(0, SeqCst);
                    thread::sleep(PAUSE);
                }
            });
        }
        while log::max_level() != log::LevelFilter::Off {
            log::debug!(target: "following", "nobody wants this"); // which ends the learning
        }
        println!("ready");
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let answer = match line.as_str() {
                "level" => log::max_level().to_string(),
                "begin" => phase.fetch_add(1, SeqCst).to_string(),
                "end" => {
                    while counted.load(SeqCst) == 0 {
                        thread::yield_now();
                    }
                    phase.fetch_add(1, SeqCst);
                    // Who has seen it odd is through.
                    for inside in &inside {
                        while inside.load(SeqCst) == 1 {
                            thread::yield_now();
                        }
                    }
                    counted.swap(0, SeqCst).to_string()
                }
                new => {
                    log::warn!(target: new, "a record of a new place");
                    log::max_level().to_string()
                }
            };
            println!("{answer}");
        }
        over.store(1, SeqCst);
    });
}

struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: Folder,
}

impl Program {
    fn start() -> Program {
        let folder = Folder::new();
        let exe = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(exe);
        command.args(["run", "following"]).env("GRACEPOINT_DIR", folder.path(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut program = Program { child, input, output, folder };
        assert_eq!(program.answer(), "ready");
        program
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("it listens");
        self.answer()
    }

    fn gracepoint(&self, verb: &str, options: &[&str]) -> String {
        let pid = self.child.id().to_string();
        let output = self.folder.gracepoint(&[&[verb, "-p", &pid], options].concat());
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb}: {words}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn recordings() {
    let mut program = Program::start();
    for round in 0..ROUNDS {
        assert_eq!(program.ask("level"), "OFF", "nobody records: round {round}");
        let level = if round % 2 == 0 { "debug" } else { "trace" };
        let wanted = ["-e", "following*", "--level", level, "--buffer", "64M"];
        program.gracepoint("start", &wanted);
        assert_eq!(program.ask("level"), level.to_uppercase());
        program.ask("begin");
        program.ask("following.other");
        let made: u64 = program.ask("end").parse().expect("a number");
        program.gracepoint("stop", &[]);
        assert_eq!(program.ask("level"), "OFF", "it is over");
        let trace = program.folder.path("trace");
        program.gracepoint("extract", &["-o", &trace]);
        let recorded = program.folder.report(&[]);
        let counted = recorded.iter().filter(|event| event.field("message") == "counted");
        assert_eq!(counted.count() as u64, made, "round {round}");
        let new = recorded.iter().filter(|event| event.name().starts_with("following.other:"));
        assert_eq!(new.count(), 1);
        std::fs::remove_dir_all(&trace).expect("it is there");
    }
}

/// What is hit first while `log` is off is in the list that is asked for after the next one.
pub(crate) fn listing() {
    let mut program = Program::start();
    let place = |listed: &str| listed.contains("following.late:");
    assert_eq!(program.ask("following.late"), "OFF");
    assert!(!place(&program.gracepoint("list", &["*"])));
    program.ask("following.late");
    assert!(place(&program.gracepoint("list", &["*"])), "who asks again is told");
}

/// A recording that awaits what has not been hit yet, and switches nothing that is there.
pub(crate) fn awaiting() {
    let mut program = Program::start();
    for new in ["", "following.awaited"] {
        program.gracepoint("start", &["-e", "following.awaited*", "--level", "warn"]);
        assert_eq!(program.ask("level"), "WARN", "it may come");
        if !new.is_empty() {
            program.ask(new);
        }
        program.gracepoint("stop", &[]);
        assert_eq!(program.ask("level"), "OFF");
        if new.is_empty() {
            program.gracepoint("reset", &[]);
        } else {
            program.gracepoint("extract", &["-o", &program.folder.path("trace")]);
            assert_eq!(program.folder.report(&[]).len(), 1);
        }
    }
    program.gracepoint("start", &["-e", "following.awaited:none", "--level", "error"]);
    assert_eq!(program.ask("level"), "ERROR");
    program.gracepoint("reset", &[]);
    assert_eq!(program.ask("level"), "OFF", "whoever ends it");
}
