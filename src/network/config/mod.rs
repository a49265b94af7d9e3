//! What an operator says about networks, and the checked form of it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::subnet::Subnet;

/// The `network` table of the executor's configuration.
///
/// ```toml
/// [network]
/// default_network = "mesos-bridge"      # for pods that name none; "" refuses them
///
/// [network.networks.mesos-bridge]
/// subnets = ["10.167.0.0/16"]           # at most one for IPv4 and one for IPv6
///
/// [network.networks.back]
/// subnets = ["10.168.0.0/20", "fd70:6f64:1::/64"]
/// gateways = ["10.168.0.1"]             # else the first address of each subnet
/// bridge = "back0"                      # else derived from the name
/// mtu = 1400
/// isolated = false                      # may talk to other networks that are not isolated
/// masquerade = true                     # leave the node under the node's address
/// dns = { nameservers = ["10.168.0.1"], search = ["example.org"], options = ["ndots:2"] }
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Leases, address pools and locks of this node, on a file system that a reboot empties; else `network` in the
    /// directory where executors keep what they have made.
    pub state_dir: Option<PathBuf>,
    /// The one nftables table (family inet) that is ours.
    pub table: String,
    /// For pods that name no network.
    pub default_network: String,
    pub networks: BTreeMap<String, NetworkConfig>,
    /// resolv.conf of pods whose network has no dns of its own; else the node's (N-05).
    pub dns: Option<Dns>,
    /// May we turn on `net.ipv4.ip_forward` (and its IPv6 brother for networks with IPv6) where they are off?
    pub enable_forwarding: bool,
    pub cni: CniConfig,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    pub subnets: Vec<Subnet>,
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    #[serde(default)]
    pub bridge: Option<String>,
    #[serde(default)]
    pub mtu: Option<u32>,
    #[serde(default)]
    pub dns: Option<Dns>,
    #[serde(default = "yes")]
    pub isolated: bool,
    #[serde(default = "yes")]
    pub masquerade: bool,
}

fn yes() -> bool {
    true
}

/// The lines of a resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    pub nameservers: Vec<String>,
    pub domain: Option<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Dns {
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }

    /// An operator's words; those of plug-ins are only made harmless where they are written.
    fn check(&self, at: &str) -> Result<(), ConfigError> {
        for (index, server) in self.nameservers.iter().enumerate() {
            // A link-local address names its interface: `fe80::1%eth0`.
            let address = server.split('%').next().unwrap_or_default();
            if address.parse::<IpAddr>().is_err() {
                let at = format!("{at}.nameservers[{index}]");
                return Err(fault(at, format!("`{server}` is not an address")));
            }
        }
        let lists = [("search", &self.search), ("options", &self.options)];
        let words = lists.into_iter().flat_map(|(name, list)| {
            let place = move |(index, word)| (format!("{at}.{name}[{index}]"), word);
            list.iter().enumerate().map(place)
        });
        let domain = self.domain.iter().map(|word| (format!("{at}.domain"), word));
        for (at, word) in words.chain(domain) {
            if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(fault(at, format!("{word:?} is not one word")));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    pub config_dirs: Vec<PathBuf>,
    pub plugin_dirs: Vec<PathBuf>,
    /// For one call of one plug-in.
    pub timeout_seconds: u64,
    /// Run GC for our networks at every clean-up. Off, because it also removes what other users of the same
    /// network have attached.
    pub gc: bool,
}

impl CniConfig {
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.max(1))
    }
}

impl Default for CniConfig {
    fn default() -> Self {
        CniConfig {
            config_dirs: vec!["/etc/cni/net.d".into()],
            plugin_dirs: vec![
                "/opt/cni/bin".into(),
                "/usr/lib/cni".into(),
                "/usr/libexec/cni".into(),
            ],
            timeout_seconds: 60,
            gc: false,
        }
    }
}

/// Nobody waits longer for a plug-in, in seconds.
const LONGEST_CALL: u64 = 3600;

/// The network that exists without any configuration; Marathon's own name for bridge mode.
pub const DEFAULT_NETWORK: &str = "mesos-bridge";

impl Default for Config {
    fn default() -> Self {
        // IPv4 only: forwarding IPv6 makes the node itself stop listening to router advertisements, which nobody should
        // get without asking for it.
        let built_in = NetworkConfig {
            subnets: "10.167.0.0/16".parse().into_iter().collect(),
            gateways: Vec::new(),
            bridge: Some("podling0".to_owned()),
            mtu: None,
            dns: None,
            isolated: true,
            masquerade: true,
        };
        Config {
            state_dir: None,
            table: "podling".to_owned(),
            default_network: DEFAULT_NETWORK.to_owned(),
            networks: BTreeMap::from([(DEFAULT_NETWORK.to_owned(), built_in)]),
            dns: None,
            enable_forwarding: true,
            cni: CniConfig::default(),
        }
    }
}

/// Why the operator's words cannot be followed; starts with the place, from the root of the executor's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network.{at}: {what}")]
pub struct ConfigError {
    pub at: String,
    pub what: String,
}

/// A built-in network, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    pub bridge: String,
    pub bridge_mac: [u8; 6],
    /// One for each family, IPv4 first.
    pub stacks: Vec<Stack>,
    pub mtu: Option<u32>,
    pub dns: Option<Dns>,
    pub isolated: bool,
    pub masquerade: bool,
}

/// One address family of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    pub subnet: Subnet,
    pub gateway: IpAddr,
}

/// All built-in networks of the node, checked against each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks {
    by_name: BTreeMap<String, Arc<Network>>,
    default: Option<Arc<Network>>,
}

impl Networks {
    pub fn get(&self, name: &str) -> Option<&Arc<Network>> {
        self.by_name.get(name)
    }

    pub fn default(&self) -> Option<&Arc<Network>> {
        self.default.as_ref()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.by_name.values()
    }

    /// The names, for a sentence.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }
}

impl Config {
    pub fn state_dir(&self) -> &Path {
        self.state_dir
            .as_deref()
            .unwrap_or(Path::new("/run/podling/network"))
    }

    /// Reads and checks a table as it stands in TOML after `network =`.
    pub fn read(text: &str) -> Result<Config, ConfigError> {
        let bare = |what: String| ConfigError {
            at: "*".to_owned(),
            what,
        };
        let table: Result<toml::Table, _> = toml::from_str(&format!("network = {text}"));
        let mut table = table.map_err(|error| bare(format!("is no table: {}", error.message())))?;
        let Some(value @ toml::Value::Table(_)) = table.remove("network") else {
            return Err(bare("is no table".to_owned()));
        };
        let config: Config = serde_path_to_error::deserialize(value).map_err(|error| {
            let (at, what) = (error.path().to_string(), error.inner().message().to_owned());
            if at == "." { bare(what) } else { fault(at, what) }
        })?;
        config.check()?;
        Ok(config)
    }

    /// Checks everything that can be checked without touching the node.
    pub fn check(&self) -> Result<Networks, ConfigError> {
        if self.table.is_empty() || self.table.len() > 64 || !self.table.bytes().all(is_word) {
            return Err(fault("table", "must be 1 to 64 letters, digits, `_` or `-`"));
        }
        if let Some(dir) = &self.state_dir {
            check_absolute("state_dir", dir)?;
        }
        for (what, dirs) in [
            ("config", &self.cni.config_dirs),
            ("plugin", &self.cni.plugin_dirs),
        ] {
            for (index, dir) in dirs.iter().enumerate() {
                check_absolute(&format!("cni.{what}_dirs[{index}]"), dir)?;
            }
        }
        if !(1..=LONGEST_CALL).contains(&self.cni.timeout_seconds) {
            let what = format!("must be between 1 and {LONGEST_CALL}");
            return Err(fault("cni.timeout_seconds", what));
        }
        if let Some(dns) = &self.dns {
            dns.check("dns")?;
        }
        let mut by_name: BTreeMap<String, Arc<Network>> = BTreeMap::new();
        for (name, given) in &self.networks {
            let network = given.check(name)?;
            for other in by_name.values() {
                network.check_beside(other)?;
            }
            by_name.insert(name.clone(), Arc::new(network));
        }
        let default = by_name.get(&self.default_network).cloned();
        if default.is_none() && !self.default_network.is_empty() {
            let what = format!("`{}` is not one of the networks", self.default_network);
            return Err(fault("default_network", what));
        }
        Ok(Networks { by_name, default })
    }
}

impl NetworkConfig {
    fn check(&self, name: &str) -> Result<Network, ConfigError> {
        let at = |field: &str| format!("networks.{name}{field}");
        check_network_name(name).map_err(|what| fault(at(""), what))?;
        let mut stacks: Vec<Stack> = Vec::new();
        for (index, subnet) in self.subnets.iter().enumerate() {
            if stacks
                .iter()
                .any(|stack| stack.subnet.is_ipv4() == subnet.is_ipv4())
            {
                let what = "a network has at most one subnet for IPv4 and one for IPv6";
                return Err(fault(at(&format!(".subnets[{index}]")), what));
            }
            let gateway = self
                .gateways
                .iter()
                .find(|gateway| gateway.is_ipv4() == subnet.is_ipv4());
            let gateway = gateway.copied().unwrap_or(subnet.first());
            stacks.push(Stack {
                subnet: *subnet,
                gateway,
            });
        }
        if stacks.is_empty() {
            return Err(fault(at(".subnets"), "needs a subnet"));
        }
        stacks.sort_by_key(|stack| !stack.subnet.is_ipv4());
        for (index, gateway) in self.gateways.iter().enumerate() {
            let ours = stacks.iter().find(|stack| stack.gateway == *gateway);
            if ours.is_none_or(|stack| stack.subnet.pool_index(*gateway).is_none()) {
                let what = format!("{gateway} is not a usable address of the network's subnets");
                return Err(fault(at(&format!(".gateways[{index}]")), what));
            }
        }
        let bridge = match &self.bridge {
            Some(bridge) if bridge.is_empty() || bridge.len() > 15 || !bridge.bytes().all(is_word) => {
                return Err(fault(
                    at(".bridge"),
                    "must be 1 to 15 letters, digits, `_` or `-`",
                ));
            }
            // In `/proc/sys/net` these two are not interfaces but the settings of all of them.
            Some(bridge) if ["all", "default", "lo"].contains(&bridge.as_str()) => {
                return Err(fault(at(".bridge"), format!("`{bridge}` cannot be a bridge")));
            }
            Some(bridge) => bridge.clone(),
            None => derived_name("plb", name),
        };
        if self.mtu.is_some_and(|mtu| !(1280..=65535).contains(&mtu)) {
            return Err(fault(at(".mtu"), "must be between 1280 and 65535"));
        }
        if let Some(dns) = &self.dns {
            dns.check(&at(".dns"))?;
        }
        Ok(Network {
            name: name.to_owned(),
            bridge_mac: derived_mac(name),
            bridge,
            stacks,
            mtu: self.mtu,
            dns: self.dns.clone(),
            isolated: self.isolated,
            masquerade: self.masquerade,
        })
    }
}

impl Network {
    pub fn has_ipv4(&self) -> bool {
        self.stacks.iter().any(|stack| stack.subnet.is_ipv4())
    }

    pub fn has_ipv6(&self) -> bool {
        self.stacks.iter().any(|stack| !stack.subnet.is_ipv4())
    }

    fn check_beside(&self, other: &Network) -> Result<(), ConfigError> {
        if self.bridge == other.bridge {
            let what = format!(
                "`{}` is already the bridge of network {}",
                self.bridge, other.name
            );
            return Err(fault(format!("networks.{}.bridge", self.name), what));
        }
        for ours in &self.stacks {
            if let Some(theirs) = other
                .stacks
                .iter()
                .find(|theirs| theirs.subnet.overlaps(ours.subnet))
            {
                let what = format!(
                    "{} overlaps {} of network {}",
                    ours.subnet, theirs.subnet, other.name
                );
                return Err(fault(format!("networks.{}.subnets", self.name), what));
            }
        }
        Ok(())
    }
}

fn check_absolute(at: &str, path: &Path) -> Result<(), ConfigError> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(fault(at, format!("`{}` is not an absolute path", path.display()))),
    }
}

fn fault(at: impl Into<String>, what: impl Into<String>) -> ConfigError {
    ConfigError {
        at: at.into(),
        what: what.into(),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// The rule of the CNI specification, which also makes a name safe as a file name.
pub fn check_network_name(name: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| is_word(byte) || byte == b'.';
    let starts = name
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric());
    if starts && name.len() <= 128 && name.bytes().all(plain) {
        Ok(())
    } else {
        Err("a network's name is 1 to 128 letters, digits, `.`, `_` or `-` and starts with a letter or digit")
    }
}

/// An interface name of 15 bytes, the kernel's limit: a prefix and as much of a hash as fits.
pub fn derived_name(prefix: &str, of: &str) -> String {
    let mut name = prefix.to_owned();
    for byte in Sha256::digest(of) {
        name.push_str(&format!("{byte:02x}"));
    }
    name.truncate(15);
    name
}

/// A stable, locally administered address: a bridge that is made anew keeps it, so neighbours need not learn it again.
pub fn derived_mac(of: &str) -> [u8; 6] {
    let mut mac = [0x02, 0x70, 0, 0, 0, 0];
    for (place, byte) in mac.iter_mut().skip(2).zip(Sha256::digest(of)) {
        *place = byte;
    }
    mac
}

#[cfg(test)]
mod tests;
