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
                body(id, &gracepoint_wire::symbol::demangle(name));
            }
        }
    }
}
