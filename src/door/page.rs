//! What a web page could have made a browser send, told by the head of a request alone.

use std::{collections::BTreeSet, net::IpAddr};

use hyper::{
    HeaderMap, Method, Uri,
    header::{CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, ORIGIN, REFERER},
};

use super::keeper::Refusal;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The names under which we may be addressed, beside this machine's own for itself.
#[derive(Debug, Clone, Default)]
pub struct Names {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Names {
    /// Adds a host's name or address, as an operator gives it: with or without a port.
    pub fn add(&mut self, name: &str) {
        match Authority::parse(name.as_bytes()) {
            Some(Authority {
                host: Host::Address(ip),
                ..
            }) => drop(self.addresses.insert(ip)),
            Some(Authority {
                host: Host::Name(name),
                ..
            }) => drop(self.names.insert(name)),
            None => {}
        }
    }

    /// `reached`: our address, as this connection shows it.
    fn knows(&self, host: &Host, reached: IpAddr) -> bool {
        match host {
            // No name server has a say in an address.
            Host::Address(ip) => ip.is_loopback() || *ip == reached || self.addresses.contains(ip),
            Host::Name(name) => {
                name == "localhost" || name.ends_with(".localhost") || self.names.contains(name)
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    host: Host,
    port: Option<u16>,
}

impl Authority {
    /// `host`, `host:port`, `[::1]:port`.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (
                    Host::Address(address.parse::<std::net::Ipv6Addr>().ok()?.into()),
                    port,
                )
            }
            None => {
                let (name, port) = text.find(':').map_or((text, ""), |colon| text.split_at(colon));
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                if name.is_empty() || !name.bytes().all(valid) {
                    return None;
                }
                let address = name.parse::<std::net::Ipv4Addr>();
                (
                    address.map_or(Host::Name(name), |ip| Host::Address(ip.into())),
                    port,
                )
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if port.is_empty() => None,
            _ => return None,
        };
        let host = match host {
            Host::Address(ip) => Host::Address(ip.to_canonical()),
            name => name,
        };
        Some(Authority { host, port })
    }
}

/// Refuses what a page of somebody else's could be behind.
///
/// `reached`: our address, as the connection shows it; none on UNIX sockets, which no page can reach.
pub(super) fn judge(
    names: &Names,
    reached: Option<IpAddr>,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
) -> Result<(), Refusal> {
    let Some(reached) = reached else { return Ok(()) };
    let host = host(names, reached, uri, headers)?;
    if let Some(origin) = only(headers, &ORIGIN, "Origin")? {
        own_origin(origin, host.as_ref())?;
    }
    // Set by browsers alone, and out of a page's reach: who made the browser send this.
    if let Some(site) = only(headers, &FETCH_SITE, "Sec-Fetch-Site")?
        && !matches!(site.as_bytes(), b"same-origin" | b"none")
    {
        return Err(Refusal::forbidden("this API is not for other sites' pages"));
    }
    match *method == Method::GET || *method == Method::HEAD {
        true => Ok(()),
        false => content_type(headers),
    }
}

/// Against DNS rebinding: a page's own name that leads to us.
fn host(
    names: &Names,
    reached: IpAddr,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Authority>, Refusal> {
    let header = only(headers, &HOST, "Host")?.map(HeaderValue::as_bytes);
    let asked = uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut found = None;
    for text in [header, asked].into_iter().flatten() {
        let authority = Authority::parse(text).filter(|authority| names.knows(&authority.host, reached));
        found = Some(authority.ok_or_else(|| {
            let host: String = String::from_utf8_lossy(text).chars().take(100).collect();
            Refusal::forbidden(format!(
                "{host:?} is no name of this server; if it is to be, start it with --hostname"
            ))
        })?);
    }
    // Of HTTP/1.0; browsers always say.
    Ok(found)
}

/// A browser's word for the page that is behind a request: ours, or nobody's.
fn own_origin(origin: &HeaderValue, host: Option<&Authority>) -> Result<(), Refusal> {
    let parsed = std::str::from_utf8(origin.as_bytes()).ok().and_then(|text| {
        let (scheme, authority) = text.split_once("://")?;
        let standard = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = Authority::parse(authority.as_bytes())?;
        Some((authority.host, authority.port.unwrap_or(standard), standard))
    });
    let same = matches!((parsed, host), (Some((origin, port, standard)), Some(host))
        if origin == host.host && port == host.port.unwrap_or(standard));
    match same {
        true => Ok(()),
        false => Err(Refusal::forbidden("this API is not for pages of another origin")),
    }
}

/// Types that a page may send anywhere without being asked for permission first are refused. `curl -d` says
/// `application/x-www-form-urlencoded` of whatever it sends: that is taken where nothing else looks like a browser.
fn content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = only(headers, &CONTENT_TYPE, "Content-Type")? else {
        return Ok(());
    };
    let kind = value
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    let kind = kind.trim_ascii().to_ascii_lowercase();
    let json = kind == b"application/json"
        || kind == b"text/json"
        || kind.starts_with(b"application/") && kind.ends_with(b"+json");
    let traces = [ORIGIN, REFERER, COOKIE, FETCH_SITE, FETCH_MODE];
    let plain_form = || {
        kind == b"application/x-www-form-urlencoded" && !traces.iter().any(|name| headers.contains_key(name))
    };
    let other = [
        &b"application/x-protobuf"[..],
        b"application/octet-stream",
        b"application/x-yaml",
        b"application/yaml",
    ];
    match kind.is_empty() || json || other.contains(&&kind[..]) || plain_form() {
        true => Ok(()),
        false => Err(Refusal::new(
            415,
            format!(
                "expected Content-Type: application/json, not {:?}",
                String::from_utf8_lossy(&kind)
                    .chars()
                    .take(100)
                    .collect::<String>()
            ),
        )),
    }
}

/// A header that comes twice means one thing to us and another to somebody else.
fn only<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    shown: &str,
) -> Result<Option<&'h HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        Some(_) => Err(Refusal::new(400, format!("more than one {shown}"))),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn status(method: Method, uri: &str, headers: &[(&str, &str)]) -> u16 {
        let mut names = Names::default();
        names.add("pods.example:8080");
        names.add("192.0.2.9");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        match judge(&names, Some(HERE), (&method, &uri.parse().unwrap(), &map)) {
            Ok(()) => 200,
            Err(refusal) => refusal.status,
        }
    }

    #[test]
    fn only_our_own_names_are_ours() {
        for host in [
            "127.0.0.1:8080",
            "127.9.9.9",
            "localhost:1",
            "LocalHost.",
            "a.localhost",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
            "10.0.0.7:80",
            "192.0.2.9",
            "Pods.example:9",
        ] {
            assert_eq!(status(Method::GET, "/", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "10.0.0.8",
            "[::2]",
            "",
            "[::1",
            "localhost:http",
            "localhost:99999",
            "127.0.0.1@evil.example",
            "0x7f000001",
            "evil.pods.example",
        ] {
            assert_eq!(status(Method::GET, "/", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(
            status(Method::GET, "http://evil.example/", &[("host", "localhost")]),
            403
        );
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(status(Method::GET, "/", &twice), 400);
        assert_eq!(status(Method::GET, "/", &[]), 200, "HTTP/1.0");
    }

    #[test]
    fn pages_of_other_origins_get_nothing() {
        let get = |origin| {
            status(
                Method::GET,
                "/",
                &[("host", "localhost:8080"), ("origin", origin)],
            )
        };
        assert_eq!(get("http://localhost:8080"), 200);
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:8080",
            "file://",
            "localhost:8080",
            "",
        ] {
            assert_eq!(get(origin), 403, "{origin}");
        }
        let standard = [("host", "pods.example"), ("origin", "https://pods.example")];
        assert_eq!(status(Method::GET, "/", &standard), 200);
        for (site, expected) in [
            ("same-origin", 200),
            ("none", 200),
            ("cross-site", 403),
            ("same-site", 403),
        ] {
            assert_eq!(
                status(Method::GET, "/", &[("sec-fetch-site", site)]),
                expected,
                "{site}"
            );
        }
    }

    #[test]
    fn what_a_page_may_send_unasked_is_no_content_of_ours() {
        let post = |headers: &[(&str, &str)]| status(Method::POST, "/", headers);
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            "application/x-protobuf",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(post(&[("content-type", kind)]), 200, "{kind}");
        }
        assert_eq!(post(&[]), 200);
        for kind in [
            "text/plain",
            "text/plain; application/json",
            "multipart/form-data; boundary=x",
            "text/plain;charset=application/json",
            "application",
            "image/png+json",
        ] {
            assert_eq!(post(&[("content-type", kind)]), 415, "{kind}");
        }
        let form = ("content-type", "application/x-www-form-urlencoded");
        let own = [("host", "localhost"), ("origin", "http://localhost"), form];
        assert_eq!(post(&own), 415);
        for trace in ["referer", "cookie", "sec-fetch-mode"] {
            assert_eq!(post(&[form, (trace, "x")]), 415, "{trace}");
        }
        assert_eq!(
            post(&[
                ("content-type", "application/json"),
                ("content-type", "text/plain")
            ]),
            400
        );
    }

    #[test]
    fn no_page_reaches_a_unix_socket() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("evil.example"));
        let uri = Uri::from_static("/");
        assert!(judge(&Names::default(), None, (&Method::GET, &uri, &headers)).is_ok());
    }
}
