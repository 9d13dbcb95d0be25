//! From names of nixpkgs packages to commands of the machine. The setup script has the same table (`commandsOf`), since it checks
//! inside what is looked up here outside; a test compares the two.

/// The commands that an entry of `nativeBuildInputs` stands for; none for libraries and setup hooks.
pub fn commands_of(package: &str) -> Vec<String> {
    let package = package.strip_prefix("pkgs.").unwrap_or(package);
    // nodejs_22, pnpm_9, go_1_22
    let versioned = package.match_indices('_').find(|(at, _)| starts_with_digit(&package[at + 1..]));
    let package = versioned.map_or(package, |(at, _)| &package[..at]);
    let commands: &[&str] = match package {
        "cacert" | "stdenv" | "stdenvNoCC" | "glibc" | "glibcLocales" | "writableTmpDirAsHomeHook" => &[],
        "makeWrapper" | "makeBinaryWrapper" | "installShellFiles" => &[],
        "removeReferencesTo" => &["remove-references-to"],
        "moreutils" => &["sponge"],
        "nodejs" | "nodejs-slim" => &["node"],
        "rustc" | "rustPlatform" => &["rustc"],
        "maven" => &["mvn"],
        "yarn-berry" => &["yarn"],
        "postgresql" => &["pg_config"],
        "krb5" => &["krb5-config"],
        "pkg-config" | "pkgconf" => &["pkg-config"],
        "protobuf" => &["protoc"],
        "ripgrep" => &["rg"],
        "p7zip" => &["7z"],
        "openssh" => &["ssh"],
        "gnupg" => &["gpg"],
        "gnumake" => &["make"],
        "gnused" => &["sed"],
        "gnugrep" => &["grep"],
        "gnutar" => &["tar"],
        "gnupatch" => &["patch"],
        "coreutils" => &["cp", "install"],
        "findutils" => &["find", "xargs"],
        "diffutils" => &["diff"],
        "binutils" => &["ld", "strip"],
        "autoconf" => &["autoconf", "autoreconf"],
        _ => return by_pattern(package),
    };
    commands.iter().map(|command| (*command).to_owned()).collect()
}

fn by_pattern(package: &str) -> Vec<String> {
    let one = |command: &str| vec![command.to_owned()];
    if package.ends_with("Hook") {
        return Vec::new();
    }
    if let Some(package) = package.strip_suffix(".out").or_else(|| package.strip_suffix(".bin")) {
        return commands_of(package);
    }
    let is_library = [".dev", ".lib", ".man"].iter().any(|suffix| package.ends_with(suffix));
    if is_library || (package.starts_with("python") && package.contains("Packages.")) {
        return Vec::new();
    }
    if let Some(minor) = package.strip_prefix("python3").filter(|minor| starts_with_digit(minor)) {
        return vec![format!("python3.{minor}")];
    }
    if ["jdk", "openjdk", "jre"].iter().any(|prefix| package.starts_with(prefix)) {
        return one("java");
    }
    // postgresql.pg_config, nodePackages.pnpm
    one(package.rsplit('.').next().unwrap_or(package))
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|character: char| character.is_ascii_digit())
}
