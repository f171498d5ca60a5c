//! What the models find for the kernel's ways, as files that `gracepoint scenario` prints.
//! `GRACEPOINT_BLESS=1` writes them anew.

use gracepoint_model::Failure;
use std::path::Path;

/// The file must hold this failure: its story, then what came of it.
pub(crate) fn is_told(name: &str, failure: &Failure) {
    let mut text = String::new();
    for line in &failure.story {
        text += line.trim_end();
        text.push('\n');
    }
    text += &failure.cause.to_string();
    text.push('\n');
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/src/scenario");
    let path = folder.join(format!("{name}.schedule"));
    if std::env::var_os("GRACEPOINT_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "{}: GRACEPOINT_BLESS=1 writes it anew", path.display());
}
