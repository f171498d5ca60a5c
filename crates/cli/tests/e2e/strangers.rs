//! Programs of other users, in other namespaces, with other rights than their caller's: who may trace
//! whom, and what still works there. What needs root or namespaces says so where it is skipped.

use crate::scene::{Running, Said, Scene};
use libtest_mimic::Trial;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Two users whom no system knows.
const ALICE: u32 = 454_321;
const BOB: u32 = 454_322;

/// Name, test, whether it can run here, and what it needs.
type Test = (&'static str, fn(), bool, &'static str);

pub(crate) fn trials() -> Vec<Trial> {
    let unshared = works(Command::new("unshare").args(["-Urpmf", "--mount-proc", "true"]));
    let root = rustix::process::geteuid().is_root()
        && works(Command::new("setpriv").args(["--reuid", "454321", "--clear-groups", "true"]));
    let tests: [Test; 8] = [
        ("a_peer_cannot_change_the_buffer", a_peer_cannot_change_the_buffer, true, "nothing"),
        ("a_program_in_a_container", a_program_in_a_container, unshared, "user namespaces"),
        (
            "a_sidecar_with_a_shared_volume",
            a_sidecar_with_a_shared_volume,
            unshared,
            "user namespaces",
        ),
        ("another_user_is_refused", another_user_is_refused, root, "root and setpriv"),
        (
            "a_strangers_socket_is_not_spoken_to",
            a_strangers_socket_is_not_spoken_to,
            root,
            "root and setpriv",
        ),
        (
            "a_program_that_is_not_dumpable",
            a_program_that_is_not_dumpable,
            root,
            "root and setpriv",
        ),
        (
            "a_set_uid_program_heeds_nobody",
            a_set_uid_program_heeds_nobody,
            root,
            "root and setpriv",
        ),
        ("a_read_only_place_is_no_harm", a_read_only_place_is_no_harm, unshared, "user namespaces"),
    ];
    let trial = |(name, test, can, needs): Test| {
        let trial = crate::trial((name, test));
        if can {
            trial
        } else {
            trial.with_kind(format!("skipped, needs {needs}")).with_ignored_flag(true)
        }
    };
    tests.into_iter().map(trial).collect()
}

fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// This program under a container's conditions: its own pids, users and mounts, a root directory that
/// cannot be written, and of all the volume with the sockets alone.
fn contained(scene: &Scene, args: &[&str], volume: &str) -> Running {
    let mut command = scene.command("unshare");
    command.args(["-Urpmf", "--kill-child=KILL", "--mount-proc", "sh", "-c"]);
    let script = format!(
        "{volume} mount -o remount,ro,bind / || exit 9; \
         touch \"$0.probe\" 2>/dev/null && exit 8; exec \"$0\" --program \"$@\""
    );
    command.arg(script).arg(std::env::current_exe().unwrap()).args(args);
    Running::start(command)
}

fn a_program_in_a_container() {
    let scene = Scene::new();
    let share = format!("mount --bind {0} {0};", scene.sockets().display());
    let mut program = contained(&scene, &["forever", "2"], &share);
    program.expect("ready");
    let said = scene.run(&["ps", "--json"]);
    let ps: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let pid = ps["pid"].as_u64().unwrap();
    assert_eq!((&ps["own_pid"], &ps["answers"]), (&1.into(), &true.into()), "{ps}");
    assert!(pid > 1);
    let table = scene.run(&["ps"]).out;
    assert!(table.contains(&format!("{pid}  worker (pid 1 there)")), "{table}");
    // By our pid; the buffer comes as a descriptor, so that no path leads out of the container.
    let recorder = scene.recorder(pid as u32, &["--duration", "200ms"]);
    let said = recorder.end();
    assert_eq!(said.status, 0, "{}", said.err);
    let info: serde_json::Value =
        serde_json::from_str(&scene.run(&["info", "t.trace", "--json"]).out).unwrap();
    assert!(info["events"].as_u64() > Some(0) && info["lost"] == 0, "{info}");
    assert_eq!(info["program"]["pid"], 1);
    // It is not the process 1 of this place.
    let said = scene.run(&["list", "-p", "1"]);
    assert_ne!(said.status, 0, "{}", said.out);
}

/// Program and tool in containers of their own, which share nothing but the volume with the sockets:
/// neither has a pid in the other's namespace.
fn a_sidecar_with_a_shared_volume() {
    let scene = Scene::new();
    let share = format!("mount --bind {0} {0};", scene.sockets().display());
    let mut program = contained(&scene, &["forever", "2"], &share);
    program.expect("ready");
    let tool = |args: &[&str]| {
        let mut command = scene.command("unshare");
        command.args(["-Urpmf", "--kill-child=KILL", "--mount-proc"]);
        ended({
            command.arg(env!("CARGO_BIN_EXE_gracepoint")).args(args);
            command
        })
    };
    let said = tool(&["ps", "--json"]);
    let ps: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&ps["pid"], &ps["own_pid"], &ps["name"]), (&0.into(), &1.into(), &"worker".into()));
    let said = tool(&["record", "--name", "worker", "-o", "t.trace", "--duration", "200ms"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let info: serde_json::Value =
        serde_json::from_str(&scene.run(&["info", "t.trace", "--json"]).out).unwrap();
    assert!(info["events"].as_u64() > Some(0) && info["lost"] == 0, "{info}");
    // Sessions that stay, and the program's end while it is recorded.
    for words in ["start --session s", "show", "snapshot -o s.trace", "reset"] {
        let said = tool(&words.split(' ').collect::<Vec<_>>());
        assert_eq!(said.status, 0, "{words}: {}", said.err);
    }
    drop(program.child.stdin.take());
    assert_eq!(program.end().status, 0);
    let said = tool(&["ps"]);
    assert_eq!(said.status, 1, "{} {}", said.out, said.err);
}

fn a_read_only_place_is_no_harm() {
    let scene = Scene::new();
    // Nothing is mounted over the sockets: the program cannot put its own there. It says so, and this
    // one, which insists on success, ends.
    let said = contained(&scene, &["idle"], "").end();
    assert!(said.err.contains("Read-only file system"), "{} {}", said.out, said.err);
    assert!(said.err.contains("set GRACEPOINT_DIR"), "{}", said.err);
}

/// `program` of this binary, as another user, in a directory of that user's own.
fn as_user(scene: &Scene, user: u32, binary: &PathBuf, args: &[&str]) -> Command {
    let mut command = scene.command("setpriv");
    let user = user.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(binary).args(args);
    command
}

/// A copy of a program where every user can run it.
fn copied(scene: &Scene, from: PathBuf, name: &str) -> PathBuf {
    let to = scene.dir.join(name);
    fs::copy(from, &to).unwrap();
    fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
    to
}

/// A scene for Alice: her sockets, and copies of this binary and of the command.
fn of_alice() -> (Scene, PathBuf, PathBuf) {
    let scene = Scene::new();
    fs::set_permissions(&scene.dir, Permissions::from_mode(0o755)).unwrap();
    chown(scene.sockets(), Some(ALICE), Some(ALICE)).unwrap();
    let program = copied(&scene, std::env::current_exe().unwrap(), "program");
    let tool = copied(&scene, env!("CARGO_BIN_EXE_gracepoint").into(), "gracepoint");
    (scene, program, tool)
}

fn ended(command: Command) -> Said {
    Running::start(command).end()
}

/// Bytes of greeting that `user` gets at the socket, and what ended it.
fn knocks(scene: &Scene, user: u32, program: &PathBuf, pid: u32) -> String {
    let socket = scene.sockets().join(format!("{pid}.gp1.sock"));
    let socket = socket.to_string_lossy().into_owned();
    ended(as_user(scene, user, program, &["--program", "knock", &socket])).out
}

fn another_user_is_refused() {
    let (scene, program, tool) = of_alice();
    let mut running = Running::start(as_user(&scene, ALICE, &program, &["--program", "idle"]));
    running.expect("ready");
    let pid = running.pid().to_string();
    let list = |user| ended(as_user(&scene, user, &tool, &["list", "-p", &pid]));
    let (hers, his) = (list(ALICE), list(BOB));
    assert_eq!(hers.status, 0, "{}", hers.err);
    assert!(his.status == 2 && his.err.contains("another user's"), "{}", his.err);
    assert_eq!(scene.run(&["list", "-p", &pid]).status, 0, "root may");
    // The directory keeps him out; and where it does not, the agent does.
    let shut = knocks(&scene, BOB, &program, running.pid());
    assert!(shut.contains("PermissionDenied"), "{shut}");
    fs::set_permissions(scene.sockets(), Permissions::from_mode(0o755)).unwrap();
    let socket = scene.sockets().join(format!("{pid}.gp1.sock"));
    fs::set_permissions(socket, Permissions::from_mode(0o777)).unwrap();
    let open = knocks(&scene, BOB, &program, running.pid());
    assert!(open.starts_with("0 bytes"), "{open}");
    let known = knocks(&scene, ALICE, &program, running.pid());
    assert!(!known.starts_with("0 bytes"), "{known}");
}

fn a_strangers_socket_is_not_spoken_to() {
    let (scene, program, tool) = of_alice();
    // Bob pretends to be a program that admits everybody, in a place where Alice looks.
    fs::set_permissions(scene.sockets(), Permissions::from_mode(0o777)).unwrap();
    let bob = as_user(&scene, BOB, &program, &["--program", "fake", "good", "kv"]);
    let mut bob = Running::start(bob);
    bob.expect("ready");
    for entry in fs::read_dir(scene.sockets()).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o777)).unwrap();
    }
    let said = ended(as_user(&scene, ALICE, &tool, &["ps"]));
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{}", said.err);
    let said = ended(as_user(&scene, BOB, &tool, &["ps"]));
    assert!(said.status == 0 && said.out.contains("kv"), "he is there: {} {}", said.out, said.err);
}

fn a_program_that_is_not_dumpable() {
    let (scene, program, tool) = of_alice();
    let mut running =
        Running::start(as_user(&scene, ALICE, &program, &["--program", "undumpable"]));
    running.expect("ready");
    let said = knocks(&scene, ALICE, &program, running.pid());
    assert!(said.starts_with("0 bytes"), "not even its own user: {said}");
    let pid = running.pid().to_string();
    let said = ended(as_user(&scene, ALICE, &tool, &["list", "-p", &pid]));
    assert_eq!(said.status, 2, "{}", said.out);
    assert_eq!(scene.run(&["list", "-p", &pid]).status, 0, "root may");
}

fn a_set_uid_program_heeds_nobody() {
    let (scene, program, tool) = of_alice();
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let mut command = as_user(&scene, ALICE, &program, &["--program", "idle"]);
    command.env("GRACEPOINT_RECORDER", "somebody");
    let mut running = Running::start(command);
    running.expect("ready");
    let pid = running.pid().to_string();
    // Its caller's environment does not say where its socket lies, nor whom it waits for.
    assert_eq!(fs::read_dir(scene.sockets()).unwrap().count(), 0);
    let said = ended(as_user(&scene, ALICE, &tool, &["list", "-p", &pid]));
    assert!(said.status == 2 && said.err.contains("another user's (uid 0)"), "{}", said.err);
    let mut root = scene.gracepoint(&["list", "-p", &pid]);
    root.env_remove("GRACEPOINT_DIR");
    assert_eq!(ended(root).status, 0, "root may");
}

/// Whoever has the buffer's descriptor, as the recorder has, or finds it in `/proc`, may read it alone.
fn a_peer_cannot_change_the_buffer() {
    let scene = Scene::new();
    let mut program = scene.program(&["forever", "1"]);
    program.expect("ready");
    let recorder = scene.recorder(program.pid(), &[]);
    for pid in [recorder.pid(), program.pid()] {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|e| e.unwrap().path());
        let is_buffer = |path: &PathBuf| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"))
        };
        let buffers: Vec<PathBuf> = links.filter(is_buffer).collect();
        assert!(pid == program.pid() || !buffers.is_empty(), "the recorder has it");
        for buffer in buffers {
            let file = fs::File::options().read(true).write(true).open(buffer).unwrap();
            let length = file.metadata().unwrap().len();
            let refused = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            };
            refused(file.write_all_at(b"garbage", 0));
            refused(file.write_all_at(b"garbage", length / 2));
            refused(file.set_len(0));
            refused(file.set_len(length * 2));
            assert_eq!(file.metadata().unwrap().len(), length);
        }
    }
    recorder.signal(rustix::process::Signal::INT);
    assert_eq!(recorder.end().status, 0);
}
