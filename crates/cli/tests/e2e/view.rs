//! `view`: a page that is whole or not there, and what a browser makes of it.

use crate::browser::Browser;
use crate::reading::{write, write_documented};
use crate::scene::Scene;
use crate::verbs::until;
use std::fs;
use std::os::unix::fs::PermissionsExt;

type Test = (&'static str, fn());

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    let tests: [Test; 3] = [
        ("a_page_needs_nothing_else", a_page_needs_nothing_else),
        ("a_page_is_refused_before_it_begins", a_page_is_refused_before_it_begins),
        ("a_page_is_opened_in_the_users_browser", a_page_is_opened_in_the_users_browser),
    ];
    tests.into_iter().map(crate::trial).collect()
}

/// Those that need Chromium.
pub(crate) fn with_browser() -> Vec<Test> {
    vec![
        ("a_page_in_a_browser", a_page_in_a_browser),
        ("a_page_of_many_events_in_a_browser", many_events_in_a_browser),
        ("a_counter_is_a_curve_in_a_browser", a_counter_in_a_browser),
    ]
}

fn a_page_needs_nothing_else() {
    let scene = Scene::new();
    let events = write(&scene, 2);
    let said = scene.run(&["view", "t.trace", "--json"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["output"], &told["format"]), (&"gracepoint.html".into(), &"page".into()));
    assert_eq!((&told["events"], &told["threads"]), (&events.into(), &4.into()));
    let path = scene.dir.join("gracepoint.html");
    let page = fs::read_to_string(&path).unwrap();
    assert_eq!(told["bytes"], page.len() as u64);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
}

fn a_page_is_refused_before_it_begins() {
    let scene = Scene::new();
    write(&scene, 1);
    let refused = |args: &[&str], want: &str| {
        let said = scene.run(&[&["view"], args].concat());
        assert!(said.status == 2 && said.err.contains(want), "{args:?}: {}", said.err);
    };
    refused(&["nothing"], "nothing");
    refused(&["t.trace", "-e", "t:tock"], "did you mean t:tick?");
    refused(&["t.trace", "-o", "no/where"], "cannot create");
    fs::write(scene.dir.join("x"), "mine").unwrap();
    refused(&["t.trace", "-o", "x"], "x exists");
    assert_eq!(fs::read(scene.dir.join("x")).unwrap(), b"mine");
    let said = scene.run(&["view", "t.trace", "-o", "x", "--force", "--thread", "40"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("x: 500 events") && said.err.contains("--open"), "{}", said.err);
}

fn a_page_is_opened_in_the_users_browser() {
    let scene = Scene::new();
    write(&scene, 1);
    let script = scene.dir.join("browser");
    fs::write(&script, "#!/bin/sh\ncp \"$2\" seen.part && mv seen.part \"$1\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = scene.gracepoint(&["view", "t.trace", "--open"]);
    // The first one is not there, so the second one is asked.
    let names = format!("{}:{} seen", scene.dir.join("none").display(), script.display());
    command.env("BROWSER", names).env("XDG_RUNTIME_DIR", &scene.dir);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("opening it"), "{said}");
    until("the browser has the page", || scene.dir.join("seen").exists());
    assert!(fs::read(scene.dir.join("seen")).unwrap().starts_with(b"<!doctype html>"));
    let mut command = scene.gracepoint(&["view", "t.trace", "--open", "-o", "kept.html"]);
    let output = command.env("BROWSER", "/nowhere/browser").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("set BROWSER"), "{said}");
    assert!(scene.dir.join("kept.html").exists(), "the page stays");
}

/// What the canvas has in it: how many different colours, and where something lies on a row.
const COLOURS: &str = "(() => { const canvas = document.getElementById('canvas');
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return new Set(new Uint32Array(data.buffer)).size; })()";

fn a_page_in_a_browser() {
    let scene = Scene::new();
    let events = write(&scene, 4);
    assert_eq!(scene.run(&["view", "t.trace"]).status, 0);
    // The event with number 700 of the last thread lies in the middle.
    let page = format!("file://{}/gracepoint.html#q=n%22%3A700&at=0", scene.dir.display());
    let mut browser = Browser::open(&scene.dir, &page);
    browser.until("document.documentElement?.dataset.ready === 'yes'");
    let status = browser.text("status");
    let want = format!("0 spans and {events} events on 4 tracks from 2026-01-02T03:04:05.000Z.");
    assert_eq!(status.trim().replace(',', ""), want);
    assert!(browser.value(COLOURS).as_u64().unwrap() > 5, "something is drawn");
    assert_eq!(browser.text("found"), "4 matches", "number 700 of four threads");
    let details = browser.text("details");
    assert!(details.contains("t:tick") && details.contains("n\t0"), "{details}");
    // The next match; it comes into the middle, and a click there chooses it again.
    browser.value("document.getElementById('canvas').focus()");
    browser.key("n", 78);
    browser.until("document.getElementById('details').innerText.includes('n\\t700')");
    assert_eq!(browser.text("found"), "1 of 4 matches");
    browser.key("Escape", 27);
    browser.until("document.getElementById('details').innerText.startsWith('Click')");
    let place = browser.value(
        "(() => { const box = document.getElementById('canvas').getBoundingClientRect();
         return [box.left + 190 + (box.width - 190) / 2, box.top + 66 + 6 + 9]; })()",
    );
    let place = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    browser.click(place);
    browser.until("document.getElementById('details').innerText.includes('t:tick')");
    // The wheel zooms, and the address remembers.
    let before = browser.value("location.hash");
    let wheel = serde_json::json!({ "deltaX": 0, "deltaY": -500 });
    browser.mouse("mouseWheel", place, wheel);
    browser.until(&format!("location.hash !== {before} && location.hash.includes('from=')"));
    browser.key("f", 70);
    browser.until("!location.hash.includes('from=')");
    // A search by hand, for what is not there.
    browser.key("/", 191);
    browser.value("document.getElementById('search').select()");
    browser.type_text("nothing-like-it");
    browser.until("document.getElementById('found').innerText === '0 matches'");
}

/// Of a counter that the program has marked: a track of its own, whose steps have the values of the events, and
/// whose wider levels have the least and the greatest.
fn a_counter_in_a_browser() {
    let scene = Scene::new();
    write_documented(&scene, 4, "[counter] Ticks so far.");
    let said = scene.run(&["export", "t.trace", "--to", "chrome", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["samples"], &told["events"]), (&8000.into(), &8000.into()), "{}", said.err);
    assert_eq!(scene.run(&["view", "t.trace"]).status, 0);
    let page = format!("file://{}/gracepoint.html", scene.dir.display());
    let mut browser = Browser::open(&scene.dir, &page);
    browser.until("document.documentElement?.dataset.ready === 'yes'");
    let status = browser.text("status").replace(',', "");
    assert!(status.contains("8000 events on 5 tracks"), "{status}");
    // Below the four threads, of a row each. Where the pointer is, it says what the counter was.
    let place = browser.value(
        "(() => { const box = document.getElementById('canvas').getBoundingClientRect();
         return [box.left + 190 + (box.width - 190) / 2, box.top + 66 + 6 + 4 * (18 + 6) + 27]; })()",
    );
    let place = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    browser.mouse("mouseMoved", place, serde_json::json!({}));
    browser.until("!document.getElementById('tip').hidden");
    let coarse = browser.text("tip");
    let numbers: Vec<u64> = numbers(&coarse);
    assert!(coarse.starts_with("t:tick.n: ") && numbers.len() == 2, "{coarse}");
    assert!(numbers[0] < numbers[1] && numbers[1] < 2000, "{coarse}");
    // Near enough, it is one value, of those that the level above has said.
    let wheel = serde_json::json!({ "deltaX": 0, "deltaY": -3000 });
    for _ in 0..12 {
        browser.mouse("mouseWheel", place, wheel.clone());
    }
    browser.until("location.hash.includes('from=')");
    browser.mouse("mouseMoved", (place.0 + 1.0, place.1), serde_json::json!({}));
    browser.until("!document.getElementById('tip').innerText.includes(' to ')");
    let fine = self::numbers(&browser.text("tip"));
    assert!(
        fine.len() == 1 && (numbers[0]..=numbers[1]).contains(&fine[0]),
        "{fine:?} of {coarse}"
    );
    // A field that is no number is refused.
    let said = scene.run(&["view", "t.trace", "--force", "--counter", "t:tick.m"]);
    assert!(said.status == 2 && said.err.contains("did you mean n?"), "{}", said.err);
}

/// The numbers behind the colon that ends the name.
fn numbers(tip: &str) -> Vec<u64> {
    let text = tip.rsplit(": ").next().unwrap_or_default().replace(',', "");
    text.split(" to ").filter_map(|number| number.trim().parse().ok()).collect()
}

/// How many events in all; 1,000,000 for the figure that the page says of itself.
#[expect(clippy::print_stderr, reason = "the figure is what the command is for")]
fn many_events_in_a_browser() {
    let scene = Scene::new();
    let wanted = std::env::var("GRACEPOINT_VIEW").ok().and_then(|n| n.parse().ok());
    let events = write(&scene, wanted.unwrap_or(20_000u64).div_ceil(2000));
    let begin = std::time::Instant::now();
    assert_eq!(scene.run(&["view", "t.trace"]).status, 0);
    let written = begin.elapsed();
    let page = format!("file://{}/gracepoint.html", scene.dir.display());
    let mut browser = Browser::open(&scene.dir, &page);
    browser.until("document.documentElement?.dataset.ready === 'yes'");
    let first = browser.value("document.documentElement.dataset.firstPictureMs");
    let bytes = fs::metadata(scene.dir.join("gracepoint.html")).unwrap().len();
    eprintln!(
        "{events} events: written in {written:?}, {bytes} bytes, first picture after {first} ms"
    );
    assert!(browser.value(COLOURS).as_u64().unwrap() > 5, "something is drawn");
    // All of them are there: every number of every thread is found.
    browser.value("document.getElementById('search').focus()");
    browser.type_text("tick");
    let all = format!("{events} matches");
    browser.until(&format!(
        "document.getElementById('found').innerText.replaceAll(',', '') === '{all}'"
    ));
}
