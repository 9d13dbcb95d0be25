//! What the kernel says about every mount, against the steps that made them.

use super::expect;
use crate::wire::Failure;
use fodder_model::sandbox::{Access, BindKind, RootStep};
use std::{
    collections::BTreeMap,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// What a step says about the mount that it made, and about those that came along below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    read_only: bool,
    no_devices: bool,
    no_programs: bool,
}

/// Every mount must be one of the plan's, or lie below one, with its restrictions; and every one of the plan's must be there.
pub(super) fn examine(mount_table: &[u8], root: &[RootStep]) -> Result<(), Failure> {
    let wanted = wanted(root);
    let mut missing = wanted.clone();
    for line in mount_table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|byte| *byte == b' ');
        // proc_pid_mountinfo(5): id, parent, device, root, mount point, options, tags up to a hyphen.
        let (Some(place), Some(options)) = (fields.nth(4).map(unescape), fields.next()) else {
            return Err(Failure::Check { finding: "the mount table cannot be understood".to_owned() });
        };
        missing.remove(&*place);
        let has = |option: &str| options.split(|byte| *byte == b',').any(|found| found == option.as_bytes());
        let about = |what: &str| format!("{what} at {}", place.display());
        let Some(Wanted { read_only, no_devices, no_programs }) = place.ancestors().find_map(|above| wanted.get(above))
        else {
            return Err(Failure::Check { finding: format!("a mount at {} is nobody's", place.display()) });
        };
        expect(&about("nosuid"), &has("nosuid"), &true)?;
        if *read_only {
            expect(&about("ro"), &has("ro"), &true)?;
        }
        if *no_devices {
            expect(&about("nodev"), &has("nodev"), &true)?;
        }
        if *no_programs {
            expect(&about("noexec"), &has("noexec"), &true)?;
        }
        // What the host mounts later would appear here, too.
        let is_shared = fields.take_while(|field| *field != b"-").any(|tag| tag.contains(&b':'));
        expect(&about("sharing mounts"), &is_shared, &false)?;
    }
    expect("mounts that are not there", &missing.into_keys().collect::<Vec<_>>(), &Vec::<&Path>::new())
}

fn wanted(root: &[RootStep]) -> BTreeMap<&Path, Wanted> {
    let storage = Wanted { read_only: false, no_devices: true, no_programs: false };
    let mut wanted = BTreeMap::from([(Path::new("/"), storage)]);
    for step in root {
        match step {
            RootStep::Bind { source: _, target, kind, access } => {
                let read_only = match access {
                    Access::ReadOnly => true,
                    Access::ReadWrite => false,
                };
                let (no_devices, no_programs) = match kind {
                    BindKind::Directory | BindKind::File => (true, false),
                    BindKind::Device => (false, true),
                };
                wanted.insert(target.as_path(), Wanted { read_only, no_devices, no_programs });
            }
            RootStep::Tmpfs { path, mode: _, size: _ } => {
                wanted.insert(path.as_path(), storage);
            }
            RootStep::Proc { path } => {
                wanted.insert(path.as_path(), Wanted { no_programs: true, ..storage });
            }
            RootStep::Pts { path } => {
                wanted.insert(path.as_path(), Wanted { no_devices: false, no_programs: true, ..storage });
            }
            RootStep::ReadOnly { path } => {
                wanted.entry(path.as_path()).or_insert(storage).read_only = true;
            }
            RootStep::Directory { path: _, mode: _ }
            | RootStep::File { path: _, mode: _, content: _ }
            | RootStep::Symlink { path: _, target: _ }
            | RootStep::Mode { path: _, mode: _ } => {}
        }
    }
    wanted
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "1 1 0:1 / / ro,nosuid,nodev,relatime - tmpfs none rw\n\
                         2 1 0:2 / /in ro,nosuid,nodev - ext4 x rw\n\
                         3 2 0:3 / /in/be\\040low ro,nosuid,nodev - ext4 x rw\n\
                         4 1 0:4 /null /null rw,nosuid,noexec - devtmpfs x rw\n\
                         5 1 0:5 / /proc rw,nosuid,nodev,noexec - proc proc rw\n\
                         6 1 0:6 / /pts rw,nosuid,noexec - devpts none rw\n";

    fn steps() -> Vec<RootStep> {
        let bind =
            |target: &str, kind, access| RootStep::Bind { source: "/x".into(), target: target.into(), kind, access };
        vec![
            bind("/in", BindKind::Directory, Access::ReadOnly),
            bind("/null", BindKind::Device, Access::ReadWrite),
            RootStep::Proc { path: "/proc".into() },
            RootStep::Pts { path: "/pts".into() },
            RootStep::ReadOnly { path: "/".into() },
        ]
    }

    #[test]
    fn a_table_is_compared_with_the_plan() {
        examine(TABLE.as_bytes(), &steps()).unwrap();
        for (from, to, words) in [
            ("/ ro,", "/ rw,", "ro at /"),
            ("/in ro,", "/in rw,", "ro at /in"),
            ("low ro,", "low rw,", "ro at /in/be low"),
            ("rw,nosuid,noexec - devtmpfs", "rw,noexec - devtmpfs", "nosuid at /null"),
            ("/in ro,nosuid,nodev", "/in ro,nosuid", "nodev at /in"),
            ("/proc rw,nosuid,nodev", "/proc rw,nosuid", "nodev at /proc"),
            ("nodev,noexec - proc", "nodev - proc", "noexec at /proc"),
            ("noexec - devpts", "nodev - devpts", "noexec at /pts"),
            ("noexec - devtmpfs", "nodev - devtmpfs", "noexec at /null"),
            ("nodev - ext4 x", "nodev master:1 - ext4 x", "sharing mounts at /in"),
            ("nodev - ext4 x", "nodev shared:1 - ext4 x", "sharing mounts at /in"),
            ("4 1 0:4 /null /null rw,nosuid,noexec - devtmpfs x rw\n", "", "mounts that are not there"),
            ("4 1 0:4 /null /null rw,nosuid,noexec - devtmpfs x rw\n", "4 1\n", "understood"),
            ("4 1", "4", "nobody's"),
        ] {
            let refused = examine(TABLE.replace(from, to).as_bytes(), &steps());
            let Err(Failure::Check { finding }) = refused else { panic!("{from} {to}: {refused:?}") };
            assert!(finding.contains(words), "{finding}");
        }
    }
}
