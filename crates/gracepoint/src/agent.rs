//! The agent: one thread behind a Unix socket that lists events, makes sessions, hands out arenas
//! and takes pages back. It sleeps without a timeout while nothing is recorded.
//!
//! What a peer sends is bounded and checked: frames by `control::MAX_REQUEST` and in how long the rest of one may
//! take to come, connections by [`MOST_PEERS`], requests in a row by [`IN_A_ROW`], replies that a peer does not read in `peer`.
//! A peer that breaks a rule loses its connection and its sessions; the program goes on.
//!
//! Nothing here waits but for the next thing to do. A request that has to wait for hits under way
//! (`Stop`, `Reset`) becomes a [`Pause`]: its peer waits, the others are served.

mod descriptors;
mod held;
mod launch;
mod peer;
mod requests;

pub(crate) use descriptors::{child_after_fork, remember};
pub(crate) use launch::Launch;

use crate::context::has_frame_pointers;
use crate::dynamic::registry;
use crate::flight::Flight;
use crate::key::TRACE;
use crate::why::{self, Watch};
use crate::{clock, sys, tracer};
use descriptors::forget;
use gracepoint_rcu::Progress;
use gracepoint_wire::clock::Triple;
use gracepoint_wire::control::{Failure, Hello, Message, Program};
use held::{Held, Log};
use peer::Peer;
use requests::{Pause, Reply};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most connections at once. Another takes the place of the oldest that has not said hello, if there
/// is such a one, or else is closed at once.
const MOST_PEERS: usize = 64;
/// Most connections that are accepted before it is the others' turn.
const ACCEPTED_IN_A_ROW: usize = 16;
/// Most requests of a peer that are answered before it is the others' turn.
const IN_A_ROW: usize = 64;
/// How often a running session's clock triple is renewed.
const TICK: Duration = Duration::from_secs(1);
/// The same where sessions overwrite.
const SHORT_TICK: Duration = Duration::from_millis(100);
/// The same where the program samples itself: threads that have come are not sampled before.
const SAMPLING_TICK: Duration = crate::sampler::LOOK;
/// Pause after a connection that could not be accepted.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause between two looks at hits under way, while a peer waits for them.
const LOOK: Duration = Duration::from_millis(5);

/// What the agent is told at its start.
pub(crate) struct Setup {
    pub(crate) listener: UnixListener,
    /// What the listener's descriptor names.
    pub(crate) identity: Option<(u64, u64)>,
    pub(crate) name: String,
    pub(crate) launched_by: String,
    pub(crate) most_bytes: u64,
    pub(crate) hook: Option<fn(&str)>,
    /// See [`Builder::watch`](crate::Builder::watch).
    pub(crate) watch: Option<Duration>,
    pub(crate) launch: Arc<Launch>,
    /// The session that `init` has begun.
    pub(crate) flight: Option<Flight>,
}

/// Path of the executable.
pub(crate) fn exe() -> String {
    std::env::current_exe().unwrap_or_default().to_string_lossy().into_owned()
}

struct Agent {
    setup: Setup,
    since: Triple,
    started: Instant,
    exe: String,
    /// The shared object that this runtime lies in; empty if it is the program itself.
    object: String,
    peers: Vec<Peer>,
    next_peer: u64,
    held: Vec<Held>,
    next_session: u64,
    pauses: Vec<Pause>,
    log: Log,
    watch: Option<Watch>,
    ticked: Instant,
    /// Nobody could be accepted: not to be tried again before this.
    deaf_until: Option<Instant>,
    /// A session was started, or refused, in this step: when the replies are sent, `init` may go on.
    decided: bool,
}

/// Runs the agent, for as long as its socket is its own.
///
/// Some programs close every descriptor they find when they become daemons. What the agent has is
/// therefore looked at (device and inode) before it is used or closed.
pub(crate) fn run(mut setup: Setup) {
    let log = Log::new(setup.hook);
    let watch = setup.watch.map(Watch::new);
    let flight = setup.flight.take().and_then(Held::flight);
    let object = crate::module::own_object().unwrap_or_default();
    let mut agent = Agent {
        setup,
        since: clock::triple(clock::source()),
        started: Instant::now(),
        exe: exe(),
        object: object.to_string_lossy().into_owned(),
        peers: Vec::new(),
        next_peer: 1,
        held: flight.into_iter().collect(),
        next_session: 1,
        pauses: Vec::new(),
        log,
        watch,
        ticked: Instant::now(),
        deaf_until: None,
        decided: false,
    };
    why::tell_outside();
    why::agent(true);
    while agent.step() {}
    why::agent(false);
    agent.retire();
    crate::start::agent_is_gone();
}

impl Agent {
    /// Waits for something to do, and does it. False when the program has taken our socket away.
    fn step(&mut self) -> bool {
        let listener = self.setup.listener.as_raw_fd();
        let deaf = self.deaf_until.is_some_and(|until| Instant::now() < until);
        let mut waits = vec![sys::Wait { fd: listener, read: !deaf, write: false, ready: false }];
        waits.extend(self.peers.iter().map(Peer::wait));
        let rest = self.peers.iter_mut().filter_map(Peer::rest_within).min();
        // A peer whose turn was over has more to ask.
        let more = self.peers.iter().any(Peer::is_due);
        let timeout = self.drive(rest);
        why::agent_is_busy(false);
        sys::poll(&mut waits, if more { 0 } else { timeout });
        why::agent_is_busy(true);
        if sys::identity(self.setup.listener.as_raw_fd()) != self.setup.identity {
            return false;
        }
        let mut gone = Vec::new();
        for polled in &waits[1..] {
            let at = self.peers.iter().position(|p| p.fd() == polled.fd);
            let Some(at) = at else { continue };
            if !self.serve(at, polled) {
                gone.push(self.peers[at].number);
            }
        }
        for peer in &mut self.peers {
            if peer.rest_within() == Some(Duration::ZERO) && !gone.contains(&peer.number) {
                peer.queue(&refusal("protocol", "the rest of the message did not come"), None);
                peer.flush();
                gone.push(peer.number);
            }
        }
        if std::mem::take(&mut self.decided) {
            self.setup.launch.change(|state| state.decided = true);
        }
        for number in gone {
            self.hang_up(number);
        }
        self.resume();
        if waits[0].ready {
            self.accept();
        }
        let reports = self.watch.as_mut().map(Watch::look).unwrap_or_default();
        reports.into_iter().for_each(|report| self.log.note(report));
        if self.is_recording() && self.ticked.elapsed() >= self.tick_every() {
            self.ticked = Instant::now();
            self.held.iter().for_each(Held::look_after);
        }
        true
    }

    /// Ends what there is, and touches no descriptor any more: the program has closed all it had,
    /// and their numbers may name its own files by now.
    fn retire(mut self) {
        while let Some(peer) = self.peers.last() {
            self.hang_up(peer.number);
        }
        self.held.drain(..).for_each(Held::end);
        self.pauses.drain(..).for_each(Pause::give_up);
        forget(self.setup.listener.into_raw_fd());
    }

    fn is_recording(&self) -> bool {
        self.held.iter().filter_map(Held::recording).any(|session| session.is_on())
    }

    /// Takes a step of the running grace period, if there is one. Milliseconds until something is due
    /// of itself, `rest` included; −1 for never.
    fn drive(&self, rest: Option<Duration>) -> i32 {
        let mut due: Option<Duration> = rest;
        let mut within = |time: Duration| due = Some(due.map_or(time, |due| due.min(time)));
        if self.is_recording() {
            within(self.tick_every().saturating_sub(self.ticked.elapsed()));
        }
        if let Some(watch) = &self.watch {
            within(watch.due());
        }
        if let Some(until) = self.deaf_until {
            within(until.saturating_duration_since(Instant::now()));
        }
        if !self.pauses.is_empty() {
            within(LOOK);
        }
        match TRACE.drive() {
            Progress::Idle => {}
            // One bounded step was taken, and the next may be taken at once.
            Progress::Advanced => return 0,
            Progress::Pending(delay) => within(delay),
        }
        // Rounded up: a grace period is not worth a busy loop.
        due.map_or(-1, |due| i32::try_from(due.as_millis()).unwrap_or(i32::MAX).saturating_add(1))
    }

    /// Where no recorder asks for the pages of idle threads, we look after them, more often; and where
    /// rates follow the load.
    fn tick_every(&self) -> Duration {
        let mut sessions = self.held.iter().filter_map(Held::recording);
        if sessions.clone().any(|session| session.is_on() && session.samples()) {
            return SAMPLING_TICK;
        }
        let alone = sessions.any(|session| session.ring.arena.overwrites() || session.adapts());
        if alone { SHORT_TICK } else { TICK }
    }

    fn accept(&mut self) {
        self.deaf_until = None;
        for _ in 0..ACCEPTED_IN_A_ROW {
            let stream = match self.setup.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Out of descriptors, say: the connection waits a little.
                    self.deaf_until = Some(Instant::now() + RETRY);
                    return;
                }
            };
            let Some(who) = admitted(&stream) else { continue };
            if stream.set_nonblocking(true).is_err() || !self.make_room() {
                continue; // closes it
            }
            let identity = remember(stream.as_raw_fd());
            let mut peer = Peer::new(self.next_peer, stream, identity, who);
            self.next_peer += 1;
            peer.queue(&Message::Hello(Hello::current(Some(self.program()))), None);
            let (number, alive) = (peer.number, peer.flush());
            self.peers.push(peer);
            if !alive {
                self.hang_up(number);
            }
        }
    }

    /// Makes room for a connection: where all places are taken, by closing the one that has been silent
    /// for the longest time. False if all have said hello.
    fn make_room(&mut self) -> bool {
        if self.peers.len() < MOST_PEERS {
            return true;
        }
        // Whoever has said hello in the meantime has a right to be heard.
        for at in 0..self.peers.len() {
            if !self.peers[at].greeted {
                self.serve_now(at);
            }
        }
        let silent = self.peers.iter().filter(|peer| !peer.greeted).map(|peer| peer.number).min();
        silent.inspect(|&number| self.hang_up(number)).is_some()
    }

    fn program(&self) -> Program {
        let events = tracer::catalogue();
        Program {
            name: self.setup.name.clone(),
            pid: std::process::id(),
            exe: self.exe.clone(),
            since_ns: self.since.real_ns,
            patching: tracer::patching().into(),
            launched_by: self.setup.launched_by.clone(),
            events_on: events.iter().filter(|known| known.on > 0).count() as u32,
            events: events.len() as u32,
            waiting: self.setup.launch.is_waiting(),
            object: self.object.clone(),
            makes_events: registry::is_used(),
            frame_pointers: has_frame_pointers(),
            sessions: self.held.iter().map(Held::label).collect(),
        }
    }

    /// A peer's turn, after it was waited for as `polled` says. False when the connection is over.
    fn serve(&mut self, at: usize, polled: &sys::Wait) -> bool {
        // What is ready though nothing was to be read is an end.
        if polled.ready && !polled.read {
            return false;
        }
        let peer = &mut self.peers[at];
        if !peer.is_ours() || !peer.flush() {
            return false;
        }
        if polled.ready && peer.is_wanted() && !peer.receive() {
            return false;
        }
        self.answer_some(at)
    }

    /// The turn of a peer out of order, whether or not it has something to say.
    fn serve_now(&mut self, at: usize) -> bool {
        let fd = self.peers[at].fd();
        self.serve(at, &sys::Wait { fd, read: true, write: false, ready: true })
    }

    /// Answers what is whole, as far as the peer reads the answers, and sends. False when the connection
    /// is over.
    fn answer_some(&mut self, at: usize) -> bool {
        for _ in 0..IN_A_ROW {
            let peer = &mut self.peers[at];
            if !peer.is_due() {
                break;
            }
            let Some(message) = peer.next_request() else { break };
            let (reply, last) = match message {
                Ok(message) => self.answer(at, message),
                Err(error) => (Reply::Plain(refusal("protocol", error.to_string())), true),
            };
            let peer = &mut self.peers[at];
            match reply {
                Reply::None => {}
                Reply::Later => peer.waiting = true,
                Reply::Plain(message) => peer.queue(&message, None),
                Reply::WithArena(message, arena) => peer.queue(&message, arena),
            }
            if last {
                peer.flush();
                return false;
            }
        }
        self.peers[at].flush()
    }

    /// Ends a connection and the sessions that it made, but for those to be kept.
    fn hang_up(&mut self, number: u64) {
        if let Some(at) = self.peers.iter().position(|peer| peer.number == number) {
            let peer = self.peers.swap_remove(at);
            forget(peer.fd());
            peer.close();
        }
        let company = self.peers.iter().any(|peer| peer.greeted);
        self.setup.launch.change(|state| state.company = company);
        self.abandon(number);
    }
}

fn refusal(code: &str, text: impl Into<String>) -> Message {
    Message::Failure(Failure { code: code.into(), text: text.into() })
}

/// The same user, or root; a program that nobody may inspect admits root alone.
fn admitted(stream: &UnixStream) -> Option<sys::PeerUser> {
    let who = sys::peer_user(stream.as_fd()).ok()?;
    let allowed = who.uid == 0 || who.uid == sys::user() && sys::dumpable();
    allowed.then_some(who)
}
