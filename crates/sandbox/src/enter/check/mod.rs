//! The last look before execve(2): what the kernel says is in force, not what was asked for. Any difference stops the
//! build; a protection that is only believed in is worse than none.

mod mounts;

use super::{limits, personality};
use crate::{
    helper::{NamespaceIds, TIMER_SLACK},
    steps::{LeftOut, SetupStep},
    sys,
    wire::{Doing, Failure},
};
use fodder_model::sandbox::{Identity, Namespace, Process, SandboxPlan, Weakening};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal, stat::Mode, statfs::fstatfs},
    unistd::{getcwd, getsid},
};
use rustix::fs::Dir;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek},
    os::fd::OwnedFd,
    path::Path,
};

/// Views of this process in the host's procfs, opened before the root is exchanged; the plan may have no `/proc`.
pub(super) struct Examiner {
    process: OwnedFd,
    status: File,
    descriptors: OwnedFd,
    namespaces: NamespaceIds,
}

impl Examiner {
    pub(super) fn open() -> Result<Self, Failure> {
        Self::of(Path::new("/proc/self"))
    }

    fn of(process: &Path) -> Result<Self, Failure> {
        let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let process = open(process, directory | OFlag::O_PATH, Mode::empty()).doing("opening /proc/self")?;
        // Something else that is mounted there could say anything (CVE-2019-19921).
        let kind = fstatfs(&process).doing("examining /proc")?.filesystem_type();
        expect("the file system of /proc", &kind.0, &nix::sys::statfs::PROC_SUPER_MAGIC.0)?;
        let status = openat(&process, "status", OFlag::O_CLOEXEC, Mode::empty()).doing("opening /proc/self/status")?;
        let descriptors = openat(&process, "fd", directory, Mode::empty()).doing("opening /proc/self/fd")?;
        Ok(Examiner { process, status: File::from(status), descriptors, namespaces: NamespaceIds::read()? })
    }

    /// Compares everything but Landlock, which cannot be read back, and seccomp with the plan; returns the namespaces that are new.
    pub(super) fn examine(
        &self,
        plan: &SandboxPlan,
        outer: &NamespaceIds,
        outer_keyring: Option<i64>,
        supplementary_groups_dropped: bool,
        left_out: LeftOut<'_>,
    ) -> Result<BTreeSet<Namespace>, Failure> {
        let SandboxPlan {
            namespaces,
            identity,
            host_name: _,
            root_mount_point: _,
            root,
            process,
            limits,
            seccomp: _,
            door: _,
            allowed,
        } = plan;
        let new = self.namespaces.differing_from(outer);
        if !left_out.keeps(SetupStep::SelfCheck) {
            return Ok(new);
        }
        expect("new namespaces", &new, namespaces)?;
        let status = Status::read(&self.status)?;
        examine_status(&status, identity, process.umask)?;
        if supplementary_groups_dropped {
            expect("Groups", &status.field("Groups"), "")?;
        }
        mounts::examine(&self.read("mountinfo")?, root)?;
        examine_process(process)?;
        for limit in &limits.resources {
            expect(&format!("{limit:?} in force"), &limits::holds(limit)?, &true)?;
        }
        if let Some(outer) = outer_keyring {
            let own = sys::session_keyring().doing("looking for the session keyring")?;
            expect("a session keyring of its own", &(own != outer), &true)?;
        }
        let score = self.read("oom_score_adj")?;
        expect("an out-of-memory score below 0", &score.starts_with(b"-"), &false)?;
        self.examine_descriptors()?;
        if !allowed.contains(&Weakening::NestedNamespaces) {
            // Last: were it made, this process would be root in it.
            expect("making a user namespace", &unshare(CloneFlags::CLONE_NEWUSER), &Err(Errno::ENOSPC))?;
        }
        Ok(new)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let doing = || format!("reading /proc/self/{name}");
        let file = openat(&self.process, name, OFlag::O_CLOEXEC, Mode::empty()).doing(doing())?;
        let mut text = Vec::new();
        File::from(file).read_to_end(&mut text).doing(doing())?;
        Ok(text)
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

fn examine_status(status: &Status, identity: &Identity, umask: u32) -> Result<(), Failure> {
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
    expect("Umask", &status.field("Umask"), &format!("{umask:04o}"))
}

/// What of a process is in no file.
fn examine_process(process: &Process) -> Result<(), Failure> {
    expect("the session", &getsid(None).doing("asking for the session")?, &nix::unistd::getpid())?;
    // With it ends its namespace, and everything else in it.
    expect("the process number", &nix::unistd::getpid().as_raw(), &1)?;
    let tie = prctl::get_pdeathsig().doing("asking for the parent-death signal")?;
    expect("the parent-death signal", &tie, &Some(Signal::SIGKILL))?;
    expect("being dumpable", &prctl::get_dumpable().doing("asking whether it is dumpable")?, &false)?;
    expect("the personality", &sys::personality().doing("asking for the personality")?, &personality(process))?;
    expect("the timer slack", &prctl::get_timerslack().doing("asking for the timer slack")?, &TIMER_SLACK)?;
    // Not one that begins with "(unreachable)" (CVE-2024-21626).
    let directory = getcwd().doing("asking for the working directory")?;
    expect("the working directory", directory.as_path(), process.working_directory.as_path())
}

/// The lines of `/proc/self/status`, see proc(5).
struct Status(BTreeMap<String, String>);

impl Status {
    fn read(mut file: &File) -> Result<Self, Failure> {
        let mut text = String::new();
        file.rewind().doing("reading /proc/self/status")?;
        file.read_to_string(&mut text).doing("reading /proc/self/status")?;
        Ok(Status::of(&text))
    }

    fn of(text: &str) -> Self {
        let field = |line: &str| line.split_once(":\t").map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Status(text.lines().filter_map(field).collect())
    }

    /// A missing line is a difference from whatever is expected.
    fn field(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| "absent".to_owned())
    }
}

fn expect<T: PartialEq<U> + std::fmt::Debug + ?Sized, U: std::fmt::Debug + ?Sized>(
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

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Umask:\t0022\nUid:\t1000\t1000\t1000\t1000\nGid:\t100\t100\t100\t100\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";

    /// Attack: KRN-1. Layer: every line of the status that security rests on, and a line that is missing is no line that is right.
    #[test]
    fn each_line_of_the_status_counts() {
        let identity = Identity { inside_uid: 1000, inside_gid: 100, outside_uid: 5, outside_gid: 6 };
        let judge = |text: &str| examine_status(&Status::of(text), &identity, 0o022);
        judge(STATUS).unwrap();
        for line in STATUS.lines() {
            let (name, value) = line.split_once(":\t").unwrap();
            let other = match value.strip_suffix('0') {
                Some(rest) => format!("{rest}1"),
                None => "0".to_owned(),
            };
            for wrong in ["".to_owned(), format!("{name}:\t{other}")] {
                let refused = judge(&STATUS.replace(line, &wrong));
                let Err(Failure::Check { finding }) = refused else { panic!("{wrong}: {refused:?}") };
                assert!(finding.starts_with(&format!("{name} should be")), "{finding}");
            }
        }
    }

    /// Attack: KRN-1, CVE-2019-19921. Layer: what is looked at is the kernel's own.
    #[test]
    fn a_directory_that_looks_like_a_process_is_none() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("fd")).unwrap();
        std::fs::write(directory.path().join("status"), STATUS).unwrap();
        let Err(Failure::Check { finding }) = Examiner::of(directory.path()) else { panic!("it was believed") };
        assert!(finding.starts_with("the file system of /proc"), "{finding}");
        assert!(Examiner::open().is_ok());
    }
}
