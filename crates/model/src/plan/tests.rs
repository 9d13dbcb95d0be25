//! Rules of the planner for machines and wishes that tests of the whole program do not meet.

use super::*;
use crate::{
    content_address::{ContentAddress, ContentMethod},
    derivation::{DerivationParts, Output},
    hash::{Hash, HashAlgorithm},
    host::{HostFile, ToolFacts},
    network_policy::Destination,
    options,
    profile::{self, When},
    reference_graph::InputShape,
    sandbox::{Access, BindKind, RootStep, Weakening},
};

const BASE: &str = "qrzxvj7gpcc55s6cixahari3cycw0qx5";

fn path(name: &str) -> StorePath {
    StorePath::from_base_name(&format!("{BASE}-{name}")).unwrap()
}

/// A machine, a derivation and a person, to be changed.
struct Case {
    parts: DerivationParts,
    inputs: BTreeMap<StorePath, Input>,
    host: HostFacts,
    profile: Profile,
    settings: Settings,
    tools: Vec<Tool>,
}

impl Case {
    fn new() -> Self {
        let text = profile::built_in("nix").unwrap();
        let profile = profile::parse("nix", text).unwrap();
        let is_device = |path: &ByteString| path.to_string().starts_with("/dev/");
        let kind = |path: &ByteString| if is_device(path) { BindKind::Device } else { BindKind::File };
        let files = profile.host_paths().into_iter().map(|path| (path.clone(), HostFile::Present(kind(&path))));
        let host = HostFacts {
            system: "x86_64-linux".to_owned(),
            files: files.collect(),
            shell: Some("/host/sh".into()),
            certificates: Some(Certificates { path: "/host/bundle".into(), origin: "a test".to_owned() }),
            ..HostFacts::default()
        };
        let parts = DerivationParts {
            name: "x".to_owned(),
            outputs: [("out".to_owned(), Output::InputAddressed { path: path("x") })].into(),
            input_sources: [].into(),
            input_derivations: [].into(),
            system: "x86_64-linux".to_owned(),
            builder: "/bin/sh".into(),
            arguments: Vec::new(),
            environment: [].into(),
            structured_attributes: None,
        };
        let (inputs, settings, tools) = (BTreeMap::new(), Settings::default(), Vec::new());
        Case { parts, inputs, host, profile, settings, tools }
    }

    fn fixed() -> Self {
        let mut case = Case::new();
        let content = ContentAddress { method: ContentMethod::Flat, hash: Hash::zero(HashAlgorithm::Sha256) };
        case.parts.outputs = [("out".to_owned(), Output::Fixed { content })].into();
        case
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.parts.environment.insert(name.into(), value.into());
        self
    }

    fn plan(&self) -> Result<BuildPlan, PlanError> {
        let derivation = Derivation::new(self.parts.clone()).unwrap();
        let place = |name: &str| ByteString::from(format!("/scratch/{name}").as_str());
        plan(&Request {
            derivation: &derivation,
            path: &path("x.drv"),
            options: &options::read(&derivation).unwrap(),
            inputs: &self.inputs,
            host: &self.host,
            profile: &self.profile,
            settings: &self.settings,
            tools: &self.tools,
            scratch: &ScratchPaths {
                root: place("root"),
                build: place("build"),
                temporary: place("tmp"),
                store: place("store"),
            },
            unique: "1",
            derivation_outputs: &DerivationOutputs::default(),
        })
    }

    fn allowed(&self) -> Vec<String> {
        self.plan().unwrap().allowed
    }

    fn refused(&self) -> String {
        self.plan().unwrap_err().to_string()
    }
}

/// What a step makes, in a line.
fn line(step: &RootStep) -> String {
    match step {
        RootStep::Directory { path, mode } => format!("{path} directory {mode:o}"),
        RootStep::File { path, mode, content: _ } => format!("{path} file {mode:o}"),
        RootStep::Symlink { path, target } => format!("{path} -> {target}"),
        RootStep::Bind { source, target, kind, access } => format!("{target} {kind:?} {source} {access:?}"),
        RootStep::Tmpfs { path, mode, size: _ } => format!("{path} tmpfs {mode:o}"),
        RootStep::Proc { path } => format!("{path} proc"),
        RootStep::Pts { path } => format!("{path} pts"),
        RootStep::Mode { path, mode } => format!("{path} mode {mode:o}"),
        RootStep::ReadOnly { path } => format!("{path} read-only"),
    }
}

/// Attack: FS-10, FS-11. Layer: the profile as data, to the last mode, and in which builds each entry is there.
#[test]
fn the_root_is_this_list() {
    const ALWAYS: &str = "/ mode 750\n/etc directory 755\n/etc/passwd file 644\n/etc/group file 644\n";
    const NETWORK: &str = "/etc/services File /etc/services ReadOnly\n/etc/hosts File /etc/hosts ReadOnly\n\
        /etc/ssl directory 755\n/etc/ssl/certs directory 755\n\
        /etc/ssl/certs/ca-certificates.crt File /host/bundle ReadOnly\n";
    const REST: &str = "/nix directory 755\n/nix/store Directory /scratch/store ReadWrite\n\
        /build Directory /scratch/build ReadWrite\n/tmp Directory /scratch/tmp ReadWrite\n/dev directory 755\n\
        /dev/full Device /dev/full ReadOnly\n/dev/null Device /dev/null ReadOnly\n\
        /dev/random Device /dev/random ReadOnly\n/dev/tty Device /dev/tty ReadOnly\n\
        /dev/urandom Device /dev/urandom ReadOnly\n/dev/zero Device /dev/zero ReadOnly\n/dev/fd -> /proc/self/fd\n\
        /dev/stdin -> /proc/self/fd/0\n/dev/stdout -> /proc/self/fd/1\n/dev/stderr -> /proc/self/fd/2\n\
        /dev/shm tmpfs 1777\n/dev/pts directory 755\n/dev/pts pts\n/dev/ptmx -> /dev/pts/ptmx\n/proc directory 555\n\
        /proc proc\n/bin directory 755\n/bin/sh File /host/sh ReadOnly\n\
        /etc mode 555\n/ mode 750\n/ read-only\n";
    let mut host_network = Case::fixed();
    host_network.settings.network = Some(NetworkMode::Host);
    for (case, own) in [
        (Case::new(), "/etc/hosts file 644\n".to_owned()),
        (Case::fixed(), format!("/etc/nsswitch.conf file 644\n/etc/resolv.conf file 644\n{NETWORK}")),
        (
            host_network,
            format!("/etc/nsswitch.conf file 644\n/etc/resolv.conf File /etc/resolv.conf ReadOnly\n{NETWORK}"),
        ),
    ] {
        let plan = case.plan().unwrap();
        let found: Vec<String> = plan.sandbox.root.iter().map(line).collect();
        assert_eq!(found, format!("{ALWAYS}{own}{REST}").lines().collect::<Vec<_>>());
        let has_network = plan.network.mode != NetworkMode::None;
        assert_eq!(plan.certificates.is_some(), has_network, "a bundle that is not shown is not said to be");
    }
    // What the machine's own tools add.
    let text = profile::built_in("host-tools").unwrap();
    let profile = profile::parse("host-tools", text).unwrap();
    let own = &profile.entries[Case::new().profile.entries.len() - 2..];
    for entry in own {
        let is_of_the_network = entry.path().starts_with("/etc/pki") || entry.path() == "/etc/ssl/cert.pem";
        assert_eq!(entry.when, if is_of_the_network { When::Network } else { When::Always }, "{entry:?}");
        if let profile::Item::Directory { path, mode } = &entry.item {
            assert_eq!(*mode, 0o755, "{path}");
        }
    }
}

/// Attack: FS-10. Layer: a device of the profile's is a device, and a file no device.
#[test]
fn what_the_host_has_in_the_place_of_a_device_is_not_shown() {
    for (place, kind) in [("/dev/null", BindKind::File), ("/dev/null", BindKind::Directory)] {
        let mut case = Case::new();
        case.host.files.insert(place.into(), HostFile::Present(kind));
        assert!(case.refused().contains(place), "{kind:?}");
    }
    let mut case = Case::fixed();
    case.host.files.insert("/etc/services".into(), HostFile::Present(BindKind::Device));
    let plan = case.plan().unwrap();
    assert!(!plan.sandbox.root.iter().any(|step| line(step).starts_with("/etc/services")));
}

/// Attack: FS-6. Layer: inputs and tools are mounted read-only.
#[test]
fn inputs_and_tools_cannot_be_written_to() {
    let mut case = Case::new();
    let input = Input {
        references: [].into(),
        nar_hash: Hash::zero(HashAlgorithm::Sha256),
        nar_size: 1,
        content_address: None,
        real_path: "/real/input".into(),
        shape: InputShape::Mountable(BindKind::Directory),
    };
    // An input that refers to an output of this derivation brings an older one of it along.
    case.inputs = [(path("input"), input.clone()), (path("x"), Input { real_path: "/real/x".into(), ..input })].into();
    let elsewhere = |mount: &str| ToolFacts::Elsewhere {
        mount: mount.into(),
        kind: BindKind::Directory,
        links: [("tool".into(), format!("{mount}/bin/tool").as_str().into())].into(),
    };
    case.tools = vec![Tool::Command("tool".to_owned()), Tool::Command("other".to_owned())];
    case.host.tools = [
        (case.tools[0].clone(), elsewhere("/opt/tool")),
        (case.tools[1].clone(), elsewhere(&format!("/nix/store/{BASE}-other"))),
    ]
    .into();
    let plan = case.plan().unwrap();
    let binds: Vec<String> = plan.sandbox.root.iter().map(line).filter(|line| line.contains("Directory /")).collect();
    assert_eq!(
        binds,
        [
            "/nix/store Directory /scratch/store ReadWrite".to_owned(),
            "/build Directory /scratch/build ReadWrite".to_owned(),
            "/tmp Directory /scratch/tmp ReadWrite".to_owned(),
            format!("/nix/store/{BASE}-input Directory /real/input ReadOnly"),
            "/opt/tool Directory /opt/tool ReadOnly".to_owned(),
        ]
    );
    assert!(plan.notes.iter().any(|note| note.contains("in the host's /nix/store")), "{:?}", plan.notes);
    let writable = |step: &&RootStep| matches!(step, RootStep::Bind { access: Access::ReadWrite, .. });
    assert_eq!(plan.sandbox.root.iter().filter(writable).count(), 3);
}

/// Attack: DRV-3. Layer: what a built-in builder is asked for is checked before it runs.
#[test]
fn a_built_in_builder_is_known_and_has_an_output_to_write() {
    let mut case = Case::fixed();
    case.parts.builder = "builtin:fetchurl".into();
    assert!(case.plan().is_ok());
    case.parts.builder = "builtin:fetchurI".into();
    assert!(case.refused().contains("unsupported builtin builder 'fetchurI'"));
    let mut case = Case::new();
    case.parts.builder = "builtin:buildenv".into();
    assert!(case.plan().is_ok());
    case.parts.outputs = [("lib".to_owned(), Output::InputAddressed { path: path("x-lib") })].into();
    assert!(case.refused().contains("requires an 'out' output"));
}

/// Attack: NET-5. Layer: what a derivation says of a proxy is its own affair; only what the caller gave opens a port.
#[test]
fn proxies_open_a_port_only_where_the_build_is_told_of_the_callers() {
    let told = |mut case: Case| {
        case.host.environment = [("https_proxy".into(), "http://127.0.0.1:3128/".into())].into();
        let plan = case.plan().unwrap();
        let value = plan.sandbox.process.environment.iter().find(|(name, _)| name[..] == *b"https_proxy");
        let value = value.map(|(_, value)| value.to_string()).unwrap_or_default();
        (plan.network_policy.loopback_ports.into_iter().collect::<Vec<_>>(), plan.allowed, value)
    };
    let (open, flags) = (vec![3128], vec!["--allow-loopback 3128".to_owned()]);
    let callers = "http://127.0.0.1:3128/".to_owned();
    assert_eq!(told(Case::fixed()), (vec![], vec![], String::new()));
    let own = Case::fixed().env("https_proxy", "http://127.0.0.1:22/");
    assert_eq!(told(own), (vec![], vec![], "http://127.0.0.1:22/".to_owned()));
    let asks = Case::fixed().env("impureEnvVars", "https_proxy");
    assert_eq!(told(asks), (open.clone(), flags.clone(), callers.clone()));
    let mut builtin = Case::fixed();
    builtin.parts.builder = "builtin:fetchurl".into();
    assert_eq!(told(builtin), (open.clone(), flags.clone(), callers));
    // As in Nix, a built-in builder takes a derivation's own word over the caller's.
    let mut builtin = Case::fixed().env("https_proxy", "http://own.example:1/");
    builtin.parts.builder = "builtin:fetchurl".into();
    assert_eq!(told(builtin), (open, flags, "http://own.example:1/".to_owned()));
}

/// Attack: DRV-3. Layer: whatever the person took away is named by the flag that did it.
#[test]
fn every_protection_that_was_taken_away_is_named() {
    let mut case = Case::fixed();
    case.settings.allowed = Weakening::ALL.into();
    case.settings.network_policy.allow =
        ["10.1.2.3:80", "example.org"].map(|text| Destination::parse(text).unwrap()).into();
    case.settings.network_policy.loopback_ports = [80, 81].into();
    // A recording answers for the second, and for one that nobody asked for.
    case.settings.answered_ports = [81, 82].into();
    case.settings.extra_paths = vec![ExtraPath::parse("/opt=/etc/services").unwrap()];
    case.settings.environment = ["TOKEN".into(), "OTHER".into()].into();
    case.host.environment = [("TOKEN".into(), "x".into()), ("https_proxy".into(), "http://p.example:1/".into())].into();
    case = case.env("impureEnvVars", "TOKEN https_proxy");
    let others = ["--allow-path /opt=/etc/services", "--allow-env TOKEN"];
    let weakened = ["--allow-nested-namespaces", "--allow-socketcall"];
    let gateway = ["--allow 10.1.2.3:80", "--allow-loopback 80", "--allow-loopback 81"];
    assert_eq!(case.allowed(), [&weakened[..], &gateway, &others].concat());
    case.settings.network = Some(NetworkMode::Host);
    assert_eq!(case.allowed(), [&weakened[..], &["--unsafe-host-network"], &others].concat());
    case.settings.network = Some(NetworkMode::None);
    assert_eq!(case.allowed(), [&weakened[..], &others].concat());
    assert_eq!(Case::fixed().allowed(), [""; 0]);
}
