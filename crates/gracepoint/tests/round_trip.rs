//! Encode, then decode, is the identity: arbitrary schemas with arbitrary values are written by the
//! encoders of `gracepoint`, put into packets at arbitrary times, and read back by
//! `gracepoint-analysis`, with the sidecar and without; and a sample by babeltrace2.
//!
//! `GRACEPOINT_SEED` repeats a run (a failure prints its seed), `GRACEPOINT_TIMES=100` makes it longer.

use gracepoint::field::Field;
use gracepoint_analysis::{Trace, Value};
use gracepoint_wire::schema::{self, Declared, Role, Schema, Type};
use gracepoint_wire::{control, tsdl};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[allow(dead_code, reason = "the tests of analysis use more of it")]
#[path = "../../analysis/tests/traces/recording.rs"]
mod recording;

use recording::{Recording, START};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }

    /// All magnitudes, and the ends of the range, are likely.
    fn wide(&mut self) -> u128 {
        let word = u128::from(self.next()) << 64 | u128::from(self.next());
        match self.below(8) {
            0 => 0,
            1 => u128::MAX,
            2 => 1 << self.below(128),
            _ => word >> self.below(128),
        }
    }

    fn text(&mut self, most: usize) -> String {
        const ALPHABET: [char; 12] =
            ['a', 'Z', '0', ' ', '"', '\\', '\n', '\0', 'ß', '…', '🦀', '\u{202e}'];
        let plain = self.below(2) == 0;
        (0..self.below(most + 1))
            .map(|_| if plain { 'x' } else { ALPHABET[self.below(ALPHABET.len())] })
            .collect()
    }
}

#[derive(gracepoint::Field, Clone, Copy)]
enum Small {
    Idle = 3,
    #[allow(non_camel_case_types, reason = "a name that TSDL has a meaning for")]
    event = 250,
}

#[derive(gracepoint::Field, Clone, Copy)]
#[repr(u64)]
enum Big {
    Größe = 1 << 40,
    Most = u64::MAX,
}

/// What must come back.
#[derive(Debug, Clone, PartialEq)]
enum Want {
    Uint(u128),
    Int(i128),
    /// The bits, since a NaN must come back as it was.
    Float(u64),
    Bool(bool),
    Char(char),
    Text(Vec<u8>),
    Ns(u64),
    Seq(u32, Vec<Want>),
    Array(Vec<Want>),
    None,
    Enum(String, u64),
}

fn seen(value: Value<'_>) -> Want {
    match value {
        Value::Uint(n) => Want::Uint(n.into()),
        Value::Wide(n) => Want::Uint(n),
        Value::Int(n) => Want::Int(n.into()),
        Value::WideInt(n) => Want::Int(n),
        Value::Float32(x) => Want::Float(x.to_bits().into()),
        Value::Float(x) => Want::Float(x.to_bits()),
        Value::Bool(b) => Want::Bool(b),
        Value::Char(c) => Want::Char(c),
        Value::Text(text) => Want::Text(text.bytes().into_owned()),
        Value::Duration(ns) => Want::Ns(ns),
        Value::Seq { total, kept } => Want::Seq(total, kept.iter().map(seen).collect()),
        Value::Array(numbers) => Want::Array(numbers.iter().map(seen).collect()),
        Value::None => Want::None,
        Value::Enum(name, n) => Want::Enum(name.unwrap_or_default().into(), n),
    }
}

/// The same value as it is read without the sidecar.
fn bare(want: &Want) -> Want {
    match want {
        Want::Ns(ns) => Want::Uint((*ns).into()),
        Want::Char('\0') => Want::Text(Vec::new()),
        Want::Char(c) => Want::Text(c.to_string().into_bytes()),
        other => other.clone(),
    }
}

/// A value: its type, its bytes, and what must come back.
type Made = (Type, Vec<u8>, Want);

fn made<T: Field>(value: &T, limit: usize, want: Want) -> Made {
    let plan = value.plan(limit);
    let mut bytes = vec![0xa5; value.size(plan)];
    // SAFETY: there is room for `size` bytes, and the value does not change.
    let end = unsafe { value.write(plan, bytes.as_mut_ptr()) };
    assert_eq!(end, bytes.as_mut_ptr_range().end, "size and write agree");
    (T::TYPE.to_wire(), bytes, want)
}

fn optional<T: Field>(random: &mut Random, value: T, limit: usize, want: Want) -> Made {
    match random.below(3) {
        0 => made(&None::<T>, limit, Want::None),
        _ => made(&Some(value), limit, want),
    }
}

fn text_want(text: &str, limit: usize) -> Want {
    if text.len() <= limit {
        return Want::Text(text.as_bytes().to_vec());
    }
    let end = (0..=limit - 3).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    Want::Text(format!("{}…", &text[..end]).into_bytes())
}

fn list<T: Field + Copy>(
    random: &mut Random,
    limit: usize,
    of: impl Fn(&mut Random) -> (T, Want),
) -> Made
where
    Vec<T>: Field,
{
    let items: Vec<(T, Want)> = (0..random.below(20)).map(|_| of(random)).collect();
    let values: Vec<T> = items.iter().map(|(value, _)| *value).collect();
    let kept = items.len().min(limit / size_of::<T>());
    let wants = items.into_iter().take(kept).map(|(_, want)| want).collect();
    made(&values, limit, Want::Seq(values.len() as u32, wants))
}

/// How many kinds of fields there are.
const KINDS: usize = 30;

/// A value of one kind; a kind has one type. `limit` is at least 3.
fn make(kind: usize, limit: usize, random: &mut Random) -> Made {
    let wide = random.wide();
    let signed = wide as i128;
    macro_rules! number {
        ($ty:ty, $want:ident, $from:ident) => {
            made(&($from as $ty), limit, Want::$want(($from as $ty).into()))
        };
    }
    match kind {
        0 => number!(u8, Uint, wide),
        1 => number!(u16, Uint, wide),
        2 => number!(u32, Uint, wide),
        3 => number!(u64, Uint, wide),
        4 => number!(u128, Uint, wide),
        5 => number!(i8, Int, signed),
        6 => number!(i16, Int, signed),
        7 => number!(i32, Int, signed),
        8 => number!(i64, Int, signed),
        9 => number!(i128, Int, signed),
        10 => made(&f32::from_bits(wide as u32), limit, Want::Float((wide as u32).into())),
        11 => made(&f64::from_bits(wide as u64), limit, Want::Float(wide as u64)),
        12 => made(&(wide & 1 == 1), limit, Want::Bool(wide & 1 == 1)),
        13..=21 => make_larger(kind, limit, random),
        _ => make_optional(kind, limit, random),
    }
}

fn make_larger(kind: usize, limit: usize, random: &mut Random) -> Made {
    let wide = random.wide();
    match kind {
        13 => {
            let c = random.text(1).chars().next().unwrap_or('\0');
            made(&c, limit, Want::Char(c))
        }
        14 => {
            let text = random.text(40);
            made(&text, limit, text_want(&text, limit))
        }
        15 => {
            // No UTF-8; and no 0xC0, which before 0x80 would be read as a NUL.
            let bytes: Vec<u8> =
                (0..random.below(limit)).map(|_| random.next() as u8 | 0xe0).collect();
            made(&OsStr::from_bytes(&bytes), limit, Want::Text(bytes.clone()))
        }
        16 => {
            let length = Duration::new(wide as u64 >> 34, (wide >> 64) as u32 % 1_000_000_000);
            made(&length, limit, Want::Ns(length.as_nanos() as u64))
        }
        17 => list(random, limit, |r| (r.wide() as u16).pipe(|n| (n, Want::Uint(n.into())))),
        18 => list(random, limit, |r| (r.wide() as i128).pipe(|n| (n, Want::Int(n)))),
        19 => list(random, limit, |r| {
            let bits = r.wide() as u64;
            (f64::from_bits(bits), Want::Float(bits))
        }),
        20 => {
            let bytes = [wide as u8, (wide >> 8) as u8, 7];
            made(&bytes, limit, Want::Array(bytes.map(|n| Want::Uint(n.into())).to_vec()))
        }
        _ => {
            let numbers = [wide as i64, -1];
            made(&numbers, limit, Want::Array(numbers.map(|n| Want::Int(n.into())).to_vec()))
        }
    }
}

fn make_optional(kind: usize, limit: usize, random: &mut Random) -> Made {
    let wide = random.wide();
    match kind {
        22 => optional(random, wide as u32, limit, Want::Uint((wide as u32).into())),
        23 => {
            let text = random.text(40);
            let want = text_want(&text, limit);
            optional(random, text, limit, want)
        }
        24 => {
            let list = vec![wide as u8; random.below(limit + 1)];
            let wants = list.iter().map(|&n| Want::Uint(n.into())).collect();
            let total = list.len() as u32;
            optional(random, list, limit, Want::Seq(total, wants))
        }
        25 => optional(
            random,
            [wide as i16],
            limit,
            Want::Array(vec![Want::Int((wide as i16).into())]),
        ),
        26 => optional(random, Duration::from_nanos(5), limit, Want::Ns(5)),
        27 => optional(random, wide, limit, Want::Uint(wide)),
        28 => {
            let (state, name) =
                if wide & 1 == 0 { (Small::Idle, "Idle") } else { (Small::event, "event") };
            made(&state, limit, Want::Enum(name.into(), state as u64))
        }
        _ => {
            let (big, name) =
                if wide & 1 == 0 { (Big::Größe, "Größe") } else { (Big::Most, "Most") };
            optional(random, big, limit, Want::Enum(name.into(), big as u64))
        }
    }
}

trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}

impl<T> Pipe for T {}

/// One kind of event: its declaration, and kind and limit of each field.
struct Kind {
    declared: Declared,
    fields: Vec<(usize, usize)>,
}

fn kind(id: u32, random: &mut Random) -> Kind {
    let role = Role::ALL[random.below(Role::ALL.len())];
    let fields: Vec<(usize, usize)> =
        (0..random.below(12)).map(|_| (random.below(KINDS), 3 + random.below(40))).collect();
    let field = |(at, &(kind, limit)): (usize, &(usize, usize))| schema::Field {
        name: ["x", "event", "field", "string", "struct"][at % 5].to_owned() + &at.to_string(),
        ty: make(kind, limit, &mut Random(1)).0,
        docs: format!("Field {at}."),
    };
    let name = format!("{}:e{id}", ["a", "gräßlich", "x.y"][random.below(3)]);
    let schema = Schema {
        name,
        docs: "\"Docs\"\n".into(),
        fields: fields.iter().enumerate().map(field).collect(),
    };
    // The end of a span, and some others, have no fields of their own.
    let fields = if role.has_fields() { fields } else { Vec::new() };
    Kind { declared: Declared { id, role, schema }, fields }
}

/// A record as it must be read.
struct Wanted {
    ticks: u64,
    stream: u64,
    name: String,
    values: Vec<Want>,
}

/// A recording of arbitrary events, and what must be read of it, in order of time. The last packet of
/// a stream may be open.
fn arbitrary(random: &mut Random, may_be_open: bool) -> (Recording, Vec<Wanted>) {
    let mut recording = Recording::new(&[]);
    let ids = [16, 17, 4094, 4095, 70_000, u32::MAX];
    let kinds: Vec<Kind> = (0..1 + random.below(6)).map(|i| kind(ids[i], random)).collect();
    recording.events.extend(kinds.iter().map(|kind| kind.declared.clone()));
    let mut wanted = Vec::new();
    for stream in 0..1 + random.below(3) as u64 {
        let mut now = 0;
        for last in [false, false, true] {
            let mut packet = recording.packet(stream, 7, "thread", now);
            for _ in 0..random.below(12) {
                now += match random.below(8) {
                    0 => 0,
                    1 => (1 << 28) - 1,
                    2 => 1 << 28,
                    3 => 1 << (20 + random.below(20)),
                    _ => random.below(1000) as u64,
                };
                let kind = &kinds[random.below(kinds.len())];
                let (mut payload, mut values) = (Vec::new(), Vec::new());
                let added = kind.declared.role.ids();
                let own = kind.fields.iter().copied();
                for (kind, limit) in [(3, 3)].repeat(added).into_iter().chain(own) {
                    let (_, bytes, want) = make(kind, limit, random);
                    payload.extend(bytes);
                    values.push(want);
                }
                packet.event(kind.declared.id, now, &payload);
                let name = kind.declared.full_name();
                wanted.push(Wanted { ticks: START + now, stream, name, values });
            }
            if may_be_open && last && random.below(2) == 0 {
                recording.leave_open(packet);
            } else {
                recording.close(packet);
            }
        }
    }
    wanted.sort_by_key(|w| (w.ticks, w.stream));
    (recording, wanted)
}

fn check(recording: &Recording, wanted: &[Wanted], sidecar: bool) {
    let dir = if sidecar { recording.write() } else { recording.write_bare() };
    let trace = Trace::open(dir.path()).expect("our own trace");
    let mut reader = trace.reader();
    for want in wanted {
        let event = reader.next_event().expect("as many events as were written");
        assert_eq!(
            (event.ticks, event.stream, event.name()),
            (want.ticks, want.stream, &*want.name)
        );
        let got: Vec<Want> = event.values().map(|(_, value)| seen(value)).collect();
        let values = want.values.iter();
        let values: Vec<Want> =
            if sidecar { values.cloned().collect() } else { values.map(bare).collect() };
        assert_eq!(got, values, "{}", want.name);
    }
    assert!(reader.next_event().is_none());
    assert_eq!(reader.damage(), []);
}

/// Runs `test` with random choices, so many times.
#[expect(clippy::print_stderr, reason = "shown where the test fails, to repeat it")]
fn repeatedly(times: u64, mut test: impl FnMut(&mut Random)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let first = number("GRACEPOINT_SEED").unwrap_or(now) | 1;
    eprintln!("repeat with GRACEPOINT_SEED={first}");
    let mut random = Random(first);
    for _ in 0..times * number("GRACEPOINT_TIMES").unwrap_or(1) {
        test(&mut random);
    }
}

#[test]
fn what_is_written_is_read() {
    repeatedly(150, |random| {
        let (recording, wanted) = arbitrary(random, true);
        check(&recording, &wanted, true);
        check(&recording, &wanted, false);
    });
}

/// What the metadata, the sidecar's spelling and the control protocol say of an event is the event.
#[test]
fn what_is_declared_is_declared() {
    repeatedly(1000, |random| {
        let (a, b) = (kind(16, random).declared, kind(17, random).declared);
        for event in [&a, &b] {
            for field in event.full_fields() {
                assert_eq!(field.ty.to_string().parse(), Ok(field.ty));
            }
        }
        let recording = Recording::new(&[]);
        let created = control::Message::Created(control::Created {
            modules: Vec::new(),
            session: random.next(),
            events: vec![a.clone(), b.clone()],
            clock: recording.clock.clone(),
            context: Default::default(),
        });
        let frame = created.to_frame();
        let (payload, taken) = control::next_frame(&frame, control::MAX_REPLY).unwrap().unwrap();
        assert_eq!((control::Message::parse(payload), taken), (Ok(created), frame.len()));
        let (events, env) = ([a, b], [("program", "p".to_owned())]);
        let clock = &recording.clock;
        let context = Default::default();
        let text = tsdl::metadata(&tsdl::Metadata { clock, events: &events, env: &env, context });
        let parsed = gracepoint_analysis::metadata::parse(text.as_bytes()).unwrap();
        for (parsed, event) in parsed.events.iter().zip(&events) {
            assert_eq!((parsed.id, parsed.full_name()), (event.id, event.full_name()));
            assert_eq!(parsed.full_fields().len(), event.full_fields().len());
        }
        assert_eq!(parsed.events.len(), 2);
    });
}

/// babeltrace2 sees the same events at the same times, and the same numbers in them.
#[test]
fn babeltrace_reads_a_sample() {
    repeatedly(3, |random| {
        // It takes no open packets, which a recorder closes.
        let (recording, wanted) = arbitrary(random, false);
        let dir = recording.write();
        let run = std::process::Command::new("babeltrace2")
            .arg("--clock-cycles")
            .arg(dir.path())
            .output();
        let Ok(run) = run else {
            use std::io::Write;
            // Not by `eprintln!`, which the test harness hides when a test passes.
            let words = "skipped, needs babeltrace2 (Debian: apt-get install babeltrace2)";
            let _ = writeln!(std::io::stderr(), "{words}");
            return;
        };
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let mut theirs: Vec<String> = String::from_utf8_lossy(&run.stdout)
            .split_inclusive(" }\n")
            .map(str::to_owned)
            .collect();
        let mut ours: Vec<String> = wanted.iter().map(|w| format!("[{:020}]", w.ticks)).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(theirs.len(), ours.len());
        for (line, time) in theirs.iter().zip(&ours) {
            assert!(line.starts_with(time), "{time}: {line}");
        }
        for want in &wanted {
            let time = format!("[{:020}]", want.ticks);
            let numbers = want.values.iter().filter_map(|value| match value {
                Want::Uint(n) if u64::try_from(*n).is_ok() => Some(n.to_string()),
                Want::Int(n) if i64::try_from(*n).is_ok() => Some(n.to_string()),
                _ => None,
            });
            let numbers: Vec<String> = numbers.collect();
            let found = theirs.iter().any(|line| {
                line.starts_with(&time)
                    && line.contains(&want.name)
                    && numbers.iter().all(|n| line.contains(n.as_str()))
            });
            assert!(found, "{time} {} {numbers:?} is not in {theirs:#?}", want.name);
        }
    });
}
