# What counts as a reference, and what the checks of references, requisites and sizes say.
{ dep, two, src, refers, fixed, link, directory, ... }:
let
  make = drv: script: { inherit script drv; };
  with-dep = make { inherit dep; };
  forbidden = drv: script: {
    inherit script drv;
    ends = [ 1 112 ];
    says = [ "is not allowed to refer to the following paths" ];
    because = "forbidden references give 112";
  };
  # 2.8 takes a specifier that is no path for the name of an output, and fails in other words.
  unknown = drv: {
    script = "echo > $out";
    inherit drv;
    ends = [ 1 1 ];
    ours = [ "but this is not a valid output of this derivation. (Valid outputs are [out].)" ];
    because = "2.8 has other words";
  };
  find-out = "out=$(sed 's/.*\"out\":\"\\([^\"]*\\)\".*/\\1/' .attrs.json); dev=$(sed 's/.*\"dev\":\"\\(\\/nix[^\"]*\\)\".*/\\1/' .attrs.json); dep=$(echo /nix/store/*-dep)";
  structured = checks: script: { script = "${find-out}; ${script}"; drv = { __structuredAttrs = true; outputChecks = checks; inherit dep; }; };
  refused = ends: words: case: case // { inherit ends; says = words; because = "2.34 agrees"; };
in
{
  none = with-dep "echo > $out";
  self = make { } "echo $out > $out";
  text = make { inherit dep src refers; } "echo $dep $src > $out";
  indirect = make { inherit refers; } "echo $refers > $out";
  closure = make { inherit refers; } "cat $refers > $out";
  symlink = with-dep "ln -s $dep/x $out";
  symlink-elsewhere = with-dep "ln -s /foo/\${dep:11:32} $out";
  symlink-relative = with-dep "ln -s \${dep##*/} $out";
  file-name = with-dep "mkdir $out; touch $out/x\${dep:11:32}y";
  directory-name = with-dep "mkdir $out $out/\${dep:11:32}";
  hash-only = with-dep "echo aaa\${dep:11:32}bbb > $out";
  upper-case = with-dep "echo $dep | tr a-z A-Z > $out";
  split = with-dep "mkdir $out; echo \${dep:11:16} > $out/a; echo \${dep:27:16} > $out/b";
  cut = with-dep "echo \${dep:11:31} > $out";
  again = with-dep "printf %s%s \${dep:11:31} \${dep:11:32} > $out";
  interrupted = with-dep "printf '%s\\0%s' \${dep:11:16} \${dep:27:16} > $out";
  wide = with-dep "echo $dep | sed 's/./& /g' | tr ' ' '\\0' > $out";
  compressed = with-dep "echo $dep | gzip > $out";
  at-block-edges = with-dep "mkdir $out; for s in 4070 8160 16370 32760 65520 131060 131072 262130; do { yes x | head -c $s; echo $dep; } > $out/s$s; done";
  derivation = make { d = dep.drvPath; } "echo $d > $out";
  not-an-input = make { x = builtins.unsafeDiscardStringContext "${dep}"; } "echo $x > $out";
  between-outputs = make { outputs = [ "out" "dev" "lib" ]; inherit dep; } "echo $dev > $out; echo $lib > $dev; echo $dep $lib > $lib";
  output-of-two = make { d = two.dev; o = two; } "echo $d > $out";
  other-output-of-two = make { inherit two; } "echo $two > $out";
  fixed-input = make { inherit fixed; } "cat $fixed > $out; echo $fixed >> $out";
  link-input = make { inherit link; } "echo $link > $out; cat $link >> $out; readlink $link >> $out";
  chain = make { inherit link; } "ls /nix/store > $out";

  allowed = make { inherit dep; allowedReferences = [ dep ]; } "echo $dep > $out";
  allowed-out = make { allowedReferences = [ "out" ]; disallowedReferences = [ dep ]; } "echo $out > $out";
  allowed-dev = make { outputs = [ "out" "dev" ]; allowedReferences = [ "dev" ]; } "echo $dev > $out; echo > $dev";
  allowed-text = make { inherit dep; allowedReferences = "${dep} ${src}"; } "echo $dep > $out";
  allowed-nothing = forbidden { inherit dep; allowedReferences = [ ]; } "echo $dep > $out";
  allowed-two = forbidden { inherit dep src; allowedReferences = [ ]; } "echo $dep $src > $out";
  allowed-not-self = forbidden { allowedReferences = [ ]; } "echo $out > $out";
  allowed-unknown = unknown { allowedReferences = [ "foo" ]; };
  allowed-below = unknown { inherit directory; allowedReferences = [ "${directory}/a" ]; };
  requisites = make { inherit refers src; allowedRequisites = [ refers src ]; } "echo $refers > $out";
  requisites-self = make { allowedRequisites = [ ]; } "echo $out > $out";
  requisites-missing = forbidden { inherit refers src; allowedRequisites = [ refers ]; } "echo $refers > $out";
  requisites-chain = forbidden { inherit link; allowedRequisites = [ link ]; } "echo $link > $out";
  disallowed = forbidden { inherit dep; disallowedReferences = [ dep ]; } "echo $dep > $out";
  disallowed-out = forbidden { disallowedReferences = [ "out" ]; } "echo $out > $out";
  disallowed-indirect = make { inherit refers src; disallowedReferences = [ src ]; } "echo $refers > $out";
  disallowed-unknown = unknown { disallowedReferences = [ "foo" ]; };
  disallowed-no-input = make { disallowedReferences = [ (builtins.unsafeDiscardStringContext "${dep}") ]; } "echo > $out";
  disallowed-requisite = forbidden { inherit refers src; disallowedRequisites = [ src ]; } "echo $refers > $out";
  disallowed-requisite-out = make { disallowedRequisites = [ "out" ]; } "echo $out > $out";
  disallowed-requisites = forbidden { inherit refers dep src; disallowedRequisites = [ src dep refers ]; } "echo $refers $dep > $out";
  disallowed-through-dev = forbidden { inherit dep; outputs = [ "out" "dev" ]; disallowedRequisites = [ dep ]; } "echo $dev > $out; echo $dep > $dev";
  all-at-once = forbidden { inherit dep; allowedReferences = [ ]; disallowedReferences = [ dep ]; disallowedRequisites = [ dep ]; allowedRequisites = [ ]; } "echo $dep > $out";
  sizes-ignored = make { maxSize = 1; maxClosureSize = 1; } "echo > $out";

  size = structured { out.maxSize = 120; } "echo > $out";
  size-exceeded = refused [ 1 1 ] [ "is too large at 120 bytes; limit is 10 bytes" ] (structured { out.maxSize = 10; } "echo > $out");
  size-fraction = structured { out.maxSize = 1.0e3; } "echo > $out";
  size-negative = structured { out.maxSize = -1; } "echo > $out";
  closure-exceeded = refused [ 1 1 ] [ "closure of path '/nix/store/" "is too large at 280 bytes; limit is 200 bytes" ] (structured { out.maxClosureSize = 200; } "echo $dep > $out");
  structured-allowed = refused [ 1 112 ] [ "is not allowed to refer to the following paths" ] (structured { out.allowedReferences = [ ]; } "echo $dep > $out");
  structured-requisites-self = structured { out.allowedRequisites = [ ]; } "echo > $out" // {
    ends = [ 1 112 ];
    says = [ "is not allowed to refer to the following paths" ];
    because = "forbidden references give 112";
  };
  structured-requisites = structured { out.allowedRequisites = [ "out" ]; } "echo > $out";
  structured-other = structured { dev.allowedReferences = [ ]; } "echo $dep > $out";
  structured-outputs = let case = structured { out.allowedReferences = [ "dev" ]; dev.disallowedReferences = [ "out" ]; } "echo $dev > $out; echo $dep > $dev"; in case // { drv = case.drv // { outputs = [ "out" "dev" ]; }; };
  discard = let case = structured { out.allowedReferences = [ ]; } "echo $dep $out > $out"; in case // {
    drv = case.drv // { unsafeDiscardReferences.out = true; };
    ends = [ 1 0 ];
    because = "2.8 does not know unsafeDiscardReferences";
  };
}
