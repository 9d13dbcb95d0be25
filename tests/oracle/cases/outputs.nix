# Output trees: kinds, names, modes, sizes, links, depths, and what is refused about them.
{ dep, two, hi, ... }:
let
  make = script: { inherit script; };
  deep = levels: "mkdir $out; cd $out; i=0; while [ $i -lt ${toString levels} ]; do mkdir d; cd d; i=$((i+1)); done";
  refused = words: script: { inherit script; ends = [ 1 1 ]; says = words; };
  writable = refused [ "suspicious ownership or permission" "rejecting this build output" ];
  unsupported = refused [ "has an unsupported type" ];
  absent = refused [ "failed to produce output path for output" ];
in
{
  file = make "echo hi > $out";
  empty-file = make ": > $out";
  empty-directory = make "mkdir $out";
  dangling = make "ln -s /nonexistent/target $out";
  link-to-self = make "ln -s $out/x $out";
  link-relative = make "ln -s ../../x $out";
  links = make "mkdir $out; ln -s /etc/passwd $out/p; ln -s . $out/d; ln -s $out $out/o; ln -s a\\\\b $out/e";
  link-out-of-store = make "mkdir /build/d; echo x > /build/d/f; ln -s /build/d $out";
  link-to-output = { script = "echo x > $dev; ln -s $dev $out"; drv.outputs = [ "out" "dev" ]; };
  executable = make "echo x > $out; chmod 755 $out";
  modes = make "mkdir $out; cd $out; for m in 400 411 444 500 644 700 755 1755 777; do echo $m > f$m; chmod $m f$m; done; mkdir -m 500 d; mkdir -m 1777 e";
  top-closed = make "mkdir $out; echo > $out/f; chmod 555 $out";
  top-sticky = make "mkdir $out; chmod 1755 $out";
  names = make "mkdir $out; cd $out; for n in a A .a ..b ... 'a b' 'a\nb' '*' \"'\" '\"' '\\' - -- ü é é '~' 'a~nix~case~hack~1' a.lock .lock; do echo \"$n\" > \"$n\"; done; echo x > $(printf '\\377\\376'); echo y > $(printf '\\001')";
  longest = make "mkdir $out; cd $out; echo x > $(printf '%0255d' 0); ln -s $(printf '%04000d' 0) l";
  sizes = make "mkdir $out; cd $out; for s in 0 1 7 8 9 15 16 17 4095 4096 4097 65535 65536 65537 131071 131072 131073 262144 1048577; do yes abcdefg | head -c $s > s$s; done";
  hard-links = make "mkdir $out; echo x > $out/a; ln $out/a $out/b; mkdir $out/c; ln $out/a $out/c/d; chmod +x $out/b";
  hard-links-between = { script = "mkdir $out $dev; echo x > $out/a; ln $out/a $dev/b"; drv.outputs = [ "out" "dev" ]; };
  many = make "mkdir $out; cd $out; i=0; while [ $i -lt 1000 ]; do echo $i > $i; i=$((i+1)); done";
  old = make "mkdir $out; echo > $out/f; touch -d 1980-01-01 $out/f $out";
  sparse = make "truncate -s 3000000 $out";
  moved = make "mkdir /build/x; echo > /build/x/f; mv /build/x $out";
  moved-from-tmp = make "echo hi > /tmp/x; mv /tmp/x $out";
  rewritten = make "echo hi > $out; mv $out $out.tmp; cp $out.tmp $out";
  extra = make "echo hi > $out; echo x > /nix/store/extra; mkdir /nix/store/more /nix/store/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-foo";
  hard-link-to-input = {
    script = "ln $dep $out 2> /dev/null || echo no > $out";
    drv = { inherit dep; };
    ours = [ "no\n" ];
    because = "2.8 mounts some inputs together; 2.34 each of its own: EXDEV";
  };
  deep = make "${deep 60}; echo x > f";
  deepest = make (deep 63);
  too-deep = {
    script = deep 64;
    ends = [ 0 1 ];
    ours = [ "exceeds maximum NAR directory depth of 64" ];
    because = "2.8 has no such limit";
  };
  too-deep-file = {
    script = "${deep 63}; echo x > f";
    ends = [ 0 1 ];
    ours = [ "/d/f' exceeds maximum NAR directory depth of 64" ];
    because = "2.8 has no such limit";
  };

  writable-file = writable "echo > $out; chmod 666 $out";
  writable-by-group = writable "echo > $out; chmod 620 $out";
  writable-by-others = writable "echo > $out; chmod 602 $out";
  writable-directory = writable "mkdir -m 775 $out";
  writable-second = writable "echo > $out; echo > $dev; chmod 666 $dev" // { drv.outputs = [ "out" "dev" ]; says = [ "for output 'dev'; rejecting this build output" ]; };
  fifo = unsupported "mkdir $out; mkfifo $out/f";
  fifo-itself = unsupported "mkfifo $out";
  socket = unsupported "mkdir $out; nc -l -p 1 local:$out/s & sleep 0.2; mknod $out/p p";
  nothing = absent "true";
  nothing-else = absent "echo > $out" // { drv.outputs = [ "out" "dev" ]; says = [ "failed to produce output path for output 'dev'" ]; };

  cycle = refused [ "cycle detected in build of" "in the references of output 'dev' from output 'out'" ] "echo $dev > $out; echo $out > $dev" // { drv.outputs = [ "out" "dev" ]; };
  cycle-of-three = refused [ "in the references of output 'a' from output 'c'" ] "echo $b > $a; echo $c > $b; echo $a > $c; echo > $out" // { drv.outputs = [ "out" "a" "b" "c" ]; };
  cycle-of-two-in-three = refused [ "in the references of output 'b' from output 'out'" ] "echo $b $out > $out; echo $out > $b; echo > $a" // { drv.outputs = [ "out" "a" "b" ]; };
  cycles = refused [ "in the references of output 'a' from output 'b'" ] "for o in $a $b $out; do echo $a $b $out > $o; done" // { drv.outputs = [ "out" "a" "b" ]; };

  name-long = { script = "echo $name > $out"; drv.name = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"; };
  name-odd = { script = "echo $name $out > $out"; drv.name = "a+b-c.d_e?f=g"; };
  name-check = { script = "echo hi > $out"; drv.name = "a.check"; };
  name-lock = { script = "echo hi > $out"; drv.name = "a.lock"; };
  name-chroot = { script = "echo hi > $out"; drv.name = "a.chroot"; };
  name-number = { script = "echo hi > $out"; drv.name = "0"; };
}
