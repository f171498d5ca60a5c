//! Fields that are marked `#[event(sensitive)]`: an option that is `None` in every record, unless the
//! program allows otherwise. A masked field has one byte, whatever its value is, so neither the value
//! nor its length is in the buffer; what is not there cannot leak from it, from the trace or from a
//! crash dump of the recorder.
//!
//! Whether the value is recorded is decided once for each record, when it is planned, so that size and
//! write agree (**AGREE**, see `field.rs`) when another thread changes the setting in between.

use super::{Field, Inside, Plan, TypeDesc};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Nothing is ordered by it: a record that is made while it changes has the one or the other.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Sets whether sensitive fields are recorded from now on.
#[cfg(gp_supported)]
pub(crate) fn allow(yes: bool) {
    ALLOWED.store(yes, Relaxed);
}

/// Whether sensitive fields are recorded. For the derive.
#[doc(hidden)]
#[inline]
pub fn allowed() -> bool {
    ALLOWED.load(Relaxed)
}

/// How a sensitive field of type `T` is written. For the derive.
#[doc(hidden)]
#[derive(Debug)]
pub struct Sensitive<T>(PhantomData<T>);

impl<T: Field> Sensitive<T> {
    /// An option of `T`, which an option is already.
    pub const TYPE: TypeDesc = match T::TYPE {
        TypeDesc::Option(_) => T::TYPE,
        _ => TypeDesc::Option(Inside::<T>::TYPE),
    };
    const IS_OPTION: bool = matches!(T::TYPE, TypeDesc::Option(_));

    /// The value's plan, or that it is masked.
    #[inline]
    pub fn plan(value: &T, limit: usize) -> Option<Plan> {
        allowed().then(|| value.plan(limit))
    }

    /// Bytes that [`write`](Self::write) will write.
    #[inline]
    pub fn size(value: &T, plan: Option<Plan>) -> usize {
        match plan {
            Some(plan) => usize::from(!Self::IS_OPTION) + value.size(plan),
            None => 1,
        }
    }

    /// Writes the field and returns the end of what was written.
    ///
    /// # Safety
    ///
    /// `plan` was made from this value, which was not changed since, and `size` bytes from `at` may
    /// be written.
    #[inline]
    pub unsafe fn write(value: &T, plan: Option<Plan>, at: *mut u8) -> *mut u8 {
        // SAFETY: there is room for the tag, which is `size`'s one byte, and for the value, whose plan
        // is its own; an option writes its tag itself.
        unsafe {
            match plan {
                Some(plan) if Self::IS_OPTION => value.write(plan, at),
                Some(plan) => {
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
}
