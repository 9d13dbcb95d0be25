//! What no derivation can be, each rule by itself.

use super::*;
use crate::hash::Hash;

const SOURCE: &str = "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt";

fn parts(name: &str, outputs: &[(&str, Output)]) -> DerivationParts {
    DerivationParts {
        name: name.to_owned(),
        outputs: outputs.iter().map(|(name, output)| ((*name).to_owned(), output.clone())).collect(),
        input_sources: BTreeSet::new(),
        input_derivations: BTreeMap::new(),
        system: "x86_64-linux".to_owned(),
        builder: "/bin/sh".into(),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
        structured_attributes: None,
    }
}

fn refusal(name: &str, outputs: &[(&str, Output)]) -> DerivationError {
    Derivation::new(parts(name, outputs)).expect_err("a refusal")
}

fn fixed() -> Output {
    Output::Fixed { content: ContentAddress { method: ContentMethod::Flat, hash: Hash::zero(HashAlgorithm::Sha256) } }
}

fn floating(method: ContentMethod, algorithm: HashAlgorithm) -> Output {
    Output::Floating { method, algorithm }
}

#[test]
fn outputs_that_do_not_go_together_are_refused() {
    let sha256 = || floating(ContentMethod::Nar, HashAlgorithm::Sha256);
    assert!(Derivation::new(parts("x", &[("a", sha256()), ("b", sha256())])).is_ok());
    assert_eq!(refusal("x", &[]), DerivationError::NoOutputs);
    for mixed in [fixed(), sha256(), Output::Impure { method: ContentMethod::Nar, algorithm: HashAlgorithm::Sha256 }] {
        assert_eq!(refusal("x", &[("dev", Output::Deferred), ("out", mixed)]), DerivationError::MixedOutputs);
    }
    assert_eq!(refusal("x", &[("bin", fixed())]), DerivationError::FixedOutputName { name: "bin".to_owned() });
    assert_eq!(refusal("x", &[("out", fixed()), ("second", fixed())]), DerivationError::SeveralFixedOutputs);
    let sha1 = floating(ContentMethod::Nar, HashAlgorithm::Sha1);
    assert_eq!(refusal("x", &[("a", sha256()), ("b", sha1)]), DerivationError::MixedAlgorithms);
    let text = floating(ContentMethod::Text, HashAlgorithm::Sha1);
    assert!(matches!(refusal("x", &[("out", text)]), DerivationError::MethodAlgorithm { .. }));
}

/// Attack: DRV-5 (names of derivations and outputs). Layer: grammar of names.
#[test]
fn names_that_lead_elsewhere_or_are_too_long_are_refused() {
    for name in ["", ".", "..", "../x", "a/b", "a b", "a\0", &"x".repeat(208)] {
        assert!(matches!(refusal(name, &[("out", Output::Deferred)]), DerivationError::Name(_)), "{name}");
    }
    // Too long is what the name of the derivation and that of the output are together.
    for output in ["", ".", "..", "../x", "a/b", "a b", "a\0", &"x".repeat(210)] {
        let error = refusal("x", &[(output, Output::Deferred)]);
        assert!(matches!(error, DerivationError::OutputName { .. }), "{output}");
    }
}

#[test]
fn what_no_process_can_be_given_is_refused() {
    let refused = |change: &dyn Fn(&mut DerivationParts)| {
        let mut parts = parts("x", &[("out", Output::Deferred)]);
        change(&mut parts);
        Derivation::new(parts).expect_err("a refusal")
    };
    let nul = |what: &str| DerivationError::Nul { what: what.to_owned() };
    assert_eq!(refused(&|parts| parts.builder = "a\0".into()), nul("builder"));
    assert_eq!(refused(&|parts| parts.system = "a\0".into()), nul("system"));
    assert_eq!(refused(&|parts| parts.arguments = vec!["a".into(), "\0".into()]), nul("argument 2"));
    let variable = |name: &str, value: &str| {
        let environment: BTreeMap<ByteString, ByteString> = [(name.into(), value.into())].into();
        refused(&move |parts| parts.environment = environment.clone())
    };
    assert_eq!(variable("a", "\0"), nul("environment variable 'a'"));
    assert_eq!(variable("a\0", ""), nul("name of an environment variable"));
    assert_eq!(variable("__json", "{}"), DerivationError::ReservedKey);
}

fn aterm_with(outputs: &str, inputs: &str, sources: &str, environment: &str) -> String {
    format!("Derive([{outputs}],[{inputs}],[{sources}],\"x86_64-linux\",\"/bin/sh\",[],[{environment}])")
}

fn aterm_refused(text: &str, words: &str) {
    let error = aterm::parse("x", text.as_bytes()).expect_err(words).to_string();
    assert!(error.contains(words), "{text}: {error}");
}

/// Attack: DRV-6 (two readers, two derivations). Layer: ATerm reader.
#[test]
fn a_file_that_two_readers_understand_differently_is_refused() {
    let out = r#"("out","","","")"#;
    let good = aterm_with(out, "", "", "");
    assert!(aterm::parse("x", good.as_bytes()).is_ok());
    aterm_refused(&format!("{good}\n"), "goes on after the derivation's last ')'");
    let twice = |one: &str| format!("{one},{one}");
    let (source, input) = (format!("\"{SOURCE}\""), format!("(\"{SOURCE}.drv\",[\"out\"])"));
    aterm_refused(&aterm_with(&twice(out), "", "", ""), "this is there twice");
    aterm_refused(&aterm_with(out, &twice(&input), "", ""), "this is there twice");
    aterm_refused(&aterm_with(out, &format!("(\"{SOURCE}.drv\",[\"out\",\"out\"])"), "", ""), "this is there twice");
    aterm_refused(&aterm_with(out, "", &twice(&source), ""), "this is there twice");
    aterm_refused(&aterm_with(out, "", "", &twice(r#"("a","b")"#)), "this is there twice");
}

/// Attack: DRV-7 (a path that does not follow from the hash). Layer: ATerm reader.
#[test]
fn an_output_has_no_path_but_the_one_that_follows() {
    let hash = Hash::zero(HashAlgorithm::Sha256).to_base16();
    for (output, words) in [
        (format!("(\"out\",\"{SOURCE}\",\"sha256\",\"{hash}\")"), "does not match its content address"),
        (format!("(\"out\",\"{SOURCE}\",\"r:sha256\",\"impure\")"), "impure derivation output should not specify"),
        (
            format!("(\"out\",\"{SOURCE}\",\"r:sha256\",\"\")"),
            "content-addressing derivation output should not specify",
        ),
        ("(\"out\",\"/etc/passwd\",\"\",\"\")".to_owned(), "is not in the Nix store"),
    ] {
        aterm_refused(&aterm_with(&output, "", "", ""), words);
    }
}

#[test]
fn dynamic_outputs_are_refused_with_advice() {
    let error = aterm::parse("x", b"DrvWithVersion(\"xp-dyn-drv\",[],[],[],\"\",\"\",[],[])").expect_err("a refusal");
    assert!(error.to_string().contains("dynamic outputs are not supported"), "{error}");
    assert!(error.hint.is_some());
}
