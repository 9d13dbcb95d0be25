# How builders end, and what their logs hold.
{ system, sh, dep, directory, hi, ... }:
let
  make = script: { inherit script; };
  fails = words: script: { inherit script; ends = [ 100 100 ]; says = words; };
  goes-on = script: { inherit script; ends = [ 100 0 ]; ours = [ "hi\n" ]; because = "the end of its log is no end of a builder's"; };
  exit = code: fails [ "failed with exit code ${toString code}" ];
  cannot = words: builder: {
    drv = { inherit builder; };
    ends = [ 100 100 ];
    says = [ "executing '${builder}': ${words}" "exit code 1" ];
    because = "2.34 writes the words in colours and without a newline";
  };
in
{
  exit-1 = exit 1 "echo one; echo two; exit 1";
  exit-3 = exit 3 "exit 3";
  exit-126 = exit 126 "exit 126";
  exit-127 = exit 127 "nonexistent-command";
  exit-137 = exit 137 "exit 137";
  exit-255 = exit 255 "exit 255";
  exit-256 = make "echo hi > $out; exit 256";
  no-kill = make "kill -9 $$; kill -TERM $$; kill -SEGV $$; echo ok > $out";
  trap = make "trap 'echo got > $out' USR1; kill -USR1 $$; true";
  trap-exit = exit 7 "trap 'exit 7' TERM; kill -TERM $$; echo no";
  child-killed = make "sh -c 'kill -SEGV $$'; echo $? > $out";
  closes-its-log = goes-on "exec >&- 2>&-; sleep 1; echo hi > $out";
  leaves-its-log = goes-on "exec > /dev/null 2>&1; sleep 1; echo hi > $out";
  closes-one = make "exec >&-; sleep 0.2; echo hi > $out";
  background = make "(sleep 5; echo late >> $out) & echo hi > $out";
  background-session = make "setsid sleep 100 & echo hi > $out";
  background-fails = exit 4 "sleep 100 & exit 4";
  orphan = make "( ( sleep 0.1; grep PPid /proc/self/status > $out ) & ); sleep 0.4";
  no-builder = cannot "No such file or directory" "/bin/nope";
  builder-root = cannot "Permission denied" "/";
  builder-closed = cannot "Permission denied" "/etc/passwd";
  builder-directory = cannot "Permission denied" "/build";
  builder-below-file = cannot "Not a directory" "/bin/sh/";
  builder-relative = cannot "No such file or directory" "sh";
  builder-data = cannot "Permission denied" "${dep}";
  builder-text = {
    drv.builder = "${sh "text" "echo 'echo hi > $out' > $out; chmod +x $out" { }}";
    ends = [ 100 100 ];
    says = [ "-text': Exec format error" ];
    because = "2.34 writes the words in colours and without a newline";
  };
  builder-no-interpreter = {
    drv.builder = "${sh "script" "echo '#!/nonexistent/interpreter' > $out; chmod +x $out" { }}";
    ends = [ 100 100 ];
    says = [ "-script': No such file or directory" ];
    because = "2.34 writes the words in colours and without a newline";
  };
  builder-script.drv = { builder = "${sh "script" "{ echo '#!/bin/sh -e'; echo 'echo $0 $1 $- > $out'; } > $out; chmod +x $out" { }}"; args = [ "a" "b" ]; };
  builder-dots = { script = "echo $0 > $out"; drv.builder = "/bin/../bin//sh"; };
  no-arguments = { drv.args = [ ]; ends = [ 1 1 ]; says = [ "failed to produce output path" ]; };

  foreign = { drv.system = "foo-bar"; ends = [ 1 100 ]; says = [ "foo-bar" ]; ours = [ "Reason: platform mismatch\n       Required system: 'foo-bar'\n       Current system: '${system}'" ]; because = "2.34 gives 100, in these words"; };
  features = { drv.requiredSystemFeatures = [ "zebra" "ape" ]; ends = [ 1 100 ]; says = [ "zebra" ]; ours = [ "Reason: missing system features\n       Required features: {ape, zebra}\n       Available features: {" ]; because = "2.34 gives 100, in these words"; };
  foreign-features = { drv = { system = "foo-bar"; requiredSystemFeatures = [ "zebra" ]; }; ends = [ 1 100 ]; ours = [ "Reason: platform mismatch" "Reason: missing system features" ]; because = "2.34 gives 100 and both reasons"; };
  kvm-and-others = { drv.requiredSystemFeatures = [ "kvm" "uid-range" "recursive-nix" ]; ends = [ 1 100 ]; ours = [ "Reason: missing system features" ]; because = "fodder has neither, see docs/differences-from-nix.md"; };
  no-chroot = { script = "echo > $out"; drv.__noChroot = true; ends = [ 1 100 ]; says = [ "has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'" ]; because = "rejected input gives 100"; };
  impure-path = { script = "echo > $out"; drv.__impureHostDeps = [ "/etc/passwd" ]; ends = [ 1 100 ]; says = [ "requested impure path '/etc/passwd', but it was not in allowed-impure-host-deps" ]; because = "rejected input gives 100"; };
  dependency-fails = { script = "echo > $out"; drv.d = sh "bad" "exit 1" { }; ends = [ 100 100 ]; says = [ "-bad.drv" "exit code 1" ]; ours = [ "Reason: 1 dependency failed.\n       Output paths:\n         /nix/store/" ]; because = "2.8 has other words"; };
  dependency-mismatches = { script = "echo > $out"; drv.d = sh "badm" "echo ho > $out" { outputHash = hi; }; ends = [ 102 102 ]; says = [ "hash mismatch in fixed-output derivation" ]; };

  timeout = { script = "echo; sleep 60"; flags = [ "--timeout" "1" ]; ends = [ 101 101 ]; says = [ "timed out after 1 seconds" ]; };
  timeout-fixed = { script = "echo; sleep 60"; drv.outputHash = hi; flags = [ "--timeout" "1" ]; ends = [ 101 101 ]; says = [ "timed out after 1 seconds" ]; };
  silence = { script = "echo; sleep 60"; flags = [ "--max-silent-time" "1" ]; ends = [ 101 101 ]; says = [ "timed out after 1 seconds" ]; };

  log = make "printf 'plain\\n\\033[31mred\\033[0m\\r\\nno newline\\000\\377'; echo >&2 err; echo '@nix { \"action\": \"setPhase\", \"phase\": \"x\" }'; echo '@nix nonsense'; printf end; echo > $out";
  log-empty = make "echo > $out";
  log-unended = make "printf abc; echo > $out";
  log-returns = make "printf 'a\\rb\\r\\nc\\r'; echo > $out";
  log-nul = make "printf '\\000\\000\\n\\000'; echo > $out";
  log-bytes = make "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done; echo > $out";
  log-controls = make "printf '\\003\\004\\021\\023\\032\\034\\177\\001\\n\\002\\n\\001\\n'; echo ok; echo > $out";
  log-cooked = make "stty onlcr opost < /dev/stdout; echo a; echo b; stty raw < /dev/stdout; echo c; echo > $out";
  log-long = make "i=0; while [ $i -lt 3000 ]; do echo line $i of a log that is longer than a pipe or a terminal holds; i=$((i+1)); done; echo > $out";
  log-line = make "yes x | tr -d '\\n' | head -c 300000; echo > $out";
  log-order = make "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done; echo > $out";
  log-fails = exit 1 "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); done; printf last; exit 1";
  log-messages = make ''
    for j in '{"action":"msg","level":0,"msg":"hello"}' '{"action":"start","id":1,"level":0,"text":"t","type":101,"fields":[],"parent":0}' '{"action":"stop","id":1}' '{"action":"result","id":1,"type":105,"fields":[1,2,3,4]}' ' ' '{'; do
      echo "@nix $j"
    done; echo " @nix {}"; echo > $out'';
  log-message-incomplete = {
    script = "echo '@nix {}'; echo '@nix []'; echo '@nix {\"action\":\"setPhase\"}'; echo hi > $out";
    ends = [ 1 0 ];
    ours = [ "hi\n" ];
    because = "2.8 fails: [json.exception.type_error.302] type must be string, but is null";
  };
  log-limit = { script = "yes | head -c 1000; echo > $out"; flags = [ "--max-build-log-size" "1000" ]; };
  log-limit-exceeded = { script = "yes | head -c 100000; echo > $out"; flags = [ "--max-build-log-size" "1000" ]; ends = [ 1 1 ]; says = [ "killed after writing more than 1000 bytes of log output" ]; because = "Nix keeps nothing of the piece that went beyond, fodder keeps 1000 bytes"; };
}
