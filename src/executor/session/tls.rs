//! Whom we take for the agent when it speaks https.
//!
//! The agent is dialled by IP address while certificates usually carry names. It sits on this very host, so its
//! certificate may carry the address, this host's name, or a name the operator gave.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{base::trust::Anyone, executor::environment::Tls};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS towards the agent: cannot read {what} {}: {source}", .path.display())]
    Pem {
        what: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error(
        "TLS towards the agent: there is no authority to trust; \
         name its certificate in `ca_file` of the configuration or in LIBPROCESS_SSL_CA_FILE"
    )]
    NoRoots,
    #[error("TLS towards the agent: certificate and key do not make a pair: {0}")]
    Identity(rustls::Error),
    #[error("TLS towards the agent: {0}")]
    Setup(String),
}

/// Everything needed to tell the agent from an impostor.
#[derive(Clone)]
pub struct Trust {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Trust {
    pub fn new(
        tls: &Tls,
        ca_file: Option<&Path>,
        ip: IpAddr,
        agent_name: Option<&str>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setup(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = if tls.verify == Some(false) {
            tracing::warn!(
                "the agent's certificate is not verified, as LIBPROCESS_SSL_VERIFY_SERVER_CERT asks"
            );
            Arc::new(Anyone::new(provider))
        } else {
            let roots = roots(tls, ca_file)?;
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| TlsError::Setup(error.to_string()))?;
            Arc::new(AnyOf {
                inner,
                names: other_names(agent_name),
            })
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match (&tls.cert_file, &tls.key_file) {
            (Some(cert_file), Some(key_file)) => {
                let chain = certificates("the certificate", cert_file)?;
                let key = PrivateKeyDer::from_pem_file(key_file).map_err(|source| TlsError::Pem {
                    what: "the key",
                    path: key_file.clone(),
                    source,
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TlsError::Identity)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Trust {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::IpAddress(ip.into()),
        })
    }

    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem {
        what,
        path: path.to_owned(),
        source,
    };
    CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// The operator's file, else the environment's, else what the system trusts.
fn roots(tls: &Tls, ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca_file.or(tls.ca_file.as_deref()) {
        roots.add_parsable_certificates(certificates("the authorities in", file)?);
    }
    if let (None, Some(directory)) = (ca_file, &tls.ca_dir) {
        let result = rustls_native_certs::load_certs_from_paths(None, Some(directory));
        roots.add_parsable_certificates(result.certs);
    }
    if ca_file.is_none() && tls.ca_file.is_none() && tls.ca_dir.is_none() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        Err(TlsError::NoRoots)
    } else {
        Ok(roots)
    }
}

fn other_names(agent_name: Option<&str>) -> Vec<ServerName<'static>> {
    let host = rustix::system::uname();
    let host = host.nodename().to_str().ok();
    let names = [agent_name, host].into_iter().flatten();
    names
        .filter_map(|name| ServerName::try_from(name.to_owned()).ok())
        .collect()
}

/// The usual checks, against the dialled address or one of several names.
#[derive(Debug)]
struct AnyOf {
    inner: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for AnyOf {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |name: &ServerName<'_>| {
            self.inner
                .verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let refusal = match verify(server_name) {
            Ok(verified) => return Ok(verified),
            Err(refusal) => refusal,
        };
        self.names
            .iter()
            .find_map(|name| verify(name).ok())
            .ok_or(refusal)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
