//! The few URLs a registry client meets: of registries, token services and redirects.

use std::fmt;

use hyper::Uri;

/// Where a connection goes; what credentials are bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub tls: bool,
    /// Lower case, an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

/// An origin and what to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub origin: Origin,
    /// Path and query, starting with a slash.
    pub target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{0:?} is not a URL")]
    Form(String),
    #[error("{0:?} is neither http nor https")]
    Scheme(String),
}

impl Origin {
    /// Host and port as a `Host` header has them.
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == default {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    pub fn url(&self, target: impl Into<String>) -> Url {
        Url {
            origin: self.clone(),
            target: target.into(),
        }
    }
}

impl Url {
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let shown = || text.chars().take(200).collect::<String>();
        let uri: Uri = text.parse().map_err(|_| UrlError::Form(shown()))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(UrlError::Scheme(shown())),
            None => return Err(UrlError::Form(shown())),
        };
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| UrlError::Form(shown()))?;
        // Behind the host there may be a port and nothing else; user information before it is never meant well.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority != host && uri.port_u16().is_none() || authority.contains('@') {
            return Err(UrlError::Form(shown()));
        }
        Ok(Url {
            origin: Origin {
                tls,
                host: host.trim_matches(['[', ']']).to_ascii_lowercase(),
                port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            },
            target: uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
        })
    }

    /// What a `Location` header means, seen from here.
    pub fn join(&self, location: &str) -> Result<Url, UrlError> {
        match location.strip_prefix('/') {
            Some(rest) if rest.starts_with('/') => {
                let scheme = if self.origin.tls { "https:" } else { "http:" };
                Url::parse(&format!("{scheme}{location}"))
            }
            Some(_) => Url::parse(&format!("{}{location}", self.origin)),
            None => Url::parse(location),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Without the query: it may carry a signature.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{}{path}", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_redirects() {
        let base = Url::parse("https://R.example:5000/v2/a").unwrap();
        assert_eq!(base.to_string(), "https://r.example:5000/v2/a");
        let joined = |location: &str| {
            base.join(location)
                .map(|url| format!("{} {}", url.origin, url.target))
        };
        assert_eq!(joined("/b?x=1").unwrap(), "https://r.example:5000 /b?x=1");
        assert_eq!(joined("//c.example/b").unwrap(), "https://c.example /b");
        assert_eq!(joined("http://[::1]:80/").unwrap(), "http://[::1] /");
        for odd in [
            "file:///etc/passwd",
            "ftp://a/b",
            "gopher:x",
            "",
            "b",
            "https://",
            "https://user:pw@a/b",
            "https://a b/",
            "http://a:99999/",
            "//",
        ] {
            assert!(joined(odd).is_err(), "{odd} was accepted");
        }
    }
}
