//! A fake agent: speaks the protocol over a socket without any runtime behind it, and can
//! misbehave in every way that a tool must survive. One process each, started by the tests.

use crate::ring::{Ring, triple};
use gracepoint_wire::clock::{Clock, Source};
use gracepoint_wire::control::{
    Create, Created, Failure, Flushed, Function, FunctionKind, FunctionObject, Functions, Hello,
    Listed, MAX_REQUEST, Message, Program, Stopped, next_frame,
};
use gracepoint_wire::schema::{Declared, Field, Role, Schema, loss_event};
use rustix::fd::AsFd;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Id of `t:tick`.
pub(crate) const TICK: u32 = 16;
/// Threads that the fake pretends to have.
pub(crate) const SLOTS: usize = 3;

/// How the fake behaves.
struct Fake {
    mode: String,
    ring: Option<Ring>,
    fired: Vec<u64>,
    recorded: u64,
    running: bool,
    /// How often pages were asked for.
    flushes: u32,
}

/// Runs the fake until it is killed: `MODE NAME`.
pub(crate) fn main(args: &[String]) -> ! {
    let (mode, name) = (args[0].as_str(), args[1].as_str());
    let dir = std::env::var_os("GRACEPOINT_DIR").expect("tests set GRACEPOINT_DIR");
    let path = Path::new(&dir).join(format!("{}.gp1.sock", std::process::id()));
    let listener = bind(&path);
    say("ready");
    if mode == "mute" {
        std::thread::sleep(Duration::from_secs(600));
    }
    loop {
        let (stream, _) = listener.accept().unwrap();
        let fake = Fake {
            mode: mode.to_owned(),
            ring: None,
            fired: vec![0; SLOTS],
            recorded: 0,
            running: false,
            flushes: 0,
        };
        // One recorder at a time is enough here, except where a hung one must not be in the way.
        let name = name.to_owned();
        std::thread::spawn(move || fake.serve(stream, &name));
    }
}

/// Paths of tests may be longer than a socket address.
fn bind(path: &Path) -> UnixListener {
    std::env::set_current_dir(path.parent().unwrap()).unwrap();
    UnixListener::bind(path.file_name().unwrap()).unwrap()
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
}

impl Fake {
    fn serve(mut self, mut stream: UnixStream, name: &str) {
        if !self.greet(&mut stream, name) {
            std::thread::sleep(Duration::from_secs(600));
        }
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => {
                    if self.flushes > 0 {
                        say("closed");
                    }
                    return;
                }
                Ok(n) => buffer.extend_from_slice(&chunk[..n]),
                Err(_) => self.work(),
            }
            while let Some((payload, len)) = next_frame(&buffer, MAX_REQUEST).unwrap() {
                let message = Message::parse(payload).unwrap();
                buffer.drain(..len);
                if !self.handle(message, &mut stream) {
                    return;
                }
            }
        }
    }

    /// Says hello; false to say nothing more.
    fn greet(&self, stream: &mut UnixStream, name: &str) -> bool {
        let program = Program {
            name: name.into(),
            pid: std::process::id(),
            exe: "/bin/fake".into(),
            since_ns: triple().real_ns - 5_000_000_000,
            patching: "branch".into(),
            launched_by: std::env::var("GRACEPOINT_RECORDER").unwrap_or_default(),
            events_on: 1,
            events: 3,
            waiting: true,
            object: String::new(),
            makes_events: false,
            frame_pointers: (self.mode == "hollow").then_some(false),
            sessions: Vec::new(),
        };
        let mut hello = Hello::current(Some(program));
        if self.mode == "future" {
            hello.major = 9;
        }
        let frame = Message::Hello(hello).to_frame();
        match self.mode.as_str() {
            "half" => {
                stream.write_all(&frame[..frame.len() / 2]).unwrap();
                return false;
            }
            "rubbish" => stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap(),
            "huge" => stream.write_all(&[0xff; 64]).unwrap(),
            // One byte at a time: readers must put pieces together.
            "drip" => frame.iter().for_each(|b| stream.write_all(&[*b]).unwrap()),
            _ => stream.write_all(&frame).unwrap(),
        }
        true
    }

    fn handle(&mut self, message: Message, stream: &mut UnixStream) -> bool {
        let reply = match message {
            Message::Hello(_) => return true,
            Message::List => Message::Events(listed(&self.mode)),
            Message::Create(_) if self.mode == "busy" => Message::Failure(Failure {
                code: "busy".into(),
                text: "process 7 is recording already: wait for it\x1b[2J".into(),
            }),
            Message::Create(_) if self.mode == "drop" => return false,
            Message::Create(create) => {
                self.asked(&create);
                return self.create(stream);
            }
            Message::ListFunctions => match functions(&self.mode) {
                Some(functions) => Message::Functions(functions),
                None => {
                    Message::Failure(Failure { code: "unsupported".into(), text: String::new() })
                }
            },
            Message::Start(_) => self.start(),
            Message::Stop(_) if self.mode == "reset" => {
                say("asked to stop what was ended");
                return true;
            }
            Message::Stop(_) => {
                self.running = false;
                say(&format!("fired {:?} recorded {}", self.fired, self.recorded));
                let holdouts = vec!["thread 101 (writer)".to_owned()];
                let settled = self.mode != "holdout";
                let holdouts = if settled { Vec::new() } else { holdouts };
                Message::Stopped(Stopped { settled, holdouts, at: triple(), modules: Vec::new() })
            }
            Message::Release(..) if self.mode == "starved" => return true,
            Message::Release(_, pages) => {
                self.ring.as_mut().unwrap().release(&pages);
                return true;
            }
            Message::Flush(_) if self.mode == "slow" => self.slowly(),
            Message::Flush(session) if self.mode == "reset" => {
                self.flushes += 1;
                let (by, stopped) = ("pid 7 (uid 0)".into(), Stopped::default());
                Message::Ended { session, by, stopped }
            }
            Message::Flush(_) => {
                (0..SLOTS).for_each(|slot| self.ring.as_mut().unwrap().finish_page(slot));
                self.ring.as_ref().unwrap().write_triple();
                Message::Flushed(Flushed { pages: SLOTS as u32, modules: Vec::new() })
            }
            Message::Proceed => {
                say("proceed");
                Message::Done
            }
            _ => Message::Failure(Failure { code: "unsupported".into(), text: String::new() }),
        };
        if self.mode == "tight" && matches!(reply, Message::Stopped(_)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stream.write_all(&reply.to_frame()).is_ok()
    }

    fn asked(&self, create: &Create) {
        if let Some(f) = &create.functions {
            let (ids, depth, threads) = (&f.ids, f.depth, &f.threads);
            say(&format!(
                "asked {:?} {ids:?} {depth} {} {threads:?}",
                create.globs, f.threshold_ns
            ));
        }
    }

    fn create(&mut self, stream: &UnixStream) -> bool {
        let pages = match self.mode.as_str() {
            "tight" => 4,
            // One stream gets a page only after it has lost events, or never.
            "late" | "starved" => SLOTS as u32 - 1,
            _ => 64,
        };
        let ring = Ring::new(pages, TICK + 1, SLOTS as u32);
        if self.mode == "liar" {
            ring.put(24, 0xffff_ffff);
        }
        let clock = Clock {
            source: Source::Monotonic,
            freq_hz: 1_000_000_000,
            boot_id: [3; 16],
            triples: vec![triple()],
        };
        let tick = Declared { id: TICK, role: Role::Event, schema: schema("t:tick") };
        let created = Created {
            modules: Vec::new(),
            session: 5,
            events: vec![loss_event(), tick],
            clock,
            context: Default::default(),
        };
        let frame = Message::Created(created).to_frame();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [ring.file.as_fd()];
        if self.mode != "fdless" {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        sendmsg(stream, &[IoSlice::new(&frame)], &mut control, SendFlags::empty()).unwrap();
        self.ring = Some(ring);
        true
    }

    fn start(&mut self) -> Message {
        let at = triple();
        self.running = true;
        match self.mode.as_str() {
            // Within the arena, so that nothing is lost; then silence.
            "starved" => {
                (0..3000).for_each(|n| self.tick(n % SLOTS));
                self.running = false;
            }
            "die" => {
                (0..3000).for_each(|n| self.tick(n % SLOTS));
                say(&format!("wrote {:?}", self.fired));
                self.running = false;
            }
            "exit" => {
                (0..300).for_each(|n| self.tick(n % SLOTS));
                std::process::exit(7);
            }
            "scribble" => {
                (0..600).for_each(|n| self.tick(n % SLOTS));
                self.ring.as_ref().unwrap().scribble(0);
                self.running = false;
            }
            _ => {}
        }
        Message::Started(at)
    }

    /// An event happens before pages are asked for, and again when the test says so.
    fn slowly(&mut self) -> Message {
        self.tick(0);
        self.flushes += 1;
        (0..SLOTS).for_each(|slot| self.ring.as_mut().unwrap().finish_page(slot));
        self.ring.as_ref().unwrap().write_triple();
        say(&format!("flush {}", self.flushes));
        std::io::stdin().read_line(&mut String::new()).unwrap();
        Message::Flushed(Flushed { pages: SLOTS as u32, modules: Vec::new() })
    }

    /// What the program does between messages.
    fn work(&mut self) {
        if self.running && !["slow", "reset"].contains(&self.mode.as_str()) {
            let burst = if self.mode == "tight" { 2000 } else { 50 };
            (0..burst).for_each(|n| self.tick(n % SLOTS));
        }
    }

    fn tick(&mut self, slot: usize) {
        let mut payload = self.fired[slot].to_le_bytes().to_vec();
        payload.extend_from_slice(b"hello\0");
        self.fired[slot] += 1;
        let ring = self.ring.as_mut().unwrap();
        self.recorded += u64::from(ring.record(slot, TICK, &payload));
    }
}

fn schema(name: &str) -> Schema {
    let field = |name: &str, ty: &str, docs: &str| Field {
        name: name.into(),
        ty: ty.parse().unwrap(),
        docs: docs.into(),
    };
    Schema {
        name: name.into(),
        docs: "Time passes.\nAlways.".into(),
        fields: vec![field("n", "u64", "How often so far."), field("text", "str", "")],
    }
}

/// A shared object for x86-64 without any section.
const NO_SYMBOLS: [u8; 64] = {
    let mut header = [0; 64];
    let begin = *b"\x7fELF\x02\x01\x01";
    let mut at = 0;
    while at < begin.len() {
        header[at] = begin[at];
        at += 1;
    }
    (header[16], header[18], header[20], header[52], header[58]) = (3, 62, 1, 64, 64);
    header
};

/// Three with the attribute, and one with sleds, which is `main` here.
fn functions(mode: &str) -> Option<Functions> {
    let attribute = |id, name: &str, line| Function {
        id,
        name: name.into(),
        file: if line == 0 { "" } else { "src/store.rs" }.into(),
        line,
        ..Function::default()
    };
    match mode {
        "functions" | "other-build" | "stripped" => {}
        "functionless" => {
            let notes =
                vec!["sleds of version 9 in libold.so: build it with a newer compiler".into()];
            return Some(Functions { notes, ..Functions::default() });
        }
        _ => return None,
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let bias = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
    let mut path = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    if mode == "stripped" {
        path = format!("{}/stripped", std::env::var("GRACEPOINT_DIR").unwrap());
        std::fs::write(&path, NO_SYMBOLS).unwrap();
    }
    let build_id = if mode == "other-build" { vec![1; 20] } else { Vec::new() };
    let mut all = vec![
        attribute(1, "kv::store::get", 12),
        attribute(2, "kv::store::put", 40),
        attribute(3, "kv::main", 0),
    ];
    all[0].args = "kv.store:get_args".into();
    all.push(Function {
        id: 4,
        kind: FunctionKind::Sleds,
        address: main as fn(&[String]) -> ! as usize as u64 - bias,
        ..Function::default()
    });
    let objects = vec![FunctionObject { path, build_id, bias }];
    Some(Functions { objects, functions: all, notes: Vec::new() })
}

fn listed(mode: &str) -> Vec<Listed> {
    if mode == "eventless" {
        return Vec::new();
    }
    let event = |name: &str, sites, spans, on, location: &str| Listed {
        schema: schema(name),
        sites,
        spans,
        on,
        location: location.into(),
    };
    let mut events = vec![
        event("t:tick", 2, 0, 1, "src/clock.rs:12"),
        event("t:alarm", 0, 1, 0, "src/clock.rs:40"),
        event("net:send", 1, 0, 0, ""),
    ];
    if mode == "evil" {
        events[0].schema.name = "t:\x1b[31mtick\n".into();
        events[0].schema.docs = "\x1b]0;pwned\x07".into();
    }
    events
}
