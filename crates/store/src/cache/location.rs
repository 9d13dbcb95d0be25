//! Addresses of binary caches: `https://HOST/…`, `http://HOST/…`, `file:///DIRECTORY`, with parameters after a `?` as Nix has them.

use super::{CacheError, Compression};
use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// Where a cache is and what the user said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheLocation {
    url: String,
    place: Place,
    priority: Option<i64>,
    is_trusted: bool,
    compression: Compression,
    secret_key: Option<PathBuf>,
}

/// Where the files of a cache are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Directory(PathBuf),
    /// The address without a slash at its end.
    Web(String),
}

impl CacheLocation {
    /// Reads an address.
    pub fn parse(url: &str) -> Result<Self, CacheError> {
        let wrong = |reason: String| CacheError::Address { url: url.to_owned(), reason };
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let bare = address.trim_end_matches('/');
        let place = match address.split_once("://") {
            Some(("file", path)) => {
                let path = percent_decoded(path).map_err(wrong)?;
                let path = PathBuf::from(OsString::from_vec(path));
                if !path.is_absolute() {
                    return Err(wrong("the directory must be absolute, as in file:///DIRECTORY".to_owned()));
                }
                Place::Directory(path)
            }
            Some(("http" | "https", host)) if !host.trim_matches('/').is_empty() => Place::Web(bare.to_owned()),
            Some(_) | None => return Err(wrong("only https://, http:// and file:// are known".to_owned())),
        };
        let mut location = CacheLocation {
            url: bare.to_owned(),
            place,
            priority: None,
            is_trusted: false,
            compression: Compression::Xz,
            secret_key: None,
        };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decoded(value).map_err(wrong)?;
            let text = String::from_utf8_lossy(&value);
            let bad_value = || wrong(format!("'{text}' is no value of '{name}'"));
            match name {
                "priority" => location.priority = Some(text.parse().map_err(|_| bad_value())?),
                "trusted" => {
                    location.is_trusted = match &*text {
                        "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(bad_value()),
                    }
                }
                "compression" => location.compression = Compression::parse(&text).ok_or_else(bad_value)?,
                "secret-key" => location.secret_key = Some(PathBuf::from(OsString::from_vec(value))),
                // Known to Nix, and without effect here.
                "want-mass-query" | "parallel-compression" | "compression-level" | "write-nar-listing" => {}
                _ => return Err(wrong(format!("the parameter '{name}' is not known"))),
            }
        }
        Ok(location)
    }

    /// The same, believed without signatures.
    pub fn trusted(self) -> Self {
        CacheLocation { is_trusted: true, ..self }
    }

    /// The address without parameters, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether asking it takes a network.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Web(_))
    }

    /// The directory, for one on this machine.
    pub fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(path) => Some(path),
            Place::Web(_) => None,
        }
    }

    /// `?compression=`, for writing.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// `?secret-key=`, for writing.
    pub fn secret_key(&self) -> Option<&Path> {
        self.secret_key.as_deref()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn priority(&self) -> Option<i64> {
        self.priority
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| "'%' must be followed by two hexadecimal digits".to_owned())?);
        rest = &after[2..];
    }
    if bytes.contains(&0) { Err("it contains a NUL".to_owned()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_parameters() {
        let location = CacheLocation::parse("https://cache.example/path/?priority=30&trusted=1").unwrap();
        assert_eq!(location.url(), "https://cache.example/path");
        assert_eq!((location.priority(), location.is_trusted(), location.is_remote()), (Some(30), true, true));
        let location = CacheLocation::parse("file:///a%20b?compression=zstd&secret-key=/k").unwrap();
        assert_eq!(location.directory(), Some(Path::new("/a b")));
        assert_eq!((location.compression(), location.secret_key()), (Compression::Zstd, Some(Path::new("/k"))));
        assert!(!location.is_trusted() && !location.is_remote());
        assert_eq!(CacheLocation::parse("file:///").unwrap().directory(), Some(Path::new("/")));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_reason() {
        for (url, reason) in [
            ("", "only https://, http:// and file:// are known"),
            ("s3://bucket", "only https://"),
            ("https://", "only https://"),
            ("file://relative", "must be absolute"),
            ("file://", "must be absolute"),
            ("file:///%zz", "two hexadecimal digits"),
            ("file:///a%00b", "NUL"),
            ("https://c?priority=high", "'high' is no value of 'priority'"),
            ("https://c?trusted=maybe", "'maybe' is no value of 'trusted'"),
            ("https://c?compression=rar", "'rar' is no value of 'compression'"),
            ("https://c?trutsed=1", "the parameter 'trutsed' is not known"),
        ] {
            let message = CacheLocation::parse(url).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }
}
