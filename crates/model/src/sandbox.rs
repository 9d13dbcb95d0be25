//! What a sandbox will be, as plain data: the planner makes it, `explain` prints it, `fodder-sandbox` executes it.
//!
//! Whoever reads a plan takes it apart completely (no `..`, no `_ =>`), so that a field added here cannot be forgotten
//! by the printer or by the interpreter. The interpreter asks the host nothing that is not in the plan.

use crate::bytes::ByteString;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Everything that happens between "start" and "the builder runs".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxPlan {
    /// Namespaces that are new; what is absent is the host's. A plan without `User`, `Mount` and `Pid` is refused.
    pub namespaces: BTreeSet<Namespace>,
    /// Who the builder is, inside and outside.
    pub identity: Identity,
    /// Host name inside, with the domain name of uname(2).
    pub host_name: HostName,
    /// An empty directory of the runner's on which the new root is mounted before it becomes `/`.
    pub root_mount_point: ByteString,
    /// The new root, step by step. Before the first step it is an empty tmpfs of mode 0755, owned by the builder and just
    /// large enough for the files of the plan; `Mode` and `ReadOnly` apply to `/` too.
    pub root: Vec<RootStep>,
    /// The builder.
    pub process: Process,
    /// What the builder may use up.
    pub limits: Limits,
    /// System calls that are answered instead of executed.
    pub seccomp: SeccompPolicy,
    /// How connections out of the network namespace are caught; needs `Network` among the namespaces. Without it there is nothing
    /// but `lo`.
    pub door: Option<Door>,
    /// What the person let this build do that others may not.
    #[serde(default)]
    pub allowed: BTreeSet<Weakening>,
}

/// A protection that is off because the person who started the build asked for it. Nothing in a derivation can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weakening {
    /// `--allow-nested-namespaces`: the builder may make namespaces, and mounts in them.
    NestedNamespaces,
    /// `--allow-socketcall`: 32-bit programs may ask for sockets of any family.
    Socketcall,
}

impl Weakening {
    /// Every one.
    pub const ALL: [Weakening; 2] = [Weakening::NestedNamespaces, Weakening::Socketcall];

    /// The flag that asks for it.
    pub fn flag(self) -> &'static str {
        match self {
            Weakening::NestedNamespaces => "--allow-nested-namespaces",
            Weakening::Socketcall => "--allow-socketcall",
        }
    }

    /// What it means, for `explain`.
    pub fn why(self) -> &'static str {
        match self {
            Weakening::NestedNamespaces => {
                "the builder may make namespaces and mounts, and so reach more of the kernel (--allow-nested-namespaces)"
            }
            Weakening::Socketcall => {
                "32-bit programs may ask for sockets of any family, vsock too (--allow-socketcall)"
            }
        }
    }
}

/// Every address is local in the builder's network namespace, and whoever connects to one reaches sockets that are handed to the
/// runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// The builder's own address; programs ask for a family only if they have an address in it.
    pub address: Ipv4Addr,
    /// The same for IPv6; none where the host has no IPv6, so that nobody tries it.
    pub address6: Option<Ipv6Addr>,
    /// Where name servers are asked, over UDP port 53; over TCP they are caught like everything else.
    pub name_server: Ipv4Addr,
    /// Ports of the builder's loopback that are caught as well: what answers there is the host's.
    pub loopback_ports: Vec<u16>,
    /// Ports to catch where not all of them are redirected.
    pub ports: Vec<u16>,
    /// Whether the kernel is asked to redirect all ports; one without nf_tables does not.
    pub redirect: bool,
}

/// A kind of namespace, see namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Namespace {
    User,
    Mount,
    Pid,
    Ipc,
    Uts,
    Network,
    Cgroup,
}

/// One user and one group, mapped into the user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What the builder sees as its uid.
    pub inside_uid: u32,
    /// What the builder sees as its gid.
    pub inside_gid: u32,
    /// The uid on the host: the caller's, or an otherwise unused one when the caller is root.
    pub outside_uid: u32,
    /// The gid on the host, likewise.
    pub outside_gid: u32,
}

/// The two names of uname(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostName {
    /// `nodename`.
    pub host: String,
    /// `domainname`.
    pub domain: String,
}

/// One step in building the new root. Paths are absolute, as the builder will see them; parents exist by an earlier step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "step", deny_unknown_fields)]
pub enum RootStep {
    /// An empty directory, owned by the builder.
    Directory {
        /// Where.
        path: ByteString,
        /// Permission bits.
        mode: u32,
    },
    /// A regular file, owned by the builder.
    File {
        /// Where.
        path: ByteString,
        /// Permission bits.
        mode: u32,
        /// All of it.
        content: ByteString,
    },
    /// A symbolic link.
    Symlink {
        /// Where.
        path: ByteString,
        /// Verbatim.
        target: ByteString,
    },
    /// Something of the host's, shown inside. The source is opened without following a last symbolic link.
    Bind {
        /// On the host.
        source: ByteString,
        /// Inside; created as an empty file or directory when no earlier mount has it.
        target: ByteString,
        /// What the source is; anything else stops the build.
        kind: BindKind,
        /// Whether the builder may write.
        access: Access,
    },
    /// A tmpfs of its own.
    Tmpfs {
        /// Where; made (0755) when it does not exist, as for `Proc` and `Pts`.
        path: ByteString,
        /// Permission bits of its top.
        mode: u32,
        /// Size as tmpfs(5) takes it: bytes, or a percentage of memory.
        size: String,
    },
    /// A fresh procfs of the new pid namespace.
    Proc {
        /// Where.
        path: ByteString,
    },
    /// A fresh devpts instance, `mode=0620`, its `ptmx` 0666.
    Pts {
        /// Where.
        path: ByteString,
    },
    /// Changes the mode of something made by an earlier step (a directory that must be written before it is closed). What
    /// lies in a `Bind` is refused: the change would be the host's.
    Mode {
        /// Where.
        path: ByteString,
        /// Permission bits.
        mode: u32,
    },
    /// Makes the mount at this path read-only, without what is mounted below it.
    ReadOnly {
        /// Where.
        path: ByteString,
    },
}

/// What a bind's source must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindKind {
    /// A directory, with everything mounted below it.
    Directory,
    /// A regular file.
    File,
    /// A character device, which may be used as one (`nodev` is left off).
    Device,
}

/// What a builder may do with a bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Mounted read-only, and locked so by the loss of all capabilities.
    ReadOnly,
    /// Writable.
    ReadWrite,
}

/// What a builder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// Given to execve(2) as it is: no PATH search, relative to the working directory.
    Execute(ByteString),
    /// A function of the helper's own, by name, run where the other would be executed.
    Internal(String),
}

/// The process that becomes PID 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// What runs.
    pub program: Program,
    /// `argv`, with `argv[0]`.
    pub arguments: Vec<ByteString>,
    /// `environ`, in this order.
    pub environment: Vec<(ByteString, ByteString)>,
    /// Inside.
    pub working_directory: ByteString,
    /// umask(2).
    pub umask: u32,
    /// Address space layout randomisation off (ADDR_NO_RANDOMIZE), as Nix does.
    pub fixed_addresses: bool,
    /// uname(2) reports a 32-bit machine (PER_LINUX32).
    pub linux32: bool,
}

/// What the builder may use up. `None` is without limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock seconds until the build is killed.
    pub deadline_seconds: Option<u64>,
    /// Seconds without a byte of log until the build is killed.
    pub silence_seconds: Option<u64>,
    /// Bytes of log until the build is killed.
    pub log_bytes: Option<u64>,
    /// Memory of all processes together, and of the tmpfs in the root.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at one time.
    pub processes: Option<u64>,
    /// Directories of the host's whose contents are measured while the build runs.
    pub scratch: Vec<ByteString>,
    /// Bytes on disk of all that is in them.
    pub scratch_bytes: Option<u64>,
    /// Files and directories in them.
    pub scratch_files: Option<u64>,
    /// A control group, by its directory, in which the build gets one of its own; memory and processes are then limited by it.
    /// Where it cannot be had after all, they are watched, and the report says so.
    pub control_group: Option<ByteString>,
    /// Settings of the user namespace, by their file below `/proc/sys`; never raised.
    pub settings: Vec<(String, u64)>,
    /// How much rather than others the build is killed when the machine has no memory left (`oom_score_adj`).
    pub oom_score: u16,
    /// setrlimit(2), in this order.
    pub resources: Vec<ResourceLimit>,
}

/// One setrlimit(2) call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimit {
    /// Which.
    pub resource: Resource,
    /// Soft limit; `None` leaves the caller's, `u64::MAX` is infinity. Never raised over the hard limit in force.
    pub soft: Option<u64>,
    /// Hard limit, likewise.
    pub hard: Option<u64>,
}

/// What setrlimit(2) can limit, as far as plans use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum Resource {
    Core,
    Stack,
    OpenFiles,
    Processes,
    FileSize,
    Data,
    LockedMemory,
    MessageQueues,
    RealTimePriority,
    NicePriority,
}

/// A seccomp filter: the first rule that matches answers, else the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SeccompPolicy {
    /// Answer for calls without a rule.
    pub default: SeccompAction,
    /// In order of precedence.
    pub rules: Vec<SeccompRule>,
}

/// One line of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SeccompRule {
    /// Names of system calls; a name that an architecture lacks is passed over for it, a name that none has is an error.
    pub calls: Vec<String>,
    /// All must hold; none means always.
    #[serde(default)]
    pub when: Vec<ArgumentTest>,
    /// The answer.
    pub action: SeccompAction,
    /// What turns the answer into permission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted_by: Option<Weakening>,
    /// Why this rule exists.
    pub why: String,
}

impl SeccompPolicy {
    /// The policy when these are allowed: their rules let pass what they would have refused.
    pub fn lifted(&self, allowed: &BTreeSet<Weakening>) -> SeccompPolicy {
        let mut policy = self.clone();
        for rule in &mut policy.rules {
            if rule.lifted_by.is_some_and(|weakening| allowed.contains(&weakening)) {
                rule.action = SeccompAction::Allow;
            }
        }
        policy
    }
}

/// A test of one argument's low 32 bits. The high half is not looked at, as the kernel does not look at it for `int`
/// arguments (CVE-2019-10063 is what happens otherwise).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArgumentTest {
    /// 0 to 5.
    pub argument: u8,
    /// What must hold.
    pub is: ArgumentCondition,
}

/// What must hold for an argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArgumentCondition {
    /// At least one of these bits is set.
    AnyBitOf(u32),
    /// Equal to one of these.
    OneOf(Vec<u32>),
    /// Equal to none of these.
    NoneOf(Vec<u32>),
}

/// An answer to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompAction {
    /// Execute it.
    Allow,
    /// Fail with this errno.
    Errno(u16),
    /// Kill the process with SIGSYS.
    Kill,
}
