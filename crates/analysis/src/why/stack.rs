//! Stacks of threads of another process, from its memory: unwound by the tables that the compiler wrote
//! (`.eh_frame`), and made names and lines of by the files that are mapped.
//!
//! Of a thread that sleeps in a system call the kernel tells two registers, where it is and where its stack
//! is. That is enough for code that keeps no frame pointer. Where a function needs the third, it follows from
//! how the function begins: what it pushes and how much it makes room for lies between the frame pointer and the
//! top of the stack at any call. Where that cannot be read off, the walk ends. A signal handler's caller has all
//! of its registers on the stack.
//!
//! What is read is not trusted: a table that makes no sense ends the walk.

use super::memory::{Mapping, Memory};
use crate::functions::symbols::demangle;
use crate::stuck::Frame;
use addr2line::Loader;
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Most frames of a stack.
const FRAMES: usize = 128;
/// Bytes of a function's beginning that are looked at.
const BEGINNING: usize = 64;
/// What a signal handler returns to: `mov rax, 15; syscall`.
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// The name that such a frame gets.
pub(super) const HANDLER: &str = "__restore_rt";
/// Where a signal's frame has RBP, RSP and RIP: `uc_mcontext.gregs[10, 15, 16]`.
const SAVED: [u64; 3] = [40 + 8 * 10, 40 + 8 * 15, 40 + 8 * 16];
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
    /// What it exports, where that is all that is left of its names: address, size, name.
    exports: Vec<(u64, u64, String)>,
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
            if is_handlers_return(memory, pc) {
                let [Some(old_bp), Some(old_sp), Some(old_pc)] =
                    SAVED.map(|place| memory.word(sp.wrapping_add(place)))
                else {
                    break;
                };
                (pc, sp, bp) = (old_pc, old_sp, Some(old_bp));
                at = FrameAddress::from_instruction_pointer(pc);
                addresses.push(pc);
                continue;
            }
            let mut step = |bp: u64| {
                let mut regs = UnwindRegsX86_64::new(pc, sp, bp);
                let next = self.unwinder.unwind_frame(at, &mut regs, &mut cache, &mut read);
                (next.ok().flatten(), regs)
            };
            let (mut next, mut regs) = step(bp.unwrap_or(0));
            if next.is_none() && bp.is_none() {
                let Some(found) = self.frame_pointer(memory, at, sp) else { break };
                (next, regs) = step(found);
            }
            let Some(caller) = next.filter(|caller| *caller != 0 && regs.sp() > sp) else { break };
            // Unknown it stays until a callee that has saved it gives it back.
            bp = (bp.is_some() || regs.bp() != 0).then(|| regs.bp());
            (pc, sp) = (caller, regs.sp());
            let Some(address) = FrameAddress::from_return_address(caller) else { break };
            at = address;
            addresses.push(caller);
        }
        addresses
    }

    /// The frame pointer of a function that is at a call and has its stack's top here, by how it begins.
    fn frame_pointer(&self, memory: &impl Memory, at: FrameAddress, sp: u64) -> Option<u64> {
        let address = at.address_for_lookup();
        let object = self.mapped.iter().find(|object| object.holds(address))?;
        let symbol = object.loader.as_ref()?.find_symbol_info(address.wrapping_sub(object.bias))?;
        let start = symbol.address().wrapping_add(object.bias);
        let mut code = [0; BEGINNING];
        let len = memory.read_some(start, &mut code);
        let found = sp.checked_add(room(&code[..len])?)?;
        let back = memory.word(found.checked_add(8)?)?;
        self.holds(back).then_some(found)
    }

    fn holds(&self, address: u64) -> bool {
        self.mapped.iter().any(|object| object.holds(address))
    }

    /// Names and lines of a stack, inlined functions too. Addresses but the first are those of returns.
    pub fn name(&self, memory: &impl Memory, addresses: &[u64]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (place, address) in addresses.iter().take(FRAMES).enumerate() {
            if is_handlers_return(memory, *address) {
                frames.push(Frame { function: HANDLER.to_owned(), ..Frame::default() });
                continue;
            }
            // The call is before where it returns to.
            let address = address.saturating_sub(u64::from(place != 0));
            self.name_one(address, &mut frames);
        }
        frames
    }

    fn name_one(&self, address: u64, frames: &mut Vec<Frame>) {
        let object = self.mapped.iter().find(|object| object.holds(address));
        let found = object.and_then(|object| {
            let loader = object.loader.as_ref()?;
            Some((loader, address.wrapping_sub(object.bias)))
        });
        let before = frames.len();
        if let Some((loader, inside)) = found {
            // With tables of lines alone, a function that nothing is inlined into has a place and no name there.
            let mut nameless = None;
            if let Ok(mut inlined) = loader.find_frames(inside) {
                while let Ok(Some(frame)) = inlined.next() {
                    let source = frame.location.and_then(|at| Some((at.file?, at.line?)));
                    let source = source.map(|(file, line)| format!("{file}:{line}"));
                    let Some(function) = frame.function else {
                        nameless = source;
                        continue;
                    };
                    let name = function.raw_name().map(|name| demangle(&name)).unwrap_or_default();
                    frames.push(Frame {
                        function: name,
                        source,
                        inlined: true,
                        ..Frame::default()
                    });
                }
            }
            if frames.len() == before
                && let Some(symbol) = loader.find_symbol(inside)
            {
                let function = demangle(symbol);
                frames.push(Frame { function, source: nameless, ..Frame::default() });
            }
        }
        let exported = object.and_then(|object| object.exported(address));
        if let (true, Some(name)) = (frames.len() == before, exported) {
            frames.push(Frame { function: name.to_owned(), ..Frame::default() });
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

impl Mapped {
    fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    fn exported(&self, address: u64) -> Option<&str> {
        let inside = address.wrapping_sub(self.bias);
        let at = self.exports.partition_point(|(start, ..)| *start <= inside).checked_sub(1)?;
        let (start, size, name) = &self.exports[at];
        (inside - start < *size).then_some(name)
    }
}

fn is_handlers_return(memory: &impl Memory, pc: u64) -> bool {
    let mut code = [0; SIGRETURN.len()];
    memory.read(pc, &mut code) && code == SIGRETURN
}

/// How far the top of the stack is below the frame pointer at a call, by the beginning of the function:
/// `push rbp; mov rbp, rsp`, pushes, `sub rsp, N`. `None` if it does not begin so.
fn room(code: &[u8]) -> Option<u64> {
    let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    let mut code = code.strip_prefix(&[0x55, 0x48, 0x89, 0xe5])?;
    let mut room = 0;
    loop {
        code = match code {
            [0x41, 0x50..=0x57, rest @ ..] | [0x50..=0x57, rest @ ..] => {
                room += 8;
                rest
            }
            [0x48, 0x83, 0xec, n, ..] => return Some(room + u64::from(*n)),
            [0x48, 0x81, 0xec, a, b, c, d, ..] => {
                return Some(room + u64::from(u32::from_le_bytes([*a, *b, *c, *d])));
            }
            _ => return Some(room),
        }
    }
}

/// What a file says of how its functions are unwound, by its own addresses.
pub(crate) fn tables<'d>(file: &impl Object<'d>) -> ExplicitModuleSectionInfo<Vec<u8>> {
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        let data =
            (section.size() <= TABLES).then(|| section.uncompressed_data().ok()).flatten()?;
        let end = section.address().saturating_add(section.size());
        Some((section.address()..end, data.into_owned()))
    };
    let (eh_frame_svma, eh_frame) = section(".eh_frame").unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = section(".eh_frame_hdr").unzip();
    let text = file.section_by_name(".text");
    ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: text.map(|s| s.address()..s.address().saturating_add(s.size())),
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        ..Default::default()
    }
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
        let object::SegmentFlags::Elf { p_flags, .. } = segment.flags() else { return false };
        // Two segments may share a page of the file: the code is in the one that may be executed.
        p_flags.0 & object::elf::PF_X.0 != 0
            && mapping.offset < offset.saturating_add(size)
            && offset < mapping.offset.saturating_add(mapping.end - mapping.start)
            && offset & !0xfff <= mapping.offset
    })?;
    let (offset, _) = segment.file_range();
    let address = segment.address().wrapping_sub(offset).wrapping_add(mapping.offset);
    let bias = mapping.start.wrapping_sub(address);
    unwinder.add_module(Module::new(name, mapping.start..mapping.end, bias, tables(&file)));
    let loader = Loader::new(path).ok();
    let mut exports = Vec::new();
    if file.symbols().next().is_none() {
        let named = file.dynamic_symbols().filter(|symbol| symbol.is_definition());
        exports.extend(named.filter_map(|symbol| {
            Some((symbol.address(), symbol.size(), symbol.name().ok()?.to_owned()))
        }));
        exports.sort_unstable();
    }
    Some(Mapped { start: mapping.start, end: mapping.end, bias, loader, exports })
}

#[cfg(test)]
mod tests {
    use super::room;

    #[test]
    fn the_room_of_a_frame_is_read_off_its_beginning() {
        let begin = [0x55, 0x48, 0x89, 0xe5];
        let of = |rest: &[u8]| room(&[&begin[..], rest].concat());
        // push r14; push rbx; sub rsp, 0x20
        assert_eq!(of(&[0x41, 0x56, 0x53, 0x48, 0x83, 0xec, 0x20, 0x90]), Some(16 + 0x20));
        assert_eq!(of(&[0x48, 0x81, 0xec, 0, 1, 0, 0]), Some(256));
        assert_eq!(of(&[0x53, 0xc3]), Some(8));
        assert_eq!(room(&[&[0xf3, 0x0f, 0x1e, 0xfa], &begin[..], &[0x90]].concat()), Some(0));
        assert_eq!(room(&[0x53, 0xc3]), None);
        assert_eq!(room(&[]), None);
    }
}
