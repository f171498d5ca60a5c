//! Names that spans need.

#[derive(gracepoint::Event)]
struct Step {
    span: u64,
    #[event(rename = "parent")]
    up: u64,
}

fn main() {}
