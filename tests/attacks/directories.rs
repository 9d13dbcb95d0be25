//! The directories of a build while it runs, and what it is built from.

use crate::{
    attacks::{during, waiting},
    lab::Lab,
    recipe::Recipe,
};
use std::{os::unix::fs::MetadataExt, path::Path};

/// Attack: FS-3, PROC-11. Layer: each directory has one owner, which is never root.
#[test]
fn a_build_works_in_directories_of_its_own_and_root_is_not_the_builder() {
    let lab = Lab::new();
    let recipe = Recipe::new("works", &waiting("echo > $out"));
    let (code, result) = during(&lab, &recipe, &[], |scratch| {
        let status = |part: &str| std::fs::symlink_metadata(scratch.join(part)).expect(part);
        for (part, mode) in [("build", 0o700), ("tmp", 0o1777), ("store", 0o1775)] {
            assert_eq!(status(part).mode() & 0o7777, mode, "{part}");
        }
        let (ours, theirs) = (nix::unistd::geteuid().as_raw(), status("build").uid());
        assert_eq!(theirs == ours, ours != 0, "{theirs}");
        let output = status("store").uid();
        assert_eq!((output, status(&format!("store/{}", recipe.out().base_name())).uid()), (theirs, theirs));
    });
    assert_eq!(code, 0, "{result:#}");
}

/// A source that nothing else keeps, while somebody collects garbage.
///
/// Attack: OUT-14 (a collector beside a build). Layer: inputs are temporary roots before they are looked for.
#[test]
fn a_source_stays_until_the_build_is_over() {
    let lab = Lab::new();
    let source = lab.text("source", "still here");
    // Named by no file that a process has open, and by no variable.
    let recipe = Recipe::new("reads", &waiting(&format!("cat {source} > $out"))).source(&source);
    let collect = || {
        let store = lab.store();
        let run = lab.run(lab.command(&["store", "gc", "--store", store.to_str().expect("UTF-8")]));
        assert_eq!(run.code, 0, "{run:?}");
    };
    let (code, result) = during(&lab, &recipe, &[], |_: &Path| {
        collect();
        assert!(lab.real(&source).exists(), "it is being built from");
    });
    assert_eq!(code, 0, "{result:#}");
    collect();
    assert!(!lab.real(&source).exists(), "control: nothing else keeps it");
}
