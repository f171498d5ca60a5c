//! The kernel's own tracepoints, as tracefs lists them.

use super::format::Format;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where tracefs is mounted, most likely.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Its mount, if it can be read.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn root() -> Result<PathBuf, String> {
    let own = std::env::var_os("GRACEPOINT_TRACEFS").map(PathBuf::from);
    if let Some(own) = own.filter(|own| own.join("events").is_dir()) {
        return Ok(own);
    }
    let elsewhere = std::env::var_os("GRACEPOINT_TRACEFS").is_some();
    let found = PLACES
        .iter()
        .filter(|_| !elsewhere)
        .map(Path::new)
        .find(|place| place.join("events").is_dir());
    found.map(Path::to_owned).ok_or_else(|| {
        "the kernel's tracepoints cannot be read: as root, mount -t tracefs tracefs /sys/kernel/tracing, \
         and allow others to read it"
            .to_owned()
    })
}

/// The names of all tracepoints, sorted.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn names() -> Result<Vec<String>, String> {
    let path = root()?.join("available_events");
    let text = fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
    let mut names: Vec<String> =
        text.lines().filter(|name| split(name).is_some()).map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// How the kernel writes the tracepoint `system:name`.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn format(name: &str) -> Result<Format, String> {
    let path = file(name, "format")?;
    let text = fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
    Format::parse(name, &text).ok_or_else(|| format!("{} is not understood", path.display()))
}

/// The number of the tracepoint `system:name`.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn number(name: &str) -> Result<u64, String> {
    let path = file(name, "id")?;
    let text = fs::read_to_string(&path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            format!("neither the program nor the kernel has a tracepoint {name}")
        }
        _ => unreadable(&path, &e),
    })?;
    text.trim().parse().map_err(|_| format!("{} holds no number", path.display()))
}

fn file(name: &str, leaf: &str) -> Result<PathBuf, String> {
    let (system, event) = split(name).ok_or_else(|| format!("{name} is no SYSTEM:EVENT"))?;
    Ok(root()?.join("events").join(system).join(event).join(leaf))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!(
            "{} may not be read: as root, or mount -o remount,mode=755 /sys/kernel/tracing",
            path.display()
        ),
        _ => format!("cannot read {}: {error}", path.display()),
    }
}

/// `system:event`, neither of which leads elsewhere.
fn split(name: &str) -> Option<(&str, &str)> {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    name.split_once(':').filter(|(system, event)| plain(system) && plain(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(split("sched:sched_switch"), Some(("sched", "sched_switch")));
        for name in ["sched", "sched:", ":x", "../x:y", "a:../../b", "a:b:c"] {
            assert_eq!(split(name), None, "{name}");
        }
    }
}
