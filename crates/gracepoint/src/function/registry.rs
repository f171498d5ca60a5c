//! Which operations there are, and which functions are on for them. All of it under the tracer's lock, which forks
//! and unloading wait for too.

use super::ops::{Op, Owner, Published};
use super::table::{self, On, Place, Table};
use crate::key::Key;
use crate::patch::PatchError;
use crate::{module, tracer};
use gracepoint_wire::control::Functions;
use std::sync::{Mutex, PoisonError};

struct Registry {
    table: Table,
    published: Published,
}

/// Only ever locked under the tracer's lock, so nobody waits for it.
static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { table: Table::new(), published: Published::new() });

fn with<T>(body: impl FnOnce(&mut Registry) -> T) -> T {
    tracer::locked(|| body(&mut REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Finds functions that were loaded since the last time, and gives `body` the table. Not from an operation that
/// interrupted a change of ours.
pub(crate) fn with_table<T>(body: impl FnOnce(&Table) -> T) -> T {
    // Not under the tracer's lock: both ask the loader (see `module.rs`).
    let (before, open) = with(|registry| {
        let open = module::unpinned(|key| key.point().is_some());
        (registry.table.loaded(), open)
    });
    if !open.is_empty() {
        module::pin(&open);
    }
    let look = table::look(before);
    with(|registry| {
        registry.table.add(look);
        body(&registry.table)
    })
}

/// All functions, as tools get them.
pub(crate) fn list() -> Functions {
    with_table(Table::list)
}

/// Adds an operation and switches its functions on.
///
/// # Errors
/// When the system refuses. Then it has not been added, but a hit may have found it in between.
pub(crate) fn attach(op: Op) -> Result<(), PatchError> {
    with(|registry| {
        let all: Vec<Op> = registry.published.all().iter().copied().chain([op]).collect();
        registry.published.replace(all);
        registry.switch().inspect_err(|_| registry.remove(op.data))
    })
}

/// Takes off the operation with this data. Waits for nobody: a call of it may be under way, or begin in a section that is
/// open, until a grace period of `TRACE` has passed.
pub(crate) fn detach(data: *const ()) {
    with(|registry| registry.remove(data));
}

/// In a forked child, before its next session: no session of the parent's is there any more.
pub(crate) fn reset() {
    with(|registry| {
        let ops = registry.published.all().iter().copied();
        let left = ops.filter(|op| op.of == Owner::Program).collect();
        registry.published.replace(left);
        let _ = registry.switch();
    });
}

impl Registry {
    fn remove(&mut self, data: *const ()) {
        let left: Vec<Op> =
            self.published.all().iter().copied().filter(|op| op.data != data).collect();
        self.published.replace(left);
        // Refused, functions stay on and find no operation: slower, but right.
        let _ = self.switch();
    }

    /// Makes those functions on that an operation wants, and no others; with sleds only the hits that one wants.
    fn switch(&mut self) -> Result<(), PatchError> {
        let ops = self.published.all();
        let wanted = |id: u32| On {
            entry: ops.iter().any(|op| op.entry.is_some() && op.has(id)),
            exit: ops.iter().any(|op| op.exit.is_some() && op.has(id)),
        };
        let changed: Vec<(u32, On)> = self
            .table
            .functions()
            .map(|(id, function)| (id, wanted(id), function.on))
            .filter(|(_, wanted, on)| wanted != on)
            .map(|(id, wanted, _)| (id, wanted))
            .collect();
        self.switch_sites(&changed)?;
        self.switch_sleds(&changed)?;
        let mut changed = changed.into_iter().peekable();
        for (id, function) in self.table.functions_mut() {
            if let Some((_, on)) = changed.next_if(|(changed, _)| *changed == id) {
                function.on = on;
                function.prepared |= on.is_any();
            }
        }
        Ok(())
    }

    fn switch_sites(&self, changed: &[(u32, On)]) -> Result<(), PatchError> {
        let keys = |wanted: bool| -> Vec<&'static Key> {
            let key = |&(id, on): &(u32, On)| {
                let function = self.table.get(id)?;
                let is_news = on.is_any() == wanted && function.on.is_any() != wanted;
                match function.place {
                    Place::Attribute(_, key) if is_news => Some(key),
                    _ => None,
                }
            };
            changed.iter().filter_map(key).collect()
        };
        tracer::switch(&keys(true), true)?;
        tracer::switch(&keys(false), false)
    }

    #[cfg(gp_branch)]
    fn switch_sleds(&self, _changed: &[(u32, On)]) -> Result<(), PatchError> {
        Ok(())
    }

    #[cfg(not(gp_branch))]
    fn switch_sleds(&self, changed: &[(u32, On)]) -> Result<(), PatchError> {
        use crate::arch::trampoline_x86_64 as arch;
        use crate::patch;
        arch::prepare();
        let mut batch = patch::Batch { dead: Vec::new(), first: Vec::new() };
        for &(id, on) in changed {
            let Some(function) = self.table.get(id) else { continue };
            let Place::Sleds { object, first, count, .. } = function.place else { continue };
            let (module, way) = (object as usize, self.table.way(object));
            for sled in self.table.sleds(first, count) {
                // All of a function's, once and for all.
                if on.is_any() && !function.prepared {
                    let Some((from, bytes)) = arch::dead_bytes(sled.kind, sled.at, id, way) else {
                        continue; // cannot be: it was tried when the sled was found
                    };
                    let at = sled.at + from;
                    batch.dead.push(patch::Write { module, at, bytes, len: bytes.len() });
                }
                let of =
                    |on: On| if sled.kind == arch::SledKind::Entry { on.entry } else { on.exit };
                if of(on) != of(function.on) {
                    let byte = if of(on) { arch::on() } else { arch::off(sled.kind) };
                    batch.first.push(patch::Write::one(module, sled.at, byte));
                }
            }
        }
        batch.dead.sort_unstable_by_key(|write| write.at);
        batch.first.sort_unstable_by_key(|write| write.at);
        patch::switch_sleds(&batch)
    }
}
