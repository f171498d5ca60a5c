//! The user at the terminal: starts the server, types `gracepoint` commands, reads the answers.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::GREETING;

/// How long the server may take to end by itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Lines of the report that are shown.
const REPORT_LINES: &str = "20";

/// Plays the whole demonstration, recording for `duration`.
pub(crate) fn play(duration: &str) -> Result<(), Box<dyn Error>> {
    let folder = trace_folder()?;
    let trace = folder.join("trace");
    let trace = trace.to_str().ok_or("the path of the temporary folder is not UTF-8")?;

    say("A key-value server starts in a process of its own, and clients keep it busy.")?;
    let server = Server::start()?;
    println!("{}", server.greeting);
    let pid = server.process.id().to_string();
    let pid = pid.as_str();

    say("Which processes can be traced?")?;
    command(&["ps"])?;
    say("What could this one tell? All of it is known before any of it has happened.")?;
    command(&["list", "-p", pid])?;
    say("Two providers are switched on in the running process, recorded, and switched off again.")?;
    command(&[
        "record",
        "-p",
        pid,
        "-e",
        "kv:*",
        "-e",
        "http:*",
        "-o",
        trace,
        "--duration",
        duration,
    ])?;
    say("What was recorded?")?;
    command(&["info", trace])?;
    command(&["report", trace, "--limit", REPORT_LINES])?;
    say("How long do lookups take, when they find the key and when they do not?")?;
    command(&["hist", trace, "-e", "kv:get", "-f", "latency", "--by", "hit"])?;
    server.stop()?;
    what_next(trace)?;
    Ok(())
}

/// A new folder that only this user can read. It is kept.
fn trace_folder() -> std::io::Result<PathBuf> {
    let temp = std::env::temp_dir();
    for number in 0.. {
        let folder = temp.join(format!("gracepoint-demo-{}.{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                let what = format!("cannot create {}: {e}; set TMPDIR", folder.display());
                return Err(std::io::Error::new(e.kind(), what));
            }
            Ok(()) => return Ok(folder),
        }
    }
    unreachable!("there are more numbers than folders")
}

/// Prints a heading, bold where that can be seen.
fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if out.is_terminal() && !plain {
        writeln!(out, "\n\x1b[1m{text}\x1b[0m")
    } else {
        writeln!(out, "\n# {text}")
    }
}

/// Prints a command line as the user would type it, runs it, and waits for it.
fn command(args: &[&str]) -> Result<(), Box<dyn Error>> {
    let typed: Vec<String> = args.iter().map(|a| quoted(a)).collect();
    let line = format!("gracepoint {}", typed.join(" "));
    println!("$ {line}");
    std::io::stdout().flush()?;
    // This very program, under the name of the command line.
    let status = Command::new(std::env::current_exe()?).arg0("gracepoint").args(args).status()?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed: {status}").into()) }
}

/// The argument as a shell needs it.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

/// The server's process. It ends when its standard input does, that is with this process in any
/// case, however this one ends.
struct Server {
    process: Child,
    /// Held open; taken when the server is to end.
    input: Option<ChildStdin>,
    greeting: String,
}

impl Server {
    fn start() -> Result<Server, Box<dyn Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([OsStr::new("--serve"), OsStr::new("--until-eof")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let output = process.stdout.take();
        let mut server = Server { process, input, greeting: String::new() };
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut server.greeting)?;
        }
        server.greeting.truncate(server.greeting.trim_end().len());
        if !server.greeting.starts_with(GREETING) {
            return Err("the server ended before it served".into());
        }
        Ok(server)
    }

    /// Ends the server and says whether it ended well.
    fn stop(mut self) -> Result<(), Box<dyn Error>> {
        self.input = None;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the server failed: {status}").into()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Err(format!("the server did not end within {PATIENCE:?} and was killed").into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn what_next(trace: &str) -> std::io::Result<()> {
    let reader = quoted(trace);
    let note = if on_path("babeltrace2") { "" } else { "   (Debian: apt-get install babeltrace2)" };
    say("Done; the server has ended. The trace is kept:")?;
    println!("{trace}");
    say("What to try next")?;
    println!(
        "  The trace is CTF, so other tools read it too:
    babeltrace2 {reader} | less{note}
  Some lookups took a thousand times longer than the others. What were they waiting for?
    cargo run --release -p gracepoint-cli -- report {reader} | grep -E 'kv:compact|latency = .*ms'
  Keep the server running, and trace it from another terminal by the commands that it prints:
    cargo run --release -p gracepoint-demo -- --serve
  Remove the trace:
    rm -r {}",
        quoted(&Path::new(trace).parent().unwrap_or(Path::new(trace)).to_string_lossy())
    );
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[test]
fn arguments_are_quoted_as_a_shell_needs_it() {
    assert_eq!(quoted("/tmp/a-1.b"), "/tmp/a-1.b");
    assert_eq!(quoted("kv:*"), "'kv:*'");
    assert_eq!(quoted("it's"), r"'it'\''s'");
    assert_eq!(quoted(""), "''");
}
