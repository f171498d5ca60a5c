//! Samples and scheduling beside spans and events, as Perfetto and Chrome draw them.

use crate::exporting::{chrome, options, perfetto, try_export};
use crate::perfetto::{Picture, decode};
use crate::recording::{Dir, Packet, Recording, START_NS, declare};
use gracepoint_analysis::export::{Format, Options};
use gracepoint_analysis::filter::Filter;
use gracepoint_wire::profile::{
    FIRST_KERNEL_ID, SAMPLE_ID, STACK_ID, SWITCH_ID, profile_events, stack_event,
};
use gracepoint_wire::schema::{MODULE_ID, Role, module_event};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Where an object of the tests lies, of which there is no file.
const BASE: u64 = 0x7000_0000;

/// `a:tick` (16), and what a profile declares.
fn recording() -> Recording {
    let mut recording = Recording::new(&[(Role::Event, "a:tick", &[])]);
    recording.events.push(module_event());
    recording.events.extend(profile_events());
    recording
}

fn module(packet: &mut Packet, base: u64, size: u64, build_id: &str, path: &str) {
    let text = format!("{build_id}\0{path}\0");
    let numbers = [base.to_le_bytes(), size.to_le_bytes()].concat();
    packet.event(MODULE_ID, 1, &[&numbers[..], text.as_bytes()].concat());
}

fn seq(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = (numbers.len() as u32).to_le_bytes().to_vec();
    bytes.extend((numbers.len() as u16).to_le_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

/// `gp:sample`, of a millisecond.
fn sample(packet: &mut Packet, after: u64, cpu: u32, kernel: bool, stack: &[u64]) {
    let head = [&1_000_000_u64.to_le_bytes()[..], &cpu.to_le_bytes(), &[u8::from(kernel)]].concat();
    packet.event(SAMPLE_ID, after, &[head, seq(stack)].concat());
}

/// `gp:switch`: the thread leaves its CPU, or comes.
fn leaves(packet: &mut Packet, after: u64, cpu: u32, preempted: bool) {
    let payload = [&[1, u8::from(preempted)][..], &cpu.to_le_bytes()].concat();
    packet.event(SWITCH_ID, after, &payload);
}

fn comes(packet: &mut Packet, after: u64, cpu: u32) {
    packet.event(SWITCH_ID, after, &[&[0, 0][..], &cpu.to_le_bytes()].concat());
}

/// A function of this program, and where it lies in it.
#[inline(never)]
fn a_function_to_be_sampled() -> u64 {
    std::hint::black_box(7)
}

/// Base and size of this program, and its path.
fn itself() -> (u64, u64, String) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let ranges = maps.lines().filter(|line| line.ends_with(&exe)).map(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        (number(from), number(to))
    });
    let ranges: Vec<(u64, u64)> = ranges.collect();
    (ranges[0].0, ranges.last().unwrap().1 - ranges[0].0, exe)
}

/// Two threads that are sampled, in this program and in an object without a file.
fn sampled() -> Dir {
    let mut recording = recording();
    recording.events.push(stack_event());
    let (base, size, exe) = itself();
    let here = a_function_to_be_sampled as fn() -> u64 as usize as u64;
    assert_eq!(a_function_to_be_sampled(), 7);
    let mut one = recording.packet(1, 101, "one", 0);
    module(&mut one, base, size, "", &exe);
    module(&mut one, BASE, 0x1000, "0aff", "/no/such/libkv.so");
    sample(&mut one, 1000, 3, false, &[here + 1, BASE + 0x11, BASE + 0x21]);
    sample(&mut one, 2000, 3, true, &[BASE + 0x11, BASE + 0x21]);
    one.event(16, 2500, &[]);
    one.loss(3000, SAMPLE_ID, 9);
    sample(&mut one, 4000, 1, false, &[]);
    recording.close(one);
    let mut two = recording.packet(2, 102, "two", 1);
    sample(&mut two, 1500, 0, false, &[here + 1, BASE + 0x11, BASE + 0x21]);
    // A copied stack of which nothing but the place is known.
    let registers = [BASE + 0x80, 0, 0, 0].map(u64::to_le_bytes).concat();
    let head = [&7_u64.to_le_bytes()[..], &2_u32.to_le_bytes(), &[0], &registers].concat();
    two.event(STACK_ID, 5000, &[head, seq(&[])].concat());
    recording.close(two);
    recording.write()
}

#[test]
fn samples_have_stacks_and_losses_are_shown() {
    let (picture, done) = perfetto(&sampled());
    assert_eq!((done.events, done.stacks, done.samples, done.lost), (1, 5, 0, 9));
    let told: Vec<(u64, u64, u64, bool)> =
        picture.stacks.iter().map(|s| (s.ns - START_NS, s.tid, s.cpu, s.kernel)).collect();
    let want = [
        (1000, 101, 3, false),
        (1500, 102, 0, false),
        (2000, 101, 3, true),
        (4000, 101, 1, false),
        (5000, 102, 2, false),
    ];
    assert_eq!(told, want);
    assert!(picture.stacks.iter().all(|s| s.pid == 77));
    let frames: Vec<&[String]> = picture.stacks.iter().map(|s| &s.frames[..]).collect();
    // Of callers the byte before the return address.
    let object = "[libkv.so] (/no/such/libkv.so#0aff)";
    let outer = [format!("{object}+32"), format!("{object}+16")];
    assert_eq!(frames[0][..2], outer);
    assert!(frames[0][2].contains("::a_function_to_be_sampled ("), "{:?}", frames[0]);
    assert_eq!(frames[0].len(), 3);
    assert_eq!(frames[1], frames[0]);
    // In the kernel all that was sampled is called from.
    assert_eq!(frames[2][..2], outer);
    assert_eq!(frames[2][2..], ["[kernel] ([nowhere])+0"]);
    assert_eq!(frames[3], ["[unknown] ([nowhere])+0"]);
    assert_eq!(frames[4], [format!("{object}+128")]);
    assert_eq!(picture.cleared, 0);
    let lost: Vec<&str> =
        picture.instants.iter().filter(|i| i.category == "gp").map(|i| i.name.as_str()).collect();
    assert_eq!(lost, ["lost: gp:sample"]);
}

/// More different stacks than are remembered: they are told again, and each sample still has its own.
#[test]
fn many_stacks_begin_anew() {
    let mut recording = recording();
    let stack = |n: u64| -> Vec<u64> {
        let deep = (0..400).map(|depth| BASE + 1 + n * 512 + depth);
        deep.chain([BASE + 0xf0_0001]).collect()
    };
    let mut one = recording.packet(1, 101, "one", 0);
    module(&mut one, BASE, 0x100_0000, "", "/no/such/kv");
    recording.close(one);
    for n in 0..400 {
        let mut packet = recording.packet(1, 101, "one", 10 + n * 100);
        sample(&mut packet, 20 + n * 100, 0, false, &stack(n % 200));
        recording.close(packet);
    }
    let dir = recording.write();
    let (picture, done) = perfetto(&dir);
    assert_eq!((done.stacks, picture.stacks.len()), (400, 400));
    assert!(picture.cleared >= 2, "{}", picture.cleared);
    for (n, sampled) in picture.stacks.iter().enumerate() {
        let stack = stack(n as u64 % 200);
        let frame = |(depth, place): (usize, &u64)| {
            format!("[kv] (/no/such/kv)+{}", place - BASE - u64::from(depth > 0))
        };
        let mut want: Vec<String> = stack.iter().enumerate().map(frame).collect();
        want.reverse();
        assert_eq!(sampled.frames, want, "{n}");
    }
    let (events, _) = chrome(&dir);
    let profiles = profiles(&events);
    assert!(profiles.len() >= 3, "{}", profiles.len());
    let depths: Vec<usize> = profiles.iter().flat_map(|p| &p.samples).map(|s| s.1.len()).collect();
    assert_eq!(depths, [402; 400]);
}

/// A thread's samples as a browser's tools put them together.
#[derive(Debug, Default)]
struct Profile {
    tid: u64,
    /// Microseconds, and functions from the outermost on.
    samples: Vec<(u64, Vec<String>)>,
}

fn profiles(events: &[Value]) -> Vec<Profile> {
    let mut profiles: Vec<Profile> = Vec::new();
    let mut by_id: HashMap<String, (usize, u64)> = HashMap::new();
    let mut nodes: HashMap<(String, u64), (Option<u64>, String)> = HashMap::new();
    for event in events.iter().filter(|event| event["ph"] == "P") {
        let (id, data) = (event["id"].as_str().unwrap().to_owned(), &event["args"]["data"]);
        let tid = event["tid"].as_u64().unwrap();
        if event["name"] == "Profile" {
            let start = data["startTime"].as_u64().unwrap();
            let before = by_id.insert(id, (profiles.len(), start));
            assert!(before.is_none(), "an id is used twice");
            profiles.push(Profile { tid, ..Profile::default() });
            continue;
        }
        assert_eq!(event["name"], "ProfileChunk");
        for node in data["cpuProfile"]["nodes"].as_array().unwrap() {
            let parent = node["parent"].as_u64();
            assert!(parent.is_none_or(|p| nodes.contains_key(&(id.clone(), p))), "{node}");
            let name = node["callFrame"]["functionName"].as_str().unwrap().to_owned();
            let key = (id.clone(), node["id"].as_u64().unwrap());
            assert!(nodes.insert(key, (parent, name)).is_none(), "told twice");
        }
        let (at, now) = by_id.get_mut(&id).expect("it has begun");
        assert_eq!(profiles[*at].tid, tid);
        let samples = data["cpuProfile"]["samples"].as_array().unwrap();
        let deltas = data["timeDeltas"].as_array().unwrap();
        assert_eq!(samples.len(), deltas.len());
        for (sample, delta) in samples.iter().zip(deltas) {
            *now += delta.as_u64().unwrap();
            let (mut node, mut frames) = (sample.as_u64(), Vec::new());
            while let Some(number) = node {
                let (parent, name) = &nodes[&(id.clone(), number)];
                frames.push(name.clone());
                node = *parent;
            }
            frames.reverse();
            profiles[*at].samples.push((*now, frames));
        }
    }
    profiles
}

#[test]
fn chrome_has_profiles_of_threads() {
    let (events, done) = chrome(&sampled());
    assert_eq!(done.stacks, 5);
    let profiles = profiles(&events);
    let told = |at: usize| {
        let times = profiles[at].samples.iter().map(|(us, frames)| (*us, frames.len()));
        (profiles[at].tid, times.collect::<Vec<_>>())
    };
    // The first sample is where time begins; whole microseconds.
    assert_eq!(told(0), (101, vec![(0, 4), (1, 4), (3, 2)]));
    assert_eq!(told(1), (102, vec![(0, 4), (4, 2)]));
    let names = &profiles[0].samples[0].1;
    assert_eq!(names[..3], ["(root)", "[libkv.so]", "[libkv.so]"]);
    assert!(names[3].ends_with("::a_function_to_be_sampled"), "{names:?}");
    assert_eq!(profiles[0].samples[1].1[3], "[kernel]");
    assert!(events.iter().any(|e| e["cat"] == "gp:loss" && e["name"] == "lost: gp:sample"));
}

/// By track: name, begin and end after the start.
type Slices = BTreeMap<String, Vec<(String, u64, Option<u64>)>>;

/// Slices on CPUs, and states below threads.
fn slices(picture: &Picture) -> Slices {
    assert_eq!(picture.bad_ends, 0);
    let mut slices = Slices::new();
    for slice in picture.slices.iter().filter(|slice| slice.category == "sched") {
        let track = &picture.tracks[&slice.track];
        let label = match track.label.as_str() {
            "state" => picture.tracks[&track.parent].label.clone(),
            cpu => cpu.to_owned(),
        };
        assert_eq!(slice.depth, 0, "{label} overlaps");
        let end = slice.end_ns.map(|end| end - START_NS);
        slices.entry(label).or_default().push((slice.name.clone(), slice.ns - START_NS, end));
    }
    slices
}

fn slice(name: &str, begin: u64, end: impl Into<Option<u64>>) -> (String, u64, Option<u64>) {
    (name.to_owned(), begin, end.into())
}

/// Two threads that take turns on a CPU; one moves to another.
fn switching() -> Dir {
    let mut recording = recording();
    let mut one = recording.packet(1, 101, "one", 0);
    comes(&mut one, 1000, 0);
    leaves(&mut one, 5000, 0, true);
    comes(&mut one, 9000, 1);
    one.event(16, 9500, &[]);
    leaves(&mut one, 11_000, 1, false);
    recording.close(one);
    let mut two = recording.packet(2, 102, "two", 1);
    comes(&mut two, 5000, 0);
    leaves(&mut two, 8000, 0, false);
    comes(&mut two, 20_000, 0);
    sample(&mut two, 25_000, 0, false, &[1]);
    recording.close(two);
    recording.write()
}

#[test]
fn threads_run_on_cpus_and_have_states() {
    let dir = switching();
    let (picture, done) = perfetto(&dir);
    assert_eq!((done.events, done.runs, done.stacks), (1, 4, 1));
    let want = Slices::from([
        (
            "CPU 0".into(),
            vec![
                slice("one", 1000, 5000),
                slice("two", 5000, 8000),
                slice("two", 20_000, 25_000), // as far as is known
            ],
        ),
        ("CPU 1".into(), vec![slice("one", 9000, 11_000)]),
        (
            "77/101 one".into(),
            vec![
                slice("running", 1000, 5000),
                slice("runnable", 5000, 9000),
                slice("running", 9000, 11_000),
                slice("blocked", 11_000, None),
            ],
        ),
        (
            "77/102 two".into(),
            vec![
                slice("running", 5000, 8000),
                slice("blocked", 8000, 20_000),
                slice("running", 20_000, 25_000),
            ],
        ),
    ]);
    assert_eq!(slices(&picture), want);
    let process = picture.tracks.iter().find(|(_, track)| track.label.starts_with("77 "));
    let cpu = picture.tracks.values().find(|track| track.label == "CPU 0").unwrap();
    assert_eq!(cpu.parent, *process.unwrap().0);

    let (events, done) = chrome(&dir);
    assert_eq!(done.runs, 4);
    let of = |phase: &str, name: &str| -> Vec<(u64, u64, f64, Option<f64>)> {
        let it = events.iter().filter(|e| e["cat"] == "sched" && e["ph"] == phase);
        let it = it.filter(|e| e["name"] == name);
        it.map(|e| {
            let number = |key: &str| e[key].as_u64().unwrap();
            (number("pid"), number("tid"), e["ts"].as_f64().unwrap(), e["dur"].as_f64())
        })
        .collect()
    };
    let named = |name: &str| {
        let it = events.iter().find(|e| e["ph"] == "M" && e["args"]["name"] == name);
        let it = it.unwrap_or_else(|| panic!("nothing is called {name}"));
        (it["pid"].as_u64().unwrap(), it["tid"].as_u64().unwrap())
    };
    let (cpu_0, cpu_1) = (named("CPU 0"), named("CPU 1"));
    let on = |(pid, tid): (u64, u64), ts: f64, dur: f64| (pid, tid, ts, Some(dur));
    assert_eq!(of("X", "one"), [on(cpu_0, 0.0, 4.0), on(cpu_1, 8.0, 2.0)]);
    assert_eq!(of("X", "two"), [on(cpu_0, 4.0, 3.0), on(cpu_0, 19.0, 5.0)]);
    let state = named("one: state");
    assert_eq!(of("X", "runnable"), [on(state, 4.0, 4.0)]);
    assert_eq!(of("B", "blocked"), [(state.0, state.1, 10.0, None)]);
    // Nobody has these numbers: the kernel gives none from 2²² on.
    assert!(state.0 == 77 && state.1 > 1 << 22 && cpu_0.0 > 1 << 22 && cpu_0.1 != cpu_1.1);
}

/// What is missing is not made up, and does not spoil what is there.
#[test]
fn missing_switches_leave_gaps() {
    let mut recording = recording();
    let mut one = recording.packet(1, 101, "one", 0);
    comes(&mut one, 1000, 0);
    one.event(16, 2000, &[]);
    // Its way out is missing, and it comes again.
    comes(&mut one, 5000, 0);
    leaves(&mut one, 6000, 0, false);
    // Its way in is missing: what it does tells that it is back, unless that is just before by another clock.
    one.event(16, 6010, &[]);
    one.event(16, 90_000, &[]);
    leaves(&mut one, 95_000, 2, true);
    // Both are missing, and nothing else is known.
    leaves(&mut one, 99_000, 2, false);
    // It was elsewhere meanwhile.
    comes(&mut one, 100_000, 2);
    leaves(&mut one, 120_000, 3, false);
    // Here it is not known what else happened.
    one.loss(150_000, SAMPLE_ID, 2);
    comes(&mut one, 200_000, 2);
    one.event(16, 201_000, &[]);
    // Somebody else is on its CPU meanwhile, so it was not there any more, and nobody knows where it is now.
    one.event(16, 250_000, &[]);
    recording.close(one);
    let mut two = recording.packet(2, 102, "two", 1);
    comes(&mut two, 230_000, 2);
    leaves(&mut two, 240_000, 2, false);
    recording.close(two);
    let (picture, _) = perfetto(&recording.write());
    let slices = slices(&picture);
    let want = [
        slice("running", 1000, 2000),
        slice("running", 5000, 6000),
        slice("blocked", 6000, 90_000),
        slice("running", 90_000, 95_000),
        slice("blocked", 99_000, 100_000),
        slice("running", 200_000, 201_000),
    ];
    assert_eq!(slices["77/101 one"], want);
    assert_eq!(slices["CPU 0"], [slice("one", 1000, 2000), slice("one", 5000, 6000)]);
    let on_two = [
        slice("one", 90_000, 95_000),
        slice("one", 200_000, 201_000),
        slice("two", 230_000, 240_000),
    ];
    assert_eq!(slices["CPU 2"], on_two);
    assert!(!slices.contains_key("CPU 3"), "nothing is known but that it left");
}

/// The kernel's own records, where there is no `gp:switch`; and who woke whom, in both.
#[test]
fn the_kernels_own_switches_and_wakings_count() {
    for own in [false, true] {
        let mut recording = Recording::new(&[(Role::Event, "a:tick", &[])]);
        if own {
            recording.events.extend(profile_events());
        }
        let fields = &[("prev_state", "i64"), ("next_pid", "i32")];
        recording.events.extend([
            declare(FIRST_KERNEL_ID, Role::Event, "sched:sched_switch", fields),
            declare(FIRST_KERNEL_ID + 1, Role::Event, "sched:sched_waking", &[("pid", "i32")]),
        ]);
        let switch =
            |state: i64, next: i32| [&state.to_le_bytes()[..], &next.to_le_bytes()].concat();
        let mut one = recording.packet(1, 101, "one", 0);
        one.event(16, 1000, &[]);
        one.event(FIRST_KERNEL_ID, 2000, &switch(1, 102));
        if own {
            leaves(&mut one, 2000, 0, false);
            comes(&mut one, 8000, 0);
        }
        one.event(16, 80_000, &[]);
        one.event(FIRST_KERNEL_ID, 81_000, &switch(0, 999));
        recording.close(one);
        let mut two = recording.packet(2, 102, "two", 1);
        two.event(16, 500, &[]);
        two.event(FIRST_KERNEL_ID, 600, &switch(0x100, 101));
        two.event(FIRST_KERNEL_ID + 1, 4000, &101_i32.to_le_bytes());
        two.event(FIRST_KERNEL_ID, 8000, &switch(2, 101));
        recording.close(two);
        let (picture, done) = perfetto(&recording.write());
        assert_eq!(done.events, 8, "they are events still");
        let slices = slices(&picture);
        let one = &slices["77/101 one"];
        let waits = [slice("blocked", 2000, 4000), slice("runnable", 4000, 8000)];
        assert!(one.windows(2).any(|two| two == waits), "{own}: {one:?}");
        let two = slices.get("77/102 two");
        if !own {
            let want = [
                slice("running", 500, 600),
                slice("runnable", 600, 2000),
                slice("running", 2000, 8000),
                slice("blocked", 8000, None),
            ];
            assert_eq!(*two.unwrap(), want);
            assert_eq!(*one.last().unwrap(), slice("runnable", 81_000, None));
        }
    }
}

/// Who asks for some events gets these; and a page or a flame graph has no place for the rest.
#[test]
fn they_come_where_they_are_asked_for() {
    let dir = sampled();
    let export = |events: &[&str], format: Format| {
        let events = events.iter().map(|&glob| glob.to_owned()).collect();
        let filter = Filter { events, ..Filter::default() };
        try_export(&dir, &Options { filter, ..options(format) }).unwrap()
    };
    assert_eq!(export(&["a:tick"], Format::Perfetto).1.stacks, 0);
    let (bytes, done) = export(&["gp:sample"], Format::Perfetto);
    assert_eq!((done.events, done.stacks, decode(&bytes).stacks.len()), (0, 4, 4));
    assert_eq!(export(&[], Format::Page).1.stacks, 0);
    assert_eq!(export(&[], Format::Chrome).1.stacks, 5);
}
