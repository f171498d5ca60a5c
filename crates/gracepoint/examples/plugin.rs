//! A plugin: a shared object with tracepoints of its own, to be loaded with `dlopen` by a program
//! of any kind, traced or not.
//!
//! It carries a runtime of its own. [`plugin_start`] starts the agent of that, which `gracepoint ps`
//! shows beside the program's; from then on the object stays loaded, whoever closes it. A plugin that
//! does not start it costs nothing, and may come and go.
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
