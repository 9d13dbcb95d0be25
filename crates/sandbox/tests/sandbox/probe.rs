//! A builder that makes system calls which no shell makes: this very test program, executed inside the sandbox with the
//! libraries it is linked with. `PROBE` names what it does.
#![expect(unsafe_code, reason = "raw system calls are what this file is for; a mistake fails a test and nothing else")]

use crate::lab::{Lab, bind, directory, insert};
use fodder_model::sandbox::{Access, BindKind, SandboxPlan};
use std::{collections::BTreeSet, fs, io, path::PathBuf, thread::sleep, time::Duration};

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
    act(&std::env::var("PROBE").unwrap());
}

/// Does what a probe does, inside.
pub(crate) fn act(probe: &str) {
    match probe {
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
        "memory without a first thread" => without_a_first_thread(400 << 20),
        "slow looks" => slow_looks(400 << 20),
        "lease" => lease(),
        "terminals" => println!("probe: {}", (0..400).take_while(|_| terminal()).count()),
        "queue" => tell("queue", call(libc::SYS_mq_open, [c"q".as_ptr() as i64, 0o102, 0o600, 0, 0])),
        "inotify" => println!("probe: {}", (0..200).take_while(|_| watcher()).count()),
        "write" => {
            tell("write", fs::OpenOptions::new().append(true).open("/input/file").map(drop));
            tell("truncate", fs::File::create("/input/file").map(drop));
            tell("create", fs::File::create_new("/input/new").map(drop));
            tell("remove", fs::remove_file("/input/file"));
        }
        "sockets" => sockets(),
        "namespaces" => namespaces(),
        "tiocsti" => tiocsti(),
        "connect" => connect(),
        "every call" => every_call(|number| call(number, [-1; 5])),
        #[cfg(target_arch = "x86_64")]
        "every i386 call" => every_call(|number| match i386_call(number as i32, -1) {
            errno @ -4095..0 => Err(io::Error::from_raw_os_error(-errno)),
            _ => Ok(()),
        }),
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
    tell("i386 getxattr", Err(io::Error::from_raw_os_error(-i386_call(GETXATTR, 0))));
}

/// A call by that interface, with one value for all arguments.
#[cfg(target_arch = "x86_64")]
fn i386_call(number: i32, argument: i32) -> i32 {
    let answer: i32;
    // SAFETY: the instruction changes the accumulator only; arguments are null or -1, which the kernel refuses as pointers.
    unsafe {
        std::arch::asm!("push rbx", "mov ebx, ecx", "int 0x80", "pop rbx", inlateout("eax") number => answer,
            in("ecx") argument, in("edx") argument, in("esi") argument, in("edi") argument,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _)
    }
    answer
}

/// Up to which number calls are tried: beyond the last one that any kernel has.
const NUMBERS: std::ops::Range<i64> = 0..640;

/// Makes every call in a child of its own, with -1 for every argument; prints the errno, 0, or `gone` when the child did not return.
fn every_call(make: impl Fn(i64) -> io::Result<()>) {
    for number in NUMBERS {
        let (mut read, write) = io::pipe().unwrap();
        // SAFETY: the child makes raw calls only, and leaves without running anything of this program's.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let errno = make(number).err().and_then(|error| error.raw_os_error()).unwrap_or(0);
            // Not by way of a call that this one may have broken for us, but for write and exit.
            let word = errno.to_le_bytes();
            // SAFETY: the buffer is as long as said.
            unsafe {
                libc::write(std::os::fd::AsRawFd::as_raw_fd(&write), word.as_ptr().cast(), word.len());
                libc::_exit(0)
            }
        }
        drop(write);
        let child = nix::unistd::Pid::from_raw(child);
        // Some wait for ever, with all signals blocked (pause, sigsuspend); others have not had their turn yet.
        let mut watched = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&read), nix::poll::PollFlags::POLLIN)];
        while nix::poll::poll(&mut watched, nix::poll::PollTimeout::from(500_u16)) == Ok(0) {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
            if !stat.rsplit(')').next().unwrap().starts_with(" R") {
                nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
                break;
            }
        }
        let mut word = [0; 4];
        let answer = match io::Read::read_exact(&mut read, &mut word) {
            Ok(()) => i32::from_le_bytes(word).to_string(),
            Err(_) => "gone".to_owned(),
        };
        while nix::sys::wait::waitpid(child, None) == Err(nix::errno::Errno::EINTR) {}
        println!("probe: {number} {answer}");
    }
}

fn sockets() {
    const HIGH: i64 = 1 << 32;
    for (name, [family, kind, protocol]) in [
        ("vsock", [40, 1, 0]),
        ("vsock with high bits", [40 | HIGH, 1, 0]),
        ("packet", [17, 3, 0]),
        ("alg", [38, 5, 0]),
        ("audit", [16, 3, 9]),
        ("netfilter", [16, 3, 12]),
        ("raw", [2, 3, 1]),
        ("raw with flags", [2, 3 | 0x8_0000, 1]),
        ("route", [16, 3 | 0x8_0000, 0]),
        ("unix", [1, 1, 0]),
        ("tcp", [2, 1 | 0x8_0000, 6]),
        ("udp", [10, 2, 17]),
    ] {
        tell(name, call(libc::SYS_socket, [family, kind, protocol, 0, 0]));
    }
}

fn namespaces() {
    // The user namespace last: who has made one may make the others.
    let new = [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x2000_0000, 0x4000_0000, 0x80, 0x1000_0000];
    for flag in new.map(|flag| flag | 1 << 32) {
        tell(&format!("unshare {flag:x}"), call(libc::SYS_unshare, [flag & 0xFFFF_FFFF, 0, 0, 0, 0]));
    }
    let arguments = [libc::CLONE_NEWUSER as u64, 0, 0, 0, 17, 0, 0, 0];
    // SAFETY: `clone3` reads as many bytes as it is told; without a stack it returns twice, as fork does, and the child leaves.
    match unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), 64) } {
        // SAFETY: leaves without running anything of this program's.
        0 => unsafe { libc::_exit(0) },
        -1 => tell("clone3", Err(io::Error::last_os_error())),
        _ => tell("clone3", Ok(())),
    }
    let own = fs::File::open("/proc/self/ns/net").unwrap();
    tell("setns", call(libc::SYS_setns, [std::os::fd::AsRawFd::as_raw_fd(&own).into(), 0, 0, 0, 0]));
    tell(
        "mount",
        call(libc::SYS_mount, [c"none".as_ptr() as i64, c"/tmp".as_ptr() as i64, c"tmpfs".as_ptr() as i64, 0, 0]),
    );
    tell("fsopen", call(libc::SYS_fsopen, [c"tmpfs".as_ptr() as i64, 0, 0, 0, 0]));
}

/// Types into a terminal of its own, which is its controlling one.
fn tiocsti() {
    let pair = nix::pty::openpty(None, None).unwrap();
    let slave = i64::from(std::os::fd::AsRawFd::as_raw_fd(&pair.slave));
    // SAFETY: the child makes raw calls and prints; this program has one thread here.
    if unsafe { libc::fork() } == 0 {
        let _ = nix::unistd::setsid();
        let letter = c"x".as_ptr() as i64;
        let tell_ioctl = |what, request, argument| tell(what, call(libc::SYS_ioctl, [slave, request, argument, 0, 0]));
        tell_ioctl("controlling", libc::TIOCSCTTY as i64, 0);
        tell_ioctl("TIOCSTI", libc::TIOCSTI as i64, letter);
        tell_ioctl("TIOCSTI with high bits", libc::TIOCSTI as i64 | 1 << 32, letter);
        // SAFETY: leaves without running anything of this program's; what it printed ended with a newline.
        unsafe { libc::_exit(0) }
    }
    let _ = nix::sys::wait::wait();
}

/// In the abstract namespace of sockets, so that there is no path that mounts could hide.
pub(crate) fn address() -> std::os::unix::net::SocketAddr {
    let name = format!("fodder-sandbox-{}", std::env::var("ADDRESS").unwrap());
    <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).unwrap()
}

fn connect() {
    tell("connect", std::os::unix::net::UnixStream::connect_addr(&address()).map(drop));
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

/// Gives the calling thread an I/O priority of the class that is usual (best-effort), see ioprio_set(2).
pub(crate) fn set_own_io_priority(level: i64) {
    call(libc::SYS_ioprio_set, [1, 0, 2 << 13 | level, 0, 0]).unwrap();
}

/// Starts processes until that is refused, at most 120.
fn forks() {
    let start = |_| std::process::Command::new("/bin/sleep").arg("30").spawn().ok();
    println!("probe: {}", (0..120).map_while(start).count());
}

/// Keeps what a probe has taken for as long as it is told to.
fn hold() {
    let seconds = std::env::var("HOLD").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    sleep(Duration::from_secs(seconds));
}

/// Children with so much memory each, of which no single one is much; or with none of their own and their parent's 150 MiB. They end
/// with their parent.
fn memory(children: usize, bytes: usize, shares: bool) {
    let fill = |bytes: usize| std::hint::black_box(vec![1_u8; bytes]);
    let own = fill(if shares { 150 << 20 } else { 0 });
    let (mut filled, tell) = io::pipe().unwrap();
    for _ in 0..children {
        // SAFETY: the harness has another thread, which could hold a lock of the allocator: a child that waits for it fails the
        // test, and harms nothing else.
        if unsafe { libc::fork() } == 0 {
            let _own = fill(bytes);
            io::Write::write_all(&mut &tell, &[0]).unwrap();
            sleep(Duration::from_secs(3600));
            // SAFETY: ends this child and nothing else.
            unsafe { libc::_exit(0) }
        }
    }
    io::Read::read_exact(&mut filled, &mut vec![0; children]).unwrap();
    hold();
    println!("probe: {} MiB and {children} children", own.len() >> 20);
}

/// An inotify instance that stays open to the end.
fn watcher() -> bool {
    // SAFETY: makes a descriptor, which is left open on purpose.
    unsafe { libc::inotify_init1(0) >= 0 }
}

/// A process whose first thread has ended, so that `/proc/PID/stat` tells of no memory, and another one that has much.
fn without_a_first_thread(bytes: usize) {
    let (mut filled, tell) = io::pipe().unwrap();
    // SAFETY: as in `memory`.
    if unsafe { libc::fork() } == 0 {
        std::thread::spawn(move || {
            let _held = std::hint::black_box(vec![1_u8; bytes]);
            io::Write::write_all(&mut &tell, &[0]).unwrap();
            sleep(Duration::from_secs(3600));
        });
        // SAFETY: ends this thread, and leaves everything as it is.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    io::Read::read_exact(&mut filled, &mut [0]).unwrap();
    hold();
    println!("probe: gone");
}

/// Processes with as many mappings as there may be, which take long to look at; and one that waits until nobody looks.
fn slow_looks(bytes: usize) {
    const PAIRS: usize = 30_000;
    // SAFETY: new memory, of which every other page loses the permission to be written; only `shared` is touched.
    let shared = unsafe {
        let map = |length, flags| libc::mmap(std::ptr::null_mut(), length, 3, flags | libc::MAP_ANONYMOUS, -1, 0);
        let pages = map(PAIRS * 8192, libc::MAP_PRIVATE | libc::MAP_NORESERVE);
        for pair in 0..PAIRS {
            libc::mprotect(pages.add(pair * 8192), 4096, libc::PROT_READ);
        }
        let shared = map(20 << 20, libc::MAP_SHARED).cast::<u8>();
        std::slice::from_raw_parts_mut(shared, 20 << 20)
    };
    for _ in 0..20 {
        // SAFETY: as in `memory`.
        if unsafe { libc::fork() } == 0 {
            shared.fill(1);
            loop {
                sleep(Duration::from_secs(60));
            }
        }
    }
    sleep(Duration::from_millis(2500));
    println!("probe: grows");
    let _held = std::hint::black_box(vec![1_u8; bytes]);
    hold();
}

/// A lease on a file of one's own.
fn lease() {
    let file = std::fs::File::create("leased").unwrap();
    for (name, command) in [("F_SETLEASE", 1024_i64), ("with high bits", 1024 | 1 << 32)] {
        let number = std::os::fd::AsRawFd::as_raw_fd(&file).into();
        tell(name, call(libc::SYS_fcntl, [number, command, libc::F_WRLCK.into(), 0, 0]));
    }
}

/// A pseudo-terminal that stays open to the end.
fn terminal() -> bool {
    // SAFETY: makes a descriptor, which is left open on purpose.
    unsafe { libc::open(c"/dev/pts/ptmx".as_ptr(), libc::O_RDWR | libc::O_NOCTTY) >= 0 }
}
