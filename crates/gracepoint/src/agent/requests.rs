//! What peers ask for, and the answers.

use super::held::{Held, Kind};
use super::{Agent, refusal};
use crate::dynamic::registry;
use crate::key::TRACE;
use crate::session::{self, Counting, MOST_SESSIONS, Session};
use crate::{clock, sys, tracer};
use gracepoint_rcu::Cookie;
use gracepoint_wire::control::{Create, Flushed, Hello, Listed, Message, Stopped, WasReset};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Shortest time between a program's first triple and a session's, to measure the clock.
const BASELINE: Duration = Duration::from_millis(10);
/// How long a stop waits for threads that are inside a read section before it names them.
const SETTLE: Duration = Duration::from_millis(500);

/// A reply to a request.
pub(super) enum Reply {
    None,
    /// It comes when the [`Pause`] that was made is over.
    Later,
    Plain(Message),
    WithArena(Message, Option<OwnedFd>),
}

/// A request that waits for hits under way: for the grace period of `cookie`, but no longer than
/// [`SETTLE`].
pub(super) struct Pause {
    /// The connection that waits, by number.
    peer: u64,
    cookie: Cookie,
    deadline: Instant,
    then: Then,
}

/// What a pause is for.
enum Then {
    /// `Stop` of this session.
    Stop(u64),
    /// `Reset` by somebody of these sessions, which are nobody's any more.
    Reset(String, Vec<Held>),
}

impl Pause {
    /// The agent is going: what was paused is ended.
    pub(super) fn give_up(self) {
        if let Then::Reset(_, held) = self.then {
            held.into_iter().for_each(Held::end);
        }
    }
}

/// `pid 12 (uid 1000)`.
fn name(who: &sys::PeerUser) -> String {
    match who.pid {
        0 => format!("a process of another pid namespace (uid {})", who.uid),
        pid => format!("pid {pid} (uid {})", who.uid),
    }
}

impl Agent {
    /// The reply, and whether the connection is over after it.
    pub(super) fn answer(&mut self, at: usize, message: Message) -> (Reply, bool) {
        if let Message::Hello(hello) = message {
            self.peers[at].greeted = true;
            self.setup.launch.change(|state| state.company = true);
            if Hello::current(None).speaks_to(&hello) {
                return (Reply::None, false);
            }
            let text = format!(
                "the program speaks version {} and the tool {}; use a tool of the program's age",
                gracepoint_wire::ABI_MAJOR,
                hello.major
            );
            return (Reply::Plain(refusal("unsupported", text)), true);
        }
        if !self.peers[at].greeted {
            return (Reply::Plain(refusal("protocol", "say hello first")), true);
        }
        (self.request(at, message), false)
    }

    fn request(&mut self, at: usize, message: Message) -> Reply {
        match message {
            Message::List => {
                registry::changed(); // whoever declares events may know of more
                Reply::Plain(Message::Events(listing()))
            }
            Message::ListFunctions => Reply::Plain(Message::Functions(crate::function::list())),
            Message::Show => Reply::Plain(Message::Sessions(self.log.with(&self.held))),
            Message::Why => Reply::Plain(Message::Stuck(crate::why::answer())),
            Message::Create(create) => self.create(at, &create),
            Message::Count(create) => self.count(at, &create),
            Message::Attach { session, look } => self.attach(at, session, look),
            Message::Start(id) => {
                self.decided = true;
                self.with_held(at, id, Agent::start)
            }
            Message::Stop(id) => self.with_held(at, id, Agent::stop),
            Message::End(id) => self.with_held(at, id, |agent, _, held| {
                let held = agent.held.remove(held);
                agent.log.note(format!("{} ended", held.title()));
                held.end();
                Reply::Plain(Message::Done)
            }),
            Message::Reset => self.reset(at),
            Message::Stat(id) => self.with_held(at, id, |agent, _, held| {
                Reply::Plain(match &agent.held[held].kind {
                    Kind::Counting(counting) => Message::Counts(counting.counts()),
                    Kind::Recording(_) => refusal("session", "it records and does not count"),
                })
            }),
            Message::Flush(id) => self.with_held(at, id, |agent, _, held| {
                let flush = |session: &std::sync::Arc<Session>| {
                    // First the time: what was recorded by then is in closed pages afterwards, but for
                    // what is being written now.
                    session.tick();
                    Flushed { pages: session.ring.take_back(), modules: session.news() }
                };
                let flushed = agent.held[held].recording().map(flush);
                Reply::Plain(Message::Flushed(flushed.unwrap_or_default()))
            }),
            Message::Release(id, pages) => {
                let held = self.find(at, id);
                if let Some(session) = held.and_then(|held| self.held[held].recording()) {
                    for (page, ordinal) in pages {
                        session.ring.arena.give_back(page, ordinal);
                    }
                }
                Reply::None
            }
            Message::Proceed => {
                self.decided = true;
                Reply::Plain(Message::Done)
            }
            other => {
                let text = format!("the program does not know this request ({other:?})");
                Reply::Plain(refusal("unsupported", text))
            }
        }
    }

    /// The place of session `id` among those held, if this connection drains it.
    fn find(&self, at: usize, id: u64) -> Option<usize> {
        let number = self.peers[at].number;
        let ours = |held: &Held| held.consumer.is_some_and(|(peer, _)| peer == number);
        self.held.iter().position(|held| held.id() == id && ours(held))
    }

    /// The answer of `verb` to the peer `at` about a session that this connection drains.
    fn with_held(
        &mut self,
        at: usize,
        id: u64,
        verb: impl FnOnce(&mut Agent, usize, usize) -> Reply,
    ) -> Reply {
        match self.find(at, id) {
            Some(held) => verb(self, at, held),
            None => {
                let text = format!("this connection has no session {id}");
                Reply::Plain(refusal("session", text))
            }
        }
    }

    /// Why no further session can be made, if so.
    fn refuses(&self, wanted: &Create) -> Option<Message> {
        if self.held.iter().filter(|held| !held.is_flight()).count() >= MOST_SESSIONS {
            return Some(Message::Failure(session::too_many()));
        }
        let taken = |held: &Held| wanted.keep && held.keep && held.name == wanted.name;
        self.held.iter().find(|held| taken(held)).map(|held| {
            let text = format!(
                "{} is there already: `gracepoint show` tells what it is; extract it, reset, or \
                 choose another name with --session",
                held.title()
            );
            refusal("busy", text)
        })
    }

    fn create(&mut self, at: usize, wanted: &Create) -> Reply {
        if let Some(refusal) = self.refuses(wanted) {
            return Reply::Plain(refusal);
        }
        std::thread::sleep(BASELINE.saturating_sub(self.started.elapsed()));
        match Session::create(self.next_session, wanted, self.setup.most_bytes, None) {
            Ok((session, arena)) => {
                let reply = Message::Created(session.created(self.since));
                self.ticked = Instant::now();
                self.hold(at, Kind::Recording(session), wanted, arena.as_ref());
                Reply::WithArena(reply, arena)
            }
            Err(failure) => Reply::Plain(Message::Failure(failure)),
        }
    }

    fn count(&mut self, at: usize, wanted: &Create) -> Reply {
        if let Some(refusal) = self.refuses(wanted) {
            return Reply::Plain(refusal);
        }
        match Counting::create(self.next_session, wanted) {
            Ok((counting, memory)) => {
                let reply = Message::Created(counting.created(self.since));
                self.hold(at, Kind::Counting(counting), wanted, None);
                Reply::WithArena(reply, Some(memory))
            }
            Err(failure) => Reply::Plain(Message::Failure(failure)),
        }
    }

    fn hold(&mut self, at: usize, kind: Kind, wanted: &Create, arena: Option<&OwnedFd>) {
        self.next_session += 1;
        let peer = &self.peers[at];
        let mut held = Held::new(kind, wanted, &peer.who, peer.number);
        held.keep_arena(arena);
        self.log.note(format!("{} made by {}", held.title(), name(&peer.who)));
        self.held.push(held);
    }

    fn attach(&mut self, at: usize, id: u64, look: bool) -> Reply {
        let Some(held) = self.held.iter_mut().find(|held| held.id() == id) else {
            let text = format!("there is no session {id}: `gracepoint show` names them");
            return Reply::Plain(refusal("session", text));
        };
        let (Some(session), Some(arena)) = (held.recording(), &held.arena) else {
            return Reply::Plain(refusal("session", format!("{} has no buffer", held.title())));
        };
        if let (Some((_, pid)), false) = (held.consumer, look) {
            let text = format!("{} is being drained by pid {pid}: wait for it", held.title());
            return Reply::Plain(refusal("busy", text));
        }
        let arena = match arena.copy() {
            Ok(arena) => arena,
            Err(error) => {
                let text = format!("the buffer of {} is out of reach: {error}", held.title());
                return Reply::Plain(refusal("memory", text));
            }
        };
        let reply = Message::Created(session.created(self.since));
        let peer = &self.peers[at];
        if !look {
            held.consumer = Some((peer.number, peer.who.pid));
        }
        let verb = if look { "looked at" } else { "taken over" };
        self.log.note(format!("{} {verb} by {}", held.title(), name(&peer.who)));
        Reply::WithArena(reply, Some(arena))
    }

    fn start(&mut self, _at: usize, held: usize) -> Reply {
        let held = &self.held[held];
        let reply = match &held.kind {
            Kind::Recording(session) => match session.start() {
                Ok(()) => Message::Started(session.tick()),
                Err(failure) => Message::Failure(failure),
            },
            Kind::Counting(counting) => match counting.switch_on() {
                Ok(()) => Message::Started(clock::triple(clock::source())),
                Err(error) => refusal("patching", error.to_string()),
            },
        };
        if matches!(reply, Message::Started(_)) {
            self.log.note(format!("{} started", held.title()));
        }
        Reply::Plain(reply)
    }

    fn stop(&mut self, at: usize, held: usize) -> Reply {
        let held = &self.held[held];
        held.switch_off();
        let id = held.id();
        let cost = held.recording().and_then(|session| session.cost_of_samples());
        let cost = cost.map_or_else(String::new, |cost| format!("; it {cost}"));
        self.log.note(format!("{} stopped{cost}", held.title()));
        self.pause(at, Then::Stop(id))
    }

    /// Switches off what there is, at once; what it was is nobody's from here on.
    fn reset(&mut self, at: usize) -> Reply {
        let held = std::mem::take(&mut self.held);
        held.iter().for_each(Held::switch_off);
        let by = name(&self.peers[at].who);
        self.log.note(format!("reset by {by}"));
        self.pause(at, Then::Reset(by, held))
    }

    fn pause(&mut self, at: usize, then: Then) -> Reply {
        let (cookie, deadline) = (TRACE.start_poll(), Instant::now() + SETTLE);
        self.pauses.push(Pause { peer: self.peers[at].number, cookie, deadline, then });
        Reply::Later
    }

    /// Ends the pauses that are over.
    pub(super) fn resume(&mut self) {
        let now = Instant::now();
        let (over, left) = std::mem::take(&mut self.pauses)
            .into_iter()
            .partition(|pause| TRACE.poll_state(pause.cookie) || now >= pause.deadline);
        self.pauses = left;
        let over: Vec<Pause> = over;
        for pause in over {
            let settled = TRACE.poll_state(pause.cookie);
            let reply = match pause.then {
                Then::Stop(id) => self.stopped(id, settled),
                Then::Reset(by, held) => Message::WasReset(self.was_reset(held, settled, &by)),
            };
            if let Some(peer) = self.peers.iter_mut().find(|peer| peer.number == pause.peer) {
                peer.waiting = false;
                peer.queue(&reply, None);
                peer.flush(); // that it is gone shows when it is served
            }
        }
    }

    fn stopped(&self, id: u64, settled: bool) -> Message {
        match self.held.iter().find(|held| held.id() == id).map(|held| &held.kind) {
            Some(Kind::Recording(session)) => Message::Stopped(session.settled(settled)),
            Some(Kind::Counting(_)) => {
                let (at, holdouts) = (clock::triple(clock::source()), session::holdouts(settled));
                Message::Stopped(Stopped { settled, holdouts, at, ..Stopped::default() })
            }
            None => refusal("session", format!("session {id} was ended meanwhile")),
        }
    }

    /// Ends what was reset, and tells those who were draining it.
    fn was_reset(&mut self, held: Vec<Held>, settled: bool, by: &str) -> WasReset {
        let sessions = held.len() as u32;
        for held in held {
            let stopped = held.recording().map(|session| session.settled(settled));
            let consumer = held.consumer.map(|(number, _)| number);
            let peer = self.peers.iter_mut().find(|peer| Some(peer.number) == consumer);
            if let Some(peer) = peer {
                let (session, by) = (held.id(), by.to_owned());
                let stopped = stopped.unwrap_or_default();
                peer.queue(&Message::Ended { session, by, stopped }, None);
                peer.flush();
            }
            held.end();
        }
        WasReset { sessions, holdouts: session::holdouts(settled) }
    }

    /// A connection is gone: ends the sessions that it made, but for those to be kept.
    pub(super) fn abandon(&mut self, number: u64) {
        let (theirs, others): (Vec<Held>, _) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.consumer.is_some_and(|(peer, _)| peer == number));
        self.held = others;
        for mut held in theirs {
            held.consumer = None;
            if held.keep {
                self.held.push(held);
            } else {
                self.log.note(format!("{} ended with its connection", held.title()));
                held.end();
            }
        }
        self.held.sort_by_key(Held::id);
    }
}

fn listing() -> Vec<Listed> {
    tracer::catalogue()
        .into_iter()
        .map(|known| Listed {
            schema: known.schema,
            sites: known.sites,
            spans: known.spans,
            on: known.on,
            location: known.location,
        })
        .collect()
}
