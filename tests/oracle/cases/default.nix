# The table: a file for each group, an attribute for each derivation that both build. What may be said about one:
#   script   shell text for `/bin/sh -c`, which is busybox with all its commands
#   drv      further attributes of the derivation, or other ones than the usual
#   ends     exit codes of Nix and of fodder; [ 0 0 ] when absent, and then paths, hashes, references and logs are compared
#   says     words that both say
#   ours     words that only fodder says, on its standard error or in its output
#   because  why the two differ; nothing may differ without it
#   flags    for both
{ group }:
let
  system = builtins.currentSystem;
  sh = name: script: attributes:
    derivation ({ inherit name system; builder = "/bin/sh"; args = [ "-c" script ]; } // attributes);

  given = rec {
    inherit system sh;
    inherit (builtins) placeholder;
    hi = "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q="; # of a file "hi\n"
    zero = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    other = "sha256-ERERERERERERERERERERERERERERERERERERERERERE=";
    times = count: text: builtins.concatStringsSep "" (builtins.genList (_: text) count);

    dep = sh "dep" "echo dep > $out" { };
    two = sh "two" "echo $dev > $out; echo d > $dev" { outputs = [ "out" "dev" ]; };
    fixed = sh "fixed" "echo hi > $out" { outputHash = hi; };
    directory = sh "directory" "mkdir -p $out/a/b; echo x > $out/f; echo y > $out/a/b/g; chmod +x $out/f; ln -s f $out/l" { };
    link = sh "link" "ln -s $dep $out" { inherit dep; };
    src = builtins.toFile "src.txt" "hello";
    refers = builtins.toFile "refers.txt" "see ${src}";
    odd = builtins.readFile ./odd.txt; # control characters, and some that are more than one byte

    # What a builder sees of its environment, and with structured attributes of its files.
    environment = "cat /proc/1/environ > $out; true"; # true: the last command takes the place of the shell, and its environment
    structured = ''
      o=$(sed 's/.*"outputs":{\("[^"]*":"[^"]*",\)*"out":"\([^"]*\)".*/\2/' .attrs.json)
      cat .attrs.sh .attrs.json > $o
      stat -c '%n %a %u %g %s' .attrs.* >> $o
      echo ''${out-unset} ''${name-unset} >> $o
    '';
  };

  cases = import (./. + "/${group}.nix") given;
  names = builtins.attrNames cases;
in
{
  derivations = map (name: sh name cases.${name}.script or "" cases.${name}.drv or { }) names;
  expectations = map (name: { inherit name; } // removeAttrs cases.${name} [ "script" "drv" ]) names;
}
