//! The short form is sugar: real Nix builds what `fodder show` prints, to the same path and contents.

use super::nix::Nix;
use crate::{lab::need, recipe::text};
use fodder_model::store_path::StorePath;
use std::{os::unix::fs::PermissionsExt, path::Path};

/// What the host-tools profile shows, as Nix's setting.
fn host_paths() -> String {
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Builds a short form with fodder, hands the derivation with its sources to real Nix, builds it there and compares.
#[track_caller]
fn same(nix: &Nix, name: &str, form: &serde_json::Value) {
    need("bash", "bash");
    let file = nix.lab.write(&format!("{name}.json"), form.to_string());
    let file = file.to_str().expect("UTF-8");
    let (code, result) = nix.lab.build_json(&["--cores", "3", file]);
    assert_eq!(code, 0, "{name}: {result:#}");
    let path: StorePath = text(&result, "/drvPath").parse().expect("a store path");
    let shown = nix.lab.fodder(&["show", "--format", "path", file]);
    assert_eq!(shown.stdout.trim(), path.to_string());

    // Nix copies the derivation's closure out of fodder's store by itself, and checks every path on the way.
    let from = nix.lab.store();
    let to = nix.store();
    let arguments =
        ["copy", "--no-check-sigs", "--from", from.to_str().expect("UTF-8"), "--to", to.to_str().expect("UTF-8")];
    nix.run("nix", &[&arguments[..], &["--derivation", &path.to_string()]].concat());
    let run = nix.realise(&path, &["--option", "sandbox-paths", &host_paths()]);
    assert_eq!(run.code, 0, "{name}: {}", run.stderr);
    let outputs = result["outputs"].as_object().expect("outputs");
    assert!(!outputs.is_empty());
    for output in outputs.values() {
        let output_path: StorePath = text(output, "/path").parse().expect("a store path");
        let hash = fodder_model::hash::Hash::parse_sri(text(output, "/narHash")).expect("a hash");
        assert_eq!(nix.query("--hash", &output_path), [format!("sha256:{}", hash.to_nix32())], "{name}: {output_path}");
    }
}

#[test]
fn real_nix_builds_phases_to_the_same_outputs() {
    let nix = Nix::new();
    same(
        &nix,
        "phases",
        &serde_json::json!({
            "pname": "phases", "version": "1.0", "dontUnpack": true, "outputs": ["out", "doc"],
            "buildPhase": ["runHook preBuild", "echo built > file", "runHook postBuild"],
            "preBuild": "echo before", "postBuild": "echo after >> file",
            "installPhase": "mkdir -p $out/bin $doc; cp file $out; printf '#!/bin/sh\\necho $1\\n' > $out/bin/x; chmod +x $out/bin/x; echo $name > $doc/name",
            "greeting": "grüß 'Gott'", "numbers": [1, 2], "yes": true,
        }),
    );
}

#[test]
fn real_nix_builds_sources_and_fixed_outputs_alike() {
    let nix = Nix::new();
    nix.lab
        .write("project/Makefile", "all:\n\techo made > made\ninstall:\n\tmkdir -p $(PREFIX)\n\tcp made $(PREFIX)\n");
    let script = nix.lab.write("project/script.sh", "#!/bin/sh\n");
    std::fs::set_permissions(script, PermissionsExt::from_mode(0o755)).expect("chmod");
    same(
        &nix,
        "source",
        &serde_json::json!({
            "name": "source", "src": "./project", "buildPhase": "test -x script.sh; echo made > made",
            "installPhase": "mkdir $out; cp made $out",
        }),
    );
    same(
        &nix,
        "fixed",
        &serde_json::json!({
            "name": "fixed", "dontUnpack": true, "installPhase": "echo hi > $out",
            "outputHash": "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=", "outputHashMode": "flat",
        }),
    );
}
