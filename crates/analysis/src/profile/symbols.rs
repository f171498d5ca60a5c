//! Names of functions, from the symbol tables of the objects that a trace tells of. Paths and files are whatever
//! is there now: nothing of them is trusted, and none is written.

use crate::escape;
use crate::functions::symbols::demangle;
use object::{Object, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

/// A file that is read as far as it is needed.
pub(super) type ObjectFile<'a> = object::File<'a, &'a ReadCache<File>>;

/// Addresses whose names are remembered.
const MOST_KNOWN: usize = 1 << 20;

/// Where an object lay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lies {
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// Hexadecimal; empty if there is none.
    pub(crate) build_id: String,
    pub(crate) path: String,
}

impl Lies {
    /// Its file, if it is still the one that was mapped, and the address in the file's own terms that lies at the
    /// base.
    ///
    /// # Errors
    /// Why not, as the end of a sentence about it.
    pub(super) fn open<T>(
        &self,
        read: impl FnOnce(&ObjectFile<'_>, u64) -> T,
    ) -> Result<T, String> {
        let file = File::open(&self.path).map_err(|e| format!("cannot be opened: {e}"))?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err("is no file".into());
        }
        let cache = ReadCache::new(file);
        let object = object::File::parse(&cache).map_err(|e| format!("cannot be read: {e}"))?;
        let build_id = object.build_id().ok().flatten().unwrap_or_default();
        let build_id: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        if !self.build_id.is_empty() && self.build_id != build_id {
            return Err("is another file than when it was recorded (its build id differs)".into());
        }
        let lowest = object.segments().map(|segment| segment.address()).min().unwrap_or(0);
        // Where the base is a mapping's it begins with the page.
        let first = if self.base.is_multiple_of(4096) { lowest & !4095 } else { lowest };
        Ok(read(&object, first))
    }
}

/// An object's functions.
#[derive(Debug)]
struct Table {
    /// The address in the file's own terms that lies at the base.
    first: u64,
    /// Start, end, name; by start.
    functions: Vec<(u64, u64, String)>,
}

/// Of all objects, read when they are first needed.
#[derive(Debug)]
pub(crate) struct Symbols {
    /// By base.
    objects: Vec<Lies>,
    tables: Vec<Option<Result<Table, String>>>,
    known: HashMap<u64, String>,
    spare: String,
}

impl Symbols {
    pub(crate) fn new(mut objects: Vec<Lies>) -> Symbols {
        objects.sort_by_key(|object| object.base);
        let tables = objects.iter().map(|_| None).collect();
        Symbols { objects, tables, known: HashMap::new(), spare: String::new() }
    }

    /// The function at an address, or the object in brackets.
    pub(crate) fn name(&mut self, address: u64) -> &str {
        if self.known.contains_key(&address) {
            return &self.known[&address];
        }
        let name = self.look_up(address);
        if self.known.len() >= MOST_KNOWN {
            self.spare = name;
            return &self.spare;
        }
        self.known.entry(address).or_insert(name)
    }

    fn look_up(&mut self, address: u64) -> String {
        let Some((at, object)) = find(&self.objects, address) else { return "[unknown]".into() };
        let offset = address - object.base;
        let table = self.tables[at].get_or_insert_with(|| read(object));
        let nameless = || {
            let file = Path::new(&object.path).file_name().unwrap_or_default();
            format!("[{}]", escape::name(&file.to_string_lossy()))
        };
        let Ok(table) = table else { return nameless() };
        let there = offset.wrapping_add(table.first);
        let after = table.functions.partition_point(|(start, ..)| *start <= there);
        match after.checked_sub(1).map(|at| &table.functions[at]) {
            Some((_, end, name)) if there < *end => name.clone(),
            _ => nameless(),
        }
    }

    /// The object at an address, with its position among all.
    pub(super) fn object(&self, address: u64) -> Option<(usize, &Lies)> {
        find(&self.objects, address)
    }

    /// Objects that were needed and have no names, and why.
    pub(super) fn unnamed(&self) -> BTreeMap<String, String> {
        let why = |(object, table): (&Lies, &Option<Result<Table, String>>)| {
            let why = table.as_ref()?.as_ref().err()?;
            Some((escape::name(&object.path), why.clone()))
        };
        self.objects.iter().zip(&self.tables).filter_map(why).collect()
    }
}

fn find(objects: &[Lies], address: u64) -> Option<(usize, &Lies)> {
    let at = objects.partition_point(|object| object.base <= address).checked_sub(1)?;
    let object = &objects[at];
    (address - object.base < object.size).then_some((at, object))
}

fn read(lies: &Lies) -> Result<Table, String> {
    lies.open(table)?
}

fn table(object: &ObjectFile<'_>, first: u64) -> Result<Table, String> {
    let mut functions = Vec::new();
    for symbol in object.symbols().chain(object.dynamic_symbols()) {
        if symbol.kind() == SymbolKind::Text
            && symbol.is_definition()
            && let Ok(name) = symbol.name()
        {
            functions.push((symbol.address(), symbol.size(), name.to_owned()));
        }
    }
    if functions.is_empty() {
        return Err("has no symbols".into());
    }
    functions.sort();
    functions.dedup_by_key(|(start, ..)| *start);
    let starts: Vec<u64> = functions.iter().map(|(start, ..)| *start).collect();
    let mut named = Vec::with_capacity(functions.len());
    for (at, (start, size, name)) in functions.into_iter().enumerate() {
        // A function of unknown length (of assembly, say) reaches to the next one.
        let next = starts.get(at + 1).copied().unwrap_or(u64::MAX);
        let end = if size == 0 { next } else { start.saturating_add(size) };
        named.push((start, end, escape::name(&demangle(&name))));
    }
    Ok(Table { first, functions: named })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_to_be_found() {}

    #[test]
    fn a_function_of_this_program_is_found_by_its_address() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        let of_exe = || maps.lines().filter(|line| line.ends_with(&exe));
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let range = |line: &str| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            (number(start), number(end))
        };
        let base = range(of_exe().next().unwrap()).0;
        let size = range(of_exe().next_back().unwrap()).1 - base;
        let lies = Lies { base, size, build_id: String::new(), path: exe };
        let address = a_function_to_be_found as fn() as usize as u64;
        let mut symbols = Symbols::new(vec![lies.clone()]);
        assert!(
            symbols.name(address).ends_with("::a_function_to_be_found"),
            "{}",
            symbols.name(address)
        );
        assert_eq!(symbols.name(base - 1), "[unknown]");
        assert!(symbols.unnamed().is_empty());

        let mut other = Symbols::new(vec![Lies { build_id: "00".into(), ..lies.clone() }]);
        assert!(other.name(address).starts_with('['), "{}", other.name(address));
        assert_eq!(other.unnamed().len(), 1);
        let mut gone = Symbols::new(vec![Lies { path: "/no/such/file".into(), ..lies }]);
        assert_eq!(gone.name(address), "[file]");
    }
}
