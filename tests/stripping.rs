//! A compiled extension that refers to the store through its library path, as in the first of the documents that the project
//! began with: refused with the places, and taken once the references are stripped.

use crate::{
    lab::{Lab, need},
    recipe::{NO_HASH, Recipe},
};
use fodder_model::content_address::ContentMethod;
use serde_json::{Value, json};

/// Strips whatever mentions the store: the document's own lines.
const STRIP: &str = r#"
{ find $out -type f -print0 \
    | xargs -0 grep -aohE '/nix/store/[a-z0-9]{32}-[^/"[:space:]]+' 2>/dev/null || true; } \
    | sort -u > $TMPDIR/store-refs.txt
echo "Found $(wc -l < $TMPDIR/store-refs.txt) unique store path references to strip"
refs_args=""
while IFS= read -r ref; do
    refs_args="$refs_args -t $ref"
done < $TMPDIR/store-refs.txt
if [ -n "$refs_args" ]; then
    find $out -type f -exec remove-references-to $refs_args {} + 2>/dev/null || true
fi
"#;

fn build(lab: &Lab, strip: &str) -> (i32, Value) {
    let form = json!({
        "name": "python-deps",
        "nativeBuildInputs": ["cc", "removeReferencesTo"],
        "buildInputs": ["./library"],
        "dontUnpack": true,
        "buildPhase": [
            "library=$buildInputs",
            "mkdir -p .venv/lib",
            "echo 'int answer(void) { return 42; }' > extension.c",
            "cc -shared -o .venv/lib/extension.so extension.c -Wl,-rpath,$library/lib",
            "echo \"home = $library/bin\" > .venv/pyvenv.cfg",
            "printf '#!%s/bin/python3\\n' $library > .venv/script"
        ],
        "installPhase": format!("mv .venv $out\n{strip}"),
        "dontFixup": true,
        "outputHashMode": "recursive",
        "outputHash": ""
    });
    lab.write("library/lib/libdata", "data");
    lab.write("derivation.json", form.to_string());
    lab.build_json(&["derivation.json"])
}

#[test]
fn every_reference_of_a_compiled_extension_is_listed_with_its_cause() {
    need("cc", "build-essential");
    let (code, outcome) = build(&Lab::new(), "");
    assert_eq!(code, 112, "{outcome:#}");
    let hits: Vec<(&str, &str)> = outcome["references"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|hit| (hit["file"].as_str().expect("a file"), hit["cause"].as_str().expect("a cause")))
        .collect();
    let expected =
        [("lib/extension.so", "elf-run-path"), ("pyvenv.cfg", "python-environment"), ("script", "interpreter")];
    assert_eq!(hits, expected, "{outcome:#}");
}

#[test]
fn an_extension_whose_references_are_stripped_is_taken() {
    need("cc", "build-essential");
    let (code, outcome) = build(&Lab::new(), STRIP);
    assert_eq!((code, &outcome["references"]), (102, &json!([])), "{outcome:#}");
    let got = outcome["hash"]["got"].as_str().expect("a hash").to_owned();
    // The name of the library's store path is left, with no hash in front: the same on every machine that compiles alike.
    let (_, again) = build(&Lab::new(), STRIP);
    assert_eq!(again["hash"]["got"], got.as_str());
}

/// Attack: RES-5 (mentions without end). Layer: a thousand places are listed.
#[test]
fn of_very_many_places_a_thousand_are_listed_and_the_others_counted() {
    let lab = Lab::new();
    let tool = lab.text("tool", "x");
    let script = format!("i=0; while [ $i -lt 1100 ]; do echo {tool}; i=$((i+1)); done > $out");
    let recipe = Recipe::new("mentions", &script).source(&tool).fixed(ContentMethod::Flat, NO_HASH);
    let (code, result) = lab.make_json(&recipe, &[]);
    let count = result["references"].as_array().map(Vec::len);
    assert_eq!((code, count, &result["referencesOmitted"]), (112, Some(1000), &json!(100)));
}
