//! Records that a recorder writes beside those of the program, in streams of its own, one for each thread:
//! what the kernel tells of the program's threads.

use crate::schema::{Declared, Field, Role, Schema, Type};

/// Id of `gp:sample`.
pub const SAMPLE_ID: u32 = 8;
/// Id of `gp:switch`.
pub const SWITCH_ID: u32 = 9;
/// Id of `gp:rate`.
pub const RATE_ID: u32 = 10;
/// Id of `gp:stack`.
pub const STACK_ID: u32 = 11;
/// Name of the event that says where a thread was on its CPU by its registers and a copy of its stack.
pub const STACK_NAME: &str = "gp:stack";
/// Name of the event that says where a thread was on its CPU.
pub const SAMPLE_NAME: &str = "gp:sample";
/// Name of the event that says that a thread left its CPU, or came to one.
pub const SWITCH_NAME: &str = "gp:switch";
/// Name of the event that says that samples come more rarely from here on.
pub const RATE_NAME: &str = "gp:rate";
/// Ids from here on are the kernel's own events, in the order in which they were asked for.
pub const FIRST_KERNEL_ID: u32 = 1 << 16;

fn event(id: u32, name: &str, docs: &str, fields: &[(&str, Type, &str)]) -> Declared {
    let field = |(name, ty, docs): &(&str, Type, &str)| Field {
        name: (*name).into(),
        ty: ty.clone(),
        docs: (*docs).into(),
    };
    let fields = fields.iter().map(field).collect();
    let schema = Schema { name: name.into(), docs: docs.into(), fields };
    Declared { id, role: Role::Event, schema }
}

/// `gp:stack`, which recordings with a profile of copied stacks declare beside.
pub fn stack_event() -> Declared {
    event(
        STACK_ID,
        STACK_NAME,
        "The thread was on a CPU; its callers are to be found in what its stack held.",
        &[
            ("weight", Type::Duration, "CPU time that it stands for"),
            ("cpu", Type::Uint(4), "the CPU"),
            ("kernel", Type::Bool, "it was in the kernel, called from `pc`"),
            ("pc", Type::Uint(8), "the instruction"),
            ("sp", Type::Uint(8), "the stack pointer"),
            ("fp", Type::Uint(8), "the frame pointer, or what its register was used for"),
            ("lr", Type::Uint(8), "the link register, where the processor has one"),
            ("memory", Type::Seq(Box::new(Type::Uint(8))), "words from the stack pointer upwards"),
        ],
    )
}

/// `gp:sample`, `gp:switch` and `gp:rate`, which recordings with a profile declare.
pub fn profile_events() -> [Declared; 3] {
    [
        event(
            SAMPLE_ID,
            SAMPLE_NAME,
            "The thread was on a CPU.",
            &[
                ("weight", Type::Duration, "CPU time that it stands for"),
                ("cpu", Type::Uint(4), "the CPU"),
                ("kernel", Type::Bool, "it was in the kernel, called from where the stack begins"),
                (
                    "stack",
                    Type::Seq(Box::new(Type::Uint(8))),
                    "where it was, then return addresses",
                ),
            ],
        ),
        event(
            SWITCH_ID,
            SWITCH_NAME,
            "The thread left its CPU, or came to one.",
            &[
                ("out", Type::Bool, "it left"),
                ("preempted", Type::Bool, "it left and could have gone on"),
                ("cpu", Type::Uint(4), "the CPU"),
            ],
        ),
        event(
            RATE_ID,
            RATE_NAME,
            "Samples come at another rate from here on.",
            &[
                ("hz", Type::Uint(4), "samples per second of CPU time"),
                ("why", Type::Str, "the reason"),
            ],
        ),
    ]
}
