//! Compiles a stack with frame pointers; and the shim around liburcu, once for each flavour, where liburcu is installed. Where it is
//! not, the crate is built without, and says so when it is asked. (Installed later: `cargo clean -p
//! gracepoint-bench-peers`.)
#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::error::Error;
use std::path::PathBuf;

const SHIM: &str = "src/liburcu.c";
const DEEP: &str = "src/deep.c";
const FLAVOURS: [&str; 3] = ["memb", "qsbr", "bp"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-changed={DEEP}");
    cc::Build::new()
        .file(DEEP)
        .opt_level(1)
        .flag("-fno-omit-frame-pointer")
        .flag("-fno-optimize-sibling-calls")
        .warnings(true)
        .try_compile("gp_deep")?;
    // Not its headers: where they are missing, cargo would build this anew each time.
    println!("cargo::rustc-check-cfg=cfg(liburcu)");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !linux || !links()? {
        return Ok(());
    }
    for flavour in FLAVOURS {
        shim(flavour).try_compile(&format!("gp_urcu_{flavour}"))?;
        println!("cargo:rustc-link-lib=dylib=urcu-{flavour}");
    }
    println!("cargo:rustc-link-lib=dylib=urcu-common");
    println!("cargo:rustc-cfg=liburcu");
    Ok(())
}

/// As liburcu's own users build it for speed: inlined, optimised, and with thread-locals in the form that
/// an executable has.
fn shim(flavour: &str) -> cc::Build {
    let mut build = cc::Build::new();
    build.file(SHIM).opt_level(2).flag("-ftls-model=initial-exec").warnings(true);
    build.define("FLAVOUR", flavour).define("HEADER", &*format!("<urcu/urcu-{flavour}.h>"));
    build.define(&format!("FLAVOUR_{flavour}"), None);
    build
}

/// Whether headers and libraries are there: by building a program with each of them.
fn links() -> Result<bool, Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for flavour in FLAVOURS {
        let program = out.join("probe.c");
        let text = format!("#include <urcu/urcu-{flavour}.h>\nint main(void) {{ return 0; }}\n");
        std::fs::write(&program, text)?;
        let Ok(compiler) = shim(flavour).try_get_compiler() else { return Ok(false) };
        let mut command = compiler.to_command();
        command.arg(&program).arg("-o").arg(out.join("probe"));
        command.arg(format!("-lurcu-{flavour}")).arg("-lurcu-common");
        // What it complains about is expected where liburcu is missing.
        if !command.output().is_ok_and(|done| done.status.success()) {
            return Ok(false);
        }
    }
    Ok(true)
}
