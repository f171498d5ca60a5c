//! The objects that the program has loaded, as a session has seen them: for `gp:module`, so that
//! whoever reads the trace can look addresses up, and the program never has to.
//!
//! There is no hook for `dlopen` that is ours to take, so the loader's list is looked at when a session
//! is made, started, flushed and stopped, and at each tick while it is on (about once a second). One
//! that comes and goes in between is not seen. A look that finds nothing new is one call.

use crate::sys::{self, Object};
use gracepoint_wire::control::Module;
use std::sync::{Mutex, PoisonError};

/// Most objects that are told; a program that loads more in all is a test of the loader.
const MOST: usize = 4096;
/// Most bytes of a path.
const MOST_PATH: usize = 1024;

/// See the top. Used by the agent's thread alone, but for the session that `init` begins.
#[derive(Default)]
pub(super) struct Modules(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    modules: Vec<Module>,
    /// How many of them whoever drains the session has been told of.
    told: usize,
    /// How many objects had been loaded in the program's life at the last look.
    loaded: Option<u64>,
}

impl Modules {
    /// Looks for objects that are new at `at`.
    pub(super) fn look(&self, at: u64) {
        let mut seen = self.lock();
        let Some((loaded, objects)) = sys::objects(seen.loaded) else { return };
        seen.add(at, objects);
        seen.loaded = Some(loaded);
    }

    /// All that were seen.
    pub(super) fn all(&self) -> Vec<Module> {
        let mut seen = self.lock();
        seen.told = seen.modules.len();
        seen.modules.clone()
    }

    /// Those that were not told before.
    pub(super) fn news(&self) -> Vec<Module> {
        let mut seen = self.lock();
        let all = seen.modules.len();
        let from = std::mem::replace(&mut seen.told, all);
        seen.modules[from..].to_vec()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn add(&mut self, at: u64, objects: Vec<Object>) {
        for (place, object) in objects.into_iter().enumerate() {
            let mut path = match object.name.to_string_lossy().into_owned() {
                // The loader does not name the program.
                name if name.is_empty() && place == 0 => crate::agent::exe(),
                name => name,
            };
            while path.len() > MOST_PATH {
                path.pop();
            }
            let Object { base, size, build_id, .. } = object;
            let known = |m: &Module| (m.base, m.size) == (base, size) && m.path == path;
            // The latest at a place is the one that lies there.
            let there = self.modules.iter().rfind(|module| module.base == base);
            if !there.is_some_and(known) && self.modules.len() < MOST {
                self.modules.push(Module { at, base, size, build_id, path });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn object(base: u64, name: &str) -> Object {
        Object {
            base,
            size: 4096,
            bias: base,
            code: Vec::new(),
            build_id: vec![1, 2],
            name: CString::new(name).unwrap(),
        }
    }

    #[test]
    fn each_is_told_once_and_all_to_whoever_comes_later() {
        let modules = Modules::default();
        modules.lock().add(1, vec![object(4096, ""), object(8192, "/lib/a.so")]);
        assert_eq!(modules.news().len(), 2);
        modules.lock().add(2, vec![object(4096, ""), object(8192, "/lib/a.so")]);
        assert_eq!(modules.news(), []);
        modules.lock().add(3, vec![object(4096, ""), object(8192, "/lib/b.so")]);
        let news = modules.news();
        assert_eq!((news.len(), news[0].at, news[0].path.as_str()), (1, 3, "/lib/b.so"));
        modules.lock().add(4, vec![object(8192, "/lib/a.so")]);
        assert_eq!(modules.news().len(), 1, "it is back at its place");
        assert_eq!(modules.all().len(), 4);
        assert_eq!(modules.lock().modules[0].path, crate::agent::exe());
    }

    #[test]
    fn this_program_is_found_and_a_second_look_is_short() {
        let modules = Modules::default();
        modules.look(7);
        let all = modules.all();
        let here = this_program_is_found_and_a_second_look_is_short as fn() as usize as u64;
        let program = &all[0];
        assert!((program.base..program.base + program.size).contains(&here), "{program:?}");
        assert_eq!(program.path, crate::agent::exe());
        assert!(all.iter().any(|m| m.path.contains("libc") && m.build_id.len() >= 8), "{all:?}");
        assert!(sys::objects(modules.lock().loaded).is_none(), "nothing was loaded since");
    }
}
