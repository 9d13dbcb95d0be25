//! Bad files: one clear error with the place, the offending value and, where we know it, what to do. Nothing is built.

use crate::{
    lab::{Lab, Run},
    recipe::Recipe,
};
use fodder_model::{derivation::aterm, store_path::StorePath};

/// Builds a text that must be refused with all of these words, and exit code 100.
#[track_caller]
pub fn refused(text: &str, words: &[&str]) -> Run {
    let lab = Lab::new();
    lab.write("input", text);
    let run = lab.build(&["input"]);
    assert_eq!((run.code, run.stdout.as_str()), (100, ""), "{}", run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "no {word:?} in: {}", run.stderr);
    }
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    let objects: Vec<_> = std::fs::read_dir(lab.store().join("nix/store")).expect("list").collect();
    assert!(objects.is_empty(), "{objects:?}");
    run
}

#[test]
fn a_misspelt_attribute_is_answered_with_the_one_that_was_meant() {
    refused(
        "{\n  \"name\": \"x\",\n  \"buildPhas\": \"true\"\n}\n",
        &["error: at $.buildPhas: unknown attribute 'buildPhas'", "input:3:3", "hint: did you mean 'buildPhase'?"],
    );
    for (misspelt, meant) in [
        ("postinstall", "postInstall"),
        ("outputhash", "outputHash"),
        ("nativeBuildInput", "nativeBuildInputs"),
        ("installPhse", "installPhase"),
        ("dontfixup", "dontFixup"),
        ("impureEnvVar", "impureEnvVars"),
        ("allowedReference", "allowedReferences"),
    ] {
        refused(
            &format!("{{\"name\": \"x\", \"buildPhase\": \"true\", \"{misspelt}\": \"1\"}}"),
            &[&format!("$.{misspelt}: "), &format!("did you mean '{meant}'?")],
        );
    }
}

#[test]
fn an_attribute_like_no_other_is_a_variable() {
    let lab = Lab::new();
    lab.write("input", r#"{"name": "x", "greeting": "hello", "buildCommand": "echo $greeting > $out"}"#);
    let (code, result) = lab.build_json(&["input"]);
    assert_eq!(code, 0, "{result:#}");
    let output = result["outputs"]["out"]["realPath"].as_str().expect("a path");
    assert_eq!(std::fs::read_to_string(output).expect("the output"), "hello\n");
}

#[test]
fn a_json_generation_that_nobody_has_seen_is_refused() {
    refused(
        "{\"derivations\": {},\n \"version\": 5}",
        &["at $.version: unsupported derivation JSON format version 5", "input:2:13", "hint: "],
    );
    let four = Recipe::new("x", "true").json();
    refused(&four.replace("\"version\":4", "\"version\":7"), &["format version 7", "hint: "]);
}

/// Attack: DRV-6 (duplicate keys). Layer: JSON reader.
#[test]
fn duplicate_keys_are_refused_in_both_inputs() {
    refused(
        "{\"name\": \"x\",\n \"buildPhase\": \"a\",\n \"buildPhase\": \"b\"}",
        &["at $.buildPhase: duplicate key 'buildPhase'", "input:3:2", "hint: remove one of the two"],
    );
    let json = Recipe::new("x", "true").json();
    refused(&json.replace("\"env\":{", "\"env\":{\"a\":\"1\",\"a\":\"2\","), &["duplicate key 'a'", ".env.a: "]);
}

#[test]
fn a_value_of_another_type_is_shown_with_the_type_that_was_expected() {
    refused(
        "{\"name\": 3, \"buildPhase\": \"\"}",
        &["at $.name: expected a value of type 'string' but it is of type 'number': 3", "input:1:10"],
    );
    refused(
        "{\"name\": \"x\", \"installPhase\": [\"a\", {\"b\": 1}]}",
        &["at $.installPhase[1]: expected a value of type 'string' but it is of type 'object'", "input:1:37"],
    );
    let json = Recipe::new("x", "true").json();
    refused(
        &json.replace("\"args\":[\"-c\",", "\"args\":[7,"),
        &[".args[0]: expected a value of type 'string'", ": 7"],
    );
    refused(&json.replace("\"args\":[\"-c\",\"true\"]", "\"args\":null"), &[".args: expected a value of type 'array'"]);
}

#[test]
fn a_bad_name_is_refused_with_the_character() {
    refused(
        "{\"name\": \"a b\", \"buildPhase\": \"\"}",
        &["at $.name: name 'a b' contains illegal character ' '", "input:1:10"],
    );
    refused("{\"name\": \"\", \"buildPhase\": \"\"}", &["at $.name: ", "empty"]);
    refused("{\"name\": \".-x\", \"buildPhase\": \"\"}", &["at $.name: ", "'.-x'"]);
    let long = "x".repeat(212);
    refused(&format!("{{\"name\": \"{long}\", \"buildPhase\": \"\"}}"), &["at $.name: ", "211"]);
}

#[test]
fn a_bad_hash_is_refused_with_its_length() {
    refused(
        "{\"name\": \"x\", \"buildPhase\": \"\",\n\"outputHash\": \"sha256-mOpu\"}",
        &["at $.outputHash: invalid SRI hash 'mOpu', length 3 != expected length 32", "input:2:15"],
    );
    refused(
        r#"{"name": "x", "buildPhase": "", "outputHash": "98ea", "outputHashAlgo": "sha256"}"#,
        &["at $.outputHash: hash '98ea' has wrong length for hash algorithm 'sha256'"],
    );
    refused(
        r#"{"name": "x", "buildPhase": "", "outputHash": "98ea", "outputHashAlgo": "sha3"}"#,
        &["unknown hash algorithm 'sha3', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"],
    );
    refused(
        r#"{"name": "x", "buildPhase": "", "outputHash": "98ea"}"#,
        &["at $.outputHash: hash '98ea' does not include a type, nor is the type otherwise known from context"],
    );
    let json = Recipe::new("x", "true").fixed_to("").json();
    refused(&json.replace("\"hash\":\"sha256-", "\"hash\":\"sha1-"), &[".outputs.out.hash: invalid SRI hash"]);
    refused(&json.replace("\"method\":\"flat\"", "\"method\":\"fat\""), &[".outputs.out.method: ", "'fat'"]);
}

/// Attack: DRV-7. Layer: paths are computed anew.
#[test]
fn a_wrong_output_path_is_shown_with_the_right_one() {
    let recipe = Recipe::new("x", "true");
    let (right, wrong) = (recipe.out(), other_path(&recipe.out()));
    let json = recipe
        .json()
        .replace(&format!("\"path\":\"{}\"", right.base_name()), &format!("\"path\":\n\"{}\"", wrong.base_name()));
    let run = refused(
        &json,
        &[
            &format!("derivation has incorrect output '{wrong}', should be '{right}'"),
            ".outputs.out.path: ",
            "input:2:1",
        ],
    );
    assert!(run.stderr.contains("hint: paths follow from everything else"), "{}", run.stderr);
}

/// Attack: DRV-7 (`env.out`). Layer: paths are computed anew.
#[test]
fn a_wrong_variable_of_an_output_is_shown_with_the_right_value() {
    let recipe = Recipe::new("x", "true");
    let (right, wrong) = (recipe.out(), other_path(&recipe.out()));
    let json = recipe.json().replace(&format!("\"out\":\"{right}\""), &format!("\"out\":\n \"{wrong}\""));
    refused(
        &json,
        &[
            &format!(
                "derivation has incorrect environment variable 'out', should be '{right}' but is actually '{wrong}'"
            ),
            ".env.out: ",
            "input:2:2",
        ],
    );
    let fixed = Recipe::new("x", "true").fixed_to("");
    let json = fixed.json().replace(&format!("\"out\":\"{}\"", fixed.out()), &format!("\"out\":\"{wrong}\""));
    refused(&json, &["derivation has incorrect environment variable 'out'", ".env.out: "]);
}

#[test]
fn a_drv_file_under_another_name_is_refused_with_a_hint() {
    let lab = Lab::new();
    let recipe = Recipe::new("original", "true");
    let text = aterm::write(&recipe.derivation());
    lab.write("copy.drv", &text);
    let run = lab.build(&["copy.drv"]);
    assert_eq!(run.code, 100);
    assert!(run.stderr.contains("copy.drv:1:17"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: a .drv file does not hold its own name"), "{}", run.stderr);
    lab.write("original.drv", &text);
    assert_eq!(lab.fodder(&["show", "--format", "path", "original.drv"]).stdout.trim(), recipe.path().to_string());
}

#[test]
fn what_is_neither_json_nor_a_drv_file_is_refused_with_what_was_expected() {
    refused("", &["the file is empty", "hint: expected JSON"]);
    for text in ["derivation { }", "[1]", "Derive"] {
        refused(text, &["derivation does not start with 'Derive'"]);
    }
    refused(
        "derivation { }",
        &["input:1:1", "hint: expected JSON that begins with '{', or a .drv file that begins with 'Derive('"],
    );
    refused("{\"name\": \"x\",\n \"a\" 1}", &["input:2:"]);
    refused("{\"foo\": 1}", &["at $: this is neither", "hint: a short form has at least"]);
    refused("{\"name\": \"x\"} trailing", &["input:1:"]);
    refused("\u{feff}{\"name\": \"x\"}", &["byte order mark", "hint: save it as UTF-8 without one"]);
}

/// Attack: PARSE-15 (after a derivation). Layer: ATerm reader.
#[test]
fn bytes_after_a_drv_file_are_refused() {
    let mut text = aterm::write(&Recipe::new("x", "true").derivation());
    text.extend(b"\n");
    let lab = Lab::new();
    lab.write("x.drv", text);
    let run = lab.build(&["x.drv"]);
    assert_eq!(run.code, 100, "{}", run.stderr);
}

/// Attack: DRV-5. Layer: grammar of output names.
#[test]
fn outputs_called_dot_or_dot_dot_are_refused() {
    for name in [".", "..", "a/b", ""] {
        let text = format!(r#"{{"name": "x", "outputs": ["out", "{name}"], "buildPhase": ""}}"#);
        refused(&text, &["output name"]);
    }
    let json = Recipe::new("x", "true").json();
    for name in [".", "..", "../../etc", "a b", "\\n"] {
        refused(&json.replacen("\"outputs\":{\"out\"", &format!("\"outputs\":{{\"{name}\""), 1), &["output name"]);
        let aterm = String::from_utf8(aterm::write(&Recipe::new("x", "true").derivation())).expect("text");
        let lab = Lab::new();
        lab.write("x.drv", aterm.replacen("[(\"out\"", &format!("[(\"{name}\""), 1));
        let run = lab.build(&["x.drv"]);
        assert!(run.code == 100 && run.stderr.contains("output name"), "{name}: {run:?}");
    }
}

#[test]
fn a_source_that_is_not_there_is_named_with_its_place() {
    refused(
        "{\"name\": \"x\", \"buildPhase\": \"\",\n \"srcs\": [\"./absent\"]}",
        &["at $.srcs[0]: source './absent'", "No such file or directory", "input:2:11"],
    );
}

#[test]
fn a_build_without_a_sandbox_is_not_to_be_had() {
    refused(
        r#"{"name": "x", "buildPhase": "", "__noChroot": true}"#,
        &["at $.__noChroot: there is no build without a sandbox", "hint: remove it"],
    );
    let lab = Lab::new();
    let run = lab.make(&Recipe::new("x", "echo ran").env("__noChroot", "1"), &[]);
    assert_ne!(run.code, 0);
    assert!(!run.stderr.contains("x> ran"), "{}", run.stderr);
    assert!(run.stderr.contains("__noChroot"), "{}", run.stderr);
}

#[test]
fn a_misspelt_key_of_a_derivation_is_answered_with_the_one_that_was_meant() {
    let json = Recipe::new("x", "true").json();
    refused(
        &json.replace("\"builder\":\"/bin/sh\",\"env\"", "\"bilder\":\"/bin/sh\",\"env\""),
        &["unknown key 'bilder'", "did you mean 'builder'?"],
    );
}

#[test]
fn hostile_characters_of_a_file_do_not_reach_the_terminal() {
    let lab = Lab::new();
    lab.write("input", "{\"name\": \"a\\u001b]0;title\\u0007\", \"buildPhase\": \"\"}");
    let run = lab.build(&["input"]);
    assert_eq!(run.code, 100);
    assert!(!run.stderr.contains(['\u{1b}', '\u{7}']), "{:?}", run.stderr);
}

/// A path that differs in its hash part.
fn other_path(path: &StorePath) -> StorePath {
    let base_name = path.base_name();
    let first = if base_name.starts_with('1') { "0" } else { "1" };
    StorePath::from_base_name(&format!("{first}{}", &base_name[1..])).expect("a path")
}

#[test]
fn places_within_characters_do_not_trip_the_message() {
    let lab = Lab::new();
    for text in [
        b"\xef\xbb\xbf{\"name\": \"x\"}".to_vec(),
        "é".into(),
        b"{\"name\":\"\xff\"}".to_vec(),
        "{\"é\":é}".into(),
        "Derive([(\"out\",\"\",\"\",\"\")\"é".into(),
        b"".to_vec(),
        b" \n".to_vec(),
    ] {
        lab.write("input", &text);
        let (code, result) = lab.build_json(&["input"]);
        assert_eq!((code, &result["status"]), (100, &serde_json::json!("InputRejected")), "{text:?}: {result:#}");
        assert_eq!(result["outputs"], serde_json::json!({}), "the fields of a result are there");
    }
}

/// No damage to a good file makes the program panic (which would end in 101, "timed out").
#[test]
fn damaged_files_are_refused_or_understood_and_never_a_crash() {
    let lab = Lab::new();
    let good = r#"{"name": "é-x", "src": ["./ä b"], "buildPhase": ["α", "β"], "outputHash": "", "env": {"ü": "✓"}}"#;
    let mut state = 12345u64;
    for round in 0..150 {
        let mut text = good.as_bytes().to_vec();
        for _ in 0..1 + round % 3 {
            // A fixed sequence (Knuth's MMIX generator), so that a failure can be repeated.
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % text.len();
            match state >> 61 {
                0..3 => drop(text.remove(at)),
                3..6 => text[at] = (state >> 20) as u8,
                _ => text.insert(at, (state >> 12) as u8),
            }
        }
        lab.write("input", &text);
        let run = lab.fodder(&["show", "input"]);
        assert!([0, 100].contains(&run.code), "{text:?}: {run:?}");
    }
}

#[test]
fn what_a_file_says_cannot_move_the_cursor() {
    let lab = Lab::new();
    for text in [
        r#"{"name": "x", "src": "\u001b[2Jx"}"#,
        r#"{"name": "x", "fodder": {"profile": "\u001b[2Jx"}}"#,
        r#"{"name": "x", "system": "\u001b[2Jx", "buildPhase": ""}"#,
        r#"{"name": "x", "requiredSystemFeatures": ["\u001b[2Jx"], "buildPhase": ""}"#,
    ] {
        lab.write("input", text);
        for run in [lab.fodder(&["explain", "input"]), lab.build(&["input"])] {
            assert_eq!(run.code, 100, "{text}: {run:?}");
            assert!(!run.stderr.contains('\u{1b}'), "{text}: {run:?}");
            assert!(run.stderr.contains("\\u{1b}"), "{text}: {run:?}");
        }
    }
}
