//! Tasks that are not polled: what is noted of an open span while somebody wants to know where tasks are, and
//! what the agent is told of it.
//!
//! A task of an async runtime is seen by its spans: each poll enters them, and leaves them when it returns. So an
//! open span that was left long ago is of a task that waits; one that was entered long ago, of a poll that does not
//! return. An open span with open spans inside is told as a part of those.
//!
//! Nothing is noted unless it is asked for ([`set_level`], `Builder::watch`): a span that began before has a bit less
//! in its slot, and is passed over. Whoever asks reads while others write; what may be torn, and how that shows, is in
//! [`spans`](crate::spans).

use crate::sites::Site;
use crate::spans;
use gracepoint::dynamic::{self, OpenTask, OpenTasks};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Debug, Write};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use tracing_core::field::{Field, Visit};
use tracing_core::{Level, LevelFilter};

/// Words of a span's fields as text.
const TEXT: usize = 12;
/// Most tasks that are told.
const TOLD: usize = 1000;
/// Most spans around one.
const DEPTH: usize = 64;

/// Spans up to this level are noted: 0 none, 1 `ERROR` to 5 `TRACE`.
static WANTED: AtomicU8 = AtomicU8::new(0);

fn number(level: LevelFilter) -> u8 {
    match level {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => 1,
        LevelFilter::WARN => 2,
        LevelFilter::INFO => 3,
        LevelFilter::DEBUG => 4,
        LevelFilter::TRACE => 5,
    }
}

/// Spans that begin from now on are noted if they are up to this level.
pub(crate) fn set_level(level: LevelFilter) {
    WANTED.store(number(level), Relaxed);
}

/// Up to which level spans are noted.
fn level() -> u8 {
    let by_watch = if dynamic::is_watched() { number(LevelFilter::INFO) } else { 0 };
    WANTED.load(Relaxed).max(by_watch)
}

/// Whether spans of this level are noted.
#[inline]
pub(crate) fn wants(span: &Level) -> bool {
    let level = level();
    level != 0 && number(LevelFilter::from_level(*span)) <= level
}

/// What is noted of a span.
#[derive(Default)]
pub(crate) struct Note {
    parent: AtomicU64,
    begun: AtomicU64,
    /// When it was entered or left last.
    moved: AtomicU64,
    /// How often it is entered now.
    inside: AtomicU32,
    /// Who entered it last.
    thread: AtomicU32,
    polls: AtomicU64,
    text: [AtomicU64; TEXT],
}

impl Note {
    /// A span begins. Nobody else writes here.
    pub(crate) fn begin(&self, parent: u64, fields: impl FnOnce(&mut dyn Visit)) {
        let now = dynamic::coarse_ns();
        self.parent.store(parent, Relaxed);
        self.begun.store(now, Relaxed);
        self.moved.store(now, Relaxed);
        self.inside.store(0, Relaxed);
        self.thread.store(0, Relaxed);
        self.polls.store(0, Relaxed);
        let mut text = Text { bytes: [0; TEXT * 8], len: 0 };
        fields(&mut text);
        for (word, bytes) in self.text.iter().zip(text.bytes.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().unwrap_or([0; 8])), Relaxed);
        }
    }

    pub(crate) fn enter(&self) {
        self.polls.fetch_add(1, Relaxed);
        self.thread.store(own_thread(), Relaxed);
        self.moved.store(dynamic::coarse_ns(), Relaxed);
        // Release, here and in `leave`, pairs with the load in `look`: whoever sees that it is inside, or
        // is not any more, sees since when, too.
        self.inside.fetch_add(1, Release);
    }

    pub(crate) fn leave(&self) {
        self.moved.store(dynamic::coarse_ns(), Relaxed);
        let _ = self.inside.fetch_update(Release, Relaxed, |inside| inside.checked_sub(1));
    }

    pub(crate) fn look(&self) -> Noted {
        let inside = self.inside.load(Acquire) != 0;
        let mut text = Vec::with_capacity(TEXT * 8);
        for word in &self.text {
            text.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        Noted {
            parent: self.parent.load(Relaxed),
            begun: self.begun.load(Relaxed),
            moved: self.moved.load(Relaxed),
            thread: if inside { self.thread.load(Relaxed) } else { 0 },
            polls: self.polls.load(Relaxed),
            text: String::from_utf8_lossy(&text[..end]).into_owned(),
        }
    }
}

/// The same, read.
pub(crate) struct Noted {
    parent: u64,
    begun: u64,
    moved: u64,
    thread: u32,
    polls: u64,
    text: String,
}

#[cfg(test)]
impl Noted {
    pub(crate) fn parent(&self) -> u64 {
        self.parent
    }
}

fn own_thread() -> u32 {
    thread_local!(static NUMBER: Cell<u32> = const { Cell::new(0) });
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(dynamic::thread_number());
        }
        number.get()
    })
}

/// Values as text, as much of it as has room.
struct Text {
    bytes: [u8; TEXT * 8],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars().filter(|&char| char != '\0') {
            let room = &mut self.bytes[self.len..];
            // Room is left for the mark.
            if room.len() < char.len_utf8() + '…'.len_utf8() {
                if room.len() >= '…'.len_utf8() {
                    '…'.encode_utf8(room);
                }
                self.len = self.bytes.len();
                return Err(fmt::Error);
            }
            self.len += char.encode_utf8(room).len();
        }
        Ok(())
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let comma = if self.len == 0 { "" } else { " " };
        // What has no room is marked as cut.
        let _ = write!(self, "{comma}{}={value:?}", field.name());
    }
}

struct Seen {
    site: &'static Site,
    noted: Noted,
}

impl Seen {
    fn name(&self) -> String {
        let name = self.site.meta.name();
        match self.noted.text.as_str() {
            "" => name.to_owned(),
            fields => format!("{name}{{{fields}}}"),
        }
    }

    fn location(&self) -> String {
        match (self.site.meta.file(), self.site.meta.line()) {
            (Some(file), Some(line)) => crate::sites::place(file, line),
            _ => String::new(),
        }
    }
}

/// What the agent is told when somebody asks why the program is stuck.
pub(crate) fn open_tasks() -> OpenTasks {
    let mut seen: HashMap<u64, Seen> = HashMap::new();
    spans::each_noted(|id, site, noted| drop(seen.insert(id, Seen { site, noted })));
    // After the last look, so that no moment is later than it.
    let now = dynamic::coarse_ns();
    let parents: HashSet<u64> = seen.values().map(|span| span.noted.parent).collect();
    let mut leaves: Vec<&Seen> =
        seen.iter().filter(|(id, _)| !parents.contains(id)).map(|(_, span)| span).collect();
    leaves.sort_by_key(|span| span.noted.moved);
    let more = leaves.len().saturating_sub(TOLD) as u64;
    leaves.truncate(TOLD);
    let told = |leaf: &Seen| {
        let mut spans = vec![leaf.name()];
        let mut parent = seen.get(&leaf.noted.parent);
        while let Some(span) = parent.filter(|_| spans.len() < DEPTH) {
            spans.push(span.name());
            parent = seen.get(&span.noted.parent);
        }
        spans.reverse();
        OpenTask {
            spans,
            location: leaf.location(),
            since_ns: now.saturating_sub(leaf.noted.moved),
            begun_ns: now.saturating_sub(leaf.noted.begun),
            polls: leaf.noted.polls,
            tid: leaf.noted.thread,
        }
    };
    let tasks = leaves.into_iter().map(told).collect();
    OpenTasks { tasks, more, kept: Some(level() != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_marked() {
        let mut text = Text { bytes: [0; TEXT * 8], len: 0 };
        write!(text, "n={}", 7).expect("there is room");
        assert!(write!(text, "{}", "ä".repeat(100)).is_err());
        assert!(text.write_str("more").is_err(), "nothing comes after the mark");
        let end = text.bytes.iter().position(|&b| b == 0).unwrap_or(text.bytes.len());
        let text = std::str::from_utf8(&text.bytes[..end]).expect("whole characters");
        assert!(text.starts_with("n=7ää") && text.ends_with("ä…"), "{text}");
    }

    #[test]
    fn who_is_inside_twice_is_inside_until_both_have_left() {
        let note = Note::default();
        note.begin(0, |_| {});
        note.enter();
        note.enter();
        note.leave();
        assert_ne!(note.look().thread, 0);
        note.leave();
        note.leave();
        let noted = note.look();
        assert_eq!((noted.thread, noted.polls), (0, 2));
    }
}
