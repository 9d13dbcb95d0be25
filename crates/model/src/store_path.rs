//! Store paths: `/nix/store/<hash part>-<name>`, how they are read and how they are computed.
//! The rules are those of the Nix manual, "Complete Store Path Calculation".

use crate::{
    hash::{Hash, HashAlgorithm},
    nix32,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// The logical store directory. Store paths depend on it, so a store elsewhere on disk still uses this name; derivations
/// that name another one cannot be built here and are refused when they are read.
pub const STORE_DIRECTORY: &str = "/nix/store";

/// Number of letters of a hash part.
pub const HASH_PART_LENGTH: usize = 32;

/// Longest name that a store path may have, in bytes.
pub const NAME_LENGTH_LIMIT: usize = 211;

/// Why a text is not a store path or not a name for one. The words are Nix's where Nix has words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// A full path was expected and this one lies elsewhere.
    #[error("path '{path}' is not in the Nix store '{STORE_DIRECTORY}'")]
    NotInStore {
        /// What was given.
        path: String,
    },
    /// The base name is shorter than a hash part, a dash and one letter.
    #[error("store path '{base}' is too short: expected 32 base-32 letters, '-' and a name")]
    TooShort {
        /// What was given.
        base: String,
    },
    /// A letter of the hash part is not in the alphabet.
    #[error("store path '{base}' contains illegal base-32 character '{character}'")]
    IllegalHashCharacter {
        /// What was given.
        base: String,
        /// The first such character.
        character: char,
    },
    /// The hash part is not followed by a dash.
    #[error("store path '{base}' lacks the '-' after its hash part")]
    NoDash {
        /// What was given.
        base: String,
    },
    /// A name with nothing in it.
    #[error("name must not be empty")]
    EmptyName,
    /// A name over the limit.
    #[error("name '{name}' must be no longer than {NAME_LENGTH_LIMIT} characters")]
    LongName {
        /// What was given.
        name: String,
    },
    /// A name with a character outside `[0-9a-zA-Z+._?=-]`.
    #[error("name '{name}' contains illegal character '{character}'")]
    IllegalNameCharacter {
        /// What was given.
        name: String,
        /// The first such character.
        character: char,
    },
    /// `.`, `..`, or a name that begins with `.-` or `..-`.
    #[error("name '{name}' is not valid")]
    DotName {
        /// What was given.
        name: String,
    },
}

/// Checks a name by the rules that store paths, derivations and outputs share.
pub fn check_name(name: &str) -> Result<(), StorePathError> {
    if name.is_empty() {
        return Err(StorePathError::EmptyName);
    }
    if name.len() > NAME_LENGTH_LIMIT {
        return Err(StorePathError::LongName { name: name.to_owned() });
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || "+-._?=".contains(character);
    if let Some(character) = name.chars().find(|character| !allowed(*character)) {
        return Err(StorePathError::IllegalNameCharacter { name: name.to_owned(), character });
    }
    let first_word = name.split('-').next().unwrap_or_default();
    if first_word == "." || first_word == ".." {
        return Err(StorePathError::DotName { name: name.to_owned() });
    }
    Ok(())
}

/// A valid store path, held as its base name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(String);

impl StorePath {
    /// Reads a base name, `<hash part>-<name>`.
    pub fn from_base_name(base: &str) -> Result<Self, StorePathError> {
        let hash_part: Vec<char> = base.chars().take(HASH_PART_LENGTH).collect();
        if let Some(character) =
            hash_part.iter().find(|character| !character.is_ascii() || !nix32::is_digit(**character as u8))
        {
            return Err(StorePathError::IllegalHashCharacter { base: base.to_owned(), character: *character });
        }
        if base.len() < HASH_PART_LENGTH + 2 {
            return Err(StorePathError::TooShort { base: base.to_owned() });
        }
        match base[HASH_PART_LENGTH..].strip_prefix('-') {
            Some(name) => check_name(name)?,
            None => return Err(StorePathError::NoDash { base: base.to_owned() }),
        }
        Ok(StorePath(base.to_owned()))
    }

    /// Reads a full path, `/nix/store/<base name>`.
    pub fn from_full_path(path: &str) -> Result<Self, StorePathError> {
        match path.strip_prefix(STORE_DIRECTORY).and_then(|rest| rest.strip_prefix('/')) {
            Some(base) => Self::from_base_name(base),
            None => Err(StorePathError::NotInStore { path: path.to_owned() }),
        }
    }

    /// Computes a store path: `type_tag` as in the manual (`source`, `text`, `output:out`, with its references), `inner`
    /// the hash of what is stored.
    pub fn compute(type_tag: &str, inner: &Hash, name: &str) -> Result<Self, StorePathError> {
        check_name(name)?;
        let fingerprint = format!("{type_tag}:{}:{}:{STORE_DIRECTORY}:{name}", inner.algorithm(), inner.to_base16());
        let digest = Hash::of(HashAlgorithm::Sha256, fingerprint.as_bytes());
        let hash_part = nix32::encode(&compress_20(digest.digest()));
        Ok(StorePath(format!("{hash_part}-{name}")))
    }

    /// Path of a text object (a `.drv`, `builtins.toFile`) with these contents and references.
    pub fn of_text(name: &str, contents: &[u8], references: &BTreeSet<StorePath>) -> Result<Self, StorePathError> {
        Self::of_text_hash(name, &Hash::of(HashAlgorithm::Sha256, contents), references)
    }

    /// Path of a text object whose contents have this SHA-256.
    pub fn of_text_hash(name: &str, hash: &Hash, references: &BTreeSet<StorePath>) -> Result<Self, StorePathError> {
        Self::compute(&tag_with_references("text", references, false), hash, name)
    }

    /// Path of a source (an object addressed by the SHA-256 of its NAR).
    pub fn of_source(
        name: &str,
        nar_hash: &Hash,
        references: &BTreeSet<StorePath>,
        self_reference: bool,
    ) -> Result<Self, StorePathError> {
        Self::compute(&tag_with_references("source", references, self_reference), nar_hash, name)
    }

    /// The 32 letters that reference scans look for.
    pub fn hash_part(&self) -> &str {
        &self.0[..HASH_PART_LENGTH]
    }

    /// What follows the dash.
    pub fn name(&self) -> &str {
        &self.0[HASH_PART_LENGTH + 1..]
    }

    /// `<hash part>-<name>`.
    pub fn base_name(&self) -> &str {
        &self.0
    }

    /// Whether the path names a derivation file.
    pub fn is_derivation(&self) -> bool {
        self.0.ends_with(".drv")
    }
}

fn tag_with_references(kind: &str, references: &BTreeSet<StorePath>, self_reference: bool) -> String {
    let mut tag = kind.to_owned();
    for reference in references {
        tag.push(':');
        tag.push_str(&reference.to_string());
    }
    if self_reference {
        tag.push_str(":self");
    }
    tag
}

/// Folds a digest to 20 bytes by exclusive or.
pub(crate) fn compress_20(digest: &[u8]) -> [u8; 20] {
    let mut folded = [0; 20];
    for (index, byte) in digest.iter().enumerate() {
        folded[index % 20] ^= byte;
    }
    folded
}

/// The full path, `/nix/store/<base name>`.
impl fmt::Display for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{STORE_DIRECTORY}/{}", self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;
    fn from_str(path: &str) -> Result<Self, StorePathError> {
        Self::from_full_path(path)
    }
}

/// Serialises as the full path.
impl Serialize for StorePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StorePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        StorePath::from_full_path(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_paths_agree_with_nix() {
        let none = BTreeSet::new();
        let path =
            |name, contents: &str| StorePath::of_text(name, contents.as_bytes(), &none).unwrap().base_name().to_owned();
        assert_eq!(path("src.txt", "hello"), "7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt");
        assert_eq!(path("dep.txt", "x"), "k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt");
    }

    #[test]
    fn names_follow_nix() {
        for good in ["a", "hello-2.12", "a?b=c+d_e.f", ".hidden", "...", "..a", &"x".repeat(211)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let message = |name: &str| check_name(name).unwrap_err().to_string();
        assert_eq!(message("foo/bar"), "name 'foo/bar' contains illegal character '/'");
        assert_eq!(message("."), "name '.' is not valid");
        assert_eq!(message("..-x"), "name '..-x' is not valid");
        assert!(message(&"x".repeat(212)).ends_with("must be no longer than 211 characters"));
        assert!(check_name("").is_err());
    }

    #[test]
    fn a_full_path_is_not_a_base_name() {
        let full = "/nix/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt";
        assert_eq!(
            StorePath::from_base_name(full).unwrap_err().to_string(),
            format!("store path '{full}' contains illegal base-32 character '/'")
        );
        assert_eq!(StorePath::from_full_path(full).unwrap().to_string(), full);
        assert!(StorePath::from_full_path("/gnu/store/7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src.txt").is_err());
        for short in ["", "7fkyl", "7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4"] {
            let error = StorePath::from_base_name(short).unwrap_err();
            assert!(matches!(error, StorePathError::TooShort { .. }), "{error}");
        }
        assert!(StorePath::from_base_name("7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4-").is_err());
        assert!(StorePath::from_base_name("7fkyl4dcd4wp3va6qyfxz7c7gac4dwp4_src").is_err());
        assert!(StorePath::from_base_name("ÿfkyl4dcd4wp3va6qyfxz7c7gac4dwp4-src").is_err());
    }
}
