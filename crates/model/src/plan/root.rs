//! The root file system's part of a plan: from the profile, the inputs and the person's wishes to an ordered list of steps.

use super::{ExtraPath, NetworkMode, PlanError, ScratchPaths};
use crate::{
    bytes::ByteString,
    environment::BUILD_DIRECTORY,
    host::{HostFacts, HostFile, ToolFacts},
    profile::{Entry, Item, Profile, Source, When},
    reference_graph::{Input, InputShape},
    sandbox::{Access, BindKind, RootStep},
    short_form::Tool,
    store_path::StorePath,
};
use std::collections::{BTreeMap, BTreeSet};

/// Where links to tools from elsewhere are.
const TOOL_DIRECTORY: &str = "/fodder/bin";

/// Commands that the setup script makes itself where the machine has none.
const PROVIDED: [&str; 2] = ["remove-references-to", "sponge"];

pub(super) struct Root<'a> {
    pub(super) inputs: &'a BTreeMap<StorePath, Input>,
    pub(super) outputs: &'a BTreeMap<String, StorePath>,
    pub(super) host: &'a HostFacts,
    pub(super) profile: &'a Profile,
    pub(super) extra_paths: &'a [ExtraPath],
    pub(super) own_paths: &'a [ExtraPath],
    pub(super) tools: &'a [Tool],
    pub(super) scratch: &'a ScratchPaths,
    pub(super) files: &'a BTreeMap<String, ByteString>,
    pub(super) network: NetworkMode,
}

#[derive(Default)]
pub(super) struct Steps {
    pub(super) steps: Vec<RootStep>,
    pub(super) reasons: BTreeMap<String, String>,
    /// Paths that exist inside by an earlier step, so that parents are made once.
    made: BTreeSet<String>,
    /// Directories whose contents are the host's and cannot be added to.
    closed: BTreeSet<String>,
}

impl Root<'_> {
    pub(super) fn steps(&self, notes: &mut Vec<String>) -> Result<Steps, PlanError> {
        let mut steps = Steps::default();
        let top = RootStep::Mode { path: "/".into(), mode: 0o750 };
        steps.push("/", "an empty root of its own, closed to writing at the end", top);
        for entry in &self.profile.entries {
            let applies = match entry.when {
                When::Always => true,
                When::Network => self.network != NetworkMode::None,
                When::NoNetwork => self.network == NetworkMode::None,
                When::Gateway => self.network == NetworkMode::Gateway,
                When::HostNetwork => self.network == NetworkMode::Host,
            };
            let is_overridden = self.extra_paths.iter().any(|extra| extra.target == entry.path());
            if applies && !is_overridden {
                self.entry(entry, &mut steps, notes)?;
            }
        }
        self.inputs(&mut steps);
        self.extra_paths(self.extra_paths, "you asked for it with --allow-path", &mut steps)?;
        let why = "the bundle of an input, with the authority of the recording as well";
        self.extra_paths(self.own_paths, why, &mut steps)?;
        self.tools(&mut steps, notes);
        for (name, content) in self.files {
            let path = format!("{BUILD_DIRECTORY}/{name}");
            let step = RootStep::File { path: path.as_str().into(), mode: 0o644, content: content.clone() };
            steps.push(&path, "an attribute that the derivation passes as a file", step);
        }
        steps.steps.push(RootStep::Mode { path: "/etc".into(), mode: 0o555 });
        steps.steps.push(RootStep::Mode { path: "/".into(), mode: 0o750 });
        steps.steps.push(RootStep::ReadOnly { path: "/".into() });
        Ok(steps)
    }

    fn entry(&self, entry: &Entry, steps: &mut Steps, notes: &mut Vec<String>) -> Result<(), PlanError> {
        let target = entry.path();
        let path = ByteString::from(target);
        let step = match &entry.item {
            Item::Directory { path: _, mode } => RootStep::Directory { path, mode: *mode },
            Item::File { path: _, content } => {
                // The texts begin on the line after the quotes, for the reader's sake; TOML drops that newline.
                RootStep::File { path, mode: 0o644, content: content.as_str().into() }
            }
            Item::Symlink { path: _, target } => RootStep::Symlink { path, target: target.as_str().into() },
            Item::Tmpfs { path: _, mode, size } => RootStep::Tmpfs { path, mode: *mode, size: size.clone() },
            Item::Proc { path: _ } => RootStep::Proc { path },
            Item::Pts { path: _ } => RootStep::Pts { path },
            Item::Bind { path: _, source, access, device } => {
                let found = match source {
                    Source::Build => Some((self.scratch.build.clone(), BindKind::Directory)),
                    Source::Temporary => Some((self.scratch.temporary.clone(), BindKind::Directory)),
                    Source::Store => Some((self.scratch.store.clone(), BindKind::Directory)),
                    Source::Shell => self.host.shell.clone().map(|shell| (shell, BindKind::File)),
                    Source::Certificates => {
                        Some((self.host.certificates.clone().ok_or(PlanError::NoCertificates)?.path, BindKind::File))
                    }
                    Source::Host(host_path) => {
                        let host_path = ByteString::from(host_path.as_str());
                        let expected = if *device { BindKind::Device } else { BindKind::File };
                        self.host_file(&host_path)
                            .resolve(&host_path)
                            .filter(|(_, kind)| *kind == expected || (!device && *kind == BindKind::Directory))
                    }
                };
                match found {
                    Some((source, kind)) => RootStep::Bind { source, target: path, kind, access: *access },
                    None if entry.optional => {
                        if *source == Source::Shell {
                            notes.push(format!(
                                "no static shell was found on this machine, so there is no {target} (install busybox-static, or name one: --allow-path {target}=/path/to/static/shell)"
                            ));
                        }
                        return Ok(());
                    }
                    None => {
                        let source = match source {
                            Source::Host(host_path) => host_path.as_str().into(),
                            Source::Build
                            | Source::Temporary
                            | Source::Store
                            | Source::Shell
                            | Source::Certificates => path,
                        };
                        return Err(PlanError::HostFile { path: source, target: target.to_owned() });
                    }
                }
            }
            Item::Mirror { path: _ } => match self.host_file(&path) {
                HostFile::Symlink { target, resolved: _ } => RootStep::Symlink { path, target },
                HostFile::Present(kind) => {
                    RootStep::Bind { source: path.clone(), target: path, kind, access: Access::ReadOnly }
                }
                HostFile::Absent if entry.optional => return Ok(()),
                HostFile::Absent => return Err(PlanError::HostFile { path, target: target.to_owned() }),
            },
        };
        steps.parents(target);
        steps.push(target, &entry.why, step);
        Ok(())
    }

    fn host_file(&self, path: &ByteString) -> HostFile {
        self.host.files.get(path).cloned().unwrap_or(HostFile::Absent)
    }

    fn inputs(&self, steps: &mut Steps) {
        for (path, input) in self.inputs {
            // An output of this derivation that an input refers to must not stand in the builder's way.
            if self.outputs.values().any(|output| output == path) {
                continue;
            }
            let target = path.to_string();
            let step = match &input.shape {
                InputShape::Symlink(link) => RootStep::Symlink { path: target.as_str().into(), target: link.clone() },
                InputShape::Mountable(kind) => RootStep::Bind {
                    source: input.real_path.clone(),
                    target: target.as_str().into(),
                    kind: *kind,
                    access: Access::ReadOnly,
                },
            };
            steps.push(&target, "an input, or something that an input refers to", step);
        }
    }

    fn extra_paths(&self, paths: &[ExtraPath], why: &str, steps: &mut Steps) -> Result<(), PlanError> {
        for ExtraPath { target, source, optional } in paths {
            match self.host_file(source).resolve(source) {
                Some((source, kind)) => {
                    steps.parents(target);
                    let step =
                        RootStep::Bind { source, target: target.as_str().into(), kind, access: Access::ReadOnly };
                    steps.push(target, why, step);
                }
                None if *optional => {}
                None => return Err(PlanError::HostFile { path: source.clone(), target: target.clone() }),
            }
        }
        Ok(())
    }

    /// Tools from outside the profile keep their place, because many find their libraries by it, and get a link on the search
    /// path.
    fn tools(&self, steps: &mut Steps, notes: &mut Vec<String>) {
        for tool in self.tools {
            match self.host.tools.get(tool) {
                None | Some(ToolFacts::Shown { path: _ }) => {}
                Some(ToolFacts::Absent) => match tool {
                    Tool::Path(path) => {
                        notes.push(format!("'{path}' of nativeBuildInputs is not an executable file on this machine"));
                    }
                    Tool::Command(name) if PROVIDED.contains(&name.as_str()) => {}
                    Tool::Command(name) => {
                        notes.push(format!("'{name}' of nativeBuildInputs was not found on this machine's PATH"));
                    }
                },
                // A mount there would lie in the store of the build, where only its inputs and outputs may be.
                Some(ToolFacts::Elsewhere { mount, kind: _, links: _ })
                    if mount.as_path().starts_with(crate::store_path::STORE_DIRECTORY) =>
                {
                    let (Tool::Command(name) | Tool::Path(name)) = tool;
                    notes.push(format!(
                        "'{name}' of nativeBuildInputs is {mount} in the host's /nix/store, which short forms cannot use by name: give the store path instead, if it is in the store that the build uses"
                    ));
                }
                Some(ToolFacts::Elsewhere { mount, kind, links }) => {
                    let target = mount.to_string();
                    // A tool keeps its place, so what lies in a directory of the host's is there.
                    if !steps.is_closed(&target) && steps.made.insert(target.clone()) {
                        steps.parents(&target);
                        let step = RootStep::Bind {
                            source: mount.clone(),
                            target: mount.clone(),
                            kind: *kind,
                            access: Access::ReadOnly,
                        };
                        let name = match tool {
                            Tool::Command(name) | Tool::Path(name) => name,
                        };
                        steps.push(&target, &format!("nativeBuildInputs asks for '{name}'"), step);
                    }
                    for (name, link_target) in links {
                        let link = format!("{TOOL_DIRECTORY}/{name}");
                        if steps.made.insert(link.clone()) {
                            steps.parents(&link);
                            let step = RootStep::Symlink { path: link.as_str().into(), target: link_target.clone() };
                            steps.push(&link, "a tool from outside the system directories", step);
                        }
                    }
                }
            }
        }
    }
}

impl Steps {
    fn push(&mut self, path: &str, why: &str, step: RootStep) {
        self.made.insert(path.to_owned());
        match &step {
            RootStep::Bind { source: _, target: _, kind: BindKind::Directory, access: Access::ReadOnly } => {
                self.closed.insert(path.to_owned());
            }
            RootStep::Bind { .. }
            | RootStep::Tmpfs { .. }
            | RootStep::Directory { .. }
            | RootStep::File { .. }
            | RootStep::Symlink { .. }
            | RootStep::Proc { .. }
            | RootStep::Pts { .. }
            | RootStep::Mode { .. }
            | RootStep::ReadOnly { .. } => {}
        }
        self.reasons.insert(path.to_owned(), why.to_owned());
        self.steps.push(step);
    }

    /// Whether a path lies in a directory of the host's, where nothing can be made and what is there is seen already.
    fn is_closed(&self, path: &str) -> bool {
        let mut parent = path;
        while let Some((rest, _)) = parent.rsplit_once('/') {
            if self.closed.contains(rest) {
                return true;
            }
            parent = rest;
        }
        false
    }

    /// Makes the parents of a path, unless they lie in something that is mounted or exist already.
    fn parents(&mut self, path: &str) {
        if self.is_closed(path) {
            return;
        }
        let mut missing = Vec::new();
        let mut parent = path;
        while let Some((rest, _)) = parent.rsplit_once('/') {
            if rest.is_empty() || self.made.contains(rest) {
                break;
            }
            missing.push(rest);
            parent = rest;
        }
        for parent in missing.into_iter().rev() {
            let step = RootStep::Directory { path: parent.into(), mode: 0o755 };
            self.push(parent, "parent of what follows", step);
        }
    }
}
