//! Every generation reads to the same derivation, and each kind of bad input has its message.

use super::*;
use crate::json::parse;

const HI: &str = "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";
const HI_SRI: &str = "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=";
const OUT: &str = "0i45s0c9fpy4axymfm3m81njwvd2vrfv-fodflat";
const DRV: &str = "g9k4j2nykdrwa5zpgzkxdm408d485vay-fodflat.drv";

/// The exact line that Nix 2.34.8 prints (reference, section 1.1).
const VERSION_4: &str = r#"{"derivations":{"g9k4j2nykdrwa5zpgzkxdm408d485vay-fodflat.drv":{"args":["-c","echo hi > $out"],"builder":"/bin/sh","env":{"builder":"/bin/sh","name":"fodflat","out":"/nix/store/0i45s0c9fpy4axymfm3m81njwvd2vrfv-fodflat","outputHash":"98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4","outputHashAlgo":"sha256","outputHashMode":"flat","system":"x86_64-linux"},"inputs":{"drvs":{},"srcs":[]},"name":"fodflat","outputs":{"out":{"hash":"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=","method":"flat"}},"system":"x86_64-linux","version":4}},"version":4}"#;

fn env() -> serde_json::Value {
    json!({"builder": "/bin/sh", "name": "fodflat", "out": format!("/nix/store/{OUT}"), "outputHash": HI,
           "outputHashAlgo": "sha256", "outputHashMode": "flat", "system": "x86_64-linux"})
}

fn read_text(text: &str) -> Result<(Generation, DerivationSet), InputError> {
    read(&parse(text.as_bytes())?)
}

fn message(text: &str) -> String {
    read_text(text).unwrap_err().to_string()
}

#[test]
fn version_4_reads_and_writes_back_to_the_byte() {
    let (generation, set) = read_text(VERSION_4).unwrap();
    assert_eq!(generation, Generation::Version4);
    assert_eq!(write_set(&set), VERSION_4);
    let (path, derivation) = set.iter().next().unwrap();
    assert_eq!(paths::derivation_path(derivation).unwrap(), *path);
    paths::check(derivation, &set).unwrap();
}

#[test]
fn every_generation_reads_to_the_same_derivation() {
    let (_, expected) = read_text(VERSION_4).unwrap();
    let full = format!("/nix/store/{OUT}");
    let args = json!(["-c", "echo hi > $out"]);
    let legacy = |key: &str, extra: serde_json::Value, output: serde_json::Value, drvs: serde_json::Value| {
        let mut object = json!({ key: "x86_64-linux", "builder": "/bin/sh", "args": args, "env": env(),
                                 "inputSrcs": [], "inputDrvs": drvs, "outputs": {"out": output} });
        object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({ format!("/nix/store/{DRV}"): object }).to_string()
    };
    let old_output = json!({"path": full, "hashAlgo": "sha256", "hash": HI});
    let new_output = json!({"path": full, "method": "flat", "hashAlgo": "sha256", "hash": HI});
    let named = json!({"name": "fodflat"});
    let none = json!({});
    for (label, text, generation) in [
        ("A", legacy("platform", none.clone(), old_output.clone(), none.clone()), Generation::Legacy),
        ("B", legacy("system", none.clone(), old_output.clone(), none.clone()), Generation::Legacy),
        ("C, D", legacy("system", named.clone(), old_output, none.clone()), Generation::Legacy),
        ("E, F", legacy("system", named, new_output, none.clone()), Generation::Legacy),
        (
            "G",
            json!({ DRV: { "version": 3, "name": "fodflat", "system": "x86_64-linux", "builder": "/bin/sh", "args": args,
                           "env": env(), "inputSrcs": [], "inputDrvs": {},
                           "outputs": {"out": {"method": "flat", "hashAlgo": "sha256", "hash": HI}} } })
            .to_string(),
            Generation::Version3,
        ),
        (
            "resolved",
            json!({ "version": 4, "name": "fodflat", "system": "x86_64-linux", "builder": "/bin/sh", "args": args,
                    "env": env(), "inputs": [], "outputs": {"out": {"method": "flat", "hash": HI_SRI}} })
            .to_string(),
            Generation::Resolved,
        ),
    ] {
        let (found, set) = read_text(&text).unwrap_or_else(|error| panic!("{label}: {error}"));
        assert_eq!(set, expected, "{label}");
        assert_eq!(found, generation, "{label}");
    }
}

#[test]
fn method_prefixes_of_old_generations_are_understood() {
    let of = |output: serde_json::Value| {
        let text = json!({ format!("/nix/store/{DRV}"): { "system": "x", "builder": "/b", "args": [], "env": {"out": ""},
            "inputSrcs": [], "inputDrvs": {}, "outputs": {"out": output} } });
        read_text(&text.to_string()).unwrap().1.into_values().next().unwrap().outputs["out"].clone()
    };
    let hash = Hash::parse_any(HI, Some(HashAlgorithm::Sha256)).unwrap();
    assert_eq!(
        of(json!({"hashAlgo": "r:sha256", "hash": HI})),
        Output::Fixed { content: ContentAddress { method: ContentMethod::Nar, hash } }
    );
    assert_eq!(
        of(json!({"hashAlgo": "r:sha256"})),
        Output::Floating { method: ContentMethod::Nar, algorithm: HashAlgorithm::Sha256 }
    );
    assert_eq!(
        of(json!({"hashAlgo": "r:sha256", "impure": true})),
        Output::Impure { method: ContentMethod::Nar, algorithm: HashAlgorithm::Sha256 }
    );
}

#[test]
fn input_derivations_read_in_both_shapes() {
    let dependency = "/nix/store/cmjw9zscdp39w299jrjwiik9c1xr39p2-simple.drv";
    for value in [json!(["out"]), json!({"outputs": ["out"], "dynamicOutputs": {}})] {
        let text = json!({ format!("/nix/store/{DRV}"): { "system": "x", "builder": "/b", "args": [], "env": {"out": "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-user"},
            "name": "user", "inputSrcs": [], "inputDrvs": {dependency: value},
            "outputs": {"out": {"path": "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-user"}} } });
        let (_, set) = read_text(&text.to_string()).unwrap();
        let derivation = set.values().next().unwrap();
        assert_eq!(derivation.input_derivations.keys().next().unwrap().to_string(), dependency);
        assert!(matches!(paths::check(derivation, &set), Err(paths::PathsError::MissingDerivation { .. })));
    }
}

#[test]
fn bad_input_is_named_with_its_place() {
    let change = |from: &str, to: &str| {
        let text = VERSION_4.replacen(from, to, 1);
        assert_ne!(text, VERSION_4, "{from}");
        message(&text)
    };
    let at = r#"at $.derivations["g9k4j2nykdrwa5zpgzkxdm408d485vay-fodflat.drv"]"#;
    for (from, to, expected) in [
        (
            r#"},"version":4}"#,
            r#"},"version":5}"#,
            "at $.version: unsupported derivation JSON format version 5".to_owned(),
        ),
        (r#""version":4}}"#, r#""version":7}}"#, format!("{at}.version: unsupported derivation JSON format version 7")),
        (r#""args":["#, r#""argz":["#, format!("{at}.argz: unknown key 'argz'")),
        (r#""builder":"/bin/sh","env""#, r#""env""#, format!("{at}: expected the object to contain key 'builder'")),
        (
            r#"["-c","#,
            r#"[1,"#,
            format!("{at}.args[0]: expected a value of type 'string' but it is of type 'number': 1"),
        ),
        (HI_SRI, HI, format!("{at}.outputs.out.hash: hash '{HI}' is not SRI")),
        (
            r#""method":"flat""#,
            r#""method":"recursive""#,
            format!("{at}.outputs.out.method: unknown file ingestion method 'recursive'"),
        ),
        (r#","method":"flat""#, "", format!("{at}.outputs.out: invalid JSON for derivation output")),
        (r#""outputs":{"out""#, r#""outputs":{"lib""#, format!("{at}: single fixed output must be named \"out\"")),
        (
            r#""outputs":{"out":{"hash":"sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=","method":"flat"}}"#,
            r#""outputs":{}"#,
            format!("{at}: must have at least one output"),
        ),
        (
            r#""name":"fodflat","outputs""#,
            r#""name":"fod/flat","outputs""#,
            format!("{at}: name 'fod/flat.drv' contains illegal character '/'"),
        ),
        (
            r#""srcs":[]"#,
            r#""srcs":["/etc/passwd"]"#,
            format!("{at}.inputs.srcs[0]: path '/etc/passwd' is not in the Nix store '/nix/store'"),
        ),
        (
            r#""drvs":{}"#,
            &format!(r#""drvs":{{"{DRV}":[],"/nix/store/{DRV}":[]}}"#),
            format!("{at}.inputs.drvs[\"/nix/store/{DRV}\"]: '/nix/store/{DRV}' is there twice"),
        ),
        (
            r#""drvs":{}"#,
            &format!(r#""drvs":{{"{DRV}":{{"outputs":[],"dynamicOutputs":{{"out":{{}}}}}}}}"#),
            format!("{at}.inputs.drvs[\"{DRV}\"].dynamicOutputs: derivations with dynamic outputs are not supported"),
        ),
        ("echo hi > $out", "a\\u0000b", format!("{at}: argument 2 contains a NUL byte")),
        (r#""env":{"#, r#""env":{"__json":"{}","#, format!("{at}: cannot have an environment variable named '__json'")),
        (
            r#""name":"fodflat","out":"#,
            r#""name":"fodflat","name":"x","out":"#,
            format!("{at}.env.name: duplicate key 'name'"),
        ),
    ] {
        let found = change(from, to);
        assert!(found.starts_with(&expected), "{from} -> {to}\n   found: {found}\nexpected: {expected}");
    }
}

#[test]
fn a_derivation_that_is_there_twice_is_refused() {
    let one = &VERSION_4[VERSION_4.find("{\"args\"").unwrap()..VERSION_4.rfind("},\"version\"").unwrap()];
    let text = format!(r#"{{"derivations":{{"{DRV}":{one},"/nix/store/{DRV}":{one}}},"version":4}}"#);
    assert!(message(&text).contains("is there twice"), "{}", message(&text));
}

#[test]
fn a_variable_that_points_an_output_elsewhere_is_refused() {
    let text = VERSION_4.replace(&format!("/nix/store/{OUT}"), "/etc/passwd");
    let (_, set) = read_text(&text).unwrap();
    let error = paths::check(set.values().next().unwrap(), &set).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "derivation has incorrect environment variable 'out', should be '/nix/store/{OUT}' but is actually '/etc/passwd'"
        )
    );
}
