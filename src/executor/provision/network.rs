//! The network of a group: made before its members, shared by them, undone after the last of them.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tokio::{runtime::Handle, sync::OnceCell};

use super::Alive;
use crate::{
    container::plan::{Mount, MountSource, Rootfs, Target},
    executor::{config::NetworkSetting, sentence},
    group::{Failure, GroupId},
    mesos::v1,
    network::{Manager, PodNetwork, Request, request::Kind},
};

/// N-04: as named below `/etc`.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What this executor's groups are to have.
#[derive(Debug)]
pub struct Networks {
    setting: NetworkSetting,
    pod: String,
    /// Known with the first subscription; it does not change.
    wish: Option<Wish>,
}

#[derive(Debug, Clone)]
enum Wish {
    /// The executor's own: the host's, or the one the agent has put us into (N-01).
    Shared,
    Own {
        manager: Arc<Manager>,
        request: Arc<Request>,
    },
    Refused(String),
}

impl Networks {
    pub fn new(setting: NetworkSetting, pod: &str) -> Self {
        Networks {
            setting,
            pod: pod.to_owned(),
            wish: None,
        }
    }

    pub fn learn(&mut self, executor: &v1::ExecutorInfo, network: Option<&Value>) -> bool {
        let known = self.wish.take();
        let wish = known.unwrap_or_else(|| match network {
            None => Wish::Shared,
            Some(network) => self.read(executor, network).unwrap_or_else(Wish::Refused),
        });
        !matches!(self.wish.insert(wish), Wish::Shared)
    }

    fn read(&self, executor: &v1::ExecutorInfo, network: &Value) -> Result<Wish, String> {
        let manager = Manager::open(self.setting.config.clone()).map_err(|error| sentence(&error))?;
        let request = manager
            .read(executor.container.as_ref(), Some(network))
            .map_err(|error| format!("executor.{error}"))?;
        if !matches!(request.kind, Kind::Own(_)) {
            return Ok(Wish::Shared);
        }
        // While the group is still on its way.
        manager.warm();
        Ok(Wish::Own {
            manager: Arc::new(manager),
            request: Arc::new(request),
        })
    }

    pub fn group(&self, id: GroupId, private: &Path, alive: &Alive) -> Group {
        // Most executors have one group, which then has the name that people know.
        let pod = match id.0 {
            0 => self.pod.clone(),
            number => format!("{}-{number}", self.pod),
        };
        Group {
            wish: self.wish.clone().unwrap_or(Wish::Shared),
            files: private.join(format!("network-{}", id.0)),
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
    files: PathBuf,
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
    /// Where its `hosts`, `hostname` and `resolv.conf` are.
    pub files: PathBuf,
    network: PodNetwork,
}

impl Group {
    /// The network, made by the first who asks while the others wait; `None`: the executor's own. If whoever makes it
    /// is given up, the next one begins anew.
    pub async fn network(&self) -> Result<Option<&Joined>, Failure> {
        let (manager, request) = match &self.wish {
            Wish::Shared => return Ok(None),
            Wish::Own { manager, request } => (manager, request),
            Wish::Refused(message) => return Err(failed(message.clone())),
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
        self.write(&network).map_err(|error| {
            let place = self.files.display();
            failed(format!("cannot write {place}: {error}"))
        })?;
        Ok(Joined {
            namespace,
            hostname: network.hostname().map(str::to_owned),
            address: network.container_ip().map(|address| address.to_string()),
            infos: network.network_infos(),
            files: self.files.clone(),
            network,
        })
    }

    fn write(&self, network: &PodNetwork) -> io::Result<()> {
        let Some(files) = network.files() else {
            return Ok(());
        };
        let contents = [&files.hosts, &files.hostname, &files.resolv_conf];
        std::fs::DirBuilder::new()
            .mode(0o755)
            .recursive(true)
            .create(&self.files)?;
        for (name, text) in FILES.iter().zip(contents) {
            let mut options = std::fs::OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o644);
            let mut file = options.open(self.files.join(name))?;
            io::Write::write_all(&mut file, text.as_bytes())?;
        }
        Ok(())
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

fn failed(message: String) -> Failure {
    Failure {
        message: format!("the pod's network: {message}"),
        invalid: false,
    }
}

/// Where members find the node's own names.
pub const NODE: &str = "/etc";

/// N-04: the files that give a member its names, from the directory that holds them. On the host's root only those
/// that are there can be covered; the node's own cannot be written to.
pub fn mounts(directory: &Path, rootfs: &Rootfs) -> Vec<Mount> {
    let places = FILES.map(|name| (directory.join(name), Path::new("etc").join(name)));
    let places = places.into_iter().filter(|(source, target)| {
        source.exists() && (!rootfs.is_host() || Path::new("/").join(target).exists())
    });
    places
        .map(|(source, target)| Mount {
            read_only: directory == Path::new(NODE),
            field: format!("/{}", target.display()),
            source: MountSource::Host(source),
            target: Target::Root(target),
        })
        .collect()
}
