//! Derivations that nobody would think of: made at random, built by both.

use super::{
    nix::{Nix, expression, quoted},
    trees::config,
};
use proptest::{collection::vec, prelude::*};
use std::cell::Cell;

/// Text without NUL, which neither Nix's language nor an environment can hold; the rest may be anything that is in JSON.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        8 => prop::sample::select((' '..='~').collect::<Vec<_>>()),
        2 => prop::sample::select(vec!['\n', '\t', '\r', '\x1b', '\x01', '\x7f', 'ü', '€', '\u{2028}', '😀', '\u{301}']),
    ];
    vec(character, 0..20).prop_map(|characters| characters.into_iter().collect())
}

/// Names of variables: also those that no shell can read.
fn variable() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Za-z_][A-Za-z0-9_]{0,8}",
        1 => text(),
        1 => prop::sample::select(vec!["PATH", "HOME", "TMPDIR", "TERM", "NIX_STORE", "=", "a=b", "passAsFileX", "PWD", "zPath"])
            .prop_map(str::to_owned),
    ]
    .prop_filter("means something", |name| !MEANINGFUL.contains(&name.as_str()))
}

/// Attributes that change what is built.
const MEANINGFUL: [&str; 8] = ["name", "system", "builder", "args", "outputs", "out", "outputHash", "passAsFile"];

/// A value in Nix's language.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => text().prop_map(|text| quoted(&text)),
        1 => any::<i64>().prop_map(|number| if number == i64::MIN { "0".to_owned() } else { format!("({number})") }),
        1 => any::<i16>().prop_map(|number| format!("({number})")),
        1 => (-1000i32..1000, 1u32..64).prop_map(|(number, part)| format!("({:?})", f64::from(number) / f64::from(part))),
        1 => prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["dep", "src", "two.dev", "(placeholder \"out\")", "(placeholder \"dev\")"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|elements| format!("[ {} ]", elements.join(" "))),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|members| {
                let members: String =
                    members.iter().map(|(name, value)| format!("{} = {value}; ", quoted(name))).collect();
                format!("{{ {members}}}")
            }),
        ]
    })
}

/// What a derivation may be called.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-zA-Z0-9+_?=-][a-zA-Z0-9+._?=-]{0,20}", 1 => "[a-zA-Z0-9+._?=-]{200,207}"]
        .prop_filter("not a name", |name| !name.starts_with('.') && !name.ends_with(".drv"))
}

/// Builds a derivation with both, for as often as a property is tried.
struct Trial {
    nix: Nix,
    count: Cell<u32>,
}

impl Trial {
    fn new() -> Self {
        Trial { nix: Nix::new(), count: Cell::new(0) }
    }

    fn same(&self, script: &str, attributes: &str) {
        self.count.set(self.count.get() + 1);
        let name = format!("trial-{}", self.count.get());
        let endings = self.nix.both(&name, &expression(&name, script, attributes));
        self.nix.same(&name, &endings);
    }
}

#[test]
fn any_environment_is_the_same() {
    let trial = Trial::new();
    let variables = prop::collection::btree_map(variable(), text(), 0..8);
    proptest!(config(), |(name in name(), variables in variables, files in vec(any::<bool>(), 8))| {
        let mut attributes = format!("name = {};\n", quoted(&name));
        for (name, value) in &variables {
            attributes.push_str(&format!("{} = {};\n", quoted(name), quoted(value)));
        }
        let as_files = variables.keys().zip(&files).filter(|(name, as_file)| **as_file && !name.contains(char::is_whitespace));
        let as_files: Vec<String> = as_files.map(|(name, _)| quoted(name)).collect();
        attributes.push_str(&format!("passAsFile = [ {} ];\n", as_files.join(" ")));
        trial.same("cat /proc/1/environ > $out; for f in .attr-*; do echo $f; cat $f; done >> $out 2> /dev/null; true", &attributes);
    });
}

#[test]
fn any_arguments_are_the_same() {
    let trial = Trial::new();
    proptest!(config(), |(arguments in vec(text(), 0..8))| {
        let mut all = vec![quoted("-c"), quoted("cat /proc/1/cmdline > $out; true")];
        all.extend(arguments.iter().map(|argument| quoted(argument)));
        trial.same("", &format!("args = [ {} ];", all.join(" ")));
    });
}

#[test]
fn any_structured_attributes_are_the_same() {
    let trial = Trial::new();
    let names = variable().prop_filter("read with types", |name| !name.starts_with("exportReferencesGraph"));
    let attributes = prop::collection::btree_map(names, value(), 0..6);
    proptest!(config(), |(attributes in attributes)| {
        let attributes: String =
            attributes.iter().map(|(name, value)| format!("{} = {value};\n", quoted(name))).collect();
        trial.same(
            "o=$(sed 's/.*\"outputs\":{\"out\":\"\\([^\"]*\\)\"}.*/\\1/' .attrs.json); cat .attrs.sh .attrs.json > $o",
            &format!("__structuredAttrs = true;\n{attributes}"),
        );
    });
}

#[test]
fn any_bytes_in_the_environment_are_the_same() {
    let trial = Trial::new();
    // JSON cannot hold these, so fodder reads what Nix wrote: the derivation's file.
    proptest!(config(), |(value in vec(1u8..=255, 0..60))| {
        trial.count.set(trial.count.get() + 1);
        let name = format!("bytes-{}", trial.count.get());
        let file = trial.nix.lab.write(&format!("{name}.bytes"), &value);
        let attributes = format!("value = builtins.readFile {};", file.display());
        let path = trial.nix.instantiate(&name, &expression(&name, "cat /proc/1/environ > $out; true", &attributes));
        let derivation = trial.nix.real(&path);
        let endings = super::nix::Endings {
            nix: trial.nix.realise(&path, &[]),
            fodder: trial.nix.fodder(derivation.to_str().expect("UTF-8"), &path, &[]),
            path,
        };
        trial.nix.same(&name, &endings);
    });
}
