//! Doors for the fuzzers, which are outside; compiled for them alone.

use crate::record::arena::Arena;
use crate::record::copy::Copier;
use crate::record::residue;
use crate::record::streams::Streams;
use std::fs::File;
use std::path::Path;

/// Copies what is in the arena `file` to stream files in `dir`, as a recorder does until the
/// program's end.
///
/// # Panics
/// When a file that the arena's header allows cannot be read, or `dir` not be written.
pub fn copy_arena(file: File, dir: &Path) {
    let Ok(arena) = Arena::open(file.into()) else { return };
    let mut copier = Copier::new(arena, Streams::new(dir));
    copier.arena.triple();
    for _ in 0..2 {
        copier.copy_full().expect("the arena is read and the streams are written");
        copier.pages_are_short();
    }
    copier.copy_owned(|slot| u64::from(slot)).expect("the arena is read");
    residue::write(&mut copier, 1).expect("the losses are read");
}
