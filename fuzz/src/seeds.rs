//! Seeds: good input of each kind, for the fuzzers to begin with.

use crate::everything;
use crate::recording::{EVERY_TYPE, Recording, busy, every_type};
use gracepoint_wire::clock::Triple;
use gracepoint_wire::control::{
    Count, Counts, Create, Created, Failure, Flushed, Hello, Limits, Listed, LogEntry, Message,
    Mode, Module, Program, SessionInfo, Sessions, Stopped, WasReset,
};
use gracepoint_wire::schema::Context;

type Seed = (&'static str, String, Vec<u8>);

/// All seeds: fuzzer, name, bytes.
pub fn seeds() -> Vec<Seed> {
    let mut all = Vec::new();
    packets(&mut all);
    metadata(&mut all);
    control(&mut all);
    arena(&mut all);
    let logs: [(&str, &[u8]); 3] = [
        ("owner", include_bytes!("../../crates/analysis/tests/hang/owner.log")),
        ("two-locks", include_bytes!("../../crates/analysis/tests/hang/two-locks.log")),
        ("stall", include_bytes!("../../crates/analysis/tests/hang/teardown-stall.log")),
    ];
    for (name, bytes) in logs {
        all.push(("log", name.to_owned(), bytes.to_vec()));
    }
    all
}

/// A recording of everything, in packets.
fn filled() -> Recording {
    let mut recording = everything();
    let types: Vec<u8> = EVERY_TYPE.iter().flat_map(|t| t.2).copied().collect();
    for slot in 0..2 {
        for round in 0..3 {
            let at = round * 10_000 + slot;
            let mut packet = recording.packet(slot, 40 + slot as u32, "worker", at);
            let span = (slot << 48 | (round + 1)).to_le_bytes();
            packet.event(17, at + 1, b"key\0\x01\x07\0\0\0\0\0\0\0");
            packet.event(18, at + 2, &[&span[..], &[0; 8], b"users\0"].concat());
            packet.event(16, at + 3, &types);
            packet.event(19, at + 4, &span);
            packet.event(5000, at + 5, &[1, 9, 0, 0, 0]);
            packet.loss(at + 6, 17, 3);
            if round == 2 { recording.leave_open(packet) } else { recording.close(packet) }
        }
    }
    recording
}

fn packets(all: &mut Vec<Seed>) {
    let recording = filled();
    let streams: Vec<&[u8]> = recording.streams.values().map(|b| &b[..]).collect();
    all.push(("packets", "two".into(), [&[128, 0][..], &streams.concat()].concat()));
    all.push(("packets", "one".into(), [&[255, 0x55][..], streams[0]].concat()));
    // Ids of another recording, which mean something else here.
    for (slot, bytes) in &busy(3).streams {
        all.push(("packets", format!("busy-{slot}"), [&[200, 0xff][..], bytes].concat()));
    }
}

fn metadata(all: &mut Vec<Seed>) {
    let recordings = [("all", everything()), ("types", every_type()), ("busy", busy(1))];
    for (name, recording) in recordings {
        let text = recording.metadata().into_bytes();
        let dir = recording.write();
        let sidecar = std::fs::read(dir.join(".gracepoint.json")).unwrap_or_default();
        let both = [&text[..], b"\0", &sidecar].concat();
        all.push(("metadata", name.to_owned(), text));
        all.push(("metadata", format!("{name}-sidecar"), both));
    }
}

fn control(all: &mut Vec<Seed>) {
    let recording = everything();
    let at = Triple { ticks: 7, mono_ns: 8, real_ns: 9 };
    let program =
        Program { name: "kv".into(), pid: 7, exe: "/bin/kv".into(), ..Program::default() };
    let listed = recording.events.iter().map(|event| Listed {
        schema: event.schema.clone(),
        sites: 1,
        spans: 2,
        on: 3,
        location: "src/main.rs:7".into(),
    });
    let module = Module {
        at: 7,
        base: 4096,
        size: 8192,
        build_id: vec![1, 2, 3],
        path: "/lib/libc.so.6".into(),
    };
    let stopped = Stopped {
        settled: false,
        holdouts: vec!["thread 4 (x)".into()],
        at,
        modules: vec![module.clone()],
    };
    let create = Create {
        globs: vec!["kv:*".into()],
        buffer_bytes: 1 << 20,
        mode: Mode::Overwrite,
        context: Context::CPU.with(Context::STACK),
        limits: Limits { max_rate: 9, sample: 3, max_overhead_ppm: 10_000 },
        keep: true,
        name: "main".into(),
        tool: "gracepoint start".into(),
        ..Create::default()
    };
    let mut messages = vec![
        Message::Hello(Hello::current(Some(program))),
        Message::List,
        Message::Events(listed.collect()),
        Message::Create(create.clone()),
        Message::Created(Created {
            session: 3,
            events: recording.events.clone(),
            clock: recording.clock.clone(),
            context: Context::TID,
            modules: vec![module.clone()],
        }),
        Message::Start(3),
        Message::Started(at),
        Message::Stop(3),
        Message::Stopped(stopped.clone()),
        Message::Release(3, vec![(1, 2), (3, 4)]),
        Message::Flush(3),
        Message::Flushed(Flushed { pages: 2, modules: vec![module] }),
        Message::Proceed,
        Message::Done,
        Message::Failure(Failure { code: "busy".into(), text: "later".into() }),
    ];
    messages.extend(of_kept_sessions(create, stopped, at));
    for (n, message) in messages.iter().enumerate() {
        all.push(("control", format!("{n}"), message.to_frame()));
    }
    let short = messages.iter().filter(|m| m.to_frame().len() < 200);
    all.push(("control", "several".into(), short.flat_map(Message::to_frame).collect()));
}

/// Messages about sessions that outlive their makers.
fn of_kept_sessions(create: Create, stopped: Stopped, at: Triple) -> Vec<Message> {
    let session = SessionInfo { session: 3, name: "main".into(), ..SessionInfo::default() };
    vec![
        Message::Show,
        Message::Sessions(Sessions {
            sessions: vec![session],
            log: vec![LogEntry { at_ns: 7, text: "session 1 ended".into() }],
        }),
        Message::Attach { session: 3, look: true },
        Message::End(3),
        Message::Reset,
        Message::WasReset(WasReset { sessions: 2, holdouts: vec!["thread 1".into()] }),
        Message::Count(create),
        Message::Stat(3),
        Message::ListFunctions,
        Message::Counts(Counts { at, counts: vec![Count { id: 16, hits: 7 }] }),
        Message::Ended { session: 3, by: "uid 7".into(), stopped },
    ]
}

/// A page table and pages: two full pages and an open one of slot 0, two full ones of slot 1.
fn arena(all: &mut Vec<Seed>) {
    let mut recording = everything();
    let mut pages = Vec::new();
    let mut table = Vec::new();
    for (slot, ordinal, state) in [(0, 0, 2), (1, 0, 2), (0, 1, 2), (1, 1, 2), (0, 2, 1), (0, 0, 0)]
    {
        recording.streams.clear();
        let at = (ordinal + 1) * 10_000;
        let mut packet = recording.packet(slot, 40, "worker", at);
        packet.event(5000, at + 5, &[1, 9, 0, 0, 0]);
        if state == 1 {
            recording.leave_open(packet)
        } else {
            recording.close(packet)
        }
        let mut page = recording.streams.remove(&slot).unwrap_or_default();
        let used = page.len() as u32;
        page.resize(4096, 0);
        pages.extend(page);
        table.extend(u32::to_le_bytes(state));
        table.extend(u32::to_le_bytes(slot as u32));
        table.extend(u64::to_le_bytes(ordinal));
        table.extend(used.to_le_bytes());
        table.extend([0; 12]);
    }
    all.push(("arena", "pages".into(), [&[1][..], &table, &pages].concat()));
    let header = gracepoint_wire::arena::ArenaHeader::lay_out(4096, 6, 8, 8);
    let mut whole = header.to_bytes().to_vec();
    whole.resize(header.table_at as usize, 0);
    whole.extend(&table);
    whole.resize(header.pages_at as usize, 0);
    whole.extend(&pages);
    all.push(("arena", "whole".into(), [&[0][..], &whole].concat()));
}
