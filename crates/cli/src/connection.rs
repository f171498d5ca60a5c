//! One connection to an agent: frames in and out of a socket that never blocks.
//!
//! The peer is not trusted. A frame is bounded by [`MAX_REPLY`], a wait by its deadline (for the
//! whole message, not for each piece of it), and descriptors that nobody asked for are closed.

use gracepoint_wire::control::{Hello, MAX_REPLY, Message, next_frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest path that fits in a socket address, its NUL included.
const SUN_PATH: usize = 108;
/// Bytes taken from the socket at once.
const CHUNK: usize = 64 << 10;

/// Why no further message comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The peer closed its end, or died.
    Closed,
    /// Nothing came in time.
    Silent,
    /// What came is no message.
    Garbled(String),
}

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    /// Pid of the listener in our pid namespace; 0 where it has none there.
    pub(crate) pid: u32,
    /// Uid of the listener.
    pub(crate) uid: u32,
    incoming: Vec<u8>,
    /// Bytes at the front of `incoming` that are done with.
    taken: usize,
    outgoing: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    closed: bool,
}

impl Connection {
    /// Connects to the socket at `path`; never waits.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens any more, `WouldBlock` when somebody does and never
    /// accepts, `NotFound` and `PermissionDenied` as usual.
    pub(crate) fn open(path: &Path) -> io::Result<Connection> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let short = ShortPath::of(path)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&*short.path)?)?;
        // rustix takes the pid to be non-zero, but for a listener outside our pid namespace it is 0.
        let peer =
            nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
        Ok(Connection {
            socket,
            pid: peer.pid().try_into().unwrap_or(0),
            uid: peer.uid(),
            incoming: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            descriptors: Vec::new(),
            closed: false,
        })
    }

    /// Puts a message on its way. What the socket does not take now goes with the next call of
    /// anything here; that the peer is gone shows when receiving.
    pub(crate) fn send(&mut self, message: &Message) {
        self.outgoing.extend_from_slice(&message.to_frame());
        self.push();
    }

    /// Says who we are.
    pub(crate) fn greet(&mut self) {
        self.send(&Message::Hello(Hello::current(None)));
    }

    fn push(&mut self) {
        let mut sent = 0;
        while sent < self.outgoing.len() && !self.closed {
            match rustix::net::send(&self.socket, &self.outgoing[sent..], SendFlags::NOSIGNAL) {
                Ok(n) => sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // What the peer said before it went may still be read.
                Err(_) => sent = self.outgoing.len(),
            }
        }
        self.outgoing.drain(..sent);
    }

    /// The next message, if one is here.
    pub(crate) fn try_receive(&mut self) -> Result<Option<Message>, Lost> {
        self.push();
        loop {
            let garbled = |e: gracepoint_wire::Error| Lost::Garbled(e.to_string());
            if let Some((payload, len)) =
                next_frame(&self.incoming[self.taken..], MAX_REPLY).map_err(garbled)?
            {
                let message = Message::parse(payload);
                self.taken += len;
                return message.map(Some).map_err(garbled);
            }
            if self.closed {
                return Err(Lost::Closed);
            }
            if !self.pull() {
                return if self.closed { Err(Lost::Closed) } else { Ok(None) };
            }
        }
    }

    /// Takes what the socket has; false when it has nothing.
    fn pull(&mut self) -> bool {
        self.incoming.drain(..self.taken);
        self.taken = 0;
        let old = self.incoming.len();
        self.incoming.resize(old + CHUNK, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let result = loop {
            let mut parts = [IoSliceMut::new(&mut self.incoming[old..])];
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut control, flags) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors = descriptors.collect();
            }
        }
        let got = match result {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN) => {
                self.incoming.truncate(old);
                return false;
            }
            Err(_) => 0,
        };
        self.incoming.truncate(old + got);
        self.closed = got == 0;
        got > 0
    }

    /// The next message, waiting until `deadline`.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Result<Message, Lost> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Lost::Silent);
            }
            wait_for(&[(self.as_fd(), self.interest())], left);
        }
    }

    /// The descriptor that came last.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        let last = self.descriptors.pop();
        self.descriptors.clear();
        last
    }

    /// What to poll for.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.outgoing.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of `descriptors` is ready, or `most` is over. A signal also ends the wait.
pub(crate) fn wait_for(descriptors: &[(BorrowedFd<'_>, PollFlags)], most: Duration) {
    let mut fds: Vec<PollFd<'_>> =
        descriptors.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    let timeout = Timespec::try_from(most).ok();
    // An error here is EINTR or, at worst, a wait that did not happen; callers have deadlines.
    let _ = poll(&mut fds, timeout.as_ref());
}

/// A path that fits in a socket address: the path itself, or a detour through its directory.
struct ShortPath {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl ShortPath {
    fn of(path: &Path) -> io::Result<ShortPath> {
        if path.as_os_str().as_bytes().len() < SUN_PATH {
            return Ok(ShortPath { path: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let flags = i32::try_from(flags.bits()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(parent)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(ShortPath { path: short, _directory: Some(directory.into()) })
    }
}
