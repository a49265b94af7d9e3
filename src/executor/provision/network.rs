//! The network of a group: made before its members, shared by them, undone after the last of them.

use std::{net::IpAddr, os::fd::OwnedFd, sync::Arc};

use serde_json::Value;
use tokio::{runtime::Handle, sync::OnceCell};

use super::{Alive, names};
use crate::{
    executor::sentence,
    group::{Failure, GroupId},
    mesos::v1,
    network::{Config, Manager, PodNetwork, Request, names::Files, request::Kind},
    sys::held::Held,
};

/// What this executor's groups are to have.
#[derive(Debug)]
pub struct Networks {
    config: Config,
    pod: String,
    /// Known with the first subscription; it does not change.
    wish: Option<Wish>,
}

#[derive(Debug, Clone)]
enum Wish {
    /// The executor's own: the host's, or the one the agent has put us into (N-01).
    Shared {
        infos: Vec<v1::NetworkInfo>,
        address: Option<IpAddr>,
    },
    Own {
        manager: Arc<Manager>,
        request: Arc<Request>,
    },
    /// No group of this executor can run.
    Refused(String),
    /// The node is at fault, not the definition.
    Failed(String),
}

/// What follows for every group from what the executor asks of its network.
#[derive(Debug, Clone, PartialEq)]
pub enum Learned {
    /// Members are where we are, and this is to be told about it (U-09, E-03).
    Shared {
        infos: Vec<v1::NetworkInfo>,
        address: Option<IpAddr>,
    },
    /// Each group gets its own.
    Own,
    /// It cannot be had; names the field.
    Refused(String),
}

impl Networks {
    pub fn new(config: Config, pod: &str) -> Self {
        Networks {
            config,
            pod: pod.to_owned(),
            wish: None,
        }
    }

    /// `ip` is our own address, as far as it is known.
    pub async fn learn(
        &mut self,
        executor: &v1::ExecutorInfo,
        network: Option<&Value>,
        ip: Option<IpAddr>,
    ) -> Learned {
        let wish = match self.wish.take() {
            Some(wish) => wish,
            None => self.read(executor, network, ip).await,
        };
        let learned = match &wish {
            Wish::Shared { infos, address } => Learned::Shared {
                infos: infos.clone(),
                address: *address,
            },
            Wish::Own { .. } | Wish::Failed(_) => Learned::Own,
            Wish::Refused(why) => Learned::Refused(why.clone()),
        };
        self.wish = Some(wish);
        learned
    }

    async fn read(&self, executor: &v1::ExecutorInfo, network: Option<&Value>, ip: Option<IpAddr>) -> Wish {
        let manager = match Manager::open(self.config.clone()) {
            Ok(manager) => manager
                .with_agent_address(ip)
                .with_known_name(&executor.executor_id.value),
            Err(error) => return Wish::Failed(sentence(&error)),
        };
        let request = match manager.read(executor.container.as_ref(), network) {
            Ok(request) => request,
            Err(error) => return Wish::Refused(format!("executor.{error}")),
        };
        if matches!(request.kind, Kind::Own(_)) {
            // While the group is still on its way.
            manager.warm();
            return Wish::Own {
                manager: Arc::new(manager),
                request: Arc::new(request),
            };
        }
        match manager.set_up(&request, &self.pod).await {
            Ok(network) => Wish::Shared {
                infos: network.network_infos(),
                address: network.container_ip(),
            },
            Err(error) => {
                tracing::warn!("updates will not tell members' addresses: {}", sentence(&error));
                Wish::Shared {
                    infos: Vec::new(),
                    address: ip,
                }
            }
        }
    }

    pub fn group(&self, id: GroupId, private: &Result<Held, String>, alive: &Alive) -> Group {
        // Most executors have one group, which then has the name that people know.
        let pod = match id.0 {
            0 => self.pod.clone(),
            number => format!("{}-{number}", self.pod),
        };
        Group {
            wish: self.wish.clone().unwrap_or(Wish::Shared {
                infos: Vec::new(),
                address: None,
            }),
            private: private.clone(),
            directory: format!("network-{}", id.0),
            pod,
            network: OnceCell::new(),
            alive: alive.clone(),
        }
    }
}

/// A group's network, for as long as one of its members holds this.
#[derive(Debug)]
pub struct Group {
    wish: Wish,
    pod: String,
    /// What is ours alone, and the name in it for what the members of this group are shown.
    private: Result<Held, String>,
    directory: String,
    network: OnceCell<Result<Joined, Failure>>,
    alive: Alive,
}

/// A network as its members join it.
#[derive(Debug)]
pub struct Joined {
    pub namespace: Arc<OwnedFd>,
    pub hostname: Option<String>,
    /// For `MESOS_CONTAINER_IP` (E-03).
    pub address: Option<String>,
    pub infos: Vec<v1::NetworkInfo>,
    /// Its `hosts`, `hostname` and `resolv.conf`.
    pub files: Option<names::Written>,
    network: PodNetwork,
}

impl Group {
    /// The network, made by the first who asks while the others wait; `None`: the executor's own. If whoever makes it
    /// is given up, the next one begins anew.
    pub async fn network(&self) -> Result<Option<&Joined>, Failure> {
        let (manager, request) = match &self.wish {
            Wish::Shared { .. } => return Ok(None),
            Wish::Own { manager, request } => (manager, request),
            Wish::Refused(message) | Wish::Failed(message) => return Err(failed(message.clone())),
        };
        let made = self.network.get_or_init(|| self.make(manager, request)).await;
        made.as_ref().map(Some).map_err(Clone::clone)
    }

    async fn make(&self, manager: &Manager, request: &Request) -> Result<Joined, Failure> {
        let network = manager
            .set_up(request, &self.pod)
            .await
            .map_err(|error| failed(sentence(&error)))?;
        let namespace = network.netns().map(|namespace| namespace.try_clone_to_owned());
        let namespace = match namespace {
            Some(Ok(namespace)) => Arc::new(namespace),
            Some(Err(error)) => return Err(failed(sentence(&error))),
            None => return Err(failed("there is no namespace to join".to_owned())),
        };
        let files = network.files().map(|files| self.write(files)).transpose()?;
        Ok(Joined {
            namespace,
            hostname: network.hostname().map(str::to_owned),
            address: network.container_ip().map(|address| address.to_string()),
            infos: network.network_infos(),
            files,
            network,
        })
    }

    fn write(&self, files: &Files) -> Result<names::Written, Failure> {
        let private = self.private.as_ref().map_err(|why| failed(why.clone()))?;
        private
            .private(&self.directory)
            .and_then(|directory| names::Written::new(&directory, files))
            .map_err(|error| {
                let place = private.path().join(&self.directory);
                failed(format!("cannot write {}: {error}", place.display()))
            })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(Ok(joined)) = self.network.take() else {
            return;
        };
        let (alive, pod) = (self.alive.clone(), self.pod.clone());
        let end = async move {
            if let Err(error) = joined.network.tear_down().await {
                let error = sentence(&error);
                tracing::warn!("the network of pod {pod} is left to the next clean-up: {error}");
            }
            drop(alive);
        };
        // Without a runtime it undoes itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(end);
        }
    }
}

/// What dead executors of this node held is taken back, and the node's rules are laid anew if somebody removed them.
pub async fn sweep(config: Config) {
    let manager = match Manager::open(config) {
        Ok(manager) => manager,
        Err(error) => return tracing::debug!("{}", sentence(&error)),
    };
    match manager.reclaim().await {
        Ok(0) => {}
        Ok(count) => tracing::info!("took back the networks of {count} pods whose executors are gone"),
        Err(error) => tracing::warn!("networks of dead executors: {}", sentence(&error)),
    }
}

fn failed(message: String) -> Failure {
    Failure {
        message: format!("the pod's network: {message}"),
        invalid: false,
    }
}
