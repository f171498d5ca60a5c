//! A client of the agent, as a tool has it: for tests that list and record what a program has.

use gracepoint_wire::control::{Create, Created, Hello, MAX_REPLY, Message, Program, next_frame};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection to an agent. Everything that goes wrong is a panic.
pub(crate) struct Tool {
    link: UnixStream,
    inbox: Vec<u8>,
}

impl Tool {
    /// Connects; what the agent says of its program.
    pub(crate) fn connect(path: &Path) -> (Tool, Program) {
        let mut tool = Tool { link: UnixStream::connect(path).unwrap(), inbox: Vec::new() };
        let hello = tool.ask(&Message::Hello(Hello::current(None)));
        let Message::Hello(Hello { program: Some(program), .. }) = hello else { panic!() };
        (tool, program)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, message: &Message) -> Message {
        self.link.write_all(&message.to_frame()).unwrap();
        loop {
            if let Some((payload, taken)) = next_frame(&self.inbox, MAX_REPLY).unwrap() {
                let message = Message::parse(payload).unwrap();
                self.inbox.drain(..taken);
                return message;
            }
            let mut chunk = [0; 4096];
            let n = self.link.read(&mut chunk).unwrap();
            assert!(n > 0, "the agent answers");
            self.inbox.extend_from_slice(&chunk[..n]);
        }
    }

    /// Names of the events, and how many probes and sessions each is on for.
    pub(crate) fn events(&mut self) -> Vec<(String, u32)> {
        let Message::Events(events) = self.ask(&Message::List) else { panic!() };
        events.into_iter().map(|event| (event.schema.name, event.on)).collect()
    }

    /// Records the events that match.
    pub(crate) fn record(&mut self, globs: &[&str]) -> Created {
        let globs = globs.iter().map(|&glob| glob.to_owned()).collect();
        let create = Create { globs, buffer_bytes: 1 << 20, ..Create::default() };
        let created = self.ask(&Message::Create(create));
        let Message::Created(created) = created else { panic!("{created:?}") };
        let started = self.ask(&Message::Start(created.session));
        assert!(matches!(started, Message::Started(_)), "{started:?}");
        created
    }
}
