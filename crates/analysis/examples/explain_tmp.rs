#[path = "../../../bench/src/explain.rs"]
mod explain;
fn main() {
    explain::run(std::path::Path::new("/work/shared/kernel-logs"), false).unwrap();
}
