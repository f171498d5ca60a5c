//! The `metadata` file of a trace: CTF 1.8's description language, accepted by babeltrace2.
//!
//! Each field's name gets a leading underscore, which readers strip, so that a field may be called
//! `string` or `event`. The helpers of sequences and options start with two.

use crate::clock::{Clock, scale};
use crate::schema::{Context, Declared, Field, Tag, Type};
use std::fmt::Write;

/// Everything that goes into the metadata.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a> {
    /// What ticks mean; refine it first.
    pub clock: &'a Clock,
    /// What ids mean.
    pub events: &'a [Declared],
    /// What lies before the fields of each event.
    pub context: Context,
    /// Name and value pairs of the `env` block.
    pub env: &'a [(&'a str, String)],
}

/// The text of the `metadata` file.
pub fn metadata(m: &Metadata<'_>) -> String {
    let mut out = String::from(PRELUDE);
    out += "env {\n";
    for (name, value) in m.env {
        let _ = writeln!(out, "\t{name} = {};", quoted(value));
    }
    out += "};\n\n";
    write_clock(&mut out, m.clock);
    out += STREAM;
    if m.context != Context::default() {
        out += "\tevent.context := struct {\n";
        for field in m.context.fields() {
            write_field(&mut out, &field);
        }
        out += "\t};\n";
    }
    out += "};\n\n";
    for event in m.events {
        let _ = write!(
            out,
            "event {{\n\tname = {};\n\tid = {};\n\tstream_id = 0;\n",
            quoted(&event.full_name()),
            event.id
        );
        out += "\tfields := struct {\n";
        for field in event.full_fields() {
            write_field(&mut out, &field);
        }
        out += "\t};\n};\n\n";
    }
    out
}

const PRELUDE: &str = "/* CTF 1.8 */

typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
typealias integer { size = 8; align = 8; signed = true; } := int8_t;
typealias integer { size = 16; align = 8; signed = true; } := int16_t;
typealias integer { size = 32; align = 8; signed = true; } := int32_t;
typealias integer { size = 64; align = 8; signed = true; } := int64_t;
typealias integer { size = 8; align = 8; signed = false; encoding = UTF8; } := utf8_t;
typealias floating_point { exp_dig = 8; mant_dig = 24; align = 8; } := float32_t;
typealias floating_point { exp_dig = 11; mant_dig = 53; align = 8; } := float64_t;

trace {
	major = 1;
	minor = 8;
	byte_order = le;
	packet.header := struct {
		uint32_t magic;
		uint32_t stream_id;
		uint64_t stream_instance_id;
	};
};

";

const STREAM: &str = "struct event_header {
	enum : integer { size = 12; align = 1; signed = false; } { compact = 0 ... 4094, extended = 4095 } id;
	variant <id> {
		struct { ticks28_t timestamp; } compact;
		struct { uint32_t id; ticks64_t timestamp; } extended;
	} v;
} align(8);

stream {
	id = 0;
	event.header := struct event_header;
	packet.context := struct {
		ticks64_t timestamp_begin;
		ticks64_t timestamp_end;
		uint64_t content_size;
		uint64_t packet_size;
		uint64_t packet_seq_num;
		uint64_t events_discarded;
		uint32_t tid;
		utf8_t thread[16];
		uint32_t reserved;
	};
";

fn write_clock(out: &mut String, clock: &Clock) {
    let name = clock.source.name();
    let epoch = clock.epoch_ns();
    let offset = scale(epoch % 1_000_000_000, clock.freq_hz, 1_000_000_000);
    let _ = write!(
        out,
        "clock {{\n\tname = {name};\n\tfreq = {};\n\toffset_s = {};\n\toffset = {offset};\n\t\
         absolute = false;\n}};\n\n",
        clock.freq_hz,
        epoch / 1_000_000_000,
    );
    for (size, align) in [(28, 1), (64, 8)] {
        let _ = writeln!(
            out,
            "typealias integer {{ size = {size}; align = {align}; signed = false; \
             map = clock.{name}.value; }} := ticks{size}_t;"
        );
    }
    out.push('\n');
}

fn write_field(out: &mut String, field: &Field) {
    let name = &identifier(&field.name);
    let line = match &field.ty {
        Type::Seq(of) => {
            let of = spelled(of);
            format!(
                "uint32_t __{name}_total; uint16_t __{name}_length; {of} _{name}[__{name}_length];"
            )
        }
        Type::Array(of, n) => format!("{} _{name}[{n}];", spelled(of)),
        Type::Option(of) => {
            let some = match &**of {
                Type::Seq(of) => format!(
                    "struct {{ uint32_t _total; uint16_t _length; {} _items[_length]; }}",
                    spelled(of)
                ),
                Type::Array(of, n) => format!("struct {{ {} _items[{n}]; }}", spelled(of)),
                of => spelled(of),
            };
            format!(
                "enum : uint8_t {{ none = 0, some = 1 }} __{name}_tag; \
                 variant <__{name}_tag> {{ struct {{ }} none; {some} some; }} _{name};"
            )
        }
        Type::Any => {
            let names: Vec<String> =
                Tag::ALL.iter().map(|(tag, name, _)| format!("{name} = {}", *tag as u8)).collect();
            let kinds = Tag::ALL.iter().map(|(_, name, ty)| {
                let ty = ty.as_ref().map_or_else(|| "struct { }".into(), spelled);
                format!("{ty} {name};")
            });
            format!(
                "enum : uint8_t {{ {} }} __{name}_tag; variant <__{name}_tag> {{ {} }} _{name};",
                names.join(", "),
                kinds.collect::<Vec<_>>().join(" ")
            )
        }
        simple => format!("{} _{name};", spelled(simple)),
    };
    let _ = writeln!(out, "\t\t{line}");
}

/// A field's name as TSDL can spell it: what is not an ASCII letter, a digit or `_` becomes its code,
/// `größe` → `gr_uf6__udf_e`. Readers refuse a whole trace for one other character, and a hostile
/// program could end the block with one.
///
/// ```
/// use gracepoint_wire::tsdl::identifier;
/// assert_eq!(identifier("latency_ns"), "latency_ns");
/// assert_eq!(identifier("größe"), "gr_uf6__udf_e");
/// ```
pub fn identifier(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            c => {
                let _ = write!(out, "_u{:x}_", u32::from(c));
            }
        }
    }
    out
}

/// A type that needs no helper field.
fn spelled(ty: &Type) -> String {
    match ty {
        Type::Uint(16) => "struct { uint64_t _low; uint64_t _high; }".into(),
        Type::Int(16) => "struct { uint64_t _low; int64_t _high; }".into(),
        Type::Uint(n) => format!("uint{}_t", u32::from(*n) * 8),
        Type::Int(n) => format!("int{}_t", u32::from(*n) * 8),
        Type::Float(n) => format!("float{}_t", u32::from(*n) * 8),
        Type::Bool => "enum : uint8_t { \"false\" = 0, \"true\" = 1 }".into(),
        Type::Char | Type::Str => "string { encoding = UTF8; }".into(),
        Type::Duration => "uint64_t".into(),
        Type::Enum(size, names) => {
            let list: Vec<String> =
                names.iter().map(|(name, value)| format!("{} = {value}", quoted(name))).collect();
            // An enumeration without names is not allowed.
            if list.is_empty() {
                return format!("uint{}_t", u32::from(*size) * 8);
            }
            format!("enum : uint{}_t {{ {} }}", u32::from(*size) * 8, list.join(", "))
        }
        // Nested only by a peer that made its own types; the reader refuses the metadata then.
        Type::Seq(_) | Type::Array(..) | Type::Option(_) | Type::Any => "unsupported".into(),
    }
}

/// A TSDL string literal. Control characters cannot be written in one; they become `?`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Source, Triple};
    use crate::schema::{Role, Schema, loss_event};

    #[test]
    fn metadata_names_what_it_must() {
        let field = |name: &str, ty: &str| Field {
            name: name.into(),
            ty: ty.parse().unwrap(),
            docs: String::new(),
        };
        let event = Declared {
            id: 16,
            role: Role::Begin,
            schema: Schema {
                name: "a:\"b\"".into(),
                docs: String::new(),
                fields: vec![
                    field("event", "u32"),
                    field("x", "?[u8]"),
                    field("e", "enum1{A=0}"),
                    field("ü; }", "u8"),
                ],
            },
        };
        let clock = Clock {
            source: Source::Tsc,
            freq_hz: 2_000_000_000,
            boot_id: [0; 16],
            triples: vec![Triple { ticks: 2_000_000_000, mono_ns: 0, real_ns: 11_500_000_000 }],
        };
        let events = [loss_event(), event];
        let env = [("program", "k\nv".to_owned())];
        let context = Context::CPU.with(Context::STACK);
        let text = metadata(&Metadata { clock: &clock, events: &events, context, env: &env });
        for line in [
            "\tevent.context := struct {",
            "\t\tuint32_t _cpu_id;",
            "\tprogram = \"k?v\";",
            "\tfreq = 2000000000;",
            "\toffset_s = 10;",
            "\toffset = 1000000000;",
            "\tname = \"a:\\\"b\\\":begin\";",
            "\t\tuint64_t _span;",
            "\t\tuint32_t _event;",
            "\t\tenum : uint8_t { \"A\" = 0 } _e;",
            "\t\tuint8_t __ufc__u3b__u20__u7d_;",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
    }
}
