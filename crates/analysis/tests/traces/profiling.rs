//! Profiles of traces whose story is known: whose time it was.

use crate::recording::{Dir, Recording};
use gracepoint_analysis::Trace;
use gracepoint_analysis::export::{Format, Options, export};
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::profile::{Profile, SpanTime, profile};
use gracepoint_wire::profile::{SAMPLE_ID, SWITCH_ID, profile_events};
use gracepoint_wire::schema::Role;

fn ids(ids: &[u64]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// `gp:switch`: out or in, preempted, on CPU 0.
fn switch(out: bool, preempted: bool) -> [u8; 6] {
    [u8::from(out), u8::from(preempted), 0, 0, 0, 0]
}

fn profiled(dir: &Dir) -> Profile {
    let profile = profile(&Trace::open(dir.path()).unwrap(), &Filter::default()).unwrap();
    assert_eq!(profile.damage, []);
    profile
}

/// A task that is polled on two threads, which sleep in and between the polls.
#[test]
fn a_task_has_the_time_of_its_polls_alone() {
    let mut recording = Recording::new(&[
        (Role::Begin, "a:task", &[]),
        (Role::End, "a:task", &[]),
        (Role::Enter, "a:task", &[]),
        (Role::Exit, "a:task", &[]),
        (Role::Record, "a:task", &[]),
        (Role::Follows, "a:task", &[]),
    ]);
    recording.events.extend(profile_events());
    let mut one = recording.packet(1, 101, "one", 0);
    one.event(16, 1000, &ids(&[1, 0]));
    one.event(18, 2000, &ids(&[1]));
    one.event(20, 2100, &ids(&[1]));
    one.event(21, 2200, &ids(&[1, 7]));
    one.event(SWITCH_ID, 3000, &switch(true, false));
    one.event(SWITCH_ID, 3500, &switch(false, false));
    one.event(19, 5000, &ids(&[1]));
    one.event(SWITCH_ID, 6000, &switch(true, false));
    one.event(SWITCH_ID, 8000, &switch(false, false));
    recording.close(one);
    let mut two = recording.packet(2, 102, "two", 1);
    two.event(18, 20_000, &ids(&[1]));
    two.event(SWITCH_ID, 21_000, &switch(true, true));
    two.event(SWITCH_ID, 21_700, &switch(false, true));
    two.event(19, 24_000, &ids(&[1]));
    two.event(17, 25_000, &ids(&[1]));
    two.event(SWITCH_ID, 26_000, &switch(true, true));
    two.event(SWITCH_ID, 29_000, &switch(false, true));
    recording.close(two);
    let profile = profiled(&recording.write());
    assert_eq!(profile.spans, [SpanTime { span: "a:task".into(), cpu_ns: 0, off_ns: 1200 }]);
    let threads: Vec<_> =
        profile.threads.iter().map(|t| (t.tid, t.runnable_ns, t.blocked_ns)).collect();
    assert_eq!(threads, [(101, 0, 2500), (102, 3700, 0)]);
}

/// A span that is begun and ended has all that its thread does between the two.
#[test]
fn a_span_has_the_time_between_its_begin_and_its_end() {
    let mut recording = Recording::new(&[
        (Role::Begin, "a:work", &[("n", "u32")]),
        (Role::End, "a:work", &[("n", "u32")]),
    ]);
    recording.events.extend(profile_events());
    let mut one = recording.packet(1, 101, "one", 0);
    one.event(16, 1000, &[ids(&[1, 0]), vec![9, 0, 0, 0]].concat());
    one.event(SWITCH_ID, 3000, &switch(true, false));
    one.event(SWITCH_ID, 3500, &switch(false, false));
    one.event(17, 5000, &ids(&[1]));
    one.event(SWITCH_ID, 6000, &switch(true, false));
    one.event(SWITCH_ID, 8000, &switch(false, false));
    recording.close(one);
    let profile = profiled(&recording.write());
    assert_eq!(profile.spans, [SpanTime { span: "a:work".into(), cpu_ns: 0, off_ns: 500 }]);
}

/// `gp:sample` of nothing that has a name, in the kernel or not.
fn sample(weight_ns: u64, kernel: bool) -> Vec<u8> {
    [&weight_ns.to_le_bytes()[..], &0_u32.to_le_bytes(), &[u8::from(kernel)], &[0; 6]].concat()
}

/// Where the rate was lowered, or a tick had no time for a sample, the next ones stand for more: times go by what
/// samples stand for, and not by their number.
#[test]
fn samples_count_for_the_time_that_they_stand_for() {
    let mut recording = Recording::new(&[]);
    recording.events.extend(profile_events());
    let mut one = recording.packet(1, 101, "one", 0);
    for at in [1000, 2000, 3000] {
        one.event(SAMPLE_ID, at, &sample(1_000_000, false));
    }
    one.event(SAMPLE_ID, 4000, &sample(9_000_000, true));
    recording.close(one);
    let dir = recording.write();
    let profile = profiled(&dir);
    assert_eq!((profile.samples, profile.cpu_ns, profile.kernel_ns), (4, 12_000_000, 9_000_000));
    let functions = profile.functions.iter().map(|f| (f.name.as_str(), f.self_ns));
    assert_eq!(functions.collect::<Vec<_>>(), [("[kernel]", 9_000_000), ("[unknown]", 3_000_000)]);
    assert_eq!(profile.threads[0].cpu_ns, 12_000_000);

    let exported = |format| {
        let options = Options { format, profile: true, ..Options::default() };
        let mut out = Vec::new();
        export(&Trace::open(dir.path()).unwrap(), &options, &mut out, &mut |_| true).unwrap();
        out
    };
    let folded = String::from_utf8(exported(Format::Folded)).unwrap();
    assert_eq!(folded, "one;[kernel] 9000\none;[unknown] 3000\n");
    // Of a sample the count and the nanoseconds, as protobuf has them: field 2, a number of seven bits at once.
    let pprof = exported(Format::Pprof);
    let has = |count: u8, ns: u64| {
        let mut bytes = vec![0x10, count, 0x10];
        let mut left = ns;
        while left >= 0x80 {
            bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        pprof.windows(bytes.len()).any(|part| part == bytes)
    };
    assert!(has(3, 3_000_000) && has(1, 9_000_000));
}
