//! What a newcomer should know about a builder that failed, read from the end of its log. Words only: nothing is decided by them.

use crate::{load::InputFormat, network_problem::BAD_CERTIFICATE};
use fodder_model::plan::{BuildPlan, NetworkMode};

/// Notes for the result.
pub(crate) fn advice(plan: &BuildPlan, format: InputFormat, tail: &[String]) -> Vec<String> {
    let has_network = match plan.network.mode {
        NetworkMode::Gateway | NetworkMode::Host => true,
        NetworkMode::None => false,
    };
    let bundle = plan.certificates.as_ref().map(|bundle| (bundle.path.to_string(), bundle.origin.as_str()));
    from_log(
        tail,
        matches!(format, InputFormat::ShortForm),
        plan.content.is_some_and(|content| content.declared.is_some()),
        has_network,
        bundle,
    )
}

fn from_log(
    tail: &[String],
    is_short_form: bool,
    is_fixed: bool,
    has_network: bool,
    bundle: Option<(String, &str)>,
) -> Vec<String> {
    let says = |words: &[&str]| tail.iter().any(|line| words.iter().any(|words| line.contains(words)));
    let mut notes = Vec::new();
    if let Some(command) = tail.iter().find_map(|line| missing_command(line))
        && is_short_form
    {
        notes.push(format!(
            "'{command}' was not found inside; tools from outside the system directories are there only if \
             'nativeBuildInputs' names them"
        ));
    }
    if !is_fixed && !has_network && says(&NO_NETWORK) {
        notes.push(
            "this derivation declares no output hash, so it has no network; declare one ('outputHash', empty to be told it)"
                .to_owned(),
        );
    }
    if let Some((path, origin)) = bundle.filter(|_| has_network && says(&BAD_CERTIFICATE)) {
        notes.push(format!(
            "servers are verified with the certificates in '{path}' ({origin}); name other ones with --ca-file"
        ));
    }
    if says(&["/homeless-shelter"]) {
        notes.push(
            "there is no home directory, on purpose and as under Nix; set HOME to a directory of the build, such as $TMPDIR"
                .to_owned(),
        );
    }
    notes
}

/// What libc, curl, wget, git and Python say without a network.
const NO_NETWORK: [&str; 4] =
    ["Network is unreachable", "Could not resolve host", "unable to resolve host", "failure in name resolution"];

/// `…: NAME: command not found` (bash), `…: NAME: not found` (dash, busybox), `env: 'NAME': No such file or directory`.
fn missing_command(line: &str) -> Option<&str> {
    let before = line.strip_suffix(": command not found").or_else(|| line.strip_suffix(": not found"));
    let name = match before {
        Some(before) => before.rsplit(": ").next()?,
        None => line.split_once("env: ")?.1.strip_suffix(": No such file or directory")?,
    };
    let name = name.trim_matches(|quote| "'‘’".contains(quote));
    let is_command =
        !name.is_empty() && !name.contains(|character: char| character.is_whitespace() || character == '/');
    is_command.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(line: &str, is_fixed: bool, has_network: bool) -> Vec<String> {
        let bundle = has_network.then(|| ("/ca.pem".to_owned(), "--ca-file"));
        from_log(&["first".to_owned(), line.to_owned()], true, is_fixed, has_network, bundle)
    }

    #[test]
    fn commands_that_were_not_found_are_named() {
        for line in [
            "/nix/store/x-fodder-setup.sh: line 786: cargo: command not found",
            "sh: 1: cargo: not found",
            "/usr/bin/env: 'cargo': No such file or directory",
            "/usr/bin/env: ‘cargo’: No such file or directory",
        ] {
            assert_eq!(missing_command(line), Some("cargo"), "{line}");
            assert!(notes(line, true, true)[0].starts_with("'cargo' was not found inside"), "{line}");
        }
        for line in [
            "404 Not Found",
            "page: not found",
            "error: the file was: not found here",
            "cat: x: No such file or directory",
        ] {
            assert!(missing_command(line).is_none_or(|name| name == "page"), "{line}");
        }
        assert_eq!(
            from_log(&["a: b: not found".to_owned()], false, true, true, None),
            [""; 0],
            "Nix's own have no such attribute"
        );
    }

    #[test]
    fn advice_fits_what_was_denied() {
        let line = "curl: (6) Could not resolve host: example.com";
        assert!(notes(line, false, false)[0].contains("declares no output hash"));
        assert_eq!(notes(line, true, true), [""; 0], "there the network itself is to blame");
        let line = "curl: (60) SSL certificate problem: unable to get local issuer certificate";
        assert!(notes(line, true, true)[0].contains("'/ca.pem' (--ca-file)"));
        assert_eq!(notes(line, false, false), [""; 0]);
        assert!(notes("mkdir: cannot create directory '/homeless-shelter'", true, true)[0].contains("HOME"));
        assert_eq!(notes("all is well", false, false), [""; 0]);
    }
}
