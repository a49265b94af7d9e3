//! HTTP/1.1 over TCP and TLS with connections kept per origin, and a time limit on everything a peer may delay.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;

use super::url::{Origin, Url};

/// Connections kept open to one origin when nobody uses them.
const MAX_IDLE: usize = 8;
/// Of one connection's read buffer: four layers at once must stay far below the memory budget of a pull.
const READ_BUFFER: usize = 128 << 10;
const USER_AGENT: &str = concat!("podling/", env!("CARGO_PKG_VERSION"));

/// How long a peer may take.
#[derive(Debug, Clone)]
pub struct Patience {
    pub connect: Duration,
    /// From the request to the whole header of the answer.
    pub header: Duration,
    /// Without progress in a body.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(10),
            header: Duration::from_secs(30),
            stall: Duration::from_secs(60),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot find the address of {host}")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect to {origin}")]
    Connect {
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("{origin}: the TLS handshake failed")]
    Tls {
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("{origin}: no valid name for TLS")]
    ServerName { origin: Origin },
    #[error("the certificate authorities cannot be loaded")]
    Authorities(#[source] io::Error),
    #[error("{origin} did not {what} within {patience:?}")]
    Timeout {
        origin: Origin,
        what: &'static str,
        patience: Duration,
    },
    #[error("the connection to {origin} broke")]
    Broken {
        origin: Origin,
        #[source]
        source: hyper::Error,
    },
    #[error("the request cannot be made")]
    Request(#[source] hyper::http::Error),
}

impl HttpError {
    /// Trying again may help: the network's fault, not the configuration's.
    pub fn is_transient(&self) -> bool {
        match self {
            HttpError::Resolve { .. } | HttpError::Connect { .. } | HttpError::Timeout { .. } => true,
            // A peer that talks something else than HTTP will go on doing so.
            HttpError::Broken { source, .. } => !source.is_parse(),
            // A certificate does not get better, a cut handshake does.
            HttpError::Tls { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            HttpError::ServerName { .. } | HttpError::Authorities(_) | HttpError::Request(_) => false,
        }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// Shared by all pulls of a store.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    patience: Patience,
    authorities: Vec<std::path::PathBuf>,
    tls: OnceLock<Arc<rustls::ClientConfig>>,
    /// Locked only to take or put a connection, never across an await.
    idle: Mutex<HashMap<Origin, Vec<Sender>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// What to send: `GET`, or `POST` if there is a body.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    pub headers: HeaderMap,
    pub form: Option<String>,
}

/// The head of an answer; the body comes piece by piece.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// A body, and the connection it comes over.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    connection: Option<Sender>,
    origin: Origin,
    client: Client,
}

impl Client {
    /// `authorities` are PEM files; without any, the machine's own are used.
    pub fn new(patience: Patience, authorities: Vec<std::path::PathBuf>) -> Client {
        Client {
            inner: Arc::new(Inner {
                patience,
                authorities,
                tls: OnceLock::new(),
                idle: Mutex::default(),
            }),
        }
    }

    pub fn patience(&self) -> &Patience {
        &self.inner.patience
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn send(&self, url: &Url, ask: &Ask) -> Result<Answer, HttpError> {
        let origin = &url.origin;
        // A kept connection may have been closed by the peer meanwhile; that says nothing about the registry.
        while let Some(sender) = self.take_idle(origin) {
            match self.exchange(sender, url, ask).await {
                Err(HttpError::Broken { source, .. }) if !source.is_parse() => {}
                other => return other,
            }
        }
        let sender = self.connect(origin).await?;
        self.exchange(sender, url, ask).await
    }

    async fn exchange(&self, mut sender: Sender, url: &Url, ask: &Ask) -> Result<Answer, HttpError> {
        let origin = &url.origin;
        let broken = |source| HttpError::Broken {
            origin: origin.clone(),
            source,
        };
        let mut request = Request::builder()
            .method(if ask.form.is_some() { "POST" } else { "GET" })
            .uri(&url.target)
            .body(Full::new(Bytes::from(ask.form.clone().unwrap_or_default())))
            .map_err(HttpError::Request)?;
        let headers = request.headers_mut();
        headers.extend(ask.headers.clone());
        headers.insert(
            header::HOST,
            header_value(&origin.authority()).map_err(HttpError::Request)?,
        );
        headers.insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
        // Bytes are wanted as they are stored: a digest is of those.
        headers.insert(
            header::ACCEPT_ENCODING,
            header::HeaderValue::from_static("identity"),
        );
        if ask.form.is_some() {
            let form = header::HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
        }
        let answer = self
            .within(origin, "answer", self.inner.patience.header, async {
                sender.ready().await?;
                sender.send_request(request).await
            })
            .await?
            .map_err(broken)?;
        let (head, incoming) = answer.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: Body {
                incoming,
                connection: Some(sender),
                origin: origin.clone(),
                client: self.clone(),
            },
        })
    }

    async fn within<T>(
        &self,
        origin: &Origin,
        what: &'static str,
        patience: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, HttpError> {
        tokio::time::timeout(patience, work)
            .await
            .map_err(|_| HttpError::Timeout {
                origin: origin.clone(),
                what,
                patience,
            })
    }

    async fn connect(&self, origin: &Origin) -> Result<Sender, HttpError> {
        let patience = self.inner.patience.connect;
        let stream = self
            .within(
                origin,
                "accept a connection",
                patience,
                connect_any(origin, patience),
            )
            .await??;
        // Small requests must not wait for the answer to the one before.
        let _ = stream.set_nodelay(true);
        if !origin.tls {
            return handshake(origin, TokioIo::new(stream)).await;
        }
        let name = ServerName::try_from(origin.host.clone()).map_err(|_| HttpError::ServerName {
            origin: origin.clone(),
        })?;
        let connector = tokio_rustls::TlsConnector::from(self.tls()?);
        let stream = self
            .within(
                origin,
                "finish the TLS handshake",
                patience,
                connector.connect(name, stream),
            )
            .await?
            .map_err(|source| HttpError::Tls {
                origin: origin.clone(),
                source,
            })?;
        handshake(origin, TokioIo::new(stream)).await
    }

    /// Built at the first use: most pulls of most nodes find their image in the store.
    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, HttpError> {
        if let Some(tls) = self.inner.tls.get() {
            return Ok(tls.clone());
        }
        let config = tls_config(&self.inner.authorities).map_err(HttpError::Authorities)?;
        Ok(self.inner.tls.get_or_init(|| Arc::new(config)).clone())
    }

    fn take_idle(&self, origin: &Origin) -> Option<Sender> {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(origin)?;
        while let Some(sender) = connections.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, origin: &Origin, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(origin.clone()).or_default();
        if connections.len() < MAX_IDLE {
            connections.push(sender);
        }
    }

    /// Closes what nobody uses: after a pull the executor is to be small again.
    pub fn close_idle(&self) {
        self.inner
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Body {
    /// The next piece, or `None` at the end, after which the connection serves others.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let patience = self.client.inner.patience.stall;
        loop {
            let frame = self
                .client
                .within(
                    &self.origin,
                    "send any more data",
                    patience,
                    self.incoming.frame(),
                )
                .await?;
            match frame {
                None => {
                    if let Some(sender) = self.connection.take() {
                        self.client.keep(&self.origin, sender);
                    }
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
                Some(Err(source)) => {
                    return Err(HttpError::Broken {
                        origin: self.origin.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// The whole body, or `None` if it is longer than `limit`.
    pub async fn collect(mut self, limit: u64) -> Result<Option<Vec<u8>>, HttpError> {
        // A document is small: a peer that drips it is as good as one that stalls.
        let patience = self.client.inner.patience.stall;
        let (client, origin) = (self.client.clone(), self.origin.clone());
        let whole = async {
            let mut whole = Vec::new();
            while let Some(piece) = self.next().await? {
                if (whole.len() + piece.len()) as u64 > limit {
                    return Ok(None);
                }
                whole.extend_from_slice(&piece);
            }
            Ok(Some(whole))
        };
        client
            .within(&origin, "send a whole document", patience, whole)
            .await?
    }
}

async fn connect_any(origin: &Origin, patience: Duration) -> Result<TcpStream, HttpError> {
    let addresses = tokio::net::lookup_host((origin.host.as_str(), origin.port))
        .await
        .map_err(|source| HttpError::Resolve {
            host: origin.host.clone(),
            source,
        })?;
    first_of(&addresses.collect::<Vec<_>>(), patience)
        .await
        .map_err(|source| HttpError::Connect {
            origin: origin.clone(),
            source,
        })
}

/// The first address that takes us. Each has its share of the time, so that one that says nothing does not use up that
/// of the others.
async fn first_of(addresses: &[std::net::SocketAddr], patience: Duration) -> io::Result<TcpStream> {
    let share = patience / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(failure)
}

async fn handshake<T>(origin: &Origin, io: TokioIo<T>) -> Result<Sender, HttpError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(READ_BUFFER)
        .handshake(io)
        .await
        .map_err(|source| HttpError::Broken {
            origin: origin.clone(),
            source,
        })?;
    // Ends when the sender is dropped or the peer closes; its error reaches whoever waits for an answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

fn tls_config(authorities: &[std::path::PathBuf]) -> io::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    if authorities.is_empty() {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
    }
    for path in authorities {
        let failed = |why: String| io::Error::other(format!("{}: {why}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
            let certificate = certificate.map_err(|e| failed(e.to_string()))?;
            roots.add(certificate).map_err(|e| failed(e.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

pub(super) fn header_value(text: &str) -> Result<header::HeaderValue, hyper::http::Error> {
    header::HeaderValue::from_str(text).map_err(hyper::http::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use nix::sys::socket::{self, Backlog, SockaddrIn};

    use super::*;

    #[tokio::test]
    async fn an_address_that_says_nothing_leaves_time_for_the_next() {
        // A queue for one that is not taken from: whoever comes second hears nothing.
        let silent = socket::socket(
            socket::AddressFamily::Inet,
            socket::SockType::Stream,
            socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        socket::bind(
            std::os::fd::AsRawFd::as_raw_fd(&silent),
            &SockaddrIn::new(127, 0, 0, 1, 0),
        )
        .unwrap();
        socket::listen(&silent.as_fd(), Backlog::new(0).unwrap()).unwrap();
        let name: SockaddrIn = socket::getsockname(std::os::fd::AsRawFd::as_raw_fd(&silent)).unwrap();
        let full = std::net::SocketAddr::from((name.ip(), name.port()));
        let _first = std::net::TcpStream::connect(full).unwrap();

        let good = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addresses = [full, good.local_addr().unwrap()];
        let stream = tokio::time::timeout(
            Duration::from_millis(600),
            first_of(&addresses, Duration::from_millis(600)),
        );
        assert_eq!(stream.await.unwrap().unwrap().peer_addr().unwrap(), addresses[1]);
        let nobody = first_of(&[full], Duration::from_millis(50)).await.unwrap_err();
        assert!(nobody.to_string().contains("does not answer"), "{nobody}");
    }
}
