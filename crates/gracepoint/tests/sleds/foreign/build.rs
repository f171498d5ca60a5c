//! Objects of C: what Rust has no words for (`setjmp`), by any compiler, and functions with sleds, by clang where it is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Compiles a file of this folder. None where there is no such compiler.
fn compile(compiler: &str, file: &str, flags: &[&str]) -> Option<PathBuf> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where"));
    let object = out.join(file).with_extension("o");
    let source = Path::new("foreign").join(file);
    println!("cargo:rerun-if-changed={}", source.display());
    let mut command = Command::new(compiler);
    command.args(["-O2", "-fPIC", "-c"]).args(flags).arg(&source).arg("-o").arg(&object);
    let status = command.stdin(Stdio::null()).status().ok()?;
    assert!(status.success(), "{command:?}: {status}");
    println!("cargo:rustc-link-arg-bins={}", object.display());
    Some(object)
}

fn main() {
    println!("cargo:rerun-if-changed=foreign/build.rs");
    println!("cargo:rustc-check-cfg=cfg(clang)");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return;
    }
    compile("cc", "jumps.c", &[]).expect("a C compiler, with which Rust links");
    let xray = ["-fxray-instrument", "-fxray-instruction-threshold=1"];
    if compile("clang", "foreign.c", &xray).is_some() {
        let plus = [&xray[..], &["-fno-exceptions", "-fno-rtti"]].concat();
        compile("clang", "store.cc", &plus).expect("clang is here");
        println!("cargo:rustc-cfg=clang");
    }
}
