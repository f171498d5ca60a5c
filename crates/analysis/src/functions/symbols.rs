//! Names and places of functions, from the files of the objects that they lie in.
//!
//! Names are those of the symbol table, demangled (Rust's two ways and C++'s), in the object's own file or in
//! the one with its debug information that the system keeps by build id. Places are the lines that debug
//! information gives for the function's first instruction, or after its sled for the first that has one.

use crate::{Error, Result, escape};
use addr2line::Loader;
use object::{Object, ObjectSymbol, ReadCache, SymbolKind};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Bytes that the longest sled has, and some.
const SLED: u64 = 24;

/// Where distributions keep debug information by build id.
const DEBUG: &str = "/usr/lib/debug/.build-id";

/// The symbols of an object's file.
pub struct Symbols {
    path: PathBuf,
    build_id: Vec<u8>,
    /// Name and size of the function that begins at an address.
    begins: HashMap<u64, (String, u64)>,
    /// Of those with debug information.
    lines: Option<Loader>,
}

impl Symbols {
    /// Opens `path`, and the file with its debug information if that lies elsewhere.
    ///
    /// # Errors
    /// When it cannot be read, or is no object.
    pub fn open(path: &Path) -> Result<Symbols> {
        let file = File::open(path).map_err(|e| Error::io("open", path, &e))?;
        let wrong = |e: object::Error| {
            let name = path.display().to_string();
            Error::new(format!("{} is no object: {e}", escape::name(&name)))
        };
        let cache = ReadCache::new(file);
        let object = object::File::parse(&cache).map_err(wrong)?;
        let build_id = object.build_id().map_err(wrong)?.unwrap_or_default().to_vec();
        let mut symbols = Symbols {
            path: path.to_owned(),
            build_id,
            begins: HashMap::new(),
            lines: object.has_debug_symbols().then(|| Loader::new(path).ok()).flatten(),
        };
        symbols.add(object.symbols());
        symbols.add(object.dynamic_symbols());
        if symbols.lines.is_none()
            && let Some(debug) = debug_file(&symbols.build_id)
            && let Ok(file) = File::open(&debug)
        {
            let cache = ReadCache::new(file);
            if let Ok(object) = object::File::parse(&cache) {
                symbols.add(object.symbols());
                symbols.lines = Loader::new(&debug).ok();
            }
        }
        Ok(symbols)
    }

    fn add<'d>(&mut self, symbols: impl Iterator<Item = impl ObjectSymbol<'d>>) {
        for symbol in symbols.filter(|s| s.is_definition() && s.kind() == SymbolKind::Text) {
            let Ok(name) = symbol.name() else { continue };
            let this = (name, symbol.size());
            // Of several at one address, the same one always: with a size, and first by its name.
            let known = self.begins.get(&symbol.address());
            let better = known
                .is_none_or(|(name, size)| (this.1 == 0, this.0) < (*size == 0, name.as_str()));
            if better && !name.is_empty() {
                self.begins.insert(symbol.address(), (this.0.to_owned(), this.1));
            }
        }
    }

    /// The linker's build id; empty if there is none.
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// Whether there are names of functions.
    pub fn has_names(&self) -> bool {
        !self.begins.is_empty()
    }

    /// The path of the function that begins at `address` (as symbols have it), demangled.
    pub fn name(&self, address: u64) -> Option<String> {
        self.begins.get(&address).map(|(name, _)| demangle(name))
    }

    /// Source file and line of the function that begins at `address`; line 0 where only the file is known.
    pub fn line(&self, address: u64) -> Option<(String, u32)> {
        let lines = self.lines.as_ref()?;
        // A sled, which is the compiler's, has no line of its own where debug information is full.
        let place = |ahead| {
            let at = lines.find_location(address + ahead).ok()??;
            Some((at.file?.to_owned(), at.line.unwrap_or(0)))
        };
        (0..SLED).filter_map(place).find(|(_, line)| *line != 0).or_else(|| place(0))
    }
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols").field("path", &self.path).finish_non_exhaustive()
    }
}

fn debug_file(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    let rest: String = rest.iter().map(|b| format!("{b:02x}")).collect();
    let path = Path::new(DEBUG).join(format!("{first:02x}/{rest}.debug"));
    path.is_file().then_some(path)
}

/// A symbol's name as its source has it: Rust's without the hash, C++'s with its arguments; any other as
/// it is.
///
/// ```
/// use gracepoint_analysis::functions::symbols::demangle;
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
