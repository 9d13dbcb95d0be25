//! What the builder cannot reach.

use crate::{
    lab::{Lab, bind, insert},
    probe,
};
use fodder_model::sandbox::{
    Access, ArgumentCondition, ArgumentTest, BindKind, Namespace, SeccompAction, SeccompPolicy, SeccompRule, Weakening,
};
use fodder_sandbox::BuilderExit;

#[test]
fn its_network_is_a_loopback_that_works_and_nothing_else() {
    let lab = Lab::new();
    let log = lab.log_of("ifconfig -a; cat /proc/net/route /proc/net/if_inet6");
    let interfaces = log.lines().filter(|line| line.contains("Link encap")).count();
    assert_eq!(interfaces, 1, "{log}");
    assert!(log.contains("inet addr:127.0.0.1  Mask:255.0.0.0"), "{log}");
    assert!(log.contains("UP LOOPBACK RUNNING"), "{log}");
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        assert!(log.contains("00000000000000000000000000000001 01 80 10 80       lo"), "{log}");
    }
}

#[test]
fn the_network_is_the_hosts_only_when_the_plan_says_so() {
    let lab = Lab::new();
    let own = || std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    let script = "ls -l /proc/self/ns/net";
    assert!(!lab.log_of(script).contains(&own()));
    let mut plan = lab.plan(script);
    plan.namespaces.remove(&Namespace::Network);
    assert!(lab.run(&plan).log.contains(&own()));
}

#[test]
fn it_sees_its_own_processes_and_no_others() {
    let lab = Lab::new();
    let log = lab.log_of("cd /proc; echo [0-9]*; true");
    assert_eq!(log, "1\n");
}

#[test]
fn it_sees_nothing_of_the_host_but_what_is_bound() {
    let lab = Lab::new();
    let log = lab.log_of("cd /; echo *; ls /root /home /sys /usr 2>/dev/null; cat /proc/self/cgroup");
    assert!(log.starts_with("bin build dev etc proc tmp\n"), "{log}");
    let cgroups: Vec<&str> = log.lines().skip(1).collect();
    assert!(cgroups.iter().all(|line| line.ends_with(":/")), "{cgroups:?}");
}

#[test]
fn its_mounts_are_not_seen_by_the_host() {
    let lab = Lab::new();
    let plan = lab.plan("echo ready; sleep 0.3");
    let root = lab.path().join("root");
    let mut looked = false;
    let ran = crate::lab::sandbox().run(&plan, &mut |_| {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(root.to_str().unwrap()));
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        looked = true;
    });
    assert_eq!(ran.unwrap().exit, BuilderExit::Exited(0));
    assert!(looked);
}

#[test]
fn the_root_is_read_only_and_the_build_directory_is_not() {
    let lab = Lab::new();
    let log =
        lab.log_of("mkdir /x 2>&1; touch /etc/x /dev/x 2>&1; touch /build/x /tmp/x /dev/shm/x && echo fine; true");
    assert_eq!(log.matches("Read-only file system").count(), 3, "{log}");
    assert!(log.ends_with("fine\n"), "{log}");
}

/// Attack: FS-6. Layer: read-only locked mounts.
#[test]
fn inputs_cannot_be_changed_by_any_call() {
    let lab = Lab::new();
    let input = lab.input();
    let mut plan = probe::plan(&lab, "mounts");
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadOnly)]);
    let answers = probe::answers(&lab, &plan);
    assert_eq!(answers.len(), 7, "{answers:?}");
    for answer in &answers {
        let refused = ["EPERM", "EROFS", "EINVAL", "EACCES"].iter().any(|errno| answer.ends_with(errno));
        assert!(refused, "{answers:?}");
    }
    assert_eq!(std::fs::read_to_string(input.join("file")).unwrap(), "original\n");
}

#[test]
fn a_shell_cannot_change_its_inputs_either() {
    let lab = Lab::new();
    let input = lab.input();
    let mut plan = lab.plan(
        "chmod 777 /input/file; echo changed > /input/file; rm /input/file; mount -o remount,rw /input; umount /input
         touch /input/new; cat /input/file",
    );
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadOnly)]);
    let ran = lab.run(&plan);
    assert!(ran.log.ends_with("original\n"), "{}", ran.log);
    assert_eq!(std::fs::read_dir(&input).unwrap().count(), 1);
}

#[test]
fn a_builder_that_is_root_of_a_namespace_of_its_own_finds_its_inputs_locked() {
    let lab = Lab::new();
    let input = lab.input();
    let mut plan = lab.plan(
        "unshare -r -m sh -c 'id -u; mount -o remount,bind,rw /input; umount /input; echo changed > /input/file'
         cat /input/file",
    );
    plan.allowed.insert(Weakening::NestedNamespaces);
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadOnly)]);
    let log = lab.run(&plan).log;
    // That it worked is what makes this test one.
    assert!(log.starts_with("0\n") && log.ends_with("original\n"), "{log}");
    assert!(log.contains("/input/file: Read-only file system"), "{log}");
}

#[test]
fn mounts_below_a_read_only_bind_are_read_only_too() {
    // /dev is the one directory that has other file systems mounted in it on every machine.
    let lab = Lab::new();
    let mut plan = lab.plan("cat /proc/self/mountinfo");
    insert(&mut plan, [bind("/dev", "/host-dev", BindKind::Directory, Access::ReadOnly)]);
    let ran = lab.run(&plan);
    let below: Vec<&str> = ran.log.lines().filter(|line| line.contains(" /host-dev")).collect();
    assert!(below.len() > 1, "{}", ran.log);
    for mount in below {
        let options = mount.split(' ').nth(5).unwrap();
        for option in ["ro", "nosuid", "nodev"] {
            assert!(options.split(',').any(|found| found == option), "{mount}");
        }
    }
}

/// Attack: ENV-2. Layer: new session keyring alone.
#[test]
fn the_runners_keys_are_out_of_reach() {
    probe::own_a_key().expect("a session keyring for this test");
    let lab = Lab::new();
    assert_eq!(probe::answers(&lab, &probe::plan(&lab, "keys")), ["search: ENOKEY"]);
}

#[test]
fn the_seccomp_filter_answers_in_the_kernels_place() {
    let lab = Lab::new();
    let rule = |calls: &[&str], when, errno| SeccompRule {
        calls: calls.iter().map(|call| (*call).to_owned()).collect(),
        when,
        action: SeccompAction::Errno(errno as u16),
        lifted_by: None,
        why: "as Nix does".into(),
    };
    let set_id = |argument| vec![ArgumentTest { argument, is: ArgumentCondition::AnyBitOf(0o6000) }];
    let policy = SeccompPolicy {
        default: SeccompAction::Allow,
        rules: vec![
            rule(&["chmod", "fchmod"], set_id(1), libc::EPERM),
            rule(&["fchmodat", "fchmodat2"], set_id(2), libc::EPERM),
            rule(&["getxattr", "lgetxattr", "fgetxattr"], vec![], libc::ENOTSUP),
        ],
    };
    let mut plan = probe::plan(&lab, "seccomp");
    plan.seccomp = policy;
    let expected =
        ["create: done", "plain chmod: done", "set-id chmod: EPERM", "high bits: EPERM", "getxattr: EOPNOTSUPP"];
    assert_eq!(probe::answers(&lab, &plan), expected);
    let mut plan = lab.plan("cat /proc/1/status");
    plan.seccomp =
        SeccompPolicy { default: SeccompAction::Allow, rules: vec![rule(&["chmod"], set_id(1), libc::EPERM)] };
    let ran = lab.run(&plan);
    assert!(ran.log.contains("Seccomp:\t2\n"), "{}", ran.log);
    assert!(ran.report.enforced.seccomp_instructions.is_some_and(|count| count > 5));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_seccomp_filter_holds_for_32_bit_system_calls() {
    let lab = Lab::new();
    let mut plan = probe::plan(&lab, "i386");
    let ran = lab.run(&plan);
    if ran.report.exit == BuilderExit::Signaled(libc::SIGSEGV) {
        return; // This kernel has no 32-bit interface, as this run has just shown.
    }
    assert!(ran.log.contains("probe: i386 getxattr: EFAULT"), "{}", ran.log);
    plan.seccomp.rules.push(SeccompRule {
        calls: vec!["getxattr".into()],
        when: vec![],
        action: SeccompAction::Errno(libc::ENOTSUP as u16),
        lifted_by: None,
        why: "as Nix does".into(),
    });
    assert_eq!(probe::answers(&lab, &plan), ["i386 getxattr: EOPNOTSUPP"]);
}

#[test]
fn a_device_that_was_not_bound_cannot_be_made_or_opened() {
    let lab = Lab::new();
    let mut plan = lab.plan("cat /input/null 2>&1; true");
    // The same device through a directory bind, which is nodev.
    insert(&mut plan, [bind("/dev", "/input", BindKind::Directory, Access::ReadOnly)]);
    let ran = lab.run(&plan);
    assert!(ran.log.contains("Permission denied"), "{}", ran.log);
}

#[test]
fn its_terminals_are_its_own() {
    let lab = Lab::new();
    let log = lab
        .log_of("ls -1 /dev/pts; stat -c %a /dev/pts/ptmx; exec 3<>/dev/ptmx && ls -1 /dev/pts; stat -c %a /dev/pts/0");
    assert_eq!(log, "ptmx\n666\n0\nptmx\n620\n");
}
