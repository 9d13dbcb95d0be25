//! Outputs whose path is known only when they are built: content-addressed ones, those that depend on them, and impure ones.

use crate::{
    lab::{Lab, need},
    oracle::nix::Nix,
    recipe::{Recipe, text},
};
use fodder_model::{
    content_address::ContentMethod,
    derivation::{
        Derivation, Output, json,
        paths::{self, DerivationSet},
        resolve::downstream_placeholder,
    },
    environment::placeholder,
    hash::HashAlgorithm,
    store_path::StorePath,
};
use serde_json::{Value, json};

/// The derivations of `tests/content_addressed.nix`, in the order in which they are built.
const NAMES: [&str; 10] =
    ["dep", "two", "self", "names", "flat", "other", "downstream", "fixed", "structured", "checked"];

/// Real Nix builds them in its store, fodder in its own: every valid path, its hash, references, deriver and content address, and
/// every realisation must be the same.
#[test]
fn databases_are_the_same_as_those_of_nix() {
    let nix = Nix::new();
    need("sqlite3", "sqlite3");
    let expression = nix.lab.write("all.nix", include_str!("content_addressed.nix"));
    let expression = expression.to_str().expect("UTF-8");
    let fodder = |name: &str, path: &str| {
        let file = nix.lab.write("one.json", nix.run("nix", &["show-derivation", "--recursive", path]));
        let run = nix.fodder(file.to_str().expect("UTF-8"), &path.parse().expect("a store path"), &[]);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
    };
    for name in NAMES {
        let path = nix.run("nix-instantiate", &[expression, "-A", name]);
        let run = nix.realise(&path.trim().parse().expect("a store path"), &[]);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        fodder(name, path.trim());
    }
    let rows = |store: &std::path::Path| {
        let sql = "select 'path', path, hash, deriver, narSize, ca from ValidPaths where path not like '%.drv'
                   union all select 'reference', a.path, b.path, '', '', '' from Refs
                     join ValidPaths a on a.id = referrer join ValidPaths b on b.id = reference where a.path not like '%.drv'
                   union all select 'realisation', drvPath, outputName, v.path, '', '' from Realisations
                     join ValidPaths v on v.id = outputPath where v.ca is not null and v.ca not like 'fixed:sha256:1r3%'
                   order by 1, 2, 3";
        let mut command = std::process::Command::new("sqlite3");
        command.arg(store.join("nix/var/nix/db/db.sqlite")).arg(sql);
        let run = nix.lab.run(command);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    let (theirs, ours) = (rows(&nix.store()), rows(&nix.lab.store()));
    assert!(theirs.lines().filter(|line| line.starts_with("realisation")).count() >= 9, "{theirs}");
    // Nix writes a realisation of a deferred derivation's resolved form as well; its path is in that already.
    let missing: Vec<&str> = theirs.lines().filter(|line| !ours.contains(*line)).collect();
    let surplus: Vec<&str> = ours.lines().filter(|line| !theirs.contains(*line)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:#?}\nsurplus: {surplus:#?}");

    // And Nix finds in our store what only we have built.
    fodder("ours", nix.run("nix-instantiate", &[expression, "-A", "ours"]).trim());
    let mut command = nix.command("nix-build", &[expression, "-A", "ours", "--no-out-link", "--max-jobs", "0"]);
    command.arg("--store").arg(nix.lab.store());
    let run = nix.lab.run(command);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// Some derivations, with placeholders where paths are not known.
#[derive(Default)]
struct Deferred {
    set: DerivationSet,
}

impl Deferred {
    fn add(&mut self, mut recipe: Recipe, kind: impl Fn() -> Output, inputs: &[(&str, &StorePath)]) -> StorePath {
        let names: Vec<String> = recipe.parts.outputs.keys().cloned().collect();
        for name in names {
            let output = kind();
            let variable = match &output {
                Output::Deferred | Output::InputAddressed { .. } => String::new(),
                Output::Fixed { content } => content.store_path(&recipe.parts.name).expect("a path").to_string(),
                Output::Floating { .. } | Output::Impure { .. } => placeholder(&name),
            };
            recipe = recipe.env(&name, &variable);
            recipe.parts.outputs.insert(name, output);
        }
        for (name, path) in inputs {
            recipe = recipe.env(name, &downstream_placeholder(path, "out"));
            recipe.parts.input_derivations.insert((*path).clone(), ["out".to_owned()].into());
        }
        let derivation = Derivation::new(recipe.parts).expect("a derivation");
        let path = paths::derivation_path(&derivation).expect("a path");
        self.set.insert(path.clone(), derivation);
        path
    }

    fn build(&self, lab: &Lab, root: &StorePath, arguments: &[&str]) -> (i32, Value) {
        lab.write("set.json", json::write_set(&self.set));
        let root = root.to_string();
        let mut all = arguments.to_vec();
        all.extend(["set.json", &root]);
        lab.build_json(&all)
    }
}

fn floating() -> Output {
    Output::Floating { method: ContentMethod::Nar, algorithm: HashAlgorithm::Sha256 }
}

fn impure() -> Output {
    Output::Impure { method: ContentMethod::Nar, algorithm: HashAlgorithm::Sha256 }
}

fn contents(result: &Value) -> String {
    std::fs::read_to_string(text(result, "/outputs/out/realPath")).expect("the output")
}

/// The reference's vector for a file that mentions itself, by both rules.
#[test]
fn self_references_are_hashed_by_the_rule_that_was_asked_for() {
    for (rule, expected) in [
        (None, "z6m1b3ph77q383vvxafz4wi4bc5wjr7g-caself"),
        (Some("with-positions"), "z6m1b3ph77q383vvxafz4wi4bc5wjr7g-caself"),
        (Some("without-positions"), "hvcr5dwz9v3f4srmnq37s32bm9zckjmc-caself"),
    ] {
        let lab = Lab::new();
        let mut set = Deferred::default();
        let path = set.add(Recipe::new("caself", "echo self $out and $out > $out"), floating, &[]);
        let flags: Vec<&str> = rule.iter().flat_map(|rule| ["--self-references", rule]).collect();
        let (code, result) = set.build(&lab, &path, &flags);
        assert_eq!(code, 0, "{result:#}");
        assert_eq!(text(&result, "/outputs/out/path"), format!("/nix/store/{expected}"));
        assert_eq!(contents(&result), format!("self /nix/store/{expected} and /nix/store/{expected}\n"));
        assert_eq!(result["outputs"]["out"]["references"], json!([format!("/nix/store/{expected}")]));
    }
}

/// Real Nix 2.34 gave these paths. It looks for no mentions where references are discarded, and rewrites those that there are.
#[test]
fn discarded_references_are_rewritten_like_others() {
    let flat = || Output::Floating { method: ContentMethod::Flat, algorithm: HashAlgorithm::Sha256 };
    let read = r#"p() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/" /build/.attrs.json; }; "#;
    let attributes = json!({"unsafeDiscardReferences": {"out": true}});
    for (script, kind, expected) in [
        ("echo self $(p out) > $(p out)", flat as fn() -> Output, "x8b0p6c3ybdb7n855jsbhdfxnywssy4j-discards"),
        (
            "echo a > $(p a); echo self $(p out) and $(p a) > $(p out)",
            floating,
            "kdsid1ylg4vwhrmakzim43lyb8w17rhm-discards",
        ),
    ] {
        let lab = Lab::new();
        let mut set = Deferred::default();
        let mut recipe = Recipe::new("discards", &format!("{read}{script}")).structured(attributes.clone());
        if script.contains("(p a)") {
            recipe = recipe.output("a");
        }
        let path = set.add(recipe, kind, &[]);
        let (code, result) = set.build(&lab, &path, &["--self-references", "without-positions"]);
        assert_eq!(code, 0, "{result:#}");
        assert_eq!(text(&result, "/outputs/out/path"), format!("/nix/store/{expected}"), "{}", contents(&result));
        assert!(contents(&result).starts_with(&format!("self /nix/store/{expected}")), "{}", contents(&result));
        assert_eq!(result["outputs"]["out"]["references"], json!([]));
    }
}

#[test]
fn the_same_contents_are_one_path_and_are_not_built_twice() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let one = set.add(Recipe::new("same", "echo contents > $out"), floating, &[]);
    let other = set.add(Recipe::new("same", "x=contents; echo $x > $out"), floating, &[]);
    let after_one = set.add(Recipe::new("after", "cat $input > $out"), floating, &[("input", &one)]);
    let after_other = set.add(Recipe::new("after", "cat $input > $out"), floating, &[("input", &other)]);
    let (code, first) = set.build(&lab, &after_one, &[]);
    assert_eq!((code, &first["status"]), (0, &json!("Built")), "{first:#}");
    let (code, second) = set.build(&lab, &after_other, &[]);
    assert_eq!(code, 0, "{second:#}");
    // Only the input is built: with its path put in, the second is the first.
    assert_eq!(second["status"], "AlreadyValid", "{second:#}");
    assert_eq!(second["dependencies"][0]["status"], "Built");
    assert_eq!(second["outputs"], first["outputs"]);
    let (_, third) = set.build(&lab, &after_other, &[]);
    assert_eq!((&third["status"], &third["dependencies"]), (&json!("AlreadyValid"), &json!([])));
    let (code, rebuilt) = set.build(&lab, &one, &["--rebuild"]);
    assert_eq!((code, &rebuilt["status"]), (0, &json!("Built")), "{rebuilt:#}");
}

#[test]
fn a_rebuild_with_other_contents_is_not_deterministic() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let path = set.add(Recipe::new("random", "cat /proc/sys/kernel/random/uuid > $out"), floating, &[]);
    let (code, first) = set.build(&lab, &path, &[]);
    assert_eq!(code, 0, "{first:#}");
    let (code, again) = set.build(&lab, &path, &["--rebuild"]);
    assert_eq!((code, &again["status"]), (104, &json!("NotDeterministic")), "{again:#}");
    assert_eq!(set.build(&lab, &path, &[]).1["outputs"], first["outputs"], "what was valid stays");
}

#[test]
fn contents_without_a_place_for_references_may_have_none() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let flat = || Output::Floating { method: ContentMethod::Flat, algorithm: HashAlgorithm::Sha256 };
    let dep = set.add(Recipe::new("dep", "echo > $out"), floating, &[]);
    let refers = set.add(Recipe::new("refers", "echo $input > $out"), flat, &[("input", &dep)]);
    let (code, result) = set.build(&lab, &refers, &[]);
    assert_eq!(code, 112, "{result:#}");
    assert!(
        text(&result, "/errorMsg")
            .starts_with("fixed output derivation 'refers' is not allowed to refer to other store paths."),
        "{result:#}"
    );
    let textual = || Output::Floating { method: ContentMethod::Text, algorithm: HashAlgorithm::Sha256 };
    let itself = set.add(Recipe::new("itself", "echo $out > $out"), textual, &[]);
    let (code, result) = set.build(&lab, &itself, &[]);
    assert_eq!((code, text(&result, "/errorMsg")), (112, "self-reference not allowed with text hashing"), "{result:#}");
    let executable = set.add(Recipe::new("executable", "echo > $out; chmod +x $out"), flat, &[]);
    let (code, result) = set.build(&lab, &executable, &[]);
    assert_eq!(code, 1, "{result:#}");
    let words = text(&result, "/errorMsg");
    assert!(words.starts_with("output path '/nix/store/"), "{words}");
    assert!(words.contains("-executable' should be a non-executable regular file"), "{words}");
}

#[test]
fn outputs_that_refer_to_each_other_are_refused() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let path = set.add(Recipe::new("circle", "echo $dev > $out; echo $out > $dev").output("dev"), floating, &[]);
    let (code, result) = set.build(&lab, &path, &[]);
    assert_eq!((code, &result["status"]), (1, &json!("OutputRejected")), "{result:#}");
    assert!(text(&result, "/errorMsg").starts_with("cycle detected in build of"), "{result:#}");
}

/// A file whose name holds the scratch path sorts elsewhere under its new name, and a NAR of it would be no NAR.
#[test]
fn a_rewritten_tree_keeps_links_names_and_hard_links_apart() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let script = "mkdir $out; ln -s $out/a $out/link; echo $out > $out/a; ln $out/a $out/b; chmod +x $out/a; mkdir $out/d; \
                  echo > $out/d/$(basename $out)";
    let path = set.add(Recipe::new("tree", script), floating, &[]);
    let (code, result) = set.build(&lab, &path, &[]);
    assert_eq!(code, 0, "{result:#}");
    let (real, out) =
        (std::path::PathBuf::from(text(&result, "/outputs/out/realPath")), text(&result, "/outputs/out/path"));
    assert_eq!(std::fs::read_link(real.join("link")).expect("a link").to_str(), Some(&*format!("{out}/a")));
    assert_eq!(std::fs::read_to_string(real.join("b")).expect("a file"), format!("{out}\n"));
    let base = out.strip_prefix("/nix/store/").expect("a store path");
    assert!(real.join("d").join(base).exists(), "{result:#}");
}

#[test]
fn an_impure_derivation_is_built_anew_every_time_and_what_needs_it_as_well() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let source = set.add(Recipe::new("source", "cat /proc/sys/kernel/random/uuid > $out; ls /etc"), impure, &[]);
    let after = set.add(Recipe::new("after", "cat $input > $out"), impure, &[("input", &source)]);
    let (code, first) = set.build(&lab, &after, &[]);
    assert_eq!((code, &first["status"]), (0, &json!("Built")), "{first:#}");
    let (code, second) = set.build(&lab, &after, &[]);
    assert_eq!((code, &second["status"]), (0, &json!("Built")), "{second:#}");
    assert_ne!(contents(&first), contents(&second));
    assert!(text(&second, "/outputs/out/ca").starts_with("fixed:r:sha256:"));
}

#[test]
fn what_is_not_impure_cannot_depend_on_what_is() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let source = set.add(Recipe::new("source", "echo never the same > $out"), impure, &[]);
    let deferred = set.add(Recipe::new("deferred", "cat $input > $out"), || Output::Deferred, &[("input", &source)]);
    let content = set.add(Recipe::new("content", "cat $input > $out"), floating, &[("input", &source)]);
    let above = set.add(Recipe::new("above", "cat $input > $out"), floating, &[("input", &content)]);
    for (root, refused) in [(&deferred, &deferred), (&content, &content), (&above, &content)] {
        set.build(&lab, root, &[]);
        let run = lab.build(&["set.json", root.base_name()]);
        assert_eq!(run.code, 100, "{}", run.stderr);
        let words = format!("pure derivation '{refused}' depends on impure derivation '{source}'");
        assert!(run.stderr.contains(&words), "{}", run.stderr);
    }
    let hash = fodder_model::hash::Hash::of(HashAlgorithm::Sha256, b"hi\n");
    let content = fodder_model::content_address::ContentAddress { method: ContentMethod::Flat, hash };
    let fixed = set.add(
        Recipe::new("fixed", "cat $input; echo hi > $out"),
        || Output::Fixed { content },
        &[("input", &source)],
    );
    let (code, result) = set.build(&lab, &fixed, &[]);
    assert_eq!(code, 0, "a hash says what it is: {result:#}");
}

/// Nix gives impure derivations the network. Here that takes a word from the person: no hash would notice what was fetched.
#[test]
fn an_impure_derivation_has_no_network_unless_it_is_asked_for() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let path = set.add(
        Recipe::new("probe", "ls /sys/class/net /proc/net > /dev/null 2>&1; cat /proc/net/dev > $out"),
        impure,
        &[],
    );
    let (code, result) = set.build(&lab, &path, &[]);
    assert_eq!(code, 0, "{result:#}");
    let interfaces = contents(&result).lines().skip(2).map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    assert!(interfaces.len() == 1 && interfaces[0].starts_with("lo:"), "{interfaces:?}");
    assert_eq!(text(&result, "/network/mode"), "none");
    let (code, result) = set.build(&lab, &path, &["--unsafe-host-network"]);
    assert_eq!((code, text(&result, "/network/mode")), (0, "host"), "{result:#}");
    let (code, result) = set.build(&lab, &path, &["--network", "gateway"]);
    assert_eq!((code, text(&result, "/network/mode")), (0, "gateway"), "{result:#}");
}

#[test]
fn the_short_form_has_both_kinds() {
    let lab = Lab::new();
    for (attribute, kind) in [("__contentAddressed", "floating"), ("__impure", "impure")] {
        let form = json!({"name": "x", attribute: true, "outputs": ["out", "dev"], "buildCommand": "echo $dev > $out; echo > $dev"});
        lab.write("form.json", form.to_string());
        let explained = lab.fodder(&["explain", "--json", "--store", "store", "form.json"]);
        assert!(explained.stdout.contains(&format!("\"kind\":\"{kind}\"")), "{}", explained.stderr);
        let (code, result) = lab.build_json(&["form.json"]);
        assert_eq!(code, 0, "{result:#}");
        let dev = text(&result, "/outputs/dev/path");
        assert_eq!(contents(&result), format!("{dev}\n"));
        assert!(text(&result, "/outputs/out/ca").starts_with("fixed:r:sha256:"), "{result:#}");
    }
}

#[test]
fn derivations_with_dynamic_outputs_are_refused() {
    let lab = Lab::new();
    let mut set = Deferred::default();
    let made = set.add(Recipe::new("made", "echo > $out"), floating, &[]);
    let root = set.add(Recipe::new("root", "echo > $out"), floating, &[("input", &made)]);
    let mut json: Value = serde_json::from_str(&json::write_set(&set.set)).expect("JSON");
    let input = &mut json["derivations"][root.base_name()]["inputs"]["drvs"][made.base_name()];
    assert_eq!(input["outputs"], json!(["out"]));
    input["dynamicOutputs"] = json!({"out": {"outputs": ["out"], "dynamicOutputs": {}}});
    lab.write("dynamic.json", json.to_string());
    let run = lab.build(&["dynamic.json"]);
    assert_eq!(run.code, 100, "{}", run.stderr);
    assert!(run.stderr.contains("derivations with dynamic outputs are not supported"), "{}", run.stderr);
}

/// Nix prints the hash in which the output's own path does not count, so that is what is declared in the next try.
#[test]
fn the_hash_of_a_fixed_output_that_mentions_itself_does_not_depend_on_its_path() {
    let found = |declared: &str| {
        let lab = Lab::new();
        let recipe = Recipe::new("itself", "echo $out > $out").fixed(ContentMethod::Nar, declared);
        let (code, result) = lab.make_json(&recipe, &["--self-references", "without-positions"]);
        assert!(matches!(code, 102 | 112), "{result:#}");
        text(&result, "/hash/got").to_owned()
    };
    let first = found("sha256-ERERERERERERERERERERERERERERERERERERERERERE=");
    assert_eq!(found(&first), first);
}
