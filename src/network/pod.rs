//! The network of one pod: what members join, what is told about it, and its end.

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread,
};

use super::{
    NetworkError, Step,
    cni::{At, Kept},
    lease::{Entry, Lease},
    manager::blocking,
    names::Files,
    namespace::Namespace,
    node::{Addresses, Interface, Node},
    port::Claimed,
    request::{Attachment, PortMapping, ip_address},
};
use crate::mesos::v1;

/// Everything that exists for a pod on this node. Undone by [`Held::release`], or by a thread of its own when dropped.
#[derive(Debug)]
pub(super) struct Held {
    node: Arc<Node>,
    lease: Option<Lease>,
    namespace: Option<Namespace>,
    /// Let go before the lease is: who gets a port by its lease next must get it from the kernel too.
    ports: Vec<Claimed>,
}

impl Held {
    pub fn new(node: Arc<Node>, lease: Lease, namespace: Namespace, ports: Vec<Claimed>) -> Held {
        Held {
            ports,
            node,
            lease: Some(lease),
            namespace: Some(namespace),
        }
    }

    pub fn parts(&mut self) -> Result<(&Namespace, &mut Lease), NetworkError> {
        match (&self.namespace, &mut self.lease) {
            (Some(namespace), Some(lease)) => Ok((namespace, lease)),
            _ => Err(NetworkError::BrokenOff),
        }
    }

    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// At once, on the calling thread, which may block; before plug-ins have been run. A failure is left to the next
    /// clean-up.
    pub fn undo(mut self) {
        self.ports.clear();
        if let Some(lease) = self.lease.take() {
            let pod = lease.pod().to_owned();
            told(&pod, self.node.undo(lease, self.namespace.take(), false));
        }
    }

    /// Undone when this returns.
    pub async fn release(mut self) -> Result<(), NetworkError> {
        self.ports.clear();
        match self.lease.take() {
            Some(lease) => give_up(self.node.clone(), lease, self.namespace.take()).await,
            None => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ports.clear();
        let Some(lease) = self.lease.take() else { return };
        let (node, namespace) = (self.node.clone(), self.namespace.take());
        let pod = lease.pod().to_owned();
        let work = move || {
            let pod = lease.pod().to_owned();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => told(&pod, runtime.block_on(give_up(node, lease, namespace))),
                Err(error) => tracing::warn!(pod, %error, "a pod's network is left to the next clean-up"),
            }
        };
        // Without a thread the lease is dropped with its lock, and the next clean-up finds it.
        if let Err(error) = thread::Builder::new().name("net-undo".to_owned()).spawn(work) {
            tracing::warn!(pod, %error, "a pod's network is left to the next clean-up");
        }
    }
}

fn told(pod: &str, undone: Result<(), NetworkError>) {
    if let Err(error) = undone {
        tracing::warn!(pod, %error, "a pod's network is left to the next clean-up");
    }
}

/// Undoes what a journal tells: attachments by their plug-ins, in reverse order, then all that is ours. What a plug-in
/// fails to undo stays in the journal for the next clean-up.
pub(super) async fn give_up(
    node: Arc<Node>,
    lease: Lease,
    namespace: Option<Namespace>,
) -> Result<(), NetworkError> {
    let path = namespace.as_ref().map(Namespace::path).unwrap_or_default();
    let mut complaint = None;
    for entry in lease.entries().iter().rev() {
        let Entry::Attachment { interface, .. } = entry else {
            continue;
        };
        // Without the file ADD had not begun, or an earlier DEL is done.
        let file = node.store.attachment_file(lease.pod(), interface);
        let Some(kept) = Kept::load(&file) else { continue };
        node.watch.before(Step::Detach)?;
        let at = At {
            namespace: &path,
            lock: lease.lock(),
        };
        match node.plugins.del(&kept, at).await {
            Ok(()) => drop(std::fs::remove_file(&file)),
            Err(error) => drop(complaint.get_or_insert(error)),
        }
    }
    let keep = complaint.is_some();
    blocking(move || node.undo(lease, namespace, keep)).await?;
    complaint.map_or(Ok(()), |error| Err(error.into()))
}

/// The network of one pod.
///
/// Ends with [`Self::tear_down`]. Dropped instead, it is undone in the background; if the process dies, the namespace goes
/// with it and the next [`Manager::reclaim`](super::Manager::reclaim) takes back the rest.
#[derive(Debug)]
pub struct PodNetwork {
    held: Option<Held>,
    hostname: Option<String>,
    files: Option<Files>,
    interfaces: Vec<Interface>,
    attachments: Vec<Attachment>,
    infos: Vec<v1::NetworkInfo>,
    address: Option<IpAddr>,
}

impl PodNetwork {
    pub(super) fn host(hostname: Option<String>, address: Option<IpAddr>) -> PodNetwork {
        let info = |address| v1::NetworkInfo {
            ip_addresses: vec![ip_address(address)],
            ..Default::default()
        };
        PodNetwork {
            held: None,
            hostname,
            files: None,
            interfaces: Vec::new(),
            attachments: Vec::new(),
            infos: address.map(info).into_iter().collect(),
            address,
        }
    }

    /// `found` are this process's own interfaces; the agent's CNI names them `eth0`, `eth1`, … in the order of the infos.
    /// If it does not, `fallback` is what can be told: which network that belongs to is unknown, the first is the one
    /// that most likely has the default route.
    pub(super) fn agent(
        hostname: Option<String>,
        mut infos: Vec<v1::NetworkInfo>,
        found: Vec<(String, Addresses)>,
        fallback: Option<IpAddr>,
    ) -> PodNetwork {
        let mut interfaces = Vec::new();
        for (index, info) in infos.iter_mut().enumerate() {
            info.ip_addresses.clear();
            let name = super::manager::interface_name(index);
            let Some((_, addresses)) = found.iter().find(|(found, _)| *found == name) else {
                continue;
            };
            info.ip_addresses = addresses
                .iter()
                .map(|(address, _)| ip_address(*address))
                .collect();
            let network = info.name.clone().unwrap_or_default();
            interfaces.push(Interface {
                name,
                network,
                addresses: addresses.clone(),
            });
        }
        if let (None, Some(address), Some(first)) = (first_address(&interfaces), fallback, infos.first_mut())
        {
            first.ip_addresses = vec![ip_address(address)];
        }
        let address = first_address(&interfaces).or(fallback);
        PodNetwork {
            held: None,
            hostname,
            files: None,
            interfaces,
            attachments: Vec::new(),
            infos,
            address,
        }
    }

    pub(super) fn own(
        held: Held,
        hostname: String,
        attachments: Vec<Attachment>,
        interfaces: Vec<Interface>,
        files: Files,
    ) -> PodNetwork {
        let infos = attachments
            .iter()
            .zip(&interfaces)
            .map(|(attachment, interface)| info(attachment, interface));
        PodNetwork {
            hostname: Some(hostname),
            files: Some(files),
            infos: infos.collect(),
            address: first_address(&interfaces),
            held: Some(held),
            interfaces,
            attachments,
        }
    }

    /// The namespace that members join; `None`: they stay in the executor's.
    pub fn netns(&self) -> Option<BorrowedFd<'_>> {
        self.held.as_ref().and_then(Held::namespace).map(AsFd::as_fd)
    }

    /// The members' host name; `None`: the node's.
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// Contents of /etc/hosts, /etc/hostname and /etc/resolv.conf (N-04); `None`: the files that the executor itself sees.
    pub fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces
            .iter()
            .flat_map(|interface| &interface.addresses)
            .map(|(address, _)| *address)
    }

    /// For `MESOS_CONTAINER_IP`.
    pub fn container_ip(&self) -> Option<IpAddr> {
        self.address
    }

    /// The ports of the node on which the pod answers.
    pub fn published(&self) -> impl Iterator<Item = &PortMapping> {
        self.attachments
            .iter()
            .flat_map(|attachment| &attachment.port_mappings)
    }

    /// For every status of a member (N-09, U-09).
    pub fn network_infos(&self) -> Vec<v1::NetworkInfo> {
        self.infos.clone()
    }

    /// Asks the plug-ins of CNI networks whether all is still as they left it.
    pub async fn check(&self) -> Result<(), NetworkError> {
        let Some(held) = &self.held else { return Ok(()) };
        let (Some(lease), Some(namespace)) = (&held.lease, &held.namespace) else {
            return Ok(());
        };
        let path = namespace.path();
        for interface in &self.interfaces {
            let file = held.node.store.attachment_file(lease.pod(), &interface.name);
            if let Some(kept) = Kept::load(&file) {
                let at = At {
                    namespace: &path,
                    lock: lease.lock(),
                };
                held.node.plugins.check(&kept, at).await?;
            }
        }
        Ok(())
    }

    /// Ends the network. Members must be gone: what still runs in the namespace keeps it, cut off, until it ends.
    pub async fn tear_down(mut self) -> Result<(), NetworkError> {
        match self.held.take() {
            Some(held) => held.release().await,
            None => Ok(()),
        }
    }
}

fn first_address(interfaces: &[Interface]) -> Option<IpAddr> {
    interfaces
        .iter()
        .flat_map(|interface| &interface.addresses)
        .map(|(address, _)| *address)
        .next()
}

fn info(attachment: &Attachment, interface: &Interface) -> v1::NetworkInfo {
    let labels = attachment.labels.iter();
    let labels: Vec<v1::Label> = labels
        .map(|(key, value)| v1::Label {
            key: key.clone(),
            value: Some(value.clone()),
        })
        .collect();
    let mappings = attachment.port_mappings.iter();
    v1::NetworkInfo {
        name: Some(attachment.name.clone()),
        ip_addresses: interface
            .addresses
            .iter()
            .map(|(address, _)| ip_address(*address))
            .collect(),
        labels: (!labels.is_empty()).then_some(v1::Labels { labels }),
        port_mappings: mappings
            .map(|mapping| v1::network_info::PortMapping {
                host_port: mapping.host_port.into(),
                container_port: mapping.container_port.into(),
                protocol: Some(mapping.protocol.as_str().to_owned()),
            })
            .collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(found: &[(&str, &str)], fallback: Option<&str>) -> (Vec<Vec<String>>, Option<String>) {
        let infos = ["front", "back"].map(|name| v1::NetworkInfo {
            name: Some(name.to_owned()),
            // What a scheduler wrote there is a wish, not an address.
            ip_addresses: vec![ip_address("192.0.2.99".parse().unwrap())],
            ..Default::default()
        });
        let found = found
            .iter()
            .map(|(name, address)| ((*name).to_owned(), vec![(address.parse().unwrap(), 24)]))
            .collect();
        let fallback = fallback.map(|address| address.parse().unwrap());
        let pod = PodNetwork::agent(None, infos.to_vec(), found, fallback);
        let addresses = |info: &v1::NetworkInfo| {
            let addresses = info.ip_addresses.iter();
            addresses.map(|address| address.ip_address().to_owned()).collect()
        };
        let addresses = pod.network_infos().iter().map(addresses).collect();
        (addresses, pod.container_ip().map(|address| address.to_string()))
    }

    #[test]
    fn u_09_each_of_the_agents_networks_is_told_with_its_own_address() {
        let found = [("eth0", "10.1.0.5"), ("eth1", "fd00::5")];
        let (infos, address) = told(&found, Some("192.0.2.7"));
        assert_eq!(infos, [["10.1.0.5"], ["fd00::5"]]);
        assert_eq!(address.as_deref(), Some("10.1.0.5"));
    }

    #[test]
    fn u_09_interfaces_of_other_names_leave_only_our_own_address() {
        let (infos, address) = told(&[("ens3", "10.1.0.5")], Some("10.1.0.5"));
        assert_eq!(infos[0], ["10.1.0.5"]);
        assert_eq!(address.as_deref(), Some("10.1.0.5"));
        assert_eq!(told(&[], None).1, None);
    }
}
