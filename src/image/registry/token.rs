//! From a challenge to an `Authorization` header: Basic, or a token from the registry's token service.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{StatusCode, header};
use serde::Deserialize;

use super::{
    challenge::Challenge,
    credentials::{Credential, CredentialError, Credentials},
    http::{Ask, Client, HttpError, header_value},
    url::{Origin, Url, UrlError},
};

const MAX_ANSWER: u64 = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the registry names an unusable token service")]
    Realm(#[source] UrlError),
    #[error(
        "the token service {0} is not reached by https though the registry is; credentials are not sent there"
    )]
    PlainRealm(String),
    #[error(
        "the token service {realm} does not belong to the registry {registry}; credentials are not sent there \
         (list it under token_services if it should be trusted)"
    )]
    ForeignRealm { realm: String, registry: String },
    #[error("the token service cannot be asked")]
    Http(#[from] HttpError),
    #[error("the token service {realm} answered {status}")]
    Status { realm: String, status: StatusCode },
    #[error("the token service {realm} answered with something that is no token")]
    Answer { realm: String },
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

impl TokenError {
    pub fn is_transient(&self) -> bool {
        match self {
            TokenError::Http(error) => error.is_transient(),
            TokenError::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        None
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The authorizations of one pull. They are asked for again when a registry refuses them, which is also how one finds
/// out that they have expired.
#[derive(Debug)]
pub(super) struct Tokens {
    credentials: Credentials,
    /// Locked only to read or write an entry, never across an await.
    current: Mutex<HashMap<Origin, String>>,
}

impl Tokens {
    pub(super) fn new(credentials: Credentials) -> Tokens {
        Tokens {
            credentials,
            current: Mutex::default(),
        }
    }

    /// The header value for an origin, if there is one already.
    pub(super) fn current(&self, origin: &Origin) -> Option<String> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(origin)
            .cloned()
    }

    /// Answers a challenge; `false` if none of the offers can be taken.
    pub(super) async fn obtain(
        &self,
        client: &Client,
        registry: &str,
        origin: &Origin,
        repository: &str,
        challenges: &[Challenge],
        trusted: &[String],
    ) -> Result<bool, TokenError> {
        let credential = self.credentials.for_registry(registry).await?;
        let authorization = match (&credential, first_bearer(challenges)) {
            (Some(Credential::RegistryToken(token)), _) => format!("Bearer {token}"),
            (credential, Some((realm, service, scope))) => {
                let realm = Url::parse(realm).map_err(TokenError::Realm)?;
                if credential.is_some() {
                    may_see_credentials(&realm, registry, origin, trusted)?;
                }
                let own_scope = format!("repository:{repository}:pull");
                let scope = scope.unwrap_or(&own_scope);
                let token = ask(client, &realm, service, scope, credential.as_ref()).await?;
                format!("Bearer {token}")
            }
            (Some(credential @ Credential::Password { .. }), None)
                if challenges.contains(&Challenge::Basic) =>
            {
                basic(credential).unwrap_or_default()
            }
            _ => return Ok(false),
        };
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(origin.clone(), authorization);
        Ok(true)
    }
}

/// Token services beat Basic: what is sent to the registry then is worth nothing elsewhere.
fn first_bearer(challenges: &[Challenge]) -> Option<(&str, Option<&str>, Option<&str>)> {
    challenges.iter().find_map(|challenge| match challenge {
        Challenge::Bearer {
            realm,
            service,
            scope,
        } => Some((realm.as_str(), service.as_deref(), scope.as_deref())),
        Challenge::Basic => None,
    })
}

/// A registry names its token service itself, so a registry that was taken over could name a stranger's. Credentials
/// go only to the registry's own host or domain, or to a service that the operator trusts, and never from https to http.
fn may_see_credentials(
    realm: &Url,
    registry: &str,
    origin: &Origin,
    trusted: &[String],
) -> Result<(), TokenError> {
    if origin.tls && !realm.origin.tls {
        return Err(TokenError::PlainRealm(realm.to_string()));
    }
    let host = realm.origin.host.as_str();
    let is_trusted = |name: &String| *name == host || *name == realm.origin.authority();
    if host == origin.host || same_domain(host, &origin.host) || trusted.iter().any(is_trusted) {
        return Ok(());
    }
    Err(TokenError::ForeignRealm {
        realm: realm.origin.to_string(),
        registry: registry.to_owned(),
    })
}

/// `auth.docker.io` belongs to `registry-1.docker.io`, and `gitlab.example.com` to `registry.example.com`.
fn same_domain(realm: &str, registry: &str) -> bool {
    let is_address = |host: &str| host.parse::<std::net::IpAddr>().is_ok();
    if is_address(realm) || is_address(registry) {
        return false;
    }
    let domain = match registry.split_once('.') {
        Some((_, domain)) if domain.contains('.') => domain,
        Some(_) => registry,
        None => return false,
    };
    realm == domain || realm.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn basic(credential: &Credential) -> Option<String> {
    match credential {
        Credential::Password { user, password } => {
            let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
            Some(format!("Basic {pair}"))
        }
        Credential::IdentityToken(_) | Credential::RegistryToken(_) => None,
    }
}

async fn ask(
    client: &Client,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    credential: Option<&Credential>,
) -> Result<String, TokenError> {
    let mut ask = Ask::default();
    let mut query = format!("scope={}", escape(scope));
    if let Some(service) = service {
        query.push_str(&format!("&service={}", escape(service)));
    }
    let mut url = realm.clone();
    if let Some(Credential::IdentityToken(token)) = credential {
        let token = escape(token);
        ask.form = Some(format!(
            "grant_type=refresh_token&client_id=podling&refresh_token={token}&{query}"
        ));
    } else {
        let glue = if url.target.contains('?') { '&' } else { '?' };
        url.target = format!("{}{glue}{query}", url.target);
        if let Some(basic) = credential.and_then(basic) {
            let mut value = header_value(&basic).map_err(HttpError::Request)?;
            value.set_sensitive(true);
            ask.headers.insert(header::AUTHORIZATION, value);
        }
    }
    // Redirects are not followed here: they could lead credentials astray and no token service needs them.
    let answer = client.send(&url, &ask).await?;
    let realm = realm.to_string();
    if !answer.status.is_success() {
        return Err(TokenError::Status {
            realm,
            status: answer.status,
        });
    }
    let body = answer.body.collect(MAX_ANSWER).await?;
    let parsed: Option<TokenAnswer> = body.and_then(|body| serde_json::from_slice(&body).ok());
    parsed
        .and_then(|answer| answer.token.or(answer.access_token))
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(TokenError::Answer { realm })
}

fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            // Writing to a String cannot fail.
            other => drop(write!(out, "%{other:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i5_credentials_go_to_the_registrys_own_token_service_only() {
        let allowed = |realm: &str, registry: &str, tls: bool| {
            let origin = Origin {
                tls,
                host: registry.into(),
                port: 443,
            };
            let trusted = ["trusted.example".to_owned()];
            may_see_credentials(&Url::parse(realm).unwrap(), registry, &origin, &trusted).is_ok()
        };
        for (realm, registry) in [
            ("https://auth.docker.io/token", "registry-1.docker.io"),
            ("https://ghcr.io/token", "ghcr.io"),
            ("https://auth.ghcr.io/token", "ghcr.io"),
            ("https://gitlab.example.com/jwt", "registry.example.com"),
            ("https://127.0.0.1:5001/token", "127.0.0.1"),
            ("https://trusted.example/token", "r.io"),
        ] {
            assert!(allowed(realm, registry, true), "{realm} for {registry}");
        }
        for (realm, registry) in [
            ("http://auth.docker.io/token", "registry-1.docker.io"),
            ("https://evil.example/token", "registry-1.docker.io"),
            ("https://evildocker.io/token", "registry-1.docker.io"),
            ("https://docker.io.evil.example/", "registry-1.docker.io"),
            ("https://evil.io/token", "ghcr.io"),
            ("https://127.0.0.2/token", "127.0.0.1"),
            ("https://1.0.0.1/token", "127.0.0.1"),
            ("https://localhost/token", "127.0.0.1"),
            ("https://evil/token", "registry"),
        ] {
            assert!(!allowed(realm, registry, true), "{realm} for {registry}");
        }
        assert!(allowed("http://r.example/token", "r.example", false));
    }

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(
            escape("repository:a/b:pull &x=é"),
            "repository%3Aa%2Fb%3Apull%20%26x%3D%C3%A9"
        );
    }
}
