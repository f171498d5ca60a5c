//! What is counted is what is there: `info`, histograms, spans.

use crate::recording::{Recording, START_NS, busy};
use gracepoint_analysis::hist::{Options, Scalar, hist};
use gracepoint_analysis::info::info;
use gracepoint_analysis::{Trace, sidecar};
use gracepoint_wire::schema::Role;
use std::fs;

#[test]
fn info_counts_what_is_there() {
    let recording = busy(200);
    let dir = recording.write();
    let mut exact = recording.sidecar();
    exact.lost.insert(16, 3 * 20 * 2);
    sidecar::write(dir.path(), &exact).unwrap();
    let info = info(&Trace::open(dir.path()).unwrap()).unwrap();
    assert_eq!((info.events, info.lost, info.streams), (3 * (3 * 200 + 20), 120, 3));
    assert!(info.packets > 6 && info.complete && info.ended == "duration");
    assert_eq!(info.begin_ns, Some(START_NS));
    assert_eq!(info.program.name, "kv");
    assert_eq!(info.clock.freq_hz, 1_000_000_000);
    let get = &info.per_event[0];
    assert_eq!((get.name.as_str(), get.events, get.lost), ("kv:get", 600, 120));
    assert_eq!(info.per_event.last().unwrap().name, "far:away");
    assert_eq!(info.threads.len(), 3);
    assert_eq!(info.threads[1].events, 620);
    assert_eq!((info.damage.as_slice(), info.contradictions.as_slice()), (&[][..], &[][..]));
    assert_eq!(info.bytes, fs::read_dir(dir.path()).unwrap().map(|e| size(&e)).sum::<u64>());
    let json: serde_json::Value = serde_json::from_str(&info.to_json()).unwrap();
    assert_eq!(json["per_event"][0]["lost"], 120);
    let text = info.to_text();
    assert!(text.contains("program   kv, pid 77, /bin/kv --fast\n"), "{text}");
    assert!(text.contains("events    1,860\n"), "{text}");
}

fn size(entry: &std::io::Result<fs::DirEntry>) -> u64 {
    entry.as_ref().unwrap().metadata().unwrap().len()
}

#[test]
fn totals_that_differ_are_said() {
    let recording = busy(200);
    let dir = recording.write();
    let mut lie = recording.sidecar();
    lie.lost.insert(16, 121);
    sidecar::write(dir.path(), &lie).unwrap();
    let info = info(&Trace::open(dir.path()).unwrap()).unwrap();
    assert_eq!(info.lost, 120);
    assert!(info.contradictions[0].contains("counted 121 lost"), "{:?}", info.contradictions);
    assert!(info.to_text().contains("warning: kv:get"));
}

#[test]
fn an_empty_trace_has_no_times() {
    let dir = Recording::new(&[]).write_bare();
    let info = info(&Trace::open(dir.path()).unwrap()).unwrap();
    assert_eq!((info.events, info.begin_ns, info.complete), (0, None, false));
    assert_eq!(info.program.name, "k\"v");
    assert!(info.to_text().contains("recorded  nothing"));
}

fn options(event: &str, field: &str, by: Option<&str>) -> Options {
    Options { event: event.into(), field: field.into(), by: by.map(Into::into) }
}

#[test]
fn a_histogram_of_a_field_and_of_spans() {
    let dir = busy(200).write();
    let trace = Trace::open(dir.path()).unwrap();
    let latency = hist(&trace, &options("kv:get", "latency", Some("hit"))).unwrap();
    assert_eq!((latency.unit, latency.groups.len()), ("ns", 2));
    let hits = latency.groups.iter().find(|g| g.key.as_deref() == Some("true")).unwrap();
    assert_eq!(hits.counts.count(), 300);
    assert_eq!(hits.counts.max(), Some(Scalar::Whole(1990)));

    let spans = hist(&trace, &options("db:query", "duration", Some("table"))).unwrap();
    let [group] = &spans.groups[..] else { panic!("{} groups", spans.groups.len()) };
    assert_eq!(group.key.as_deref(), Some("\"users\""));
    assert_eq!((group.counts.count(), spans.unpaired), (600, 0));
    assert_eq!(group.counts.min(), Some(Scalar::Whole(0)));
    assert_eq!(group.counts.max(), Some(Scalar::Whole(495)));
    let text = spans.to_text(80);
    assert!(
        text.starts_with("db:query duration, table = \"users\"\n  count 600  min 0ns"),
        "{text}"
    );
    assert!(text.contains("   64ns .. 128ns   78  |###"), "{text}");
    assert!(text.contains("      1ns .. 2ns    0  |\n"), "{text}");
    assert!(text.lines().all(|l| l.len() <= 80), "{text}");
    let json: serde_json::Value = serde_json::from_str(&spans.to_json()).unwrap();
    assert_eq!(json["groups"][0]["max"], 495);
}

#[test]
fn spans_cut_in_two_are_not_counted() {
    let mut recording = Recording::new(&[(Role::Begin, "a:b", &[]), (Role::End, "a:b", &[])]);
    let mut packet = recording.packet(0, 1, "main", 0);
    let span = |n: u64| n.to_le_bytes();
    packet.event(17, 1, &span(1));
    packet.event(16, 2, &[span(2), span(0)].concat());
    packet.event(16, 3, &[span(3), span(2)].concat());
    packet.event(17, 9, &span(3));
    recording.close(packet);
    let dir = recording.write();
    let trace = Trace::open(dir.path()).unwrap();
    let spans = hist(&trace, &options("a:b", "duration", None)).unwrap();
    assert_eq!((spans.groups[0].counts.max(), spans.unpaired), (Some(Scalar::Whole(6)), 2));
}

#[test]
fn what_cannot_be_drawn_says_why() {
    let dir = busy(1).write();
    let trace = Trace::open(dir.path()).unwrap();
    for (event, field, by, want) in [
        ("kv:gte", "latency", None, "did you mean kv:get?"),
        ("kv:zebra-crossing*", "latency", None, "did you mean kv:get?"),
        ("kv:get", "latancy", None, "did you mean latency?"),
        ("kv:get", "key", None, "needs numbers"),
        ("kv:get", "latency", Some("who"), "no field `who`"),
        ("kv:get", "duration", None, "no field `duration`"),
    ] {
        let error = hist(&trace, &options(event, field, by)).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
