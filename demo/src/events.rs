//! The tracepoints of the server: what `gracepoint list` shows, with these very comments.

use std::time::Duration;

/// A key was looked up.
#[derive(gracepoint::Event)]
#[event(name = "kv:get")]
pub(crate) struct Get<'a> {
    /// What was asked for.
    pub(crate) key: &'a str,
    /// Whether the store had it.
    pub(crate) hit: bool,
    /// From the call to the answer, with the wait for the shard's lock.
    pub(crate) latency: Duration,
}

/// A value was stored.
#[derive(gracepoint::Event)]
#[event(name = "kv:put")]
pub(crate) struct Put<'a> {
    /// Where it was stored.
    pub(crate) key: &'a str,
    /// Size of the value.
    pub(crate) bytes: u32,
    /// Whether there was an older value.
    pub(crate) replaced: bool,
    /// From the call to the answer, with the wait for the shard's lock.
    pub(crate) latency: Duration,
}

/// A key was removed at a client's wish.
#[derive(gracepoint::Event)]
#[event(name = "kv:delete")]
pub(crate) struct Delete<'a> {
    /// What was to be removed.
    pub(crate) key: &'a str,
    /// Whether it was there.
    pub(crate) found: bool,
}

/// A value was thrown out because its shard was full.
#[derive(gracepoint::Event)]
#[event(name = "kv:evict")]
pub(crate) struct Evict<'a> {
    /// What was thrown out.
    pub(crate) key: &'a str,
    /// The shard that was full.
    pub(crate) shard: u16,
    /// How long the value had been in the store.
    pub(crate) age: Duration,
}

/// A shard is being tidied up, with its lock held.
#[derive(gracepoint::Event)]
#[event(name = "kv:compact")]
pub(crate) struct Compact {
    /// The shard whose callers have to wait.
    pub(crate) shard: u16,
    /// Values in it.
    pub(crate) entries: u32,
}

/// A request is being answered.
#[derive(gracepoint::Event)]
#[event(name = "http:request")]
pub(crate) struct Request<'a> {
    /// What is to be done.
    pub(crate) method: Method,
    /// To what.
    pub(crate) path: &'a str,
}

/// An answer is on its way.
#[derive(gracepoint::Event)]
#[event(name = "http:response")]
pub(crate) struct Response {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Size of the body.
    pub(crate) bytes: u32,
}

/// The methods that the server knows.
#[derive(Clone, Copy, gracepoint::Field)]
pub(crate) enum Method {
    /// Read a value.
    Get,
    /// Store a value.
    Put,
    /// Remove a value.
    Delete,
    /// Anything else, which is refused.
    Other,
}

impl From<&hyper::Method> for Method {
    fn from(method: &hyper::Method) -> Method {
        match *method {
            hyper::Method::GET => Method::Get,
            hyper::Method::PUT => Method::Put,
            hyper::Method::DELETE => Method::Delete,
            _ => Method::Other,
        }
    }
}
