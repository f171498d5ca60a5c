//! The command against a fake agent, which can misbehave as no real one would.

use crate::fake::SLOTS;
use crate::real::go;
use crate::scene::{Running, Said, Scene};
use crate::trace::{babeltrace, read};
use gracepoint_wire::ABI_MINOR as MINOR;
use libtest_mimic::Trial;
use rustix::process::Signal;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 22] = [
        ("fake_ps_shows_all_and_hung_ones", ps_shows_all_and_hung_ones),
        ("fake_ps_of_nothing_says_no", ps_of_nothing_says_no),
        ("fake_list_shows_events", list_shows_events),
        ("fake_list_suggests", list_suggests),
        ("fake_names_are_escaped", names_are_escaped),
        ("fake_dripping_hello_is_put_together", dripping_hello_is_put_together),
        ("fake_long_paths_are_reached", long_paths_are_reached),
        ("fake_errors_say_what_to_do", errors_say_what_to_do),
        ("fake_refusals", refusals),
        ("fake_duration_ends", duration_ends),
        ("fake_ctrl_c_ends", ctrl_c_ends),
        ("fake_killed_program_loses_nothing_committed", killed_program_loses_nothing_committed),
        ("fake_program_exit_ends", program_exit_ends),
        ("fake_losses_add_up", losses_add_up),
        ("fake_holdouts_are_named", holdouts_are_named),
        ("fake_garbage_in_a_page_is_left_out", garbage_in_a_page_is_left_out),
        ("fake_existing_directories_are_kept", existing_directories_are_kept),
        ("fake_full_disk_keeps_what_is_there", full_disk_keeps_what_is_there),
        ("fake_removed_directory_is_noticed", removed_directory_is_noticed),
        ("fake_command_is_recorded", command_is_recorded),
        ("fake_stream_shows_before_it_asks_again", stream_shows_before_it_asks_again),
        ("fake_stream_asks_nothing_of_what_was_ended", stream_asks_nothing_of_what_was_ended),
    ];
    tests.into_iter().map(crate::trial).collect()
}

pub(crate) fn with_babeltrace() -> Vec<(&'static str, fn())> {
    vec![
        ("fake_babeltrace_counts_the_same", babeltrace_counts_the_same as fn()),
        ("fake_babeltrace_sees_the_losses", babeltrace_sees_the_losses),
    ]
}

/// `fired [1, 2, 3] recorded 6` → per slot, and recorded.
fn numbers(line: &str) -> (Vec<u64>, u64) {
    let (list, rest) = line.trim().trim_start_matches('[').split_once(']').unwrap();
    let fired = list.split(", ").map(|n| n.parse().unwrap()).collect();
    let recorded = rest.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (fired, recorded)
}

#[track_caller]
fn assert_said(said: &Said, status: i32, err: &str) {
    assert_eq!((said.status, said.err.as_str(), said.out.as_str()), (status, err, ""));
}

fn ps_shows_all_and_hung_ones() {
    let scene = Scene::new();
    let mut fakes: Vec<_> = ["good", "mute", "half", "future", "rubbish", "huge"]
        .iter()
        .map(|mode| scene.fake(mode))
        .collect();
    fakes.extend((0..20).map(|_| scene.fake("good")));
    // A socket on which nobody listens, too young to be removed.
    drop(std::os::unix::net::UnixListener::bind(scene.sockets().join("1.gp1.sock")).unwrap());
    let began = Instant::now();
    let said = scene.run(&["ps"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert!(began.elapsed() < Duration::from_secs(20), "in parallel, not one after the other");
    let line = |pid: u32| {
        let pid = pid.to_string();
        let lines = said.out.lines().filter(|l| l.split_whitespace().next() == Some(&pid));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 1, "{}", said.out);
        lines[0].split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(said.out.lines().count(), 1 + fakes.len());
    for (i, fake) in fakes.iter().enumerate() {
        let another = format!("? ? speaks another version (9.{MINOR})");
        let want = match i {
            1 | 2 => "? ? not answering",
            3 => &another,
            4 | 5 => "? ? answers something else than gracepoint's protocol",
            _ => {
                let line = line(fake.pid());
                assert!(line.starts_with("kv ") && line.ends_with("s 1 of 3 on"), "{line}");
                continue;
            }
        };
        assert_eq!(line(fake.pid()), want);
    }
    let json = scene.run(&["ps", "--json"]);
    let answering = json.out.lines().filter(|l| l.contains("\"answers\":true")).count();
    assert_eq!((json.status, answering), (0, 21));
}

fn ps_of_nothing_says_no() {
    let scene = Scene::new();
    let no = "gracepoint: no traceable program in GRACEPOINT_DIR: a program becomes one by calling \
              gracepoint::init()\n";
    assert_said(&scene.run(&["ps"]), 1, no);
    std::fs::remove_dir(scene.sockets()).unwrap();
    assert_said(&scene.run(&["ps", "--json"]), 1, no);
}

const LISTED: &str = "\
net:send  off  1 site
    Time passes.
    Always.
  n: u64     How often so far.
  text: str

t:alarm  off  1 span  src/clock.rs:40
    Time passes.
    Always.
  n: u64     How often so far.
  text: str

t:tick  on  2 sites  src/clock.rs:12
    Time passes.
    Always.
  n: u64     How often so far.
  text: str
";

fn list_shows_events() {
    let scene = Scene::new();
    let fake = scene.fake("good");
    let pid = fake.pid().to_string();
    let said = scene.run(&["list", "-p", &pid]);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (0, LISTED, ""));
    let said = scene.run(&["list", "--name", "k?", "t:a*"]);
    assert_eq!(said.status, 0);
    assert!(said.out.starts_with("t:alarm ") && !said.out.contains("t:tick"), "{}", said.out);
    let said = scene.run(&["list", "-p", &pid, "--json", "t:tick"]);
    let event: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(event["fields"][1]["type"], "str");
    assert_eq!(event["on"], 1);
}

fn list_suggests() {
    let scene = Scene::new();
    let fake = scene.fake("good");
    let pid = fake.pid().to_string();
    let err = "gracepoint: no event of kv matches `t:tock`: did you mean t:tick?\n";
    assert_said(&scene.run(&["list", "-p", &pid, "t:tock"]), 1, err);
    let err = "gracepoint: no event of kv matches `zzzzzzzzzzzz`: it has 3 events\n";
    assert_said(&scene.run(&["list", "-p", &pid, "zzzzzzzzzzzz"]), 1, err);
    let scene = Scene::new();
    let _fake = scene.fake("eventless");
    let err = "gracepoint: kv has no events: declare some with #[derive(gracepoint::Event)] and \
               trace!\n";
    assert_said(&scene.run(&["list", "--name", "kv"]), 1, err);
}

fn names_are_escaped() {
    let scene = Scene::new();
    let fake = scene.fake("evil");
    let pid = fake.pid().to_string();
    let said = scene.run(&["list", "-p", &pid]);
    assert!(said.out.contains("t:\\u{1b}[31mtick\\n  on"), "{}", said.out);
    assert!(!said.out.contains('\x1b') && !said.out.contains('\x07'));
    let said = scene.run(&["list", "-p", &pid, "t:tic"]);
    assert!(!said.err.contains('\x1b'), "{}", said.err);
    let colored = scene.run(&["--color", "always", "list", "-p", &pid, "net:*"]);
    assert!(colored.out.starts_with("\x1b[1mnet:send\x1b[0m"), "{:?}", colored.out);
}

fn dripping_hello_is_put_together() {
    let scene = Scene::new();
    let fake = scene.fake("drip");
    assert_eq!(scene.run(&["list", "-p", &fake.pid().to_string()]).status, 0);
}

fn long_paths_are_reached() {
    let mut scene = Scene::new();
    let short = scene.dir.clone();
    scene.dir = short.join("d".repeat(100));
    std::fs::create_dir_all(scene.sockets()).unwrap();
    let fake = scene.fake("good");
    assert_eq!(scene.run(&["list", "-p", &fake.pid().to_string()]).status, 0);
    drop(fake);
    scene.dir = short;
}

fn errors_say_what_to_do() {
    let scene = Scene::new();
    let fake = scene.fake("good");
    let pid = fake.pid().to_string();
    let me = std::process::id().to_string();
    let err = "gracepoint: no process 4194303: `gracepoint ps` shows the traceable programs\n";
    assert_said(&scene.run(&["list", "-p", "4194303"]), 2, err);
    let err = format!(
        "gracepoint: process {me} is not traceable: call gracepoint::init() in it, and see that \
         GRACEPOINT=off is not set\n"
    );
    assert_said(&scene.run(&["record", "-p", &me]), 2, &err);
    let err = "gracepoint: no traceable program is named `kw`: did you mean `kv`?\n";
    assert_said(&scene.run(&["list", "--name", "kw"]), 2, err);
    let err = "gracepoint: no event of kv matches `t:tikc`: did you mean t:tick?\n";
    assert_said(&scene.run(&["record", "-p", &pid, "-e", "t:tikc"]), 2, err);
    let second = scene.fake("good");
    let mut pids = [fake.pid(), second.pid()];
    let said = scene.run(&["list", "--name", "kv"]);
    pids.sort_unstable();
    let any_order = [pids, [pids[1], pids[0]]].map(|[a, b]| {
        format!("gracepoint: 2 programs are named `kv` (pids {a}, {b}): choose one with -p\n")
    });
    assert!(said.status == 2 && any_order.contains(&said.err), "{said:?}");
    assert!(!scene.dir.join("gracepoint.trace").exists(), "nothing is left behind");
}

fn refusals() {
    let refused = |mode: &str, wants: &str| {
        let scene = Scene::new();
        let fake = scene.fake(mode);
        let pid = fake.pid().to_string();
        let said = scene.run(&["record", "-p", &pid]);
        assert_said(&said, 2, &wants.replace("PID", &pid));
        assert!(!scene.dir.join("gracepoint.trace").exists(), "nothing is left behind");
    };
    refused(
        "busy",
        "gracepoint: the program refuses: process 7 is recording already: wait for \
         it\\u{1b}[2J\n",
    );
    refused(
        "drop",
        "gracepoint: connection lost: the program has ended or closed it; `gracepoint ps` shows \
         what runs\n",
    );
    refused(
        "liar",
        "gracepoint: the program's buffer cannot be used (arena header contradicts itself): try \
         again\n",
    );
    refused(
        "half",
        "gracepoint: process PID does not answer: it may be stopped (`kill -CONT PID` lets it go \
         on), or have no file descriptor left\n",
    );
    refused(
        "future",
        &format!(
            "gracepoint: process PID speaks version 9.{MINOR} of the protocol and this is 1.{MINOR}: use the \
             gracepoint command of its version\n"
        ),
    );
    refused(
        "rubbish",
        "gracepoint: process PID answers something else than gracepoint's protocol (message of \
         1347703880 bytes; the limit is 67108864)\n",
    );
    refused(
        "fdless",
        "gracepoint: the program answers something else than it was asked: is its gracepoint \
         newer than this?\n",
    );
}

/// Every event that was recorded is in the trace, per slot and in order.
fn assert_whole(scene: &Scene, fired: &[u64]) {
    let streams = read(&scene.trace());
    for (slot, fired) in fired.iter().enumerate() {
        let ticks = streams.ticks.get(&(slot as u64)).map_or(&[][..], Vec::as_slice);
        let want: Vec<u64> = (0..*fired).collect();
        assert!(ticks == want, "slot {slot}: {} of {fired}", ticks.len());
    }
}

/// `report` and `info` see what is there.
fn assert_reported(scene: &Scene, recorded: u64) {
    let report = scene.run(&["report", "--json", "t.trace"]);
    assert_eq!((report.status, report.err.as_str()), (0, ""));
    assert_eq!(report.out.lines().count() as u64, recorded);
    let first: serde_json::Value =
        serde_json::from_str(report.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["name"], "t:tick", "{first}");
    let info = scene.run(&["info", "--json", "t.trace"]);
    let info: serde_json::Value = serde_json::from_str(&info.out).unwrap();
    assert_eq!(info["events"], recorded);
    assert_eq!(info["contradictions"].as_array().unwrap().len(), 0, "{info}");
}

fn sidecar(scene: &Scene) -> serde_json::Value {
    let text = std::fs::read(scene.trace().join(".gracepoint.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn duration_ends() {
    let scene = Scene::new();
    let mut fake = scene.fake("good");
    let pid = fake.pid().to_string();
    let trace = scene.trace();
    let said = scene.run(&["record", "-p", &pid, "-o", trace.to_str().unwrap(), "-d", "1500ms"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let (fired, recorded) = numbers(&fake.expect("fired "));
    assert_eq!(fired.iter().sum::<u64>(), recorded, "an arena of 64 pages loses nothing");
    assert!(recorded > 0);
    assert_whole(&scene, &fired);
    let sidecar = sidecar(&scene);
    assert_eq!(sidecar["ended"], "duration");
    assert_eq!(sidecar["complete"], true);
    assert_eq!(sidecar["program"]["name"], "kv");
    assert!(sidecar["clock"]["triples"].as_array().unwrap().len() >= 3);
    assert_reported(&scene, recorded);
}

fn ctrl_c_ends() {
    let scene = Scene::new();
    let mut fake = scene.fake("good");
    let recorder = scene.recorder(fake.pid(), &["--json"]);
    std::thread::sleep(Duration::from_millis(50));
    recorder.signal(Signal::INT);
    let said = recorder.end();
    assert_eq!(said.status, 0, "{}", said.err);
    let (fired, _) = numbers(&fake.expect("fired "));
    assert_whole(&scene, &fired);
    let summary: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(summary["ended"], "interrupted");
    assert_eq!(summary["lost"], 0);
}

fn killed_program_loses_nothing_committed() {
    let scene = Scene::new();
    let mut fake = scene.fake("die");
    let recorder = scene.recorder(fake.pid(), &[]);
    let (fired, _) = numbers(&fake.expect("wrote "));
    fake.signal(Signal::KILL);
    let said = recorder.end();
    assert_eq!(said.status, 0, "{}", said.err);
    assert_whole(&scene, &fired);
    assert_eq!(sidecar(&scene)["ended"], "program-exit");
}

fn program_exit_ends() {
    let scene = Scene::new();
    let fake = scene.fake("exit");
    let pid = fake.pid().to_string();
    // It exits instead of confirming the start; what it wrote before is there.
    let said = scene.run(&["record", "-p", &pid, "-o", "t.trace"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert_whole(&scene, &[100; SLOTS]);
    assert_eq!(sidecar(&scene)["ended"], "program-exit");
}

fn losses_add_up() {
    let scene = Scene::new();
    let mut fake = scene.fake("tight");
    let recorder = scene.recorder(fake.pid(), &["--duration", "200ms"]);
    let said = recorder.end();
    assert_eq!(said.status, 0, "{}", said.err);
    let (fired, recorded) = numbers(&fake.expect("fired "));
    let fired: u64 = fired.iter().sum();
    assert!(fired > recorded, "4 pages are not enough");
    let streams = read(&scene.trace());
    assert_eq!(streams.events(), recorded);
    assert_eq!(streams.lost[&16], fired - recorded);
    assert_eq!(streams.discarded.values().sum::<u64>(), fired - recorded);
    assert_eq!(sidecar(&scene)["lost"]["16"], fired - recorded);
}

fn holdouts_are_named() {
    let scene = Scene::new();
    let fake = scene.fake("holdout");
    let said = scene.recorder(fake.pid(), &["--duration", "20ms"]).end();
    assert_eq!(said.status, 0);
    let note = "gracepoint: thread 101 (writer); what it may be writing is not in the trace";
    assert!(said.err.contains(note), "{}", said.err);
    assert_eq!(sidecar(&scene)["holdouts"][0], "thread 101 (writer)");
}

fn garbage_in_a_page_is_left_out() {
    let scene = Scene::new();
    let fake = scene.fake("scribble");
    let said = scene.recorder(fake.pid(), &["--duration", "20ms"]).end();
    assert_eq!(said.status, 0);
    // Only what follows the gap in its stream may be missing; the streams are whole packets.
    let streams = read_lenient(&scene);
    assert!(streams > 0, "the other streams are there");
}

/// Packets of all streams, which must parse.
fn read_lenient(scene: &Scene) -> usize {
    let mut packets = 0;
    for slot in 0..SLOTS {
        let Ok(bytes) = std::fs::read(scene.trace().join(format!("stream_{slot}"))) else {
            continue;
        };
        let mut at = 0;
        while at < bytes.len() {
            let header = gracepoint_wire::packet::PacketHeader::parse(&bytes[at..]).unwrap();
            at += header.packet_bytes() as usize;
            packets += 1;
        }
    }
    packets
}

fn existing_directories_are_kept() {
    let scene = Scene::new();
    let fake = scene.fake("good");
    let pid = fake.pid().to_string();
    let record = |more: &[&str]| {
        let base = ["record", "-p", &pid, "-o", "t.trace", "-d", "10ms"];
        scene.run(&[&base[..], more].concat())
    };
    assert_eq!(record(&[]).status, 0);
    let err = "gracepoint: t.trace exists: choose another directory with -o, or replace the trace \
               with --force\n";
    assert_said(&record(&[]), 2, err);
    assert_eq!(record(&["--force"]).status, 0);
    std::fs::write(scene.trace().join("precious"), "x").unwrap();
    let err = "gracepoint: t.trace exists and is no trace: choose another directory with -o\n";
    assert_said(&record(&["--force"]), 2, err);
    assert!(scene.trace().join("precious").exists());
}

fn full_disk_keeps_what_is_there() {
    let scene = Scene::new();
    let mut fake = scene.fake("good");
    let pid = fake.pid().to_string();
    // Files of at most 32 KiB, through the shell's limit (in units of 512 bytes).
    let mut command = scene.command("sh");
    command.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gracepoint")]);
    command.args(["record", "-o", "t.trace", "-p", &pid]);
    let said = crate::scene::Running::start(command).end();
    assert_eq!(said.status, 2, "{}", said.err);
    let (fired, _) = numbers(&fake.expect("fired "));
    assert!(said.err.contains("the trace is not whole: ") && said.err.contains("; kept "));
    let streams = read(&scene.trace());
    for (slot, ticks) in &streams.ticks {
        let want: Vec<u64> = (0..ticks.len() as u64).collect();
        assert!(*ticks == want && ticks.len() as u64 <= fired[*slot as usize]);
    }
    assert!(streams.events() > 100);
    assert_eq!(sidecar(&scene)["complete"], false);
}

fn removed_directory_is_noticed() {
    let scene = Scene::new();
    let fake = scene.fake("good");
    let recorder = scene.recorder(fake.pid(), &[]);
    std::fs::remove_dir_all(scene.trace()).unwrap();
    let said = recorder.end();
    assert_eq!(said.status, 2);
    let told = ["the trace is not whole: ", "; record elsewhere with -o", "; kept nothing"];
    assert!(told.iter().all(|told| said.err.contains(told)), "{}", said.err);
}

fn command_is_recorded() {
    let scene = Scene::new();
    let me = std::env::current_exe().unwrap();
    let mut command = scene.gracepoint(&["record", "-o", "t.trace", "-d", "100ms", "--"]);
    command.args([me.as_os_str()]).args(["--program", "fake", "good", "kv"]);
    let mut recorder = crate::scene::Running::start(command);
    let line = recorder.expect("fired ");
    recorder.expect_error("gracepoint: recording ");
    // Ctrl-C goes to us alone here; SIGTERM is handed on to the command.
    recorder.signal(Signal::TERM);
    let said = recorder.end();
    assert_eq!(said.status, 128 + 15, "{}", said.err);
    assert_whole(&scene, &numbers(&line).0);
}

fn babeltrace_counts_the_same() {
    let scene = Scene::new();
    let mut fake = scene.fake("good");
    let said = scene.recorder(fake.pid(), &["--duration", "300ms"]).end();
    assert_eq!(said.status, 0, "{}", said.err);
    let (fired, _) = numbers(&fake.expect("fired "));
    let babel = babeltrace(&scene.trace());
    assert_eq!(babel.warnings, "");
    assert_eq!(babel.lines.len() as u64, fired.iter().sum::<u64>());
    assert!(babel.lines.iter().all(|l| l.contains(" t:tick: ") && l.contains("text = \"hello\"")));
}

fn babeltrace_sees_the_losses() {
    for mode in ["tight", "late", "starved"] {
        let scene = Scene::new();
        let mut fake = scene.fake(mode);
        let said = scene.recorder(fake.pid(), &["--duration", "200ms"]).end();
        assert_eq!(said.status, 0, "{}", said.err);
        let (fired, recorded) = numbers(&fake.expect("fired "));
        let babel = babeltrace(&scene.trace());
        let ticks = babel.lines.iter().filter(|l| l.contains(" t:tick: ")).count() as u64;
        assert_eq!(ticks, recorded);
        let lost = fired.iter().sum::<u64>() - recorded;
        assert_eq!(babel.discarded(), lost, "{mode}: {}", babel.warnings);
        let losses = babel.lines.iter().filter(|l| l.contains(" gp:loss: ")).count();
        assert_eq!(losses, 1);
    }
}

/// What had happened when pages were asked for is shown before they are asked for again: an event waits for
/// one look and no longer. How far apart looks are is a constant of `stream`, which its bound is derived from.
fn stream_shows_before_it_asks_again() {
    let scene = Scene::new();
    let mut fake = scene.fake("slow");
    let pid = fake.pid().to_string();
    let mut command = scene.command("sh");
    let gracepoint = env!("CARGO_BIN_EXE_gracepoint");
    command.args(["-c", "exec \"$0\" \"$@\" > shown", gracepoint, "stream", "--json", "-p", &pid]);
    let _stream = Running::start(command);
    for asked in 1..=20 {
        fake.expect(&format!("flush {asked}"));
        let shown = std::fs::read_to_string(scene.dir.join("shown")).unwrap();
        assert!(shown.lines().count() >= asked - 1, "{shown}");
        go(&mut fake);
    }
}

/// It is over at once: nobody is asked to stop a session that is gone, and waited for.
fn stream_asks_nothing_of_what_was_ended() {
    let scene = Scene::new();
    let mut fake = scene.fake("reset");
    let said = scene.run(&["stream", "-p", &fake.pid().to_string()]);
    assert_said(&said, 0, "gracepoint: the stream was ended by pid 7 (uid 0): gracepoint reset\n");
    assert_eq!(fake.expect(""), "closed");
}
