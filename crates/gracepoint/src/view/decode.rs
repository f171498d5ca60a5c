//! From the bytes of a record back to values, by the types that wrote them. The bytes are this process's
//! own; still every length is checked, and what does not fit ends the fields.

use super::value::{Numbers, Value};
use crate::field::TypeDesc;
use gracepoint_wire::schema::Tag;
use std::time::Duration;

/// A place in a record.
#[derive(Clone)]
pub(super) struct Cursor<'v> {
    left: &'v [u8],
}

impl<'v> Cursor<'v> {
    pub(super) fn new(bytes: &'v [u8]) -> Cursor<'v> {
        Cursor { left: bytes }
    }

    fn take(&mut self, count: usize) -> Option<&'v [u8]> {
        let (taken, left) = self.left.split_at_checked(count)?;
        self.left = left;
        Some(taken)
    }

    /// An integer of so many bytes, and how many of its 128 bits are unused.
    fn uint(&mut self, size: usize) -> Option<u128> {
        let mut bytes = [0; 16];
        bytes.get_mut(..size)?.copy_from_slice(self.take(size)?);
        Some(u128::from_le_bytes(bytes))
    }

    fn int(&mut self, size: usize) -> Option<i128> {
        let unused = 128 - 8 * size as u32;
        Some((self.uint(size)?.checked_shl(unused)?).cast_signed() >> unused)
    }

    fn word(&mut self, size: usize) -> Option<u64> {
        self.uint(size)?.try_into().ok()
    }

    fn float(&mut self, size: usize) -> Option<f64> {
        match size {
            4 => Some(f32::from_bits(self.word(4)? as u32).into()),
            _ => Some(f64::from_bits(self.word(8)?)),
        }
    }

    fn text(&mut self) -> Option<&'v [u8]> {
        let end = self.left.iter().position(|&byte| byte == 0)?;
        let text = self.take(end)?;
        self.take(1)?;
        Some(text)
    }

    fn numbers(
        &mut self,
        of: &'static TypeDesc,
        original: usize,
        kept: usize,
    ) -> Option<Value<'v>> {
        let (TypeDesc::Uint(size) | TypeDesc::Int(size) | TypeDesc::Float(size)) = *of else {
            return None;
        };
        let bytes = self.take(kept.checked_mul(size.into())?)?;
        Some(Value::Numbers(Numbers { of, bytes, original }))
    }

    /// The value of this type that comes next.
    pub(super) fn value(&mut self, ty: &TypeDesc) -> Option<Value<'v>> {
        Some(match *ty {
            TypeDesc::Uint(size) => Value::Uint(self.uint(size.into())?),
            TypeDesc::Int(size) => Value::Int(self.int(size.into())?),
            TypeDesc::Float(size) => Value::Float(self.float(size.into())?),
            TypeDesc::Bool => Value::Bool(self.uint(1)? != 0),
            TypeDesc::Char => {
                let text = std::str::from_utf8(self.text()?).ok()?;
                Value::Char(text.chars().next().unwrap_or('\0'))
            }
            TypeDesc::Str => {
                let text = self.text()?;
                std::str::from_utf8(text).map_or(Value::Bytes(text), Value::Str)
            }
            TypeDesc::Duration => Value::Duration(Duration::from_nanos(self.word(8)?)),
            TypeDesc::Seq(of) => {
                let (original, kept) = (self.word(4)?, self.word(2)?);
                self.numbers(of, original as usize, kept as usize)?
            }
            TypeDesc::Array(of, count) => self.numbers(of, count as usize, count as usize)?,
            TypeDesc::Option(of) => match self.uint(1)? {
                0 => Value::None,
                _ => self.value(of)?,
            },
            TypeDesc::Enum(size, names) => {
                let number = self.word(size.into())?;
                let unused = 64 - 8 * u32::from(size);
                // Names of negative values are kept as 64 bits; a record has the low ones.
                let same = |&&(_, value): &&(&str, u64)| (value ^ number) << unused == 0;
                Value::Enum(number, names.iter().find(same).map(|&(name, _)| name))
            }
            TypeDesc::Any => match Tag::from_u8(self.word(1)? as u8)? {
                Tag::None => Value::None,
                Tag::U64 => self.value(&TypeDesc::Uint(8))?,
                Tag::I64 => self.value(&TypeDesc::Int(8))?,
                Tag::F64 => self.value(&TypeDesc::Float(8))?,
                Tag::Bool => self.value(&TypeDesc::Bool)?,
                Tag::Text => self.value(&TypeDesc::Str)?,
                Tag::U128 => self.value(&TypeDesc::Uint(16))?,
                Tag::I128 => self.value(&TypeDesc::Int(16))?,
            },
        })
    }
}
