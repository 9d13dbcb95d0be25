//! New namespaces, one call each, so that a refusal names the one that was refused.

use crate::{
    steps::{LeftOut, SetupStep},
    wire::{Doing, Failure},
};
use fodder_model::sandbox::Namespace;
use nix::sched::{CloneFlags, unshare};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
};

/// All kinds, with the name of their file in `/proc/self/ns`.
const KINDS: [(Namespace, &str); 7] = [
    (Namespace::User, "user"),
    (Namespace::Mount, "mnt"),
    // A new pid namespace holds the children, so the one of this process does not change.
    (Namespace::Pid, "pid"),
    (Namespace::Ipc, "ipc"),
    (Namespace::Uts, "uts"),
    (Namespace::Network, "net"),
    (Namespace::Cgroup, "cgroup"),
];

/// Which namespaces a process is in, by their inode numbers, see namespaces(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceIds(BTreeMap<Namespace, u64>);

impl NamespaceIds {
    /// Reads those of the current process from the procfs of the host.
    pub(crate) fn read() -> Result<Self, Failure> {
        let id = |(namespace, file)| {
            let metadata = std::fs::metadata(format!("/proc/self/ns/{file}")).doing("reading /proc/self/ns")?;
            Ok((namespace, metadata.ino()))
        };
        Ok(NamespaceIds(KINDS.into_iter().map(id).collect::<Result<_, Failure>>()?))
    }

    /// The kinds in which the two differ.
    pub(crate) fn differing_from(&self, other: &NamespaceIds) -> BTreeSet<Namespace> {
        self.0.iter().filter(|(namespace, id)| other.0.get(namespace) != Some(id)).map(|(kind, _)| *kind).collect()
    }
}

/// The flag of unshare(2).
fn clone_flag(namespace: Namespace) -> CloneFlags {
    match namespace {
        Namespace::User => CloneFlags::CLONE_NEWUSER,
        Namespace::Mount => CloneFlags::CLONE_NEWNS,
        Namespace::Pid => CloneFlags::CLONE_NEWPID,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        Namespace::Network => CloneFlags::CLONE_NEWNET,
        Namespace::Cgroup => CloneFlags::CLONE_NEWCGROUP,
    }
}

/// Makes every namespace of the plan but the user namespace, which owns them and was made before, and that of control groups,
/// which the builder-to-be makes once it is in its group.
pub(super) fn unshare_the_rest(namespaces: &BTreeSet<Namespace>, left_out: LeftOut<'_>) -> Result<(), Failure> {
    for &namespace in namespaces {
        let step = match namespace {
            Namespace::User | Namespace::Cgroup => continue,
            Namespace::Mount => SetupStep::MountNamespace,
            Namespace::Pid => SetupStep::PidNamespace,
            Namespace::Ipc => SetupStep::IpcNamespace,
            Namespace::Uts => SetupStep::UtsNamespace,
            Namespace::Network => SetupStep::NetworkNamespace,
        };
        if !left_out.keeps(step) {
            continue;
        }
        make(namespace)?;
    }
    Ok(())
}

/// What the current control groups are becomes `/` for this process.
pub(crate) fn new_cgroup_namespace() -> Result<(), Failure> {
    make(Namespace::Cgroup)
}

fn make(namespace: Namespace) -> Result<(), Failure> {
    unshare(clone_flag(namespace)).map_err(|errno| Failure::Namespace { namespace, errno: errno as i32 })
}
