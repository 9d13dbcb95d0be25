//! Measuring the scratch directories while a build runs: by walking them, a little at a time, so that neither a large tree nor
//! a build that ends waits for it. Files that have no name any more, but a process that writes to them, are found through it.

use super::watchdog::{living_thread, process_ids};
use crate::wire::{Doing, Failure};
use fodder_model::{limits::Limit, sandbox::Limits};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, fstat, fstatvfs, openat, statat};
use std::{
    collections::{BTreeSet, HashSet},
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// How long one look may walk.
const BUDGET: Duration = Duration::from_millis(10);

/// How long where the file system says that much has been used up since the build began.
const LONG_BUDGET: Duration = Duration::from_millis(60);

/// How long files without a name may be looked for: a process may have half a million descriptors.
const NAMELESS_BUDGET: Duration = Duration::from_secs(1);

/// Directories that are open at once. What is deeper is not counted, but for what the file system as a whole says.
const DEPTH: usize = 512;

/// A walk begins this many times its own length after the last one ended.
const PAUSE: u32 = 10;

pub(super) struct Scratch {
    roots: Vec<OwnedFd>,
    devices: BTreeSet<u64>,
    bytes: Option<u64>,
    files: Option<u64>,
    /// What was free when the build began.
    free_bytes: u64,
    free_files: u64,
    walk: Option<Walk>,
    next_walk: Instant,
}

/// What a look found.
pub(super) struct Pressure {
    pub(super) bytes: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) over: Option<(Limit, u64, u64)>,
    /// Somebody should look again soon.
    pub(super) is_near: bool,
}

impl Scratch {
    /// Opened with the runner's rights: the directories lie below one that only the runner may enter.
    pub(super) fn open(limits: &Limits) -> Result<Option<Self>, Failure> {
        if limits.scratch.is_empty() {
            return Ok(None);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let roots = limits
            .scratch
            .iter()
            .map(|path| open(path.as_path(), flags, Mode::empty()).doing(format!("opening {path} to measure it")))
            .collect::<Result<Vec<_>, _>>()?;
        let devices = roots.iter().filter_map(|root| fstat(root).ok()).map(|status| status.st_dev).collect();
        let (free_bytes, free_files) = free(&roots);
        Ok(Some(Scratch {
            roots,
            devices,
            bytes: limits.scratch_bytes,
            files: limits.scratch_files,
            free_bytes,
            free_files,
            walk: None,
            next_walk: Instant::now(),
        }))
    }

    pub(super) fn look(&mut self, proc: Option<&OwnedFd>) -> Pressure {
        let (free_bytes, free_files) = free(&self.roots);
        let gone = |before: u64, now: u64, limit: Option<u64>| {
            limit.is_some_and(|limit| before.saturating_sub(now) > limit / 2)
        };
        let mut is_near =
            gone(self.free_bytes, free_bytes, self.bytes) || gone(self.free_files, free_files, self.files);
        let until = Instant::now() + if is_near { LONG_BUDGET } else { BUDGET };
        if self.walk.is_none() && (is_near || Instant::now() >= self.next_walk) {
            self.walk = Some(Walk::new(self.roots.iter().rev().filter_map(|root| Dir::read_from(root).ok()).collect()));
        }
        let Some(walk) = &mut self.walk else {
            return Pressure { bytes: None, files: None, over: None, is_near };
        };
        let began = Instant::now();
        let is_complete = walk.go_on(&self.devices, until);
        walk.took += began.elapsed();
        if is_complete && is_near {
            let until = Instant::now() + NAMELESS_BUDGET;
            walk.bytes += proc.map_or(0, |proc| nameless_bytes(proc.as_fd(), &self.devices, until));
        }
        let (bytes, files) = (walk.bytes, walk.files);
        let over = [(Limit::ScratchSize, self.bytes, bytes), (Limit::ScratchFiles, self.files, files)]
            .into_iter()
            .find_map(|(limit, allowed, used)| {
                allowed.filter(|allowed| used > *allowed).map(|allowed| (limit, allowed, used))
            });
        is_near |= self.bytes.is_some_and(|limit| bytes > limit / 2);
        if is_complete {
            self.next_walk = Instant::now() + walk.took * PAUSE;
            self.walk = None;
        }
        Pressure { bytes: Some(bytes), files: Some(files), over, is_near }
    }
}

/// Free bytes and inodes of the first directory's file system; they are all on one.
fn free(roots: &[OwnedFd]) -> (u64, u64) {
    let status = roots.first().and_then(|root| fstatvfs(root).ok());
    status.map_or((0, 0), |status| (status.f_bavail.saturating_mul(status.f_frsize), status.f_favail))
}

/// A walk under way.
struct Walk {
    /// Open directories, the deepest last.
    open: Vec<Dir>,
    /// Files with several names that were counted.
    linked: HashSet<u64>,
    bytes: u64,
    files: u64,
    took: Duration,
}

impl Walk {
    fn new(open: Vec<Dir>) -> Self {
        Walk { open, linked: HashSet::new(), bytes: 0, files: 0, took: Duration::ZERO }
    }

    /// Returns whether it came to its end.
    fn go_on(&mut self, devices: &BTreeSet<u64>, until: Instant) -> bool {
        let mut steps = 0_u32;
        while let Some(directory) = self.open.last_mut() {
            steps += 1;
            if steps.is_multiple_of(64) && Instant::now() >= until {
                return false;
            }
            match directory.read() {
                // A directory that cannot be read any further is left: the builder may be removing it.
                None | Some(Err(_)) => drop(self.open.pop()),
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => {
                    let Ok(parent) = directory.fd() else { continue };
                    if let Some(below) = count(parent, entry.file_name(), devices, &mut self.linked, &mut self.bytes)
                        && self.open.len() < DEPTH
                    {
                        self.open.push(below);
                    }
                    self.files += 1;
                }
            }
        }
        true
    }
}

/// Counts one entry; returns it opened if it is a directory.
fn count(
    parent: BorrowedFd<'_>,
    name: &CStr,
    devices: &BTreeSet<u64>,
    linked: &mut HashSet<u64>,
    bytes: &mut u64,
) -> Option<Dir> {
    let status = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if !devices.contains(&status.st_dev) {
        return None;
    }
    let kind = FileType::from_raw_mode(status.st_mode);
    let is_again = kind != FileType::Directory && status.st_nlink > 1 && !linked.insert(status.st_ino);
    if !is_again {
        *bytes += allocated(&status);
    }
    if kind != FileType::Directory {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(parent, name, flags, rustix::fs::Mode::empty()).ok()?;
    Dir::new(opened).ok()
}

fn allocated(status: &Stat) -> u64 {
    u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Bytes of files without a name that some process has open.
fn nameless_bytes(proc: BorrowedFd<'_>, devices: &BTreeSet<u64>, until: Instant) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for id in process_ids(proc) {
        // Where the first thread has ended only the others have them.
        let place = living_thread(proc, &id).map_or(id, |(place, _)| place);
        let descriptors = openat(proc, format!("{place}/fd"), directory, rustix::fs::Mode::empty());
        let Ok(descriptors) = descriptors else { continue };
        let Ok(entries) = Dir::read_from(&descriptors) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if Instant::now() >= until {
                return bytes;
            }
            // Through the link, to the file itself.
            let Ok(status) = statat(&descriptors, entry.file_name(), AtFlags::empty()) else { continue };
            let is_nameless = status.st_nlink == 0
                && FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
                && devices.contains(&status.st_dev);
            if is_nameless && seen.insert(status.st_ino) {
                bytes += allocated(&status);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_counts_every_file_once_and_can_be_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("a/b")).unwrap();
        std::fs::write(path("a/b/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(path("a/b/file"), path("a/again")).unwrap();
        std::os::unix::fs::symlink("/", path("a/root")).unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(elsewhere.path(), vec![1; 8 << 20]).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), path("a/large")).unwrap();
        for number in 0..300 {
            std::fs::write(path(&format!("empty-{number}")), "").unwrap();
        }
        let root = OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
        let devices = [fstat(&root).unwrap().st_dev].into();
        let mut walk = Walk::new(vec![Dir::read_from(&root).unwrap()]);
        let mut rounds = 0;
        while !walk.go_on(&devices, Instant::now()) {
            rounds += 1;
        }
        assert!(rounds > 2, "{rounds}");
        assert_eq!(walk.files, 306);
        assert!((1 << 20..4 << 20).contains(&walk.bytes), "{}", walk.bytes);
    }

    #[test]
    fn a_deep_tree_does_not_take_all_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("d/".repeat(DEPTH + 100))).unwrap();
        let root = OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
        let devices = [fstat(&root).unwrap().st_dev].into();
        let mut walk = Walk::new(vec![Dir::read_from(&root).unwrap()]);
        let mut most = 0;
        while !walk.go_on(&devices, Instant::now()) {
            most = most.max(walk.open.len());
        }
        assert!((DEPTH - 64..=DEPTH).contains(&most), "{most}");
        assert_eq!(walk.files, DEPTH as u64);
    }
}
