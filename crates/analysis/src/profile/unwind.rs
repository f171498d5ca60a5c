//! Callers of a thread by what its stack held, where functions keep no frame pointers: unwound by the tables that the
//! compiler wrote (`.eh_frame`), out of the files of the objects that the trace tells of. Of x86-64.
//!
//! Neither the trace nor the files are trusted: what makes no sense ends the walk.

use super::symbols::Lies;
use crate::why::stack::tables;
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{FrameAddress, Module, Unwinder};

/// Most frames of a stack.
const FRAMES: usize = 512;

/// What a sample holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied<'a> {
    pub(super) pc: u64,
    pub(super) sp: u64,
    pub(super) fp: u64,
    /// Words from `sp` upwards.
    pub(super) memory: &'a [u64],
}

impl Copied<'_> {
    fn word(&self, address: u64) -> Result<u64, ()> {
        let offset = address.checked_sub(self.sp).ok_or(())?;
        if offset.is_multiple_of(8) {
            return self.memory.get((offset / 8) as usize).copied().ok_or(());
        }
        Err(())
    }
}

/// The tables of all objects.
pub(super) struct Tables {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
}

impl Tables {
    pub(super) fn new(objects: &[Lies]) -> Tables {
        let mut unwinder = UnwinderX86_64::new();
        for lies in objects {
            let end = lies.base.saturating_add(lies.size);
            // One that cannot be read has no functions with names, which is told.
            let _ = lies.open(|file, first| {
                let bias = lies.base.wrapping_sub(first);
                let module = Module::new(lies.path.clone(), lies.base..end, bias, tables(file));
                unwinder.add_module(module);
            });
        }
        Tables { unwinder, cache: CacheX86_64::new() }
    }

    /// Where it was, then return addresses, innermost first.
    pub(super) fn unwind(&mut self, copied: &Copied<'_>) -> Vec<u64> {
        let mut registers = UnwindRegsX86_64::new(copied.pc, copied.sp, copied.fp);
        let mut at = FrameAddress::from_instruction_pointer(copied.pc);
        let mut addresses = vec![copied.pc];
        let mut read = |address: u64| copied.word(address);
        while addresses.len() < FRAMES {
            let sp = registers.sp();
            let next = self.unwinder.unwind_frame(at, &mut registers, &mut self.cache, &mut read);
            let Ok(Some(caller)) = next else { break };
            let Some(address) = FrameAddress::from_return_address(caller) else { break };
            if registers.sp() <= sp {
                break;
            }
            addresses.push(caller);
            at = address;
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_ends_the_walk() {
        let mut tables = Tables::new(&[Lies {
            base: 0x1000,
            size: u64::MAX,
            build_id: String::new(),
            path: "/no/such/file".into(),
        }]);
        let memory = [1, 2, 3, 0x1008];
        for (pc, sp, fp) in [(0, 0, 0), (0x1000, 8, 16), (u64::MAX, u64::MAX, u64::MAX)] {
            let found = tables.unwind(&Copied { pc, sp, fp, memory: &memory });
            assert!(found[0] == pc && found.len() <= FRAMES, "{found:?}");
        }
        let copied = Copied { pc: 0, sp: 0x7000, fp: 0, memory: &memory };
        assert_eq!(copied.word(0x7008), Ok(2));
        for address in [0x6ff8, 0x7001, 0x7020, u64::MAX] {
            assert_eq!(copied.word(address), Err(()), "{address:#x}");
        }
    }
}
