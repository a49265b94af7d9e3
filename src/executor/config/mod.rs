//! What an operator may change: a file, then `PODLING_*` variables over it; every value knows where it came from.

mod keys;
mod words;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use keys::{KEYS, Key};

/// How values are written, for others who print them.
pub mod show {
    pub use super::words::{
        show_capabilities as capabilities, show_filters as filters, show_host_volumes as host_volumes,
    };
}

use crate::{
    base::entrusted,
    container::{IdRange, cgroup, plan},
    image,
    mesos::codec::Encoding,
    network, suggest,
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
    pub images: image::OperatorConfig,
    pub network: NetworkSetting,
    pub cgroups: cgroup::Config,
    pub members: MembersConfig,
    pub run_dir: PathBuf,
}

/// What members are and may, unless their task says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct MembersConfig {
    pub defaults: plan::Defaults,
    /// Where `default.json` and the profiles that tasks name are looked for.
    pub seccomp_profiles: PathBuf,
    /// Host users that members' users are; `None`: themselves.
    pub users: Option<IdRange>,
}

impl Default for MembersConfig {
    fn default() -> Self {
        MembersConfig {
            defaults: plan::Defaults::default(),
            seccomp_profiles: PathBuf::from("/etc/podling/seccomp"),
            users: None,
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
            images: image::OperatorConfig::default(),
            network: NetworkSetting::default(),
            cgroups: cgroup::Config::default(),
            members: MembersConfig::default(),
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
    #[error("cannot read the configuration {}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("configuration {}: {message}", .path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("configuration {}: there is no key `{key}`; {}", .path.display(), meant_key(key))]
    UnknownKey { path: PathBuf, key: String },
    #[error("configuration, {key} from {origin}: `{value}` {problem}")]
    Value {
        key: &'static str,
        origin: Origin,
        value: String,
        problem: String,
    },
}

/// The key that was probably meant, or else all of them.
fn meant_key(typed: &str) -> String {
    let names = || KEYS.iter().map(|key| key.name);
    match suggest::nearest(typed, names()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
    }
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
        let text = entrusted::open(&path).and_then(io::read_to_string);
        match text {
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

    /// The variable of ours that was probably meant by one that is not.
    pub fn meant(stranger: &str) -> Option<String> {
        let typed = stranger.strip_prefix("PODLING_")?.to_ascii_lowercase();
        let name = suggest::nearest(&typed, KEYS.iter().map(|key| key.name))?;
        Some(format!("PODLING_{}", name.to_ascii_uppercase()))
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
mod tests;
