//! Paths of the new root, resolved beneath it component by component in the kernel. A symbolic link on the way, even one
//! that the plan made itself, stops the step: nothing that a path names can be anywhere but where the plan says.

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::{ffi::OsStr, io, os::fd::OwnedFd, os::unix::ffi::OsStrExt, path::Path};

/// The root that is being built.
pub(super) struct Inside {
    pub(super) root: OwnedFd,
}

/// A name in a directory.
pub(super) struct Place<'path> {
    pub(super) parent: OwnedFd,
    pub(super) name: &'path OsStr,
}

impl Inside {
    /// Opens something that exists.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve(relative(path)?, flags)
    }

    /// Opens the parent of something that may not exist yet.
    pub(super) fn place<'path>(&self, path: &'path [u8]) -> io::Result<Place<'path>> {
        let path = relative(path)?;
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], path),
        };
        let parent = self.resolve(parent, OFlags::PATH)?;
        Ok(Place { parent, name: OsStr::from_bytes(name) })
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        // No magic links either, which are symbolic ones.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let path = Path::new(OsStr::from_bytes(path));
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The kernel could not rule out a concurrent rename somewhere on the system, see openat2(2).
                Err(rustix::io::Errno::AGAIN) => continue,
                opened => return Ok(opened?),
            }
        }
    }
}

/// An absolute path without its first slash; `.` for the root itself. Only plain paths are taken: what `..` or an empty
/// component means depends on what was mounted before.
fn relative(path: &[u8]) -> io::Result<&[u8]> {
    let Some(rest) = path.strip_prefix(b"/") else {
        return Err(Errno::EINVAL.into());
    };
    if rest.is_empty() {
        return Ok(b".");
    }
    if rest.split(|byte| *byte == b'/').any(|name| matches!(name, b"" | b"." | b"..") || name.contains(&0)) {
        return Err(Errno::EINVAL.into());
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_leaves_the_root_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("root/below")).unwrap();
        std::fs::write(path("secret"), "").unwrap();
        std::os::unix::fs::symlink("../secret", path("root/link")).unwrap();
        std::os::unix::fs::symlink("below", path("root/harmless")).unwrap();
        let inside = Inside { root: std::fs::File::open(path("root")).unwrap().into() };
        let errno = |path: &[u8]| inside.resolve(path, OFlags::PATH).map(drop).map_err(|error| error.raw_os_error());
        assert_eq!(errno(b"below"), Ok(()));
        for outside in [path("secret").as_os_str().as_bytes(), b"../secret", b"below/../../secret"] {
            assert_eq!(errno(outside), Err(Some(libc::ENOENT)));
        }
        for link in [&b"link"[..], b"harmless", b"harmless/x"] {
            assert_eq!(errno(link), Err(Some(libc::ELOOP)));
        }
    }

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        assert_eq!(relative(b"/").unwrap(), b".");
        assert_eq!(relative(b"/a/b").unwrap(), b"a/b");
        for path in [&b""[..], b"a", b"//", b"/a/", b"/a//b", b"/../a", b"/a/..", b"/./a", b"/a/.", b"/a\0b"] {
            assert!(relative(path).is_err(), "{path:?}");
        }
    }
}
