//! Where a redirect leads. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Uri;

use crate::group::probe::request_target;

/// What a request is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub tls: bool,
    pub address: SocketAddr,
    pub target: String,
}

impl Place {
    /// The value of the header `Host`.
    pub fn host(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        match (self.address.ip(), self.address.port()) {
            (ip, port) if port != default => SocketAddr::new(ip, port).to_string(),
            (IpAddr::V4(ip), _) => ip.to_string(),
            (IpAddr::V6(ip), _) => format!("[{ip}]"),
        }
    }

    /// Where a `Location` leads from here; `None` if that is no place we could ask: another machine by its name, or
    /// another protocol. The name `localhost` is where we are.
    pub fn follow(&self, location: &str) -> Option<Place> {
        let location = location.split('#').next().unwrap_or_default();
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.tls { "https" } else { "http" };
            return self.elsewhere(&format!("{scheme}://{rest}"));
        }
        // A colon before any slash is behind a scheme.
        let scheme = location.split(['/', '?']).next().unwrap_or_default();
        if scheme.contains(':') {
            return self.elsewhere(location);
        }
        let target = match location {
            "" => self.target.clone(),
            absolute if absolute.starts_with('/') => request_target(absolute),
            query if query.starts_with('?') => {
                let path = self.target.split('?').next().unwrap_or_default();
                request_target(&format!("{path}{query}"))
            }
            relative => {
                let path = self.target.split('?').next().unwrap_or_default();
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                request_target(&format!("{directory}/{relative}"))
            }
        };
        Some(Place {
            target,
            ..self.clone()
        })
    }

    fn elsewhere(&self, url: &str) -> Option<Place> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?;
        let ip = match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(ip) => ip,
            Err(_) if host.eq_ignore_ascii_case("localhost") => match self.address.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            },
            Err(_) => return None,
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Some(Place {
            tls,
            address: SocketAddr::new(ip, port),
            target: request_target(target),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Place {
        Place {
            tls: false,
            address: "127.0.0.1:8080".parse().unwrap(),
            target: "/a/b?c=d".into(),
        }
    }

    fn led(location: &str) -> Option<String> {
        here().follow(location).map(|place| {
            let scheme = if place.tls { "https" } else { "http" };
            format!("{scheme}://{}{}", place.address, place.target)
        })
    }

    #[test]
    fn locations_lead_where_urls_lead() {
        for (location, place) in [
            ("/x?y#z", Some("http://127.0.0.1:8080/x?y")),
            ("x", Some("http://127.0.0.1:8080/a/x")),
            ("?q", Some("http://127.0.0.1:8080/a/b?q")),
            ("", Some("http://127.0.0.1:8080/a/b?c=d")),
            ("http://localhost:81/x", Some("http://127.0.0.1:81/x")),
            ("https://LOCALHOST/", Some("https://127.0.0.1:443/")),
            ("http://[::1]:82", Some("http://[::1]:82/")),
            ("http://10.1.2.3/x", Some("http://10.1.2.3:80/x")),
            ("//127.0.0.1:83/x", Some("http://127.0.0.1:83/x")),
            ("https://example.com/login", None),
            ("ftp://127.0.0.1/x", None),
            ("javascript:alert(1)", None),
            ("http://", None),
            ("http://user@[::1", None),
            ("/a\r\nX: y", Some("http://127.0.0.1:8080/a%0D%0AX:%20y")),
        ] {
            assert_eq!(led(location).as_deref(), place, "{location:?}");
        }
    }

    #[test]
    fn the_host_is_named_as_clients_do() {
        let host = |address: &str, tls| {
            let place = Place {
                tls,
                address: address.parse().unwrap(),
                target: "/".into(),
            };
            place.host()
        };
        assert_eq!(host("127.0.0.1:80", false), "127.0.0.1");
        assert_eq!(host("127.0.0.1:80", true), "127.0.0.1:80");
        assert_eq!(host("[::1]:443", true), "[::1]");
        assert_eq!(host("[::1]:8080", false), "[::1]:8080");
    }
}
