//! One repository: its documents and blobs, from the first of its places that has them.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, header};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Challenge, Client, Endpoint, Fetched, HttpError, MAX_ERROR_BODY, MAX_REDIRECTS, MIN_PROGRESS,
    RegistryConfig, RegistryError, Url, failure,
    http::{Answer, Ask, header_value},
    parse_challenge,
    retry::Attempts,
    token::Tokens,
};
use crate::image::document::{ACCEPT, Blob, MAX_DOCUMENT};

/// One repository for the length of a pull.
#[derive(Debug)]
pub struct Repository {
    pub(super) client: Client,
    pub(super) config: Arc<RegistryConfig>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) name: String,
    pub(super) tokens: Tokens,
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
