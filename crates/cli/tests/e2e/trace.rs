//! Reads a trace without the code under test: packets by the wire crate, and babeltrace2.

use gracepoint_wire::packet::{HEADER, PacketHeader, parse_event_header};
use gracepoint_wire::schema::MODULE_ID;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What the streams hold.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// Per stream: the first field (u64) of each event that is not gp:loss, in order.
    pub(crate) ticks: BTreeMap<u64, Vec<u64>>,
    /// From gp:loss records, by id.
    pub(crate) lost: BTreeMap<u32, u64>,
    /// Per stream, as the last packet says.
    pub(crate) discarded: BTreeMap<u64, u64>,
}

impl Streams {
    pub(crate) fn events(&self) -> u64 {
        self.ticks.values().map(|ticks| ticks.len() as u64).sum()
    }
}

/// Reads streams of events `u64, text`, and checks that packets are whole and in order.
pub(crate) fn read(dir: &Path) -> Streams {
    let mut streams = Streams::default();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name} is for its owner alone");
        if let Some(slot) = name.strip_prefix("stream_") {
            read_stream(slot.parse().unwrap(), &std::fs::read(path).unwrap(), &mut streams);
        }
    }
    let mode = std::fs::metadata(dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the directory is for its owner alone");
    streams
}

fn read_stream(slot: u64, bytes: &[u8], streams: &mut Streams) {
    let (mut at, mut seq, mut end) = (0, None, 0);
    while at < bytes.len() {
        let header = PacketHeader::parse(&bytes[at..]).unwrap();
        assert_eq!(header.stream, slot);
        assert!(header.packet_bits > 0, "no open packet in a file");
        assert!(seq.is_none_or(|seq| header.seq == seq + 1), "packet {} after {seq:?}", header.seq);
        assert!(
            header.begin >= end && header.end >= header.begin,
            "times of packet {}",
            header.seq
        );
        let packet = &bytes[at..at + header.content_bytes() as usize];
        let last = read_packet(slot, packet, header.begin, streams);
        assert!(last <= header.end, "events lie inside their packet");
        (seq, end) = (Some(header.seq), header.end);
        streams.discarded.insert(slot, header.discarded);
        at += header.packet_bytes() as usize;
    }
}

fn read_packet(slot: u64, packet: &[u8], begin: u64, streams: &mut Streams) -> u64 {
    let (mut at, mut now) = (HEADER, begin);
    while at < packet.len() {
        let event = parse_event_header(&packet[at..], now).unwrap();
        (at, now) = (at + event.len, event.ticks);
        let word = |at: usize| u64::from_le_bytes(packet[at..at + 8].try_into().unwrap());
        if event.id == MODULE_ID {
            at += 16; // and two texts
            for _ in 0..2 {
                at += packet[at..].iter().position(|&b| b == 0).unwrap() + 1;
            }
            continue;
        }
        if event.id == 0 {
            let id = u32::from_le_bytes(packet[at..at + 4].try_into().unwrap());
            *streams.lost.entry(id).or_default() += word(at + 4);
            at += 12;
            continue;
        }
        streams.ticks.entry(slot).or_default().push(word(at));
        at += 8;
        let text = packet[at..].iter().position(|&b| b == 0).unwrap();
        assert_eq!(&packet[at..at + text], b"hello");
        at += text + 1;
    }
    now
}

/// What babeltrace2 says about a trace.
pub(crate) struct Babel {
    /// Events but for `gp:module`.
    pub(crate) lines: Vec<String>,
    pub(crate) modules: Vec<String>,
    pub(crate) warnings: String,
}

pub(crate) fn babeltrace(dir: &Path) -> Babel {
    let output = Command::new("babeltrace2").arg(dir).output().unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "babeltrace2 refuses the trace: {warnings}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Each trace tells where the program's objects lie, before anything else.
    let (modules, lines) =
        text.lines().map(str::to_owned).partition(|line| line.contains(" gp:module: "));
    Babel { modules, lines, warnings }
}

impl Babel {
    /// Events that babeltrace2 says were discarded, in all streams.
    pub(crate) fn discarded(&self) -> u64 {
        let number = |line: &str| -> Option<u64> {
            line.split("discarded ").nth(1)?.split(' ').next()?.parse().ok()
        };
        self.warnings.lines().filter(|l| l.contains(" event")).filter_map(number).sum()
    }
}
