//! The certificate authority of one build. Its key is in memory only and gone with the build.

use super::RecordError;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Name, whether it is vouched for, and protocols.
type Key = (String, bool, Vec<Vec<u8>>);

pub(super) struct Authority {
    pem: String,
    trusted: Issuer<'static, KeyPair>,
    /// Nobody trusts it: for servers whose own certificate is not trusted either.
    untrusted: Issuer<'static, KeyPair>,
    configurations: Mutex<BTreeMap<Key, Arc<ServerConfig>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the keys.
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Authority {
    pub(super) fn new() -> Result<Self, RecordError> {
        let failed = |error: rcgen::Error| RecordError::Certificates(error.to_string());
        let (pem, trusted) = issuer("fodder: authority of one recorded build").map_err(failed)?;
        let (_, untrusted) = issuer("fodder: the real server's certificate is not trusted").map_err(failed)?;
        Ok(Authority { pem, trusted, untrusted, configurations: Mutex::default() })
    }

    /// Its certificate, for the build's bundle.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// What a server of this name needs. The protocols are those that are offered.
    pub(super) fn server(
        &self,
        name: &str,
        is_trusted: bool,
        protocols: &[Vec<u8>],
    ) -> Result<Arc<ServerConfig>, RecordError> {
        let mut configurations = self.configurations.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), is_trusted, protocols.to_vec());
        if let Some(found) = configurations.get(&key) {
            return Ok(Arc::clone(found));
        }
        let issuer = if is_trusted { &self.trusted } else { &self.untrusted };
        let made = server(name, issuer, protocols).map_err(RecordError::Certificates)?;
        configurations.insert(key, Arc::clone(&made));
        Ok(made)
    }
}

fn issuer(name: &str) -> Result<(String, Issuer<'static, KeyPair>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.distinguished_name.push(DnType::CommonName, name);
    // Python 3.13 and later verify strictly, and insist on both of these.
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pem = parameters.self_signed(&key)?.pem();
    Ok((pem, Issuer::new(parameters, key)))
}

fn server(name: &str, issuer: &Issuer<'static, KeyPair>, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>, String> {
    let failed = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(failed)?;
    let mut parameters = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
    // A common name has at most 64 characters, and nobody looks at it.
    parameters.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.signed_by(&key, issuer).map_err(failed)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut configuration = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(|error| error.to_string())?;
    configuration.alpn_protocols = protocols.to_vec();
    Ok(Arc::new(configuration))
}
