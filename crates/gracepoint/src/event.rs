//! What an event is: a Rust struct that knows its description and how to write itself.
//!
//! [`Event`] is implemented by `#[derive(gracepoint::Event)]` and by nothing else. A record is the
//! fields one after the other, each as [`Field`](crate::field::Field) says, with no padding. The
//! order of calls is `prepare`, then `size`, then `write`. `prepare` does what must not happen
//! while space is reserved (fields recorded through `Display` or `Debug` run the program's own
//! code) and what should happen once (looking for NULs in text, deciding where to cut it).

use crate::field::TypeDesc;
use crate::key::Key;
use gracepoint_wire::schema::{Field, Schema};
use std::borrow::Cow;

/// One field of an event, as the derive describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldDesc {
    /// The field's name in the trace: an ASCII identifier.
    pub name: &'static str,
    /// How it is written.
    pub ty: TypeDesc,
    /// Its doc comment, trimmed.
    pub docs: &'static str,
}

/// An event as the program declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventDesc {
    /// Path of the module with the struct, `kv::store`.
    pub module: &'static str,
    /// Name of the struct, `KeyLookup`.
    pub ident: &'static str,
    /// The name given by `#[event(name = "provider:event")]`.
    pub name: Option<&'static str>,
    /// The doc comment, trimmed.
    pub docs: &'static str,
    /// The fields in the order in which they are written.
    pub fields: &'static [FieldDesc],
    /// Source file of the struct.
    pub file: &'static str,
    /// Line of the struct's name in that file.
    pub line: u32,
}

impl EventDesc {
    /// The event's name in a trace, `provider:event`: the one given in the attribute, or else the
    /// module path with dots, a colon and the struct's name in snake case.
    ///
    /// ```
    /// # use gracepoint::event::EventDesc;
    /// let desc = EventDesc {
    ///     module: "kv::store", ident: "KeyLookup", name: None,
    ///     docs: "", fields: &[], file: "", line: 1,
    /// };
    /// assert_eq!(desc.name(), "kv.store:key_lookup");
    /// ```
    pub fn name(&self) -> String {
        self.name_as_is().into_owned()
    }

    /// The same, without a copy where it is written down.
    pub(crate) fn name_as_is(&self) -> Cow<'static, str> {
        match self.name {
            Some(name) => name.into(),
            None => format!("{}:{}", self.module.replace("::", "."), snake_case(self.ident)).into(),
        }
    }

    /// The description that tools get.
    ///
    /// ```
    /// # use gracepoint::event::{EventDesc, FieldDesc};
    /// # use gracepoint::field::TypeDesc;
    /// let desc = EventDesc {
    ///     module: "kv", ident: "Get", name: Some("kv:get"), docs: "A look-up.",
    ///     fields: &[FieldDesc { name: "hit", ty: TypeDesc::Bool, docs: "" }],
    ///     file: "", line: 1,
    /// };
    /// let schema = desc.schema();
    /// assert_eq!((schema.name.as_str(), schema.fields[0].name.as_str()), ("kv:get", "hit"));
    /// ```
    pub fn schema(&self) -> Schema {
        let field = |f: &FieldDesc| Field {
            name: f.name.to_owned(),
            ty: f.ty.to_wire(),
            docs: f.docs.to_owned(),
        };
        Schema {
            name: self.name(),
            docs: self.docs.to_owned(),
            fields: self.fields.iter().map(field).collect(),
        }
    }
}

/// Whether a pattern as of `gracepoint record -e` matches the name of an event: `*` is anything, `?` one
/// character, `[a-z]` a set.
///
/// ```
/// assert!(gracepoint::event::name_matches("kv:*", "kv:get"));
/// ```
#[must_use]
pub fn name_matches(glob: &str, name: &str) -> bool {
    gracepoint_wire::glob::matches(glob, name)
}

/// A struct that can be recorded. Derive it: `#[derive(gracepoint::Event)]`.
///
/// # Safety
///
/// Implemented by the derive only. Implementors promise that, for one value that is not changed
/// in between and one `prepared` made from it, [`write`](Event::write) writes exactly
/// [`size`](Event::size) bytes, all of them, beginning at `at`, and returns `at` plus `size`; that
/// neither of the two panics or runs code of the traced program; that `KEY` is a static that
/// is this type's alone; and that `At<'x>` is this type but for its lifetimes, and that where there
/// are several the type is covariant in all of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "put `#[derive(gracepoint::Event)]` on the struct"
)]
pub unsafe trait Event: Sized {
    /// What tools are told about the event.
    const DESC: &'static EventDesc;
    /// The static key that all sites of this event share.
    const KEY: &'static Key;
    /// The same event with one lifetime in place of all of its own: what a probe is given, for as
    /// long as the hit lasts.
    type At<'x>: Event + 'x;
    /// A tuple with something for each field: its [`Plan`](crate::field::Plan), or for a field
    /// recorded through `Display` or `Debug` its [`Text`](crate::field::Text).
    type Prepared;

    /// Renders the fields that are recorded through `Display` or `Debug`, which runs code of the
    /// traced program, and plans all.
    fn prepare(&self) -> Self::Prepared;

    /// Bytes that [`write`](Event::write) will write.
    fn size(&self, prepared: &Self::Prepared) -> usize;

    /// Writes the record's fields and returns the end of what was written.
    ///
    /// # Safety
    ///
    /// `prepared` was made from `self`, `self` was not changed since, and
    /// [`size`](Event::size)`(prepared)` bytes from `at` may be written.
    unsafe fn write(&self, prepared: &Self::Prepared, at: *mut u8) -> *mut u8;

    /// Bytes that [`write_quick`](Event::write_quick) will write, or more than any record has where a field
    /// must be prepared.
    #[doc(hidden)]
    fn quick_size(&self) -> usize;

    /// Writes the record's fields without anything prepared, and without calling anything.
    ///
    /// # Safety
    ///
    /// [`quick_size`](Event::quick_size) was less than [`NOT_QUICK`](crate::field::NOT_QUICK), `self` was not
    /// changed since, and so many bytes from `at` may be written.
    #[doc(hidden)]
    unsafe fn write_quick(&self, at: *mut u8);

    /// A hit with this event: what a site of `trace!` does when it is on.
    #[doc(hidden)]
    fn emit(self);
}

/// `HTTPRequestDone` becomes `http_request_done`.
fn snake_case(ident: &str) -> String {
    let chars: Vec<char> = ident.chars().collect();
    let mut out = String::with_capacity(ident.len() + 4);
    for (i, &c) in chars.iter().enumerate() {
        if c.is_uppercase() && i > 0 && chars[i - 1] != '_' {
            let after_word = !chars[i - 1].is_uppercase();
            let before_word = chars.get(i + 1).is_some_and(|n| n.is_lowercase());
            if after_word || before_word {
                out.push('_');
            }
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::snake_case;

    #[test]
    fn names_become_snake_case() {
        for (ident, name) in [
            ("Get", "get"),
            ("KeyLookup", "key_lookup"),
            ("HTTPRequest", "http_request"),
            ("GetURL", "get_url"),
            ("V2Get", "v2_get"),
            ("Already_Snake", "already_snake"),
            ("x", "x"),
        ] {
            assert_eq!(snake_case(ident), name);
        }
    }
}
