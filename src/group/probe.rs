//! What the checks of a member look at, and what they saw.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use super::ExitStatus;
use crate::mesos::v1::{
    CheckInfo, CommandInfo, HealthCheck, check_info, health_check, network_info::Protocol,
};

/// One look at a member.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    Http(Box<HttpProbe>),
    Tcp(SocketAddr),
    Exec(Box<CommandInfo>),
}

/// A request, and what is a good answer to it.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    pub method: String,
    pub tls: Option<Tls>,
    /// On the loopback interface of the member's network (H-12).
    pub address: SocketAddr,
    /// Path and query, fit for a request line.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub good: Vec<RangeInclusive<u16>>,
    /// What the body has to contain.
    pub body: Option<String>,
}

/// Whom to take for the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Whoever answers, as Mesos does (H-10).
    Anyone,
    /// Whoever has a certificate for this name, from an authority that this machine trusts.
    Named(String),
}

/// What a probe has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub sight: Sight,
    pub took: Duration,
    /// What a command said last, or where a redirect led.
    pub words: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// HTTP: the answer's status.
    Status(u16),
    /// The same, but the body was not what it should be.
    OddBody(u16),
    /// TCP: somebody listens.
    Connected,
    /// The command has ended.
    Exited(ExitStatus),
    /// It came to nothing; says how.
    Failed(String),
    /// The time-out was over first.
    TooLate,
    /// We could not even try. Not the member's fault, so it does not count (H-18).
    Untried(String),
}

/// What [`Seen`] means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Bad,
    Unknown,
}

impl Probe {
    pub fn of_health_check(check: &HealthCheck) -> Option<Probe> {
        match check.r#type() {
            health_check::Type::Command => check.command.clone().map(Probe::exec),
            health_check::Type::Http => check.http.as_ref().map(|http| {
                let tls = (http.scheme.as_deref() == Some("https")).then_some(Tls::Anyone);
                let address = loopback(http.protocol(), http.port);
                Probe::http(tls, address, http.path.as_deref().unwrap_or("/"))
            }),
            // H-13
            health_check::Type::Tcp => check
                .tcp
                .as_ref()
                .map(|tcp| Probe::Tcp(loopback(tcp.protocol(), tcp.port))),
            health_check::Type::Unknown => None,
        }
    }

    pub fn of_check(check: &CheckInfo) -> Option<Probe> {
        match check.r#type() {
            check_info::Type::Command => check.command.as_ref().map(|c| Probe::exec(c.command.clone())),
            // C-05
            check_info::Type::Http => check.http.as_ref().map(|http| {
                let address = loopback(Protocol::IPv4, http.port);
                Probe::http(None, address, http.path.as_deref().unwrap_or("/"))
            }),
            check_info::Type::Tcp => check
                .tcp
                .as_ref()
                .map(|tcp| Probe::Tcp(loopback(Protocol::IPv4, tcp.port))),
            check_info::Type::Unknown => None,
        }
    }

    pub fn exec(command: CommandInfo) -> Probe {
        Probe::Exec(Box::new(command))
    }

    /// A GET that any status from 200 to 399 is a good answer to (H-10).
    fn http(tls: Option<Tls>, address: SocketAddr, path: &str) -> Probe {
        Probe::Http(Box::new(HttpProbe {
            method: "GET".into(),
            tls,
            address,
            target: request_target(path),
            headers: Vec::new(),
            good: vec![200..=399],
            body: None,
        }))
    }

    /// Whether what was seen is good.
    pub fn judge(&self, sight: &Sight) -> Outcome {
        let good = match (self, sight) {
            (_, Sight::Untried(_)) => return Outcome::Unknown,
            (Probe::Http(http), Sight::Status(status)) => {
                http.good.iter().any(|range| range.contains(status))
            }
            (_, Sight::Connected) => true,
            // H-16; a signal is a failure (H-19).
            (_, Sight::Exited(status)) => *status == ExitStatus::Code(0),
            _ => false,
        };
        if good { Outcome::Good } else { Outcome::Bad }
    }

    /// `GET /ping on port 8080 → 503 after 12 ms`.
    pub fn sentence(&self, seen: &Seen) -> String {
        format!("{self} → {seen}")
    }
}

pub fn loopback(protocol: Protocol, port: u32) -> SocketAddr {
    let ip = match protocol {
        Protocol::IPv4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Protocol::IPv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    // Validation has refused what is no port.
    SocketAddr::new(ip, u16::try_from(port).unwrap_or(0))
}

/// A path as a request line can carry it: without a fragment, and with everything that is neither plain nor a
/// separator of URLs percent-encoded.
pub fn request_target(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => push_encoded(&mut target, byte),
            0x21..=0x7e => target.push(char::from(byte)),
            _ => push_encoded(&mut target, byte),
        }
    }
    if target.starts_with('/') {
        target
    } else {
        format!("/{target}")
    }
}

fn push_encoded(target: &mut String, byte: u8) {
    target.push_str(&format!("%{byte:02X}"));
}

impl fmt::Display for Probe {
    /// Without the words of a command: they may be nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let six = |address: &SocketAddr| if address.is_ipv6() { " (IPv6)" } else { "" };
        match self {
            Probe::Http(http) => {
                let port = http.address.port();
                let over = if http.tls.is_some() { " (https)" } else { "" };
                let (method, target, six) = (&http.method, &http.target, six(&http.address));
                write!(f, "{method} {target} on port {port}{six}{over}")
            }
            Probe::Tcp(address) => write!(f, "TCP port {}{}", address.port(), six(address)),
            Probe::Exec(_) => f.write_str("command"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sight {
            Sight::Status(status) => write!(f, "{status}")?,
            Sight::OddBody(status) => write!(f, "{status} with another body than expected")?,
            Sight::Connected => f.write_str("connected")?,
            Sight::Exited(ExitStatus::Code(code)) => write!(f, "status {code}")?,
            Sight::Exited(ExitStatus::Signal(signal)) => {
                write!(f, "{}", super::verdict::signal_name(*signal))?;
            }
            Sight::Failed(how) | Sight::Untried(how) => f.write_str(how)?,
            Sight::TooLate => f.write_str("no result")?,
        }
        // Fractions of a millisecond are for nobody.
        match self.took {
            took if took < Duration::from_secs(10) => write!(f, " after {} ms", took.as_millis())?,
            took => write!(f, " after {} s", took.as_secs())?,
        }
        match &self.words {
            Some(words) => write!(f, " ({words})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(scheme: Option<&str>, path: Option<&str>, protocol: Protocol) -> Probe {
        let check = HealthCheck {
            r#type: Some(health_check::Type::Http.into()),
            http: Some(health_check::HttpCheckInfo {
                port: 8080,
                path: path.map(Into::into),
                scheme: scheme.map(Into::into),
                protocol: Some(protocol.into()),
                statuses: vec![404],
            }),
            ..Default::default()
        };
        Probe::of_health_check(&check).unwrap()
    }

    fn seen(sight: Sight) -> Seen {
        Seen {
            sight,
            took: Duration::from_micros(12_345),
            words: None,
        }
    }

    #[test]
    fn h_10_any_status_from_200_to_399_is_good_and_the_field_statuses_is_ignored() {
        let probe = http(None, None, Protocol::IPv4);
        for (status, outcome) in [
            (199, Outcome::Bad),
            (200, Outcome::Good),
            (399, Outcome::Good),
            (400, Outcome::Bad),
            (404, Outcome::Bad),
        ] {
            assert_eq!(probe.judge(&Sight::Status(status)), outcome, "{status}");
        }
        assert_eq!(probe.judge(&Sight::OddBody(200)), Outcome::Bad);
    }

    #[test]
    fn h_12_h_13_the_protocol_decides_on_the_address() {
        let Probe::Http(probe) = http(None, None, Protocol::IPv6) else {
            unreachable!()
        };
        assert_eq!(probe.address.to_string(), "[::1]:8080");
        let tcp = HealthCheck {
            r#type: Some(health_check::Type::Tcp.into()),
            tcp: Some(health_check::TcpCheckInfo {
                port: 53,
                protocol: Some(Protocol::IPv6.into()),
            }),
            ..Default::default()
        };
        assert_eq!(
            Probe::of_health_check(&tcp),
            Some(Probe::Tcp("[::1]:53".parse().unwrap()))
        );
    }

    #[test]
    fn h_16_h_18_h_19_what_commands_come_to() {
        let probe = Probe::exec(CommandInfo::default());
        for (sight, outcome) in [
            (Sight::Exited(ExitStatus::Code(0)), Outcome::Good),
            (Sight::Exited(ExitStatus::Code(1)), Outcome::Bad),
            (Sight::Exited(ExitStatus::Signal(9)), Outcome::Bad),
            (Sight::Exited(ExitStatus::Signal(11)), Outcome::Bad),
            (Sight::TooLate, Outcome::Bad),
            (Sight::Failed("exec `x`: no such file".into()), Outcome::Bad),
            (Sight::Untried("no process".into()), Outcome::Unknown),
        ] {
            assert_eq!(probe.judge(&sight), outcome, "{sight:?}");
        }
    }

    #[test]
    fn sentences_say_what_was_looked_at_and_what_was_seen() {
        let told = |probe: &Probe, sight| probe.sentence(&seen(sight));
        let plain = http(None, Some("/ping"), Protocol::IPv4);
        assert_eq!(
            told(&plain, Sight::Status(503)),
            "GET /ping on port 8080 → 503 after 12 ms"
        );
        let tls = http(Some("https"), None, Protocol::IPv6);
        assert_eq!(
            told(&tls, Sight::TooLate),
            "GET / on port 8080 (IPv6) (https) → no result after 12 ms"
        );
        let exec = Probe::exec(CommandInfo {
            value: Some("curl -u admin:secret".into()),
            ..Default::default()
        });
        let words = Seen {
            words: Some("no route to db".into()),
            ..seen(Sight::Exited(ExitStatus::Code(7)))
        };
        assert_eq!(
            exec.sentence(&words),
            "command → status 7 after 12 ms (no route to db)"
        );
        assert_eq!(
            told(&exec, Sight::Exited(ExitStatus::Signal(9))),
            "command → SIGKILL after 12 ms"
        );
    }

    #[test]
    fn paths_become_request_targets() {
        for (path, target) in [
            ("/", "/"),
            ("/a/b?c=d&e=%20", "/a/b?c=d&e=%20"),
            ("/with space#part", "/with%20space"),
            ("/ü\"<>", "/%C3%BC%22%3C%3E"),
            ("/a\r\nHost: x", "/a%0D%0AHost:%20x"),
            ("", "/"),
        ] {
            assert_eq!(request_target(path), target, "{path:?}");
        }
    }
}
