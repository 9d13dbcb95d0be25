//! Resolving: a derivation whose inputs have all been built becomes one that names them as they turned out to be, and then has
//! output paths, or a scratch path, of its own. Pure; what was built is told.

use super::{Derivation, DerivationError, Kind, Output, StructuredAttributes, output_path_name, paths};
use crate::{
    bytes::{ByteString, Replacements},
    hash::{Hash, HashAlgorithm},
    nix32,
    store_path::{StorePath, StorePathError},
};
use std::collections::BTreeMap;

/// What the outputs of input derivations turned out to be: by derivation, then by output name.
pub type BuiltOutputs = BTreeMap<StorePath, BTreeMap<String, StorePath>>;

/// Why a derivation cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// An input that is not built.
    #[error("output '{output}' of its input derivation '{derivation}' is not built")]
    NotBuilt {
        /// The input derivation.
        derivation: StorePath,
        /// Its output.
        output: String,
    },
    /// With the paths put in, the parts do not fit together.
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// Structured attributes that are no JSON any more.
    #[error("{0}")]
    Structured(String),
    /// An output path cannot be formed.
    #[error(transparent)]
    Paths(#[from] paths::PathsError),
}

/// The text that stands for the output of an input derivation that has no path yet.
pub fn downstream_placeholder(derivation: &StorePath, output: &str) -> String {
    let name = derivation.name().strip_suffix(".drv").unwrap_or(derivation.name());
    let text = format!("nix-upstream-output:{}:{}", derivation.hash_part(), output_path_name(name, output));
    format!("/{}", nix32::encode(Hash::of(HashAlgorithm::Sha256, text.as_bytes()).digest()))
}

/// Whether a derivation cannot be built as it is, because it, or what it needs, has no path before it is built. As in Nix, a
/// fixed output is resolved only where it must be.
pub fn needs_resolving(derivation: &Derivation, set: &paths::DerivationSet) -> bool {
    match derivation.kind() {
        Kind::Deferred => true,
        Kind::Floating | Kind::Impure => !derivation.input_derivations.is_empty(),
        Kind::InputAddressed => false,
        Kind::Fixed => derivation.input_derivations.iter().any(|(path, used)| {
            set.get(path).is_some_and(|input| {
                let known = input.known_output_paths();
                used.iter().any(|output| matches!(known.get(output.as_str()), Some(None)))
            })
        }),
    }
}

/// Puts what was built into a derivation: its inputs become sources, placeholders become paths, and deferred outputs get theirs.
pub fn resolve(derivation: &Derivation, built: &BuiltOutputs) -> Result<Derivation, ResolveError> {
    let mut parts = derivation.clone().into_parts();
    let mut replacements = Replacements::default();
    for (path, used) in std::mem::take(&mut parts.input_derivations) {
        for output in used {
            let Some(output_path) = built.get(&path).and_then(|outputs| outputs.get(&output)) else {
                return Err(ResolveError::NotBuilt { derivation: path, output });
            };
            replacements.add(downstream_placeholder(&path, &output), output_path.to_string());
            parts.input_sources.insert(output_path.clone());
        }
    }
    let replace = |text: &ByteString| replacements.apply(text);
    parts.builder = replace(&parts.builder);
    parts.arguments = parts.arguments.iter().map(replace).collect();
    parts.environment = parts.environment.iter().map(|(name, value)| (replace(name), replace(value))).collect();
    if let Some(attributes) = &parts.structured_attributes {
        let text = replacements.apply(attributes.text().as_bytes());
        parts.structured_attributes = Some(StructuredAttributes::parse(&text).map_err(ResolveError::Structured)?);
    }
    let draft = Derivation::new(parts.clone())?;
    if draft.kind() != Kind::Deferred {
        return Ok(draft);
    }
    // No inputs are left, so nothing has to be looked up.
    let none = paths::DerivationSet::new();
    for (name, path) in paths::Modulo::new(&none).output_paths(&draft)?.unwrap_or_default() {
        parts.environment.insert(name.as_str().into(), path.to_string().into());
        parts.outputs.insert(name, Output::InputAddressed { path });
    }
    Ok(Derivation::new(parts)?)
}

/// Where the builder writes an output whose path follows from what is written: derived from the derivation, so that a build can be
/// repeated to the byte.
pub fn scratch_path(derivation: &StorePath, name: &str, output: &str) -> Result<StorePath, StorePathError> {
    let tag = format!("rewrite:{}:name:{output}", derivation.base_name());
    StorePath::compute(&tag, &Hash::zero(HashAlgorithm::Sha256), &output_path_name(name, output))
}

/// The same for an impure output, which must not have been there before: `unique` is another text for every build.
pub fn impure_scratch_path(unique: &str, name: &str, output: &str) -> Result<StorePath, StorePathError> {
    let tag = format!("rewrite:{unique}:name:{output}");
    StorePath::compute(&tag, &Hash::zero(HashAlgorithm::Sha256), &output_path_name(name, output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derivation::aterm;

    fn path(base: &str) -> StorePath {
        StorePath::from_base_name(base).unwrap()
    }

    /// Vectors 11 and 13 of the reference, section 3.
    #[test]
    fn placeholders_and_scratch_paths_agree_with_nix() {
        let derivation = path("qrzxvj7gpcc55s6cixahari3cycw0qx5-ca.drv");
        let placeholder = downstream_placeholder(&derivation, "out");
        assert_eq!(placeholder, "/0p8sb26lv1cghnxxdd612z42wz6acmyhqwpwmv574vfrjq6p72zq");
        let derivation = path("la1539a0nvpsvr7pswd9rf064wd78ch7-ca1.drv");
        let scratch = scratch_path(&derivation, "ca1", "out").unwrap();
        assert_eq!(scratch.base_name(), "5p2f3vyj9vk3qa9nhwp1yym7928x9zb9-ca1");
    }

    /// A real Nix 2.34 resolved `self.drv` to this path, and `ia.drv` then got its outputs.
    #[test]
    fn a_resolved_derivation_is_the_one_that_nix_builds() {
        let text = br#"Derive([("out","","r:sha256","")],[("/nix/store/srks74lnaz4mlngn9kwmbas0n7yhj9h5-dep.drv",["out"])],[],"x86_64-linux","/bin/sh",["-c","echo self $out and $out > $out; env | sort"],[("builder","/bin/sh"),("dep","/0h47wmxp2dbnv987kplmg91m7qqxw05cg8sw7b9llmizcpjs0p5j"),("name","self"),("out","/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"),("system","x86_64-linux")])"#;
        let derivation = aterm::parse("self", text).unwrap();
        assert_eq!(
            paths::derivation_path(&derivation).unwrap().base_name(),
            "plj15ip69xp76pb3vv2x2ilpnpkap7ix-self.drv"
        );
        let dep = path("srks74lnaz4mlngn9kwmbas0n7yhj9h5-dep.drv");
        let error = resolve(&derivation, &BuiltOutputs::new()).unwrap_err();
        assert_eq!(error, ResolveError::NotBuilt { derivation: dep.clone(), output: "out".to_owned() });
        let built = [(dep, [("out".to_owned(), path("k0bq3s4hdvxal217l04jr24n8jm5l29g-dep"))].into())].into();
        let resolved = resolve(&derivation, &built).unwrap();
        assert_eq!(paths::derivation_path(&resolved).unwrap().base_name(), "48ibfhdjvc30s4acsmzb4h4skvk3d8r5-self.drv");
    }
}
