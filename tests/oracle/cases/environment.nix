# The builder's arguments, environment and files that attributes become.
{ placeholder, environment, times, odd, dep, src, refers, two, fixed, hi, ... }:
let
  dump = drv: { script = environment; inherit drv; };
in
{
  minimal = dump { };
  numbers = dump { a = 1; b = -7; c = 1.5; d = true; e = false; f = null; g = [ 1 "two words" true [ 3 null ] ]; h = 1.0e20; i = 0.1; };
  texts = dump { a = ""; b = " x "; c = "a\nb\tc\rd"; d = "\\ \" ' $ `"; e = "grüß 😀"; inherit odd; };
  odd-names = dump { "a b" = "1"; "x=y" = "2"; "9" = "3"; _ = "4"; "ü" = "5"; "a.b-c" = "6"; "=" = "7"; "=x" = "8"; "-" = "9"; "\n" = "10"; "*" = "11"; };
  empty-name = dump { "" = "x"; };
  overrides = dump {
    HOME = "h"; PATH = "p"; NIX_STORE = "s"; NIX_BUILD_CORES = "c"; TMPDIR = "t"; TEMP = "q"; NIX_BUILD_TOP = "b"; TERM = "x";
    NIX_LOG_FD = "9"; PWD = "w"; NIX_OUTPUT_CHECKED = "1"; OLDPWD = "z"; SHLVL = "7"; NIX_REMOTE = "daemon"; NIX_ATTRS_JSON_FILE = "j";
  };
  placeholders = dump { p = placeholder "out"; "${placeholder "out"}" = "n"; "x${placeholder "out"}y" = "m"; q = placeholder "other"; r = "${placeholder "out"}${placeholder "out"}"; };
  placeholder-arguments.drv.args = [ "-c" "echo ${placeholder "out"} $0 $1 > ${placeholder "out"}" (placeholder "out") (placeholder "dev") ];
  inputs = dump { inherit dep src refers; d = two.dev; f = fixed; };
  outputs = { script = "echo > $out; cat /proc/1/environ > $lib; echo > $dev"; drv = { outputs = [ "lib" "out" "dev" ]; p = placeholder "dev"; }; };
  no-out = { script = "cat /proc/1/environ > $lib; true"; drv.outputs = [ "lib" ]; };
  output-names = { script = "for o in $outputs; do echo $o > $(tr '\\0' '\\n' < /proc/1/environ | sed -n \"s/^$o=//p\"); done"; drv.outputs = [ "a-b" "out" "x_y" "B" "z9" ]; };
  large = dump { a = times 8000 "0123456789abcdef"; };
  too-large = {
    drv.a = times 9000 "0123456789abcdef";
    ends = [ 100 100 ];
    says = [ "executing '/bin/sh': Argument list too long" "exit code 1" ];
    because = "2.34 writes the words in colours and without a newline";
  };
  too-large-argument = {
    drv.args = [ "-c" "echo > $out" (times 9000 "0123456789abcdef") ];
    ends = [ 100 100 ];
    says = [ "Argument list too long" ];
    because = "2.34 writes the words in colours and without a newline";
  };
  many = {
    script = "sha256sum < /proc/1/environ > $out; true";
    drv = builtins.listToAttrs (builtins.genList (n: { name = "v${toString n}"; value = times 60 "0123456789abcdef"; }) 1000);
  };
  pretends = dump { OUTPUTHASH = "x"; outputHashAlgo = "sha256"; outputHashMode = "recursive"; };
  argv.drv.args = [
    "-c"
    "for a in \"$0\" \"$@\"; do echo \"<$a>\"; done > $out; tr '\\0' ' ' < /proc/1/cmdline >> $out; true"
    "zero" "" "a b" (placeholder "out") "ü" "a\nb"
  ];

  as-file = {
    script = "cat $bigPath $emptyPath > $out; cat /proc/1/environ >> $out; stat -c '%n %a %u %g %s' /build/.attr* >> $out";
    drv = { passAsFile = [ "big" "empty" "none" ]; big = "x\ny${placeholder "out"}"; empty = ""; };
  };
  as-file-explicit = dump { passAsFile = "big"; big = "x"; bigPath = "mine"; };
  as-file-special = dump { passAsFile = [ "PATH" "HOME" "name" "passAsFile" "builder" "system" ]; PATH = "x"; };
  as-file-out = { script = "cat /proc/1/environ > $(cat $outPath); true"; drv.passAsFile = [ "out" ]; };
  as-file-placeholder = { script = "cat /proc/1/environ /build/.attr* > $out; true"; drv = { passAsFile = [ (placeholder "out") ]; "${placeholder "out"}" = "v"; }; };
  as-file-space = dump { passAsFile = "  big \n\t other  "; big = "1"; other = "2"; };

  impure-ignored = dump { impureEnvVars = [ "told" ]; };
  impure = { script = "tr '\\0' '\\n' < /proc/1/environ; echo hi > $out"; drv = { outputHash = hi; impureEnvVars = [ "told" "absent" "TMPDIR" "HOME" "NIX_STORE" "TERM" ]; }; };
  impure-own = { script = "tr '\\0' '\\n' < /proc/1/environ; echo hi > $out"; drv = { outputHash = hi; impureEnvVars = "told  told\ntold http_proxy a=b"; told = "mine"; http_proxy = "own"; }; };
  impure-out = {
    script = "echo hi > \"$out\"";
    drv = { outputHash = hi; impureEnvVars = [ "out" ]; };
    ends = [ 1 100 ];
    says = [ "builder" "failed with exit code 1" ];
    because = "a fixed output whose builder fails gives 100, see docs/differences-from-nix.md";
  };
  inert = dump {
    preferLocalBuild = true; allowSubstitutes = false; __darwinAllowLocalNetworking = true; enableParallelBuilding = true; __propagatedImpureHostDeps = [ ];
    __sandboxProfile = ""; __impureHostDeps = [ ]; maxSize = 1; maxClosureSize = 1; unsafeDiscardReferences = true; outputChecks = "x"; __noChroot = "true"; requiredSystemFeatures = [ "big-parallel" "nixos-test" "benchmark" "ca-derivations" ];
  };
}
