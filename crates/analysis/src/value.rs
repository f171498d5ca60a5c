//! What a field of a record holds. Values borrow from the packet and are made one at a time.

use std::borrow::Cow;

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Unsigned, up to 64 bits.
    Uint(u64),
    /// Signed, up to 64 bits.
    Int(i64),
    /// `u128`.
    Wide(u128),
    /// `i128`.
    WideInt(i128),
    /// `f32`: kept apart from `f64` so that 0.1 prints as 0.1.
    Float32(f32),
    /// `f64`.
    Float(f64),
    /// A `bool`; a byte that is neither 0 nor 1 is a [`Value::Uint`].
    Bool(bool),
    /// A `char`.
    Char(char),
    /// Text.
    Text(Text<'a>),
    /// A length of time in nanoseconds.
    Duration(u64),
    /// A sequence of numbers that had `total` elements, of which the first ones were kept.
    Seq {
        /// Elements of the original.
        total: u32,
        /// Those that were kept.
        kept: Numbers<'a>,
    },
    /// An array of numbers.
    Array(Numbers<'a>),
    /// An `Option` that is `None`; one that is `Some` is the value itself.
    None,
    /// A value of an enumeration, and its name where it has one.
    Enum(Option<&'a str>, u64),
}

/// Text as it was written: not necessarily UTF-8, with `C0 80` for a NUL inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a>(pub(crate) &'a [u8]);

impl<'a> Text<'a> {
    /// The bytes of the original, NULs restored.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        if memchr::memchr(0xC0, self.0).is_none() {
            return Cow::Borrowed(self.0);
        }
        let mut out = Vec::with_capacity(self.0.len());
        let mut rest = self.0;
        while let [first, tail @ ..] = rest {
            if let [0xC0, 0x80, tail @ ..] = rest {
                out.push(0);
                rest = tail;
                continue;
            }
            out.push(*first);
            rest = tail;
        }
        Cow::Owned(out)
    }

    /// The text, with what is not UTF-8 replaced.
    pub fn to_string_lossy(&self) -> Cow<'a, str> {
        match self.bytes() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }
}

/// How an element of a sequence or array is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    Uint(u8),
    Int(u8),
    Float(u8),
}

/// Numbers of one type, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) of: Number,
}

impl<'a> Numbers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.of.size().max(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each as a [`Value`].
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let of = self.of;
        self.bytes.chunks_exact(of.size().max(1)).filter_map(move |bytes| of.value(bytes))
    }
}
