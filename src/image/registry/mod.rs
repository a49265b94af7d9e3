//! A client of the registry API: manifests and blobs, with mirrors, authentication, redirects, retries and resumption.

mod challenge;
mod credentials;
mod http;
mod token;
mod url;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, header};
use tokio::{sync::mpsc, time::Instant};

pub use challenge::{Challenge, parse as parse_challenge};
pub use credentials::{Credential, CredentialError, Credentials};
pub use http::{Client, HttpError, Patience};
pub use token::TokenError;
pub use url::{Origin, Url, UrlError};

use self::{
    http::{Answer, Ask, header_value},
    token::Tokens,
};
use super::{
    document::{ACCEPT, Blob, MAX_DOCUMENT},
    reference::RegistryReference,
};

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

/// When to try again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Attempts without any progress before giving up.
    pub attempts: u32,
    pub first_delay: Duration,
    pub max_delay: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 6,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(20),
        }
    }
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

/// One repository for the length of a pull.
#[derive(Debug)]
pub struct Repository {
    client: Client,
    config: Arc<RegistryConfig>,
    endpoints: Vec<Endpoint>,
    name: String,
    tokens: Tokens,
}

/// The pieces of a blob on their way to whoever unpacks it.
pub type Pieces = mpsc::Sender<Bytes>;

impl Repository {
    /// Fetches a manifest or index by tag or digest.
    pub async fn manifest(&self, key: &str) -> Result<Fetched, RegistryError> {
        let target = format!("/v2/{}/manifests/{key}", self.name);
        self.document(&target, ACCEPT).await
    }

    /// Fetches a small blob whole.
    pub async fn small_blob(&self, blob: &Blob) -> Result<Fetched, RegistryError> {
        self.document(&self.blob_target(blob), "*/*").await
    }

    /// Streams a blob. Returns early without error when nobody takes its pieces any more.
    pub async fn blob(&self, blob: &Blob, pieces: &Pieces) -> Result<(), RegistryError> {
        let target = self.blob_target(blob);
        let mut received = 0;
        self.anywhere(async |endpoint| {
            let mut attempts = Attempts::new(&self.config.retry);
            loop {
                let before = received;
                match self
                    .blob_once(endpoint, &target, blob, &mut received, pieces)
                    .await
                {
                    Ok(()) => return Ok(()),
                    Err(error) => attempts.again(error, received > before).await?,
                }
            }
        })
        .await
    }

    fn blob_target(&self, blob: &Blob) -> String {
        format!("/v2/{}/blobs/{}", self.name, blob.digest)
    }

    async fn document(&self, target: &str, accept: &'static str) -> Result<Fetched, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(accept));
        self.anywhere(async |endpoint| {
            let mut attempts = Attempts::new(&self.config.retry);
            loop {
                match self.document_once(endpoint, target, &headers).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(error) => attempts.again(error, false).await?,
                }
            }
        })
        .await
    }

    /// Tries the mirrors in order, then the registry itself, whose error counts.
    async fn anywhere<T>(
        &self,
        mut from: impl AsyncFnMut(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut failure = None;
        for endpoint in &self.endpoints {
            match from(endpoint).await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    tracing::debug!(registry = endpoint.registry, %error, "registry failed");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| RegistryError::Address(self.name.clone())))
    }

    async fn document_once(
        &self,
        endpoint: &Endpoint,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Fetched, RegistryError> {
        let (url, answer) = self.get(endpoint, target, headers).await?;
        check_encoding(&url, &answer.headers)?;
        let media_type = answer
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        match answer.body.collect(MAX_DOCUMENT).await? {
            Some(bytes) => Ok(Fetched { bytes, media_type }),
            None => Err(RegistryError::TooLarge { url }),
        }
    }

    async fn blob_once(
        &self,
        endpoint: &Endpoint,
        target: &str,
        blob: &Blob,
        received: &mut u64,
        pieces: &Pieces,
    ) -> Result<(), RegistryError> {
        let resume = *received;
        if resume == blob.size && resume > 0 {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if resume > 0
            && let Ok(range) = header_value(&format!("bytes={resume}-"))
        {
            headers.insert(header::RANGE, range);
        }
        let (url, answer) = self.get(endpoint, target, &headers).await?;
        check_encoding(&url, &answer.headers)?;
        // A server may ignore the range and start over; what we have is then skipped, not taken twice.
        let mut skip = match answer.status {
            StatusCode::PARTIAL_CONTENT if range_starts_at(&answer.headers, resume) => 0,
            StatusCode::PARTIAL_CONTENT => return Err(RegistryError::Range { url }),
            _ => resume,
        };
        let wanted = blob.size - resume + skip;
        if let Some(told) = content_length(&answer.headers).filter(|told| *told != wanted) {
            return Err(RegistryError::Length { url, told, wanted });
        }
        let patience = self.client.patience().stall;
        let (mut since, mut progress) = (Instant::now(), 0u64);
        let mut body = answer.body;
        while let Some(mut piece) = body.next().await? {
            progress += piece.len() as u64;
            if since.elapsed() > patience {
                if progress < MIN_PROGRESS {
                    return Err(RegistryError::Slow { url, patience });
                }
                (since, progress) = (Instant::now(), 0);
            }
            let skipped = skip.min(piece.len() as u64);
            // `skipped` is at most the piece's length, so it fits.
            bytes::Buf::advance(&mut piece, skipped as usize);
            skip -= skipped;
            if piece.is_empty() {
                continue;
            }
            if *received + piece.len() as u64 > blob.size {
                let told = *received + piece.len() as u64;
                return Err(RegistryError::Length {
                    url,
                    told,
                    wanted: blob.size,
                });
            }
            *received += piece.len() as u64;
            if pieces.send(piece).await.is_err() {
                return Ok(());
            }
            // Waiting for the unpacker is not the registry's slowness.
            if pieces.capacity() == 0 {
                (since, progress) = (Instant::now(), 0);
            }
        }
        if *received < blob.size {
            return Err(RegistryError::Short {
                url,
                received: *received,
                wanted: blob.size,
            });
        }
        Ok(())
    }

    /// One request with authentication and redirects; any answer but success is an error.
    async fn get(
        &self,
        endpoint: &Endpoint,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<(String, Answer), RegistryError> {
        let start = endpoint.origin.url(target);
        // Once without or with what we have, once more if that was refused.
        let mut refused = false;
        loop {
            let authorization = self.tokens.current(&endpoint.origin);
            let (url, answer) = self.follow(&start, headers, authorization.as_deref()).await?;
            let shown = url.to_string();
            if answer.status == StatusCode::UNAUTHORIZED && url.origin == endpoint.origin && !refused {
                refused = authorization.is_some();
                self.authenticate(endpoint, &shown, &answer.headers).await?;
                // The body of the refusal is small; reading it frees the connection.
                let _ = answer.body.collect(MAX_ERROR_BODY).await;
                continue;
            }
            if answer.status.is_success() {
                return Ok((shown, answer));
            }
            return Err(failure(shown, answer).await);
        }
    }

    async fn authenticate(
        &self,
        endpoint: &Endpoint,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<(), RegistryError> {
        let offered: Vec<&str> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let challenges: Vec<Challenge> = offered.iter().flat_map(|text| parse_challenge(text)).collect();
        let granted = self
            .tokens
            .obtain(
                &self.client,
                &endpoint.registry,
                &endpoint.origin,
                &self.name,
                &challenges,
                &self.config.token_services,
            )
            .await?;
        if granted {
            return Ok(());
        }
        let url = url.to_owned();
        Err(match challenges.contains(&Challenge::Basic) {
            true => RegistryError::NoCredentials { url },
            false => RegistryError::NoChallenge {
                url,
                offered: offered.join(", ").chars().take(200).collect(),
            },
        })
    }

    /// Follows redirects. What was meant for one origin is not shown to another.
    async fn follow(
        &self,
        start: &Url,
        headers: &HeaderMap,
        authorization: Option<&str>,
    ) -> Result<(Url, Answer), RegistryError> {
        let mut url = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut ask = Ask {
                headers: headers.clone(),
                form: None,
            };
            if let Some(authorization) = authorization.filter(|_| url.origin == start.origin) {
                let mut value = header_value(authorization).map_err(HttpError::Request)?;
                value.set_sensitive(true);
                ask.headers.insert(header::AUTHORIZATION, value);
            }
            let answer = self.client.send(&url, &ask).await?;
            if !answer.status.is_redirection() || answer.status == StatusCode::NOT_MODIFIED {
                return Ok((url, answer));
            }
            let shown = url.to_string();
            let location = answer
                .headers
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| RegistryError::RedirectNowhere { url: shown.clone() })?;
            let next = url.join(location).map_err(|source| RegistryError::Redirect {
                url: shown.clone(),
                source,
            })?;
            if url.origin.tls && !next.origin.tls {
                return Err(RegistryError::Downgrade { url: shown });
            }
            let _ = answer.body.collect(MAX_ERROR_BODY).await;
            url = next;
        }
        Err(RegistryError::TooManyRedirects {
            url: start.to_string(),
        })
    }
}

/// Counts attempts and waits between them.
struct Attempts<'a> {
    retry: &'a Retry,
    without_progress: u32,
    in_all: u32,
}

impl<'a> Attempts<'a> {
    fn new(retry: &'a Retry) -> Attempts<'a> {
        Attempts {
            retry,
            without_progress: 0,
            in_all: 0,
        }
    }

    /// Waits before the next attempt, or gives the error back if there should be none. Progress earns patience, but
    /// not without end: a registry that sends a few bytes and breaks off is not worth a thousand connections.
    async fn again(&mut self, error: RegistryError, progress: bool) -> Result<(), RegistryError> {
        self.without_progress = if progress { 0 } else { self.without_progress };
        self.without_progress += 1;
        self.in_all += 1;
        if !error.is_transient()
            || self.without_progress >= self.retry.attempts
            || self.in_all >= self.retry.attempts.saturating_mul(8)
        {
            return Err(error);
        }
        let doubled = 1u32 << (self.without_progress - 1).min(16);
        let delay = self
            .retry
            .first_delay
            .saturating_mul(doubled)
            .min(self.retry.max_delay);
        let delay = match error.retry_after() {
            // Who asks for more patience than we have is told so by giving up.
            Some(told) if told > self.retry.max_delay.saturating_mul(3) => return Err(error),
            Some(told) => told.max(delay),
            None => jittered(delay),
        };
        tracing::debug!(%error, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Between half and the whole delay, so that pods started together do not come back together.
fn jittered(delay: Duration) -> Duration {
    let random = (uuid::Uuid::new_v4().as_u128() & 0xff) as u32;
    delay / 2 + delay.saturating_mul(random) / 512
}

fn check_encoding(url: &str, headers: &HeaderMap) -> Result<(), RegistryError> {
    match headers
        .get(header::CONTENT_ENCODING)
        .map(|value| value.as_bytes())
    {
        None | Some(b"" | b"identity") => Ok(()),
        Some(other) => Err(RegistryError::Encoded {
            url: url.to_owned(),
            encoding: String::from_utf8_lossy(other).chars().take(50).collect(),
        }),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn range_starts_at(headers: &HeaderMap, start: u64) -> bool {
    headers
        .get(header::CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|value| value.split('-').next())
        .and_then(|first| first.parse::<u64>().ok())
        == Some(start)
}

/// Turns an answer that is no success into an error with the registry's own words.
async fn failure(url: String, answer: Answer) -> RegistryError {
    let status = answer.status;
    let retry_after = retry_after(&answer.headers);
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

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = http_date(text)?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form in use.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split_ascii_whitespace();
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month_name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == month_name)? as u64 + 1;
    let year: u64 = words
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days since 1970 by counting leap days, with the year starting in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
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
    fn retry_after_in_both_forms() {
        let headers = |text: &'static str| {
            HeaderMap::from_iter([(header::RETRY_AFTER, header::HeaderValue::from_static(text))])
        };
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT")),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after(&headers("soon")), None);
        let at = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(
            at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
            784_111_777
        );
        let leap = http_date("Thu, 29 Feb 2024 00:00:00 GMT").unwrap();
        assert_eq!(
            leap.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
            1_709_164_800
        );
    }

    #[test]
    fn registries_own_words_are_shortened() {
        let body = br#"{"errors":[{"code":"DENIED","message":"go\n away"}]}"#;
        assert_eq!(error_detail(body), ": go away");
        assert_eq!(error_detail(b"<html>"), "");
        assert_eq!(error_detail(br#"{"errors":[]}"#), "");
    }
}
