//! Attributes with mistakes in them.

#[derive(gracepoint::Event)]
#[event(nam = "kv:get")]
struct Misspelt;

#[derive(gracepoint::Event)]
#[event(name = "kv:get", name = "kv:put")]
struct Twice;

#[derive(gracepoint::Event)]
#[event(name = 7)]
struct NotText;

#[derive(gracepoint::Event)]
struct Fields {
    #[event(dbug)]
    misspelt: u8,
    #[event(limit = 2)]
    small: String,
    #[event(limit = 16385)]
    large: String,
    #[event(limit = "1")]
    text: String,
    #[event(debug, limit = 2000)]
    rendered: String,
    #[event(debug, display)]
    both: String,
}

#[derive(gracepoint::Event)]
struct Counters {
    #[event(counter, display)]
    rendered: u8,
}

#[derive(gracepoint::Event)]
struct NoNumber<'a> {
    #[event(counter)]
    text: &'a str,
}

fn main() {}
