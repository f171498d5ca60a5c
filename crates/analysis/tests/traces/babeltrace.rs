//! babeltrace2 reads what we write, and sees the same.

use crate::recording::{Dir, Recording, START_NS, busy, every_type};
use gracepoint_analysis::Trace;
use gracepoint_wire::schema::Role;
use std::io::Write;
use std::process::Command;

/// What babeltrace2 prints; `None` where it is not installed.
fn babeltrace(dir: &Dir) -> Option<String> {
    let run = Command::new("babeltrace2")
        .args(["--clock-seconds", "--fields=trace"])
        .arg(dir.path())
        .output();
    let Ok(run) = run else {
        // Not by `eprintln!`, which the test harness hides when a test passes.
        let words = "skipped, needs babeltrace2 (Debian: apt-get install babeltrace2)";
        let _ = writeln!(std::io::stderr(), "{words}");
        return None;
    };
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "babeltrace2 refuses the trace: {said}");
    Some(String::from_utf8_lossy(&run.stdout).into_owned())
}

#[test]
fn babeltrace_counts_and_times_the_same() {
    let dir = busy(200).write();
    let Some(theirs) = babeltrace(&dir) else { return };
    let trace = Trace::open(dir.path()).unwrap();
    let mut reader = trace.reader();
    let mut lines = theirs.lines();
    while let Some(event) = reader.next_event() {
        let line = lines.next().expect("babeltrace2 prints as many events");
        let time = format!("[{}.{:09}]", event.ns / 1_000_000_000, event.ns % 1_000_000_000);
        assert!(line.starts_with(&time), "{time} {}: {line}", event.name());
        assert!(line.contains(event.name()), "{time} {}: {line}", event.name());
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn babeltrace_sees_every_type() {
    let dir = every_type().write();
    let Some(line) = babeltrace(&dir) else { return };
    assert!(line.starts_with(&format!("[{}.000000010]", START_NS / 1_000_000_000)), "{line}");
    for want in [
        "a_u8 = 200",
        "a_u64 = 18446744073709551615",
        "a_u128 = { low = 18446744073709551615, high = 18446744073709551615 }",
        "a_i128 = { low = 18446744073709551615, high = -1 }",
        "a_i64 = -9223372036854775808",
        "yes = ( \"true\" : container = 1 )",
        "letter = \"ß\"",
        "latency = 1200",
        "list = [ [0] = 1, [1] = 2 ]",
        "array = [ [0] = 1, [1] = -1 ]",
        "nothing = { { } }",
        "something = { 7 }",
        "some_str = { \"hi\" }",
        "state = ( \"Busy\" : container = 7 )",
        "strange = ( <unknown> : container = 9 )",
        "unnamed = 3",
    ] {
        assert!(line.contains(want), "no {want:?} in {line}");
    }
}

#[test]
fn babeltrace_takes_odd_names() {
    for (event, field, ty) in [
        ("odd:\"quoted\\\\ \u{1b}[2J", "plain", "u8"),
        ("odd:größe", "x", "u8"),
        ("odd:enum", "x", "enum1{größe=0}"),
        ("odd:none", "struct", "?u8"),
        ("odd:self", "self", "[u8]"),
        ("odd:under", "_x", "[u8]"),
        ("odd:field", "größe", "u8"),
    ] {
        let mut recording = Recording::new(&[
            (Role::Event, event, &[(field, ty)]),
            (Role::Event, "odd:empty", &[]),
        ]);
        let mut packet = recording.packet(0, 1, "main", 0);
        packet.event(16, 1, &[0; 6][..if ty == "[u8]" { 6 } else { 1 }]);
        packet.event(17, 2, &[]);
        recording.close(packet);
        let dir = recording.write();
        let Some(text) = babeltrace(&dir) else { return };
        assert_eq!(text.lines().count(), 2, "{event}: {text}");
        let trace = Trace::open(dir.path()).unwrap();
        let mut reader = trace.reader();
        let (mut count, name) = (0, trace.events()[1].name.clone());
        while reader.next_event().is_some() {
            count += 1;
        }
        assert_eq!((count, name.as_str(), reader.damage()), (2, event, &[][..]));
    }
}
