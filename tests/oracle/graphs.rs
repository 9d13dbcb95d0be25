//! Reference graphs with derivations in them: what they were built as is listed as well. Nix 2.8 does not say `valid` yet.

use super::nix::Nix;

const EXPRESSION: &str = r#"
let
  make = name: script: attributes: derivation ({ inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" script ]; } // attributes);
  src = builtins.toFile "src" "text";
  dep = make "dep" "echo $two > $out" { inherit src two; };
  two = make "two" "echo > $out; echo $out > $dev" { outputs = [ "out" "dev" ]; };
in {
  plain = make "plain" "cat /build/graph /build/other > $out" { exportReferencesGraph = [ "graph" dep.drvPath "other" dep ]; };
  structured = make "structured" "o=$(sed 's/.*\"out\":\"\\([^\"]*\\)\".*/\\1/' /build/.attrs.json); sed 's/,\"valid\":true//g' /build/.attrs.json > $o"
    { __structuredAttrs = true; exportReferencesGraph = { graph = [ dep.drvPath ]; other = dep; }; };
}
"#;

#[test]
fn graphs_with_derivations_list_what_they_were_built_as() {
    let nix = Nix::new();
    let file = nix.lab.write("all.nix", EXPRESSION);
    for name in ["plain", "structured"] {
        let endings = nix.both(name, &format!("(import {}).{name}", file.display()));
        nix.same(name, &endings);
        let result: serde_json::Value = serde_json::from_str(&endings.fodder.stdout).expect("JSON");
        let output = std::fs::read_to_string(result["outputs"]["out"]["realPath"].as_str().expect("a path"));
        let output = output.expect("the output");
        for member in ["-dep.drv", "-two.drv", "-two-dev", "-src"] {
            assert!(output.contains(member), "{name}: {member} in {output}");
        }
    }
}
