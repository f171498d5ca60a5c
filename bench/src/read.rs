//! Suite `read`: how fast a trace is read, beside babeltrace2 on the same trace, and the floor: its
//! files read once.
//!
//! The trace is made here, as four threads that take turns would have left it, with the event of
//! suite `record`. All rows are the commands as a user runs them, output to `/dev/null`; a row's
//! cost is the time of the command by the number of events.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gracepoint::event::Event;
use gracepoint_wire::clock::{Clock, Source, Triple};
use gracepoint_wire::packet::{self, HEADER, PacketHeader};
use gracepoint_wire::schema::{Declared, Role, loss_event};
use gracepoint_wire::tsdl;

use crate::measure::{Row, measure};
use crate::recorder::gracepoint;
use crate::table::{Goal, Outcome, machine};
use crate::{NAME, Sample};

const ROUNDS: usize = 5;
/// Events of the trace.
const EVENTS: u64 = 2_000_000;
const STREAMS: u64 = 4;
/// Content of a packet, as pages have it.
const PACKET: usize = 16 << 10;

const FLOOR: &str = "floor: the files read once";
const REPORT: &str = "gracepoint report";
const REPORT_JSON: &str = "gracepoint report --json";
const LAST: &str = "gracepoint report --last 100";
const INFO: &str = "gracepoint info";
const THEIR_TEXT: &str = "babeltrace2";
const THEIR_DUMMY: &str = "babeltrace2 --output-format=dummy";

/// A directory that goes away with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Of this process, which makes one of each name.
    pub(crate) fn new(name: &str) -> Result<Folder, Box<dyn Error>> {
        let name = format!("gracepoint-bench-{name}-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir(&folder.0)?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn run(rounds: Option<usize>) -> Result<Outcome, Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let folder = Folder::new("read")?;
    let bytes = write(&folder.0, EVENTS)?;
    let theirs = succeeds(Command::new("babeltrace2").arg("--version"));
    let costs = measure(&mut rows(&folder.0, theirs), rounds);
    let mut notes = machine(None, rounds);
    notes.push(format!("{EVENTS} events in {STREAMS} streams, {bytes} bytes; output to /dev/null"));
    if !theirs {
        notes.push("babeltrace2 is not installed: its rows and two goals are missing".into());
    }
    let mut outcome = Outcome { suite: "read", notes, costs, floor: FLOOR, ..Outcome::default() };
    outcome.goals = goals(&outcome, theirs);
    Ok(outcome)
}

fn goals(outcome: &Outcome, theirs: bool) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (ours, least, peer, ratio) in
        [(REPORT, 5.0, THEIR_TEXT, 7.0), (INFO, 20.0, THEIR_DUMMY, 8.0)]
    {
        let cost = outcome.cost(ours).min_ns;
        let speed = 1e3 / cost;
        let what = format!("{ours}: {speed:.1} M events/s, at least {least}");
        goals.push(Goal { what, met: speed >= least });
        if theirs {
            let times = outcome.cost(peer).min_ns / cost;
            let what = format!("{ours}: {times:.1} x as fast as {peer}, at least {ratio}");
            goals.push(Goal { what, met: times >= ratio });
        }
    }
    goals
}

fn rows(dir: &Path, theirs: bool) -> Vec<Row<'_>> {
    let row = |name, run: Box<dyn Fn() -> bool>| {
        let check = move |_| assert!(run(), "{name} failed, so its time means nothing");
        Row::new(name, 1, check).of(EVENTS)
    };
    let own = |name, args: &'static [&'static str]| {
        let dir = dir.to_owned();
        let command = move || gracepoint().is_ok_and(|mut c| succeeds(c.args(args).arg(&dir)));
        row(name, Box::new(command))
    };
    let path = dir.to_owned();
    let mut rows = vec![
        row(FLOOR, Box::new(move || read_all(&path).is_ok())),
        own(REPORT, &["report"]),
        own(REPORT_JSON, &["report", "--json"]),
        own(LAST, &["report", "--last", "100"]),
        own(INFO, &["info"]),
    ];
    if theirs {
        for (name, args) in [(THEIR_TEXT, &[][..]), (THEIR_DUMMY, &["--output-format=dummy"])] {
            let dir = dir.to_owned();
            let run = move || succeeds(Command::new("babeltrace2").args(args).arg(&dir));
            rows.push(row(name, Box::new(run)));
        }
    }
    rows
}

/// Runs a command to its end, its output to `/dev/null`.
fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn read_all(dir: &Path) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    for entry in fs::read_dir(dir)? {
        let mut file = File::open(entry?.path())?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// Writes a trace of so many events and returns its bytes.
pub(crate) fn write(dir: &Path, events_of_all: u64) -> Result<u64, Box<dyn Error>> {
    let schema = Sample::DESC.schema();
    let events = [loss_event(), Declared { id: 16, role: Role::Event, schema }];
    let triple = Triple { ticks: 0, mono_ns: 0, real_ns: 1_767_323_045_000_000_000 };
    let (source, freq_hz) = (Source::Tsc, 2_000_000_000);
    let clock = Clock { source, freq_hz, boot_id: [0; 16], triples: vec![triple] };
    let text = tsdl::metadata(&tsdl::Metadata {
        clock: &clock,
        events: &events,
        env: &[],
        context: Default::default(),
    });
    fs::write(dir.join("metadata"), &text)?;
    let mut bytes = text.len() as u64;
    for stream in 0..STREAMS {
        let mut file = BufWriter::new(File::create(dir.join(format!("stream_{stream}")))?);
        let mut header = PacketHeader { stream, tid: 100 + stream as u32, ..Default::default() };
        header.thread[..6].copy_from_slice(b"worker");
        let mut page = vec![0; HEADER];
        for i in (stream..events_of_all).step_by(STREAMS as usize) {
            let ticks = i * 400;
            if page.len() == HEADER {
                header.begin = ticks;
            }
            page.extend(&packet::compact_header(16, ticks).to_le_bytes()[..5]);
            page.extend(i.to_le_bytes());
            page.extend((i ^ 1).to_le_bytes());
            page.extend(NAME.bytes());
            page.push(0);
            header.end = ticks;
            if page.len() + 64 > PACKET || i + STREAMS >= events_of_all {
                let whole = packet::round_up(page.len() as u64);
                header.content_bits = page.len() as u64 * 8;
                header.packet_bits = whole * 8;
                page[..HEADER].copy_from_slice(&header.to_bytes());
                page.resize(whole as usize, 0);
                file.write_all(&page)?;
                bytes += whole;
                header.seq += 1;
                page.truncate(HEADER);
            }
        }
        file.flush()?;
    }
    Ok(bytes)
}
