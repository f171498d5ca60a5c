//! Rules about documents: what they name exists, and nothing names a machine.

use crate::house::{File, House};
use crate::{Complaint, Rule};

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "paths in documents exist",
        check: dead_paths,
        broken: &[
            ("README.md", "See `@crates/nowhere/src/lib.rs`."),
            ("docs/a.md", "See [it](@missing.md)."),
            ("B.md", "See `@MISSING.md` and `rcu/src/nothing.rs`. `crates/{rcu,none}/x`"),
        ],
    },
    Rule {
        name: "no file names a folder of somebody's machine",
        check: machine_paths,
        broken: &[
            ("a.rs", "const DIR: &str = \"/wo@rk/x\";"),
            ("b.md", "cd /ho@me/me/x"),
            ("c.toml", "path = '/ro@ot/x'"),
        ],
    },
];

/// First components of what is taken for a path of this repository when it stands in backticks.
const ROOTS: [&str; 5] = ["crates", "demo", "bench", "docs", ".ci"];
/// Folders under `crates/` may be named without it, as the design does.
const CRATES: [&str; 7] = ["rcu", "model", "wire", "gracepoint", "macros", "analysis", "cli"];

fn dead_paths(house: &House) -> Vec<Complaint> {
    let mut found = Vec::new();
    // A changelog tells what was; its paths may be gone.
    for file in house.ending(".md").filter(|f| f.path != "CHANGELOG.md") {
        for (line, quoted) in quotations(&file.text) {
            let paths = braces(quoted);
            let dead = paths.iter().find(|p| is_repository_path(p) && !exists(house, file, p));
            if let Some(path) = dead {
                found.push(Complaint::new(&file.path, line, format!("`{path}` does not exist")));
            }
        }
        for (line, target) in links(&file.text) {
            if !exists(house, file, target) {
                found.push(Complaint::new(&file.path, line, format!("a link to `{target}`")));
            }
        }
    }
    found
}

/// What stands between backticks, fenced blocks left out.
fn quotations(text: &str) -> Vec<(usize, &str)> {
    let prose = prose(text);
    prose.flat_map(|(n, line)| line.split('`').skip(1).step_by(2).map(move |q| (n, q))).collect()
}

/// Targets of links into the repository, without their `#section`.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for after in line.split("](").skip(1) {
            let target = after.split([')', '#', ' ']).next().unwrap_or(after);
            if !target.is_empty() && !target.contains(':') {
                found.push((number, target));
            }
        }
    }
    found
}

/// Lines outside of fenced blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((i + 1, line))
    })
}

/// `a/{b,c}/d` written out; one pair of braces is enough for documents.
fn braces(text: &str) -> Vec<String> {
    let parts = text.split_once('{').and_then(|(before, rest)| {
        let (inside, after) = rest.split_once('}')?;
        Some((before, inside, after))
    });
    match parts {
        Some((before, inside, after)) => {
            inside.split(',').map(|part| format!("{before}{part}{after}")).collect()
        }
        None => vec![text.to_owned()],
    }
}

fn is_repository_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if !text.chars().all(plain) || text.contains("::") || text.contains("..") {
        return false;
    }
    match text.split_once('/') {
        Some((first, "")) => ROOTS.contains(&first),
        Some((first, rest)) => {
            let in_crate = ["src", "tests", "examples", "benches", "Cargo.toml", "build.rs"];
            let second = rest.split('/').next().unwrap_or(rest);
            ROOTS.contains(&first) || CRATES.contains(&first) && in_crate.contains(&second)
        }
        None => text.ends_with(".md"),
    }
}

/// Whether the path is there: from the root, under `crates/`, or beside the document.
fn exists(house: &House, document: &File, path: &str) -> bool {
    let path = path.split(':').next().unwrap_or(path).trim_start_matches("./");
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let beside = resolve(folder, path);
    house.has(path) || house.has(&format!("crates/{path}")) || house.has(&beside)
}

/// `folder/path` with each `..` taken away together with the folder before it.
fn resolve(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Absolute paths under the folders in which people and machines keep their work.
fn machine_paths(house: &House) -> Vec<Complaint> {
    // In two pieces, so that this file may be checked too.
    let folders = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut found = Vec::new();
    for file in &house.files {
        for (i, line) in file.text.lines().enumerate() {
            if let Some(folder) = folders.iter().find(|f| has_absolute(line, f)) {
                found.push(Complaint::new(&file.path, i + 1, format!("names `{folder}…`")));
            }
        }
    }
    found
}

/// Whether `folder` stands in `line` as the beginning of a path, not in the middle of one
/// (`/proc/{pid}/root` is the kernel's).
fn has_absolute(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(i, _)| {
        let before = line[..i].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || "\"'`(<[{=:,|".contains(c))
    })
}

#[test]
fn paths_are_recognised() {
    for path in ["crates/rcu/src/sync.rs", "rcu/src/arch/", "docs/", "ARCHITECTURE.md", ".ci/run"] {
        assert!(is_repository_path(path), "{path}");
    }
    for other in ["std::sync", "a/b", "kv:get", "gracepoint list", "cli/x y", "http/1.1", "target"]
    {
        assert!(!is_repository_path(other), "{other}");
    }
    assert_eq!(braces("crates/{a,b}/c"), ["crates/a/c", "crates/b/c"]);
    assert_eq!(resolve("docs/x", "../../README.md"), "README.md");
}

#[test]
fn only_absolute_paths_name_a_machine() {
    let root = concat!("/ro", "ot/");
    assert!(has_absolute(&format!("cd {root}x"), root));
    assert!(!has_absolute(&format!("/proc/{{pid}}{root}tmp"), root));
}
