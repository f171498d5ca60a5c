//! Names of the system calls in which threads sleep.

/// The name of a call by its number on this kind of processor.
pub fn name(number: u64) -> Option<&'static str> {
    TABLE.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// Whether the call's first argument is a file descriptor.
pub fn has_descriptor(name: &str) -> bool {
    const CALLS: &[&str] = &[
        "read", "write", "pread64", "pwrite64", "readv", "writev", "accept", "accept4", "connect", "recvfrom",
        "recvmsg", "sendto", "sendmsg", "fsync", "fdatasync", "flock", "ioctl", "epoll_wait", "epoll_pwait",
        "fcntl",
    ];
    CALLS.contains(&name)
}

#[cfg(not(target_arch = "aarch64"))]
const TABLE: &[(u64, &str)] = &[
    (0, "read"),
    (1, "write"),
    (7, "poll"),
    (16, "ioctl"),
    (17, "pread64"),
    (18, "pwrite64"),
    (19, "readv"),
    (20, "writev"),
    (23, "select"),
    (34, "pause"),
    (35, "nanosleep"),
    (42, "connect"),
    (43, "accept"),
    (44, "sendto"),
    (45, "recvfrom"),
    (46, "sendmsg"),
    (47, "recvmsg"),
    (61, "wait4"),
    (72, "fcntl"),
    (73, "flock"),
    (74, "fsync"),
    (75, "fdatasync"),
    (128, "rt_sigtimedwait"),
    (130, "rt_sigsuspend"),
    (202, "futex"),
    (219, "restart_syscall"),
    (230, "clock_nanosleep"),
    (232, "epoll_wait"),
    (247, "waitid"),
    (257, "openat"),
    (270, "pselect6"),
    (271, "ppoll"),
    (281, "epoll_pwait"),
    (288, "accept4"),
    (426, "io_uring_enter"),
    (449, "futex_waitv"),
    (455, "futex_wait"),
];

#[cfg(target_arch = "aarch64")]
const TABLE: &[(u64, &str)] = &[
    (22, "epoll_pwait"),
    (25, "fcntl"),
    (29, "ioctl"),
    (32, "flock"),
    (56, "openat"),
    (63, "read"),
    (64, "write"),
    (65, "readv"),
    (66, "writev"),
    (67, "pread64"),
    (68, "pwrite64"),
    (72, "pselect6"),
    (73, "ppoll"),
    (82, "fsync"),
    (83, "fdatasync"),
    (95, "waitid"),
    (98, "futex"),
    (101, "nanosleep"),
    (115, "clock_nanosleep"),
    (128, "restart_syscall"),
    (133, "rt_sigsuspend"),
    (137, "rt_sigtimedwait"),
    (202, "accept"),
    (203, "connect"),
    (206, "sendto"),
    (207, "recvfrom"),
    (211, "sendmsg"),
    (212, "recvmsg"),
    (242, "accept4"),
    (260, "wait4"),
    (426, "io_uring_enter"),
    (449, "futex_waitv"),
    (455, "futex_wait"),
];
