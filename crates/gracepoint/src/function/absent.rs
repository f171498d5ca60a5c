//! The function tracer where nothing can be traced: other systems, and the feature `off`. What the macros and programs
//! name is there and does nothing.

use crate::key::Key;
use crate::{Error, ErrorKind};
use std::time::Duration;

/// A function with `#[gracepoint::function]`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Point;

impl Point {
    /// Called by the macro.
    pub const fn new(
        _name: fn() -> &'static str,
        _file: &'static str,
        _line: u32,
        _args: Option<&'static Key>,
        _returns: Option<&'static Key>,
        _whole: Option<&'static Key>,
    ) -> Point {
        Point
    }

    /// Called by the macro of blocks.
    pub const fn of_block(
        _name: fn() -> &'static str,
        _block: &'static str,
        _file: &'static str,
        _line: u32,
    ) -> Point {
        Point
    }
}

/// A call of a function with the attribute.
#[doc(hidden)]
#[derive(Debug)]
pub struct Call;

impl Call {
    /// A call that is not traced.
    #[inline(always)]
    #[allow(clippy::new_without_default, reason = "for the macro alone")]
    pub const fn new() -> Call {
        Call
    }

    /// Never called: sites are never on.
    #[inline(always)]
    pub fn begin(&self, _point: &'static Point) {}

    /// Nor this.
    #[inline(always)]
    pub fn end(&self, _point: &'static Point) {}
}

/// A function begins or ends.
#[derive(Debug, Clone, Copy)]
pub struct FunctionCall {
    never: std::convert::Infallible,
}

impl FunctionCall {
    /// The function's number in this program.
    #[must_use]
    pub fn id(&self) -> u32 {
        match self.never {}
    }

    /// Address of the call's place on the stack.
    #[must_use]
    pub fn frame(&self) -> usize {
        match self.never {}
    }

    /// How many calls are around it.
    #[must_use]
    pub fn depth(&self) -> Option<u32> {
        match self.never {}
    }
}

fn absent() -> Error {
    let text = "this system, or this build of the program, has no tracing of functions";
    Error::new(ErrorKind::Unsupported, text)
}

/// Which functions.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `find`"]
pub struct FunctionFilter;

impl FunctionFilter {
    /// Those whose path this pattern matches.
    pub fn new(_filter: impl Into<String>) -> FunctionFilter {
        FunctionFilter
    }

    /// Those, too.
    pub fn or(self, _filter: impl Into<String>) -> FunctionFilter {
        self
    }

    /// But not those.
    pub fn notrace(self, _filter: impl Into<String>) -> FunctionFilter {
        self
    }

    /// Finds none.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`].
    pub fn find(&self) -> Result<FunctionSet, Error> {
        Err(absent())
    }
}

impl std::fmt::Display for FunctionFilter {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

/// Functions that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSet(std::convert::Infallible);

impl FunctionSet {
    /// How many.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is none")]
    pub fn len(&self) -> usize {
        match self.0 {}
    }
}

/// What to call when which functions begin and end.
#[derive(Debug)]
#[must_use = "nothing happens before `register`"]
pub struct FunctionOps;

impl FunctionOps {
    /// For functions whose path this pattern matches.
    pub fn new(_filter: impl Into<String>) -> FunctionOps {
        FunctionOps
    }

    /// For those that were found before.
    pub fn on(functions: &FunctionSet) -> FunctionOps {
        match functions.0 {}
    }

    /// But not for those.
    pub fn notrace(self, _filter: impl Into<String>) -> FunctionOps {
        self
    }

    /// Called when one begins.
    pub fn on_entry(self, _f: impl Fn(&FunctionCall) + Send + Sync + 'static) -> FunctionOps {
        self
    }

    /// Called when one ends.
    pub fn on_exit(self, _f: impl Fn(&FunctionCall) + Send + Sync + 'static) -> FunctionOps {
        self
    }

    /// Notes calls that are under way.
    pub fn with_depth(self) -> FunctionOps {
        self
    }

    /// Only on some threads.
    pub fn per_thread(self) -> FunctionOps {
        self
    }

    /// Switches nothing on.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`].
    pub fn register(self) -> Result<RegisteredOps, Error> {
        Err(absent())
    }
}

/// Registered operations.
#[derive(Debug)]
#[must_use = "the operations are taken off when this is dropped"]
pub struct RegisteredOps(std::convert::Infallible);

impl RegisteredOps {
    /// How many functions they are for.
    #[must_use]
    pub fn functions(&self) -> usize {
        match self.0 {}
    }

    /// Whether they are called.
    #[must_use]
    pub fn is_called(&self) -> bool {
        match self.0 {}
    }

    /// From now on they are called on this thread.
    pub fn enable_here(&self) -> bool {
        match self.0 {}
    }

    /// The opposite.
    pub fn disable_here(&self) -> bool {
        match self.0 {}
    }

    /// Takes them off.
    pub fn unregister(self) {
        match self.0 {}
    }

    /// Takes them off, and waits.
    ///
    /// # Errors
    /// None: there is nothing to wait for.
    pub fn unregister_wait(self, _most: Duration) -> Result<bool, Error> {
        match self.0 {}
    }
}

/// Operations that are there as long as the program.
#[derive(Debug)]
pub struct StaticFunctionOps;

impl StaticFunctionOps {
    /// Not registered yet.
    #[must_use]
    pub const fn new(_entry: fn(&FunctionCall), _exit: fn(&FunctionCall)) -> StaticFunctionOps {
        StaticFunctionOps
    }

    /// Switches nothing on.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`].
    pub fn register(&'static self, _filter: &str) -> Result<(), Error> {
        Err(absent())
    }

    /// There is nothing to take off.
    pub fn unregister(&'static self) {}
}

/// There is none.
#[must_use]
pub fn function_name(_id: u32) -> Option<String> {
    None
}

/// There are none.
#[must_use]
pub fn missed_function_hits() -> u64 {
    0
}
