//! The output of `Display` or `Debug`, bounded and on the stack.
//!
//! This is the only place where code of the traced program runs while an event is recorded. It may
//! return an error (what it wrote until then is kept), panic (which goes no further, because with
//! tracing off it would not have happened: `<panicked>` takes the place of the rest), write without
//! end (it gets an error at the limit, and what it wrote is cut there), or record an event that it
//! is itself a field of (after a few levels the text is `<nested>`).

use super::{Field, Plan, TypeDesc, text};
use std::cell::Cell;
use std::fmt::{self, Write};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Renderings within renderings on one thread, beyond which nothing is rendered.
const MOST_NESTED: u32 = 4;

thread_local!(static NESTED: Cell<u32> = const { Cell::new(0) });

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
    /// Made from the first `len` bytes when all was rendered; they do not change after that.
    plan: Plan,
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

    #[inline(never)]
    fn render(args: fmt::Arguments<'_>, limit: usize) -> Text {
        let limit = limit.clamp(text::ELLIPSIS.len(), Text::CAPACITY);
        let mut text = Text {
            buf: [const { MaybeUninit::uninit() }; Text::CAPACITY],
            len: 0,
            limit,
            was_cut: false,
            plan: Plan::NOTHING,
        };
        text.run(args);
        if text.was_cut {
            text.len = text::cut(text.as_bytes(), limit);
            text.append(text::ELLIPSIS);
        }
        text.plan = text::plan(text.as_bytes(), Text::CAPACITY);
        text
    }

    /// Runs the program's code, within bounds.
    fn run(&mut self, args: fmt::Arguments<'_>) {
        // Where thread-locals are gone already, nothing is counted.
        let nested = NESTED.try_with(Cell::get).unwrap_or(0);
        if nested >= MOST_NESTED {
            self.append(b"<nested>");
            return;
        }
        let _ = NESTED.try_with(|count| count.set(nested + 1));
        // An error is ours, at the limit, or the program's; both leave what was written. (Unwind
        // safety: what a panic leaves behind in the sink is bytes and their number.)
        let outcome = catch_unwind(AssertUnwindSafe(|| Sink(self).write_fmt(args)));
        let _ = NESTED.try_with(|count| count.set(nested));
        if let Err(panic) = outcome {
            let _leaked = ManuallyDrop::new(panic); // its destructor could panic, too
            self.append(b"<panicked>");
        }
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

/// What rendering writes into; private to it, since a finished text does not change.
struct Sink<'a>(&'a mut Text);

impl Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Sink(into) = self;
        into.was_cut |= text.len() > into.limit - into.len;
        into.append(text.as_bytes());
        if into.was_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

// SAFETY: the same bytes and the same plan in both steps.
unsafe impl Field for Text {
    const TYPE: TypeDesc = TypeDesc::Str;

    #[inline]
    fn plan(&self, _limit: usize) -> Plan {
        Plan::NOTHING
    }

    #[inline]
    fn size(&self, _plan: Plan) -> usize {
        self.plan.size
    }

    #[inline]
    unsafe fn write(&self, _plan: Plan, at: *mut u8) -> *mut u8 {
        // SAFETY: the plan was made from these bytes, and the caller gave room for its size.
        unsafe { text::write(self.as_bytes(), self.plan, at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;
    impl fmt::Display for Panics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half")?;
            std::panic::resume_unwind(Box::new("no message on the terminal"));
        }
    }

    struct Recurses;
    impl fmt::Display for Recurses {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let inner = Text::display(self, 1024);
            f.write_str("(")?;
            f.write_str(&String::from_utf8_lossy(inner.as_bytes()))?;
            f.write_str(")")
        }
    }

    #[test]
    fn a_panic_goes_no_further() {
        assert_eq!(Text::display(&Panics, 1024).as_bytes(), b"half<panicked>");
        assert_eq!(Text::display(&1, 1024).as_bytes(), b"1", "and the next one is as ever");
    }

    #[test]
    fn recursion_ends() {
        assert_eq!(Text::display(&Recurses, 1024).as_bytes(), b"((((<nested>))))");
    }
}
