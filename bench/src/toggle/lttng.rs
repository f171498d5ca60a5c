//! LTTng-UST, where it is installed: a C program with as many events, as many threads that hit them,
//! and `lttng enable-event` and `disable-event` on all of them. The times are those of the command,
//! which returns when the program has been told; the time of a command that does nothing stands
//! beside them.

use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{Findings, HOT, Row, THREADS, timed};

/// The row that ours is compared with.
pub(super) const ENABLE: &str = "lttng enable-event";

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The session, the program and its files; all gone when dropped.
struct Scene {
    folder: PathBuf,
    session: String,
    /// The session daemon, if there was none, and the program.
    children: Vec<Child>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = lttng(&["destroy", &self.session]);
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Adds the rows, or a note that says why there are none.
pub(super) fn enable_event(events: usize, rounds: usize, found: &mut Findings) {
    let there = |command: &str| Command::new(command).arg("--version").output().is_ok();
    if !there("lttng") || !there("cc") {
        found.notes.push("LTTng-UST: not installed, no rows".into());
        return;
    }
    match measure(events, rounds) {
        Ok(rows) => found.rows.extend(rows),
        Err(why) => found.notes.push(format!("LTTng-UST: {why}; no rows")),
    }
}

fn measure(events: usize, rounds: usize) -> Result<Vec<Row>, String> {
    let session = format!("gracepoint-bench-{}", std::process::id());
    let folder = std::env::temp_dir().join(&session);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut scene = Scene { folder, session, children: Vec::new() };
    let program = build(&scene.folder, events)?;
    scene.children.extend(daemon()?);
    let mut child = Command::new(program)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the program: {error}"))?;
    let mut ready = String::new();
    if let Some(stdout) = child.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut ready);
    }
    scene.children.push(child);
    let output = format!("--output={}", scene.folder.join("trace").display());
    let session = format!("--session={}", scene.session);
    lttng(&["create", &scene.session, &output])?;
    lttng(&["enable-channel", "-u", &session, "bench"])?;
    lttng(&["start", &scene.session])?;
    let (mut on, mut off, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        timed(&mut on, || lttng(&["enable-event", "-u", &session, "-c", "bench", "gpbench:*"]))?;
        timed(&mut off, || lttng(&["disable-event", "-u", &session, "-c", "bench", "gpbench:*"]))?;
        timed(&mut floor, || lttng(&["--version"]))?;
    }
    Ok(vec![
        Row::new(ENABLE, on),
        Row::new("lttng disable-event", off),
        Row::new("lttng --version (the command alone)", floor),
    ])
}

/// Starts the session daemon, if none is running.
fn daemon() -> Result<Option<Child>, String> {
    if lttng(&["list"]).is_ok() {
        return Ok(None);
    }
    let mut command = Command::new("lttng-sessiond");
    command.arg("--quiet").stderr(Stdio::null());
    let mut daemon = command.spawn().map_err(|error| format!("its daemon: {error}"))?;
    let begin = Instant::now();
    while let Err(error) = lttng(&["list"]) {
        if begin.elapsed() > PATIENCE {
            let _ = daemon.kill();
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Some(daemon))
}

fn lttng(args: &[&str]) -> Result<Output, String> {
    let output = Command::new("lttng").args(args).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("lttng {} failed ({})", args.join(" "), said.trim()))
}

/// The program, compiled; an error where LTTng's headers are missing.
fn build(folder: &Path, events: usize) -> Result<PathBuf, String> {
    let mut header = String::from(
        "#undef LTTNG_UST_TRACEPOINT_PROVIDER\n#define LTTNG_UST_TRACEPOINT_PROVIDER gpbench\n\
         #undef LTTNG_UST_TRACEPOINT_INCLUDE\n#define LTTNG_UST_TRACEPOINT_INCLUDE \"./tp.h\"\n\
         #if !defined(TP_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)\n#define TP_H\n\
         #include <lttng/tracepoint.h>\n\
         LTTNG_UST_TRACEPOINT_EVENT_CLASS(gpbench, one, LTTNG_UST_TP_ARGS(unsigned long, n),\n\
         LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(unsigned long, n, n)))\n",
    );
    let (mut functions, mut table) = (String::new(), String::new());
    for n in 0..events {
        let _ = writeln!(
            header,
            "LTTNG_UST_TRACEPOINT_EVENT_INSTANCE(gpbench, one, gpbench, p{n}, \
             LTTNG_UST_TP_ARGS(unsigned long, n))"
        );
        let _ = writeln!(
            functions,
            "static void hit{n}(unsigned long n) {{ lttng_ust_tracepoint(gpbench, p{n}, n); }}"
        );
        let _ = write!(table, "hit{n}, ");
    }
    header += "#endif\n#include <lttng/tracepoint-event.h>\n";
    let source = format!(
        "#define LTTNG_UST_TRACEPOINT_CREATE_PROBES\n#define LTTNG_UST_TRACEPOINT_DEFINE\n\
         #include \"tp.h\"\n#include <pthread.h>\n#include <stdio.h>\n{functions}\n\
         static void (*const hits[])(unsigned long) = {{ {table} }};\n\
         static void *hammer(void *arg) {{ unsigned long first = (unsigned long)arg * {HOT};\n\
         for (unsigned long n = 0;; n++) for (int i = 0; i < {HOT}; i++) hits[first + i](n); }}\n\
         int main(void) {{ pthread_t t;\n\
         for (unsigned long i = 0; i < {THREADS}; i++) pthread_create(&t, 0, hammer, (void *)i);\n\
         puts(\"ready\"); fflush(stdout); pthread_join(t, 0); }}\n"
    );
    let write = |name: &str, text: &str| fs::write(folder.join(name), text);
    write("tp.h", &header).and_then(|()| write("main.c", &source)).map_err(|e| e.to_string())?;
    let mut cc = Command::new("cc");
    cc.current_dir(folder).args(["-O1", "-I.", "main.c", "-o", "program"]);
    let done = cc.args(["-llttng-ust", "-ldl", "-lpthread"]).output().map_err(|e| e.to_string())?;
    if !done.status.success() {
        return Err("its headers are not installed (liblttng-ust-dev)".into());
    }
    Ok(folder.join("program"))
}
