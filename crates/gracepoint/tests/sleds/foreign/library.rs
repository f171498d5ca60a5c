//! A shared object with sleds, which a test builds with `rustc` alone and the program opens while it runs.

#[inline(never)]
fn inner(x: u64) -> u64 {
    std::hint::black_box(x) + 1
}

#[unsafe(no_mangle)]
pub extern "C" fn library_outer(x: u64) -> u64 {
    inner(x) + inner(x + 1)
}
