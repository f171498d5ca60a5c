//! `#[derive(Event)]`: the description, the static key, and the two steps of writing.

use crate::attributes::{Container, Field, How, docs, only_lifetimes, plain};
use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, GenericArgument, PathArguments, Result, Type};

/// Fields that the begin of a span has beside the event's own.
const RESERVED: [&str; 2] = ["span", "parent"];

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let container = Container::read(&input.attrs)?;
    only_lifetimes(&input.generics, NOT_GENERIC)?;
    let fields = fields(input)?;
    let root = &container.root;
    let desc = description(input, &container, &fields);
    let steps = steps(&container, &fields);
    let emit = emit(input, root, &fields);
    let ident = &input.ident;
    let (impl_generics, type_generics, clause) = input.generics.split_for_impl();
    let statics = input.generics.lifetimes().map(|_| quote!('static));
    let at = input.generics.lifetimes().map(|_| quote!('gp_at));
    let tracepoint = tracepoint(input, root);
    Ok(quote! {
        #[automatically_derived]
        unsafe impl #impl_generics #root::event::Event for #ident #type_generics #clause {
            const DESC: &'static #root::event::EventDesc = &#desc;
            const KEY: &'static #root::__private::Key = {
                static KEY: #root::__private::Key =
                    #root::__private::Key::new::<#ident<#(#statics),*>>();
                &KEY
            };
            type At<'gp_at> = #ident<#(#at),*>;
            #steps
            #emit
        }
        #tracepoint
    })
}

/// The struct's own `tracepoint()`, as visible as the struct.
///
/// A probe sees the event with one lifetime in place of all, the time of the hit. With one lifetime
/// that says nothing new. With several the struct must be covariant, or a probe could put what
/// lives shortly where something longer-lived is expected; the function inside does not compile then.
fn tracepoint(input: &DeriveInput, root: &syn::Path) -> TokenStream {
    let (ident, vis) = (&input.ident, &input.vis);
    let (impl_generics, type_generics, clause) = input.generics.split_for_impl();
    let lifetimes = input.generics.lifetimes().count();
    let covariant = (lifetimes > 1).then(|| {
        let (long, short) = (vec![quote!('gp_long); lifetimes], vec![quote!('gp_at); lifetimes]);
        quote! {
            fn an_event_with_several_lifetimes_is_covariant<'gp_at, 'gp_long: 'gp_at>(
                event: &'gp_at #ident<#(#long),*>,
            ) -> &'gp_at #ident<#(#short),*> {
                event
            }
            let _ = an_event_with_several_lifetimes_is_covariant;
        }
    });
    quote! {
        #[automatically_derived]
        #[allow(dead_code, clippy::all, clippy::pedantic)]
        impl #impl_generics #ident #type_generics #clause {
            /// The tracepoint of this event, where probes are attached to the default tracer.
            #[must_use]
            #vis fn tracepoint() -> #root::Tracepoint<'static, Self> {
                #covariant
                #root::Tracer::global().tracepoint()
            }
        }
    }
}

/// Words of fields that a site hands over in registers, which saves it the stores and mostly the frame.
const MOST_WORDS: usize = 6;

/// `emit`: what a site calls. An event of few words goes through a function of its own, field by field, and is
/// put together there, once for all sites; any other is handed over by reference.
fn emit(input: &DeriveInput, root: &syn::Path, members: &[Member<'_>]) -> TokenStream {
    let by_reference = quote!(#root::__private::emit(&self));
    let types: Vec<_> = members.iter().map(|member| member.ty).collect();
    // A function inside of another does not know what `Self` is there.
    let own = types.iter().any(|ty| mentions_self(ty.to_token_stream()));
    if members.is_empty() || members.len() > MOST_WORDS || own {
        return quote! {
            #[inline(always)]
            fn emit(self) {
                #by_reference
            }
        };
    }
    let ident = &input.ident;
    let (impl_generics, type_generics, clause) = input.generics.split_for_impl();
    let names: Vec<_> = members.iter().map(|member| member.ident).collect();
    // Not the fields' names, which may be those of the program's statics, or of what is declared here.
    let values: Vec<_> = (0..names.len()).map(|n| format_ident!("gp_{n}")).collect();
    quote! {
        #[inline(always)]
        #[allow(clippy::all, clippy::pedantic)]
        fn emit(self) {
            #[cold]
            #[inline(never)]
            fn in_parts #impl_generics (#(#values: #types),*) #clause {
                let event: #ident #type_generics = #ident { #(#names: #values),* };
                #root::__private::emit_here(&event)
            }
            // Nothing of the event needs to be dropped, so it may be given up here and put together again.
            #[cold]
            #[inline(never)]
            fn in_registers #impl_generics (#(#values: #types),*) #clause {
                let event: #ident #type_generics = #ident { #(#names: #values),* };
                let event = ::core::mem::ManuallyDrop::new(event);
                if !#root::__private::emit_quickly(&*event) {
                    unsafe { in_parts(#(::core::ptr::read(&raw const event.#names)),*) }
                }
            }
            let words = 0 #(+ ::core::mem::size_of::<#types>().div_ceil(8))*;
            if words > #MOST_WORDS {
                return #by_reference;
            }
            // Each field is read once and `self` is not used again: so they are moved, also out of an
            // event with a `Drop` of its own, which runs where it is put together.
            let event = ::core::mem::ManuallyDrop::new(self);
            unsafe {
                if ::core::mem::needs_drop::<#ident #type_generics>() {
                    in_parts(#(::core::ptr::read(&raw const event.#names)),*)
                } else {
                    in_registers(#(::core::ptr::read(&raw const event.#names)),*)
                }
            }
        }
    }
}

fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "Self",
        TokenTree::Group(group) => mentions_self(group.stream()),
        _ => false,
    })
}

/// Begins the documentation of a sensitive field; `gracepoint_wire::schema::SENSITIVE`.
const SENSITIVE: &str = "[sensitive]";
/// The same of a counter; `gracepoint_wire::schema::COUNTER`.
const COUNTER: &str = "[counter]";

const NOT_GENERIC: &str = "an event has one name, one layout and one static key; make a struct for \
    each type, or record the field with #[event(display)] as a `&dyn Display`";

/// One field and all that is known about it.
struct Member<'a> {
    ident: &'a syn::Ident,
    ty: &'a Type,
    field: Field,
    docs: String,
}

fn fields(input: &DeriveInput) -> Result<Vec<Member<'_>>> {
    let data = match &input.data {
        Data::Struct(data) => data,
        Data::Enum(data) => {
            return Err(Error::new_spanned(
                data.enum_token,
                "an enum cannot be an event: make a struct for each kind, or a struct with this \
                 enum as a field (#[derive(gracepoint::Field)] on the enum)",
            ));
        }
        Data::Union(data) => {
            return Err(Error::new_spanned(data.union_token, "a union cannot be an event"));
        }
    };
    let named = match &data.fields {
        Fields::Unit => return Ok(Vec::new()),
        Fields::Named(named) => named,
        Fields::Unnamed(fields) => {
            return Err(Error::new_spanned(
                fields,
                "the fields of an event need names, which tools list and filter by: write \
                 `struct Name { field: Type }`",
            ));
        }
    };
    let mut members: Vec<Member<'_>> = Vec::new();
    let mut errors: Option<Error> = None;
    for field in &named.named {
        let result = member(field).and_then(|new| {
            if members.iter().any(|old| old.field.name == new.field.name) {
                let text = format!("there is already a field called {:?}", new.field.name);
                return Err(Error::new_spanned(new.ident, text));
            }
            if RESERVED.contains(&new.field.name.as_str()) {
                let text = format!(
                    "{:?} is the name of a field that `span!` adds; use \
                     `#[event(rename = \"...\")]`",
                    new.field.name
                );
                return Err(Error::new_spanned(new.ident, text));
            }
            Ok(new)
        });
        match (result, &mut errors) {
            (Ok(member), _) => members.push(member),
            (Err(new), Some(errors)) => errors.combine(new),
            (Err(new), none) => *none = Some(new),
        }
    }
    errors.map_or(Ok(members), Err)
}

fn member(field: &syn::Field) -> Result<Member<'_>> {
    let ident = field.ident.as_ref().expect("fields of a braced struct have names");
    let read = Field::read(field, ident)?;
    if read.how == How::Typed {
        check_type(&field.ty)?;
    }
    let mut docs = docs(&field.attrs);
    let marks = [(read.sensitive, SENSITIVE), (read.counter, COUNTER)];
    for (_, mark) in marks.iter().filter(|(has, _)| *has) {
        docs = format!("{mark} {docs}").trim_end().to_owned();
    }
    Ok(Member { ident, ty: &field.ty, field: read, docs })
}

/// Finds what has a better answer than "this type is not a `Field`".
fn check_type(ty: &Type) -> Result<()> {
    let Type::Path(path) = unreferenced(ty) else { return Ok(()) };
    let Some(last) = path.path.segments.last() else { return Ok(()) };
    let name = last.ident.to_string();
    if ATOMICS.contains(&name.as_str()) {
        return Err(Error::new_spanned(
            ty,
            format!(
                "`{name}` may change while it is being recorded: load it, and make the field a \
                 plain number or `bool`"
            ),
        ));
    }
    if let PathArguments::AngleBracketed(arguments) = &last.arguments {
        for argument in &arguments.args {
            if let GenericArgument::Type(inner) = argument {
                check_type(inner)?;
                if name == "Option" && is_option(inner) {
                    return Err(Error::new_spanned(
                        ty,
                        "an option of an option cannot be recorded: use one `Option`, or an enum",
                    ));
                }
            }
        }
    }
    Ok(())
}

fn is_option(ty: &Type) -> bool {
    let Type::Path(path) = unreferenced(ty) else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Option")
}

const ATOMICS: [&str; 12] = [
    "AtomicBool",
    "AtomicI8",
    "AtomicI16",
    "AtomicI32",
    "AtomicI64",
    "AtomicIsize",
    "AtomicU8",
    "AtomicU16",
    "AtomicU32",
    "AtomicU64",
    "AtomicUsize",
    "AtomicPtr",
];

fn unreferenced(ty: &Type) -> &Type {
    match ty {
        Type::Reference(reference) => unreferenced(&reference.elem),
        Type::Paren(paren) => unreferenced(&paren.elem),
        Type::Group(group) => unreferenced(&group.elem),
        other => other,
    }
}

/// The `EventDesc`.
fn description(input: &DeriveInput, container: &Container, members: &[Member<'_>]) -> TokenStream {
    let root = &container.root;
    let name = match &container.name {
        Some(name) => quote!(::core::option::Option::Some(#name)),
        None => quote!(::core::option::Option::None),
    };
    let fields = members.iter().map(|member| {
        let (name, docs) = (&member.field.name, &member.docs);
        let ty = match member.field.how {
            How::Typed if member.field.sensitive => {
                let ty = member.ty;
                quote_spanned!(ty.span()=> #root::field::Sensitive::<#ty>::TYPE)
            }
            How::Typed if member.field.counter => {
                let ty = member.ty;
                quote_spanned!(ty.span()=> <#ty as #root::field::Field>::TYPE.of_counter())
            }
            How::Typed => {
                let ty = member.ty;
                quote_spanned!(ty.span()=> <#ty as #root::field::Field>::TYPE)
            }
            How::Display | How::Debug if member.field.sensitive => {
                quote!(#root::field::Sensitive::<#root::field::Text>::TYPE)
            }
            How::Display | How::Debug => quote!(#root::field::TypeDesc::Str),
        };
        quote!(#root::event::FieldDesc { name: #name, ty: #ty, docs: #docs })
    });
    let (ident, docs) = (plain(&input.ident), docs(&input.attrs));
    // The line of the struct's name, not of the derive.
    let place = quote_spanned!(input.ident.span()=>
        file: ::core::file!(), line: ::core::line!());
    quote! {
        #root::event::EventDesc {
            module: ::core::module_path!(),
            ident: #ident,
            name: #name,
            docs: #docs,
            fields: &[#(#fields),*],
            #place
        }
    }
}

/// How one field is written: the type and the value of its element of `Prepared`, and the encoder with
/// what it is called with.
struct Encoding {
    /// Its encoder has a quick way: nothing is rendered or masked.
    quick: bool,
    prepared: TokenStream,
    plan: TokenStream,
    encoder: TokenStream,
    value: TokenStream,
    planned: TokenStream,
}

fn encoding(p: &TokenStream, member: &Member<'_>, index: usize) -> Encoding {
    let (ident, ty, limit) = (member.ident, member.ty, member.field.limit);
    let sensitive = member.field.sensitive;
    let index = syn::Index::from(index);
    let span = ty.span();
    let render = match member.field.how {
        How::Typed if sensitive => {
            let encoder = quote_spanned!(span=> #p::Sensitive::<#ty>);
            return Encoding {
                quick: false,
                prepared: quote!(::core::option::Option<#p::Plan>),
                plan: quote_spanned!(span=> #encoder::plan(&self.#ident, #limit)),
                encoder,
                value: quote!(&self.#ident),
                planned: quote!(prepared.#index),
            };
        }
        How::Typed => {
            let encoder = quote_spanned!(span=> <#ty as #p::Field>);
            return Encoding {
                quick: true,
                prepared: quote!(#p::Plan),
                plan: quote_spanned!(span=> #encoder::plan(&self.#ident, #limit)),
                encoder,
                value: quote!(&self.#ident),
                planned: quote!(prepared.#index),
            };
        }
        How::Display => quote_spanned!(span=> display),
        How::Debug => quote_spanned!(span=> debug),
    };
    let text = quote_spanned!(span=> #p::Text::#render::<#ty>(&self.#ident, #limit));
    let (prepared, plan) = match sensitive {
        // What is masked is not even rendered.
        true => (
            quote!(::core::option::Option<#p::Text>),
            quote_spanned!(span=> #p::sensitive_allowed().then(|| #text)),
        ),
        false => (quote!(#p::Text), text),
    };
    Encoding {
        quick: false,
        encoder: quote_spanned!(span=> <#prepared as #p::Field>),
        prepared,
        plan,
        value: quote!(&prepared.#index),
        planned: quote!(#p::Plan::NOTHING),
    }
}

/// `Prepared`, `prepare`, `size` and `write`. `Prepared` has one element for each field: its plan, or
/// its rendered text; of a sensitive field an option of that, `None` where it is masked.
fn steps(container: &Container, members: &[Member<'_>]) -> TokenStream {
    let root = &container.root;
    let p = quote!(#root::field);
    let (mut types, mut plans) = (Vec::new(), Vec::new());
    let (mut sizes, mut writes) = (Vec::new(), Vec::new());
    let (mut quick_sizes, mut quick_writes) = (Vec::new(), Vec::new());
    for (index, member) in members.iter().enumerate() {
        let Encoding { quick, prepared, plan, encoder, value, planned } =
            encoding(&p, member, index);
        let (span, limit) = (member.ty.span(), member.field.limit);
        quick_sizes.push(match quick {
            true => quote_spanned!(span=> #encoder::quick_size(#value, #limit)),
            false => quote!(#p::NOT_QUICK),
        });
        quick_writes.push(match quick {
            true => quote_spanned!(span=> #encoder::write_quick(#value, at)),
            false => quote!(at),
        });
        types.push(prepared);
        plans.push(plan);
        sizes.push(quote_spanned!(span=> #encoder::size(#value, #planned)));
        writes.push(quote_spanned!(span=> #encoder::write(#value, #planned, at)));
    }
    // A `()` as the last expression, or an unused argument, would be a warning in the user's crate.
    let (prepared, plans) = match members.is_empty() {
        true => (quote!(_), quote!()),
        false => (quote!(prepared), quote!((#(#plans,)*))),
    };
    quote! {
        type Prepared = (#(#types,)*);

        #[inline(always)]
        fn prepare(&self) -> Self::Prepared {
            #plans
        }

        #[inline(always)]
        fn size(&self, #prepared: &Self::Prepared) -> usize {
            0 #(+ #sizes)*
        }

        #[inline(always)]
        unsafe fn write(&self, #prepared: &Self::Prepared, at: *mut u8) -> *mut u8 {
            #(let at = unsafe { #writes };)*
            at
        }

        #[inline(always)]
        fn quick_size(&self) -> usize {
            0 #(+ #quick_sizes)*
        }

        #[inline(always)]
        #[allow(unused_unsafe)]
        unsafe fn write_quick(&self, at: *mut u8) {
            #(let at = unsafe { #quick_writes };)*
            let _ = at;
        }
    }
}
