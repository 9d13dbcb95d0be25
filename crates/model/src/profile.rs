//! Sandbox profiles: reviewed data that says what a sandbox shows, entry by entry, each with its reason.

mod limits;
mod network;

pub use network::ProfileNetwork;

use crate::{
    bytes::ByteString,
    limits::LimitSettings,
    sandbox::{Access, SeccompPolicy},
};
use network::NetworkText;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// A profile with everything that it extends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Name for people.
    pub name: String,
    /// One line about it.
    pub summary: String,
    /// What the root holds, in order.
    pub entries: Vec<Entry>,
    /// The system-call filter.
    pub seccomp: SeccompPolicy,
    /// Who may be called from fixed-output builds.
    pub network: ProfileNetwork,
    /// What builds may use up, where it differs from the defaults.
    pub limits: LimitSettings,
}

/// One thing in the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where and what.
    pub item: Item,
    /// In which builds.
    pub when: When,
    /// Whether it is left out in silence when the host does not have it.
    pub optional: bool,
    /// The reason.
    pub why: String,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Directory {
        /// Inside.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// A file with these contents.
    File {
        /// Inside.
        path: String,
        /// Contents.
        content: String,
    },
    /// A symbolic link.
    Symlink {
        /// Inside.
        path: String,
        /// Verbatim.
        target: String,
    },
    /// Something of the host's, whose source is looked up through symbolic links.
    Bind {
        /// Inside.
        path: String,
        /// On the host.
        source: Source,
        /// Whether the builder may write.
        access: Access,
        /// Whether it must be a character device.
        device: bool,
    },
    /// As it is on the host: bound, or copied when it is a symbolic link.
    Mirror {
        /// On both sides.
        path: String,
    },
    /// A tmpfs.
    Tmpfs {
        /// Inside.
        path: String,
        /// Permission bits.
        mode: u32,
        /// As tmpfs(5) takes it.
        size: String,
    },
    /// A procfs.
    Proc {
        /// Inside.
        path: String,
    },
    /// A devpts.
    Pts {
        /// Inside.
        path: String,
    },
}

/// Where a bind comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A host path.
    Host(String),
    /// The scratch build directory.
    Build,
    /// The scratch directory for temporary files.
    Temporary,
    /// The scratch store directory.
    Store,
    /// The static shell.
    Shell,
    /// The certificate bundle.
    Certificates,
}

/// In which builds an entry is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// In all.
    #[default]
    Always,
    /// In those that may reach the network.
    Network,
    /// In the others.
    NoNetwork,
    /// In those that reach it through the gateway.
    Gateway,
    /// In those that share the host's.
    HostNetwork,
}

/// Why a text is not a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, or not of the shape; the message has line and column.
    #[error("profile '{name}': {message}")]
    Syntax {
        /// Which profile.
        name: String,
        /// From the TOML reader.
        message: String,
    },
    /// An entry that makes no sense.
    #[error("profile '{name}', entry {number}: {message}")]
    Entry {
        /// Which profile.
        name: String,
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        message: String,
    },
    /// It extends something unknown.
    #[error("profile '{name}' extends '{base}', which is none of {}", NAMES.join(", "))]
    UnknownBase {
        /// Which profile.
        name: String,
        /// What it names.
        base: String,
    },
}

/// Profiles that are compiled in and may be named.
pub const NAMES: [&str; 2] = ["nix", "host-tools"];

const SECCOMP: &str = include_str!("../../../sandbox-profiles/seccomp.toml");

/// The text of a compiled-in profile.
pub fn built_in(name: &str) -> Option<&'static str> {
    match name {
        "base" => Some(include_str!("../../../sandbox-profiles/base.toml")),
        "nix" => Some(include_str!("../../../sandbox-profiles/nix.toml")),
        "host-tools" => Some(include_str!("../../../sandbox-profiles/host-tools.toml")),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileText {
    name: Option<String>,
    extends: Option<String>,
    summary: Option<String>,
    #[serde(default)]
    entry: Vec<EntryText>,
    network: Option<NetworkText>,
    limits: Option<BTreeMap<String, toml::Value>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EntryText {
    directory: Option<String>,
    file: Option<String>,
    symlink: Option<String>,
    bind: Option<String>,
    mirror: Option<String>,
    tmpfs: Option<String>,
    proc: Option<String>,
    pts: Option<String>,
    mode: Option<u32>,
    content: Option<String>,
    target: Option<String>,
    source: Option<String>,
    size: Option<String>,
    writable: bool,
    device: bool,
    optional: bool,
    when: When,
    why: String,
}

/// Reads a profile. `name` stands for it in errors, and names it when the text does not.
pub fn parse(name: &str, text: &str) -> Result<Profile, ProfileError> {
    let syntax = |name: &str, message: String| ProfileError::Syntax { name: name.to_owned(), message };
    let seccomp = toml::from_str(SECCOMP).map_err(|error| syntax("seccomp", error.to_string()))?;
    let mut profile = Profile {
        name: name.to_owned(),
        summary: String::new(),
        entries: Vec::new(),
        seccomp,
        network: ProfileNetwork::default(),
        limits: LimitSettings::new(),
    };
    let mut layers = Vec::new();
    let mut next = Some((name.to_owned(), text.to_owned()));
    while let Some((layer_name, layer_text)) = next {
        let layer: ProfileText = toml::from_str(&layer_text).map_err(|error| syntax(&layer_name, error.to_string()))?;
        next = layer
            .extends
            .clone()
            .map(|base| match built_in(&base) {
                Some(text) if layers.len() < NAMES.len() => Ok((base, text.to_owned())),
                _ => Err(ProfileError::UnknownBase { name: layer_name.clone(), base }),
            })
            .transpose()?;
        layers.push((layer_name, layer));
    }
    let mut seen = BTreeSet::new();
    for (layer_name, layer) in layers.into_iter().rev() {
        profile.name = layer.name.unwrap_or(layer_name.clone());
        profile.summary = layer.summary.unwrap_or_default();
        if let Some(network) = layer.network {
            profile.network = network.read().map_err(|message| syntax(&layer_name, message))?;
        }
        if let Some(table) = layer.limits {
            profile.limits.extend(limits::read(table).map_err(|message| syntax(&layer_name, message))?);
        }
        for (index, text) in layer.entry.into_iter().enumerate() {
            let entry = entry(text).map_err(|message| ProfileError::Entry {
                name: layer_name.clone(),
                number: index + 1,
                message,
            })?;
            if !seen.insert((
                format!("{:?}", std::mem::discriminant(&entry.item)),
                entry.path().to_owned(),
                format!("{:?}", entry.when),
            )) {
                let message = format!("'{}' is there twice", entry.path());
                return Err(ProfileError::Entry { name: layer_name.clone(), number: index + 1, message });
            }
            profile.entries.push(entry);
        }
    }
    Ok(profile)
}

fn entry(text: EntryText) -> Result<Entry, String> {
    let EntryText {
        directory,
        file,
        symlink,
        bind,
        mirror,
        tmpfs,
        proc,
        pts,
        mode,
        content,
        target,
        source,
        size,
        writable,
        device,
        optional,
        when,
        why,
    } = text;
    if why.trim().is_empty() {
        return Err("it has no 'why'".to_owned());
    }
    let need = |value: Option<String>, key: &str| value.ok_or_else(|| format!("it lacks '{key}'"));
    let item = match (directory, file, symlink, bind, mirror, tmpfs, proc, pts) {
        (Some(path), None, None, None, None, None, None, None) => {
            Item::Directory { path, mode: mode.ok_or("it lacks 'mode'")? }
        }
        (None, Some(path), None, None, None, None, None, None) => {
            let content = need(content, "content")?;
            Item::File { path, content }
        }
        (None, None, Some(path), None, None, None, None, None) => {
            Item::Symlink { path, target: need(target, "target")? }
        }
        (None, None, None, Some(path), None, None, None, None) => {
            let source = match source.as_deref() {
                None => Source::Host(path.clone()),
                Some("${build}") => Source::Build,
                Some("${tmp}") => Source::Temporary,
                Some("${store}") => Source::Store,
                Some("${shell}") => Source::Shell,
                Some("${certificates}") => Source::Certificates,
                Some(other) if other.starts_with('/') => Source::Host(other.to_owned()),
                Some(other) => return Err(format!("'{other}' is neither an absolute path nor a known variable")),
            };
            let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
            Item::Bind { path, source, access, device }
        }
        (None, None, None, None, Some(path), None, None, None) => Item::Mirror { path },
        (None, None, None, None, None, Some(path), None, None) => {
            Item::Tmpfs { path, mode: mode.ok_or("it lacks 'mode'")?, size: need(size, "size")? }
        }
        (None, None, None, None, None, None, Some(path), None) => Item::Proc { path },
        (None, None, None, None, None, None, None, Some(path)) => Item::Pts { path },
        _ => {
            return Err("it must be exactly one of directory, file, symlink, bind, mirror, tmpfs, proc, pts".to_owned());
        }
    };
    let entry = Entry { item, when, optional, why };
    let path = entry.path();
    let is_clean = path.starts_with('/') && path.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part));
    if is_clean { Ok(entry) } else { Err(format!("'{path}' is not a clean absolute path")) }
}

impl Entry {
    /// Where it is inside.
    pub fn path(&self) -> &str {
        match &self.item {
            Item::Directory { path, mode: _ }
            | Item::File { path, content: _ }
            | Item::Symlink { path, target: _ }
            | Item::Bind { path, source: _, access: _, device: _ }
            | Item::Mirror { path }
            | Item::Tmpfs { path, mode: _, size: _ }
            | Item::Proc { path }
            | Item::Pts { path } => path,
        }
    }
}

impl Profile {
    /// Host paths that the planner must know the kind of.
    pub fn host_paths(&self) -> Vec<ByteString> {
        self.entries
            .iter()
            .filter_map(|entry| match &entry.item {
                Item::Bind { source: Source::Host(path), .. } | Item::Mirror { path } => Some(path.as_str().into()),
                Item::Bind { .. }
                | Item::Directory { .. }
                | Item::File { .. }
                | Item::Symlink { .. }
                | Item::Tmpfs { .. }
                | Item::Proc { .. }
                | Item::Pts { .. } => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
