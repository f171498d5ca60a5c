//! Rules about Rust sources and manifests: the budgets and the laws of `CONTRIBUTING.md`.

use crate::house::{File, House};
use crate::rust_text::{code_only, functions, lines_of};
use crate::{Complaint, Rule};

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;
const BANNED_NAMES: [&str; 8] =
    ["util", "utils", "common", "shared", "helper", "helpers", "misc", "stuff"];
/// Crates that may say `unsafe`: the two of the law, `macros`, which says it in the code that
/// it writes for others and forbids it in its own, and the benchmarks' door to C.
const UNSAFE_CRATES: [&str; 4] =
    ["crates/rcu/", "crates/gracepoint/", "crates/macros/", "bench/peers/"];
/// Crates in which the compiler must forbid it, so that nobody has to look.
const SAFE_CRATES: [&str; 8] = [
    "crates/wire",
    "crates/model",
    "crates/macros",
    "crates/analysis",
    "crates/cli",
    "crates/tracing",
    "demo",
    "bench",
];
const ASM_FOLDERS: [&str; 2] = ["crates/rcu/src/arch", "crates/gracepoint/src/arch"];
/// The arrows of the house: a crate and what of ours it may depend on outside of tests.
const ARROWS: [(&str, &[&str]); 9] = [
    ("crates/wire", &[]),
    ("crates/model", &[]),
    ("crates/rcu", &[]),
    ("crates/macros", &[]),
    ("crates/gracepoint", &["gracepoint-rcu", "gracepoint-wire", "gracepoint-macros"]),
    ("crates/gracepoint/tests/sleds", &["gracepoint", "gracepoint-rcu"]),
    ("crates/analysis", &["gracepoint-wire"]),
    ("crates/cli", &["gracepoint-wire", "gracepoint-analysis"]),
    ("crates/tracing", &["gracepoint"]),
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "each file says what lives in it",
        check: |house| each_rust(house, no_module_doc),
        broken: &[("a.rs", "fn main() {}\n"), ("b.rs", "// Not a doc.\n"), ("c.rs", "")],
    },
    Rule {
        name: "files stay under 800 lines",
        check: |house| each_rust(house, long_file),
        broken: &[("a.rs", TOO_MANY_LINES)],
    },
    Rule {
        name: "functions stay under 70 lines",
        check: |house| each_rust(house, long_functions),
        broken: &[("a.rs", LONG_FUNCTION)],
    },
    Rule {
        name: "no file is called util, common, shared, helpers or misc",
        check: banned_names,
        broken: &[("src/util.rs", ""), ("crates/x/src/helpers/a.rs", ""), ("common/x.txt", "")],
    },
    Rule {
        name: "nothing is left for later",
        check: |house| each_rust(house, left_for_later),
        broken: &[
            ("a.rs", "fn f() { todo!() }"),
            ("b.rs", "fn f() { unimplemented!(\"x\") }"),
            ("c.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
        ],
    },
    Rule {
        name: "examples are compiled and run",
        check: examples_not_run,
        broken: &[
            ("a.rs", "/// ```@ignore\n/// f();\n/// ```"),
            ("b.rs", "//! ```@rust,no_run\n"),
            ("c.md", "```@no_run\n```"),
        ],
    },
    Rule {
        name: "unsafe lives in rcu and gracepoint",
        check: |house| each_rust(house, misplaced_unsafe),
        broken: &[
            ("crates/cli/src/lib.rs", "fn f() { unsafe { g() } }"),
            ("demo/x.rs", "unsafe fn f();"),
        ],
    },
    Rule {
        name: "the other crates forbid it",
        check: unsafe_not_forbidden,
        broken: &[
            ("crates/wire/src/lib.rs", "//! Wire."),
            ("demo/src/main.rs", "// #![forbid(unsafe_code)]"),
        ],
    },
    Rule {
        name: "inline assembly lives under arch/",
        check: |house| each_rust(house, misplaced_asm),
        broken: &[
            ("crates/rcu/src/lib.rs", "fn f() { asm!(\"nop\") }"),
            ("crates/cli/src/arch/x.rs", "global_asm!(\"nop\")"),
        ],
    },
    Rule {
        name: "atomics of rcu come through src/sync.rs",
        check: |house| each_rust(house, second_door),
        broken: &[
            ("crates/rcu/src/a.rs", "use std::sync::atomic::AtomicU8;"),
            ("crates/rcu/src/b.rs", "use core::{\n    sync::{atomic::fence, Arc},\n};"),
            ("crates/rcu/src/c.rs", "static A: std :: sync::atomic::AtomicU8 = X;"),
        ],
    },
    Rule {
        name: "dependencies follow the arrows",
        check: |house| each_manifest(house, against_the_arrows),
        broken: &[
            ("crates/cli/Cargo.toml", "[dependencies]\ngracepoint.workspace = true"),
            ("crates/cli/Cargo.toml", "[dependencies.gracepoint-rcu]\nworkspace = true"),
            ("crates/wire/Cargo.toml", "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\""),
            (
                "crates/analysis/Cargo.toml",
                "[build-dependencies]\nx = { package = \"gracepoint\" }",
            ),
            ("crates/new/Cargo.toml", "[package]\nname = \"new\""),
        ],
    },
    Rule {
        name: "each crate inherits the lints and the Rust version",
        check: |house| each_manifest(house, own_ways),
        broken: &[
            ("crates/wire/Cargo.toml", "[package]\nrust-version.workspace = true\n"),
            ("bench/Cargo.toml", "[package]\n[lints]\nworkspace = true\n"),
        ],
    },
];

const LONG_FUNCTION: &str = concat!(
    "fn f() {\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
    "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n}",
);

/// One empty line more than a file may have.
const TOO_MANY_LINES: &str = {
    const LINES: [u8; FILE_LINES + 1] = [b'\n'; FILE_LINES + 1];
    match std::str::from_utf8(&LINES) {
        Ok(text) => text,
        Err(_) => panic!("line breaks are UTF-8"),
    }
};

fn each_rust(house: &House, check: fn(&File, &str) -> Vec<Complaint>) -> Vec<Complaint> {
    house.ending(".rs").flat_map(|f| check(f, &code_only(&f.text))).collect()
}

fn no_module_doc(file: &File, _: &str) -> Vec<Complaint> {
    let good = file.text.starts_with("//!");
    Vec::from_iter((!good).then(|| Complaint::new(&file.path, 1, "does not begin with `//!`")))
}

fn long_file(file: &File, _: &str) -> Vec<Complaint> {
    let lines = file.text.lines().count();
    let what = format!("{lines} lines; split it by noun, at most {FILE_LINES}");
    Vec::from_iter((lines > FILE_LINES).then(|| Complaint::new(&file.path, lines, what)))
}

fn long_functions(file: &File, code: &str) -> Vec<Complaint> {
    let long = functions(code).into_iter().filter(|f| f.lines > FUNCTION_LINES);
    long.map(|f| {
        let what = format!("`{}` has {} lines, at most {FUNCTION_LINES}", f.name, f.lines);
        Complaint::new(&file.path, f.line, what)
    })
    .collect()
}

fn banned_names(house: &House) -> Vec<Complaint> {
    let banned = |path: &str| {
        path.split('/').any(|part| BANNED_NAMES.contains(&part.split('.').next().unwrap_or(part)))
    };
    let bad = house.files.iter().filter(|f| banned(&f.path));
    bad.map(|f| Complaint::new(&f.path, 1, "name it by what is in it")).collect()
}

fn left_for_later(file: &File, code: &str) -> Vec<Complaint> {
    let mut found = Vec::new();
    for word in ["todo!", "unimplemented!", "#[ignore", "#![ignore"] {
        for line in lines_of(code, word) {
            found.push(Complaint::new(&file.path, line, format!("`{word}`: finish it or drop it")));
        }
    }
    found
}

fn examples_not_run(house: &House) -> Vec<Complaint> {
    let mut found = Vec::new();
    for file in house.ending(".rs").chain(house.ending(".md")) {
        let rust = file.path.ends_with(".rs");
        for (i, line) in file.text.lines().enumerate() {
            let mut line = line.trim_start();
            if rust {
                let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
                let Some(doc) = doc else { continue };
                line = doc.trim_start();
            }
            let Some(info) = line.strip_prefix("```") else { continue };
            if info.split([',', ' ']).any(|w| w == "ignore" || w == "no_run") {
                found.push(Complaint::new(&file.path, i + 1, "an example that nothing runs"));
            }
        }
    }
    found
}

fn misplaced_unsafe(file: &File, code: &str) -> Vec<Complaint> {
    if UNSAFE_CRATES.iter().any(|c| file.path.starts_with(c)) {
        return Vec::new();
    }
    let at = lines_of(code, "unsafe").into_iter();
    at.map(|line| Complaint::new(&file.path, line, "unsafe outside of rcu and gracepoint"))
        .collect()
}

fn unsafe_not_forbidden(house: &House) -> Vec<Complaint> {
    let mut found = Vec::new();
    for folder in SAFE_CRATES {
        for root in ["src/lib.rs", "src/main.rs"] {
            let path = format!("{folder}/{root}");
            let Some(file) = house.files.iter().find(|f| f.path == path) else { continue };
            if !code_only(&file.text).contains("#![forbid(unsafe_code)]") {
                found.push(Complaint::new(&path, 1, "does not say `#![forbid(unsafe_code)]`"));
            }
        }
    }
    found
}

fn misplaced_asm(file: &File, code: &str) -> Vec<Complaint> {
    if ASM_FOLDERS.iter().any(|f| file.path.starts_with(f)) {
        return Vec::new();
    }
    let at = ["asm!", "global_asm!", "naked_asm!"].into_iter().flat_map(|w| lines_of(code, w));
    at.map(|line| Complaint::new(&file.path, line, "assembly outside of an arch/ folder")).collect()
}

/// Atomics of the standard library named in rcu, other than in the one door.
fn second_door(file: &File, code: &str) -> Vec<Complaint> {
    if !file.path.starts_with("crates/rcu/src/") || file.path == "crates/rcu/src/sync.rs" {
        return Vec::new();
    }
    // Statement by statement, so that a grouped import is seen whole.
    let mut found = Vec::new();
    let mut line = 1;
    for statement in code.split_inclusive(';') {
        let tight: String = statement.split_whitespace().collect();
        let named = ["std::sync::atomic", "core::sync::atomic"].iter().any(|p| tight.contains(p));
        let grouped = ["usestd::", "usecore::"].iter().any(|p| tight.contains(p))
            && !lines_of(statement, "atomic").is_empty();
        let last = line + statement.matches('\n').count();
        if named || grouped {
            let what = "std's atomics are named in src/sync.rs alone; use crate::sync";
            found.push(Complaint::new(&file.path, last, what));
        }
        line = last;
    }
    found
}

fn each_manifest(house: &House, check: fn(&File, &str) -> Vec<Complaint>) -> Vec<Complaint> {
    let member = |f: &&File| f.path.contains('/');
    house
        .ending("Cargo.toml")
        .filter(member)
        .flat_map(|f| check(f, f.path.trim_end_matches("/Cargo.toml")))
        .collect()
}

/// The lines of a manifest with the section that each stands in; comments left out.
fn manifest_lines(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(i, line)| {
        let line = line.split('#').next().unwrap_or(line).trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
        (!line.is_empty()).then_some((i + 1, section, line))
    })
}

/// Packages that the manifest names in `[dependencies]` and the like, tests left out.
fn dependencies(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, section, line) in manifest_lines(text) {
        let mut parts = section.rsplit('.');
        let last = parts.next().unwrap_or_default();
        let before = parts.next().unwrap_or_default();
        let is_list = |s: &str| s == "dependencies" || s == "build-dependencies";
        if is_list(last) && section != "workspace.dependencies" && !line.starts_with('[') {
            let renamed = line.split("package = \"").nth(1).and_then(|r| r.split('"').next());
            let name = line.split(['=', '.', ' ']).next().unwrap_or(line);
            found.push((number, renamed.unwrap_or(name).to_owned()));
        } else if is_list(before) && line.starts_with('[') {
            found.push((number, last.to_owned()));
        }
    }
    found
}

fn against_the_arrows(file: &File, folder: &str) -> Vec<Complaint> {
    if !folder.starts_with("crates/") {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
        return vec![Complaint::new(&file.path, 1, "a new crate: give it a row in `ARROWS`")];
    };
    let nothing_at_all = ["crates/wire", "crates/model"].contains(&folder);
    let ours = |name: &str| name == "gracepoint" || name.starts_with("gracepoint-");
    dependencies(&file.text)
        .into_iter()
        .filter(|(_, name)| (nothing_at_all || ours(name)) && !allowed.contains(&name.as_str()))
        .map(|(line, name)| Complaint::new(&file.path, line, format!("must not need `{name}`")))
        .collect()
}

fn own_ways(file: &File, _: &str) -> Vec<Complaint> {
    let says = |section: &str, wanted: &str| {
        manifest_lines(&file.text).any(|(_, s, line)| s == section && line == wanted)
    };
    let mut found = Vec::new();
    if !says("lints", "workspace = true") {
        found.push(Complaint::new(&file.path, 1, "no `[lints] workspace = true`"));
    }
    if !says("package", "rust-version.workspace = true") {
        found.push(Complaint::new(&file.path, 1, "no `rust-version.workspace = true`"));
    }
    found
}

#[test]
fn dependencies_are_read_as_cargo_does() {
    let text = "[dependencies]\na.workspace = true\nb = { package = \"c\" } # x\n[dev-dependencies]\n\
                d = \"1\"\n[target.'cfg(unix)'.dependencies.e]\nversion = \"1\"\n";
    let names: Vec<String> = dependencies(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "c", "e"]);
}
