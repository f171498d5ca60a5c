//! Things that cannot be events.

#[derive(gracepoint::Event)]
struct Tuple(u8, u16);

#[derive(gracepoint::Event)]
struct Generic<T> {
    value: T,
}

#[derive(gracepoint::Event)]
struct Sized<const N: usize> {
    value: [u8; N],
}

#[derive(gracepoint::Event)]
enum Choice {
    One,
}

#[derive(gracepoint::Event)]
union Both {
    one: u8,
    two: i8,
}

fn main() {}
