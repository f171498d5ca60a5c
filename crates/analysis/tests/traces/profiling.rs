//! Profiles of traces whose story is known: whose time it was.

use crate::recording::{Dir, Recording};
use gracepoint_analysis::Trace;
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::profile::{Profile, SpanTime, profile};
use gracepoint_wire::profile::{SWITCH_ID, profile_events};
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
