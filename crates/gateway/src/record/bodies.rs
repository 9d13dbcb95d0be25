//! The bodies of answers: files named by their hash, in a directory beside the recording. A file with such a name is whole.

use super::RecordError;
use fodder_model::recording::Body;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What the kernel says of a link where none may be.
const LOOP: i32 = rustix::io::Errno::LOOP.raw_os_error();

/// Names of files that are being written begin so.
const PARTIAL: &str = ".partial-";

/// Where the bodies of a recording are.
pub(super) fn directory_of(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".bodies");
    path.into()
}

/// A directory that is being written, by nobody else.
#[derive(Debug)]
pub(super) struct Bodies {
    pub(super) path: PathBuf,
    /// Its lock goes with it.
    directory: File,
}

impl Bodies {
    pub(super) fn create(path: PathBuf) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Write { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        let directory = File::open(&path).map_err(failed)?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RecordError::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let bodies = Bodies { path, directory };
        // What a run that was killed has left.
        bodies.remove(|name| name.starts_with(PARTIAL));
        Ok(bodies)
    }

    /// A file that has no name that anybody knows yet.
    pub(super) fn new_file(&self) -> io::Result<tempfile::NamedTempFile> {
        let permissions = std::fs::Permissions::from_mode(0o666);
        tempfile::Builder::new().prefix(PARTIAL).permissions(permissions).tempfile_in(&self.path)
    }

    pub(super) fn start(&self) -> io::Result<Writer> {
        let file = self.new_file()?;
        Ok(Writer { file, hasher: Sha256::new(), size: 0, directory: self.path.clone() })
    }

    /// Itself, open.
    pub(super) fn directory(&self) -> &File {
        &self.directory
    }

    /// What the recording does not need goes.
    pub(super) fn keep_only(&self, wanted: &BTreeSet<&Body>) {
        let names: BTreeSet<&str> = wanted.iter().map(|body| body.sha256.as_str()).collect();
        self.remove(|name| !names.contains(name));
    }

    fn remove(&self, unwanted: impl Fn(&str) -> bool) {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            // Only files of ours: somebody may have put others there.
            let is_ours = |name: &str| name.starts_with(PARTIAL) || is_hash(name);
            if name.to_str().is_some_and(|name| is_ours(name) && unwanted(name)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Bodies {
    fn drop(&mut self) {
        // Succeeds only when nothing was recorded.
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A body that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    file: tempfile::NamedTempFile,
    hasher: Sha256,
    pub(super) size: u64,
    directory: PathBuf,
}

impl Writer {
    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hasher.update(piece);
        self.size += piece.len() as u64;
        self.file.write_all(piece)
    }

    pub(super) fn finish(self) -> io::Result<Body> {
        let body = Body { sha256: hexadecimal(self.hasher), size: self.size };
        let path = self.directory.join(&body.sha256);
        self.file.persist(path).map_err(|error| error.error)?;
        Ok(body)
    }
}

/// The hash of what was sent, of which nothing else is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    hasher: Sha256,
    size: u64,
}

impl Counter {
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.size += piece.len() as u64;
    }

    pub(super) fn body(&self) -> Body {
        Body { sha256: hexadecimal(self.hasher.clone()), size: self.size }
    }
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes sure that a body is what its name says.
pub(super) fn check(directory: &Path, body: &Body) -> Result<(), RecordError> {
    let path = directory.join(&body.sha256);
    let damaged = || RecordError::Damaged { path: path.clone(), body: body.clone() };
    let failed = |source| RecordError::Read { path: path.clone(), source };
    // Recordings come from other people: a link could lead anywhere, and a pipe would let us wait for ever.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
    let mut file = match File::options().read(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(LOOP) => {
            return Err(damaged());
        }
        Err(error) => return Err(failed(error)),
    };
    let status = file.metadata().map_err(failed)?;
    if !status.is_file() || status.len() != body.size {
        return Err(damaged());
    }
    let mut counter = Counter::default();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            length => counter.add(&buffer[..length]),
        }
    }
    if counter.body() == *body { Ok(()) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn body(text: &str) -> Body {
        let mut counter = Counter::default();
        counter.add(text.as_bytes());
        counter.body()
    }

    /// Recordings come from other people.
    ///
    /// Attack: PARSE-17 (bodies that are something else). Layer: a body is a file with these very bytes, and no link.
    #[test]
    fn a_body_is_what_its_name_says_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = |body: &Body| directory.path().join(&body.sha256);
        let good = body("good");
        std::fs::write(path(&good), "good").unwrap();
        check(directory.path(), &good).unwrap();
        let damaged = |body: &Body| {
            let error = check(directory.path(), body).unwrap_err();
            assert!(matches!(error, RecordError::Damaged { .. }), "{error}");
        };
        damaged(&body("nowhere"));
        // Of the right size only, of the right beginning only, and the right bytes by way of a link.
        let (other, longer, linked) = (body("0000"), body("good"), body("good and more"));
        std::fs::write(path(&other), "good").unwrap();
        damaged(&other);
        damaged(&Body { size: 3, ..longer });
        let target = directory.path().join("target");
        std::fs::write(&target, "good and more").unwrap();
        symlink(&target, path(&linked)).unwrap();
        damaged(&linked);
        // A pipe would keep us waiting; a directory can be opened, too.
        let (pipe, folder) = (Body { size: 0, ..body("pipe") }, body("folder"));
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path(&pipe), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::fs::create_dir(path(&folder)).unwrap();
        for body in [pipe, folder] {
            let (sender, receiver) = std::sync::mpsc::channel();
            let directory = directory.path().to_owned();
            std::thread::spawn(move || sender.send(check(&directory, &body).is_err()));
            assert_eq!(receiver.recv_timeout(std::time::Duration::from_secs(60)), Ok(true));
        }
    }

    #[test]
    fn only_one_records_into_a_directory_and_files_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bodies");
        let bodies = Bodies::create(path.clone()).unwrap();
        assert!(matches!(Bodies::create(path.clone()), Err(RecordError::Busy { .. })));
        let (old, kept) = (body("old"), body("kept"));
        for name in [&old.sha256, &kept.sha256, "notes.txt", &format!("{PARTIAL}x")] {
            std::fs::write(path.join(name), "").unwrap();
        }
        bodies.keep_only(&[&kept].into());
        let mut left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut expected = [kept.sha256.into(), std::ffi::OsString::from("notes.txt")];
        expected.sort();
        assert_eq!(left, expected);
        drop(bodies);
        std::fs::write(path.join(format!("{PARTIAL}x")), "").unwrap();
        drop(Bodies::create(path.clone()).unwrap());
        assert!(!path.join(format!("{PARTIAL}x")).exists() && path.join("notes.txt").exists());
    }
}
