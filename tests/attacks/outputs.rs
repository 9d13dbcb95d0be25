//! What a builder leaves, and who can still change it.

use crate::{
    attacks::{during, waiting},
    lab::{Lab, need},
    recipe::{Recipe, text},
};
use fodder_model::content_address::ContentMethod;
use std::{
    io::IoSliceMut,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A fixed output made by this Python program, with the tools of the host.
fn python(name: &str, program: &str) -> Recipe {
    need("python3", "python3");
    let mut recipe = Recipe::new(name, "").fixed(ContentMethod::Nar, crate::recipe::NO_HASH);
    recipe.parts.builder = "/usr/bin/python3".into();
    recipe.parts.arguments = vec!["-c".into(), program.into()];
    recipe
}

/// Sends the descriptor `file` to a listener on the host.
const SEND: &str = "
import os, socket, array
out = os.environ['out']
def send(file):
    line = socket.socket(socket.AF_UNIX)
    line.connect('/shown/socket')
    line.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [file]))])
    return line
";

/// Listens in a directory that the person shows to the build.
fn listener(lab: &Lab) -> UnixListener {
    let directory = lab.path().join("shown");
    std::fs::create_dir(&directory).expect("create");
    let listener = UnixListener::bind(directory.join("socket")).expect("listen");
    for path in [lab.path(), &directory, &directory.join("socket")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("open it");
    }
    listener
}

/// The number of the descriptor that arrives; it stays open.
fn received(listener: UnixListener) -> std::thread::JoinHandle<RawFd> {
    std::thread::spawn(move || {
        listener.set_nonblocking(true).expect("a flag");
        let deadline = Instant::now() + Duration::from_secs(30);
        let line = loop {
            match listener.accept() {
                Ok((line, _)) => break line,
                Err(error) => assert!(Instant::now() < deadline, "nobody connects: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        line.set_nonblocking(false).expect("a flag");
        let mut byte = [0];
        let mut buffer = nix::cmsg_space!([RawFd; 1]);
        let mut pieces = [IoSliceMut::new(&mut byte)];
        let message = nix::sys::socket::recvmsg::<()>(
            line.as_raw_fd(),
            &mut pieces,
            Some(&mut buffer),
            nix::sys::socket::MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .expect("a message");
        let mut controls = message.cmsgs().expect("control messages");
        let Some(nix::sys::socket::ControlMessageOwned::ScmRights(files)) = controls.next() else {
            panic!("no descriptor")
        };
        files[0]
    })
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Attack: OUT-3, CVE-2024-27297, CVE-2025-46416. Layer: writer gate
#[test]
fn an_output_that_somebody_can_still_write_to_is_refused() {
    for (what, make) in [
        ("a file", "open(out, 'w').write('good'); file = os.open(out, os.O_RDWR)"),
        ("a file below", "os.mkdir(out); file = os.open(out + '/f', os.O_RDWR | os.O_CREAT)"),
        (
            "a mapping",
            "open(out, 'w').write('good'); file = os.open(out, os.O_RDWR); import mmap; m = mmap.mmap(file, 4)",
        ),
    ] {
        let leak = |file: &str| {
            let lab = Lab::new();
            let receiver = received(listener(&lab));
            let shown = format!("/shown={}", lab.path().join("shown").display());
            let recipe = python("leak", &format!("{SEND}{make}\nsend({file})"));
            let result = lab.make_json(&recipe, &["--allow-path", &shown, "--profile", "host-tools"]);
            (result, receiver.join().unwrap_or_else(|_| panic!("{what}: nothing arrives")), lab)
        };
        let ((code, result), leaked, _lab) = leak("file");
        assert_eq!((code, text(&result, "/status")), (1, "OutputRejected"), "{what}: {result:#}");
        assert!(text(&result, "/errorMsg").contains("is still open for writing"), "{what}: {result:#}");
        // Control: it was one that could be written through.
        let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{leaked}")).expect("an open descriptor");
        let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        assert_eq!(
            u32::from_str_radix(flags.trim(), 8).expect("an octal number") & 3,
            2,
            "it reads and writes: {facts}"
        );
        // Control: the same build with a descriptor that only reads is taken.
        let ((code, result), _, _lab) =
            leak("os.open(file if isinstance(file, str) else f'/proc/self/fd/{file}', os.O_RDONLY)");
        assert_eq!((code, text(&result, "/status")), (102, "HashMismatch"), "{what}: {result:#}");
    }
}

/// Attack: OUT-1. Layer: link count
#[test]
fn an_output_that_is_linked_from_elsewhere_is_refused() {
    let lab = Lab::new();
    let script = waiting("mkdir $out; echo good > $out/f; ln $out/f $out/g; ln $out/f /nix/store/h");
    let recipe = Recipe::new("linked", &script);
    let held = lab.path().join("held");
    let (code, result) = during(&lab, &recipe, &[], |scratch| {
        let file = scratch.join("store").join(recipe.out().base_name()).join("f");
        std::fs::hard_link(file, &held).expect("link");
    });
    assert_eq!((code, text(&result, "/status")), (1, "OutputRejected"), "{result:#}");
    assert!(text(&result, "/errorMsg").contains("is linked from outside of this build"), "{result:#}");
    // Control: links that the build made among its own files are its own business.
    let (code, result) = during(&Lab::new(), &recipe, &[], |_| {});
    assert_eq!((code, text(&result, "/status")), (0, "Built"), "{result:#}");
}

/// Attack: OUT-1, the hard link to an input of Nix 1.4. Layer: each input is a mount of its own
#[test]
fn an_input_cannot_be_linked_into_an_output() {
    let lab = Lab::new();
    let input = lab.directory("input", "precious");
    let script = format!(
        "mkdir $out; ln {input}/file $out/f; ln -s {input}/file $out/s; ln $out/s $out/t; ls $out > $out/said; :"
    );
    let out = lab.made(&Recipe::new("link-to-input", &script).source(&input), &[]);
    assert_eq!(std::fs::read_to_string(out.join("said")).expect("read"), "s\nsaid\nt\n");
    let metadata = std::fs::metadata(lab.real(&input).join("file")).expect("metadata");
    assert_eq!(metadata.nlink(), 1);
}

/// Attack: OUT-2, FS-3, OUT-4, CVE-2024-38531, CVE-2024-52867. Layer: scratch below two closed directories
#[test]
fn nobody_else_can_reach_a_build_while_it_runs() {
    let lab = Lab::new();
    let script = waiting("mkdir $out; echo x > $out/f; chmod 777 . $out; chmod 666 $out/f");
    let recipe = Recipe::new("open", &script);
    let (code, result) = during(&lab, &recipe, &[], |scratch| {
        let parent = scratch.parent().expect("a parent");
        for directory in [scratch, parent] {
            let metadata = std::fs::symlink_metadata(directory).expect("metadata");
            assert_eq!(metadata.mode() & 0o7777, 0o700, "{}", directory.display());
            assert_eq!(metadata.uid(), nix::unistd::geteuid().as_raw(), "{}", directory.display());
        }
        // Control: what is inside would be open to everyone.
        let inside = std::fs::symlink_metadata(scratch.join("store").join(recipe.out().base_name())).expect("metadata");
        assert_eq!(inside.mode() & 0o777, 0o777);
        assert!(!lab.real(&recipe.out()).exists(), "nothing is in the store before it is checked");
    });
    assert_eq!(code, 1, "{result:#}");
}

/// Attack: OUT-5, CVE-2025-52992. Layer: failed outputs never leave scratch
#[test]
fn failed_outputs_never_reach_the_store() {
    let lab = Lab::new();
    let script = "mkdir $out; echo x > $out/f; chmod 666 $out/f; chmod 777 $out; exit 3";
    for arguments in [&[][..], &["--keep-failed"]] {
        let recipe = Recipe::new("fails", script);
        let (code, result) = lab.make_json(&recipe, arguments);
        assert_eq!(code, 100, "{result:#}");
        assert!(!lab.real(&recipe.out()).exists());
        if let Some(kept) = result["kept"].as_str() {
            let mode = |path: &Path| std::fs::symlink_metadata(path).expect("metadata").mode() & 0o777;
            assert_eq!((mode(Path::new(kept)), mode(Path::new(kept).parent().expect("a parent"))), (0o700, 0o700));
        }
    }
}

/// Attack: OUT-13. Layer: the check comes before the move
#[test]
fn what_does_not_match_its_hash_never_reaches_the_store() {
    let lab = Lab::new();
    let recipe = Recipe::new("wrong", "printf bad > $out").fixed_to("good");
    let (code, result) = lab.make_json(&recipe, &[]);
    assert_eq!((code, text(&result, "/status")), (102, "HashMismatch"), "{result:#}");
    let names: Vec<PathBuf> = std::fs::read_dir(lab.store().join("nix/store"))
        .expect("list")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with("-wrong"))
        .collect();
    assert!(names.is_empty(), "neither under the expected name nor under its own");
}

/// Attack: OUT-6. Layer: removal by descriptor of what this build made
#[test]
fn a_failed_build_leaves_a_valid_output_alone() {
    let lab = Lab::new();
    let recipe = Recipe::new("two", &waiting("mkdir $out $dev; echo kept > $dev/f")).output("dev");
    let (code, result) = during(&lab, &recipe, &[], |_| {});
    assert_eq!(code, 0, "{result:#}");
    let dev = lab.real(&recipe.output_path("dev")).join("f");
    let before = std::fs::metadata(&dev).expect("metadata").ino();
    let run = lab.fodder(&["store", "gc", "--delete", "--store", text_of(&lab.store()), &recipe.out().to_string()]);
    assert_eq!(run.code, 0, "{run:?}");
    let (code, result) =
        during(&lab, &recipe, &[], |scratch| std::fs::write(scratch.join("build/fail"), "").expect("write"));
    assert_eq!(code, 100, "{result:#}");
    assert_eq!(std::fs::metadata(&dev).expect("metadata").ino(), before);
    let run = lab.fodder(&["store", "verify", "--check-contents", "--store", text_of(&lab.store())]);
    assert_eq!(run.code, 0, "{run:?}");
}

/// Attack: OUT-7, CVE-2026-39860. Layer: copies are made where no builder can write
#[test]
fn links_under_names_that_could_be_guessed_lead_nowhere() {
    let lab = Lab::new();
    let canary = lab.write("canary", "untouched");
    let recipe = Recipe::new(
        "guess",
        &format!(
            "for n in $out.tmp $out.check $out.lock $out-1 /nix/store/x /nix/store/.links /nix/store/tmp; do ln -s {} $n; done; mkdir $out",
            canary.display()
        ),
    );
    lab.made(&recipe, &[]);
    assert_eq!(std::fs::read_to_string(&canary).expect("read"), "untouched");
}

/// Attack: OUT-8. Layer: the filter, and canonical form
#[test]
fn extended_attributes_do_not_survive() {
    let script = waiting("mkdir $out; echo x > $out/f");
    let recipe = Recipe::new("attributes", &script);
    let lab = Lab::new();
    let attribute = |path: &Path| {
        let mut buffer = [0; 64];
        rustix::fs::getxattr(path, "user.evil", &mut buffer[..])
    };
    // As if the filter had a hole: set from outside, while the build runs.
    let (code, result) = during(&lab, &recipe, &[], |scratch| {
        let out = scratch.join("store").join(recipe.out().base_name());
        for path in [out.clone(), out.join("f")] {
            rustix::fs::setxattr(&path, "user.evil", b"x", rustix::fs::XattrFlags::empty()).expect("set an attribute");
            assert_eq!(attribute(&path), Ok(1), "control: it is there");
        }
    });
    assert_eq!(code, 0, "{result:#}");
    let out = lab.real(&recipe.out());
    for path in [out.clone(), out.join("f")] {
        assert_eq!(attribute(&path), Err(rustix::io::Errno::NODATA));
    }
}

/// Attack: OUT-9. Layer: types are asked for before anything is opened
#[test]
fn special_files_are_refused_wherever_they_are() {
    let lab = Lab::new();
    for (name, script) in [
        ("fifo", "mkfifo $out"),
        ("fifo-below", "mkdir -p $out/a; mkfifo $out/a/b"),
        ("device", "mknod $out c 0 0"),
        ("device-below", "mkdir $out; mknod $out/white c 0 0"),
    ] {
        let (code, result) = lab.make_json(&Recipe::new(name, script), &[]);
        assert_eq!((code, text(&result, "/status")), (1, "OutputRejected"), "{name}: {result:#}");
        assert!(text(&result, "/errorMsg").contains("has an unsupported type"), "{name}: {result:#}");
    }
}

/// Attack: OUT-10. Layer: names are bytes, and messages are escaped
#[test]
fn odd_names_are_names() {
    let lab = Lab::new();
    let script = "mkdir $out; cd $out; for n in 'a\nb' '\\033[31mred' '\\377\\376' ' ' '-rf' '...'; do echo > \"$(printf \"$n.\")\"; done";
    let out = lab.made(&Recipe::new("odd", script), &[]);
    assert_eq!(std::fs::read_dir(&out).expect("list").count(), 6);
    let script = "mkdir $out; mkfifo \"$out/$(printf '\\033[2J\\rfaked\\nline')\"";
    let run = lab.make(&Recipe::new("escape", script), &[]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("faked"), "{run:?}");
    assert!(
        !run.stderr.contains("\u{1b}[2J") && !run.stderr.contains('\r') && !run.stderr.contains("\nline"),
        "{run:?}"
    );
}

/// Attack: OUT-12. Layer: links are read and never followed
#[test]
fn links_out_of_the_tree_are_data() {
    let lab = Lab::new();
    let canary = lab.write("canary", "secret");
    std::fs::set_permissions(&canary, std::fs::Permissions::from_mode(0o600)).expect("close it");
    let outside = lab.path().join("directory");
    std::fs::create_dir(&outside).expect("create");
    std::fs::write(outside.join("file"), "x").expect("write");
    let target = |path: &Path| path.display().to_string();
    let script = format!(
        "mkdir $out; ln -s {} $out/file; ln -s {} $out/directory; ln -s / $out/root",
        target(&canary),
        target(&outside)
    );
    let before = std::fs::metadata(&canary).expect("metadata");
    let out = lab.made(&Recipe::new("links-out", &script), &[]);
    assert_eq!(std::fs::read_link(out.join("file")).expect("a link"), canary);
    let after = std::fs::metadata(&canary).expect("metadata");
    assert_eq!((before.mode(), before.atime(), before.ctime()), (after.mode(), after.atime(), after.ctime()));
    let whole = lab.made(&Recipe::new("link-out", &format!("ln -s {} $out", target(&canary))), &[]);
    assert_eq!(std::fs::read_link(&whole).expect("a link"), canary);
    assert_eq!(
        std::fs::metadata(outside.join("file")).expect("metadata").mode() & 0o222,
        0o200,
        "nothing was made canonical there"
    );
}

/// Attack: PROC-9. Layer: the output is read when the process namespace is gone
#[test]
fn a_daemon_that_goes_on_writing_changes_nothing() {
    let lab = Lab::new();
    let script = "echo first > $out; (trap '' TERM HUP INT; setsid sh -c 'while :; do echo later > $out; done' &) ; sleep 0.2; echo last > $out.x; mv -f $out.x $out";
    let out = lab.made(&Recipe::new("daemon", script), &[]);
    let said = std::fs::read(&out).expect("read");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(std::fs::read(&out).expect("read"), said);
    let run = lab.fodder(&["store", "verify", "--check-contents", "--store", text_of(&lab.store())]);
    assert_eq!(run.code, 0, "{run:?}");
}
