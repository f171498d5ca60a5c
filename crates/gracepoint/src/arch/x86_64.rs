//! Sites on x86-64: a 5-byte NOP in the code, a record in a section of its own.
//!
//! # The site
//! `.p2align 3,,4` pads at most 4 bytes, and only where the 5 bytes that follow would cross an
//! 8-byte boundary; so one aligned 8-byte store can change NOP to jump and back, and no reader of
//! the code ever sees half of either. A site preserves all registers but the flags: where code cannot
//! be changed by such a store, it is for a moment an instruction that sets them (`patch/code.rs`).
//!
//! # The record (ABI 1, section `gp1_sites`)
//! Three distances of 4 bytes, each from where it stands: to the NOP, to the cold block, to the [`Site`].
//! So the record needs no relocation when the program is loaded. The section is retained (`R`):
//! without that flag the default linker drops it, since nothing refers to it by name. The [`Site`] is
//! hidden, because only an address in the same object is at a fixed distance (rustc would export
//! that of a generic or inlined function of a `dylib`).
//!
//! [`Site`]: crate::site::Site

/// Is this site on? Expands to one NOP that falls through to `false`.
#[doc(hidden)]
#[macro_export]
macro_rules! __gp1_site {
    ($site:path) => {
        'gp1_site: {
            #[allow(unused_unsafe)]
            // SAFETY: the NOP falls through or, once patched, jumps to the label below; the record
            // only adds to a section that the runtime reads; nothing is touched but the flags.
            unsafe {
                ::core::arch::asm!(
                    ".p2align 3,,4",
                    "2: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
                    ".pushsection gp1_sites, \"aR\", @progbits",
                    ".p2align 2",
                    ".long 2b - .",
                    ".long {cold} - .",
                    ".long {site} - .",
                    ".popsection",
                    ".hidden {site}",
                    $crate::__gp1_module!(),
                    cold = label { break 'gp1_site true },
                    site = sym $site,
                    load = sym $crate::__private::gp1_load_module,
                    unload = sym $crate::__private::gp1_unload_module,
                    options(nomem, nostack),
                )
            }
            false
        }
    };
}

/// A switched-off site: `nop dword ptr [rax + rax]`.
pub(crate) const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// First byte of `test eax, imm32`: 5 bytes, of which the other four are a number without effect.
pub(crate) const PASS: u8 = 0xa9;

/// A switched-on site at `code`: `jmp rel32` to `target`, where that is within reach.
pub(crate) fn jump(code: usize, target: usize) -> Option<[u8; 5]> {
    let next = code.wrapping_add(5);
    let distance = i32::try_from(target.wrapping_sub(next).cast_signed()).ok()?;
    let [a, b, c, d] = distance.to_le_bytes();
    Some([0xe9, a, b, c, d])
}

/// Do the 5 bytes at `code` lie within one aligned 8-byte word?
pub(crate) fn fits_one_word(code: usize) -> bool {
    code & 7 <= 3
}
