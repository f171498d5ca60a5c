//! Paths that are near to one that is not there: for "did you mean".
//!
//! A path is compared by its last part first, since that is what people remember, then by what it has in common with
//! the others. Each path costs a bounded number of steps: texts are compared up to [`LONGEST`] characters, and one is
//! not compared any further when it is too far away already.

use super::{matches, without_generics};
use std::collections::{HashMap, HashSet};

/// Characters of a text that count.
const LONGEST: usize = 64;

/// How near a path is: what kind of likeness, how many parts of what is looked for it has not, how far its last part is.
/// Less is nearer.
type Score = (u8, usize, usize);

/// Paths that are near to `pattern`, which matches none: the nearest first, each once, at most `most`. Case does not count, nor
/// what is generic, and where it can be left out of a pattern it is left out here.
///
/// ```
/// use gracepoint_analysis::functions::near;
/// let names = ["kv::store::get", "<kv::store::Map<u8>>::put", "<kv::store::Map<u16>>::put", "kv::main"];
/// assert_eq!(near("*::store::gte", names, 1), ["kv::store::get"]);
/// assert_eq!(near("kv::mian", names, 1), ["kv::main"]);
/// assert_eq!(near("other::put", names, 3), ["kv::store::Map::put"]); // the same name elsewhere
/// assert!(near("something::else_entirely", names, 3).is_empty());
/// ```
pub fn near<'a>(
    pattern: &str,
    names: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<String> {
    let wanted = Wanted::of(pattern);
    let mut seen = HashSet::new();
    // The same ends come up often: `fmt`, `drop`, `new`.
    let mut ends: HashMap<String, Option<(u8, usize)>> = HashMap::new();
    let mut found: Vec<(Score, usize, String)> = Vec::new();
    for name in names {
        let path = if name.contains('<') { without_generics(name) } else { name.to_owned() };
        let Some(score) = wanted.score(&path.to_lowercase(), &mut ends) else { continue };
        // Where it says so itself: it may have a `[` in it, which means something else.
        let path = if matches(&path, name) { path } else { name.to_owned() };
        if seen.insert(path.clone()) {
            found.push((score, path.len(), path));
        }
    }
    found.sort_unstable();
    // Where something is called like that, what is only spelled alike is noise, and so is what lies elsewhere.
    let (kind, others, _) = found.first().map_or((0, 0, 0), |(score, ..)| *score);
    let is_as_good =
        |(score, ..): &(Score, usize, String)| score.0 <= kind + 1 && score.1 <= others;
    let kept = found.into_iter().filter(is_as_good);
    kept.take(most).map(|(.., path)| path).collect()
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

    /// Of a path in lower case.
    fn score(&self, path: &str, ends: &mut HashMap<String, Option<(u8, usize)>>) -> Option<Score> {
        if self.last.is_empty() {
            return None;
        }
        // A closure goes by the function that it is in, behind it.
        let closure = usize::from(path.contains('{'));
        let own = || parts(path).filter(|part| !part.starts_with('{'));
        let end = own().last()?;
        let others = self.parts.iter().filter(|part| !own().any(|own| own == *part)).count();
        let of_end = match ends.get(end) {
            Some(known) => *known,
            None => *ends.entry(end.to_owned()).or_insert(likeness(&self.last, end)),
        };
        let within = self.whole.len() >= 3 && path.contains(&self.whole);
        // In some other part: `store` for `kv::store::get`.
        let elsewhere = within || own().any(|own| own == self.last);
        let (kind, far) = match of_end {
            Some((kind, far)) if kind < 2 || !elsewhere => (kind, far),
            _ if elsewhere => (2, 0),
            _ => return None,
        };
        Some((kind, others, 2 * far + closure))
    }
}

/// How the last parts of two paths are alike, and how far they are apart: 0 the same, 1 what is looked for is in the other, 3
/// spelled alike, 4 the other is in it.
fn likeness(wanted: &str, end: &str) -> Option<(u8, usize)> {
    if wanted == end {
        return Some((0, 0));
    }
    let apart = wanted.len().abs_diff(end.len());
    if wanted.len() >= 3 && end.contains(wanted) {
        return Some((1, apart));
    }
    let most = 1 + wanted.chars().count() / 4;
    let alike = distance(wanted, end, most).map(|far| (3, far));
    alike.or_else(|| (end.len() >= 4 && wanted.contains(end)).then_some((4, apart)))
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

    const SEARCH_PATH: &str = "grep_searcher::searcher::Searcher::search_path";
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
            ("search_pth", SEARCH_PATH),
            ("grep::searcher::search_path", SEARCH_PATH),
            ("*::Searcher::serach_path", SEARCH_PATH),
            ("Search_Path", SEARCH_PATH),
            ("grep_searcher::searcher::search", SEARCH_PATH),
            ("ripgrep::mian", NAMES[0]),
            ("rg::main", NAMES[0]),
            ("vec::drop_in_place", "core::ptr::drop_in_place"),
            ("lang_strat", "std::rt::lang_start"),
            ("geo::Shape::aera", NAMES[10]),
            ("größe::mesen", NAMES[11]),
            ("hiargs", "ripgrep::flags::hiargs::HiArgs::searcher"),
        ] {
            assert_eq!(
                near(pattern, NAMES, 3).first().map(String::as_str),
                Some(want),
                "{pattern}"
            );
        }
    }

    #[test]
    fn each_is_told_once_and_what_is_far_not_at_all() {
        assert_eq!(near("drop_in_plce", NAMES, 3), ["core::ptr::drop_in_place"]);
        let closure = format!("{SEARCH_PATH}::{{closure#0}}");
        assert_eq!(near("search_path*x", NAMES, 3), [SEARCH_PATH, &closure], "the closure behind");
        assert_eq!(near("x::fmt", NAMES, 3), ["alloc::vec::Vec::fmt", "core::option::Option::fmt"]);
        // Its path would be a set of characters.
        assert_eq!(near("frist", ["<[char]>::first", "kv::put"], 3), ["<[char]>::first"]);
        assert_eq!(near("kv::frist", ["<[char]>::first", "kv::first"], 3), ["kv::first"]);
        for pattern in ["", "*", "::", "*::*", "tokio::runtime::block_on", "[", "zzzz"] {
            assert!(near(pattern, NAMES, 3).is_empty(), "{pattern}");
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
