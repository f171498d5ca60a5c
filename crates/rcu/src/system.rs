//! The narrow door to the operating system: typed, and safe to call from anywhere, signal
//! handlers included unless a function says otherwise.

#[cfg(all(target_os = "linux", not(miri)))]
#[path = "system/linux.rs"]
mod imp;

#[cfg(any(not(target_os = "linux"), miri))]
#[path = "system/other.rs"]
mod imp;

#[cfg(unix)]
#[path = "system/exit_unix.rs"]
mod exit;

#[cfg(not(unix))]
#[path = "system/exit_portable.rs"]
mod exit;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "system/signal_linux.rs"]
mod signal;
#[path = "system/signals.rs"]
mod signals;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "system/signal_portable.rs"]
mod signal;

#[cfg(unix)]
pub(crate) use exit::on_fork;
pub(crate) use exit::{notify_exit, prepare_exit_notice};
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) use imp::keep_from_children;
pub(crate) use imp::{
    Errno, NAME_LEN, map_zeroed, membarrier, membarrier_for_code, register_membarrier,
    register_membarrier_for_code, task_name, thread_id, thread_is_gone, thread_name, with_wish,
    write_to_stderr,
};
pub(crate) use signal::{handle, read_words, send_to_thread};
pub(crate) use signals::with_signals_blocked;
