//! Decode plans. Each kind of event has two: steps that find a record's end without looking at more
//! than they must (neighbours of fixed size are one step), and one entry per field that makes a value.

use crate::value::{Number, Numbers, Text, Value};
use gracepoint_wire::schema::{Field, Tag, Type};
use memchr::memchr;

/// How to skip a record, and how to decode its fields.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    fields: Vec<FieldPlan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Fixed(usize),
    Text,
    /// Elements of so many bytes.
    Seq(usize),
    OptionFixed(usize),
    OptionText,
    OptionSeq(usize),
    Any,
}

#[derive(Debug, Clone)]
struct FieldPlan {
    kind: Kind,
    optional: bool,
    /// Of an enumeration: its names, in order of values.
    names: Vec<(u64, String)>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Number(Number),
    Bool,
    Char,
    Text,
    Duration,
    Seq(Number),
    Array(Number, usize),
    Enum(u8),
    Any,
}

impl Plan {
    /// The plan for these fields; `None` where a type is nested in a way that has no layout.
    pub(crate) fn new(fields: &[Field]) -> Option<Plan> {
        let fields: Vec<FieldPlan> =
            fields.iter().map(|f| FieldPlan::new(&f.ty)).collect::<Option<_>>()?;
        let mut steps: Vec<Step> = Vec::new();
        for field in &fields {
            let step = field.step();
            match (steps.last_mut(), step) {
                (Some(Step::Fixed(sum)), Step::Fixed(more)) => *sum = sum.saturating_add(more),
                _ => steps.push(step),
            }
        }
        Some(Plan { steps, fields })
    }

    /// Bytes of the record that starts at `bytes`; `None` where it runs over their end, or the tag
    /// of an option is neither 0 nor 1.
    #[inline]
    pub(crate) fn skip(&self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0usize;
        for step in &self.steps {
            at = match *step {
                Step::Fixed(n) => at.checked_add(n).filter(|&end| end <= bytes.len())?,
                Step::Text => after_text(bytes, at)?,
                Step::Seq(size) => after_sequence(bytes, at, size)?,
                Step::Any => after_any(bytes, at)?,
                optional => match *bytes.get(at)? {
                    0 => at + 1,
                    1 => match optional {
                        Step::OptionFixed(n) => {
                            at.checked_add(n + 1).filter(|&end| end <= bytes.len())?
                        }
                        Step::OptionSeq(size) => after_sequence(bytes, at + 1, size)?,
                        _ => after_text(bytes, at + 1)?,
                    },
                    _ => return None,
                },
            };
        }
        Some(at)
    }

    /// The value of the field at `index`, which starts at `bytes`, and how many bytes it takes.
    #[inline]
    pub(crate) fn decode<'a>(
        &'a self,
        index: usize,
        bytes: &'a [u8],
    ) -> Option<(Value<'a>, usize)> {
        let field = self.fields.get(index)?;
        if !field.optional {
            return field.value(bytes);
        }
        match bytes.split_first()? {
            (0, _) => Some((Value::None, 1)),
            (_, rest) => field.value(rest).map(|(value, n)| (value, n + 1)),
        }
    }
}

#[inline]
fn after_text(bytes: &[u8], at: usize) -> Option<usize> {
    memchr(0, bytes.get(at..)?).map(|n| at + n + 1)
}

/// A tag, and the value that it names.
#[inline]
fn after_any(bytes: &[u8], at: usize) -> Option<usize> {
    match Tag::from_u8(*bytes.get(at)?)?.value_size() {
        Some(size) => at.checked_add(size + 1).filter(|&end| end <= bytes.len()),
        None => after_text(bytes, at + 1),
    }
}

/// A value of type `any`, and how many bytes it takes.
#[inline]
fn any_value(bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    let (tag, rest) = bytes.split_first()?;
    let tag = Tag::from_u8(*tag)?;
    let value = match tag {
        Tag::None => Value::None,
        Tag::U64 => Value::Uint(uint(rest, 8)?),
        Tag::I64 => Number::Int(8).value(rest)?,
        Tag::F64 => Number::Float(8).value(rest)?,
        Tag::Bool => Value::Bool(*rest.first()? != 0),
        Tag::U128 => Number::Uint(16).value(rest)?,
        Tag::I128 => Number::Int(16).value(rest)?,
        Tag::Text => {
            let n = memchr(0, rest)?;
            return Some((Value::Text(Text(&rest[..n])), n + 2));
        }
    };
    Some((value, 1 + tag.value_size()?))
}

/// u32 length of the original, u16 number kept, the elements.
#[inline]
fn after_sequence(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let kept: [u8; 2] = *bytes.get(at.checked_add(4)?..)?.first_chunk()?;
    let end = at + 6 + usize::from(u16::from_le_bytes(kept)) * size;
    (end <= bytes.len()).then_some(end)
}

impl FieldPlan {
    fn new(ty: &Type) -> Option<FieldPlan> {
        let (inner, optional) = match ty {
            Type::Option(inner) => (&**inner, true),
            ty => (ty, false),
        };
        let mut names = Vec::new();
        let kind = match inner {
            Type::Bool => Kind::Bool,
            Type::Char => Kind::Char,
            Type::Str => Kind::Text,
            Type::Duration => Kind::Duration,
            Type::Seq(of) => Kind::Seq(Number::new(of)?),
            Type::Array(of, n) => Kind::Array(Number::new(of)?, *n as usize),
            Type::Option(_) => return None,
            Type::Any if optional => return None,
            Type::Any => Kind::Any,
            Type::Enum(size, list) => {
                names = list.iter().map(|(name, value)| (*value, name.clone())).collect();
                names.sort_by_key(|&(value, _)| value);
                Kind::Enum(*size)
            }
            number => Kind::Number(Number::new(number)?),
        };
        Some(FieldPlan { kind, optional, names })
    }

    fn step(&self) -> Step {
        let fixed = |n| if self.optional { Step::OptionFixed(n) } else { Step::Fixed(n) };
        match self.kind {
            Kind::Number(of) => fixed(of.size()),
            Kind::Bool => fixed(1),
            Kind::Duration => fixed(8),
            Kind::Enum(size) => fixed(usize::from(size)),
            Kind::Array(of, n) => fixed(of.size() * n),
            Kind::Seq(of) if self.optional => Step::OptionSeq(of.size()),
            Kind::Seq(of) => Step::Seq(of.size()),
            Kind::Text | Kind::Char if self.optional => Step::OptionText,
            Kind::Text | Kind::Char => Step::Text,
            Kind::Any => Step::Any,
        }
    }

    #[inline]
    fn value<'a>(&'a self, bytes: &'a [u8]) -> Option<(Value<'a>, usize)> {
        Some(match self.kind {
            Kind::Number(of) => (of.value(bytes)?, of.size()),
            Kind::Bool => match *bytes.first()? {
                n @ 0..=1 => (Value::Bool(n == 1), 1),
                n => (Value::Uint(u64::from(n)), 1),
            },
            Kind::Text => {
                let n = memchr(0, bytes)?;
                (Value::Text(Text(&bytes[..n])), n + 1)
            }
            Kind::Char => {
                let n = memchr(0, bytes)?;
                (char_value(&bytes[..n]), n + 1)
            }
            Kind::Duration => (Value::Duration(uint(bytes, 8)?), 8),
            Kind::Seq(of) => {
                let total = uint(bytes, 4)? as u32;
                let end = after_sequence(bytes, 0, of.size())?;
                (Value::Seq { total, kept: Numbers { bytes: &bytes[6..end], of } }, end)
            }
            Kind::Array(of, n) => {
                let end = of.size().checked_mul(n)?;
                (Value::Array(Numbers { bytes: bytes.get(..end)?, of }), end)
            }
            Kind::Enum(size) => {
                let value = uint(bytes, size)?;
                let found = self.names.binary_search_by_key(&value, |&(value, _)| value);
                let name = found.ok().map(|i| self.names[i].1.as_str());
                (Value::Enum(name, value), usize::from(size))
            }
            Kind::Any => return any_value(bytes),
        })
    }
}

/// A `char` is written as text; what is not one character stays text.
fn char_value(bytes: &[u8]) -> Value<'_> {
    if bytes.is_empty() || bytes == [0xC0, 0x80] {
        return Value::Char('\0');
    }
    let mut chars = std::str::from_utf8(bytes).unwrap_or_default().chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Value::Char(c),
        _ => Value::Text(Text(bytes)),
    }
}

/// A little-endian unsigned integer of `size` ≤ 8 bytes.
#[inline]
fn uint(bytes: &[u8], size: u8) -> Option<u64> {
    Some(match size {
        1 => u64::from(*bytes.first()?),
        2 => u64::from(u16::from_le_bytes(*bytes.first_chunk()?)),
        4 => u64::from(u32::from_le_bytes(*bytes.first_chunk()?)),
        _ => u64::from_le_bytes(*bytes.first_chunk()?),
    })
}

impl Number {
    fn new(ty: &Type) -> Option<Number> {
        match *ty {
            Type::Uint(n) => Some(Number::Uint(n)),
            Type::Int(n) => Some(Number::Int(n)),
            Type::Float(n) => Some(Number::Float(n)),
            _ => None,
        }
    }

    pub(crate) fn size(self) -> usize {
        match self {
            Number::Uint(n) | Number::Int(n) | Number::Float(n) => usize::from(n),
        }
    }

    #[inline]
    pub(crate) fn value(self, bytes: &[u8]) -> Option<Value<'static>> {
        Some(match self {
            Number::Uint(16) => Value::Wide(u128::from_le_bytes(*bytes.first_chunk()?)),
            Number::Uint(n) => Value::Uint(uint(bytes, n)?),
            Number::Int(1) => Value::Int(i64::from(i8::from_le_bytes(*bytes.first_chunk()?))),
            Number::Int(2) => Value::Int(i64::from(i16::from_le_bytes(*bytes.first_chunk()?))),
            Number::Int(4) => Value::Int(i64::from(i32::from_le_bytes(*bytes.first_chunk()?))),
            Number::Int(16) => Value::WideInt(i128::from_le_bytes(*bytes.first_chunk()?)),
            Number::Int(_) => Value::Int(i64::from_le_bytes(*bytes.first_chunk()?)),
            Number::Float(4) => Value::Float32(f32::from_le_bytes(*bytes.first_chunk()?)),
            Number::Float(_) => Value::Float(f64::from_le_bytes(*bytes.first_chunk()?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(types: &[&str]) -> Plan {
        let field =
            |ty: &&str| Field { name: "f".into(), ty: ty.parse().unwrap(), docs: String::new() };
        Plan::new(&types.iter().map(field).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn neighbours_of_fixed_size_are_one_step() {
        let plan = plan(&["u8", "u64", "[f32;3]", "str", "ns", "bool", "?[u16]", "char"]);
        use Step::{Fixed, OptionSeq, Text};
        assert_eq!(plan.steps, [Fixed(21), Text, Fixed(9), OptionSeq(2), Text]);
    }

    #[test]
    fn what_runs_over_the_end_is_refused() {
        let plan = plan(&["u16", "?str", "[u32]"]);
        let whole = [7, 0, 1, b'x', 0, 9, 0, 0, 0, 1, 0, 1, 2, 3, 4];
        assert_eq!(plan.skip(&whole), Some(whole.len()));
        for cut in 0..whole.len() {
            assert_eq!(plan.skip(&whole[..cut]), None, "cut at {cut}");
        }
        let mut bad_tag = whole;
        bad_tag[2] = 2;
        assert_eq!(plan.skip(&bad_tag), None);
        assert_eq!(super::tests::plan(&["[u128;4294967295]"]).skip(&whole), None);
    }

    #[test]
    fn values_say_what_they_are() {
        let plan = plan(&["any", "u8"]);
        let record = |tag: Tag, bytes: &[u8]| [&[tag as u8], bytes, &[7]].concat();
        let cases = [
            (record(Tag::None, b""), Value::None),
            (record(Tag::U64, &9u64.to_le_bytes()), Value::Uint(9)),
            (record(Tag::I64, &(-9i64).to_le_bytes()), Value::Int(-9)),
            (record(Tag::F64, &0.5f64.to_le_bytes()), Value::Float(0.5)),
            (record(Tag::Bool, &[1]), Value::Bool(true)),
            (record(Tag::Text, b"x\0"), Value::Text(Text(b"x"))),
            (record(Tag::U128, &(1u128 << 70).to_le_bytes()), Value::Wide(1 << 70)),
            (record(Tag::I128, &(-1i128).to_le_bytes()), Value::WideInt(-1)),
        ];
        for (record, value) in cases {
            assert_eq!(plan.skip(&record), Some(record.len()), "{value:?}");
            assert_eq!(plan.decode(0, &record), Some((value, record.len() - 1)));
            for cut in 0..record.len() {
                assert_eq!(plan.skip(&record[..cut]), None, "{value:?} cut at {cut}");
            }
        }
        assert_eq!(plan.skip(&[8, 0, 0]), None, "a tag of a newer version");
        assert_eq!(plan.decode(0, &[8, 0, 0]), None);
    }

    #[test]
    fn characters_that_are_none_stay_text() {
        assert_eq!(char_value("ß".as_bytes()), Value::Char('ß'));
        assert_eq!(char_value(b""), Value::Char('\0'));
        assert_eq!(char_value(b"\xC0\x80"), Value::Char('\0'));
        assert_eq!(char_value(b"ab"), Value::Text(Text(b"ab")));
        assert_eq!(char_value(b"\xff"), Value::Text(Text(b"\xff")));
    }
}
