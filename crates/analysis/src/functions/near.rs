//! Paths that are near to one that is not there: for "did you mean".
//!
//! A path is compared by its last part first, since that is what people remember, then by what it has in common with
//! the others. Each path costs a bounded number of steps: texts are compared up to [`LONGEST`] characters, and one is
//! not compared any further when it is too far away already.

use super::without_generics;
use std::collections::{HashMap, HashSet};

/// Characters of a text that count.
const LONGEST: usize = 64;

/// How near a path is: what kind of likeness, how far, how many parts of the path are others. Less is nearer.
type Score = (u8, usize, usize);

/// Paths that are near to `pattern`, which matches none: the nearest first, each once, at most `most`. Case does not count, nor
/// what is generic.
///
/// ```
/// use gracepoint_analysis::functions::near;
/// let names = ["kv::store::get", "kv::store::put", "kv::main", "kv::store::get"];
/// assert_eq!(near("*::store::gte", names, 1), ["kv::store::get"]);
/// assert_eq!(near("kv::mian", names, 1), ["kv::main"]);
/// assert_eq!(near("other::get", names, 3), ["kv::store::get"]); // the same name elsewhere
/// assert!(near("something::else_entirely", names, 3).is_empty());
/// ```
pub fn near<'a>(
    pattern: &str,
    names: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    let wanted = Wanted::of(pattern);
    let mut seen = HashSet::new();
    // The same ends come up often: `fmt`, `drop`, `new`.
    let mut ends: HashMap<String, Option<(u8, usize)>> = HashMap::new();
    let mut found: Vec<(Score, usize, &str)> = Vec::new();
    for name in names {
        if let Some(score) = wanted.score(name, &mut ends)
            && seen.insert(name)
        {
            found.push((score, name.len(), name));
        }
    }
    found.sort_unstable();
    // Where something is called like that, what is only spelled alike is noise.
    let best = found.first().map_or(0, |((kind, ..), ..)| *kind);
    let kept = found.into_iter().take_while(|((kind, ..), ..)| *kind <= best + 1);
    kept.take(most).map(|(.., name)| name).collect()
}

/// What is looked for: lower case, without what stands for anything.
struct Wanted {
    /// All of it, as far as it is one piece.
    whole: String,
    parts: Vec<String>,
    last: String,
}

impl Wanted {
    fn of(pattern: &str) -> Wanted {
        let plain = |text: &str| -> String {
            let kept = text.chars().filter(|c| !matches!(c, '*' | '?' | '[' | ']'));
            kept.flat_map(char::to_lowercase).take(LONGEST).collect()
        };
        let pieces = pattern.split(['*', '?']).map(|piece| piece.trim_matches(':'));
        let whole = plain(pieces.max_by_key(|piece| piece.len()).unwrap_or(""));
        let mut parts: Vec<String> = parts(pattern).map(plain).filter(|p| !p.is_empty()).collect();
        let last = parts.pop().unwrap_or_default();
        Wanted { whole, parts, last }
    }

    fn score(&self, name: &str, ends: &mut HashMap<String, Option<(u8, usize)>>) -> Option<Score> {
        if self.last.is_empty() {
            return None;
        }
        let path = if name.contains('<') { without_generics(name) } else { name.to_owned() };
        let path = path.to_lowercase();
        // A closure goes by the function that it is in, behind it.
        let closure = usize::from(path.contains('{'));
        let own = || parts(&path).filter(|part| !part.starts_with('{'));
        let end = own().last()?;
        let others = self.parts.iter().filter(|part| !own().any(|own| own == *part)).count();
        let within = self.whole.len() >= 3 && path.contains(&self.whole);
        let of_end = match ends.get(end) {
            Some(known) => *known,
            None => *ends.entry(end.to_owned()).or_insert(likeness(&self.last, end)),
        };
        let (kind, far) = match of_end {
            Some((kind, far)) => (kind, far),
            None if within => (2, 0),
            // In some other part: `store` for `kv::store::get`.
            None if own().any(|own| own == self.last) => (2, 1),
            None => return None,
        };
        let kind = if within { kind.min(2) } else { kind };
        Some((kind, far, 2 * others + closure))
    }
}

/// How the last parts of two paths are alike: 0 the same, 2 the one in the other, 3 spelled alike; and how far they are apart.
fn likeness(wanted: &str, end: &str) -> Option<(u8, usize)> {
    if wanted == end {
        return Some((0, 0));
    }
    let (long, short) = (wanted.len().max(end.len()), wanted.len().min(end.len()));
    if short >= 3 && (end.contains(wanted) || wanted.contains(end)) {
        return Some((2, long - short));
    }
    let most = 1 + wanted.chars().count() / 4;
    distance(wanted, end, most).map(|far| (3, far))
}

/// The parts of a path; a C++ function's are told without its arguments.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('(').next().unwrap_or(path).split("::").filter(|part| !part.is_empty())
}

/// Edit distance (insert, delete, replace, swap neighbours), if it is at most `most`.
fn distance(a: &str, b: &str, most: usize) -> Option<usize> {
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, &cb) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(ca != cb);
            let mut least = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && ca == b[j - 1] && a[i - 1] == cb {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        if next.iter().all(|&n| n > most) {
            return None;
        }
        before = std::mem::replace(&mut row, next);
    }
    Some(row[b.len()]).filter(|&far| far <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 12] = [
        "ripgrep::main",
        "<ripgrep::flags::hiargs::HiArgs>::searcher",
        "<grep_searcher::searcher::Searcher>::search_path",
        "<grep_searcher::searcher::Searcher>::search_path::{closure#0}",
        "grep_searcher::searcher::mmap::open",
        "<alloc::vec::Vec<u8> as core::fmt::Debug>::fmt",
        "<core::option::Option<u8> as core::fmt::Debug>::fmt",
        "core::ptr::drop_in_place::<alloc::vec::Vec<u8>>",
        "core::ptr::drop_in_place::<alloc::vec::Vec<u8>>",
        "std::rt::lang_start::<()>",
        "geo::Shape::area(double)",
        "kv::Größe::messen",
    ];

    #[test]
    fn what_was_meant_comes_first() {
        for (pattern, want) in [
            ("search_pth", NAMES[2]),
            ("grep::searcher::search_path", NAMES[2]),
            ("*::Searcher::serach_path", NAMES[2]),
            ("Search_Path", NAMES[2]),
            ("ripgrep::mian", NAMES[0]),
            ("rg::main", NAMES[0]),
            ("vec::drop_in_place", NAMES[7]),
            ("lang_strat", NAMES[9]),
            ("geo::Shape::aera", NAMES[10]),
            ("größe::mesen", NAMES[11]),
            ("hiargs", NAMES[1]),
        ] {
            assert_eq!(near(pattern, NAMES, 3).first(), Some(&want), "{pattern}");
        }
    }

    #[test]
    fn each_is_told_once_and_what_is_far_not_at_all() {
        assert_eq!(near("drop_in_plce", NAMES, 3), [NAMES[7]]);
        assert_eq!(near("search_path*x", NAMES, 3), [NAMES[2], NAMES[3]], "the closure behind");
        assert_eq!(near("fmt", NAMES, 3).len(), 2);
        for pattern in ["", "*", "::", "*::*", "tokio::runtime::block_on", "[", "zzzz"] {
            assert_eq!(near(pattern, NAMES, 3), [""; 0], "{pattern}");
        }
    }

    /// Of many, and of long ones, the right one is found; that this takes no time in proportion to the square of a
    /// name's length is by `LONGEST` and by `most`.
    #[test]
    fn there_may_be_many() {
        let many: Vec<String> = (0..50_000)
            .map(|n| {
                format!("big::module_{}::Type{}::{}{n}", n % 97, n % 31, "function_".repeat(n % 7))
            })
            .collect();
        let names = many.iter().map(String::as_str).chain(["big::module_1::Type1::flush_all"]);
        assert_eq!(near("module_1::flsh_all", names, 3), ["big::module_1::Type1::flush_all"]);
        let long = ["x".repeat(100_000), "y".repeat(100_000)];
        assert!(near(&"z".repeat(100_000), long.iter().map(String::as_str), 3).is_empty());
    }

    #[test]
    fn distances() {
        for (a, b, most, want) in [
            ("get", "get", 0, Some(0)),
            ("get", "gte", 1, Some(1)),
            ("get", "put", 1, None),
            ("get", "put", 2, Some(2)),
            ("", "abc", 2, None),
            ("", "abc", 3, Some(3)),
            ("größe", "grösse", 2, Some(2)),
        ] {
            assert_eq!(distance(a, b, most), want, "{a} {b}");
            assert_eq!(distance(b, a, most), want, "{b} {a}");
        }
    }
}
