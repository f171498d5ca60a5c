//! Numbers and what is recorded as one: integers, floats, `bool`, `Duration`.
//!
//! Everything is little-endian. `usize` and `isize` are 64 bits wide in a trace, whatever the
//! machine. There is nothing to plan, and AGREE holds because a number's
//! size does not depend on its value.

use super::{Field, Plan, TypeDesc};
use std::num::NonZero;
use std::time::Duration;

/// A number: what slices, vectors and arrays that are recorded may hold.
///
/// # Safety
///
/// As a [`Field`], the type takes `SIZE` bytes whatever the value and the plan; where `PLAIN` is true, those
/// are the bytes of the value in memory, all of which are initialized.
#[diagnostic::on_unimplemented(
    message = "a sequence of `{Self}` cannot be a field of an event",
    label = "sequences and arrays hold numbers only",
    note = "to record it as text, put `#[event(debug)]` on the field"
)]
pub unsafe trait Number: Field + Copy {
    /// Bytes of a value in a record.
    const SIZE: usize;
    /// Whether a value lies in memory as it lies in a record.
    const PLAIN: bool;
}

/// Reads a field with a load of its own.
///
/// An event is built right before it is written, field by field. Optimizers like to merge the loads
/// of neighbouring fields into a wider one, for which the processor must wait until the narrower
/// stores have left the store buffer. That costs more than all the rest (an event of two `u64` and
/// a text of 16 bytes: 7.1 ns instead of 2.4 on a Zen processor); volatile loads are not merged.
#[inline(always)]
fn load<T: Copy>(value: &T) -> T {
    // SAFETY: a reference may be read from.
    unsafe { std::ptr::from_ref(value).read_volatile() }
}

macro_rules! numbers {
    ($($ty:ty as $wide:ty => $kind:ident;)*) => {$(
        // SAFETY: size and write both say the size of the wide type.
        unsafe impl Field for $ty {
            const TYPE: TypeDesc = TypeDesc::$kind(size_of::<$wide>() as u8);

            #[inline(always)]
            fn plan(&self, _limit: usize) -> Plan {
 Plan::NOTHING
}

            #[inline(always)]
            fn size(&self, _plan: Plan) -> usize {
                size_of::<$wide>()
            }

            #[inline(always)]
            unsafe fn write(&self, _plan: Plan, at: *mut u8) -> *mut u8 {
                let bytes = (load(self) as $wide).to_le_bytes();
                // SAFETY: the caller gave room for `size` bytes; byte arrays need no alignment.
                unsafe {
                    at.cast::<[u8; size_of::<$wide>()]>().write(bytes);
                    at.add(size_of::<$wide>())
                }
            }

            #[inline(always)]
            fn quick_size(&self, _limit: usize) -> usize {
                size_of::<$wide>()
            }

            #[inline(always)]
            unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
                let bytes = (*self as $wide).to_le_bytes();
                // SAFETY: as in `write`.
                unsafe {
                    at.cast::<[u8; size_of::<$wide>()]>().write(bytes);
                    at.add(size_of::<$wide>())
                }
            }
        }

        // SAFETY: a primitive number of the same width, on a little-endian machine, is its bytes.
        unsafe impl Number for $ty {
            const SIZE: usize = size_of::<$wide>();
            const PLAIN: bool =
                cfg!(target_endian = "little") && size_of::<$ty>() == size_of::<$wide>();
        }
    )*};
}

numbers! {
    u8 as u8 => Uint;
    u16 as u16 => Uint;
    u32 as u32 => Uint;
    u64 as u64 => Uint;
    u128 as u128 => Uint;
    usize as u64 => Uint;
    i8 as i8 => Int;
    i16 as i16 => Int;
    i32 as i32 => Int;
    i64 as i64 => Int;
    i128 as i128 => Int;
    isize as i64 => Int;
    f32 as f32 => Float;
    f64 as f64 => Float;
}

macro_rules! non_zero {
    ($($ty:ty)*) => {$(
        // SAFETY: the number's own encoding, whose AGREE holds.
        unsafe impl Field for NonZero<$ty> {
            const TYPE: TypeDesc = <$ty as Field>::TYPE;

            #[inline(always)]
            fn plan(&self, _limit: usize) -> Plan {
 Plan::NOTHING
}

            #[inline(always)]
            fn size(&self, _plan: Plan) -> usize {
                self.get().size(Plan::NOTHING)
            }

            #[inline(always)]
            unsafe fn write(&self, _plan: Plan, at: *mut u8) -> *mut u8 {
                // SAFETY: the caller's promise, passed on.
                unsafe { load(self).get().write(Plan::NOTHING, at) }
            }

            #[inline(always)]
            fn quick_size(&self, limit: usize) -> usize {
                self.get().quick_size(limit)
            }

            #[inline(always)]
            unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
                // SAFETY: the caller's promise, passed on.
                unsafe { self.get().write_quick(at) }
            }
        }

        // SAFETY: `NonZero<T>` has the layout of `T`.
        unsafe impl Number for NonZero<$ty> {
            const SIZE: usize = <$ty as Number>::SIZE;
            const PLAIN: bool = <$ty as Number>::PLAIN;
        }
    )*};
}

non_zero! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }

// SAFETY: always one byte.
unsafe impl Field for bool {
    const TYPE: TypeDesc = TypeDesc::Bool;

    #[inline(always)]
    fn plan(&self, _limit: usize) -> Plan {
        Plan::NOTHING
    }

    #[inline(always)]
    fn size(&self, _plan: Plan) -> usize {
        1
    }

    #[inline(always)]
    unsafe fn write(&self, _plan: Plan, at: *mut u8) -> *mut u8 {
        // SAFETY: the caller gave room for one byte.
        unsafe {
            at.write(u8::from(load(self)));
            at.add(1)
        }
    }

    #[inline(always)]
    fn quick_size(&self, _limit: usize) -> usize {
        1
    }

    #[inline(always)]
    unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: as in `write`.
        unsafe {
            at.write(u8::from(*self));
            at.add(1)
        }
    }
}

// SAFETY: always eight bytes, by way of `u64`.
unsafe impl Field for Duration {
    const TYPE: TypeDesc = TypeDesc::Duration;

    #[inline(always)]
    fn plan(&self, _limit: usize) -> Plan {
        Plan::NOTHING
    }

    #[inline(always)]
    fn size(&self, _plan: Plan) -> usize {
        8
    }

    #[inline(always)]
    unsafe fn write(&self, _plan: Plan, at: *mut u8) -> *mut u8 {
        // SAFETY: the caller gave room for eight bytes.
        unsafe { nanos(load(self)).write(Plan::NOTHING, at) }
    }

    #[inline(always)]
    fn quick_size(&self, _limit: usize) -> usize {
        8
    }

    #[inline(always)]
    unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: as in `write`.
        unsafe { nanos(*self).write_quick(at) }
    }
}

/// Nanoseconds, at most what fits.
#[inline(always)]
fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .checked_mul(1_000_000_000)
        .and_then(|n| n.checked_add(u64::from(duration.subsec_nanos())))
        .unwrap_or(u64::MAX)
}
