//! What the agent answers, and that it sleeps while nobody says anything.

use super::{Place, record_myself, run, says};
use gracepoint_wire::control::{Hello, MAX_REPLY, Message, next_frame};
use libtest_mimic::Failed;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sends frames, then reads until the agent closes or has answered all with `replies` messages.
pub(crate) fn talk(path: &Path, frames: &[Vec<u8>], replies: usize) -> Vec<Message> {
    let mut link = UnixStream::connect(path).unwrap();
    for frame in frames {
        // The agent may hang up on us in the middle; what it said before is what counts.
        let _ = link.write_all(frame);
    }
    let (mut inbox, mut messages) = (Vec::new(), Vec::new());
    let mut chunk = [0; 4096];
    while messages.len() < replies {
        match link.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => inbox.extend_from_slice(&chunk[..n]),
        }
        while let Some((payload, taken)) = next_frame(&inbox, MAX_REPLY).unwrap() {
            messages.push(Message::parse(payload).unwrap());
            inbox.drain(..taken);
        }
    }
    messages
}

pub(crate) fn program_agent() {
    let path = match gracepoint::init() {
        Ok(gracepoint::Status::Listening(path)) => path,
        other => panic!("{other:?}"),
    };
    let hello = |major| Message::Hello(Hello { major, ..Hello::default() }).to_frame();
    let list = Message::List.to_frame();
    let refused = |messages: &[Message], wanted: &str| match messages.last() {
        Some(Message::Failure(failure)) => assert_eq!(failure.code, wanted, "{messages:?}"),
        _ => panic!("{messages:?}"),
    };
    // Neighbours in version understand each other; others are told.
    for major in [0, 1, 2] {
        let messages = talk(&path, &[hello(major), list.clone()], 2);
        assert!(matches!(&messages[..], [Message::Hello(_), Message::Events(_)]), "{messages:?}");
    }
    refused(&talk(&path, &[hello(3), list.clone()], 9), "unsupported");
    // Requests from the future are answered, and the connection goes on.
    let unknown = Message::Unknown(999).to_frame();
    let messages = talk(&path, &[hello(1), unknown, list.clone()], 3);
    refused(&messages[..2], "unsupported");
    assert!(matches!(messages[2], Message::Events(_)));
    // Silence is golden, rubbish is not.
    refused(&talk(&path, std::slice::from_ref(&list), 2), "protocol");
    refused(&talk(&path, &[hello(1), vec![0xff; 100]], 9), "protocol");
    refused(&talk(&path, &[hello(1), vec![8, 0, 0, 0, 8, 0, 0, 0, 1, 0, 9, 9]], 9), "protocol");
    // Another connection's session is nobody else's business; nor is one that never was.
    let _link = record_myself(&path);
    for verb in [Message::Stop(1), Message::Start(1), Message::Flush(1), Message::Stop(77)] {
        refused(&talk(&path, &[hello(1), verb.to_frame()], 2), "session");
    }
    talk(&path, &[hello(1), Message::Release(1, vec![(0, 0), (u32::MAX, 9)]).to_frame()], 1);
    // Half a message is waited for, and not for ever.
    refused(&talk(&path, &[hello(1), list[..list.len() - 1].to_vec()], 9), "protocol");
    // A hundred who say nothing, of whom only so many are let in, keep nobody out.
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let idle: Vec<_> = (0..100).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let messages = talk(&path, &[hello(1), list.clone()], 2);
    assert!(matches!(messages[1], Message::Events(_)));
    assert!(
        open() - before - idle.len() <= 64,
        "nor do they take more of the program's descriptors"
    );
    drop(idle);
    let messages = talk(&path, &[hello(1), list], 2);
    assert!(matches!(messages[1], Message::Events(_)));
    println!("the agent keeps to the protocol");
}

pub(crate) fn the_agent_keeps_to_the_protocol() -> Result<(), Failed> {
    let place = Place::new("agent");
    says(&run("agent", &place.0), "the agent keeps to the protocol")
}

/// How often the agent's thread went to sleep so far.
fn naps_of_the_agent() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let mut statuses = tasks.map(|task| fs::read_to_string(task.join("status")).unwrap());
    let status = statuses.find(|status| status.starts_with("Name:\tgracepoint\n")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// It sleeps on while a hundred connections say nothing: who wakes up by the clock to look after them is never seen
/// to sleep through so long a time, however often one looks.
pub(crate) fn program_silent() {
    let Ok(gracepoint::Status::Listening(path)) = gracepoint::init() else { panic!("no agent") };
    let _silent: Vec<_> = (0..100).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let hello = Message::Hello(Hello::current(None)).to_frame();
    talk(&path, &[hello, Message::List.to_frame()], 2); // by then all have been accepted
    let sleeps_on = |_| {
        let before = naps_of_the_agent();
        std::thread::sleep(Duration::from_millis(500));
        naps_of_the_agent() == before
    };
    assert!((0..20).any(sleeps_on), "something wakes the agent");
    println!("the agent sleeps");
}

pub(crate) fn silent_connections_do_not_wake_the_agent() -> Result<(), Failed> {
    let place = Place::new("silent");
    says(&run("silent", &place.0), "the agent sleeps")
}
