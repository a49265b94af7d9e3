//! TLS towards members: whoever answers, or verified on request.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{IpAddr, ServerName},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::sockets::{Connection, describe};
use crate::{
    base::trust::Anyone,
    group::probe::{Sight, Tls},
};

/// Finishes the handshake, or says what its failure means.
pub(super) async fn connect(
    wanted: &Tls,
    address: std::net::IpAddr,
    connection: Connection,
) -> Result<TlsStream<Connection>, Sight> {
    let (config, name) = match wanted {
        Tls::Anyone => (anyone(), ServerName::IpAddress(IpAddr::from(address))),
        Tls::Named(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|_| {
                Sight::Failed(format!("TLS: `{name}` is no name that a certificate can have"))
            })?;
            (verified(), name)
        }
    };
    let config = config.map_err(|error| Sight::Untried(format!("TLS: {error}")))?;
    let handshake = TlsConnector::from(config).connect(name, connection);
    handshake
        .await
        .map_err(|error| Sight::Failed(format!("TLS: {}", describe(&error))))
}

/// Made with the first check that needs it, and then kept: it remembers sessions.
fn anyone() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?;
            let verifier = Arc::new(Anyone::new(provider));
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            Ok(Arc::new(builder.with_no_client_auth()))
        })
        .clone()
}

fn verified() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?;
            Ok(Arc::new(
                builder.with_root_certificates(roots).with_no_client_auth(),
            ))
        })
        .clone()
}
