//! Whether this process is in a control group (version 2) that it may divide. Only looks: what must be changed to use it is the
//! sandbox's to change.

use fodder_model::{bytes::ByteString, limits::ControlGroup};
use rustix::fs::{Access, access};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What limits need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// A group of the sandbox's own making, into which a runner moves that is alone in a group.
const RUNNER_PREFIX: &str = "fodder-runner-";

/// What would help, where systemd looks after the user.
const REMEDY: &str = "`systemd-run --user --scope -p Delegate=yes fodder …` gives it one";

/// What was found.
pub(super) struct Found {
    /// Whether it can be used.
    pub(super) usable: ControlGroup,
    /// The memory that our own group may have.
    pub(super) memory_bytes: Option<u64>,
}

pub(super) fn find() -> Found {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(directory) = own_directory(&own, &mounts) else {
        let why = "this process is in no control group of version 2".to_owned();
        return Found { usable: ControlGroup::Absent { why }, memory_bytes: None };
    };
    let memory_bytes = fs::read_to_string(directory.join("memory.max")).ok().and_then(|text| text.trim().parse().ok());
    // A runner that has moved down before divides the group above.
    let is_runners = directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with(RUNNER_PREFIX));
    let directory = if is_runners { directory.parent().unwrap_or(&directory).to_owned() } else { directory };
    let usable = match refusal(&directory) {
        None => ControlGroup::Delegated { directory: ByteString::from(directory.as_path()) },
        Some(why) => ControlGroup::Absent { why },
    };
    Found { usable, memory_bytes }
}

/// Why a group cannot be divided; `None` when it can.
fn refusal(directory: &Path) -> Option<String> {
    let words = |file: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let shown = directory.display();
    let has = words("cgroup.controllers");
    if let Some(missing) = CONTROLLERS.into_iter().find(|name| !has.contains(*name)) {
        return Some(format!("the control group '{shown}' has no '{missing}' controller; {REMEDY}"));
    }
    let is_ours = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    if !is_ours(directory)
        || !is_ours(&directory.join("cgroup.procs"))
        || !is_ours(&directory.join("cgroup.subtree_control"))
    {
        return Some(format!("the control group '{shown}' belongs to somebody else; {REMEDY}"));
    }
    let gives = words("cgroup.subtree_control");
    // The kernel's own root is the only group that can have processes and divide itself; it has no type.
    let is_root = !directory.join("cgroup.type").exists();
    let own = std::process::id().to_string();
    let others = words("cgroup.procs").into_iter().filter(|id| *id != own).count();
    if !is_root && others > 0 && CONTROLLERS.into_iter().any(|name| !gives.contains(name)) {
        return Some(format!("there are {others} other processes in the control group '{shown}'; {REMEDY}"));
    }
    None
}

/// The directory of our own group: the `0::` line, below where version 2 is mounted.
fn own_directory(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    // From another cgroup namespace it is above what we see.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, mount_point) = (unescape(fields.next()?), unescape(fields.next()?));
        let below = if root == "/" { path } else { path.strip_prefix(&root)? };
        let below = below.trim_start_matches('/');
        Some(if below.is_empty() { PathBuf::from(mount_point) } else { Path::new(&mount_point).join(below) })
    })
}

/// Blanks and backslashes are octal in mountinfo, see proc(5).
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_its_mount() {
        let unified = "25 1 0:22 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let hybrid = "36 28 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n30 23 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let bound = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let scope = "0::/user.slice/user-1000.slice/run-7.scope\n";
        for (own, mounts, expected) in [
            (scope, unified, Some("/sys/fs/cgroup/user.slice/user-1000.slice/run-7.scope")),
            ("8:pids:/\n0::/\n", hybrid, Some("/sys/fs/cgroup/unified")),
            ("0::/docker/abc/x\n", bound, Some("/sys/fs/cgroup/x")),
            ("0::/elsewhere\n", bound, None),
            ("8:pids:/\n", unified, None),
            ("0::/../x\n", unified, None),
            (scope, "", None),
        ] {
            assert_eq!(own_directory(own, mounts), expected.map(PathBuf::from), "{own}");
        }
    }

    #[test]
    fn a_group_is_divided_only_where_nobody_is_disturbed() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        file("cgroup.controllers", "cpu hugetlb\n");
        file("cgroup.subtree_control", "");
        file("cgroup.type", "domain\n");
        file("cgroup.procs", &format!("{}\n", std::process::id()));
        let says = |words: &str| {
            refusal(directory.path()).is_some_and(|why| why.contains(words) && why.contains("systemd-run"))
        };
        assert!(says("has no 'memory' controller"));
        file("cgroup.controllers", "cpu memory pids\n");
        assert_eq!(refusal(directory.path()), None);
        file("cgroup.procs", &format!("{}\n1\n", std::process::id()));
        assert!(says("1 other processes"));
        file("cgroup.subtree_control", "memory pids\n");
        assert_eq!(refusal(directory.path()), None, "it is divided already");
        file("cgroup.subtree_control", "");
        fs::remove_file(directory.path().join("cgroup.type")).unwrap();
        assert_eq!(refusal(directory.path()), None, "the root may have processes");
    }
}
