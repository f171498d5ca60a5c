//! The value of a field, borrowed from an encoded event.

use super::decode::Cursor;
use crate::field::TypeDesc;
use std::fmt;
use std::time::Duration;

/// The value of a field as a trace would show it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'v> {
    /// An unsigned integer of any size.
    Uint(u128),
    /// A signed integer of any size.
    Int(i128),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A character.
    Char(char),
    /// Text, or what `Display` or `Debug` made. A NUL inside is `C0 80`, which makes it [`Bytes`](Self::Bytes).
    Str(&'v str),
    /// Text that is not UTF-8 (a path, say).
    Bytes(&'v [u8]),
    /// A length of time.
    Duration(Duration),
    /// A sequence or an array.
    Numbers(Numbers<'v>),
    /// An `Option` that is `None`; one that is `Some` is its value.
    None,
    /// An enum: its number, and its name if it has one.
    Enum(u64, Option<&'static str>),
}

impl<'v> Value<'v> {
    /// The text, if it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&'v str> {
        if let Value::Str(text) = *self { Some(text) } else { None }
    }

    /// The number, if it is an unsigned integer, or a signed one that is not negative, that fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::Uint(n) => n.try_into().ok(),
            Value::Int(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = *self { Some(value) } else { None }
    }
}

/// Text is quoted, an enum is its name, and a sequence that was cut ends in `…`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Uint(n) => n.fmt(f),
            Value::Int(n) => n.fmt(f),
            Value::Float(n) => n.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::Char(c) => write!(f, "{c:?}"),
            Value::Str(text) => write!(f, "{text:?}"),
            Value::Bytes(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Value::Duration(time) => write!(f, "{time:?}"),
            Value::Numbers(numbers) => numbers.fmt(f),
            Value::None => f.write_str("None"),
            Value::Enum(_, Some(name)) => f.write_str(name),
            Value::Enum(n, None) => n.fmt(f),
        }
    }
}

/// A sequence or an array of numbers.
#[derive(Clone, Copy, PartialEq)]
pub struct Numbers<'v> {
    pub(super) of: &'static TypeDesc,
    pub(super) bytes: &'v [u8],
    pub(super) original: usize,
}

impl<'v> Numbers<'v> {
    /// Numbers that the sequence had, more than [`iter`](Self::iter) gives if it was cut.
    #[must_use]
    pub fn original_len(&self) -> usize {
        self.original
    }

    /// The numbers that were kept.
    pub fn iter(&self) -> impl Iterator<Item = Value<'v>> {
        let (mut cursor, of) = (Cursor::new(self.bytes), self.of);
        std::iter::from_fn(move || cursor.value(of))
    }
}

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut count = 0;
        f.write_str("[")?;
        for value in self.iter() {
            let comma = if count == 0 { "" } else { ", " };
            write!(f, "{comma}{value}")?;
            count += 1;
        }
        f.write_str(if count < self.original { ", …]" } else { "]" })
    }
}

impl fmt::Debug for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
