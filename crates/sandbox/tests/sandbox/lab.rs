//! A small plan to vary, a place to run it in, and what came of it.

use fodder_model::{
    bytes::ByteString,
    sandbox::{
        Access, BindKind, HostName, Identity, Limits, Namespace, Process, Program, RootStep, SandboxPlan,
        SeccompAction, SeccompPolicy,
    },
};
use fodder_sandbox::{BuilderExit, BuilderReport, Helper, Sandbox, SandboxError};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A uid and gid that nobody on a test machine has.
const UNUSED_ID: u32 = 61_234;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "cat", "chmod", "dd", "echo", "env", "hostname", "id", "ifconfig", "ionice", "ip", "kill", "ls", "mkdir", "mount",
    "nc", "ps", "pwd", "rm", "rmdir", "setsid", "sleep", "stat", "stty", "touch", "true", "truncate", "umount",
    "uname", "unshare", "wc",
];

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) report: BuilderReport,
    pub(crate) log: String,
}

/// A scratch directory with an empty `build` in it that the builder owns, and an empty mount point.
pub(crate) struct Lab {
    directory: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: apt-get install busybox-static");
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab { directory };
        fs::create_dir(lab.build()).unwrap();
        fs::create_dir(lab.directory.path().join("root")).unwrap();
        lab.give_to_builder(&lab.build());
        lab
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The host's side of `/build`.
    pub(crate) fn build(&self) -> PathBuf {
        self.directory.path().join("build")
    }

    pub(crate) fn give_to_builder(&self, path: &Path) {
        let Identity { inside_uid: _, inside_gid: _, outside_uid, outside_gid } = identity();
        chown(path, Some(outside_uid), Some(outside_gid)).unwrap();
    }

    /// A directory with one file, to be bound as an input; owned by the builder, so that only the mount protects it.
    pub(crate) fn input(&self) -> PathBuf {
        let input = self.directory.path().join("input");
        fs::create_dir(&input).unwrap();
        fs::write(input.join("file"), "original\n").unwrap();
        fs::set_permissions(input.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
        self.give_to_builder(&input);
        self.give_to_builder(&input.join("file"));
        input
    }

    /// A plan whose builder is `/bin/sh -c script`, with everything new and everything usual in its root.
    pub(crate) fn plan(&self, script: &str) -> SandboxPlan {
        SandboxPlan {
            namespaces: [
                Namespace::User,
                Namespace::Mount,
                Namespace::Pid,
                Namespace::Ipc,
                Namespace::Uts,
                Namespace::Network,
                Namespace::Cgroup,
            ]
            .into(),
            identity: identity(),
            host_name: HostName { host: "localhost".into(), domain: "(none)".into() },
            root_mount_point: ByteString::from(&*self.directory.path().join("root")),
            root: self.root(),
            process: Process {
                program: Program::Execute("/bin/sh".into()),
                arguments: vec!["sh".into(), "-c".into(), script.into()],
                environment: vec![("PATH".into(), "/bin".into())],
                working_directory: "/build".into(),
                umask: 0o022,
                fixed_addresses: true,
                linux32: false,
            },
            limits: Limits { deadline_seconds: Some(60), ..Limits::default() },
            seccomp: SeccompPolicy { default: SeccompAction::Allow, rules: Vec::new() },
            door: None,
            allowed: BTreeSet::new(),
        }
    }

    fn root(&self) -> Vec<RootStep> {
        let mut steps = vec![directory("/bin", 0o755), bind(BUSYBOX, "/bin/sh", BindKind::File, Access::ReadOnly)];
        steps.extend(APPLETS.iter().map(|applet| symlink(&format!("/bin/{applet}"), "sh")));
        steps.extend([directory("/build", 0o755), directory("/dev", 0o755), directory("/etc", 0o755)]);
        steps.push(bind(self.build(), "/build", BindKind::Directory, Access::ReadWrite));
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            let path = format!("/dev/{device}");
            steps.push(bind(path.clone(), &path, BindKind::Device, Access::ReadWrite));
        }
        steps.extend([
            symlink("/dev/fd", "/proc/self/fd"),
            symlink("/dev/stdout", "/proc/self/fd/1"),
            symlink("/dev/ptmx", "/dev/pts/ptmx"),
            RootStep::Tmpfs { path: "/dev/shm".into(), mode: 0o1777, size: "50%".into() },
            RootStep::Tmpfs { path: "/tmp".into(), mode: 0o1777, size: "4m".into() },
            RootStep::Pts { path: "/dev/pts".into() },
            RootStep::Proc { path: "/proc".into() },
            RootStep::File { path: "/etc/passwd".into(), mode: 0o644, content: "root:x:0:0::/:/noshell\n".into() },
            RootStep::Mode { path: "/etc".into(), mode: 0o555 },
            RootStep::ReadOnly { path: "/".into() },
        ]);
        steps
    }

    /// Runs to the end; the sandbox itself must work.
    pub(crate) fn run(&self, plan: &SandboxPlan) -> Ran {
        let mut log = Vec::new();
        let report = sandbox().run(plan, &mut |bytes| log.extend_from_slice(bytes));
        let log = String::from_utf8_lossy(&log).into_owned();
        match report {
            Ok(report) => Ran { report, log },
            Err(error) => panic!("{}\nlog:\n{log}", chain(&error)),
        }
    }

    /// Runs a script that must succeed; its log.
    pub(crate) fn log_of(&self, script: &str) -> String {
        let ran = self.run(&self.plan(script));
        assert_eq!(ran.report.exit, BuilderExit::Exited(0), "{}", ran.log);
        ran.log
    }

    /// Runs a plan that must not get as far as its builder: nothing on the log, no trace in `/build`.
    pub(crate) fn refusal(&self, plan: &SandboxPlan) -> SandboxError {
        let mut log = Vec::new();
        let error = sandbox().run(plan, &mut |bytes| log.extend_from_slice(bytes)).expect_err("a refusal");
        assert_eq!(String::from_utf8_lossy(&log), "", "errors do not belong in the log");
        assert_eq!(fs::read_dir(self.build()).unwrap().count(), 0, "something was executed");
        error
    }
}

/// With the helper that cargo built, or the copy that [`crate::ordinary_user`] made for a user who cannot read it.
pub(crate) fn sandbox() -> Sandbox {
    let helper =
        std::env::var_os("FODDER_TEST_HELPER").unwrap_or_else(|| env!("CARGO_BIN_EXE_fodder-sandbox-helper").into());
    Sandbox::new(Helper::at(helper)).unwrap()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The caller, or somebody unused when the caller is root.
pub(crate) fn identity() -> Identity {
    let (outside_uid, outside_gid) = if is_root() {
        (UNUSED_ID, UNUSED_ID)
    } else {
        (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    };
    Identity { inside_uid: 1000, inside_gid: 100, outside_uid, outside_gid }
}

/// Gives this program the soft limit of open files that most systems have. Lower than the hard one, it shows who changes
/// it; it is the same for all tests and enough for them.
pub(crate) fn usual_open_files() -> (u64, u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard > 2000, "ulimit -Hn is too low for these tests");
    setrlimit(Resource::RLIMIT_NOFILE, 1024, hard).unwrap();
    (1024, hard)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", cause.unwrap_or_default())
}

pub(crate) fn directory(path: &str, mode: u32) -> RootStep {
    RootStep::Directory { path: path.into(), mode }
}

pub(crate) fn symlink(path: &str, target: &str) -> RootStep {
    RootStep::Symlink { path: path.into(), target: target.into() }
}

pub(crate) fn bind(source: impl AsRef<Path>, target: &str, kind: BindKind, access: Access) -> RootStep {
    RootStep::Bind { source: ByteString::from(source.as_ref()), target: target.into(), kind, access }
}

/// Puts steps before the last one, which makes the root read-only.
pub(crate) fn insert(plan: &mut SandboxPlan, steps: impl IntoIterator<Item = RootStep>) {
    let last = plan.root.len() - 1;
    plan.root.splice(last..last, steps);
}
