//! The attributes that mean something, in one table. It feeds the short form's reader, its JSON Schema, its reference page
//! and every "did you mean"; an attribute that is not here is an environment variable.

use crate::json::nearest;

/// What values an attribute takes in the short form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeKind {
    /// A string (numbers and booleans are coerced as Nix does).
    Text,
    /// Shell text: a string, or an array of lines.
    Script,
    /// An array of strings, or one string that is split on white space.
    List,
    /// `true` or `false`; also `1` and the empty string.
    Switch,
    /// A path or an array of paths; `./…` is copied to the store.
    Source,
    /// An object from names to values.
    Object,
    /// Any JSON value, passed on without being read.
    Any,
}

/// For which purpose an attribute is there; the reference page has one section for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Group {
    Identity,
    Inputs,
    Phases,
    Hooks,
    Switches,
    PhaseSettings,
    FixedOutput,
    OutputChecks,
    Environment,
    Builder,
    Fodder,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// The name as it is written.
    pub name: &'static str,
    /// Its values.
    pub kind: AttributeKind,
    /// Its purpose.
    pub group: Group,
    /// One sentence for the reference page and the schema.
    pub description: &'static str,
}

const fn row(name: &'static str, kind: AttributeKind, group: Group, description: &'static str) -> Attribute {
    Attribute { name, kind, group, description }
}

use AttributeKind::{Any, List, Object, Script, Source, Switch, Text};
use Group::{
    Builder, Environment, FixedOutput, Fodder, Hooks, Identity, Inputs, OutputChecks, PhaseSettings, Phases, Switches,
};

/// Every attribute with a meaning, in the order of the reference page.
pub const ATTRIBUTES: &[Attribute] = &[
    row("name", Text, Identity, "Name of the derivation; `pname` and `version` joined by `-` when absent."),
    row("pname", Text, Identity, "Name without the version."),
    row("version", Text, Identity, "Version; appended to `pname`."),
    row("system", Text, Identity, "Platform to build on, such as `x86_64-linux`; the machine's own when absent."),
    row("outputs", List, Identity, "Names of the outputs; `out` when absent."),
    row("meta", Any, Identity, "Not read; accepted because nixpkgs has it."),
    row("passthru", Any, Identity, "Not read; accepted because nixpkgs has it."),
    row("src", Source, Inputs, "Source: a path relative to the file, which is copied to the store, or a store path."),
    row("srcs", Source, Inputs, "Several sources."),
    row("patches", Source, Inputs, "Patches that `patchPhase` applies."),
    row(
        "nativeBuildInputs",
        List,
        Inputs,
        "Tools: command names looked up on this machine, absolute paths, store paths, or directories beside the file (`./…`), which are copied to the store.",
    ),
    row(
        "buildInputs",
        List,
        Inputs,
        "Libraries: store paths or directories beside the file (`./…`); names are accepted and checked by nobody.",
    ),
    row("propagatedBuildInputs", List, Inputs, "Recorded in `nix-support`."),
    row("propagatedNativeBuildInputs", List, Inputs, "Recorded in `nix-support`."),
    row("nativeCheckInputs", List, Inputs, "Tools, as `nativeBuildInputs`."),
    row("checkInputs", List, Inputs, "Libraries, as `buildInputs`."),
    row("strictDeps", Switch, Inputs, "Accepted; there is no cross compilation here."),
    row("phases", List, Phases, "Phases to run instead of the usual ones."),
    row("prePhases", List, Phases, "Phases before all others."),
    row("preConfigurePhases", List, Phases, "Phases before `configurePhase`."),
    row("preBuildPhases", List, Phases, "Phases before `buildPhase`."),
    row("preInstallPhases", List, Phases, "Phases before `installPhase`."),
    row("preFixupPhases", List, Phases, "Phases before `fixupPhase`."),
    row("preDistPhases", List, Phases, "Phases before `distPhase`."),
    row("postPhases", List, Phases, "Phases after all others."),
    row("buildCommand", Script, Phases, "Runs instead of all phases."),
    row("unpackPhase", Script, Phases, "Unpacks `src` and `srcs`, and enters `sourceRoot`."),
    row("patchPhase", Script, Phases, "Applies `patches`."),
    row("configurePhase", Script, Phases, "Runs `./configure` when there is one."),
    row("buildPhase", Script, Phases, "Runs `make` when there is a makefile."),
    row("checkPhase", Script, Phases, "Runs `make check` when `doCheck` is set."),
    row("installPhase", Script, Phases, "Runs `make install` when there is a makefile."),
    row("fixupPhase", Script, Phases, "Tidies the outputs; rewrites nothing in a fixed-output derivation."),
    row("installCheckPhase", Script, Phases, "Runs `make installcheck` when `doInstallCheck` is set."),
    row("distPhase", Script, Phases, "Runs `make dist` when `doDist` is set."),
    row("preUnpack", Script, Hooks, "Runs before unpacking."),
    row("postUnpack", Script, Hooks, "Runs after unpacking."),
    row("prePatch", Script, Hooks, "Runs before patching."),
    row("postPatch", Script, Hooks, "Runs after patching."),
    row("preConfigure", Script, Hooks, "Runs before configuring."),
    row("postConfigure", Script, Hooks, "Runs after configuring."),
    row("preBuild", Script, Hooks, "Runs before building."),
    row("postBuild", Script, Hooks, "Runs after building."),
    row("preCheck", Script, Hooks, "Runs before checking."),
    row("postCheck", Script, Hooks, "Runs after checking."),
    row("preInstall", Script, Hooks, "Runs before installing."),
    row("postInstall", Script, Hooks, "Runs after installing."),
    row("preFixup", Script, Hooks, "Runs before fixup."),
    row("postFixup", Script, Hooks, "Runs after fixup."),
    row("preInstallCheck", Script, Hooks, "Runs before the check of what was installed."),
    row("postInstallCheck", Script, Hooks, "Runs after the check of what was installed."),
    row("preDist", Script, Hooks, "Runs before `make dist`."),
    row("postDist", Script, Hooks, "Runs after `make dist`."),
    row("exitHook", Script, Hooks, "Runs when the build ends well."),
    row("failureHook", Script, Hooks, "Runs when the build fails."),
    row("shellHook", Script, Hooks, "Accepted; only shells use it."),
    row("dontUnpack", Switch, Switches, "Leaves `unpackPhase` out."),
    row("dontPatch", Switch, Switches, "Leaves `patchPhase` out."),
    row("dontConfigure", Switch, Switches, "Leaves `configurePhase` out."),
    row("dontBuild", Switch, Switches, "Leaves `buildPhase` out."),
    row("doCheck", Switch, Switches, "Runs `checkPhase`."),
    row("dontInstall", Switch, Switches, "Leaves `installPhase` out."),
    row("dontFixup", Switch, Switches, "Leaves `fixupPhase` out."),
    row("doInstallCheck", Switch, Switches, "Runs `installCheckPhase`."),
    row("doDist", Switch, Switches, "Runs `distPhase`."),
    row("dontStrip", Switch, Switches, "Keeps debug symbols."),
    row("dontPatchShebangs", Switch, Switches, "Keeps interpreter lines."),
    row("dontPatchELF", Switch, Switches, "Accepted; nothing is patched here."),
    row("dontMakeSourcesWritable", Switch, Switches, "Keeps the modes of what was unpacked."),
    row("dontAddPrefix", Switch, Switches, "Calls `configure` without `--prefix`."),
    row("dontAddDisableDepTrack", Switch, Switches, "Calls `configure` without `--disable-dependency-tracking`."),
    row("dontDisableStatic", Switch, Switches, "Calls `configure` without `--disable-static`."),
    row("dontUseCmakeConfigure", Switch, Switches, "Accepted; there is no cmake hook here."),
    row("enableParallelBuilding", Switch, Switches, "Passes `-j` to `make`."),
    row("sourceRoot", Text, PhaseSettings, "Directory to build in; the one that unpacking made when absent."),
    row("setSourceRoot", Script, PhaseSettings, "Sets `sourceRoot`."),
    row("patchFlags", List, PhaseSettings, "Flags of `patch`; `-p1` when absent."),
    row("configureScript", Text, PhaseSettings, "Script that `configurePhase` runs."),
    row("configureFlags", List, PhaseSettings, "Arguments of the configure script."),
    row("prefix", Text, PhaseSettings, "Prefix given to the configure script; `$out` when absent."),
    row("makefile", Text, PhaseSettings, "Makefile to use."),
    row("makeFlags", List, PhaseSettings, "Arguments of every `make`."),
    row("buildFlags", List, PhaseSettings, "Arguments of `make` in `buildPhase`."),
    row("checkFlags", List, PhaseSettings, "Arguments of `make` in `checkPhase`."),
    row("checkTarget", Text, PhaseSettings, "Target of `checkPhase`."),
    row("installFlags", List, PhaseSettings, "Arguments of `make` in `installPhase`."),
    row("installTargets", List, PhaseSettings, "Targets of `installPhase`."),
    row(
        "outputHash",
        Text,
        FixedOutput,
        "Hash of the output in any spelling; empty to be told it. Its presence grants the network.",
    ),
    row(
        "outputHashAlgo",
        Text,
        FixedOutput,
        "`sha256`, `sha512`, `sha1`, `md5` or `blake3`; may be left to an SRI hash.",
    ),
    row(
        "outputHashMode",
        Text,
        FixedOutput,
        "`flat`, `recursive` (also called `nar`), `text` or `git`; `flat` when absent.",
    ),
    row("impureEnvVars", List, FixedOutput, "Variables taken from the caller; only in fixed-output derivations."),
    row("allowedReferences", List, OutputChecks, "The only paths that an output may refer to."),
    row("allowedRequisites", List, OutputChecks, "The only paths that may be in an output's closure."),
    row("disallowedReferences", List, OutputChecks, "Paths that no output may refer to."),
    row("disallowedRequisites", List, OutputChecks, "Paths that may not be in an output's closure."),
    row("outputChecks", Object, OutputChecks, "The same for each output by name; with `__structuredAttrs`."),
    row(
        "unsafeDiscardReferences",
        Object,
        OutputChecks,
        "Outputs that are not scanned for references; with `__structuredAttrs`.",
    ),
    row("env", Object, Environment, "Environment variables by name."),
    row("passAsFile", List, Environment, "Attributes given as files, for values over 128 KiB."),
    row(
        "__structuredAttrs",
        Switch,
        Environment,
        "Passes attributes as JSON and shell declarations instead of variables.",
    ),
    row("exportReferencesGraph", Any, Environment, "Closures to be listed in files."),
    row("builder", Text, Builder, "Program to run instead of the phases; then `args` are its arguments."),
    row("args", List, Builder, "Arguments of `builder`."),
    row("requiredSystemFeatures", List, Builder, "Features that the machine must have, such as `big-parallel`."),
    row("preferLocalBuild", Switch, Builder, "Accepted; every build is local."),
    row("allowSubstitutes", Switch, Builder, "When false, the outputs are built although a binary cache has them."),
    row("__noChroot", Switch, Builder, "Refused: there is no build without a sandbox."),
    row("__contentAddressed", Switch, Builder, "The outputs' paths follow from what is in them."),
    row("__impure", Switch, Builder, "Built anew every time; has the network only with `--network gateway` or `host`."),
    row(
        "fodder",
        Object,
        Fodder,
        "Settings of this program: `profile`, `network` with `mode`, `allow` and `deny`, and `limits`.",
    ),
];

/// Finds an attribute by name.
pub fn find(name: &str) -> Option<&'static Attribute> {
    ATTRIBUTES.iter().find(|attribute| attribute.name == name)
}

/// The attribute that a name was probably meant to be; `None` for names that look like nothing here.
pub fn meant(name: &str) -> Option<&'static str> {
    // Hooks differ from each other by little: `preFoo` of somebody's own phase is not a misspelt `preDist`.
    if find(name).is_some() {
        return None;
    }
    nearest(name, ATTRIBUTES.iter().map(|attribute| attribute.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_no_name_twice_and_describes_all() {
        let names: BTreeSet<_> = ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
        assert_eq!(names.len(), ATTRIBUTES.len());
        for attribute in ATTRIBUTES {
            assert!(attribute.description.ends_with('.'), "{}", attribute.name);
        }
    }

    #[test]
    fn misspellings_are_recognised_and_own_variables_are_left_alone() {
        for (wrong, right) in [
            ("buildphase", "buildPhase"),
            ("instalPhase", "installPhase"),
            ("outputhash", "outputHash"),
            ("nativeBuildInput", "nativeBuildInputs"),
            ("dontUnpak", "dontUnpack"),
            ("outPutHashMode", "outputHashMode"),
        ] {
            assert_eq!(meant(wrong), Some(right), "{wrong}");
        }
        for own in ["FOO", "RUSTFLAGS", "cargoLock", "url", "GIT_SHA", "preGenerate", "npmFlags"] {
            assert_eq!(meant(own), None, "{own}");
        }
    }
}
