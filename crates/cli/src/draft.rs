//! A file that appears under its name when it is whole: until then it is written beside it under a hidden
//! name, which goes away when the command fails or is interrupted.

use crate::escape::shown;
use crate::failure::{Failure, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file on its way to its name; it goes away with this unless it is kept.
pub(crate) struct Draft {
    pub(crate) file: File,
    hidden: PathBuf,
    path: PathBuf,
    force: bool,
    kept: bool,
}

impl Draft {
    /// # Errors
    /// Where there is something already (without `force`, or that is no file), or nothing can be created.
    pub(crate) fn new(path: &Path, force: bool) -> Result<Draft> {
        // The file that a link leads to is replaced, and not the link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = shown(&path.to_string_lossy()).into_owned();
        match std::fs::symlink_metadata(&path) {
            Ok(about) if !about.is_file() => {
                let text = format!("{name} is no file that can be replaced: give another by -o");
                return Err(Failure::new(text));
            }
            Ok(_) if !force => return Err(exists(&path)),
            _ => {}
        }
        let Some(leaf) = path.file_name() else {
            return Err(Failure::new(format!("{name} is no name for a file")));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(leaf);
        hidden.push(format!(".{}.part", std::process::id()));
        let hidden = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden);
        let file = file.map_err(|e| Failure::new(format!("cannot create {name}: {e}")))?;
        Ok(Draft { file, hidden, path, force, kept: false })
    }

    /// Says of which file an error tells.
    pub(crate) fn named(&self, error: Failure) -> Failure {
        match error {
            Failure::Said { text, status } if text.starts_with("cannot write the output") => {
                self.unwritten(Failure::Said { text, status })
            }
            other => other,
        }
    }

    /// Says that there is no file because of an error.
    pub(crate) fn unwritten(&self, error: Failure) -> Failure {
        match error {
            Failure::Said { text, status } => {
                let name = shown(&self.path.to_string_lossy()).into_owned();
                Failure::Said { text: format!("{text}; {name} was not written"), status }
            }
            other => other,
        }
    }

    /// Gives the file its name.
    pub(crate) fn keep(&mut self) -> Result<()> {
        let fail = |e: &dyn std::fmt::Display| {
            Failure::new(format!("cannot name {}: {e}", shown(&self.path.to_string_lossy())))
        };
        if self.force {
            std::fs::rename(&self.hidden, &self.path).map_err(|e| fail(&e))?;
        } else {
            match renameat_with(CWD, &self.hidden, CWD, &self.path, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(exists(&self.path)),
                // The filesystem cannot do it at once. A link fails too where there is a file.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    std::fs::hard_link(&self.hidden, &self.path).map_err(|e| match e.kind() {
                        ErrorKind::AlreadyExists => exists(&self.path),
                        _ => fail(&e),
                    })?;
                    return Ok(()); // the hidden name goes with this
                }
                Err(e) => return Err(fail(&e)),
            }
        }
        self.kept = true;
        Ok(())
    }
}

fn exists(path: &Path) -> Failure {
    let name = shown(&path.to_string_lossy()).into_owned();
    Failure::new(format!("{name} exists: give another file by -o, or --force to replace it"))
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.hidden);
        }
    }
}
