//! A builder that makes system calls which no shell makes: this very test program, executed inside the sandbox with the
//! libraries it is linked with. `PROBE` names what it does.
#![expect(unsafe_code, reason = "raw system calls are what this file is for; a mistake fails a test and nothing else")]

use crate::lab::{Lab, bind, directory, insert};
use fodder_model::sandbox::{Access, BindKind, SandboxPlan};
use std::{collections::BTreeSet, fs, io, path::PathBuf};

/// A plan that executes one of the probes below.
pub(crate) fn plan(lab: &Lab, probe: &str) -> SandboxPlan {
    let mut plan = lab.plan("");
    insert(&mut plan, [directory("/lib", 0o755), directory("/lib64", 0o755)]);
    for library in libraries() {
        let name = library.file_name().unwrap().to_str().unwrap();
        let folder = if name == "ld-linux-x86-64.so.2" { "/lib64" } else { "/lib" };
        let target = format!("{folder}/{name}");
        insert(&mut plan, [bind(fs::canonicalize(&library).unwrap(), &target, BindKind::File, Access::ReadOnly)]);
    }
    let own = std::env::current_exe().unwrap();
    insert(&mut plan, [bind(own, "/probe", BindKind::File, Access::ReadOnly)]);
    plan.process.program = fodder_model::sandbox::Program::Execute("/probe".into());
    plan.process.arguments =
        ["/probe", "--exact", "probe::inside", "--ignored", "--nocapture", "--quiet"].map(Into::into).to_vec();
    plan.process.environment = vec![
        ("LD_LIBRARY_PATH".into(), "/lib".into()),
        ("PROBE".into(), probe.into()),
        ("RUST_TEST_THREADS".into(), "1".into()),
    ];
    plan
}

fn libraries() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.filter(|path| path.contains(".so")).map(PathBuf::from).collect()
}

/// Runs a probe that prints one line for each thing it tried; those lines.
pub(crate) fn answers(lab: &Lab, plan: &SandboxPlan) -> Vec<String> {
    let ran = lab.run(plan);
    let marked = ran.log.lines().filter_map(|line| line.strip_prefix("probe: "));
    let lines: Vec<String> = marked.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{}", ran.log);
    lines
}

#[test]
#[ignore = "is executed inside sandboxes by other tests"]
fn inside() {
    match std::env::var("PROBE").unwrap().as_str() {
        "segfault" => {
            // SAFETY: the fault is what is wanted: a write to an address that is never mapped.
            unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) }
        }
        "mounts" => mounts(),
        "keys" => tell("search", call(libc::SYS_keyctl, [10, -3, c"user".as_ptr() as i64, KEY.as_ptr() as i64, 0])),
        "terminal" => {
            let size = rustix::termios::tcgetwinsize(io::stdout()).unwrap();
            let settings = rustix::termios::tcgetattr(io::stderr()).unwrap();
            let raw = !settings.output_modes.contains(rustix::termios::OutputModes::OPOST);
            let (rows, columns, speed) = (size.ws_row, size.ws_col, settings.output_speed());
            println!("probe: size {rows} {columns}, {speed} baud, post-processing {}", if raw { "off" } else { "on" });
        }
        "seccomp" => seccomp(),
        "forks" => forks(),
        "memory" => memory(4, 100 << 20, false),
        "shared memory" => memory(4, 0, true),
        "inotify" => println!("probe: {}", (0..200).take_while(|_| watcher()).count()),
        #[cfg(target_arch = "x86_64")]
        "i386" => i386(),
        unknown => panic!("no probe {unknown}"),
    }
}

/// The description of the key that the runner has and the builder must not see.
pub(crate) const KEY: &std::ffi::CStr = c"fodder-sandbox-test";

/// Gives the calling thread a session keyring with a secret in it.
pub(crate) fn own_a_key() -> io::Result<()> {
    call(libc::SYS_keyctl, [1, 0, 0, 0, 0])?;
    call(libc::SYS_add_key, [c"user".as_ptr() as i64, KEY.as_ptr() as i64, c"secret".as_ptr() as i64, 6, -3])?;
    call(libc::SYS_keyctl, [10, -3, c"user".as_ptr() as i64, KEY.as_ptr() as i64, 0])
}

fn mounts() {
    let attributes = libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    let at = i64::from(libc::AT_FDCWD);
    let input = c"/input".as_ptr() as i64;
    let size = size_of::<libc::mount_attr>() as i64;
    tell("mount_setattr", call(libc::SYS_mount_setattr, [at, input, 0, &raw const attributes as i64, size]));
    tell("open_tree", call(libc::SYS_open_tree, [at, input, 1, 0, 0]));
    let remount = (libc::MS_REMOUNT | libc::MS_BIND) as i64;
    tell("remount", call(libc::SYS_mount, [0, input, 0, remount, 0]));
    tell("umount", call(libc::SYS_umount2, [input, i64::from(libc::MNT_DETACH), 0, 0, 0]));
    tell("unlock", call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWNS), 0, 0, 0, 0]));
    tell("chmod", call(libc::SYS_fchmodat, [at, c"/input/file".as_ptr() as i64, 0o777, 0, 0]));
    tell("write", call(libc::SYS_openat, [at, c"/input/file".as_ptr() as i64, i64::from(libc::O_WRONLY), 0, 0]));
}

fn seccomp() {
    let at = i64::from(libc::AT_FDCWD);
    let file = c"/build/file".as_ptr() as i64;
    tell("create", fs::write("/build/file", "x"));
    tell("plain chmod", call(libc::SYS_fchmodat, [at, file, 0o755, 0, 0]));
    tell("set-id chmod", call(libc::SYS_fchmodat, [at, file, 0o4755, 0, 0]));
    tell("high bits", call(libc::SYS_fchmodat, [at, file, 0x7000_0000_0000_0000 | 0o4755, 0, 0]));
    tell("getxattr", call(libc::SYS_getxattr, [file, c"user.x".as_ptr() as i64, 0, 0, 0]));
}

/// getxattr(2) by the system call interface of 32-bit programs.
#[cfg(target_arch = "x86_64")]
fn i386() {
    const GETXATTR: i32 = 229;
    let answer: i32;
    // SAFETY: the instruction changes the accumulator only; the kernel gets null pointers to work with, which it refuses.
    unsafe {
        std::arch::asm!("push rbx", "xor ebx, ebx", "int 0x80", "pop rbx", inlateout("eax") GETXATTR => answer,
            in("ecx") 0, in("edx") 0, in("esi") 0, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _)
    }
    tell("i386 getxattr", Err(io::Error::from_raw_os_error(-answer)));
}

fn call(number: i64, [a, b, c, d, e]: [i64; 5]) -> io::Result<()> {
    // SAFETY: pointers among the arguments are to live C strings and structures of the callers in this file.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn tell(what: &str, outcome: io::Result<()>) {
    let outcome = outcome.map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    match outcome {
        Ok(()) => println!("probe: {what}: done"),
        Err(errno) => println!("probe: {what}: {errno:?}"),
    }
}

/// Sets the disposition of a signal in this whole program.
pub(crate) fn set_action(signal: nix::sys::signal::Signal, action: &nix::sys::signal::SigAction) {
    // SAFETY: callers ignore signals; no handler is installed that could be unsafe to run.
    unsafe { nix::sys::signal::sigaction(signal, action) }.unwrap();
}

/// Gives the calling thread supplementary groups. The raw call, since glibc's changes all threads.
pub(crate) fn set_own_groups(groups: &[u32]) {
    call(libc::SYS_setgroups, [groups.len() as i64, groups.as_ptr() as i64, 0, 0, 0]).unwrap();
}

/// Starts processes until that is refused, at most 120.
fn forks() {
    let start = |_| std::process::Command::new("/bin/sleep").arg("30").spawn().ok();
    println!("probe: {}", (0..120).map_while(start).count());
}

/// Children with so much memory each, of which no single one is much; or with none of their own and their parent's 150 MiB.
fn memory(children: usize, bytes: usize, shares: bool) {
    let fill = |bytes: usize| std::hint::black_box(vec![1_u8; bytes]);
    let own = fill(if shares { 150 << 20 } else { 0 });
    for _ in 0..children {
        // SAFETY: the harness has another thread, which could hold a lock of the allocator: a child that waits for it fails the
        // test, and harms nothing else.
        if unsafe { libc::fork() } == 0 {
            let _own = fill(bytes);
            std::thread::sleep(std::time::Duration::from_millis(1500));
            // SAFETY: ends this child and nothing else.
            unsafe { libc::_exit(0) }
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(1800));
    println!("probe: {} MiB and {children} children", own.len() >> 20);
}

/// An inotify instance that stays open to the end.
fn watcher() -> bool {
    // SAFETY: makes a descriptor, which is left open on purpose.
    unsafe { libc::inotify_init1(0) >= 0 }
}
