//! The only room with `unsafe` in it: system calls that neither `nix`, `rustix` nor `caps` offer safely.
//! One call a block; what must hold for it to be sound is said at the block, and by whom it is upheld.
#![expect(unsafe_code, reason = "every block is one system call with its argument for soundness")]

use nix::{
    errno::Errno,
    unistd::{ForkResult, fork},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Forks a process that has one thread.
///
/// # Errors
/// `EDEADLK` when the process has more than one thread, else what fork(2) says.
pub(crate) fn fork_single_threaded() -> io::Result<ForkResult> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(Errno::EDEADLK.into());
    }
    // SAFETY: the child of a fork may only make async-signal-safe calls when *another* thread could have held a lock at
    // that moment. There is no other: counted above, and the one thread that could start another is this one.
    Ok(unsafe { fork() }?)
}

/// Takes ownership of a descriptor number that the kernel has just put into our table.
pub(crate) fn own_received_descriptor(number: RawFd) -> OwnedFd {
    // SAFETY: called only by `wire::receive` with numbers out of an SCM_RIGHTS message, which the kernel allocated for
    // us; nothing else knows the number, so nothing else closes it. A negative number would be a kernel bug and panics.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Marks every descriptor from `first` up as close-on-exec, or closes it now.
pub(crate) fn close_range(first: u32, now: bool) -> io::Result<()> {
    let flags = if now { 0 } else { libc::CLOSE_RANGE_CLOEXEC };
    // SAFETY: touches no memory. Closing descriptors behind the back of their owners is what breaks I/O safety: `now` is
    // passed only by `helper::forget`, first thing in a fresh process, when no `OwnedFd` above 2 exists.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    check(result)
}

/// Whether execve(2) will close the descriptor with this number, which was read from `/proc/self/fd`.
pub(crate) fn closes_on_exec(number: RawFd) -> io::Result<bool> {
    // SAFETY: F_GETFD reads a flag and touches no memory; a number that is not open gives EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    check(flags.into())?;
    Ok(flags & libc::FD_CLOEXEC != 0)
}

/// Sets the disposition of a signal to its default, without glibc's exceptions for its own two real-time signals.
pub(crate) fn reset_signal(number: i32) -> io::Result<()> {
    // All zero is SIG_DFL, no flags, no restorer, empty mask on every architecture; 64 bytes cover the largest layout.
    let default = [0_u64; 8];
    let set_size = 8_usize;
    // SAFETY: the kernel reads at most `sizeof(struct sigaction)` (32 bytes, and 8 of mask) from `default`, which is
    // alive for the call, and writes nothing as the old action is not asked for. No handler is installed.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null_mut::<u64>(), set_size)
    };
    check(result)
}

/// Sets attributes of one mount, or of everything below it too, see mount_setattr(2).
pub(crate) fn mount_setattr(mount: impl AsFd, set: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, `attributes` outlives the call and its size is passed beside it; the kernel
    // only reads both. The descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)
}

/// Leaves the caller's session keyring for a new, empty one, see keyctl(2) KEYCTL_JOIN_SESSION_KEYRING.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring; the kernel reads no memory of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    check(result)
}

/// The number of the session keyring, without creating one; fails where keyrings cannot be reached at all.
pub(crate) fn session_keyring() -> io::Result<i64> {
    let create = 0_i32;
    // SAFETY: integer arguments only.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, libc::KEY_SPEC_SESSION_KEYRING, create) };
    check(result).map(|()| result)
}

/// Sets the NIS domain name of uname(2).
pub(crate) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads `len` bytes from `name`, which is that long; no terminating zero is needed.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(result.into())
}

/// Brings the interface `lo` of the current network namespace up; the kernel then gives it 127.0.0.1/8 and ::1/128.
pub(crate) fn raise_loopback(socket: impl AsFd) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short },
    };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which `request` is: fully initialised as far as the call looks (name and
    // flags), with the name terminated by the zeroes it was filled with.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(result.into())
}

/// Sets the execution domain and its flags, see personality(2); `nix` has the flags but not the domains.
pub(crate) fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: an integer argument only. READ_IMPLIES_EXEC, which would weaken this process, is never among the flags
    // that `enter::process` passes, and all of them matter for the next execve only.
    let result = unsafe { libc::personality(persona.into()) };
    check(result.into())
}

/// Installs a seccomp filter for this thread, which must have no_new_privs set.
pub(crate) fn install_seccomp_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(Errno::E2BIG))?;
    // The kernel's type has a mutable pointer but seccomp(2) only reads.
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points at `len` instructions that outlive the call; the kernel copies and checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    check(result)
}

/// Takes a read lease on a regular file, see fcntl(2) F_SETLEASE. Whoever opens it for writing then waits until the descriptor is
/// closed, and we hear of it by SIGURG, which nobody minds, in place of SIGIO, which kills.
pub(crate) fn lease_for_reading(file: impl AsFd) -> io::Result<()> {
    /// `include/uapi/asm-generic/fcntl.h`, the same on every architecture that we run on; `libc` lacks it.
    const F_SETSIG: libc::c_int = 10;
    let number = file.as_fd().as_raw_fd();
    // SAFETY: two calls with integer arguments that touch no memory; the descriptor is borrowed for both.
    let result = unsafe {
        match libc::fcntl(number, F_SETSIG, libc::SIGURG) {
            -1 => -1,
            _ => libc::fcntl(number, libc::F_SETLEASE, libc::F_RDLCK),
        }
    };
    check(result.into())
}

/// Gives the calling thread the ordinary scheduling policy, unless it has a humbler one already (SCHED_BATCH, SCHED_IDLE).
pub(crate) fn schedule_normally() -> io::Result<()> {
    // SAFETY: integer arguments only; 0 is the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    check(policy.into())?;
    if matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE) {
        return Ok(());
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one `sched_param`, which outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) };
    check(result.into())
}

/// Takes the calling thread's I/O priority back to what follows from its nice value, see ioprio_set(2).
pub(crate) fn forget_io_priority() -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    const CLASS_NONE: i32 = 0;
    // SAFETY: integer arguments only; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_NONE) };
    check(result)
}

/// The execution domain and its flags.
pub(crate) fn personality() -> io::Result<u32> {
    // SAFETY: an integer argument only, and this one changes nothing.
    let result = unsafe { libc::personality(0xFFFF_FFFF) };
    check(result.into()).map(|()| result as u32)
}

/// The version of Landlock that this kernel has switched on; 0 for none.
pub(crate) fn landlock_abi() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the attribute must be null and is not read.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION) };
    u32::try_from(result).unwrap_or(0)
}

/// A Landlock ruleset that judges these accesses to files and closes these scopes.
pub(crate) fn landlock_ruleset(accesses: u64, scopes: u64) -> io::Result<OwnedFd> {
    // `struct landlock_ruleset_attr`: accesses to files, to the network (none are judged), scopes. A kernel that knows fewer
    // fields takes the longer structure as long as the rest is zero.
    let attributes = [accesses, 0, scopes];
    let no_flags = 0_u32;
    // SAFETY: the kernel reads `size` bytes from `attributes`, which is that long and outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size_of_val(&attributes), no_flags)
    };
    check(result)?;
    // SAFETY: the kernel has just made this descriptor for us (it is close-on-exec), and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// Grants accesses to a file, or to all that is below a directory.
pub(crate) fn landlock_allow_beneath(ruleset: impl AsFd, place: impl AsFd, accesses: u64) -> io::Result<()> {
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent: RawFd,
    }
    const PATH_BENEATH: i32 = 1;
    let rule = PathBeneath { allowed_access: accesses, parent: place.as_fd().as_raw_fd() };
    // SAFETY: `rule` is laid out as `struct landlock_path_beneath_attr`, which is packed, and outlives the call, which reads it;
    // both descriptors are borrowed for the call.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_fd().as_raw_fd(), PATH_BENEATH, &raw const rule, 0_u32)
    };
    check(result)
}

/// Puts this thread under a Landlock ruleset; it must have no_new_privs set.
pub(crate) fn landlock_restrict(ruleset: impl AsFd) -> io::Result<()> {
    // SAFETY: a borrowed descriptor and no flags; no memory is read.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_fd().as_raw_fd(), 0_u32) };
    check(result)
}

/// Whether the file of this program gave it more rights than its caller has: set-id bits, or capabilities.
pub(crate) fn is_secure_execution() -> bool {
    // SAFETY: reads a value that the kernel gave to this process; no memory of ours is involved.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn check(result: i64) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn fork_is_refused_in_a_process_with_threads() {
        // The test harness itself is the second thread.
        let refused = super::fork_single_threaded().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EDEADLK));
    }
}
