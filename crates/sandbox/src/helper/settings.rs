//! Settings of the user namespace: what the kernel counts for the person who runs the build is bounded for the build.

use crate::wire::{Doing, Failure};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
};

/// Writes them, and returns those that cannot be had here: containers mount `/proc/sys` read-only, and kernels lack some.
pub(super) fn apply(settings: &[(String, u64)]) -> Result<Vec<String>, Failure> {
    let mut refused = Vec::new();
    for (name, value) in settings {
        match write(name, *value) {
            Ok(()) => {}
            Err(error) if is_refusal(&error) => refused.push(name.clone()),
            Err(error) => return Err(error).doing(format!("setting {name}")),
        }
    }
    Ok(refused)
}

fn write(name: &str, value: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(format!("/proc/sys/{name}"))?;
    file.write_all(value.to_string().as_bytes())
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM | libc::ENOENT))
}

/// Whom the kernel kills first when the machine has no memory left (proc_pid_oom_score_adj(5)). A child has what its parent had,
/// and the builder-to-be cannot write its own: a process that is not dumpable has files of root's in `/proc`.
pub(super) struct OomScore {
    file: File,
    own: i32,
}

impl OomScore {
    pub(super) fn open() -> Result<Self, Failure> {
        let doing = "reading /proc/self/oom_score_adj";
        let mut file = OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj").doing(doing)?;
        let mut text = String::new();
        file.read_to_string(&mut text).doing(doing)?;
        let own = text.trim().parse().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL)).doing(doing)?;
        Ok(OomScore { file, own })
    }

    /// For the child that comes next. What is higher already stays.
    pub(super) fn raise(&mut self, score: u16) -> Result<(), Failure> {
        if i32::from(score) > self.own { self.set(i32::from(score)) } else { Ok(()) }
    }

    /// For this process, without which nobody could tell how the builder ended.
    pub(super) fn restore(&mut self) -> Result<(), Failure> {
        self.set(self.own)
    }

    fn set(&mut self, score: i32) -> Result<(), Failure> {
        self.file.write_all(score.to_string().as_bytes()).doing("setting oom_score_adj")
    }
}
