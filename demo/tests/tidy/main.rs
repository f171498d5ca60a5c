//! The tidy test: the style of the house, checked by a program.
//!
//! It reads the files that git knows (or walks the folder where there is no git), and applies
//! each rule of [`rules`] and [`paper`] to them. It depends on the standard library alone, so it
//! can also be run when nothing else compiles. Every rule carries an example that it must reject:
//! a rule that cannot fail is not a rule.
#![forbid(unsafe_code)]

mod house;
mod paper;
mod rules;
mod rust_text;

use house::House;

/// One rule: its name, the check, and a house that breaks it.
struct Rule {
    name: &'static str,
    check: fn(&House) -> Vec<Complaint>,
    /// `(path, text)` of files that the rule must complain about, each of them.
    broken: &'static [(&'static str, &'static str)],
}

/// What is wrong, and where.
#[derive(Debug)]
struct Complaint {
    path: String,
    line: usize,
    what: String,
}

impl Complaint {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Complaint {
        Complaint { path: path.to_owned(), line, what: what.into() }
    }
}

fn all_rules() -> impl Iterator<Item = &'static Rule> {
    rules::RULES.iter().chain(paper::RULES)
}

#[test]
fn the_house_is_tidy() {
    let house = House::open();
    assert!(house.files.len() > 20, "only {} files were found", house.files.len());
    let mut text = String::new();
    for rule in all_rules() {
        for c in (rule.check)(&house) {
            text += &format!("\n{}:{}: {} [{}]", c.path, c.line, c.what, rule.name);
        }
    }
    assert!(text.is_empty(), "the house is not tidy:{text}\n");
}

#[test]
fn every_rule_rejects_its_examples() {
    for rule in all_rules() {
        assert!(!rule.broken.is_empty(), "{} has no example", rule.name);
        for (path, text) in rule.broken {
            // `@` stands for nothing: it keeps the examples from being found in this very file.
            let house = House::of(&[(path, &text.replace('@', ""))]);
            let found = (rule.check)(&house);
            assert!(found.iter().any(|c| c.path == *path), "{} accepts {path}: {text}", rule.name);
        }
    }
}

#[test]
fn every_rule_accepts_a_good_house() {
    let house = House::of(&[
        ("README.md", "See `crates/rcu/src/sync.rs`, `rcu/src/arch/` and [more](crates/rcu).\n"),
        (
            "crates/wire/Cargo.toml",
            "[package]\nrust-version.workspace = true\n[lints]\nworkspace = true\n",
        ),
        ("crates/wire/src/lib.rs", "//! Wire.\n#![forbid(unsafe_code)]\n"),
        ("crates/rcu/src/sync.rs", "//! Door.\npub use std::sync::atomic::AtomicU8;\n"),
        (
            "crates/rcu/src/lib.rs",
            "//! Not \"unsafe\": todo!().\nuse crate::sync::atomic;\nfn f() { unsafe { g() } }\n",
        ),
        ("crates/rcu/src/arch/x86_64.rs", "//! Asm.\nfn f() { asm!(\"nop\") }\n"),
    ]);
    for rule in all_rules() {
        let found = (rule.check)(&house);
        assert!(found.is_empty(), "{}: {found:?}", rule.name);
    }
}
