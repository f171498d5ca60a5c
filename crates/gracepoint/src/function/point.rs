//! Functions with the attribute: what the macro leaves in the program, and what a call does while it is on.

use super::hit::{self, FunctionCall, GUARD, NO_DEPTH};
use crate::key::Key;
use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// A function with `#[gracepoint::function]`; its generic instances are one.
#[doc(hidden)]
#[derive(Debug)]
pub struct Point {
    /// Its id; 0 until it is first listed.
    id: AtomicU32,
    name: fn() -> &'static str,
    /// What a block calls itself, in the function that it is in.
    block: Option<&'static str>,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
    /// The events of its arguments and of what it returns.
    pub(crate) args: Option<&'static Key>,
    pub(crate) returns: Option<&'static Key>,
    /// The span of an `async fn`.
    pub(crate) whole: Option<&'static Key>,
}

impl Point {
    /// Called by the macro. `name` is the `type_name` of an item in the function's body.
    pub const fn new(
        name: fn() -> &'static str,
        file: &'static str,
        line: u32,
        args: Option<&'static Key>,
        returns: Option<&'static Key>,
        whole: Option<&'static Key>,
    ) -> Point {
        Point { id: AtomicU32::new(0), name, block: None, file, line, args, returns, whole }
    }

    /// Called by the macro of blocks.
    pub const fn of_block(
        name: fn() -> &'static str,
        block: &'static str,
        file: &'static str,
        line: u32,
    ) -> Point {
        Point { block: Some(block), ..Point::new(name, file, line, None, None, None) }
    }

    /// `kv::store::Store::get`; of a block `kv::store::Store::get::parse`.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        let name = (self.name)();
        let mut name = name.rsplit_once("::").map_or(name, |(function, _inner)| function);
        while let Some(outside) = name.strip_suffix("::{{closure}}") {
            name = outside;
        }
        self.block.map_or(name.into(), |block| format!("{name}::{block}").into())
    }

    pub(crate) fn id(&self) -> u32 {
        self.id.load(Relaxed)
    }

    pub(crate) fn set_id(&self, id: u32) {
        self.id.store(id, Relaxed);
    }
}

/// A call of a function with the attribute: a place on the stack, which stands for the call's. Nothing is kept there: at a
/// function's end a site of its own says whether it is on, so while it is off nothing is written, compared or held
/// in a register for it. (So an exit may come without its entry, and the other way round, as with sleds.)
#[doc(hidden)]
#[derive(Debug)]
pub struct Call(#[expect(dead_code, reason = "its address is all")] MaybeUninit<u64>);

impl Call {
    /// A call, before it is known whether it is traced.
    #[inline(always)]
    #[expect(clippy::new_without_default, reason = "for the macro alone")]
    pub const fn new() -> Call {
        Call(MaybeUninit::uninit())
    }

    /// The function begins.
    #[cold]
    #[inline(never)]
    pub fn begin(&self, point: &'static Point) {
        hit::run::<false>(&self.as_seen(point));
    }

    /// It ends.
    #[cold]
    #[inline(never)]
    pub fn end(&self, point: &'static Point) {
        hit::run::<true>(&self.as_seen(point));
    }

    #[inline(always)]
    fn as_seen(&self, point: &'static Point) -> FunctionCall {
        FunctionCall { frame: &raw const *self as usize | GUARD, id: point.id(), depth: NO_DEPTH }
    }
}
