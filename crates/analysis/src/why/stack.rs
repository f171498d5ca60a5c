//! Stacks of threads of another process, from its memory: unwound by the tables that the compiler wrote
//! (`.eh_frame`), and made names and lines of by the files that are mapped.
//!
//! Of a thread that sleeps in a system call the kernel tells two registers, where it is and where its stack
//! is. That is enough for code that keeps no frame pointer. Where a function needs the third, it is looked for on
//! the stack: a saved frame pointer lies below a return address, and points further up. What is found so is
//! right or ends the walk; it is no register, and what is beyond may be missing.
//!
//! What is read is not trusted: a table that makes no sense ends the walk.

use super::memory::{Mapping, Memory};
use crate::stuck::Frame;
use addr2line::Loader;
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};
use object::{Object, ObjectSection, ObjectSegment, ReadCache};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Most frames of a stack.
const FRAMES: usize = 128;
/// How far a frame pointer is looked for, in bytes.
const FAR: u64 = 16 << 10;
/// A file whose tables are larger is left alone.
const TABLES: u64 = 256 << 20;

/// Where a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The next instruction.
    pub pc: u64,
    /// The top of the stack.
    pub sp: u64,
    /// The frame pointer, if it is known.
    pub bp: Option<u64>,
}

/// An object that is mapped.
struct Mapped {
    start: u64,
    end: u64,
    /// What to add to an address of the file to get the one in the process.
    bias: u64,
    loader: Option<Loader>,
}

/// The objects of a process.
pub struct Objects {
    mapped: Vec<Mapped>,
    unwinder: UnwinderX86_64<Vec<u8>>,
}

impl Objects {
    /// Reads the files that are mapped for execution. `find` says where a mapped file is to be found here.
    pub fn new(mappings: &[Mapping], find: impl Fn(&str) -> PathBuf) -> Objects {
        let mut objects = Objects { mapped: Vec::new(), unwinder: UnwinderX86_64::new() };
        let mut first: HashMap<&str, &Mapping> = HashMap::new();
        for mapping in mappings.iter().filter(|mapping| mapping.path.starts_with('/')) {
            first.entry(&mapping.path).or_insert(mapping);
        }
        let executable = mappings.iter().filter(|m| m.executable && first.contains_key(&*m.path));
        for mapping in executable.take(1024) {
            let path = find(&mapping.path);
            let name = mapping.path.clone();
            if let Some(mapped) = add(&path, name, mapping, &mut objects.unwinder) {
                objects.mapped.push(mapped);
            }
        }
        objects
    }

    /// Addresses of the calls of a thread, the innermost first.
    pub fn unwind(&self, memory: &impl Memory, registers: Registers) -> Vec<u64> {
        let mut cache = CacheX86_64::<_>::new();
        let mut read = |address: u64| memory.word(address).ok_or(());
        let (mut pc, mut sp, mut bp) = (registers.pc, registers.sp, registers.bp);
        let mut at = FrameAddress::from_instruction_pointer(pc);
        let mut addresses = vec![pc];
        while addresses.len() < FRAMES {
            let mut step = |bp: u64| {
                let mut regs = UnwindRegsX86_64::new(pc, sp, bp);
                let next = self.unwinder.unwind_frame(at, &mut regs, &mut cache, &mut read);
                (next.ok().flatten(), regs)
            };
            let (mut next, mut regs) = step(bp.unwrap_or(0));
            if next.is_none() && bp.is_none() {
                let Some(found) = self.frame_pointer(memory, sp) else { break };
                (next, regs) = step(found);
            }
            let Some(caller) = next.filter(|caller| *caller != 0 && regs.sp() > sp) else { break };
            // A callee that saved it has given it back; else it is as unknown as before.
            bp = bp.or((regs.bp() != 0).then(|| regs.bp()));
            if bp.is_some() {
                bp = Some(regs.bp());
            }
            (pc, sp) = (caller, regs.sp());
            let Some(address) = FrameAddress::from_return_address(caller) else { break };
            at = address;
            addresses.push(caller);
        }
        addresses
    }

    /// A place on the stack that looks like that of a saved frame pointer.
    fn frame_pointer(&self, memory: &impl Memory, sp: u64) -> Option<u64> {
        let from = sp & !7;
        let mut bytes = vec![0; FAR as usize];
        let len = memory.read_some(from, &mut bytes);
        let words: Vec<u64> = bytes[..len & !7]
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or([0; 8])))
            .collect();
        let is = |at: usize| {
            let place = from + 8 * at as u64;
            words[at] > place && words[at] < place + (1 << 20) && self.holds(words[at + 1])
        };
        let found = (0..words.len().saturating_sub(1)).find(|at| is(*at))?;
        Some(from + 8 * found as u64)
    }

    fn holds(&self, address: u64) -> bool {
        self.mapped.iter().any(|object| (object.start..object.end).contains(&address))
    }

    /// Names and lines of a stack, inlined functions too. Addresses but the first are those of returns.
    pub fn name(&self, addresses: &[u64]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (place, address) in addresses.iter().take(FRAMES).enumerate() {
            // The call is before where it returns to.
            let address = address.saturating_sub(u64::from(place != 0));
            self.name_one(address, &mut frames);
        }
        frames
    }

    fn name_one(&self, address: u64, frames: &mut Vec<Frame>) {
        let object = self.mapped.iter().find(|object| (object.start..object.end).contains(&address));
        let found = object.and_then(|object| {
            let loader = object.loader.as_ref()?;
            Some((loader, address.wrapping_sub(object.bias)))
        });
        let before = frames.len();
        if let Some((loader, inside)) = found {
            if let Ok(mut inlined) = loader.find_frames(inside) {
                while let Ok(Some(frame)) = inlined.next() {
                    let Some(function) = frame.function else { continue };
                    let name = function.raw_name().map(|name| demangled(&name)).unwrap_or_default();
                    let source = frame.location.and_then(|at| Some((at.file?, at.line?)));
                    frames.push(Frame {
                        function: name,
                        source: source.map(|(file, line)| format!("{file}:{line}")),
                        inlined: true,
                        ..Frame::default()
                    });
                }
            }
            if frames.len() == before
                && let Some(symbol) = loader.find_symbol(inside)
            {
                frames.push(Frame { function: demangled(symbol), ..Frame::default() });
            }
        }
        if frames.len() == before {
            frames.push(Frame { function: format!("{address:#x}"), ..Frame::default() });
        }
        // Those before the last are inlined into it.
        if let Some(last) = frames.last_mut() {
            last.inlined = false;
        }
    }
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// The object behind a mapping: its tables for the unwinder, and its names.
fn add(
    path: &Path,
    name: String,
    mapping: &Mapping,
    unwinder: &mut UnwinderX86_64<Vec<u8>>,
) -> Option<Mapped> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let file = object::File::parse(&cache).ok()?;
    // The segment that this mapping is of says what the file calls the address.
    let segment = file.segments().find(|segment| {
        let (offset, size) = segment.file_range();
        mapping.offset < offset.saturating_add(size)
            && offset < mapping.offset.saturating_add(mapping.end - mapping.start)
            && offset & !0xfff <= mapping.offset
    })?;
    let (offset, _) = segment.file_range();
    let address = segment.address().wrapping_sub(offset).wrapping_add(mapping.offset);
    let bias = mapping.start.wrapping_sub(address);
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        let data = (section.size() <= TABLES).then(|| section.uncompressed_data().ok()).flatten()?;
        Some((section.address()..section.address() + section.size(), data.into_owned()))
    };
    let (eh_frame_svma, eh_frame) = section(".eh_frame").unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = section(".eh_frame_hdr").unzip();
    let text_svma = file.section_by_name(".text").map(|s| s.address()..s.address() + s.size());
    let info = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma,
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        ..Default::default()
    };
    unwinder.add_module(Module::new(name, mapping.start..mapping.end, bias, info));
    let loader = Loader::new(path).ok();
    Some(Mapped { start: mapping.start, end: mapping.end, bias, loader })
}
