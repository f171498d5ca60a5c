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
#![forbid(unsafe_code)]

mod attributes;
mod event;
mod field;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

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
