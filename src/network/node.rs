//! The node's side of the built-in bridge: bridges, interface pairs, addresses, the table of rules.
//!
//! Everything here blocks for as long as the kernel takes, which is a millisecond when nobody else holds its route lock;
//! the manager runs it beside the runtime.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    Step, Watch,
    cni::Runner,
    config::{Config, Network, Networks, derived_mac, derived_name},
    conntrack,
    error::{NetworkError, kernel},
    lease::{Claim, Entry, Lease, Locked, Store},
    link::{self, Link, Pair},
    request::{Attachment, Maker, Protocol},
    ruleset::{Found, PublishedPort, Ruleset, Share},
    subnet::Subnet,
};
use crate::sys::{
    netlink::{Batch, Family, Refused, Socket},
    netns,
};

/// A pod's namespace, and a socket that speaks from inside it.
#[derive(Debug)]
pub(super) struct Namespace {
    fd: OwnedFd,
    route: Witness,
}

/// Tells from outside what is inside.
#[derive(Debug, Clone)]
pub(super) struct Witness(Arc<Mutex<Socket>>);

/// How long a namespace may take to end by itself. It takes longer when something else holds it.
const NAMESPACE_PATIENCE: Duration = Duration::from_millis(500);

/// What containers may expect of a namespace of their own: any user may ping and listen on any port (as in Docker), no
/// neighbour makes itself our router, and addresses are usable at once.
const SETTINGS: [(&str, &str); 4] = [
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

impl Namespace {
    /// Blocks for about half a millisecond.
    pub fn create() -> io::Result<Namespace> {
        let (fd, route) = netns::create(|| {
            for (key, value) in SETTINGS {
                // Comforts: a kernel without IPv6 or a user namespace may refuse some of them.
                if let Err(error) = fs::write(format!("/proc/sys/{key}"), value) {
                    tracing::debug!(key, value, %error, "a pod goes without this setting");
                }
            }
            let mut route = Socket::open(Family::Route)?;
            let lo = link::find(&mut route, "lo").map_err(io::Error::other)?;
            let mut batch = Batch::new();
            link::set_up(&mut batch, lo.map_or(1, |lo| lo.index));
            route.transact(&batch).map_err(io::Error::other)?;
            Ok(route)
        })?;
        Ok(Namespace {
            fd,
            route: Witness(Arc::new(Mutex::new(route))),
        })
    }

    pub fn witness(&self) -> Witness {
        self.route.clone()
    }

    /// A path that leads here for as long as this process holds the namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Back to the kernel's defaults where ours suit only our own bridges: networks made by plug-ins may have routers that
    /// announce themselves, and addresses that others use too.
    pub fn expect_plugins(&self) -> io::Result<()> {
        netns::enter(&self.fd, || {
            for key in ["accept_ra", "accept_dad"] {
                // Without IPv6 there is nothing to set.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/default/{key}"), "1");
            }
            Ok(())
        })
    }
}

impl Witness {
    /// The addresses that an interface has; `None`: there is no such interface.
    pub fn addresses_of(&self, interface: &str) -> Result<Option<Addresses>, Refused> {
        let mut route = hold(&self.0);
        let Some(link) = link::find(&mut route, interface)? else {
            return Ok(None);
        };
        let assigned = link::addresses(&mut route, link.index)?;
        Ok(Some(
            assigned
                .iter()
                .map(|assigned| (assigned.address, assigned.prefix))
                .collect(),
        ))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An interface inside a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`, `eth1`, …
    pub name: String,
    /// The network as the pod named it.
    pub network: String,
    pub addresses: Addresses,
}

/// Addresses with the length of their network's prefix.
pub type Addresses = Vec<(IpAddr, u8)>;

/// One for all that we do on this node.
#[derive(Debug)]
pub(super) struct Node {
    pub networks: Networks,
    pub store: Store,
    pub watch: Watch,
    pub plugins: Runner,
    enable_forwarding: bool,
    ruleset: Ruleset,
    // Sockets answer one batch at a time; each is held for the length of one exchange with the kernel.
    route: Mutex<Socket>,
    nft: Mutex<Socket>,
}

fn hold(socket: &Mutex<Socket>) -> MutexGuard<'_, Socket> {
    // A panic while it was held leaves at most an unread answer, which its number tells apart from later ones.
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Flows to a pod's published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flows {
    Own,
    OfOthers,
}

/// What a pod is about to have: reserved, not yet made.
#[derive(Debug)]
pub(super) struct Reserved {
    pub lease: Lease,
    /// One for each attachment of the request, in order.
    pub plans: Vec<Option<BridgePlan>>,
}

/// One interface on a built-in bridge.
#[derive(Debug)]
pub(super) struct BridgePlan {
    network: Arc<Network>,
    bridge: Link,
    addresses: Vec<(IpAddr, Subnet, IpAddr)>,
}

impl Node {
    /// Stays in the network namespace of the calling thread.
    pub fn open(config: &Config, watch: Watch) -> Result<Node, NetworkError> {
        let networks = config.check()?;
        let open = |family, name: &str| {
            Socket::open(family).map_err(|error| kernel(format!("open a {name} socket"))(error.into()))
        };
        Ok(Node {
            ruleset: Ruleset::new(&config.table, &networks),
            store: Store::open(&config.state_dir)?,
            enable_forwarding: config.enable_forwarding,
            route: Mutex::new(open(Family::Route, "route")?),
            nft: Mutex::new(open(Family::Netfilter, "netfilter")?),
            plugins: Runner::new(&config.cni),
            networks,
            watch,
        })
    }

    /// Reserves addresses and ports for a pod, and sees to it that its bridges are there. What was taken is given back
    /// when something is refused.
    pub fn reserve(&self, pod: &str, attachments: &[Attachment]) -> Result<Claim<Reserved>, NetworkError> {
        let locked = self.store.lock()?;
        self.watch.before(Step::Lease)?;
        let lease = match locked.claim(pod)? {
            Claim::Got(lease) => lease,
            Claim::Stale(stale) => return Ok(Claim::Stale(stale)),
        };
        let mut reserved = Reserved {
            lease,
            plans: Vec::new(),
        };
        match self.fill(&locked, &mut reserved, attachments) {
            Ok(Claim::Got(())) => Ok(Claim::Got(reserved)),
            Ok(Claim::Stale(stale)) => {
                locked.release(reserved.lease, false)?;
                Ok(Claim::Stale(stale))
            }
            Err(error) => {
                if let Err(second) = locked.release(reserved.lease, false) {
                    tracing::warn!(pod, error = %second, "a reservation could not be given back");
                }
                Err(error)
            }
        }
    }

    fn fill(
        &self,
        locked: &Locked<'_>,
        reserved: &mut Reserved,
        attachments: &[Attachment],
    ) -> Result<Claim<()>, NetworkError> {
        let Reserved { lease, plans } = reserved;
        let mut taken: Vec<PublishedPort> = Vec::new();
        for (index, attachment) in attachments.iter().enumerate() {
            let earlier = attachments.get(..index).unwrap_or_default();
            let Maker::Bridge(network) = &attachment.by else {
                for mapping in &attachment.port_mappings {
                    self.watch.before(Step::Port)?;
                    if let Claim::Stale(stale) =
                        locked.take_port(lease, mapping.protocol, mapping.host_port, None)?
                    {
                        return Ok(Claim::Stale(stale));
                    }
                }
                plans.push(None);
                continue;
            };
            let mut addresses = Vec::new();
            for stack in &network.stacks {
                self.watch.before(Step::Address)?;
                match locked.take_address(lease, network, stack)? {
                    Claim::Got(address) => addresses.push((address, stack.subnet, stack.gateway)),
                    Claim::Stale(stale) => return Ok(Claim::Stale(stale)),
                }
            }
            for mapping in &attachment.port_mappings {
                if mapping.is_served_by_plugins(earlier) {
                    continue;
                }
                for (address, _, _) in &addresses {
                    let port = PublishedPort {
                        protocol: mapping.protocol,
                        host_port: mapping.host_port,
                        address: *address,
                        container_port: mapping.container_port,
                    };
                    // The first network of the pod that can answer for a family does.
                    if taken.iter().any(|other| other.is_instead_of(&port)) {
                        continue;
                    }
                    self.watch.before(Step::Port)?;
                    let to = Some((*address, mapping.container_port));
                    match locked.take_port(lease, mapping.protocol, mapping.host_port, to)? {
                        Claim::Got(()) => taken.push(port),
                        Claim::Stale(stale) => return Ok(Claim::Stale(stale)),
                    }
                }
            }
            self.watch.before(Step::Bridge)?;
            let bridge = self.bridge(network)?;
            plans.push(Some(BridgePlan {
                network: network.clone(),
                bridge,
                addresses,
            }));
        }
        Ok(Claim::Got(()))
    }

    /// The network's bridge, made or repaired as far as needed.
    fn bridge(&self, network: &Network) -> Result<Link, NetworkError> {
        let doing = |what: &str| {
            kernel(format!(
                "{what} bridge {} of network {}",
                network.bridge, network.name
            ))
        };
        if network.has_ipv4() {
            self.forwarding("net/ipv4/ip_forward", network)?;
        }
        if network.has_ipv6() {
            self.forwarding("net/ipv6/conf/all/forwarding", network)?;
        }
        let mut route = hold(&self.route);
        let found = link::find(&mut route, &network.bridge).map_err(doing("look for"))?;
        let link = match found {
            Some(link) => link,
            None => {
                Self::check_overlap(&mut route, network)?;
                let mut batch = Batch::new();
                link::add_bridge(&mut batch, &network.bridge, network.bridge_mac, network.mtu);
                route.transact(&batch).map_err(doing("make"))?;
                let mut batch = Batch::new();
                link::set_alias(
                    &mut batch,
                    &network.bridge,
                    &format!("podling network {}", network.name),
                );
                route.transact(&batch).map_err(doing("mark"))?;
                let made = link::find(&mut route, &network.bridge).map_err(doing("look for"))?;
                made.ok_or_else(|| doing("find")(io::Error::from_raw_os_error(libc::ENODEV).into()))?
            }
        };
        if !is_bridge_of(&link, network) {
            return Err(NetworkError::ForeignBridge {
                name: network.bridge.clone(),
                network: network.name.clone(),
            });
        }
        Self::settle(network)?;
        let present = link::addresses(&mut route, link.index).map_err(doing("read the addresses of"))?;
        let mut batch = Batch::new();
        if !link.up {
            link::set_up(&mut batch, link.index);
        }
        for stack in &network.stacks {
            if !present.iter().any(|assigned| assigned.address == stack.gateway) {
                link::add_address(&mut batch, link.index, stack.gateway, stack.subnet);
            }
        }
        if !batch.is_empty() {
            route.transact(&batch).map_err(doing("set up"))?;
        }
        Ok(link)
    }

    /// A subnet that the node already uses elsewhere would cut that off.
    fn check_overlap(route: &mut Socket, network: &Network) -> Result<(), NetworkError> {
        let doing = || kernel("read the addresses of this node");
        let present = link::addresses(route, 0).map_err(doing())?;
        for stack in &network.stacks {
            let taken = present
                .iter()
                .find(|assigned| stack.subnet.contains(assigned.address));
            if let Some(assigned) = taken {
                let links = link::all(route).map_err(doing())?;
                let link = links.into_iter().find(|link| link.index == assigned.link);
                return Err(NetworkError::Overlap {
                    network: network.name.clone(),
                    subnet: stack.subnet.to_string(),
                    taken: format!("{}/{}", assigned.address, assigned.prefix),
                    interface: link.map(|link| link.name).unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    /// Settings of the bridge itself.
    fn settle(network: &Network) -> Result<(), NetworkError> {
        let bridge = &network.bridge;
        if network.has_ipv4() {
            // Lets answers to connections from the node's own loopback to a published port come back.
            keep(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
        }
        if Path::new("/proc/sys/net/ipv6").exists() {
            // No pod makes itself the node's router (the class of CVE-2020-13401).
            keep(&format!("net/ipv6/conf/{bridge}/accept_ra"), "0")?;
            let disabled = if network.has_ipv6() { "0" } else { "1" };
            keep(&format!("net/ipv6/conf/{bridge}/disable_ipv6"), disabled)?;
        }
        Ok(())
    }

    /// The one setting that is the whole node's, not ours.
    fn forwarding(&self, key: &'static str, network: &Network) -> Result<(), NetworkError> {
        if setting_is(key, "1") {
            return Ok(());
        }
        if !self.enable_forwarding {
            return Err(NetworkError::NoForwarding {
                key,
                network: network.name.clone(),
            });
        }
        tracing::warn!(key, network = network.name, "turning on forwarding on this node");
        keep(key, "1")
    }

    /// Makes the interface of one plan: a pair, its peer born in the pod's namespace, addresses and routes inside.
    pub fn connect(
        &self,
        namespace: &Namespace,
        lease: &mut Lease,
        plan: &BridgePlan,
        interface: &str,
        routes: DefaultRoutes,
    ) -> Result<(), NetworkError> {
        self.watch.before(Step::Link)?;
        self.pair(namespace, lease, plan, interface)?;
        self.watch.before(Step::Inside)?;
        let doing = |what: &str| kernel(format!("{what} {interface} of pod {}", lease.pod()));
        let mut route = hold(&namespace.route.0);
        let inside = link::find(&mut route, interface).map_err(doing("find"))?;
        let inside =
            inside.ok_or_else(|| doing("find")(io::Error::from_raw_os_error(libc::ENODEV).into()))?;
        let mut batch = Batch::new();
        if !plan.addresses.iter().any(|(address, ..)| address.is_ipv6()) {
            link::set_no_ipv6(&mut batch, inside.index);
        }
        link::set_up(&mut batch, inside.index);
        for (address, subnet, gateway) in &plan.addresses {
            link::add_address(&mut batch, inside.index, *address, *subnet);
            if let Some(mac) = plan.bridge.mac {
                link::add_neighbour(&mut batch, inside.index, *gateway, mac);
            }
            if routes.wanted(*address) {
                link::add_default_route(&mut batch, inside.index, *gateway);
            }
        }
        route.transact(&batch).map_err(doing("set up"))
    }

    fn pair(
        &self,
        namespace: &Namespace,
        lease: &mut Lease,
        plan: &BridgePlan,
        interface: &str,
    ) -> Result<(), NetworkError> {
        let pod = lease.pod().to_owned();
        // Follows from the address, so that who gets the address next is not looked for at a dead place.
        let first = plan.addresses.first().map(|(address, ..)| *address);
        let peer_mac = match first {
            Some(IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                [0x02, 0x70, a, b, c, d]
            }
            Some(IpAddr::V6(address)) => derived_mac(&address.to_string()),
            None => derived_mac(&pod),
        };
        for attempt in 0..4 {
            let name = derived_name("plv", &format!("{pod}/{interface}/{attempt}"));
            lease.note(Entry::Link { name: name.clone() })?;
            let mut batch = Batch::new();
            link::add_pair(
                &mut batch,
                &Pair {
                    name: &name,
                    mac: link_mac(&pod, &name),
                    bridge: plan.bridge.index,
                    mtu: plan.network.mtu,
                    peer: interface,
                    peer_mac,
                    peer_namespace: namespace.as_fd().as_raw_fd(),
                },
            );
            let doing = kernel(format!("make interface {interface} of pod {pod}"));
            let mut route = hold(&self.route);
            match route.transact(&batch) {
                Ok(()) => {
                    let mut batch = Batch::new();
                    link::set_port(&mut batch, &name, &alias(&pod, interface));
                    return route.transact(&batch).map_err(doing);
                }
                // Somebody else's, or the last moments of a dead pod's.
                Err(refused) if refused.is(libc::EEXIST) => {}
                Err(refused) => return Err(doing(refused)),
            }
        }
        Err(NetworkError::NoInterfaceName {
            pod,
            interface: interface.to_owned(),
        })
    }

    /// Puts a pod's addresses and ports into the table of rules, laying or repairing the table when needed.
    pub fn publish(&self, lease: &mut Lease) -> Result<(), NetworkError> {
        self.watch.before(Step::Publish)?;
        let locked = self.store.lock()?;
        let doing = |what: &str| kernel(format!("{what} the nftables table of pods"));
        let mut nft = hold(&self.nft);
        let found = self.ruleset.find(&mut nft).map_err(doing("read"))?;
        lease.note(Entry::Published)?;
        let share = locked.share(lease);
        if found == Found::Whole {
            self.ruleset.add(&mut nft, &share).map_err(doing("add to"))?;
        } else {
            if found == Found::Changed {
                tracing::warn!(
                    "the nftables table of pods was changed or is of another version; laying it anew"
                );
            }
            let all = locked.published()?;
            self.ruleset.lay(&mut nft, &all).map_err(doing("lay"))?;
        }
        drop((locked, nft));
        self.forget_flows(&share, Flows::OfOthers);
        Ok(())
    }

    /// UDP flows that still go where a port led before. Without it they end by themselves, but only when their clients
    /// fall silent for a while; so a failure here is no reason to refuse a pod.
    fn forget_flows(&self, share: &Share, which: Flows) {
        if !share.ports.iter().any(|port| port.protocol == Protocol::Udp) {
            return;
        }
        let node = || {
            let assigned = link::addresses(&mut hold(&self.route), 0)?;
            Ok(assigned
                .iter()
                .map(|assigned| assigned.address)
                .collect::<Vec<_>>())
        };
        let forgotten = match which {
            Flows::Own => conntrack::forget_own(&mut hold(&self.nft), &share.ports),
            Flows::OfOthers => {
                node().and_then(|node| conntrack::forget_others(&mut hold(&self.nft), &share.ports, &node))
            }
        };
        match forgotten {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "the kernel forgot flows that led elsewhere"),
            Err(error) => tracing::debug!(%error, "UDP flows may go on to where they began"),
        }
    }

    /// Undoes all that a journal tells, whoever wrote it, and gives back what it holds. CNI attachments are the plug-ins'
    /// business; with `keep_attachments` the journal stays for those that could not be undone.
    pub fn undo(
        &self,
        mut lease: Lease,
        namespace: Option<Namespace>,
        keep_attachments: bool,
    ) -> Result<(), NetworkError> {
        if lease.is_published() {
            self.watch.before(Step::Withdraw)?;
            let locked = self.store.lock()?;
            // From here on nobody who lays the table anew puts it back.
            lease.note(Entry::Withdrawn)?;
            let share: Share = locked.share(&lease);
            let doing = kernel("take a pod out of the nftables table");
            self.ruleset.remove(&mut hold(&self.nft), &share).map_err(doing)?;
            drop(locked);
            self.forget_flows(&share, Flows::Own);
        }
        let patience = if namespace.is_some() {
            NAMESPACE_PATIENCE
        } else {
            Duration::ZERO
        };
        drop(namespace);
        self.unlink(&lease, patience)?;
        self.watch.before(Step::Release)?;
        Ok(self.store.lock()?.release(lease, keep_attachments)?)
    }

    /// Sees the node's ends of a pod's pairs go: with their namespace, or removed when that takes too long.
    ///
    /// Removing a pair holds the kernel's route lock through several grace periods, 15 ms on a busy machine, and every
    /// other launch on the node waits. The kernel itself ends many namespaces in the same time: with eight pods coming
    /// and going at once 184 a second instead of 51.
    fn unlink(&self, lease: &Lease, patience: Duration) -> Result<(), NetworkError> {
        let start = Instant::now();
        for entry in lease.entries() {
            let Entry::Link { name } = entry else { continue };
            self.watch.before(Step::Unlink)?;
            let doing = |what: &str| kernel(format!("{what} interface {name} of pod {}", lease.pod()));
            let mut pause = Duration::from_millis(1);
            loop {
                let found = link::find(&mut hold(&self.route), name).map_err(doing("look for"))?;
                // Another's interface may have come to the same name.
                let ours = found.filter(|link| link.mac == Some(link_mac(lease.pod(), name)));
                let Some(link) = ours else { break };
                if start.elapsed() >= patience {
                    link::delete(&mut hold(&self.route), link.index).map_err(doing("remove"))?;
                    break;
                }
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(16));
            }
        }
        Ok(())
    }

    /// Removes bridges and table, unless a pod lives.
    pub fn dismantle(&self) -> Result<bool, NetworkError> {
        let locked = self.store.lock()?;
        if locked.alive()? > 0 {
            return Ok(false);
        }
        self.ruleset
            .delete(&mut hold(&self.nft))
            .map_err(kernel("remove the nftables table of pods"))?;
        let mut route = hold(&self.route);
        for network in self.networks.iter() {
            let doing = |what: &str| kernel(format!("{what} bridge {}", network.bridge));
            let found = link::find(&mut route, &network.bridge).map_err(doing("look for"))?;
            if let Some(link) = found.filter(|link| is_bridge_of(link, network)) {
                link::delete(&mut route, link.index).map_err(doing("remove"))?;
            }
        }
        Ok(true)
    }

    /// How the table of rules is now.
    pub fn table(&self) -> Result<Found, NetworkError> {
        self.ruleset
            .find(&mut hold(&self.nft))
            .map_err(kernel("read the nftables table of pods"))
    }

    /// The bridge of a network, if it is there.
    pub fn find_bridge(&self, network: &Network) -> Result<Option<Link>, NetworkError> {
        let doing = kernel(format!("look for bridge {}", network.bridge));
        link::find(&mut hold(&self.route), &network.bridge).map_err(doing)
    }
}

/// The interfaces of the calling thread's network other than the loopback, `eth0` before `eth1`, and their addresses.
pub(super) fn own_interfaces() -> Result<Vec<(String, Addresses)>, NetworkError> {
    let doing = || kernel("read our own addresses");
    let mut route = Socket::open(Family::Route).map_err(|error| doing()(error.into()))?;
    let mut links = link::all(&mut route).map_err(doing())?;
    links.retain(|link| link.name != "lo");
    links.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    let assigned = link::addresses(&mut route, 0).map_err(doing())?;
    let of = |link: &Link| {
        let ours = assigned
            .iter()
            .filter(|assigned| assigned.link == link.index && assigned.global);
        ours.map(|assigned| (assigned.address, assigned.prefix)).collect()
    };
    Ok(links.iter().map(|link| (link.name.clone(), of(link))).collect())
}

/// What a bridge of ours looks like. The address follows from the network's name and is given in the very message that
/// makes the bridge, so there is no moment at which it cannot be told from others.
fn is_bridge_of(link: &Link, network: &Network) -> bool {
    link.kind.as_deref() == Some("bridge") && link.mac == Some(network.bridge_mac)
}

/// The address of the node's end of a pair: tells our interfaces from others of the same name.
fn link_mac(pod: &str, name: &str) -> [u8; 6] {
    derived_mac(&format!("{pod} {name}"))
}

/// At most 255 bytes fit.
fn alias(pod: &str, interface: &str) -> String {
    format!("podling {interface} of {pod}").chars().take(60).collect()
}

/// Which default routes an interface shall have: the pod's first network that can give one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DefaultRoutes {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl DefaultRoutes {
    fn wanted(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

impl BridgePlan {
    pub fn addresses(&self) -> Addresses {
        self.addresses
            .iter()
            .map(|(address, subnet, _)| (*address, subnet.prefix()))
            .collect()
    }

    pub fn network(&self) -> &Network {
        &self.network
    }
}

fn setting_is(key: &str, value: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/{key}")).is_ok_and(|text| text.trim() == value)
}

/// Sets what is not so yet.
fn keep(key: &str, value: &'static str) -> Result<(), NetworkError> {
    if setting_is(key, value) {
        return Ok(());
    }
    let path = PathBuf::from(format!("/proc/sys/{key}"));
    fs::write(&path, value).map_err(|cause| NetworkError::Setting { path, value, cause })
}
