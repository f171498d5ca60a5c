//! The agent under peers that ask much, read slowly or not at all. The agent of this process is the
//! one that is tested; its tests run side by side and share it.
#![cfg(target_os = "linux")]

use gracepoint_wire::control::{Create, Hello, MAX_REPLY, MAX_REQUEST, Message, next_frame};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Something happened, and much is told of it, so that an answer to `List` has some length: whoever
/// asks without reading the answers soon has asked for more than anybody should hold for him. The
/// answers to all requests of these tests are several times what was once the limit.
#[derive(gracepoint::Event)]
#[event(name = "agent:event")]
struct Happened {
    /// How many happened before, in this thread, since it began to count, which is at its start.
    n: u32,
}

/// The agent's socket; the first caller starts it.
fn agent() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let start = || {
        let dir = std::env::temp_dir().join(format!("gp-agent-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        gracepoint::trace!(Happened { n: 1 });
        match gracepoint::Builder::new().directory(&dir).start() {
            Ok(gracepoint::Status::Listening(path)) => path,
            other => panic!("{other:?}"),
        }
    };
    PATH.get_or_init(start).clone()
}

/// Held for writing by the test that crowds the agent, where a connection that is slow to say hello is
/// closed; by the others for reading.
static CROWD: RwLock<()> = RwLock::new(());

fn connect() -> UnixStream {
    let mut link = UnixStream::connect(agent()).unwrap();
    link.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    link.write_all(&Message::Hello(Hello::current(None)).to_frame()).unwrap();
    link
}

/// Reads messages until `enough` of them have come, and asserts that nothing follows them.
fn read(link: &mut UnixStream, enough: usize) -> Vec<Message> {
    let (mut inbox, mut messages, mut chunk) = (Vec::new(), Vec::new(), vec![0; 1 << 16]);
    while messages.len() < enough {
        let n = link.read(&mut chunk).unwrap();
        assert!(n > 0, "closed after {} messages", messages.len());
        inbox.extend_from_slice(&chunk[..n]);
        let mut done = 0;
        while let Some((payload, taken)) = next_frame(&inbox[done..], MAX_REPLY).unwrap() {
            messages.push(Message::parse(payload).unwrap());
            done += taken;
        }
        inbox.drain(..done);
    }
    assert!(inbox.is_empty() && messages.len() == enough);
    messages
}

/// A peer that asks all at once and reads in small pieces gets every answer.
#[test]
fn a_slow_reader_gets_every_answer() {
    let _no_crowd = CROWD.read().unwrap_or_else(PoisonError::into_inner);
    const REQUESTS: usize = 100_000;
    let mut link = connect();
    let mut asking = link.try_clone().unwrap();
    let asker = std::thread::spawn(move || {
        let some = Message::List.to_frame().repeat(1000);
        (0..REQUESTS / 1000).for_each(|_| asking.write_all(&some).unwrap());
    });
    let (mut greeted, mut answers) = (false, 0);
    let mut chunk = vec![0; 1500];
    let mut inbox = Vec::new();
    while answers < REQUESTS {
        let n = link.read(&mut chunk).unwrap();
        assert!(n > 0, "closed after {answers} answers");
        inbox.extend_from_slice(&chunk[..n]);
        let mut done = 0;
        while let Some((payload, taken)) = next_frame(&inbox[done..], MAX_REPLY).unwrap() {
            // Hello comes first, and answers to List after it.
            assert_eq!(payload[0], if greeted { 3 } else { 1 });
            answers += usize::from(greeted);
            greeted = true;
            done += taken;
        }
        inbox.drain(..done);
    }
    asker.join().unwrap();
}

/// CPU time of the agent's thread so far.
fn agents_work() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let named = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "gracepoint")
    };
    let task = tasks.into_iter().find(named).expect("the agent has a thread");
    let stat = fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// A peer that asks for ever and never reads is not listened to any more; others are. The agent
/// does not spin meanwhile.
#[test]
fn a_peer_that_never_reads_waits_alone() {
    let _no_crowd = CROWD.read().unwrap_or_else(PoisonError::into_inner);
    /// What the sockets' own buffers and the agent's may take at the very most.
    const ENOUGH: usize = 8 << 20;
    let mut greedy = connect();
    greedy.set_nonblocking(true).unwrap();
    let some = Message::List.to_frame().repeat(1000);
    let mut asked = 0;
    let mut ask = |greedy: &mut UnixStream| loop {
        match greedy.write(&some[asked % 8..]) {
            Ok(n) => asked += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error} after {asked} bytes"),
        }
        assert!(asked < ENOUGH, "the agent takes requests whose answers nobody reads");
    };
    let mut other = connect();
    read(&mut other, 1);
    for _ in 0..2000 {
        ask(&mut greedy);
        other.write_all(&Message::List.to_frame()).unwrap();
        assert!(matches!(read(&mut other, 1)[..], [Message::Events(_)]));
    }
    // Other tests' requests are work, too: so the best of many looks counts. A spinning thread has
    // none without work.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = agents_work();
        std::thread::sleep(Duration::from_millis(100));
        if agents_work() - before < Duration::from_millis(1) {
            return;
        }
        assert!(Instant::now() < deadline, "the agent spins");
    }
}

/// An event whose field takes as long to render as the gate is closed.
#[derive(gracepoint::Event)]
#[event(name = "agent:slow")]
struct Slow {
    #[event(display)]
    gate: Gate,
}

struct Gate;

/// 0: nobody is there; 1: somebody waits; 2: open.
static GATE: AtomicU32 = AtomicU32::new(0);

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = GATE.compare_exchange(0, 1, Relaxed, Relaxed);
        while GATE.load(Relaxed) == 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        f.write_str("gate")
    }
}

/// Whether nothing has come yet.
fn is_silent(link: &UnixStream) -> bool {
    link.set_nonblocking(true).unwrap();
    let mut byte = [0];
    // SAFETY: peeks at one byte into a buffer of one byte.
    let n = unsafe {
        libc::recv(
            std::os::fd::AsRawFd::as_raw_fd(link),
            byte.as_mut_ptr().cast(),
            1,
            libc::MSG_PEEK,
        )
    };
    link.set_nonblocking(false).unwrap();
    n < 0
}

fn ask(link: &mut UnixStream, request: &Message) -> Message {
    link.write_all(&request.to_frame()).unwrap();
    read(link, 1).pop().unwrap()
}

/// A stop that waits for a thread in the middle of an event holds up its own peer alone, and in the
/// end names the thread.
#[test]
fn a_stop_that_waits_holds_up_nobody_else() {
    let _no_crowd = CROWD.read().unwrap_or_else(PoisonError::into_inner);
    let (mut stopping, mut other) = (connect(), connect());
    read(&mut stopping, 1);
    read(&mut other, 1);
    let create = Create { globs: vec!["agent:slow".into()], ..Create::default() };
    let Message::Created(created) = ask(&mut stopping, &Message::Create(create)) else { panic!() };
    let id = created.session;
    let mut held_up = 0;
    // A machine may stop for half a second where nothing else does: once in five will do.
    for attempt in 1..=5 {
        assert!(matches!(ask(&mut stopping, &Message::Start(id)), Message::Started(_)));
        GATE.store(0, Relaxed);
        let inside = std::thread::spawn(|| gracepoint::trace!(Slow { gate: Gate }));
        while GATE.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        stopping.write_all(&Message::Stop(id).to_frame()).unwrap();
        // Twice, so that the stop has been taken up before the second answer.
        for _ in 0..2 {
            assert!(matches!(ask(&mut other, &Message::List), Message::Events(_)));
        }
        held_up += u32::from(!is_silent(&stopping));
        let Some(Message::Stopped(stopped)) = read(&mut stopping, 1).pop() else { panic!() };
        assert!(!stopped.settled && !stopped.holdouts.is_empty(), "{stopped:?}");
        GATE.store(2, Relaxed);
        inside.join().unwrap();
        if held_up < attempt {
            return;
        }
    }
    panic!("others wait for a stop");
}

/// Connections that say nothing give way to one that does, however many there are.
#[test]
fn silent_connections_lock_nobody_out() {
    let _crowd = CROWD.write().unwrap_or_else(PoisonError::into_inner);
    let silent: Vec<_> = (0..300).map(|_| UnixStream::connect(agent()).unwrap()).collect();
    for _ in 0..3 {
        let mut link = connect();
        link.write_all(&Message::List.to_frame()).unwrap();
        assert!(matches!(read(&mut link, 2)[..], [Message::Hello(_), Message::Events(_)]));
        drop(link);
    }
    drop(silent);
}

/// Whether the agent closes the connection after these bytes, and what it says before.
fn refused(bytes: &[u8]) -> Option<String> {
    let mut link = connect();
    link.write_all(bytes).unwrap();
    let mut all = Vec::new();
    let _ = link.read_to_end(&mut all); // reset where it did not read all that was sent
    let (_, hello) = next_frame(&all, MAX_REPLY).unwrap().unwrap();
    let (payload, _) = next_frame(&all[hello..], MAX_REPLY).unwrap()?;
    match Message::parse(payload).unwrap() {
        Message::Failure(failure) => Some(failure.code),
        other => panic!("{other:?}"),
    }
}

/// A message that is too large is refused at its length, one that is cut at its first byte too many;
/// half a message waits for its other half, and costs what it holds.
#[test]
fn oversized_and_broken_messages_are_refused() {
    let _no_crowd = CROWD.read().unwrap_or_else(PoisonError::into_inner);
    let length = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    assert_eq!(refused(&length(MAX_REQUEST + 1)).as_deref(), Some("protocol"));
    assert_eq!(refused(&[0xff; 64]).as_deref(), Some("protocol"));
    assert_eq!(refused(&length(0)).as_deref(), Some("protocol"));
    let mut cut = Message::Start(1).to_frame();
    cut[10] = 200; // a field that is longer than the message
    assert_eq!(refused(&cut).as_deref(), Some("protocol"));
    let mut halves = connect();
    let frame = Message::List.to_frame();
    halves.write_all(&frame[..3]).unwrap();
    read(&mut halves, 1);
    let mut other = connect();
    read(&mut other, 1);
    assert!(matches!(ask(&mut other, &Message::List), Message::Events(_)));
    halves.write_all(&frame[3..]).unwrap();
    assert!(matches!(read(&mut halves, 1)[..], [Message::Events(_)]));
}
