//! Every message survives a round trip; what a newer peer adds is skipped; rubbish is refused.

use super::*;
use crate::clock::{Clock, Source};
use crate::schema::{Context, Declared, Field, Role, Type, loss_event};

/// What `start` asks for, beside what to record.
fn kept() -> Create {
    let (name, tool) = ("main".into(), "gracepoint start".into());
    let level = Some(crate::schema::Level::Debug);
    Create { keep: true, name, tool, level, ..Create::default() }
}

fn every_message() -> Vec<Message> {
    let field = |name: &str, ty| Field { name: name.into(), ty, docs: "d".into() };
    let schema = Schema {
        name: "kv:get".into(),
        docs: "A key was looked up.".into(),
        fields: vec![field("key", Type::Str), field("n", Type::Option(Box::new(Type::Uint(4))))],
    };
    let at = Triple { ticks: 1, mono_ns: 2, real_ns: u64::MAX };
    let clock = Clock { source: Source::Tsc, freq_hz: 7, boot_id: [9; 16], triples: vec![at, at] };
    let listed =
        Listed { schema: schema.clone(), sites: 3, spans: 1, on: 2, location: "a.rs:4".into() };
    let declared = Declared { id: 16, role: Role::Begin, schema };
    vec![
        Message::Hello(Hello::current(None)),
        Message::Hello(Hello::current(Some(program()))),
        Message::List,
        Message::Events(vec![listed.clone(), listed]),
        Message::Create(Create {
            globs: vec!["kv:*".into(), String::new()],
            buffer_bytes: 1 << 24,
            mode: Mode::Overwrite,
            context: Context::CPU.with(Context::STACK),
            limits: Limits { max_rate: 1000, sample: 3, max_overhead_ppm: 10_000 },
            functions: Some(wanted()),
            ..kept()
        }),
        Message::Create(Create {
            functions: Some(FunctionsWanted::default()),
            samples: Some(SamplesWanted { hz: 199, max_cpu_ppm: 250_000, stack_bytes: 4096 }),
            ..Create::default()
        }),
        Message::Created(Created {
            session: 3,
            events: vec![declared, loss_event()],
            clock,
            context: Context::TID,
            modules: vec![module(), Module::default()],
        }),
        Message::Start(3),
        Message::Started(at),
        Message::Stop(3),
        Message::Stopped(stopped(at)),
        Message::Release(3, vec![(1, 2), (u32::MAX, u64::MAX)]),
        Message::Flush(3),
        Message::Flushed(Flushed { pages: 4, modules: vec![module()] }),
        Message::Proceed,
        Message::Done,
        Message::Failure(Failure { code: "busy".into(), text: "sorry".into() }),
        Message::Show,
        Message::Sessions(Sessions {
            sessions: vec![session(), SessionInfo::default()],
            log: vec![LogEntry { at_ns: 7, text: "session 1 ended".into() }],
        }),
        Message::Attach { session: 3, look: true },
        Message::End(3),
        Message::Reset,
        Message::WasReset(WasReset { sessions: 2, holdouts: vec!["thread 1".into()] }),
        Message::Count(Create { globs: vec!["*".into()], ..Create::default() }),
        Message::Stat(3),
        Message::Why,
        Message::Stuck(stuck()),
        Message::Counts(Counts { at, counts: vec![Count { id: 16, hits: u64::MAX }] }),
        Message::Ended { session: 3, by: "pid 1".into(), stopped: stopped(at) },
        Message::ListFunctions,
        Message::Functions(functions()),
        Message::Functions(Functions::default()),
        Message::Unknown(999),
    ]
}

fn wanted() -> FunctionsWanted {
    let ids = vec![(1, 1), (7, u32::MAX)];
    FunctionsWanted { ids, depth: 3, threshold_ns: 10_000, threads: vec![12, 13] }
}

fn functions() -> Functions {
    let with_sleds = |id, object, address| {
        let kind = FunctionKind::Sleds;
        Function { id, kind, object, address, ..Function::default() }
    };
    let with_attribute = |id| Function {
        id,
        name: "kv::store::get".into(),
        file: "src/store.rs".into(),
        line: 17,
        args: "kv.store.get:args".into(),
        returns: "kv.store.get:return".into(),
        ..Function::default()
    };
    let object = |path: &str| FunctionObject {
        path: path.into(),
        build_id: vec![4, 5],
        bias: 0x5555_5555_4000,
    };
    Functions {
        objects: vec![object("/bin/kv"), object("/lib/libplugin.so")],
        functions: vec![
            with_sleds(1, 0, 0x1000),
            with_sleds(2, 0, u64::MAX),
            with_attribute(3),
            with_sleds(4, 1, 0x1000),
            with_attribute(u32::MAX),
        ],
        notes: vec!["/lib/libold.so has sleds of version 1".into()],
    }
}

fn program() -> Program {
    Program {
        makes_events: true,
        frame_pointers: Some(false),
        name: "kv".into(),
        pid: 12,
        exe: "/bin/kv".into(),
        since_ns: 5,
        patching: "text".into(),
        launched_by: "x".into(),
        events_on: 1,
        events: 2,
        waiting: true,
        object: "/lib/libplugin.so".into(),
        sessions: vec!["main".into(), "gracepoint record (off)".into()],
    }
}

fn stopped(at: Triple) -> Stopped {
    Stopped { settled: false, holdouts: vec!["thread 1".into()], at, modules: vec![module()] }
}

fn module() -> Module {
    Module { at: 1, base: 2, size: 3, build_id: vec![4, 5], path: "/bin/kv".into() }
}

fn session() -> SessionInfo {
    SessionInfo {
        session: 3,
        name: "main".into(),
        origin: Origin { pid: 12, uid: 1000, tool: "gracepoint start".into() },
        made_ns: 5,
        state: SessionState::On,
        kept: true,
        counts: true,
        events: 4,
        globs: vec!["kv:*".into(), String::new()],
        buffer_bytes: 1 << 24,
        filled_bytes: 1 << 20,
        lost: 9,
        mode: 1,
        consumer: 13,
        functions: 5000,
    }
}

#[test]
fn messages_round_trip() {
    for message in every_message() {
        let frame = message.to_frame();
        let (payload, taken) = next_frame(&frame, MAX_REPLY).unwrap().expect("whole frame");
        assert_eq!(taken, frame.len());
        assert_eq!(Message::parse(payload).as_ref(), Ok(&message));
    }
}

#[test]
fn a_newer_peers_additions_are_skipped() {
    for message in every_message() {
        let mut frame = message.to_frame();
        // A field with a tag that nobody has assigned, at the end of the body.
        frame.extend_from_slice(&[0x34, 0x12, 3, 0, 0, 0, b'n', b'e', b'w']);
        let len = u32::try_from(frame.len() - 4).unwrap();
        frame[..4].copy_from_slice(&len.to_le_bytes());
        assert_eq!(Message::parse(&frame[4..]).as_ref(), Ok(&message));
    }
}

#[test]
fn cut_messages_are_errors_or_shorter_messages_but_never_panics() {
    for message in every_message() {
        let frame = message.to_frame();
        for end in 4..frame.len() {
            let _ = Message::parse(&frame[4..end]);
        }
        for at in 4..frame.len() {
            let mut broken = frame.clone();
            broken[at] ^= 0xff;
            let _ = Message::parse(&broken[4..]);
        }
    }
}

#[test]
fn frames_are_bounded() {
    assert_eq!(next_frame(&[], 100), Ok(None));
    assert_eq!(next_frame(&[5, 0, 0, 0, 1, 0], 100), Ok(None));
    assert!(next_frame(&[0xff, 0xff, 0, 0], 100).is_err());
    assert!(next_frame(&[3, 0, 0, 0], 100).is_err());
}

#[test]
fn neighbours_speak_to_each_other() {
    let version = |major| Hello { major, ..Hello::default() };
    let current = Hello::current(None);
    for (major, want) in [(0, true), (1, true), (2, true), (3, false)] {
        assert_eq!(current.speaks_to(&version(major)), want);
        assert_eq!(version(major).speaks_to(&current), want);
    }
}

/// What a hostile peer may say of functions costs what it has sent, and no more.
#[test]
fn functions_that_cannot_be_are_refused() {
    let mut all = functions();
    all.objects.pop();
    let frame = Message::Functions(all).to_frame();
    assert!(Message::parse(&frame[4..]).is_err(), "an object that is not listed");
    let ids = vec![(3, 2)];
    let functions = Some(FunctionsWanted { ids, ..FunctionsWanted::default() });
    let frame = Message::Create(Create { functions, ..Create::default() }).to_frame();
    assert!(Message::parse(&frame[4..]).is_err(), "a range that ends before it begins");
}

fn stuck() -> Stuck {
    let probe = RunningProbe { name: "slow".into(), tracepoint: "kv:get".into() };
    let reader = OpenReader {
        tid: 7,
        name: "worker".into(),
        owner: Some("task".into()),
        sections: 2,
        seen_ns: 3,
        entered_at: "a.rs:4:5".into(),
        entered_ns: 4,
        probes: vec![probe],
        backtrace: vec![1, u64::MAX],
        ..OpenReader::default()
    };
    let call = RunningCall { number: 1, tid: 9, backtrace: vec![5], ..RunningCall::default() };
    let domain = DomainState {
        name: "routes".into(),
        running: Some(RunningPeriod { number: 7, phase: 2, age_ns: 9 }),
        waiters: vec![
            WaitingThread { tid: 8, for_callbacks: true, ..WaitingThread::default() },
            WaitingThread { tid: 9, call: "detach_wait".into(), ..WaitingThread::default() },
        ],
        readers: vec![reader, OpenReader { ended: true, ..OpenReader::default() }],
        callback: Some(call),
        ready: true,
        drives: 2,
        ..DomainState::default()
    };
    let task = OpenTask {
        spans: vec!["serve{id=7}".into(), "query".into()],
        location: "main.rs:12".into(),
        since_ns: 5,
        begun_ns: 6,
        polls: 7,
        tid: 8,
    };
    Stuck {
        domains: vec![domain, DomainState::default()],
        agent: 12,
        agent_busy_ns: 1,
        tasks: vec![task, OpenTask::default()],
        more_tasks: 3,
        spans: SpansKept::Yes,
    }
}
