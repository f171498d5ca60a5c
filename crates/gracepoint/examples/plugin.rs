//! A plugin: a shared object with tracepoints of its own, to be loaded with `dlopen` by a program
//! of any kind, traced or not.
//!
//! It carries a runtime of its own. [`plugin_start`] starts the agent of that, which `gracepoint ps`
//! shows beside the program's; from then on the object stays loaded, whoever closes it. So it does once it has attached
//! a probe ([`plugin_attach`]), whose end a reader may hold up for as long as that sleeps. A plugin that does neither
//! costs nothing, and may come and go.
#![allow(clippy::missing_safety_doc, reason = "the functions that are unsafe say what they need")]

/// The plugin was asked to do something.
#[derive(gracepoint::Event)]
#[event(name = "plugin:work")]
struct Work {
    n: u64,
}

/// Does something; 1 if its tracepoint is on, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_work(n: u64) -> u32 {
    let mut on = 0;
    gracepoint::trace!(Work {
        n: {
            on = 1;
            n
        }
    });
    on
}

/// Starts the agent. Writes the path of its socket to `buffer`; its length, or 0 if there is none.
///
/// # Safety
/// `buffer` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plugin_start(buffer: *mut u8, size: usize) -> usize {
    let Ok(gracepoint::Status::Listening(path)) = gracepoint::init() else { return 0 };
    let path = path.to_string_lossy().into_owned();
    let len = path.len().min(size);
    // SAFETY: at most `size` bytes of a string of ours; the caller has room for them.
    unsafe { std::ptr::copy_nonoverlapping(path.as_ptr(), buffer, len) };
    len
}

/// Switches the plugin's sites without any probe; 1 if that worked. For the tests.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_switch(on: u32) -> u32 {
    u32::from(gracepoint::__private::switch_sites("plugin:*", on != 0).is_ok())
}

/// Attaches a probe of the plugin's own, does something, and takes the probe away; how often it was called.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_attach() -> u32 {
    let called = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = std::sync::Arc::clone(&called);
    let probe = Work::tracepoint().attach(move |_: &Work| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    plugin_work(1);
    drop(probe);
    called.load(std::sync::atomic::Ordering::Relaxed)
}
