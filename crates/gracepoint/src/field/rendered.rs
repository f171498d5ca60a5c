//! The output of `Display` or `Debug`, bounded and on the stack.
//!
//! This is the only place where code of the traced program runs while an event is recorded. It may
//! return an error (what it wrote until then is kept), panic (the buffer is a local without a
//! destructor, and nothing is reserved yet) or write without end (it gets an error at the limit,
//! and what it wrote is cut there).

use super::{Field, TypeDesc, text};
use std::fmt::{self, Write};
use std::mem::MaybeUninit;

/// What a field recorded through `Display` or `Debug` rendered to.
///
/// ```
/// use gracepoint::field::Text;
/// assert_eq!(Text::display(&format_args!("{}+{}", 1, 2), 1024).as_bytes(), b"1+2");
/// assert_eq!(Text::debug(&"too long", 8).as_bytes(), "\"too …".as_bytes());
/// ```
pub struct Text {
    /// The first `len` bytes are initialized; `len <= limit <= CAPACITY`.
    buf: [MaybeUninit<u8>; Text::CAPACITY],
    len: usize,
    limit: usize,
    /// There was more than `limit`.
    was_cut: bool,
}

impl Text {
    /// Longest rendered text, in bytes; limits above it count as this one.
    pub const CAPACITY: usize = 1024;

    /// Renders with `Display`, up to `limit` bytes.
    #[inline]
    pub fn display<T: fmt::Display + ?Sized>(value: &T, limit: usize) -> Text {
        Text::render(format_args!("{value}"), limit)
    }

    /// Renders with `Debug`, up to `limit` bytes.
    #[inline]
    pub fn debug<T: fmt::Debug + ?Sized>(value: &T, limit: usize) -> Text {
        Text::render(format_args!("{value:?}"), limit)
    }

    /// The rendered text, which ends with `…` if it was cut.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialized.
        unsafe { std::slice::from_raw_parts(self.buf.as_ptr().cast(), self.len) }
    }

    fn render(args: fmt::Arguments<'_>, limit: usize) -> Text {
        let limit = limit.clamp(text::ELLIPSIS.len(), Text::CAPACITY);
        let mut text = Text {
            buf: [const { MaybeUninit::uninit() }; Text::CAPACITY],
            len: 0,
            limit,
            was_cut: false,
        };
        // An error is ours, at the limit, or the program's; both leave what was written.
        let _ = text.write_fmt(args);
        if text.was_cut {
            text.len = text::cut(text.as_bytes(), limit);
            text.append(text::ELLIPSIS);
        }
        text
    }

    /// Appends as much of `bytes` as there is room for.
    fn append(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.limit - self.len);
        // SAFETY: `len + count <= limit <= CAPACITY`, so the bytes go into the buffer, and the
        // first `len + count` are initialized afterwards.
        unsafe {
            let end = self.buf.as_mut_ptr().cast::<u8>().add(self.len);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, count);
        }
        self.len += count;
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.was_cut |= text.len() > self.limit - self.len;
        self.append(text.as_bytes());
        if self.was_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

// SAFETY: the same bytes in both steps, with no further cut.
unsafe impl Field for Text {
    const TYPE: TypeDesc = TypeDesc::Str;

    #[inline]
    fn size(&self, _limit: usize) -> usize {
        text::size(self.as_bytes(), usize::MAX)
    }

    #[inline]
    unsafe fn write(&self, _limit: usize, at: *mut u8) -> *mut u8 {
        // SAFETY: the caller gave room for `size` bytes.
        unsafe { text::write(self.as_bytes(), usize::MAX, at) }
    }
}
