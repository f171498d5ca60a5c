//! Static keys: one per event type, shared by all its sites.
use crate::event::{Event, EventDesc};

/// The key of an event type.
#[doc(hidden)]
pub struct Key {
    pub(crate) desc: &'static EventDesc,
}

impl Key {
    /// The key of `E`; the derive makes exactly one static of it.
    pub const fn new<E: Event>() -> Key {
        Key { desc: E::DESC }
    }
}
