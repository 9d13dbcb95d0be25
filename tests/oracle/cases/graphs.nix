# `exportReferencesGraph` of derivations with plain attributes.
{ dep, two, src, refers, fixed, link, directory, placeholder, ... }:
let
  refused = words: graph: {
    script = "echo > $out";
    drv.exportReferencesGraph = graph;
    ends = [ 1 100 ];
    says = words;
    because = "input that is rejected gives 100";
  };
in
{
  one = { script = "cat g > $out; stat -c '%n %a %u %g %s' g >> $out"; drv.exportReferencesGraph = [ "g" refers ]; };
  many = { script = "cat a b c > $out"; drv.exportReferencesGraph = [ "a" link "b" two "c" fixed ]; };
  twice = { script = "cat a > $out"; drv.exportReferencesGraph = [ "a" dep "a" src ]; ours = [ "-src.txt\n\n0\n" ]; };
  below = { script = "cat g > $out"; drv.exportReferencesGraph = [ "g" "${directory}/a/b" ]; };
  none = { script = "echo > $out"; drv.exportReferencesGraph = [ ]; };
  odd = refused [ "odd number of tokens in 'exportReferencesGraph'" ] [ "a" dep "b" ];
  slash = refused [ "invalid file name 'a/b' in 'exportReferencesGraph'" ] [ "a/b" dep ];
  dot = refused [ "invalid file name '.x' in 'exportReferencesGraph'" ] [ ".x" dep ];
  star = refused [ "invalid file name 'x*' in 'exportReferencesGraph'" ] [ "x*" dep ];
  no-store = refused [ "path '/foo' is not in the Nix store" ] [ "a" "/foo" ];
  self = refused [ "is not in the Nix store" ] [ "a" (placeholder "out") ];
  outside = refused [ "because it is not in the input closure of the derivation" ] [ "a" (builtins.unsafeDiscardStringContext "${dep}") ];
}
