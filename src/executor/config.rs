//! What an operator may change: a file, then `PODLING_*` variables over it; every value knows where it came from.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    container::cgroup::{self, Bound, Placement},
    mesos::{codec::Encoding, duration},
    network,
};

/// Read when it exists; [`FILE_VARIABLE`] names another, which then must exist.
pub const FILE: &str = "/etc/podling/executor.toml";
pub const FILE_VARIABLE: &str = "PODLING_CONFIG";

/// Variables that are read elsewhere.
const OTHER_VARIABLES: [&str; 2] = [FILE_VARIABLE, super::crash::VARIABLE];

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub encoding: Encoding,
    pub log: String,
    pub ca_file: Option<PathBuf>,
    pub agent_name: Option<String>,
    pub registration_timeout: Duration,
    pub reconnect_pause: Duration,
    pub heartbeat_interval: Duration,
    pub answer_timeout: Duration,
    pub record_limit: usize,
    pub launch_deadline: Duration,
    pub black_box_limit: u64,
    pub images: ImagesConfig,
    pub network: NetworkSetting,
    pub cgroups: cgroup::Config,
    pub run_dir: PathBuf,
}

/// Where images come from and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    pub store: PathBuf,
    /// Bytes of layers to keep when they are not in use; `None` keeps everything.
    pub quota: Option<u64>,
    pub insecure: Vec<String>,
    pub mirrors: HashMap<String, Vec<String>>,
    pub credentials: Option<PathBuf>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        ImagesConfig {
            store: PathBuf::from("/var/lib/podling/images"),
            quota: None,
            insecure: Vec::new(),
            mirrors: HashMap::new(),
            credentials: None,
        }
    }
}

/// The node's networks, and the words that say so.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NetworkSetting {
    text: String,
    pub config: network::Config,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            encoding: Encoding::Protobuf,
            log: "info".to_owned(),
            ca_file: None,
            agent_name: None,
            registration_timeout: Duration::from_secs(60),
            reconnect_pause: Duration::from_millis(250),
            heartbeat_interval: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(30),
            record_limit: 64 << 20,
            launch_deadline: Duration::from_secs(600),
            black_box_limit: 1 << 20,
            images: ImagesConfig::default(),
            network: NetworkSetting::default(),
            cgroups: cgroup::Config::default(),
            run_dir: PathBuf::from("/run/podling"),
        }
    }
}

impl Config {
    /// The node's networks; what they hold is noted where everything else of ours is, unless the operator says where.
    pub fn networks(&self) -> network::Config {
        let mut config = self.network.config.clone();
        config
            .state_dir
            .get_or_insert_with(|| self.run_dir.join("network"));
        config
    }
}

/// One setting: the single source for the file, the variables and the documentation.
pub struct Key {
    pub name: &'static str,
    /// A sentence for operators.
    pub about: &'static str,
    read: fn(&mut Config, &str) -> Result<(), String>,
    /// The present value in the form in which it is written.
    pub show: fn(&Config) -> String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Its variable: `PODLING_RECORD_LIMIT` for `record_limit`.
    pub fn variable(&self) -> String {
        format!("PODLING_{}", self.name.to_ascii_uppercase())
    }
}

pub static KEYS: &[Key] = &[
    Key {
        name: "encoding",
        about: "How we talk to the agent: protobuf or json.",
        read: |config, text| {
            config.encoding = match text {
                "protobuf" => Encoding::Protobuf,
                "json" => Encoding::Json,
                _ => return Err("is neither `protobuf` nor `json`".to_owned()),
            };
            Ok(())
        },
        show: |config| match config.encoding {
            Encoding::Protobuf => "protobuf".to_owned(),
            Encoding::Json => "json".to_owned(),
        },
    },
    Key {
        name: "log",
        about: "What to log to stderr: off, error, warn, info, debug or trace, also by module (`info,podling::executor=debug`).",
        read: |config, text| {
            let parsed: Result<tracing_subscriber::filter::Targets, _> = text.parse();
            parsed.map_err(|error| format!("is no log filter: {error}"))?;
            config.log = text.to_owned();
            Ok(())
        },
        show: |config| config.log.clone(),
    },
    Key {
        name: "ca_file",
        about: "PEM file with the authorities we trust for an https agent; else SSL_CA_FILE, else the system's.",
        read: |config, text| {
            config.ca_file = Some(absolute(text)?);
            Ok(())
        },
        show: |config| {
            config
                .ca_file
                .as_ref()
                .map_or(String::new(), |path| path.display().to_string())
        },
    },
    Key {
        name: "agent_name",
        about: "A name that the agent's certificate may carry besides its IP address and this host's name.",
        read: |config, text| {
            config.agent_name = Some(text.to_owned());
            Ok(())
        },
        show: |config| config.agent_name.clone().unwrap_or_default(),
    },
    Key {
        name: "registration_timeout",
        about: "How long to try for the first subscription; keep it at the agent's executor_registration_timeout.",
        read: |config, text| {
            config.registration_timeout = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.registration_timeout),
    },
    Key {
        name: "reconnect_pause",
        about: "The longest pause between two attempts to reach a lost agent; MESOS_SUBSCRIPTION_BACKOFF_MAX caps it.",
        read: |config, text| {
            config.reconnect_pause = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.reconnect_pause),
    },
    Key {
        name: "heartbeat_interval",
        about: "How often to send the agent a HEARTBEAT call.",
        read: |config, text| {
            config.heartbeat_interval = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.heartbeat_interval),
    },
    Key {
        name: "answer_timeout",
        about: "How long a checkpointing agent may take to answer a call before the connection counts as dead.",
        read: |config, text| {
            config.answer_timeout = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.answer_timeout),
    },
    Key {
        name: "record_limit",
        about: "The longest event in bytes that we take from the agent.",
        read: |config, text| {
            config.record_limit = number(text, 1 << 16, 1 << 30)? as usize;
            Ok(())
        },
        show: |config| config.record_limit.to_string(),
    },
    Key {
        name: "launch_deadline",
        about: "How long a group may take from its arrival to its start.",
        read: |config, text| {
            config.launch_deadline = positive(text)?;
            Ok(())
        },
        show: |config| duration::format(config.launch_deadline),
    },
    Key {
        name: "black_box_limit",
        about: "Bytes of history that `podling explain` can read; twice as much is kept at most.",
        read: |config, text| {
            config.black_box_limit = number(text, 1 << 12, 1 << 30)?;
            Ok(())
        },
        show: |config| config.black_box_limit.to_string(),
    },
    Key {
        name: "images_store",
        about: "The node's image store, shared by all executors.",
        read: |config, text| {
            config.images.store = absolute(text)?;
            Ok(())
        },
        show: |config| config.images.store.display().to_string(),
    },
    Key {
        name: "images_quota",
        about: "Bytes of layers to keep in the store when they are not in use, or `unlimited`.",
        read: |config, text| {
            config.images.quota = match text {
                "unlimited" => None,
                text => Some(number(text, 0, u64::MAX)?),
            };
            Ok(())
        },
        show: |config| {
            let quota = config.images.quota;
            quota.map_or("unlimited".to_owned(), |quota| quota.to_string())
        },
    },
    Key {
        name: "images_insecure",
        about: "Registries that are spoken to without TLS: `host[:port]`, separated by commas.",
        read: |config, text| {
            config.images.insecure = list(text);
            Ok(())
        },
        show: |config| config.images.insecure.join(","),
    },
    Key {
        name: "images_mirrors",
        about: "What is asked before a registry: `docker.io=mirror:5000,other quay.io=mirror:5000`.",
        read: |config, text| {
            config.images.mirrors = text
                .split_whitespace()
                .map(|entry| match entry.split_once('=') {
                    Some((registry, mirrors)) if !registry.is_empty() && !list(mirrors).is_empty() => {
                        Ok((registry.to_owned(), list(mirrors)))
                    }
                    _ => Err(format!("has `{entry}`, which is not `registry=mirror,mirror`")),
                })
                .collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| {
            let mirrors = config.images.mirrors.iter();
            let mut shown: Vec<String> = mirrors
                .map(|(registry, mirrors)| format!("{registry}={}", mirrors.join(",")))
                .collect();
            shown.sort();
            shown.join(" ")
        },
    },
    Key {
        name: "images_credentials",
        about: "A docker config.json with credentials for registries; a pod's own take their place.",
        read: |config, text| {
            config.images.credentials = Some(absolute(text)?);
            Ok(())
        },
        show: |config| {
            let path = config.images.credentials.as_ref();
            path.map_or(String::new(), |path| path.display().to_string())
        },
    },
    Key {
        name: "network",
        about: "The node's networks as a table (in a variable as an inline one): default_network, networks, dns, cni, ….",
        read: |config, text| {
            let table = toml::from_str::<BTreeMap<String, network::Config>>(&format!("network = {text}"));
            let mut table =
                table.map_err(|error| format!("is no network configuration: {}", error.message()))?;
            let parsed = table.remove("network").unwrap_or_default();
            parsed.check().map_err(|error| format!("is wrong: {error}"))?;
            config.network = NetworkSetting {
                text: text.to_owned(),
                config: parsed,
            };
            Ok(())
        },
        show: |config| config.network.text.clone(),
    },
    Key {
        name: "cgroups",
        about: "Where members' cgroups go: `own`, below the executor's, `none`, or a path in every hierarchy. \
                Only in `own` does the agent end members that outlive us.",
        read: |config, text| {
            config.cgroups.placement = match text {
                "own" => Placement::BelowOwn,
                "none" => Placement::None,
                path => Placement::Root(
                    absolute(path).map_err(|problem| problem + " and neither `own` nor `none`")?,
                ),
            };
            Ok(())
        },
        show: |config| match &config.cgroups.placement {
            Placement::BelowOwn => "own".to_owned(),
            Placement::None => "none".to_owned(),
            Placement::Root(path) => path.display().to_string(),
        },
    },
    Key {
        name: "cpu_quota",
        about: "Holds members without a cpu limit to their request, as the agent's cgroups_enable_cfs does: true or false.",
        read: |config, text| {
            config.cgroups.policy.always_quota = truth(text)?;
            Ok(())
        },
        show: |config| config.cgroups.policy.always_quota.to_string(),
    },
    Key {
        name: "swap",
        about: "Lets members use swap: true or false.",
        read: |config, text| {
            config.cgroups.policy.limit_swap = !truth(text)?;
            Ok(())
        },
        show: |config| (!config.cgroups.policy.limit_swap).to_string(),
    },
    Key {
        name: "pids_limit",
        about: "Processes and threads that a member may have: a number, or `unlimited`.",
        read: |config, text| {
            config.cgroups.policy.pids = match text {
                "unlimited" => Bound::Infinite,
                // A shell with one child is the least that is of use.
                text => Bound::At(number(text, 8, 1 << 22)?),
            };
            Ok(())
        },
        show: |config| match config.cgroups.policy.pids {
            Bound::Infinite => "unlimited".to_owned(),
            Bound::At(number) => number.to_string(),
        },
    },
    Key {
        name: "run_dir",
        about: "Where executors of this node enter themselves, so that what a dead one leaves can be removed.",
        read: |config, text| {
            config.run_dir = absolute(text)?;
            Ok(())
        },
        show: |config| config.run_dir.display().to_string(),
    },
];

fn list(text: &str) -> Vec<String> {
    let entries = text.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

fn truth(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| "is neither `true` nor `false`".to_owned())
}

fn positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(duration) if duration.is_zero() => Err("must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("is not a duration such as `250ms`, `5secs` or `10mins`".to_owned()),
    }
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("is not a whole number from {least} to {most}")),
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err("is not an absolute path".to_owned())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Variable(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("configuration {}: {message}", .path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("configuration {}: there is no key `{key}`; there are: {}", .path.display(), names())]
    UnknownKey { path: PathBuf, key: String },
    #[error("configuration, {key} from {origin}: `{value}` {problem}")]
    Value {
        key: &'static str,
        origin: Origin,
        value: String,
        problem: String,
    },
}

fn names() -> String {
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    names.join(", ")
}

/// The effective configuration.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
}

impl Effective {
    /// Reads the file, if there is one, and lays the variables over it.
    pub fn load(variables: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(key, _)| key == OsStr::new(name));
            found.map(|(_, value)| value.as_os_str())
        };
        let named = lookup(FILE_VARIABLE).filter(|path| !path.is_empty());
        let path = named.map_or_else(|| PathBuf::from(FILE), PathBuf::from);
        let mut effective = Effective::default();
        match std::fs::read_to_string(&path) {
            Ok(text) => effective.lay_file(&path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
        for key in KEYS {
            let variable = key.variable();
            if let Some(value) = lookup(&variable).filter(|value| !value.is_empty()) {
                effective.set(key, &value.to_string_lossy(), Origin::Variable(variable))?;
            }
        }
        Ok(effective)
    }

    fn lay_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| ConfigError::Syntax {
                path: path.to_owned(),
                message: error.to_string(),
            })?;
        for (name, value) in &table {
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                return Err(ConfigError::UnknownKey {
                    path: path.to_owned(),
                    key: name.clone(),
                });
            };
            let text = match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            self.set(key, &text, Origin::File(path.to_owned()))?;
        }
        Ok(())
    }

    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) -> Result<(), ConfigError> {
        match (key.read)(&mut self.config, text) {
            Ok(()) => {
                self.origins.insert(key.name, origin);
                Ok(())
            }
            Err(problem) => Err(ConfigError::Value {
                key: key.name,
                origin,
                value: text.escape_debug().take(120).collect(),
                problem,
            }),
        }
    }

    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }

    /// Variables that look as if they were meant for us but are none of ours. Frameworks may set what they like, so
    /// they are no error; but who mistyped one will look for it in the log.
    pub fn strangers(variables: &[(OsString, OsString)]) -> impl Iterator<Item = &str> {
        let names = variables.iter().filter_map(|(name, _)| name.to_str());
        names.filter(|name| {
            name.starts_with("PODLING_")
                && !OTHER_VARIABLES.contains(name)
                && !KEYS.iter().any(|key| key.variable() == *name)
        })
    }

    /// What is not at its default, for the log: key, value, origin.
    pub fn changed(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        KEYS.iter().filter_map(|key| {
            let origin = self.origins.get(key.name)?;
            Some((key.name, (key.show)(&self.config), origin))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("executor.toml");
        std::fs::write(&path, text).expect("file");
        (dir, path.display().to_string())
    }

    #[test]
    fn variables_win_over_the_file_and_the_origin_is_kept() {
        let (_dir, path) = file("encoding = \"json\"\nrecord_limit = 100000\nlaunch_deadline = \"1mins\"\n");
        let effective = Effective::load(&vars(&[
            ("PODLING_CONFIG", &path),
            ("PODLING_LAUNCH_DEADLINE", "2mins"),
        ]))
        .expect("valid");
        assert_eq!(effective.config.encoding, Encoding::Json);
        assert_eq!(effective.config.record_limit, 100_000);
        assert_eq!(effective.config.launch_deadline, Duration::from_secs(120));
        assert_eq!(effective.origin("encoding"), Origin::File(path.into()));
        assert_eq!(
            effective.origin("launch_deadline"),
            Origin::Variable("PODLING_LAUNCH_DEADLINE".into())
        );
        assert_eq!(effective.origin("log"), Origin::Default);
        assert_eq!(effective.changed().count(), 3);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            ("colour = 3\n", "no key `colour`"),
            ("record_limit = 5\n", "record_limit"),
            ("record_limit = [1]\n", "record_limit"),
            ("encoding = \"xml\"\n", "`xml` is neither"),
            ("launch_deadline = \"0secs\"\n", "longer than nothing"),
            ("encoding = \n", "executor.toml"),
            ("images_mirrors = \"docker.io\"\n", "not `registry=mirror"),
            ("[network]\ndefault_networks = \"x\"\n", "unknown field"),
            ("[network]\ndefault_network = \"x\"\n", "not one of the networks"),
        ];
        for (text, expected) in cases {
            let (_dir, path) = file(text);
            let error = Effective::load(&vars(&[("PODLING_CONFIG", &path)])).expect_err(text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        let error =
            Effective::load(&vars(&[("PODLING_CONFIG", "/nonexistent/x.toml")])).expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/x.toml"));
        let error = Effective::load(&vars(&[("PODLING_ENCODING", "xml")])).expect_err("xml");
        assert!(error.to_string().contains("PODLING_ENCODING"), "{error}");
    }

    #[test]
    fn variables_that_mean_nothing_are_noticed() {
        let all = vars(&[
            ("PODLING_LOG", "info"),
            ("PODLING_CONFIG", "/x"),
            ("PODLING_LOGS", "info"),
            ("HOME", "/"),
        ]);
        assert_eq!(Effective::strangers(&all).collect::<Vec<_>>(), ["PODLING_LOGS"]);
    }

    /// The reference for operators has one row a key; `UPDATE_DOCS=1 cargo test the_reference` writes it anew.
    #[test]
    fn the_reference_for_operators_is_complete() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/executor.md");
        let text = std::fs::read_to_string(&path).expect("docs/executor.md");
        let (before, rest) = text.split_once("<!-- keys -->\n").expect("a place for the table");
        let (_, after) = rest
            .split_once("<!-- end of keys -->")
            .expect("the end of that place");
        let mut table = "| key | variable | default | |\n|---|---|---|---|\n".to_owned();
        for key in KEYS {
            let default = match (key.show)(&Config::default()) {
                nothing if nothing.is_empty() => String::new(),
                value => format!("`{value}`"),
            };
            table += &format!(
                "| `{}` | `{}` | {default} | {} |\n",
                key.name,
                key.variable(),
                key.about
            );
        }
        let wanted = format!("{before}<!-- keys -->\n{table}<!-- end of keys -->{after}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &wanted).expect("written");
            return;
        }
        assert!(
            text == wanted,
            "docs/executor.md is not up to date: UPDATE_DOCS=1 cargo test the_reference"
        );
    }

    #[test]
    fn every_key_reads_back_what_it_shows() {
        let mut config = Config {
            ca_file: Some("/ca.pem".into()),
            agent_name: Some("agent".into()),
            images: ImagesConfig {
                quota: Some(5),
                insecure: list("a:1, b"),
                mirrors: [("docker.io".into(), list("m:1,n")), ("q.io".into(), list("m"))].into(),
                credentials: Some("/auth.json".into()),
                ..ImagesConfig::default()
            },
            ..Config::default()
        };
        let network = "{ default_network = \"a\", networks = { a = { subnets = [\"10.1.0.0/24\"] } } }";
        let network_key = KEYS.iter().find(|key| key.name == "network").expect("a key");
        (network_key.read)(&mut config, network).expect("a network");
        assert_eq!(config.network.config.networks.len(), 1);
        let before = config.clone();
        for key in KEYS {
            let shown = (key.show)(&config);
            (key.read)(&mut config, &shown)
                .unwrap_or_else(|problem| panic!("{} = {shown}: {problem}", key.name));
        }
        assert_eq!(config, before);
    }
}
