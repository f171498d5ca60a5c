//! Messages about functions: which ones the program can trace, and which a session wants.
//!
//! A function has a number (*id*) in its program, from 1, given when its object is first seen and
//! never given again. Two kinds of function are listed. Those with the attribute know their name.
//! Those with sleds know where they lie; whoever reads the object's file knows what is there. The
//! program itself reads no symbols.

use super::{bytes, list, number, number32, text};
use crate::schema::{Declared, Field, Role, Schema, Type};
use crate::tlv::{Builder, Item};
use crate::{Error, Result};

/// Id of `gp:function_entry`.
pub const ENTRY_ID: u32 = 4;
/// Id of `gp:function_exit`.
pub const EXIT_ID: u32 = 5;
/// Id of `gp:function`.
pub const WHOLE_ID: u32 = 6;
/// Name of the event of a function that begins.
pub const ENTRY_NAME: &str = "gp:function_entry";
/// Name of the event of a function that ends.
pub const EXIT_NAME: &str = "gp:function_exit";
/// Name of the event of a function that took longer than the session's threshold.
pub const WHOLE_NAME: &str = "gp:function";

/// How a function is made traceable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum FunctionKind {
    /// By the attribute `#[gracepoint::function]`.
    #[default]
    Attribute = 0,
    /// By the compiler: XRay sleds.
    Sleds = 1,
}

/// An object of the program in which functions with sleds lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FunctionObject {
    /// Its file, as the program sees it.
    pub path: String,
    /// The linker's build id; empty if there is none.
    pub build_id: Vec<u8>,
    /// What to add to an address in its file to get the one in memory.
    pub bias: u64,
}

/// A function that can be traced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Function {
    /// Names it in requests and records of this program.
    pub id: u32,
    /// How it is made traceable.
    pub kind: FunctionKind,
    /// With sleds: which of [`Functions::objects`] it lies in.
    pub object: u32,
    /// With sleds: its address in that object's file, as symbols have it.
    pub address: u64,
    /// With the attribute: its path, `kv::store::get`.
    pub name: String,
    /// With the attribute: where its source is.
    pub file: String,
    /// With the attribute: the line there.
    pub line: u32,
    /// With the attribute: the event that tells its arguments; empty for none.
    pub args: String,
    /// With the attribute: the event that tells what it returned; empty for none.
    pub returns: String,
}

/// Reply to the request `Functions`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Functions {
    /// Where functions with sleds lie.
    pub objects: Vec<FunctionObject>,
    /// All of them, by id.
    pub functions: Vec<Function>,
    /// A sentence for each thing that kept functions out of the list: sleds of a version that this
    /// runtime does not know, an object too far away.
    pub notes: Vec<String>,
}

/// What a session wants of functions; a part of `Create`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FunctionsWanted {
    /// Ids, as ranges with both ends.
    pub ids: Vec<(u32, u32)>,
    /// Record only so many levels of recorded functions on each thread; 0 for all.
    pub depth: u32,
    /// Record only functions that took at least so many nanoseconds, each as one `gp:function` at
    /// its end; 0 for `gp:function_entry` and `gp:function_exit` of all.
    pub threshold_ns: u64,
    /// Only threads with these ids, as the program sees them; none for all.
    pub threads: Vec<u32>,
}

/// The events that a session with functions declares: entry and exit, or, with a threshold, whole calls.
pub fn function_events(threshold: bool) -> Vec<Declared> {
    let field = |name: &str, ty, docs: &str| Field { name: name.into(), ty, docs: docs.into() };
    let function = || field("function", Type::Uint(4), "id of the function in this trace's list");
    let frame = || {
        let docs =
            "where its return address lies, bits 3 to 34 of the address: pairs entry and exit";
        field("frame", Type::Uint(4), docs)
    };
    let event = |id, name: &str, docs: &str, fields| Declared {
        id,
        role: Role::Event,
        schema: Schema { name: name.into(), docs: docs.into(), fields },
    };
    if threshold {
        let ticks = field("ticks", Type::Uint(8), "ticks since it began");
        let docs = "A function ends that took longer than the session's threshold.";
        return vec![event(WHOLE_ID, WHOLE_NAME, docs, vec![function(), frame(), ticks])];
    }
    let fields = || vec![function(), frame()];
    vec![
        event(ENTRY_ID, ENTRY_NAME, "A function begins.", fields()),
        event(EXIT_ID, EXIT_NAME, "A function ends, or calls another in its place.", fields()),
    ]
}

/// Bytes of a function with sleds in a list: id and address.
const PACKED: usize = 12;

pub(super) fn write_functions(b: &mut Builder, all: &Functions) {
    for object in &all.objects {
        b.nested(1, |b| {
            b.str(1, &object.path).bytes(2, &object.build_id).u64(3, object.bias);
        });
    }
    // Programs have tens of thousands with sleds, so these are packed, object by object.
    for run in all.functions.chunk_by(|a, b| (a.kind, a.object) == (b.kind, b.object)) {
        match run[0].kind {
            FunctionKind::Attribute => run.iter().for_each(|f| {
                b.nested(2, |b| write_function(b, f));
            }),
            FunctionKind::Sleds => {
                let mut packed = Vec::with_capacity(run.len() * PACKED);
                for function in run {
                    packed.extend_from_slice(&function.id.to_le_bytes());
                    packed.extend_from_slice(&function.address.to_le_bytes());
                }
                b.nested(3, |b| {
                    b.u64(1, run[0].object.into()).bytes(2, &packed);
                });
            }
        }
    }
    for note in &all.notes {
        b.str(4, note);
    }
}

fn write_function(b: &mut Builder, f: &Function) {
    b.u64(1, f.id.into()).str(2, &f.name).str(3, &f.file).u64(4, f.line.into());
    b.str(5, &f.args).str(6, &f.returns);
}

pub(super) fn read_functions(body: &[u8]) -> Result<Functions> {
    let objects = list(body, 1, |b| {
        let build_id = bytes(b, 2)?.to_vec();
        Ok(FunctionObject { path: text(b, 1)?, build_id, bias: number(b, 3)? })
    })?;
    let mut functions = list(body, 2, read_function)?;
    for run in list(body, 3, |b| Ok((number32(b, 1)?, bytes(b, 2)?.to_vec())))? {
        functions.extend(unpack(run.0, &run.1, objects.len())?);
    }
    functions.sort_by_key(|function| function.id);
    let notes = list(body, 4, |b| Item { tag: 4, value: b }.string())?;
    Ok(Functions { objects, functions, notes })
}

fn read_function(body: &[u8]) -> Result<Function> {
    Ok(Function {
        id: number32(body, 1)?,
        name: text(body, 2)?,
        file: text(body, 3)?,
        line: number32(body, 4)?,
        args: text(body, 5)?,
        returns: text(body, 6)?,
        ..Function::default()
    })
}

fn unpack(object: u32, packed: &[u8], objects: usize) -> Result<Vec<Function>> {
    if !packed.len().is_multiple_of(PACKED) {
        return Err(Error::new("list of functions is cut"));
    }
    if object as usize >= objects {
        return Err(Error::new("functions lie in an object that is not listed"));
    }
    let one = |c: &[u8]| {
        let word = |at: usize| u32::from_le_bytes([c[at], c[at + 1], c[at + 2], c[at + 3]]);
        Function {
            id: word(0),
            kind: FunctionKind::Sleds,
            object,
            address: u64::from(word(4)) | u64::from(word(8)) << 32,
            ..Function::default()
        }
    };
    Ok(packed.chunks_exact(PACKED).map(one).collect())
}

pub(super) fn write_wanted(b: &mut Builder, wanted: &FunctionsWanted) {
    let pairs = wanted.ids.iter().flat_map(|&(first, last)| [first, last]);
    b.bytes(1, &pairs.flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    b.u64(2, wanted.depth.into()).u64(3, wanted.threshold_ns);
    let threads = wanted.threads.iter().flat_map(|tid| tid.to_le_bytes());
    b.bytes(4, &threads.collect::<Vec<u8>>());
}

pub(super) fn read_wanted(body: &[u8]) -> Result<FunctionsWanted> {
    let words = |tag: u16, each: usize| -> Result<Vec<u32>> {
        let bytes = bytes(body, tag)?;
        if !bytes.len().is_multiple_of(each) {
            return Err(Error::new("list of numbers is cut"));
        }
        let word = |c: &[u8]| u32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        Ok(bytes.chunks_exact(4).map(word).collect())
    };
    let ids: Vec<_> = words(1, 8)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    if ids.iter().any(|(first, last)| first > last) {
        return Err(Error::new("range of functions ends before it begins"));
    }
    let (depth, threshold_ns) = (number32(body, 2)?, number(body, 3)?);
    Ok(FunctionsWanted { ids, depth, threshold_ns, threads: words(4, 4)? })
}
