//! Checks beyond the two of Mesos, as a scheduler asks for them in `ExecutorInfo.data`.
//!
//! ```json
//! {"podling": 1, "checks": {"web": [
//!     {"kind": "startup", "exec": {"shell": "test -e /ready"}, "intervalSeconds": 1, "consecutiveFailures": 60},
//!     {"kind": "readiness", "name": "warm", "http": {"port": 8080, "path": "/ready", "statuses": [200, "300-399"]}},
//!     {"kind": "health", "tcp": {"port": 8080}}]}}
//! ```
//!
//! The key is the name of a task. What a check may say is listed in `docs/checks.md`.

use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;

use super::probe::{HttpProbe, Probe, Tls, loopback, request_target};
use crate::mesos::v1::{self, network_info::Protocol};

/// So many checks may a task have; each costs a little all the time.
const MOST: usize = 16;
/// A day in seconds is more than anybody waits between two looks; nothing overflows below it.
const LONGEST: f64 = 86_400.0;

/// The checks of each task, by its name.
pub type ExtraChecks = BTreeMap<String, Vec<ExtraCheck>>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraCheck {
    pub kind: Kind,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    http: Option<Http>,
    #[serde(default)]
    tcp: Option<Tcp>,
    #[serde(default)]
    exec: Option<Exec>,
    #[serde(default, skip_serializing)]
    grpc: Option<Refused>,
    #[serde(default)]
    pub delay_seconds: f64,
    #[serde(default = "interval")]
    pub interval_seconds: f64,
    #[serde(default = "timeout")]
    pub timeout_seconds: f64,
    #[serde(default)]
    pub grace_period_seconds: f64,
    #[serde(default)]
    consecutive_failures: Option<u32>,
}

/// What a result is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One more health check: too many failures end the member.
    Health,
    /// Whether it should get work; told, and nothing else.
    Readiness,
    /// Until its first success nobody else looks; too many failures before that end the member.
    Startup,
}

/// Anything; it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Refused(#[serde(deserialize_with = "ignore")] ());

fn ignore<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| ())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Http {
    port: u16,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    https: bool,
    /// The name that a certificate has to have; without one nobody is verified.
    #[serde(default)]
    verify_name: Option<String>,
    #[serde(default)]
    ipv6: bool,
    #[serde(default)]
    statuses: Vec<Statuses>,
    #[serde(default)]
    body: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Statuses {
    One(u16),
    /// `200-299`
    Range(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tcp {
    port: u16,
    #[serde(default)]
    ipv6: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Exec {
    Shell(String),
    Argv(Vec<String>),
}

fn interval() -> f64 {
    10.0
}

fn timeout() -> f64 {
    20.0
}

/// Reads the value of the key `checks`; an error names the place in it.
pub fn read(value: Value) -> Result<ExtraChecks, String> {
    let all: ExtraChecks = serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, cause) = (error.path().to_string(), error.inner().to_string());
        format!("checks.{path}: {cause}")
    })?;
    for (task, checks) in &all {
        if checks.len() > MOST {
            return Err(format!(
                "checks.{task}: has {} checks, the limit is {MOST}",
                checks.len()
            ));
        }
        for (number, check) in checks.iter().enumerate() {
            check
                .fault()
                .map_or(Ok(()), |fault| Err(format!("checks.{task}[{number}]{fault}")))?;
        }
    }
    Ok(all)
}

impl ExtraCheck {
    pub fn consecutive_failures(&self) -> u32 {
        self.consecutive_failures.unwrap_or(3)
    }

    /// How its sentences begin: `readiness (warm): `.
    pub fn title(&self) -> String {
        let kind = match self.kind {
            Kind::Health => "health",
            Kind::Readiness => "readiness",
            Kind::Startup => "startup",
        };
        match &self.name {
            Some(name) => format!("{kind} ({}): ", name.escape_debug()),
            None => format!("{kind}: "),
        }
    }

    /// What is wrong with it, with its place.
    fn fault(&self) -> Option<String> {
        if self.grpc.is_some() {
            return Some(".grpc: not supported yet by this executor".into());
        }
        let ways = [self.http.is_some(), self.tcp.is_some(), self.exec.is_some()];
        if ways.into_iter().filter(|given| *given).count() != 1 {
            return Some(": needs exactly one of http, tcp and exec".into());
        }
        for (key, seconds) in [
            ("delaySeconds", self.delay_seconds),
            ("intervalSeconds", self.interval_seconds),
            ("timeoutSeconds", self.timeout_seconds),
            ("gracePeriodSeconds", self.grace_period_seconds),
        ] {
            if !(0.0..=LONGEST).contains(&seconds) {
                return Some(format!(".{key}: {seconds} is not between 0 and {LONGEST}"));
            }
        }
        if let Some(http) = &self.http {
            return http.fault().map(|fault| format!(".http{fault}"));
        }
        if self.tcp.as_ref().is_some_and(|tcp| tcp.port == 0) {
            return Some(".tcp.port: 0 is no port".into());
        }
        if let Some(Exec::Argv(arguments)) = &self.exec
            && arguments.is_empty()
        {
            return Some(".exec.argv: is empty".into());
        }
        None
    }

    /// What it looks at.
    pub fn probe(&self) -> Option<Probe> {
        if let Some(http) = &self.http {
            return Some(Probe::Http(Box::new(http.probe())));
        }
        if let Some(tcp) = &self.tcp {
            return Some(Probe::Tcp(address(tcp.ipv6, tcp.port)));
        }
        let command = match self.exec.as_ref()? {
            Exec::Shell(text) => v1::CommandInfo {
                shell: Some(true),
                value: Some(text.clone()),
                ..Default::default()
            },
            Exec::Argv(arguments) => v1::CommandInfo {
                shell: Some(false),
                value: arguments.first().cloned(),
                arguments: arguments.clone(),
                ..Default::default()
            },
        };
        Some(Probe::exec(command))
    }
}

impl Http {
    fn fault(&self) -> Option<String> {
        if self.port == 0 {
            return Some(".port: 0 is no port".into());
        }
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Some(".path: must start with `/`".into());
        }
        if let Some(method) = &self.method
            && !is_token(method)
        {
            return Some(format!(".method: {method:?} is no method"));
        }
        for (name, value) in &self.headers {
            if !is_token(name) || value.bytes().any(|byte| byte.is_ascii_control()) {
                // A value may be a secret.
                return Some(format!(".headers: {name:?} cannot be sent as it is"));
            }
        }
        if self.verify_name.is_some() && !self.https {
            return Some(".verifyName: needs https".into());
        }
        let odd = self.statuses.iter().find(|statuses| statuses.range().is_none())?;
        Some(format!(
            ".statuses: {} is no status from 100 to 599, nor a range of them",
            serde_json::to_string(odd).unwrap_or_default()
        ))
    }

    fn probe(&self) -> HttpProbe {
        let verified = |name: &String| Tls::Named(name.clone());
        let good: Vec<_> = self.statuses.iter().filter_map(Statuses::range).collect();
        HttpProbe {
            method: self.method.clone().unwrap_or_else(|| "GET".into()),
            tls: self
                .https
                .then(|| self.verify_name.as_ref().map_or(Tls::Anyone, verified)),
            address: address(self.ipv6, self.port),
            target: request_target(self.path.as_deref().unwrap_or("/")),
            headers: self.headers.clone().into_iter().collect(),
            good: if good.is_empty() { vec![200..=399] } else { good },
            body: self.body.clone(),
        }
    }
}

impl Statuses {
    fn range(&self) -> Option<RangeInclusive<u16>> {
        let range = match self {
            Statuses::One(status) => *status..=*status,
            Statuses::Range(text) => {
                let (first, last) = text.split_once('-')?;
                first.trim().parse().ok()?..=last.trim().parse().ok()?
            }
        };
        (range.start() <= range.end() && *range.start() >= 100 && *range.end() <= 599).then_some(range)
    }
}

/// A word of HTTP.
fn is_token(word: &str) -> bool {
    let sign = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || sign(byte))
}

fn address(ipv6: bool, port: u16) -> SocketAddr {
    let protocol = if ipv6 { Protocol::IPv6 } else { Protocol::IPv4 };
    loopback(protocol, port.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(check: Value) -> String {
        read(json!({"web": [check]})).unwrap_err()
    }

    #[test]
    fn every_key_arrives() {
        let checks = read(json!({"web": [{"kind": "readiness", "name": "warm", "delaySeconds": 1, "intervalSeconds": 2,
            "timeoutSeconds": 3, "gracePeriodSeconds": 4, "consecutiveFailures": 5,
            "http": {"port": 8443, "path": "/ready now", "method": "HEAD", "headers": {"X-A": "b"}, "https": true,
                "verifyName": "web.test", "ipv6": true, "statuses": [204, "300 - 399"], "body": "ok"}}]}))
        .unwrap();
        let check = &checks["web"][0];
        assert_eq!((check.kind, check.consecutive_failures()), (Kind::Readiness, 5));
        let probe = HttpProbe {
            method: "HEAD".into(),
            tls: Some(Tls::Named("web.test".into())),
            address: "[::1]:8443".parse().unwrap(),
            target: "/ready%20now".into(),
            headers: vec![("X-A".into(), "b".into())],
            good: vec![204..=204, 300..=399],
            body: Some("ok".into()),
        };
        assert_eq!(check.probe(), Some(Probe::Http(Box::new(probe))));
        let stored = serde_json::to_value(&checks).unwrap();
        assert_eq!(read(stored).unwrap(), checks, "what is stored can be read again");
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_its_place() {
        for (check, words) in [
            (json!({"kind": "health"}), "checks.web[0]: needs exactly one of"),
            (
                json!({"kind": "health", "tcp": {"port": 1}, "exec": {"shell": "x"}}),
                "checks.web[0]: needs exactly one of",
            ),
            (
                json!({"kind": "liveness", "tcp": {"port": 1}}),
                "checks.web[0].kind: unknown variant",
            ),
            (
                json!({"kind": "health", "tcp": {"port": 0}}),
                "checks.web[0].tcp.port: 0 is no port",
            ),
            (
                json!({"kind": "health", "tcp": {"port": 70000}}),
                "checks.web[0].tcp.port: ",
            ),
            (
                json!({"kind": "health", "grpc": {"port": 1}}),
                "checks.web[0].grpc: not supported yet",
            ),
            (
                json!({"kind": "health", "tcp": {"port": 1}, "often": 1}),
                "unknown field `often`",
            ),
            (
                json!({"kind": "health", "tcp": {"port": 1}, "delaySeconds": -1}),
                "checks.web[0].delaySeconds: -1 is not between 0 and",
            ),
            (
                json!({"kind": "health", "http": {"port": 1, "headers": {"a b": "secret"}}}),
                "checks.web[0].http.headers: \"a b\" cannot be sent",
            ),
            (
                json!({"kind": "health", "http": {"port": 1, "statuses": ["399-200"]}}),
                "checks.web[0].http.statuses: \"399-200\" is no status",
            ),
            (
                json!({"kind": "health", "http": {"port": 1, "verifyName": "x"}}),
                "checks.web[0].http.verifyName: needs https",
            ),
            (
                json!({"kind": "health", "exec": {"argv": []}}),
                "checks.web[0].exec.argv: is empty",
            ),
        ] {
            let fault = fault(check.clone());
            assert!(fault.contains(words), "{check}: {fault}");
            assert!(!fault.contains("secret"), "{fault}");
        }
        let many = vec![json!({"kind": "health", "tcp": {"port": 1}}); MOST + 1];
        assert!(
            read(json!({"web": many}))
                .unwrap_err()
                .contains("the limit is 16")
        );
        assert!(read(json!(7)).is_err());
    }
}
