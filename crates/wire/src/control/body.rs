//! The bodies of messages: their parts as tag-length-value items, and back.

use super::{
    Create, Created, Hello, Limits, Listed, Mode, Module, Program, SamplesWanted, Stopped,
    functions,
};
use crate::clock::{Clock, Source, Triple};
use crate::schema::{Context, Declared, Field, Level, Role, Schema};
use crate::tlv::{Builder, Item, items};
use crate::{Error, Result};

pub(super) fn triple_bytes(t: &Triple) -> [u8; 24] {
    let mut b = [0; 24];
    b[..8].copy_from_slice(&t.ticks.to_le_bytes());
    b[8..16].copy_from_slice(&t.mono_ns.to_le_bytes());
    b[16..].copy_from_slice(&t.real_ns.to_le_bytes());
    b
}

pub(super) fn write_hello(b: &mut Builder, hello: &Hello) {
    b.u64(1, hello.major.into()).u64(2, hello.minor.into()).u64(3, hello.features);
    if let Some(p) = &hello.program {
        b.nested(4, |b| {
            b.str(1, &p.name).u64(2, p.pid.into()).str(3, &p.exe).u64(4, p.since_ns);
            b.str(5, &p.patching).str(6, &p.launched_by);
            b.u64(7, p.events_on.into()).u64(8, p.events.into()).u64(9, p.waiting.into());
            if !p.object.is_empty() {
                b.str(10, &p.object);
            }
            if p.makes_events {
                b.u64(48, 1);
            }
            if let Some(kept) = p.frame_pointers {
                b.u64(49, kept.into());
            }
            for session in &p.sessions {
                b.str(11, session);
            }
        });
    }
}

pub(super) fn read_hello(body: &[u8]) -> Result<Hello> {
    let mut hello = Hello::default();
    for item in items(body) {
        let item = item?;
        match item.tag {
            1 => hello.major = item.u64()?.try_into().unwrap_or(u16::MAX),
            2 => hello.minor = item.u64()?.try_into().unwrap_or(u16::MAX),
            3 => hello.features = item.u64()?,
            4 => hello.program = Some(read_program(item.value)?),
            _ => {}
        }
    }
    Ok(hello)
}

pub(super) fn read_program(body: &[u8]) -> Result<Program> {
    let mut p = Program::default();
    for item in items(body) {
        let item = item?;
        match item.tag {
            1 => p.name = item.string()?,
            2 => p.pid = item.u32()?,
            3 => p.exe = item.string()?,
            4 => p.since_ns = item.u64()?,
            5 => p.patching = item.string()?,
            6 => p.launched_by = item.string()?,
            7 => p.events_on = item.u32()?,
            8 => p.events = item.u32()?,
            9 => p.waiting = item.u64()? != 0,
            10 => p.object = item.string()?,
            48 => p.makes_events = item.u64()? != 0,
            49 => p.frame_pointers = Some(item.u64()? != 0),
            11 => p.sessions.push(item.string()?),
            _ => {}
        }
    }
    Ok(p)
}

pub(super) fn write_schema(b: &mut Builder, schema: &Schema) {
    b.str(1, &schema.name).str(2, &schema.docs);
    for field in &schema.fields {
        b.nested(3, |b| {
            b.str(1, &field.name).str(2, &field.ty.to_string()).str(3, &field.docs);
        });
    }
}

pub(super) fn read_schema(body: &[u8]) -> Result<Schema> {
    let fields = list(body, 3, |b| {
        let ty = text(b, 2)?.parse()?;
        Ok(Field { name: text(b, 1)?, ty, docs: text(b, 3)? })
    })?;
    Ok(Schema { name: text(body, 1)?, docs: text(body, 2)?, fields })
}

pub(super) fn write_listed(b: &mut Builder, e: &Listed) {
    b.nested(1, |b| write_schema(b, &e.schema));
    b.u64(2, e.sites.into()).u64(3, e.spans.into()).u64(4, e.on.into()).str(5, &e.location);
}

pub(super) fn read_listed(body: &[u8]) -> Result<Listed> {
    Ok(Listed {
        schema: read_schema(bytes(body, 1)?)?,
        sites: number32(body, 2)?,
        spans: number32(body, 3)?,
        on: number32(body, 4)?,
        location: text(body, 5)?,
    })
}

pub(super) fn write_declared(b: &mut Builder, d: &Declared) {
    b.u64(1, d.id.into()).u64(2, d.role as u64).nested(3, |b| write_schema(b, &d.schema));
}

pub(super) fn read_declared(body: &[u8]) -> Result<Declared> {
    let role = u8::try_from(number(body, 2)?).ok().and_then(Role::from_u8);
    Ok(Declared {
        id: number32(body, 1)?,
        role: role.ok_or_else(|| Error::new("event of an unknown role"))?,
        schema: read_schema(bytes(body, 3)?)?,
    })
}

pub(super) fn write_clock(b: &mut Builder, clock: &Clock) {
    b.u64(1, clock.source as u64).u64(2, clock.freq_hz).bytes(3, &clock.boot_id);
    for t in &clock.triples {
        b.bytes(4, &triple_bytes(t));
    }
}

pub(super) fn read_clock(body: &[u8]) -> Result<Clock> {
    let source = u8::try_from(number(body, 1)?).ok().and_then(Source::from_u8);
    let boot_id = bytes(body, 3)?.try_into();
    let clock = Clock {
        source: source.ok_or_else(|| Error::new("clock of an unknown kind"))?,
        freq_hz: number(body, 2)?,
        boot_id: boot_id.map_err(|_| Error::new("boot id is not 16 bytes"))?,
        triples: list(body, 4, |b| crate::arena::parse_triple(b).ok_or_else(short_triple))?,
    };
    if clock.freq_hz == 0 || clock.triples.is_empty() {
        return Err(Error::new("clock without frequency or reference"));
    }
    Ok(clock)
}

pub(super) fn write_create(b: &mut Builder, create: &Create) {
    for glob in &create.globs {
        b.str(1, glob);
    }
    let Limits { max_rate, sample, max_overhead_ppm } = create.limits;
    b.u64(2, create.buffer_bytes).u64(3, create.mode as u64);
    b.u64(4, create.context.bits().into());
    b.u64(5, max_rate).u64(6, sample).u64(7, max_overhead_ppm.into());
    b.u64(32, create.keep.into()).str(33, &create.name).str(34, &create.tool);
    if let Some(level) = create.level {
        b.u64(48, level as u64);
    }
    if let Some(wanted) = &create.functions {
        b.nested(35, |b| functions::write_wanted(b, wanted));
    }
    if let Some(wanted) = &create.samples {
        b.nested(36, |b| {
            b.u64(1, wanted.hz.into()).u64(2, wanted.max_cpu_ppm.into());
            b.u64(3, wanted.stack_bytes.into());
        });
    }
}

pub(super) fn read_create(body: &[u8]) -> Result<Create> {
    let mode = Mode::from_u64(number(body, 3)?);
    Ok(Create {
        globs: list(body, 1, |b| Item { tag: 1, value: b }.string())?,
        buffer_bytes: number(body, 2)?,
        mode: mode.ok_or_else(|| Error::new("buffer mode is not known"))?,
        context: Context::from_bits(number32(body, 4)?),
        limits: Limits {
            max_rate: number(body, 5)?,
            sample: number(body, 6)?,
            max_overhead_ppm: number32(body, 7)?,
        },
        keep: number(body, 32)? != 0,
        name: text(body, 33)?,
        tool: text(body, 34)?,
        level: u8::try_from(number(body, 48)?).ok().and_then(Level::from_u8),
        functions: list(body, 35, functions::read_wanted)?.pop(),
        samples: list(body, 36, read_samples)?.pop(),
    })
}

fn read_samples(body: &[u8]) -> Result<SamplesWanted> {
    Ok(SamplesWanted {
        hz: number32(body, 1)?,
        max_cpu_ppm: number32(body, 2)?,
        stack_bytes: number32(body, 3)?,
    })
}

pub(super) fn write_stopped(b: &mut Builder, stopped: &Stopped) {
    b.u64(1, u64::from(stopped.settled)).bytes(2, &triple_bytes(&stopped.at));
    for who in &stopped.holdouts {
        b.str(3, who);
    }
    write_modules(b, 4, &stopped.modules);
}

pub(super) fn write_modules(b: &mut Builder, tag: u16, modules: &[Module]) {
    for module in modules {
        b.nested(tag, |b| {
            b.u64(1, module.at).u64(2, module.base).u64(3, module.size);
            b.bytes(4, &module.build_id).str(5, &module.path);
        });
    }
}

pub(super) fn read_module(body: &[u8]) -> Result<Module> {
    Ok(Module {
        at: number(body, 1)?,
        base: number(body, 2)?,
        size: number(body, 3)?,
        build_id: bytes(body, 4)?.to_vec(),
        path: text(body, 5)?,
    })
}

pub(super) fn read_stopped(body: &[u8]) -> Result<Stopped> {
    Ok(Stopped {
        settled: number(body, 1)? != 0,
        at: triple(body, 2)?,
        holdouts: list(body, 3, |b| Item { tag: 3, value: b }.string())?,
        modules: list(body, 4, read_module)?,
    })
}

pub(super) fn read_created(body: &[u8]) -> Result<Created> {
    Ok(Created {
        session: number(body, 1)?,
        clock: read_clock(bytes(body, 2)?)?,
        events: list(body, 3, read_declared)?,
        context: Context::from_bits(number32(body, 4)?),
        modules: list(body, 5, read_module)?,
    })
}

pub(super) fn read_pages(body: &[u8]) -> Result<Vec<(u32, u64)>> {
    let bytes = bytes(body, 2)?;
    if bytes.len() % 12 != 0 {
        return Err(Error::new("list of pages is cut"));
    }
    Ok(bytes
        .chunks_exact(12)
        .map(|c| {
            let word = |at: usize| u32::from_le_bytes([c[at], c[at + 1], c[at + 2], c[at + 3]]);
            (word(0), u64::from(word(4)) | u64::from(word(8)) << 32)
        })
        .collect())
}

pub(super) fn short_triple() -> Error {
    Error::new("clock triple is not 24 bytes")
}

pub(super) fn triple(body: &[u8], tag: u16) -> Result<Triple> {
    crate::arena::parse_triple(bytes(body, tag)?).ok_or_else(short_triple)
}

/// The last field with this tag, or an empty one.
pub(super) fn bytes(body: &[u8], tag: u16) -> Result<&[u8]> {
    let mut found: &[u8] = &[];
    for item in items(body) {
        let item = item?;
        if item.tag == tag {
            found = item.value;
        }
    }
    Ok(found)
}

/// 0 where there is no such field.
pub(super) fn number(body: &[u8], tag: u16) -> Result<u64> {
    Item { tag, value: bytes(body, tag)? }.u64()
}

pub(super) fn number32(body: &[u8], tag: u16) -> Result<u32> {
    Item { tag, value: bytes(body, tag)? }.u32()
}

pub(super) fn text(body: &[u8], tag: u16) -> Result<String> {
    Item { tag, value: bytes(body, tag)? }.string()
}

pub(super) fn list<T>(body: &[u8], tag: u16, read: impl Fn(&[u8]) -> Result<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for item in items(body) {
        let item = item?;
        if item.tag == tag {
            all.push(read(item.value)?);
        }
    }
    Ok(all)
}
