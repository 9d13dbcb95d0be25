//! Profiles: the built-in ones, and texts that are refused.

use super::*;

#[test]
fn the_compiled_in_profiles_read_and_every_entry_has_a_reason() {
    for name in NAMES {
        let profile = parse(name, built_in(name).unwrap()).unwrap();
        assert_eq!(profile.name, name);
        assert!(profile.entries.len() > 20);
        assert!(!profile.summary.is_empty());
        for rule in &profile.seccomp.rules {
            assert!(rule.why.len() > 10 && !rule.calls.is_empty(), "{rule:?}");
        }
    }
}

#[test]
fn a_bad_profile_is_refused_with_the_entry_named() {
    let message = |text: &str| parse("mine", text).unwrap_err().to_string();
    assert_eq!(message("[[entry]]\nmirror = \"/usr\"\nwhy = \"\""), "profile 'mine', entry 1: it has no 'why'");
    assert_eq!(
        message("[[entry]]\nmirror = \"/a/../b\"\nwhy = \"x\""),
        "profile 'mine', entry 1: '/a/../b' is not a clean absolute path"
    );
    assert!(
        message("extends = \"nix\"\n[[entry]]\nproc = \"/proc\"\nwhy = \"again\"").contains("'/proc' is there twice")
    );
    assert!(message("extends = \"gentoo\"").contains("which is none of nix, host-tools"));
    assert!(message("entri = 1").contains("unknown field `entri`"));
    assert!(message("[[entry]]\nmirror = \"/usr\"\nproc = \"/proc\"\nwhy = \"x\"").contains("exactly one of"));
    assert!(message("[[entry]]\nbind = \"/x\"\nsource = \"y\"\nwhy = \"x\"").contains("'y' is neither"));
}
