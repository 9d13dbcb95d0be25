//! `fodder explain`: the plan for people. It takes the plan apart completely, so that nothing that will be done is left out.

use crate::{
    arguments::ExplainArguments,
    build::{load, open_to_look, request, store_root},
    diagnose::Failure,
    words::{harmless, print_json, print_line},
};
use fodder_model::{
    bytes::ByteString,
    checks::Rules,
    limits::{ControlGroup, Decided, DecidedLimits, Enforcement, Origin},
    network_policy::NetworkPolicy,
    options::{OutputCheck, OutputChecks},
    plan::{BuildPlan, Network, NetworkMode},
    sandbox::{
        Access, BindKind, Door, HostName, Identity, Limits, Namespace, Process, Program, RootStep, SandboxPlan,
        SeccompAction, SeccompPolicy, SeccompRule, Weakening,
    },
};
use std::collections::BTreeMap;

pub(crate) fn explain(arguments: &ExplainArguments) -> Result<u8, Failure> {
    let ExplainArguments { input, sandbox, json } = arguments;
    let request = request(sandbox)?;
    let root = store_root(input.store.as_deref())?;
    let store = open_to_look(&root, input)?;
    let loaded = fodder_build::resolve_if_possible(load(input, store.as_ref())?, store.as_ref())?;
    match fodder_build::prepare_to_explain(&loaded, store.as_ref(), &root, &request)? {
        Err(refused) => {
            let words = format!("Cannot build '{}'.\nReason: {refused}", loaded.path);
            Err(Failure::new(format!("error: {}", words.replace('\n', "\n       ")), 100))
        }
        Ok(plan) if *json => {
            print_json(&serde_json::to_string(&plan).map_err(|error| Failure::output(&error.into()))?);
            Ok(0)
        }
        Ok(plan) => {
            print(&plan);
            Ok(0)
        }
    }
}

fn heading(text: &str) {
    print_line("");
    print_line(text);
}

fn item(name: &str, text: &str) {
    print_line(&format!("  {name:<12} {}", harmless(text.as_bytes())));
}

fn print(plan: &BuildPlan) {
    let BuildPlan {
        derivation,
        kind,
        outputs,
        profile,
        network,
        network_policy,
        certificates,
        impure_variables,
        allowed,
        rules,
        content,
        discard_references,
        notes,
        limits,
        control_group,
        reasons,
        sandbox,
    } = plan;
    print_line(&format!("{derivation}"));
    let kind = serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
    item("kind", &kind);
    item("profile", profile);
    for (name, path) in outputs {
        item("output", &format!("{name}: {path}"));
    }
    for note in notes {
        item("note", note);
    }
    heading("Network");
    let Network { mode, why } = network;
    let mode = match mode {
        NetworkMode::None => "none",
        NetworkMode::Gateway => "gateway",
        NetworkMode::Host => "the host's",
    };
    item(mode, &format!("because {why}"));
    print_policy(network_policy, network.mode);
    if let Some(certificates) = certificates {
        item("bundle", &format!("{} ({})", certificates.path, certificates.origin));
    }
    if !impure_variables.is_empty() {
        let names: Vec<String> = impure_variables.iter().map(ToString::to_string).collect();
        item("variables", &format!("{} with your values, because impureEnvVars names them", names.join(", ")));
    }
    print_allowed(allowed);
    print_limits(limits, control_group);
    print_sandbox(sandbox, reasons);
    heading("Afterwards");
    item(
        "always",
        "every output is put into canonical form (0444 or 0555, time 1), hashed as a NAR, and scanned for its references",
    );
    for name in discard_references {
        item("not scanned", &format!("{name} (unsafeDiscardReferences)"));
    }
    let Rules { derivation: _, fixed, outputs: checks } = rules;
    if let (Some(hash), Some(content)) = (fixed, content) {
        let text = if hash.is_zero() { "nothing yet: the hash will be told".to_owned() } else { hash.to_sri() };
        item("hash", &format!("{} by method {}; no store path may be mentioned", text, content.method.name()));
    }
    match checks {
        OutputChecks::All(check) => print_check("all outputs", check),
        OutputChecks::Each(each) => {
            for (name, check) in each {
                print_check(name, check);
            }
        }
    }
}

fn print_check(name: &str, check: &OutputCheck) {
    let OutputCheck {
        allowed_references,
        allowed_requisites,
        disallowed_references,
        disallowed_requisites,
        max_size,
        max_closure_size,
        counts_itself: _,
    } = check;
    for (attribute, list) in [("allowedReferences", allowed_references), ("allowedRequisites", allowed_requisites)] {
        if let Some(list) = list {
            item("check", &format!("{name}: {attribute} = [{}]", list.join(" ")));
        }
    }
    for (attribute, list) in
        [("disallowedReferences", disallowed_references), ("disallowedRequisites", disallowed_requisites)]
    {
        if !list.is_empty() {
            item("check", &format!("{name}: {attribute} = [{}]", list.join(" ")));
        }
    }
    for (attribute, limit) in [("maxSize", max_size), ("maxClosureSize", max_closure_size)] {
        if let Some(limit) = limit {
            item("check", &format!("{name}: {attribute} = {limit} bytes"));
        }
    }
}

/// Who may be called.
fn print_policy(policy: &NetworkPolicy, mode: NetworkMode) {
    let NetworkPolicy { allow, deny, loopback_ports, only } = policy;
    match mode {
        NetworkMode::None | NetworkMode::Host => return,
        NetworkMode::Gateway => {}
    }
    item("refused", "this machine's loopback and other addresses, the local link and the metadata of clouds");
    for allowed in allow {
        item("--allow", &allowed.to_string());
    }
    for denied in deny {
        item("--deny", &denied.to_string());
    }
    for only in only {
        item("only", &format!("{only}, says the file"));
    }
    for port in loopback_ports {
        item("loopback", &format!("port {port} is this machine's"));
    }
}

fn print_sandbox(sandbox: &SandboxPlan, reasons: &BTreeMap<String, String>) {
    let SandboxPlan {
        namespaces,
        identity,
        host_name,
        root_mount_point,
        root,
        process,
        limits,
        seccomp,
        door,
        allowed: _,
    } = sandbox;
    heading("Namespaces");
    for (namespace, name, why) in NAMESPACES {
        item(name, if namespaces.contains(&namespace) { why } else { "the host's" });
    }
    if let Some(Door { address, address6, name_server, loopback_ports: _, ports: _, redirect: _ }) = door {
        let six = address6.map(|six| format!(" and {six}")).unwrap_or_default();
        item(
            "door",
            &format!("every address leads to it; the builder has {address}{six}, and asks {name_server} for names"),
        );
    }
    heading("Identity");
    let Identity { inside_uid, inside_gid, outside_uid, outside_gid } = identity;
    item("inside", &format!("uid {inside_uid}, gid {inside_gid}"));
    item("outside", &format!("uid {outside_uid}, gid {outside_gid}"));
    item("privileges", "no capabilities, and none to be had by execve (no_new_privs)");
    let landlock = match fodder_sandbox::landlock_abi() {
        0 => "not in this kernel".to_owned(),
        abi => format!(
            "version {abi} here: no writing but where the root is writable, no signals or abstract sockets outside"
        ),
    };
    item("landlock", &landlock);
    let HostName { host, domain } = host_name;
    item("host name", &format!("{host}, domain {domain}"));
    heading("Root");
    item("scratch", &root_mount_point.to_string());
    for step in root {
        print_step(step, reasons);
    }
    print_process(process);
    print_kernel_limits(limits);
    print_seccomp(seccomp);
}

const NAMESPACES: [(Namespace, &str, &str); 7] = [
    (Namespace::User, "user", "new: the builder is nobody else's user, and has privileges over nothing of the host's"),
    (Namespace::Mount, "mount", "new: only what is listed below can be seen"),
    (Namespace::Pid, "pid", "new: the builder is process 1, and when it ends everything it started ends"),
    (Namespace::Ipc, "ipc", "new: no shared memory or semaphores with the host"),
    (Namespace::Uts, "uts", "new: every machine has the same name"),
    (Namespace::Network, "network", "new: nothing but its own loopback and, with a gateway, the door"),
    (Namespace::Cgroup, "cgroup", "new: the host's control groups are not visible"),
];

fn print_step(step: &RootStep, reasons: &BTreeMap<String, String>) {
    let (path, what) = match step {
        RootStep::Directory { path, mode } => (path, format!("directory {mode:04o}")),
        RootStep::File { path, mode, content } => (path, format!("file {mode:04o}, {} bytes", content.len())),
        RootStep::Symlink { path, target } => (path, format!("link to {target}")),
        RootStep::Bind { source, target, kind, access } => {
            let access = match access {
                Access::ReadOnly => "read-only",
                Access::ReadWrite => "writable",
            };
            let kind = match kind {
                BindKind::Directory => "directory",
                BindKind::File => "file",
                BindKind::Device => "device",
            };
            (
                target,
                if source == target {
                    format!("the host's {kind}, {access}")
                } else {
                    format!("{kind} {source}, {access}")
                },
            )
        }
        RootStep::Tmpfs { path, mode, size } => (path, format!("tmpfs {mode:04o}, at most {size}")),
        RootStep::Proc { path } => (path, "procfs".to_owned()),
        RootStep::Pts { path } => (path, "devpts".to_owned()),
        RootStep::Mode { path, mode } => (path, format!("mode becomes {mode:04o}")),
        RootStep::ReadOnly { path } => (path, "becomes read-only".to_owned()),
    };
    let is_last_word = matches!(step, RootStep::Mode { .. } | RootStep::ReadOnly { .. }) && *path != *"/";
    let why = reasons.get(&path.to_string()).filter(|_| !is_last_word);
    let shown = path.to_string();
    print_line(&harmless(format!("  {shown:<34} {what}")));
    if let Some(why) = why {
        print_line(&harmless(format!("      {why}")));
    }
}

fn print_process(process: &Process) {
    let Process { program, arguments, environment, working_directory, umask, fixed_addresses, linux32 } = process;
    heading("Builder");
    match program {
        Program::Execute(path) => item("program", &path.to_string()),
        Program::Internal(name) => item("program", &format!("{name}, a part of this program, run inside")),
    }
    for (index, argument) in arguments.iter().enumerate() {
        item(&format!("argv[{index}]"), &argument.to_string());
    }
    item("directory", &working_directory.to_string());
    item("umask", &format!("{umask:04o}"));
    if *fixed_addresses {
        item("addresses", "not randomised");
    }
    if *linux32 {
        item("personality", "uname reports a 32-bit machine");
    }
    heading("Environment");
    for (name, value) in environment {
        let shortened: ByteString =
            if value.len() > 300 { [&value[..300], "…".as_bytes()].concat().into() } else { value.clone() };
        print_line(&format!("  {name}={shortened}"));
    }
}

/// What it may use up, who says so, and who keeps it.
fn print_limits(limits: &DecidedLimits, control_group: &ControlGroup) {
    heading("Limits");
    for (limit, Decided { value, origin, enforcement }) in limits {
        let value = value.map_or("none".to_owned(), |value| limit.words(value));
        let origin = match origin {
            Origin::Default => "default",
            Origin::Profile => "the profile's",
            Origin::You => "yours",
            Origin::File => "the file's own",
        };
        let keeper = match enforcement {
            Enforcement::ControlGroup => ", kept by a control group",
            Enforcement::Rlimit => ", kept by the kernel (setrlimit)",
            Enforcement::Watchdog => ", watched: it can be exceeded for a moment",
            Enforcement::Runner => ", kept by fodder",
            Enforcement::Kernel => ", kept by the kernel",
            Enforcement::Nothing => "",
        };
        print_line(&format!("  {:<17} {value} ({origin}{keeper})", limit.name()));
    }
    match control_group {
        ControlGroup::Delegated { directory } => {
            item("control group", &format!("one of the build's own in {directory}"))
        }
        ControlGroup::Absent { why } => item("control group", &format!("none: {why}")),
    }
}

/// What the helper is told, beside the limits above.
fn print_kernel_limits(limits: &Limits) {
    // All but the last two are the values of the limits above.
    let Limits {
        deadline_seconds: _,
        silence_seconds: _,
        log_bytes: _,
        memory_bytes: _,
        processes: _,
        scratch,
        scratch_bytes: _,
        scratch_files: _,
        control_group: _,
        settings,
        oom_score,
        resources,
    } = limits;
    heading("Settings of the kernel");
    for directory in scratch {
        item("measured", &directory.to_string());
    }
    for (name, value) in settings {
        item(name, &value.to_string());
    }
    item(
        "oom_score_adj",
        &format!("{oom_score}: when the machine has no memory left, the build is killed before your programs"),
    );
    for limit in resources {
        let value = |value: Option<u64>| match value {
            None => "as yours".to_owned(),
            Some(u64::MAX) => "unlimited".to_owned(),
            Some(value) => value.to_string(),
        };
        item(&format!("{:?}", limit.resource), &format!("soft {}, hard {}", value(limit.soft), value(limit.hard)));
    }
}

fn print_allowed(allowed: &[String]) {
    heading("Protections that you took away");
    if allowed.is_empty() {
        print_line("  none");
    }
    for flag in allowed {
        let why = Weakening::ALL.into_iter().find(|weakening| weakening.flag() == flag).map(Weakening::why);
        print_line(&format!("  {}", harmless(why.unwrap_or(flag))));
    }
}

fn print_seccomp(seccomp: &SeccompPolicy) {
    heading("System calls: the first line that matches");
    let SeccompPolicy { default, rules } = seccomp;
    let answer = |action: &SeccompAction| match action {
        SeccompAction::Allow => "executed".to_owned(),
        SeccompAction::Errno(number) => format!("{:?}", nix::errno::Errno::from_raw(i32::from(*number))),
        SeccompAction::Kill => "killed".to_owned(),
    };
    for SeccompRule { calls, when, action, lifted_by: _, why } in rules {
        let when = if when.is_empty() { "" } else { " (some arguments)" };
        print_line(&format!("  {}: {}{when}", answer(action), calls.join(", ")));
        print_line(&format!("      {}", harmless(why)));
    }
    item("all others", &answer(default));
}
