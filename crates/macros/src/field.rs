//! `#[derive(Field)]`: an enum without data becomes a number with names.

use crate::attributes::{Container, only_lifetimes, plain};
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Data, DataEnum, DeriveInput, Error, Fields, Result};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let container = Container::read(&input.attrs)?;
    if let Some(name) = &container.name {
        return Err(Error::new(name.span(), "a field's type has no name of its own in a trace"));
    }
    only_lifetimes(&input.generics, "an enum without data has no use for them")?;
    let data = match &input.data {
        Data::Enum(data) => data,
        Data::Struct(data) => return Err(not_an_enum(&data.struct_token)),
        Data::Union(data) => return Err(not_an_enum(&data.union_token)),
    };
    check_variants(data)?;
    Ok(implementation(input, &container, data))
}

fn not_an_enum(keyword: &dyn ToTokens) -> Error {
    Error::new_spanned(
        keyword,
        "only enums without data can derive Field; record the fields of a struct one by one, or \
         the whole with #[event(debug)] on the event's field",
    )
}

fn check_variants(data: &DataEnum) -> Result<()> {
    let mut errors: Option<Error> = None;
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            let new = Error::new_spanned(
                variant,
                format!(
                    "`{}` has data, so the enum is not a number with names; record it with \
                     #[event(debug)] on the event's field",
                    variant.ident
                ),
            );
            match &mut errors {
                Some(errors) => errors.combine(new),
                none => *none = Some(new),
            }
        }
    }
    errors.map_or(Ok(()), Err)
}

fn implementation(input: &DeriveInput, container: &Container, data: &DataEnum) -> TokenStream {
    let root = &container.root;
    let ident = &input.ident;
    let (impl_generics, type_generics, clause) = input.generics.split_for_impl();
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let names = variants.iter().map(|ident| plain(ident));
    let write = if variants.is_empty() {
        quote!(match *self {})
    } else {
        quote! {
            let value: u64 = match *self {
                #(#ident::#variants => #ident::#variants as u64,)*
            };
            unsafe { #root::field::write_enum(value, SIZE, at) }
        }
    };
    let at = if variants.is_empty() { quote!(_) } else { quote!(at) };
    quote! {
        const _: () = {
            const SIZE: u8 = #root::field::enum_size(&[#(#ident::#variants as i128),*]);

            #[automatically_derived]
            unsafe impl #impl_generics #root::field::Field for #ident #type_generics #clause {
                const TYPE: #root::field::TypeDesc =
                    #root::field::TypeDesc::Enum(SIZE, &[#((#names, #ident::#variants as u64)),*]);

                #[inline(always)]
                fn plan(&self, _: usize) -> #root::field::Plan {
                    #root::field::Plan::NOTHING
                }

                #[inline(always)]
                fn size(&self, _: #root::field::Plan) -> usize {
                    SIZE as usize
                }

                #[inline(always)]
                unsafe fn write(&self, _: #root::field::Plan, #at: *mut u8) -> *mut u8 {
                    #write
                }

                #[inline(always)]
                fn quick_size(&self, _: usize) -> usize {
                    SIZE as usize
                }

                #[inline(always)]
                unsafe fn write_quick(&self, #at: *mut u8) -> *mut u8 {
                    #write
                }
            }
        };
    }
}
