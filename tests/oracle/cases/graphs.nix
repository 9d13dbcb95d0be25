# `exportReferencesGraph` of derivations with plain attributes.
{ dep, two, src, refers, fixed, link, directory, placeholder, ... }:
let
  refused = words: graph: {
    script = "echo > $out";
    drv.exportReferencesGraph = graph;
    ends = [ 100 100 ];
    says = words;
  };
  late = { ends = [ 1 100 ]; because = "rejected input gives 100"; };
in
{
  one = { script = "cat g > $out; stat -c '%n %a %u %g %s' g >> $out"; drv.exportReferencesGraph = [ "g" refers ]; };
  many = { script = "cat a b c > $out"; drv.exportReferencesGraph = [ "a" link "b" two "c" fixed ]; };
  twice = { script = "cat a > $out"; drv.exportReferencesGraph = [ "a" dep "a" src ]; };
  below = { script = "cat g > $out"; drv.exportReferencesGraph = [ "g" "${directory}/a/b" ]; };
  none = { script = "echo > $out"; drv.exportReferencesGraph = [ ]; };
  odd = refused [ "odd number of tokens in 'exportReferencesGraph'" ] [ "a" dep "b" ];
  slash = refused [ "invalid file name 'a/b' in 'exportReferencesGraph'" ] [ "a/b" dep ] // late;
  dot = refused [ "invalid file name '.x' in 'exportReferencesGraph'" ] [ ".x" dep ] // late;
  star = refused [ "invalid file name 'x*' in 'exportReferencesGraph'" ] [ "x*" dep ] // late;
  no-store = refused [ "'/foo'" ] [ "a" "/foo" ] // { ours = [ "path '/foo' is not in the Nix store" ]; because = "2.8 has other words"; };
  self = refused [ "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9" ] [ "a" (placeholder "out") ];
  outside = refused [ "because it is not in the input closure of the derivation" ] [ "a" (builtins.unsafeDiscardStringContext "${dep}") ];
}
