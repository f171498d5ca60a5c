//! Registration of a shared object's sites.
//!
//! The first site of each code generation unit also emits a constructor and a destructor in a
//! COMDAT group, of which the linker keeps one per shared object. They hand the bounds of that
//! object's own `gp1_sites` section to the runtime, at load and at unload. (Symbol names carry the
//! ABI version, so two versions of the runtime in one program keep their sites apart.)

/// Directives that make one constructor and one destructor per shared object (see above).
#[doc(hidden)]
#[macro_export]
#[cfg(target_arch = "x86_64")]
macro_rules! __gp1_module {
    () => {
        "
        .ifndef __gp1_module_done
        .set __gp1_module_done, 1
        .hidden __start_gp1_sites
        .hidden __stop_gp1_sites
        .pushsection .text.__gp1_module, \"axG\", @progbits, __gp1_module, comdat
        3: lea rdi, [rip + __start_gp1_sites]
        lea rsi, [rip + __stop_gp1_sites]
        jmp qword ptr [rip + {load}@GOTPCREL]
        4: lea rdi, [rip + __start_gp1_sites]
        lea rsi, [rip + __stop_gp1_sites]
        jmp qword ptr [rip + {unload}@GOTPCREL]
        .popsection
        .pushsection .init_array, \"awG\", @init_array, __gp1_module, comdat
        .p2align 3
        .quad 3b
        .popsection
        .pushsection .fini_array, \"awG\", @fini_array, __gp1_module, comdat
        .p2align 3
        .quad 4b
        .popsection
        .endif
        "
    };
}

/// Directives that make one constructor and one destructor per shared object (see above).
#[doc(hidden)]
#[macro_export]
#[cfg(target_arch = "aarch64")]
macro_rules! __gp1_module {
    () => {
        "
        .ifndef __gp1_module_done
        .set __gp1_module_done, 1
        .hidden __start_gp1_sites
        .hidden __stop_gp1_sites
        .pushsection .text.__gp1_module, \"axG\", %progbits, __gp1_module, comdat
        .p2align 2
        3: adrp x0, __start_gp1_sites
        add x0, x0, :lo12:__start_gp1_sites
        adrp x1, __stop_gp1_sites
        add x1, x1, :lo12:__stop_gp1_sites
        b {load}
        4: adrp x0, __start_gp1_sites
        add x0, x0, :lo12:__start_gp1_sites
        adrp x1, __stop_gp1_sites
        add x1, x1, :lo12:__stop_gp1_sites
        b {unload}
        .popsection
        .pushsection .init_array, \"awG\", %init_array, __gp1_module, comdat
        .p2align 3
        .xword 3b
        .popsection
        .pushsection .fini_array, \"awG\", %fini_array, __gp1_module, comdat
        .p2align 3
        .xword 4b
        .popsection
        .endif
        "
    };
}

/// Directives that make one constructor and one destructor per shared object (see above).
#[doc(hidden)]
#[macro_export]
#[cfg(target_arch = "riscv64")]
macro_rules! __gp1_module {
    () => {
        "
        .ifndef __gp1_module_done
        .set __gp1_module_done, 1
        .hidden __start_gp1_sites
        .hidden __stop_gp1_sites
        .pushsection .text.__gp1_module, \"axG\", @progbits, __gp1_module, comdat
        .p2align 2
        3: lla a0, __start_gp1_sites
        lla a1, __stop_gp1_sites
        tail {load}
        4: lla a0, __start_gp1_sites
        lla a1, __stop_gp1_sites
        tail {unload}
        .popsection
        .pushsection .init_array, \"awG\", @init_array, __gp1_module, comdat
        .p2align 3
        .quad 3b
        .popsection
        .pushsection .fini_array, \"awG\", @fini_array, __gp1_module, comdat
        .p2align 3
        .quad 4b
        .popsection
        .endif
        "
    };
}
