//! As much of ELF as is needed: where a section of an object lies, and what its functions are called.
//!
//! The file is believed as far as it agrees with what is mapped: the caller compares build ids and looks
//! at the bytes that it is led to. Everything here is bounded by the file's own size, and returns
//! nothing where the file says what cannot be.

use std::ops::Range;

/// A 64-bit little-endian ELF file.
pub(crate) struct Elf<'a> {
    file: &'a [u8],
    sections: Vec<Section>,
}

struct Section {
    name: usize,
    kind: u32,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
}

/// A function that a symbol names.
pub(crate) struct Symbol<'a> {
    pub(crate) address: u64,
    pub(crate) name: &'a str,
}

const SYMTAB: u32 = 2;
const DYNSYM: u32 = 11;
const NOBITS: u32 = 8;
const FUNC: u8 = 2;
/// Section indices from here on are special.
const RESERVED: usize = 0xff00;

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..size].copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(file: &'a [u8]) -> Option<Elf<'a>> {
        if file.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
            return None;
        }
        let table = usize::try_from(number(file, 40, 8)?).ok()?;
        let (each, count) = (number(file, 58, 2)? as usize, number(file, 60, 2)? as usize);
        if each < 64 || count >= RESERVED {
            return None;
        }
        let section = |index: usize| {
            let at = table.checked_add(index * each)?;
            let header = file.get(at..at.checked_add(64)?)?;
            Some(Section {
                name: number(header, 0, 4)? as usize,
                kind: number(header, 4, 4)? as u32,
                address: number(header, 16, 8)?,
                offset: number(header, 24, 8)?,
                size: number(header, 32, 8)?,
                link: number(header, 40, 4)? as u32,
            })
        };
        let mut sections: Vec<Section> = (0..count).map(section).collect::<Option<_>>()?;
        let names = number(file, 62, 2)? as usize;
        let strings = content(file, sections.get(names)?)?;
        // Names become where they lie in the file.
        let base = strings.as_ptr() as usize - file.as_ptr() as usize;
        sections.iter_mut().for_each(|section| section.name = section.name.saturating_add(base));
        Some(Elf { file, sections })
    }

    /// The addresses, in the file's own terms, of the section with this name.
    pub(crate) fn section(&self, name: &str) -> Option<Range<u64>> {
        let found = self.sections.iter().find(|s| text(self.file, s.name) == Some(name))?;
        Some(found.address..found.address.checked_add(found.size)?)
    }

    /// The bytes of the section with this name.
    pub(crate) fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.sections.iter().find(|s| text(self.file, s.name) == Some(name))?;
        content(self.file, found)
    }

    /// The functions that symbols name, from the full table or, where that is stripped, from the dynamic one.
    pub(crate) fn functions(&self) -> Vec<Symbol<'a>> {
        let table = |kind: u32| self.sections.iter().find(|s| s.kind == kind);
        let Some(table) = table(SYMTAB).or_else(|| table(DYNSYM)) else { return Vec::new() };
        let strings = self.sections.get(table.link as usize).and_then(|s| content(self.file, s));
        let (Some(symbols), Some(strings)) = (content(self.file, table), strings) else {
            return Vec::new();
        };
        let one = |symbol: &[u8]| {
            let function = symbol[4] & 15 == FUNC && number(symbol, 6, 2)? != 0;
            let name = text(strings, number(symbol, 0, 4)? as usize)?;
            function.then_some(Symbol { address: number(symbol, 8, 8)?, name })
        };
        symbols.chunks_exact(24).filter_map(one).collect()
    }
}

fn content<'a>(file: &'a [u8], section: &Section) -> Option<&'a [u8]> {
    if section.kind == NOBITS {
        return None;
    }
    let start = usize::try_from(section.offset).ok()?;
    file.get(start..start.checked_add(usize::try_from(section.size).ok()?)?)
}

/// The text that begins here and ends with a NUL.
fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_sections_and_this_function() {
        let file = std::fs::read("/proc/self/exe").expect("the test's own file");
        let elf = Elf::parse(&file).expect("an ELF file");
        let text = elf.section(".text").expect("code");
        assert!(text.end > text.start);
        assert!(elf.section("no such section").is_none());
        assert_eq!(elf.bytes(".text").map(<[u8]>::len), Some((text.end - text.start) as usize));
        let named = |s: &Symbol<'_>| s.name.contains("this_program_has_sections_and_this_function");
        assert!(elf.functions().iter().any(named));
    }

    #[test]
    fn rubbish_is_nothing_and_costs_nothing() {
        let file = std::fs::read("/proc/self/exe").expect("the test's own file");
        assert!(Elf::parse(b"").is_none() && Elf::parse(&[0; 4096]).is_none());
        for cut in [5, 63, 64, 1000, file.len() / 2, file.len() - 1] {
            let elf = Elf::parse(&file[..cut]);
            assert!(elf.is_none_or(|elf| elf.functions().len() < file.len() / 24));
        }
        let mut broken = file[..64].to_vec();
        for at in 40..64 {
            broken[at] ^= 0xff;
            assert!(Elf::parse(&broken).is_none());
        }
    }
}
