//! Lines of the source for stacks, from the kernel's own debug information (`vmlinux`).
//!
//! A log names a place as function, offset and length. The symbol table has the function's address; of
//! several functions with one name it is the one with that length. A stack holds return addresses, and
//! the call is before them, so the byte before is looked up.

use super::frame::Frame;
use crate::stuck::account::TaskStack;
use addr2line::Loader;
use object::{Object, ObjectSymbol, ReadCache};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

/// A kernel with its debug information.
pub(super) struct Source {
    loader: Loader,
    /// Address and length of the functions of each name.
    functions: HashMap<String, Vec<(u64, u64)>>,
}

impl Source {
    pub(super) fn open(path: &Path) -> io::Result<Source> {
        let wrong = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
        let file = ReadCache::new(File::open(path)?);
        let object = object::File::parse(&file).map_err(|error| wrong(error.to_string()))?;
        let mut functions: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for symbol in object.symbols().filter(|symbol| symbol.is_definition()) {
            if let Ok(name) = symbol.name() {
                let name = name.split('.').next().unwrap_or(name);
                let known = functions.entry(name.to_owned()).or_default();
                known.push((symbol.address(), symbol.size()));
            }
        }
        if !object.has_debug_symbols() {
            return Err(wrong("it has no debug information (.debug_info)".to_owned()));
        }
        let loader = Loader::new(path).map_err(|error| wrong(error.to_string()))?;
        Ok(Source { loader, functions })
    }

    /// Gives the frames of a stack their lines, and adds those that the compiler inlined. How many
    /// frames have one now that had none.
    pub(super) fn locate(&self, stack: &mut TaskStack) -> usize {
        let mut found = 0;
        let frames = std::mem::take(&mut stack.frames);
        for frame in frames {
            let places = if frame.source.is_none() { self.places(&frame) } else { Vec::new() };
            found += usize::from(!places.is_empty());
            match places.split_last() {
                Some(((_, source), inlined)) => {
                    for (function, source) in inlined {
                        stack.frames.push(Frame {
                            function: function.clone(),
                            offset: 0,
                            size: 0,
                            inlined: true,
                            source: Some(source.clone()),
                            line: frame.line,
                        });
                    }
                    stack.frames.push(Frame { source: Some(source.clone()), ..frame });
                }
                None => stack.frames.push(frame),
            }
        }
        found
    }

    /// Function and `file:line`, the innermost first.
    fn places(&self, frame: &Frame) -> Vec<(String, String)> {
        let Some(address) = self.address(frame) else { return Vec::new() };
        let Ok(mut frames) = self.loader.find_frames(address) else { return Vec::new() };
        let mut places = Vec::new();
        while let Ok(Some(found)) = frames.next() {
            let Some(location) = found.location else { return Vec::new() };
            let (Some(file), Some(line)) = (location.file, location.line) else {
                return Vec::new();
            };
            let name = found.function.and_then(|f| f.raw_name().ok().map(|name| name.into_owned()));
            places.push((name.unwrap_or_else(|| frame.function.clone()), format!("{file}:{line}")));
        }
        places
    }

    fn address(&self, frame: &Frame) -> Option<u64> {
        let known = self.functions.get(&frame.function)?;
        let right = |(_, size): &&(u64, u64)| *size == u64::from(frame.size);
        let one = known.iter().find(right).or(match known.as_slice() {
            // Lengths in the log include padding, those of symbols do not.
            [only] => Some(only),
            _ => None,
        });
        let offset = u64::from(frame.offset);
        (frame.size != 0).then_some(one?.0 + offset.saturating_sub(1))
    }
}
