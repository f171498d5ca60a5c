//! A struct without the derive.

struct Plain;

fn needs_event<E: gracepoint::event::Event>(_: &E) {}

fn main() {
    needs_event(&Plain);
}
