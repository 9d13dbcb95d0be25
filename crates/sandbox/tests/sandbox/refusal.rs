//! What is not run at all, and what the user is told.

use crate::lab::{Lab, chain};
use fodder_model::sandbox::{Door, Namespace, SeccompAction, SeccompRule};
use fodder_sandbox::{Helper, Sandbox, SandboxError};
use std::process::Command;

#[test]
fn a_plan_without_the_namespaces_that_hold_it_together_is_refused() {
    let lab = Lab::new();
    for namespace in [Namespace::User, Namespace::Mount, Namespace::Pid] {
        let mut plan = lab.plan("touch /build/executed");
        plan.namespaces.remove(&namespace);
        let error = lab.refusal(&plan);
        assert!(matches!(error, SandboxError::PlanRefused { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{namespace:?}")), "{error}");
    }
}

/// A door of the caller's own network would take over addresses of the machine.
#[test]
fn a_door_in_the_network_of_the_host_is_refused() {
    let lab = Lab::new();
    let mut plan = lab.plan("touch /build/executed");
    plan.door = Some(crate::door::door());
    plan.namespaces.remove(&Namespace::Network);
    let error = lab.refusal(&plan);
    assert!(matches!(error, SandboxError::PlanRefused { .. }), "{error}");
}

#[test]
fn a_door_that_the_kernel_does_not_make_is_refused() {
    let lab = Lab::new();
    let mut plan = lab.plan("touch /build/executed");
    // Which lo has already.
    plan.door = Some(Door { address6: Some(std::net::Ipv6Addr::LOCALHOST), ..crate::door::door() });
    let error = chain(&lab.refusal(&plan));
    assert!(error.contains("giving lo an address: File exists"), "{error}");
}

/// Attack: DRV-2. Layer: fail closed without a filter.
#[test]
fn a_policy_that_names_no_system_call_is_refused() {
    let lab = Lab::new();
    let mut plan = lab.plan("touch /build/executed");
    plan.seccomp.rules.push(SeccompRule {
        calls: vec!["chmood".into()],
        when: vec![],
        action: SeccompAction::Kill,
        lifted_by: None,
        why: "a slip of the keys".into(),
    });
    let error = lab.refusal(&plan).to_string();
    assert!(error.contains("chmood") && error.contains("a slip of the keys"), "{error}");
}

#[test]
fn arguments_that_execve_cannot_pass_are_refused() {
    let lab = Lab::new();
    let mut plan = lab.plan("touch /build/executed");
    plan.process.environment.push(("NAME".into(), "with\0nul".into()));
    assert!(matches!(lab.refusal(&plan), SandboxError::PlanRefused { .. }));
}

#[test]
fn a_working_directory_that_is_not_there_is_an_error_of_the_set_up() {
    let lab = Lab::new();
    let mut plan = lab.plan("touch /build/executed");
    plan.process.working_directory = "/absent".into();
    let error = chain(&lab.refusal(&plan));
    assert!(error.contains("/absent") && error.contains("No such file"), "{error}");
}

#[test]
fn a_root_mount_point_that_is_a_symbolic_link_is_refused() {
    let lab = Lab::new();
    std::os::unix::fs::symlink("root", lab.path().join("link")).unwrap();
    let mut plan = lab.plan("touch /build/executed");
    plan.root_mount_point = (&*lab.path().join("link")).into();
    let error = chain(&lab.refusal(&plan));
    assert!(error.contains("mount point of the root"), "{error}");
}

#[test]
fn a_filter_that_forbids_what_the_builder_needs_does_not_pass_for_a_builder_that_failed() {
    let lab = Lab::new();
    let mut plan = lab.plan("touch /build/executed");
    plan.seccomp.default = SeccompAction::Kill;
    let error = chain(&lab.refusal(&plan));
    assert!(error.contains("without a word"), "{error}");
}

#[test]
fn a_helper_that_is_not_there_or_is_none_is_reported() {
    let lab = Lab::new();
    let plan = lab.plan("touch /build/executed");
    let run = |helper: &str| Sandbox::new(Helper::at(helper)).unwrap().run(&plan, &mut |_| ()).unwrap_err();
    assert!(matches!(run("/absent/helper"), SandboxError::HelperStart { .. }));
    let error = run("/bin/true");
    assert!(matches!(error, SandboxError::HelperDied { .. }), "{error}");
    // One that is there for as long as it takes to be told its plan, and does not listen.
    let deaf = lab.path().join("deaf");
    // Written by another process: what this one has open for writing, any other test's child has for a moment.
    let write = "printf '#!/bin/sh\\nsleep 0.5\\n' > \"$0\"; chmod 755 \"$0\"";
    assert!(Command::new("sh").args(["-c", write]).arg(&deaf).status().unwrap().success());
    let error = run(deaf.to_str().unwrap());
    assert!(matches!(error, SandboxError::HelperDied { .. }), "{error}");
}

#[test]
fn a_program_that_does_not_dispatch_cannot_be_its_own_helper() {
    let error = Helper::current_exe().unwrap_err();
    assert!(matches!(error, SandboxError::HelperNotDispatched));
    assert!(error.remedy().unwrap().contains("dispatch_helper"));
}
