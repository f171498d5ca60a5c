//! Memory does not grow with the log. The peak is that of a process of its own: this test, started anew.

use gracepoint_analysis::hang::explain;
use std::io::{BufReader, Read, Write};
use std::process::Command;

/// Tells the child what it is.
const CHILD: &str = "HANG_MEMORY_CHILD";
/// Megabytes of tasks, some three times as many as are kept; `HANG_MEGABYTES` asks for more.
const MEGABYTES: usize = 6;
/// Megabytes in one line, which cost little time.
const LONG: usize = 244;

/// A log that is made as it is read: a long line, then tasks that wait, one after another.
struct Made {
    piece: Vec<u8>,
    at: usize,
    made: usize,
    long: usize,
    tasks: usize,
    pid: u32,
}

impl Made {
    fn next(&mut self) {
        self.piece.clear();
        self.at = 0;
        if self.long > 0 {
            self.piece.resize(1 << 20, b'x');
            self.long -= 1;
            if self.long == 0 {
                self.piece.push(b'\n');
            }
        } else if self.made < self.tasks {
            self.pid += 1;
            let text = task(self.pid).replace('@', "[  100.000001][   T41] ");
            self.piece.extend_from_slice(text.as_bytes());
        }
        self.made += if self.long > 0 { 0 } else { self.piece.len() };
    }
}

/// A task that waits for a lock of its own, in functions of its own.
fn task(pid: u32) -> String {
    let mut text = format!(
        "@INFO: task worker-{pid}:{pid} blocked for more than 122 seconds.\n\
         @task:worker-{pid} state:D stack:0 pid:{pid} tgid:{pid} ppid:1 flags:0x00004000\n\
         @Call Trace:\n@ <TASK>\n@ schedule+0x27/0xf0\n@ __mutex_lock+0x12/0x80\n"
    );
    for depth in 0..8 {
        text += &format!("@ qx_{pid}_function_{depth}+0x12/0x80\n");
    }
    text += "@ </TASK>\n";
    text += &format!(
        "@1 lock held by worker-{pid}/{pid}:\n@ #0: ffff8880{pid:08x} (&qx_{pid}){{+.+.}}-{{3:3}}, at: qx_{pid}_function_0+0x12/0x80\n"
    );
    text
}

impl Read for Made {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.piece.len() {
            self.next();
        }
        let piece = &self.piece[self.at..];
        let length = piece.len().min(into.len());
        into[..length].copy_from_slice(&piece[..length]);
        self.at += length;
        Ok(length)
    }
}

/// The most memory that this process has had, in kilobytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// What reading a log of so many megabytes of tasks takes at its peak, in kilobytes.
fn measured(megabytes: usize) -> usize {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "memory::a_long_log_is_read_in_bounded_memory", "--nocapture"])
        .env(CHILD, megabytes.to_string())
        .output()
        .expect("this program runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let told = text.lines().find_map(|line| line.split_once("peak ")).map(|(_, rest)| rest);
    told.and_then(|rest| rest.trim().parse().ok()).unwrap_or_else(|| panic!("no peak in {text}"))
}

fn child(megabytes: usize) {
    let before = peak();
    let tasks = megabytes << 20;
    let made = Made { piece: Vec::new(), at: 0, made: 0, long: LONG, tasks, pid: 0 };
    let explanation = explain(BufReader::new(made)).expect("it is made, not read");
    assert!(explanation.accounts[0].dropped > 0, "there were more tasks than are kept");
    let told = format!("peak {}\n", peak() - before);
    std::io::stdout().write_all(told.as_bytes()).expect("the parent reads");
}

#[test]
fn a_long_log_is_read_in_bounded_memory() {
    if let Ok(megabytes) = std::env::var(CHILD) {
        return child(megabytes.parse().expect("a number"));
    }
    let asked = std::env::var("HANG_MEGABYTES").ok().and_then(|text| text.parse().ok());
    let megabytes = asked.unwrap_or(MEGABYTES);
    let (half, whole) = (measured(megabytes / 2), measured(megabytes));
    // Were the second half kept, or more than the beginning of the long line, it would be at least this.
    let kept = megabytes / 2 * 1024;
    assert!(whole < half + kept / 2, "{half} kB for half of the log, {whole} kB for all of it");
    assert!(whole < LONG * 1024 / 4, "{whole} kB for {LONG} MB in one line");
}
