# shellcheck shell=bash
# shellcheck disable=SC2154 # attributes arrive as variables that no line here assigns
# The builder of fodder's short form: runs the phases of one derivation with the names, the order and the meaning that
# nixpkgs' stdenv gives them, on the tools of the host. It is run as `/bin/bash -e THIS-FILE` in the build directory and
# becomes an input of every short-form derivation: one changed byte here changes the store path of all of them (those
# with a declared output hash excepted). What a user may rely on is written in docs/short-form-phases.md.
#
# Needs bash 4.4 (inherit_errexit, `local -n`), and of coreutils, find, sed and tar only what busybox has as well.

set -e -o pipefail
shopt -s inherit_errexit
# As in nixpkgs: `for file in *.patch` runs zero times when nothing matches.
shopt -s nullglob

fail() { # LINE… : says why on stderr and ends the build
    printf 'fodder: %s\n' "$1" >&2
    (($# < 2)) || printf '  %s\n' "${@:2}" >&2
    exit 1
}

# Runs whenever the script ends. The status of the command that failed is the status of the builder.
exitHandler() { # STATUS
    trap - EXIT ERR
    set +e
    if (($1 != 0)); then
        # With neither of them `fail` ended the build before any phase began, and has told why.
        [[ -z ${curPhase:-}${failedCommand:-} ]] || printf 'fodder: %s failed with exit status %d%s\n' \
            "${curPhase:-the setup}" "$1" "${failedCommand:+: $failedCommand}" >&2
        runHook failureHook
    else
        runHook exitHook
    fi
    exit "$1"
}
trap 'exitHandler "$?"' EXIT

# `set -e` would end the script as well, but not tell at which command; and bash 5 prints "pop_var_context: head of
# shell_variables not a function context" when it does so inside an `eval` that a function called.
trap 'exitAtError "$?" "$BASH_COMMAND"' ERR
set -o errtrace
exitAtError() { # STATUS COMMAND
    [[ $- == *e* ]] || return 0 # the phase said `set +e`
    failedCommand=${2%%$'\n'*}
    exit "$1"
}

######## Hooks

# A hook entry is a function name, called with the arguments, or text. The text cannot see arguments, as in nixpkgs.
_eval() {
    if declare -F "$1" >/dev/null; then "$@"; else eval "$1"; fi
}

# The hook itself: the function of that name, else the text in the variable of that name, else status $1.
# nixpkgs also runs a program of that name found on PATH; here PATH is the host's, and nobody asked for that.
_callImplicitHook() {
    if declare -F "$2" >/dev/null; then "$2" "${@:3}"
    elif [[ -n ${!2:-} ]]; then eval "${!2}"
    else return "$1"; fi
}

# runHook preBuild: `preBuild`, then each entry of the array `preBuildHooks` (`fooHook` goes with `fooHooks`).
runHook() {
    local hookName=$1 hookEntries="${1%Hook}Hooks[@]" hookEntry
    shift
    _callImplicitHook 0 "$hookName" "$@"
    for hookEntry in ${!hookEntries+"${!hookEntries}"}; do _eval "$hookEntry" "$@"; done
}

# The same until one of them succeeds; fails when none does.
runOneHook() {
    local hookName=$1 hookEntries="${1%Hook}Hooks[@]" hookEntry
    shift
    if _callImplicitHook 1 "$hookName" "$@"; then return 0; fi
    for hookEntry in ${!hookEntries+"${!hookEntries}"}; do
        if _eval "$hookEntry" "$@"; then return 0; fi
    done
    return 1
}

######## Lists: a string split at white space in plain mode, an array with structured attributes

_isArray() { [[ $(declare -p "$1" 2>/dev/null) == "declare -a"* ]]; }
# A list that does not exist yet becomes what the lists of this mode are.
_growsAsArray() { _isArray "$1" || [[ -n ${__structuredAttrs:-} && -z ${!1+set} ]]; }

# concatTo flags makeFlags installTargets=install: appends each list, or the default after `=` when the list is empty.
concatTo() {
    local -n concatTarget=$1
    local concatSource concatElements
    local -a concatWords
    for concatSource in "${@:2}"; do
        concatElements="${concatSource%%=*}[@]"
        concatWords=()
        if _isArray "${concatSource%%=*}"; then
            concatWords=("${!concatElements}")
        else
            # `read` splits without expanding wildcards, which an unquoted expansion would do.
            IFS=$' \t\n' read -rd '' -a concatWords <<<"${!concatElements:-}" || :
        fi
        if [[ ${#concatWords[@]} -eq 0 && $concatSource == *=* ]]; then concatWords=("${concatSource#*=}"); fi
        concatTarget+=("${concatWords[@]}")
    done
}

# shellcheck disable=SC2178,SC2128 # a reference to an array in one branch, to a string in the other
appendToVar() { # NAME WORD…
    local -n appendTarget=$1
    if _growsAsArray "$1"; then appendTarget+=("${@:2}"); else appendTarget="${appendTarget:+$appendTarget }${*:2}"; fi
}
# shellcheck disable=SC2178,SC2128 # the same
prependToVar() { # NAME WORD…
    local -n prependTarget=$1
    if _growsAsArray "$1"; then prependTarget=("${@:2}" "${prependTarget[@]}")
    else prependTarget="${*:2}${prependTarget:+ $prependTarget}"; fi
}

addToSearchPathWithCustomDelimiter() { # DELIMITER NAME DIRECTORY
    [[ -d $3 ]] || return 0
    export "$2=${!2:+${!2}$1}$3"
}
addToSearchPath() { addToSearchPathWithCustomDelimiter : "$@"; }

printWords() { (($# == 0)) || printf '%s ' "$@"; }
echoCmd() { printf '%s:' "$1"; shift; (($# == 0)) || printf ' %q' "$@"; echo; }
nixErrorLog() { printf 'error: %s\n' "$*" >&2; }
nixWarnLog() { printf 'warning: %s\n' "$*" >&2; }
nixInfoLog() { printf '%s\n' "$*" >&2; }

######## Start: variables, directories, inputs

# Sourced here and not in a function: `declare` inside a function would make every attribute local to it.
if [[ -n ${NIX_ATTRS_SH_FILE:-} && -e $NIX_ATTRS_SH_FILE ]]; then
    # shellcheck disable=SC1090 # written by the sandbox
    source "$NIX_ATTRS_SH_FILE"
    __structuredAttrs=1
    # The builder's environment holds nothing of the derivation then, not even `out`: programs need these exported.
    for _name in "${!outputs[@]}"; do export "$_name=${outputs[$_name]}"; done
    for _name in "${!env[@]}"; do export "$_name=${env[$_name]}"; done
    export PATH HOME
fi

getAllOutputNames() {
    if [[ -n ${__structuredAttrs:-} ]]; then printWords "${!outputs[@]}"; else printWords "${outputs:-out}"; fi
}

: "${NIX_BUILD_TOP:=$PWD}" "${NIX_STORE:=/nix/store}" "${SOURCE_DATE_EPOCH:=315532800}"
if ((${NIX_BUILD_CORES:-0} <= 0)); then NIX_BUILD_CORES=$(nproc 2>/dev/null || echo 1); fi
# With the interpreter pinned, `make` and `configure` behave alike where /bin/sh is dash, busybox or bash.
SHELL=$BASH CONFIG_SHELL=$BASH TZ=UTC GZIP_NO_TIMESTAMPS=1
export PATH NIX_BUILD_TOP NIX_STORE SOURCE_DATE_EPOCH NIX_BUILD_CORES SHELL CONFIG_SHELL TZ GZIP_NO_TIMESTAMPS
# Nix's own HOME must stay absent (it is there to make programs fail); any other is made.
if [[ -n ${HOME:-} && $HOME != /homeless-shelter ]]; then mkdir -p "$HOME"; fi

# Phases and hooks handed over as files because they are too long for the environment.
for _name in ${passAsFile:-}; do
    _path="${_name}Path"
    case $_name in
        *Phase | pre[A-Z]* | post[A-Z]* | *Hook | unpackCmd | setSourceRoot)
            [[ -n ${!_name:-} || -z ${!_path:-} ]] || printf -v "$_name" %s "$(<"${!_path}")" ;;
    esac
done

# Where an output's parts go: outputDev=dev when there is a `dev`, else `out`, else the first output.
read -r _first _ <<<"$(getAllOutputNames)"
[[ -z ${out:-} ]] || _first=out
for _pair in Bin:bin Dev:dev Lib:lib Include:dev Doc:doc Man:man Info:info; do
    _name="output${_pair%:*}" _path=${_pair#*:}
    if [[ -n ${!_name:-} ]]; then continue; fi
    if [[ " $(getAllOutputNames) " == *" $_path "* ]]; then printf -v "$_name" %s "$_path"
    else printf -v "$_name" %s "$_first"; fi
done
: "${prefix:=${!_first:-}}"
unset _name _path _first _pair

# Small programs that belong to no distribution's default installation. They are executables and not functions, since
# they are run by `find -exec` and `xargs`. Kept under a hidden name, so that `for file in *` does not meet them.
helperDir="$NIX_BUILD_TOP/.fodder-bin"
addHelper() { # NAME, text on stdin
    mkdir -p "$helperDir"
    cat >"$helperDir/$1"
    chmod +x "$helperDir/$1"
    [[ :$PATH: == *:$helperDir:* ]] || PATH="$helperDir:$PATH"
}

addRemoveReferencesTo() {
    addHelper remove-references-to <<EOF
#!$BASH -e
# remove-references-to -t STORE-PATH… FILE…: replaces the hash part of each STORE-PATH by as many \`e\`s.
store=$NIX_STORE
EOF
    cat >>"$helperDir/remove-references-to" <<'EOF'
# Bytes, not characters: in GBK, say, the byte before a hash would take the hash's first letter into its character.
export LC_ALL=C
script=
while getopts t: option; do
    [[ $option == t ]] || exit 1
    hash=${OPTARG#"$store"/}
    if [[ $OPTARG != "$store"/* || ! ${hash:0:33} =~ ^[a-z0-9]{32}-$ ]]; then
        echo '-t argument must be a Nix store path' >&2
        exit 1
    fi
    script+="s/${hash:0:32}/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee/g;"
done
shift $((OPTIND - 1))
for file; do
    # Files without a match keep their time; sed -i on a symbolic link would replace the link.
    if [[ ! -L $file && -f $file ]]; then sed -i -e "$script" -- "$file"; fi
done
EOF
}

addSponge() {
    addHelper sponge <<EOF
#!$BASH -e
# sponge [-a] [FILE]: reads all of the input before it opens FILE.
append=
if [[ \${1-} == -a ]]; then append=1; shift; fi
held=\$(mktemp)
trap 'rm -f "\$held"' EXIT
cat >"\$held"
if [[ -z \${1-} ]]; then cat "\$held"
elif [[ -n \$append ]]; then cat "\$held" >>"\$1"
else cat "\$held" >"\$1"; fi
EOF
}

# The one table from names of nixpkgs packages to commands of the host. Prints the commands that must be there.
# Status 1: the name says nothing about commands (libraries). Status 2: a setup hook of nixpkgs, which no host has.
commandsOf() {
    local package=${1#pkgs.}
    package=${package%%_[0-9]*} # nodejs_22, pnpm_9, go_1_22
    case $package in
        cacert | stdenv | stdenvNoCC | glibc | glibcLocales | writableTmpDirAsHomeHook) ;;
        *Hook | makeWrapper | makeBinaryWrapper | installShellFiles) return 2 ;;
        *.out | *.bin) commandsOf "${package%.*}" ;;
        *.dev | *.lib | *.man | python*Packages.*) return 1 ;;
        removeReferencesTo) echo remove-references-to ;;
        moreutils) echo sponge ;;
        python3[0-9]*) echo "python3.${package#python3}" ;;
        nodejs | nodejs-slim) echo node ;;
        rustc | rustPlatform) echo rustc ;;
        jdk* | openjdk* | jre*) echo java ;;
        maven) echo mvn ;;
        yarn-berry) echo yarn ;;
        postgresql) echo pg_config ;;
        krb5) echo krb5-config ;;
        pkg-config | pkgconf) echo pkg-config ;;
        protobuf) echo protoc ;;
        ripgrep) echo rg ;;
        p7zip) echo 7z ;;
        openssh) echo ssh ;;
        gnupg) echo gpg ;;
        gnumake) echo make ;;
        gnused) echo sed ;;
        gnugrep) echo grep ;;
        gnutar) echo tar ;;
        gnupatch) echo patch ;;
        coreutils) echo cp install ;;
        findutils) echo find xargs ;;
        diffutils) echo diff ;;
        binutils) echo ld strip ;;
        autoconf) echo autoconf autoreconf ;;
        xz) echo xz ;;
        *.*) echo "${package##*.}" ;; # postgresql.pg_config, nodePackages.pnpm
        *) echo "$package" ;;
    esac
}

declare -A seenInputs=()
declare -a inputDirectories=() missingCommands=() uncheckedInputs=() envHooks=()
inputBins='' # bin directories of inputs that are directories: before the host's PATH, and all that patchShebangs uses
# nixpkgs' setup hooks register what to do for each input with this; the offset, which is for cross builds, is unused.
addEnvHooks() { envHooks+=("${@:2}"); }

addInput() { # NAME-OF-THE-LIST ENTRY
    [[ -n $2 && -z ${seenInputs[$2]:-} ]] || return 0
    seenInputs[$2]=1
    local command status=0 file propagated
    if [[ $2 == /* && -d $2 ]]; then
        inputDirectories+=("$2")
        if [[ -d $2/bin ]]; then inputBins+="${inputBins:+:}$2/bin"; fi
        # For compilers that no wrapper told where things are. CPATH and LIBRARY_PATH are read by gcc and clang alike.
        addToSearchPath CPATH "$2/include"
        addToSearchPath LIBRARY_PATH "$2/lib"
        addToSearchPath PKG_CONFIG_PATH "$2/lib/pkgconfig"
        addToSearchPath PKG_CONFIG_PATH "$2/share/pkgconfig"
        addToSearchPath CMAKE_PREFIX_PATH "$2"
        # shellcheck disable=SC1091 # belongs to the input
        if [[ -f $2/nix-support/setup-hook ]]; then source "$2/nix-support/setup-hook"; fi
        for file in "$2"/nix-support/propagated-{native-,}build-inputs; do
            [[ -f $file ]] || continue
            for propagated in $(<"$file"); do addInput "$1" "$propagated"; done
        done
    elif [[ $2 == /* && -f $2 && -x $2 ]]; then
        mkdir -p "$helperDir"
        ln -sf "$2" "$helperDir/$(stripHash "$2")"
        [[ :$PATH: == *:$helperDir:* ]] || PATH="$helperDir:$PATH"
    elif [[ $2 == /* ]]; then
        fail "$1 names $2, which does not exist in the sandbox" \
            'Build or copy it into the store first, or correct the path.'
    elif [[ $1 != *ativeBuildInputs ]]; then
        uncheckedInputs+=("$2") # a library by name: nothing tells whether the host has it
    else
        command=$(commandsOf "$2") || status=$?
        case $status in
            1) uncheckedInputs+=("$2") ;;
            2) fail "$1 names $2, a setup hook of nixpkgs, which the host does not have" \
                'Give its store path instead of its name, or write what it does into a phase.' ;;
        esac
        for command in $command; do
            type -P "$command" >/dev/null && continue
            case $command in
                remove-references-to) addRemoveReferencesTo ;;
                sponge) addSponge ;;
                "$2") missingCommands+=("$2") ;;
                *) missingCommands+=("$2 (command $command)") ;;
            esac
        done
    fi
}

stripHash() { # PATH: its last component without the `HASH-` of a store path
    local strippedName=${1%/}
    strippedName=${strippedName##*/}
    if [[ $strippedName =~ ^[a-z0-9]{32}- ]]; then strippedName=${strippedName:33}; fi
    printf '%s\n' "$strippedName"
}

# nixpkgs' compilers are wrappers that read NIX_CFLAGS_COMPILE and NIX_LDFLAGS; the host's are not, and a phase that
# sets those would be ignored without a word. So: when any attribute mentions them, the same is put around the host's.
addCompilerWrappers() {
    [[ "$(declare -p)" =~ NIX_(CFLAGS_|LDFLAGS) ]] || return 0
    local compiler real triple
    triple=$(uname -m)-linux-gnu
    for compiler in cc c++ gcc g++ clang clang++ "$triple-gcc" "$triple-g++"; do
        real=$(type -P "$compiler") || continue
        # A compiler out of the store reads the variables by itself.
        [[ $real != "$NIX_STORE"/* ]] || continue
        addHelper "$compiler" <<EOF
#!$BASH
link=()
for flag in \${NIX_LDFLAGS-}; do link+=("-Wl,\$flag"); done
exec ${real@Q} "\$@" \${NIX_CFLAGS_COMPILE-} \${NIX_CFLAGS_LINK-} "\${link[@]}"
EOF
    done
}

# shellcheck disable=SC2034 # the offsets are read by nixpkgs' setup hooks
setUpInputs() {
    local list entry hook hostOffset=0 targetOffset=0
    local -a entries
    for list in nativeBuildInputs propagatedNativeBuildInputs buildInputs propagatedBuildInputs; do
        entries=()
        concatTo entries "$list"
        for entry in "${entries[@]}"; do addInput "$list" "$entry"; done
    done
    if ((${#missingCommands[@]} > 0)); then
        fail "there is no command for: $(printf '%s, ' "${missingCommands[@]}" | sed 's/, $//')" \
            "Names in nativeBuildInputs are looked up on your PATH, and in the system directories that the build sees." \
            'Install them on this machine, or give a store path or an absolute path instead of the name.'
    fi
    ((${#uncheckedInputs[@]} == 0)) || echo "inputs taken from the host unchecked: ${uncheckedInputs[*]}"
    PATH="${inputBins:+$inputBins:}$PATH"
    for hook in "${envHooks[@]}"; do
        for entry in "${inputDirectories[@]}"; do "$hook" "$entry"; done
    done
    addCompilerWrappers
}

######## Text substitution

# substitute INPUT OUTPUT OPTION… , substituteInPlace FILE… OPTION…
#   --replace-fail OLD NEW   an OLD that is not there fails the build
#   --replace-warn OLD NEW   … prints a warning (`--replace` is its old name)   --replace-quiet OLD NEW   … is fine
#   --subst-var NAME         @NAME@ becomes $NAME                  --subst-var-by NAME TEXT   @NAME@ becomes TEXT
substitute() {
    local input=$1 output=$2 content pattern replacement mode
    shift 2
    if [[ ! -f $input ]]; then
        nixErrorLog "substitute(): file '$input' does not exist"
        return 1
    fi
    # Without -d '' the file's last newlines would be lost, and with a NUL inside the rest of the file would be.
    if IFS='' read -rd '' content <"$input"; then
        nixErrorLog "substitute(): file '$input' contains NUL bytes"
        return 1
    fi
    while (($# > 0)); do
        mode=$1
        case $mode in
            --replace | --replace-fail | --replace-warn | --replace-quiet)
                pattern=$2 replacement=$3
                shift 3 ;;
            --subst-var)
                if [[ ! $2 =~ ^[a-zA-Z_][a-zA-Z0-9_]*$ || -z ${!2+set} ]]; then
                    nixErrorLog "substitute(): '$2' is not a variable that is set"
                    return 1
                fi
                pattern="@$2@" replacement=${!2}
                shift 2 ;;
            --subst-var-by)
                pattern="@$2@" replacement=$3
                shift 3 ;;
            *)
                nixErrorLog "substitute(): invalid argument '$mode'"
                return 1 ;;
        esac
        if [[ $mode == --replace* && $content != *"$pattern"* ]]; then
            case $mode in
                --replace-fail)
                    nixErrorLog "substitute(): pattern '$pattern' doesn't match anything in file '$input'"
                    return 1 ;;
                --replace | --replace-warn)
                    nixWarnLog "substitute(): pattern '$pattern' doesn't match anything in file '$input'" ;;
            esac
        fi
        # The inner quotes keep `&` of the replacement literal from bash 5.2 on.
        content=${content//"$pattern"/"$replacement"}
    done
    # Written through the existing file, so that its mode stays.
    if [[ -e $output ]]; then chmod +w "$output"; fi
    printf %s "$content" >"$output"
}

substituteInPlace() {
    local -a files=()
    local file
    while (($# > 0)) && [[ $1 != --* ]]; do files+=("$1"); shift; done
    [[ ${1-} != -- ]] || shift
    if ((${#files[@]} == 0)); then nixErrorLog 'substituteInPlace(): no file is named'; return 1; fi
    for file in "${files[@]}"; do substitute "$file" "$file" "$@" || return; done
}

# Replaces @name@ for every exported variable whose name begins with a lowercase letter, as nixpkgs does.
substituteAll() { # INPUT OUTPUT
    local variable
    local -a options=()
    for variable in $(compgen -e | grep '^[a-z][a-zA-Z0-9_]*$') name pname version system; do
        [[ -z ${!variable+set} ]] || options+=(--subst-var "$variable")
    done
    substitute "$1" "$2" "${options[@]}"
}
substituteAllInPlace() { substituteAll "$1" "$1"; }

######## Files

# What a file is, whatever its name says. Without a program, since fixup asks this of every file of an output.
_beginsWith() { # FILE BYTES-WITHOUT-NUL
    local bytes=
    LC_ALL=C IFS='' read -rN "${#2}" bytes <"$1" || :
    [[ $bytes == "$2" ]]
}
isELF() { _beginsWith "$1" $'\177ELF'; }
isScript() { _beginsWith "$1" '#!'; }

moveToOutput() { # PATTERN DIRECTORY : moves what matches in the other outputs to "$dev", say; `REMOVE` deletes it
    local output path
    for output in $(getAllOutputNames); do
        [[ ${!output} != "$2" ]] || continue
        for path in "${!output}"/$1; do
            if [[ $2 == REMOVE ]]; then rm -rf -- "$path"; continue; fi
            mkdir -p "$(dirname "$2${path#"${!output}"}")"
            mv -- "$path" "$2${path#"${!output}"}"
        done
    done
}

# patchShebangs PATH… : lets the scripts below PATH name the interpreters of the inputs that are store paths. Without such
# inputs it does nothing: the host's tools have no store path that a script could name.
patchShebangs() {
    while [[ ${1-} == --* ]]; do shift; done # --build, --host, --update: one and the same without cross builds
    [[ -n $inputBins ]] && (($# > 0)) || return 0
    local file line interpreter arguments program rest found
    while IFS= read -rd '' file; do
        isScript "$file" || continue
        IFS= read -r line <"$file" || :
        read -r interpreter arguments <<<"${line#\#!}"
        program=${interpreter##*/} rest=$arguments
        if [[ $program == env ]]; then
            read -r program rest <<<"${arguments#-S }"
            program=${program##*/}
        fi
        [[ $interpreter != "$NIX_STORE"/* && -n $program ]] || continue
        found=$(PATH=$inputBins type -P "$program") || continue
        echo "$file: interpreter directive changed from \"${line#\#!}\" to \"$found${rest:+ $rest}\""
        rest="$found${rest:+ $rest}"
        sed -i -e "1s|.*|#!${rest//[\\&|]/\\&}|" -- "$file"
    done < <(find "$@" -type f -perm -0100 -print0)
}

######## unpackPhase

# Unpacks by what the archive is, not by what its suffix says of the compression, as GNU tar does; busybox tar does not.
_unpackTar() {
    local decompress
    case $(od -An -v -tx1 -N6 "$1" | tr -d ' \n') in
        1f8b* | 1f9d*) decompress=gzip ;;
        425a68*) decompress=bzip2 ;;
        fd377a585a00 | 5d0000*) decompress=xz ;; # xz reads .lzma too
        28b52ffd*) decompress=zstd ;;
        4c5a4950*) decompress=lzip ;;
        *) decompress= ;;
    esac
    [[ -z $decompress ]] || type -P "$decompress" >/dev/null ||
        fail "unpacking $1 needs $decompress, which the host does not have" "Install $decompress on the host."
    # Runs in a condition, where `set -e` does not count: the statuses are looked at by hand. A decompressor that is
    # stopped by SIGPIPE (141) is fine: tar may leave the padding at the end unread.
    local -a statuses
    ${decompress:-cat} ${decompress:+-dc} <"$1" | tar -xof - && statuses=(0 0) || statuses=("${PIPESTATUS[@]}")
    ((statuses[0] == 0 || statuses[0] == 141)) || return "${statuses[0]}"
    return "${statuses[1]}"
}

_unpackZip() {
    if type -P unzip >/dev/null; then unzip -qq "$1"
    elif type -P bsdtar >/dev/null; then bsdtar -xf "$1"
    elif type -P python3 >/dev/null; then python3 -m zipfile -e "$1" . # loses the modes of files
    else fail "unpacking $1 needs unzip, which the host does not have" 'Install unzip, bsdtar or python3 on the host.'; fi
}

_defaultUnpack() {
    local status=0 destination
    if [[ -d $1 ]]; then
        destination=$(stripHash "$1")
        [[ ! -e $destination ]] || fail "cannot copy $1 to $destination: destination already exists" \
            'Did you specify two sources with the same name?'
        # Without --reflink and --preserve=…, which busybox does not know; GNU cp clones by itself since 9.0.
        cp -pRH -- "$1" "$destination" || status=$?
    else
        case $1 in
            *.tar | *.tar.* | *.tgz | *.taz | *.tbz | *.tbz2 | *.txz | *.tlz | *.tzst | *.crate) _unpackTar "$1" || status=$? ;;
            *.zip) _unpackZip "$1" || status=$? ;;
            *) return 1 ;;
        esac
    fi
    ((status == 0)) || fail "unpacking $1 failed with exit status $status"
}
unpackCmdHooks+=(_defaultUnpack)

unpackFile() {
    curSrc=$1 # what an unpackCmd reads
    echo "unpacking source archive $curSrc"
    runOneHook unpackCmd "$curSrc" || fail "do not know how to unpack source archive $curSrc" \
        'Known are directories, .tar (with any compression), .tgz, .tbz, .txz, .crate and .zip.' \
        "For a source that is no archive set dontUnpack; for anything else set unpackCmd, which finds the file in \$curSrc."
}

unpackPhase() {
    runHook preUnpack
    local -a sources=() found=()
    local -A directoriesBefore=()
    local entry
    concatTo sources srcs
    ((${#sources[@]} > 0)) || concatTo sources src
    # shellcheck disable=SC2016 # the names of the variables are meant
    ((${#sources[@]} > 0)) || fail 'variable $src or $srcs should point to the source' \
        'A derivation without a source sets dontUnpack.'
    for entry in */; do directoriesBefore[$entry]=1; done
    for entry in "${sources[@]}"; do unpackFile "$entry"; done

    if [[ -n ${setSourceRoot:-} ]]; then
        runOneHook setSourceRoot
    elif [[ -z ${sourceRoot:-} ]]; then
        for entry in */; do
            [[ -n ${directoriesBefore[$entry]:-} ]] || found+=("${entry%/}")
        done
        ((${#found[@]} <= 1)) || fail "unpacker produced multiple directories: ${found[*]}" \
            'Name the one to build in with sourceRoot.'
        sourceRoot=${found[0]-}
    fi
    [[ -n ${sourceRoot:-} ]] || fail 'unpacker appears to have produced no directories' \
        'If the files lie at the top of the archive, set sourceRoot to ".".'
    echo "source root is $sourceRoot"
    [[ ${dontMakeSourcesWritable:-0} == 1 ]] || chmod -R u+w -- "$sourceRoot"
    runHook postUnpack
}

# Builds that honour SOURCE_DATE_EPOCH get the time of the newest file of the source. Files newer than the directory
# around the build directory were made by the unpacker just now and would give another time in every build.
_updateSourceDateEpoch() {
    [[ -n ${sourceRoot:-} ]] || return 0
    local newest root=$sourceRoot
    [[ $root == /* ]] || root="./$root" # a name may begin with a dash
    newest=$(find "$root" -type f ! -newer "$NIX_BUILD_TOP/.." -exec stat -c %Y {} + | sort -n | tail -n 1)
    if [[ -n $newest ]] && ((newest > SOURCE_DATE_EPOCH)); then
        echo "setting SOURCE_DATE_EPOCH to $newest, the time of the newest file in $sourceRoot"
        export SOURCE_DATE_EPOCH=$newest
    fi
}
postUnpackHooks+=(_updateSourceDateEpoch)

######## The other phases

patchPhase() {
    runHook prePatch
    local -a patchFiles=() flagsArray=()
    local file decompress
    concatTo patchFiles patches
    concatTo flagsArray patchFlags=-p1
    for file in "${patchFiles[@]}"; do
        echo "applying patch $file"
        case $file in
            *.gz) decompress='gzip -dc' ;;
            *.bz2) decompress='bzip2 -dc' ;;
            *.xz | *.lzma) decompress='xz -dc' ;;
            *) decompress='cat' ;;
        esac
        $decompress <"$file" | patch "${flagsArray[@]}"
    done
    runHook postPatch
}

configurePhase() {
    runHook preConfigure
    if [[ -z ${configureScript:-} && -x ./configure ]]; then configureScript=./configure; fi
    if [[ -n ${configureScript:-} ]]; then
        if [[ -z ${dontAddPrefix:-} && -n $prefix ]]; then
            prependToVar configureFlags "${prefixKey:---prefix=}$prefix"
        fi
        if [[ -f $configureScript ]]; then
            if [[ -z ${dontAddDisableDepTrack:-} ]] && grep -q dependency-tracking "$configureScript"; then
                prependToVar configureFlags --disable-dependency-tracking
            fi
            if [[ -z ${dontDisableStatic:-} ]] && grep -q enable-static "$configureScript"; then
                prependToVar configureFlags --disable-static
            fi
        fi
        local -a flagsArray=()
        concatTo flagsArray configureFlags configureFlagsArray
        echoCmd 'configure flags' "${flagsArray[@]}"
        # shellcheck disable=SC2086 # may hold arguments, as in configureScript="./Configure linux"
        $configureScript "${flagsArray[@]}"
    else
        echo 'no configure script, doing nothing'
    fi
    runHook postConfigure
}

_hasMakefile() { [[ -n ${makeFlags-} || -n ${makefile:-} || -e Makefile || -e makefile || -e GNUmakefile ]]; }
_hasTarget() { make -n ${makefile:+-f "$makefile"} "$1" >/dev/null 2>&1; }
_runMake() { # LABEL ENABLE-PARALLEL LIST…
    local -a flagsArray=(${2:+"-j$NIX_BUILD_CORES"} "SHELL=$SHELL")
    concatTo flagsArray makeFlags makeFlagsArray "${@:3}"
    echoCmd "$1 flags" "${flagsArray[@]}"
    make ${makefile:+-f "$makefile"} "${flagsArray[@]}"
}

buildPhase() {
    runHook preBuild
    if _hasMakefile; then
        foundMakefile=1
        _runMake build "${enableParallelBuilding:-}" buildFlags buildFlagsArray
    else
        echo 'no Makefile or custom buildPhase, doing nothing'
    fi
    runHook postBuild
}

checkPhase() {
    runHook preCheck
    local target
    for target in check test; do
        if [[ -z ${checkTarget:-} && -n ${foundMakefile:-} ]] && _hasTarget $target; then checkTarget=$target; fi
    done
    if [[ -z ${foundMakefile:-} ]]; then
        echo 'no Makefile or custom checkPhase, doing nothing'
    elif [[ -z ${checkTarget:-} ]]; then
        echo "no check/test target in ${makefile:-Makefile}, doing nothing"
    else
        _runMake check "${enableParallelChecking:-}" checkFlags=VERBOSE=y checkFlagsArray checkTarget
    fi
    runHook postCheck
}

installPhase() {
    runHook preInstall
    if _hasMakefile; then
        foundMakefile=1
        if [[ -n $prefix ]]; then mkdir -p "$prefix"; fi
        _runMake install "${enableParallelInstalling:-}" installFlags installFlagsArray installTargets=install
    else
        echo 'no Makefile or custom installPhase, doing nothing'
    fi
    runHook postInstall
}

_stripOutput() {
    [[ -z ${dontStrip:-} && -d $prefix ]] || return 0
    _stripDirectories stripAllList= "${stripAllFlags:--s -p}"
    _stripDirectories 'stripDebugList=lib lib32 lib64 libexec bin sbin' "${stripDebugFlags:--S -p}"
}
_stripDirectories() { # LIST=DEFAULT FLAGS
    local -a directories=()
    local directory file
    concatTo directories "${1%%=*}"
    if ((${#directories[@]} == 0)); then read -ra directories <<<"${1#*=}"; fi
    for directory in "${directories[@]}"; do
        [[ -d $prefix/$directory ]] || continue
        while IFS= read -rd '' file; do
            isELF "$file" || _beginsWith "$file" '!<arch>' || continue # the latter is a static library
            type -P strip >/dev/null || { echo 'the host has no strip: binaries stay as they are'; return 0; }
            # shellcheck disable=SC2086 # flags
            strip $2 -- "$file" || : # strip says why; a file it cannot read is no reason to fail
        done < <(find "$prefix/$directory" -type f -print0)
    done
}
_patchShebangsInOutput() { [[ -n ${dontPatchShebangs:-} || ! -d $prefix ]] || patchShebangs "$prefix"; }

# NIX_OUTPUT_CHECKED is Nix's own mark of a fixed-output derivation. Rewriting its files would make the hash depend on
# the strip and the interpreters of the day, and a rewritten shebang names a store path, which is forbidden there.
if [[ ${NIX_OUTPUT_CHECKED:-} != 1 ]]; then fixupOutputHooks+=(_stripOutput _patchShebangsInOutput); fi

fixupPhase() {
    local output list
    local -a words
    for output in $(getAllOutputNames); do
        [[ ! -e ${!output} || -L ${!output} ]] || chmod -R u+w,u-s,g-s "${!output}"
    done
    runHook preFixup
    if [[ ${NIX_OUTPUT_CHECKED:-} == 1 && -z "${dontStrip:-}${dontPatchShebangs:-}" ]]; then
        echo 'the output hash is declared: fixupPhase does not strip binaries or patch shebangs'
    fi
    for output in $(getAllOutputNames); do prefix=${!output} runHook fixupOutput; done
    for list in propagatedNativeBuildInputs:propagated-native-build-inputs propagatedBuildInputs:propagated-build-inputs; do
        words=()
        concatTo words "${list%:*}"
        ((${#words[@]} > 0)) || continue
        mkdir -p "${!outputDev}/nix-support"
        printWords "${words[@]}" >"${!outputDev}/nix-support/${list#*:}"
    done
    if [[ -n ${setupHook:-} ]]; then
        mkdir -p "${!outputDev}/nix-support"
        substituteAll "$setupHook" "${!outputDev}/nix-support/setup-hook"
    fi
    runHook postFixup
}

installCheckPhase() {
    runHook preInstallCheck
    if [[ -z ${foundMakefile:-} ]]; then
        echo 'no Makefile or custom installCheckPhase, doing nothing'
    elif [[ -z ${installCheckTarget:-} ]] && ! _hasTarget installcheck; then
        echo "no installcheck target in ${makefile:-Makefile}, doing nothing"
    else
        _runMake installcheck "${enableParallelChecking:-}" installCheckFlags installCheckFlagsArray \
            installCheckTarget=installcheck
    fi
    runHook postInstallCheck
}

distPhase() {
    runHook preDist
    _runMake dist '' distFlags distFlagsArray distTarget=dist
    if [[ -z ${dontCopyDist:-} ]]; then
        mkdir -p "$out/tarballs"
        # shellcheck disable=SC2086 # wildcards
        cp -pP ${tarballs:-*.tar.gz} "$out/tarballs"
    fi
    runHook postDist
}

######## Running them

runPhase() {
    curPhase=$1
    case $curPhase in
        unpackPhase) [[ -z ${dontUnpack:-} ]] || return 0 ;;
        patchPhase) [[ -z ${dontPatch:-} ]] || return 0 ;;
        configurePhase) [[ -z ${dontConfigure:-} ]] || return 0 ;;
        buildPhase) [[ -z ${dontBuild:-} ]] || return 0 ;;
        checkPhase) [[ -n ${doCheck:-} ]] || return 0 ;;
        installPhase) [[ -z ${dontInstall:-} ]] || return 0 ;;
        fixupPhase) [[ -z ${dontFixup:-} ]] || return 0 ;;
        installCheckPhase) [[ -n ${doInstallCheck:-} ]] || return 0 ;;
        distPhase) [[ -n ${doDist:-} ]] || return 0 ;;
    esac
    echo "Running phase: $curPhase"
    # For the progress line of whoever runs the builder; Nix does not show this line.
    [[ -z ${NIX_LOG_FD:-} ]] || printf '@nix { "action": "setPhase", "phase": "%s" }\n' "$curPhase" >&"$NIX_LOG_FD"
    # For looking around after a failure: `source env-vars` in the kept build directory.
    [[ ${noDumpEnvVars:-} == 1 ]] || export >"$NIX_BUILD_TOP/env-vars" || :

    local phaseStart=$SECONDS
    # The variable replaces the function entirely. Not in a condition and not with `||`: that would turn `set -e` off.
    eval "${!curPhase:-$curPhase}"
    if ((SECONDS - phaseStart >= 30)); then
        echo "$curPhase completed in $(((SECONDS - phaseStart) / 60)) minutes $(((SECONDS - phaseStart) % 60)) seconds"
    fi

    if [[ $curPhase == unpackPhase ]]; then
        [[ -z ${sourceRoot:-} ]] || chmod +x -- "$sourceRoot"
        cd -- "${sourceRoot:-.}"
    fi
}

definePhases() {
    phaseList=()
    concatTo phaseList phases
    ((${#phaseList[@]} == 0)) || return 0
    local word
    for word in prePhases unpackPhase patchPhase preConfigurePhases configurePhase preBuildPhases buildPhase checkPhase \
        preInstallPhases installPhase preFixupPhases fixupPhase installCheckPhase preDistPhases distPhase postPhases; do
        case $word in
            *Phases) concatTo phaseList "$word" ;;
            *) phaseList+=("$word") ;;
        esac
    done
}

genericBuild() {
    if [[ -n ${buildCommandPath:-} ]]; then
        curPhase=buildCommand
        # shellcheck disable=SC1090 # the derivation's
        source "$buildCommandPath"
    elif [[ -n ${buildCommand:-} ]]; then
        curPhase=buildCommand
        eval "$buildCommand"
    else
        local -a phaseList
        local phase
        definePhases
        for phase in "${phaseList[@]}"; do runPhase "$phase"; done
    fi
    curPhase=
}

runHook preHook
setUpInputs
runHook postHook
genericBuild
