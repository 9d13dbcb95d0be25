# Outputs whose hash is declared.
{ dep, hi, zero, other, structured, ... }:
let
  built = attributes: { script = "echo hi > $out"; drv = attributes; };
  mismatch = attributes: got: built attributes // { ends = [ 102 102 ]; says = [ "hash mismatch in fixed-output derivation '/nix/store/" "specified: " "got:    ${got}" ]; };
  shape = attributes: script: {
    inherit script;
    drv = { outputHash = zero; } // attributes;
    ends = [ 1 1 ];
    says = [ "should be a non-executable regular file since recursive hashing is not enabled (" ];
    because = "2.34 names the attribute otherwise";
  };
  # 2.8 has no place for such references in its address and ends with a failed assertion.
  refers = attributes: {
    script = "echo $dep > $out";
    drv = { inherit dep; } // attributes;
    ends = [ 134 112 ];
    ours = [
      "is not allowed to refer to other store paths.\n       You may need to use the 'unsafeDiscardReferences' derivation attribute, see the manual for more details."
    ];
    because = "2.8 aborts, 2.34 ends with 1; forbidden references give 112";
  };
in
{
  sri = built { outputHash = hi; };
  base16 = built { outputHash = "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4"; outputHashAlgo = "sha256"; outputHashMode = "flat"; };
  base16-upper = built { outputHash = "98EA6E4F216F2FB4B69FFF9B3A44842C38686CA685F3F55DC48C5D3FB1107BE4"; outputHashAlgo = "sha256"; };
  nix32 = built { outputHash = "1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq"; outputHashAlgo = "sha256"; };
  base64 = built { outputHash = "mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q="; outputHashAlgo = "sha256"; };
  prefixed = built { outputHash = "sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq"; };
  trailing = built { outputHash = "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=?foo"; };
  md5 = built { outputHash = "764efa883dda1e11db47671c4a3bbd9e"; outputHashAlgo = "md5"; };
  sha1 = built { outputHash = "55ca6286e3e4f4fba5d0448333fa99fc5a404a73"; outputHashAlgo = "sha1"; };
  sha512 = built { outputHash = builtins.hashString "sha512" "hi\n"; outputHashAlgo = "sha512"; };
  nar = built { outputHashMode = "recursive"; outputHash = "sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY="; };
  name = built { name = "a.tar.gz"; outputHash = hi; };
  checks = built { outputHash = hi; allowedReferences = [ ]; disallowedReferences = [ "out" ]; };
  executable-for-others = { script = "echo hi > $out; chmod 654 $out"; drv.outputHash = hi; };
  environment = {
    script = "echo $told $TMPDIR \${absent-unset} $NIX_OUTPUT_CHECKED $out $outputHash; echo hi > $out";
    drv = { outputHash = hi; impureEnvVars = [ "told" "absent" ]; p = builtins.placeholder "out"; };
  };
  places = {
    script = "ls -A /; ls -A /etc | grep -v ssl; cat /etc/nsswitch.conf; cat /etc/resolv.conf | wc -l; hostname; echo hi > $out";
    drv.outputHash = hi;
  };

  mismatch = mismatch { outputHash = other; } hi;
  mismatch-zero = mismatch { outputHash = zero; } hi;
  mismatch-empty = mismatch { outputHash = ""; outputHashAlgo = "sha256"; } hi;
  mismatch-nar = mismatch { outputHash = other; outputHashMode = "recursive"; } "sha256-EFUdrtf6Rn0LWIJufrmg8q99aT3jGfLvd1//zaJEufY=";
  mismatch-md5 = mismatch { outputHash = "64a7a7b7b7b7b7b7b7b7b7b7b7b7b7b7"; outputHashAlgo = "md5"; } "md5-dk76iD3aHhHbR2ccSju9ng==";
  mismatch-sha1 = mismatch { outputHash = "45b983be36b73c0788dc9cbcb76cbb80fc7bb057"; outputHashAlgo = "sha1"; } "sha1-VcpihuPk9Pul0ESDM/qZ/FpASnM=";
  mismatch-sha512 = mismatch { outputHash = builtins.hashString "sha512" "ho"; outputHashAlgo = "sha512"; } "sha512-";
  mismatch-executable = { script = "echo hi > $out; chmod 755 $out"; drv = { outputHash = zero; outputHashMode = "recursive"; }; ends = [ 102 102 ]; says = [ "hash mismatch in fixed-output derivation" ]; };
  flat-directory = shape { } "mkdir $out";
  flat-executable = shape { outputHash = hi; } "echo hi > $out; chmod +x $out";
  flat-link = shape { } "ln -s x $out";
  flat-writable = { script = "echo hi > $out; chmod 666 $out"; drv.outputHash = hi; ends = [ 1 1 ]; says = [ "suspicious ownership or permission" ]; };
  nothing = { script = "true"; drv.outputHash = hi; ends = [ 1 1 ]; says = [ "failed to produce output path for output 'out'" ]; };
  fails = { script = "exit 3"; drv.outputHash = hi; ends = [ 1 100 ]; says = [ "failed with exit code 3" ]; because = "a fixed output whose builder fails gives 100"; };

  refers-flat = refers { outputHash = other; };
  refers-self = refers { outputHash = other; } // { script = "echo $out > $out"; ends = [ 102 112 ]; };
  refers-sha1-nar = refers { outputHash = "45b983be36b73c0788dc9cbcb76cbb80fc7bb058"; outputHashAlgo = "sha1"; outputHashMode = "recursive"; };
  refers-nar = {
    script = "echo $dep > $out";
    drv = { inherit dep; outputHash = other; outputHashMode = "recursive"; };
    ends = [ 102 102 ];
    says = [ "hash mismatch in fixed-output derivation" ];
    ours = [ "fixed-output derivations must not reference store paths: '/nix/store/" ];
    because = "fodder says both at once";
  };
  refers-unknown = {
    script = "echo $dep > $out";
    drv = { inherit dep; outputHash = zero; outputHashMode = "recursive"; };
    ends = [ 102 112 ];
    ours = [ "fixed-output derivations must not reference store paths" ];
    because = "who asks for a hash is told first that none would help";
  };
}
