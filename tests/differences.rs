//! The page of differences from Nix is true: it names tests that exist, and every system call that is answered.

use fodder_model::{profile, sandbox::SeccompAction};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/differences-from-nix.md")).expect("the page")
}

/// All of the tests' sources.
fn sources(directory: &Path, kind: &str, text: &mut String) {
    for entry in std::fs::read_dir(directory).expect("list") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, kind, text);
        } else if path.extension().is_some_and(|extension| extension == kind) {
            text.push_str(&std::fs::read_to_string(&path).expect("read"));
        }
    }
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut text = String::new();
    sources(&root().join("tests"), "rs", &mut text);
    sources(&root().join("crates/sandbox/tests"), "rs", &mut text);
    sources(&root().join("crates/store/tests"), "rs", &mut text);
    let mut table = String::new();
    sources(&root().join("tests/oracle/cases"), "nix", &mut table);
    let page = page();
    let mut count = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| What")) {
        let cell = row.trim_end_matches('|').rsplit('|').next().expect("a cell").trim();
        let mut names = cell.split('`').skip(1).step_by(2);
        let name = names.next().unwrap_or_else(|| panic!("no test in {row}"));
        assert!(text.contains(&format!("fn {name}()")), "there is no test {name}");
        for case in names {
            assert!(table.contains(&format!("\n  {case} = ")), "{name} has no case {case}");
        }
        count += 1;
    }
    assert!(count > 20, "only {count} rows were understood");
}

#[test]
fn every_system_call_that_is_answered_beyond_nix_is_listed() {
    const NIX: [&str; 10] = [
        "chmod",
        "fchmod",
        "fchmodat",
        "fchmodat2",
        "getxattr",
        "lgetxattr",
        "fgetxattr",
        "setxattr",
        "lsetxattr",
        "fsetxattr",
    ];
    let page = page();
    let profile = profile::parse("nix", profile::built_in("nix").expect("a profile")).expect("the policy");
    let refusing = profile.seccomp.rules.iter().filter(|rule| rule.action != SeccompAction::Allow);
    // What Linux itself has no more cannot be told from Nix.
    let refusing = refusing.filter(|rule| !rule.why.starts_with("names without a call"));
    let calls: Vec<&str> = refusing.flat_map(|rule| rule.calls.iter().map(String::as_str)).collect();
    assert!(calls.len() > 40, "{calls:?}");
    for call in calls.into_iter().filter(|call| !NIX.contains(call)) {
        assert!(page.contains(&format!("`{call}`")), "{call} is not on the page");
    }
}
