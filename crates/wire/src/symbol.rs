//! What functions are called: the names that tools show, and that filters match in a tool and in the program alike.

/// A symbol's name as its source has it: Rust's without the hash, C++'s with its arguments; any other as
/// it is.
///
/// ```
/// use gracepoint_wire::symbol::demangle;
/// assert_eq!(demangle("_ZN2kv5store3get17h0123456789abcdefE"), "kv::store::get");
/// assert_eq!(demangle("_RNvNtCs1234_2kv5store3get"), "kv::store::get");
/// assert_eq!(demangle("_ZN2kv3putEi"), "kv::put(int)");
/// assert_eq!(demangle("main"), "main");
/// ```
pub fn demangle(symbol: &str) -> String {
    // What the compiler and linker append: `.llvm.1234`, `.cold`.
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        return format!("{name:#}");
    }
    let plain = symbol.split_once(".llvm.").map_or(symbol, |(plain, _)| plain);
    match plain.starts_with("_Z").then(|| cpp_demangle::Symbol::new(plain)) {
        Some(Ok(name)) => name.demangle().unwrap_or_else(|_| plain.to_owned()),
        _ => plain.to_owned(),
    }
}
