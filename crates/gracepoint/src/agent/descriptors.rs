//! The descriptors that the agent has open: for a forked child to close, and for the agent itself to
//! know whether a number still names what it did. Some programs close every descriptor they find.

use super::MOST_PEERS;
use crate::session::MOST_SESSIONS;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicU64};

/// The listener, the peers, and an arena for each session, that of the flight recorder included.
const MOST: usize = 1 + MOST_PEERS + MOST_SESSIONS + 1;

/// A descriptor of the agent.
struct Open {
    /// −1 where there is none.
    fd: AtomicI32,
    /// What it named when it was noted: device and inode.
    device: AtomicU64,
    inode: AtomicU64,
}

/// Descriptors of the agent, for a forked child to close.
static OPEN: [Open; MOST] = [const {
    Open { fd: AtomicI32::new(-1), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
}; MOST];

/// Notes a descriptor for forked children to close; what it names. One caller at a time.
pub(crate) fn remember(fd: RawFd) -> Option<(u64, u64)> {
    let (device, inode) = sys::identity(fd)?;
    if let Some(place) = OPEN.iter().find(|place| place.fd.load(Relaxed) == -1) {
        place.device.store(device, Relaxed);
        place.inode.store(inode, Relaxed);
        place.fd.store(fd, Release); // after what it is checked by
    }
    Some((device, inode))
}

pub(super) fn forget(fd: RawFd) {
    for place in &OPEN {
        let _ = place.fd.compare_exchange(fd, -1, Relaxed, Relaxed);
    }
}

/// In a forked child: the agent's sockets are the parent's business. A number that names something
/// else by now is the program's.
pub(crate) fn child_after_fork() {
    for place in &OPEN {
        let fd = place.fd.swap(-1, Acquire);
        let noted = (place.device.load(Relaxed), place.inode.load(Relaxed));
        if fd >= 0 && sys::identity(fd) == Some(noted) {
            sys::close(fd);
        }
    }
}

/// A descriptor that the agent keeps, as long as the program leaves it alone.
pub(super) struct Kept {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    identity: Option<(u64, u64)>,
}

impl Kept {
    pub(super) fn new(fd: OwnedFd) -> Kept {
        let identity = remember(fd.as_raw_fd());
        Kept { fd: Some(fd), identity }
    }

    /// Another descriptor for the same thing.
    ///
    /// # Errors
    /// When the program has closed it, or has no descriptors left.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        match &self.fd {
            Some(fd) if sys::identity(fd.as_raw_fd()) == self.identity => fd.try_clone(),
            _ => Err(io::Error::other("the program has closed it")),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        forget(fd.as_raw_fd());
        if sys::identity(fd.as_raw_fd()) != self.identity {
            let _not_ours_to_close = fd.into_raw_fd();
        }
    }
}
