//! TLS in front of an API, with what its files say today.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::users::Stamp;

/// How often the files are looked at, at most.
const PACE: Duration = Duration::from_secs(1);

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    #[error("cannot read {what} in {}: {source}", .path.display())]
    Pem {
        what: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: no certificate in it", .0.display())]
    Empty(PathBuf),
    #[error("certificate and key make no server: {0}")]
    Setup(String),
}

/// Where an operator keeps what a server shows of itself.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whoever shows a certificate of theirs is let in.
    pub client_authority: Option<PathBuf>,
}

struct State {
    acceptor: TlsAcceptor,
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// A server's side of TLS. Files that have changed hold from the next connection on.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.files)
    }
}

impl Tls {
    pub fn open(files: TlsFiles) -> Result<Self, BadTls> {
        let stamps = stamps(&files)?;
        let acceptor = acceptor(&files)?;
        Ok(Tls {
            files,
            state: Arc::new(Mutex::new(State {
                acceptor,
                stamps,
                looked: Instant::now(),
            })),
        })
    }

    /// For the next connection. Files that make no sense are told of, and those from before hold.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= PACE {
            state.looked = Instant::now();
            // A certificate and its key are replaced one after the other: between the two they are no pair, and are
            // tried again the next time.
            let read = stamps(&self.files).and_then(|now| {
                (now != state.stamps)
                    .then(|| Ok((now, acceptor(&self.files)?)))
                    .transpose()
            });
            match read {
                Ok(None) => {}
                Ok(Some((stamps, acceptor))) => {
                    tracing::info!("certificate read again from {}", self.files.certificate.display());
                    (state.stamps, state.acceptor) = (stamps, acceptor);
                }
                Err(error) => tracing::warn!("{error}; the certificate from before stays"),
            }
        }
        state.acceptor.clone()
    }
}

fn stamps(files: &TlsFiles) -> Result<Vec<Stamp>, BadTls> {
    let all = [
        Some(&files.certificate),
        Some(&files.key),
        files.client_authority.as_ref(),
    ];
    all.into_iter()
        .flatten()
        .map(|path| match fs::metadata(path) {
            Ok(facts) => Ok(Stamp::of(&facts)),
            Err(source) => Err(BadTls::Read {
                path: path.clone(),
                source,
            }),
        })
        .collect()
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, BadTls> {
    let setup = |error: &dyn fmt::Display| BadTls::Setup(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("the certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| BadTls::Pem {
        what: "the key",
        path: files.key.clone(),
        source,
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("the authorities", path)?);
            // Others may have a token or a password.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| setup(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| setup(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let failed = |source| BadTls::Pem {
        what,
        path: path.to_owned(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    match found.is_empty() {
        true => Err(BadTls::Empty(path.to_owned())),
        false => Ok(found),
    }
}
