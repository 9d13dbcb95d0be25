//! Output trees that nobody would think of: made at random, built by both.

use super::nix::{Nix, expression};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed},
};

/// Something in a directory.
#[derive(Clone, Debug)]
enum Node {
    File { size: u32, fill: u8, mode: u16 },
    Link(Vec<u8>),
    Directory { mode: u16, entries: Vec<(Vec<u8>, Node)> },
}

/// A name: any bytes but slash, NUL and, for the shell's sake, the newline.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => b'a'..=b'e', 1 => prop::sample::select(&b" .-_~'\"\\*?$#\t\x01\x7f\x80\xc3\xff%"[..])];
    vec(byte, 1..12).prop_filter("not a name", |name| !matches!(&name[..], b"." | b".."))
}

/// A fixed number of cases, from a seed that is printed: `FODDER_SEED` repeats them.
#[expect(clippy::print_stdout, reason = "the test harness shows it when the test fails")]
pub fn config() -> Config {
    let seed = std::env::var("FODDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
    println!("FODDER_SEED={seed}");
    Config {
        cases: 24,
        failure_persistence: None,
        max_shrink_iters: 30,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    }
}

fn node() -> impl Strategy<Value = Node> {
    let edge = prop::sample::select(vec![4096u32, 8192, 16384, 32768, 65536, 131_072, 262_144]);
    let size = prop_oneof![0u32..40, (edge, 0u32..20).prop_map(|(edge, more)| edge - 10 + more), 0u32..300_000];
    let leaf = prop_oneof![
        4 => (size, any::<u8>(), 0u16..0o1000).prop_map(|(size, fill, mode)| Node::File { size, fill, mode }),
        1 => name().prop_map(Node::Link),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        (0u16..0o1000, vec((name(), inner), 0..6)).prop_map(|(mode, entries)| Node::Directory { mode, entries })
    })
}

/// Bytes as a format of printf(1).
fn octal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

/// What Nix can read when it is not root: it does not open up what a builder closed to itself.
fn readable(mode: u16, bits: u16) -> u16 {
    if nix_is_root() { mode } else { mode | bits }
}

fn nix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("metadata").uid() == 0
}

/// Shell commands that make a node in the current directory. Modes are set from the inside out.
fn commands(name: &[u8], node: &Node, script: &mut String) {
    let quoted = format!("\"./$(printf '{}')\"", octal(name));
    match node {
        Node::File { size, fill, mode } => script.push_str(&format!(
            "yes \"$(printf 'x\\{:03o}')\" | head -c {size} > {quoted}; chmod {mode:o} {quoted}\n",
            fill % 0o177 + 1,
            mode = readable(*mode, 0o400),
        )),
        Node::Link(target) => script.push_str(&format!("ln -s -- \"$(printf '{}')\" {quoted}\n", octal(target))),
        Node::Directory { mode, entries } => {
            script.push_str(&format!("mkdir {quoted}; cd {quoted}\n"));
            let mut seen = std::collections::BTreeSet::new();
            for (name, node) in entries.iter().filter(|(name, _)| seen.insert(name.clone())) {
                commands(name, node, script);
            }
            script.push_str(&format!("cd ..; chmod {:o} {quoted}\n", readable(*mode, 0o700)));
        }
    }
}

#[test]
fn any_tree_is_the_same() {
    let nix = Nix::new();
    let count = std::cell::Cell::new(0);
    proptest!(config(), |(entries in vec((name(), node()), 0..8))| {
        let mut script = "set -e; mkdir $out; cd $out\n".to_owned();
        let mut seen = std::collections::BTreeSet::new();
        for (name, node) in entries.iter().filter(|(name, _)| seen.insert(name.clone())) {
            commands(name, node, &mut script);
        }

        count.set(count.get() + 1);
        let name = format!("tree-{}", count.get());
        let endings = nix.both(&name, &expression(&name, &script, ""));
        nix.same(&name, &endings);
    });
}
