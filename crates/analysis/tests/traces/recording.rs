//! Makes traces as the runtime and a recorder do: packets of records, the metadata, the sidecar.

use gracepoint_analysis::sidecar::{self, ProgramEntry, Sidecar};
use gracepoint_wire::clock::{Clock, Source, Triple};
use gracepoint_wire::packet::{self, HEADER, PacketHeader};
use gracepoint_wire::schema::{Declared, Field, Role, Schema, loss_event};
use gracepoint_wire::tsdl;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes away with its owner.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gp-analysis-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        Dir(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// First tick of every recording made here.
pub(crate) const START: u64 = 5_000_000_000;
/// Nanoseconds since 1970 at [`START`]: 2026-01-02 03:04:05.
pub(crate) const START_NS: u64 = 1_767_323_045_000_000_000;

/// Names and types of an event's fields.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// A trace in the making.
pub(crate) struct Recording {
    pub(crate) clock: Clock,
    pub(crate) events: Vec<Declared>,
    pub(crate) streams: BTreeMap<u64, Vec<u8>>,
    sequence: BTreeMap<u64, u64>,
}

/// One packet in the making.
pub(crate) struct Packet {
    header: PacketHeader,
    last: u64,
    bytes: Vec<u8>,
}

impl Recording {
    /// Declares `gp:loss` and `events` (role, name, fields), with ids from 16 on.
    pub(crate) fn new(events: &[(Role, &str, Fields<'_>)]) -> Recording {
        let mut declared = vec![loss_event()];
        for (&(role, name, fields), id) in events.iter().zip(16..) {
            declared.push(declare(id, role, name, fields));
        }
        let triple = |after: u64| Triple {
            ticks: START + after,
            mono_ns: START + after,
            real_ns: START_NS + after,
        };
        let clock = Clock {
            source: Source::Monotonic,
            freq_hz: 1_000_000_000,
            boot_id: [7; 16],
            triples: vec![triple(0), triple(20_000_000)],
        };
        Recording { clock, events: declared, streams: BTreeMap::new(), sequence: BTreeMap::new() }
    }

    /// A packet that begins `after` ticks from [`START`].
    pub(crate) fn packet(&self, slot: u64, tid: u32, thread: &str, after: u64) -> Packet {
        let mut name = [0; packet::NAME];
        name[..thread.len()].copy_from_slice(thread.as_bytes());
        let header = PacketHeader {
            stream: slot,
            begin: START + after,
            seq: self.sequence.get(&slot).copied().unwrap_or(0),
            tid,
            thread: name,
            ..PacketHeader::default()
        };
        Packet { header, last: header.begin, bytes: vec![0; HEADER] }
    }

    /// Closes a packet and appends it to its stream.
    pub(crate) fn close(&mut self, packet: Packet) {
        self.append(packet, true);
    }

    /// Appends a packet that its writer had not closed.
    pub(crate) fn leave_open(&mut self, packet: Packet) {
        self.append(packet, false);
    }

    fn append(&mut self, mut packet: Packet, closed: bool) {
        let content = packet.bytes.len() as u64;
        let whole = packet::round_up(content);
        packet.header.content_bits = content * 8;
        if closed {
            packet.header.end = packet.last;
            packet.header.packet_bits = whole * 8;
        }
        packet.bytes[..HEADER].copy_from_slice(&packet.header.to_bytes());
        packet.bytes.resize(whole as usize, 0);
        let slot = packet.header.stream;
        *self.sequence.entry(slot).or_default() += 1;
        self.streams.entry(slot).or_default().extend(packet.bytes);
    }

    pub(crate) fn metadata(&self) -> String {
        let env = [("tracer_name", "gracepoint".to_owned()), ("program", "k\"v".to_owned())];
        tsdl::metadata(&tsdl::Metadata {
            clock: &self.clock,
            events: &self.events,
            context: Default::default(),
            env: &env,
        })
    }

    pub(crate) fn sidecar(&self) -> Sidecar {
        let program = ProgramEntry {
            name: "kv".into(),
            pid: 77,
            exe: "/bin/kv".into(),
            args: vec!["--fast".into()],
            frame_pointers: None,
        };
        let mut sidecar = Sidecar::new(program, &self.clock, &self.events);
        sidecar.complete = true;
        sidecar.ended = "duration".into();
        sidecar
    }

    /// Writes streams and metadata, no sidecar.
    pub(crate) fn write_bare(&self) -> Dir {
        let dir = Dir::new();
        fs::write(dir.join("metadata"), self.metadata()).unwrap();
        for (slot, bytes) in &self.streams {
            fs::write(dir.join(&format!("stream_{slot}")), bytes).unwrap();
        }
        dir
    }

    /// Writes everything.
    pub(crate) fn write(&self) -> Dir {
        let dir = self.write_bare();
        sidecar::write(dir.path(), &self.sidecar()).unwrap();
        dir
    }
}

pub(crate) fn declare(id: u32, role: Role, name: &str, fields: Fields<'_>) -> Declared {
    let field = |&(name, ty): &(&str, &str)| Field {
        name: name.into(),
        ty: ty.parse().expect("a field's type"),
        docs: format!("About {name}."),
    };
    let fields = fields.iter().map(field).collect();
    Declared {
        id,
        role,
        schema: Schema { name: name.into(), docs: format!("About {name}."), fields },
    }
}

impl Packet {
    /// A record `after` ticks from [`START`].
    pub(crate) fn event(&mut self, id: u32, after: u64, payload: &[u8]) {
        let now = START + after;
        if packet::needs_extended(id, now - self.last) {
            self.bytes.extend(packet::extended_header(id, now));
        } else {
            self.bytes.extend(&packet::compact_header(id, now).to_le_bytes()[..5]);
        }
        self.bytes.extend(payload);
        self.last = now;
    }

    /// `gp:loss`.
    pub(crate) fn loss(&mut self, after: u64, id: u32, count: u64) {
        self.event(0, after, &[&id.to_le_bytes()[..], &count.to_le_bytes()].concat());
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Every type once: name, type, bytes, text, JSON.
pub(crate) const EVERY_TYPE: &[(&str, &str, &[u8], &str, &str)] = &[
    ("a_u8", "u8", &[200], "200", "200"),
    ("a_u16", "u16", &[0xff, 0xff], "65535", "65535"),
    ("a_u32", "u32", &[1, 0, 0, 0x80], "2147483649", "2147483649"),
    ("a_u64", "u64", &[0xff; 8], "18446744073709551615", "18446744073709551615"),
    (
        "a_u128",
        "u128",
        &[0xff; 16],
        "340282366920938463463374607431768211455",
        "340282366920938463463374607431768211455",
    ),
    ("a_i8", "i8", &[0xff], "-1", "-1"),
    ("a_i16", "i16", &[0, 0x80], "-32768", "-32768"),
    ("a_i32", "i32", &[0xfe, 0xff, 0xff, 0xff], "-2", "-2"),
    ("a_i64", "i64", &[0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808", "-9223372036854775808"),
    ("a_i128", "i128", &[0xff; 16], "-1", "-1"),
    ("a_f32", "f32", &[0xcd, 0xcc, 0xcc, 0x3d], "0.1", "0.1"),
    ("a_f64", "f64", &[0, 0, 0, 0, 0, 0, 0xf8, 0x7f], "NaN", "\"NaN\""),
    ("yes", "bool", &[1], "true", "true"),
    ("letter", "char", b"\xc3\x9f\0", "'ß'", "\"ß\""),
    ("zero_char", "char", b"\0", "'\\u{0}'", "\"\\u0000\""),
    ("string", "str", b"a\"b\xc0\x80c\0", "\"a\\\"b\\u{0}c\"", "\"a\\\"b\\u0000c\""),
    (
        "event",
        "str",
        b"\xff\x1b[2J\0",
        "\"\\xff\\u{1b}[2J\"",
        "{\"lossy\":\"\u{fffd}\\u001b[2J\",\"hex\":\"ff1b5b324a\"}",
    ),
    ("latency", "ns", &[0xb0, 4, 0, 0, 0, 0, 0, 0], "1.2us", "1200"),
    ("list", "[u16]", &[2, 0, 0, 0, 2, 0, 1, 0, 2, 0], "[1, 2]", "[1,2]"),
    ("cut_list", "[u8]", &[9, 0, 0, 0, 1, 0, 5], "[5, ... 8 more]", "{\"total\":9,\"kept\":[5]}"),
    ("empty_list", "[u128]", &[0, 0, 0, 0, 0, 0], "[]", "[]"),
    ("array", "[f32;2]", &[0, 0, 0x80, 0x3f, 0, 0, 0x80, 0xbf], "[1.0, -1.0]", "[1.0,-1.0]"),
    ("wide_array", "[i128;1]", &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "[5]", "[5]"),
    ("nothing", "?u64", &[0], "none", "null"),
    ("something", "?u64", &[1, 7, 0, 0, 0, 0, 0, 0, 0], "7", "7"),
    ("some_str", "?str", b"\x01hi\0", "\"hi\"", "\"hi\""),
    ("some_list", "?[u8]", &[1, 1, 0, 0, 0, 1, 0, 3], "[3]", "[3]"),
    ("some_array", "?[u8;2]", &[1, 1, 2], "[1, 2]", "[1,2]"),
    ("some_time", "?ns", &[1, 1, 0, 0, 0, 0, 0, 0, 0], "1ns", "1"),
    ("some_wide", "?u128", &[1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "9", "9"),
    ("state", "enum1{Idle=0,Busy=7}", &[7], "Busy", "\"Busy\""),
    ("strange", "enum4{A=1}", &[9, 0, 0, 0], "9", "9"),
    ("unnamed", "enum2{}", &[3, 0], "3", "3"),
    ("big", "enum8{Max=18446744073709551615}", &[0xff; 8], "Max", "\"Max\""),
    ("some_state", "?enum1{On=1}", &[1, 1], "On", "\"On\""),
    ("some_bool", "?bool", &[1, 0], "false", "false"),
];

/// A recording with one event that has a field of every type, once.
pub(crate) fn every_type() -> Recording {
    let fields: Vec<(&str, &str)> = EVERY_TYPE.iter().map(|t| (t.0, t.1)).collect();
    let mut recording = Recording::new(&[(Role::Event, "all:types", &fields)]);
    let mut packet = recording.packet(3, 4242, "worker-1", 0);
    let payload: Vec<u8> = EVERY_TYPE.iter().flat_map(|t| t.2).copied().collect();
    packet.event(16, 10, &payload);
    recording.close(packet);
    recording
}

/// Get (16), query:begin (17), query:end (18), and one whose id needs the extended header (5000);
/// three streams, several packets each, a gap of 2³⁰ ticks, losses. `n` rounds per stream.
pub(crate) fn busy(n: u64) -> Recording {
    let mut recording = Recording::new(&[
        (Role::Event, "kv:get", &[("key", "str"), ("hit", "bool"), ("latency", "ns")]),
        (Role::Begin, "db:query", &[("table", "str")]),
        (Role::End, "db:query", &[]),
    ]);
    recording.events.push(declare(5000, Role::Event, "far:away", &[("n", "?u32")]));
    for slot in 0..3 {
        let mut packet = recording.packet(slot, 100 + slot as u32, &format!("t{slot}"), slot);
        for i in 0..n {
            let at = slot + i * 1000 + if i > n / 2 { 1 << 30 } else { 0 };
            let key = format!("key-{i}");
            let tail = [&[0, (i % 2) as u8][..], &(i * 10).to_le_bytes()].concat();
            packet.event(16, at, &[key.as_bytes(), &tail].concat());
            let span = (slot << 48 | (i + 1)).to_le_bytes();
            packet.event(17, at + 1, &[&span[..], &[0; 8], b"users\0"].concat());
            packet.event(18, at + 1 + (i + 1) * 5 % 500, &span);
            if i % 10 == 0 {
                packet.event(5000, at + 600, &[1, i as u8, 0, 0, 0]);
                packet.loss(at + 601, 16, 2);
            }
            if packet.len() > 3000 {
                recording.close(packet);
                packet = recording.packet(slot, 100 + slot as u32, &format!("t{slot}"), at + 700);
            }
        }
        recording.close(packet);
    }
    recording
}
