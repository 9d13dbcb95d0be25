#!/usr/bin/env bash
# Runs the short form's setup script outside any sandbox, in fresh directories, with the environment that a builder would
# have and nothing else. Prints TAP-like lines and ends with `N passed, N failed`.
#
#     tests/setup-script/run.sh            all tests
#     tests/setup-script/run.sh zip seed   those whose name contains one of the words
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
setup="$here/../../crates/model/src/short_form/setup.sh"
lab=$(mktemp -d)
trap 'chmod -R u+w "$lab" 2>/dev/null; rm -rf "$lab"' EXIT
passed=0 failed=0 number=0
hostPath=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin
hash=0c5b8vw40dy178xlpddw65q9gf1h2186 # a valid one; what it stands for does not matter

# No test is skipped for want of a tool: what it would have shown is not known then.
missing=()
for tool in bash make cc patch strip tar gzip bzip2 xz zstd lzip zip unzip curl jq python3 busybox; do
    PATH=$hostPath type -P "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]} > 0)); then
    echo "not ok 1 tools of the tests are missing: ${missing[*]}"
    echo '# install: apt-get install build-essential patch binutils bzip2 xz-utils zstd lzip zip unzip curl jq python3 busybox'
    echo '0 passed, 1 failed'
    exit 1
fi

######## Tools of the tests

# Runs the script with `VARIABLE=value` arguments. Afterwards: $log (stdout and stderr), $status, $top, $out.
build() {
    status=0
    # The host's PATH last, so that a test may pass its own.
    (cd "$top" && env -i PATH="$hostPath" HOME="$top/.home" NIX_BUILD_TOP="$top" TMPDIR="$top" TEMPDIR="$top" TMP="$top" \
        TEMP="$top" PWD="$top" NIX_STORE=/nix/store NIX_BUILD_CORES=2 NIX_LOG_FD=3 TERM=xterm-256color \
        name=test-1 pname=test version=1 system=x86_64-linux out="$out" "$@" \
        "$bash" -e "$setup") >"$lab/log" 2>&1 3>"$lab/phases" </dev/null || status=$?
    log=$(tr -d '\0' <"$lab/log")
}
bash=$BASH
problem() { problems+=("$1"); }
status_is() { [[ $status == "$1" ]] || problem "exit status is $status, not $1"; }
log_has() { local line; for line; do [[ $log == *"$line"* ]] || problem "log lacks: $line"; done; }
log_lacks() { local line; for line; do [[ $log != *"$line"* ]] || problem "log has: $line"; done; }
is() { [[ $2 == "$3" ]] || problem "$1 is [$2], not [$3]"; } # WHAT GOT WANTED
file_is() { if [[ -f $1 ]]; then is "${1##*/}" "$(<"$1")" "$2"; else problem "$1 is no file"; fi; }
exists() { [[ -e $1 ]] || problem "$1 does not exist"; }
absent() { [[ ! -e $1 && ! -L $1 ]] || problem "$1 exists"; }
trace() { sed -n 's/^trace: //p' "$lab/log" | paste -sd ' '; }

# A directory that stands for a store path.
store_path() { mkdir -p "$top/../store/$hash-$1" && echo "$lab/$number/store/$hash-$1"; }
# The source tree `hello-1` in the current directory.
make_source() { mkdir -p hello-1/sub && echo content >hello-1/file && echo deep >hello-1/sub/deep; }

test_case() { # FUNCTION
    ((number += 1))
    problems=()
    # The build directory has a parent of its own, as /build has: SOURCE_DATE_EPOCH looks at it.
    top="$lab/$number/build" out="$lab/$number/out"
    mkdir -p "$top" "$lab/$number/scratch"
    cd "$lab/$number/scratch" || exit 1
    "$1"
    if ((${#problems[@]} == 0)); then
        ((passed += 1))
        echo "ok $number ${1//_/ }"
    else
        ((failed += 1))
        echo "not ok $number ${1//_/ }"
        printf '  # %s\n' "${problems[@]}"
        sed 's/^/  | /' "$lab/log" | tail -n 40
    fi
}

######## Order, hooks, switches

all_phases='unpackPhase patchPhase configurePhase buildPhase checkPhase installPhase fixupPhase installCheckPhase distPhase'
# Every phase replaced by one line of trace.
traced() { local phase; for phase in $all_phases "$@"; do printf '%s\0' "$phase=echo trace: $phase"; done; }
build_traced() {
    local -a variables
    mapfile -d '' variables < <(traced myPhase)
    build "${variables[@]}" "$@"
}

phases_run_in_order() {
    build_traced
    status_is 0
    is trace "$(trace)" 'unpackPhase patchPhase configurePhase buildPhase installPhase fixupPhase'
    build_traced doCheck=1 doInstallCheck=1 doDist=1
    is trace "$(trace)" "$all_phases"
}
additional_phases_go_to_their_places() {
    build_traced doCheck=1 doInstallCheck=1 doDist=1 prePhases=p1 preConfigurePhases='p2 p3' preBuildPhases=p4 \
        preInstallPhases=p5 preFixupPhases=p6 preDistPhases=p7 postPhases=p8 \
        p1='echo trace: 1' p2='echo trace: 2' p3='echo trace: 3' p4='echo trace: 4' p5='echo trace: 5' p6='echo trace: 6' \
        p7='echo trace: 7' p8='echo trace: 8'
    is trace "$(trace)" "1 unpackPhase patchPhase 2 3 configurePhase 4 buildPhase checkPhase 5 installPhase 6 fixupPhase \
installCheckPhase 7 distPhase 8"
}
phases_overrides_the_list() {
    build_traced phases='installPhase myPhase buildPhase'
    is trace "$(trace)" 'installPhase myPhase buildPhase'
}
each_dont_switch_leaves_out_its_phase() {
    local switch
    for switch in Unpack Patch Configure Build Install Fixup; do
        build_traced doCheck=1 doInstallCheck=1 doDist=1 "dont$switch=1"
        is "trace with dont$switch" "$(trace)" "$(sed "s/${switch,}Phase *//" <<<"$all_phases")"
    done
}
each_do_switch_adds_its_phase() {
    build_traced dontUnpack=1 dontPatch=1 dontConfigure=1 dontBuild=1 dontInstall=1 dontFixup=1
    is 'trace without switches' "$(trace)" ''
    build_traced dontUnpack=1 dontPatch=1 dontConfigure=1 dontBuild=1 dontInstall=1 dontFixup=1 doCheck=1
    is 'trace with doCheck' "$(trace)" checkPhase
    build_traced dontUnpack=1 dontPatch=1 dontConfigure=1 dontBuild=1 dontInstall=1 dontFixup=1 doInstallCheck=1
    is 'trace with doInstallCheck' "$(trace)" installCheckPhase
    build_traced dontUnpack=1 dontPatch=1 dontConfigure=1 dontBuild=1 dontInstall=1 dontFixup=1 doDist=1
    is 'trace with doDist' "$(trace)" distPhase
}
a_switch_set_to_false_is_off() { # Nix writes false as the empty string
    build_traced dontBuild= doCheck=
    is trace "$(trace)" 'unpackPhase patchPhase configurePhase buildPhase installPhase fixupPhase'
}
default_phases_run_their_hooks() {
    local -a variables=()
    local stage
    for stage in Unpack Patch Configure Build Check Install Fixup InstallCheck Dist; do
        variables+=("pre$stage=echo trace: pre$stage" "post$stage=echo trace: post$stage")
    done
    make_source
    printf 'all:\ncheck:\ninstall:\ninstallcheck:\ndist:\n\ttouch x.tar.gz\n' >hello-1/Makefile
    build "${variables[@]}" src="$PWD/hello-1" doCheck=1 doInstallCheck=1 doDist=1 dontStrip=1
    status_is 0
    is trace "$(trace)" "preUnpack postUnpack prePatch postPatch preConfigure postConfigure preBuild postBuild preCheck \
postCheck preInstall postInstall preFixup postFixup preInstallCheck postInstallCheck preDist postDist"
    exists "$out/tarballs/x.tar.gz"
}
a_replaced_phase_runs_only_the_hooks_it_calls() {
    build phases='buildPhase installPhase' buildPhase='echo trace: body' preBuild='echo trace: preBuild' \
        installPhase='runHook preInstall; echo trace: install; runHook postInstall' \
        preInstall='echo trace: pre' postInstall='echo trace: post'
    is trace "$(trace)" 'body pre install post'
}
hooks_are_text_functions_and_array_entries() {
    build phases='one two three' preHook='
        preTwo() { echo "trace: function"; }
        named() { echo "trace: named($*)"; }
        preOneHooks+=("echo trace: entry" named)
        threeHooks=("false" "echo trace: second" "echo trace: never")' \
        preOne='echo trace: text' one='runHook preOne a b; runHook absent' two='runHook preTwo' \
        three='runOneHook threeHook; if runOneHook absent; then echo trace: wrong; fi'
    status_is 0
    is trace "$(trace)" 'text entry named(a b) function second'
}
pre_and_post_hook_run_around_the_inputs() {
    build phases=p p='echo "trace: $x"' preHook='x=pre' postHook='x+=-post'
    is trace "$(trace)" pre-post
}
phases_are_announced() {
    build phases='one two' one=: two=:
    log_has 'Running phase: one' 'Running phase: two'
    file_is "$lab/phases" $'@nix { "action": "setPhase", "phase": "one" }\n@nix { "action": "setPhase", "phase": "two" }'
    jq -es 'length == 2' < <(sed 's/^@nix //' "$lab/phases") >/dev/null || problem 'the announcement is no JSON'
}
a_long_phase_tells_its_time() {
    build phases='quick long' quick=: long='phaseStart=$((SECONDS - 95))'
    log_has 'long completed in 1 minutes 35 seconds'
    log_lacks 'quick completed'
}
build_command_replaces_the_phases() {
    build buildCommand='echo trace: command; echo x >$out' buildPhase='echo trace: phase'
    status_is 0
    is trace "$(trace)" command
    file_is "$out" x
    echo 'echo trace: file' >command.sh
    build buildCommandPath="$PWD/command.sh" passAsFile=buildCommand buildPhase='echo trace: phase'
    is trace "$(trace)" file
}
phases_may_be_passed_as_files() {
    printf 'echo trace: build; runHook preBuild' >build-text
    printf 'echo trace: hook' >hook-text
    build phases=buildPhase passAsFile='buildPhase preBuild data' buildPhasePath="$PWD/build-text" \
        preBuildPath="$PWD/hook-text" dataPath=/nowhere
    status_is 0
    is trace "$(trace)" 'build hook'
}
variables_reach_later_phases_and_programs() {
    build phases='one two' one='local_one=1; export global=2; cd "$TMPDIR"; mkdir d; cd d' \
        two='echo "trace: $local_one $(bash -c "echo \$global") ${PWD##*/}"'
    is trace "$(trace)" '1 2 d'
}
the_environment_is_that_of_a_build() {
    build phases=p p='echo "trace: $(bash -c "echo \$SHELL \$TZ \$SOURCE_DATE_EPOCH \$NIX_BUILD_CORES \$NIX_STORE \$name")"
        [ -w "$HOME" ] && echo "trace: home"; echo "trace: ${undefined}."; for f in no-such-*; do echo "trace: $f"; done'
    status_is 0
    is trace "$(trace)" "$bash UTC 315532800 2 /nix/store test-1 home ."
    build NIX_BUILD_CORES=0 phases=p p='echo "trace: $NIX_BUILD_CORES"'
    is trace "$(trace)" "$(nproc)"
    build HOME=/homeless-shelter phases=p p=:
    status_is 0
    absent /homeless-shelter
}
env_vars_are_kept_for_looking_around() {
    build phases=p p=: some_attribute='a b'
    grep -q 'some_attribute="a b"' "$top/env-vars" || problem 'env-vars lacks the attribute'
    rm "$top/env-vars"
    build phases=p p=: noDumpEnvVars=1
    absent "$top/env-vars"
}

######## Failures

the_status_is_that_of_the_failing_command() {
    build phases=buildPhase buildPhase=$'true\nsh -c "exit 7" word\necho trace: never'
    status_is 7
    is trace "$(trace)" ''
    log_has 'fodder: buildPhase failed with exit status 7: sh -c "exit 7" word'
    is 'lines about the failure' "$(grep -c '^fodder:' "$lab/log")" 1
    build phases=buildPhase buildPhase='exit 3'
    status_is 3
    log_has 'fodder: buildPhase failed with exit status 3'
    build phases='buildPhase' buildPhase='no-such-command-here --flag'
    status_is 127
    log_has 'no-such-command-here --flag'
}
failures_inside_functions_hooks_pipes_and_substitutions_count() {
    build phases=p p='runHook preBuild; echo trace: never' preBuild='false; echo trace: never'
    status_is 1
    log_has 'fodder: p failed with exit status 1: false'
    log_lacks pop_var_context
    build phases=p p='f() { (exit 5); echo trace: never; }; f'
    status_is 5
    build phases=p p='(exit 6) | cat; echo trace: never'
    status_is 6
    build phases=p p='x=$(sh -c "exit 8"; echo more); echo trace: never'
    status_is 8
    is trace "$(trace)" ''
}
conditions_and_set_plus_e_are_respected() {
    build phases=p p='if false; then :; fi; false || true; ! true; x=$(false) || echo trace: cond
        set +e; (exit 4) | true; echo "trace: ${PIPESTATUS[*]}"; false; echo "trace: $?"'
    status_is 0
    is trace "$(trace)" 'cond 4 0 1'
}
failure_and_exit_hooks_run() {
    build phases=p p='false' failureHook='echo trace: failure' exitHook='echo trace: exit' \
        preHook='failureHooks+=("echo trace: entry")'
    is trace "$(trace)" 'failure entry'
    status_is 1
    build phases=p p='true' failureHook='echo trace: failure' exitHook='echo trace: exit' preHook='exitHooks+=("echo trace: entry")'
    is trace "$(trace)" 'exit entry'
    status_is 0
}
a_failure_before_any_phase_is_told() {
    build phases=p preHook='false' p=:
    status_is 1
    log_has 'fodder: the setup failed with exit status 1: false'
    touch "$top/file"
    build HOME="$top/file/home" phases=p p=:
    status_is 1
    log_has 'fodder: the setup failed with exit status 1: mkdir'
}
a_killed_command_fails_with_its_signal() {
    build phases=p p='sh -c "kill -KILL \$\$"'
    status_is 137
}

######## unpackPhase

unpacked() { # VARIABLE=value… : unpacks and shows what a later phase finds
    build phases='unpackPhase look' look='echo "trace: ${PWD#$NIX_BUILD_TOP} $(cat file) $(cat sub/deep)"; echo w >>file' "$@"
}
unpacks_to_hello() { status_is 0; is trace "$(trace)" '/hello-1 content deep'; log_has 'source root is hello-1'; }

unpacks_every_kind_of_tar() {
    local kind
    make_source
    tar -cf plain.tar hello-1
    cp plain.tar "$hash-x.tar"
    gzip -c plain.tar | tee x.tar.gz x.tgz >x.crate
    bzip2 -c plain.tar | tee x.tar.bz2 x.tbz >x.tbz2
    xz -c plain.tar | tee x.tar.xz >x.txz
    xz --format=lzma -c plain.tar | tee x.tar.lzma >x.tlz
    zstd -qc plain.tar | tee x.tar.zst >x.tzst
    lzip -c plain.tar >x.tar.lz
    cp x.tar.xz misnamed.tar.gz # GNU tar looks at the content too
    for kind in x.*; do
        rm -rf "$top" && mkdir "$top"
        unpacked src="$PWD/$kind"
        unpacks_to_hello
        ((${#problems[@]} == 0)) || { problem "with $kind"; return; }
    done
    rm -rf "$top" && mkdir "$top"
    unpacked src="$PWD/misnamed.tar.gz"
    unpacks_to_hello
    # Root would get the archive's owners, which its user namespace may not know.
    tar -cf x.tar --owner=12345 hello-1
    rm -rf "$top" && mkdir "$top"
    unpacked src="$PWD/x.tar"
    is owner "$(stat -c %u "$top/hello-1/file")" "$(id -u)"
}
unpacks_old_compress_files() {
    make_source
    tar -cf plain.tar hello-1
    python3 "$here/compress.py" plain.tar x.tar.Z
    unpacked src="$PWD/x.tar.Z"
    unpacks_to_hello
}
unpacks_zip() {
    make_source
    zip -qr x.zip hello-1
    unpacked src="$PWD/x.zip"
    unpacks_to_hello
}
# A PATH with all of the host's tools except some.
path_without() {
    local directory tool
    mkdir tools
    for directory in ${hostPath//:/ }; do
        for tool in "$directory"/*; do ln -s "$tool" tools/ 2>/dev/null; done
    done
    for tool; do rm -f "tools/$tool"; done
    echo "$PWD/tools"
}
unpacks_zip_without_unzip() {
    local path
    make_source
    zip -qr x.zip hello-1
    path=$(path_without unzip bsdtar)
    unpacked src="$PWD/x.zip" PATH="$path"
    unpacks_to_hello
    rm -rf "$top" && mkdir "$top"
    rm "$path"/python3*
    unpacked src="$PWD/x.zip" PATH="$path"
    status_is 1
    log_has 'needs unzip, which the host does not have' 'Install unzip, bsdtar or python3'
}
a_missing_decompressor_is_named() {
    make_source
    tar -cf - hello-1 | zstd -q >x.tar.zst
    unpacked src="$PWD/x.tar.zst" PATH="$(path_without zstd)"
    status_is 1
    log_has 'needs zstd, which the host does not have'
}
unpacks_a_directory_writable_under_its_own_name() {
    local source
    source=$(store_path hello-1)
    make_source
    cp -r hello-1/. "$source"
    chmod 555 "$source/sub" && chmod 444 "$source/file"
    touch -d @1000000000 "$source/sub/deep"
    chmod 755 "$source/sub/deep" && chmod 555 "$source"
    unpacked src="$source"
    unpacks_to_hello
    [[ -x $top/hello-1/sub/deep ]] || problem 'the executable bit is lost'
    file_is "$source/file" content # the source itself is untouched
    is time "$(stat -c %Y "$top/hello-1/sub/deep")" "$(stat -c %Y "$source/sub/deep")"
    # Root may write everywhere, so the bits are looked at.
    is 'mode of a file' "$(stat -c %a "$top/hello-1/file")" 644
    chmod -R u+w "$top" && rm -rf "$top" && mkdir "$top"
    unpacked src="$source" dontMakeSourcesWritable=1
    is 'mode of a file' "$(stat -c %a "$top/hello-1/file")" 444
}
a_symbolic_link_to_a_directory_is_a_directory() {
    make_source
    ln -s "$PWD/hello-1" link
    unpacked src="$PWD/link"
    is trace "$(trace)" '/link content deep'
    file_is hello-1/file content
}
several_sources_need_a_source_root() {
    make_source
    tar -czf a.tar.gz hello-1
    mkdir other && echo o >other/o
    unpacked srcs="$PWD/a.tar.gz $PWD/other"
    status_is 1
    log_has 'unpacker produced multiple directories' 'sourceRoot'
    rm -rf "$top" && mkdir "$top"
    unpacked srcs="$PWD/a.tar.gz $PWD/other" sourceRoot=hello-1
    unpacks_to_hello
    exists "$top/other/o"
    rm -rf "$top" && mkdir "$top"
    unpacked srcs="$PWD/other $PWD/other" sourceRoot=other
    status_is 1
    log_has 'destination already exists'
}
source_root_may_be_deeper_or_computed() {
    make_source
    mkdir outer && mv hello-1 outer
    unpacked src="$PWD/outer" sourceRoot=outer/hello-1
    is trace "$(trace)" '/outer/hello-1 content deep'
    rm -rf "$top" && mkdir "$top"
    unpacked src="$PWD/outer" setSourceRoot='sourceRoot=$(echo */hello-*)'
    is trace "$(trace)" '/outer/hello-1 content deep'
    log_has 'source root is outer/hello-1'
}
files_without_a_directory_need_a_source_root() {
    make_source
    tar -cf flat.tar -C hello-1 file sub/deep
    tar -cf one.tar -C hello-1 file
    unpacked src="$PWD/one.tar"
    status_is 1
    log_has 'unpacker appears to have produced no directories' 'sourceRoot'
    rm -rf "$top" && mkdir "$top"
    unpacked src="$PWD/flat.tar" sourceRoot=.
    is trace "$(trace)" ' content deep'
}
directories_that_were_there_before_are_not_the_source() {
    make_source
    mkdir "$top/before" "$top/with hello-1"
    unpacked src="$PWD/hello-1"
    unpacks_to_hello
}
unknown_and_missing_sources_are_errors() {
    touch x.weird
    unpacked src="$PWD/x.weird"
    status_is 1
    log_has "do not know how to unpack source archive $PWD/x.weird"
    unpacked
    status_is 1
    log_has 'variable $src or $srcs should point to the source'
}
a_damaged_archive_fails() {
    local archive
    make_source
    tar -czf x.tar.gz hello-1
    head -c 100 x.tar.gz >cut.tar.gz
    unpacked src="$PWD/cut.tar.gz"
    status_is 1
    log_has "unpacking $PWD/cut.tar.gz failed with exit status"
    log_lacks 'do not know how' 'source root'
    # The same where only one of the two programs can notice: a wrong checksum, an archive cut before compression.
    { head -c -8 x.tar.gz; printf 12345678; } >checksum.tar.gz
    head -c 5000 /dev/zero >hello-1/big
    tar -cf - hello-1/big hello-1/file | head -c 3000 | gzip >short.tar.gz
    for archive in checksum short; do
        rm -rf "$top" && mkdir "$top"
        unpacked src="$PWD/$archive.tar.gz"
        status_is 1
        log_has "unpacking $PWD/$archive.tar.gz failed with exit status"
    done
}
unpack_cmd_may_be_ours() {
    echo hi >x.weird
    build phases='unpackPhase look' src="$PWD/x.weird" unpackCmd='mkdir w; cp "$curSrc" w/' look='echo "trace: $(cat x.weird)"'
    is trace "$(trace)" hi
    rm -rf "$top" && mkdir "$top"
    build phases='unpackPhase look' src="$PWD/x.weird" look='echo "trace: $(cat x.weird)"' preHook='
        mine() { [[ $1 == *.weird ]] || return 1; mkdir v; cp "$1" v/; }; unpackCmdHooks+=(mine)'
    is trace "$(trace)" hi
}
source_date_epoch_is_the_newest_file_of_the_source() {
    make_source
    touch -d @1000000000 hello-1/file
    touch -d @1100000000 hello-1/sub/deep
    touch hello-1/now # made by the build itself, as far as the script can see: newer than the build's own beginning
    tar -cf x.tar hello-1
    touch -d '1 minute ago' "$top/.."
    unpacked src="$PWD/x.tar"
    unpacks_to_hello
    log_has 'setting SOURCE_DATE_EPOCH to 1100000000'
    build phases='unpackPhase look' src="$PWD/hello-1" SOURCE_DATE_EPOCH=1200000000 sourceRoot=hello-1 look='echo "trace: $SOURCE_DATE_EPOCH"' \
        preUnpack='rm -rf hello-1'
    is trace "$(trace)" 1200000000
}

######## Patches, configure, make

applies_patches_of_every_kind() {
    make_source
    local number_of
    for number_of in 1 2 3 4 5; do
        printf -- '--- a/new%s\n+++ b/new%s\n@@ -0,0 +1 @@\n+line %s\n' $number_of $number_of $number_of >p$number_of.patch
    done
    gzip p2.patch && bzip2 p3.patch && xz p4.patch && xz --format=lzma p5.patch
    build phases='unpackPhase patchPhase' src="$PWD/hello-1" \
        patches="$PWD/p1.patch $PWD/p2.patch.gz $PWD/p3.patch.bz2 $PWD/p4.patch.xz $PWD/p5.patch.lzma" postPatch='cat new?'
    status_is 0
    log_has $'line 1\nline 2\nline 3\nline 4\nline 5'
}
patch_flags_replace_the_default() {
    make_source
    printf -- '--- file\n+++ file\n@@ -1 +1 @@\n-content\n+changed\n' >p.patch
    build phases='unpackPhase patchPhase' src="$PWD/hello-1" patches="$PWD/p.patch" patchFlags='-p0 --verbose' postPatch='cat file'
    status_is 0
    log_has changed
}
a_patch_that_does_not_apply_or_exist_fails() {
    make_source
    printf -- '--- a/file\n+++ b/file\n@@ -1 +1 @@\n-something else\n+changed\n' >p.patch
    build phases='unpackPhase patchPhase' src="$PWD/hello-1" patches="$PWD/p.patch" postPatch='echo trace: never'
    status_is 1
    rm -rf "$top" && mkdir "$top"
    build phases='unpackPhase patchPhase' src="$PWD/hello-1" patches=/no/such.patch postPatch='echo trace: never'
    [[ $status != 0 ]] || problem 'a missing patch is ignored'
    is trace "$(trace)" ''
}

# A project as autotools would leave it, small.
make_project() {
    mkdir project-1
    cat >project-1/configure <<'EOF'
#!/bin/sh
# knows --disable-dependency-tracking and --enable-static
echo "configured with:" "$@"
for argument; do case $argument in --prefix=*) prefix=${argument#*=} ;; esac; done
sed "s|@prefix@|$prefix|" Makefile.in >Makefile
EOF
    chmod +x project-1/configure
    cat >project-1/Makefile.in <<'EOF'
prefix = @prefix@
hello: hello.c
	@echo "compiling with SHELL=$(SHELL) flags=$(FLAGS) MAKEFLAGS=$(MAKEFLAGS)"
	cc -g -o hello hello.c
check: hello
	@echo "VERBOSE=$(VERBOSE)"
	./hello | grep -q 'hello world'
install: hello
	mkdir -p $(prefix)/bin $(prefix)/share
	cp hello $(prefix)/bin/
	printf '#!/usr/bin/env mytool\nbody\n' >$(prefix)/bin/script
	chmod +x $(prefix)/bin/script
install-doc:
	mkdir -p $(prefix)/doc && touch $(prefix)/doc/manual
installcheck:
	@echo installcheck of $(prefix) && $(prefix)/bin/hello
EOF
    printf '#include <stdio.h>\nint main(void) { puts("hello world"); return 0; }\n' >project-1/hello.c
    tar -czf project-1.tar.gz project-1
}
an_autotools_project_builds_checks_installs() {
    make_project
    build src="$PWD/project-1.tar.gz" doCheck=1 doInstallCheck=1 configureFlags='--with-x --y=2' \
        enableParallelBuilding=1 makeFlags='FLAGS=from-make' installTargets='install install-doc'
    status_is 0
    is output "$("$out/bin/hello")" 'hello world'
    exists "$out/doc/manual"
    log_has "configured with: --disable-static --disable-dependency-tracking --prefix=$out --with-x --y=2" \
        "SHELL=$bash flags=from-make" ' -j2 --jobserver' 'VERBOSE=y' "installcheck of $out"
    # Stripped, as nixpkgs does.
    readelf -S "$out/bin/hello" | grep -q debug_info && problem 'the binary still has debug information'
    readelf -s "$out/bin/hello" | grep -q ' main$' || problem 'the binary lost its symbols: only debug information should go'
}
strip_is_a_switch_and_never_in_a_fixed_output() {
    make_project
    build src="$PWD/project-1.tar.gz" dontStrip=1
    readelf -S "$out/bin/hello" | grep -q debug_info || problem 'dontStrip does not count'
    rm -rf "$top" "$out" && mkdir "$top"
    build src="$PWD/project-1.tar.gz" NIX_OUTPUT_CHECKED=1 nativeBuildInputs="$(tool_input)"
    status_is 0
    readelf -S "$out/bin/hello" | grep -q debug_info || problem 'a fixed output is stripped'
    is 'first line' "$(head -n 1 "$out/bin/script")" '#!/usr/bin/env mytool'
    is 'lines about it' "$(grep -c 'the output hash is declared' "$lab/log")" 1
    rm -rf "$top" "$out" && mkdir "$top"
    build src="$PWD/project-1.tar.gz" NIX_OUTPUT_CHECKED=1 dontFixup=1
    log_lacks 'the output hash is declared'
}
a_host_without_strip_leaves_binaries_alone() {
    make_project
    build src="$PWD/project-1" PATH="$(path_without strip)"
    status_is 0
    log_has 'the host has no strip'
    is output "$("$out/bin/hello")" 'hello world'
    rm -rf "$top" "$out" && mkdir "$top"
    build dontUnpack=1 installPhase='mkdir -p $out/bin; echo x >$out/bin/x' PATH="$PWD/tools"
    log_lacks 'no strip'
}
an_output_may_be_a_symbolic_link() {
    mkdir target && chmod 555 target
    build dontUnpack=1 installPhase='ln -s '"$PWD"'/target $out'
    status_is 0
    is 'mode of its target' "$(stat -c %a target)" 555
}
configure_may_be_another_script_and_lack_the_prefix() {
    make_project
    mv project-1/configure project-1/Configure
    build phases='unpackPhase configurePhase' src="$PWD/project-1" configureScript='./Configure linux' dontAddPrefix=1 \
        preConfigure='configureFlagsArray=("two words" "*")'
    status_is 0
    log_has 'configured with: linux two words *'
    log_lacks --prefix=
}
prefix_key_and_prefix_are_ours() {
    make_project
    build phases='unpackPhase configurePhase' src="$PWD/project-1" prefixKey='-p ' prefix=/elsewhere configureFlags='a*b'
    log_has 'configured with: --disable-static --disable-dependency-tracking -p /elsewhere a*b'
}
a_failing_check_fails_the_build() {
    make_project
    sed -i 's/hello world/goodbye/' project-1/hello.c
    build src="$PWD/project-1" doCheck=1
    status_is 2
    log_has 'fodder: checkPhase failed with exit status 2: make'
    absent "$out"
}
check_target_is_found_or_given() {
    make_source
    printf 'all:\ntest:\n\t@echo ran test\nother:\n\t@echo ran other\n' >hello-1/Makefile
    build src="$PWD/hello-1" doCheck=1 dontInstall=1
    log_has 'ran test'
    rm -rf "$top" && mkdir "$top"
    build src="$PWD/hello-1" doCheck=1 dontInstall=1 checkTarget=other
    log_has 'ran other'
    rm -rf "$top" && mkdir "$top"
    printf 'all:\n' >hello-1/Makefile
    build src="$PWD/hello-1" doCheck=1 doInstallCheck=1 dontInstall=1
    status_is 0
    log_has 'no check/test target in Makefile, doing nothing' 'no installcheck target in Makefile, doing nothing'
}
another_makefile_and_serial_make() {
    make_source
    printf 'all:\n\t@echo other makefile $(MAKEFLAGS)\ninstall:\n\ttouch $(out)/x\n' >hello-1/other.mk
    build src="$PWD/hello-1" makefile=other.mk
    status_is 0
    log_has 'other makefile'
    log_lacks -j2
    exists "$out/x"
}
without_makefile_the_phases_say_so() {
    make_source
    build src="$PWD/hello-1" doCheck=1 doInstallCheck=1
    status_is 0
    log_has 'no configure script, doing nothing' 'no Makefile or custom buildPhase, doing nothing' \
        'no Makefile or custom checkPhase, doing nothing' 'no Makefile or custom installPhase, doing nothing' \
        'no Makefile or custom installCheckPhase, doing nothing'
}

######## Inputs

tool_input() { # a store path with a command `mytool` and things for compilers
    local input
    input=$(store_path mytool-1)
    mkdir -p "$input"/{bin,include,lib/pkgconfig}
    printf '#!/bin/sh\necho mytool ran\n' >"$input/bin/mytool"
    chmod +x "$input/bin/mytool"
    echo "$input"
}
inputs_that_are_directories_are_on_the_search_paths() {
    local input
    input=$(tool_input)
    build phases=p nativeBuildInputs="$input" p='echo "trace: $(mytool) ${PATH%%:*}"
        bash -c "echo trace: \$CPATH \$LIBRARY_PATH \$PKG_CONFIG_PATH \$CMAKE_PREFIX_PATH"'
    status_is 0
    is trace "$(trace)" "mytool ran $input/bin $input/include $input/lib $input/lib/pkgconfig $input"
    build phases=p buildInputs="$input" p=mytool
    log_has 'mytool ran'
}
inputs_bring_setup_hooks_and_propagated_inputs() {
    local input other
    input=$(tool_input)
    other=$(store_path other)
    mkdir -p "$other/nix-support"
    echo "$input " >"$other/nix-support/propagated-build-inputs"
    echo 'seen() { echo "trace: ${1##*-}"; }; addEnvHooks "$hostOffset" seen; preBuildHooks+=("echo trace: hook")' >"$other/nix-support/setup-hook"
    build phases=p buildInputs="$other" p='runHook preBuild; mytool'
    status_is 0
    is trace "$(trace)" 'other 1 hook'
    log_has 'mytool ran'
}
an_executable_by_its_path_is_on_the_path() {
    printf '#!/bin/sh\necho odd ran\n' >odd && chmod +x odd
    build phases=p nativeBuildInputs="$PWD/odd" p=odd
    status_is 0
    log_has 'odd ran'
    build phases=p nativeBuildInputs=/no/such/path p=:
    status_is 1
    log_has '/no/such/path, which does not exist'
}
named_commands_are_looked_up_before_any_phase() {
    build phases=p nativeBuildInputs='sed no-such-tool nodejs_99 postgresql.nothing' p='echo trace: never' PATH="$(path_without node)"
    status_is 1
    is trace "$(trace)" ''
    log_has 'there is no command for: no-such-tool, nodejs_99 (command node), postgresql.nothing (command nothing)' \
        "looked up on your PATH" 'give a store path or an absolute path'
    log_lacks 'sed,' 'failed with exit status'
    mkdir here
    build phases=p nativeBuildInputs='sed coreutils findutils gnugrep cacert stdenv pkgs.gnused' p='echo trace: ran'
    status_is 0
    is trace "$(trace)" ran
}
libraries_by_name_are_listed_and_not_checked() {
    build phases=p buildInputs='libxml2 openssl' nativeBuildInputs='zlib.dev' p=:
    status_is 0
    log_has 'inputs taken from the host unchecked: zlib.dev libxml2 openssl'
}
setup_hooks_of_nixpkgs_by_name_are_refused() {
    build phases=p nativeBuildInputs='autoPatchelfHook' p=:
    status_is 1
    log_has 'autoPatchelfHook, a setup hook of nixpkgs'
}
compiler_flags_variables_count_with_the_hosts_compiler() {
    echo '#define ANSWER 42' >answer.h
    printf '#include <stdio.h>\nint main(void) { printf("%%d\\n", ANSWER); return 0; }\n' >main.c
    build phases=p src="$PWD" p='export NIX_CFLAGS_COMPILE="${NIX_CFLAGS_COMPILE:-} -include answer.h" NIX_LDFLAGS="-rpath /planted/lib"
        cc -I "$src" -c "$src/main.c"; gcc -o "$out" main.o'
    status_is 0
    is output "$("$out")" 42
    readelf -d "$out" | grep -q /planted/lib || problem 'NIX_LDFLAGS is ignored'
    build phases=p src="$PWD" p='type -P cc'
    log_lacks .fodder-bin # no wrapper where nothing asks for it
    # A compiler of the store is a wrapper already.
    local input
    input=$(tool_input)
    ln -s mytool "$input/bin/cc"
    rm -rf "$top" && mkdir "$top"
    build NIX_STORE="$lab/$number/store" NIX_CFLAGS_COMPILE=-x phases=p nativeBuildInputs="$input" p='type -P cc gcc'
    log_has "$input/bin/cc" .fodder-bin/gcc
}

######## fixupPhase

shebangs_name_store_inputs_only() {
    local input
    input=$(tool_input)
    build dontUnpack=1 nativeBuildInputs="$input" installPhase='mkdir -p $out/bin; cd $out/bin
        printf "#! /usr/bin/env mytool\nx & \\n" >a; printf "#!/opt/mytool -f a|b\n" >b; printf "#!/usr/bin/env -S mytool --x y\n" >c
        printf "#!/usr/bin/env /opt/mytool\n" >d; printf "#!/bin/sh\n" >host; printf "#!/nix/store/x/bin/mytool\n" >stays; printf "#!/usr/bin/env mytool\n" >data; chmod +x a b c d host stays'
    status_is 0
    file_is "$out/bin/a" "#!$input/bin/mytool"$'\nx & '
    file_is "$out/bin/b" "#!$input/bin/mytool -f a|b"
    file_is "$out/bin/c" "#!$input/bin/mytool --x y"
    file_is "$out/bin/d" "#!$input/bin/mytool"
    file_is "$out/bin/host" '#!/bin/sh'
    file_is "$out/bin/stays" '#!/nix/store/x/bin/mytool'
    file_is "$out/bin/data" '#!/usr/bin/env mytool'
    [[ -x $out/bin/a ]] || problem 'the executable bit is lost'
    chmod -R u+w "$out" && rm -rf "$out"
    build dontUnpack=1 nativeBuildInputs="$input" dontPatchShebangs=1 installPhase='mkdir -p $out; printf "#!/opt/mytool\n" >$out/a; chmod +x $out/a'
    file_is "$out/a" '#!/opt/mytool'
}
fixup_writes_propagated_inputs_and_the_setup_hook() {
    echo 'hook of @pname@ in @out@' >hook
    build dontUnpack=1 installPhase='mkdir $out $dev' outputs='out dev' dev="$top/../dev" setupHook="$PWD/hook" \
        propagatedBuildInputs="$PWD" propagatedNativeBuildInputs='sed'
    status_is 0
    file_is "$top/../dev/nix-support/propagated-build-inputs" "$PWD "
    file_is "$top/../dev/nix-support/propagated-native-build-inputs" 'sed '
    file_is "$top/../dev/nix-support/setup-hook" "hook of test in $out"
    absent "$out/nix-support"
}
fixup_output_hooks_run_for_each_output() {
    build dontUnpack=1 outputs='out dev' dev="$top/../dev" installPhase='mkdir $out $dev; chmod 4555 $out' \
        preFixup='fixupOutputHooks+=("echo trace: \${prefix##*/}")'
    is trace "$(trace)" 'out dev'
    is mode "$(stat -c %a "$out")" 755
}
an_output_may_be_a_file() {
    build dontUnpack=1 installPhase='echo x >$out'
    status_is 0
    file_is "$out" x
}

######## Helpers

substitute_in_place_replaces() {
    printf 'one @name@ two\nthree $x & four\n\n\n' >file
    cp file other && chmod 750 file
    build phases=p src="$PWD" p='cd $src; substituteInPlace file other --replace-fail two "a&b\\1" --replace-fail "\$x" "" \
        --subst-var name --replace-quiet absent y --replace "*" star'
    status_is 0
    is content "$(cat file; echo .)" $'one test-1 a&b\\1\nthree  & four\n\n\n.'
    is 'the other' "$(<other)" "$(<file)"
    is mode "$(stat -c %a file)" 750
    log_has "pattern '*' doesn't match anything in file 'file'"
    log_lacks absent
}
substitute_fails_when_told() {
    echo one >file
    build phases=p src="$PWD" p='cd $src; substituteInPlace file --replace-fail two three; echo trace: never'
    status_is 1
    log_has "pattern 'two' doesn't match anything in file 'file'"
    build phases=p p='substituteInPlace /no/file --replace-fail two three; echo trace: never'
    status_is 1
    log_has "file '/no/file' does not exist"
    build phases=p src="$PWD" p='cd $src; substitute file copy --subst-var unset_variable; echo trace: never'
    status_is 1
    printf 'a\0b' >nul
    build phases=p src="$PWD" p='cd $src; substituteInPlace nul --replace-fail a b'
    status_is 1
    log_has 'contains NUL bytes'
    is trace "$(trace)" ''
}
substitute_all_takes_lowercase_variables() {
    echo '@lower@ @UPPER@ @pname@ @custom@' >file
    build phases=p src="$PWD" lower=l UPPER=u p='substituteAll $src/file $out; substitute $src/file $out.2 --subst-var-by custom C'
    file_is "$out" 'l @UPPER@ test @custom@'
    file_is "$out.2" '@lower@ @UPPER@ @pname@ C'
}
small_helpers_behave() {
    build phases=p outputs='out dev' dev="$top/../dev" x='one' p='
        echo "trace: $(stripHash /nix/store/'$hash'-name-1.tar.gz) $(stripHash /a/short-name/)"
        appendToVar x two "a*"; prependToVar x zero; echo "trace: $x"
        y=(1); appendToVar y "2 3"; echo "trace: ${#y[@]}"
        list="a  b*"; z=(q); w=(); concatTo z list y w unset_list=default; echo "trace: ${z[*]}"
        isELF /bin/sh && ! isScript /bin/sh && echo trace: elf
        mkdir -p $out/include/a $out/share; echo h >$out/include/a/h; moveToOutput include $dev; moveToOutput "sh*" REMOVE
        addToSearchPath MYPATH /usr; addToSearchPath MYPATH /no/such; addToSearchPath MYPATH /tmp; echo "trace: $MYPATH"
        echoCmd flags a "b c"; echo "trace: $outputDev $outputBin $(getAllOutputNames)"'
    status_is 0
    is trace "$(trace)" 'name-1.tar.gz short-name zero one two a* 2 q a b* 1 2 3 default elf /usr:/tmp dev out out dev '
    exists "$top/../dev/include/a/h"
    absent "$out/include"
    absent "$out/share"
    log_has 'flags: a b\ c'
}
remove_references_to_is_a_program() {
    local other=1b9d5v23czds4c9n8wr2rx0n2xxgr4lh
    printf '\x7fELF\0\xff/nix/store/%s-lib/lib\0%s\xfe\0/nix/store/%s-other\n' $hash $hash $other >"a file"
    ln -s 'a file' link
    cp 'a file' before
    build LC_ALL=C.UTF-8 phases=p nativeBuildInputs=removeReferencesTo src="$PWD" p="cd \$src; find . \( -type f -o -type l \) -exec remove-references-to -t /nix/store/$hash-lib {} +"
    status_is 0
    is size "$(stat -c %s 'a file')" "$(stat -c %s before)"
    is content "$(od -c 'a file')" "$(LC_ALL=C sed "s/$hash/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee/g" before | od -c)"
    [[ -L link ]] || problem 'the link was replaced'
    build phases=p nativeBuildInputs=remove-references-to p='remove-references-to -t /nix/store/short-x /dev/null; echo trace: never'
    status_is 1
    log_has '-t argument must be a Nix store path'
    is trace "$(trace)" ''
}
sponge_reads_before_it_writes() {
    echo '{"b":1,"a":2}' >x.json
    build phases=p nativeBuildInputs='jq moreutils' src="$PWD" PATH="$(path_without sponge)" \
        p='cd $src; jq -cS . x.json | sponge x.json; echo more | sponge -a x.json; echo "trace: $(echo out | sponge)"'
    status_is 0
    file_is x.json $'{"a":2,"b":1}\nmore'
    is trace "$(trace)" out
}
a_helper_of_the_host_wins() {
    local path
    path=$(path_without sponge)
    printf '#!/bin/sh\necho host sponge\n' >"$path/sponge" && chmod +x "$path/sponge"
    build phases=p nativeBuildInputs=sponge PATH="$path" p=sponge
    log_has 'host sponge'
    absent "$top/.fodder-bin"
}

######## Structured attributes

structured() { # the file as Nix writes it, see the reference, 4.5; then a build with nothing of it in the environment
    cat >"$top/.attrs.sh"
    status=0
    (cd "$top" && env -i PATH=/path-not-set HOME=/homeless-shelter NIX_BUILD_TOP="$top" TMPDIR="$top" PWD="$top" \
        NIX_STORE=/nix/store NIX_BUILD_CORES=2 NIX_LOG_FD=3 NIX_ATTRS_SH_FILE="$top/.attrs.sh" "$bash" -e "$setup") \
        >"$lab/log" 2>&1 3>"$lab/phases" </dev/null || status=$?
    log=$(<"$lab/log")
}
structured_attributes_are_variables_and_lists() {
    make_project
    printf -- '--- a/hello.c\n+++ b/hello.c\n@@ -1 +1,2 @@\n+/* patched */\n #include <stdio.h>\n' >'p 1.patch'
    structured <<EOF
declare HOME='$top/home'
declare PATH='$hostPath'
declare -a configureFlags=('--with-words=a b' '--star=*' )
declare doCheck=1
declare dontStrip=1
declare -A env=(['EXPORTED']='it'\''s' )
declare name='structured-1'
declare -a nativeBuildInputs=('sed' )
declare -A outputs=(['dev']='$top/../dev' ['out']='$out' )
declare -a patches=('$PWD/p 1.patch' )
declare postInstall='mkdir \$dev; bash -c "echo trace: \\\$EXPORTED \\\$out \\\${name-unset} \\\$HOME"; grep -c patched hello.c'
declare -a src='$PWD/project-1.tar.gz'
declare -a installTargets=('install' 'install-doc' )
declare -a postPhases=('lastPhase' )
declare lastPhase='echo trace: last'
EOF
    status_is 0
    is trace "$(trace)" "it's $out unset $top/home last"
    log_has "configured with: --disable-static --disable-dependency-tracking --prefix=$out --with-words=a b --star=*"
    exists "$out/doc/manual"
    exists "$top/home"
}
structured_sources_are_an_array() {
    mkdir 'with space' second && echo a >'with space/a'
    structured <<EOF
declare PATH='$hostPath'
declare -A outputs=(['out']='$out' )
declare -a srcs=('$PWD/with space' '$PWD/second' )
declare sourceRoot='with space'
declare -a phases=('unpackPhase' 'look' )
declare look='echo "trace: \$(cat a)"'
EOF
    status_is 0
    is trace "$(trace)" a
}
structured_lists_grow_as_arrays() {
    structured <<EOF
declare PATH='$hostPath'
declare -A outputs=(['out']='$out' )
declare -a some=('a b' )
declare buildCommand='appendToVar some "c d"; prependToVar some "y z"; appendToVar new "e f"; list=(); concatTo list some new; printf "trace: %s\\n" "\${#list[@]}"'
EOF
    status_is 0
    is trace "$(trace)" 4
}
structured_path_may_come_from_env() {
    structured <<EOF
declare -A env=(['PATH']='$hostPath' )
declare -A outputs=(['out']='$out' )
declare buildCommand='mkdir \$out; echo trace: ran'
EOF
    status_is 0
    is trace "$(trace)" ran
}

######## The article and the seed

page='<!doctype html><title>Example Domain</title>'
# Stand-ins for programs that would go to the network. First on PATH.
fake_programs() {
    mkdir -p fake
    cat >fake/wget <<EOF
#!/bin/sh
[ "\$1 \$2" = "https://example.com -O" ] && printf '%s' '$page' >"\$3"
EOF
    cat >fake/pnpm <<'EOF'
#!/bin/bash -e
case "$1 $2" in
    'config set') [[ $3 == store-dir && -w $HOME ]]; echo "$4" >"$HOME/store-dir" ;;
    install*)
        [[ " $* " == *" --frozen-lockfile "* && -f pnpm-lock.yaml ]]
        store=$(<"$HOME/store-dir"); mkdir -p "$store"/v10/{tmp,files/00}
        touch "$store/v10/tmp/junk"
        printf '{"z":1,"checkedAt":%s,"a":{"checkedAt":5,"b":2}}' "$RANDOM" >"$store/v10/files/00/index.json" ;;
    *) exit 9 ;;
esac
EOF
    cat >fake/yq <<'EOF'
#!/bin/sh
exit 0
EOF
    cat >fake/hello <<'EOF'
#!/bin/sh
exit 0
EOF
    chmod +x fake/*
    echo "$PWD/fake:$hostPath"
}
the_article_fetches_a_page() {
    local path text
    path=$(fake_programs)
    text='runHook preBuild

      mkdir -p $out
      wget "https://example.com" -O $out/index.html

      runHook postBuild
'
    build PATH="$path" name=fixed-output-derivation NIX_OUTPUT_CHECKED=1 dontUnpack=1 nativeBuildInputs='wget cacert' \
        buildPhase="$text" outputHashAlgo=sha256 outputHashMode=recursive outputHash=
    status_is 0
    file_is "$out/index.html" "$page"
    # The same through a real transfer: curl, which reads file:// as it would read https://.
    printf %s "$page" >page.html
    rm -r "$out"
    build name=fixed-output-derivation NIX_OUTPUT_CHECKED=1 dontUnpack=1 nativeBuildInputs='curl cacert' \
        buildPhase="${text/wget \"https:\/\/example.com\" -O/curl -sSf \"file://$PWD/page.html\" -o}"
    status_is 0
    file_is "$out/index.html" "$page"
}
the_article_fetches_pnpm_dependencies() {
    mkdir source && touch source/pnpm-lock.yaml
    build PATH="$(fake_programs)" src="$PWD/source" name=x-pnpm-deps NIX_OUTPUT_CHECKED=1 dontConfigure=1 dontBuild=1 \
        nativeBuildInputs='cacert jq moreutils pnpm yq' installPhase='runHook preInstall

            export HOME=$(mktemp -d)

            pnpm config set store-dir $out
            pnpm install \
                --force \
                --ignore-scripts \
                --registry= \
                --frozen-lockfile

            runHook postInstall
' fixupPhase='runHook preFixup

            # Remove timestamp and sort the json files
            rm -rf $out/{v3,v10}/tmp
            for f in $(find $out -name "*.json"); do
              jq --sort-keys "del(.. | .checkedAt?)" $f | sponge $f
            done

            runHook postFixup
'
    status_is 0
    absent "$out/v10/tmp"
    file_is "$out/v10/files/00/index.json" $'{\n  "a": {\n    "b": 2\n  },\n  "z": 1\n}'
}
the_article_writes_a_random_number() {
    build name=random NIX_OUTPUT_CHECKED=1 dontUnpack=1 buildPhase='echo $RANDOM > $out
' outputHashAlgo=sha256 outputHashMode=flat
    status_is 0
    [[ $(<"$out") =~ ^[0-9]+$ ]] || problem 'no number'
}
the_article_depends_on_another_derivation() {
    local input
    input=$(tool_input)
    mv "$input/bin/mytool" "$input/bin/hello"
    build PATH="$(fake_programs)" name=fod-deps NIX_OUTPUT_CHECKED=1 dontUnpack=1 nativeBuildInputs="which $input" buildPhase='runHook preBuild

      mkdir -p $out
      echo $(which hello) > $out/hello-path.txt

      runHook postBuild
'
    status_is 0
    file_is "$out/hello-path.txt" "$input/bin/hello"
}
# The seed's two phases, verbatim; Nix would have put these in place of ${pkgs.…}.
seed_text() {
    local text
    text=$(<"$here/$1")
    text=${text//'${pkgs.python314}'//nix/store/$hash-python3-3.14.0}
    printf %s "${text//'${pkgs.cacert}'//nix/store/$hash-nss-cacert}"
}
the_seed_builds_and_strips_its_references() {
    local path other=1b9d5v23czds4c9n8wr2rx0n2xxgr4lh zero=00000000000000000000000000000000
    path=$(fake_programs)
    cat >fake/uv <<EOF
#!/bin/bash -e
[[ "\$*" == 'sync --frozen --no-install-project --no-install-workspace --no-dev' && \$UV_LINK_MODE == copy ]]
[[ \$UV_PYTHON == /nix/store/$hash-python3-3.14.0/bin/python3.14 && -f uv.lock && \$HOME == "\$TMPDIR" ]]
[[ \$NIX_CFLAGS_COMPILE == ' -include gssapi/gssapi_ext.h' ]]
# The flag must reach the compiler that an sdist finds.
mkdir -p gssapi; echo 'int from_ext(void);' >gssapi/gssapi_ext.h
echo 'int main(void) { return sizeof(&from_ext) == 0; }' >probe.c
cc -Werror -I. -o probe probe.c && ./probe
site=.venv/lib/python3.14/site-packages
mkdir -p .venv/bin \$site/lxml/__pycache__
printf 'home = /nix/store/$hash-python3-3.14.0/bin\n' >.venv/pyvenv.cfg
printf '#!/nix/store/$hash-python3-3.14.0/bin/python\n' >.venv/bin/tool
printf '\x7fELF\x02\x01\0\0/nix/store/$other-libxml2-2.13/lib:/nix/store/$zero-zlib/lib\0\0\xff\xfe/nix/store/$hash-python3-3.14.0/include\0' >\$site/lxml/etree.so
cp \$site/lxml/etree.so "\$site/lxml/name with space.so"
printf '\0\xe3/nix/store/$hash-python3-3.14.0/x\0' >\$site/lxml/__pycache__/etree.pyc
printf 'link = "/nix/store/$other-libxml2-2.13/lib" and /nix/store/$zero-zlib\n' >\$site/lxml/config.py
printf 'nothing here\n' >\$site/lxml/plain.py
EOF
    local tool
    for tool in python3.14 git pkg-config pg_config krb5-config; do printf '#!/bin/sh\n' >"fake/$tool"; done
    chmod +x fake/*
    mkdir source && touch source/uv.lock
    build PATH="$path" name=authentik-python-deps-1 pname=authentik-python-deps NIX_OUTPUT_CHECKED=1 src="$PWD/source" \
        nativeBuildInputs='python314 uv git cacert pkg-config removeReferencesTo postgresql.pg_config krb5' \
        buildInputs='libxml2 libxslt xmlsec openssl libpq libtool libffi zlib' dontFixup=1 \
        buildPhase="$(seed_text seed-build-phase.sh)" installPhase="$(seed_text seed-install-phase.sh)" \
        outputHashMode=recursive outputHashAlgo=sha256
    status_is 0
    local site=$out/lib/python3.14/site-packages/lxml
    absent "$out/bin"
    absent "$site/__pycache__/etree.pyc"
    file_is "$out/pyvenv.cfg" 'home = @python@/bin'
    log_has 'unique store path references to strip' 'Files with remaining store references: 3' 'Files still containing'
    # No hash is left anywhere, and every file has kept its size.
    grep -raqE "$hash|$other|$zero" "$out" && problem 'references are left'
    file_is "$site/config.py" 'link = "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-libxml2-2.13/lib" and /nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-zlib'
    is 'size of the library' "$(stat -c %s "$site/etree.so")" "$(stat -c %s "$site/name with space.so")"
    is 'the library' "$(od -An -c "$site/etree.so" | tr -d ' \n')" "$(printf '\x7fELF\x02\x01\0\0/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-libxml2-2.13/lib:/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-zlib/lib\0\0\xff\xfe/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-python3-3.14.0/include\0' | od -An -c | tr -d ' \n')"
    cmp -s "$site/etree.so" "$site/name with space.so" || problem 'the file with a space in its name differs'
}

######## Other hosts

# bash with busybox instead of GNU's tools, as on Alpine.
works_with_busybox() {
    mkdir tools
    busybox --install -s "$PWD/tools" 2>/dev/null || local applet
    for applet in $(busybox --list); do ln -sf "$(type -P busybox)" "tools/$applet"; done
    ln -sf "$bash" tools/bash
    make_source
    touch -d '2009-02-13 23:31:30' hello-1/file hello-1/sub/deep
    tar -cf - hello-1 | xz >x.tar.xz
    printf -- '--- a/file\n+++ b/file\n@@ -1 +1 @@\n-content\n+changed\n' >p.patch
    local hostPath="$PWD/tools"
    build src="$PWD/x.tar.xz" patches="$PWD/p.patch" nativeBuildInputs="removeReferencesTo sponge $(tool_input)" \
        installPhase="mkdir -p \$out/bin; cat file | sponge \$out/file; echo /nix/store/$hash-x >\$out/ref
            find \$out -type f -exec remove-references-to -t /nix/store/$hash-x {} +
            printf '#!/usr/bin/env mytool\n' >\$out/bin/s; chmod +x \$out/bin/s; substituteInPlace \$out/file --replace-fail changed ok"
    status_is 0
    log_has 'setting SOURCE_DATE_EPOCH to 12345'
    file_is "$out/file" ok
    file_is "$out/ref" /nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-x
    is 'first line' "$(head -n 1 "$out/bin/s")" "#!$lab/$number/store/$hash-mytool-1/bin/mytool"
}

for name in $(grep -oE '^[a-z_]+\(\)' "${BASH_SOURCE[0]}" | tr -d '()'); do
    case $name in
        # What the tests are made of.
        build | problem | status_is | log_has | log_lacks | is | file_is | exists | absent | trace | store_path | make_source) continue ;;
        test_case | traced | build_traced | unpacked | unpacks_to_hello | path_without | make_project | tool_input) continue ;;
        structured | fake_programs | seed_text) continue ;;
    esac
    if (($# > 0)); then
        wanted=
        for word; do [[ $name != *"$word"* ]] || wanted=1; done
        [[ -n $wanted ]] || continue
    fi
    test_case "$name"
done
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
