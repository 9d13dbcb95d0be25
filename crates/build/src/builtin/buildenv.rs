//! `builtin:buildenv`: a tree of links to what several packages hold (reference, section 6.3).

use super::{Attributes, failed, say};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// What packages have for themselves: paths that end in one of these are left out.
const LEFT_OUT: [&str; 7] = [
    "/propagated-build-inputs",
    "/nix-support",
    "/perllocal.pod",
    "/info/dir",
    "/log",
    "/manifest.nix",
    "/manifest.json",
];

/// Priority of the first package that another one brought with it; each further one comes after.
const FIRST_PROPAGATED: i64 = 1000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    /// Smaller is stronger.
    priority: i64,
    path: PathBuf,
}

pub(super) fn run(attributes: &Attributes<'_>) -> Result<(), String> {
    let out = attributes.required("out")?.as_path();
    let mut packages = packages(attributes.required("derivations")?)?;
    let manifest = attributes.required("manifest")?.as_path();
    fs::create_dir_all(out).map_err(failed("create", out))?;
    packages.sort();
    let mut farm = Farm::default();
    for Package { priority, path } in packages {
        farm.add(&path, out, priority)?;
    }
    let mut priority = FIRST_PROPAGATED;
    while !farm.postponed.is_empty() {
        for path in std::mem::take(&mut farm.postponed) {
            farm.add(&path, out, priority)?;
            priority += 1;
        }
    }
    let link = out.join("manifest.nix");
    std::os::unix::fs::symlink(manifest, &link).map_err(failed("create the link", &link))
}

/// Reads groups of `active priority count path…`; those that are not active are left out.
fn packages(text: &[u8]) -> Result<Vec<Package>, String> {
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut packages = Vec::new();
    while let Some(active) = words.next() {
        let mut number = |what: &str| -> Result<i64, String> {
            let word = words.next().unwrap_or_default();
            let text = String::from_utf8_lossy(word);
            text.parse().map_err(|_| format!("attribute 'derivations': '{text}' is not a {what}"))
        };
        let (priority, count) = (number("priority")?, number("number of paths")?);
        for _ in 0..count {
            let path = words.next().ok_or("attribute 'derivations' ends before its last path")?;
            if active != b"false" {
                packages.push(Package { priority, path: OsStr::from_bytes(path).into() });
            }
        }
    }
    Ok(packages)
}

#[derive(Default)]
struct Farm {
    /// Of every link that was made.
    priorities: BTreeMap<PathBuf, i64>,
    done: BTreeSet<PathBuf>,
    postponed: BTreeSet<PathBuf>,
}

impl Farm {
    fn add(&mut self, package: &Path, out: &Path, priority: i64) -> Result<(), String> {
        if !self.done.insert(package.to_owned()) {
            return Ok(());
        }
        self.link(package, out, priority)?;
        let list = package.join("nix-support/propagated-user-env-packages");
        match fs::read(&list) {
            Ok(text) => {
                let paths = text.split(|byte| matches!(byte, b' ' | b'\n')).filter(|path| !path.is_empty());
                let paths = paths.map(|path| PathBuf::from(OsStr::from_bytes(path)));
                self.postponed.extend(paths.filter(|path| !self.done.contains(path)));
                Ok(())
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed("read", &list)(error)),
        }
    }

    /// Puts links to everything in `source` into `target`. As deep as the trees have directories in common: a store object is at
    /// most 64 deep.
    fn link(&mut self, source: &Path, target: &Path, priority: i64) -> Result<(), String> {
        let entries = match fs::read_dir(source) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                let shown = source.display();
                say(&format!(
                    "warning: not including \"{shown}\" in the user environment because it's not a directory"
                ));
                return Ok(());
            }
            Err(error) => return Err(failed("list", source)(error)),
        };
        let mut names: Vec<OsString> = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()
            .map_err(failed("list", source))?;
        names.sort();
        for name in names.iter().filter(|name| !name.as_bytes().starts_with(b".")) {
            let (source, target) = (source.join(name), target.join(name));
            let metadata = match fs::metadata(&source) {
                Ok(metadata) => metadata,
                Err(error) if is_absent(&error) => {
                    say(&format!("warning: skipping dangling symlink '{}'", target.display()));
                    continue;
                }
                Err(error) => return Err(failed("examine", &source)(error)),
            };
            let is_left_out = LEFT_OUT.iter().any(|end| source.as_os_str().as_bytes().ends_with(end.as_bytes()));
            if !is_left_out {
                self.entry(&source, &target, metadata.is_dir(), priority)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, source: &Path, target: &Path, is_directory: bool, priority: i64) -> Result<(), String> {
        let present = match fs::symlink_metadata(target) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed("examine", target)(error)),
        };
        match (present.map(Present::of), is_directory) {
            (None, _) => {}
            (Some(Present::Directory), true) => return self.link(source, target, priority),
            (Some(Present::Link), true) => return self.merge(source, target, priority),
            (Some(Present::Directory), false) => {
                let (source, target) = (source.display(), target.display());
                return Err(format!("collision between non-directory \"{source}\" and directory \"{target}\""));
            }
            (Some(Present::Link), false) => {
                let previous = self.priorities.get(target).copied().unwrap_or_default();
                if previous == priority {
                    let other = fs::read_link(target).map_err(failed("read the link", target))?;
                    return Err(format!(
                        "Unable to build profile. There is a conflict for the following files:\n\n  \"{}\"\n  \"{}\"",
                        other.display(),
                        source.display()
                    ));
                }
                if previous < priority {
                    return Ok(());
                }
                fs::remove_file(target).map_err(failed("remove", target))?;
            }
            (Some(Present::Other), _) => return Err(format!("'{}' is in the way", target.display())),
        }
        std::os::unix::fs::symlink(source, target).map_err(failed("create the link", target))?;
        self.priorities.insert(target.to_owned(), priority);
        Ok(())
    }

    /// A link to a directory becomes a directory with the contents of both.
    fn merge(&mut self, source: &Path, target: &Path, priority: i64) -> Result<(), String> {
        let linked = fs::canonicalize(target).map_err(failed("resolve", target))?;
        if !linked.is_dir() {
            let (source, linked) = (source.display(), linked.display());
            return Err(format!("collision between \"{source}\" and non-directory \"{linked}\""));
        }
        let previous = self.priorities.get(target).copied().unwrap_or_default();
        fs::remove_file(target).map_err(failed("remove", target))?;
        fs::create_dir(target).map_err(failed("create", target))?;
        self.link(&linked, target, previous)?;
        self.link(source, target, priority)
    }
}

/// What is where a link should go.
enum Present {
    Directory,
    Link,
    Other,
}

impl Present {
    fn of(metadata: Metadata) -> Self {
        match metadata.file_type() {
            kind if kind.is_dir() => Present::Directory,
            kind if kind.is_symlink() => Present::Link,
            _ => Present::Other,
        }
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
