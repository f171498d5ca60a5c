//! The stream files of a trace being written: one per ring slot, of which only so many are open at
//! a time.
//!
//! Files end at a packet's end whatever happens: what could be written only in part, because the
//! disk is full, is cut off again.

use gracepoint_analysis::tally::Tally;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files open at once.
const OPEN_MOST: usize = 200;

/// The stream files of one trace.
#[derive(Debug)]
pub(crate) struct Streams {
    dir: PathBuf,
    open: HashMap<u64, (File, u64)>,
    lengths: HashMap<u64, u64>,
    /// Counts appends, to know which file was used longest ago.
    uses: u64,
    /// Bytes written to all.
    pub(crate) bytes: u64,
    /// Counts `events`, while somebody looks.
    pub(crate) tally: Option<Tally>,
    /// Events written, as far as they were counted.
    pub(crate) events: u64,
    /// Where packets go instead of files.
    gathered: Option<Vec<u8>>,
}

impl Streams {
    /// Streams in `dir`, none of which exists yet.
    pub(crate) fn new(dir: &Path) -> Streams {
        Streams {
            dir: dir.to_owned(),
            open: HashMap::new(),
            lengths: HashMap::new(),
            uses: 0,
            bytes: 0,
            tally: None,
            events: 0,
            gathered: None,
        }
    }

    /// No files: what is appended is there to be taken.
    pub(crate) fn gathering() -> Streams {
        Streams { gathered: Some(Vec::new()), ..Streams::new(Path::new("")) }
    }

    /// The packets of all slots since the last call, those of each in order.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.gathered.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Appends whole packets to the file of a slot: all of them or nothing.
    ///
    /// # Errors
    /// When the disk is full or the directory is gone.
    pub(crate) fn append(&mut self, slot: u64, packets: &[u8]) -> io::Result<()> {
        if packets.is_empty() {
            return Ok(());
        }
        if let Some(gathered) = &mut self.gathered {
            gathered.extend_from_slice(packets);
            return Ok(());
        }
        self.uses += 1;
        let uses = self.uses;
        let before = self.lengths.get(&slot).copied().unwrap_or(0);
        let (file, used) = self.file(slot)?;
        *used = uses;
        if let Err(error) = file.write_all(packets) {
            // Giving space back needs none.
            let _ = file.set_len(before);
            return Err(error);
        }
        self.lengths.insert(slot, before + packets.len() as u64);
        self.bytes += packets.len() as u64;
        self.events += self.tally.as_ref().map_or(0, |tally| tally.count(packets));
        Ok(())
    }

    /// Bytes of each file.
    pub(crate) fn lengths(&self) -> &HashMap<u64, u64> {
        &self.lengths
    }

    fn file(&mut self, slot: u64) -> io::Result<&mut (File, u64)> {
        if !self.open.contains_key(&slot) {
            if self.open.len() >= OPEN_MOST {
                let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used);
                if let Some(oldest) = oldest.map(|(slot, _)| *slot) {
                    self.open.remove(&oldest);
                }
            }
            let mut options = OpenOptions::new();
            options.append(true).mode(0o600);
            options.create_new(!self.lengths.contains_key(&slot));
            let file = options.open(self.dir.join(format!("stream_{slot}")))?;
            self.open.insert(slot, (file, 0));
        }
        Ok(self.open.get_mut(&slot).expect("it was put there above"))
    }
}
