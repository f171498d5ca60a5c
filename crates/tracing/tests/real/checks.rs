//! The tests.

use crate::trace::{Folder, Recorded};
use libtest_mimic::{Failed, Trial};
use std::collections::BTreeMap;

pub(crate) fn all() -> Vec<Trial> {
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    vec![
        trial("a_server_under_load_is_recorded_from_outside", a_server),
        trial("another_layer_counts_the_same", another_layer),
        trial("two_threads_that_hit_first_lose_nothing", first_hits),
        trial("values_keep_their_types_and_tasks_are_polls", tasks),
        trial("records_of_log_have_their_place_and_level", logs),
        trial("log_is_off_but_for_recordings_which_lose_none", crate::following::recordings),
        trial("log_is_on_for_what_is_awaited", crate::following::awaiting),
        trial("log_is_learnt_again_when_somebody_lists", crate::following::listing),
        trial("levels_select", levels),
        trial("what_a_killed_program_declared_last_is_readable", killed),
        trial("tasks_that_are_not_polled_are_named_with_their_spans", crate::stuck::bridge),
        trial("the_layer_names_them_as_well", crate::stuck::layer),
        trial("who_is_not_asked_to_keep_track_says_so", crate::stuck::not_watched),
    ]
}

fn count(recorded: &[Recorded], name: &str) -> u64 {
    recorded.iter().filter(|event| event.name() == name).count() as u64
}

const REQUESTS: u64 = 40;

fn a_server() {
    let folder = Folder::new();
    let globs = ["-e", "hyper*", "-e", "h2::*", "-e", "tower_http::*", "-e", "axum*"];
    folder.record(&globs, &["server", &REQUESTS.to_string()]);
    let recorded = folder.report(&[]);
    let request = "tower_http::trace::make_span:request";
    for (role, least) in [("begin", 2 * REQUESTS), ("end", 2 * REQUESTS)] {
        assert_eq!(count(&recorded, &format!("{request}:{role}")), least, "{role}");
    }
    let enters = count(&recorded, &format!("{request}:enter"));
    assert_eq!(enters, count(&recorded, &format!("{request}:exit")));
    assert!(enters >= 2 * REQUESTS, "each request was polled");
    for target in ["hyper_util::client", "h2::codec", "h2::proto"] {
        let of = |event: &&Recorded| event.name().starts_with(target);
        assert!(recorded.iter().filter(of).count() as u64 >= REQUESTS, "{target}");
    }
    let begin = format!("{request}:begin");
    let versions = |version: &str| {
        let is = |event: &&Recorded| event.name() == begin && event.field("version") == version;
        recorded.iter().filter(is).count() as u64
    };
    assert_eq!((versions("HTTP/1.1"), versions("HTTP/2.0")), (REQUESTS, REQUESTS));
    let (trace, pictures) =
        (folder.path("trace"), [("perfetto", "p"), ("chrome", "c"), ("folded", "f")]);
    for (format, file) in pictures {
        let file = folder.path(file);
        let done = folder.gracepoint(&["export", &trace, "--to", format, "-o", &file, "--json"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let done: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert!(done["visits"].as_u64() >= Some(enters), "{format}: {done}");
        assert_eq!(done["without_begin"], 0, "{format}");
    }
    let folded = std::fs::read_to_string(folder.path("f")).expect("it was written");
    assert!(folded.contains("tower_http::trace::make_span:request"), "{folded}");
    let hist = folder.gracepoint(&["hist", &trace, "-e", request, "-f", "duration"]);
    assert!(hist.status.success(), "{}", String::from_utf8_lossy(&hist.stderr));
}

fn another_layer() {
    let folder = Folder::new();
    let printed = folder.record(&["-e", "*"], &["server-beside-fmt", &REQUESTS.to_string()]);
    let counted: BTreeMap<String, u64> =
        serde_json::from_str(printed.trim()).expect("the program prints what it counted");
    let mut recorded: BTreeMap<String, u64> = BTreeMap::new();
    for event in folder.report(&[]) {
        let (target, name) = event.name().rsplit_once(".rs:").map_or(("", ""), |(place, line)| {
            (place.rsplit_once(':').map_or("", |(target, _)| target), line)
        });
        // Moments of spans have a suffix.
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
            *recorded.entry(target.to_owned()).or_default() += 1;
        }
    }
    assert!(counted.values().sum::<u64>() > 10 * REQUESTS, "{counted:?}");
    assert_eq!(recorded, counted);
}

fn first_hits() {
    let folder = Folder::new();
    let (_, words) = folder.record_telling(&["-e", "first:*"], &["first-hits", "10"]);
    assert!(words.contains("nothing that it has hit so far matches"), "{words}");
    let recorded = folder.report(&[]);
    for site in 0..32 {
        assert_eq!(count(&recorded, &format!("first:{site}")), 20, "site {site}");
    }
}

fn tasks() {
    let folder = Folder::new();
    folder.record(&["-e", "tasks:*"], &["tasks"]);
    let recorded = folder.report(&[]);
    let one = |name: &str| {
        let mut of = recorded.iter().filter(|event| event.name() == name);
        let found = of.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(of.next().is_none(), "one {name}");
        found
    };
    let values = one("tasks:values");
    for (field, json) in [
        ("unsigned", "1"),
        ("signed", "-1"),
        ("float", "0.5"),
        ("truth", "true"),
        ("text", "\"a text\""),
        ("shown", "\"shown\""),
        ("debugged", "\"Some(\\\"x\\\")\""),
        ("nothing", "null"),
        ("message", "\"a message with 42\""),
    ] {
        assert_eq!(values.field(field).to_string(), json, "{field}");
    }
    assert_eq!(values.field("wide").as_f64(), Some(u128::MAX as f64), "as JSON's numbers are read");
    let (outer, inner) = (one("tasks:outer:begin"), one("tasks:inner:begin"));
    assert_eq!((outer.field("n"), outer.field("parent")), (&7.into(), &0.into()));
    assert_eq!(inner.field("parent"), outer.field("span"), "a contextual parent");
    assert_eq!(inner.field("span_"), "its own", "a field of its own beside the id");
    let polls = count(&recorded, "tasks:outer:enter");
    assert_eq!((polls >= 4, polls), (true, count(&recorded, "tasks:outer:exit")));
    let later = one("tasks:outer:record");
    assert_eq!((later.field("span"), later.field("later")), (outer.field("span"), &"now".into()));
    let follows = one("tasks:inner:follows");
    assert_eq!(follows.field("span"), inner.field("span"));
    assert_eq!(follows.field("follows"), outer.field("span"));
    one("tasks:outer:end");
    one("tasks:inner:end");
    let file = folder.path("chrome");
    let export = ["export", &folder.path("trace"), "--to", "chrome", "-o", &file];
    assert!(folder.gracepoint(&export).status.success());
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).expect("written")).expect("JSON");
    let phases = |phase: &str| {
        let events = json["traceEvents"].as_array().expect("events");
        events.iter().filter(|event| event["ph"] == phase).count() as u64
    };
    assert_eq!(phases("X"), polls + 1, "a slice for each poll, and one for the inner span");
    assert_eq!((phases("b"), phases("e")), (1, 1), "the task as a whole");
    assert_eq!((phases("s"), phases("f")), (1, 1), "an arrow from what it follows");
}

fn logs() {
    let folder = Folder::new();
    folder.record(&["-e", "old::style*", "-e", "real*", "--level", "warn"], &["logs"]);
    let recorded = folder.report(&[]);
    let text = |event: &Recorded| event.field("message").as_str().unwrap_or_default().to_owned();
    let texts: Vec<String> = recorded.iter().map(text).collect();
    assert_eq!(texts, (0..10).map(|n| format!("record {n}")).collect::<Vec<_>>());
    assert!(recorded.iter().all(|event| event.name().starts_with("old::style:programs.rs:")));
}

fn levels() {
    let folder = Folder::new();
    folder.record(&["-e", "tasks:*", "--level", "info"], &["tasks"]);
    let recorded = folder.report(&[]);
    assert_eq!((count(&recorded, "tasks:values"), count(&recorded, "tasks:inside")), (0, 1));
}

fn killed() {
    let folder = Folder::new();
    folder.record(&["-e", "killed:*"], &["killed"]);
    let recorded = folder.report(&[]);
    assert_eq!(count(&recorded, "killed:last words"), 100);
    assert_eq!(recorded.last().map(|event| event.field("n").clone()), Some(99.into()));
}
