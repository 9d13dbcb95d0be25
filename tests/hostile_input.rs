//! Files that mean harm: whatever two readers could understand differently is refused, and nothing is exhausted.

use crate::{bad_input::refused, lab::Lab, recipe::Recipe};
use fodder_model::derivation::aterm;

/// A file that says two things: Nix takes the first output and the last variable.
///
/// Attack: DRV-6 (duplicates in ATerm, and in two spellings). Layer: readers of derivations.
#[test]
fn what_is_there_twice_in_a_derivation_is_refused_in_any_spelling() {
    let recipe = Recipe::new("x", "true");
    let text = String::from_utf8(aterm::write(&recipe.derivation())).expect("text");
    let lab = Lab::new();
    for (from, to) in [
        ("(\"out\",\"/nix/store", "(\"out\",\"\",\"\",\"\"),(\"out\",\"/nix/store"),
        ("(\"builder\",", "(\"builder\",\"x\"),(\"builder\","),
    ] {
        assert!(text.contains(from), "{text}");
        lab.write("x.drv", text.replacen(from, to, 1));
        let run = lab.build(&["x.drv"]);
        assert_eq!(run.code, 100, "{run:?}");
        assert!(run.stderr.contains("this is there twice") && run.stderr.contains("x.drv:1:"), "{}", run.stderr);
    }
    let (path, json) = (recipe.path(), recipe.json());
    let name = format!("\"{}\":", path.base_name());
    assert!(json.contains(&name), "{json}");
    let start = json.find(&name).expect("the derivation") + name.len();
    let one = &json[start..json.rfind("},\"version\"").expect("the end")];
    let twice = json.replacen(&name, &format!("\"{path}\":{one},{name}"), 1);
    refused(&twice, &["is there twice", "hint: remove one of the two"]);
}

/// Attack: DRV-6 (NUL). Layer: what no process can be given is refused.
#[test]
fn a_nul_byte_is_refused_wherever_it_would_reach_a_process() {
    let json = Recipe::new("x", "true").json();
    for (from, to, what) in [
        ("\"builder\":\"/bin/sh\",\"env\"", "\"builder\":\"/bin/sh\\u0000\",\"env\"", "builder contains a NUL byte"),
        ("\"args\":[\"-c\",", "\"args\":[\"-c\\u0000\",", "argument 1 contains a NUL byte"),
        ("\"env\":{", "\"env\":{\"a\":\"\\u0000\",", "environment variable 'a' contains a NUL byte"),
        ("\"env\":{", "\"env\":{\"a\\u0000\":\"\",", "name of an environment variable contains a NUL byte"),
        ("\"name\":\"x\"", "\"name\":\"x\\u0000\"", "variable 'name' contains a NUL byte"),
        ("\"outputs\":{\"out\"", "\"outputs\":{\"o\\u0000\"", "illegal character"),
    ] {
        assert!(json.contains(from), "{from}: {json}");
        refused(&json.replacen(from, to, 1), &[what]);
    }
    // The variable comes first; both are refused.
    let bare = json.replacen(&format!(",\"system\":\"{}-linux\"}}", std::env::consts::ARCH), "}", 1);
    assert_ne!(bare, json);
    let system = format!("\"system\":\"{}", std::env::consts::ARCH);
    refused(&bare.replacen(&system, &system.replace(":\"", ":\"\\u0000"), 1), &["system contains a NUL byte"]);
}

/// Attack: DRV-6 (depth, UTF-8, numbers). Layer: JSON reader.
#[test]
fn json_that_is_deep_or_no_text_is_refused_and_exhausts_nothing() {
    refused(&"{\"a\":".repeat(500_000), &["not valid JSON"]);
    refused(
        &format!("{{\"name\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)),
        &["nested more than 128 levels deep"],
    );
    refused("{\"name\": \"\\ud800\"}", &["not valid JSON"]);
    let lab = Lab::new();
    lab.write("input", b"{\"name\": \"\xc0\xaf\"}");
    let run = lab.build(&["input"]);
    assert_eq!(run.code, 100);
    assert!(run.stderr.contains("the file is not UTF-8"), "{}", run.stderr);
    let json = Recipe::new("x", "true").json();
    refused(&json.replace("\"version\":4", "\"version\":4e0"), &["unsupported derivation JSON format version"]);
    refused(
        &json.replace("\"version\":4", "\"version\":99999999999999999999"),
        &["unsupported derivation JSON format"],
    );
}
