//! Under which name and at which ports others find a container (mapping reference, section 7.4).

use super::{Launch, pod_id};
use crate::{
    mesos::v1,
    pod::model::{Container, Endpoint, Labels, NetworkMode},
};

pub(super) fn info(launch: &Launch<'_>, container: &Container) -> v1::DiscoveryInfo {
    let ports = container
        .endpoints
        .iter()
        .flat_map(|endpoint| ports(launch, endpoint))
        .collect();
    v1::DiscoveryInfo {
        visibility: v1::discovery_info::Visibility::Framework as i32,
        name: Some(pod_id(launch).discovery_name()),
        ports: Some(v1::Ports { ports }),
        ..Default::default()
    }
}

/// One entry for each protocol and, for a port inside the network, for each network it is on.
fn ports(launch: &Launch<'_>, endpoint: &Endpoint) -> Vec<v1::Port> {
    let host_port = launch.target.allocation.host_ports.get(&endpoint.name).copied();
    let scope = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut places: Vec<(u16, Labels)> = Vec::new();
    if launch.pod.on_host_network() {
        places.extend(host_port.map(|port| (port, Labels::new())));
    } else if let Some(port) = host_port {
        places.push((port, Labels::from([scope("network-scope", "host")])));
    } else if let Some(port) = endpoint.container_port {
        for network in launch
            .pod
            .networks
            .iter()
            .filter(|network| network.mode == NetworkMode::Container)
        {
            let Some(name) = &network.name else { continue };
            if endpoint.network_names.is_empty() || endpoint.network_names.contains(name) {
                let labels = [scope("network-scope", "container"), scope("network-name", name)];
                places.push((port, Labels::from(labels)));
            }
        }
    }
    let entry = |protocol: &String, (port, extra): &(u16, Labels)| {
        let mut labels = endpoint.labels.clone();
        labels.extend(extra.clone());
        v1::Port {
            number: u32::from(*port),
            name: Some(endpoint.name.clone()),
            protocol: Some(protocol.clone()),
            visibility: None,
            labels: super::labels(&labels),
        }
    };
    endpoint
        .protocol
        .iter()
        .flat_map(|protocol| places.iter().map(move |place| entry(protocol, place)))
        .collect()
}
