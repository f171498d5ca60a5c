//! How a Rust value becomes bytes of a record.
//!
//! The encoding is the table at [`gracepoint_wire::schema::Type`]; this module is its writer. Each
//! type does it in steps, because space is reserved in between: [`Field::plan`] looks at the value
//! once (where to cut, is there a NUL to escape), [`Field::size`] says how many bytes that makes,
//! and [`Field::write`] writes them. Everything rests on one invariant, **AGREE**: for an unchanged
//! value and the plan made from it, `write` writes exactly `size` bytes. Two rules keep it:
//!
//! - only types whose value cannot change behind a shared reference implement [`Field`] (no
//!   atomics, no cells), and pointers do only where `Deref` is the standard library's own (`&T`,
//!   `Box`, `Rc`, `Arc`, and `Cow` of the standard library's types, since `Cow` of another type
//!   runs that type's `Borrow`);
//! - whatever depends on the limit is decided in the plan, once.
//!
//! Nearly all values need no plan and are short. For these there is a *quick* way beside it, `quick_size` and
//! `write_quick`, which calls nothing, so that a site's values stay in registers from the call to the record.
//! It keeps AGREE likewise, and writes the same bytes.
//!
//! `Display` and `Debug` keep no such promise, so their output goes into a [`Text`] first.
//!
//! | file | what it encodes |
//! |---|---|
//! | `field/number.rs` | integers, floats, `bool`, `Duration` |
//! | `field/text.rs` | strings, paths, `char`: bytes and a NUL |
//! | `field/sequence.rs` | slices, vectors and arrays of numbers |
//! | `field/sensitive.rs` | fields that are masked |
//! | `field/rendered.rs` | [`Text`]: bounded output of `Display` and `Debug` |

mod number;
mod rendered;
mod sensitive;
mod sequence;
mod text;

pub use number::Number;
pub use rendered::Text;
#[doc(hidden)]
pub use sensitive::{Sensitive, allowed as sensitive_allowed};

use gracepoint_wire::schema::Type;
#[cfg(gp_supported)]
pub(crate) use sensitive::allow as allow_sensitive;
use std::rc::Rc;
use std::sync::Arc;

/// How a field is written, known at compile time. [`gracepoint_wire::schema::Type`] has the table
/// of encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeDesc {
    /// Unsigned integer of 1, 2, 4, 8 or 16 bytes.
    Uint(u8),
    /// Signed integer of 1, 2, 4, 8 or 16 bytes.
    Int(u8),
    /// IEEE 754 float of 4 or 8 bytes.
    Float(u8),
    /// One byte, 0 or 1.
    Bool,
    /// One Unicode scalar value as NUL-terminated UTF-8.
    Char,
    /// NUL-terminated text.
    Str,
    /// Nanoseconds.
    Duration,
    /// A sequence of numbers.
    Seq(&'static TypeDesc),
    /// A fixed number of numbers.
    Array(&'static TypeDesc, u32),
    /// Nothing or a value.
    Option(&'static TypeDesc),
    /// A fieldless enum: bytes of the value, and its names.
    Enum(u8, &'static [(&'static str, u64)]),
    /// A value that says what it is; of tracepoints that are declared at run time.
    Any,
}

impl TypeDesc {
    /// The type of a field with `#[event(counter)]`, which must be a number: else the program does not compile.
    #[doc(hidden)]
    #[must_use]
    pub const fn of_counter(self) -> TypeDesc {
        let inner = match self {
            TypeDesc::Option(of) => *of,
            ty => ty,
        };
        let is_number = matches!(
            inner,
            TypeDesc::Uint(_)
                | TypeDesc::Int(_)
                | TypeDesc::Float(_)
                | TypeDesc::Bool
                | TypeDesc::Duration
        );
        assert!(is_number, "#[event(counter)] is for numbers, durations and truth values");
        self
    }

    /// The same type as tools know it.
    ///
    /// ```
    /// use gracepoint::field::{Field, TypeDesc};
    /// assert_eq!(<Option<&[u16]> as Field>::TYPE.to_wire().to_string(), "?[u16]");
    /// assert_eq!(TypeDesc::Enum(1, &[("A", 0), ("B", 1)]).to_wire().to_string(), "enum1{A=0,B=1}");
    /// ```
    pub fn to_wire(&self) -> Type {
        match *self {
            TypeDesc::Uint(n) => Type::Uint(n),
            TypeDesc::Int(n) => Type::Int(n),
            TypeDesc::Float(n) => Type::Float(n),
            TypeDesc::Bool => Type::Bool,
            TypeDesc::Char => Type::Char,
            TypeDesc::Str => Type::Str,
            TypeDesc::Duration => Type::Duration,
            TypeDesc::Seq(of) => Type::Seq(Box::new(of.to_wire())),
            TypeDesc::Array(of, n) => Type::Array(Box::new(of.to_wire()), n),
            TypeDesc::Option(of) => Type::Option(Box::new(of.to_wire())),
            TypeDesc::Enum(size, names) => {
                Type::Enum(size, names.iter().map(|&(n, v)| (n.to_owned(), v)).collect())
            }
            TypeDesc::Any => Type::Any,
        }
    }
}

/// What was decided about a value before it is written. Most types have nothing to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Text: the first so many bytes are kept. Sequence: the first so many elements.
    kept: usize,
    /// Text: bytes in the record.
    size: usize,
}

impl Plan {
    /// The plan of a type with nothing to decide.
    pub const NOTHING: Plan = Plan { kept: 0, size: 0 };
}

/// A value that can be a field of an event.
///
/// `limit` bounds text and sequences, in bytes; other types ignore it. It comes from
/// `#[event(limit = N)]` and is 1024 without.
///
/// ```
/// use gracepoint::field::Field;
/// let key = "user:7";
/// let plan = key.plan(1024);
/// let mut record = vec![0; key.size(plan)];
/// // SAFETY: `record` has room for `size(plan)` bytes, and `key` does not change.
/// unsafe { key.write(plan, record.as_mut_ptr()) };
/// assert_eq!(record, b"user:7\0");
/// ```
///
/// # Safety
///
/// For a value that is not changed in between, and for the plan made from it with any limit,
/// [`write`](Field::write) writes exactly [`size`](Field::size)`(plan)` bytes, all of them,
/// beginning at `at`, and returns `at` plus that size. The bytes are as
/// [`gracepoint_wire::schema::Type`] says for [`TYPE`](Field::TYPE). None of the methods panics,
/// blocks, allocates or runs code of the traced program.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of an event",
    label = "Gracepoint does not know how to record this type",
    note = "to record it as text, put `#[event(display)]` or `#[event(debug)]` on the field",
    note = "if it is an enum without data, put `#[derive(gracepoint::Field)]` on the enum"
)]
pub unsafe trait Field {
    /// How values of this type are written.
    const TYPE: TypeDesc;

    /// Decides what of the value is kept.
    fn plan(&self, limit: usize) -> Plan;

    /// Bytes that [`write`](Field::write) will write.
    fn size(&self, plan: Plan) -> usize;

    /// Writes the value and returns the end of what was written.
    ///
    /// # Safety
    ///
    /// `plan` was made from this value, which was not changed since, and
    /// [`size`](Field::size)`(plan)` bytes from `at` may be written.
    unsafe fn write(&self, plan: Plan, at: *mut u8) -> *mut u8;

    /// Bytes that [`write_quick`](Field::write_quick) will write, or [`NOT_QUICK`] where the value must be
    /// planned: text with a NUL, text that is cut or long.
    #[doc(hidden)]
    #[inline(always)]
    fn quick_size(&self, limit: usize) -> usize {
        let _ = limit;
        NOT_QUICK
    }

    /// Writes the value as [`write`](Field::write) does, without a plan and without calling anything.
    ///
    /// # Safety
    ///
    /// [`quick_size`](Field::quick_size) was not [`NOT_QUICK`], the value was not changed since, and so
    /// many bytes from `at` may be written.
    #[doc(hidden)]
    #[inline(always)]
    unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
        at
    }
}

/// More than any record has, also if some are added up.
#[doc(hidden)]
pub const NOT_QUICK: usize = if usize::BITS >= 64 { 1 << 40 } else { 1 << 24 };

/// Implements [`Field`] by way of a function that gives another field, which must be one of the
/// standard library's own so that it gives the same one each time.
macro_rules! delegate {
    ($([$($generics:tt)*] $ty:ty => $target:ty, |$value:ident| $get:expr;)*) => {$(
        // SAFETY: all steps see the same target (the function is pure), whose AGREE holds.
        unsafe impl<$($generics)*> Field for $ty {
            const TYPE: TypeDesc = <$target as Field>::TYPE;

            #[inline(always)]
            fn plan(&self, limit: usize) -> Plan {
                let $value = self;
                <$target as Field>::plan($get, limit)
            }

            #[inline(always)]
            fn size(&self, plan: Plan) -> usize {
                let $value = self;
                <$target as Field>::size($get, plan)
            }

            #[inline(always)]
            unsafe fn write(&self, plan: Plan, at: *mut u8) -> *mut u8 {
                let $value = self;
                // SAFETY: the caller's promise about `self` is one about its target.
                unsafe { <$target as Field>::write($get, plan, at) }
            }

            #[inline(always)]
            fn quick_size(&self, limit: usize) -> usize {
                let $value = self;
                <$target as Field>::quick_size($get, limit)
            }

            #[inline(always)]
            unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
                let $value = self;
                // SAFETY: the caller's promise about `self` is one about its target.
                unsafe { <$target as Field>::write_quick($get, at) }
            }
        }
    )*};
}
use delegate;

delegate! {
    [T: Field + ?Sized] &T => T, |v| v;
    [T: Field + ?Sized] &mut T => T, |v| v;
    [T: Field + ?Sized] Box<T> => T, |v| v;
    [T: Field + ?Sized] Rc<T> => T, |v| v;
    [T: Field + ?Sized] Arc<T> => T, |v| v;
}

/// Type of what is inside an `Option`; a type of its own so that the check happens at compile time.
///
/// ```compile_fail,E0080
/// const NESTED: gracepoint::field::TypeDesc =
///     <Option<&Option<u8>> as gracepoint::field::Field>::TYPE;
/// ```
struct Inside<T>(T);

impl<T: Field> Inside<T> {
    const TYPE: &'static TypeDesc = &T::TYPE;
    const CHECK: () = assert!(
        !matches!(T::TYPE, TypeDesc::Option(_)),
        "an option of an option cannot be recorded: use one `Option`, or an enum",
    );
}

// SAFETY: one byte and, if there is one, the value, whose AGREE holds.
unsafe impl<T: Field> Field for Option<T> {
    const TYPE: TypeDesc = {
        let () = Inside::<T>::CHECK;
        TypeDesc::Option(Inside::<T>::TYPE)
    };

    #[inline(always)]
    fn plan(&self, limit: usize) -> Plan {
        self.as_ref().map_or(Plan::NOTHING, |value| value.plan(limit))
    }

    #[inline(always)]
    fn size(&self, plan: Plan) -> usize {
        1 + self.as_ref().map_or(0, |value| value.size(plan))
    }

    #[inline(always)]
    unsafe fn write(&self, plan: Plan, at: *mut u8) -> *mut u8 {
        // SAFETY: the caller gave room for the tag and the value, whose plan is its own.
        unsafe {
            match self {
                Some(value) => {
                    at.write(1);
                    value.write(plan, at.add(1))
                }
                None => {
                    at.write(0);
                    at.add(1)
                }
            }
        }
    }

    #[inline(always)]
    fn quick_size(&self, limit: usize) -> usize {
        1 + self.as_ref().map_or(0, |value| value.quick_size(limit))
    }

    #[inline(always)]
    unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: as in `write`.
        unsafe {
            at.write(u8::from(self.is_some()));
            self.as_ref().map_or(at.add(1), |value| value.write_quick(at.add(1)))
        }
    }
}

/// Bytes of the value of a fieldless enum with these discriminants: the fewest of 1, 2, 4 and 8
/// that hold all, and 8 as soon as one is negative. For the derive.
#[doc(hidden)]
pub const fn enum_size(discriminants: &[i128]) -> u8 {
    let mut size = 1;
    let mut i = 0;
    while i < discriminants.len() {
        let needed = match discriminants[i] {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        if needed > size {
            size = needed;
        }
        i += 1;
    }
    size
}

/// Writes the low `size` bytes of an enum's value. For the derive.
///
/// # Safety
///
/// `size` is at most 8, and that many bytes from `at` may be written.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn write_enum(value: u64, size: u8, at: *mut u8) -> *mut u8 {
    let bytes = value.to_le_bytes();
    let size = usize::from(size);
    // SAFETY: `bytes` has 8 bytes and `at` room for `size`, which is at most 8.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, size);
        at.add(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned<T: Field + ?Sized>(value: &T, limit: usize) -> Vec<u8> {
        let plan = value.plan(limit);
        let mut bytes = vec![0xee; value.size(plan)];
        // SAFETY: there is room for `size` bytes.
        let end = unsafe { value.write(plan, bytes.as_mut_ptr()) };
        assert_eq!(end.cast_const(), bytes.as_ptr_range().end);
        bytes
    }

    /// What the quick way writes, if there is one.
    fn quick<T: Field + ?Sized>(value: &T, limit: usize) -> Option<Vec<u8>> {
        let size = value.quick_size(limit);
        let mut bytes = (size < NOT_QUICK).then(|| vec![0xee; size])?;
        // SAFETY: there is room for `quick_size` bytes.
        let end = unsafe { value.write_quick(bytes.as_mut_ptr()) };
        assert_eq!(end.cast_const(), bytes.as_ptr_range().end);
        Some(bytes)
    }

    fn is_quick<T: Field>(value: T) {
        assert_eq!(quick(&value, 1024), Some(planned(&value, 1024)), "{:?}", T::TYPE);
    }

    #[test]
    fn the_quick_way_writes_the_same_bytes() {
        is_quick(0x0102_u16);
        is_quick(-3_i128);
        is_quick(usize::MAX);
        is_quick(1.5_f32);
        is_quick(true);
        is_quick(std::num::NonZero::new(7_i32));
        is_quick(std::time::Duration::from_millis(1500));
        is_quick(std::time::Duration::MAX);
        ['\0', 'a', 'ä', '€', '🦀'].into_iter().for_each(is_quick);
        is_quick([1_u8; 64]);
        is_quick([-2_isize; 8]);
        is_quick(Some("text"));
        is_quick(None::<&str>);
        is_quick(Box::new(&&5_u8));
        is_quick(std::path::Path::new("/tmp"));
        assert_eq!(quick(&[1_u8; 65], 1024), None, "it would be a call");
        assert_eq!(quick(&[1_u8, 2][..], 1024), None, "its length is not known");
    }

    #[test]
    fn text_is_quick_while_it_is_short_and_kept_as_it_is() {
        for len in 0..40 {
            let text = "x".repeat(len);
            for limit in [0, 1, 16, 31, 32, 1024] {
                let expected = (len <= limit.min(32)).then(|| planned(&*text, limit));
                assert_eq!(quick(&*text, limit), expected, "{len} bytes, limit {limit}");
            }
            for nul in 0..len {
                let mut bytes = text.clone().into_bytes();
                bytes[nul] = 0;
                let text = String::from_utf8(bytes).expect("ASCII");
                assert_eq!(quick(&text, 1024), None, "a NUL at {nul} of {len}");
                assert_eq!(quick(&Some(&text), 1024), None, "a NUL at {nul} of {len}");
            }
        }
    }
}
