//! `#[function]`, `#[functions]`: a site at the beginning of a function, and a value that is dropped at its end.
//!
//! ```text
//! fn get(&self, id: u32) -> u32 {
//!     static POINT, KEY, SITE …;                    what the tracer knows of the function
//!     let call = …;                                 dropped last: a NOP, or the function ends
//!     if site!(SITE) { call.begin(&POINT); }        off: a NOP
//!     …                                             the body as it was
//! }
//! ```
//!
//! Arguments and results are events, whose structs and sites stand in the function, too. The body is put into a closure
//! only where its result is wanted. An `async fn` is entered and left at each poll, by a future around its body, and
//! has a span for the whole.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::meta::ParseNestedMeta;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Block, Error, FnArg, ImplItem, Item, ItemFn, Lifetime, LitStr, Meta, Pat, Path,
    Result, ReturnType, Signature, Type, parse_quote,
};

/// How a value is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Typed,
    Display,
    Debug,
}

/// `#[function(…)]`.
#[derive(Default)]
pub(crate) struct Settings {
    root: Option<Path>,
    args: Vec<(Ident, How)>,
    result: Option<(What, How)>,
}

/// What is recorded of what a function returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Value,
    Error,
}

impl Settings {
    /// Reads one item of the list.
    pub(crate) fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("crate") {
            self.root = Some(meta.value()?.parse::<LitStr>()?.parse()?);
        } else if meta.path.is_ident("args") {
            meta.parse_nested_meta(|arg| {
                let how = how(&arg, How::Typed)?;
                let name = arg.path.require_ident()?;
                if self.args.iter().any(|(known, _)| known == name) {
                    return Err(arg.error("this argument is named twice"));
                }
                self.args.push((name.clone(), how));
                Ok(())
            })?;
        } else if meta.path.is_ident("ret") || meta.path.is_ident("err") {
            if self.result.is_some() {
                return Err(meta.error("choose one: ret records the value, err the error alone"));
            }
            let is_value = meta.path.is_ident("ret");
            let usual = if is_value { How::Typed } else { How::Display };
            let what = if is_value { What::Value } else { What::Error };
            self.result = Some((what, how(meta, usual)?));
        } else {
            return Err(meta.error(
                "unknown setting of a function: it can be args(name, name = debug, …), ret, \
                 ret = debug, err, err = debug or crate = \"path\"",
            ));
        }
        Ok(())
    }

    fn root(&self) -> Path {
        self.root.clone().unwrap_or_else(|| parse_quote!(::gracepoint))
    }
}

/// The `= debug` or `= display` after a name.
fn how(meta: &ParseNestedMeta<'_>, usual: How) -> Result<How> {
    if !meta.input.peek(syn::Token![=]) {
        return Ok(usual);
    }
    let word: Ident = meta.value()?.parse()?;
    match word.to_string().as_str() {
        "debug" => Ok(How::Debug),
        "display" => Ok(How::Display),
        _ => Err(Error::new(word.span(), "it can be debug or display")),
    }
}

/// One function with its settings.
pub(crate) fn expand(settings: &Settings, mut function: ItemFn) -> Result<TokenStream> {
    let tracks = function.attrs.iter().find(|attr| attr.path().is_ident("track_caller"));
    if let (Some(attr), Some(_)) = (tracks, settings.result) {
        return Err(Error::new_spanned(
            attr,
            "for ret and err the body is put into a closure, which does not know the function's caller: \
             take one of the two away",
        ));
    }
    instrument(settings, &function.sig, &mut function.block)?;
    Ok(quote!(#function))
}

/// All functions of an `impl` or a `mod`.
pub(crate) fn expand_all(item: Item) -> Result<TokenStream> {
    match item {
        Item::Impl(mut item) => {
            for inner in &mut item.items {
                if let ImplItem::Fn(method) = inner
                    && wants(&mut method.attrs, &method.sig)
                {
                    instrument(&Settings::default(), &method.sig, &mut method.block)?;
                }
            }
            Ok(quote!(#item))
        }
        Item::Mod(mut item) => {
            let Some((_, items)) = &mut item.content else {
                return Err(Error::new_spanned(
                    item,
                    "the module's body must be here: write `mod name { … }`, or put the attribute on its functions",
                ));
            };
            for inner in items {
                let attributed = match inner {
                    Item::Fn(f) => {
                        if wants(&mut f.attrs, &f.sig) {
                            instrument(&Settings::default(), &f.sig, &mut f.block)?;
                        }
                        false
                    }
                    Item::Impl(_) => true,
                    Item::Mod(m) => m.content.is_some(),
                    _ => false,
                };
                if attributed {
                    *inner = Item::Verbatim(expand_all(inner.clone())?);
                }
            }
            Ok(quote!(#item))
        }
        other => Err(Error::new_spanned(
            other,
            "#[functions] goes on an `impl` block or a `mod` with its body; on one function it is #[function]",
        )),
    }
}

/// Is it to be traced as one of many? Not what is evaluated by the compiler or says otherwise (`#[function(skip)]`, which is
/// taken off), or has the attribute of its own.
fn wants(attrs: &mut Vec<Attribute>, sig: &Signature) -> bool {
    let is_own =
        |attr: &Attribute| attr.path().segments.last().is_some_and(|s| s.ident == "function");
    let skips = |attr: &Attribute| {
        let Meta::List(list) = &attr.meta else { return false };
        is_own(attr) && list.tokens.to_string() == "skip"
    };
    if attrs.iter().any(skips) {
        attrs.retain(|attr| !skips(attr));
        return false;
    }
    sig.constness.is_none() && !attrs.iter().any(is_own)
}

fn instrument(settings: &Settings, sig: &Signature, body: &mut Block) -> Result<()> {
    if let Some(keyword) = sig.constness {
        return Err(Error::new(
            keyword.span,
            "a const fn cannot be traced: the compiler evaluates it, too",
        ));
    }
    let root = settings.root();
    let args = args_event(settings, sig)?;
    let result = result_event(settings, sig)?;
    let whole = sig.asyncness.map(|_| whole_event(&root, sig));
    let statics = statics(&root, sig, [&args, &result, &whole]);
    let begin = quote!(#root::__gp1_call!(););
    let emit_args = args.as_ref().map(|event| &event.emit);
    let emit_result = result.as_ref().map(|event| &event.emit);
    let stmts = &body.stmts;
    *body = if sig.asyncness.is_some() {
        let (whole, output) = (whole.map(|event| event.emit), output(sig));
        parse_quote!({
            #statics
            #emit_args
            let _span = #whole;
            let __gp1_body = async move { #(#stmts)* };
            let mut __gp1_body = ::core::pin::pin!(__gp1_body);
            let __gp1_result #output = ::core::future::poll_fn(|__gp1_context| {
                #begin
                ::core::future::Future::poll(__gp1_body.as_mut(), __gp1_context)
            }).await;
            #emit_result
            __gp1_result
        })
    } else if emit_result.is_some() {
        let output = output(sig);
        parse_quote!({
            #statics
            #begin
            #emit_args
            let __gp1_result #output = #root::__private::once(move || { #(#stmts)* });
            #emit_result
            __gp1_result
        })
    } else {
        parse_quote!({
            #statics
            #begin
            #emit_args
            #(#stmts)*
        })
    };
    Ok(())
}

/// What the tracer knows of the function, and the structs of its events.
fn statics(root: &Path, sig: &Signature, events: [&Option<Emitted>; 3]) -> TokenStream {
    let keys = events.map(|event| match event {
        Some(event) => {
            let name = &event.name;
            quote!(::core::option::Option::Some(<#name as #root::__private::Event>::KEY))
        }
        None => quote!(::core::option::Option::None),
    });
    let items = events.into_iter().flatten().map(|event| &event.item);
    let at = sig.ident.span();
    let line = quote::quote_spanned!(at=> ::core::line!());
    quote! {
        #(#items)*
        fn __gp1_name() -> &'static str {
            ::core::any::type_name_of_val(&__gp1_name)
        }
        static __GP1_POINT: #root::__private::Point =
            #root::__private::Point::new(__gp1_name, ::core::file!(), #line, #(#keys),*);
        static __GP1_KEY: #root::__private::Key = #root::__private::Key::of_function(&__GP1_POINT);
        static __GP1_SITE: #root::__private::Site = #root::__private::Site::new(
            &__GP1_KEY, #root::__private::SiteKind::Function, ::core::file!(), #line,
        );
    }
}

/// `: T` where the function's result can be written down for a variable.
fn output(sig: &Signature) -> TokenStream {
    match &sig.output {
        ReturnType::Type(_, ty) if !matches!(**ty, Type::ImplTrait(_) | Type::Never(_)) => {
            quote!(: #ty)
        }
        _ => TokenStream::new(),
    }
}

/// An event that a function has of its own.
struct Emitted {
    name: Ident,
    item: TokenStream,
    emit: TokenStream,
}

/// The struct's name makes the event's: `Get` and `Args` become `module:get_args`.
fn struct_name(sig: &Signature, what: &str) -> Ident {
    let mut name = String::new();
    for word in sig.ident.to_string().trim_start_matches("r#").split('_') {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.extend(letters);
    }
    Ident::new(&format!("{name}{what}"), Span::mixed_site().located_at(sig.ident.span()))
}

fn field(how: How, name: &Ident, ty: &Type) -> TokenStream {
    match how {
        How::Typed => quote!(#name: &'gp1 #ty,),
        How::Display => quote!(#[event(display)] #name: &'gp1 dyn ::core::fmt::Display,),
        How::Debug => quote!(#[event(debug)] #name: &'gp1 dyn ::core::fmt::Debug,),
    }
}

fn event(root: &Path, name: &Ident, docs: &str, fields: &[TokenStream]) -> TokenStream {
    let path = quote!(#root).to_string().replace(' ', "");
    let lifetime = (!fields.is_empty()).then(|| quote!(<'gp1>));
    let braces = if fields.is_empty() { quote!(;) } else { quote!({ #(#fields)* }) };
    quote! {
        #[doc = #docs]
        #[allow(dead_code)]
        #[derive(#root::Event)]
        #[event(crate = #path)]
        struct #name #lifetime #braces
    }
}

fn args_event(settings: &Settings, sig: &Signature) -> Result<Option<Emitted>> {
    if settings.args.is_empty() {
        return Ok(None);
    }
    let root = settings.root();
    let name = struct_name(sig, "Args");
    let (mut fields, mut values) = (Vec::new(), Vec::new());
    for (arg, how) in &settings.args {
        let mut ty = type_of(sig, arg)?;
        if *how == How::Typed {
            concrete(sig, &mut ty, arg)?;
        }
        fields.push(field(*how, arg, &ty));
        values.push(quote!(#arg: &#arg));
    }
    let docs = format!("Arguments of `{}`.", sig.ident);
    let item = event(&root, &name, &docs, &fields);
    let emit = quote!(#root::trace!(#name { #(#values),* }););
    Ok(Some(Emitted { name, item, emit }))
}

/// The type of the argument with this name.
fn type_of(sig: &Signature, arg: &Ident) -> Result<Type> {
    let named = sig.inputs.iter().find_map(|input| match input {
        FnArg::Typed(typed) => match &*typed.pat {
            Pat::Ident(pattern) if pattern.ident == *arg => Some((*typed.ty).clone()),
            _ => None,
        },
        FnArg::Receiver(_) => None,
    });
    named.ok_or_else(|| {
        Error::new(arg.span(), "no argument has this name (self and patterns cannot be recorded)")
    })
}

/// Makes a type one that a struct outside of the function's generics can have.
fn concrete(sig: &Signature, ty: &mut Type, at: &Ident) -> Result<()> {
    struct Lifetimes;
    impl VisitMut for Lifetimes {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident != "static" {
                *lifetime = Lifetime::new("'gp1", lifetime.span());
            }
        }
        fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
            let span = reference.and_token.span;
            reference.lifetime.get_or_insert_with(|| Lifetime::new("'gp1", span));
            visit_mut::visit_type_reference_mut(self, reference);
        }
    }
    struct Names<'a>(&'a Signature, bool);
    impl VisitMut for Names<'_> {
        fn visit_ident_mut(&mut self, ident: &mut Ident) {
            let generic = self.0.generics.type_params().any(|param| param.ident == *ident);
            self.1 |= generic || ident == "Self";
        }
        fn visit_type_impl_trait_mut(&mut self, _: &mut syn::TypeImplTrait) {
            self.1 = true;
        }
    }
    let mut names = Names(sig, false);
    names.visit_type_mut(ty);
    if names.1 {
        let text = format!(
            "its type depends on the function's generics, or on Self, and a field of an event has one type: \
             record it as `{at} = debug` or `{at} = display`"
        );
        return Err(Error::new(at.span(), text));
    }
    Lifetimes.visit_type_mut(ty);
    Ok(())
}

fn result_event(settings: &Settings, sig: &Signature) -> Result<Option<Emitted>> {
    let Some((what, how)) = settings.result else { return Ok(None) };
    let root = settings.root();
    let name = struct_name(sig, "Return");
    let (label, docs) = match what {
        What::Value => (format_ident!("value"), format!("What `{}` returned.", sig.ident)),
        What::Error => (format_ident!("error"), format!("The error of `{}`.", sig.ident)),
    };
    let mut ty: Type = match &sig.output {
        ReturnType::Type(_, ty) => (**ty).clone(),
        ReturnType::Default => {
            return Err(Error::new_spanned(
                &sig.ident,
                "it returns nothing that could be recorded",
            ));
        }
    };
    if how == How::Typed {
        if what == What::Error {
            return Err(Error::new_spanned(&sig.ident, "an error is recorded by display or debug"));
        }
        concrete(sig, &mut ty, &format_ident!("ret", span = sig.ident.span()))?;
    }
    let item = event(&root, &name, &docs, &[field(how, &label, &ty)]);
    let emit = match what {
        What::Value => quote!(#root::trace!(#name { value: &__gp1_result });),
        What::Error => quote! {
            if let ::core::result::Result::Err(__gp1_error) = &__gp1_result {
                #root::trace!(#name { error: __gp1_error });
            }
        },
    };
    Ok(Some(Emitted { name, item, emit }))
}

/// The span of an `async fn` from its first poll to its end.
fn whole_event(root: &Path, sig: &Signature) -> Emitted {
    let name = struct_name(sig, "");
    let item = event(root, &name, &format!("The whole of `{}`.", sig.ident), &[]);
    Emitted { emit: quote!(#root::span!(#name)), item, name }
}
