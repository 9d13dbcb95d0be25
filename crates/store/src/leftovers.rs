//! What runs that were killed have left, wherever in the store: scratch directories, files of temporary roots, lock files.
//!
//! Who is alive is told by locks alone, never by age or process number. Whoever has a path's lock has a locked file of temporary
//! roots as well ([`Store::lock_paths`]), and so has real Nix: lock files are looked for, in the directory of all objects, only when
//! something else says that somebody was killed.

use crate::{
    directory::{as_os_str, file_type},
    error::{At, StoreError},
    lock,
    scratch::Scratch,
    store::Store,
    temporary_roots::StaleRoots,
};
use fodder_model::store_path::StorePath;
use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::ffi::CStr;

impl Store {
    /// Removes what killed runs have left; returns how many things that were.
    ///
    /// What is valid is left alone, and so is what may become valid: objects that were moved in and not registered go when their
    /// path is locked next, or with a garbage collection.
    pub fn remove_leftovers(&self) -> Result<usize, StoreError> {
        self.check_writable("remove what killed runs have left")?;
        let roots = StaleRoots::find(self)?;
        let mut count = Scratch::reap_stale(self)? + roots.count();
        if count > 0 {
            for name in self.objects().names()? {
                if is_lock(&name) {
                    count += usize::from(self.remove_lock_if_free(&name)?);
                }
            }
        }
        if count > 0 {
            self.remove_half_made_links()?;
        }
        // Last: if we are killed before, they tell the next run that there is something to look for.
        roots.remove();
        Ok(count)
    }

    /// Removes a lock file that nobody holds, by the same protocol as whoever has held it: see [`crate::lock`].
    fn remove_lock_if_free(&self, name: &CStr) -> Result<bool, StoreError> {
        let shown = self.objects().child(as_os_str(name));
        let file = match self.objects().open_file(as_os_str(name), OFlags::RDWR | OFlags::NONBLOCK, 0) {
            Ok(file) => file,
            // Not a file, or of a build user of root's Nix: not ours to remove.
            Err(Errno::NOENT | Errno::ISDIR | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => return Ok(false),
            Err(error) => return Err(error).at("open the lock", shown),
        };
        let status = rustix::fs::fstat(&file).at("examine", &shown)?;
        // A `Cargo.lock` in the store has such a name as well. Objects cannot be written to, and root could open them all the same.
        if file_type(&status) != FileType::RegularFile
            || !Mode::from_raw_mode(status.st_mode).contains(Mode::WUSR)
            || self.is_valid_name(name)?
            || !lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &shown)?
            || rustix::fs::fstat(&file).at("examine", &shown)?.st_nlink == 0
        {
            return Ok(false);
        }
        match rustix::fs::unlinkat(self.objects(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).at("remove the lock", shown),
        }
        let _ = rustix::io::write(&file, b"d");
        Ok(true)
    }

    fn is_valid_name(&self, name: &CStr) -> Result<bool, StoreError> {
        match name.to_str().ok().and_then(|name| StorePath::from_base_name(name).ok()) {
            Some(path) => self.is_own(&path),
            None => Ok(false),
        }
    }
}

/// `<store path>.lock`, or the lock of an output that has no path yet.
fn is_lock(name: &CStr) -> bool {
    let stem = name.to_str().ok().and_then(|name| name.strip_suffix(".lock"));
    stem.is_some_and(|stem| StorePath::from_base_name(stem).is_ok())
}
