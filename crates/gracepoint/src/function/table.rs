//! The functions that can be traced, by id: those with the attribute, from the records of sites, and those with
//! sleds, from the map that the compiler makes (`xray_instr_map`) in each object.
//!
//! Ids are dense from 1 and never used again: what a trace or a sled says of a function stays true. A function is in
//! the table from when its object was first looked at; nobody is told of objects, so whoever lists functions or asks
//! for some looks first.
//!
//! # Which objects
//! The map is not needed to run, so no segment header leads to it: the object's file is asked where the section lies.
//! It is read where it is mapped, if the file's build id is that of the object in memory (an object whose file was replaced is
//! left alone). Each sled is looked at before it is believed: its bytes must be in executable memory of the same object,
//! and be what the compiler makes. Objects with sleds stay loaded from then on (`module.rs` says why).

use super::point::Point;
use crate::site::SiteKind;
use crate::{module, sys};
use gracepoint_wire::control::{self, FunctionKind, FunctionObject, Functions};

#[cfg(not(gp_branch))]
use super::elf::Elf;
#[cfg(not(gp_branch))]
use crate::agent;
#[cfg(not(gp_branch))]
use crate::arch::trampoline_x86_64 as arch;

/// A sled.
#[cfg(not(gp_branch))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sled {
    pub(crate) at: usize,
    pub(crate) kind: arch::SledKind,
}

/// Where a function is switched.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// At its site.
    Attribute(&'static Point, &'static crate::key::Key),
    /// At these of [`Table::sleds`].
    #[cfg(not(gp_branch))]
    Sleds { object: u32, function: usize, first: u32, count: u32 },
}

/// Which hits of a function are wanted, or on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct On {
    pub(crate) entry: bool,
    pub(crate) exit: bool,
}

impl On {
    pub(crate) fn is_any(self) -> bool {
        self.entry || self.exit
    }
}

/// A function; its id is its place in the table and 1.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) place: Place,
    pub(crate) on: On,
    /// The dead bytes of its sleds are written.
    pub(crate) prepared: bool,
}

#[derive(Debug)]
#[cfg_attr(gp_branch, allow(dead_code, reason = "no object has sleds that are used"))]
struct Object {
    about: FunctionObject,
    base: u64,
    #[cfg(not(gp_branch))]
    way: arch::Way,
}

/// See the top.
#[derive(Debug)]
pub(crate) struct Table {
    objects: Vec<Object>,
    functions: Vec<Function>,
    #[cfg(not(gp_branch))]
    sleds: Vec<Sled>,
    /// How many objects had been loaded at the last look.
    loaded: Option<u64>,
    notes: Vec<String>,
}

/// What a look has found, before it is in the table.
#[derive(Debug)]
pub(crate) struct Look {
    loaded: u64,
    #[cfg(not(gp_branch))]
    found: Vec<Found>,
    notes: Vec<String>,
}

#[cfg(not(gp_branch))]
#[derive(Debug)]
struct Found {
    object: Object,
    functions: Vec<(usize, Vec<Sled>)>,
}

impl Table {
    pub(crate) const fn new() -> Table {
        Table {
            objects: Vec::new(),
            functions: Vec::new(),
            #[cfg(not(gp_branch))]
            sleds: Vec::new(),
            loaded: None,
            notes: Vec::new(),
        }
    }

    pub(crate) fn loaded(&self) -> Option<u64> {
        self.loaded
    }

    /// Adds what a look has found, and functions with the attribute that are new. The caller holds the tracer's lock.
    pub(crate) fn add(&mut self, look: Option<Look>) {
        if let Some(look) = look {
            self.loaded = Some(look.loaded);
            self.notes.extend(look.notes);
            #[cfg(not(gp_branch))]
            for found in look.found {
                let known =
                    |o: &Object| o.base == found.object.base && o.about == found.object.about;
                if !self.objects.iter().any(known) {
                    self.add_object(found);
                }
            }
        }
        // What the table refers to must stay; an object that came since the caller pinned them is for the next time.
        for found in module::records().filter(module::is_pinned) {
            let site = found.record.site();
            let point = site.key.point().filter(|_| site.kind == SiteKind::Function);
            if let Some(point) = point.filter(|point| point.id() == 0) {
                let place = Place::Attribute(point, site.key);
                self.functions.push(Function { place, on: On::default(), prepared: true });
                point.set_id(self.functions.len() as u32);
            }
        }
    }

    #[cfg(not(gp_branch))]
    fn add_object(&mut self, found: Found) {
        let object = self.objects.len() as u32;
        for (function, sleds) in found.functions {
            if self.functions.len() + 1 >= arch::MOST_IDS as usize {
                self.notes.push("there are more functions than ids in sleds".into());
                break;
            }
            let (first, count) = (self.sleds.len() as u32, sleds.len() as u32);
            self.sleds.extend(sleds);
            let place = Place::Sleds { object, function, first, count };
            self.functions.push(Function { place, on: On::default(), prepared: false });
        }
        self.objects.push(found.object);
    }

    /// With its id.
    pub(crate) fn functions_mut(&mut self) -> impl Iterator<Item = (u32, &mut Function)> {
        (1..).zip(&mut self.functions)
    }

    /// With its id.
    pub(crate) fn functions(&self) -> impl Iterator<Item = (u32, &Function)> {
        (1..).zip(&self.functions)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Function> {
        self.functions.get(id.checked_sub(1)? as usize)
    }

    pub(crate) fn len(&self) -> u32 {
        self.functions.len() as u32
    }

    #[cfg(not(gp_branch))]
    pub(crate) fn sleds(&self, first: u32, count: u32) -> &[Sled] {
        &self.sleds[first as usize..][..count as usize]
    }

    #[cfg(not(gp_branch))]
    pub(crate) fn way(&self, object: u32) -> arch::Way {
        self.objects[object as usize].way
    }

    /// An object's file and what to add to its addresses.
    #[cfg(not(gp_branch))]
    pub(crate) fn objects(&self) -> impl Iterator<Item = &FunctionObject> {
        self.objects.iter().map(|object| &object.about)
    }

    /// As tools get it.
    pub(crate) fn list(&self) -> Functions {
        let event = |key: Option<&'static crate::key::Key>| {
            key.map_or_else(String::new, |key| key.desc.name())
        };
        let one = |(id, function): (u32, &Function)| match function.place {
            Place::Attribute(point, _) => control::Function {
                id,
                kind: FunctionKind::Attribute,
                name: point.name().into_owned(),
                file: point.file.into(),
                line: point.line,
                args: event(point.args),
                returns: event(point.returns),
                ..control::Function::default()
            },
            #[cfg(not(gp_branch))]
            Place::Sleds { object, function, .. } => control::Function {
                id,
                kind: FunctionKind::Sleds,
                object,
                address: (function as u64).wrapping_sub(self.objects[object as usize].about.bias),
                ..control::Function::default()
            },
        };
        Functions {
            objects: self.objects.iter().map(|object| object.about.clone()).collect(),
            functions: self.functions().map(one).collect(),
            notes: self.notes.clone(),
        }
    }
}

/// Looks for objects that were loaded since. Not under the tracer's lock: the loader has one of its own, which it holds
/// while it tells us of sites.
#[cfg(gp_branch)]
pub(crate) fn look(before: Option<u64>) -> Option<Look> {
    let (loaded, _) = sys::objects(before)?;
    let note = "this program's sites are not patched (GRACEPOINT_PATCH=branch, or another \
                processor), so sleds stay off; build it without for functions with sleds";
    let notes = if before.is_none() { vec![note.into()] } else { Vec::new() };
    Some(Look { loaded, notes })
}

/// Looks for objects that were loaded since. Not under the tracer's lock: the loader has one of its own, which it holds
/// while it tells us of sites.
#[cfg(not(gp_branch))]
pub(crate) fn look(before: Option<u64>) -> Option<Look> {
    let (loaded, objects) = sys::objects(before)?;
    let mut look = Look { loaded, found: Vec::new(), notes: Vec::new() };
    for (place, object) in objects.into_iter().enumerate() {
        let path = object.name.to_string_lossy().into_owned();
        let is_program = place == 0 && path.is_empty();
        let file = if is_program { "/proc/self/exe" } else { path.as_str() };
        // The kernel's own object has no file.
        let Ok(bytes) = std::fs::read(file) else { continue };
        let Some(range) = Elf::parse(&bytes).and_then(|elf| map_of(&elf, &object)) else {
            continue;
        };
        sys::keep_loaded(object.base as usize);
        let path = if is_program { agent::exe() } else { path };
        let sys::Object { base, size, bias, build_id, code, .. } = object;
        // SAFETY: the map of an object that has this build id, in memory that the loader has mapped for it and that stays.
        let bytes = unsafe { std::slice::from_raw_parts(range.0 as *const u8, range.1) };
        let entries: Vec<Entry> = bytes.chunks_exact(ENTRY).map(Entry::read).collect();
        let about = FunctionObject { path, build_id, bias };
        let way = arch::Way::of(&(base as usize..(base + size) as usize));
        let found = way.ok_or_else(|| {
            "it lies more than 2 GiB from the runtime, and there is no room for a page near it"
                .to_owned()
        });
        match found.and_then(|way| Ok((way, sleds_of(&entries, &code)?))) {
            Ok((way, functions)) => {
                look.found.push(Found { object: Object { about, base, way }, functions });
            }
            Err(why) => look.notes.push(format!("{}: {why}", about.path)),
        }
    }
    Some(look)
}

/// Bytes of an entry of `xray_instr_map`.
#[cfg(not(gp_branch))]
const ENTRY: usize = 32;

/// What an entry says.
#[cfg(not(gp_branch))]
struct Entry {
    sled: usize,
    function: usize,
    kind: u8,
    version: u8,
}

#[cfg(not(gp_branch))]
impl Entry {
    /// Version 2: the sled's and the function's distances from where they stand (which may be at any address: compilers
    /// ask for no alignment); the kind, whether always, the version; 13 bytes of nothing.
    fn read(bytes: &[u8]) -> Entry {
        let address = |at: usize| {
            let mut distance = [0; 8];
            distance.copy_from_slice(&bytes[at..at + 8]);
            (&raw const bytes[at] as usize).wrapping_add(usize::from_le_bytes(distance))
        };
        Entry { sled: address(0), function: address(8), kind: bytes[16], version: bytes[18] }
    }
}

/// Where an object's map lies in memory, and how many bytes it has.
#[cfg(not(gp_branch))]
fn map_of(elf: &Elf<'_>, object: &sys::Object) -> Option<(usize, usize)> {
    let section = elf.section("xray_instr_map")?;
    let of_file = elf.bytes(".note.gnu.build-id").and_then(|note| note.get(16..));
    let same = object.build_id.is_empty() || of_file.is_none_or(|id| *id == *object.build_id);
    let start = object.bias.wrapping_add(section.start);
    let size = section.end - section.start;
    let inside = start >= object.base
        && start.checked_add(size).is_some_and(|end| end <= object.base + object.size);
    (same && inside).then_some((start as usize, size as usize))
}

/// The functions of a map and their sleds. One that has a sled which is not as it should be is left out.
#[cfg(not(gp_branch))]
fn sleds_of(
    entries: &[Entry],
    code: &[std::ops::Range<u64>],
) -> Result<Vec<(usize, Vec<Sled>)>, String> {
    if let Some(other) = entries.iter().find(|entry| entry.version != 2) {
        return Err(format!(
            "its sleds are of version {} and this runtime knows 2; build it with a newer compiler",
            other.version
        ));
    }
    let mut functions = Vec::new();
    let mut foreign = 0;
    for run in entries.chunk_by(|a, b| a.function == b.function) {
        if super::excluded::has(run[0].function) {
            continue;
        }
        let mut sleds = Vec::with_capacity(run.len());
        let known = run.iter().all(|entry| {
            let Some(kind) = arch::SledKind::of(entry.kind) else { return true };
            let at = entry.sled;
            let end = at as u64 + arch::SLED as u64;
            let inside = code.iter().any(|range| range.start <= at as u64 && end <= range.end);
            // SAFETY: the bytes lie in executable memory of the object, which stays loaded.
            let bytes = || unsafe { (at as *const [u8; arch::SLED]).read() };
            if !inside || !arch::is_sled(kind, &bytes()) {
                foreign += 1;
                return false;
            }
            sleds.push(Sled { at, kind });
            true
        });
        if known && !sleds.is_empty() {
            functions.push((run[0].function, sleds));
        }
    }
    if functions.is_empty() && foreign > 0 {
        return Err("its sleds are in use by another runtime".into());
    }
    Ok(functions)
}
