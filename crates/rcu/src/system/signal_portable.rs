//! Where there are no backtraces of other threads.

use std::io;

/// Cannot be had.
pub(crate) fn handle(_signal: i32, _then: fn(usize, usize)) -> io::Result<()> {
    let text = "backtraces of other threads are for Linux on x86-64 and AArch64";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// Never asked, since there is no handler.
pub(crate) fn send_to_thread(_tid: u32, _signal: i32) -> bool {
    false
}

/// Never asked.
pub(crate) fn read_words(_address: usize) -> Option<[usize; 2]> {
    None
}
