//! Content addresses: how a fixed output is hashed, and the store path that its hash implies.

use crate::{
    hash::{Hash, HashAlgorithm, HashError},
    store_path::{StorePath, StorePathError},
};
use serde::Serialize;
use std::{collections::BTreeSet, fmt};

/// How a store object's contents become a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentMethod {
    /// The bytes of a single regular file.
    Flat,
    /// The NAR serialisation; called `recursive` in Nix expressions.
    Nar,
    /// The bytes of a single regular file whose references are part of its path; SHA-256 only.
    Text,
    /// The git object id of a blob or tree; SHA-1 or SHA-256.
    Git,
}

impl ContentMethod {
    /// The name in derivation JSON.
    pub fn name(self) -> &'static str {
        match self {
            ContentMethod::Flat => "flat",
            ContentMethod::Nar => "nar",
            ContentMethod::Text => "text",
            ContentMethod::Git => "git",
        }
    }

    /// The prefix before the algorithm in ATerm and old JSON.
    pub fn prefix(self) -> &'static str {
        match self {
            ContentMethod::Flat => "",
            ContentMethod::Nar => "r:",
            ContentMethod::Text => "text:",
            ContentMethod::Git => "git:",
        }
    }

    /// Splits `r:sha256` into its method and the algorithm's name.
    pub fn split_prefix(text: &str) -> (Self, &str) {
        [ContentMethod::Nar, ContentMethod::Text, ContentMethod::Git]
            .into_iter()
            .find_map(|method| text.strip_prefix(method.prefix()).map(|rest| (method, rest)))
            .unwrap_or((ContentMethod::Flat, text))
    }

    /// Reads the name in derivation JSON.
    pub fn parse(name: &str) -> Option<Self> {
        [ContentMethod::Flat, ContentMethod::Nar, ContentMethod::Text, ContentMethod::Git]
            .into_iter()
            .find(|method| method.name() == name)
    }

    /// Whether the method takes a single regular file and nothing else.
    pub fn is_single_file(self) -> bool {
        match self {
            ContentMethod::Flat | ContentMethod::Text => true,
            ContentMethod::Nar | ContentMethod::Git => false,
        }
    }

    /// Whether the method can be used with this algorithm.
    pub fn allows(self, algorithm: HashAlgorithm) -> bool {
        match self {
            ContentMethod::Flat | ContentMethod::Nar => true,
            ContentMethod::Text => algorithm == HashAlgorithm::Sha256,
            ContentMethod::Git => matches!(algorithm, HashAlgorithm::Sha1 | HashAlgorithm::Sha256),
        }
    }
}

/// Why a text is not a content address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentAddressError {
    /// Neither `text:sha256:…` nor `fixed:…`, or a method with an algorithm that it does not take.
    #[error("'{text}' is not a content address")]
    Form {
        /// What was given.
        text: String,
    },
    /// The hash in it is none.
    #[error("'{text}' is not a content address")]
    Hash {
        /// What was given.
        text: String,
        /// What is wrong with the hash.
        source: HashError,
    },
}

/// A method and the hash it gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ContentAddress {
    /// How.
    pub method: ContentMethod,
    /// What.
    pub hash: Hash,
}

impl ContentAddress {
    /// Reads the spelling of databases and binary caches. The hash may be in any base.
    pub fn parse(text: &str) -> Result<Self, ContentAddressError> {
        let unknown = || ContentAddressError::Form { text: text.to_owned() };
        let (method, rest) = match text.split_once(':') {
            Some(("text", rest)) => (ContentMethod::Text, rest),
            Some(("fixed", rest)) => match ContentMethod::split_prefix(rest) {
                (ContentMethod::Text, _) => return Err(unknown()),
                (method, rest) => (method, rest),
            },
            Some(_) | None => return Err(unknown()),
        };
        // Without the name of an algorithm, as in an SRI hash, Nix reads none here either.
        if !rest.contains(':') {
            return Err(unknown());
        }
        let hash = Hash::parse_any(rest, None)
            .map_err(|source| ContentAddressError::Hash { text: text.to_owned(), source })?;
        match method.allows(hash.algorithm()) {
            true => Ok(ContentAddress { method, hash }),
            false => Err(unknown()),
        }
    }

    /// Whether `path` is the path of an object with this address and these references.
    pub fn is_path_of(&self, path: &StorePath, references: &BTreeSet<StorePath>, self_reference: bool) -> bool {
        let has_references = self_reference || !references.is_empty();
        let is_possible = match self.method {
            ContentMethod::Text => !self_reference,
            ContentMethod::Flat | ContentMethod::Nar | ContentMethod::Git => {
                !has_references || self.allows_references()
            }
        };
        is_possible && self.store_path_with_references(path.name(), references, self_reference).as_ref() == Ok(path)
    }

    /// Whether objects with this address may refer to other store paths and still have a path: NARs by SHA-256, and text.
    pub fn allows_references(&self) -> bool {
        self.method == ContentMethod::Text
            || (self.method == ContentMethod::Nar && self.hash.algorithm() == HashAlgorithm::Sha256)
    }

    /// The store path of an object with this address and no references.
    pub fn store_path(&self, name: &str) -> Result<StorePath, StorePathError> {
        self.store_path_with_references(name, &BTreeSet::new(), false)
    }

    /// The store path of an object with this address. References are left out where the address has no place for them.
    pub fn store_path_with_references(
        &self,
        name: &str,
        references: &BTreeSet<StorePath>,
        self_reference: bool,
    ) -> Result<StorePath, StorePathError> {
        match (self.method, self.hash.algorithm()) {
            (ContentMethod::Text, _) => StorePath::of_text_hash(name, &self.hash, references),
            (ContentMethod::Nar, HashAlgorithm::Sha256) => {
                StorePath::of_source(name, &self.hash, references, self_reference)
            }
            (ContentMethod::Flat | ContentMethod::Nar | ContentMethod::Git, _) => {
                StorePath::compute("output:out", &Hash::of(HashAlgorithm::Sha256, self.inner_text("").as_bytes()), name)
            }
        }
    }

    /// `fixed:out:<prefix><algorithm>:<base16>:<suffix>`, the text whose hash stands for a fixed output.
    pub(crate) fn inner_text(&self, suffix: &str) -> String {
        format!("fixed:out:{}{}:{}:{suffix}", self.method.prefix(), self.hash.algorithm(), self.hash.to_base16())
    }
}

/// The spelling of databases and binary caches: `fixed:r:sha256:<nix32>`, `text:sha256:<nix32>`.
impl fmt::Display for ContentAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = if self.method == ContentMethod::Text { "" } else { "fixed:" };
        let prefix = self.method.prefix();
        write!(formatter, "{fixed}{prefix}{}:{}", self.hash.algorithm(), self.hash.to_nix32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors 5 to 9 of the reference, section 3: all taken from a real Nix.
    #[test]
    fn fixed_paths_agree_with_nix() {
        let zero = Hash::zero;
        let sri = |text| Hash::parse_sri(text).unwrap();
        for (method, hash, name, expected) in [
            (
                ContentMethod::Flat,
                Hash::of(HashAlgorithm::Sha256, b"hi\n"),
                "fodflat",
                "0i45s0c9fpy4axymfm3m81njwvd2vrfv",
            ),
            (
                ContentMethod::Nar,
                sri("sha256-pc6cFrU4hvIwjv0wrGSyvgHtEQJwvPQKVwSkI/9Jd44="),
                "fodrec",
                "r4kgz9kyp21k117zh91s4n04m96jpb7r",
            ),
            (ContentMethod::Nar, zero(HashAlgorithm::Sha1), "fodnar1", "bma2c2i1k1j1694lqb5v4rqimm7rf23x"),
            (ContentMethod::Git, zero(HashAlgorithm::Sha1), "git", "r46nyg2x4rqcx5xks43a720cc7lh5xmb"),
            (ContentMethod::Nar, zero(HashAlgorithm::Sha256), "fodempty", "gkmbf5gnllld7nnfjd9v3v1059x6w6mg"),
        ] {
            let path = ContentAddress { method, hash }.store_path(name).unwrap();
            assert_eq!(path.base_name(), format!("{expected}-{name}"));
        }
    }

    /// An address that anybody could have computed for other references vouches for nothing.
    ///
    /// Attack: PARSE-14 (a content address for what it does not say). Layer: paths follow from address and references.
    #[test]
    fn a_path_follows_from_its_address_and_references_or_not_at_all() {
        let hash = Hash::of(HashAlgorithm::Sha256, b"x");
        let of = |method| ContentAddress { method, hash };
        let (none, other) = (BTreeSet::new(), BTreeSet::from([of(ContentMethod::Nar).store_path("other").unwrap()]));
        for method in [ContentMethod::Flat, ContentMethod::Nar, ContentMethod::Text, ContentMethod::Git] {
            let (address, path) = (of(method), of(method).store_path("x").unwrap());
            assert!(address.is_path_of(&path, &none, false), "{address}");
            assert!(!address.is_path_of(&path, &other, false), "{address}");
            assert!(!address.is_path_of(&path, &none, true), "{address}");
            let elsewhere = of(method).store_path("y").unwrap();
            assert!(
                !ContentAddress { method, hash: Hash::of(HashAlgorithm::Sha256, b"y") }.is_path_of(&path, &none, false)
            );
            assert!(address.is_path_of(&elsewhere, &none, false), "whatever its name");
        }
    }

    #[test]
    fn the_database_spelling_names_method_and_algorithm() {
        let hash = Hash::of(HashAlgorithm::Sha256, b"hello\n");
        let text = |method| ContentAddress { method, hash }.to_string();
        assert_eq!(text(ContentMethod::Flat), "fixed:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq");
        assert_eq!(text(ContentMethod::Text), "text:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq");
        assert!(text(ContentMethod::Nar).starts_with("fixed:r:sha256:"));
        for method in [ContentMethod::Flat, ContentMethod::Nar, ContentMethod::Text, ContentMethod::Git] {
            assert_eq!(ContentAddress::parse(&text(method)), Ok(ContentAddress { method, hash }));
        }
        let digest = hash.to_nix32();
        for wrong in
            ["", "text", "fixed:", "nar:sha256:x", &format!("fixed:{digest}"), &format!("fixed:text:sha256:{digest}")]
        {
            assert!(ContentAddress::parse(wrong).is_err(), "{wrong}");
        }
        let md5 = Hash::of(HashAlgorithm::Md5, b"").to_nix32();
        assert!(ContentAddress::parse(&format!("text:md5:{md5}")).is_err());
        assert_eq!(ContentMethod::split_prefix("r:sha256"), (ContentMethod::Nar, "sha256"));
        assert_eq!(ContentMethod::split_prefix("sha1"), (ContentMethod::Flat, "sha1"));
    }
}
