//! Counts the events of packets in memory, without decoding their fields: for a recorder that shows
//! how it goes.

use crate::plan::Plan;
use gracepoint_wire::packet::{HEADER, PacketHeader, parse_event_header};
use gracepoint_wire::schema::{Context, Declared, FIRST_USER_ID};
use std::collections::HashMap;

/// What it needs to know of each event to step over it.
#[derive(Debug)]
pub struct Tally {
    plans: HashMap<u32, Plan>,
}

impl Tally {
    /// A tally of a session with these events, before which `context` lies.
    pub fn new(events: &[Declared], context: Context) -> Tally {
        let plan = |event: &Declared| {
            Some((event.id, Plan::new(&[context.fields(), event.full_fields()].concat())?))
        };
        Tally { plans: events.iter().filter_map(plan).collect() }
    }

    /// Events in `packets` (closed ones, back to back), without Gracepoint's own. What cannot be read
    /// ends the count of its packet.
    ///
    /// ```
    /// use gracepoint_analysis::tally::Tally;
    /// use gracepoint_wire::packet::{self, PacketHeader};
    /// use gracepoint_wire::schema::{Context, Declared, Role, Schema};
    ///
    /// let schema = Schema { name: "a:tick".into(), docs: String::new(), fields: vec![] };
    /// let tally = Tally::new(&[Declared { id: 16, role: Role::Event, schema }], Context::default());
    /// let bits = 8 * (packet::HEADER + 2 * packet::COMPACT_HEADER) as u64;
    /// let header =
    ///     PacketHeader { content_bits: bits, packet_bits: bits.next_multiple_of(64), ..Default::default() };
    /// let mut bytes = header.to_bytes().to_vec();
    /// for ticks in [1, 2] {
    ///     bytes.extend_from_slice(&packet::compact_header(16, ticks).to_le_bytes()[..5]);
    /// }
    /// bytes.resize(header.packet_bytes() as usize, 0);
    /// assert_eq!(tally.count(&bytes), 2);
    /// ```
    pub fn count(&self, mut packets: &[u8]) -> u64 {
        let mut events = 0;
        while let Ok(header) = PacketHeader::parse(packets) {
            let content = usize::try_from(header.content_bytes()).unwrap_or(usize::MAX);
            let Some(records) = packets.get(HEADER..content) else { break };
            events += self.records(records);
            let size = usize::try_from(header.packet_bytes()).unwrap_or(usize::MAX);
            match packets.get(size..) {
                Some(rest) => packets = rest,
                None => break,
            }
        }
        events
    }

    fn records(&self, mut bytes: &[u8]) -> u64 {
        let mut events = 0;
        while let Some(head) = parse_event_header(bytes, 0) {
            let Some(plan) = self.plans.get(&head.id) else { break };
            let Some(len) = plan.skip(&bytes[head.len..]) else { break };
            bytes = &bytes[head.len + len..];
            events += u64::from(head.id >= FIRST_USER_ID);
        }
        events
    }
}
