//! From TSDL's types to ours: checks that headers are those of [`gracepoint_wire::packet`], and finds
//! out which field types the fields of an event were written from.

use super::grammar::{Len, Named, Ty};
use gracepoint_wire::schema::{Field, Tag, Type};

/// Names of an enumeration that are kept, with ranges spelled out.
const MOST_NAMES: u64 = 1 << 16;

/// The packet header, as [`shape`] spells it.
pub(super) const PACKET_HEADER: &str = "{magic u32 stream_id u32 stream_instance_id u64}";
/// The packet context.
pub(super) const PACKET_CONTEXT: &str = "{timestamp_begin u64 timestamp_end u64 content_size u64 \
    packet_size u64 packet_seq_num u64 events_discarded u64 tid u32 thread u8[16] reserved u32}";
/// The event header.
pub(super) const EVENT_HEADER: &str = "{id u12a1(compact=0...4094 extended=4095) v \
    <id>{compact {timestamp u28a1} extended {id u32 timestamp u64}}}";

/// Longest shape; types may share parts, so that a short text can describe an endless one.
const LONGEST: usize = 1 << 12;

/// A type in one line, to compare layouts by; cut where it gets longer than any of ours.
pub(super) fn shape(ty: &Ty) -> String {
    let mut out = String::new();
    write_shape(&mut out, ty);
    out
}

fn write_shape(out: &mut String, ty: &Ty) {
    if out.len() > LONGEST {
        return;
    }
    match ty {
        Ty::Int { bits, align, signed } => {
            let sign = if *signed { "i" } else { "u" };
            *out += &format!("{sign}{bits}");
            if *align != 8 {
                *out += &format!("a{align}");
            }
        }
        Ty::Float { exp, mant, align } => *out += &format!("f{exp}.{mant}a{align}"),
        Ty::Text => *out += "text",
        Ty::Enum { of, names } => {
            write_shape(out, of);
            for (i, (name, low, high)) in names.iter().enumerate() {
                let before = if i == 0 { "(" } else { " " };
                *out += &format!("{before}{name}={low}");
                if low != high {
                    *out += &format!("...{high}");
                }
                if out.len() > LONGEST {
                    return;
                }
            }
            *out += ")";
        }
        Ty::Struct { fields } => write_fields(out, fields),
        Ty::Variant { tag, fields } => {
            *out += &format!("<{tag}>");
            write_fields(out, fields);
        }
        Ty::Array { of, len } => {
            write_shape(out, of);
            match len {
                Len::Fixed(n) => *out += &format!("[{n}]"),
                Len::Field(name) => *out += &format!("[{name}]"),
            }
        }
    }
}

fn write_fields(out: &mut String, fields: &[Named]) {
    *out += "{";
    for (i, field) in fields.iter().enumerate() {
        *out += if i == 0 { "" } else { " " };
        *out += &field.name;
        *out += " ";
        write_shape(out, &field.ty);
        if out.len() > LONGEST {
            return;
        }
    }
    *out += "}";
}

/// The fields that an event's structure was written from; the error names the one that is like
/// none that we write.
pub(super) fn event_fields(mut fields: &[Named]) -> Result<Vec<Field>, String> {
    let mut out = Vec::new();
    while let Some(first) = fields.first() {
        let (name, ty, used) = sequence(fields)
            .or_else(|| option(fields))
            .or_else(|| any(fields))
            .or_else(|| Some((first.name.strip_prefix('_')?, single(&first.ty)?, 1)))
            .ok_or_else(|| first.name.clone())?;
        out.push(Field { name: name.to_owned(), ty, docs: String::new() });
        fields = &fields[used..];
    }
    Ok(out)
}

/// `__x_total`, `__x_length` and `_x`.
fn sequence(fields: &[Named]) -> Option<(&str, Type, usize)> {
    let [total, length, items, ..] = fields else { return None };
    let name = total.name.strip_prefix("__")?.strip_suffix("_total")?;
    let expected = format!("__{name}_length");
    let fits = length.name == expected && items.name.strip_prefix('_') == Some(name);
    let ty = fits.then(|| sequence_of(total, length, items))??;
    Some((name, ty, 3))
}

fn sequence_of(total: &Named, length: &Named, items: &Named) -> Option<Type> {
    let Ty::Array { of, len: Len::Field(by) } = &*items.ty else { return None };
    let sizes = is_unsigned(&total.ty, 32) && is_unsigned(&length.ty, 16);
    (sizes && *by == length.name).then(|| number(of).map(|of| Type::Seq(Box::new(of))))?
}

/// `__x_tag` and `_x`.
fn option(fields: &[Named]) -> Option<(&str, Type, usize)> {
    let [tag, value, ..] = fields else { return None };
    let name = tag.name.strip_prefix("__")?.strip_suffix("_tag")?;
    let Ty::Variant { tag: by, fields: branches } = &*value.ty else { return None };
    let [none, some] = &branches[..] else { return None };
    let fits = value.name.strip_prefix('_') == Some(name)
        && *by == tag.name
        && shape(&tag.ty) == "u8(none=0 some=1)"
        && (none.name.as_str(), some.name.as_str()) == ("none", "some")
        && shape(&none.ty) == "{}";
    let of = fits.then(|| option_of(&some.ty))??;
    Some((name, Type::Option(Box::new(of)), 2))
}

/// `__x_tag` and `_x`, with a branch for each kind of value.
fn any(fields: &[Named]) -> Option<(&str, Type, usize)> {
    let [tag, value, ..] = fields else { return None };
    let name = tag.name.strip_prefix("__")?.strip_suffix("_tag")?;
    let Ty::Variant { tag: by, fields: branches } = &*value.ty else { return None };
    let names = Tag::ALL.iter().map(|(tag, name, _)| format!("{name}={}", *tag as u8));
    let tags = format!("u8({})", names.collect::<Vec<_>>().join(" "));
    let same = |(branch, (_, name, ty)): (&Named, &(Tag, &str, Option<Type>))| {
        branch.name == *name
            && match ty {
                Some(ty) => single(&branch.ty).as_ref() == Some(ty),
                None => shape(&branch.ty) == "{}",
            }
    };
    let fits = value.name.strip_prefix('_') == Some(name)
        && *by == tag.name
        && shape(&tag.ty) == tags
        && branches.len() == Tag::ALL.len()
        && branches.iter().zip(&Tag::ALL).all(same);
    fits.then_some((name, Type::Any, 2))
}

fn option_of(ty: &Ty) -> Option<Type> {
    let Ty::Struct { fields } = ty else { return single(ty) };
    match &fields[..] {
        [total, length, items]
            if (total.name.as_str(), length.name.as_str(), items.name.as_str())
                == ("_total", "_length", "_items") =>
        {
            sequence_of(total, length, items)
        }
        [items] if items.name == "_items" => single(&items.ty),
        _ => single(ty),
    }
}

/// A type that needs no helper field.
fn single(ty: &Ty) -> Option<Type> {
    match ty {
        Ty::Text => Some(Type::Str),
        Ty::Enum { of, names } => enumeration(of, names),
        Ty::Array { of, len: Len::Fixed(n) } => {
            Some(Type::Array(Box::new(number(of)?), u32::try_from(*n).ok()?))
        }
        _ => number(ty),
    }
}

fn number(ty: &Ty) -> Option<Type> {
    Some(match *ty {
        Ty::Int { bits: bits @ (8 | 16 | 32 | 64), align: 8, signed } => {
            let bytes = (bits / 8) as u8;
            if signed { Type::Int(bytes) } else { Type::Uint(bytes) }
        }
        Ty::Float { exp: 8, mant: 24, align: 8 } => Type::Float(4),
        Ty::Float { exp: 11, mant: 53, align: 8 } => Type::Float(8),
        Ty::Struct { .. } => match shape(ty).as_str() {
            "{_low u64 _high u64}" => Type::Uint(16),
            "{_low u64 _high i64}" => Type::Int(16),
            _ => return None,
        },
        _ => return None,
    })
}

fn enumeration(of: &Ty, names: &[(String, u64, u64)]) -> Option<Type> {
    let Some(Type::Uint(size)) = number(of) else { return None };
    let mut list = Vec::new();
    for (name, low, high) in names {
        if high.checked_sub(*low)? >= MOST_NAMES - list.len() as u64 {
            return None;
        }
        list.extend((*low..=*high).map(|value| (name.clone(), value)));
    }
    let is = |i: usize, name: &str, value| list.get(i).is_some_and(|e| e.0 == name && e.1 == value);
    if size == 1 && list.len() == 2 && is(0, "false", 0) && is(1, "true", 1) {
        return Some(Type::Bool);
    }
    Some(Type::Enum(size, list))
}

fn is_unsigned(ty: &Ty, wanted: u64) -> bool {
    matches!(ty, Ty::Int { bits, align: 8, signed: false } if *bits == wanted)
}
