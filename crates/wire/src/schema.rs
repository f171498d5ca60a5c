//! Event descriptions. A type has one canonical spelling, which goes over the socket, into the
//! trace's description file and into the schema hash; whoever compares spellings compares types.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Longest text or byte field in a record, in bytes, unless the program asks for another bound.
pub const DEFAULT_TEXT_LIMIT: usize = 1024;
/// Ids below this belong to Gracepoint's own events (`gp:*`).
pub const FIRST_USER_ID: u32 = 16;
/// Id of `gp:loss`.
pub const LOSS_ID: u32 = 0;
/// Id of `gp:throttle`.
pub const THROTTLE_ID: u32 = 1;
/// Id of `gp:unthrottle`.
pub const UNTHROTTLE_ID: u32 = 2;
/// Id of `gp:module`.
pub const MODULE_ID: u32 = 3;
/// Name of the event that says where an object of the program is loaded.
pub const MODULE_NAME: &str = "gp:module";
/// Name of the event that says how many events of one kind were lost since the last such record.
pub const LOSS_NAME: &str = "gp:loss";
/// Deepest nesting a parsed type may have.
const MAX_DEPTH: u32 = 8;

/// How a field is written in a record. Everything is byte-aligned.
///
/// | type | canonical spelling | bytes |
/// |---|---|---|
/// | integers | `u8` … `u64`, `i8` … `i64` | as many |
/// | wide integers | `u128`, `i128` | 16: low word, high word |
/// | floats | `f32`, `f64` | 4, 8 |
/// | `bool` | `bool` | 1: 0 or 1 |
/// | `char` | `char` | UTF-8 and a NUL; U+0000 is empty |
/// | text | `str` | the bytes and a NUL; a NUL inside is `C0 80` |
/// | duration | `ns` | 8: nanoseconds, saturating |
/// | sequence of numbers | `[u16]` | u32 length of the original, u16 number kept, the elements |
/// | array of numbers | `[u16;3]` | the elements |
/// | optional | `?u16` | u8: 0, or 1 and the value |
/// | enumeration | `enum1{A=0,B=1}` | 1, 2, 4 or 8: the value |
/// | any of these | `any` | u8: a [`Tag`], and the value that it names |
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    /// Unsigned integer of 1, 2, 4, 8 or 16 bytes.
    Uint(u8),
    /// Signed integer of 1, 2, 4, 8 or 16 bytes.
    Int(u8),
    /// IEEE 754 float of 4 or 8 bytes.
    Float(u8),
    /// One byte, 0 or 1.
    Bool,
    /// One Unicode scalar value as NUL-terminated UTF-8.
    Char,
    /// NUL-terminated text; need not be valid UTF-8.
    Str,
    /// A length of time in nanoseconds.
    Duration,
    /// A sequence of numbers, cut at the program's text limit.
    Seq(Box<Type>),
    /// A fixed number of numbers.
    Array(Box<Type>, u32),
    /// Nothing or a value.
    Option(Box<Type>),
    /// A fieldless enum: size of the value in bytes, and its names.
    Enum(u8, Vec<(String, u64)>),
    /// A value that says of itself what it is: of call sites whose types are known at a hit and not
    /// before, and may differ from hit to hit.
    Any,
}

/// What a value of type [`Type::Any`] is: its first byte, and its name in the trace's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// Nothing: the field had no value at this hit.
    None = 0,
    /// 8 bytes.
    U64 = 1,
    /// 8 bytes.
    I64 = 2,
    /// 8 bytes.
    F64 = 3,
    /// One byte, 0 or 1.
    Bool = 4,
    /// NUL-terminated text.
    Text = 5,
    /// 16 bytes.
    U128 = 6,
    /// 16 bytes.
    I128 = 7,
}

impl Tag {
    /// All, by their numbers, with their names and the types of the values.
    pub const ALL: [(Tag, &'static str, Option<Type>); 8] = [
        (Tag::None, "none", None),
        (Tag::U64, "u64", Some(Type::Uint(8))),
        (Tag::I64, "i64", Some(Type::Int(8))),
        (Tag::F64, "f64", Some(Type::Float(8))),
        (Tag::Bool, "boolean", Some(Type::Bool)),
        (Tag::Text, "text", Some(Type::Str)),
        (Tag::U128, "u128", Some(Type::Uint(16))),
        (Tag::I128, "i128", Some(Type::Int(16))),
    ];

    /// The tag with this number.
    ///
    /// ```
    /// use gracepoint_wire::schema::Tag;
    /// assert_eq!(Tag::from_u8(5), Some(Tag::Text));
    /// assert_eq!(Tag::from_u8(8), None);
    /// ```
    pub fn from_u8(n: u8) -> Option<Tag> {
        Tag::ALL.get(usize::from(n)).map(|(tag, ..)| *tag)
    }

    /// Bytes of the value behind the tag; `None` for text, which ends with its NUL.
    pub fn value_size(self) -> Option<usize> {
        match self {
            Tag::None => Some(0),
            Tag::U64 | Tag::I64 | Tag::F64 => Some(8),
            Tag::Bool => Some(1),
            Tag::Text => None,
            Tag::U128 | Tag::I128 => Some(16),
        }
    }
}

impl Type {
    /// Bytes of an element of a sequence or array; `None` where the type is not a number.
    pub fn number_size(&self) -> Option<usize> {
        match *self {
            Type::Uint(n) | Type::Int(n) | Type::Float(n) => Some(usize::from(n)),
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Uint(n) => write!(f, "u{}", u32::from(*n) * 8),
            Type::Int(n) => write!(f, "i{}", u32::from(*n) * 8),
            Type::Float(n) => write!(f, "f{}", u32::from(*n) * 8),
            Type::Bool => f.write_str("bool"),
            Type::Char => f.write_str("char"),
            Type::Str => f.write_str("str"),
            Type::Duration => f.write_str("ns"),
            Type::Seq(of) => write!(f, "[{of}]"),
            Type::Array(of, n) => write!(f, "[{of};{n}]"),
            Type::Option(of) => write!(f, "?{of}"),
            Type::Enum(size, names) => {
                write!(f, "enum{size}{{")?;
                for (i, (name, value)) in names.iter().enumerate() {
                    write!(f, "{}{name}={value}", if i == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
            Type::Any => f.write_str("any"),
        }
    }
}

impl FromStr for Type {
    type Err = Error;

    fn from_str(text: &str) -> Result<Type> {
        parse_type(text, 0)
    }
}

fn parse_type(text: &str, depth: u32) -> Result<Type> {
    let bad = || {
        Error::new(format!(
            "field type {text:?} is not known; the trace may be newer than this tool"
        ))
    };
    if depth > MAX_DEPTH {
        return Err(bad());
    }
    if let Some(of) = text.strip_prefix('?') {
        return Ok(Type::Option(Box::new(parse_type(of, depth + 1)?)));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        let (of, count) = match inner.rsplit_once(';') {
            Some((of, n)) => (of, Some(n.parse::<u32>().map_err(|_| bad())?)),
            None => (inner, None),
        };
        let of = parse_type(of, depth + 1)?;
        of.number_size().ok_or_else(bad)?;
        return Ok(match count {
            Some(n) => Type::Array(Box::new(of), n),
            None => Type::Seq(Box::new(of)),
        });
    }
    if let Some(rest) = text.strip_prefix("enum") {
        return parse_enum(rest).ok_or_else(bad);
    }
    Ok(match text {
        "u8" => Type::Uint(1),
        "u16" => Type::Uint(2),
        "u32" => Type::Uint(4),
        "u64" => Type::Uint(8),
        "u128" => Type::Uint(16),
        "i8" => Type::Int(1),
        "i16" => Type::Int(2),
        "i32" => Type::Int(4),
        "i64" => Type::Int(8),
        "i128" => Type::Int(16),
        "f32" => Type::Float(4),
        "f64" => Type::Float(8),
        "bool" => Type::Bool,
        "char" => Type::Char,
        "str" => Type::Str,
        "ns" => Type::Duration,
        "any" => Type::Any,
        _ => return Err(bad()),
    })
}

/// `1{A=0,B=1}`
fn parse_enum(rest: &str) -> Option<Type> {
    let (size, names) = rest.strip_suffix('}')?.split_once('{')?;
    let size: u8 = size.parse().ok().filter(|s| matches!(s, 1 | 2 | 4 | 8))?;
    let mut list = Vec::new();
    for pair in names.split(',').filter(|p| !p.is_empty()) {
        let (name, value) = pair.rsplit_once('=')?;
        list.push((name.to_owned(), value.parse().ok()?));
    }
    Some(Type::Enum(size, list))
}

/// One field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The field's name in the Rust struct.
    pub name: String,
    /// How it is written.
    pub ty: Type,
    /// Its doc comment.
    pub docs: String,
}

/// An event as the program declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// `provider:event`.
    pub name: String,
    /// The struct's doc comment.
    pub docs: String,
    /// The fields in the order in which they are written.
    pub fields: Vec<Field>,
}

impl Schema {
    /// Identity of an event is its name and this hash: FNV-1a (64 bits) over
    /// `name(field:type,…)`. Documentation is not part of it.
    pub fn hash(&self) -> u64 {
        let mut text = format!("{}(", self.name);
        for (i, field) in self.fields.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            text += &format!("{}:{}", field.name, field.ty);
        }
        text.push(')');
        fnv1a(text.as_bytes())
    }
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// What a session adds to each of its events, before the event's own fields: the stream's
/// `event.context` in the trace's metadata. The names are those of LTTng.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Context(u32);

impl Context {
    /// `cpu_id` (u32): the CPU that the thread ran on.
    pub const CPU: Context = Context(1);
    /// `vtid` (u32): the thread's id as the program sees it.
    pub const TID: Context = Context(2);
    /// `vpid` (u32): the program's id as it sees itself.
    pub const PID: Context = Context(4);
    /// `procname` (str): the thread's name.
    pub const NAME: Context = Context(8);
    /// `callstack` (sequence of u64): return addresses, innermost first, found by frame pointers.
    pub const STACK: Context = Context(16);
    /// All that there is, in the order in which it is written, with the names of `--context`.
    pub const ALL: [(&'static str, Context); 5] = [
        ("cpu", Context::CPU),
        ("tid", Context::TID),
        ("pid", Context::PID),
        ("thread", Context::NAME),
        ("stack", Context::STACK),
    ];

    /// Those of `bits` that this version knows.
    pub fn from_bits(bits: u32) -> Context {
        Context(bits & 31)
    }

    /// As a number for messages.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// These and those of `other`.
    ///
    /// ```
    /// use gracepoint_wire::schema::Context;
    /// let context = Context::CPU.with(Context::STACK);
    /// assert!(context.has(Context::CPU) && !context.has(Context::TID));
    /// ```
    #[must_use]
    pub fn with(self, other: Context) -> Context {
        Context(self.0 | other.0)
    }

    /// Are all of `other` among these?
    pub fn has(self, other: Context) -> bool {
        self.0 & other.0 == other.0
    }

    /// Bytes of a context in which everything is 0 or empty: so many zeroes, which is what the
    /// tracer's own events have.
    pub fn empty_len(self) -> usize {
        let sizes = [
            (Context::CPU, 4),
            (Context::TID, 4),
            (Context::PID, 4),
            (Context::NAME, 1),
            (Context::STACK, 6),
        ];
        sizes.into_iter().filter(|(bit, _)| self.has(*bit)).map(|(_, size)| size).sum()
    }

    /// The fields in the order in which they are written.
    pub fn fields(self) -> Vec<Field> {
        let all = [
            (Context::CPU, "cpu_id", Type::Uint(4), "CPU that the thread ran on"),
            (Context::TID, "vtid", Type::Uint(4), "thread id, as the program sees it"),
            (Context::PID, "vpid", Type::Uint(4), "process id, as the program sees it"),
            (Context::NAME, "procname", Type::Str, "name of the thread"),
            (
                Context::STACK,
                "callstack",
                Type::Seq(Box::new(Type::Uint(8))),
                "return addresses, innermost first",
            ),
        ];
        let wanted = all.into_iter().filter(|(bit, ..)| self.has(*bit));
        wanted
            .map(|(_, name, ty, docs)| Field { name: name.into(), ty, docs: docs.into() })
            .collect()
    }
}

/// What a numeric id of a session stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// A point in time.
    Event = 0,
    /// A span begins: `span` (u64), `parent` (u64, 0 for none), then the event's own fields.
    Begin = 1,
    /// A span ends: `span` (u64).
    End = 2,
    /// A thread goes on with a span that may be left and entered again (`span`, u64).
    Enter = 3,
    /// The thread leaves it: `span` (u64).
    Exit = 4,
    /// Values of a span that were not known at its begin: `span` (u64), then the event's own fields.
    Record = 5,
    /// A span was caused by another that need not be around it: `span`, `follows` (u64 each).
    Follows = 6,
}

impl Role {
    /// The role with this number.
    pub fn from_u8(n: u8) -> Option<Role> {
        Role::ALL.into_iter().find(|role| *role as u8 == n)
    }

    /// All roles, in the order of their numbers.
    pub const ALL: [Role; 7] =
        [Role::Event, Role::Begin, Role::End, Role::Enter, Role::Exit, Role::Record, Role::Follows];

    /// What it adds to an event's name, and how many of the fields `span` and another id it begins with.
    #[inline]
    fn parts(self) -> (&'static str, usize) {
        match self {
            Role::Event => ("", 0),
            Role::Begin => (":begin", 2),
            Role::End => (":end", 1),
            Role::Enter => (":enter", 1),
            Role::Exit => (":exit", 1),
            Role::Record => (":record", 1),
            Role::Follows => (":follows", 2),
        }
    }

    /// How many ids (u64) lie before the event's own fields.
    #[inline]
    pub fn ids(self) -> usize {
        self.parts().1
    }

    /// Whether it is an event, or the first that a trace tells of a span.
    pub fn is_first(self) -> bool {
        matches!(self, Role::Event | Role::Begin)
    }

    /// Whether the event's own fields are there.
    pub fn has_fields(self) -> bool {
        matches!(self, Role::Event | Role::Begin | Role::Record)
    }

    /// What the trace calls an event of this role: `db:query`, `db:query:begin`, `db:query:end`.
    pub fn full_name(self, name: &str) -> String {
        format!("{name}{}", self.parts().0)
    }

    /// The role and the event's name of a full name whose first fields are these ids.
    ///
    /// ```
    /// use gracepoint_wire::schema::Role;
    /// assert_eq!(Role::split("db:query:begin", &["span", "parent"]), (Role::Begin, "db:query"));
    /// assert_eq!(Role::split("db:begin", &["n"]), (Role::Event, "db:begin"));
    /// ```
    pub fn split<'a>(full_name: &'a str, ids: &[&str]) -> (Role, &'a str) {
        let split = |role: &Role| {
            let own: &[&str] = role.id_names();
            let name = full_name.strip_suffix(role.parts().0)?;
            (!own.is_empty() && ids.starts_with(own)).then_some((*role, name))
        };
        Role::ALL.iter().find_map(split).unwrap_or((Role::Event, full_name))
    }

    /// Names of the ids.
    pub fn id_names(self) -> &'static [&'static str] {
        match self {
            Role::Event => &[],
            Role::Begin => &["span", "parent"],
            Role::Follows => &["span", "follows"],
            Role::End | Role::Enter | Role::Exit | Role::Record => &["span"],
        }
    }
}

/// How the documentation of a field begins whose values are masked unless the traced program allows
/// otherwise: an option that is `None` says nothing of them.
pub const SENSITIVE: &str = "[sensitive]";

/// The same of a field that viewers draw as a curve.
pub const COUNTER: &str = "[counter]";

impl Field {
    /// Whether viewers draw its values as a curve.
    ///
    /// ```
    /// use gracepoint_wire::schema::{Field, Type};
    /// let docs = "[counter] Bytes in use.".to_owned();
    /// assert!(Field { name: "used".into(), ty: Type::Uint(8), docs }.is_counter());
    /// ```
    pub fn is_counter(&self) -> bool {
        self.docs.starts_with(COUNTER)
    }

    /// Whether its values are masked unless the traced program allows otherwise.
    ///
    /// ```
    /// use gracepoint_wire::schema::{Field, Type};
    /// let docs = "[sensitive] Who asked.".to_owned();
    /// assert!(Field { name: "user".into(), ty: Type::Str, docs }.is_sensitive());
    /// ```
    pub fn is_sensitive(&self) -> bool {
        self.docs.starts_with(SENSITIVE)
    }
}

/// How urgent an event is, where its program says so: the levels of `tracing` and `log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// What happens.
    Info = 3,
    /// How it happens.
    Debug = 4,
    /// Each step of it.
    Trace = 5,
}

impl Level {
    /// All, the most urgent first.
    pub const ALL: [Level; 5] =
        [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub fn name(self) -> &'static str {
        ["error", "warn", "info", "debug", "trace"][self as usize - 1]
    }

    /// The level with this number.
    pub fn from_u8(n: u8) -> Option<Level> {
        Level::ALL.into_iter().find(|level| *level as u8 == n)
    }
}

/// The name, in any case, or a number from 1 (error) to 5 (trace).
impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Level> {
        let same = |level: &Level| level.name().eq_ignore_ascii_case(text);
        let found = Level::ALL.into_iter().find(same);
        found.or_else(|| text.parse().ok().and_then(Level::from_u8)).ok_or_else(|| {
            Error::new(format!("{text:?} is no level: write error, warn, info, debug or trace"))
        })
    }
}

impl Schema {
    /// The level of an event that has one: its documentation begins with it, in brackets.
    ///
    /// ```
    /// use gracepoint_wire::schema::{Level, Schema};
    /// let with = |docs: &str| Schema { name: "a:b".into(), docs: docs.into(), fields: vec![] };
    /// assert_eq!(with("[debug] A step.").level(), Some(Level::Debug));
    /// assert_eq!(with("A step.").level(), None);
    /// ```
    pub fn level(&self) -> Option<Level> {
        let (name, _) = self.docs.strip_prefix('[')?.split_once(']')?;
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Whether a session that wants events up to `most` wants this one. Those without a level always.
    pub fn is_within(&self, most: Option<Level>) -> bool {
        most.is_none_or(|most| self.level().is_none_or(|level| level <= most))
    }
}

/// An event with its id in one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The number in the event header.
    pub id: u32,
    /// What kind of record it is.
    pub role: Role,
    /// The event as declared in the program.
    pub schema: Schema,
}

impl Declared {
    /// The name in the trace; see [`Role::full_name`].
    pub fn full_name(&self) -> String {
        self.role.full_name(&self.schema.name)
    }

    /// The fields as they are written, those that the role adds included.
    pub fn full_fields(&self) -> Vec<Field> {
        let own = |name: &str, docs: &str| Field {
            name: name.into(),
            ty: Type::Uint(8),
            docs: docs.into(),
        };
        let docs = |name: &str| match name {
            "span" => "id of the span: slot in the high 16 bits, sequence number below",
            "parent" => "id of the span that was open in this thread, 0 for none",
            _ => "id of the span that caused this one",
        };
        let ids = self.role.id_names().iter().map(|name| own(name, docs(name)));
        let fields = if self.role.has_fields() { &self.schema.fields[..] } else { &[] };
        ids.chain(fields.iter().cloned()).collect()
    }
}

/// An event of the tracer's own, about the events with one id.
fn own_event(id: u32, name: &str, docs: &str, of: &str, number: (&str, &str)) -> Declared {
    let field = |name: &str, ty, docs: &str| Field { name: name.into(), ty, docs: docs.into() };
    Declared {
        id,
        role: Role::Event,
        schema: Schema {
            name: name.into(),
            docs: docs.into(),
            fields: vec![field("id", Type::Uint(4), of), field(number.0, Type::Uint(8), number.1)],
        },
    }
}

/// `gp:loss`, which every session declares.
pub fn loss_event() -> Declared {
    own_event(
        LOSS_ID,
        LOSS_NAME,
        "Events of one kind that found no free page since the last such record.",
        "id of the lost events in this trace",
        ("count", "how many were lost"),
    )
}

/// `gp:module`, which sessions declare whose programs tell what they have loaded.
pub fn module_event() -> Declared {
    let field = |name: &str, ty, docs: &str| Field { name: name.into(), ty, docs: docs.into() };
    Declared {
        id: MODULE_ID,
        role: Role::Event,
        schema: Schema {
            name: MODULE_NAME.into(),
            docs: "An executable or a shared object is loaded.".into(),
            fields: vec![
                field("base", Type::Uint(8), "address of the first byte that is mapped"),
                field("size", Type::Uint(8), "bytes from there to the end of its last segment"),
                field("build_id", Type::Str, "the linker's build id, hexadecimal; empty if none"),
                field("path", Type::Str, "its file, as the program sees it"),
            ],
        },
    }
}

/// `gp:throttle` and `gp:unthrottle`, which sessions with limits declare.
pub fn throttle_events() -> [Declared; 2] {
    let of = "id of the events in this trace";
    [
        own_event(
            THROTTLE_ID,
            "gp:throttle",
            "Events of one kind come faster than the session allows; some are left out from here on.",
            of,
            ("rate", "how many are recorded per second"),
        ),
        own_event(
            UNTHROTTLE_ID,
            "gp:unthrottle",
            "Events of one kind are recorded again.",
            of,
            (
                "count",
                "how many were left out since the last such record; 0 where the buffer is \
             written over, and the total at the end counts",
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_round_trips() {
        for text in [
            "u8",
            "i128",
            "f32",
            "bool",
            "char",
            "str",
            "ns",
            "[u8]",
            "[f64;3]",
            "?str",
            "?[u8]",
            "enum1{A=0,B=1}",
            "?enum8{Big=18446744073709551615}",
            "enum1{}",
        ] {
            assert_eq!(text.parse::<Type>().unwrap().to_string(), text);
        }
        for text in ["", "u7", "[str]", "[u8", "enum3{A=0}", "enum1{A}", "[u8;x]"] {
            assert!(text.parse::<Type>().is_err(), "{text}");
        }
        assert!("?".repeat(10_000).parse::<Type>().is_err());
    }

    #[test]
    fn hash_is_frozen() {
        // ABI 1: identity of an event across processes and versions.
        let f = |name: &str, ty| Field { name: name.into(), ty, docs: "ignored".into() };
        let schema = Schema {
            name: "kv:get".into(),
            docs: String::new(),
            fields: vec![f("key", Type::Str), f("hit", Type::Bool)],
        };
        assert_eq!(schema.hash(), fnv1a(b"kv:get(key:str,hit:bool)"));
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
