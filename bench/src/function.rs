//! Suite `function`: what a traced function costs, off, with a callback and recorded, beside uftrace and spans of
//! `tracing`; and switching five thousand of them.
//!
//! The functions are in a program of its own (`bench/functions`), built here three times: with sleds, with calls of `mcount` for
//! uftrace, and plain. So the rows of one table come from several runs, one after the other.

use crate::measure::Cost;
use crate::table::{Goal, Outcome, machine};
use gracepoint_wire::control::{
    Create, FunctionsWanted, Hello, MAX_REPLY, Message, Mode, next_frame,
};
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const ROUNDS: usize = 1_000;
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGE: &str = "gracepoint-bench-functions";

const PLAIN: &str = "a call of a leaf, plain";
const SLED: &str = "sleds that are off";
const ATTRIBUTE: &str = "the attribute, off";
const NOOP: &str = "sleds, callbacks that do nothing";
const ATTRIBUTE_NOOP: &str = "the attribute, callbacks that do nothing";
const RECORDED: &str = "sleds, recorded";
const FLOOR: &str = "two readings of the clock, 26 bytes stored";
const UFTRACE: &str = "uftrace, recorded (mcount)";
const TRACING: &str = "a span of tracing, subscriber that does nothing";
const ON: &str = "5,000 functions on, 3 threads running them";
const OFF: &str = "5,000 functions off";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Builds the program; where it is.
fn build(folder: &str, flags: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace is gone")?;
    let folder = root.join("target").join(folder);
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--quiet",
            "--package",
            PACKAGE,
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&folder)
        .current_dir(root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()?;
    if !status.success() {
        return Err(format!("{PACKAGE} does not build with {flags:?}").into());
    }
    Ok(folder.join(TARGET).join("release").join(PACKAGE))
}

/// Minimum and median of a row that the program prints.
fn rows(text: &str) -> impl Iterator<Item = (&str, f64, f64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    })
}

fn row(text: &str, name: &str, title: &'static str) -> Result<Cost> {
    let found = rows(text).find(|(known, ..)| *known == name);
    let (_, min_ns, median_ns) = found.ok_or_else(|| format!("no row {name} in {text:?}"))?;
    Ok(Cost { name: title, min_ns, median_ns })
}

fn output(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn run_mode(program: &Path, args: &[&str], rounds: usize) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args).arg(rounds.to_string());
    output(command)
}

pub(crate) fn run(rounds: Option<usize>) -> Result<Outcome> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let sleds = build("sleds", "-Z instrument-xray=always")?;
    let plain = build("plain", "")?;
    let mut costs = vec![
        row(&run_mode(&plain, &["calls", "calls"], rounds)?, "calls", PLAIN)?,
        row(&run_mode(&sleds, &["calls", "calls"], rounds)?, "calls", SLED)?,
        row(&run_mode(&plain, &["off"], rounds)?, "attribute-off", ATTRIBUTE)?,
    ];
    let noop = run_mode(&sleds, &["noop"], rounds)?;
    costs.push(row(&noop, "noop", NOOP)?);
    let noop = run_mode(&plain, &["attribute"], rounds)?;
    costs.push(row(&noop, "attribute-noop", ATTRIBUTE_NOOP)?);
    costs.push(row(&run_mode(&plain, &["floor"], rounds)?, "floor", FLOOR)?);
    costs.push(row(&recorded(&sleds, rounds)?, "recorded", RECORDED)?);
    costs.push(row(&run_mode(&plain, &["tracing"], rounds)?, "tracing", TRACING)?);
    let mut absent = Vec::new();
    if Command::new("uftrace").arg("--version").output().is_ok() {
        costs.push(row(&uftrace(rounds)?, "calls", UFTRACE)?);
    } else {
        absent.push("uftrace");
    }
    let toggle = run_mode(&sleds, &["toggle"], rounds.clamp(3, 100))?;
    costs.push(row(&toggle, "on", ON)?);
    costs.push(row(&toggle, "off", OFF)?);
    let functions = rows(&toggle).find(|(name, ..)| *name == "functions").map_or(0.0, |row| row.1);
    let mut notes = machine(None, rounds);
    notes.push(format!("a call is an entry and an exit; {functions} functions are switched"));
    let mut outcome =
        Outcome { suite: "function", notes, costs, floor: PLAIN, absent, ..Outcome::default() };
    outcome.goals = goals(&outcome);
    Ok(outcome)
}

fn goals(outcome: &Outcome) -> Vec<Goal> {
    let min = |name: &str| outcome.cost(name).min_ns;
    let over = |name: &str| min(name) - min(PLAIN);
    let most = |what: &str, is: f64, most: f64| Goal {
        what: format!("{what}: {is:.2}, at most {most}"),
        met: is <= most,
    };
    vec![
        most("attribute off, ns over a plain call", over(ATTRIBUTE), 0.25),
        most("sleds off, ns over a plain call", over(SLED), 0.5),
        most("callbacks that do nothing, ns over a plain call", over(NOOP), 14.0),
        most("recorded, times the floor", over(RECORDED) / min(FLOOR), 2.2),
        most("5,000 functions on, ms", min(ON) / 1e6, 1.0),
        most("5,000 functions off, ms", min(OFF) / 1e6, 1.0),
    ]
}

/// The program with an agent, and a tool that records.
struct Served {
    child: Child,
    lines: BufReader<ChildStdout>,
    link: UnixStream,
    inbox: Vec<u8>,
    folder: PathBuf,
}

impl Served {
    fn ask(&mut self, message: &Message) -> Result<Message> {
        self.link.write_all(&message.to_frame())?;
        self.receive()
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some((payload, taken)) = next_frame(&self.inbox, MAX_REPLY)? {
                let message = Message::parse(payload)?;
                self.inbox.drain(..taken);
                return Ok(message);
            }
            let mut chunk = [0; 65536];
            match self.link.read(&mut chunk)? {
                0 => return Err("the agent is gone".into()),
                n => self.inbox.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The leaf's calls, recorded into a buffer that is written over again and again.
fn recorded(program: &Path, rounds: usize) -> Result<String> {
    let folder = std::env::temp_dir().join(format!("gp-functions-{}", std::process::id()));
    let mut child = Command::new(program)
        .args(["serve", &rounds.to_string()])
        .env("GRACEPOINT_DIR", &folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("piped")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let (id, path) = line.trim().split_once(' ').ok_or("it says where its agent is")?;
    let id: u32 = id.parse()?;
    let link = UnixStream::connect(path)?;
    let mut served = Served { child, lines, link, inbox: Vec::new(), folder };
    served.ask(&Message::Hello(Hello::current(None)))?;
    let functions = Some(FunctionsWanted { ids: vec![(id, id)], ..FunctionsWanted::default() });
    // Larger than what is recorded, so that nothing is lost and nothing written over.
    let calls = (rounds as u64 + rounds as u64 / 10 + 1) * 2048;
    let buffer_bytes = (calls * 26 * 9 / 8 + (1 << 20)).min(1 << 30);
    let create = Create { functions, buffer_bytes, mode: Mode::Discard, ..Create::default() };
    let created = served.ask(&Message::Create(create))?;
    let Message::Created(created) = created else { return Err(format!("{created:?}").into()) };
    served.ask(&Message::Start(created.session))?;
    let input = served.child.stdin.as_mut().ok_or("piped")?;
    input.write_all(b"recorded\n")?;
    let mut text = String::new();
    served.lines.read_line(&mut text)?;
    Ok(text)
}

fn uftrace(rounds: usize) -> Result<String> {
    let program = build("mcount", "-Z instrument-mcount")?;
    let data = std::env::temp_dir().join(format!("gp-uftrace-{}", std::process::id()));
    let mut command = Command::new("uftrace");
    command.args(["record", "--no-pager", "-F", "*leaf*", "-d"]).arg(&data).arg(&program);
    command.args(["calls", "calls", &rounds.to_string()]);
    let text = output(command);
    let _ = std::fs::remove_dir_all(&data);
    text
}
