//! What a view shows is what was written.

use super::*;
use std::path::Path;
use std::time::Duration;

#[derive(Clone, Copy, gracepoint_macros::Field)]
#[event(crate = "crate")]
enum Outcome {
    Hit,
    Miss = 300,
}

#[derive(gracepoint_macros::Event)]
#[event(crate = "crate")]
struct All<'a> {
    small: u8,
    negative: i16,
    wide: u128,
    deep: i128,
    float: f32,
    yes: bool,
    letter: char,
    nul: char,
    text: &'a str,
    path: &'a Path,
    time: Duration,
    list: &'a [u16],
    array: [i32; 2],
    nothing: Option<u8>,
    something: Option<&'a str>,
    outcome: Outcome,
    #[event(debug)]
    inside: (u8, u8),
}

fn view_of<E: Event, R>(event: &E, look: impl FnOnce(&View<'_>) -> R) -> R {
    // SAFETY: `event` lives as long as the view, and `encode::<E>` is made for it.
    let view =
        unsafe { View::new("test:all", E::DESC, encode::<E>, (&raw const *event).cast(), None) };
    look(&view)
}

fn all(text: &str) -> All<'_> {
    use std::os::unix::ffi::OsStrExt;
    All {
        small: 200,
        negative: -300,
        wide: 1 << 100,
        deep: -(1 << 100),
        float: 1.5,
        yes: true,
        letter: 'ß',
        nul: '\0',
        text,
        path: Path::new(std::ffi::OsStr::from_bytes(b"/\xff")),
        time: Duration::from_micros(7),
        list: &[1, 2, 65535],
        array: [-1, 1],
        nothing: None,
        something: Some("there"),
        outcome: Outcome::Miss,
        inside: (1, 2),
    }
}

#[test]
fn every_type_is_seen_as_it_was() {
    let expected = "test:all small=200 negative=-300 wide=1267650600228229401496703205376 \
        deep=-1267650600228229401496703205376 float=1.5 yes=true letter='ß' nul='\\0' text=\"a\" \
        path=\"/\u{fffd}\" time=7µs list=[1, 2, 65535] array=[-1, 1] nothing=None \
        something=\"there\" outcome=Miss inside=\"(1, 2)\"";
    view_of(&all("a"), |view| assert_eq!(view.to_string(), expected));
    let hit = All { outcome: Outcome::Hit, ..all("a") };
    view_of(&hit, |view| assert_eq!(view.get("outcome"), Some(Value::Enum(0, Some("Hit")))));
}

#[test]
fn fields_are_found_by_name_and_cut_as_in_a_trace() {
    let long = "x".repeat(5000);
    view_of(&all(&long), |view| {
        let text = view.get("text").and_then(|text| text.as_str()).expect("text");
        assert_eq!((text.len(), text.ends_with('…')), (1024, true));
        assert_eq!(view.get("small").and_then(|small| small.as_u64()), Some(200));
        assert_eq!(view.get("yes").and_then(|yes| yes.as_bool()), Some(true));
        assert_eq!(view.get("absent"), None);
        assert_eq!(view.get("path"), Some(Value::Bytes(b"/\xff")));
        assert_eq!(view.fields().count(), 17);
        assert_eq!((view.kind(), view.span_id()), (HitKind::Event, None));
    });
}

#[test]
fn the_end_of_a_span_has_no_fields() {
    let span = SpanPoint { id: 7, parent: 0 };
    let encode = encode::<All<'static>>;
    // SAFETY: the event is null.
    let view = unsafe {
        View::new("test:all", All::<'static>::DESC, encode, std::ptr::null(), Some(span))
    };
    assert_eq!(view.to_string(), "test:all end");
    assert_eq!((view.get("small"), view.span_id(), view.parent_id()), (None, Some(7), None));
}
