//! What derived events say of themselves, and the bytes that fields become: each type against bytes
//! written by hand, and size against write on random values.

use gracepoint::event::Event;
use gracepoint::field::{Field, Text, TypeDesc};
use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

// The same code passes as a crate that forbids unsafe code and denies every lint it can.
#[path = "ui/pass_strict.rs"]
mod strict;

/// Written before and after a record to see that nothing beyond it is touched.
const GUARD: u8 = 0xee;

/// Checks that exactly the bytes that `size` promised are written, and returns them.
fn written(size: usize, write: impl FnOnce(*mut u8) -> *mut u8) -> Vec<u8> {
    // Filled twice, so that a byte left as it was shows too.
    let mut buf = vec![GUARD; size + 64];
    let start = buf.as_mut_ptr().wrapping_add(32);
    buf[32..32 + size].fill(0xa5);
    let end = write(start);
    assert_eq!(end as usize - start as usize, size, "size and write disagree");
    assert!(buf[..32].iter().all(|&b| b == GUARD), "written before the record");
    assert!(buf[32 + size..].iter().all(|&b| b == GUARD), "written after the record");
    buf[32..32 + size].to_vec()
}

fn encode_at<T: Field + ?Sized>(value: &T, limit: usize) -> Vec<u8> {
    let plan = value.plan(limit);
    // SAFETY: `written` gives room for `size` bytes, and `value` does not change.
    written(value.size(plan), |at| unsafe { value.write(plan, at) })
}

fn encode<T: Field + ?Sized>(value: &T) -> Vec<u8> {
    encode_at(value, 1024)
}

fn record<E: Event>(event: &E) -> Vec<u8> {
    let prepared = event.prepare();
    // SAFETY: `prepared` is made from `event`, and `written` gives room for `size` bytes.
    written(event.size(&prepared), |at| unsafe { event.write(&prepared, at) })
}

fn spelled<T: Field + ?Sized>() -> String {
    T::TYPE.to_wire().to_string()
}

#[test]
fn numbers() {
    assert_eq!(encode(&0x12_u8), [0x12]);
    assert_eq!(encode(&0x1234_u16), [0x34, 0x12]);
    assert_eq!(encode(&0x1234_5678_u32), [0x78, 0x56, 0x34, 0x12]);
    assert_eq!(encode(&1_u64), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode(&(1_u128 << 64 | 2)), [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode(&3_usize), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode(&-1_i8), [0xff]);
    assert_eq!(encode(&-2_i16), [0xfe, 0xff]);
    assert_eq!(encode(&-2_i32), [0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(encode(&-2_i64), [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(encode(&-2_isize), [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(encode(&-1_i128), [0xff; 16]);
    assert_eq!(encode(&1.0_f32), [0, 0, 0x80, 0x3f]);
    assert_eq!(encode(&1.0_f64), [0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    assert_eq!(encode(&NonZero::new(7_u16).unwrap()), [7, 0]);
    assert_eq!(encode(&NonZero::new(-1_isize).unwrap()), [0xff; 8]);
    assert_eq!(encode(&[true, false].map(|b| encode(&b)[0])), [1, 0]);
    assert_eq!(spelled::<usize>(), "u64");
    assert_eq!(spelled::<isize>(), "i64");
    assert_eq!(spelled::<NonZero<i128>>(), "i128");
    assert_eq!(spelled::<f32>(), "f32");
    assert_eq!(spelled::<bool>(), "bool");
}

#[test]
fn durations_saturate() {
    assert_eq!(encode(&Duration::from_nanos(258)), [2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode(&Duration::new(1, 1)), 1_000_000_001_u64.to_le_bytes());
    assert_eq!(encode(&Duration::from_nanos(u64::MAX)), [0xff; 8]);
    assert_eq!(encode(&(Duration::from_nanos(u64::MAX) + Duration::from_nanos(1))), [0xff; 8]);
    assert_eq!(encode(&Duration::MAX), [0xff; 8]);
    assert_eq!(spelled::<Duration>(), "ns");
}

#[test]
fn chars() {
    assert_eq!(encode(&'a'), b"a\0");
    assert_eq!(encode(&'é'), b"\xc3\xa9\0");
    assert_eq!(encode(&'\u{10ffff}'), b"\xf4\x8f\xbf\xbf\0");
    assert_eq!(encode(&'\0'), b"\0");
    assert_eq!(spelled::<char>(), "char");
}

#[test]
fn text_of_every_kind() {
    let expected = b"abc\0";
    assert_eq!(encode("abc"), expected);
    assert_eq!(encode(&"abc"), expected);
    assert_eq!(encode(&&mut String::from("abc")), expected);
    assert_eq!(encode(&Box::<str>::from("abc")), expected);
    assert_eq!(encode(&Rc::<str>::from("abc")), expected);
    assert_eq!(encode(&Arc::<str>::from("abc")), expected);
    assert_eq!(encode(&Arc::new(String::from("abc"))), expected);
    assert_eq!(encode(&Cow::Borrowed("abc")), expected);
    assert_eq!(encode(&Cow::<str>::Owned("abc".into())), expected);
    assert_eq!(encode(Path::new("abc")), expected);
    assert_eq!(encode(&PathBuf::from("abc")), expected);
    assert_eq!(encode(&Cow::Borrowed(Path::new("abc"))), expected);
    assert_eq!(encode(OsStr::new("abc")), expected);
    assert_eq!(encode(&OsString::from("abc")), expected);
    assert_eq!(encode(c"abc"), expected);
    assert_eq!(encode(&CString::from(c"abc")), expected);
    for spelling in [spelled::<Cow<'_, CStr>>(), spelled::<Box<PathBuf>>(), spelled::<Text>()] {
        assert_eq!(spelling, "str");
    }
}

#[test]
fn text_with_nuls() {
    assert_eq!(encode(""), b"\0");
    assert_eq!(encode("\0"), b"\xc0\x80\0");
    assert_eq!(encode("a\0b\0"), b"a\xc0\x80b\xc0\x80\0");
    // Every length that takes a path of its own, with a NUL at every place.
    let long: &[usize] = if cfg!(miri) { &[64] } else { &[63, 64, 65, 200] };
    for len in (0..36).chain(long.iter().copied()) {
        let clean: Vec<u8> = (0..len).map(|i| 1 + (i % 250) as u8).collect();
        let text = CString::new(clean.clone()).unwrap();
        assert_eq!(encode(text.as_c_str()), text.as_bytes_with_nul(), "{len} bytes");
        for place in 0..len {
            let mut text: Vec<u8> = clean.iter().map(|b| b & 0x7f | 1).collect();
            text[place] = 0;
            let expected = [&text[..place], b"\xc0\x80", &text[place + 1..], b"\0"].concat();
            assert_eq!(encode(std::str::from_utf8(&text).unwrap()), expected, "NUL at {place}");
        }
    }
}

#[test]
fn text_is_cut_between_characters() {
    assert_eq!(encode_at("abcdef", 6), b"abcdef\0");
    assert_eq!(encode_at("abcdefg", 6), "abc…\0".as_bytes());
    // Two-, three- and four-byte characters across the cut, which is after byte 3.
    assert_eq!(encode_at("abégggg", 6), "ab…\0".as_bytes());
    assert_eq!(encode_at("aé€ggg", 6), "aé…\0".as_bytes());
    assert_eq!(encode_at("a€ggg", 6), "a…\0".as_bytes());
    assert_eq!(encode_at("𝄞𝄞", 6), "…\0".as_bytes());
    assert_eq!(encode_at("a𝄞𝄞", 8), "a𝄞…\0".as_bytes());
    assert_eq!(encode_at("abcd", 3), "…\0".as_bytes());
    // NULs count once towards the limit, and only those that are kept are written.
    assert_eq!(encode_at("\0\0\0\0", 4), b"\xc0\x80\xc0\x80\xc0\x80\xc0\x80\0");
    assert_eq!(encode_at("\0\0\0\0\0", 4), b"\xc0\x80\xe2\x80\xa6\0");
    // Limits that the derive refuses are no danger.
    for limit in 0..3 {
        assert_eq!(encode_at("abcd", limit), "…\0".as_bytes());
    }
    let long = "x".repeat(100_000);
    assert_eq!(encode(&long).len(), 1025);
    assert!(encode_at(&long, usize::MAX).len() == 100_001);
}

#[cfg(unix)]
#[test]
fn text_that_is_not_utf8_passes_unchanged() {
    use std::os::unix::ffi::OsStrExt;
    assert_eq!(encode(OsStr::from_bytes(b"a\xff\xc3")), b"a\xff\xc3\0");
    assert_eq!(encode(Path::new(OsStr::from_bytes(b"\x80/\0"))), b"\x80/\xc0\x80\0");
    // Nothing but continuation bytes: there is no boundary to go back to.
    assert_eq!(encode_at(OsStr::from_bytes(&[0x80; 9]), 8), b"\x80\x80\x80\x80\x80\xe2\x80\xa6\0");
}

#[test]
fn sequences() {
    assert_eq!(encode(&[1_u16, 2][..]), [2, 0, 0, 0, 2, 0, 1, 0, 2, 0]);
    assert_eq!(encode(&vec![1_u8, 2, 3]), [3, 0, 0, 0, 3, 0, 1, 2, 3]);
    assert_eq!(encode(&Box::<[u8]>::from([9])), [1, 0, 0, 0, 1, 0, 9]);
    assert_eq!(encode(&Arc::<[i8]>::from([-1])), [1, 0, 0, 0, 1, 0, 0xff]);
    assert_eq!(encode(&Cow::Borrowed(&[7_u8][..])), [1, 0, 0, 0, 1, 0, 7]);
    assert_eq!(encode(&[0.5_f32][..]), [1, 0, 0, 0, 1, 0, 0, 0, 0, 0x3f]);
    assert_eq!(encode(&[NonZero::new(5_u8).unwrap()][..]), [1, 0, 0, 0, 1, 0, 5]);
    assert_eq!(encode(&[0_u64; 0][..]), [0; 6]);
    // Cut: 7 bytes are three and a half elements.
    assert_eq!(encode_at(&[1_u16, 2, 3, 4][..], 7), [4, 0, 0, 0, 3, 0, 1, 0, 2, 0, 3, 0]);
    assert_eq!(encode_at(&[1_u16, 2][..], 1), [2, 0, 0, 0, 0, 0]);
    let long = vec![1_u8; 70_000];
    let bytes = encode_at(&long, usize::MAX);
    assert_eq!((&bytes[..6], bytes.len()), (&[0x70, 0x11, 1, 0, 0xff, 0xff][..], 6 + 65_535));
    assert_eq!(spelled::<Vec<usize>>(), "[u64]");
}

#[test]
fn arrays() {
    assert_eq!(encode(&[1_u16, 2]), [1, 0, 2, 0]);
    assert_eq!(encode(&[-1_isize; 2]), [0xff; 16]);
    assert_eq!(encode(&[0_u8; 0]), []);
    // The limit is for sequences.
    assert_eq!(encode_at(&[1_u8; 8], 3), [1; 8]);
    assert_eq!(encode(&[0_u8; 16384]).len(), 16384);
    assert_eq!(spelled::<[f64; 3]>(), "[f64;3]");
}

#[test]
fn options() {
    assert_eq!(encode(&Some(5_u16)), [1, 5, 0]);
    assert_eq!(encode(&None::<u16>), [0]);
    assert_eq!(encode(&Some("ab")), b"\x01ab\0");
    assert_eq!(encode(&Some(&[1_u8][..])), [1, 1, 0, 0, 0, 1, 0, 1]);
    assert_eq!(encode_at(&Some("abcdefg"), 6), "\u{1}abc…\0".as_bytes());
    assert_eq!(spelled::<Option<Box<str>>>(), "?str");
}

#[derive(gracepoint::Field)]
enum Small {
    A,
    B = 7,
    r#Fn,
}

#[derive(gracepoint::Field, Clone, Copy)]
#[repr(u16)]
enum Two {
    Low = 255,
    High,
}

#[derive(gracepoint::Field)]
enum Four {
    Low,
    High = 0x1_0000,
}

#[derive(gracepoint::Field)]
enum Negative {
    Minus = -2,
    Zero = 0,
}

#[derive(gracepoint::Field)]
#[repr(u64)]
enum Big {
    Zero,
    Most = u64::MAX,
}

#[derive(gracepoint::Field)]
enum Never {}

#[test]
fn enums() {
    assert_eq!(spelled::<Small>(), "enum1{A=0,B=7,Fn=8}");
    assert_eq!([Small::A, Small::B, Small::r#Fn].map(|v| encode(&v)), [[0], [7], [8]]);
    assert_eq!(spelled::<Two>(), "enum2{Low=255,High=256}");
    assert_eq!([Two::Low, Two::High].map(|v| encode(&v)), [[255, 0], [0, 1]]);
    assert_eq!(spelled::<Four>(), "enum4{Low=0,High=65536}");
    assert_eq!([Four::Low, Four::High].map(|v| encode(&v)), [[0, 0, 0, 0], [0, 0, 1, 0]]);
    assert_eq!(spelled::<Negative>(), "enum8{Minus=18446744073709551614,Zero=0}");
    assert_eq!(encode(&Negative::Minus), [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(encode(&Negative::Zero), [0; 8]);
    assert_eq!(spelled::<Big>(), "enum8{Zero=0,Most=18446744073709551615}");
    assert_eq!([Big::Zero, Big::Most].map(|v| encode(&v)), [[0; 8], [0xff; 8]]);
    assert_eq!(spelled::<Option<Never>>(), "?enum1{}");
    assert_eq!(encode(&None::<Never>), [0]);
}

/// A key was looked up.
///
///  Twice.
#[derive(gracepoint::Event)]
#[event(name = "kv:get")]
struct Get<'a, 'b: 'a> {
    /// What was asked for.
    #[event(limit = 8)]
    key: &'a str,
    /** Whether
     *  it was there. */
    hit: bool,
    #[event(display, rename = "address")]
    peer: std::net::IpAddr,
    #[event(debug, limit = 12)]
    list: &'b [&'a str],
    outcome: Option<Small>,
    r#type: u16,
}

#[derive(gracepoint::Event)]
struct HTTPServerStarted;

#[test]
fn events_are_their_fields() {
    let get = Get {
        key: "too long a key",
        hit: true,
        peer: [127, 0, 0, 1].into(),
        list: &["\0", "second", "third"],
        outcome: Some(Small::B),
        r#type: 0x102,
    };
    let expected = [
        "too l…\0".as_bytes(),
        &[1],
        b"127.0.0.1\0",
        "[\"\\0\", \"s…\0".as_bytes(),
        &[1, 7],
        &[2, 1],
    ];
    assert_eq!(record(&get), expected.concat());
    assert_eq!(record(&HTTPServerStarted), b"");
}

#[test]
fn events_describe_themselves() {
    let desc = Get::DESC;
    assert_eq!((desc.module, desc.ident, desc.name), ("derive", "Get", Some("kv:get")));
    assert_eq!(desc.docs, "A key was looked up.\n\n Twice.");
    assert!(desc.file.ends_with("derive.rs"));
    let source = include_str!("derive.rs").lines().nth(desc.line as usize - 1).unwrap();
    assert_eq!(source, "struct Get<'a, 'b: 'a> {");
    let fields: Vec<_> = desc.fields.iter().map(|f| (f.name, f.ty, f.docs)).collect();
    assert_eq!(fields[0], ("key", TypeDesc::Str, "What was asked for."));
    assert_eq!(fields[1], ("hit", TypeDesc::Bool, "Whether\n it was there."));
    assert_eq!(fields[2], ("address", TypeDesc::Str, ""));
    assert_eq!(fields[5], ("type", TypeDesc::Uint(2), ""));
    let schema = desc.schema();
    assert_eq!(schema.name, "kv:get");
    assert_eq!(schema.fields[4].ty.to_string(), "?enum1{A=0,B=7,Fn=8}");
    assert_eq!(HTTPServerStarted::DESC.name(), "derive:http_server_started");
}

#[test]
fn each_event_has_one_key() {
    assert!(std::ptr::eq(<Get<'_, '_> as Event>::KEY, <Get<'static, 'static> as Event>::KEY));
    let (get, started) = (Get::KEY as *const _, HTTPServerStarted::KEY as *const _);
    assert!(!std::ptr::eq(get, started));
}

/// Writes without end.
struct Endless;

impl std::fmt::Display for Endless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        loop {
            f.write_str("ab€")?;
        }
    }
}

/// Writes something, then fails.
struct Failing;

impl std::fmt::Debug for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("so far")?;
        Err(std::fmt::Error)
    }
}

/// Ignores errors, so the limit is met more than once.
struct Stubborn;

impl std::fmt::Display for Stubborn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for _ in 0..300 {
            let _ = f.write_str("1234567");
        }
        Ok(())
    }
}

/// Panics half way.
struct Panicking;

impl std::fmt::Display for Panicking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("half")?;
        panic!("a Display of the program panics");
    }
}

#[test]
fn rendering_is_bounded() {
    for limit in 0..70 {
        let text = Text::display(&Endless, limit);
        let text = std::str::from_utf8(text.as_bytes()).unwrap();
        assert!(text.ends_with('…') && text.len() <= limit.max(3), "{limit}: {text:?}");
        assert!(text.len() + 3 > limit, "{limit}: {text:?} is cut too early");
    }
    assert_eq!(Text::display(&Endless, usize::MAX).as_bytes().len(), 1024);
    let stubborn = Text::display(&Stubborn, 1024);
    assert_eq!(stubborn.as_bytes().len(), 1024);
    assert!(stubborn.as_bytes().ends_with("6…".as_bytes()));
    assert_eq!(Text::debug(&Failing, 1024).as_bytes(), b"so far");
    assert_eq!(Text::display("exactly 10", 10).as_bytes(), b"exactly 10");
    assert_eq!(Text::display("", 10).as_bytes(), b"");
    assert_eq!(encode(&Text::display("a\0", 10)), b"a\xc0\x80\0");
    assert_eq!(format!("{:?}", Text::display("a", 10)), "\"a\"");
    // The program would not have panicked with tracing off, so it does not with tracing on.
    assert!(Text::display(&Panicking, 1024).as_bytes().ends_with(b"<panicked>"));
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Text with more NULs and wide characters than any program has.
    fn text(&mut self) -> String {
        let len = if self.below(8) == 0 { self.below(400) } else { self.below(36) };
        (0..len).map(|_| ['a', 'b', 'z', '\0', 'é', '€', '𝄞'][self.below(7)]).collect()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8 & 0xcf).collect()
    }
}

/// What the encoding of text is, written plainly.
fn text_by_the_book(bytes: &[u8], limit: usize) -> Vec<u8> {
    let mut kept = bytes.to_vec();
    if bytes.len() > limit {
        let mut end = limit - 3;
        for back in 0..=3.min(end) {
            if bytes[end - back] & 0xc0 != 0x80 {
                end -= back;
                break;
            }
        }
        kept.truncate(end);
        kept.extend("…".bytes());
    }
    let escape = |&b: &u8| if b == 0 { vec![0xc0, 0x80] } else { vec![b] };
    let mut out: Vec<u8> = kept.iter().flat_map(escape).collect();
    out.push(0);
    out
}

#[derive(gracepoint::Event)]
struct Many<'a> {
    text: &'a str,
    #[event(limit = 5)]
    short: &'a str,
    path: &'a OsStr,
    bytes: &'a [u8],
    #[event(limit = 30)]
    words: Vec<u32>,
    maybe: Option<&'a str>,
    number: Option<u64>,
    one: char,
    two: Two,
    #[event(debug, limit = 40)]
    shown: &'a str,
}

#[test]
fn size_and_write_agree_on_random_values() {
    let seed = std::env::var("GP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        // Miri has no clock.
        if cfg!(miri) { 1 } else { std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1 }
    });
    #[expect(clippy::print_stdout, reason = "shown when the test fails")]
    let () = println!("GP_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..if cfg!(miri) { 60 } else { 20_000 } {
        let (text, short, shown) = (random.text(), random.text(), random.text());
        let raw = random.bytes(80);
        let bytes = random.bytes(2000);
        let limit = 3 + random.below(60);
        let path: &OsStr = if cfg!(unix) {
            // SAFETY: on Unix any bytes are an `OsStr`.
            unsafe { OsStr::from_encoded_bytes_unchecked(&raw) }
        } else {
            OsStr::new(&text)
        };
        assert_eq!(encode_at(&text, limit), text_by_the_book(text.as_bytes(), limit));
        assert_eq!(encode_at(path, limit), text_by_the_book(path.as_encoded_bytes(), limit));
        assert_eq!(encode(&text), text_by_the_book(text.as_bytes(), 1024));
        let many = Many {
            text: &text,
            short: &short,
            path,
            bytes: &bytes,
            words: (0..random.below(20)).map(|_| random.next() as u32).collect(),
            maybe: (random.below(2) == 0).then_some(&text[..]),
            number: (random.below(2) == 0).then(|| random.next()),
            one: ['\0', 'a', 'é', '€', '𝄞'][random.below(5)],
            two: [Two::Low, Two::High][random.below(2)],
            shown: &shown,
        };
        let record = record(&many);
        assert!(record.starts_with(&text_by_the_book(text.as_bytes(), 1024)));
    }
}

/// Somebody logged in.
#[derive(gracepoint::Event)]
#[event(name = "auth:login")]
struct Login<'a> {
    /// Who.
    #[event(sensitive)]
    user: &'a str,
    #[event(sensitive)]
    pin: u32,
    #[event(sensitive, limit = 8)]
    token: Option<&'a [u8]>,
    #[event(sensitive, display)]
    from: &'a dyn std::fmt::Display,
    tries: u8,
}

struct MustNotRun;
impl std::fmt::Display for MustNotRun {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("what is masked is rendered")
    }
}

#[test]
fn sensitive_fields_are_masked_to_one_byte_each() {
    use gracepoint_wire::schema::SENSITIVE;
    for (user, pin, token) in [("", 0, None), ("root", 1234, Some(&[1_u8, 2, 3][..]))] {
        let login = Login { user, pin, token, from: &MustNotRun, tries: 3 };
        assert_eq!(record(&login), [0, 0, 0, 0, 3]);
    }
    let schema = Login::DESC.schema();
    let types: Vec<String> = schema.fields.iter().map(|f| f.ty.to_string()).collect();
    assert_eq!(types, ["?str", "?u32", "?[u8]", "?str", "u8"]);
    let marked: Vec<bool> = schema.fields.iter().map(|f| f.is_sensitive()).collect();
    assert_eq!(marked, [true, true, true, true, false]);
    assert_eq!(schema.fields[0].docs, format!("{SENSITIVE} Who."));
    assert_eq!(schema.fields[1].docs, SENSITIVE);
}

/// How full a cache is.
#[derive(gracepoint::Event)]
#[event(name = "cache:fill")]
struct Fill {
    /// Bytes in use.
    #[event(counter)]
    used: u64,
    #[event(counter)]
    age: Option<std::time::Duration>,
    most: u64,
}

#[test]
fn counters_are_marked_and_written_as_other_fields() {
    let schema = Fill::DESC.schema();
    let marked: Vec<bool> = schema.fields.iter().map(|f| f.is_counter()).collect();
    assert_eq!(marked, [true, true, false]);
    let docs: Vec<&str> = schema.fields.iter().map(|f| f.docs.as_str()).collect();
    assert_eq!(docs, ["[counter] Bytes in use.", "[counter]", ""]);
    let mut want = 7_u64.to_le_bytes().to_vec();
    want.push(0);
    want.extend(9_u64.to_le_bytes());
    assert_eq!(record(&Fill { used: 7, age: None, most: 9 }), want);
}
