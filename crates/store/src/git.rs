//! Git object ids of canonical trees, as `git hash-object` and `git write-tree` make them (gitformat-loose(5)), except that empty
//! directories are included, as in Nix. Computed from the tree's NAR, which names entries in order and sizes before contents.

use crate::{
    add::dump,
    error::{At, StoreError},
};
use fodder_model::{
    hash::{Hash, HashAlgorithm, Hasher},
    nar::{NarEvent, Reader},
};
use std::{io::BufReader, path::Path};

/// An entry of a tree: what it sorts by, its mode, its name and its id.
type Entry = (Vec<u8>, &'static str, Vec<u8>, Hash);

/// The id of the file, link or directory at `path`.
pub fn object_id(path: &Path, algorithm: HashAlgorithm) -> Result<Hash, StoreError> {
    let (input, output) = std::io::pipe().at("create a pipe for", path)?;
    std::thread::scope(|scope| {
        let dumping = scope.spawn(move || dump(path, output).map(drop));
        let id = from_nar(BufReader::with_capacity(1 << 16, input), path, algorithm);
        // A tree that cannot be read is the better reason than the broken archive that it causes.
        match dumping.join() {
            Ok(Ok(())) => id,
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn from_nar(input: impl std::io::Read, path: &Path, algorithm: HashAlgorithm) -> Result<Hash, StoreError> {
    let mut reader = Reader::new(input);
    let mut trees: Vec<(Vec<u8>, Vec<Entry>)> = Vec::new();
    let mut name = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    let failed = |source| StoreError::Unpack { path: path.to_owned(), source };
    while let Some(event) = reader.next_event().map_err(failed)? {
        let (entry_name, mode, id) = match event {
            NarEvent::Entry(entry) => {
                name = entry.into_vec();
                continue;
            }
            NarEvent::Directory => {
                trees.push((std::mem::take(&mut name), Vec::new()));
                continue;
            }
            NarEvent::EndDirectory => match trees.pop() {
                Some((name, entries)) => (name, "40000", tree_id(entries, algorithm)),
                None => continue,
            },
            NarEvent::File { executable, size } => {
                let mut hasher = header("blob", size, algorithm);
                loop {
                    match reader.contents(&mut chunk).map_err(failed)? {
                        0 => break,
                        count => hasher.update(&chunk[..count]),
                    }
                }
                (std::mem::take(&mut name), if executable { "100755" } else { "100644" }, hasher.finish())
            }
            NarEvent::Symlink(target) => {
                let mut hasher = header("blob", target.len() as u64, algorithm);
                hasher.update(&target);
                (std::mem::take(&mut name), "120000", hasher.finish())
            }
        };
        match trees.last_mut() {
            None => return Ok(id),
            Some((_, entries)) => {
                // A directory sorts as if its name ended in a slash.
                let key = if mode == "40000" { [&entry_name[..], b"/"].concat() } else { entry_name.clone() };
                entries.push((key, mode, entry_name, id));
            }
        }
    }
    Err(StoreError::Changed { path: path.to_owned() })
}

fn header(kind: &str, size: u64, algorithm: HashAlgorithm) -> Hasher {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(format!("{kind} {size}\0").as_bytes());
    hasher
}

fn tree_id(mut entries: Vec<Entry>, algorithm: HashAlgorithm) -> Hash {
    entries.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut body = Vec::new();
    for (_, mode, name, id) in &entries {
        body.extend(mode.as_bytes());
        body.push(b' ');
        body.extend(name);
        body.push(0);
        body.extend(id.digest());
    }
    let mut hasher = header("tree", body.len() as u64, algorithm);
    hasher.update(&body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the reference, section 2: a, b (executable), e/ (empty), s -> x, with "hi\n" as contents.
    #[test]
    fn a_tree_has_the_id_that_nix_gives_it() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree");
        std::fs::create_dir_all(root.join("e")).unwrap();
        std::fs::write(root.join("a"), "hi\n").unwrap();
        std::fs::write(root.join("b"), "hi\n").unwrap();
        std::fs::set_permissions(root.join("b"), PermissionsExt::from_mode(0o755)).unwrap();
        symlink("x", root.join("s")).unwrap();
        let id = object_id(&root, HashAlgorithm::Sha1).unwrap();
        assert_eq!(id.to_base16(), "d4ff5f51f047994c917b3138985f767d1beeb0d0");
    }
}
