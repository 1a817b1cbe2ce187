//! TLS of the port for questions from outside the node. Nobody issues its certificate and none is trusted by its name: whoever
//! asks knows the fingerprint of the one that is meant, from the node's object.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use cellwall_abi::planted;
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring as with_ring, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerMisbehaved, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::{ClientError, PATIENCE};

/// In the certificate, since TLS needs a name. It is looked up nowhere.
const NAME: &str = "agent.cellwall.dev";
/// The only protocol that is spoken.
const HTTP2: &[u8] = b"h2";

/// The certificate and the key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no key or no signature.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// TLS does not take them.
    #[error("cannot use the certificate")]
    Unusable(#[from] Error),
}

/// A certificate with its key. Both are made here, are held in memory alone, and end with this value.
pub(crate) struct Identity {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) fingerprint: String,
}

impl Identity {
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let certificate = made.cert.der().clone();
        let fingerprint = fingerprint(&certificate);
        let mut config = ServerConfig::builder_with_provider(Arc::new(with_ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // A connection is one command's: nobody comes back.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
    }
}

/// SHA-256 of a certificate, in 64 small hexadecimal digits.
fn fingerprint(certificate: &[u8]) -> String {
    digest(&SHA256, certificate).as_ref().iter().fold(String::new(), |mut text, byte| {
        // A string takes what is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// TLS with whoever has the certificate of this fingerprint; nobody else gets a byte of what is sent.
pub(crate) async fn connect<S>(stream: S, fingerprint: &str) -> Result<TlsStream<S>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(with_ring::default_provider());
    let verifier = Pinned { fingerprint: fingerprint.to_owned(), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| ClientError::Handshake { source: io::Error::other(error) })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.enable_sni = false;
    let name = ServerName::try_from(NAME).expect("a DNS name");
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    timeout(PATIENCE, handshake).await.map_err(|_| ClientError::Silent)?.map_err(|source| {
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        if matches!(inner, Some(Error::InvalidCertificate(_))) {
            ClientError::Certificate
        } else {
            ClientError::Handshake { source }
        }
    })
}

/// Trusts one certificate. That its owner has the key, the signature of the handshake shows.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if fingerprint(certificate) == self.fingerprint || planted("any-certificate-will-do") {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Not reached: no such version is offered.
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
