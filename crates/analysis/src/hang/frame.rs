//! Stack frames as the kernels of the last fifteen years print them.

pub use crate::stuck::Frame;

use super::line::{find, trim_end, trim_start};

/// What a line says about a stack.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StackLine {
    /// A frame.
    Frame(Frame),
    /// A frame that the kernel itself does not trust (`? f`): as a rule an older call left it there.
    Stale(Frame),
    /// Not about a stack.
    Other,
}

/// Longest name that is kept.
const NAME: usize = 96;

/// Reads a line of a stack. `line` is its number.
pub(super) fn parse(body: &[u8], line: u32) -> StackLine {
    let mut text = trim_start(body);
    // Addresses: `[<ffffffff8100>]`, `[ffff8800]`, `([<...>] f)`, up to two of them.
    text = text.strip_prefix(b"(").unwrap_or(text);
    let mut addresses = 0;
    while text.first() == Some(&b'[') && addresses < 3 {
        let Some(end) = text.iter().take(40).position(|&b| b == b']') else { break };
        let digits = |b: &u8| b.is_ascii_hexdigit() || b"<>x ".contains(b);
        if !text[1..end].iter().all(digits) {
            break;
        }
        text = trim_start(&text[end + 1..]);
        addresses += 1;
    }
    if addresses > 0 && (text.first() == Some(&b'(') || find(text, b" from [<").is_some()) {
        return parse_arm(text, line);
    }
    let indented = body.first().is_some_and(|b| b" \t([".contains(b));
    if !indented && addresses == 0 {
        return StackLine::Other;
    }
    if let Some(rest) = text.strip_prefix(b"? ") {
        return parse_function(trim_start(rest), line).map_or(StackLine::Other, StackLine::Stale);
    }
    // `f from g+0x1/0x2`: arm since 5.18.
    if let Some(at) = find(text, b" from ")
        && let Some(frame) = plain(&text[..at], line)
    {
        return StackLine::Frame(frame);
    }
    match parse_function(text, line) {
        Some(frame) if find(text, b"(unreliable)").is_some() => StackLine::Stale(frame),
        Some(frame) => StackLine::Frame(frame),
        None => StackLine::Other,
    }
}

/// `(f) from [<c0100>] (g+0x1/0x2)`.
fn parse_arm(text: &[u8], line: u32) -> StackLine {
    let inside = text.strip_prefix(b"(").unwrap_or(text);
    let end = inside.iter().position(|&b| b == b')' || b == b' ').unwrap_or(inside.len());
    let name = &inside[..end];
    let frame = parse_function(name, line).or_else(|| plain(name, line));
    frame.map_or(StackLine::Other, StackLine::Frame)
}

fn plain(name: &[u8], line: u32) -> Option<Frame> {
    let name = trim_end(name);
    if !is_name(name) {
        return None;
    }
    let function = base_name(name);
    Some(Frame { function, offset: 0, size: 0, inlined: false, source: None, line })
}

/// `f+0x1/0x2 [module] file.c:3`, `f file.c:3 [inline]`.
pub(super) fn parse_function(text: &[u8], line: u32) -> Option<Frame> {
    // Where a function's name is that of its descriptor (ppc64 of old), its code has a dot before it.
    let text = text.strip_prefix(b".").unwrap_or(text);
    let length = text.iter().take_while(|&&b| is_name_byte(b)).count();
    let (name, rest) = text.split_at(length);
    if !is_name(name) {
        return None;
    }
    if let Some(rest) = rest.strip_prefix(b"+0x") {
        let (offset, rest) = hex(rest)?;
        let rest = rest.strip_prefix(b"/0x").or_else(|| rest.strip_prefix(b"/"))?;
        let (size, rest) = hex(rest)?;
        let source = source(rest);
        let inlined = find(rest, b"[inline]").is_some();
        return Some(Frame { function: base_name(name), offset, size, inlined, source, line });
    }
    if rest.first() == Some(&b' ') && find(rest, b"[inline]").is_some() {
        let source = source(rest);
        let function = base_name(name);
        return Some(Frame { function, offset: 0, size: 0, inlined: true, source, line });
    }
    None
}

/// `RIP: 0010:f+0x1/0x2`, `RIP: 0010:[<..>]  [<..>] f+0x1/0x2`, `pc : f+0x1/0x2`, `PC is at f+..`,
/// `NIP [c000] f+..`, `epc : f+..`; `None` where the register does not name a function.
pub(super) fn parse_program_counter(body: &[u8], line: u32) -> Option<Frame> {
    let text = trim_start(body);
    let starts: [&[u8]; 7] =
        [b"RIP: ", b"EIP: ", b"PC is at ", b"pc : ", b"NIP [", b"epc : ", b"Krnl PSW : "];
    if !starts.iter().any(|s| text.starts_with(s)) {
        return None;
    }
    if find(text, b"+0x").is_none() && find(text, b" [inline]").is_none() {
        return None;
    }
    let starts = text.iter().enumerate().filter(|(_, b)| b" :(".contains(b));
    starts.take(40).find_map(|(at, _)| parse_function(&text[at + 1..], line))
}

fn hex(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take(9).take_while(|b| b.is_ascii_hexdigit()).count();
    let value = std::str::from_utf8(&text[..digits]).ok()?;
    Some((u32::from_str_radix(value, 16).ok()?, &text[digits..]))
}

/// `net/core/dev.c:123` in what follows a frame.
fn source(rest: &[u8]) -> Option<String> {
    let mut words = rest.split(|&b| b == b' ');
    let word = words.find(|w| {
        w.iter().rposition(|&b| b == b':').is_some_and(|colon| {
            let (file, number) = (&w[..colon], &w[colon + 1..]);
            file.contains(&b'.') && !number.is_empty() && number.iter().all(u8::is_ascii_digit)
        })
    })?;
    Some(String::from_utf8_lossy(&word[..word.len().min(NAME * 2)]).into_owned())
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_.$".contains(&b)
}

fn is_name(name: &[u8]) -> bool {
    let start = name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_' || *b == b'$');
    start && name.len() <= 200 && name.iter().all(|&b| is_name_byte(b))
}

/// Without the suffixes of the compiler.
fn base_name(name: &[u8]) -> String {
    let end = name.iter().skip(1).position(|&b| b == b'.').map_or(name.len(), |at| at + 1);
    String::from_utf8_lossy(&name[..end.min(NAME)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn name(body: &str) -> String {
        match parse(body.as_bytes(), 1) {
            StackLine::Frame(frame) => frame.function,
            StackLine::Stale(_) => "?".to_owned(),
            StackLine::Other => "-".to_owned(),
        }
    }

    #[test]
    fn layouts() {
        assert_eq!(name(" __schedule+0x897/0x1e60"), "__schedule");
        assert_eq!(name(" [<ffffffff82a9df9c>] schedule+0x7c/0x1b0"), "schedule");
        assert_eq!(name("[<ffffffff82a9df9c>] ? schedule+0x7c/0x1b0"), "?");
        assert_eq!(name(" ? schedule+0x7c/0x1b0"), "?");
        assert_eq!(name(" rtnl_lock.isra.0+0x7c/0x1b0 [bridge]"), "rtnl_lock");
        assert_eq!(name(" context_switch kernel/sched/core.c:5178 [inline]"), "context_switch");
        assert_eq!(
            name("[c000000049a87780] [c000000001385b4c] __schedule+0x3cc/0xed0"),
            "__schedule"
        );
        assert_eq!(name("[c0000000fe2b7a10] [c0000000007e8f54] .schedule+0x34/0x90"), "schedule");
        assert_eq!(name(" __switch_to+0xf4/0x15c (T)"), "__switch_to");
        assert_eq!(
            name("[<80c1e5e8>] (__schedule) from [<80c1eb20>] (schedule+0x60/0xdc)"),
            "__schedule"
        );
        assert_eq!(name(" __schedule from schedule+0x60/0xdc"), "__schedule");
        assert_eq!(name("([<0000000000a1b2c3>] schedule+0x60/0xdc)"), "schedule");
        assert_eq!(name(" [<0>] folio_wait_bit+0x1/0x2"), "folio_wait_bit");
        assert_eq!(name("schedule+0x60/0xdc"), "-");
        assert_eq!(name(" ffff88008ad8f5b0 ffff8800b5584ee8"), "-");
        assert_eq!(name(" <IRQ>"), "-");
    }

    #[test]
    fn program_counters() {
        let pc = |body: &str| parse_program_counter(body.as_bytes(), 1).map(|f| f.function);
        assert_eq!(pc("RIP: 0010:hhf_dequeue+0x552/0xa20").as_deref(), Some("hhf_dequeue"));
        let old = "RIP: 0010:[<ffffffff81f014b0>]  [<ffffffff81f014b0>] io_serial_in+0x70/0x90";
        assert_eq!(pc(old).as_deref(), Some("io_serial_in"));
        assert_eq!(pc("pc : el1_irq+0x70/0x90").as_deref(), Some("el1_irq"));
        let inline = "RIP: 0010:div_u64 include/linux/math64.h:128 [inline]";
        assert_eq!(pc(inline).as_deref(), Some("div_u64"));
        assert_eq!(pc("RIP: 0033:0x45cb29"), None);
    }
}
