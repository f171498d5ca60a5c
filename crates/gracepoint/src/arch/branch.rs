//! Sites that load and branch: the same record and registration, no patched code.
//!
//! The record's distances to code are 0: there is no code to patch.

/// Is this site on? A relaxed load of its key's switch and a branch.
#[doc(hidden)]
#[macro_export]
macro_rules! __gp1_site {
    ($site:path) => {{
        #[allow(unused_unsafe)]
        // SAFETY: only adds a record to a section that the runtime reads, and a constructor and a
        // destructor that hand the section's bounds to it; no instruction is emitted here.
        unsafe {
            ::core::arch::asm!(
                $crate::__gp1_section!(),
                ".p2align 2",
                ".4byte 0",
                ".4byte 0",
                ".4byte {site} - .",
                ".popsection",
                ".hidden {site}",
                $crate::__gp1_module!(),
                site = sym $site,
                load = sym $crate::__private::gp1_load_module,
                unload = sym $crate::__private::gp1_unload_module,
                options(nomem, nostack, preserves_flags),
            )
        }
        $crate::__private::is_on(&$site)
    }};
}

#[doc(hidden)]
#[macro_export]
#[cfg(target_arch = "aarch64")]
macro_rules! __gp1_section {
    () => {
        ".pushsection gp1_sites, \"aR\", %progbits"
    };
}

#[doc(hidden)]
#[macro_export]
#[cfg(not(target_arch = "aarch64"))]
macro_rules! __gp1_section {
    () => {
        ".pushsection gp1_sites, \"aR\", @progbits"
    };
}
