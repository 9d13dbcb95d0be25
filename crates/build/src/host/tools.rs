//! Finding tools that the short form names, and how much must be mounted so that each works.

use fodder_model::{bytes::ByteString, host::ToolFacts, sandbox::BindKind, short_form::Tool};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

/// Directories that profiles with host tools show. The host's `/nix/store` is none of them: builds have one of their own.
const SHOWN: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// Where builds look for tools of the machine, whatever the caller's own search path is.
const SEARCH_PATH_INSIDE: [&str; 6] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Programs that stand for others and find them by their own state below the home directory. Each says with `which NAME` what
/// it stands for.
const PROXIES: [&str; 2] = ["rustup", "pyenv"];

/// Directories in which each entry is somebody's home, also of those that `/etc/passwd` does not list.
const PARENTS_OF_HOMES: [&str; 2] = ["/home", "/var/home"];

/// Looks a tool up. `home` is the caller's, as the environment has it.
pub(super) fn find(tool: &Tool, search_path: &ByteString, home: &Path) -> ToolFacts {
    find_among(tool, search_path, || homes(home, &std::fs::read("/etc/passwd").unwrap_or_default()))
}

fn find_among(tool: &Tool, search_path: &ByteString, homes: impl FnOnce() -> BTreeSet<PathBuf>) -> ToolFacts {
    let found = match tool {
        // Whoever wrote the derivation chose this path, so nothing that it leads to may run outside a sandbox.
        Tool::Path(path) => Some(PathBuf::from(path)).filter(|path| is_executable(path)),
        Tool::Command(name) => on_search_path(name, search_path)
            .map(|path| if is_shown(&path) { path } else { behind_proxy(&path, search_path).unwrap_or(path) })
            .or_else(|| {
                SEARCH_PATH_INSIDE
                    .iter()
                    .map(|directory| Path::new(directory).join(name))
                    .find(|path| is_executable(path))
            }),
    };
    let Some(path) = found else {
        return ToolFacts::Absent;
    };
    match path.canonicalize() {
        Ok(_) if is_shown(&path) => ToolFacts::Shown { path: ByteString::from(path.as_path()) },
        Ok(real) if is_below_shown(&real) => linked(&path, &real),
        Ok(real) => elsewhere(&path, &real, &homes()),
        Err(_) => ToolFacts::Absent,
    }
}

fn on_search_path(name: &str, search_path: &ByteString) -> Option<PathBuf> {
    search_path
        .split(|byte| *byte == b':')
        .filter(|directory| directory.starts_with(b"/"))
        .map(|directory| Path::new(OsStr::from_bytes(directory)).join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether a path leads to the same thing inside: it and what it is a link to are shown. `/usr/../root/bin/x` is not.
fn is_shown(path: &Path) -> bool {
    let goes_up = path.components().any(|component| component == Component::ParentDir);
    !goes_up && is_below_shown(path) && path.canonicalize().is_ok_and(|real| is_below_shown(&real))
}

fn is_below_shown(path: &Path) -> bool {
    SHOWN.iter().any(|directory| path.starts_with(directory))
}

/// Everybody's home without symbolic links: the caller's, if it is absolute, and those of `/etc/passwd`.
fn homes(home: &Path, passwd: &[u8]) -> BTreeSet<PathBuf> {
    passwd
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b':').nth(5))
        .map(|directory| Path::new(OsStr::from_bytes(directory)))
        .chain([home])
        .filter(|directory| directory.is_absolute())
        // One that cannot be looked into is a home all the same.
        .map(|directory| directory.canonicalize().unwrap_or_else(|_| directory.to_owned()))
        // Accounts of services have the root directory or one of the system's.
        .filter(|directory| directory.parent().is_some() && !is_below_shown(directory))
        .collect()
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

/// `~/.cargo/bin/cargo` is rustup, and `~/.pyenv/shims/python` is pyenv: both say what they stand for. Only a manager on the
/// caller's search path is asked, which is what runs when the caller types the tool's name.
fn behind_proxy(path: &Path, search_path: &ByteString) -> Option<PathBuf> {
    let (directory, name) = (path.parent()?, path.file_name()?);
    let manager = PROXIES.iter().filter(|manager| name != **manager).find_map(|manager| {
        let program = on_search_path(manager, search_path)?;
        let is_proxy = is_same_file(path, &program) || directory.ends_with(format!(".{manager}/shims"));
        is_proxy.then_some(program)
    })?;
    // From the root directory, so that no toolchain file of the current one changes the answer.
    let output = Command::new(manager)
        .arg("which")
        .arg(name)
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let answer = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
    let answer = PathBuf::from(OsStr::from_bytes(answer));
    (output.status.success() && answer.is_absolute() && is_executable(&answer)).then_some(answer)
}

/// rustup's proxies are symbolic or hard links to it, under changing names (`rustup-init` in Homebrew).
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// A tool in `PREFIX/bin` often needs `PREFIX/lib` and `PREFIX/libexec` beside it, so the prefix is mounted; but never one that
/// holds a person's other things.
fn elsewhere(path: &Path, real: &Path, homes: &BTreeSet<PathBuf>) -> ToolFacts {
    let one_file = || {
        let links = [(file_name(path), ByteString::from(real))].into();
        ToolFacts::Elsewhere { mount: ByteString::from(real), kind: BindKind::File, links }
    };
    // First, because many a package has a `bin` of its own that needs what lies beside it, as pnpm's needs `dist`.
    if let Some(directory) = package_of(real, homes) {
        let links = [(file_name(path), ByteString::from(real))].into();
        return ToolFacts::Elsewhere { mount: ByteString::from(directory.as_path()), kind: BindKind::Directory, links };
    }
    let Some(bin) = ["bin", "sbin"].iter().find_map(|name| real.ancestors().find(|parent| parent.ends_with(name)))
    else {
        return one_file();
    };
    let Some(prefix) = bin.parent().filter(|prefix| may_be_mounted(prefix, homes)) else {
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
        .filter(|program| program.canonicalize().is_ok_and(|real| real.starts_with(prefix) || is_below_shown(&real)))
        .map(|program| (file_name(&program), ByteString::from(program.as_path())))
        .collect();
    links.insert(file_name(path), ByteString::from(real));
    ToolFacts::Elsewhere { mount: ByteString::from(prefix), kind: BindKind::Directory, links }
}

/// A program inside `PREFIX/lib/node_modules/NAME/…`, to which `PREFIX/bin/NAME` is a link, or inside `PROJECT/node_modules/NAME/…`.
/// Packages look for each other in the outermost of such directories; a project's other files are none of a build's business.
fn package_of(real: &Path, homes: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    let modules = real.ancestors().filter(|parent| parent.ends_with("node_modules")).last()?;
    let prefix = modules.parent().filter(|parent| parent.ends_with("lib")).and_then(Path::parent);
    prefix.into_iter().chain([modules]).find(|directory| may_be_mounted(directory, homes)).map(Path::to_owned)
}

/// A prefix is mounted whole only if it lies deep enough not to be a system directory, and is no home, nothing above one, and not
/// the place directly below one where a tool keeps a person's settings and secrets (`~/.cargo` has credentials, `~/.local` has
/// everything). `~/miniconda3` or `~/go` is none of these.
fn may_be_mounted(prefix: &Path, homes: &BTreeSet<PathBuf>) -> bool {
    let Some(parent) = prefix.parent() else {
        return false;
    };
    let is_hidden = prefix.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
    let is_unlisted_home =
        |directory: &Path| PARENTS_OF_HOMES.iter().any(|homes| directory.parent() == Some(homes.as_ref()));
    let is_above_home = homes.iter().any(|home| home.starts_with(prefix))
        || PARENTS_OF_HOMES.iter().any(|homes| Path::new(homes).starts_with(prefix));
    let holds_settings = is_hidden && (homes.contains(parent) || is_unlisted_home(parent));
    prefix.components().count() > 2 && !is_above_home && !is_unlisted_home(prefix) && !holds_settings
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
        mount_with(
            &format!("nobody:x:1:1::/nonexistent:/bin/false\nus:x:1:1::{}:", home.display()),
            Path::new(""),
            tool,
        )
    }

    fn mount_with(passwd: &str, home: &Path, tool: &Path) -> (PathBuf, BindKind, Vec<String>) {
        let tool = Tool::Path(tool.to_str().unwrap().to_owned());
        match find_among(&tool, &ByteString::default(), || homes(home, passwd.as_bytes())) {
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
    fn a_package_of_npm_is_mounted_with_those_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().canonicalize().unwrap();
        for (place, mounted) in [
            ("prefix/lib/node_modules", "prefix"),
            ("project/node_modules", "project/node_modules"),
            (".local/lib/node_modules", ".local/lib/node_modules"),
        ] {
            // Its own `bin` is not a toolchain's, though a `lib` is beside it; nor are the packages within it all of them.
            for package in ["tool", "tool/node_modules/part"] {
                let program_of_package = home.join(place).join(package).join("bin/tool");
                program(&program_of_package);
                std::fs::create_dir(home.join(place).join(package).join("lib")).unwrap();
                let expected = (home.join(mounted), BindKind::Directory, vec!["tool".to_owned()]);
                assert_eq!(mount(&home, &program_of_package), expected, "{place} {package}");
            }
        }
    }

    #[test]
    fn a_tool_of_the_system_needs_no_mount_and_a_missing_one_is_absent() {
        let of = |name: &str| find(&Tool::Command(name.to_owned()), &"/usr/bin:/bin".into(), Path::new("/root"));
        assert!(matches!(of("env"), ToolFacts::Shown { .. }));
        assert_eq!(of("no-such-command-anywhere"), ToolFacts::Absent);
        // What lies beside the file that is built is nobody's tool.
        assert_eq!(on_search_path("run", &"../../.ci:.".into()), None);
        let absolute = std::path::absolute("../../.ci").unwrap();
        assert!(on_search_path("run", &ByteString::from(absolute.as_path())).is_some(), "control");
        assert_eq!(find(&Tool::Path("/etc/passwd".into()), &"".into(), Path::new("/root")), ToolFacts::Absent);
    }

    /// `HOME/.local/bin/tool` with a library beside it, which is never mounted with what else is there.
    fn local_tool(home: &Path) -> PathBuf {
        let tool = home.join(".local/bin/tool");
        program(&tool);
        std::fs::create_dir_all(home.join(".local/lib")).unwrap();
        std::fs::create_dir_all(home.join("lib")).unwrap();
        tool
    }

    #[test]
    fn a_home_is_known_through_a_link_and_for_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let home = directory.join("homes/us");
        let tool = local_tool(&home);
        let link = directory.join("link");
        std::os::unix::fs::symlink(&home, &link).unwrap();
        let alone = |tool: &Path| (tool.to_owned(), BindKind::File, vec!["tool".to_owned()]);
        assert_eq!(mount_with("", &link, &tool), alone(&tool));
        let passwd = format!("them:x:7:7::{}:/bin/sh\nshort:x\n", link.display());
        for home in ["", "relative", ".", "/root"] {
            assert_eq!(mount_with(&passwd, Path::new(home), &tool), alone(&tool), "{home}");
        }
        // Neither the home itself nor what is above it.
        for above in [&home, &directory.join("homes"), &directory] {
            let tool = above.join("bin/tool");
            program(&tool);
            std::fs::create_dir_all(above.join("lib")).unwrap();
            assert_eq!(mount_with(&passwd, Path::new(""), &tool), alone(&tool));
        }
    }

    #[test]
    fn a_home_that_is_no_absolute_path_is_none() {
        for home in ["", ".", "home/us"] {
            assert_eq!(homes(Path::new(home), b"daemon:x:1:1::/:\nbin:x:2:2::/usr/sbin:\nbroken\n"), BTreeSet::new());
        }
        for (prefix, expected) in [
            ("/", false),
            ("/opt", false),
            ("/opt/tool", true),
            ("/home/them", false),
            ("/home/them/.local", false),
            ("/home/them/.nvm/versions/node/v1", true),
            ("/home/them/go", true),
            ("/var/home", false),
            ("/var/home/them/.cargo", false),
            ("/root/.local", true),
        ] {
            assert_eq!(may_be_mounted(Path::new(prefix), &BTreeSet::new()), expected, "{prefix}");
        }
    }

    #[test]
    fn a_path_out_of_the_shown_directories_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let tool = directory.path().canonicalize().unwrap().join("tool");
        program(&tool);
        let (found, kind, _) = mount(Path::new("/root"), Path::new(&format!("/usr/..{}", tool.display())));
        assert_eq!((found, kind), (tool, BindKind::File));
        assert!(!is_below_shown(Path::new("/nix/store/x/bin/tool")));
    }

    /// A derivation names the path, so running what it leads to would be running the derivation outside its sandbox.
    #[test]
    fn looking_up_a_path_runs_nothing() {
        for manager in PROXIES {
            let directory = tempfile::tempdir().unwrap();
            let directory = directory.path().canonicalize().unwrap();
            let shims = directory.join(format!(".{manager}/shims"));
            let marker = directory.join("marker");
            for place in [&directory, &shims] {
                let program_of_manager = place.join(manager);
                program(&program_of_manager);
                std::fs::write(&program_of_manager, format!("#!/bin/sh\n: >{}\necho /bin/sh\n", marker.display()))
                    .unwrap();
                let tool = place.join("tool");
                std::os::unix::fs::symlink(manager, &tool).unwrap();
                let of = |tool: Tool, search_path: &Path| find(&tool, &ByteString::from(search_path), &directory);
                let path = Tool::Path(tool.to_str().unwrap().to_owned());
                // Not even when the manager is on the search path.
                for search_path in [Path::new(""), place] {
                    let ToolFacts::Elsewhere { mount, kind, .. } = of(path.clone(), search_path) else {
                        panic!("not found")
                    };
                    assert_eq!((mount, kind), (ByteString::from(program_of_manager.as_path()), BindKind::File));
                }
                assert!(!marker.exists());
                assert!(matches!(of(Tool::Command("tool".into()), place), ToolFacts::Shown { .. }));
                std::fs::remove_file(&marker).unwrap();
            }
            // A manager beside a command of the search path is not on it.
            let beside = directory.join("links");
            std::fs::create_dir(&beside).unwrap();
            std::os::unix::fs::symlink(directory.join(manager), beside.join("tool")).unwrap();
            find(&Tool::Command("tool".into()), &ByteString::from(beside.as_path()), &directory);
            assert!(!marker.exists());
        }
    }
}
