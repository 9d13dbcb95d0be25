//! What the short form reads, refuses and becomes.

use super::*;
use crate::{
    derivation::{Derivation, Kind, aterm},
    json::parse,
};
use serde_json::json;

fn setup() -> StorePath {
    StorePath::from_base_name("7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-fodder-setup.sh").unwrap()
}

fn source() -> StorePath {
    StorePath::from_base_name("k6acb82mmxnvhglc719q86vxnamq9rcl-src").unwrap()
}

fn make(value: &serde_json::Value) -> Result<Derivation, InputError> {
    let form = read(&parse(value.to_string().as_bytes())?)?;
    desugar(&form, &[("./src".to_owned(), source())].into(), &setup(), "x86_64-linux")
}

fn message(value: &serde_json::Value) -> String {
    let error = make(value).unwrap_err();
    format!("{error}{}", error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())
}

fn variable(derivation: &Derivation, name: &str) -> Option<String> {
    derivation.environment.get(&name.into()).map(|value| value.to_string())
}

#[test]
fn phases_become_an_ordinary_derivation() {
    let derivation = make(&json!({
        "pname": "demo", "version": "1.0", "src": "./src", "dontUnpack": true, "dontFixup": false,
        "buildPhase": ["runHook preBuild", "make"], "N": 3, "F": 1.5, "L": ["a", "b c", true], "Z": null,
        "env": { "CC": "cc" }, "nativeBuildInputs": ["git", "/opt/x/bin/x"]
    }))
    .unwrap();
    assert_eq!(derivation.name, "demo-1.0");
    assert_eq!(derivation.kind(), Kind::InputAddressed);
    assert_eq!(derivation.builder, "/bin/bash");
    assert_eq!(derivation.arguments, ["-e", setup().to_string().as_str()]);
    assert_eq!(derivation.input_sources, [setup(), source()].into());
    for (name, expected) in [
        ("buildPhase", "runHook preBuild\\nmake\\n"),
        ("dontUnpack", "1"),
        ("dontFixup", ""),
        ("N", "3"),
        ("F", "1.500000"),
        ("L", "a b c 1"),
        ("CC", "cc"),
        ("src", &source().to_string()),
        ("nativeBuildInputs", "git /opt/x/bin/x"),
        ("HOME", "/build/.home"),
        ("name", "demo-1.0"),
        ("pname", "demo"),
    ] {
        assert_eq!(variable(&derivation, name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(variable(&derivation, "Z"), None);
    assert_eq!(variable(&derivation, "SSL_CERT_FILE"), None, "certificates are for fixed outputs");
    assert!(variable(&derivation, "out").unwrap().ends_with("-demo-1.0"));
    let text = aterm::write(&derivation);
    assert_eq!(aterm::parse("demo-1.0", &text).unwrap(), derivation);
}

#[test]
fn an_output_hash_makes_it_fixed_and_nothing_else_does() {
    let of = |value: serde_json::Value| make(&value).unwrap();
    let fixed = of(json!({"name": "x", "outputHash": "", "outputHashMode": "recursive", "outputHashAlgo": "sha256"}));
    assert!(fixed.fixed_content().unwrap().hash.is_zero());
    assert_eq!(variable(&fixed, "GIT_SSL_CAINFO").as_deref(), Some("/etc/ssl/certs/ca-certificates.crt"));
    assert_eq!(variable(&fixed, "outputHash").as_deref(), Some(""));
    let in_env = of(json!({"name": "x", "env": {"outputHash": "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q="}}));
    assert_eq!(in_env.kind(), Kind::InputAddressed);
    let own = of(json!({"name": "x", "outputHash": "", "SSL_CERT_FILE": "/mine"}));
    assert_eq!(variable(&own, "SSL_CERT_FILE").as_deref(), Some("/mine"), "what the user wrote wins");
}

#[test]
fn structured_attributes_keep_their_types() {
    let derivation = make(&json!({"name": "x", "__structuredAttrs": true, "list": [1, "a b"], "object": {"k": true},
                                  "buildPhase": ["a", "b"], "env": {"CC": "cc"}, "outputs": ["out", "dev"]}))
    .unwrap();
    let attributes = derivation.structured_attributes.clone().unwrap();
    assert_eq!(attributes["list"], json!([1, "a b"]));
    assert_eq!(attributes["object"], json!({"k": true}));
    assert_eq!(attributes["buildPhase"], json!("a\nb\n"));
    assert_eq!(attributes["env"]["CC"], "cc");
    assert_eq!(attributes["env"]["HOME"], "/build/.home");
    assert_eq!(derivation.environment.len(), 2, "only the outputs are variables");
}

#[test]
fn an_own_builder_gets_what_it_asks_for_and_nothing_more() {
    let derivation = make(&json!({"name": "x", "builder": "/bin/sh", "args": ["-c", "echo hi > $out"]})).unwrap();
    assert_eq!(derivation.arguments, ["-c", "echo hi > $out"]);
    let names: Vec<_> = derivation.environment.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["builder", "name", "out", "system"]);
    assert!(derivation.input_sources.is_empty());
}

#[test]
fn sources_may_have_spaces_in_their_paths() {
    let sources = [("./my dir/a".to_owned(), source())].into();
    for value in [
        json!({"name": "x", "src": "./my dir/a"}),
        json!({"name": "x", "src": ["./my dir/a"]}),
        json!({"name": "x", "srcs": ["./my dir/a"]}),
    ] {
        let form = read(&parse(value.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(form.sources[0].path, "./my dir/a", "{value}");
        let derivation = desugar(&form, &sources, &setup(), "x86_64-linux").unwrap();
        assert!(derivation.input_sources.contains(&source()), "{value}");
        let given = variable(&derivation, "src").or(variable(&derivation, "srcs"));
        assert_eq!(given, Some(source().to_string()), "{value}");
    }
}

#[test]
fn store_paths_in_attributes_are_inputs() {
    let dependency = "/nix/store/k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt";
    let derivation =
        make(&json!({"name": "x", "buildPhase": format!("cat {dependency}/x; echo {dependency}")})).unwrap();
    let expected = StorePath::from_full_path(dependency).unwrap();
    assert_eq!(derivation.input_sources, [setup(), expected].into());
}

#[test]
fn sources_are_replaced_where_they_are_named_and_nowhere_else() {
    let path = source().to_string();
    let derivation =
        make(&json!({"name": "x", "src": "./src", "srcs": "./src  ./src", "nativeBuildInputs": ["git", "./src"],
                                  "buildInputs": ["./src"], "sourceRoot": "./src", "outputHash": ""}))
        .unwrap();
    for (name, expected) in [
        ("src", path.clone()),
        ("srcs", format!("{path} {path}")),
        ("nativeBuildInputs", format!("git {path}")),
        ("buildInputs", path.clone()),
        ("sourceRoot", "./src".to_owned()),
    ] {
        assert_eq!(variable(&derivation, name), Some(expected), "{name}");
    }
    assert_eq!(derivation.input_sources, [setup(), source()].into());
}

#[test]
fn bad_short_forms_are_refused_with_advice() {
    for (value, expected) in [
        (
            json!({"name": "x", "buildphase": ""}),
            "at $.buildphase: unknown attribute 'buildphase' (did you mean 'buildPhase'?",
        ),
        (json!({"pname": "x"}), "at $: there is a 'pname' and no 'version'"),
        (json!({"buildPhase": ""}), "at $: there is no 'name'"),
        (json!({"name": "a/b"}), "at $.name: name 'a/b' contains illegal character '/'"),
        (
            json!({"name": "x", "buildPhase": 1}),
            "at $.buildPhase: expected a value of type 'string' but it is of type 'number': 1",
        ),
        (json!({"name": "x", "buildPhase": ["a", 1]}), "at $.buildPhase[1]: expected a value of type 'string'"),
        (json!({"name": "x", "dontUnpack": "yes"}), "at $.dontUnpack: expected true or false, found a string: \"yes\""),
        (json!({"name": "x", "outputs": {}}), "at $.outputs: expected an array of strings, or a string"),
        (json!({"name": "x", "outputs": ["out", ".."]}), "at $: output name '..' is not valid: name '..' is not valid"),
        (
            json!({"name": "x", "outputHash": "sha256-mOpu"}),
            "at $.outputHash: invalid SRI hash 'mOpu', length 3 != expected length 32",
        ),
        (json!({"name": "x", "outputHash": "98ea"}), "at $.outputHash: hash '98ea' does not include a type"),
        (
            json!({"name": "x", "outputHash": "", "outputHashAlgo": "sha3"}),
            "at $.outputHashAlgo: unknown hash algorithm 'sha3'",
        ),
        (
            json!({"name": "x", "outputHash": "", "outputHashMode": "tree"}),
            "at $.outputHashMode: invalid value 'tree' for 'outputHashMode' attribute",
        ),
        (
            json!({"name": "x", "outputHash": "", "outputs": ["out", "dev"]}),
            "at $.outputs: multiple outputs are not supported in fixed-output derivations",
        ),
        (
            json!({"name": "x", "outputHash": "", "outputHashMode": "git", "outputHashAlgo": "md5"}),
            "at $: output 'out': method 'git' cannot be used with 'md5'",
        ),
        (json!({"name": "x", "src": "src"}), "at $.src: 'src' is not a path (write './src'"),
        (
            json!({"name": "x", "src": "https://example.com/x.tar.gz"}),
            "at $.src: 'https://example.com/x.tar.gz' is a URL",
        ),
        (
            json!({"name": "x", "nativeBuildInputs": ["bin/git"]}),
            "at $.nativeBuildInputs[0]: 'bin/git' is neither a command name nor an absolute path",
        ),
        (
            json!({"name": "x", "config": {"a": 1}}),
            "at $.config: an object cannot become the environment variable 'config'",
        ),
        (json!({"name": "x", "__noChroot": true}), "at $.__noChroot: there is no build without a sandbox"),
        (json!({"name": "x", "__noChroot": "1"}), "at $.__noChroot: there is no build without a sandbox"),
        (
            json!({"name": "x", "__contentAddressed": true, "__impure": true}),
            "at $: '__contentAddressed' and '__impure' exclude each other",
        ),
        (json!({"name": "x", "fodder": {"profile": "open"}}), "at $.fodder.profile: unknown profile 'open'"),
        (
            json!({"name": "x", "fodder": {"network": {"mode": "host"}}}),
            "at $.fodder.network.mode: a file cannot ask for the network 'host'",
        ),
        (
            json!({"name": "x", "fodder": {"limits": {"memory": "none"}}}),
            "at $.fodder.limits.memory: a file cannot lift the limit 'memory'",
        ),
        (
            json!({"name": "x", "fodder": {"profil": "nix"}}),
            "at $.fodder.profil: unknown setting 'profil' (did you mean 'profile'?)",
        ),
    ] {
        let found = message(&value);
        assert!(found.starts_with(expected), "{value}\n   found: {found}\nexpected: {expected}");
    }
}
