//! Finding tools that the short form names, and how much must be mounted so that each works.

use fodder_model::{bytes::ByteString, host::ToolFacts, sandbox::BindKind, short_form::Tool};
use std::{
    collections::BTreeMap,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Directories that profiles with host tools show.
const SHOWN: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"];

/// Programs that stand for others and find them by their own state below the home directory.
const PROXIES: [(&str, &[&str]); 2] = [("rustup", &["which"]), ("pyenv", &["which"])];

/// Looks a tool up.
pub(super) fn find(tool: &Tool, search_path: &ByteString, home: &Path) -> ToolFacts {
    let found = match tool {
        Tool::Path(path) => Some(PathBuf::from(path)).filter(|path| is_executable(path)),
        Tool::Command(name) => search_path
            .split(|byte| *byte == b':')
            .filter(|directory| directory.starts_with(b"/"))
            .map(|directory| Path::new(std::ffi::OsStr::from_bytes(directory)).join(name))
            .find(|path| is_executable(path)),
    };
    match found {
        None => ToolFacts::Absent,
        Some(path) if is_shown(&path) => ToolFacts::Shown { path: ByteString::from(path.as_path()) },
        Some(path) => {
            let path = behind_proxy(&path).unwrap_or(path);
            match path.canonicalize() {
                Ok(real) if is_shown(&real) => linked(&path, &real),
                Ok(real) => elsewhere(&path, &real, home),
                Err(_) => ToolFacts::Absent,
            }
        }
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn is_shown(path: &Path) -> bool {
    SHOWN.iter().any(|directory| path.starts_with(directory))
}

/// A link from elsewhere to something that is shown: only the name is missing inside. Mounted under its own name, as one file,
/// because the planner knows nothing smaller.
fn linked(path: &Path, real: &Path) -> ToolFacts {
    let links = [(file_name(path), ByteString::from(real))].into();
    ToolFacts::Elsewhere { mount: ByteString::from(real), kind: BindKind::File, links }
}

fn file_name(path: &Path) -> ByteString {
    ByteString::from(path.file_name().unwrap_or_default().as_bytes())
}

/// `~/.cargo/bin/cargo` is rustup, and `~/.pyenv/shims/python` is pyenv: both say what they stand for.
fn behind_proxy(path: &Path) -> Option<PathBuf> {
    let directory = path.parent()?;
    let name = path.file_name()?;
    PROXIES.iter().find_map(|(manager, arguments)| {
        let real_name = path.canonicalize().ok()?.file_name()?.to_owned();
        let is_proxy = real_name == **manager || directory.ends_with(format!(".{manager}/shims"));
        if !is_proxy || name == *manager {
            return None;
        }
        let beside = directory.join(manager);
        let program = if is_executable(&beside) { beside } else { PathBuf::from(manager) };
        // From the root directory, so that no toolchain file of the current one changes the answer.
        let output = Command::new(program)
            .args(*arguments)
            .arg(name)
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let answer = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
        let answer = PathBuf::from(std::ffi::OsStr::from_bytes(answer));
        (output.status.success() && is_executable(&answer)).then_some(answer)
    })
}

/// A tool in `PREFIX/bin` often needs `PREFIX/lib` and `PREFIX/libexec` beside it, so the prefix is mounted; but never one that
/// holds a person's other things.
fn elsewhere(path: &Path, real: &Path, home: &Path) -> ToolFacts {
    let one_file = || {
        let links = [(file_name(path), ByteString::from(real))].into();
        ToolFacts::Elsewhere { mount: ByteString::from(real), kind: BindKind::File, links }
    };
    let Some(bin) = ["bin", "sbin"].iter().find_map(|name| real.ancestors().find(|parent| parent.ends_with(name)))
    else {
        return match package_of(real, home) {
            Some(prefix) => {
                let links = [(file_name(path), ByteString::from(real))].into();
                ToolFacts::Elsewhere { mount: ByteString::from(prefix.as_path()), kind: BindKind::Directory, links }
            }
            None => one_file(),
        };
    };
    let Some(prefix) = bin.parent().filter(|prefix| may_be_mounted(prefix, home)) else {
        return one_file();
    };
    let has_libraries = ["lib", "lib64", "libexec", "share", "include"].iter().any(|name| prefix.join(name).is_dir());
    if !has_libraries {
        return one_file();
    }
    // The whole of a toolchain's programs: cargo looks for rustc on the search path, npm for node.
    let mut links: BTreeMap<ByteString, ByteString> = std::fs::read_dir(bin)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|program| is_executable(program))
        // A virtual environment's `python` leads out of it, to a place that is perhaps not shown.
        .filter(|program| program.canonicalize().is_ok_and(|real| real.starts_with(prefix) || is_shown(&real)))
        .map(|program| (file_name(&program), ByteString::from(program.as_path())))
        .collect();
    links.insert(file_name(path), ByteString::from(real));
    ToolFacts::Elsewhere { mount: ByteString::from(prefix), kind: BindKind::Directory, links }
}

/// A program inside `PREFIX/lib/node_modules/NAME/…`, to which `PREFIX/bin/NAME` is a link.
fn package_of(real: &Path, home: &Path) -> Option<PathBuf> {
    let modules = real.ancestors().find(|parent| parent.ends_with("lib/node_modules"))?;
    let prefix = modules.parent()?.parent()?;
    Some(if may_be_mounted(prefix, home) { prefix.to_owned() } else { modules.to_owned() })
}

/// A prefix is mounted whole only if it lies deep enough not to be a home, a system directory, or the place where a tool keeps
/// a person's settings and secrets (`~/.cargo` has credentials, `~/.local` has everything). `~/miniconda3` or `~/go` is none of these.
fn may_be_mounted(prefix: &Path, home: &Path) -> bool {
    let depth = prefix.components().count();
    match prefix.strip_prefix(home) {
        Ok(below_home) => {
            let is_hidden = below_home.as_os_str().as_bytes().starts_with(b".");
            below_home.components().count() >= if is_hidden { 2 } else { 1 }
        }
        Err(_) => depth > 2 && prefix.parent() != Some(Path::new("/home")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn mount(home: &Path, tool: &Path) -> (PathBuf, BindKind, Vec<String>) {
        match find(&Tool::Path(tool.to_str().unwrap().to_owned()), &ByteString::default(), home) {
            ToolFacts::Elsewhere { mount, kind, links } => {
                (mount.as_path().to_owned(), kind, links.keys().map(ToString::to_string).collect())
            }
            other @ (ToolFacts::Absent | ToolFacts::Shown { .. }) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_toolchain_is_mounted_whole_and_a_home_never_is() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().canonicalize().unwrap();
        let toolchain = home.join(".rustup/toolchains/stable");
        program(&toolchain.join("bin/cargo"));
        program(&toolchain.join("bin/rustc"));
        std::fs::create_dir(toolchain.join("lib")).unwrap();
        program(&home.join("elsewhere/bin/python"));
        std::os::unix::fs::symlink(home.join("elsewhere/bin/python"), toolchain.join("bin/python")).unwrap();
        let (found, kind, links) = mount(&home, &toolchain.join("bin/cargo"));
        assert_eq!((found, kind), (toolchain, BindKind::Directory));
        assert_eq!(links, ["cargo", "rustc"]);
        let miniconda = home.join("miniconda3");
        program(&miniconda.join("bin/tool"));
        std::fs::create_dir(miniconda.join("lib")).unwrap();
        assert_eq!(mount(&home, &miniconda.join("bin/tool")).0, miniconda);
        for secret in [".local", ".cargo", ""] {
            let tool = home.join(secret).join("bin/tool");
            program(&tool);
            std::fs::create_dir_all(home.join(secret).join("lib")).unwrap();
            assert_eq!(mount(&home, &tool), (tool.clone(), BindKind::File, vec!["tool".to_owned()]), "{secret}");
        }
    }

    #[test]
    fn a_tool_of_the_system_needs_no_mount_and_a_missing_one_is_absent() {
        let of = |name: &str| find(&Tool::Command(name.to_owned()), &"/usr/bin:/bin".into(), Path::new("/root"));
        assert!(matches!(of("env"), ToolFacts::Shown { .. }));
        assert_eq!(of("no-such-command-anywhere"), ToolFacts::Absent);
        assert_eq!(find(&Tool::Path("/etc/passwd".into()), &"".into(), Path::new("/root")), ToolFacts::Absent);
    }
}
