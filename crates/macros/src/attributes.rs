//! `#[event(…)]` on structs, enums and fields, and doc comments: read, checked, with errors that
//! say what to write instead.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, Expr, ExprLit, Lit, LitInt, LitStr, Meta, Path, Result, parse_quote};

/// Smallest limit: room for `…`.
const MIN_LIMIT: usize = 3;
/// Largest limit.
const MAX_LIMIT: usize = 16384;
/// The limit where none is given; `gracepoint_wire::schema::DEFAULT_TEXT_LIMIT`.
const DEFAULT_LIMIT: usize = 1024;
/// Most that a rendered field holds; `gracepoint::field::Text::CAPACITY`.
const RENDERED_LIMIT: usize = 1024;

/// The provider of Gracepoint's own events.
const OWN_PROVIDER: &str = "gp";

/// `#[event(…)]` on a struct or enum.
pub(crate) struct Container {
    /// Path of the `gracepoint` crate.
    pub(crate) root: Path,
    /// The name in traces.
    pub(crate) name: Option<LitStr>,
}

impl Container {
    pub(crate) fn read(attrs: &[Attribute]) -> Result<Container> {
        let mut root: Option<Path> = None;
        let mut name: Option<LitStr> = None;
        each(attrs, |meta| {
            if meta.path.is_ident("name") {
                once(&meta, name.is_some())?;
                name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("crate") {
                once(&meta, root.is_some())?;
                root = Some(meta.value()?.parse::<LitStr>()?.parse()?);
            } else {
                return Err(meta.error(
                    "unknown attribute of an event: it can be name = \"provider:event\" or \
                     crate = \"path\"; display, debug, limit, rename and sensitive go on fields",
                ));
            }
            Ok(())
        })?;
        if let Some(name) = &name {
            let own = root.as_ref().is_some_and(|path| path.is_ident("crate"));
            check_name(name, own)?;
        }
        Ok(Container { root: root.unwrap_or_else(|| parse_quote!(::gracepoint)), name })
    }
}

/// How a field becomes bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// By its type.
    Typed,
    /// The output of `Display`.
    Display,
    /// The output of `Debug`.
    Debug,
}

/// `#[event(…)]` on a field.
pub(crate) struct Field {
    pub(crate) how: How,
    pub(crate) limit: usize,
    /// Masked unless the program allows otherwise.
    pub(crate) sensitive: bool,
    /// Viewers draw its values as a curve.
    pub(crate) counter: bool,
    /// The name in traces.
    pub(crate) name: String,
}

impl Field {
    pub(crate) fn read(field: &syn::Field, ident: &syn::Ident) -> Result<Field> {
        let mut how = How::Typed;
        let mut limit: Option<LitInt> = None;
        let mut rename: Option<LitStr> = None;
        let (mut sensitive, mut counter) = (false, false);
        each(&field.attrs, |meta| {
            if meta.path.is_ident("display") || meta.path.is_ident("debug") {
                if how != How::Typed {
                    return Err(meta.error("a field is rendered once: display or debug"));
                }
                how = if meta.path.is_ident("debug") { How::Debug } else { How::Display };
            } else if meta.path.is_ident("limit") {
                once(&meta, limit.is_some())?;
                limit = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("sensitive") {
                once(&meta, sensitive)?;
                sensitive = true;
            } else if meta.path.is_ident("counter") {
                once(&meta, counter)?;
                counter = true;
            } else if meta.path.is_ident("rename") {
                once(&meta, rename.is_some())?;
                rename = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error(
                    "unknown attribute of a field: it can be display, debug, limit = N, \
                     rename = \"name\", sensitive or counter",
                ));
            }
            Ok(())
        })?;
        if counter && (how != How::Typed || sensitive) {
            return Err(syn::Error::new(
                ident.span(),
                "a counter is a number that everybody may see: it cannot be display, debug or sensitive",
            ));
        }
        let limit = limit.map_or(Ok(DEFAULT_LIMIT), |lit| check_limit(&lit, how))?;
        let (name, span) = match rename {
            Some(lit) => (lit.value(), lit.span()),
            None => (plain(ident), ident.span()),
        };
        check_field_name(&name, span)?;
        Ok(Field { how, limit, sensitive, counter, name })
    }
}

/// An identifier without `r#`.
pub(crate) fn plain(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}

/// The doc comment: its lines, each without its leading space, the whole trimmed.
pub(crate) fn docs(attrs: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("doc")) {
        if let Meta::NameValue(pair) = &attr.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value
        {
            let text = text.value();
            let block = text.contains('\n');
            for line in text.split('\n') {
                let line = if block { unstarred(line) } else { line };
                lines.push(line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned());
            }
        }
    }
    lines.join("\n").trim().to_owned()
}

/// A line of a block comment without the star before it.
fn unstarred(line: &str) -> &str {
    let trimmed = line.trim_start();
    trimmed.strip_prefix('*').unwrap_or(trimmed)
}

/// Calls `read` for each item of each `#[event(…)]`.
fn each(
    attrs: &[Attribute],
    mut read: impl FnMut(ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("event")) {
        attr.parse_nested_meta(&mut read)?;
    }
    Ok(())
}

fn once(meta: &ParseNestedMeta<'_>, seen: bool) -> Result<()> {
    if seen { Err(meta.error("given twice")) } else { Ok(()) }
}

fn check_name(lit: &LitStr, own: bool) -> Result<()> {
    let name = lit.value();
    let wrong = |why: &str| {
        Err(Error::new(
            lit.span(),
            format!("{why}; an event is named \"provider:event\", for example \"kv:get\""),
        ))
    };
    if let Some(bad) = name.chars().find(|&c| !is_printable(c)) {
        return wrong(&format!("{bad:?} cannot be in a name"));
    }
    let Some((provider, event)) = name.split_once(':') else {
        return wrong("there is no provider in this name");
    };
    if provider.is_empty() || event.is_empty() {
        return wrong("the provider or the event is empty");
    }
    if event.contains(':') {
        return wrong("there is more than one colon in this name");
    }
    if name.len() > 255 {
        return wrong("this name is longer than 255 bytes");
    }
    if provider == OWN_PROVIDER && !own {
        return wrong("the provider \"gp\" is Gracepoint itself");
    }
    Ok(())
}

/// No white space, control characters, quotes, and nothing that means something in a pattern.
fn is_printable(c: char) -> bool {
    c.is_alphanumeric() || (c.is_ascii_graphic() && !r#""'`\*?[]{},"#.contains(c))
}

/// What the trace format's own language accepts after an underscore, and no underscore first,
/// since the names of its helper fields begin so.
fn check_field_name(name: &str, span: Span) -> Result<()> {
    let letter_first = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if letter_first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(Error::new(
        span,
        format!(
            "a trace cannot have a field called {name:?}: names are ASCII letters, digits and \
             underscores, a letter first; give it another with #[event(rename = \"…\")]"
        ),
    ))
}

fn check_limit(lit: &LitInt, how: How) -> Result<usize> {
    let most = if how == How::Typed { MAX_LIMIT } else { RENDERED_LIMIT };
    match lit.base10_parse::<usize>() {
        Ok(limit) if (MIN_LIMIT..=most).contains(&limit) => Ok(limit),
        Ok(_) if how == How::Typed => Err(Error::new(
            lit.span(),
            format!("the limit of a field is {MIN_LIMIT} to {MAX_LIMIT} bytes"),
        )),
        Ok(_) => Err(Error::new(
            lit.span(),
            format!("the limit of a rendered field is {MIN_LIMIT} to {RENDERED_LIMIT} bytes"),
        )),
        Err(error) => Err(error),
    }
}

/// Refuses generics other than lifetimes.
pub(crate) fn only_lifetimes(generics: &syn::Generics, advice: &str) -> Result<()> {
    for param in &generics.params {
        let what = match param {
            syn::GenericParam::Lifetime(_) => continue,
            syn::GenericParam::Type(_) => "type",
            syn::GenericParam::Const(_) => "const",
        };
        return Err(Error::new_spanned(
            param,
            format!("{what} parameters are not supported here: {advice}"),
        ));
    }
    Ok(())
}
