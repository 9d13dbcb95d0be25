//! What the planner must know of the machine, as plain data. Probed once by `fodder-build`; a test can make one up, and
//! `explain` can plan for a machine it is not on.

use crate::{bytes::ByteString, limits::MachineResources, sandbox::BindKind, short_form::Tool};
use std::collections::{BTreeMap, BTreeSet};

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// `x86_64-linux`, …
    pub system: String,
    /// Other platforms that it runs as well.
    pub extra_platforms: BTreeSet<String>,
    /// System features that builds may require.
    pub features: BTreeSet<String>,
    /// Number of processors.
    pub cores: u32,
    /// Uid that the builder has outside.
    pub builder_uid: u32,
    /// Gid that the builder has outside.
    pub builder_gid: u32,
    /// Paths that the profile and the command line name.
    pub files: BTreeMap<ByteString, HostFile>,
    /// A static shell for `/bin/sh`.
    pub shell: Option<ByteString>,
    /// The certificate bundle.
    pub certificates: Option<Certificates>,
    /// Tools that the short form asks for.
    pub tools: BTreeMap<Tool, ToolFacts>,
    /// What it has to give.
    pub resources: MachineResources,
    /// Whether it reaches anybody over IPv6.
    pub has_ipv6: bool,
    /// The caller's environment, for `impureEnvVars`.
    pub environment: BTreeMap<ByteString, ByteString>,
}

/// A path of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFile {
    /// Nothing there, or not for us.
    Absent,
    /// What it is.
    Present(BindKind),
    /// A symbolic link.
    Symlink {
        /// Verbatim.
        target: ByteString,
        /// Where it leads in the end, and what is there; `None` when it dangles.
        resolved: Option<(ByteString, BindKind)>,
    },
}

impl HostFile {
    /// The file itself, symbolic links followed; `path` is its own.
    pub fn resolve(&self, path: &ByteString) -> Option<(ByteString, BindKind)> {
        match self {
            HostFile::Absent => None,
            HostFile::Present(kind) => Some((path.clone(), *kind)),
            HostFile::Symlink { target: _, resolved } => resolved.clone(),
        }
    }
}

/// A certificate bundle.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Certificates {
    /// File on the host.
    pub path: ByteString,
    /// How it was chosen: `NIX_SSL_CERT_FILE`, `the distribution's`, …
    pub origin: String,
}

/// A tool on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolFacts {
    /// Not on the search path, or not an executable.
    Absent,
    /// In a directory that profiles with host tools show anyway.
    Shown {
        /// Where.
        path: ByteString,
    },
    /// Somewhere else: this much must be mounted.
    Elsewhere {
        /// A directory that holds the tool and what it needs, or the one file.
        mount: ByteString,
        /// Which of the two.
        kind: BindKind,
        /// Links that put it on the search path: name, and target below `mount`.
        links: BTreeMap<ByteString, ByteString>,
    },
}
