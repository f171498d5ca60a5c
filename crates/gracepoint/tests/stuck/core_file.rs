//! A core file of a program that goes on to live, as debuggers write one: an ELF file with notes, and its
//! private memory. (What the kernel writes when a program is killed depends on the machine's settings.)

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
const PRSTATUS: u32 = 1;
const NT_FILE: u32 = 0x4649_4c45;

struct Part {
    start: u64,
    flags: u32,
    bytes: Vec<u8>,
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn note(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for value in [5, content.len() as u32, kind] {
        note.extend_from_slice(&value.to_le_bytes());
    }
    note.extend_from_slice(b"CORE\0\0\0\0");
    note.extend_from_slice(content);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// Writes the core of a stopped process into `dir`.
pub(crate) fn write(pid: u32, dir: &Path) -> PathBuf {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("our child");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("our child");
    let (mut parts, mut files, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (start, end) = fields[0].split_once('-').expect("a range");
        let hex = |text: &str| u64::from_str_radix(text, 16).expect("a number");
        let (start, end, rights) = (hex(start), hex(end), fields[1].as_bytes());
        if let Some(path) = fields.get(5).filter(|path| path.starts_with('/')) {
            files.extend([start, end, hex(fields[2]) / 4096]);
            names.extend_from_slice(path.as_bytes());
            names.push(0);
        }
        let mut bytes = vec![0; usize::try_from(end - start).expect("64 bits")];
        // What may be read and written, and is private, up to what a thread's stack takes.
        if rights.starts_with(b"rw-p")
            && bytes.len() <= 64 << 20
            && memory.read_exact_at(&mut bytes, start).is_ok()
        {
            parts.push(Part { start, flags: 6, bytes });
        }
    }
    let mut status = vec![0; 336];
    status[32..36].copy_from_slice(&pid.to_le_bytes());
    let count = files.len() as u64 / 3;
    let mapped = [words(&[count, 4096]), words(&files), names].concat();
    let notes = [note(PRSTATUS, &status), note(NT_FILE, &mapped)].concat();
    let path = dir.join("core");
    std::fs::write(&path, elf(&notes, &parts)).expect("our directory");
    path
}

fn elf(notes: &[u8], parts: &[Part]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [4_u16, 62] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1_u32.to_le_bytes());
    file.extend(words(&[0, HEADER as u64, 0]));
    file.extend_from_slice(&0_u32.to_le_bytes());
    for half in [HEADER, PROGRAM_HEADER, parts.len() + 1, 0, 0, 0] {
        file.extend_from_slice(&(half as u16).to_le_bytes());
    }
    let mut at = (HEADER + PROGRAM_HEADER * (parts.len() + 1)) as u64;
    let mut header = |kind: u32, flags: u32, start: u64, len: u64| {
        file.extend_from_slice(&kind.to_le_bytes());
        file.extend_from_slice(&flags.to_le_bytes());
        file.extend(words(&[at, start, 0, len, len, 1]));
        at += len;
    };
    header(NOTE, 0, 0, notes.len() as u64);
    for part in parts {
        header(LOAD, part.flags, part.start, part.bytes.len() as u64);
    }
    file.extend_from_slice(notes);
    parts.iter().for_each(|part| file.extend_from_slice(&part.bytes));
    file
}
