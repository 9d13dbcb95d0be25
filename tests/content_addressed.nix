# Derivations whose outputs get their path from what is in them, and derivations that depend on those.
let
  make = name: script: attributes: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" script ];
  } // attributes);
  content = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
in rec {
  dep = make "dep" "echo dep > $out" content;
  # One output mentions the other.
  two = make "two" "echo $dev > $out; echo d > $dev" (content // { outputs = [ "out" "dev" ]; });
  self = make "self" "mkdir $out; echo $out $dep $out > $out/file; ln -s $out $out/link; cat /proc/1/environ > $out/environ" (content // { inherit dep; });
  # Several outputs, each with itself and another in it.
  names = make "names" "mkdir $a $b; echo $a > $a/x; echo $a $b > $b/x; ln -s $a/x $b/y; echo $out $b > $out" (content // { outputs = [ "out" "a" "b" ]; });
  flat = make "flat" "echo flat > $out" (content // { outputHashMode = "flat"; });
  other = make "other" "echo other > $out" (content // { outputHashAlgo = "sha512"; });
  downstream = make "downstream" "mkdir $out; echo ${self} ${two.dev} > $out/paths; echo $self > $out/self; cat /proc/1/environ > $out/environ" { inherit self; };
  fixed = make "fixed" "test -e $dep; echo hi > $out" { inherit dep; outputHash = "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q="; };
  structured = make "structured" "o=$(sed 's/.*\"out\":\"\\([^\"]*\\)\".*/\\1/' /build/.attrs.json); cat /build/.attrs.json > $o" (content // { __structuredAttrs = true; inherit dep; list = [ self ]; });
  ours = make "ours" "echo ours $self > $out" (content // { inherit self; });
  checked = make "checked" "echo $self > $out" (content // { inherit self; allowedReferences = [ self ]; });
}
