//! Things that cannot be a field by `derive(Field)`.

#[derive(gracepoint::Field)]
enum Outcome {
    Hit,
    Error(String),
    Slow { seconds: u8 },
}

#[derive(gracepoint::Field)]
struct Point {
    x: u8,
}

#[derive(gracepoint::Field)]
#[event(name = "a:b")]
enum Named {
    One,
}

#[derive(gracepoint::Field)]
enum Generic<const N: usize> {
    One,
}

fn main() {}
