//! Names that an event or a field cannot have.

#[derive(gracepoint::Event)]
#[event(name = "get")]
struct NoProvider;

#[derive(gracepoint::Event)]
#[event(name = "")]
struct Empty;

#[derive(gracepoint::Event)]
#[event(name = ":get")]
struct EmptyProvider;

#[derive(gracepoint::Event)]
#[event(name = "kv:get it")]
struct Space;

#[derive(gracepoint::Event)]
#[event(name = "kv:\"get\"")]
struct Quotes;

#[derive(gracepoint::Event)]
#[event(name = "kv::get")]
struct RustPath;

#[derive(gracepoint::Event)]
#[event(name = "kv:get\n")]
struct Newline;

#[derive(gracepoint::Event)]
#[event(name = "gp:loss")]
struct Reserved;

#[derive(gracepoint::Event)]
struct Fields {
    größe: u8,
    _unused: u8,
    #[event(rename = "two words")]
    renamed: u8,
    one: u8,
    #[event(rename = "one")]
    two: u8,
}

fn main() {}
