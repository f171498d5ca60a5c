//! The files of a flight recorder, in the directory that `GRACEPOINT_FLIGHT` names: `PID.gp1.flight`
//! is the arena, which the program writes until it ends, however it ends; `PID.gp1.about` says what
//! is needed to read it without the program, and is whole before the first event.
//!
//! ```text
//!   0 magic     GPABOUT1
//!   8 header    the first 128 bytes of the arena's header
//! 136 frames    as on the socket: the agent's hello, then the reply to `Create`; later, replies to
//!               `Flush`, with objects that were loaded meanwhile
//! ```

use crate::arena::{ArenaHeader, TRIPLE_LOCK_AT};
use crate::control::{Created, Flushed, Hello, MAX_REPLY, Message, Module, Program, next_frame};
use crate::{Error, Result};

/// What follows the pid in an arena's name.
pub const ARENA_SUFFIX: &str = ".gp1.flight";
/// What follows the pid in the name of its description.
pub const ABOUT_SUFFIX: &str = ".gp1.about";
/// Longest description that is read.
pub const MOST_ABOUT: u64 = MAX_REPLY as u64;

const MAGIC: &[u8; 8] = b"GPABOUT1";

/// What is needed to read a flight recorder's arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The program.
    pub program: Program,
    /// How the arena is laid out; what lies in the arena itself may have been scribbled on.
    pub arena: ArenaHeader,
    /// What is in it.
    pub created: Created,
}

impl About {
    /// The content of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.arena.to_bytes());
        bytes.extend(Message::Hello(Hello::current(Some(self.program.clone()))).to_frame());
        bytes.extend(Message::Created(self.created.clone()).to_frame());
        bytes
    }

    /// What to append to the file when the program has loaded more objects.
    pub fn later(modules: Vec<Module>) -> Vec<u8> {
        Message::Flushed(Flushed { pages: 0, modules }).to_frame()
    }

    /// Reads the content of the file.
    ///
    /// # Errors
    /// When it is cut, of another version, or no such file at all.
    pub fn parse(bytes: &[u8]) -> Result<About> {
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| Error::new("not the description of a flight recorder"))?;
        let (header, mut rest) = rest
            .split_at_checked(TRIPLE_LOCK_AT)
            .ok_or_else(|| Error::new("the description of the flight recorder is cut"))?;
        let arena = ArenaHeader::parse(header)?;
        let (mut program, mut created, mut later) = (None, None, Vec::new());
        while let Some((payload, taken)) = next_frame(rest, MAX_REPLY)? {
            match Message::parse(payload)? {
                Message::Hello(hello) if Hello::current(None).speaks_to(&hello) => {
                    program = hello.program;
                }
                Message::Hello(_) => return Err(Error::new("it is of another version")),
                Message::Created(found) => created = Some(found),
                Message::Flushed(flushed) => later.extend(flushed.modules),
                _ => {}
            }
            rest = &rest[taken..];
        }
        match (program, created) {
            (Some(program), Some(mut created)) => {
                created.modules.extend(later);
                Ok(About { program, arena, created })
            }
            _ => Err(Error::new("the description of the flight recorder is cut")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Source, Triple};
    use crate::schema::{Context, loss_event};

    #[test]
    fn descriptions_round_trip_and_cut_ones_are_errors() {
        let clock = Clock {
            source: Source::Tsc,
            freq_hz: 7,
            boot_id: [9; 16],
            triples: vec![Triple { ticks: 1, mono_ns: 2, real_ns: 3 }],
        };
        let events = vec![loss_event()];
        let about = About {
            program: Program { name: "kv".into(), pid: 12, ..Program::default() },
            arena: ArenaHeader::lay_out(4096, 10, 17, 5),
            created: Created {
                session: 1,
                events,
                clock,
                context: Context::default(),
                modules: vec![Module { path: "/bin/kv".into(), ..Module::default() }],
            },
        };
        let bytes = about.to_bytes();
        assert_eq!(About::parse(&bytes).as_ref(), Ok(&about));
        let later =
            Module { path: "/lib/plugin.so".into(), build_id: vec![1], ..Module::default() };
        let frame = About::later(vec![later.clone()]);
        let more = About::parse(&[bytes.as_slice(), &frame].concat()).unwrap();
        assert_eq!(more.created.modules[1], later);
        for end in 0..frame.len() {
            let cut = [&bytes, &frame[..end]].concat();
            assert_eq!(About::parse(&cut).as_ref(), Ok(&about), "a later frame cut at {end}");
        }
        for end in 0..bytes.len() {
            assert!(About::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}
