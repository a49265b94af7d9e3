//! A client of the registry API: manifests and blobs, with mirrors, authentication, redirects, retries and resumption.

mod challenge;
mod credentials;
mod http;
mod repository;
mod retry;
mod token;
mod url;

use std::{collections::HashMap, sync::Arc, time::Duration};

use hyper::StatusCode;

pub use challenge::{Challenge, parse as parse_challenge};
pub use credentials::{Credential, CredentialError, Credentials};
pub use http::{Client, HttpError, Patience};
pub use repository::Repository;
pub use retry::Retry;
pub use token::TokenError;
pub use url::{Origin, Url, UrlError};

use self::{http::Answer, token::Tokens};
use super::{document::MAX_DOCUMENT, reference::RegistryReference};

const MAX_REDIRECTS: usize = 5;
/// Of an error answer's body, for the sentence in it.
const MAX_ERROR_BODY: u64 = 16 << 10;
/// A body must bring this much in each stall period, so that a drip is not taken for progress.
const MIN_PROGRESS: u64 = 64 << 10;

/// What an operator says about registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// `host[:port]` that are spoken to without TLS.
    pub insecure: Vec<String>,
    /// For a registry, what is asked first: `host[:port]`, in this order.
    pub mirrors: HashMap<String, Vec<String>>,
    /// PEM files of certificate authorities; empty means the machine's own.
    pub authorities: Vec<std::path::PathBuf>,
    /// Hosts that may see a registry's credentials as its token service though they are of another domain.
    pub token_services: Vec<String>,
    /// What to show to registries when a pull brings no credentials of its own.
    pub credentials: Credentials,
    pub patience: Patience,
    pub retry: Retry,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{url} answered {status}{detail}")]
    Status {
        url: String,
        status: StatusCode,
        detail: String,
        retry_after: Option<Duration>,
    },
    #[error("{url} wants credentials and none are configured for it")]
    NoCredentials { url: String },
    #[error("{url} refuses the credentials configured for it{detail}")]
    Unauthorized { url: String, detail: String },
    #[error("{url} wants authentication in a way that is not supported: {offered:?}")]
    NoChallenge { url: String, offered: String },
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error("{url} redirects to an unusable place")]
    Redirect {
        url: String,
        #[source]
        source: UrlError,
    },
    #[error("{url} redirects without saying where")]
    RedirectNowhere { url: String },
    #[error("{url} redirects from https to http")]
    Downgrade { url: String },
    #[error("{url} redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects { url: String },
    #[error("{url} sends the content encoded as {encoding:?}, so that it is not what its digest says")]
    Encoded { url: String, encoding: String },
    #[error("{url} announces {told} bytes where {wanted} are expected")]
    Length { url: String, told: u64, wanted: u64 },
    #[error("{url} ended after {received} of {wanted} bytes")]
    Short { url: String, received: u64, wanted: u64 },
    #[error("{url} sent another range than the one asked for")]
    Range { url: String },
    #[error("{url} sends less than {MIN_PROGRESS} bytes in {patience:?}")]
    Slow { url: String, patience: Duration },
    #[error("{url} is larger than {MAX_DOCUMENT} bytes")]
    TooLarge { url: String },
    #[error("{0:?} is not a registry address")]
    Address(String),
}

impl RegistryError {
    /// Trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Http(error) => error.is_transient(),
            RegistryError::Token(error) => error.is_transient(),
            RegistryError::Status { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS
                            | StatusCode::REQUEST_TIMEOUT
                            | StatusCode::RANGE_NOT_SATISFIABLE
                    )
            }
            RegistryError::Short { .. } | RegistryError::Slow { .. } | RegistryError::Range { .. } => true,
            _ => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::Status { retry_after, .. } => *retry_after,
            RegistryError::Token(error) => error.retry_after(),
            _ => None,
        }
    }

    /// The registry itself says that it has no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, RegistryError::Status { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// All registries, as this node knows them. Connections are shared between pulls, tokens are not.
#[derive(Debug, Clone)]
pub struct Registries {
    client: Client,
    config: Arc<RegistryConfig>,
}

/// A document as a registry sent it, still to be checked.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub bytes: Vec<u8>,
    pub media_type: Option<String>,
}

impl Registries {
    pub fn new(config: RegistryConfig) -> Registries {
        Registries {
            client: Client::new(config.patience.clone(), config.authorities.clone()),
            config: Arc::new(config),
        }
    }

    /// Prepares to read one repository, with `credentials` or else the operator's.
    pub fn repository(
        &self,
        reference: &RegistryReference,
        credentials: Option<&Credentials>,
    ) -> Result<Repository, RegistryError> {
        let registry = reference.registry();
        let mirrors = self.config.mirrors.get(registry).into_iter().flatten();
        let endpoints: Result<Vec<Endpoint>, RegistryError> = mirrors
            .map(String::as_str)
            .chain([registry])
            .map(|name| self.endpoint(name))
            .collect();
        Ok(Repository {
            client: self.client.clone(),
            config: self.config.clone(),
            endpoints: endpoints?,
            name: reference.repository().to_owned(),
            tokens: Tokens::new(credentials.unwrap_or(&self.config.credentials).clone()),
        })
    }

    pub fn close_idle(&self) {
        self.client.close_idle();
    }

    /// P-02: https, except on port 80, for this machine by port, and where the operator allows it.
    fn endpoint(&self, registry: &str) -> Result<Endpoint, RegistryError> {
        let address = || RegistryError::Address(registry.chars().take(200).collect());
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let parsed = Url::parse(&format!("http://{host}/")).map_err(|_| address())?;
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        let (host, port) = (parsed.origin.host, parsed.origin.port);
        let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
        let insecure = self
            .config
            .insecure
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(registry));
        let plain = insecure || (has_port && (port == 80 || (local && port != 443)));
        let port = match (has_port, plain) {
            (true, _) => port,
            (false, true) => 80,
            (false, false) => 443,
        };
        Ok(Endpoint {
            registry: registry.to_owned(),
            origin: Origin {
                tls: !plain,
                host,
                port,
            },
        })
    }
}

/// A registry or a mirror of it.
#[derive(Debug, Clone)]
struct Endpoint {
    /// By what name credentials are looked up.
    registry: String,
    origin: Origin,
}

/// Turns an answer that is no success into an error with the registry's own words.
async fn failure(url: String, answer: Answer) -> RegistryError {
    let status = answer.status;
    let retry_after = retry::retry_after(&answer.headers);
    let body = answer
        .body
        .collect(MAX_ERROR_BODY)
        .await
        .ok()
        .flatten()
        .unwrap_or_default();
    let detail = error_detail(&body);
    match status {
        StatusCode::UNAUTHORIZED => RegistryError::Unauthorized { url, detail },
        _ => RegistryError::Status {
            url,
            status,
            detail,
            retry_after,
        },
    }
}

/// `{"errors":[{"code":…,"message":…}]}`, shortened and on one line.
fn error_detail(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<OneError>,
    }
    #[derive(serde::Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(body) else {
        return String::new();
    };
    let Some(first) = errors.into_iter().next() else {
        return String::new();
    };
    let text = if first.message.is_empty() {
        first.code
    } else {
        first.message
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_02_schemes_and_ports() {
        let registries = Registries::new(RegistryConfig {
            insecure: vec!["plain.example".into(), "plain.example:5000".into()],
            ..RegistryConfig::default()
        });
        for (registry, origin) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("r.example", "https://r.example"),
            ("r.example:443", "https://r.example"),
            ("r.example:5000", "https://r.example:5000"),
            ("r.example:80", "http://r.example"),
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("localhost", "https://localhost"),
            ("127.0.0.2:5000", "https://127.0.0.2:5000"),
            ("plain.example", "http://plain.example"),
            ("plain.example:5000", "http://plain.example:5000"),
        ] {
            assert_eq!(registries.endpoint(registry).unwrap().origin.to_string(), origin);
        }
    }

    #[test]
    fn registries_own_words_are_shortened() {
        let body = br#"{"errors":[{"code":"DENIED","message":"go\n away"}]}"#;
        assert_eq!(error_detail(body), ": go away");
        assert_eq!(error_detail(b"<html>"), "");
        assert_eq!(error_detail(br#"{"errors":[]}"#), "");
    }
}
