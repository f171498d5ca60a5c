//! What is left when events are chosen: by name, thread, time, the last so many; and that what lies
//! outside is not read.

use crate::recording::{Dir, Recording, START, START_NS, busy};
use gracepoint_analysis::Trace;
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::info::info_of;
use gracepoint_analysis::report::{Format, Options, report};
use gracepoint_analysis::when::When;
use gracepoint_wire::schema::Role;
use std::fs;

fn lines(dir: &Dir, filter: &Filter) -> Vec<String> {
    let trace = Trace::open(dir.path()).unwrap();
    let mut out = Vec::new();
    let options =
        Options { filter: filter.clone(), format: Format::JsonLines, ..Options::default() };
    let reported = report(&trace, &options, &mut out).unwrap();
    assert_eq!(reported.damage, []);
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

fn time_of(line: &str) -> u64 {
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    json["ts_ns"].as_u64().unwrap()
}

/// Every filter that the others are compared with: all lines, chosen by hand.
fn by_hand(all: &[String], filter: &Filter, from: u64, to: u64) -> Vec<String> {
    let named = |line: &str| {
        filter.events.is_empty()
            || filter.events.iter().any(|e| line.contains(&format!("\"name\":\"{e}")))
    };
    let threaded = |line: &str| {
        filter.threads.is_empty()
            || filter.threads.iter().any(|t| line.contains(&format!("\"thread\":\"{t}\"")))
    };
    let mut lines: Vec<String> = all
        .iter()
        .filter(|l| named(l) && threaded(l) && (from..to).contains(&time_of(l)))
        .cloned()
        .collect();
    let cut = filter.last.map_or(0, |n| lines.len().saturating_sub(n as usize));
    lines.split_off(cut)
}

#[test]
fn every_combination_leaves_what_it_says() {
    let dir = busy(200).write();
    let all = lines(&dir, &Filter::default());
    let (middle, end) = (START_NS + 60_000, time_of(all.last().unwrap()) + 1);
    for events in [&[][..], &["kv:get"], &["db:query:end", "far:away"]] {
        for threads in [&[][..], &["t1"], &["t0", "t2"]] {
            for (since, until) in
                [(0, u64::MAX), (middle, end), (middle, middle + 70_001), (end, end)]
            {
                for last in [None, Some(0), Some(1), Some(7), Some(300), Some(1 << 40)] {
                    let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
                    let (events, threads) = (owned(events), owned(threads));
                    let since_until = (Some(When::Real(since)), Some(When::Real(until)));
                    let (since_w, until_w) = if since == 0 { (None, None) } else { since_until };
                    let filter = Filter { events, threads, since: since_w, until: until_w, last };
                    let want = by_hand(&all, &filter, since, until);
                    assert_eq!(lines(&dir, &filter), want, "{filter:?}");
                    let info = info_of(&Trace::open(dir.path()).unwrap(), &filter).unwrap();
                    let own = want.iter().filter(|l| l.contains("\"name\":\"gp:")).count();
                    assert_eq!(info.events, (want.len() - own) as u64, "{filter:?}");
                    let told = info.contradictions.len();
                    assert_eq!(told, usize::from(filter.is_empty()), "{filter:?}");
                }
            }
        }
    }
}

#[test]
fn moments_are_relative_to_the_trace() {
    let dir = busy(200).write();
    let all = lines(&dir, &Filter::default());
    let end = time_of(all.last().unwrap());
    for (since, until, from, to) in [
        ("+50us", "+60us", START_NS + 50_000, START_NS + 60_000),
        ("-3us", "2100-01-01", end - 3000, u64::MAX),
        ("03:04:05.00005", "03:04:05.00006", START_NS + 50_000, START_NS + 60_000),
        ("2026-01-02T03:04:05.00005", "@1767323045.00006", START_NS + 50_000, START_NS + 60_000),
        ("1970-01-01", "2026-01-02", 0, 0),
    ] {
        let (since, until) = (Some(since.parse().unwrap()), Some(until.parse().unwrap()));
        let filter = Filter { since, until, ..Filter::default() };
        let want = by_hand(&all, &Filter::default(), from, to);
        assert_eq!(lines(&dir, &filter), want, "{filter:?}");
        assert_eq!(want.is_empty(), to == 0, "the case has a point");
    }
}

#[test]
fn a_thread_is_a_number_or_a_pattern() {
    let dir = busy(20).write();
    let count = |thread: &str| {
        lines(&dir, &Filter { threads: vec![thread.into()], ..Filter::default() }).len()
    };
    assert_eq!((count("101"), count("t?"), count("t1"), count("nobody")), (64, 192, 64, 0));
}

#[test]
fn losses_of_what_is_chosen_are_counted() {
    let dir = busy(200).write();
    let trace = Trace::open(dir.path()).unwrap();
    let lost = |events: &[&str], last| {
        let events = events.iter().map(|e| e.to_string()).collect();
        info_of(&trace, &Filter { events, last, ..Filter::default() }).unwrap().lost
    };
    assert_eq!((lost(&["kv:get"], None), lost(&["db:*"], None)), (120, 0));
    let some = lost(&["kv:get"], Some(100));
    assert!(some > 0 && some < 120, "{some} lost among the last hundred");
}

#[test]
fn packets_outside_are_stepped_over() {
    let mut recording = Recording::new(&[(Role::Event, "a:b", &[("n", "u32")])]);
    for round in 0..10u64 {
        let thread = if round % 2 == 0 { "even" } else { "odd" };
        let mut packet = recording.packet(0, 1, thread, round * 1000);
        packet.event(16, round * 1000 + 5, &[1, 0, 0, 0]);
        // Damage in all but packet 6, which is met only where the packet is read.
        packet.event(if round == 6 { 16 } else { 99 }, round * 1000 + 6, &[2, 0, 0, 0]);
        recording.close(packet);
    }
    let dir = recording.write();
    let at = |after: u64| Some(When::Real(START_NS + after));
    for filter in [
        Filter { since: at(5500), until: at(6900), ..Filter::default() },
        Filter {
            threads: vec!["even".into()],
            since: at(5000),
            until: at(7500),
            ..Filter::default()
        },
    ] {
        assert_eq!(lines(&dir, &filter).len(), 2, "{filter:?}");
        let info = info_of(&Trace::open(dir.path()).unwrap(), &filter).unwrap();
        assert_eq!((info.events, info.packets, info.damage.len()), (2, 1, 0));
    }
    // The last one is found without the first ones.
    let trace = Trace::open(dir.path()).unwrap();
    let choice = trace.choose(&Filter { last: Some(1), ..Filter::default() }).unwrap();
    let mut reader = trace.reader_of(&choice);
    assert_eq!(reader.next_event().map(|e| e.ticks), Some(START + 9005));
    assert!(reader.next_event().is_none());
    assert_eq!(reader.damage().len(), 1, "{:?}", reader.damage());
}

#[test]
fn packets_that_are_open_or_lie_about_their_end_are_read() {
    let mut recording = Recording::new(&[(Role::Event, "a:b", &[("n", "u32")])]);
    let mut packet = recording.packet(0, 1, "main", 0);
    for after in [5, 5000] {
        packet.event(16, after, &[0; 4]);
    }
    recording.leave_open(packet);
    let dir = recording.write();
    let filter = Filter { since: Some(When::Real(START_NS + 4000)), ..Filter::default() };
    assert_eq!(lines(&dir, &filter).len(), 1);
    let path = dir.join("stream_0");
    let mut bytes = fs::read(&path).unwrap();
    bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let filter = Filter { last: Some(1), ..Filter::default() };
    assert_eq!(lines(&dir, &filter).len(), 1);
}
