//! What functions are called, for [`FunctionOps`](crate::FunctionOps), which are chosen by name: read from the objects'
//! files when one is registered, never on the path of a hit. (Tools do it by themselves.)

use super::table::{Place, Table};

#[cfg(not(gp_branch))]
use super::elf::Elf;
#[cfg(not(gp_branch))]
use std::collections::HashMap;

/// Calls `body` with the id and the name of each function that has one: the path, demangled.
pub(crate) fn each(table: &Table, mut body: impl FnMut(u32, &str)) {
    for (id, function) in table.functions() {
        match function.place {
            Place::Attribute(point, _) => body(id, &point.name()),
            #[cfg(not(gp_branch))]
            Place::Sleds { .. } => {}
        }
    }
    #[cfg(not(gp_branch))]
    for (number, object) in (0..).zip(table.objects()) {
        let own = object.path == crate::agent::exe();
        let file = if own { "/proc/self/exe" } else { object.path.as_str() };
        let Ok(bytes) = std::fs::read(file) else { continue };
        let Some(elf) = Elf::parse(&bytes) else { continue };
        let names: HashMap<u64, &str> =
            elf.functions().iter().map(|symbol| (symbol.address, symbol.name)).collect();
        for (id, function) in table.functions() {
            let Place::Sleds { object: of, function: address, .. } = function.place else {
                continue;
            };
            if of != number {
                continue;
            }
            let name = names.get(&(address as u64).wrapping_sub(object.bias));
            if let Some(name) = name {
                body(id, &demangle(name));
            }
        }
    }
}

/// As its source has it: Rust's without the hash that the compiler adds, C++'s with its arguments. The tools' rules
/// (`analysis`, `functions/symbols.rs`), which do not link us, nor we them: the test below holds them together.
#[cfg(not(gp_branch))]
fn demangle(symbol: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        return format!("{name:#}");
    }
    let plain = symbol.split_once(".llvm.").map_or(symbol, |(plain, _)| plain);
    match plain.starts_with("_Z").then(|| cpp_demangle::Symbol::new(plain)) {
        Some(Ok(name)) => name.demangle().unwrap_or_else(|_| plain.to_owned()),
        _ => plain.to_owned(),
    }
}

#[cfg(all(test, not(gp_branch)))]
mod tests {
    #[test]
    fn functions_are_called_what_tools_call_them() {
        let symbols = [
            "_ZN2kv5store3get17h0123456789abcdefE",
            "_ZN2kv5store3get17h0123456789abcdefE.llvm.123",
            "_RNvNtCs1234_2kv5store3get",
            "_ZN2kv3putEi",
            "_ZN2kv3putEi.llvm.77",
            "_ZN5sleds5Store3getEl",
            "_ZNSt6vectorIiSaIiEE9push_backERKi",
            "_Znot_a_name",
            "main",
            "",
        ];
        for symbol in symbols {
            let theirs = gracepoint_analysis::functions::symbols::demangle(symbol);
            assert_eq!(super::demangle(symbol), theirs, "{symbol}");
        }
        assert_eq!(super::demangle("_ZN2kv3putEi"), "kv::put(int)");
    }
}
