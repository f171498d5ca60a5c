//! LTTng-UST, where it is installed: a C program with as many events, as many threads that hit them,
//! and `lttng enable-event` and `disable-event` on all of them. The times are those of the command,
//! which returns when the program has been told; the time of a command that does nothing stands
//! beside them.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::{Findings, HOT, Row, THREADS, timed};
use crate::lttng::Lttng;

/// The row that ours is compared with.
pub(super) const ENABLE: &str = "lttng enable-event";
/// What a command takes that does nothing, which ours has not in it.
pub(super) const FLOOR: &str = "lttng --version (the command alone)";

const SESSION: &str = "gracepoint-bench";
const EVENTS: [&str; 4] = ["-u", "-c", "bench", "gpbench:*"];

/// The program that is traced, which ends when this is dropped; before the daemon does.
struct Traced(Child);

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Adds the rows, or a note that says why there are none.
pub(super) fn enable_event(events: usize, rounds: usize, found: &mut Findings) {
    match measure(events, rounds) {
        Ok(rows) => found.rows.extend(rows),
        Err(why) => found.notes.push(format!("LTTng-UST: {why}; no rows")),
    }
}

fn measure(events: usize, rounds: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut peer = Lttng::prepare()?;
    let program = build(&peer, events)?;
    peer.begin()?;
    let mut child = Traced(peer.command(program).stdout(Stdio::piped()).spawn()?);
    let mut ready = String::new();
    if let Some(stdout) = child.0.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut ready);
    }
    let output = format!("--output={}", peer.folder.join("trace").display());
    peer.lttng(&["create", SESSION, &output])?;
    peer.lttng(&["enable-channel", "-u", "bench"])?;
    peer.lttng(&["start"])?;
    let (mut on, mut off, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        timed(&mut on, || peer.lttng(&[&["enable-event"], &EVENTS[..]].concat()))?;
        timed(&mut off, || peer.lttng(&[&["disable-event"], &EVENTS[..]].concat()))?;
        timed(&mut floor, || peer.lttng(&["--version"]))?;
    }
    peer.lttng(&["destroy", SESSION])?;
    Ok(vec![Row::new(ENABLE, on), Row::new("lttng disable-event", off), Row::new(FLOOR, floor)])
}

/// The program, compiled; an error where LTTng's headers are missing.
fn build(peer: &Lttng, events: usize) -> Result<PathBuf, Box<dyn Error>> {
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
    fs::write(peer.folder.join("tp.h"), &header)?;
    fs::write(peer.folder.join("main.c"), &source)?;
    let mut cc = peer.command("cc");
    cc.args(["-O1", "-I.", "main.c", "-o", "program", "-llttng-ust", "-ldl", "-lpthread"]);
    if !cc.output().is_ok_and(|done| done.status.success()) {
        return Err("its headers are not installed (liblttng-ust-dev)".into());
    }
    Ok(peer.folder.join("program"))
}
