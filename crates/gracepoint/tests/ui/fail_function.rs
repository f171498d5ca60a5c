//! What the attributes of functions say to what they cannot do.

#[gracepoint::function]
const fn evaluated() {}

#[gracepoint::function(arguments(a))]
fn unknown(a: u32) {}

#[gracepoint::function(args(a, a))]
fn twice(a: u32) {}

#[gracepoint::function(args(b))]
fn no_such(a: u32) {}

#[gracepoint::function(args(a))]
fn generic<T>(a: T) {}

#[gracepoint::function(args(a = hex))]
fn how(a: u32) {}

#[gracepoint::function(ret)]
fn nothing() {}

#[gracepoint::function(ret, err)]
fn both() -> Result<u32, String> {
    Ok(1)
}

#[gracepoint::function(ret)]
#[track_caller]
fn tracks() -> u32 {
    1
}

#[gracepoint::functions]
struct NotFunctions;

fn main() {}
