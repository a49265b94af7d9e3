//! Which networks an instance joins, and who makes them.

use serde_json::json;

use super::{Delivery, Launch};
use crate::{
    mesos::v1,
    pod::model::{Endpoint, Network, NetworkMode},
};

/// The same networks in the words of the one who makes them; at most one of the two is filled.
#[derive(Debug, Default)]
pub(super) struct Infos {
    /// `network_infos` of the executor's container: the agent's CNI makes them.
    pub by_agent: Vec<v1::NetworkInfo>,
    /// `ExecutorInfo.data`: our executor makes them.
    pub by_executor: Option<Vec<u8>>,
}

pub(super) fn infos(launch: &Launch<'_>) -> Infos {
    let networks: Vec<&Network> = launch
        .pod
        .networks
        .iter()
        .filter(|network| network.mode != NetworkMode::Host)
        .collect();
    if networks.is_empty() {
        return Infos::default();
    }
    match launch.options.delivery {
        Delivery::AgentDefault => {
            let by_agent = networks
                .iter()
                .map(|network| for_agent(launch, network))
                .collect();
            Infos {
                by_agent,
                by_executor: None,
            }
        }
        Delivery::Own(_) => Infos {
            by_agent: Vec::new(),
            by_executor: Some(for_executor(launch, &networks)),
        },
    }
}

/// The port at which the pod itself reaches an endpoint. On the host's network that is the one allocated; on others
/// the container's, or, where none is named, the same as outside.
pub(super) fn port_inside(launch: &Launch<'_>, endpoint: &Endpoint) -> Option<u16> {
    let host_port = launch.target.allocation.host_ports.get(&endpoint.name).copied();
    match launch.pod.on_host_network() {
        true => host_port,
        false => endpoint.container_port.or(host_port),
    }
}

fn name<'a>(launch: &Launch<'a>, network: &'a Network) -> &'a str {
    match network.mode {
        NetworkMode::Bridge => &launch.options.bridge_name,
        _ => network.name.as_deref().unwrap_or_default(),
    }
}

/// A mapping as CNI plug-ins understand it: `http` and `https` are spoken over tcp.
struct Mapping {
    host_port: u16,
    container_port: u16,
    protocol: Option<String>,
}

fn mappings(launch: &Launch<'_>, network: &Network) -> Vec<Mapping> {
    let concerns = |endpoint: &&Endpoint| match (&network.mode, &network.name) {
        (NetworkMode::Container, Some(name)) => {
            endpoint.network_names.is_empty() || endpoint.network_names.contains(name)
        }
        _ => true,
    };
    let mut all = Vec::new();
    for endpoint in launch
        .pod
        .containers
        .iter()
        .flat_map(|c| &c.endpoints)
        .filter(concerns)
    {
        let Some(&host_port) = launch.target.allocation.host_ports.get(&endpoint.name) else {
            continue;
        };
        let container_port = endpoint.container_port.unwrap_or(host_port);
        let mut protocols: Vec<Option<String>> = endpoint
            .protocol
            .iter()
            .map(|word| Some(transport(word)))
            .collect();
        protocols.dedup();
        if protocols.is_empty() {
            protocols.push(None);
        }
        all.extend(protocols.into_iter().map(|protocol| Mapping {
            host_port,
            container_port,
            protocol,
        }));
    }
    all
}

fn transport(protocol: &str) -> String {
    let word = protocol.to_ascii_lowercase();
    if word == "http" || word == "https" {
        "tcp".to_owned()
    } else {
        word
    }
}

fn for_agent(launch: &Launch<'_>, network: &Network) -> v1::NetworkInfo {
    let port_mappings = mappings(launch, network)
        .into_iter()
        .map(|mapping| v1::network_info::PortMapping {
            host_port: u32::from(mapping.host_port),
            container_port: u32::from(mapping.container_port),
            protocol: mapping.protocol,
        })
        .collect();
    v1::NetworkInfo {
        name: Some(name(launch, network).to_owned()),
        labels: super::labels(&network.labels),
        port_mappings,
        ..Default::default()
    }
}

/// In the words of [`network::request`](crate::network::request).
fn for_executor(launch: &Launch<'_>, networks: &[&Network]) -> Vec<u8> {
    let bridge = networks.iter().all(|network| network.mode == NetworkMode::Bridge);
    let networks: Vec<_> = networks
        .iter()
        .map(|network| {
            let ports: Vec<_> = mappings(launch, network)
                .iter()
                .map(|mapping| {
                    let mut port =
                        json!({"hostPort": mapping.host_port, "containerPort": mapping.container_port});
                    if let Some(protocol) = &mapping.protocol {
                        port["protocol"] = json!(protocol);
                    }
                    port
                })
                .collect();
            let mut asked = json!({"labels": network.labels, "portMappings": ports});
            // The bridge is the node's default network, whatever its operator calls that.
            if !bridge {
                asked["name"] = json!(name(launch, network));
            }
            asked
        })
        .collect();
    let mode = if bridge { "bridge" } else { "container" };
    json!({"podling": 1, "network": {"mode": mode, "networks": networks}})
        .to_string()
        .into_bytes()
}
