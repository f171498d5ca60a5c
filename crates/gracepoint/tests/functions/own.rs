//! Tracing what tracing stands on: the functions of the grace-period engine are recorded while that engine retires the
//! callbacks of these very recordings.

use crate::program;
use gracepoint_analysis::functions::symbols::demangle;
use gracepoint_wire::control::{
    Create, ENTRY_ID, EXIT_ID, Function, FunctionKind, Functions, FunctionsWanted, Hello,
    MAX_REPLY, Message, WHOLE_ID, next_frame,
};
use gracepoint_wire::packet::{HEADER, PacketHeader};
use object::{Object, ObjectSection, ObjectSymbol};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The program at work, and a connection to its agent.
struct Served {
    child: Child,
    folder: PathBuf,
    link: UnixStream,
    inbox: Vec<u8>,
}

impl Served {
    fn begin(name: &str) -> Served {
        let folder = std::env::temp_dir().join(format!("gp-{name}-{}", std::process::id()));
        let mut child = Command::new(program())
            .arg("serve")
            .env("GRACEPOINT_DIR", &folder)
            .env_remove("GRACEPOINT_RECORDER")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut path = String::new();
        let lines = child.stdout.take().expect("piped");
        BufReader::new(lines).read_line(&mut path).expect("it says where its agent is");
        let link = UnixStream::connect(path.trim()).expect("its agent listens");
        let mut served = Served { child, folder, link, inbox: Vec::new() };
        served.link.write_all(&Message::Hello(Hello::current(None)).to_frame()).unwrap();
        assert!(matches!(served.receive(), Message::Hello(_)));
        served
    }

    fn receive(&mut self) -> Message {
        loop {
            if let Some((payload, taken)) = next_frame(&self.inbox, MAX_REPLY).unwrap() {
                let message = Message::parse(payload).unwrap();
                self.inbox.drain(..taken);
                return message;
            }
            let mut chunk = [0; 65536];
            let n = self.link.read(&mut chunk).expect("the agent answers");
            assert!(n > 0, "the agent answers");
            self.inbox.extend_from_slice(&chunk[..n]);
        }
    }

    fn ask(&mut self, message: &Message) -> Message {
        self.link.write_all(&message.to_frame()).unwrap();
        self.receive()
    }

    /// The functions with sleds, by id, with their names.
    fn functions(&mut self) -> BTreeMap<u32, String> {
        let Message::Functions(Functions { objects, functions, notes }) =
            self.ask(&Message::ListFunctions)
        else {
            panic!("no list")
        };
        assert_eq!(notes, [""; 0]);
        assert_eq!(objects.len(), 1, "{objects:?}");
        let file = std::fs::read(&objects[0].path).expect("the program's file");
        let elf = object::File::parse(&*file).expect("an ELF file");
        let symbols: HashMap<u64, &str> =
            elf.symbols().filter_map(|s| Some((s.address(), s.name().ok()?))).collect();
        let name = |function: &Function| {
            assert_eq!(function.kind, FunctionKind::Sleds);
            let symbol = symbols.get(&function.address).expect("a symbol at its address");
            (function.id, demangle(symbol))
        };
        functions.iter().map(name).collect()
    }

    /// A session of these functions, started.
    fn record(&mut self, name: &str, wanted: FunctionsWanted) -> u64 {
        let create = Create {
            functions: Some(wanted),
            buffer_bytes: 32 << 20,
            keep: true,
            name: name.into(),
            ..Create::default()
        };
        let created = self.ask(&Message::Create(create));
        let Message::Created(created) = created else { panic!("{created:?}") };
        let started = self.ask(&Message::Start(created.session));
        assert!(matches!(started, Message::Started(_)), "{started:?}");
        created.session
    }

    fn stop(&mut self, session: u64) {
        let stopped = self.ask(&Message::Stop(session));
        let Message::Stopped(stopped) = stopped else { panic!("{stopped:?}") };
        assert!(stopped.settled, "{:?}", stopped.holdouts);
    }

    fn end(&mut self, session: u64) {
        assert_eq!(self.ask(&Message::End(session)), Message::Done);
    }

    /// The memories of its sessions.
    fn memories(&self) -> Vec<PathBuf> {
        let folder = format!("/proc/{}/fd", self.child.id());
        let links = std::fs::read_dir(folder).expect("our own child").flatten();
        let is_memory = |path: &PathBuf| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("memfd:"))
        };
        links.map(|link| link.path()).filter(is_memory).collect()
    }

    /// Waits until those of sessions that ended are freed.
    fn until_memories(&self, left: usize) {
        while self.memories().len() > left {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The memory of the only session that is there.
    fn arena(&self) -> Vec<u8> {
        let memories = self.memories();
        std::fs::read(memories.first().expect("its memory")).expect("readable")
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("our own child");
        let _ = std::fs::remove_dir_all(&self.folder);
        assert!(status.success(), "{status}");
    }
}

/// A record of a function: event, function, frame.
type Record = (u32, u32, u32);

/// What each stream has, in order.
fn records(arena: &[u8]) -> BTreeMap<u64, Vec<Record>> {
    let magic = 0xc1fc_1fc1_u32.to_le_bytes();
    let mut packets = Vec::new();
    let mut at = 0;
    while at + HEADER <= arena.len() {
        if arena[at..at + 4] != magic {
            at += 8;
            continue;
        }
        let header = PacketHeader::parse(&arena[at..]).expect("a packet");
        let end = at + header.content_bits as usize / 8;
        packets.push((header.stream, header.seq, at + HEADER..end));
        at += (header.content_bits as usize / 8).next_multiple_of(8);
    }
    packets.sort_by_key(|(stream, seq, _)| (*stream, *seq));
    let mut streams: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
    for (stream, _, range) in packets {
        let all = streams.entry(stream).or_default();
        let mut rest = &arena[range];
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let compact = word(0) & 0xfff;
            let (id, header) = if compact == 4095 { (word(2), 14) } else { (compact, 5) };
            let len = if id == ENTRY_ID || id == EXIT_ID { 8 } else { 16 };
            assert!([ENTRY_ID, EXIT_ID, WHOLE_ID].contains(&id), "event {id}");
            all.push((id, word(header), word(header + 4)));
            rest = &rest[header + len..];
        }
    }
    streams
}

/// The engine's functions that have sleds in the program's file and are not among these.
fn left_out(listed: &BTreeMap<u32, String>) -> Vec<String> {
    let file = std::fs::read(program()).expect("the program's file");
    let elf = object::File::parse(&*file).expect("an ELF file");
    let symbols: HashMap<u64, &str> =
        elf.symbols().filter_map(|s| Some((s.address(), s.name().ok()?))).collect();
    let map = elf.section_by_name("xray_instr_map").expect("sleds");
    let entries = map.data().expect("readable").chunks_exact(32).enumerate();
    // The second word of an entry is the distance from there to the function.
    let functions: BTreeSet<u64> = entries
        .map(|(i, entry)| {
            let distance = u64::from_le_bytes(entry[8..16].try_into().unwrap());
            (map.address() + i as u64 * 32 + 8).wrapping_add(distance)
        })
        .collect();
    let listed: BTreeSet<&String> = listed.values().collect();
    let names = functions.iter().map(|at| demangle(symbols[at]));
    let of_the_engine = |name: &String| name.starts_with("gracepoint_rcu::");
    names.filter(|name| of_the_engine(name) && !listed.contains(name)).collect()
}

fn one_each(ids: &BTreeSet<u32>) -> FunctionsWanted {
    FunctionsWanted { ids: ids.iter().map(|&id| (id, id)).collect(), ..FunctionsWanted::default() }
}

#[test]
fn the_engine_is_recorded_while_it_retires_the_recordings_callbacks() {
    let mut served = Served::begin("own");
    let names = served.functions();
    let engine: BTreeSet<u32> = names
        .iter()
        .filter(|(_, name)| name.contains("gracepoint_rcu::"))
        .map(|(id, _)| *id)
        .collect();
    assert!(engine.len() > 50, "{} functions", engine.len());
    assert_eq!(
        left_out(&names),
        ["gracepoint_rcu::assembly::enter", "gracepoint_rcu::assembly::leave"],
        "all that have sleds are recorded, but for what the trampoline itself calls"
    );
    let recording = served.record("engine", one_each(&engine));
    for round in 0..20 {
        // Its arrays, its ring and its operations are retired while the engine is traced into it and into the first.
        let other = served.record(&format!("other {round}"), one_each(&engine));
        served.end(other);
    }
    served.stop(recording);
    // What the others left is freed when the agent has driven on: then one memory is left to be found.
    served.until_memories(1);
    let seen: BTreeSet<u32> =
        records(&served.arena()).into_values().flatten().map(|(_, function, _)| function).collect();
    let seen: Vec<&str> = seen.iter().map(|id| names[id].as_str()).collect();
    println!("{} of {} functions of the engine were called:", seen.len(), engine.len());
    seen.iter().for_each(|name| println!("    {name}"));
    for part in ["::engine::", "::callbacks::", "::grace::"] {
        assert!(seen.iter().any(|name| name.contains(part)), "nothing of {part}");
    }
    served.end(recording);
    served.finish();
}

/// Records so many hits at least, however long that takes.
fn recorded(
    served: &mut Served,
    name: &str,
    wanted: FunctionsWanted,
    least: usize,
) -> Vec<Vec<Record>> {
    let session = served.record(name, wanted);
    loop {
        let so_far = records(&served.arena()).into_values().flatten().count();
        if so_far >= least {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    served.stop(session);
    let streams = records(&served.arena()).into_values().collect();
    served.end(session);
    served.until_memories(0);
    streams
}

/// Entries and exits pair by frame, the inner ones lie lower, and a depth or a threshold leaves out the others.
#[test]
fn a_session_records_calls() {
    let mut served = Served::begin("calls");
    let names = served.functions();
    let id = |end: &str| {
        let found = names.iter().find(|(_, name)| name.ends_with(end));
        *found.unwrap_or_else(|| panic!("no {end}")).0
    };
    let (outer, leaf) = (id("traced::outer"), id("traced::leaf"));
    let wanted = one_each(&BTreeSet::from([outer, leaf]));

    let streams = recorded(&mut served, "plain", wanted.clone(), 300);
    let calls = streams.iter().max_by_key(|records| records.len()).expect("a stream");
    let begin = calls.iter().position(|&(id, function, _)| (id, function) == (ENTRY_ID, outer));
    let six = calls[begin.expect("a whole call")..].chunks_exact(6);
    assert!(six.len() > 10, "{} calls", six.len());
    for call in six {
        let (at, inner) = (call[0].2, call[1].2);
        assert!((at.wrapping_sub(inner) as i32) > 0, "the inner call lies lower");
        let leaf = [(ENTRY_ID, leaf, inner), (EXIT_ID, leaf, inner)];
        assert_eq!(call[1..5], [leaf, leaf].concat());
        assert_eq!((call[0], call[5]), ((ENTRY_ID, outer, at), (EXIT_ID, outer, at)));
    }

    let flat = FunctionsWanted { depth: 1, ..wanted.clone() };
    let all = recorded(&mut served, "flat", flat, 100).concat();
    let others = all.iter().filter(|(_, function, _)| *function != outer).count();
    // A call that began before the session has no frame, so what it calls is the outermost that is known.
    assert!(others <= 4, "{others} of {}", all.len());

    let slow = FunctionsWanted { threshold_ns: 1, ..wanted.clone() };
    let all = recorded(&mut served, "slow", slow, 100).concat();
    assert!(all.iter().all(|(id, ..)| *id == WHOLE_ID));

    // Nobody has this id. (A longer look would see no more.)
    let nobody = FunctionsWanted { threads: vec![u32::MAX], ..wanted };
    let session = served.record("nobody", nobody);
    std::thread::sleep(std::time::Duration::from_millis(50));
    served.stop(session);
    assert_eq!(records(&served.arena()).into_values().flatten().count(), 0);
    served.end(session);
    served.finish();
}

#[test]
fn what_cannot_be_recorded_is_refused_in_words() {
    let mut served = Served::begin("refused");
    let wanted = |ids| Some(FunctionsWanted { ids, ..FunctionsWanted::default() });
    let create = Create { functions: wanted(vec![(1 << 23, 1 << 23)]), ..Create::default() };
    let Message::Failure(failure) = served.ask(&Message::Create(create)) else { panic!() };
    assert_eq!(failure.code, "functions");
    let limits = gracepoint_wire::control::Limits { sample: 3, ..Default::default() };
    let create = Create { functions: wanted(vec![(1, 1)]), limits, ..Create::default() };
    let Message::Failure(failure) = served.ask(&Message::Create(create)) else { panic!() };
    assert!(failure.text.contains("--depth"), "{failure:?}");
    served.finish();
}
