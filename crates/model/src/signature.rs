//! Signatures of store paths: Ed25519 over a text that names the path, its NAR and its references. Keys and signatures are
//! texts of the form `<key name>:<base64>`.

use crate::{hash::Hash, store_path::StorePath};
use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use std::{collections::BTreeSet, fmt};

/// The key of the NixOS project's cache, which Nix trusts unless told otherwise.
pub const DEFAULT_PUBLIC_KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// Why a text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `<name>:<base64>`. Never quotes what was given: it may be a secret.
    #[error("{what} key is corrupt: it is not '<name>:<base64>'")]
    Form {
        /// `public` or `secret`.
        what: &'static str,
    },
    /// The bytes are no key.
    #[error("{what} key '{name}' is not valid")]
    Invalid {
        /// `public` or `secret`.
        what: &'static str,
        /// The name before the colon.
        name: String,
    },
    /// A name that would end too early, or that no one can type.
    #[error("'{name}' cannot be the name of a key: it must not be empty, and have no ':' and no white space")]
    Name {
        /// What was given.
        name: String,
    },
}

/// The text that is signed: `1;<path>;<NAR hash>;<NAR size>;<references>`, all of it in full.
pub fn fingerprint(path: &StorePath, nar_hash: &Hash, nar_size: u64, references: &BTreeSet<StorePath>) -> String {
    let references: Vec<String> = references.iter().map(StorePath::to_string).collect();
    let (algorithm, digest) = (nar_hash.algorithm(), nar_hash.to_nix32());
    format!("1;{path};{algorithm}:{digest};{nar_size};{}", references.join(","))
}

/// A key to check signatures with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads `<name>:<base64 of 32 bytes>`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = split("public", text)?;
        let invalid = || KeyError::Invalid { what: "public", name: name.to_owned() };
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| invalid())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| invalid())?;
        // Signatures of these can be made for any text by anybody.
        if key.is_weak() { Err(invalid()) } else { Ok(PublicKey { name: name.to_owned(), key }) }
    }

    /// What its signatures begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signature`, `<name>:<base64 of 64 bytes>`, is this key's signature of a text.
    pub fn verifies(&self, text: &str, signature: &str) -> bool {
        let Ok((name, bytes)) = split("signature", signature) else { return false };
        let Ok(signature) = ed25519_dalek::Signature::from_slice(&bytes) else { return false };
        name == self.name && self.key.verify_strict(text.as_bytes(), &signature).is_ok()
    }
}

/// The text that [`PublicKey::parse`] reads.
impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

/// A key to sign with. Shows its name only.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// Reads `<name>:<base64 of 64 bytes>`, the seed and the public key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = split("secret", text)?;
        let invalid = || KeyError::Invalid { what: "secret", name: name.to_owned() };
        let bytes: [u8; 64] = bytes.try_into().map_err(|_| invalid())?;
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| invalid())?;
        Ok(SecretKey { name: name.to_owned(), key })
    }

    /// A key from 32 bytes that nobody can guess.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        if name.is_empty() || name.contains(|character: char| character == ':' || character.is_whitespace()) {
            return Err(KeyError::Name { name: name.to_owned() });
        }
        Ok(SecretKey { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// The text that [`SecretKey::parse`] reads: a secret.
    pub fn to_text(&self) -> String {
        format!("{}:{}", self.name, BASE64.encode(&self.key.to_keypair_bytes()))
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a text.
    pub fn sign(&self, text: &str) -> String {
        format!("{}:{}", self.name, BASE64.encode(&self.key.sign(text.as_bytes()).to_bytes()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretKey({})", self.name)
    }
}

fn split<'a>(what: &'static str, text: &'a str) -> Result<(&'a str, Vec<u8>), KeyError> {
    let text = text.trim();
    let (name, encoded) = text.split_once(':').ok_or(KeyError::Form { what })?;
    let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| KeyError::Form { what })?;
    if name.is_empty() || bytes.is_empty() { Err(KeyError::Form { what }) } else { Ok((name, bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "test-1:k+yGiTOGZfBbzu91mrysM5895ibA9ygOevV8SjG+x0Y=";
    const TEXT: &str = "1;/nix/store/kg6md52mmhk7p6ncw3brkqyvsjz0yqs2-dep2;sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q;168;/nix/store/k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt";
    const SIGNATURE: &str =
        "test-1:plyWpi4bP0C/nQRM42FJPw4Gr+C60DW8PwpnS7mqNRpeThFxizRc0i5WIk4AYiRUEMygm/LVYiLDIPk0Aq9tCg==";

    /// The vector of the reference, section 10.
    #[test]
    fn a_signature_of_nix_is_good() {
        let path = |base| StorePath::from_base_name(base).unwrap();
        let hash = Hash::parse_any("sha256:0xx0qxaris04a806ibxf9jw92ddj2c1lnnvx7frjidz3rab6gp1q", None).unwrap();
        let references = BTreeSet::from([path("k6acb82mmxnvhglc719q86vxnamq9rcl-dep.txt")]);
        assert_eq!(fingerprint(&path("kg6md52mmhk7p6ncw3brkqyvsjz0yqs2-dep2"), &hash, 168, &references), TEXT);
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(key.to_string(), KEY);
        assert!(key.verifies(TEXT, SIGNATURE));
        assert!(PublicKey::parse(DEFAULT_PUBLIC_KEY).is_ok());
    }

    #[test]
    fn any_other_text_name_key_or_signature_is_bad() {
        let key = PublicKey::parse(KEY).unwrap();
        assert!(!key.verifies(&TEXT.replace("168", "169"), SIGNATURE));
        assert!(!key.verifies(TEXT, &SIGNATURE.replace("test-1", "test-2")));
        assert!(!key.verifies(TEXT, &SIGNATURE.replace("plyW", "plyX")));
        let renamed = PublicKey::parse(&DEFAULT_PUBLIC_KEY.replace("cache.nixos.org-1", "test-1")).unwrap();
        assert!(!renamed.verifies(TEXT, SIGNATURE));
        for broken in ["", "test-1", "test-1:", ":plyW", "test-1:plyW", "test-1:!"] {
            assert!(!key.verifies(TEXT, broken), "{broken}");
        }
    }

    #[test]
    fn keys_are_read_strictly_and_secrets_never_shown() {
        let secret = SecretKey::from_seed("k", &[7; 32]).unwrap();
        let text = secret.to_text();
        assert!(secret.public().verifies("text", &SecretKey::parse(&text).unwrap().sign("text")));
        assert_eq!(format!("{secret:?}"), "SecretKey(k)");
        for name in ["", "a:b", "a b"] {
            assert!(SecretKey::from_seed(name, &[7; 32]).is_err());
        }
        // A seed with another key's public half would sign with neither.
        let other = SecretKey::from_seed("k", &[8; 32]).unwrap().public().to_string();
        let mixed = [&[7; 32][..], &BASE64.decode(&other.as_bytes()[2..]).unwrap()].concat();
        for broken in [
            "k",
            &text[..text.len() / 2],
            &format!("k:{}", BASE64.encode(&mixed)),
            &format!("k:{}", BASE64.encode(&[7; 32])),
        ] {
            let message = SecretKey::parse(broken).unwrap_err().to_string();
            assert!(message.contains("secret key") && !message.contains("BwcH"), "{message}");
        }
        assert_eq!(PublicKey::parse("k:AAAA").unwrap_err().to_string(), "public key 'k' is not valid");
        // The neutral element: everything verifies under it.
        let weak = format!("k:{}", BASE64.encode(&[&[1u8][..], &[0; 31]].concat()));
        assert!(PublicKey::parse(&weak).is_err());
    }
}
