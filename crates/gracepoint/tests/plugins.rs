//! Shared objects with sites of their own, which come and go while the program is traced. Each test
//! loads a copy of `examples/plugin.rs`, so that each has an object of its own.
#![cfg(target_os = "linux")]

mod client;

use client::Tool;
use gracepoint_wire::control::{Message, Module};
use std::ffi::{CStr, CString, c_void};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Something happened in the program.
#[derive(gracepoint::Event)]
#[event(name = "program:event")]
struct Happened {
    n: u64,
}

#[inline(never)]
fn hit() -> bool {
    let mut on = false;
    gracepoint::trace!(Happened {
        n: {
            on = true;
            1
        }
    });
    on
}

/// The plugin, built as this test was.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "-q", "-p", "gracepoint", "--example", "plugin"]);
        if profile.ends_with("release") {
            command.arg("--release");
        }
        let target = profile.parent().unwrap();
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", target);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        profile.join("examples/libplugin.so")
    })
}

/// This program's agent, in a directory of its own.
fn own_socket() -> &'static Path {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    SOCKET.get_or_init(|| {
        let directory = folder().join("sockets");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
        // SAFETY: once, while no other thread of this test reads the environment: they all wait here.
        unsafe { std::env::set_var("GRACEPOINT_DIR", &directory) };
        match gracepoint::init() {
            Ok(gracepoint::Status::Listening(path)) => path,
            other => panic!("{other:?}"),
        }
    })
}

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// A folder that goes when the test ends.
fn folder() -> &'static Path {
    extern "C" fn remove() {
        let _ = FOLDER.get().map(std::fs::remove_dir_all);
    }
    FOLDER.get_or_init(|| {
        let name = format!("gp-plugins-{}", std::process::id());
        let folder = built().parent().unwrap().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        // SAFETY: a function of this test, which is there until the end.
        unsafe { libc::atexit(remove) };
        folder
    })
}

/// A loaded plugin.
struct Plugin {
    path: CString,
    handle: *mut c_void,
}

impl Plugin {
    fn load(name: &str) -> Plugin {
        let path = folder().join(name);
        if !path.exists() {
            std::fs::copy(built(), &path).unwrap();
        }
        let path = CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: the plugin's constructors are ours.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        // SAFETY: dlerror returns null or a C string, which is read at once.
        assert!(!handle.is_null(), "{:?}", unsafe { CStr::from_ptr(libc::dlerror()) });
        Plugin { path, handle }
    }

    fn function(&self, name: &CStr) -> *mut c_void {
        // SAFETY: a handle of an object that is loaded, and a C string.
        let function = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        assert!(!function.is_null(), "{name:?}");
        function
    }

    fn work(&self) -> bool {
        // SAFETY: the function of that name has this type.
        let work: extern "C" fn(u64) -> u32 =
            unsafe { std::mem::transmute(self.function(c"plugin_work")) };
        work(7) == 1
    }

    fn switch(&self, on: bool) {
        // SAFETY: the function of that name has this type.
        let switch: extern "C" fn(u32) -> u32 =
            unsafe { std::mem::transmute(self.function(c"plugin_switch")) };
        assert_eq!(switch(on.into()), 1);
    }

    /// Attaches and detaches a probe; is it called in between?
    fn attach(&self) -> bool {
        // SAFETY: the function of that name has this type.
        let attach: extern "C" fn() -> u32 =
            unsafe { std::mem::transmute(self.function(c"plugin_attach")) };
        attach() == 1
    }

    /// Starts its agent; the socket.
    fn start(&self) -> PathBuf {
        // SAFETY: the function of that name has this type.
        let start: unsafe extern "C" fn(*mut u8, usize) -> usize =
            unsafe { std::mem::transmute(self.function(c"plugin_start")) };
        let mut buffer = vec![0; 1000];
        // SAFETY: the buffer has that size.
        let len = unsafe { start(buffer.as_mut_ptr(), buffer.len()) };
        assert!(len > 0, "an agent");
        PathBuf::from(String::from_utf8(buffer[..len].to_vec()).unwrap())
    }

    /// Closes it; is it still loaded?
    fn close(self) -> bool {
        // SAFETY: nobody calls its functions any more.
        unsafe { libc::dlclose(self.handle) };
        // SAFETY: a C string; nothing is loaded.
        let left = unsafe { libc::dlopen(self.path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        !left.is_null()
    }
}

/// One test at a time: objects that are loaded and closed are the whole process's.
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn plugins_come_and_go_while_others_hit_and_are_recorded() {
    static STOP: AtomicBool = AtomicBool::new(false);
    /// A failed assertion must not leave the threads running.
    struct Stop;
    impl Drop for Stop {
        fn drop(&mut self) {
            STOP.store(true, Relaxed);
        }
    }
    let _turn = turn();
    let (mut tool, program) = Tool::connect(own_socket());
    assert_eq!(program.object, "", "the program's own runtime");
    let before = Plugin::load("before.so");
    tool.record(&["*"]);
    assert!(hit());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !STOP.load(Relaxed) {
                    assert!(hit(), "recorded all the time");
                }
            });
        }
        let _stop = Stop;
        for _ in 0..30 {
            let plugin = Plugin::load("comes-and-goes.so");
            assert!(!plugin.work(), "the program's session is not the plugin's");
            plugin.switch(true);
            assert!(plugin.work());
            assert!(!plugin.close(), "gone, with its sites on");
        }
    });
    assert!(!before.work());
    assert!(!before.close());
    let events = ["program:event", "program:sleep"].map(|name| (name.to_owned(), 1));
    assert_eq!(tool.events(), events, "the program's own, and no plugin's");
}

/// Somebody waits for the test to wake them up.
#[derive(gracepoint::Event)]
#[event(name = "program:sleep")]
struct Sleep;

#[test]
fn plugins_are_closed_while_a_reader_sleeps() {
    let _turn = turn();
    const PATIENCE: Duration = Duration::from_secs(240);
    static SLEEPS: AtomicBool = AtomicBool::new(false);
    static WAKE: AtomicBool = AtomicBool::new(false);
    own_socket();
    let sleeper = Sleep::tracepoint().name("sleeper").attach(|_| {
        SLEEPS.store(true, Relaxed);
        let begun = Instant::now();
        while !WAKE.load(Relaxed) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        SLEEPS.store(false, Relaxed);
    });
    let reader = std::thread::spawn(|| gracepoint::trace!(Sleep));
    let begun = Instant::now();
    while !SLEEPS.load(Relaxed) && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    let goes = Plugin::load("goes.so");
    goes.switch(true);
    assert!(goes.work());
    assert!(!goes.close(), "gone, with its sites on");
    let stays = Plugin::load("stays-closed.so");
    assert!(stays.attach(), "a probe of its own is called");
    // The probe's code and data are called and freed after a grace period, which nobody waits for.
    assert!(stays.close(), "closed, and still there because it has attached a probe");
    sleeper.unwrap().detach();
    assert!(SLEEPS.load(Relaxed), "nobody has waited for the reader");
    WAKE.store(true, Relaxed);
    reader.join().unwrap();
}

#[test]
fn sessions_are_told_of_objects_that_are_loaded_later() {
    let _turn = turn();
    let (mut tool, _) = Tool::connect(own_socket());
    let created = tool.record(&["*"]);
    let exe = std::env::current_exe().unwrap();
    let program = &created.modules[0];
    assert_eq!(Path::new(&program.path), exe);
    let here = (hit as fn() -> bool) as usize as u64;
    assert!((program.base..program.base + program.size).contains(&here), "{program:?}");
    let told = |tool: &mut Tool| {
        let flushed = tool.ask(&Message::Flush(created.session));
        let Message::Flushed(flushed) = flushed else { panic!("{flushed:?}") };
        // Other tests load objects too.
        let later = |module: &&Module| module.path.ends_with("/later.so");
        flushed.modules.iter().filter(later).cloned().collect::<Vec<_>>()
    };
    assert_eq!(told(&mut tool), []);
    let plugin = Plugin::load("later.so");
    let code = plugin.function(c"plugin_work") as usize as u64;
    let news = told(&mut tool);
    let [module] = news.as_slice() else { panic!("{news:?}") };
    assert!((module.base..module.base + module.size).contains(&code), "{module:?}");
    assert!(module.at > created.clock.triples[0].ticks);
    assert_eq!(told(&mut tool), [], "once");
    // Whoever looks at the session hears of all.
    let Message::Created(seen) = Tool::connect(own_socket())
        .0
        .ask(&Message::Attach { session: created.session, look: true })
    else {
        panic!()
    };
    assert!(seen.modules.contains(module));
    assert!(!plugin.close());
}

#[test]
fn a_plugin_whose_agent_runs_stays_loaded() {
    let _turn = turn();
    own_socket();
    let plugin = Plugin::load("libstays.so");
    let socket = plugin.start();
    assert_ne!(socket, own_socket(), "two runtimes, two agents");
    let (mut tool, program) = Tool::connect(&socket);
    assert_eq!(program.name, "libstays.so");
    assert!(program.object.ends_with("/libstays.so"), "{program:?}");
    assert_eq!(program.pid, std::process::id());
    assert_eq!(tool.events(), [("plugin:work".to_owned(), 0)]);
    tool.record(&["*"]);
    assert!(plugin.work());
    assert!(plugin.close(), "its agent runs: it stays");
    assert_eq!(tool.events(), [("plugin:work".to_owned(), 1)]);
    let again = Plugin::load("libstays.so");
    assert!(again.work(), "the same object");
    drop(tool);
    let (mut tool, _) = Tool::connect(&socket);
    // The agent ends a lost connection's session before it greets the next, or soon after.
    while again.work() {
        tool.events();
    }
}
