//! `.narinfo` files: what a binary cache says about a store path. Read as strictly as Nix reads them, written to the byte as Nix
//! writes them.

use crate::{
    content_address::ContentAddress,
    hash::{Hash, HashAlgorithm},
    signature::{PublicKey, fingerprint},
    store_path::StorePath,
};
use std::{collections::BTreeSet, fmt};

/// Why a text is not a narinfo. The words are Nix's; the line is missing where the whole is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NAR info file '{file}' is corrupt: {reason}{}", line.map(|line| format!(" at line {line}")).unwrap_or_default())]
pub struct NarInfoError {
    /// The file.
    pub file: String,
    /// What is wrong.
    pub reason: String,
    /// Where, counted from 1.
    pub line: Option<usize>,
}

/// What a cache says about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarInfo {
    /// The path.
    pub path: StorePath,
    /// Where its archive is, relative to the cache or absolute.
    pub url: String,
    /// How the archive is compressed, as the cache spells it.
    pub compression: String,
    /// Hash of the compressed archive.
    pub file_hash: Option<Hash>,
    /// Size of the compressed archive in bytes; 0 means unknown.
    pub file_size: u64,
    /// SHA-256 of the archive.
    pub nar_hash: Hash,
    /// Size of the archive in bytes, not 0.
    pub nar_size: u64,
    /// The paths that occur in the object, possibly itself.
    pub references: BTreeSet<StorePath>,
    /// The derivation that it was built from.
    pub deriver: Option<StorePath>,
    /// Signatures, each `<key name>:<base64>`.
    pub signatures: BTreeSet<String>,
    /// The content address.
    pub content_address: Option<ContentAddress>,
}

impl NarInfo {
    /// Reads a narinfo; `file` is its name for messages.
    pub fn parse(text: &str, file: &str) -> Result<Self, NarInfoError> {
        let mut fields = Fields::default();
        let mut rest = text;
        let mut line = 1;
        while !rest.is_empty() {
            let corrupt = |reason: String| NarInfoError { file: file.to_owned(), reason, line: Some(line) };
            let (current, following) = rest.split_once('\n').ok_or_else(|| corrupt("expecting '\\n'".to_owned()))?;
            let (name, value) = current.split_once(':').ok_or_else(|| corrupt("expecting ':'".to_owned()))?;
            // One character after the colon is skipped, whatever it is; it must be there.
            let value = match value.strip_prefix(' ') {
                Some(value) => value,
                None if value.is_empty() => "",
                None => return Err(corrupt("expecting ' ' after ':'".to_owned())),
            };
            fields.set(name, value).map_err(corrupt)?;
            rest = following;
            line += 1;
        }
        fields.finish().map_err(|reason| NarInfoError { file: file.to_owned(), reason: reason.to_owned(), line: None })
    }

    /// The text that signatures are over.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.path, &self.nar_hash, self.nar_size, &self.references)
    }

    /// Whether the path follows from its content address and references, so that nobody need vouch for it.
    pub fn is_content_addressed(&self) -> bool {
        let mut references = self.references.clone();
        let self_reference = references.remove(&self.path);
        self.content_address.is_some_and(|address| address.is_path_of(&self.path, &references, self_reference))
    }

    /// Whether one of the keys signed it.
    pub fn is_signed_by(&self, keys: &[PublicKey]) -> bool {
        let text = self.fingerprint();
        self.signatures.iter().any(|signature| keys.iter().any(|key| key.verifies(&text, signature)))
    }
}

/// The file's text.
impl fmt::Display for NarInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NarInfo {
            path,
            url,
            compression,
            file_hash,
            file_size,
            nar_hash,
            nar_size,
            references,
            deriver,
            signatures,
            content_address,
        } = self;
        writeln!(formatter, "StorePath: {path}\nURL: {url}\nCompression: {compression}")?;
        if let Some(hash) = file_hash {
            writeln!(formatter, "FileHash: {}:{}", hash.algorithm(), hash.to_nix32())?;
        }
        if *file_size != 0 {
            writeln!(formatter, "FileSize: {file_size}")?;
        }
        writeln!(formatter, "NarHash: {}:{}\nNarSize: {nar_size}", nar_hash.algorithm(), nar_hash.to_nix32())?;
        let references: Vec<&str> = references.iter().map(StorePath::base_name).collect();
        writeln!(formatter, "References: {}", references.join(" "))?;
        if let Some(deriver) = deriver {
            writeln!(formatter, "Deriver: {}", deriver.base_name())?;
        }
        for signature in signatures {
            writeln!(formatter, "Sig: {signature}")?;
        }
        match content_address {
            Some(address) => writeln!(formatter, "CA: {address}"),
            None => Ok(()),
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Fields {
    path: Option<StorePath>,
    url: Option<String>,
    compression: Option<String>,
    file_hash: Option<Hash>,
    file_size: Option<u64>,
    nar_hash: Option<Hash>,
    nar_size: Option<u64>,
    references: Option<BTreeSet<StorePath>>,
    deriver: Option<Option<StorePath>>,
    signatures: BTreeSet<String>,
    content_address: Option<Option<ContentAddress>>,
}

impl Fields {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let base_name = |text| StorePath::from_base_name(text).map_err(|error| error.to_string());
        let hash = || Hash::parse_any(value, None).map_err(|_| "bad hash".to_owned());
        let size = || value.parse().map_err(|_| format!("invalid {name}"));
        match name {
            "StorePath" => {
                let path = StorePath::from_full_path(value).map_err(|error| error.to_string());
                once(name, &mut self.path, path?)
            }
            "URL" => once(name, &mut self.url, value.to_owned()),
            "Compression" => once(name, &mut self.compression, value.to_owned()),
            "FileHash" => once(name, &mut self.file_hash, hash()?),
            "FileSize" => once(name, &mut self.file_size, size()?),
            "NarHash" => match hash()? {
                hash if hash.algorithm() == HashAlgorithm::Sha256 => once(name, &mut self.nar_hash, hash),
                hash => Err(format!("the NarHash is a {}, not a sha256", hash.algorithm())),
            },
            "NarSize" => once(name, &mut self.nar_size, size()?),
            "References" => {
                let references = value.split(' ').filter(|text| !text.is_empty()).map(base_name);
                once(name, &mut self.references, references.collect::<Result<_, _>>()?)
            }
            "Deriver" => {
                let deriver = if value == "unknown-deriver" { None } else { Some(base_name(value)?) };
                once(name, &mut self.deriver, deriver)
            }
            "Sig" => {
                self.signatures.insert(value.to_owned());
                Ok(())
            }
            "CA" if value.is_empty() => once(name, &mut self.content_address, None),
            "CA" => {
                let address = ContentAddress::parse(value).map_err(|error| error.to_string());
                once(name, &mut self.content_address, Some(address?))
            }
            // Newer versions may say more.
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<NarInfo, &'static str> {
        let Fields {
            path,
            url,
            compression,
            file_hash,
            file_size,
            nar_hash,
            nar_size,
            references,
            deriver,
            signatures,
            content_address,
        } = self;
        Ok(NarInfo {
            path: path.ok_or("StorePath missing")?,
            nar_hash: nar_hash.ok_or("NarHash missing")?,
            url: url.filter(|url| !url.is_empty()).ok_or("URL missing")?,
            nar_size: nar_size.filter(|size| *size != 0).ok_or("NarSize missing or zero")?,
            // As it was before the field was invented.
            compression: compression.filter(|text| !text.is_empty()).unwrap_or_else(|| "bzip2".to_owned()),
            file_hash,
            file_size: file_size.unwrap_or(0),
            references: references.unwrap_or_default(),
            deriver: deriver.flatten(),
            signatures,
            content_address: content_address.flatten(),
        })
    }
}

/// A field that is there twice could mean one thing to us and another to the next reader.
fn once<T>(name: &str, field: &mut Option<T>, value: T) -> Result<(), String> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("extra {name}")),
    }
}

#[cfg(test)]
mod tests;
