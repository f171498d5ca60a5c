//! The agent under peers that ask much, read slowly or not at all. The agent of this process is the
//! one that is tested; its tests run side by side and share it.
#![cfg(target_os = "linux")]

use gracepoint_wire::control::{Hello, MAX_REPLY, Message, next_frame};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
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
