# `.attrs.json` and `.attrs.sh` to the byte, and what is read from structured attributes.
{ placeholder, structured, dep, two, src, refers, fixed, link, odd, hi, ... }:
let
  dump = attributes: { script = structured; drv = { __structuredAttrs = true; } // attributes; };
  # What a value of the wrong type gives: 2.8 reads fewer attributes, and later.
  wrong = words: attributes: dump attributes // {
    ends = [ 1 100 ];
    ours = [ "while parsing derivation '/nix/store/" words ];
    because = "a derivation that cannot be read is rejected input, 100; 2.8 has other words";
  };
  wrongUnread = words: attributes: wrong words attributes // { ends = [ 0 100 ]; because = "2.8 does not read it"; };
  # Every object says that it is valid since some version after 2.8; the rest is compared by the plain form, in graphs.nix.
  graph = attributes: dump attributes // { ours = [ "\"closureSize\":" "\"narHash\":\"sha256:" ",\"valid\":true}" ]; because = "2.8 has no 'valid'"; };
  boolean = "Expected JSON value to be of type 'boolean' but it is of type 'number': 1";
  array = "Expected JSON value to be of type 'array' but it is of type 'string': \"x\"";
  object = "Expected JSON value to be of type 'object' but it is of type 'string': \"x\"";
in
{
  plain = dump { a = "x'y"; b = [ 1 "two" true false null ]; c = { d = "1"; "e f" = 2; }; };
  numbers = dump {
    a = 3000000000; b = 1.5; c = [ 1.5 ]; d = 2.0; e = 1.0e-5; f = 1.0e100; g = 9007199254740993; h = -5; i = 16777217.5; j = 0.1234567890123; k = 0.0; l = -0.0;
    m = 1.0e15; n = 1.0e14; o = 123456789012345678.0; p = 0.0001; q = 0.00001234; r = 9223372036854775807; s = -9223372036854775807; t = 2147483648;
    u = -2147483649; v = 4294967296.0; w = 1.0e300; x = [ 1 2.0 3.0e9 ]; y = { z = 2.5; }; z = { a = 2.0; };
  };
  nested = dump { a = [ [ 1 ] ]; b = { c = { d = 1; }; }; "not a name" = 1; e = [ ]; f = { }; g = [ [ ] ]; h = [ { } ]; i = { j = [ ]; }; k = [ null ]; l = { m = null; }; };
  texts = dump {
    a = "grüß 😀 \n \t \\ \" /"; p = placeholder "out"; inherit dep; "${placeholder "out"}" = "k"; q = { "${placeholder "out"}" = 1; }; r = [ "\r" "€" ]; s = odd; "${odd}" = 1;
  };
  names = dump { _ = "1"; _1 = "2"; "1a" = "3"; a-b = "4"; A = "5"; "ä" = "6"; "a b" = "7"; "a\nb" = "8"; PATH = "p"; HOME = "h"; out = "o"; NIX_STORE = "x"; };
  quotes = dump { a = { "x y" = "1"; "'" = "2"; "$z" = "3"; "[k]" = "4"; "" = "5"; }; b = { "\n" = "6"; }; c = ""; d = " "; e = "'"; f = "''"; g = "\\"; h = "$out `x` \"q\""; };
  switches = dump { a = true; b = false; c = [ true false ]; d = { e = false; f = true; }; g = null; preferLocalBuild = true; allowSubstitutes = false; };
  inputs = dump { inherit dep two; l = [ dep two.dev src ]; o = { d = dep; s = refers; }; };
  outputs = {
    script = "${structured}sed 's/\"/\\n/g' .attrs.json | grep -e '-outputs-' | while read p; do echo > $p; done";
    drv = { __structuredAttrs = true; outputs = [ "out" "dev" "a-b" ]; };
  };
  ignored = dump { passAsFile = [ "a" ]; a = "x"; allowedReferences = [ ]; maxSize = 1; disallowedReferences = [ dep ]; };
  no-variables = { drv.__structuredAttrs = true; script = "echo > $out"; ends = [ 100 100 ]; says = [ "failed with exit code" ]; };
  off = { drv.__structuredAttrs = false; script = "cat /proc/1/environ > $out; true"; };
  placeholder-arguments.drv = { __structuredAttrs = true; args = [ "-c" "echo ${placeholder "out"} > ${placeholder "out"}" ]; };
  impure = {
    script = "echo $told \${absent-unset} $NIX_OUTPUT_CHECKED; cat .attrs.sh; echo hi > $(sed 's/.*\"out\":\"\\([^\"]*\\)\".*/\\1/' .attrs.json)";
    drv = { __structuredAttrs = true; outputHash = hi; impureEnvVars = [ "told" "absent" ]; };
  };
  where = {
    script = "o=$(sed 's/.*\"out\":\"\\([^\"]*\\)\".*/\\1/' .attrs.json); cat /proc/1/environ | tr '\\0' '\\n' | grep ATTRS > $o";
    drv.__structuredAttrs = true;
    ends = [ 0 0 ];
    ours = [ "NIX_ATTRS_JSON_FILE=/build/.attrs.json\nNIX_ATTRS_SH_FILE=/build/.attrs.sh\n" ];
    because = "2.8 names the files by where they are outside the sandbox";
  };

  graph = graph { exportReferencesGraph = { g = refers; h = two; i = [ refers src two.dev ]; }; };
  graph-nested = dump { exportReferencesGraph.g = [ [ refers src ] two.dev ]; } // {
    ends = [ 1 0 ];
    ours = [ "\"g\":[{\"" "-src.txt\",\"references\":[],\"valid\":true}" "-two-dev\",\"references\":[],\"valid\":true}" ];
    because = "2.8 takes no lists in lists";
  };
  graph-own = graph { exportReferencesGraph = { a = [ refers ]; outputs2 = [ dep ]; }; a = "own"; };
  graph-fixed = graph { exportReferencesGraph.g = [ fixed link ]; };
  graph-no-array = wrong "'exportReferencesGraph' value is not an array or a string" { exportReferencesGraph.a = 1; };
  graph-outside = dump { exportReferencesGraph.a = [ (builtins.unsafeDiscardStringContext "${dep}") ]; } // {
    ends = [ 100 100 ];
    says = [ "cannot export references of path '/nix/store/" "because it is not in the input closure of the derivation" ];
  };

  wrong-no-chroot = wrong "while parsing attribute \"__noChroot\": ${boolean}" { __noChroot = 1; };
  wrong-local = wrong "while parsing attribute \"preferLocalBuild\": ${boolean}" { preferLocalBuild = 1; };
  wrong-substitutes = wrongUnread "while parsing attribute \"allowSubstitutes\": ${boolean}" { allowSubstitutes = 1; };
  wrong-features = wrong "while parsing attribute \"requiredSystemFeatures\": ${array}" { requiredSystemFeatures = "x"; };
  wrong-impure = wrongUnread "while parsing attribute \"impureEnvVars\": ${array}" { impureEnvVars = "x"; };
  wrong-checks = wrongUnread object { outputChecks = "x"; };
  wrong-check = wrongUnread object { outputChecks.out = "x"; };
  wrong-list = wrong "while parsing attribute 'outputChecks.\"out\".allowedReferences': ${array}" { outputChecks.out.allowedReferences = "x"; };
  wrong-discard = wrongUnread "while parsing attribute 'unsafeDiscardReferences'" { unsafeDiscardReferences = true; };
}
