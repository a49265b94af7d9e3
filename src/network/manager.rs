//! From a request to a pod's network, and the clean-up after those who could not.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    NetworkError, PodNetwork, Request, Step, Watch,
    cni::{At, CniError, Kept, Lists, Outcome},
    config::{Config, Dns, Networks},
    error::kernel,
    lease::{self, Claim, Entry, Lease, Store},
    names::{self, Files, NodeResolvers},
    namespace::{Namespace, Witness},
    node::{Addresses, BridgePlan, DefaultRoutes, Interface, Node, own_interfaces},
    pod::{Held, give_up},
    report::Report,
    request::{Attachment, Kind, Maker, Plugins, PortMapping, RequestError},
    ruleset::Share,
};
use crate::mesos::v1;

/// One per executor: makes and undoes the networks of its pods.
#[derive(Debug)]
pub struct Manager {
    config: Config,
    networks: Networks,
    agent_address: Option<IpAddr>,
    known_as: Option<String>,
    watch: Watch,
    /// Opened by the first pod that needs it: nothing is touched for pods on the host's network.
    node: Mutex<Option<Arc<Node>>>,
    /// A namespace made ahead of time, or about to be.
    warm: Mutex<Option<oneshot::Receiver<std::io::Result<Namespace>>>>,
}

impl Manager {
    /// Checks the configuration; touches nothing.
    pub fn open(config: Config) -> Result<Manager, NetworkError> {
        Ok(Manager {
            networks: config.check()?,
            config,
            agent_address: None,
            known_as: None,
            watch: Watch::default(),
            node: Mutex::default(),
            warm: Mutex::default(),
        })
    }

    /// The address reported for pods on the host's network, and for those in the agent's when it cannot be found there.
    #[must_use]
    pub fn with_agent_address(mut self, address: Option<IpAddr>) -> Manager {
        self.agent_address = address;
        self
    }

    /// What people call our pods, for those who find one in their way.
    #[must_use]
    pub fn with_known_name(mut self, name: &str) -> Manager {
        self.known_as = Some(name.to_owned());
        self
    }

    /// Looks before every step.
    #[must_use]
    pub fn with_watch(mut self, watch: Watch) -> Manager {
        self.watch = watch;
        self
    }

    /// Reads what a pod asks for. `extras` is the `network` value of `ExecutorInfo.data`.
    pub fn read(
        &self,
        container: Option<&v1::ContainerInfo>,
        extras: Option<&Value>,
    ) -> Result<Request, RequestError> {
        let lists = Lists::new(&self.config.cni.config_dirs);
        let cni = |name: &str| {
            let can_publish = lists.find(name)?.can_publish();
            Some(Plugins { can_publish })
        };
        Request::read(container, extras, &self.networks, &cni)
    }

    /// Has a namespace made in the background, so that the next pod does not wait for it.
    pub fn warm(&self) {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        if warm.is_none() {
            *warm = begin_namespace().ok();
        }
    }

    /// Makes the network of a pod. `pod` names it on this node and in its lease: the executor's container id.
    ///
    /// A failure or a drop on the way leaves nothing behind.
    pub async fn set_up(&self, request: &Request, pod: &str) -> Result<PodNetwork, NetworkError> {
        match &request.kind {
            Kind::Host => Ok(PodNetwork::host(request.hostname.clone(), self.agent_address)),
            Kind::Agent(infos) => {
                let interfaces = blocking(own_interfaces).await?;
                Ok(PodNetwork::agent(
                    request.hostname.clone(),
                    infos.clone(),
                    interfaces,
                    self.agent_address,
                ))
            }
            Kind::Own(attachments) => self.make(request, attachments, pod).await,
        }
    }

    async fn make(
        &self,
        request: &Request,
        attachments: &[Attachment],
        pod: &str,
    ) -> Result<PodNetwork, NetworkError> {
        let node = self.node()?;
        self.watch.before(Step::Namespace)?;
        let (mut held, plans) = self.begin(&node, attachments, pod).await?;
        let mut interfaces: Vec<Interface> = Vec::new();
        for (index, (attachment, plan)) in attachments.iter().zip(&plans).enumerate() {
            interfaces.push(Interface {
                name: interface_name(index),
                network: attachment.name.clone(),
                addresses: plan.as_ref().map(BridgePlan::addresses).unwrap_or_default(),
            });
        }
        let mut dns: Vec<Option<Dns>> = plans
            .iter()
            .map(|plan| plan.as_ref().and_then(|plan| plan.network().dns.clone()))
            .collect();
        let outcomes = match self.attach(&mut held, attachments, pod).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if let Err(second) = held.release().await {
                    tracing::warn!(pod, error = %second, "a pod's network is left to the next clean-up");
                }
                return Err(error);
            }
        };
        for (index, outcome) in outcomes {
            if let Some(interface) = interfaces.get_mut(index) {
                interface.addresses = outcome.addresses;
            }
            if let Some(dns) = dns.get_mut(index) {
                *dns = Some(outcome.dns);
            }
        }
        let dns = dns.into_iter().flatten().find(|dns| !dns.is_empty());
        let hostname = names::hostname(request.hostname.as_deref(), pod);
        let addresses: Vec<IpAddr> = interfaces
            .iter()
            .flat_map(|interface| &interface.addresses)
            .map(|(address, _)| *address)
            .collect();
        let main = read_resolvers("/etc/resolv.conf").unwrap_or_default();
        let upstream = read_resolvers("/run/systemd/resolve/resolv.conf");
        let resolvers = NodeResolvers {
            main: &main,
            upstream: upstream.as_deref(),
        };
        let files = Files {
            hosts: names::hosts(&hostname, &addresses),
            resolv_conf: names::resolv_conf(dns.as_ref(), self.config.dns.as_ref(), resolvers),
            hostname: format!("{hostname}\n"),
        };
        Ok(PodNetwork::own(
            held,
            hostname,
            attachments.to_vec(),
            interfaces,
            files,
        ))
    }

    /// Everything that is not the plug-ins' business. From here on the journal tells what to undo, and [`Held`] does so
    /// when it is dropped, also when nobody waits for the thread's answer any more.
    async fn begin(
        &self,
        node: &Arc<Node>,
        attachments: &[Attachment],
        pod: &str,
    ) -> Result<(Held, Vec<Option<BridgePlan>>), NetworkError> {
        // Each time the remains of somebody dead are in the way, those of all are taken back; more than once is for
        // those who die meanwhile.
        const ATTEMPTS: usize = 4;
        let mut complaint = None;
        for _ in 0..ATTEMPTS {
            let namespace = self.namespace().await?;
            let (node, name, wanted) = (node.clone(), pod.to_owned(), attachments.to_vec());
            let known_as = self.known_as.clone();
            let claim = blocking(move || {
                let reserved = match node.reserve(&name, known_as.as_deref(), &wanted)? {
                    Claim::Stale(stale) => return Ok(Claim::Stale(stale)),
                    Claim::Got(reserved) => reserved,
                };
                let mut held = Held::new(node.clone(), reserved.lease, namespace, reserved.ports);
                match connect(&node, &mut held, &reserved.plans) {
                    Ok(share) => node.forget_flows_of_others(share),
                    Err(error) => {
                        held.undo();
                        return Err(error);
                    }
                }
                Ok(Claim::Got((held, reserved.plans)))
            });
            match claim.await? {
                Claim::Got(got) => return Ok(got),
                Claim::Stale(stale) => {
                    // What plug-ins fail to undo does not keep addresses and ports from us; so go on.
                    for taken_back in [self.take_back(stale).await, self.reclaim().await.map(drop)] {
                        if let Err(error) = taken_back {
                            tracing::warn!(pod, %error, "the remains of a dead executor are in the way");
                            complaint = Some(error);
                        }
                    }
                }
            }
        }
        Err(complaint.unwrap_or_else(|| NetworkError::Crowded { pod: pod.to_owned() }))
    }

    /// Has plug-ins make the interfaces of CNI networks, one after the other; gives what each says, by interface.
    async fn attach(
        &self,
        held: &mut Held,
        attachments: &[Attachment],
        pod: &str,
    ) -> Result<Vec<(usize, Outcome)>, NetworkError> {
        let mut outcomes = Vec::new();
        for (index, attachment) in attachments.iter().enumerate() {
            if attachment.by != Maker::Cni {
                continue;
            }
            let earlier = attachments.get(..index).unwrap_or_default();
            let kept = self.add(held, attachment, earlier, index, pod).await?;
            let witness = held.parts()?.0.witness();
            let file = self.node()?.store.attachment_file(pod, &interface_name(index));
            let compared = blocking(move || {
                let compared = compare(&witness, &kept)?;
                // Only now: a result that is not so would mislead the other plug-ins' DEL.
                kept.save(&file)?;
                Ok(compared)
            });
            outcomes.push((index, compared.await?));
        }
        Ok(outcomes)
    }

    /// Runs ADD. Before it, the journal and a file tell how to undo it.
    async fn add(
        &self,
        held: &mut Held,
        attachment: &Attachment,
        earlier: &[Attachment],
        index: usize,
        pod: &str,
    ) -> Result<Kept, NetworkError> {
        self.watch.before(Step::Attach)?;
        let node = self.node()?;
        let network = attachment.name.clone();
        let list = Lists::new(&self.config.cni.config_dirs).find(&network);
        let list = list.ok_or_else(|| NetworkError::ListGone {
            network: network.clone(),
        })?;
        let interface = interface_name(index);
        let served: Vec<PortMapping> = earlier
            .iter()
            .flat_map(|other| other.port_mappings.clone())
            .collect();
        let mut kept = Kept::new(list, &lease::plain_name(pod), &interface, attachment, &served);
        let file = node.store.attachment_file(pod, &interface);
        let (namespace, lease) = held.parts()?;
        lease.note(Entry::Attachment { network, interface })?;
        kept.save(&file)?;
        namespace.expect_plugins().map_err(NetworkError::Namespace)?;
        let path = namespace.path();
        let at = At {
            namespace: &path,
            lock: lease.lock(),
        };
        node.plugins.add(&mut kept, at).await?;
        Ok(kept)
    }

    /// The one made ahead, or a new one.
    async fn namespace(&self) -> Result<Namespace, NetworkError> {
        let ahead = self.warm.lock().unwrap_or_else(PoisonError::into_inner).take();
        let coming = match ahead {
            Some(coming) => coming,
            None => begin_namespace().map_err(NetworkError::Namespace)?,
        };
        coming
            .await
            .map_err(|_| NetworkError::BrokenOff)?
            .map_err(NetworkError::Namespace)
    }

    /// Takes back what dead executors of this node held, and lays the table of rules anew if living pods need it and
    /// somebody has removed or changed it. Everything that is not ours stays untouched.
    /// Answers how many pods that were.
    pub async fn reclaim(&self) -> Result<usize, NetworkError> {
        if !self.has_been_used() {
            return Ok(0);
        }
        let node = self.node()?;
        let stale = blocking({
            let node = node.clone();
            move || Ok(node.store.lock()?.stale()?)
        })
        .await?;
        let count = stale.len();
        let mut complaint = None;
        for lease in stale {
            // One that cannot be undone must not keep the others from it.
            if let Err(error) = self.take_back(lease).await {
                complaint.get_or_insert(error);
            }
        }
        if self.config.cni.gc {
            self.collect(&node).await?;
        }
        blocking(move || node.mend()).await?;
        complaint.map_or(Ok(count), Err)
    }

    /// Tells plug-ins which of their attachments are alive.
    async fn collect(&self, node: &Arc<Node>) -> Result<(), NetworkError> {
        let store = node.store.clone();
        let alive = blocking(move || Ok(store.lock()?.attachments()?)).await?;
        for list in Lists::new(&self.config.cni.config_dirs).iter().flatten() {
            let here = alive.iter().filter(|(network, ..)| *network == list.name);
            let here: Vec<(String, String)> = here
                .map(|(_, pod, interface)| (lease::plain_name(pod), interface.clone()))
                .collect();
            node.plugins.gc(&list, &here).await?;
        }
        Ok(())
    }

    async fn take_back(&self, stale: Lease) -> Result<(), NetworkError> {
        tracing::info!(
            pod = stale.pod(),
            "taking back the network of a pod whose executor is gone"
        );
        give_up(self.node()?, stale, None).await
    }

    /// Removes bridges, table and files from the node, unless a pod lives. Answers whether it did.
    pub async fn dismantle(&self) -> Result<bool, NetworkError> {
        if !self.has_been_used() {
            return Ok(true);
        }
        let node = self.node()?;
        // What plug-ins fail to undo has no part in what is ours.
        let complaint = self.reclaim().await.err();
        let done = blocking(move || node.dismantle()).await?;
        complaint.map_or(Ok(done), Err)
    }

    /// What the node has for pods' networks; changes nothing.
    pub async fn report(&self) -> Result<Report, NetworkError> {
        let node = self.node()?;
        blocking(move || Report::of(&node)).await
    }

    /// Has a pod of this node had a network of ours, or a plug-in's by us?
    fn has_been_used(&self) -> bool {
        Store::new(self.config.state_dir()).exists()
    }

    fn node(&self) -> Result<Arc<Node>, NetworkError> {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        match &*node {
            Some(node) => Ok(node.clone()),
            None => Ok(node
                .insert(Arc::new(Node::open(&self.config, self.watch.clone())?))
                .clone()),
        }
    }
}

/// Our threads do little more than system calls.
const STACK: usize = 512 << 10;

pub(super) fn interface_name(index: usize) -> String {
    format!("eth{index}")
}

/// Interfaces, addresses, routes and rules of a pod on built-in bridges; gives what it has in the table of rules.
fn connect(node: &Node, held: &mut Held, plans: &[Option<BridgePlan>]) -> Result<Share, NetworkError> {
    let mut routes = DefaultRoutes {
        ipv4: true,
        ipv6: true,
    };
    let (namespace, lease) = held.parts()?;
    for (index, plan) in plans.iter().enumerate() {
        let Some(plan) = plan else {
            // Plug-ins bring the default routes of their networks.
            routes = DefaultRoutes {
                ipv4: false,
                ipv6: false,
            };
            continue;
        };
        node.connect(namespace, lease, plan, &interface_name(index), routes)?;
        for (address, _) in plan.addresses() {
            routes.ipv4 &= !address.is_ipv4();
            routes.ipv6 &= !address.is_ipv6();
        }
    }
    if plans.iter().any(Option::is_some) {
        return node.publish(lease);
    }
    Ok(Share::default())
}

/// What plug-ins say about an interface must be so.
fn compare(witness: &Witness, kept: &Kept) -> Result<Outcome, NetworkError> {
    let outcome = kept.outcome()?;
    let doing = kernel(format!("look at {} of pod {}", kept.interface, kept.container_id));
    let found = witness.addresses_of(&kept.interface).map_err(doing)?;
    let words = |addresses: &Addresses| {
        let words: Vec<String> = addresses
            .iter()
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect();
        if words.is_empty() {
            "no address".to_owned()
        } else {
            words.join(", ")
        }
    };
    let lie = |found: String| CniError::Lie {
        network: kept.network().to_owned(),
        interface: kept.interface.clone(),
        said: words(&outcome.addresses),
        found,
    };
    match found {
        None => Err(lie("not even been made".to_owned()).into()),
        Some(found) if outcome.addresses.iter().all(|said| found.contains(said)) => Ok(outcome),
        Some(found) => Err(lie(words(&found)).into()),
    }
}

fn begin_namespace() -> std::io::Result<oneshot::Receiver<std::io::Result<Namespace>>> {
    let (done, coming) = oneshot::channel();
    thread::Builder::new()
        .name("netns-ahead".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // Nobody may be waiting any more; the namespace then goes as it came.
            let _ = done.send(Namespace::create());
        })?;
    Ok(coming)
}

/// Runs `work` on a thread of its own, in the network namespace of the calling one. The runtime's pool is not asked: a
/// launch would wait there behind images that are being unpacked.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let (done, answer) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("network".to_owned())
        .stack_size(STACK);
    let work = move || {
        // When nobody waits any more the answer is dropped, and what it holds is undone by that.
        let _ = done.send(work());
    };
    thread.spawn(work).map_err(NetworkError::Thread)?;
    answer.await.unwrap_or(Err(NetworkError::BrokenOff))
}

/// A resolver file of the node; a huge one is not one.
fn read_resolvers(path: &str) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    (text.len() <= 64 << 10).then(|| String::from_utf8_lossy(&text).into_owned())
}
