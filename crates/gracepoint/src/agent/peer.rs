//! One connection of the agent: what has come and is not answered, what is answered and not sent.
//!
//! Both are bounded, whatever the peer does. Its bytes are read a chunk at a time, and not at all
//! while a request of it waits for its turn, or while it owes the reading of [`ENOUGH_UNSENT`]
//! bytes of replies: it then waits for itself, and nobody else does.

use crate::sys;
use gracepoint_wire::control::{MAX_REQUEST, Message, next_frame};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes of replies that a peer may leave unread before it gets no more.
const ENOUGH_UNSENT: usize = 256 << 10;
/// Bytes read from a peer at a time.
const CHUNK: usize = 16 << 10;
/// How long the rest of a request may take to come.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// See the top.
pub(super) struct Peer {
    /// No other connection of this agent ever has it; descriptors are used again.
    pub(super) number: u64,
    pub(super) who: sys::PeerUser,
    stream: UnixStream,
    /// What its descriptor names.
    identity: Option<(u64, u64)>,
    inbox: Vec<u8>,
    /// Bytes at the front of `inbox` that are answered.
    taken: usize,
    /// Since when there is half a request in it.
    half: Option<Instant>,
    outbox: VecDeque<Outgoing>,
    unsent: usize,
    pub(super) greeted: bool,
    /// A request of it is under way, whose reply comes later.
    pub(super) waiting: bool,
}

struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// The arena's descriptor, which goes with the first byte.
    arena: Option<OwnedFd>,
}

impl Peer {
    /// A connection that does not block, and what its descriptor names.
    pub(super) fn new(
        number: u64,
        stream: UnixStream,
        identity: Option<(u64, u64)>,
        who: sys::PeerUser,
    ) -> Peer {
        Peer {
            number,
            who,
            stream,
            identity,
            inbox: Vec::new(),
            taken: 0,
            half: None,
            outbox: VecDeque::new(),
            unsent: 0,
            greeted: false,
            waiting: false,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Does its descriptor still name its socket?
    pub(super) fn is_ours(&self) -> bool {
        sys::identity(self.fd()) == self.identity
    }

    /// Closes the connection, or leaves a descriptor alone that is not ours any more.
    pub(super) fn close(self) {
        if !self.is_ours() {
            let _not_ours_to_close = self.stream.into_raw_fd();
        }
    }

    /// Whether another request of it may be answered: none is under way, and it reads what it is sent.
    fn may_ask(&self) -> bool {
        !self.waiting && self.unsent <= ENOUGH_UNSENT
    }

    /// Whether a whole request, or what cannot be one, has come and is not answered.
    fn has_asked(&self) -> bool {
        !matches!(next_frame(&self.inbox[self.taken..], MAX_REQUEST), Ok(None))
    }

    /// Whether it is to be answered now.
    pub(super) fn is_due(&self) -> bool {
        self.may_ask() && self.has_asked()
    }

    /// Whether more is to be read from it.
    pub(super) fn is_wanted(&self) -> bool {
        self.may_ask() && !self.has_asked()
    }

    /// What to wait for.
    pub(super) fn wait(&self) -> sys::Wait {
        let write = !self.outbox.is_empty();
        sys::Wait { fd: self.fd(), read: self.is_wanted(), write, ready: false }
    }

    /// Reads a chunk of what has come. False when the connection is over.
    pub(super) fn receive(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.inbox.drain(..self.taken);
                self.taken = 0;
                self.inbox.extend_from_slice(&chunk[..n]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// The next request; `None` while it is not here as a whole.
    pub(super) fn next_request(&mut self) -> Option<gracepoint_wire::Result<Message>> {
        match next_frame(&self.inbox[self.taken..], MAX_REQUEST) {
            Ok(Some((payload, len))) => {
                let message = Message::parse(payload);
                self.taken += len;
                self.half = None;
                Some(message)
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// How long the rest of a request may still take; `None` when there is no half of one.
    pub(super) fn rest_within(&mut self) -> Option<Duration> {
        let is_half = self.is_wanted() && self.inbox.len() > self.taken;
        self.half = is_half.then(|| self.half.unwrap_or_else(Instant::now));
        self.half.map(|since| REST_WITHIN.saturating_sub(since.elapsed()))
    }

    pub(super) fn queue(&mut self, message: &Message, arena: Option<OwnedFd>) {
        let bytes = message.to_frame();
        self.unsent += bytes.len();
        self.outbox.push_back(Outgoing { bytes, sent: 0, arena });
    }

    /// Sends what waits, as far as the peer reads. False when the connection is over.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(out) = self.outbox.front_mut() {
            let arena = out.arena.as_ref().map(AsFd::as_fd);
            match sys::send(self.stream.as_fd(), &out.bytes[out.sent..], arena) {
                Ok(n) => {
                    out.sent += n;
                    self.unsent -= n;
                    out.arena = None;
                    if out.sent == out.bytes.len() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }
}
