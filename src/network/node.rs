//! The node's side of pods on built-in bridges: interface pairs, addresses, the table of rules; see
//! [`bridge`](super::bridge) for the bridges themselves.
//!
//! Everything here blocks for as long as the kernel takes, which is a millisecond when nobody else holds its route lock;
//! the manager runs it beside the runtime.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    Step, Watch,
    cni::Runner,
    config::{Config, Network, derived_mac, derived_name},
    conntrack,
    error::{NetworkError, kernel},
    lease::{Claim, Entry, Lease, Locked, Store},
    link::{self, Link, Pair},
    namespace::Namespace,
    port,
    report::walls,
    request::{Attachment, Maker},
    ruleset::{Found, PublishedPort, Ruleset, Share},
    subnet::Subnet,
};
use crate::sys::netlink::{Batch, Family, Refused, Socket};

/// How long a namespace may take to end by itself. It takes longer when something else holds it.
const NAMESPACE_PATIENCE: Duration = Duration::from_millis(500);

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
    pub store: Store,
    pub watch: Watch,
    pub plugins: Runner,
    pub enable_forwarding: bool,
    table: String,
    // Sockets answer one batch at a time; each is held for the length of one exchange with the kernel.
    pub route: Mutex<Socket>,
    pub nft: Mutex<Socket>,
}

pub(super) fn hold(socket: &Mutex<Socket>) -> MutexGuard<'_, Socket> {
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
    /// The published ports, against the node's own processes.
    pub ports: Vec<port::Claimed>,
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
        let open = |family, name: &str| {
            Socket::open(family).map_err(|error| kernel(format!("open a {name} socket"))(error.into()))
        };
        Ok(Node {
            table: config.table.clone(),
            store: Store::new(config.state_dir()),
            enable_forwarding: config.enable_forwarding,
            route: Mutex::new(open(Family::Route, "route")?),
            nft: Mutex::new(open(Family::Netfilter, "netfilter")?),
            plugins: Runner::new(&config.cni),
            watch,
        })
    }

    /// Reserves addresses and ports for a pod, and sees to it that its bridges are there. What was taken is given back
    /// when something is refused.
    pub fn reserve(
        &self,
        pod: &str,
        known_as: Option<&str>,
        attachments: &[Attachment],
    ) -> Result<Claim<Reserved>, NetworkError> {
        let locked = self.store.lock()?;
        self.watch.before(Step::Lease)?;
        let lease = match locked.claim(pod, known_as)? {
            Claim::Got(lease) => lease,
            Claim::Stale(stale) => return Ok(Claim::Stale(stale)),
        };
        let mut reserved = Reserved {
            lease,
            plans: Vec::new(),
            ports: Vec::new(),
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
        let Reserved { lease, plans, ports } = reserved;
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
                    // Plug-ins may want to bind it themselves, so it is only asked for.
                    for ipv6 in [false, true] {
                        port::claim(mapping.protocol, mapping.host_port, ipv6)?;
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
                    let published = PublishedPort {
                        protocol: mapping.protocol,
                        host_port: mapping.host_port,
                        address: *address,
                        container_port: mapping.container_port,
                    };
                    // The first network of the pod that can answer for a family does.
                    if taken.iter().any(|other| other.is_instead_of(&published)) {
                        continue;
                    }
                    self.watch.before(Step::Port)?;
                    let to = Some((*address, mapping.container_port));
                    match locked.take_port(lease, mapping.protocol, mapping.host_port, to)? {
                        Claim::Got(()) => taken.push(published),
                        Claim::Stale(stale) => return Ok(Claim::Stale(stale)),
                    }
                    ports.extend(port::claim(
                        mapping.protocol,
                        mapping.host_port,
                        address.is_ipv6(),
                    )?);
                }
            }
            self.watch.before(Step::Bridge)?;
            let bridge = self.bridge(locked, network)?;
            plans.push(Some(BridgePlan {
                network: network.clone(),
                bridge,
                addresses,
            }));
        }
        Ok(Claim::Got(()))
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

    /// Puts a pod's addresses and ports into the table of rules, laying or repairing the table when needed. Gives what it
    /// has there now.
    pub fn publish(&self, lease: &mut Lease) -> Result<Share, NetworkError> {
        self.watch.before(Step::Publish)?;
        let locked = self.store.lock()?;
        let doing = |what: &str| kernel(format!("{what} the nftables table of pods"));
        let ruleset = self.ruleset(&locked)?;
        let mut nft = hold(&self.nft);
        let found = ruleset.find(&mut nft).map_err(doing("read"))?;
        lease.note(Entry::Published)?;
        let share = locked.share(lease);
        if found == Found::Whole {
            ruleset.add(&mut nft, &share).map_err(doing("add to"))?;
        } else {
            if found == Found::Changed {
                tracing::warn!(
                    "the nftables table of pods was changed or is of another version; laying it anew"
                );
            }
            let all = locked.published()?;
            ruleset.lay(&mut nft, &all).map_err(doing("lay"))?;
        }
        drop((locked, nft));
        if found != Found::Whole {
            self.tell_walls();
        }
        Ok(share)
    }

    /// Another's firewall is the operator's will, even where it keeps pods from being reached; but it should be known.
    fn tell_walls(&self) {
        for wall in walls(self).unwrap_or_default() {
            tracing::warn!(
                "chain {wall} of this node drops forwarded packets: unless it accepts what comes from and goes to \
                 our bridges, pods reach nobody and published ports do not answer"
            );
        }
    }

    /// Has UDP flows that go where a port led before end, soon: the kernel walks all of its memory of flows, which takes
    /// milliseconds, and no launch shall wait for it.
    pub fn forget_flows_of_others(self: Arc<Self>, share: Share) {
        if !share.has_udp() {
            return;
        }
        let work = move || self.forget_flows(&share, Flows::OfOthers);
        if let Err(error) = thread::Builder::new().name("flows".to_owned()).spawn(work) {
            tracing::debug!(%error, "UDP flows may go on to where they began");
        }
    }

    /// Without it UDP flows end by themselves, but only when their clients fall silent for a while; so a failure here is
    /// no reason to refuse a pod.
    fn forget_flows(&self, share: &Share, which: Flows) {
        if !share.has_udp() {
            return;
        }
        // A socket of its own: the other is for those who are waited for.
        let forgotten =
            Socket::open(Family::Netfilter)
                .map_err(Refused::from)
                .and_then(|mut nft| match which {
                    Flows::Own => conntrack::forget_own(&mut nft, &share.ports),
                    Flows::OfOthers => {
                        let assigned = link::addresses(&mut hold(&self.route), 0)?;
                        let node: Vec<IpAddr> = assigned.iter().map(|assigned| assigned.address).collect();
                        conntrack::forget_others(&mut nft, &share.ports, &node)
                    }
                });
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
        let patience = if namespace.is_some() {
            NAMESPACE_PATIENCE
        } else {
            Duration::ZERO
        };
        let mut withdrawn = Share::default();
        if lease.is_published() {
            self.watch.before(Step::Withdraw)?;
            let locked = self.store.lock()?;
            // From here on nobody who lays the table anew puts it back.
            lease.note(Entry::Withdrawn)?;
            withdrawn = locked.share(&lease);
            let doing = kernel("take a pod out of the nftables table");
            Ruleset::new(&self.table, &[])
                .remove(&mut hold(&self.nft), &withdrawn)
                .map_err(doing)?;
        }
        // The kernel ends it while its flows are looked for.
        drop(namespace);
        self.forget_flows(&withdrawn, Flows::Own);
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
                pause = (pause * 2).min(Duration::from_millis(4));
            }
        }
        Ok(())
    }

    /// The table of rules for all networks whose bridges have been made here, by whomever: executors of one node may
    /// have different configurations.
    pub fn ruleset(&self, locked: &Locked<'_>) -> Result<Ruleset, NetworkError> {
        Ok(Ruleset::new(&self.table, &locked.bridges()?))
    }

    /// Lays the table anew if it is not whole and pods need it.
    pub fn mend(&self) -> Result<(), NetworkError> {
        let doing = |what: &str| kernel(format!("{what} the nftables table of pods"));
        let locked = self.store.lock()?;
        let pods = locked.published()?;
        if pods.is_empty() {
            return Ok(());
        }
        let ruleset = self.ruleset(&locked)?;
        let mut nft = hold(&self.nft);
        if ruleset.find(&mut nft).map_err(doing("read"))? == Found::Whole {
            return Ok(());
        }
        tracing::warn!("the nftables table of pods was removed or changed; laying it anew");
        ruleset.lay(&mut nft, &pods).map_err(doing("lay"))
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
