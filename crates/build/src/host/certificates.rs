//! Choosing the certificate bundle for builds that may reach the network.

use crate::error::BuildError;
use fodder_model::{bytes::ByteString, host::Certificates};
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

/// Where distributions keep their bundle.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt",
];

/// In order: the command line, `NIX_SSL_CERT_FILE`, `SSL_CERT_FILE`, the distribution's, the embedded Mozilla roots.
pub(super) fn find(
    ca_file: Option<&Path>,
    environment: &BTreeMap<ByteString, ByteString>,
    scratch: Option<&Path>,
) -> Result<Option<Certificates>, BuildError> {
    let bundle = |path: &Path, origin: &str| {
        let path = std::fs::canonicalize(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })?;
        Ok(Some(Certificates { path: ByteString::from(path.as_path()), origin: origin.to_owned() }))
    };
    if let Some(path) = ca_file {
        return bundle(path, "--ca-file");
    }
    for name in ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"] {
        if let Some(path) = environment.get(&ByteString::from(name)).filter(|path| !path.is_empty()) {
            return bundle(path.as_path(), name);
        }
    }
    if let Some(path) = BUNDLES.iter().map(Path::new).find(|path| path.is_file()) {
        return bundle(path, "the distribution's");
    }
    let Some(scratch) = scratch else {
        let path = ByteString::from("(the embedded bundle)");
        return Ok(Some(Certificates { path, origin: "embedded Mozilla roots".to_owned() }));
    };
    let path = scratch.join("ca-certificates.crt");
    std::fs::write(&path, embedded()).map_err(|source| BuildError::Write { path: path.clone(), source })?;
    bundle(&path, "embedded Mozilla roots")
}

/// The bundle itself, for downloads of our own.
pub(super) fn read(
    ca_file: Option<&Path>,
    environment: &BTreeMap<ByteString, ByteString>,
) -> Result<Vec<u8>, BuildError> {
    match find(ca_file, environment, None)? {
        Some(Certificates { path, origin: _ }) if path.as_path().is_absolute() => {
            let path = path.as_path();
            std::fs::read(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })
        }
        Some(_) | None => Ok(embedded().into_bytes()),
    }
}

/// Mozilla's roots in PEM.
fn embedded() -> String {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let _ = writeln!(text, "-----BEGIN CERTIFICATE-----");
        let encoded = data_encoding::BASE64.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            let _ = writeln!(text, "{}", String::from_utf8_lossy(line));
        }
        let _ = writeln!(text, "-----END CERTIFICATE-----");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_then_nix_then_openssl() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, "x").unwrap();
            path
        };
        let (a, b, c) = (file("a"), file("b"), file("c"));
        let environment: BTreeMap<ByteString, ByteString> = [
            (ByteString::from("NIX_SSL_CERT_FILE"), ByteString::from(b.as_path())),
            (ByteString::from("SSL_CERT_FILE"), ByteString::from(c.as_path())),
        ]
        .into();
        let origin = |ca: Option<&Path>, environment: &BTreeMap<_, _>| {
            find(ca, environment, None).unwrap().map(|found| found.origin)
        };
        assert_eq!(origin(Some(&a), &environment).as_deref(), Some("--ca-file"));
        assert_eq!(origin(None, &environment).as_deref(), Some("NIX_SSL_CERT_FILE"));
        let mut without = environment.clone();
        without.insert("NIX_SSL_CERT_FILE".into(), "".into());
        assert_eq!(origin(None, &without).as_deref(), Some("SSL_CERT_FILE"), "an empty variable is none");
        let missing = [(ByteString::from("SSL_CERT_FILE"), ByteString::from("/nonexistent"))].into();
        assert!(find(None, &missing, None).is_err(), "a bundle that was named and is missing is not passed over");
    }

    #[test]
    fn the_embedded_bundle_is_pem() {
        let text = embedded();
        assert!(text.matches("-----BEGIN CERTIFICATE-----\n").count() > 100);
        assert!(text.lines().all(|line| line.len() <= 64));
    }
}
