//! What keeps paths: links and files in `gcroots` and `profiles`, temporary roots, and running processes.
//!
//! As Nix looks (`gc.cc`, `local-gc.cc`), and a little further: a link that leads to an object by its real place,
//! `ROOT/nix/store/…`, holds it as well as one that is spelled `/nix/store/…`, for that is what people make by hand.

use crate::{
    error::{At, StoreError},
    store::Store,
    temporary_roots,
};
use fodder_model::store_path::{STORE_DIRECTORY, StorePath};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt,
    io::ErrorKind,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

/// A reason to keep a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// Who holds it.
    pub holder: RootHolder,
    /// What is held, with all that it refers to.
    pub path: StorePath,
}

/// Who holds a path. Displays as `nix-store --gc --print-roots` prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootHolder {
    /// A link, or a file with the base name of a path.
    Link(PathBuf),
    /// A process uses the path: the file in `/proc` that says so.
    Process(PathBuf),
    /// A process that works on the store, by the name of its file in `temproots`, which begins with its number.
    Temporary(String),
}

impl fmt::Display for RootHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootHolder::Link(path) | RootHolder::Process(path) => write!(formatter, "{}", path.display()),
            RootHolder::Temporary(name) => write!(formatter, "{{temp:{name}}}"),
        }
    }
}

/// Whether to remove what was found to hold nothing any more: links to nowhere in `gcroots/auto`, files in `temproots`
/// whose process has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    Keep,
    Remove,
}

impl Store {
    /// Everything that keeps a path, valid or (for temporary roots) not yet. Changes nothing.
    pub fn find_roots(&self) -> Result<BTreeSet<Root>, StoreError> {
        let mut roots = self.permanent_roots(Stale::Keep)?;
        roots.extend(temporary_roots::read_all(self, Stale::Keep)?);
        Ok(roots)
    }

    /// Those that are not temporary.
    pub(crate) fn permanent_roots(&self, stale: Stale) -> Result<BTreeSet<Root>, StoreError> {
        let mut found = BTreeSet::new();
        for directory in ["gcroots", "profiles"] {
            self.roots_below(&self.state().child(directory), stale, &mut found)?;
        }
        self.runtime_roots(&mut found);
        let mut roots = BTreeSet::new();
        for root in found {
            if self.is_own(&root.path)? {
                roots.insert(root);
            }
        }
        Ok(roots)
    }

    fn roots_below(&self, top: &Path, stale: Stale, found: &mut BTreeSet<Root>) -> Result<(), StoreError> {
        let automatic = self.state().child("gcroots").join("auto");
        let mut pending = vec![top.to_owned()];
        while let Some(path) = pending.pop() {
            let Some(status) = readable(path.symlink_metadata()).at("examine", &path)? else { continue };
            let mut hold = |holder: &Path, path: Option<StorePath>| {
                found.extend(path.map(|path| Root { holder: RootHolder::Link(holder.to_owned()), path }));
            };
            if status.is_dir() {
                let Some(entries) = readable(std::fs::read_dir(&path)).at("list", &path)? else { continue };
                for entry in entries {
                    pending.push(entry.at("list", &path)?.path());
                }
            } else if status.is_file() {
                let name = path.file_name().and_then(OsStr::to_str);
                hold(&path, name.and_then(|name| StorePath::from_base_name(name).ok()));
            } else if status.is_symlink() {
                let Some(target) = readable(std::fs::read_link(&path)).at("read the link", &path)? else { continue };
                if let Some(held) = self.object_of(&target) {
                    hold(&path, Some(held));
                    continue;
                }
                let target = path.parent().unwrap_or(top).join(target);
                match target.symlink_metadata() {
                    Ok(status) if status.is_symlink() => {
                        let further = readable(std::fs::read_link(&target)).at("read the link", &target)?;
                        hold(
                            &target,
                            further.and_then(|further| self.object_of(&further)).or_else(|| self.leads_to(&target)),
                        );
                    }
                    Ok(_) => hold(&path, self.leads_to(&target)),
                    Err(error) if is_gone(&error) && stale == Stale::Remove && path.starts_with(&automatic) => {
                        std::fs::remove_file(&path).at("remove the stale root", &path)?;
                    }
                    // Not there, or not to be seen: nothing that Nix would take for a root.
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// The object that a spelled path lies in.
    fn object_of(&self, path: &Path) -> Option<StorePath> {
        let rest = path.strip_prefix(STORE_DIRECTORY).or_else(|_| path.strip_prefix(self.objects().path())).ok()?;
        match rest.components().next()? {
            Component::Normal(name) => StorePath::from_base_name(name.to_str()?).ok(),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
        }
    }

    /// The object that a path leads to, through whatever links.
    fn leads_to(&self, path: &Path) -> Option<StorePath> {
        self.object_of(&path.canonicalize().ok()?)
    }

    /// What processes run, work in, have open or mapped, or name in their environment. What we may not look at, nobody
    /// told us about.
    fn runtime_roots(&self, found: &mut BTreeSet<Root>) {
        let mut hold = |holder: PathBuf, path| {
            found.insert(Root { holder: RootHolder::Process(holder), path });
        };
        let names = |directory: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        for process in names(Path::new("/proc")) {
            let number = process.file_name().unwrap_or_default();
            if !number.as_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            for link in [process.join("exe"), process.join("cwd")].into_iter().chain(names(&process.join("fd"))) {
                if let Some(path) = std::fs::read_link(&link).ok().and_then(|target| self.object_of(&target)) {
                    hold(link, path);
                }
            }
            for file in ["maps", "environ"] {
                let file = process.join(file);
                for path in self.mentioned_in(&std::fs::read(&file).unwrap_or_default()) {
                    hold(file.clone(), path);
                }
            }
        }
        for name in ["modprobe", "fbsplash", "poweroff_cmd"] {
            let file = Path::new("/proc/sys/kernel").join(name);
            for path in self.mentioned_in(&std::fs::read(&file).unwrap_or_default()) {
                hold(file.clone(), path);
            }
        }
    }

    /// The objects whose path, logical or real, occurs in a text.
    fn mentioned_in(&self, text: &[u8]) -> BTreeSet<StorePath> {
        let mut found = BTreeSet::new();
        for prefix in [STORE_DIRECTORY.as_bytes(), self.objects().path().as_os_str().as_bytes()] {
            let mut rest = text;
            while let Some(start) = rest.windows(prefix.len()).position(|window| window == prefix) {
                rest = &rest[start + prefix.len()..];
                let Some((b'/', name)) = rest.split_first() else { continue };
                let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
                let length = name.iter().take_while(is_part).count();
                found.extend(
                    std::str::from_utf8(&name[..length]).ok().and_then(|name| StorePath::from_base_name(name).ok()),
                );
            }
        }
        found
    }
}

/// What has gone or may not be read is no root, as for Nix.
fn readable<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) || error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
