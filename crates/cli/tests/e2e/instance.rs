//! The kernel's tracepoints by an instance of tracefs, for a recorder that may not open perf events. As root, where
//! tracefs can be mounted; else these tests are shown as skipped.

use crate::kernel::{NAPS, assert_naps, assert_slow, helpers};
use crate::real::{assert_ok, go, start};
use crate::sampling::refusing;
use crate::scene::{Running, Scene};
use crate::verbs::until;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 4] = [
        ("kernel_events_come_by_tracefs_where_perf_events_are_refused", by_tracefs),
        ("many_kernel_events_take_one_buffer_and_not_a_ring_each", many),
        ("a_killed_recorder_leaves_no_instance_of_tracefs", killed_recorder),
        ("reset_removes_the_instance_of_a_killed_helper", killed_helper),
    ];
    let here = Mounted::new(&Scene::new()).is_some();
    let one = |test| match here {
        true => crate::trial(test),
        false => {
            let kind = "skipped, needs root and tracefs";
            crate::trial(test).with_kind(kind).with_ignored_flag(true)
        }
    };
    tests.into_iter().map(one).collect()
}

/// Whoever begins takes away what killed ones have left: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A mount of tracefs.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Where tracefs can be mounted.
    pub(crate) fn new(scene: &Scene) -> Option<Mounted> {
        let place = scene.dir.join("tracefs");
        std::fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tracefs", "tracefs"]).arg(&place).stderr(Stdio::null());
        let done = mount.status().is_ok_and(|status| status.success());
        done.then_some(Mounted(place)).filter(|mounted| mounted.0.join("instances").is_dir())
    }

    /// Has a command find it here.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("GRACEPOINT_TRACEFS", &self.0);
    }

    fn instance(&self, helper: u32) -> PathBuf {
        self.0.join(format!("instances/gracepoint-{helper}"))
    }

    /// Records the kernel's events of `program`, and says which process is the helper.
    fn record(&self, scene: &Scene, program: &Running) -> (Running, u32) {
        let mut recorder = refusing(scene);
        let pid = program.pid().to_string();
        recorder.args(["record", "-p", &pid, "-k", NAPS, "-o", "t.trace"]);
        self.tell(&mut recorder);
        let mut recorder = Running::start(recorder);
        recorder.expect_error("gracepoint: recording ");
        let helpers = helpers(recorder.pid());
        assert_eq!(helpers.len(), 1);
        assert!(self.instance(helpers[0]).is_dir());
        (recorder, helpers[0])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn by_tracefs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new();
    let mounted = Mounted::new(&scene).unwrap();
    let mut program = start(&scene, &["burn", "30"]);
    let (recorder, helper) = mounted.record(&scene, &program);
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&recorder.end());
    assert_naps(&scene);
    assert_slow(&scene);
    until("the instance is gone", || !mounted.instance(helper).exists());
}

/// All system calls: thousands of rings, if each had one for each thread and CPU.
fn many() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new();
    let mounted = Mounted::new(&scene).unwrap();
    let mut program = start(&scene, &["burn", "30"]);
    let pid = program.pid().to_string();
    let mut recorder = scene.gracepoint(&["record", "-p", &pid, "-k"]);
    recorder.args(["syscalls:*,sched:sched_switch,sched:sched_waking", "-o", "t.trace"]);
    mounted.tell(&mut recorder);
    let mut recorder = Running::start(recorder);
    recorder.expect_error("gracepoint: recording ");
    let helper = helpers(recorder.pid())[0];
    assert!(mounted.instance(helper).is_dir());
    let maps = std::fs::read_to_string(format!("/proc/{helper}/maps")).unwrap();
    assert!(!maps.contains("perf_event"), "{maps}");
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&recorder.end());
    assert_naps(&scene);
    until("the instance is gone", || !mounted.instance(helper).exists());
}

fn killed_recorder() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new();
    let mounted = Mounted::new(&scene).unwrap();
    let program = start(&scene, &["count", "1", "1"]);
    let (recorder, helper) = mounted.record(&scene, &program);
    recorder.signal(Signal::KILL);
    recorder.end();
    until("the instance is gone", || !mounted.instance(helper).exists());
}

fn killed_helper() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Instances are the kernel's, wherever tracefs is mounted: a command of another test, which takes away what killed
    // ones have left, may come first.
    assert!((0..20).any(|_| reset_removes()), "somebody else was always there first");
}

/// Whether it was the reset that removed the instance.
fn reset_removes() -> bool {
    let scene = Scene::new();
    let mounted = Mounted::new(&scene).unwrap();
    let program = start(&scene, &["count", "1", "1"]);
    let (recorder, helper) = mounted.record(&scene, &program);
    // The helper first: it would end by itself when the recorder does.
    let pid = Pid::from_raw(helper.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    recorder.signal(Signal::KILL);
    recorder.end();
    until("the helper is gone", || !std::fs::exists(format!("/proc/{helper}")).unwrap());
    let left = mounted.instance(helper).is_dir();
    let mut reset = scene.gracepoint(&["reset"]);
    mounted.tell(&mut reset);
    let said = Running::start(reset).end();
    assert!(!mounted.instance(helper).exists(), "{}", said.err);
    left && said.err.contains("1 instance of tracefs removed")
}
