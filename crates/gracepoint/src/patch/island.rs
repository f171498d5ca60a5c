//! Stepping stones to the trampolines: a call reaches 2 GiB, and the loader puts shared objects further than that from the
//! program. So such an object gets a page of its own nearby, whose code jumps on to an address that it holds.
//!
//! The kernel's writes fill it, as in a system where no page is ever writable and executable; where they are not to
//! be had it is made writable for a moment, as the pages of sites are. It stays as long as the program, as the trampolines
//! do: a thread may be preempted on it.

use super::code;
use crate::sys;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// A stone: `jmp [rip + 2]`, two bytes that are never reached, the address.
pub(crate) const STONE: usize = 16;
/// What a call reaches, less than the size of the largest object that gets one.
const REACH: usize = 1 << 30;
/// Between the places that are tried.
const STEP: usize = 1 << 20;

/// Stones that lead to these addresses, within reach of this object: those that it has, else new ones. `None` where there is
/// no room, or the system allows none of the ways.
pub(crate) fn near(object: &Range<usize>, to: &[usize]) -> Option<usize> {
    /// Where objects begin, and where their stones are. Such an object is never unloaded.
    static KNOWN: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
    // Held by whoever forked us: one page more, and nobody waits.
    let Ok(mut known) = KNOWN.try_lock() else { return new(object, to) };
    if let Some((_, at)) = known.iter().find(|(start, _)| *start == object.start) {
        return Some(*at);
    }
    let at = new(object, to)?;
    known.push((object.start, at));
    Some(at)
}

fn new(object: &Range<usize>, to: &[usize]) -> Option<usize> {
    let above = (0..REACH / STEP).map(|i| object.end.next_multiple_of(STEP) + i * STEP);
    let below = (1..REACH / STEP).map_while(|i| (object.start & !(STEP - 1)).checked_sub(i * STEP));
    let at = above.chain(below).find_map(|at| sys::map_code(at, sys::page_size()).ok())?;
    let stones: Vec<u8> = to.iter().flat_map(|to| stone(*to)).collect();
    if fill(at, &stones).is_err() {
        sys::unmap_code(at, sys::page_size());
        return None;
    }
    Some(at)
}

fn stone(to: usize) -> [u8; STONE] {
    let mut bytes = [0; STONE];
    bytes[..8].copy_from_slice(&[0xff, 0x25, 2, 0, 0, 0, 0x0f, 0x0b]);
    bytes[8..].copy_from_slice(&(to as u64).to_le_bytes());
    bytes
}

fn fill(at: usize, stones: &[u8]) -> io::Result<()> {
    let written = code::memory().and_then(|memory| memory.write_all_at(stones, at as u64));
    if written.is_ok() {
        return Ok(());
    }
    let page = at..at + sys::page_size();
    sys::protect_code(page.clone(), true)?;
    // SAFETY: a page that was mapped for this, and that nobody executes yet.
    unsafe { std::ptr::copy_nonoverlapping(stones.as_ptr(), at as *mut u8, stones.len()) };
    sys::protect_code(page, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn far(x: u64) -> u64 {
        x + 1
    }

    #[test]
    fn a_stone_leads_on() {
        let block = Box::new(0_u64);
        let here = &raw const *block as usize & !4095;
        let at = near(&(here..here + 4096), &[0, far as *const () as usize]).expect("room");
        assert!(at.abs_diff(here) < 2 * REACH);
        // SAFETY: the second stone jumps to a function of this type.
        let f: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(at + STONE) };
        assert_eq!(f(41), 42);
        assert_eq!(near(&(here..here + 4096), &[]), Some(at), "it has some");
    }
}
