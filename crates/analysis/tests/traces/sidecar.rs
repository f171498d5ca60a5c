//! The sidecar: what is written comes back, newer versions are refused, damage is survived.

use crate::recording::{Dir, busy};
use gracepoint_analysis::{Trace, sidecar};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn it_comes_back_whole() {
    let recording = busy(1);
    let dir = Dir::new();
    assert_eq!(sidecar::read(dir.path()).unwrap(), None);
    let mut wrote = recording.sidecar();
    wrote.lost.insert(16, u64::MAX);
    wrote.holdouts.push("thread 4 (x)".into());
    sidecar::write(dir.path(), &wrote).unwrap();
    sidecar::write(dir.path(), &wrote).unwrap();
    assert_eq!(sidecar::read(dir.path()).unwrap(), Some(wrote.clone()));
    assert_eq!(wrote.declared().unwrap(), recording.events);
    assert_eq!(wrote.clock(), Some(recording.clock.clone()));
    let mode = fs::metadata(dir.join(".gracepoint.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn its_spelling_is_frozen() {
    let dir = Dir::new();
    let mut wrote = busy(1).sidecar();
    wrote.events.truncate(2);
    wrote.lost.insert(16, 3);
    sidecar::write(dir.path(), &wrote).unwrap();
    let text = fs::read_to_string(dir.join(".gracepoint.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["gracepoint"], 1);
    assert_eq!(json["complete"], true);
    assert_eq!(json["program"]["args"][0], "--fast");
    assert_eq!(json["clock"]["source"], "monotonic");
    assert_eq!(json["clock"]["boot_id"], "07".repeat(16));
    assert_eq!(json["clock"]["triples"][0][0], 5_000_000_000u64);
    assert_eq!(json["events"][1]["role"], "event");
    assert_eq!(json["events"][1]["fields"][2]["type"], "ns");
    assert_eq!(json["events"][1]["hash"].as_str().unwrap().len(), 16);
    assert_eq!(json["lost"]["16"], 3);
}

#[test]
fn a_newer_one_is_refused_and_a_broken_one_ignored() {
    let dir = busy(3).write();
    let path = dir.join(".gracepoint.json");
    fs::write(&path, "{\"gracepoint\": 2, \"events\": 7}").unwrap();
    let error = Trace::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("newer version") && error.contains("use a newer gracepoint"), "{error}");
    for broken in ["", "{", "null", "{\"gracepoint\": 1, \"events\": 7}"] {
        fs::write(&path, broken).unwrap();
        assert!(sidecar::read(dir.path()).is_err());
        let trace = Trace::open(dir.path()).unwrap();
        assert!(trace.sidecar().is_none());
        assert!(trace.damage()[0].what.contains("read without it"), "{:?}", trace.damage());
    }
    fs::write(&path, "{\"gracepoint\": 1, \"novelty\": [1, {}]}").unwrap();
    let trace = Trace::open(dir.path()).unwrap();
    assert!(trace.sidecar().is_some() && trace.damage().is_empty());
    fs::remove_file(&path).unwrap();
    assert!(Trace::open(dir.path()).unwrap().damage().is_empty());
}
