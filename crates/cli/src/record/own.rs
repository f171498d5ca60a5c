//! The stream that the recorder writes itself, beside those of the program's threads: where objects
//! were loaded (`gp:module`), and losses that no packet tells ([`super::residue`]).

use super::copy::Copier;
use gracepoint_wire::control::Module;
use gracepoint_wire::packet::{HEADER, NAME, PacketHeader, compact_header, round_up};
use gracepoint_wire::schema::{DEFAULT_TEXT_LIMIT, Declared, MODULE_ID, module_event};
use std::io;

/// Most records of modules in one packet.
const AT_ONCE: usize = 64;

/// Where that stream stands.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// The session has `gp:module` among its events.
    tells_modules: bool,
    modules: Vec<Module>,
    /// How many of them are in the trace, or in the piece of it that is being written.
    written: usize,
    /// Packets in its file.
    packets: u64,
    /// The latest of them.
    pub(super) at: u64,
}

impl Own {
    /// Of a session with these events.
    pub(crate) fn of(events: &[Declared], modules: Vec<Module>) -> Own {
        let tells_modules = events.contains(&module_event());
        Own { tells_modules, modules, ..Own::default() }
    }

    /// Each piece is a trace of its own, and tells of all objects.
    pub(crate) fn next_piece(&mut self) {
        (self.written, self.packets) = (0, 0);
    }

    /// Objects that the program has loaded meanwhile.
    pub(crate) fn add(&mut self, modules: Vec<Module>) {
        self.modules.extend(modules);
    }
}

impl Copier {
    /// Writes down the objects that are not in the trace yet.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_modules(&mut self) -> io::Result<()> {
        let empty = self.context.empty_len();
        while self.own.tells_modules && self.own.written < self.own.modules.len() {
            let some = self.own.modules[self.own.written..].chunks(AT_ONCE).next();
            let some = some.unwrap_or_default();
            let at = some.iter().map(|module| module.at).fold(self.since, u64::max);
            let at = at.max(self.own.at);
            let (records, count) = (records(some, at, empty), some.len());
            self.append_own(at, &records)?;
            self.own.written += count;
        }
        Ok(())
    }

    /// Appends a packet of the recorder's own, with these records, all of one moment.
    pub(crate) fn append_own(&mut self, at: u64, records: &[u8]) -> io::Result<()> {
        // No ring slot has this number.
        let stream = u64::from(self.arena.header.slots);
        let at = at.max(self.own.at);
        self.streams.append(stream, &packet(stream, self.own.packets, at, records))?;
        self.own.packets += 1;
        self.own.at = at;
        Ok(())
    }
}

/// Records of `gp:module`, all of one moment, with so many zeroes for what the session adds.
pub(crate) fn records(modules: &[Module], at: u64, context: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for module in modules {
        records.extend_from_slice(&compact_header(MODULE_ID, at).to_le_bytes()[..5]);
        records.resize(records.len() + context, 0);
        push(&mut records, module);
    }
    records
}

/// The recorder's packet number `seq` of a stream, with records of one moment.
pub(crate) fn packet(stream: u64, seq: u64, at: u64, records: &[u8]) -> Vec<u8> {
    let content = (HEADER + records.len()) as u64;
    let mut thread = [0; NAME];
    thread[..10].copy_from_slice(b"gracepoint");
    let header = PacketHeader {
        stream,
        begin: at,
        end: at,
        content_bits: content * 8,
        packet_bits: round_up(content) * 8,
        seq,
        thread,
        ..PacketHeader::default()
    };
    let mut packet = header.to_bytes().to_vec();
    packet.extend_from_slice(records);
    packet.resize(round_up(content) as usize, 0);
    packet
}

/// The fields of `gp:module`. What a program says of itself may be anything.
fn push(records: &mut Vec<u8>, module: &Module) {
    records.extend_from_slice(&module.base.to_le_bytes());
    records.extend_from_slice(&module.size.to_le_bytes());
    let id: String = module.build_id.iter().take(64).map(|b| format!("{b:02x}")).collect();
    let mut path = module.path.split('\0').next().unwrap_or_default().to_owned();
    while path.len() > DEFAULT_TEXT_LIMIT {
        path.pop();
    }
    for text in [id, path] {
        records.extend_from_slice(text.as_bytes());
        records.push(0);
    }
}
