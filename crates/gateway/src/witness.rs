//! Looks at servers' certificates: to pass their trust on to a build that is recorded, and to say whose word was missing.

use crate::{ledger::HostEntry, record::provider, upstream};
use fodder_model::proxy::Proxies;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// Certificates of a chain that are looked at; honest ones have three.
const CHAIN_LIMIT: usize = 10;

/// How long a look may take; the build has failed already.
const PATIENCE: Duration = Duration::from_secs(5);

/// Verifies a server's certificate, and goes on when that fails: then the build is shown a certificate that it must not trust
/// either. Only builds that do not care, as with `curl --insecure`, get any further, as they would without us.
///
/// Remembers what it saw, to say whose word was missing.
#[derive(Debug)]
pub(crate) struct Witness {
    verifier: Option<Arc<WebPkiServerVerifier>>,
    is_trusted: AtomicBool,
    presented: Mutex<Vec<CertificateDer<'static>>>,
}

impl Witness {
    /// Without a verifier nobody is trusted.
    pub(crate) fn new(verifier: Option<Arc<WebPkiServerVerifier>>) -> Self {
        Witness { verifier, is_trusted: AtomicBool::new(false), presented: Mutex::default() }
    }

    /// A client that asks this witness.
    pub(crate) fn configuration(self: &Arc<Self>) -> Result<ClientConfig, rustls::Error> {
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(self) as _;
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    /// Whether the certificate was good.
    pub(crate) fn is_trusted(&self) -> bool {
        self.is_trusted.load(Ordering::Relaxed)
    }

    /// Who would have to be known for it to be good: the issuer at which the server's own chain ends.
    pub(crate) fn missing_issuer(&self) -> Option<String> {
        let presented = self.presented.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates: Vec<X509Certificate<'_>> =
            presented.iter().map_while(|der| X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed)).collect();
        let mut last = certificates.first()?;
        // Each step leads to another certificate, but for circles.
        for _ in &certificates {
            match certificates.iter().find(|next| next.subject() == last.issuer() && next.subject() != last.subject()) {
                Some(next) => last = next,
                None => break,
            }
        }
        Some(last.issuer().to_string())
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_trusted = self.verifier.as_ref().is_some_and(|verifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).is_ok()
        });
        self.is_trusted.store(is_trusted, Ordering::Relaxed);
        let chain = std::iter::once(end_entity).chain(intermediates).take(CHAIN_LIMIT);
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) =
            chain.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Calls a host that a build has called, and says which issuer one must know to trust it; `None` when it does not answer with a
/// certificate.
pub fn missing_issuer(host: &HostEntry, proxies: &Proxies) -> Option<String> {
    let target = SocketAddr::new(host.address, host.port);
    let name = host.names.first().cloned().unwrap_or_else(|| host.address.to_string());
    let server = ServerName::try_from(name.clone()).ok()?;
    let witness = Arc::new(Witness::new(None));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(witness.configuration().ok()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let look = async {
        let stream = upstream::connect(target, &name, proxies).await.ok()?;
        connector.connect(server, stream).await.ok()
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, look).await.ok().flatten().map(drop) })?;
    witness.missing_issuer()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack: RES-5 (a chain without end). Layer: few certificates are kept.
    #[test]
    fn of_a_long_chain_the_beginning_is_kept() {
        let witness = Witness::new(None);
        let certificates: Vec<CertificateDer<'static>> =
            (0..100_u8).map(|number| CertificateDer::from(vec![number])).collect();
        let name = ServerName::try_from("a.example").unwrap();
        let time = UnixTime::since_unix_epoch(Duration::ZERO);
        witness.verify_server_cert(&certificates[0], &certificates[1..], &name, &[], time).unwrap();
        assert_eq!(*witness.presented.lock().unwrap(), certificates[..CHAIN_LIMIT]);
        assert!(!witness.is_trusted());
    }
}
