//! What members get from the node before they are planned: their group's network, and their images.
//!
//! ```text
//!         ┌──▶ network of the group (made once, shared) ──┐
//!  Draft ─┤                                               ├──▶ Plan, and what it stands on
//!         └──▶ images (pulled, mounted) ──────────────────┘
//! ```
//!
//! All of it is one future for each member, and dropping that undoes what it made. What stays (a lease on an image,
//! the directory that takes a member's writes, the group's network) is held by [`Kept`] as long as the member lives.

mod images;
mod names;
mod network;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::mpsc;

pub use self::network::{Learned, sweep};
use self::{
    images::{Images, Writes},
    network::{Group, Networks},
};
use super::{config::Config, sentence};
use crate::{
    container::{
        MappedUsers,
        plan::{self, MountSource, Plan, Rootfs},
    },
    group::{Failure, GroupId},
    image::{Image, Pool},
    mesos::v1,
    sys::held::Held,
};

/// In what is ours alone: what members write to their images.
const WRITES: &str = "rootfs";

/// How long the end of an executor waits for networks and files to be undone; the rest is left to the next clean-up.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// One per executor. The image store and the node's networks are opened with the first member that needs them.
#[derive(Debug)]
pub struct Provisioner {
    images: Arc<Images>,
    networks: Networks,
    groups: HashMap<GroupId, Weak<Group>>,
    /// Where we keep files of our own, in directories by purpose; else why not.
    private: Result<Held, String>,
    /// What members write to their images is in this one.
    writes: Option<Held>,
    /// Removes what members wrote.
    remover: Pool,
    alive: Alive,
    ended: mpsc::Receiver<Infallible>,
}

/// Held by whatever still has something to undo.
type Alive = mpsc::Sender<Infallible>;

/// Everything about a member that is known at once.
#[derive(Debug)]
pub struct Draft {
    pub task: Arc<v1::TaskInfo>,
    pub context: plan::Context,
    pub defaults: Arc<plan::Defaults>,
}

/// A member that can be prepared.
#[derive(Debug)]
pub struct Provided {
    pub plan: Plan,
    /// What its updates say of its network, if that is its group's own (N-09, U-09).
    pub network_infos: Option<Vec<v1::NetworkInfo>>,
    pub kept: Kept,
}

/// What a member stands on; to be dropped after it.
#[derive(Debug)]
pub struct Kept {
    _images: Vec<Image>,
    _writes: Vec<Writes>,
    _group: Arc<Group>,
}

impl Provisioner {
    /// `pod` names the networks of this executor on the node, `private` is a directory in the sandbox that is ours.
    pub fn new(config: &Config, pod: &str, private: Result<Held, String>) -> Self {
        let (alive, ended) = mpsc::channel(1);
        Provisioner {
            images: Arc::new(Images::new(config)),
            networks: Networks::new(config.networks(), pod),
            groups: HashMap::new(),
            private,
            writes: None,
            remover: Pool::new(1),
            alive,
            ended,
        }
    }

    /// Reads what this executor is to have for a network; `ip` is its own address.
    pub async fn learn(
        &mut self,
        executor: &v1::ExecutorInfo,
        network: Option<&serde_json::Value>,
        ip: Option<IpAddr>,
    ) -> Learned {
        self.networks.learn(executor, network, ip).await
    }

    /// Makes the directory that takes what members write to their images; answers it if it was not there yet.
    pub fn make_writes(&mut self) -> Result<Option<&Held>, String> {
        if self.writes.is_some() {
            return Ok(None);
        }
        let private = self.private.as_ref().map_err(String::clone)?;
        let made = private
            .private(WRITES)
            .map_err(|error| format!("make {}: {error}", private.path().join(WRITES).display()))?;
        Ok(Some(self.writes.insert(made)))
    }

    /// The work of one member. The first of a group to get there makes the group's network.
    pub fn provide(
        &mut self,
        group: GroupId,
        container: &str,
        draft: Draft,
    ) -> impl Future<Output = Result<Provided, Failure>> + 'static {
        let group = self.group(group);
        let images = self.images.clone();
        let (writes, container) = (self.writes.clone(), container.to_owned());
        let (alive, remover) = (self.alive.clone(), self.remover.clone());
        async move {
            let named = |text: String| format!("member `{}`: {text}", draft.task.name.escape_debug());
            let work = Work {
                images: &images,
                writes: writes.as_ref(),
                container: &container,
                alive: &alive,
                remover: &remover,
                users: draft.context.users.as_deref(),
            };
            let images = async {
                work.stack(&draft.task).await.map_err(|problem| Failure {
                    message: named(problem.message),
                    invalid: problem.invalid,
                })
            };
            let (network, stack) = tokio::try_join!(group.network(), images)?;
            let mut context = draft.context;
            if let Some(rootfs) = stack.rootfs {
                context.rootfs = rootfs;
            }
            context.image_volumes = stack.volumes;
            if let Some(network) = &network {
                context.network = Some(network.namespace.clone());
                context.hostname.clone_from(&network.hostname);
                context.container_ip.clone_from(&network.address);
            }
            if let Rootfs::Mounted { mount, .. } = &context.rootfs {
                names::make_room(mount).map_err(|error| Failure {
                    message: named(sentence(&error)),
                    invalid: false,
                })?;
            }
            match &network {
                Some(network) => {
                    let mounts = network
                        .files
                        .iter()
                        .flat_map(|files| files.mounts(&context.rootfs));
                    context.mounts.extend(mounts);
                }
                // A member on the host's root sees the node's files already.
                None if context.rootfs.is_host() => {}
                None => context.mounts.extend(names::of_node(&context.rootfs)),
            }
            let config = stack.image.as_ref().map(Image::config);
            let plan = plan::member(&draft.task, config, &context, &draft.defaults);
            Ok(Provided {
                plan: plan.map_err(|error| Failure {
                    message: named(sentence(&error)),
                    invalid: true,
                })?,
                network_infos: network.as_ref().map(|network| network.infos.clone()),
                kept: Kept {
                    _images: stack.image.into_iter().chain(stack.others).collect(),
                    _writes: stack.writes,
                    _group: group,
                },
            })
        }
    }

    fn group(&mut self, id: GroupId) -> Arc<Group> {
        self.groups.retain(|_, group| group.strong_count() > 0);
        if let Some(group) = self.groups.get(&id).and_then(Weak::upgrade) {
            return group;
        }
        let group = Arc::new(self.networks.group(id, &self.private, &self.alive));
        self.groups.insert(id, Arc::downgrade(&group));
        group
    }

    /// Waits until nothing is left to undo, within limits.
    pub async fn finish(self) {
        let Provisioner {
            alive,
            mut ended,
            private,
            ..
        } = self;
        drop(alive);
        if tokio::time::timeout(LAST_WAIT, ended.recv()).await.is_err() {
            tracing::warn!("networks or files of members are left to the next clean-up");
        }
        // Only if nothing is left in it.
        if let Ok(private) = private {
            let _ = private.remove_empty(WRITES);
        }
    }
}

/// A member that has images writes to them.
pub fn has_images(task: &v1::TaskInfo) -> bool {
    task.container.as_ref().is_some_and(|container| {
        let root = container
            .mesos
            .as_ref()
            .is_some_and(|mesos| mesos.image.is_some());
        root || container.volumes.iter().any(|volume| volume.image.is_some())
    })
}

/// A step that failed, without the member's name.
#[derive(Debug)]
struct Trouble {
    message: String,
    /// The definition itself is wrong.
    invalid: bool,
}

impl Trouble {
    fn invalid(message: impl Into<String>) -> Self {
        Trouble {
            message: message.into(),
            invalid: true,
        }
    }

    fn failed(message: impl Into<String>) -> Self {
        Trouble {
            message: message.into(),
            invalid: false,
        }
    }
}

/// What one member's images are made with.
struct Work<'a> {
    images: &'a Images,
    writes: Option<&'a Held>,
    container: &'a str,
    alive: &'a Alive,
    remover: &'a Pool,
    /// Who is to own what is in them.
    users: Option<&'a MappedUsers>,
}

/// A member's images, mounted.
#[derive(Default)]
struct Stack {
    image: Option<Image>,
    rootfs: Option<Rootfs>,
    /// Sources of the volumes that come from images, by index (V-11).
    volumes: BTreeMap<usize, MountSource>,
    others: Vec<Image>,
    writes: Vec<Writes>,
}

impl Work<'_> {
    /// Where changes to one of the member's images go.
    fn writes(&self, what: &str) -> Result<Writes, Trouble> {
        let parent = self
            .writes
            .ok_or_else(|| Trouble::failed("nothing was made to take what it writes to its image"))?;
        Ok(Writes::at(
            parent,
            format!("{}.{what}", self.container),
            self.alive,
            self.remover,
        ))
    }

    async fn image(&self, at: &str, wanted: &v1::Image) -> Result<Image, Trouble> {
        let image = self.images.get(at, wanted).await?;
        Ok(image.owned_by(self.users.map(MappedUsers::namespace)))
    }

    async fn stack(&self, task: &v1::TaskInfo) -> Result<Stack, Trouble> {
        let mut stack = Stack::default();
        let Some(container) = &task.container else {
            return Ok(stack);
        };
        let wanted = container.mesos.as_ref().and_then(|mesos| mesos.image.as_ref());
        if let Some(wanted) = wanted {
            let image = self.image("container.mesos.image", wanted).await?;
            let writes = self.writes("root")?;
            stack.rootfs = Some(Rootfs::Mounted {
                mount: Arc::new(writes.root(&image)?),
                read_only: self.images.read_only_roots(),
            });
            stack.writes.push(writes);
            stack.image = Some(image);
        }
        for (index, volume) in container.volumes.iter().enumerate() {
            let Some(wanted) = &volume.image else { continue };
            let at = format!("container.volumes[{index}].image");
            let image = self.image(&at, wanted).await?;
            let mount = if volume.mode() == v1::volume::Mode::Rw {
                let writes = self.writes(&format!("volume-{index}"))?;
                let mount = writes.volume(&image)?;
                stack.writes.push(writes);
                mount
            } else {
                images::read_only(&image)?
            };
            stack
                .volumes
                .insert(index, MountSource::Detached(Arc::new(mount)));
            stack.others.push(image);
        }
        Ok(stack)
    }
}
