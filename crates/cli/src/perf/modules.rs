//! Where a program's executable and shared objects lie, from `/proc/PID/maps`.

use gracepoint_wire::control::Module;
use std::collections::BTreeMap;
use std::fs;

/// The objects with code, each as one range from its first mapping to its last.
pub(crate) fn of(pid: u32, at: u64) -> Vec<Module> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    parse(&text, at)
}

fn parse(text: &str, at: u64) -> Vec<Module> {
    // By path and place: an object may be mapped twice.
    let mut objects: BTreeMap<(u64, String), (u64, bool)> = BTreeMap::new();
    let mut open: Option<(u64, String)> = None;
    for line in text.lines() {
        let Some((start, end, code, offset, path)) = mapping(line) else { continue };
        if !path.starts_with('/') {
            continue;
        }
        let goes_on = open.as_ref().is_some_and(|(_, known)| known == path) && offset > 0;
        let key = match open.take().filter(|_| goes_on) {
            Some(key) => key,
            None => (start, path.to_owned()),
        };
        let object = objects.entry(key.clone()).or_insert((end, false));
        *object = (end, object.1 | code);
        open = Some(key);
    }
    let module = |((base, path), (end, code)): ((u64, String), (u64, bool))| {
        let path = path.trim_end_matches(" (deleted)").to_owned();
        code.then_some(Module { at, base, size: end - base, build_id: Vec::new(), path })
    };
    objects.into_iter().filter_map(module).collect()
}

/// `start-end perms offset dev inode path`
fn mapping(line: &str) -> Option<(u64, u64, bool, u64, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (rights, rest) = rest.split_once(' ')?;
    let (offset, rest) = rest.split_once(' ')?;
    let (_device, rest) = rest.split_once(' ')?;
    let (_inode, path) = rest.split_once(' ')?;
    Some((number(start)?, number(end)?, rights.contains('x'), number(offset)?, path.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_ranges() {
        let text = "\
55e000000000-55e000001000 r--p 00000000 fe:00 12 /usr/bin/a b
55e000001000-55e000003000 r-xp 00001000 fe:00 12 /usr/bin/a b
55e000004000-55e000005000 rw-p 00003000 fe:00 12 /usr/bin/a b
55e000005000-55e000006000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 r--p 00000000 fe:00 13 /lib/libc.so
7f0000001000-7f0000002000 r-xp 00001000 fe:00 13 /lib/libc.so
7f0000003000-7f0000004000 r--p 00000000 fe:00 14 /etc/locale
nonsense
";
        let found = parse(text, 5);
        let told: Vec<_> = found.iter().map(|m| (m.base, m.size, m.path.as_str())).collect();
        let want = [
            (0x55e0_0000_0000, 0x5000, "/usr/bin/a b"),
            (0x7f00_0000_0000, 0x2000, "/lib/libc.so"),
        ];
        assert_eq!(told, want);
        assert!(!of(std::process::id(), 0).is_empty());
    }
}
