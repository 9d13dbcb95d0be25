//! All tests again as a user without any privilege, when this is root.

use crate::lab::is_root;
use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

/// Nobody on a test machine.
const ORDINARY: u32 = 23_456;

#[test]
fn everything_holds_for_an_ordinary_user() {
    if !is_root() {
        return; // It just did.
    }
    // Copies, since the build directory of cargo may be root's alone.
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (tests, helper, scratch) =
        (place.path().join("tests"), place.path().join("helper"), place.path().join("scratch"));
    let copy = |from: &Path, to: &Path| {
        fs::write(to, fs::read(from).unwrap()).unwrap();
        fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
    };
    copy(&std::env::current_exe().unwrap(), &tests);
    copy(Path::new(env!("CARGO_BIN_EXE_fodder-sandbox-helper")), &helper);
    fs::create_dir(&scratch).unwrap();
    chown(&scratch, Some(ORDINARY), Some(ORDINARY)).unwrap();

    let mut command = Command::new(&tests);
    command.args(["--skip", "ordinary_user::"]).env("FODDER_TEST_HELPER", &helper).env("TMPDIR", &scratch);
    let output = command.uid(ORDINARY).gid(ORDINARY).current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "as uid {ORDINARY}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test process::the_builder_is_its_inside_ids_and_nobody_else ... ok"), "{text}");
}
