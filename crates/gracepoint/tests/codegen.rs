//! A disabled site is one 5-byte NOP: read from this test's own object file. (The package is
//! optimised in every profile, so this is what a release build contains.)
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use object::{Object, ObjectSection, ObjectSymbol};
use std::hint::black_box;

/// A point.
#[derive(gracepoint::Event)]
pub struct Point<'a> {
    x: u64,
    name: &'a str,
}

/// What the others are compared with.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gp_test_plain(x: u64) -> u64 {
    x.wrapping_mul(3)
}

/// The same with an event.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gp_test_traced(x: u64) -> u64 {
    gracepoint::trace!(Point { x: costly(x), name: "a name" });
    x.wrapping_mul(3)
}

/// The same with a span.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gp_test_span(x: u64) -> u64 {
    let span = gracepoint::span!(Point { x, name: "a name" });
    let result = x.wrapping_mul(3);
    drop(span);
    result
}

/// Two steps that the compiler neither moves nor joins.
#[unsafe(no_mangle)]
#[inline(never)]
#[gracepoint::function]
pub extern "C" fn gp_test_function(x: u64) -> u64 {
    costly(costly(x))
}

#[inline(never)]
fn costly(x: u64) -> u64 {
    black_box(x)
}

const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const RET: u8 = 0xc3;

struct Image(Vec<u8>);

impl Image {
    fn of_this_test() -> Image {
        Image(std::fs::read(std::env::current_exe().unwrap()).unwrap())
    }

    fn file(&self) -> object::File<'_> {
        object::File::parse(&*self.0).unwrap()
    }

    /// Address and bytes of a function.
    fn function(&self, name: &str) -> (u64, Vec<u8>) {
        let file = self.file();
        let symbol = file.symbols().find(|s| s.name() == Ok(name)).expect("the function");
        let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let bytes = section.data_range(symbol.address(), symbol.size()).unwrap().unwrap();
        (symbol.address(), bytes.to_vec())
    }

    /// Addresses of code that the records in `gp1_sites` name, with those of their cold blocks.
    fn sites(&self) -> Vec<(u64, u64)> {
        let file = self.file();
        let section = file.section_by_name("gp1_sites").expect("ABI 1: the section's name");
        let data = section.data().unwrap();
        assert_eq!(data.len() % 12, 0, "ABI 1: a record has 12 bytes");
        let word = |at: usize| i32::from_le_bytes(data[at..at + 4].try_into().unwrap());
        (0..data.len() / 12)
            .map(|i| {
                let here = section.address() + i as u64 * 12;
                let code = here.wrapping_add_signed(word(i * 12).into());
                (code, (here + 4).wrapping_add_signed(word(i * 12 + 4).into()))
            })
            .collect()
    }
}

/// The hot path: up to the first return. (A 0xc3 inside an operand would end it too early, which
/// the comparison with the plain function notices.)
fn hot(bytes: &[u8]) -> &[u8] {
    &bytes[..=bytes.iter().position(|&b| b == RET).expect("a return")]
}

/// Length of the instruction at the start of `code` if all it does is make or undo a stack frame,
/// or nothing. The cold block of a site needs a frame; LLVM makes it at the function's entry.
fn frame_or_padding(code: &[u8]) -> Option<usize> {
    Some(match *code {
        [0x50..=0x5f | 0x90, ..] => 1,
        [0x41, 0x50..=0x5f, ..] | [0x66, 0x90, ..] => 2,
        [0x0f, 0x1f, 0x00, ..] => 3,
        [0x0f, 0x1f, 0x40, ..] | [0x48, 0x83, 0xec | 0xc4, _, ..] => 4,
        [0x48, 0x81, 0xec | 0xc4, ..] => 7,
        _ => return None,
    })
}

/// `code` without what [`frame_or_padding`] knows, from its start.
fn strip(mut code: &[u8]) -> &[u8] {
    while let Some(len) = frame_or_padding(code) {
        code = &code[len..];
    }
    code
}

#[test]
fn a_disabled_event_is_one_nop_and_nothing_else() {
    assert_eq!(gp_test_traced(black_box(2)), gp_test_plain(black_box(2)));
    let image = Image::of_this_test();
    let (_, plain) = image.function("gp_test_plain");
    let (address, traced) = image.function("gp_test_traced");
    let sites = image.sites();
    if gracepoint::patching() == "branch" {
        assert!(sites.iter().all(|&(code, cold)| cold == code + 4), "records without code");
        return;
    }
    let (code, cold) = *sites
        .iter()
        .find(|(code, _)| (address..address + traced.len() as u64).contains(code))
        .expect("a record of the site");
    let at = (code - address) as usize;
    assert!(code % 8 <= 3, "the NOP lies within one aligned word");
    assert_eq!(traced[at..at + 5], NOP);
    let hot = hot(&traced);
    assert_eq!(strip(&hot[..at]), [], "before the NOP there is at most a frame: {hot:02x?}");
    let body = plain.strip_suffix(&[RET]).unwrap_or(&plain);
    let body = body.split(|&b| b == RET).next().expect("the plain function's work");
    let after = hot[at + 5..].strip_prefix(body).expect("after the NOP comes the plain work");
    assert_eq!(strip(after), [RET], "and then the return: {hot:02x?}");
    let cold = (cold - address) as usize;
    assert!(cold >= hot.len(), "the cold block lies behind the return");
}

/// What code does up to its first return, besides making a frame and moving values from one register to
/// another: the cold blocks need the one, and change registers.
fn essence(mut code: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    while found.last() != Some(&"ret") {
        code = strip(code);
        let (what, len) = match *code {
            [0x0f, 0x1f, 0x44, 0x00, 0x00, ..] => ("nop", 5),
            [0xe8, ..] => ("call", 5),
            [0x48 | 0x49 | 0x4c | 0x4d, 0x89, 0xc0..=0xff, ..] => ("", 3),
            [RET, ..] => ("ret", 1),
            _ => panic!("{code:02x?} after {found:?}"),
        };
        found.extend((!what.is_empty()).then_some(what));
        code = &code[len..];
    }
    found
}

/// Nothing is stored, compared or kept for the call: whether it is traced the code itself says.
#[test]
fn a_function_with_the_attribute_that_is_off_is_a_nop_at_either_end() {
    assert_eq!(gp_test_function(black_box(5)), 5);
    if gracepoint::patching() == "branch" {
        return;
    }
    let image = Image::of_this_test();
    let (address, code) = image.function("gp_test_function");
    assert_eq!(essence(&code), ["nop", "call", "call", "nop", "ret"]);
    let end = address + code.len() as u64;
    let hot = image.sites().iter().filter(|(code, _)| (address..end).contains(code)).count();
    assert_eq!(hot, 2, "both are sites");
}

#[test]
fn every_site_of_this_file_has_a_record_and_starts_as_a_nop() {
    if gracepoint::patching() == "branch" {
        return;
    }
    let image = Image::of_this_test();
    let file = image.file();
    let text = file.section_by_name(".text").unwrap();
    let sites = image.sites();
    assert!(sites.len() >= 2, "one for the event, one for the span");
    for (code, cold) in sites {
        assert_eq!(text.data_range(code, 5).unwrap().unwrap(), NOP);
        assert!(code % 8 <= 3);
        assert!(text.data_range(cold, 1).unwrap().is_some(), "the cold block is code");
    }
    assert_eq!(gp_test_span(black_box(5)), 15);
}

#[test]
fn abi_1_names_its_constructor_and_registers_each_object_once() {
    let image = Image::of_this_test();
    let file = image.file();
    let array = file.section_by_name(".init_array").expect("constructors");
    assert!(array.size() >= 8);
    let names: Vec<&str> = file.symbols().filter_map(|s| s.name().ok()).collect();
    for name in ["__start_gp1_sites", "__stop_gp1_sites"] {
        assert!(names.contains(&name), "{name}");
    }
}
