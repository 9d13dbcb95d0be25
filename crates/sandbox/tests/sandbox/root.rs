//! The interpreter of the root's steps: what each does, and what it refuses.

use crate::lab::{Lab, bind, chain, directory, insert, is_root, symlink, usual_open_files};
use fodder_model::sandbox::{Access, BindKind, RootStep};
use fodder_sandbox::SandboxError;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink as make_symlink},
};

#[test]
fn steps_make_what_they_say() {
    let lab = Lab::new();
    let mut plan = lab.plan(
        "stat -c '%n %a %F %u:%g' / /closed /sticky /file /closed/link /tmp; cat /file; cat /closed/link; stat -c %s /empty",
    );
    let file = |path: &str, mode, content: &str| RootStep::File { path: path.into(), mode, content: content.into() };
    insert(
        &mut plan,
        [
            directory("/closed", 0o700),
            directory("/sticky", 0o3775),
            file("/file", 0o751, "content\n"),
            file("/empty", 0o444, ""),
            symlink("/closed/link", "../file"),
            RootStep::Mode { path: "/closed".into(), mode: 0o550 },
        ],
    );
    let expected = "/ 755 directory 1000:100\n/closed 550 directory 1000:100\n/sticky 3775 directory 1000:100\n\
                    /file 751 regular file 1000:100\n/closed/link 777 symbolic link 1000:100\n\
                    /tmp 1777 directory 1000:100\ncontent\ncontent\n0\n";
    assert_eq!(lab.run(&plan).log, expected);
}

#[test]
fn files_larger_than_the_usual_root_fit() {
    let lab = Lab::new();
    let mut plan = lab.plan("stat -c %s /large");
    let content = "x".repeat(9 << 20).into();
    insert(&mut plan, [RootStep::File { path: "/large".into(), mode: 0o444, content }]);
    assert_eq!(lab.run(&plan).log, format!("{}\n", 9 << 20));
}

/// Attack: RES-4. Layer: the size of the root's tmpfs, where a plan leaves it writable.
#[test]
fn a_root_that_is_writable_is_small() {
    let lab = Lab::new();
    let mut plan = lab.plan("dd if=/dev/zero of=/filled bs=1M count=40 2>&1; stat -c %s /filled");
    assert_eq!(plan.root.pop(), Some(RootStep::ReadOnly { path: "/".into() }));
    let log = lab.run(&plan).log;
    assert!(log.contains("No space left on device"), "{log}");
    let size: u64 = log.lines().last().unwrap().parse().unwrap();
    assert!((1 << 20..8 << 20).contains(&size), "{log}");
}

/// Attack: FS-7. Layer: Landlock's places are opened without following links.
#[test]
fn a_place_that_became_a_link_is_granted_to_nobody() {
    if fodder_sandbox::landlock_abi() < 2 {
        return; // Nothing is granted where nothing is judged.
    }
    let lab = Lab::new();
    let mut plan = lab.plan("echo executed > /build/executed");
    let tmpfs = |path: &str| RootStep::Tmpfs { path: path.into(), mode: 0o755, size: "1m".into() };
    let made = directory("/place", 0o755);
    insert(&mut plan, [made, tmpfs("/place/below"), tmpfs("/place"), symlink("/place/below", "/etc")]);
    let error = chain(&lab.refusal(&plan));
    assert!(error.contains("granting /place/below with Landlock"), "{error}");
}

#[test]
fn a_closure_of_more_inputs_than_open_files_is_bound() {
    usual_open_files();
    let lab = Lab::new();
    let input = lab.input();
    let mut plan = lab.plan("ls /many | grep -c . 2>/dev/null || echo /many/* | { read a; set -- $a; echo $#; }");
    insert(&mut plan, [directory("/many", 0o755)]);
    for number in 0..1500 {
        let target = format!("/many/{number}");
        insert(&mut plan, [bind(&input, &target, BindKind::Directory, Access::ReadOnly)]);
    }
    assert!(lab.run(&plan).log.ends_with("1500\n"));
}

#[test]
fn a_bind_is_writable_only_where_the_plan_says() {
    let lab = Lab::new();
    fs::write(lab.path().join("writable"), "").unwrap();
    lab.give_to_builder(&lab.path().join("writable"));
    let mut plan = lab.plan("echo written > /one; echo written > /two");
    insert(
        &mut plan,
        [
            bind(lab.path().join("writable"), "/one", BindKind::File, Access::ReadWrite),
            bind(lab.path().join("writable"), "/two", BindKind::File, Access::ReadOnly),
        ],
    );
    let ran = lab.run(&plan);
    assert!(ran.log.contains("/two: Read-only file system"), "{}", ran.log);
    assert_eq!(fs::read_to_string(lab.path().join("writable")).unwrap(), "written\n");
}

#[test]
fn sources_below_directories_of_the_runner_alone_are_found() {
    let lab = Lab::new();
    let input = lab.input();
    fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut plan = lab.plan("cat /input/file");
    insert(&mut plan, [bind(&input, "/input", BindKind::Directory, Access::ReadOnly)]);
    assert_eq!(lab.run(&plan).log, "original\n");
}

/// A plan with these steps is refused, naming this one of them.
fn refused(lab: &Lab, steps: Vec<RootStep>, which: usize, errno: i32) -> String {
    let mut plan = lab.plan("echo executed > /build/executed");
    let offset = plan.root.len() - 1;
    insert(&mut plan, steps);
    let error = lab.refusal(&plan);
    let text = chain(&error);
    let SandboxError::RootStep { index, source, .. } = &error else { panic!("{text}") };
    assert_eq!(*index, offset + which, "{text}");
    assert_eq!(source.raw_os_error(), Some(errno), "{text}");
    text
}

#[test]
fn a_source_must_be_what_the_plan_says_it_is() {
    let lab = Lab::new();
    let input = lab.input();
    make_symlink(input.join("file"), lab.path().join("link")).unwrap();
    make_symlink(&input, lab.path().join("directory-link")).unwrap();
    let step = |source: &str, kind| vec![bind(lab.path().join(source), "/x", kind, Access::ReadOnly)];
    for (source, kind, errno) in [
        ("link", BindKind::File, libc::ELOOP),
        ("directory-link", BindKind::Directory, libc::ELOOP),
        ("input", BindKind::File, libc::EISDIR),
        ("input/file", BindKind::Directory, libc::ENOTDIR),
        ("input/file", BindKind::Device, libc::ENODEV),
        ("absent", BindKind::File, libc::ENOENT),
    ] {
        let text = refused(&lab, step(source, kind), 0, errno);
        assert!(text.contains(source) && text.contains("/x"), "{text}");
    }
    refused(&lab, vec![bind("/dev/null", "/x", BindKind::File, Access::ReadOnly)], 0, libc::EINVAL);
}

#[test]
fn a_symbolic_link_of_the_plan_is_never_followed() {
    let lab = Lab::new();
    let input = lab.input();
    // To the host's own directory, if it were followed before the root is exchanged.
    let elsewhere = lab.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    lab.give_to_builder(&elsewhere);
    let link = || symlink("/link", elsewhere.to_str().unwrap());
    let relative = || symlink("/link", "build");
    let mount = |target: &str| bind(&input, target, BindKind::Directory, Access::ReadOnly);
    for link in [link(), relative()] {
        for step in [
            mount("/link"),
            mount("/link/x"),
            RootStep::Tmpfs { path: "/link".into(), mode: 0o755, size: "1m".into() },
            RootStep::Proc { path: "/link".into() },
            RootStep::Pts { path: "/link".into() },
            RootStep::ReadOnly { path: "/link".into() },
            RootStep::Mode { path: "/link".into(), mode: 0o777 },
        ] {
            refused(&lab, vec![link.clone(), step], 1, libc::ELOOP);
        }
        for step in [directory("/link/x", 0o755), symlink("/link/x", "y")] {
            refused(&lab, vec![link.clone(), step], 1, libc::ELOOP);
        }
        let file = RootStep::File { path: "/link".into(), mode: 0o644, content: "x".into() };
        refused(&lab, vec![link, file], 1, libc::EEXIST);
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn a_symbolic_link_inside_a_bind_is_not_followed_as_a_mount_point() {
    let lab = Lab::new();
    let input = lab.input();
    make_symlink("/etc", input.join("etc")).unwrap();
    let steps = vec![
        bind(&input, "/input", BindKind::Directory, Access::ReadWrite),
        RootStep::Tmpfs { path: "/input/etc".into(), mode: 0o755, size: "1m".into() },
    ];
    refused(&lab, steps, 1, libc::ELOOP);
}

#[test]
fn steps_that_make_no_sense_are_named() {
    let lab = Lab::new();
    for (step, errno) in [
        (directory("/bin", 0o755), libc::EEXIST),
        (directory("/", 0o755), libc::EEXIST),
        (directory("/absent/parent", 0o755), libc::ENOENT),
        (directory("relative", 0o755), libc::EINVAL),
        (directory("/bin/../up", 0o755), libc::EINVAL),
        (symlink("/bin", "elsewhere"), libc::EEXIST),
        (RootStep::Tmpfs { path: "/t".into(), mode: 0o755, size: "huge".into() }, libc::EINVAL),
        (RootStep::ReadOnly { path: "/bin".into() }, libc::EINVAL),
        (RootStep::ReadOnly { path: "/absent".into() }, libc::ENOENT),
        (RootStep::Tmpfs { path: "/bin/sh".into(), mode: 0o755, size: "1m".into() }, libc::EINVAL),
        (RootStep::Mode { path: "/absent".into(), mode: 0o755 }, libc::ENOENT),
    ] {
        let text = refused(&lab, vec![step], 0, errno);
        assert!(text.starts_with("step "), "{text}");
    }
}

#[test]
fn the_mode_of_what_is_the_hosts_is_not_changed() {
    let lab = Lab::new();
    let before = fs::metadata(lab.build()).unwrap().permissions();
    refused(&lab, vec![RootStep::Mode { path: "/build".into(), mode: 0o777 }], 0, libc::EXDEV);
    assert_eq!(fs::metadata(lab.build()).unwrap().permissions(), before);
}

#[test]
fn a_builder_of_root_is_not_root_outside() {
    if !is_root() {
        return; // An ordinary user's builder cannot be; see `process` for who it is.
    }
    let lab = Lab::new();
    let secret = lab.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut plan = lab.plan("cat /secret; touch /secret; chmod 777 /secret");
    insert(&mut plan, [bind(&secret, "/secret", BindKind::File, Access::ReadWrite)]);
    let log = lab.run(&plan).log;
    assert_eq!(log.matches("Permission denied").count() + log.matches("Operation not permitted").count(), 3, "{log}");
}
