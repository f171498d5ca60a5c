//! Reads the `metadata` file: the subset of CTF 1.8's description language that
//! [`gracepoint_wire::tsdl`] writes, back into the declarations that it was made from, so that a
//! trace is readable without its sidecar.
//!
//! Three steps: words (`lexer`), types and blocks (`grammar`), then from TSDL's types to ours
//! (`layout`). The headers must be laid out as this tool knows them; another layout is another
//! tracer's, or a newer version's, and says so.

mod grammar;
mod layout;
mod lexer;

use crate::{Error, Result};
use gracepoint_wire::schema::{Declared, Field, Role, Schema, Type};
use grammar::{Block, Scalar, Ty};

/// What a `metadata` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Name and value pairs of the `env` block.
    pub env: Vec<(String, String)>,
    /// Its clock.
    pub clock: ClockBlock,
    /// Its events. Types are as far as TSDL tells: a duration is a `u64`, a `char` is text, and
    /// there is no documentation. An event whose name ends as a role's does (`:begin`, `:end`) and
    /// that has the ids of that role has it.
    pub events: Vec<Declared>,
    /// What lies before each event's own fields.
    pub context: Vec<Field>,
}

/// The `clock` block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClockBlock {
    /// Its name: `tsc` or `monotonic`.
    pub name: String,
    /// Ticks per second.
    pub freq_hz: u64,
    /// Seconds since 1970 at tick 0.
    pub offset_s: u64,
    /// Ticks to add to that.
    pub offset: u64,
}

const NOT_OURS: &str = "if this is a trace of another tracer, use babeltrace2; if a newer gracepoint made it, use \
     that one";

/// Parses the text of a `metadata` file.
///
/// ```
/// use gracepoint_analysis::metadata::parse;
/// use gracepoint_wire::clock::{Clock, Source, Triple};
/// use gracepoint_wire::{schema, tsdl};
///
/// let clock = Clock {
///     source: Source::Tsc,
///     freq_hz: 2_000_000_000,
///     boot_id: [0; 16],
///     triples: vec![Triple { ticks: 0, mono_ns: 0, real_ns: 10_500_000_000 }],
/// };
/// let text = tsdl::metadata(&tsdl::Metadata {
///     clock: &clock,
///     events: &[schema::loss_event()],
///     context: schema::Context::default(),
///     env: &[],
/// });
/// let parsed = parse(text.as_bytes())?;
/// assert_eq!(parsed.clock.offset, 1_000_000_000);
/// assert_eq!(parsed.events[0].schema.name, "gp:loss");
/// assert!(parse(b"hello").is_err());
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// When it is of a newer CTF version, of another tracer, or not TSDL at all; the message names the
/// line and says what to do.
pub fn parse(text: &[u8]) -> Result<Metadata> {
    check_version(text)?;
    let blocks = grammar::blocks(text)?;
    let mut env = Vec::new();
    let mut clock = None;
    let mut events = Vec::new();
    let mut context = Vec::new();
    let (mut traces, mut streams) = (0, 0);
    for (keyword, block) in &blocks {
        match keyword.as_str() {
            "env" => env.extend(block.values.iter().map(env_entry)),
            "clock" => clock = Some(clock_block(block)?),
            "trace" => {
                check_trace(block)?;
                traces += 1;
            }
            "stream" => {
                check_layout(block, "packet.context", layout::PACKET_CONTEXT)?;
                check_layout(block, "event.header", layout::EVENT_HEADER)?;
                context = context_fields(block)?;
                streams += 1;
            }
            "event" => events.push(event(block)?),
            _ => {}
        }
    }
    if (traces, streams) != (1, 1) {
        return Err(Error::new(format!(
            "the metadata has {traces} trace blocks and {streams} stream blocks instead of one \
             each; it may be cut short; {NOT_OURS}"
        )));
    }
    let clock =
        clock.ok_or_else(|| Error::new(format!("the metadata describes no clock; {NOT_OURS}")))?;
    Ok(Metadata { env, clock, events, context })
}

/// A packetised metadata stream's first word, in either byte order.
const PACKETISED: [[u8; 4]; 2] = [[0x57, 0x1d, 0xd1, 0x75], [0x75, 0xd1, 0x1d, 0x57]];

fn check_version(text: &[u8]) -> Result<()> {
    if text.first() == Some(&0x1e) || text.first() == Some(&b'{') {
        return Err(Error::new(
            "the metadata is CTF 2 and this version reads CTF 1.8; use a newer gracepoint, or \
             babeltrace2 for a trace of another tracer",
        ));
    }
    if PACKETISED.iter().any(|magic| text.starts_with(magic)) {
        return Err(Error::new(format!("the metadata lies in packets; {NOT_OURS}")));
    }
    Ok(())
}

fn check_trace(block: &Block) -> Result<()> {
    let version = (block.int("major").unwrap_or(0), block.int("minor").unwrap_or(0));
    if version.0 > 1 || (version.0 == 1 && version.1 > 8) {
        return Err(Error::new(format!(
            "the metadata is CTF {}.{} and this version reads CTF 1.8; use a newer gracepoint",
            version.0, version.1
        )));
    }
    if block.text("byte_order") != Some("le") {
        return Err(Error::new(format!("the trace is not little-endian; {NOT_OURS}")));
    }
    check_layout(block, "packet.header", layout::PACKET_HEADER)
}

fn check_layout(block: &Block, key: &str, wanted: &str) -> Result<()> {
    let found = block.ty(key).map(layout::shape);
    if found.as_deref() == Some(wanted) {
        return Ok(());
    }
    Err(Error::new(format!(
        "metadata line {}: {key} is not laid out as gracepoint does it; {NOT_OURS}",
        block.line
    )))
}

fn env_entry((key, value): &(String, Scalar)) -> (String, String) {
    let value = match value {
        Scalar::Int(n) => n.to_string(),
        Scalar::Text(text) => text.clone(),
    };
    (key.clone(), value)
}

fn clock_block(block: &Block) -> Result<ClockBlock> {
    let freq_hz = block.int("freq").unwrap_or(1_000_000_000);
    if freq_hz == 0 {
        return Err(Error::new(format!(
            "metadata line {}: the clock has a frequency of 0; the trace is damaged",
            block.line
        )));
    }
    Ok(ClockBlock {
        name: block.text("name").unwrap_or_default().into(),
        freq_hz,
        offset_s: block.int("offset_s").unwrap_or(0),
        offset: block.int("offset").unwrap_or(0),
    })
}

fn event(block: &Block) -> Result<Declared> {
    let bad =
        |what: String| Error::new(format!("metadata line {}: {what}; {NOT_OURS}", block.line));
    let name = block.text("name").ok_or_else(|| bad("an event has no name".into()))?;
    let id = block.int("id").and_then(|id| u32::try_from(id).ok());
    let id = id.ok_or_else(|| bad(format!("event {name:?} has no id of 32 bits")))?;
    let fields = match block.ty("fields") {
        Some(Ty::Struct { fields }) => layout::event_fields(fields).map_err(|field| {
            bad(format!("event {name:?}, field {field:?}: no field is laid out like this"))
        })?,
        Some(_) => return Err(bad(format!("event {name:?} is not a structure"))),
        None => Vec::new(),
    };
    let (role, name, fields) = role(name, fields);
    Ok(Declared { id, role, schema: Schema { name, docs: String::new(), fields } })
}

/// What lies before each event's own fields.
fn context_fields(block: &Block) -> Result<Vec<Field>> {
    let bad = |what: &str| {
        Error::new(format!(
            "metadata line {}: the context of events {what}; {NOT_OURS}",
            block.line
        ))
    };
    match block.ty("event.context") {
        None => Ok(Vec::new()),
        Some(Ty::Struct { fields }) => layout::event_fields(fields)
            .map_err(|field| bad(&format!("has a field {field:?} like no other"))),
        Some(_) => Err(bad("is not a structure")),
    }
}

/// Splits the role off a full name and its fields off the event's own, where both fit.
fn role(name: &str, mut fields: Vec<Field>) -> (Role, String, Vec<Field>) {
    let ids: Vec<&str> = fields
        .iter()
        .take(2)
        .take_while(|field| field.ty == Type::Uint(8))
        .map(|field| field.name.as_str())
        .collect();
    let (role, own) = Role::split(name, &ids);
    let own = own.to_owned();
    if !role.has_fields() && fields.len() != role.ids() {
        return (Role::Event, name.into(), fields);
    }
    fields.drain(..role.ids());
    (role, own, fields)
}
