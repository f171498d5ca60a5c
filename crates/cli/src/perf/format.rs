//! How the kernel writes a tracepoint's record (its `format` file in tracefs), and the same as an event of
//! the trace.

use gracepoint_wire::profile::FIRST_KERNEL_ID;
use gracepoint_wire::schema::{Declared, Field, Role, Schema, Type};

/// Longest text that is kept, in bytes.
const LONGEST: usize = 1024;

/// How a field lies in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    /// So many bytes as they are.
    Bytes(usize),
    /// Characters up to a NUL, at most so many.
    Text(usize),
    /// Characters elsewhere in the record: offset and length in a word; relative to behind it, or not.
    TextAt { relative: bool },
}

/// A tracepoint of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    /// The kernel's number of it.
    pub(crate) number: u64,
    schema: Schema,
    /// Offset in the record, and how it lies there, of each field of the schema.
    places: Vec<(usize, How)>,
}

impl Format {
    /// Reads a `format` file of the tracepoint called `name`. Fields that are neither numbers nor texts are left
    /// out, and so are those that all tracepoints have.
    pub(crate) fn parse(name: &str, text: &str) -> Option<Format> {
        let number =
            text.lines().find_map(|line| line.strip_prefix("ID: ")?.trim().parse().ok())?;
        let mut fields = Vec::new();
        let mut places = Vec::new();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("field:")) {
            let Some((field, offset, how)) = field(line) else { continue };
            if !field.name.starts_with("common_") {
                fields.push(field);
                places.push((offset, how));
            }
        }
        let docs = "A tracepoint of the kernel's.".to_owned();
        let schema = Schema { name: name.to_owned(), docs, fields };
        Some(Format { number, schema, places })
    }

    /// Its name, `system:event`.
    pub(crate) fn name(&self) -> &str {
        &self.schema.name
    }

    /// Where a field begins in the kernel's record.
    pub(crate) fn offset(&self, field: &str) -> Option<usize> {
        let at = self.schema.fields.iter().position(|known| known.name == field)?;
        Some(self.places[at].0)
    }

    /// The event, as the one that was asked for at this position.
    pub(crate) fn declared(&self, at: usize) -> Declared {
        let id = FIRST_KERNEL_ID + at as u32;
        Declared { id, role: Role::Event, schema: self.schema.clone() }
    }

    /// The kernel's record as the trace's.
    pub(crate) fn encode(&self, raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(raw.len());
        for (offset, how) in &self.places {
            let rest = raw.get(*offset..).unwrap_or_default();
            match *how {
                How::Bytes(n) => {
                    let kept = &rest[..n.min(rest.len())];
                    out.extend_from_slice(kept);
                    out.resize(out.len() + n - kept.len(), 0);
                }
                How::Text(most) => text(&mut out, &rest[..most.min(rest.len())]),
                How::TextAt { relative } => {
                    let word = rest.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
                    let (mut at, len) = ((word & 0xffff) as usize, (word >> 16) as usize);
                    at += if relative { offset + 4 } else { 0 };
                    text(&mut out, raw.get(at..(at + len).min(raw.len())).unwrap_or_default());
                }
            }
        }
        out
    }
}

/// Up to the first NUL, and a NUL.
fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    out.extend_from_slice(&bytes[..bytes.len().min(LONGEST)]);
    out.push(0);
}

/// `char prev_comm[16]; offset:8; size:16; signed:0;`
fn field(line: &str) -> Option<(Field, usize, How)> {
    let mut parts = line.split(';').map(str::trim);
    let declaration = parts.next()?;
    let mut value = |name: &str| parts.next()?.strip_prefix(name)?.parse::<usize>().ok();
    let (offset, size, signed) = (value("offset:")?, value("size:")?, value("signed:")?);
    let (declaration, count) = match declaration.strip_suffix(']') {
        Some(array) => {
            let (rest, count) = array.rsplit_once('[')?;
            (rest, Some(count))
        }
        None => (declaration, None),
    };
    // Of `__data_loc char[] name` the brackets stand before the name.
    let (kind, name) = declaration.trim_end().rsplit_once([' ', '*'])?;
    let number = |size: usize| match (size, signed) {
        (1 | 2 | 4 | 8, 0) => Some(Type::Uint(size as u8)),
        (1 | 2 | 4 | 8, _) => Some(Type::Int(size as u8)),
        _ => None,
    };
    let located = kind.contains("__data_loc") || kind.contains("__rel_loc");
    let (ty, how) = if located {
        kind.contains("char").then_some(())?;
        (Type::Str, How::TextAt { relative: kind.contains("__rel_loc") })
    } else if let Some(count) = count {
        if kind == "char" {
            (Type::Str, How::Text(size))
        } else {
            // A constant's name may stand for the number: the size tells.
            let count = count.parse::<usize>().ok().filter(|&n| n > 0 && size % n == 0)?;
            (Type::Array(Box::new(number(size / count)?), count as u32), How::Bytes(size))
        }
    } else if kind.trim_end() == "bool" && size == 1 {
        (Type::Bool, How::Bytes(1))
    } else {
        (number(size)?, How::Bytes(size))
    };
    let docs = kind.trim().to_owned();
    Some((Field { name: name.to_owned(), ty, docs }, offset, how))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
name: mixed
ID: 372
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;

	field:char comm[4];	offset:8;	size:4;	signed:0;
	field:pid_t pid;	offset:12;	size:4;	signed:1;
	field:char * buf;	offset:16;	size:8;	signed:0;
	field:unsigned int args[2];	offset:24;	size:8;	signed:0;
	field:__data_loc char[] path;	offset:32;	size:4;	signed:1;
	field:struct thing odd;	offset:36;	size:24;	signed:0;
	field:bool good;	offset:60;	size:1;	signed:0;

print fmt: \"%s\", REC->comm
";

    #[test]
    fn a_format_becomes_an_event() {
        let format = Format::parse("a:mixed", TEXT).unwrap();
        assert_eq!(format.number, 372);
        let declared = format.declared(2);
        assert_eq!((declared.id, declared.schema.name.as_str()), (FIRST_KERNEL_ID + 2, "a:mixed"));
        let fields: Vec<String> =
            declared.schema.fields.iter().map(|f| format!("{}: {}", f.name, f.ty)).collect();
        assert_eq!(
            fields,
            ["comm: str", "pid: i32", "buf: u64", "args: [u32;2]", "path: str", "good: bool"]
        );
        let mut raw = vec![0; 61];
        raw[8..12].copy_from_slice(b"abcd");
        raw[12..16].copy_from_slice(&(-7i32).to_ne_bytes());
        raw[16..24].copy_from_slice(&9u64.to_ne_bytes());
        raw[24] = 1;
        raw[28] = 2;
        raw[32..36].copy_from_slice(&(61u32 | 3 << 16).to_ne_bytes());
        raw[60] = 1;
        raw.extend(b"/x\0");
        let mut want = b"abcd\0".to_vec();
        want.extend((-7i32).to_le_bytes());
        want.extend(9u64.to_le_bytes());
        want.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        want.extend(b"/x\0\x01");
        assert_eq!(format.encode(&raw), want);
        // Cut anywhere, it is as long as its fields are.
        for cut in 0..raw.len() {
            assert!(format.encode(&raw[..cut]).len() >= want.len() - 6, "{cut}");
        }
        assert_eq!(Format::parse("x", "nonsense"), None);
    }
}
