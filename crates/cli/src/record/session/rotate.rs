//! A recording in pieces: when one is large or long enough it is ended as a trace of its own and
//! another begun, and of the old ones only the latest are kept.
//!
//! A piece tells the losses that its own packets tell. Losses that the program has counted and not
//! yet written into a packet are told by a later piece, the last one at the latest, so the sum over
//! all pieces is exact.

use super::super::streams::Streams;
use super::super::trace_dir::{self, GONE, TraceDir};
use super::Session;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use gracepoint_analysis::sidecar::Sidecar;
use gracepoint_analysis::trace::is_piece_name;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// When a piece is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rotate {
    /// After so many bytes.
    Size(u64),
    /// After this time.
    Every(Duration),
}

/// The pieces of a recording.
#[derive(Debug)]
pub(crate) struct Pieces {
    parent: PathBuf,
    rotate: Rotate,
    /// How many to keep, the one that is being written included.
    keep: usize,
    /// Of the one that is being written.
    number: u64,
    began: Instant,
    /// Bytes in the ones before.
    bytes: u64,
    old: VecDeque<TraceDir>,
    /// Pieces of another recording, which this one replaces, and what is left of its removed ones.
    replaced: Vec<PathBuf>,
}

/// Makes `parent`, where it is not there. Also says which pieces it holds, if it may, with `force`, and
/// what a killed recorder was just removing.
///
/// # Errors
/// When it holds anything else.
fn make_parent(parent: &Path, force: bool) -> Result<(PathBuf, Vec<PathBuf>)> {
    let named = || shown(&parent.to_string_lossy()).into_owned();
    let failed =
        |e: std::io::Error| Failure::new(format!("cannot make the directory {}: {e}", named()));
    let mut there = Vec::new();
    match fs::read_dir(parent) {
        Ok(entries) => there.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_gone = |path: &PathBuf| {
        let name = name(path);
        let number = name.strip_prefix('.').and_then(|name| name.strip_suffix(GONE));
        number.is_some_and(is_piece_name)
    };
    // Also one that was just begun when its recorder was killed, and that nothing describes.
    let is_piece = |path: &PathBuf| is_piece_name(&name(path)) && trace_dir::is_ours(path);
    if !there.iter().all(|path| is_gone(path) || is_piece(path)) {
        let text = format!("{} holds other things than pieces: choose another with -o", named());
        return Err(Failure::new(text));
    }
    if !there.iter().all(is_gone) && !force {
        let text = format!(
            "{} holds pieces: choose another with -o, or replace them with --force",
            named()
        );
        return Err(Failure::new(text));
    }
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(parent).map_err(failed)?;
    Ok((fs::canonicalize(parent).map_err(failed)?, there))
}

fn piece(parent: &Path, number: u64) -> PathBuf {
    parent.join(format!("{number:06}"))
}

impl Pieces {
    /// Makes `parent`; the first piece is to go to the path that comes with it.
    pub(crate) fn new(
        parent: &Path,
        force: bool,
        rotate: Rotate,
        keep: Option<usize>,
    ) -> Result<(Pieces, PathBuf)> {
        let (parent, replaced) = make_parent(parent, force)?;
        let first = piece(&parent, 1);
        let keep = keep.unwrap_or(usize::MAX).max(1);
        let (began, old) = (Instant::now(), VecDeque::new());
        Ok((Pieces { parent, rotate, keep, number: 1, began, bytes: 0, old, replaced }, first))
    }

    /// The first piece is begun, in the place of the one that was there: the others go too.
    pub(crate) fn begun(mut self) -> Pieces {
        let first = piece(&self.parent, 1);
        for old in self.replaced.drain(..).filter(|old| old.file_name() != first.file_name()) {
            trace_dir::remove(&old);
        }
        self
    }

    /// How many there have been.
    pub(crate) fn count(&self) -> u64 {
        self.number
    }

    /// Bytes of those before the one that is being written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_over(&self, bytes: u64) -> bool {
        match self.rotate {
            Rotate::Size(most) => bytes >= most,
            Rotate::Every(time) => self.began.elapsed() >= time,
        }
    }
}

impl Session {
    /// Begins another piece, if it is time to.
    ///
    /// # Errors
    /// When the old one cannot be ended or the new one not be made.
    pub(super) fn rotate(&mut self) -> Result<()> {
        let Some(pieces) = &self.pieces else { return Ok(()) };
        if pieces.is_over(self.copier.streams.bytes) { self.begin_piece() } else { Ok(()) }
    }

    fn begin_piece(&mut self) -> Result<()> {
        if let Some(triple) = self.copier.arena.triple() {
            self.note_time(triple);
        }
        self.learn();
        self.describe_piece("rotated")?;
        let Some(pieces) = &mut self.pieces else { return Ok(()) };
        pieces.number += 1;
        pieces.began = Instant::now();
        pieces.bytes += self.copier.streams.bytes;
        let next = TraceDir::create(&piece(&pieces.parent, pieces.number), false)?;
        pieces.old.push_back(std::mem::replace(&mut self.dir, next));
        while pieces.old.len() >= pieces.keep {
            pieces.old.pop_front().inspect(TraceDir::discard);
        }
        let mut streams = Streams::new(&self.dir.path);
        streams.tally = self.copier.streams.tally.take();
        streams.events = self.copier.streams.events;
        self.copier.next_piece(streams);
        // What is behind us is told by the pieces before; the baseline of the clock stays.
        self.sidecar = Sidecar::new(self.sidecar.program.clone(), &self.clock, &self.events);
        self.sidecar.piece = self.pieces.as_ref().map_or(0, Pieces::count);
        self.sidecar.functions = self.functions.entries(false);
        self.late = false;
        self.describe()
    }

    /// Describes what is written as a trace of its own.
    fn describe_piece(&mut self, ended: &str) -> Result<()> {
        self.sidecar.clock = (&self.clock).into();
        self.sidecar.complete = !self.late;
        self.sidecar.piece = self.pieces.as_ref().map_or(0, Pieces::count);
        self.sidecar.streams =
            self.copier.streams.lengths().iter().map(|(&n, &len)| (n, len)).collect();
        self.sidecar.ended = ended.into();
        self.sidecar.functions = self.functions.entries(false);
        let before = |id: &u32| self.copier.told_before.get(id).copied().unwrap_or(0);
        let told: BTreeMap<u32, u64> =
            self.copier.told.iter().map(|(id, told)| (*id, told - before(id))).collect();
        self.sidecar.lost = told.into_iter().filter(|(_, lost)| *lost > 0).collect();
        self.describe()
    }
}
