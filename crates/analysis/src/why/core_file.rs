//! A core file as the memory of a process: its segments, what was mapped, and where each thread was.
//!
//! What was mapped from files and not written, such as code and texts, is not in a core: it is read from the
//! files that the core names, where those are files. They may have changed since.

use super::memory::{Mapping, Memory};
use super::stack::Registers;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, ReadCache, elf};
use std::fs::File;
use std::io;
use std::path::Path;

/// Most segments and notes that are looked at.
const PARTS: usize = 1 << 16;
/// Longest note.
const NOTE: u64 = 64 << 20;

/// A segment: where it was, and where it is in the file.
struct Segment {
    start: u64,
    len: u64,
    at: u64,
}

/// A process that has left a core.
pub struct Core {
    file: File,
    segments: Vec<Segment>,
    mappings: Vec<Mapping>,
    /// Parts of files, for what the core does not hold.
    files: Vec<Mapping>,
    /// Threads by the kernel's number, that which died first.
    pub threads: Vec<(u32, Registers)>,
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl Core {
    /// Reads what a core file has of a process.
    ///
    /// # Errors
    /// When the file cannot be read, or is no core of a 64-bit program for this kind of processor.
    pub fn open(path: &Path) -> io::Result<Core> {
        let file = File::open(path)?;
        let cache = ReadCache::new(file.try_clone()?);
        let header = elf::FileHeader64::<LittleEndian>::parse(&cache)
            .map_err(|error| wrong(format!("it is no 64-bit ELF file ({error})")))?;
        let endian = header.endian().map_err(|error| wrong(error.to_string()))?;
        if header.e_type(endian) != elf::ET_CORE {
            return Err(wrong("it is no core file"));
        }
        let headers = header.program_headers(endian, &cache).map_err(|e| wrong(e.to_string()))?;
        let (segments, mappings, files) = (Vec::new(), Vec::new(), Vec::new());
        let mut core = Core { file, segments, mappings, files, threads: Vec::new() };
        for header in headers.iter().take(PARTS) {
            if header.p_type(endian) == elf::PT_LOAD {
                core.load(header, endian);
            }
        }
        for header in headers.iter().take(PARTS) {
            let notes = header.notes(endian, &cache).ok().flatten();
            let Some(mut notes) = notes.filter(|_| header.p_filesz(endian) <= NOTE) else {
                continue;
            };
            while let Ok(Some(note)) = notes.next() {
                match note.n_type(endian) {
                    elf::NT_PRSTATUS => core.threads.extend(status(note.desc())),
                    elf::NT_FILE => core.name_files(note.desc()),
                    _ => {}
                }
            }
        }
        core.mappings.sort_by_key(|mapping| mapping.start);
        Ok(core)
    }

    fn load(&mut self, header: &elf::ProgramHeader64<LittleEndian>, endian: LittleEndian) {
        let (start, flags) = (header.p_vaddr(endian), header.p_flags(endian));
        self.segments.push(Segment {
            start,
            len: header.p_filesz(endian),
            at: header.p_offset(endian),
        });
        self.mappings.push(Mapping {
            start,
            end: start.saturating_add(header.p_memsz(endian)),
            writable: flags.0 & elf::PF_W.0 != 0,
            executable: flags.0 & elf::PF_X.0 != 0,
            ..Mapping::default()
        });
    }

    /// `NT_FILE`: count, page size, (start, end, page offset)…, names.
    fn name_files(&mut self, note: &[u8]) {
        let word = |at: usize| {
            let bytes = note.get(at..at.checked_add(8)?)?;
            Some(u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8])))
        };
        let (Some(count), Some(page)) = (word(0), word(8)) else { return };
        let count = usize::try_from(count).unwrap_or(0).min(PARTS);
        let mut names = note.get(16 + 24 * count..).unwrap_or_default().split(|byte| *byte == 0);
        for number in 0..count {
            let at = 16 + 24 * number;
            let (Some(start), Some(end), Some(offset), Some(name)) =
                (word(at), word(at + 8), word(at + 16), names.next())
            else {
                return;
            };
            let path = String::from_utf8_lossy(name).into_owned();
            let offset = offset.saturating_mul(page);
            if let Some(mapping) = self.mappings.iter_mut().find(|mapping| mapping.start == start) {
                mapping.path.clone_from(&path);
                mapping.offset = offset;
            }
            self.files.push(Mapping { start, end, offset, path, ..Mapping::default() });
        }
    }

    /// What lies there in the file that was mapped there.
    fn read_file(&self, address: u64, into: &mut [u8]) -> usize {
        let holds = |part: &&Mapping| (part.start..part.end).contains(&address);
        let Some(part) = self.files.iter().find(holds) else { return 0 };
        let path = Path::new(&part.path);
        // A core may name anything: a pipe would be waited for.
        if !path.metadata().is_ok_and(|meta| meta.is_file()) {
            return 0;
        }
        let most = usize::try_from(part.end - address).unwrap_or(usize::MAX).min(into.len());
        let at = part.offset.saturating_add(address - part.start);
        File::open(path).and_then(|file| read_at(&file, &mut into[..most], at)).unwrap_or(0)
    }
}

/// Reads from `at` on, on any system.
fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, into, at);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, into, at);
}

/// `struct elf_prstatus` of 64-bit x86: the thread's number at 32, its registers at 112.
fn status(note: &[u8]) -> Option<(u32, Registers)> {
    const REGISTERS: usize = 112;
    let word = |number: usize| {
        let at = REGISTERS + 8 * number;
        let bytes = note.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8])))
    };
    let tid = u32::from_le_bytes(note.get(32..36)?.try_into().unwrap_or([0; 4]));
    Some((tid, Registers { bp: Some(word(4)?), pc: word(16)?, sp: word(19)? }))
}

impl Memory for Core {
    fn read_some(&self, address: u64, into: &mut [u8]) -> usize {
        let holds = |segment: &&Segment| address.wrapping_sub(segment.start) < segment.len;
        let Some(segment) = self.segments.iter().find(holds) else {
            return self.read_file(address, into);
        };
        let inside = address - segment.start;
        let most = usize::try_from(segment.len - inside).unwrap_or(usize::MAX).min(into.len());
        let at = segment.at.saturating_add(inside);
        read_at(&self.file, &mut into[..most], at).unwrap_or_default()
    }

    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn now(&self) -> Option<u64> {
        None
    }
}
