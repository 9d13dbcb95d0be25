//! The last look before execve(2): what the kernel says is in force, not what was asked for. Any difference stops the
//! build; a protection that is only believed in is worse than none.

use crate::{
    helper::NamespaceIds,
    sys,
    wire::{Doing, Failure},
};
use fodder_model::sandbox::{Identity, Namespace};
use nix::{
    fcntl::{OFlag, open, openat},
    sys::stat::Mode,
};
use rustix::fs::Dir;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek},
    os::fd::OwnedFd,
};

/// Views of this process in the host's procfs, opened before the root is exchanged; the plan may have no `/proc`.
pub(super) struct Examiner {
    status: File,
    descriptors: OwnedFd,
    namespaces: NamespaceIds,
}

impl Examiner {
    pub(super) fn open() -> Result<Self, Failure> {
        let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let process = open("/proc/self", directory | OFlag::O_PATH, Mode::empty()).doing("opening /proc/self")?;
        let status = openat(&process, "status", OFlag::O_CLOEXEC, Mode::empty()).doing("opening /proc/self/status")?;
        let descriptors = openat(&process, "fd", directory, Mode::empty()).doing("opening /proc/self/fd")?;
        Ok(Examiner { status: File::from(status), descriptors, namespaces: NamespaceIds::read()? })
    }

    /// Compares everything but seccomp with the plan; returns the namespaces that are new.
    pub(super) fn examine(
        &self,
        namespaces: &BTreeSet<Namespace>,
        identity: &Identity,
        outer: &NamespaceIds,
    ) -> Result<BTreeSet<Namespace>, Failure> {
        let new = self.namespaces.differing_from(outer);
        expect("new namespaces", &new, namespaces)?;
        let status = Status::read(&self.status)?;
        let Identity { inside_uid, inside_gid, outside_uid: _, outside_gid: _ } = *identity;
        expect("Uid", &status.field("Uid"), &vec![inside_uid.to_string(); 4].join("\t"))?;
        expect("Gid", &status.field("Gid"), &vec![inside_gid.to_string(); 4].join("\t"))?;
        // Also those that are newer than the library which dropped them.
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            expect(set, &status.field(set), "0000000000000000")?;
        }
        expect("NoNewPrivs", &status.field("NoNewPrivs"), "1")?;
        for mask in ["SigBlk", "SigIgn"] {
            expect(mask, &status.field(mask), "0000000000000000")?;
        }
        self.examine_descriptors()?;
        Ok(new)
    }

    /// Makes few system calls, since the filter answers them already.
    pub(super) fn examine_seccomp(&self) -> Result<(), Failure> {
        expect("Seccomp", &Status::read(&self.status)?.field("Seccomp"), "2")
    }

    fn examine_descriptors(&self) -> Result<(), Failure> {
        let directory = self.descriptors.try_clone().doing("listing descriptors")?;
        let mut surviving = BTreeSet::new();
        for entry in Dir::new(directory).doing("listing descriptors")? {
            let entry = entry.doing("listing descriptors")?;
            let Some(number) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !sys::closes_on_exec(number).doing("examining a descriptor")? {
                surviving.insert(number);
            }
        }
        expect("descriptors", &surviving, &BTreeSet::from([0, 1, 2]))
    }
}

/// The lines of `/proc/self/status`, see proc(5).
struct Status(BTreeMap<String, String>);

impl Status {
    fn read(mut file: &File) -> Result<Self, Failure> {
        let mut text = String::new();
        file.rewind().doing("reading /proc/self/status")?;
        file.read_to_string(&mut text).doing("reading /proc/self/status")?;
        let field = |line: &str| line.split_once(":\t").map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Ok(Status(text.lines().filter_map(field).collect()))
    }

    /// A missing line is a difference from whatever is expected.
    fn field(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| "absent".to_owned())
    }
}

fn expect<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug + ?Sized>(
    what: &str,
    found: &T,
    expected: &U,
) -> Result<(), Failure> {
    if found == expected {
        Ok(())
    } else {
        Err(Failure::Check { finding: format!("{what} should be {expected:?} and is {found:?}") })
    }
}
