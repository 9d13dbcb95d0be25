# The sandbox as a builder sees it, as far as Nix 2.8 and fodder show the same; the rest is in crates/sandbox/tests and tests/rules.rs.
{ src, dep, two, link, directory, refers, hi, ... }:
let make = drv: script: { inherit script drv; };
in
{
  process = make { } "echo $$ $PPID $0 $# > $out; id >> $out; umask >> $out; ulimit -c >> $out; cat /proc/1/personality /proc/1/cmdline >> $out; grep -E 'Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp:|Sig(Blk|Cgt)|Groups|Umask|^(Uid|Gid|PPid|NStgid|NSsid)' /proc/1/status >> $out";
  limits = make { } "grep -Ev 'core file|processes|file size|locked memory|open files|msgqueue' /proc/1/limits > $out; cat /proc/1/uid_map /proc/1/gid_map /proc/1/setgroups /proc/1/coredump_filter | sed 's/  *[0-9]*  *1$//' >> $out";
  streams = make { } "[ -t 0 ] || echo in; [ -t 1 ] && [ -t 2 ]; echo $? > $out; stty -a < /proc/self/fd/1 >> $out; ttysize >> $out; readlink /proc/self/fd/0 >> $out; for f in /proc/1/fd/*; do echo $f >> $out; done";
  flags = make { } "grep -h flags: /proc/1/fdinfo/0 /proc/1/fdinfo/1 /proc/1/fdinfo/2 > $out";
  standard-input = make { } "cat > $out; echo x >&0; od -c < /proc/self/fd/0 >> $out; wc -c < /dev/stdin >> $out";
  reopened = make { } "echo hello > /dev/stdout; echo err > /dev/stderr; echo fd > /proc/self/fd/2; echo t 2>&1 > /dev/tty; echo > $out";
  names = make { } "hostname > $out; hostname -f >> $out 2>&1; cat /proc/sys/kernel/domainname /etc/passwd /etc/group /etc/hosts >> $out; whoami >> $out; id root >> $out; id nobody >> $out; hostname x 2>> $out; echo ~ ~root ~nixbld >> $out";
  devices = make { } "cd /dev; stat -c '%n %F %a %t %T' full null random tty urandom zero fd stdin stdout stderr ptmx shm pts pts/ptmx > $out; for l in fd stdin stdout stderr ptmx; do readlink $l >> $out; done; ls /dev/shm /dev/pts >> $out";
  devices-work = make { } "for d in full null random tty urandom zero ptmx shm pts fd/1; do [ -r /dev/$d ] && r=r || r=-; [ -w /dev/$d ] && w=w || w=-; echo $d $r$w >> $out; done; head -c 4 /dev/zero | od -c >> $out; echo x 2>> $out > /dev/full; echo x > /dev/null; head -c 9 /dev/urandom | wc -c >> $out";
  places = make { } "cd /; ls -A > $out; stat -c '%n %a %u %g %F' / /build /tmp /nix /nix/store /dev /bin /dev/shm /etc/* >> $out; pwd >> $out; ls -A /etc /bin /tmp /build >> $out; ls -d /sys /usr /var /root /home /run /homeless-shelter 2>&1 | sort >> $out";
  working-directory = make { } "pwd > $out; cd ..; pwd >> $out; cd ../../..; pwd >> $out; readlink /proc/1/cwd >> $out";
  writable = make { } "for d in /build /tmp /nix/store /dev/shm; do echo x > $d/x; echo $d $? >> $out; done; ln /build/x /tmp/z 2>> $out; mv /build/x /tmp/y; ls /tmp | sort >> $out; mkfifo /build/f; ln -s x /build/l; mknod /build/c c 1 3 2>> $out; mknod /build/b b 1 3 2>> $out; ls /build | sort >> $out; true";
  network = make { } "tail -n +3 /proc/net/dev | cut -d: -f1 > $out; cat /proc/net/if_inet6 >> $out; ip -o addr show >> $out; ip route >> $out; nc 127.0.0.1 9 2>> $out; nc 192.0.2.1 9 2>> $out; true";
  loopback = make { } "echo over it | nc -l -p 4711 -w 5 > /dev/null & sleep 0.2; echo | nc -w 1 127.0.0.1 4711 > $out; echo $? >> $out";
  no-network = make { } "nslookup localhost > $out 2>&1; wget -q -O- http://1.1.1.1/ >> $out 2>&1; cat /etc/resolv.conf >> $out 2>&1; ls /etc >> $out; true";
  set-id = make { } "touch f; for m in 4755 2755 6755 1755; do chmod $m f 2>> $out; stat -c %a f >> $out; done; mkdir -m 2755 d 2>> $out; mkdir d2; chmod g+s d2 2>> $out; chown 0:0 f 2>> $out; chown 1000:100 f 2>> $out; chgrp 0 f 2>> $out; true";
  files = make { } "umask > $out; mkdir a; : > b; stat -c '%a %u %g' a b >> $out; mkdir t; echo x > t/f; tar cf t.tar t; rm -r t; tar xf t.tar; stat -c '%a %u %g' t t/f >> $out; dd if=/dev/zero of=z bs=4096 count=2 2> /dev/null; stat -c '%s' z >> $out";
  processes = make { } "for i in 1 2 3; do (exit $i); echo $? >> $out; done; nohup true >> $out 2>&1; setsid sh -c 'echo ss' >> $out; cd /proc; ls -d [0-9]* | head -1 >> $out; cat /proc/1/comm >> $out; nice -n -5 true 2>> $out; renice -n -5 1 2>> $out; kill -0 -1 2>> $out; true";
  privileges = make { } "mount -t tmpfs x /tmp 2>> $out; umount /proc 2>> $out; chroot /build 2>> $out; hostname x 2>> $out; date -s 2000-01-01 2>&1 | head -1 >> $out; true";
  user-namespace = make { } "unshare -U id >> $out 2>&1; unshare -r id >> $out 2>&1; unshare -n ip link >> $out 2>&1; true" // {
    ours = [ "unshare: unshare(0x10000000): Operation not permitted" ];
    because = "a builder makes no namespaces unless the person allows it";
  };
  core = make { } "grep core /proc/1/limits > $out" // {
    ours = [ "Max core file size        1                    1                    bytes" ];
    because = "no core is dumped, and none can be asked for";
  };
  mounts = make { } "sed 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\([^ ]*\\) \\([^ ]*\\) .*/\\1 \\2/' /proc/self/mountinfo > $out" // {
    ours = [ "/ ro,nosuid,nodev," "\n/build rw,nosuid,nodev," "\n/tmp rw,nosuid,nodev," "\n/nix/store rw,nosuid,nodev," "\n/dev/null ro,nosuid,noexec," "\n/proc rw,nosuid,nodev,noexec," ];
    because = "every mount has the strictest options that a build can live with";
  };
  store = make { inherit src dep; } "cd /nix/store; set -- *; echo $* > $out; touch x";
  store-two = make { d = two.dev; } "ls /nix/store > $out";
  store-unused = make { d = link; } "ls /nix/store > $out; stat -c '%F %a' $d >> $out; cat $d >> $out";
  store-derivation = make { d = dep.drvPath; } "ls /nix/store > $out; cat $d >> $out";
  inputs-read = make { inherit directory refers; } "find $directory | sort > $out; stat -c '%a %Y %F' $directory $directory/* $refers >> $out; cat $directory/a/b/g $directory/l $refers >> $out; [ -x $directory/f ] && echo x >> $out";
  proc = make { } "cd /proc; ls | grep -v '[0-9]' | sort > $out; cat /proc/self/mounts | wc -l > /dev/null; ls /proc/1/ns | sort >> $out";
}
