//! The policy that is shipped, number by number: every call has a decision of its own, the filter answers as the policy reads
//! under every interface, and what security rests on is said here once more, in other words than the policy's.

use super::{
    Machine,
    calls::{self, Column},
    compile,
    interpret::{Call, run},
};
use fodder_model::{
    profile,
    sandbox::{ArgumentCondition, ArgumentTest, SeccompAction, SeccompPolicy, SeccompRule, Weakening},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

/// The four interfaces: machine, `seccomp_data.arch`, column.
const INTERFACES: [(Machine, u32, Column); 4] = [
    (Machine::X86, 0xC000_003E, Column::X86_64),
    (Machine::X86, 0x4000_0003, Column::I386),
    (Machine::Arm, 0xC000_00B7, Column::Aarch64),
    (Machine::Arm, 0x4000_0028, Column::Arm),
];

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

fn policy() -> SeccompPolicy {
    profile::parse("nix", profile::built_in("nix").unwrap()).unwrap().seccomp
}

/// What the first line that names the call and whose tests hold says.
fn reading(policy: &SeccompPolicy, name: Option<&str>, arguments: [u64; 6]) -> u32 {
    let holds = |test: &ArgumentTest| {
        let low = arguments[usize::from(test.argument)] as u32;
        match &test.is {
            ArgumentCondition::AnyBitOf(bits) => low & bits != 0,
            ArgumentCondition::OneOf(values) => values.contains(&low),
            ArgumentCondition::NoneOf(values) => !values.contains(&low),
        }
    };
    let says =
        |rule: &&SeccompRule| rule.calls.iter().any(|call| Some(call.as_str()) == name) && rule.when.iter().all(holds);
    match policy.rules.iter().find(says).map_or(policy.default, |rule| rule.action) {
        SeccompAction::Allow => ALLOW,
        SeccompAction::Errno(number) => errno(number.into()),
        SeccompAction::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    }
}

/// Attack: KRN-2. Layer: seccomp.
#[test]
fn every_number_of_every_interface_is_answered_as_the_policy_reads() {
    let policy = policy();
    let mut arguments: Vec<[u64; 6]> = vec![[0; 6], [u64::MAX; 6], [1; 6]];
    // Every value that some line tests for, in every place, with and without something in the high half.
    let values: BTreeSet<u32> = policy
        .rules
        .iter()
        .flat_map(|rule| &rule.when)
        .flat_map(|test| match &test.is {
            ArgumentCondition::AnyBitOf(bits) => (0..32).map(|bit| 1 << bit).filter(|bit| bits & bit != 0).collect(),
            ArgumentCondition::OneOf(values) | ArgumentCondition::NoneOf(values) => values.clone(),
        })
        .collect();
    for value in values {
        arguments.extend([[value.into(); 6], [u64::from(value) | 1 << 32 | 1 << 63; 6]]);
        arguments.push([2, value.into(), value.into(), 0, 0, 0]);
        arguments.push([10, 1, value.into(), 0, 0, 0]);
        arguments.push([16, 3, value.into(), 0, 0, 0]);
    }
    for (machine, architecture, column) in INTERFACES {
        let program = compile(&policy, machine).unwrap().unwrap();
        let names: BTreeMap<u32, &str> = calls::of(column).map(|(name, number)| (number, name)).collect();
        let ordinary = names.keys().copied().filter(|number| *number < 0x1000).max().unwrap();
        let specials = names.keys().flat_map(|number| [number.saturating_sub(1), *number, number + 1]);
        for number in (0..=ordinary + 64).chain(specials).chain([0x4000_0000, u32::MAX]) {
            let name = names.get(&number).copied();
            let asks =
                |rule: &&SeccompRule| !rule.when.is_empty() && rule.calls.iter().any(|call| Some(&**call) == name);
            // Where no line looks at arguments, three combinations are as good as all.
            let tried = if policy.rules.iter().any(|rule| asks(&rule)) { &arguments[..] } else { &arguments[..3] };
            for &arguments in tried {
                let answer = run(&program, Call { number, architecture, arguments });
                let wanted = reading(&policy, name, arguments);
                assert_eq!(answer, wanted, "{column:?} {number} {name:?} {arguments:x?}");
            }
        }
    }
}

#[test]
fn every_call_has_a_line_that_decides_it_and_every_line_matters() {
    let policy = policy();
    assert_eq!(policy.default, SeccompAction::Errno(libc::ENOSYS as u16));
    for column in INTERFACES.map(|(_, _, column)| column) {
        for (name, _) in calls::of(column) {
            let mut lines = policy.rules.iter().filter(|rule| rule.calls.iter().any(|call| call == name)).peekable();
            assert!(
                lines.peek().is_some(),
                "no line of sandbox-profiles/seccomp.toml decides {name}: it is new, so do"
            );
            let last = lines.by_ref().find(|rule| rule.when.is_empty());
            assert!(last.is_some(), "no line decides {name} for all arguments");
            assert!(lines.next().is_none(), "a line about {name} is never reached");
        }
    }
}

type Program = (Column, u32, Vec<libc::sock_filter>);

fn programs(policy: &SeccompPolicy) -> Vec<Program> {
    let compiled = |(machine, architecture, column)| (column, architecture, compile(policy, machine).unwrap().unwrap());
    INTERFACES.map(compiled).into()
}

/// The answers of all interfaces that have the call.
fn answers(programs: &[Program], name: &str, arguments: [u64; 6]) -> Vec<u32> {
    let answer = |(column, architecture, program): &Program| {
        let number = calls::number(name, *column)?;
        Some(run(program, Call { number, architecture: *architecture, arguments }))
    };
    programs.iter().filter_map(answer).collect()
}

/// The call is answered so by the policy as it is shipped.
fn all(name: &str, arguments: [u64; 6], wanted: u32) {
    static SHIPPED: LazyLock<Vec<Program>> = LazyLock::new(|| programs(&policy()));
    let found = answers(&SHIPPED, name, arguments);
    assert!(!found.is_empty() && found.iter().all(|answer| *answer == wanted), "{name} {arguments:x?}: {found:x?}");
}

/// Calls that are never carried out, whatever their arguments are, with the answer; all others are, but for `JUDGED`.
const REFUSED: [(i32, &[&str]); 3] = [
    (
        libc::ENOSYS,
        &[
            "setxattrat",
            "getxattrat",
            "listxattrat",
            "removexattrat",
            "file_getattr",
            "file_setattr",
            "clone3",
            "open_tree",
            "open_tree_attr",
            "move_mount",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "mount_setattr",
            "socketcall",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "add_key",
            "request_key",
            "keyctl",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "fanotify_init",
            "fanotify_mark",
            "open_by_handle_at",
            "name_to_handle_at",
            "lookup_dcookie",
            "modify_ldt",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "iopl",
            "ioperm",
            "acct",
            "swapon",
            "swapoff",
            "reboot",
            "syslog",
            "vhangup",
            "quotactl",
            "quotactl_fd",
            "nfsservctl",
            "uselib",
            "vm86",
            "vm86old",
            "migrate_pages",
            "remap_file_pages",
            "lsm_set_self_attr",
            "pciconfig_iobase",
            "pciconfig_read",
            "pciconfig_write",
            "_sysctl",
            "afs_syscall",
            "bdflush",
            "break",
            "create_module",
            "epoll_ctl_old",
            "epoll_wait_old",
            "ftime",
            "get_kernel_syms",
            "getpmsg",
            "gtty",
            "idle",
            "lock",
            "mpx",
            "prof",
            "profil",
            "putpmsg",
            "query_module",
            "security",
            "stty",
            "sysfs",
            "tuxcall",
            "ulimit",
            "vserver",
        ],
    ),
    (
        libc::EPERM,
        &[
            "setns",
            "mount",
            "umount",
            "umount2",
            "pivot_root",
            "chroot",
            "sethostname",
            "setdomainname",
            "settimeofday",
            "clock_settime",
            "clock_settime64",
            "stime",
        ],
    ),
    (libc::EOPNOTSUPP, &["getxattr", "lgetxattr", "fgetxattr", "setxattr", "lsetxattr", "fsetxattr"]),
];

/// Calls of which some are carried out, depending on their arguments.
const JUDGED: [&str; 12] = [
    "chmod",
    "clone",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fcntl",
    "fcntl64",
    "ioctl",
    "personality",
    "socket",
    "socketpair",
    "unshare",
];

/// Attack: KRN-2. Layer: seccomp.
#[test]
fn what_exploits_are_made_of_is_not_there() {
    let refused: BTreeMap<&str, i32> =
        REFUSED.iter().flat_map(|(errno, names)| names.iter().map(|name| (*name, *errno))).collect();
    for (column, architecture, program) in programs(&policy()) {
        for (name, number) in calls::of(column).filter(|(name, _)| !JUDGED.contains(name)) {
            let wanted = refused.get(name).map_or(ALLOW, |number| errno(*number));
            for arguments in [[0; 6], [1; 6], [u64::MAX; 6]] {
                let answer = run(&program, Call { number, architecture, arguments });
                assert_eq!(answer, wanted, "{name} of {column:?} with {arguments:x?}");
            }
        }
    }
}

/// Attack: KRN-3, CVE-2019-10063. Layer: seccomp (low 32 bits).
#[test]
fn bits_that_the_kernel_does_not_look_at_are_no_way_round() {
    for high in [0, 1 << 32, 1 << 63, 0xFFFF_FFFF_0000_0000] {
        for set_id in [0o4755, 0o2755] {
            all("chmod", [0, set_id | high, 0, 0, 0, 0], errno(libc::EPERM));
            all("fchmod", [0, set_id | high, 0, 0, 0, 0], errno(libc::EPERM));
            all("fchmodat", [0, 0, set_id | high, 0, 0, 0], errno(libc::EPERM));
            all("fchmodat2", [0, 0, set_id | high, 0, 0, 0], errno(libc::EPERM));
        }
        all("chmod", [0, 0o755 | high, 0, 0, 0, 0], ALLOW);
        all("ioctl", [0, 0x5412 | high, 0, 0, 0, 0], errno(libc::EPERM));
        all("ioctl", [0, 0x541C | high, 0, 0, 0, 0], errno(libc::EPERM));
        all("ioctl", [0, 0x5401 | high, 0, 0, 0, 0], ALLOW);
        all("socket", [40 | high, 1, 0, 0, 0, 0], errno(libc::EAFNOSUPPORT));
        all("socket", [2 | high, 1 | high, 0, 0, 0, 0], ALLOW);
        all("fcntl", [0, 1024 | high, 0, 0, 0, 0], errno(libc::EACCES));
        all("fcntl", [0, 1040 | high, 0, 0, 0, 0], errno(libc::EACCES));
        all("fcntl64", [0, 1024 | high, 0, 0, 0, 0], errno(libc::EACCES));
        all("fcntl", [0, 1030 | high, 0, 0, 0, 0], ALLOW);
        all("clone", [0x1000_0000 | high, 0, 0, 0, 0, 0], errno(libc::EPERM));
        all("unshare", [0x80 | high, 0, 0, 0, 0, 0], errno(libc::EPERM));
        all("personality", [0x0040_0000 | high, 0, 0, 0, 0, 0], errno(libc::EPERM));
        // The machine's own and 32 bits, with and without fixed addresses, and the question which it is.
        for persona in [0, 0x8, 0x4_0000, 0x4_0008, 0xFFFF_FFFF] {
            all("personality", [persona | high, 0, 0, 0, 0, 0], ALLOW);
        }
    }
}

/// Attack: NET-5. Layer: seccomp (socket families).
#[test]
fn sockets_are_of_four_families_and_of_two_types() {
    const FLAGS: [u64; 4] = [0, 0x800, 0x8_0000, 0x8_0800];
    for family in (0..4096).chain([0x8000, 0xFFFF_FFFF]).filter(|family| ![1, 2, 10, 16].contains(family)) {
        all("socket", [family, 1, 0, 0, 0, 0], errno(libc::EAFNOSUPPORT));
        all("socketpair", [family, 1, 0, 0, 0, 0], errno(libc::EAFNOSUPPORT));
    }
    for flags in FLAGS {
        for family in [2, 10] {
            all("socket", [family, 1 | flags, 6, 0, 0, 0], ALLOW);
            all("socket", [family, 2 | flags, 17, 0, 0, 0], ALLOW);
            for raw in [3, 10] {
                all("socket", [family, raw | flags, 255, 0, 0, 0], errno(libc::EPERM));
            }
            for odd in (0..256).filter(|odd| ![1, 2, 3, 10].contains(odd)) {
                all("socket", [family, odd | flags, 0, 0, 0, 0], errno(libc::ESOCKTNOSUPPORT));
            }
            for protocol in (0..4096).filter(|protocol| ![0, 1, 6, 17, 58, 136, 262].contains(protocol)) {
                all("socket", [family, 1 | flags, protocol, 0, 0, 0], errno(libc::EPROTONOSUPPORT));
            }
            all("socketpair", [family, 1 | flags, 0, 0, 0, 0], errno(libc::EOPNOTSUPP));
        }
        all("socketpair", [16, 3 | flags, 0, 0, 0, 0], errno(libc::EOPNOTSUPP));
        all("socket", [16, 3 | flags, 0, 0, 0, 0], ALLOW);
        for protocol in 1..4096 {
            all("socket", [16, 3 | flags, protocol, 0, 0, 0], errno(libc::EAFNOSUPPORT));
        }
        for kind in [1, 2, 5] {
            all("socket", [1, kind | flags, 0, 0, 0, 0], ALLOW);
            all("socketpair", [1, kind | flags, 0, 0, 0, 0], ALLOW);
        }
    }
}

/// Attack: KRN-4, CVE-2022-0185, CVE-2022-0492. Layer: seccomp (namespaces).
#[test]
fn no_namespace_can_be_made_unless_the_person_allows_it() {
    const NEW: [u64; 7] = [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    let allowed = programs(&policy().lifted(&[Weakening::NestedNamespaces].into()));
    let passes = |name, arguments| answers(&allowed, name, arguments).iter().all(|answer| *answer == ALLOW);
    for flag in NEW {
        // With SIGCHLD, as fork does.
        all("clone", [flag | 17, 0, 0, 0, 0, 0], errno(libc::EPERM));
        all("unshare", [flag, 0, 0, 0, 0, 0], errno(libc::EPERM));
        all("setns", [3, flag, 0, 0, 0, 0], errno(libc::EPERM));
        assert!(passes("clone", [flag | 17, 0, 0, 0, 0, 0]) && passes("unshare", [flag, 0, 0, 0, 0, 0]));
    }
    // Threads as glibc and musl make them, vfork, and files of one's own.
    for ordinary in [0x3D_0F00, 0x7D_0F00, 0x4111, 0x11, 0x120_0011] {
        all("clone", [ordinary, 0, 0, 0, 0, 0], ALLOW);
    }
    all("unshare", [0x600, 0, 0, 0, 0, 0], ALLOW);
    for name in ["clone3", "setns", "mount", "move_mount", "pivot_root"] {
        assert!(passes(name, [0; 6]), "{name}");
    }
    assert!(!passes("io_uring_setup", [0; 6]) && !passes("socketcall", [0; 6]));
    let socketcall = programs(&policy().lifted(&[Weakening::Socketcall].into()));
    assert_eq!(answers(&socketcall, "socketcall", [1, 0, 0, 0, 0, 0]), [ALLOW]);
}

#[test]
fn the_filter_is_a_fraction_of_what_the_kernel_takes() {
    for (machine, _, _) in INTERFACES {
        let program = compile(&policy(), machine).unwrap().unwrap();
        assert!(program.len() < 1300, "{} instructions of 4096", program.len());
    }
}
