//! Events that are declared after their session was made: frames in the arena, which outlive the
//! program, so that its records can be read however it ends.

use super::body::{read_declared, write_declared};
use crate::schema::Declared;
use crate::tlv::Builder;

/// The frames of late events, as they lie in an arena: each a u32 length and a [`Declared`].
///
/// # Panics
/// Never: an event's description is under 4 GiB.
pub fn late_frame(event: &Declared) -> Vec<u8> {
    let mut body = Builder::default();
    write_declared(&mut body, event);
    let len = u32::try_from(body.bytes.len()).expect("a description is under 4 GiB");
    [&len.to_le_bytes()[..], &body.bytes].concat()
}

/// Reads what [`late_frame`] wrote, one after the other, as far as it goes.
///
/// ```
/// use gracepoint_wire::control::{late_events, late_frame};
/// use gracepoint_wire::schema::loss_event;
/// let mut bytes = late_frame(&loss_event());
/// bytes.extend([9, 0, 0, 0, 1]); // cut off
/// assert_eq!(late_events(&bytes), [loss_event()]);
/// ```
pub fn late_events(mut bytes: &[u8]) -> Vec<Declared> {
    let mut events = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        let Some((body, rest)) = rest.split_at_checked(len) else { break };
        let Ok(event) = read_declared(body) else { break };
        events.push(event);
        bytes = rest;
    }
    events
}
