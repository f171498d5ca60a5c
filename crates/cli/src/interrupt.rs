//! Ctrl-C and its relatives, as something that a loop can poll.

use crate::failure::{Failure, Result};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Signal that the kernel sends when a file would exceed its limit; ignored, so that the write
/// fails and the trace can be ended in good order.
const SIGXFSZ: i32 = 25;
/// What a shell reports for a program ended by Ctrl-C.
pub(crate) const STATUS: u8 = 130;

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C: the whole foreground process group has it.
    Interrupt,
    /// Sent to us alone, most likely.
    Terminate,
}

/// Catches SIGINT, SIGTERM and SIGHUP while it exists.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: UnixStream,
    terminate: UnixStream,
    ids: Vec<SigId>,
}

impl Interrupts {
    /// Begins to catch. With `second_ends`, a second Ctrl-C ends the process at once, for those who
    /// do not want to wait until the trace is finished.
    pub(crate) fn catch(second_ends: bool) -> Result<Interrupts> {
        let failed = |e: io::Error| Failure::new(format!("cannot catch signals: {e}"));
        let (interrupt, to_interrupt) = UnixStream::pair().map_err(failed)?;
        let (terminate, to_terminate) = UnixStream::pair().map_err(failed)?;
        let mut ids = Vec::new();
        let catch = || -> io::Result<()> {
            interrupt.set_nonblocking(true)?;
            terminate.set_nonblocking(true)?;
            if second_ends {
                let armed = Arc::new(AtomicBool::new(false));
                // Order matters: the first Ctrl-C finds the flag unset, then sets it.
                let status = i32::from(STATUS);
                ids.push(flag::register_conditional_shutdown(SIGINT, status, armed.clone())?);
                ids.push(flag::register(SIGINT, armed)?);
            }
            ids.push(low_level::pipe::register(SIGINT, to_interrupt)?);
            ids.push(low_level::pipe::register(SIGTERM, to_terminate.try_clone()?)?);
            ids.push(low_level::pipe::register(SIGHUP, to_terminate)?);
            ids.push(flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?);
            Ok(())
        };
        catch().map_err(failed)?;
        Ok(Interrupts { interrupt, terminate, ids })
    }

    /// What came since the last call, if anything.
    pub(crate) fn take(&mut self) -> Option<Signal> {
        let came = |stream: &mut UnixStream| matches!(stream.read(&mut [0; 64]), Ok(n) if n > 0);
        if came(&mut self.terminate) {
            return Some(Signal::Terminate);
        }
        came(&mut self.interrupt).then_some(Signal::Interrupt)
    }

    /// What to poll.
    pub(crate) fn interest(&self) -> [(BorrowedFd<'_>, PollFlags); 2] {
        [(self.interrupt.as_fd(), PollFlags::IN), (self.terminate.as_fd(), PollFlags::IN)]
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
    }
}
