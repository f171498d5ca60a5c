//! A page is shown in the user's browser.

use crate::escape::shown;
use crate::failure::{Failure, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a page goes that is only looked at: the user's runtime directory, else the one for temporary
/// files.
pub(super) fn passing_file() -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("gracepoint-{}-{}.html", std::process::id(), now.as_millis());
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    Ok(runtime.unwrap_or_else(std::env::temp_dir).join(name))
}

/// Starts what `$BROWSER` names, else `xdg-open`.
///
/// # Errors
/// When it cannot be started, or ends at once with a failure.
pub(super) fn open(path: &Path) -> Result<()> {
    let own = std::env::var("BROWSER").ok().filter(|name| !name.trim().is_empty());
    let names = own.as_deref().unwrap_or("xdg-open");
    let fail = |why: &dyn std::fmt::Display| {
        Failure::new(format!(
            "cannot start a browser ({}: {why}): open {} yourself, or set BROWSER",
            shown(names),
            shown(&path.to_string_lossy())
        ))
    };
    let path = std::fs::canonicalize(path).map_err(|e| fail(&e))?;
    let mut last = None;
    // Alternatives stand between colons, as other programs have it.
    for name in names.split(':').filter(|name| !name.is_empty()) {
        let mut words = name.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or(name));
        command.args(words).arg(&path);
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(mut child) if own.is_none() => {
                // xdg-open hands the page on, and says by its status whether anybody took it.
                let status = child.wait().map_err(|e| fail(&e))?;
                return if status.success() { Ok(()) } else { Err(fail(&status)) };
            }
            Ok(_) => return Ok(()),
            Err(e) => last = Some(e),
        }
    }
    Err(last.map_or_else(|| fail(&"no name"), |e| fail(&e)))
}
