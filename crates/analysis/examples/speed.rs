//! How fast a trace is read: makes one of 5 million events in a temporary directory (about 200 MB) and
//! times `info`, the text report, the JSON report and a histogram over it.
//!
//! `cargo run --release -p gracepoint-analysis --example speed [events] [streams]`
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "it is a program, and this is its output")]

use gracepoint_analysis::report::{Format, Options, report};
use gracepoint_analysis::{Trace, hist, info};
use gracepoint_wire::clock::{Clock, Source, Triple};
use gracepoint_wire::packet::{self, HEADER, PacketHeader};
use gracepoint_wire::schema::{Declared, Field, Role, Schema, loss_event};
use gracepoint_wire::tsdl;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

const PAGE: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|n| n.parse::<u64>());
    let events = numbers.next().transpose()?.unwrap_or(5_000_000);
    let streams = numbers.next().transpose()?.unwrap_or(8).max(1);
    let dir = std::env::temp_dir().join(format!("gp-speed-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let result = write(&dir, events, streams).and_then(|()| measure(&dir, events));
    fs::remove_dir_all(&dir)?;
    result
}

fn measure(dir: &Path, events: u64) -> Result<(), Box<dyn Error>> {
    let trace = Trace::open(dir)?;
    println!("{events} events, {} streams, {} bytes", trace.streams(), trace.bytes());
    println!("{:<12} {:>8} {:>8}  M events/s, best of 3", "", "elapsed", "on CPU");
    let time = |name: &str, run: &dyn Fn() -> Result<u64, Box<dyn Error>>| {
        let (mut best, mut best_cpu) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..3 {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            assert_eq!(run()?, events, "{name} has read all of it");
            best = best.min(start.elapsed().as_secs_f64());
            best_cpu = best_cpu.min(cpu_seconds() - cpu);
        }
        let speed = |seconds| events as f64 / seconds / 1e6;
        println!("{name:<12} {:8.2} {:8.2}", speed(best), speed(best_cpu));
        Ok::<(), Box<dyn Error>>(())
    };
    time("info", &|| Ok(info::info(&trace)?.events))?;
    time("merge", &|| {
        let (mut reader, mut n) = (trace.reader(), 0);
        while reader.next_event().is_some() {
            n += 1;
        }
        Ok(n)
    })?;
    for (name, format) in [("report text", Format::Text), ("report json", Format::JsonLines)] {
        let options = Options { format, ..Options::default() };
        let null = || File::options().write(true).open("/dev/null");
        time(name, &|| Ok(report(&trace, &options, &mut null()?)?.lines))?;
    }
    let (event, field) = ("kv:get".into(), "latency".into());
    let options = hist::Options { event, field, by: Some("hit".into()) };
    time("hist by", &|| {
        Ok(hist::hist(&trace, &options)?.groups.iter().map(|g| g.counts.count()).sum())
    })
}

/// Seconds that this thread has had a processor, which is what to look at on a busy machine.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns: u64 = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    ns as f64 / 1e9
}

/// Writes a trace whose streams take turns in time, an event each microsecond.
fn write(dir: &Path, events: u64, streams: u64) -> Result<(), Box<dyn Error>> {
    let field = |name: &str, ty: &str| -> Result<Field, Box<dyn Error>> {
        Ok(Field { name: name.into(), ty: ty.parse()?, docs: String::new() })
    };
    let fields = vec![field("key", "str")?, field("hit", "bool")?, field("latency", "ns")?];
    let schema = Schema { name: "kv:get".into(), docs: String::new(), fields };
    let declared = [loss_event(), Declared { id: 16, role: Role::Event, schema }];
    let triple = Triple { ticks: 0, mono_ns: 0, real_ns: 1_767_323_045_000_000_000 };
    let (source, freq_hz) = (Source::Tsc, 2_000_000_000);
    let clock = Clock { source, freq_hz, boot_id: [0; 16], triples: vec![triple] };
    let text = tsdl::metadata(&tsdl::Metadata {
        clock: &clock,
        events: &declared,
        context: Default::default(),
        env: &[],
    });
    fs::write(dir.join("metadata"), text)?;
    for slot in 0..streams {
        let file = File::create(dir.join(format!("stream_{slot}")))?;
        write_stream(BufWriter::new(file), slot, events, streams)?;
    }
    Ok(())
}

fn write_stream(mut out: impl Write, slot: u64, events: u64, streams: u64) -> io::Result<()> {
    let mut header = PacketHeader { stream: slot, tid: 1000 + slot as u32, ..Default::default() };
    header.thread[..6].copy_from_slice(b"worker");
    let mut page = vec![0; HEADER];
    let (mut begin, mut last) = (slot * 2000, slot * 2000);
    for i in (slot..events).step_by(streams as usize) {
        last = i * 2000;
        page.extend(&packet::compact_header(16, last).to_le_bytes()[..5]);
        page.extend(format!("user:{:08}", i % 9_999_991).bytes());
        page.extend([0, u8::from(i % 3 != 0)]);
        page.extend((200 + i * 7919 % 100_000).to_le_bytes());
        if page.len() > PAGE - 64 {
            close(&mut page, &mut header, begin, last, &mut out)?;
            begin = last;
        }
    }
    close(&mut page, &mut header, begin, last, &mut out)?;
    out.flush()
}

fn close(
    page: &mut Vec<u8>,
    header: &mut PacketHeader,
    begin: u64,
    end: u64,
    out: &mut impl Write,
) -> io::Result<()> {
    let whole = packet::round_up(page.len() as u64);
    (header.begin, header.end) = (begin, end);
    (header.content_bits, header.packet_bits) = (page.len() as u64 * 8, whole * 8);
    page[..HEADER].copy_from_slice(&header.to_bytes());
    page.resize(whole as usize, 0);
    out.write_all(page)?;
    header.seq += 1;
    page.clear();
    page.resize(HEADER, 0);
    Ok(())
}
