//! In place of `tracer.rs` where there is no tracing: nothing can be attached.

use crate::error::{Error, ErrorKind};
use crate::hooks::Hook;
use crate::key::{Entry, Key};
use crate::owner::{ProbeFailure, Stall, Statistics};
use crate::probe::Body;
use gracepoint_rcu::WaitCall;
use std::borrow::Cow;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyId(usize);

impl KeyId {
    pub(crate) fn of(key: &'static Key) -> KeyId {
        KeyId(ptr::from_ref(key) as usize)
    }
}

pub(crate) struct Candidate {
    pub(crate) key: &'static Key,
    pub(crate) name: Cow<'static, str>,
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "this system, or this build of the program, has no tracing")
}

pub(crate) fn add(
    body: Arc<dyn Body>,
    _: Vec<(&'static Key, Entry)>,
    _: Option<&Arc<dyn Body>>,
) -> Result<(), Error> {
    // SAFETY: nobody has seen the probe yet but its maker, who gives it up with the error.
    unsafe { body.drop_captured() };
    Err(unsupported())
}

pub(crate) fn candidates() -> Result<Vec<Candidate>, Error> {
    Err(unsupported())
}

pub(crate) fn hook(_: &'static Key, _: impl FnOnce(bool) -> Arc<Hook>) -> Result<Arc<Hook>, Error> {
    Err(unsupported())
}

pub(crate) fn wait(_: WaitCall, _: Option<Duration>) -> Result<bool, Error> {
    Ok(true)
}

pub(crate) fn after_grace_period(_: usize, then: impl FnOnce() + Send + 'static) {
    then();
}

pub(crate) fn remove(_: &[Arc<dyn Body>]) {}

pub(crate) fn remove_all(_: u64) {}

pub(crate) fn bury_later(_: u64) {}

pub(crate) fn unhook(_: KeyId, _: &Arc<Hook>) {}

pub(crate) fn failures(_: u64) -> Vec<ProbeFailure> {
    Vec::new()
}

pub(crate) fn on_failure(_: u64, _: Box<dyn Fn(&ProbeFailure) + Send + Sync>) {}

pub(crate) fn stalls() -> Vec<Stall> {
    Vec::new()
}

pub(crate) fn statistics(_: u64) -> Statistics {
    Statistics::default()
}
