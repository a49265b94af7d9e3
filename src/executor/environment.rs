//! The environment a Mesos agent gives its executor, as one validated value (wire file, section 7).

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::mesos::duration;

/// The credential for `Authorization: Bearer`; taken out of the environment before anything else happens (S-18).
pub const TOKEN: &str = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN";

/// Everything the agent tells us before the first connection.
#[derive(Debug, Clone)]
pub struct Environment {
    pub framework_id: String,
    pub executor_id: String,
    pub agent: Agent,
    /// The executor's sandbox as this process sees it.
    pub sandbox: PathBuf,
    /// The same as the host sees it; its last component is the executor's container id.
    pub host_sandbox: PathBuf,
    /// Present when the framework checkpoints: how to outlive an agent restart (S-06).
    pub recovery: Option<Recovery>,
    pub shutdown_grace: Duration,
    /// The agent speaks https.
    pub tls: Option<Tls>,
    pub token: Option<Secret>,
    /// `LIBPROCESS_IP`, unless it is the wildcard.
    pub bind_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// How long to wait for the agent to come back.
    pub timeout: Duration,
    /// The longest pause the agent wants between two attempts.
    pub backoff_max: Duration,
}

/// Where the agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub route: Route,
    /// Path of the executor API, such as `/slave(1)/api/v1/executor`.
    pub path: String,
    /// The agent's address even if the route is a socket.
    pub address: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The `SSL_*` or `LIBPROCESS_SSL_*` settings that matter to a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub ca_file: Option<PathBuf>,
    pub ca_dir: Option<PathBuf>,
    /// Presented when the agent asks for it.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// `VERIFY_SERVER_CERT`, or the older `VERIFY_CERT`; unset means yes.
    pub verify: Option<bool>,
}

/// A credential; it shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error(
        "{} not set: podling-executor is started by a Mesos agent, which sets {}; \
         on one machine try `podling loopback agent --task-group FILE.json`",
        enumerate(.0),
        if .0.len() == 1 { "it" } else { "them" }
    )]
    Missing(Vec<&'static str>),
    #[error("environment variable {name}: `{value}` {problem}")]
    Invalid {
        name: &'static str,
        value: String,
        problem: String,
    },
}

fn enumerate(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("environment variable {one} is"),
        [first @ .., last] => format!("environment variables {} and {last} are", first.join(", ")),
    }
}

/// Foreign text for an error message: printable and short.
fn shown(value: &OsStr) -> String {
    let text: String = value.to_string_lossy().escape_debug().take(120).collect();
    if text.len() < 120 { text } else { text + "…" }
}

impl Environment {
    /// Reads the variables; says in one sentence what is wrong with them.
    pub fn parse(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, EnvironmentError> {
        let variables = Variables(variables.into_iter().collect());

        let framework_id = variables.text("MESOS_FRAMEWORK_ID")?;
        let executor_id = variables.text("MESOS_EXECUTOR_ID")?;
        let agent = variables.agent()?;
        let sandbox = variables.directory("MESOS_SANDBOX")?;
        let checkpoint = variables.flag("MESOS_CHECKPOINT")?.unwrap_or(false);
        let timeout = variables.duration("MESOS_RECOVERY_TIMEOUT")?;
        let backoff_max = variables.duration("MESOS_SUBSCRIPTION_BACKOFF_MAX")?;

        let mut missing = Vec::new();
        let mut note = |name, absent: bool| {
            if absent {
                missing.push(name);
            }
        };
        note("MESOS_FRAMEWORK_ID", framework_id.is_none());
        note("MESOS_EXECUTOR_ID", executor_id.is_none());
        note("MESOS_SLAVE_PID", agent.is_none());
        note("MESOS_SANDBOX", sandbox.is_none());
        note("MESOS_RECOVERY_TIMEOUT", checkpoint && timeout.is_none());
        note(
            "MESOS_SUBSCRIPTION_BACKOFF_MAX",
            checkpoint && backoff_max.is_none(),
        );
        let (Some(framework_id), Some(executor_id), Some(agent), Some(sandbox), true) =
            (framework_id, executor_id, agent, sandbox, missing.is_empty())
        else {
            return Err(EnvironmentError::Missing(missing));
        };

        Ok(Environment {
            framework_id,
            executor_id,
            host_sandbox: variables
                .directory("MESOS_DIRECTORY")?
                .unwrap_or_else(|| sandbox.clone()),
            sandbox,
            recovery: match (checkpoint, timeout, backoff_max) {
                (true, Some(timeout), Some(backoff_max)) => Some(Recovery { timeout, backoff_max }),
                _ => None,
            },
            shutdown_grace: variables
                .duration("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD")?
                .unwrap_or(Duration::from_secs(5)),
            tls: match agent.route {
                Route::Tcp(_) => variables.tls()?,
                Route::Unix(_) => None,
            },
            token: variables.token()?,
            bind_ip: variables.bind_ip()?,
            agent,
        })
    }

    /// A name for what is ours on this host: the executor's container id, or at least its own id.
    pub fn container_name(&self) -> &str {
        let id = self.host_sandbox.file_name().and_then(OsStr::to_str);
        id.unwrap_or(&self.executor_id)
    }
}

/// The raw variables; an empty value is as good as none.
struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    fn raw(&self, name: &str) -> Option<&OsStr> {
        let value = self.0.get(OsStr::new(name))?;
        (!value.is_empty()).then_some(value)
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, EnvironmentError> {
        let Some(value) = self.raw(name) else {
            return Ok(None);
        };
        let text = value
            .to_str()
            .ok_or_else(|| invalid(name, value, "is not UTF-8"))?;
        Ok(Some(text.to_owned()))
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, EnvironmentError> {
        match self.raw(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some("1" | "true") => Ok(Some(true)),
                Some("0" | "false") => Ok(Some(false)),
                _ => Err(invalid(name, value, "is neither of 0, 1, true, false")),
            },
        }
    }

    fn duration(&self, name: &'static str) -> Result<Option<Duration>, EnvironmentError> {
        let Some(value) = self.raw(name) else {
            return Ok(None);
        };
        let parsed = value.to_str().and_then(|text| duration::parse(text).ok());
        match parsed {
            Some(duration) => Ok(Some(duration)),
            None => Err(invalid(
                name,
                value,
                "is not a duration such as `5secs` or `15mins`",
            )),
        }
    }

    fn directory(&self, name: &'static str) -> Result<Option<PathBuf>, EnvironmentError> {
        match self.raw(name) {
            None => Ok(None),
            Some(value) if Path::new(value).is_absolute() => Ok(Some(PathBuf::from(value))),
            Some(value) => Err(invalid(name, value, "is not an absolute path")),
        }
    }

    /// The socket wins over the address, the agent's own name over the documented short path.
    fn agent(&self) -> Result<Option<Agent>, EnvironmentError> {
        let pid = match self.raw("MESOS_SLAVE_PID") {
            None => None,
            Some(value) => Some(value.to_str().and_then(parse_pid).ok_or_else(|| {
                invalid(
                    "MESOS_SLAVE_PID",
                    value,
                    "is not of the form `slave(1)@10.0.0.5:5051`",
                )
            })?),
        };
        let endpoint = match self.raw("MESOS_AGENT_ENDPOINT") {
            None => None,
            Some(value) => Some(value.to_str().and_then(parse_endpoint).ok_or_else(|| {
                invalid(
                    "MESOS_AGENT_ENDPOINT",
                    value,
                    "is not of the form `10.0.0.5:5051`",
                )
            })?),
        };
        let socket = self.directory("MESOS_DOMAIN_SOCKET")?;
        let address = pid.as_ref().map(|(_, address)| *address).or(endpoint);
        let route = match (socket, address) {
            (Some(path), _) => Route::Unix(path),
            (None, Some(address)) => Route::Tcp(address),
            (None, None) => return Ok(None),
        };
        let path = match (&pid, &route) {
            (Some((name, _)), _) => format!("/{name}/api/v1/executor"),
            (None, Route::Tcp(_)) => "/api/v1/executor".to_owned(),
            // The socket does not serve the short path, and nearly every agent is called this.
            (None, Route::Unix(_)) => "/slave(1)/api/v1/executor".to_owned(),
        };
        Ok(Some(Agent { route, path, address }))
    }

    fn tls(&self) -> Result<Option<Tls>, EnvironmentError> {
        /// Both names of a setting; the longer one is what today's libprocess reads.
        struct Names(&'static str, &'static str);
        const ENABLED: Names = Names("LIBPROCESS_SSL_ENABLED", "SSL_ENABLED");
        const VERIFY_SERVER: Names = Names("LIBPROCESS_SSL_VERIFY_SERVER_CERT", "SSL_VERIFY_SERVER_CERT");
        const VERIFY: Names = Names("LIBPROCESS_SSL_VERIFY_CERT", "SSL_VERIFY_CERT");

        let flag = |names: Names| match self.flag(names.0)? {
            Some(value) => Ok(Some(value)),
            None => self.flag(names.1),
        };
        if flag(ENABLED)? != Some(true) {
            return Ok(None);
        }
        let file = |long, short| match self.directory(long)? {
            Some(path) => Ok(Some(path)),
            None => self.directory(short),
        };
        Ok(Some(Tls {
            ca_file: file("LIBPROCESS_SSL_CA_FILE", "SSL_CA_FILE")?,
            ca_dir: file("LIBPROCESS_SSL_CA_DIR", "SSL_CA_DIR")?,
            cert_file: file("LIBPROCESS_SSL_CERT_FILE", "SSL_CERT_FILE")?,
            key_file: file("LIBPROCESS_SSL_KEY_FILE", "SSL_KEY_FILE")?,
            verify: match flag(VERIFY_SERVER)? {
                Some(value) => Some(value),
                None => flag(VERIFY)?,
            },
        }))
    }

    /// Only what fits in a header; the value itself is never shown.
    fn token(&self) -> Result<Option<Secret>, EnvironmentError> {
        let Some(value) = self.raw(TOKEN) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Some(Secret(text.to_owned())))
            }
            _ => Err(EnvironmentError::Invalid {
                name: TOKEN,
                value: "…".to_owned(),
                problem: "is no token: it has characters that no header may have".to_owned(),
            }),
        }
    }

    fn bind_ip(&self) -> Result<Option<IpAddr>, EnvironmentError> {
        let Some(value) = self.raw("LIBPROCESS_IP") else {
            return Ok(None);
        };
        match value.to_str().and_then(|text| text.parse::<IpAddr>().ok()) {
            Some(ip) if ip.is_unspecified() => Ok(None),
            Some(ip) => Ok(Some(ip)),
            None => Err(invalid("LIBPROCESS_IP", value, "is not an IP address")),
        }
    }
}

fn invalid(name: &'static str, value: &OsStr, problem: &str) -> EnvironmentError {
    EnvironmentError::Invalid {
        name,
        value: shown(value),
        problem: problem.to_owned(),
    }
}

/// `name@ip:port`, the name being fit for a URL path as it stands.
fn parse_pid(pid: &str) -> Option<(String, SocketAddr)> {
    let (name, endpoint) = pid.rsplit_once('@')?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(&byte);
    let good = !name.is_empty() && name.bytes().all(fits) && name != "." && name != "..";
    Some((good.then(|| name.to_owned())?, parse_endpoint(endpoint)?))
}

/// `ip:port`, an IPv6 address with or without brackets.
fn parse_endpoint(endpoint: &str) -> Option<SocketAddr> {
    let (ip, port) = endpoint.rsplit_once(':')?;
    let ip = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    let port: u16 = port.parse().ok()?;
    (port != 0).then_some(SocketAddr::new(ip.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: [(&str, &str); 4] = [
        ("MESOS_FRAMEWORK_ID", "f"),
        ("MESOS_EXECUTOR_ID", "e"),
        ("MESOS_SLAVE_PID", "slave(1)@127.0.0.1:5051"),
        ("MESOS_SANDBOX", "/sandbox/run-1"),
    ];

    /// `BASE` with changes; an empty value takes a variable away.
    fn parse(changes: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        let all = BASE.iter().chain(changes);
        Environment::parse(all.map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    fn sentence(changes: &[(&str, &str)]) -> String {
        parse(changes).expect_err("a refusal").to_string()
    }

    #[test]
    fn s_01_what_an_agent_sets_is_read() {
        let environment = parse(&[
            ("MESOS_DIRECTORY", "/var/lib/mesos/runs/c-1"),
            ("MESOS_CHECKPOINT", "1"),
            ("MESOS_RECOVERY_TIMEOUT", "15mins"),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "1.5secs"),
            ("LIBPROCESS_IP", "0.0.0.0"),
        ])
        .expect("valid");
        assert_eq!(environment.framework_id, "f");
        assert_eq!(environment.executor_id, "e");
        assert_eq!(environment.sandbox, Path::new("/sandbox/run-1"));
        assert_eq!(environment.container_name(), "c-1");
        assert_eq!(
            environment.recovery,
            Some(Recovery {
                timeout: Duration::from_secs(900),
                backoff_max: Duration::from_secs(2)
            })
        );
        assert_eq!(environment.shutdown_grace, Duration::from_millis(1500));
        assert_eq!(environment.bind_ip, None);
        assert_eq!(
            environment.agent.route,
            Route::Tcp("127.0.0.1:5051".parse().expect("address"))
        );
        assert_eq!(environment.agent.path, "/slave(1)/api/v1/executor");
    }

    #[test]
    fn s_01_each_missing_variable_is_named() {
        for (name, _) in BASE {
            let text = sentence(&[(name, "")]);
            assert!(
                text.starts_with(&format!("environment variable {name} is not set")),
                "{text}"
            );
        }
        let text = Environment::parse([]).expect_err("nothing set").to_string();
        for (name, _) in BASE {
            assert!(text.contains(name), "{text}");
        }
        let text = sentence(&[("MESOS_CHECKPOINT", "1")]);
        assert!(
            text.contains("MESOS_RECOVERY_TIMEOUT and MESOS_SUBSCRIPTION_BACKOFF_MAX are"),
            "{text}"
        );
    }

    #[test]
    fn s_01_garbage_is_refused_by_name() {
        let cases = [
            ("MESOS_SLAVE_PID", "slave(1)"),
            ("MESOS_SLAVE_PID", "@127.0.0.1:5051"),
            ("MESOS_SLAVE_PID", "a/../b@127.0.0.1:5051"),
            ("MESOS_SLAVE_PID", "slave 1@127.0.0.1:5051"),
            ("MESOS_SLAVE_PID", "slave(1)@127.0.0.1:0"),
            ("MESOS_SLAVE_PID", "slave(1)@127.0.0.1:70000"),
            ("MESOS_SLAVE_PID", "slave(1)@[::1:5051"),
            ("MESOS_AGENT_ENDPOINT", "127.0.0.1"),
            ("MESOS_SANDBOX", "relative"),
            ("MESOS_CHECKPOINT", "perhaps"),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5 parsecs"),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "-5secs"),
            ("MESOS_RECOVERY_TIMEOUT", "\u{1b}[2J"),
            ("MESOS_DOMAIN_SOCKET", "agent.sock"),
            ("LIBPROCESS_IP", "localhost"),
            ("LIBPROCESS_SSL_ENABLED", "si"),
        ];
        for (name, value) in cases {
            let text = sentence(&[(name, value)]);
            assert!(text.contains(name), "{name}={value}: {text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn s_18_a_token_never_shows_itself() {
        let environment = parse(&[(TOKEN, "head.body.mac")]).expect("valid");
        assert_eq!(
            environment.token.as_ref().map(Secret::expose),
            Some("head.body.mac")
        );
        assert!(!format!("{environment:?}").contains("head"));
        let text = sentence(&[(TOKEN, "two\r\nlines")]);
        assert!(text.contains(TOKEN) && !text.contains("two"), "{text}");
    }

    #[test]
    fn the_agents_name_and_address_come_in_several_forms() {
        let cases = [
            (
                "slave(7)@10.0.0.5:5051",
                "10.0.0.5:5051",
                "/slave(7)/api/v1/executor",
            ),
            ("slave(1)@[::1]:5051", "[::1]:5051", "/slave(1)/api/v1/executor"),
            ("slave(1)@::1:5051", "[::1]:5051", "/slave(1)/api/v1/executor"),
            ("agent@[fe80::1]:80", "[fe80::1]:80", "/agent/api/v1/executor"),
        ];
        for (pid, address, path) in cases {
            let environment = parse(&[("MESOS_SLAVE_PID", pid)]).expect("valid");
            assert_eq!(
                environment.agent.route,
                Route::Tcp(address.parse().expect("address")),
                "{pid}"
            );
            assert_eq!(environment.agent.path, path);
        }
    }

    #[test]
    fn the_endpoint_alone_suffices() {
        let endpoint = ("MESOS_AGENT_ENDPOINT", "10.0.0.5:5051");
        let environment = parse(&[("MESOS_SLAVE_PID", ""), endpoint]).expect("valid");
        assert_eq!(environment.agent.path, "/api/v1/executor");
    }

    #[test]
    fn domain_sockets_win_and_are_never_encrypted() {
        let changes = [
            ("MESOS_DOMAIN_SOCKET", "/run/mesos/agent.sock"),
            ("LIBPROCESS_SSL_ENABLED", "1"),
            ("MESOS_SLAVE_PID", "slave(2)@10.0.0.5:5051"),
        ];
        let environment = parse(&changes).expect("valid");
        assert_eq!(
            environment.agent.route,
            Route::Unix("/run/mesos/agent.sock".into())
        );
        assert_eq!(environment.agent.path, "/slave(2)/api/v1/executor");
        assert_eq!(environment.tls, None);
        let environment = parse(&[changes[0], ("MESOS_SLAVE_PID", "")]).expect("valid");
        assert_eq!(environment.agent.path, "/slave(1)/api/v1/executor");
    }

    #[test]
    fn tls_settings_have_two_names() {
        assert_eq!(parse(&[]).expect("valid").tls, None);
        let tls = parse(&[
            ("SSL_ENABLED", "true"),
            ("SSL_CA_FILE", "/ca.pem"),
            ("SSL_VERIFY_CERT", "0"),
        ])
        .expect("valid")
        .tls
        .expect("on");
        assert_eq!(tls.ca_file, Some("/ca.pem".into()));
        assert_eq!(tls.verify, Some(false));
        let both = [
            ("LIBPROCESS_SSL_ENABLED", "1"),
            ("LIBPROCESS_SSL_VERIFY_SERVER_CERT", "true"),
            ("SSL_VERIFY_CERT", "false"),
        ];
        assert_eq!(parse(&both).expect("valid").tls.expect("on").verify, Some(true));
    }

    proptest! {
        #[test]
        fn l_07_no_environment_makes_it_panic(
            values in proptest::collection::vec((0usize..12, any::<String>()), 0..12)
        ) {
            const NAMES: [&str; 12] = [
                "MESOS_FRAMEWORK_ID", "MESOS_EXECUTOR_ID", "MESOS_SLAVE_PID", "MESOS_AGENT_ENDPOINT",
                "MESOS_SANDBOX", "MESOS_DIRECTORY", "MESOS_CHECKPOINT", "MESOS_RECOVERY_TIMEOUT",
                "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "MESOS_DOMAIN_SOCKET", TOKEN, "LIBPROCESS_IP",
            ];
            let variables: Vec<(&str, &str)> =
                values.iter().map(|(which, value)| (NAMES[*which], value.as_str())).collect();
            if let Err(error) = parse(&variables) {
                prop_assert!(error.to_string().starts_with("environment variable"));
            }
        }
    }
}
