//! Git object ids: blobs and trees, as `git hash-object` and `git write-tree` make them (gitformat-loose(5)), except that empty
//! directories are included, as in Nix.

use super::{InspectError, entries, error_of, system};
use fodder_model::hash::{Hash, HashAlgorithm, Hasher};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// A directory whose entries are being hashed.
struct Tree {
    directory: OwnedFd,
    path: PathBuf,
    open: Vec<(CString, FileType)>,
    /// Sort key, mode, name, id.
    done: Vec<(Vec<u8>, &'static str, CString, Hash)>,
}

enum Node {
    Finished(&'static str, Hash),
    Directory(Tree),
}

/// Hashes the canonical tree at `name` in `directory`.
pub(super) fn object_id(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    shown: &Path,
    algorithm: HashAlgorithm,
) -> Result<Hash, InspectError> {
    let name = CString::new(name.as_bytes()).map_err(|_| InspectError::Missing { path: shown.to_owned() })?;
    let mut trees = match node(directory, &name, shown.to_owned(), algorithm)? {
        Node::Finished(_, id) => return Ok(id),
        Node::Directory(tree) => vec![(name, tree)],
    };
    loop {
        let Some((_, tree)) = trees.last_mut() else {
            return Err(error_of("hash", shown, std::io::Error::other("the walk lost its way")));
        };
        if let Some((name, _)) = tree.open.pop() {
            let path = tree.path.join(OsStr::from_bytes(name.to_bytes()));
            match node(tree.directory.as_fd(), &name, path, algorithm)? {
                Node::Finished(mode, id) => tree.done.push((name.to_bytes().to_vec(), mode, name, id)),
                Node::Directory(child) => trees.push((name, child)),
            }
        } else if let Some((name, tree)) = trees.pop() {
            let id = tree_id(tree, algorithm);
            match trees.last_mut() {
                None => return Ok(id),
                Some((_, parent)) => {
                    // A directory sorts as if its name ended in a slash.
                    let key = [name.to_bytes(), b"/"].concat();
                    parent.done.push((key, "40000", name, id));
                }
            }
        }
    }
}

fn node(parent: BorrowedFd<'_>, name: &CString, path: PathBuf, algorithm: HashAlgorithm) -> Result<Node, InspectError> {
    let status =
        rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| system("examine", &path, error))?;
    let open = |flags: OFlags| {
        rustix::fs::openat(parent, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| system("open", &path, error))
    };
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            let directory = open(OFlags::DIRECTORY)?;
            let entries = entries(&directory, &path)?;
            Ok(Node::Directory(Tree { directory, path, open: entries, done: Vec::new() }))
        }
        FileType::RegularFile => {
            let mut file = File::from(open(OFlags::empty())?);
            let mut hasher = header("blob", u64::try_from(status.st_size).unwrap_or_default(), algorithm);
            let mut chunk = vec![0; super::CHUNK_SIZE];
            loop {
                match file.read(&mut chunk).map_err(|error| error_of("read", &path, error))? {
                    0 => break,
                    count => hasher.update(&chunk[..count]),
                }
            }
            Ok(Node::Finished(if status.st_mode & 0o100 != 0 { "100755" } else { "100644" }, hasher.finish()))
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())
                .map_err(|error| system("read the link", &path, error))?;
            let mut hasher = header("blob", target.to_bytes().len() as u64, algorithm);
            hasher.update(target.to_bytes());
            Ok(Node::Finished("120000", hasher.finish()))
        }
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            Err(InspectError::UnsupportedType { path })
        }
    }
}

fn header(kind: &str, size: u64, algorithm: HashAlgorithm) -> Hasher {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(format!("{kind} {size}\0").as_bytes());
    hasher
}

fn tree_id(mut tree: Tree, algorithm: HashAlgorithm) -> Hash {
    tree.done.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut body = Vec::new();
    for (_, mode, name, id) in &tree.done {
        body.extend(mode.as_bytes());
        body.push(b' ');
        body.extend(name.to_bytes_with_nul());
        body.extend(id.digest());
    }
    let mut hasher = header("tree", body.len() as u64, algorithm);
    hasher.update(&body);
    hasher.finish()
}
