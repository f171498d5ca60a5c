//! A page that shows the trace and needs nothing else: no network, no server, no other file.
//!
//! What the events hold goes out as they are read, in compressed chunks; of the events themselves
//! when, how long, of which kind and which details is kept, 24 bytes each, until the end. Then they are
//! laid out in rows, the rows in levels of detail (`rows`), and these follow in two parts: what the first
//! picture needs, and the rest. Last comes the program of the page (`page.js`), which inflates the first
//! part at once and the others when they are looked at. A trace has more events than a page should have
//! at some point; then nothing is written, and it is said what to do.

mod curve;
mod rows;

use super::{About, Counter, Note, Record, Sink, Span, Thread, push_field};
use crate::escape::push_json;
use crate::report::spell::push_json_value;
use crate::{Error, EventType, Result, Trace, escape};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use curve::Sample;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use gracepoint_wire::schema::Role;
use rows::{Item, Level, OPEN};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::Write;

/// Events that a page may hold; a browser takes about 40 bytes of memory for each.
const MOST_ITEMS: u32 = 8_000_000;
/// Details that are compressed together, in bytes.
const CHUNK: usize = 96 << 10;
/// Blocks of the first picture per row, where there are few rows and where there are many.
const FIRST_BLOCKS: u64 = 2048;
const FIRST_BLOCKS_OF_MANY: u64 = 256;
const MANY_ROWS: usize = 200;

const STYLE: &str = include_str!("page/page.css");
const BODY: &str = include_str!("page/page.html");
const PROGRAM: [&str; 4] = [
    include_str!("page/data.js"),
    include_str!("page/draw.js"),
    include_str!("page/search.js"),
    include_str!("page/page.js"),
];

/// What lies on a thread.
#[derive(Default)]
struct Track {
    name: String,
    slices: Vec<Item>,
    moments: Vec<Item>,
}

pub(super) struct Page<'t> {
    trace: &'t Trace,
    /// The trace's events, and its functions.
    all: Vec<EventType>,
    counters: &'t [Counter],
    /// Of each counter.
    curves: Vec<Vec<Sample>>,
    out: Vec<u8>,
    threads: Vec<Track>,
    /// By kind, slices that do not nest on their thread.
    apart: BTreeMap<u32, Vec<Item>>,
    notes: Vec<Item>,
    /// Details on their way into a chunk, a line each.
    chunk: Vec<u8>,
    /// The first detail of each chunk.
    firsts: Vec<u32>,
    items: u32,
    spans: u32,
    lost: u64,
}

impl<'t> Page<'t> {
    pub(super) fn new(trace: &'t Trace, all: &[EventType], counters: &'t [Counter]) -> Page<'t> {
        let mut out =
            b"<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>".to_vec();
        out.extend_from_slice(html(&title(trace)).as_bytes());
        let _ = write!(out, "</title>\n<style>\n{STYLE}</style>\n{BODY}");
        Page {
            trace,
            all: all.to_vec(),
            counters,
            curves: vec![Vec::new(); counters.len()],
            out,
            threads: Vec::new(),
            apart: BTreeMap::new(),
            notes: Vec::new(),
            chunk: Vec::new(),
            firsts: Vec::new(),
            items: 0,
            spans: 0,
            lost: 0,
        }
    }

    /// A new item, whose details `write` adds as the inside of a JSON object.
    fn item(&mut self, begin: u64, len: u64, kind: u32, write: impl FnOnce(&mut Vec<u8>)) -> Item {
        if self.chunk.is_empty() {
            self.firsts.push(self.items);
        }
        self.chunk.push(b'{');
        write(&mut self.chunk);
        self.chunk.extend_from_slice(b"}\n");
        let detail = self.items;
        self.items += 1;
        if self.chunk.len() >= CHUNK {
            self.end_chunk();
        }
        Item { begin, len, kind, detail }
    }

    fn end_chunk(&mut self) {
        if !self.chunk.is_empty() {
            let name = format!("details-{}", self.firsts.len() - 1);
            blob(&name, &self.chunk, &mut self.out);
            self.chunk.clear();
        }
    }

    /// All tracks from the top to the bottom: what they show, their name, their rows.
    fn tracks(&mut self) -> Vec<(&'static str, String, Vec<Vec<Item>>)> {
        let mut tracks = Vec::new();
        if !self.notes.is_empty() {
            let mut notes = std::mem::take(&mut self.notes);
            notes.sort_unstable_by_key(|item| (item.begin, item.detail));
            tracks.push(("notes", "lost and throttled".to_owned(), vec![notes]));
        }
        for track in std::mem::take(&mut self.threads) {
            let mut rows = Vec::new();
            if !track.moments.is_empty() {
                let mut moments = track.moments;
                moments.sort_unstable_by_key(|item| (item.begin, item.detail));
                rows.push(moments);
            }
            rows.extend(rows::nest(track.slices));
            if !rows.is_empty() {
                tracks.push(("thread", track.name, rows));
            }
        }
        for (kind, items) in std::mem::take(&mut self.apart) {
            let name = escape::name(&self.all[kind as usize].declared.schema.name);
            tracks.push(("apart", format!("{name} (across threads)"), rows::pack(items)));
        }
        tracks
    }

    /// When the first event happened and how long it is to the end of the last, in nanoseconds.
    fn extent(&self) -> (u64, u64) {
        let threads =
            self.threads.iter().flat_map(|track| track.slices.iter().chain(&track.moments));
        let items = threads.chain(self.apart.values().flatten()).chain(&self.notes);
        let (mut first, mut last) = (u64::MAX, 0);
        for item in items {
            first = first.min(item.begin);
            let len = if item.len == OPEN { 0 } else { item.len };
            last = last.max(item.begin.saturating_add(len));
        }
        let first = first.min(last);
        (first, (last - first).max(1))
    }

    fn start_at(&mut self, first_ns: u64) {
        // A begin whose span has no slice may come before all that is drawn.
        let samples = self.curves.iter_mut().flatten();
        samples.for_each(|sample| sample.begin = sample.begin.saturating_sub(first_ns));
        let threads = self
            .threads
            .iter_mut()
            .flat_map(|track| track.slices.iter_mut().chain(&mut track.moments));
        let items = threads.chain(self.apart.values_mut().flatten()).chain(&mut self.notes);
        items.for_each(|item| item.begin -= first_ns);
    }

    /// The kinds as the page knows them; the last two are what the tracer itself tells.
    fn kinds(&self) -> Vec<Json> {
        let kind = |event: &EventType| {
            let declared = &event.declared;
            let name = match declared.role {
                Role::Begin | Role::Enter => &declared.schema.name,
                _ => &event.name,
            };
            let fields: Vec<Json> = event
                .fields
                .iter()
                .map(|field| json!([field.name, field.ty.to_string(), field.docs]))
                .collect();
            json!({ "name": escape::name(name), "docs": declared.schema.docs, "fields": fields })
        };
        let own =
            ["lost", "throttled"].map(|name| json!({ "name": name, "docs": "", "fields": [] }));
        self.all.iter().map(kind).chain(own).collect()
    }

    /// Rows as levels, those of the first picture in the first of the two parts.
    fn lay_out(&mut self, total_ns: u64) -> (Vec<Json>, [Vec<u8>; 2]) {
        let tracks = self.tracks();
        let many = tracks.iter().map(|(_, _, rows)| rows.len()).sum::<usize>() > MANY_ROWS;
        let first_width = total_ns / if many { FIRST_BLOCKS_OF_MANY } else { FIRST_BLOCKS };
        let mut parts = [Vec::new(), Vec::new()];
        let mut told = Vec::new();
        for (what, name, rows) in tracks {
            let rows: Vec<Vec<Json>> = rows
                .iter()
                .map(|row| place(rows::levels(row, total_ns), first_width, &mut parts))
                .collect();
            told.push(json!({ "what": what, "name": name, "rows": rows }));
        }
        for (counter, samples) in self.counters.iter().zip(std::mem::take(&mut self.curves)) {
            if samples.is_empty() {
                continue;
            }
            let curve = curve::Curve::new(samples, total_ns);
            let row = place(curve.levels, first_width, &mut parts);
            told.push(json!({
                "what": "counter", "name": counter.name, "rows": [row], "event": counter.places[0].0,
                "low": curve.low, "high": curve.high, "time": counter.time,
            }));
        }
        (told, parts)
    }
}

/// Puts levels into the parts and says where each is: width, blocks, part, offset, length.
fn place(levels: Vec<Level>, first_width: u64, parts: &mut [Vec<u8>; 2]) -> Vec<Json> {
    let first = levels.iter().rposition(|level| level.width <= first_width).unwrap_or(0);
    let place = |(at, level): (usize, &Level)| {
        let part = usize::from(at < first);
        let offset = parts[part].len();
        parts[part].extend_from_slice(&level.bytes);
        json!([level.width, level.blocks, part, offset, level.bytes.len()])
    };
    levels.iter().enumerate().map(place).collect()
}

/// Adds an element of the page with `bytes` in it, which the browser leaves alone.
fn blob(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::new(3));
    // Into memory, where nothing fails.
    let done = deflate.write_all(bytes).and_then(|()| deflate.finish()).unwrap_or_default();
    let _ = writeln!(
        out,
        "<script type=\"text/plain\" id=\"{name}\">{}</script>",
        STANDARD.encode(done)
    );
}

fn title(trace: &Trace) -> String {
    let program = crate::info::program(trace);
    match (program.name.is_empty(), program.pid) {
        (true, _) => "A trace".to_owned(),
        (false, 0) => escape::name(&program.name),
        (false, pid) => format!("{} ({pid})", escape::name(&program.name)),
    }
}

/// Safe inside an element.
fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Sink for Page<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn is_full(&self) -> bool {
        self.items > MOST_ITEMS
    }

    fn thread(&mut self, at: usize, thread: &Thread) {
        if self.threads.len() <= at {
            self.threads.resize_with(at + 1, Track::default);
        }
        self.threads[at].name = match thread.name.is_empty() {
            true => thread.label(),
            false => format!("{} {}", thread.label(), thread.tid),
        };
    }

    fn span(&mut self, span: &Span<'_>) {
        let (open, kind) = (span.open, span.begin.index);
        let len = span.end_ns.map_or(OPEN, |end_ns| end_ns - open.begin_ns);
        let item = self.item(open.begin_ns, len, kind, |out| fields(span.begin, out));
        self.spans += 1;
        match open.apart {
            true => self.apart.entry(kind).or_default().push(item),
            false => self.threads[open.thread].slices.push(item),
        }
    }

    fn instant(&mut self, thread: usize, ns: u64, record: Record<'_>) {
        let item = self.item(ns, 0, record.index, |out| fields(record, out));
        self.threads[thread].moments.push(item);
    }

    fn note(&mut self, note: &Note<'_>) {
        let kind = self.all.len() as u32 + u32::from(note.about == About::Throttle);
        let item = self.item(note.ns, 0, kind, |out| {
            out.extend_from_slice(b"\"what\":");
            push_json(out, note.name);
            for (name, value) in note.details {
                out.push(b',');
                push_json(out, name);
                out.push(b':');
                push_json_value(value, out);
            }
        });
        self.notes.push(item);
        if note.about == About::Loss
            && let Some((_, crate::Value::Uint(count))) = note.details.first()
        {
            self.lost = self.lost.saturating_add(*count);
        }
    }

    fn sample(&mut self, counter: usize, ns: u64, value: &crate::Value<'_>) {
        if let Some(value) = curve::number(value) {
            self.curves[counter].push(Sample { begin: ns, value });
        }
    }

    fn finish(&mut self) -> Result<()> {
        if self.is_full() {
            return Err(Error::new(format!(
                "more than {MOST_ITEMS} events are too many for one page: choose some by -e, --thread, \
                 --since or --until, or use `gracepoint export`"
            )));
        }
        self.end_chunk();
        let (first_ns, total_ns) = self.extent();
        self.start_at(first_ns);
        let kinds = self.kinds();
        let (tracks, parts) = self.lay_out(total_ns);
        let index = json!({
            "title": title(self.trace),
            "begin_unix_ns": first_ns.to_string(),
            "total_ns": total_ns,
            "items": self.items,
            "spans": self.spans,
            "lost": self.lost,
            "kinds": kinds,
            "details": self.firsts,
            "tracks": tracks,
            "tool": concat!("gracepoint ", env!("CARGO_PKG_VERSION")),
        });
        blob("index", index.to_string().as_bytes(), &mut self.out);
        for (part, bytes) in parts.iter().enumerate() {
            blob(&format!("rows-{part}"), bytes, &mut self.out);
        }
        self.out.extend_from_slice(b"<script>\n\"use strict\";\n");
        PROGRAM.iter().for_each(|text| self.out.extend_from_slice(text.as_bytes()));
        self.out.extend_from_slice(b"</script>\n</html>\n");
        Ok(())
    }
}

/// The fields of a record as the inside of a JSON object.
fn fields(record: Record<'_>, out: &mut Vec<u8>) {
    for (at, field, value) in record.values() {
        if at > 0 {
            out.push(b',');
        }
        push_json(out, &field.name);
        out.push(b':');
        push_field(field, &value, out);
    }
}
