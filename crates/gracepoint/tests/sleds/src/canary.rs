//! The same program with trampolines that are wrong on purpose.

fn main() {
    gracepoint_sleds::main();
}
