//! Decides how sites are switched: patched code on x86-64 Linux, a load and a branch elsewhere and
//! where `GRACEPOINT_PATCH=branch` asks for it when building.

fn main() {
    println!("cargo:rerun-if-env-changed=GRACEPOINT_PATCH");
    println!("cargo:rustc-check-cfg=cfg(gp_branch)");
    println!("cargo:rustc-check-cfg=cfg(gp_supported)");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let linux = var("CARGO_CFG_TARGET_OS") == "linux";
    let pointers = var("CARGO_CFG_TARGET_POINTER_WIDTH");
    let arch = var("CARGO_CFG_TARGET_ARCH");
    let known = matches!(arch.as_str(), "x86_64" | "aarch64" | "riscv64");
    let wish = var("GRACEPOINT_PATCH");
    // "text" and "mem" are told apart at run time.
    let patched = matches!(wish.as_str(), "text" | "mem" | "patch");
    if !wish.is_empty() && wish != "branch" && !patched {
        println!("cargo::error=GRACEPOINT_PATCH={wish}: choose branch, or leave it unset");
    }
    let off = std::env::var_os("CARGO_FEATURE_OFF").is_some();
    if linux && pointers == "64" && known && !off && std::env::var_os("CARGO_CFG_MIRI").is_none() {
        println!("cargo:rustc-cfg=gp_supported");
        if arch != "x86_64" || wish == "branch" {
            println!("cargo:rustc-cfg=gp_branch");
        }
    }
}
