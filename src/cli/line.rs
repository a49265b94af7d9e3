//! The way to a scheduler: where it is, whom we trust there, and what we show of ourselves.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use hyper::header::HeaderValue;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::Failure;
use crate::door::Token;

/// Long enough for the other side of the world.
const CONNECT: Duration = Duration::from_secs(5);

/// What opens a scheduler's door; the owner of a `podling up` needs nothing.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Access {
    /// A file with a token, or with NAME:PASSWORD [default: the token in PODLING_TOKEN]
    #[arg(long, global = true, env = "PODLING_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Whom to trust when the scheduler speaks https, as PEM [default: whom the system trusts]
    #[arg(long, global = true, env = "PODLING_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Whatever requests go over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

#[derive(Clone)]
enum Way {
    Plain,
    Tls(TlsConnector, ServerName<'static>),
    Unix(PathBuf),
}

/// A scheduler, as a URL names it.
#[derive(Clone)]
pub(super) struct Line {
    /// `host:port`, for the connection and the `Host` header.
    authority: String,
    /// As it is told to people: without what is secret.
    shown: String,
    way: Way,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Line({})", self.shown)
    }
}

impl Line {
    /// Understands `http://[NAME:PASSWORD@]HOST[:PORT]`, the same with https, and `unix:/PATH`.
    pub fn new(url: &str, access: &Access) -> Result<Self, Failure> {
        let token = std::env::var("PODLING_TOKEN")
            .ok()
            .filter(|token| !token.is_empty());
        Line::with(url, access, token.as_deref())
    }

    fn with(url: &str, access: &Access, token: Option<&str>) -> Result<Self, Failure> {
        let mut authorization = access.authorization(token)?;
        if let Some(path) = url.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            if !path.is_absolute() {
                return Err(Failure::usage(format!("--url {url}: expected unix:/PATH")));
            }
            return Ok(Line {
                authority: "localhost".to_owned(),
                shown: format!("unix:{}", path.display()),
                // Kernels that do not say for sure who connects make a token necessary; it lies beside the socket.
                authorization: authorization.or_else(|| beside(&path)),
                way: Way::Unix(path),
            });
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let rest = rest.trim_end_matches('/');
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let shown = format!("{scheme}://{host}");
        let (secure, port) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => {
                return Err(Failure::usage(format!(
                    "--url {shown}: expected http://HOST:PORT"
                )));
            }
        };
        let name = name_of(host)
            .ok_or_else(|| Failure::usage(format!("--url {shown}: expected {scheme}://HOST:PORT")))?;
        if let Some(user) = user {
            authorization.get_or_insert(in_url(user, &shown)?);
        }
        let way = match secure {
            true => {
                let server = name.trim_matches(['[', ']']).to_owned();
                let server = ServerName::try_from(server)
                    .map_err(|error| Failure::usage(format!("--url {shown}: {error}")))?;
                Way::Tls(access.connector()?, server)
            }
            false => Way::Plain,
        };
        let authority = match host.len() == name.len() {
            true => format!("{host}:{port}"),
            false => host.to_owned(),
        };
        Ok(Line {
            shown: format!("{scheme}://{authority}"),
            authority,
            way,
            authorization,
        })
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// For people.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    pub async fn connect(&self) -> Result<Box<dyn Wire>, Failure> {
        let nobody = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("no scheduler at {}: {error}", self.shown))
        };
        let connected = async {
            let socket = match &self.way {
                Way::Unix(path) => {
                    let socket = UnixStream::connect(path).await.map_err(|error| nobody(&error))?;
                    return Ok::<Box<dyn Wire>, Failure>(Box::new(socket));
                }
                Way::Plain | Way::Tls(..) => TcpStream::connect(&self.authority)
                    .await
                    .map_err(|error| nobody(&error))?,
            };
            match &self.way {
                Way::Tls(connector, name) => {
                    let secured = connector.connect(name.clone(), socket).await;
                    Ok(Box::new(secured.map_err(|error| nobody(&error))?))
                }
                Way::Plain | Way::Unix(_) => Ok(Box::new(socket)),
            }
        };
        tokio::time::timeout(CONNECT, connected)
            .await
            .map_err(|_| nobody(&"no answer within 5 seconds"))?
    }
}

impl Access {
    fn authorization(&self, token: Option<&str>) -> Result<Option<HeaderValue>, Failure> {
        let (token, from) = match &self.token_file {
            Some(path) => (Token::read(path)?, path.display().to_string()),
            None => match token {
                Some(text) => {
                    let token = Token::parse(text).ok_or_else(|| {
                        Failure::usage("PODLING_TOKEN: expected visible characters without blanks")
                    })?;
                    (token, "PODLING_TOKEN".to_owned())
                }
                None => return Ok(None),
            },
        };
        let value = match token.text().contains(':') {
            true => basic(token.text()),
            false => token.authorization(),
        };
        let value = value.ok_or_else(|| Failure::usage(format!("{from}: not fit for a header")))?;
        Ok(Some(value))
    }

    fn connector(&self) -> Result<TlsConnector, Failure> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                let unreadable = |error| Failure::usage(format!("--ca {}: {error}", path.display()));
                let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
                    .map_err(unreadable)?
                    .collect::<Result<_, _>>()
                    .map_err(unreadable)?;
                roots.add_parsable_certificates(certificates);
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err(Failure::usage(
                "https: there is no authority to trust; name one with --ca",
            ));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The host without its port; none if this is no `HOST[:PORT]`.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let sound = !name.is_empty()
        && !name.contains(['/', '@', ' ', '?', '#'])
        && (name.starts_with('[') == name.contains(':'))
        && port.is_none_or(|port| port.parse::<u16>().is_ok());
    sound.then_some(name)
}

fn in_url(user: &str, shown: &str) -> Result<HeaderValue, Failure> {
    let plain = user.contains(':') && !user.contains('%');
    plain.then(|| basic(user)).flatten().ok_or_else(|| {
        Failure::usage(format!(
            "--url {shown}: expected NAME:PASSWORD before the @, without percent signs; or use --token-file"
        ))
    })
}

fn basic(pair: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token of the `podling up` whose socket this is, if it is ours to read.
fn beside(socket: &Path) -> Option<HeaderValue> {
    Token::read(&socket.with_file_name("token")).ok()?.authorization()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(url: &str, token: Option<&str>) -> Result<Line, Failure> {
        Line::with(url, &Access::default(), token)
    }

    #[test]
    fn urls_name_a_host_and_a_port() {
        for (url, authority) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://marathon.example/", "marathon.example:80"),
            ("localhost:8080", "localhost:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://[::1]", "[::1]:80"),
            ("http://u:p@h:1", "h:1"),
            ("unix:/run/x.sock", "localhost"),
        ] {
            assert_eq!(line(url, None).unwrap().authority(), authority, "{url}");
        }
        for url in [
            "",
            "http://",
            "ftp://a",
            "http://a/b",
            "http://h:port",
            "http://::1",
            "unix:x",
            "http://u@h:1",
            "http://u:%40@h",
        ] {
            let error = line(url, None).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)), "{url}");
        }
    }

    #[test]
    fn credentials_come_from_the_url_or_beside_it_and_are_not_shown() {
        let shown = |line: &Line| {
            line.authorization()
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let with = line("http://ci:secret@h:1", None).unwrap();
        assert_eq!(shown(&with).unwrap(), "Basic Y2k6c2VjcmV0");
        assert_eq!(with.shown(), "http://h:1");
        assert!(!format!("{with:?}").contains("secret"));
        assert_eq!(shown(&line("h:1", Some("abc")).unwrap()).unwrap(), "Bearer abc");
        assert_eq!(
            shown(&line("h:1", Some("ci:secret")).unwrap()).unwrap(),
            "Basic Y2k6c2VjcmV0"
        );
        assert_eq!(shown(&line("h:1", None).unwrap()), None);
        assert!(line("h:1", Some("a b")).is_err());

        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        std::fs::write(&file, "of-the-file\n").unwrap();
        let socket = format!("unix:{}", place.path().join("api.sock").display());
        assert_eq!(
            shown(&line(&socket, None).unwrap()).unwrap(),
            "Bearer of-the-file"
        );
        let access = Access {
            token_file: Some(file),
            ca: None,
        };
        assert_eq!(
            shown(&Line::with("h:1", &access, Some("abc")).unwrap()).unwrap(),
            "Bearer of-the-file"
        );
    }
}
