//! Under which name others reach us.

use std::net::SocketAddr;

use axum::http::{HeaderMap, header, uri::Authority};

/// What answers name as our address.
#[derive(Debug, Clone)]
pub struct Address {
    /// `host:port`.
    name: String,
    /// Nobody has given us a name and we listen at every address: whoever asks knows one that leads here.
    as_asked: bool,
}

impl Address {
    /// `hostname`: what the operator says; without it, the address we listen at, if it is one.
    pub fn new(listen: SocketAddr, hostname: Option<&str>) -> Self {
        let port = listen.port();
        let name = match hostname {
            // An IPv6 address in the place of a name.
            Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
            Some(host) => format!("{host}:{port}"),
            None => listen.to_string(),
        };
        Address {
            name,
            as_asked: hostname.is_none() && listen.ip().is_unspecified(),
        }
    }

    /// The name for whoever sent these headers.
    pub(super) fn told(&self, headers: &HeaderMap) -> String {
        let host = || {
            headers
                .get(header::HOST)?
                .to_str()
                .ok()?
                .parse::<Authority>()
                .ok()
        };
        match host().filter(|host| self.as_asked && !host.as_str().contains('@')) {
            Some(host) => host.to_string(),
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn told(listen: &str, hostname: Option<&str>, host: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        Address::new(listen.parse().unwrap(), hostname).told(&headers)
    }

    #[test]
    fn nobody_is_sent_to_the_address_that_means_all() {
        for (listen, hostname, host, name) in [
            ("127.0.0.1:80", None, Some("evil:1"), "127.0.0.1:80"),
            ("0.0.0.0:80", Some("s.example"), Some("x:1"), "s.example:80"),
            ("0.0.0.0:80", Some("fd00::1"), None, "[fd00::1]:80"),
            ("0.0.0.0:80", None, Some("s.example:8080"), "s.example:8080"),
            ("[::]:80", None, Some("[fd00::1]:80"), "[fd00::1]:80"),
            ("0.0.0.0:80", None, Some("a b"), "0.0.0.0:80"),
            ("0.0.0.0:80", None, Some("u@x:1"), "0.0.0.0:80"),
            ("0.0.0.0:80", None, None, "0.0.0.0:80"),
        ] {
            assert_eq!(
                told(listen, hostname, host),
                name,
                "{listen} {hostname:?} {host:?}"
            );
        }
    }
}
