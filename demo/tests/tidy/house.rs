//! The files of the repository, as the rules see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All text files of the repository, by path from its root.
pub(crate) struct House {
    pub(crate) files: Vec<File>,
    /// Every folder and file, text or not, so that a path in a document can be looked up.
    pub(crate) paths: Vec<String>,
}

/// One text file.
pub(crate) struct File {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl House {
    /// The repository that this test was built from.
    pub(crate) fn open() -> House {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("demo/ has a parent");
        let names = tracked(root).unwrap_or_else(|| walk(root));
        let mut house = House { files: Vec::new(), paths: Vec::new() };
        for name in names {
            // A file that was removed but is still in the index, or a link to nowhere.
            let Ok(bytes) = fs::read(root.join(&name)) else { continue };
            house.add(&name, String::from_utf8(bytes).ok());
        }
        house
    }

    /// A house of these files only, for the tests of the rules.
    pub(crate) fn of(files: &[(&str, &str)]) -> House {
        let mut house = House { files: Vec::new(), paths: Vec::new() };
        for (path, text) in files {
            house.add(path, Some((*text).to_owned()));
        }
        house
    }

    fn add(&mut self, path: &str, text: Option<String>) {
        for (i, _) in path.match_indices('/') {
            let folder = path[..i].to_owned();
            if !self.paths.contains(&folder) {
                self.paths.push(folder);
            }
        }
        self.paths.push(path.to_owned());
        if let Some(text) = text {
            self.files.push(File { path: path.to_owned(), text });
        }
    }

    /// Files whose name ends in `end`.
    pub(crate) fn ending(&self, end: &'static str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |f| f.path.ends_with(end))
    }

    /// Whether a file or folder of this path is here.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.paths.iter().any(|p| p == path)
    }
}

/// What git knows: tracked files, and new ones that nothing ignores.
fn tracked(root: &Path) -> Option<Vec<String>> {
    let out = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let names: Vec<String> = text.split('\0').filter(|n| !n.is_empty()).map(String::from).collect();
    (out.status.success() && !names.is_empty()).then_some(names)
}

/// Without git: everything but build output and hidden folders other than `.ci`.
fn walk(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
            if is_folder && (name.starts_with("target") || name.starts_with('.') && name != ".ci") {
                continue;
            } else if is_folder {
                todo.push(path);
            } else if let Ok(relative) = path.strip_prefix(root) {
                names.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    names
}

#[test]
fn walking_finds_what_git_knows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("demo/ has a parent");
    let walked = walk(root);
    assert!(walked.iter().any(|n| n == "demo/tests/tidy/house.rs"));
    assert!(!walked.iter().any(|n| n.starts_with("target/") || n.starts_with(".git/")));
}
