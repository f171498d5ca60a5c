//! See the library, which has all of it.

fn main() {
    gracepoint_sleds::main();
}
