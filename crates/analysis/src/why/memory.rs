//! The memory of a process, as far as we may read it: one that lives, or a core file.

/// A part of a process's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The address behind it.
    pub end: u64,
    /// Where in its file it begins.
    pub offset: u64,
    /// Its file, or its name in brackets; empty if it has none.
    pub path: String,
    /// It may be written.
    pub writable: bool,
    /// It may be executed.
    pub executable: bool,
}

/// What can be read of a process. Everything that comes from there may be anything.
pub trait Memory {
    /// Reads as much as there is, from its beginning. How many bytes.
    fn read_some(&self, address: u64, into: &mut [u8]) -> usize;

    /// Its parts, in order of address.
    fn mappings(&self) -> &[Mapping];

    /// The time on the clock of the process's own notes (`CLOCK_MONOTONIC`), nanoseconds; `None` where it is not known.
    fn now(&self) -> Option<u64>;

    /// Fills all of `into`, or says no.
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        self.read_some(address, into) == into.len()
    }

    /// The eight bytes there.
    fn word(&self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(address, &mut word).then(|| u64::from_le_bytes(word))
    }

    /// The four bytes there.
    fn half(&self, address: u64) -> Option<u32> {
        let mut half = [0; 4];
        self.read(address, &mut half).then(|| u32::from_le_bytes(half))
    }
}

/// Reads the lines of `/proc/PID/maps`.
pub fn parse_maps(text: &str) -> Vec<Mapping> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mapping> {
    let mut parts = line.splitn(6, ' ');
    let (start, end) = parts.next()?.split_once('-')?;
    let rights = parts.next()?;
    let offset = parts.next()?;
    let path = parts.nth(2).unwrap_or("").trim_start().trim_end_matches(" (deleted)");
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end).then(|| Mapping {
        start,
        end,
        offset: hex(offset).unwrap_or(0),
        path: path.to_owned(),
        writable: rights.as_bytes().get(1) == Some(&b'w'),
        executable: rights.as_bytes().get(2) == Some(&b'x'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_read_and_others_left_out() {
        let text = "7f00-8000 r-xp 00001000 08:01 12    /lib/a b.so (deleted)\n\
                    9000-a000 rw-p 00000000 00:00 0    [anon:gracepoint-why]\nrubbish\n9-1 rw-p 0 0 0\n";
        let maps = parse_maps(text);
        assert_eq!(maps.len(), 2);
        assert_eq!((maps[0].start, maps[0].end, maps[0].offset), (0x7f00, 0x8000, 0x1000));
        assert_eq!(maps[0].path, "/lib/a b.so");
        assert!(maps[0].executable && !maps[0].writable);
        assert_eq!(maps[1].path, "[anon:gracepoint-why]");
    }
}
