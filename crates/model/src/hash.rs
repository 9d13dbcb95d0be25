//! Hashes: the five algorithms Nix knows, their spellings, and incremental hashing.

use crate::nix32;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;

/// A hash algorithm that an output or a store object can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// 16 bytes; broken, accepted because old derivations use it.
    Md5,
    /// 20 bytes; broken, accepted because git and old derivations use it.
    Sha1,
    /// 32 bytes; what the store itself uses.
    Sha256,
    /// 64 bytes.
    Sha512,
    /// 32 bytes; behind the `blake3-hashes` feature in Nix.
    Blake3,
}

impl HashAlgorithm {
    /// Every algorithm, in the order in which error messages list them.
    pub const ALL: [HashAlgorithm; 5] =
        [HashAlgorithm::Blake3, HashAlgorithm::Md5, HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha512];

    /// The name used in derivations, databases and SRI strings.
    pub const fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Md5 => "md5",
            HashAlgorithm::Sha1 => "sha1",
            HashAlgorithm::Sha256 => "sha256",
            HashAlgorithm::Sha512 => "sha512",
            HashAlgorithm::Blake3 => "blake3",
        }
    }

    /// Length of a digest in bytes.
    pub const fn length(self) -> usize {
        match self {
            HashAlgorithm::Md5 => 16,
            HashAlgorithm::Sha1 => 20,
            HashAlgorithm::Sha256 | HashAlgorithm::Blake3 => 32,
            HashAlgorithm::Sha512 => 64,
        }
    }

    /// Reads an algorithm's name.
    pub fn parse(name: &str) -> Result<Self, HashError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| HashError::UnknownAlgorithm { name: name.to_owned() })
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a text is not a hash. The words are Nix's, because people search for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The algorithm's name is none of the five.
    #[error("unknown hash algorithm '{name}', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'")]
    UnknownAlgorithm {
        /// What was given.
        name: String,
    },
    /// No base gives a digest of the right length.
    #[error("hash '{text}' has wrong length for hash algorithm '{algorithm}'")]
    WrongLength {
        /// What was given.
        text: String,
        /// The algorithm it was read for.
        algorithm: HashAlgorithm,
    },
    /// The text has the right length for a base but does not decode to a digest.
    #[error("invalid {base} hash '{text}', length {length} != expected length {expected}")]
    Invalid {
        /// `base16`, `nix32`, `Base64` or `SRI`.
        base: &'static str,
        /// What was given, without its prefix.
        text: String,
        /// Decoded length in bytes, 0 when a character is foreign.
        length: usize,
        /// Length of a digest in bytes.
        expected: usize,
    },
    /// The text names another algorithm than the context.
    #[error("hash '{text}' should have type '{expected}'")]
    OtherAlgorithm {
        /// What was given.
        text: String,
        /// What the context wants.
        expected: HashAlgorithm,
    },
    /// Neither the text nor the context names an algorithm.
    #[error("hash '{text}' does not include a type, nor is the type otherwise known from context")]
    NoAlgorithm {
        /// What was given.
        text: String,
    },
    /// SRI was required.
    #[error("hash '{text}' is not SRI")]
    NotSri {
        /// What was given.
        text: String,
    },
}

/// A digest together with its algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    algorithm: HashAlgorithm,
    /// Only the first `algorithm.length()` bytes count; the rest is zero.
    bytes: [u8; 64],
}

impl Hash {
    /// Wraps a finished digest; `None` when its length is not the algorithm's.
    pub fn from_digest(algorithm: HashAlgorithm, digest: &[u8]) -> Option<Self> {
        let mut bytes = [0; 64];
        (digest.len() == algorithm.length()).then(|| {
            bytes[..digest.len()].copy_from_slice(digest);
            Hash { algorithm, bytes }
        })
    }

    /// The hash that stands for "tell me": all bytes zero.
    pub fn zero(algorithm: HashAlgorithm) -> Self {
        Hash { algorithm, bytes: [0; 64] }
    }

    /// Whether this is the all-zero hash that an empty `outputHash` becomes.
    pub fn is_zero(&self) -> bool {
        self.digest().iter().all(|byte| *byte == 0)
    }

    /// Hashes `data` in one go.
    pub fn of(algorithm: HashAlgorithm, data: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The digest.
    pub fn digest(&self) -> &[u8] {
        &self.bytes[..self.algorithm.length()]
    }

    /// Lower-case hexadecimal, without the algorithm.
    pub fn to_base16(&self) -> String {
        data_encoding::HEXLOWER.encode(self.digest())
    }

    /// Nix's base-32, without the algorithm.
    pub fn to_nix32(&self) -> String {
        nix32::encode(self.digest())
    }

    /// Base-64 with padding, without the algorithm.
    pub fn to_base64(&self) -> String {
        data_encoding::BASE64.encode(self.digest())
    }

    /// `sha256-<base64>`, the spelling for people.
    pub fn to_sri(&self) -> String {
        format!("{}-{}", self.algorithm, self.to_base64())
    }

    /// Reads any spelling that Nix reads: `algo:<base16|nix32|base64>`, `algo-<base64>`, or a bare digest when
    /// `expected` names the algorithm. The base is chosen by length alone.
    pub fn parse_any(text: &str, expected: Option<HashAlgorithm>) -> Result<Self, HashError> {
        let (prefix, rest, is_sri) = match (text.split_once(':'), text.split_once('-')) {
            (Some((prefix, rest)), _) => (Some(prefix), rest, false),
            (None, Some((prefix, rest))) => (Some(prefix), rest, true),
            (None, None) => (None, text, false),
        };
        let algorithm = match (prefix.map(HashAlgorithm::parse).transpose()?, expected) {
            (Some(found), Some(expected)) if found != expected => {
                return Err(HashError::OtherAlgorithm { text: text.to_owned(), expected });
            }
            (Some(found), _) => found,
            (None, Some(expected)) => expected,
            (None, None) => return Err(HashError::NoAlgorithm { text: text.to_owned() }),
        };
        if is_sri {
            return Self::parse_base64("SRI", rest, algorithm);
        }
        let length = algorithm.length();
        if rest.len() == length * 2 {
            let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(rest.as_bytes()).unwrap_or_default();
            return Self::checked("base16", rest, algorithm, &digest);
        }
        if rest.len() == nix32::encoded_length(length) {
            let digest = nix32::decode(rest.as_bytes(), length).unwrap_or_default();
            return Self::checked("nix32", rest, algorithm, &digest);
        }
        if rest.len() == data_encoding::BASE64.encode_len(length) {
            return Self::parse_base64("Base64", rest, algorithm);
        }
        Err(HashError::WrongLength { text: rest.to_owned(), algorithm })
    }

    /// Reads `algo-<base64>` and nothing else.
    pub fn parse_sri(text: &str) -> Result<Self, HashError> {
        match text.split_once('-') {
            Some((name, rest)) if !name.contains(':') => Self::parse_base64("SRI", rest, HashAlgorithm::parse(name)?),
            Some(_) | None => Err(HashError::NotSri { text: text.to_owned() }),
        }
    }

    /// Nix's lenient base-64: stops at the first `=`, skips newlines, ignores left-over bits (reference, section 2).
    fn parse_base64(base: &'static str, text: &str, algorithm: HashAlgorithm) -> Result<Self, HashError> {
        let mut digest = Vec::new();
        let (mut buffer, mut bits) = (0u32, 0u32);
        for letter in text.bytes().take_while(|byte| *byte != b'=').filter(|byte| *byte != b'\n') {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Self::checked(base, text, algorithm, &[]),
            };
            buffer = (buffer << 6) | u32::from(value);
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                digest.push((buffer >> bits) as u8);
                buffer &= (1 << bits) - 1;
            }
        }
        Self::checked(base, text, algorithm, &digest)
    }

    fn checked(base: &'static str, text: &str, algorithm: HashAlgorithm, digest: &[u8]) -> Result<Self, HashError> {
        Self::from_digest(algorithm, digest).ok_or_else(|| HashError::Invalid {
            base,
            text: text.to_owned(),
            length: digest.len(),
            expected: algorithm.length(),
        })
    }
}

/// SRI, as in error messages and JSON.
impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_sri())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_sri())
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_sri())
    }
}

/// A hash in the making; an [`std::io::Write`], so that serialisers can feed it.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Starts a hash.
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Hasher(match algorithm {
            HashAlgorithm::Md5 => State::Md5(md5::Md5::new()),
            HashAlgorithm::Sha1 => State::Sha1(sha1::Sha1::new()),
            HashAlgorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            HashAlgorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
            HashAlgorithm::Blake3 => State::Blake3(Box::default()),
        })
    }

    /// Adds data.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Md5(state) => state.update(data),
            State::Sha1(state) => state.update(data),
            State::Sha256(state) => state.update(data),
            State::Sha512(state) => state.update(data),
            State::Blake3(state) => drop(state.update(data)),
        }
    }

    /// Ends the hash.
    pub fn finish(self) -> Hash {
        let mut bytes = [0; 64];
        let mut put = |digest: &[u8]| bytes[..digest.len()].copy_from_slice(digest);
        let algorithm = match self.0 {
            State::Md5(state) => {
                put(&state.finalize());
                HashAlgorithm::Md5
            }
            State::Sha1(state) => {
                put(&state.finalize());
                HashAlgorithm::Sha1
            }
            State::Sha256(state) => {
                put(&state.finalize());
                HashAlgorithm::Sha256
            }
            State::Sha512(state) => {
                put(&state.finalize());
                HashAlgorithm::Sha512
            }
            State::Blake3(state) => {
                put(state.finalize().as_bytes());
                HashAlgorithm::Blake3
            }
        };
        Hash { algorithm, bytes }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.update(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
