//! What is exported for Perfetto, decoded by a reader that is not ours and by the published schema,
//! and put together again as a viewer does: state by sequence, events sorted by time, slices by track.

use protobuf::reflect::{FileDescriptor, MessageDescriptor, ReflectValueBox, ReflectValueRef};
use protobuf::{CodedOutputStream, MessageDyn};
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

/// Name, and value as text with its type: `u:7`, `s:text`.
pub(crate) type Annotations = BTreeMap<String, Vec<String>>;

/// A slice, instant or counter as a viewer shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) track: u64,
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) ns: u64,
    /// Of a slice; `None` for what has not ended.
    pub(crate) end_ns: Option<u64>,
    /// Slices around it on its track.
    pub(crate) depth: usize,
    pub(crate) flows: Vec<u64>,
    pub(crate) annotations: Annotations,
    pub(crate) value: Option<String>,
}

/// A track by its descriptors, the last of which counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Track {
    pub(crate) parent: u64,
    /// Of a process `pid name`, of a thread `pid/tid name`, else the name.
    pub(crate) label: String,
    pub(crate) unit: u64,
}

/// A sample of a profile.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sampled {
    pub(crate) ns: u64,
    pub(crate) cpu: u64,
    pub(crate) pid: u64,
    pub(crate) tid: u64,
    pub(crate) kernel: bool,
    /// `function (object)+offset`, the outermost first.
    pub(crate) frames: Vec<String>,
}

/// What is in a file.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    pub(crate) tracks: BTreeMap<u64, Track>,
    pub(crate) slices: Vec<Drawn>,
    pub(crate) instants: Vec<Drawn>,
    pub(crate) samples: Vec<Drawn>,
    pub(crate) stacks: Vec<Sampled>,
    /// How often the state of a sequence was cleared after it had begun.
    pub(crate) cleared: usize,
    /// Clock and nanoseconds of the snapshot, and the trace's clock.
    pub(crate) clocks: Vec<(u64, u64)>,
    pub(crate) clock: u64,
    pub(crate) sequences: usize,
    /// Ends without a begin on their track.
    pub(crate) bad_ends: usize,
}

/// A message that can be asked for fields by name.
struct Message(Box<dyn MessageDyn>);

impl Message {
    fn all(&self, name: &str) -> Vec<ReflectValueBox> {
        let descriptor = self.0.descriptor_dyn();
        let field = descriptor.field_by_name(name).unwrap_or_else(|| panic!("no field {name}"));
        if field.is_repeated() {
            let list = field.get_repeated(&*self.0);
            return list.into_iter().map(|value| value.to_box()).collect();
        }
        field.get_singular(&*self.0).iter().map(ReflectValueRef::to_box).collect()
    }

    fn messages(&self, name: &str) -> Vec<Message> {
        let message = |value| match value {
            ReflectValueBox::Message(message) => Message(message),
            other => panic!("{name} is {other:?}"),
        };
        self.all(name).into_iter().map(message).collect()
    }

    fn message(&self, name: &str) -> Option<Message> {
        self.messages(name).pop()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.all(name).pop().map(|value| match value {
            ReflectValueBox::U32(n) => u64::from(n),
            ReflectValueBox::U64(n) => n,
            ReflectValueBox::I32(n) => n as u64,
            ReflectValueBox::I64(n) => n as u64,
            ReflectValueBox::Enum(_, n) => n as u64,
            ReflectValueBox::Bool(b) => u64::from(b),
            other => panic!("{name} is {other:?}"),
        })
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.all(name).pop().map(|value| match value {
            ReflectValueBox::Bytes(bytes) => bytes,
            other => panic!("{name} is {other:?}"),
        })
    }

    fn numbers(&self, name: &str) -> Vec<u64> {
        self.all(name).iter().map(Fixed::flow).collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.all(name).pop().map(|value| match value {
            ReflectValueBox::String(text) => text,
            other => panic!("{name} is {other:?}"),
        })
    }

    /// Nothing was written that the schema does not know, at any depth.
    fn assert_known(&self) {
        let unknown = self.0.unknown_fields_dyn();
        assert!(
            unknown.iter().next().is_none(),
            "{unknown:?} in {}",
            self.0.descriptor_dyn().name()
        );
        for field in self.0.descriptor_dyn().fields() {
            let nested = self.all(field.name()).into_iter();
            for value in nested {
                if let ReflectValueBox::Message(message) = value {
                    Message(message).assert_known();
                }
            }
        }
    }
}

fn schema() -> MessageDescriptor {
    static SCHEMA: OnceLock<MessageDescriptor> = OnceLock::new();
    SCHEMA.get_or_init(parse_schema).clone()
}

fn parse_schema() -> MessageDescriptor {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/perfetto_trace.proto");
    let parsed = protobuf_parse::Parser::new()
        .pure()
        .include(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
        .input(path)
        .parse_and_typecheck()
        .unwrap();
    let files = FileDescriptor::new_dynamic_fds(parsed.file_descriptors, &[]).unwrap();
    files[0].message_by_package_relative_name("Trace").unwrap()
}

/// What a sequence has said so far.
#[derive(Default)]
struct Sequence {
    cleared: bool,
    clock: Option<u64>,
    track: Option<u64>,
    names: HashMap<(&'static str, u64), String>,
    frames: HashMap<u64, String>,
    stacks: HashMap<u64, Vec<String>>,
    /// Every number that a frame or stack had, which no other may have later.
    used: HashMap<(&'static str, u64), Vec<String>>,
}

/// Decodes a file.
pub(crate) fn decode(bytes: &[u8]) -> Picture {
    let trace = Message(schema().parse_from_bytes(bytes).unwrap());
    trace.assert_known();
    // It is also what the library itself would write.
    let mut again = Vec::new();
    trace.0.write_to_dyn(&mut CodedOutputStream::vec(&mut again)).unwrap();
    assert_eq!(again.len(), bytes.len(), "lengths are as short as they can be");
    let mut picture = Picture::default();
    let mut sequences: HashMap<u64, Sequence> = HashMap::new();
    let mut ends: Vec<(u64, usize, u64, u64)> = Vec::new();
    let mut begins: Vec<(u64, usize, Drawn)> = Vec::new();
    for (at, packet) in trace.messages("packet").iter().enumerate() {
        let sequence = packet.number("trusted_packet_sequence_id").expect("a sequence");
        let state = sequences.entry(sequence).or_default();
        let before = state.cleared;
        state.take(packet);
        let clears = packet.number("sequence_flags").unwrap_or(0) & 1 != 0;
        picture.cleared += usize::from(before && clears);
        if let Some(snapshot) = packet.message("clock_snapshot") {
            assert_eq!(at, 0, "before everything that needs it");
            let clocks = snapshot.messages("clocks");
            let clock =
                |c: &Message| (c.number("clock_id").unwrap(), c.number("timestamp").unwrap());
            picture.clocks = clocks.iter().map(clock).collect();
            picture.clock = snapshot.number("primary_trace_clock").unwrap();
        }
        if let Some(track) = packet.message("track_descriptor") {
            picture.tracks.insert(track.number("uuid").unwrap(), describe(&track));
        }
        if let Some(sample) = packet.message("perf_sample") {
            assert!(state.cleared && packet.number("sequence_flags") == Some(2));
            assert_eq!(state.clock, Some(picture.clock), "times need no conversion");
            picture.stacks.push(state.sampled(packet, &sample));
        }
        let Some(event) = packet.message("track_event") else { continue };
        assert!(state.cleared && packet.number("sequence_flags") == Some(2));
        assert_eq!(state.clock, Some(picture.clock), "times need no conversion");
        let drawn = state.draw(packet, &event);
        assert!(picture.tracks.contains_key(&drawn.track), "events come behind their track");
        match event.number("type").unwrap() {
            1 => begins.push((drawn.ns, at, drawn)),
            2 => ends.push((drawn.ns, at, drawn.track, drawn.ns)),
            3 => picture.instants.push(drawn),
            4 => picture.samples.push(drawn),
            other => panic!("type {other}"),
        }
    }
    picture.sequences = sequences.len();
    nest(&mut picture, begins, ends);
    picture
}

/// Slices by track, in the order in which a viewer sorts: by time, then as in the file.
fn nest(
    picture: &mut Picture,
    begins: Vec<(u64, usize, Drawn)>,
    ends: Vec<(u64, usize, u64, u64)>,
) {
    let mut steps: BTreeMap<(u64, usize), Result<Drawn, (u64, u64)>> = BTreeMap::new();
    steps.extend(begins.into_iter().map(|(ns, at, drawn)| ((ns, at), Ok(drawn))));
    steps.extend(ends.into_iter().map(|(ns, at, track, end)| ((ns, at), Err((track, end)))));
    let mut open: HashMap<u64, Vec<usize>> = HashMap::new();
    for step in steps.into_values() {
        match step {
            Ok(mut drawn) => {
                let stack = open.entry(drawn.track).or_default();
                drawn.depth = stack.len();
                stack.push(picture.slices.len());
                picture.slices.push(drawn);
            }
            Err((track, end_ns)) => match open.entry(track).or_default().pop() {
                Some(at) => picture.slices[at].end_ns = Some(end_ns),
                None => picture.bad_ends += 1,
            },
        }
    }
}

fn describe(track: &Message) -> Track {
    let label = match (track.message("process"), track.message("thread")) {
        (Some(process), _) => {
            let name = process.text("process_name").unwrap_or_default();
            format!("{} {name}", process.number("pid").unwrap())
        }
        (_, Some(thread)) => {
            let name = thread.text("thread_name").unwrap_or_default();
            format!("{}/{} {name}", thread.number("pid").unwrap(), thread.number("tid").unwrap())
        }
        _ => track.text("name").unwrap_or_default(),
    };
    let unit = track.message("counter").and_then(|counter| counter.number("unit")).unwrap_or(0);
    Track { parent: track.number("parent_uuid").unwrap_or(0), label, unit }
}

impl Sequence {
    fn take(&mut self, packet: &Message) {
        if packet.number("sequence_flags").unwrap_or(0) & 1 != 0 {
            let used = std::mem::take(&mut self.used);
            *self = Sequence { cleared: true, used, ..Sequence::default() };
        }
        if let Some(defaults) = packet.message("trace_packet_defaults") {
            self.clock = defaults.number("timestamp_clock_id");
            let event = defaults.message("track_event_defaults");
            self.track = event.and_then(|event| event.number("track_uuid"));
        }
        if let Some(data) = packet.message("interned_data") {
            for of in ["event_categories", "event_names", "debug_annotation_names"] {
                for entry in data.messages(of) {
                    let (iid, name) = (entry.number("iid").unwrap(), entry.text("name").unwrap());
                    let before = self.names.insert((of, iid), name.clone());
                    assert!(before.is_none_or(|before| before == name), "{iid} has two meanings");
                }
            }
            self.intern(&data);
        }
    }

    /// Strings, mappings, frames and stacks, each of what is known by then.
    fn intern(&mut self, data: &Message) {
        for of in ["build_ids", "mapping_paths", "function_names"] {
            for entry in data.messages(of) {
                let (iid, bytes) = (entry.number("iid").unwrap(), entry.bytes("str").unwrap());
                let text = match of {
                    "build_ids" => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                    _ => String::from_utf8(bytes).unwrap(),
                };
                assert_eq!(self.names.insert((of, iid), text), None, "{of} {iid} is told twice");
            }
        }
        for entry in data.messages("mappings") {
            let path = self.name("mapping_paths", entry.numbers("path_string_ids")[0]);
            let build_id = entry.number("build_id").map(|iid| self.name("build_ids", iid));
            let label = format!("{path}{}", build_id.map_or(String::new(), |id| format!("#{id}")));
            let iid = entry.number("iid").unwrap();
            assert_eq!(self.names.insert(("mappings", iid), label), None, "told twice");
        }
        for entry in data.messages("frames") {
            let iid = entry.number("iid").unwrap();
            let function = self.name("function_names", entry.number("function_name_id").unwrap());
            let mapping = self.name("mappings", entry.number("mapping_id").unwrap());
            let offset = entry.number("rel_pc").unwrap();
            let frame = format!("{function} ({mapping})+{offset}");
            assert_eq!(self.frames.insert(iid, frame.clone()), None, "told twice");
            self.meant_once("frame", iid, vec![frame]);
        }
        for entry in data.messages("callstacks") {
            let iid = entry.number("iid").unwrap();
            let ids = entry.numbers("frame_ids");
            let frames: Vec<String> = ids.iter().map(|id| self.frames[id].clone()).collect();
            assert_eq!(self.stacks.insert(iid, frames.clone()), None, "told twice");
            self.meant_once("stack", iid, frames);
        }
    }

    /// It is illegal for a number to have two meanings, even after the state was cleared.
    fn meant_once(&mut self, of: &'static str, iid: u64, what: Vec<String>) {
        let before = self.used.insert((of, iid), what.clone());
        assert!(before.is_none_or(|before| before == what), "{of} {iid} has two meanings");
    }

    fn sampled(&self, packet: &Message, sample: &Message) -> Sampled {
        let number = |name: &str| sample.number(name).unwrap();
        Sampled {
            ns: packet.number("timestamp").unwrap(),
            cpu: number("cpu"),
            pid: number("pid"),
            tid: number("tid"),
            kernel: number("cpu_mode") == 1,
            frames: self.stacks[&number("callstack_iid")].clone(),
        }
    }

    fn name(&self, of: &'static str, iid: u64) -> String {
        self.names.get(&(of, iid)).unwrap_or_else(|| panic!("{of} {iid} is not known")).clone()
    }

    fn draw(&self, packet: &Message, event: &Message) -> Drawn {
        let mut annotations = Annotations::new();
        for one in event.messages("debug_annotations") {
            let interned =
                one.number("name_iid").map(|iid| self.name("debug_annotation_names", iid));
            let name = interned.or_else(|| one.text("name")).unwrap();
            annotations.entry(name).or_default().push(value(&one));
        }
        let interned = event.number("name_iid").map(|iid| self.name("event_names", iid));
        let category = event.number("category_iids").map(|iid| self.name("event_categories", iid));
        let sample = ["counter_value", "double_counter_value"];
        Drawn {
            track: event.number("track_uuid").or(self.track).expect("a track"),
            name: interned.or_else(|| event.text("name")).unwrap_or_default(),
            category: category.or_else(|| event.text("categories")).unwrap_or_default(),
            ns: packet.number("timestamp").unwrap(),
            flows: event.all("flow_ids").iter().map(|flow| flow.flow()).collect(),
            annotations,
            value: sample.iter().find_map(|name| event.all(name).pop().map(|v| format!("{v:?}"))),
            ..Drawn::default()
        }
    }
}

trait Fixed {
    fn flow(&self) -> u64;
}

impl Fixed for ReflectValueBox {
    fn flow(&self) -> u64 {
        match self {
            ReflectValueBox::U64(n) => *n,
            other => panic!("a flow is {other:?}"),
        }
    }
}

/// The value of an annotation.
fn value(annotation: &Message) -> String {
    let of = |name: &str| annotation.all(name).pop();
    let elements: Vec<String> = annotation.messages("array_values").iter().map(value).collect();
    if !elements.is_empty() {
        return format!("[{}]", elements.join(" "));
    }
    for (name, mark) in [
        ("uint_value", "u"),
        ("int_value", "i"),
        ("double_value", "d"),
        ("bool_value", "b"),
        ("pointer_value", "p"),
        ("string_value", "s"),
    ] {
        if let Some(value) = of(name) {
            let spelled = match value {
                ReflectValueBox::String(text) => text,
                ReflectValueBox::F64(n) => n.to_string(),
                ReflectValueBox::U64(n) => n.to_string(),
                ReflectValueBox::I64(n) => n.to_string(),
                ReflectValueBox::Bool(b) => b.to_string(),
                other => panic!("{other:?}"),
            };
            return format!("{mark}:{spelled}");
        }
    }
    "[]".into()
}
