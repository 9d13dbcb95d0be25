//! What is said about paths is what Nix says, however they are named.

use super::{built, ours, we_say};
use crate::judge::{nix_says, verified};
use crate::lab::Lab;
use serde_json::Value;
use std::os::unix::fs::symlink;

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn every_question_has_the_answer_of_nix() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let (out, derivation) = (recipe.out().to_string(), recipe.path().to_string());
    let dev = recipe.output_path("dev").to_string();
    let input = input.to_string();
    for path in [&out, &dev, &derivation, &input] {
        for question in [
            "--references",
            "--referrers",
            "--referrers-closure",
            "--requisites",
            "-R",
            "--deriver",
            "--outputs",
            "--hash",
            "--size",
            "--tree",
            "--resolve",
        ] {
            let theirs = nix_says(&lab, "nix-store", &["--query", question, path]);
            let said = we_say(&lab, &["query", question, path]);
            assert_eq!(sorted(&said), sorted(&theirs), "{question} {path}");
        }
    }
    for arguments in [
        ["--references", &derivation, "--use-output"].as_slice(),
        &["--requisites", "--include-outputs", &derivation],
        &["--binding", "input", &out],
        &["-b", "name", &derivation],
        &["--size", &out, &dev, &input],
        &["--requisites", &out, &dev],
    ] {
        let theirs = nix_says(&lab, "nix-store", &[&["--query"], arguments].concat());
        assert_eq!(sorted(&we_say(&lab, &[&["query"], arguments].concat())), sorted(&theirs), "{arguments:?}");
    }
    // A question that Nix 2.8 does not know.
    assert_eq!(we_say(&lab, &["query", "--valid-derivers", &out, &input]).trim(), derivation);
    verified(&lab);
}

#[test]
fn requisites_come_after_what_they_refer_to() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let (out, dev) = (recipe.out().to_string(), recipe.output_path("dev").to_string());
    let expected = format!("{input}\n{out}\n{dev}\n");
    assert_eq!(we_say(&lab, &["query", "--requisites", &dev]), expected);
    assert_eq!(we_say(&lab, &["path-info", "--recursive", &dev]), expected);
}

#[test]
fn path_info_agrees_with_nix() {
    let lab = Lab::new();
    let (recipe, input) = built(&lab);
    let dev = recipe.output_path("dev").to_string();
    let flags = ["--extra-experimental-features", "nix-command"];
    for arguments in [
        ["path-info", &dev].as_slice(),
        &["path-info", "--size", "--closure-size", "--recursive", &dev],
        &["path-info", "-rsS", "--sigs", &dev],
    ] {
        assert_eq!(we_say(&lab, arguments), nix_says(&lab, "nix", &[&flags, arguments].concat()), "{arguments:?}");
    }
    // As Nix 2.34 prints sizes; 2.8 has bytes for small ones.
    let said = we_say(&lab, &["path-info", "-S", "--human-readable", &dev]);
    assert_eq!(said, format!("{dev}\t   0.6 KiB\n"));
    // Nix 2.8 prints a list; ours is the object of later versions, with the same facts.
    let arguments = ["path-info", "--json", "--recursive", "--closure-size", &dev];
    let theirs: Value =
        serde_json::from_str(&nix_says(&lab, "nix", &[&flags, arguments.as_slice()].concat())).expect("JSON");
    let said: Value = serde_json::from_str(&we_say(&lab, &arguments)).expect("JSON");
    for entry in theirs.as_array().expect("a list") {
        let path = entry["path"].as_str().expect("a path");
        for (key, value) in entry.as_object().expect("an object") {
            if key != "path" {
                assert_eq!(&said[path][key], value, "{key} of {path}");
            }
        }
    }
    assert_eq!(said.as_object().expect("an object").len(), theirs.as_array().expect("a list").len());
    let input_entry = &said[input.to_string()];
    assert_eq!((&input_entry["version"], &input_entry["storeDir"]), (&1.into(), &"/nix/store".into()));
    assert_eq!((&input_entry["deriver"], &input_entry["signatures"]), (&Value::Null, &Value::Array(Vec::new())));
    assert_eq!(
        sorted(&we_say(&lab, &["path-info", "--all"])),
        sorted(&nix_says(&lab, "nix", &[&flags[..], &["path-info", "--all"]].concat()))
    );
}

#[test]
fn paths_are_found_however_they_are_named() {
    let lab = Lab::new();
    let (recipe, _) = built(&lab);
    let out = recipe.out();
    let real = lab.real(&out);
    symlink(&real, lab.path().join("result")).expect("link");
    symlink("result", lab.path().join("again")).expect("link");
    symlink(out.to_string(), lab.path().join("logical")).expect("link");
    symlink(".", lab.path().join("here")).expect("link");
    let real = real.to_str().expect("UTF-8");
    for name in [
        &out.to_string(),
        out.base_name(),
        real,
        &format!("{real}/file"),
        &format!("{out}/no/such/file"),
        "result",
        "./again",
        "result/file",
        "logical",
        &format!("here/../{}/result/", lab.path().file_name().expect("a name").display()),
        &format!("store/nix/store/{}", out.base_name()),
    ] {
        assert_eq!(we_say(&lab, &["query", "--resolve", name]).trim(), out.to_string(), "{name}");
    }
    symlink("loop", lab.path().join("loop")).expect("link");
    lab.write("plain", "");
    for (name, word) in [
        ("loop", "too many links"),
        ("plain", "is not in the store"),
        ("absent", "cannot find"),
        ("/nix/store", "is not in the store"),
        ("/nix/store/short", "is not a store path"),
        ("store/nix/store/.links", "is not a store path"),
    ] {
        let run = ours(&lab, &["query", "--resolve", name]);
        assert!(run.code != 0 && run.stderr.contains(word), "{name}: {run:?}");
    }
}

#[test]
fn what_is_not_valid_is_said_not_to_be() {
    let lab = Lab::new();
    let (recipe, _) = built(&lab);
    let missing = "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt";
    for arguments in [
        ["path-info", missing].as_slice(),
        &["path-info", "--recursive", missing],
        &["query", "--references", missing],
        &["query", "--requisites", missing],
        &["query", "--referrers-closure", missing],
        &["query", "--hash", missing],
        &["query", "--deriver", missing],
        &["query", "--tree", missing],
    ] {
        let run = ours(&lab, arguments);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{arguments:?}");
        assert_eq!(run.stderr, format!("error: path '{missing}' is not valid\n"), "{arguments:?}");
    }
    assert_eq!(we_say(&lab, &["path-info", "--json", missing]), format!("{{\"{missing}\":null}}\n"));
    let run = ours(&lab, &["query", "--binding", "absent", &recipe.out().to_string()]);
    assert!(run.code == 1 && run.stderr.contains("has no environment binding named 'absent'"), "{run:?}");
    assert_eq!(ours(&lab, &["query", "--hash", "--size", missing]).code, 2, "one question at a time");
}

#[test]
fn looking_makes_no_store() {
    let lab = Lab::new();
    let run = ours(&lab, &["path-info", "--all"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("there is no store in") && run.stderr.contains("--store DIR"), "{}", run.stderr);
    assert!(!lab.store().exists());
}
