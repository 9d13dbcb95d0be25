//! Hard links: each one to a file of an output must be in an output, or somebody else has a name for it.

use super::InspectError;
use rustix::fs::Stat;
use std::{collections::BTreeMap, path::PathBuf};

/// Files with several links, over all outputs of a build.
#[derive(Debug, Default)]
pub struct Links {
    /// By device and inode: links that were seen, and one of them.
    files: BTreeMap<(u64, u64), (u64, PathBuf)>,
}

impl Links {
    pub(super) fn count(&mut self, status: &Stat, path: &std::path::Path) {
        if status.st_nlink > 1 {
            let (seen, _) = self.files.entry((status.st_dev, status.st_ino)).or_insert_with(|| (0, path.to_owned()));
            *seen += 1;
        }
    }

    /// Whether no file has a link that was not counted. `Err` names one that has.
    ///
    /// # Errors
    /// [`InspectError::LinkedElsewhere`], or that a file cannot be examined.
    #[allow(clippy::useless_conversion, reason = "the count has 32 bits on aarch64")]
    pub fn check(&self) -> Result<(), InspectError> {
        for (seen, path) in self.files.values() {
            let status = rustix::fs::lstat(path).map_err(|error| super::system("examine", path, error))?;
            if u64::from(status.st_nlink) > *seen {
                return Err(InspectError::LinkedElsewhere { path: path.clone() });
            }
        }
        Ok(())
    }
}
