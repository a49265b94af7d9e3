//! What a pod asks of its network, read from `ExecutorInfo` and checked before anything is made.
//!
//! The `network` value of the executor's extras (`ExecutorInfo.data`, `{"podling": 1, "network": …}`):
//!
//! ```json
//! {
//!   "mode": "container",
//!   "networks": [{
//!     "name": "back",
//!     "labels": {"tier": "2"},
//!     "portMappings": [{"hostPort": 31000, "containerPort": 80, "protocol": "tcp"}]
//!   }]
//! }
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `mode` | `host`: the agent's network. `bridge`: the built-in bridge. `cni`: plug-ins of `/etc/cni/net.d`. `container`: each network by plug-ins if a list has its name, else by the built-in bridge. Absent: `container` if networks are named, else `host` |
//! | `networks[]` | one interface each, `eth0`, `eth1`, …; none in mode `bridge` or `container` is the default one |
//! | `networks[].name` | as in the operator's configuration or a CNI list |
//! | `networks[].labels` | handed to plug-ins and reported in `network_infos` |
//! | `networks[].portMappings[]` | `hostPort`, `containerPort` (default: the host port), `protocol`: `tcp` (default), `udp`; `http` and `https` mean `tcp` |
//!
//! Unknown keys are errors. The same mapping on several networks is legal (an endpoint that names none of its pod's
//! networks is on all of them); the first of them that has an address of the asker's family answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use serde_json::Value;

use super::config::{Network, Networks, check_network_name};
use crate::mesos::v1;

/// What a published port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// Its number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port of the pod that the node shall answer on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl PortMapping {
    /// Do plug-ins of one of these networks see to the same port?
    pub fn is_served_by_plugins(&self, others: &[Attachment]) -> bool {
        let same = |other: &PortMapping| (other.protocol, other.host_port) == (self.protocol, self.host_port);
        let mut by_plugins = others.iter().filter(|other| other.by == Maker::Cni);
        by_plugins.any(|other| other.port_mappings.iter().any(same))
    }
}

/// A network of a pod as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The name the pod used; reported in `network_infos`.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub port_mappings: Vec<PortMapping>,
    pub by: Maker,
}

/// Who makes an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maker {
    Bridge(Arc<Network>),
    /// The CNI list of the attachment's name.
    Cni,
}

/// What we need to know of a CNI list before it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plugins {
    /// Someone in the chain publishes ports.
    pub can_publish: bool,
}

/// A pod's network, decided and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub kind: Kind,
    /// `ContainerInfo.hostname` of the executor (N-03).
    pub hostname: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Members stay in the agent's network.
    Host,
    /// The agent has put the executor into these networks; members share that (N-01).
    Agent(Vec<v1::NetworkInfo>),
    /// A namespace of our own with these interfaces, in order.
    Own(Vec<Attachment>),
}

/// Why a pod's network cannot be made as asked; starts with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct RequestError {
    pub at: String,
    pub what: String,
}

/// More networks or ports than anyone has ever asked for; a bound on what we hold, write and send.
const MOST_NETWORKS: usize = 32;
const MOST_MAPPINGS: usize = 4096;

fn fault(at: impl Into<String>, what: impl Into<String>) -> RequestError {
    RequestError {
        at: at.into(),
        what: what.into(),
    }
}

impl Request {
    /// Members stay where the executor is.
    pub fn host() -> Request {
        Request {
            kind: Kind::Host,
            hostname: None,
        }
    }

    /// `extras` is the `network` value of `ExecutorInfo.data`; `cni` tells what the CNI list of a name can do,
    /// if there is one.
    pub fn read(
        container: Option<&v1::ContainerInfo>,
        extras: Option<&Value>,
        networks: &Networks,
        cni: &dyn Fn(&str) -> Option<Plugins>,
    ) -> Result<Request, RequestError> {
        let hostname = container.and_then(|container| container.hostname.clone());
        if let Some(hostname) = &hostname {
            check_hostname(hostname).map_err(|what| fault("container.hostname", what))?;
        }
        let by_agent = by_agent(container)?;
        let kind = match (by_agent, extras) {
            (None, None) => Kind::Host,
            (None, Some(extras)) => Extras { networks, cni }.read(extras)?,
            (Some(infos), None) => Kind::Agent(infos),
            (Some(_), Some(_)) => {
                let what = "the agent has already made this pod's network (container.network_infos); ask for one of the two";
                return Err(fault("data.network", what));
            }
        };
        Ok(Request { kind, hostname })
    }
}

/// The networks that the agent has made; infos without a name mean the host's (N-01).
fn by_agent(container: Option<&v1::ContainerInfo>) -> Result<Option<Vec<v1::NetworkInfo>>, RequestError> {
    let infos = container
        .map(|container| container.network_infos.as_slice())
        .unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (index, info) in infos.iter().enumerate() {
        if let Some(name) = &info.name
            && !seen.insert(name)
        {
            let at = format!("container.network_infos[{index}].name");
            return Err(fault(at, format!("the pod is already in network `{name}`")));
        }
    }
    Ok((!seen.is_empty()).then(|| infos.iter().filter(|info| info.name.is_some()).cloned().collect()))
}

/// Reads the extras' value, keeping the place for what is wrong.
struct Extras<'a> {
    networks: &'a Networks,
    cni: &'a dyn Fn(&str) -> Option<Plugins>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Host,
    Bridge,
    Cni,
    Container,
}

impl Extras<'_> {
    fn read(&self, value: &Value) -> Result<Kind, RequestError> {
        let at = "data.network";
        let object = Object::new(at, value, &["mode", "networks"])?;
        let list = match object.get("networks") {
            None => &[][..],
            Some(value) => value
                .as_array()
                .ok_or_else(|| fault(format!("{at}.networks"), "expected a list"))?,
        };
        let mode = match object.text("mode")? {
            None if list.is_empty() => Mode::Host,
            None | Some("container") => Mode::Container,
            Some("host") => Mode::Host,
            Some("bridge" | "container/bridge") => Mode::Bridge,
            Some("cni") => Mode::Cni,
            Some(other) => {
                let what = format!("`{other}` is not a mode; there are host, bridge, cni and container");
                return Err(fault(format!("{at}.mode"), what));
            }
        };
        if mode == Mode::Host {
            if !list.is_empty() {
                return Err(fault(
                    format!("{at}.networks"),
                    "mode host joins no other networks and publishes no ports",
                ));
            }
            return Ok(Kind::Host);
        }
        if list.len() > MOST_NETWORKS {
            return Err(fault(
                format!("{at}.networks"),
                format!("more than {MOST_NETWORKS} networks"),
            ));
        }
        let mut attachments = Vec::new();
        let mut published = BTreeMap::new();
        let mut joined = BTreeSet::new();
        for (index, value) in list.iter().enumerate() {
            let at = format!("{at}.networks[{index}]");
            let attachment = self.attachment(&at, value, mode, index, &mut published)?;
            if !joined.insert(attachment.name.clone()) {
                let what = format!("the pod is already in network `{}`", attachment.name);
                return Err(fault(format!("{at}.name"), what));
            }
            attachments.push(attachment);
        }
        if attachments.is_empty() {
            attachments.push(self.unnamed(mode)?);
        }
        Ok(Kind::Own(attachments))
    }

    /// The network of a pod that asks for one without saying which.
    fn unnamed(&self, mode: Mode) -> Result<Attachment, RequestError> {
        if mode == Mode::Cni {
            return Err(fault(
                "data.network.networks",
                "mode cni needs the name of a network",
            ));
        }
        let network = self.default_network("data.network.networks")?;
        Ok(Attachment {
            name: network.name.clone(),
            labels: BTreeMap::new(),
            port_mappings: Vec::new(),
            by: Maker::Bridge(network),
        })
    }

    fn default_network(&self, at: &str) -> Result<Arc<Network>, RequestError> {
        let what = "name a network: this node has no default one";
        self.networks.default().cloned().ok_or_else(|| fault(at, what))
    }

    fn attachment(
        &self,
        at: &str,
        value: &Value,
        mode: Mode,
        network: usize,
        published: &mut BTreeMap<(Protocol, u16), Claim>,
    ) -> Result<Attachment, RequestError> {
        let object = Object::new(at, value, &["name", "labels", "portMappings"])?;
        let (name, by) = self.maker(at, object.text("name")?, mode)?;
        let mut labels = BTreeMap::new();
        if let Some(value) = object.get("labels") {
            let at = format!("{at}.labels");
            let object = value
                .as_object()
                .ok_or_else(|| fault(&at, "expected an object"))?;
            for (key, value) in object {
                let value = value
                    .as_str()
                    .ok_or_else(|| fault(format!("{at}.{key}"), "expected a string"))?;
                labels.insert(key.clone(), value.to_owned());
            }
        }
        let mut port_mappings = Vec::new();
        if let Some(value) = object.get("portMappings") {
            let at = format!("{at}.portMappings");
            let list = value.as_array().ok_or_else(|| fault(&at, "expected a list"))?;
            if published.len() + list.len() > MOST_MAPPINGS {
                return Err(fault(at, format!("more than {MOST_MAPPINGS} ports")));
            }
            for (index, value) in list.iter().enumerate() {
                let at = format!("{at}[{index}]");
                let mapping = port_mapping(&at, value)?;
                let here = Claim {
                    container_port: mapping.container_port,
                    network,
                    at: at.clone(),
                };
                match published.insert((mapping.protocol, mapping.host_port), here) {
                    Some(before)
                        if before.network == network || before.container_port != mapping.container_port =>
                    {
                        let what = format!("{} is already taken by {}", Published(&mapping), before.at);
                        return Err(fault(format!("{at}.hostPort"), what));
                    }
                    _ => port_mappings.push(mapping),
                }
            }
        }
        if by == Maker::Cni
            && !port_mappings.is_empty()
            && !(self.cni)(&name).is_some_and(|plugins| plugins.can_publish)
        {
            let what = format!("no plug-in of CNI network `{name}` has the capability portMappings");
            return Err(fault(format!("{at}.portMappings"), what));
        }
        Ok(Attachment {
            name,
            labels,
            port_mappings,
            by,
        })
    }

    fn maker(&self, at: &str, name: Option<&str>, mode: Mode) -> Result<(String, Maker), RequestError> {
        let at = format!("{at}.name");
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            if mode == Mode::Cni {
                return Err(fault(at, "mode cni needs the name of a network"));
            }
            let network = self.default_network(&at)?;
            return Ok((network.name.clone(), Maker::Bridge(network)));
        };
        check_network_name(name).map_err(|what| fault(&at, what))?;
        let by = match mode {
            Mode::Cni | Mode::Container if (self.cni)(name).is_some() => Maker::Cni,
            Mode::Cni => {
                return Err(fault(
                    at,
                    format!("no CNI configuration list has the name `{name}`"),
                ));
            }
            _ => match self.networks.get(name) {
                Some(network) => Maker::Bridge(network.clone()),
                None => {
                    let what = format!(
                        "this node has no network `{name}`: neither a CNI configuration list nor the executor's \
                         configuration names it; there are: {}",
                        self.networks.names()
                    );
                    return Err(fault(at, what));
                }
            },
        };
        Ok((name.to_owned(), by))
    }
}

/// Who asked for a host port first.
struct Claim {
    container_port: u16,
    network: usize,
    at: String,
}

struct Published<'a>(&'a PortMapping);

impl fmt::Display for Published<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.host_port, self.0.protocol)
    }
}

fn port_mapping(at: &str, value: &Value) -> Result<PortMapping, RequestError> {
    let object = Object::new(at, value, &["hostPort", "containerPort", "protocol"])?;
    let host_port = object.port("hostPort")?;
    let host_port = host_port.ok_or_else(|| fault(format!("{at}.hostPort"), "is missing"))?;
    let container_port = object.port("containerPort")?.unwrap_or(host_port);
    let word = object.text("protocol")?.unwrap_or("tcp").to_ascii_lowercase();
    let protocol = match word.as_str() {
        "tcp" | "http" | "https" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => {
            let what = "sctp ports cannot be published; use the pod's own address, or tcp or udp";
            return Err(fault(format!("{at}.protocol"), what));
        }
        other => {
            return Err(fault(
                format!("{at}.protocol"),
                format!("`{other}` is neither tcp nor udp"),
            ));
        }
    };
    Ok(PortMapping {
        host_port,
        container_port,
        protocol,
    })
}

/// A JSON object with known keys only.
struct Object<'a> {
    at: &'a str,
    fields: &'a serde_json::Map<String, Value>,
}

impl<'a> Object<'a> {
    fn new(at: &'a str, value: &'a Value, known: &[&str]) -> Result<Self, RequestError> {
        let fields = value.as_object().ok_or_else(|| fault(at, "expected an object"))?;
        if let Some(unknown) = fields.keys().find(|key| !known.contains(&key.as_str())) {
            let what = format!("unknown key; there are: {}", known.join(", "));
            return Err(fault(format!("{at}.{unknown}"), what));
        }
        Ok(Object { at, fields })
    }

    /// `null` is as good as absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, RequestError> {
        let wrong = || fault(format!("{}.{key}", self.at), "expected a string");
        self.get(key)
            .map(|value| value.as_str().ok_or_else(wrong))
            .transpose()
    }

    fn port(&self, key: &str) -> Result<Option<u16>, RequestError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let at = || format!("{}.{key}", self.at);
        match value.as_u64() {
            Some(port @ 1..=65535) => Ok(Some(port as u16)),
            Some(0) => Err(fault(at(), "0 is not a port; ports are 1 to 65535")),
            Some(port) => Err(fault(at(), format!("{port} is above 65535"))),
            None => Err(fault(at(), "expected a number from 1 to 65535")),
        }
    }
}

/// What the kernel and /etc/hosts can hold.
pub fn check_hostname(hostname: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !hostname.is_empty()
        && hostname.len() <= 64
        && hostname.bytes().all(plain)
        && !hostname.starts_with('-')
    {
        Ok(())
    } else {
        Err("a host name is 1 to 64 letters, digits, `-`, `.` or `_` and does not start with `-`")
    }
}

/// An address as `network_infos` carries it: plain, without prefix length (N-09).
pub fn ip_address(address: IpAddr) -> v1::network_info::IpAddress {
    let protocol = match address {
        IpAddr::V4(_) => v1::network_info::Protocol::IPv4,
        IpAddr::V6(_) => v1::network_info::Protocol::IPv6,
    };
    v1::network_info::IpAddress {
        protocol: Some(protocol.into()),
        ip_address: Some(address.to_string()),
    }
}

#[cfg(test)]
mod tests;
