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
    for path in ["relative", "/a//b", "/a/", "/a/./b", "/..", ""] {
        let refused = message(&format!("[[entry]]\nmirror = \"{path}\"\nwhy = \"x\""));
        assert!(refused.ends_with("is not a clean absolute path"), "{refused}");
    }
    assert!(
        message("extends = \"nix\"\n[[entry]]\nproc = \"/proc\"\nwhy = \"again\"").contains("'/proc' is there twice")
    );
    assert!(message("extends = \"gentoo\"").contains("which is none of nix, host-tools"));
    assert!(message("entri = 1").contains("unknown field `entri`"));
    assert!(message("[[entry]]\nmirror = \"/usr\"\nproc = \"/proc\"\nwhy = \"x\"").contains("exactly one of"));
    assert!(message("[[entry]]\nbind = \"/x\"\nsource = \"y\"\nwhy = \"x\"").contains("'y' is neither"));
}

/// Attack: FS-6, FS-10. Layer: what a profile shows is read-only unless it says otherwise, and only what is scratch says so.
#[test]
fn nothing_of_the_hosts_is_writable_in_a_built_in_profile() {
    for name in NAMES {
        for entry in parse(name, built_in(name).unwrap()).unwrap().entries {
            if let Item::Bind { path, source, access, device: _ } = entry.item {
                let is_scratch = matches!(source, Source::Build | Source::Temporary | Source::Store);
                assert_eq!(access == Access::ReadWrite, is_scratch, "{path} of {name}");
            }
        }
    }
}

/// Attack: DRV-3. Layer: a weakening lifts its own lines of the policy and no other's.
#[test]
fn a_flag_lifts_what_it_names() {
    let policy = parse("nix", built_in("nix").unwrap()).unwrap().seccomp;
    assert_eq!(policy.lifted(&BTreeSet::new()), policy);
    for weakening in crate::sandbox::Weakening::ALL {
        let lifted = policy.lifted(&[weakening].into());
        for (before, after) in policy.rules.iter().zip(&lifted.rules) {
            assert_eq!(before.action != after.action, before.lifted_by == Some(weakening), "{}", before.why);
        }
        assert_ne!(lifted, policy);
    }
}
