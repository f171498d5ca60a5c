//! The derive macros of Gracepoint. Use them through the `gracepoint` crate, which documents them
//! where they are re-exported.
//!
//! Generated code names everything by absolute path, `::gracepoint::…` unless
//! `#[event(crate = "…")]` says otherwise, and compiles in crates that forbid unsafe code: the
//! proofs are those of `gracepoint::field` and `gracepoint::event`, and a field's type can only
//! take part by implementing the unsafe trait `Field`.
//!
//! | file | what it does |
//! |---|---|
//! | `attributes.rs` | reads `#[event(…)]` and doc comments, and checks them |
//! | `event.rs` | `#[derive(Event)]` |
//! | `field.rs` | `#[derive(Field)]` |
//! | `function.rs` | `#[function]` and `#[functions]` |
#![forbid(unsafe_code)]

mod attributes;
mod event;
mod field;
mod function;

use proc_macro::TokenStream;
use syn::{DeriveInput, Item, ItemFn, parse_macro_input};

/// Makes a struct an event.
///
/// The struct has named fields or none, and no type or const parameters; lifetimes are welcome.
///
/// ```
/// /// A key was looked up.
/// #[derive(gracepoint::Event)]
/// #[event(name = "kv:get")]
/// pub struct Get<'a> {
///     /// What was asked for.
///     pub key: &'a str,
///     pub hit: bool,
///     #[event(display)]
///     pub peer: std::net::IpAddr,
///     #[event(limit = 64, rename = "head")]
///     pub value: &'a [u8],
/// }
/// ```
///
/// | on | attribute | meaning |
/// |---|---|---|
/// | struct | `name = "provider:event"` | the name in traces; without it, the module path, a colon and the struct's name in snake case |
/// | struct | `crate = "path"` | where `gracepoint` is, for crates that re-export it |
/// | field | `display`, `debug` | record the output of `Display` or `Debug`, at most 1024 bytes |
/// | field | `limit = N` | keep at most N bytes of text or of a sequence; 3 to 16384, default 1024 |
/// | field | `rename = "…"` | the field's name in traces |
/// | field | `counter` | viewers draw the values of this number as a curve |
/// | field | `sensitive` | an option that is `None` in every record unless `Builder::allow_sensitive` says otherwise; tools show `***` |
///
/// Doc comments become the descriptions that tools show.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an enum without data a field of events, recorded with the names of its variants.
///
/// The value is the discriminant, in the fewest of 1, 2, 4 and 8 bytes that hold all of them, and
/// in 8 as two's complement if one is negative.
///
/// ```
/// #[derive(gracepoint::Field)]
/// enum Outcome {
///     Hit,
///     Miss = 7,
/// }
///
/// #[derive(gracepoint::Event)]
/// struct Lookup {
///     outcome: Outcome,
/// }
/// ```
#[proc_macro_derive(Field, attributes(event))]
pub fn derive_field(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    field::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a function one that can be traced: listed, recorded, and seen by `FunctionOps`.
///
/// Off it is a site at the beginning and one wherever the function is left: a NOP each, and nothing is stored, compared or
/// kept in a register in between. On functions, methods, generic ones (whose instances are one function) and
/// `async fn`, which is entered and left at each poll, and has a span for the whole. In a crate
/// that forbids unsafe code, too; not on `const fn`.
///
/// ```
/// #[gracepoint::function]
/// fn load(page: u64) -> u64 { page * 2 }
///
/// #[gracepoint::function(args(id, name = debug), ret)]
/// fn find(id: u64, name: &[&str]) -> u32 { id as u32 + name.len() as u32 }
///
/// #[gracepoint::function(err)]
/// fn parse(text: &str) -> Result<u32, std::num::ParseIntError> { text.parse() }
///
/// assert_eq!(load(1) + u64::from(find(2, &["a"])) + u64::from(parse("7").unwrap()), 12);
/// ```
///
/// | setting | meaning |
/// |---|---|
/// | `args(a, b = debug, c = display)` | an event with these arguments follows the entry |
/// | `ret`, `ret = debug`, `ret = display` | an event with what it returned comes before the exit |
/// | `err`, `err = debug` | the same for errors alone |
/// | `crate = "path"` | where `gracepoint` is, for crates that re-export it |
///
/// With `ret` and `err` the body is put into a closure, so these do not go together with `#[track_caller]`.
///
/// These events are named after the module and the function: `kv.store:find_args`, `kv.store:find_return`.
#[proc_macro_attribute]
pub fn function(settings: TokenStream, item: TokenStream) -> TokenStream {
    let mut read = function::Settings::default();
    let parser = syn::meta::parser(|meta| read.read(&meta));
    parse_macro_input!(settings with parser);
    let item = parse_macro_input!(item as ItemFn);
    function::expand(&read, item).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// [`macro@function`] on everything in an `impl` block, or in a `mod` with its body.
///
/// What has the attribute of its own keeps it; `#[function(skip)]` leaves one out, as it is with `const fn`.
///
/// ```
/// struct Store { used: u32 }
///
/// #[gracepoint::functions]
/// impl Store {
///     const fn new() -> Store { Store { used: 0 } }
///     fn put(&mut self) { self.used += self.size(); }
///     #[function(skip)]
///     fn size(&self) -> u32 { 1 }
/// }
///
/// let mut store = Store::new();
/// store.put();
/// assert_eq!(store.used, 1);
/// ```
#[proc_macro_attribute]
pub fn functions(_settings: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as Item);
    function::expand_all(item).unwrap_or_else(syn::Error::into_compile_error).into()
}
