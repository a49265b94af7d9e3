//! Members' images: from the node's store, through overlayfs, to a mount.

use std::{os::fd::OwnedFd, path::PathBuf};

use tokio::sync::OnceCell;

use super::{Alive, Trouble, names};
use crate::{
    container::plan::SANDBOX_IN_IMAGE,
    executor::{config::Config, sentence},
    image::{
        Changes, Credentials, Image, OperatorConfig, Places, Pool, PullOptions, Reference, Rootfs,
        RootfsError, Store, discard_changes,
    },
    mesos::v1,
    sys::held::Held,
};

/// The node's images as this executor sees them.
#[derive(Debug)]
pub struct Images {
    config: OperatorConfig,
    store: OnceCell<Store>,
}

impl Images {
    pub fn new(config: &Config) -> Self {
        Images {
            config: config.images.clone(),
            store: OnceCell::new(),
        }
    }

    /// Gives an image, whole and checked (P-05, P-06). `at` is its place in the task.
    pub async fn get(&self, at: &str, wanted: &v1::Image) -> Result<Image, Trouble> {
        let docker = match (wanted.r#type(), &wanted.docker) {
            (v1::image::Type::Docker, Some(docker)) => docker,
            (v1::image::Type::Docker, None) => {
                return Err(Trouble::invalid(format!("{at}.docker: is missing")));
            }
            (v1::image::Type::Appc, _) => {
                let what = "images of type APPC are not supported; use DOCKER";
                return Err(Trouble::invalid(format!("{at}.type: {what}")));
            }
        };
        let reference: Reference = docker
            .name
            .parse()
            .map_err(|error| Trouble::invalid(format!("{at}: {}", sentence(&error))))?;
        let options = PullOptions {
            force: !wanted.cached(),
            credentials: docker
                .config
                .as_ref()
                .map(|secret| credentials(at, secret))
                .transpose()?,
            ..PullOptions::default()
        };
        let store = self.store().await?;
        // Boxed, for it is large and mostly not needed.
        let pulled = Box::pin(store.resolve_and_pull(&reference, &options));
        pulled.await.map_err(|error| Trouble::failed(sentence(&error)))
    }

    /// Members' roots are not to be written to.
    pub fn read_only_roots(&self) -> bool {
        self.config.read_only
    }

    async fn store(&self) -> Result<&Store, Trouble> {
        let open = || async {
            let config = self.config.clone();
            let opened = tokio::task::spawn_blocking(move || open(&config)).await;
            opened.unwrap_or_else(|error| Err(Trouble::failed(sentence(&error))))
        };
        self.store.get_or_try_init(open).await
    }
}

fn open(config: &OperatorConfig) -> Result<Store, Trouble> {
    let mut store = config
        .store()
        .map_err(|error| Trouble::failed(format!("images_credentials: {}", sentence(&error))))?;
    store.places = places();
    Store::open(store).map_err(|error| {
        let path = config.store.display();
        Trouble::failed(format!("image store {path}: {}", sentence(&error)))
    })
}

/// P-06: a docker configuration that travels with the task.
fn credentials(at: &str, secret: &v1::Secret) -> Result<Credentials, Trouble> {
    let at = format!("{at}.docker.config");
    match (secret.r#type(), &secret.value) {
        (v1::secret::Type::Reference, _) => Err(Trouble::invalid(format!(
            "{at}: the executor cannot resolve a secret of type REFERENCE; give its VALUE"
        ))),
        (_, Some(value)) => Credentials::parse(&value.data)
            .map_err(|error| Trouble::invalid(format!("{at}: {}", sentence(&error)))),
        (_, None) => Err(Trouble::invalid(format!("{at}: has no value"))),
    }
}

/// Where something is mounted in the root of every member with an image.
fn places() -> Places {
    let directories = ["proc", "sys", "dev", SANDBOX_IN_IMAGE.trim_start_matches('/')];
    Places {
        directories: directories.map(PathBuf::from).into(),
        files: names::FILES.map(names::place).into(),
    }
}

/// Nobody can write to it, so all may share it.
pub fn read_only(image: &Image) -> Result<OwnedFd, Trouble> {
    mounted(image.rootfs(None))
}

fn mounted(rootfs: Result<Rootfs, RootfsError>) -> Result<OwnedFd, Trouble> {
    rootfs
        .map(Rootfs::into_mount)
        .map_err(|error| Trouble::failed(sentence(&error)))
}

/// The directory in the sandbox that takes what a member writes to its image; removed with this value.
#[derive(Debug)]
pub struct Writes {
    parent: Held,
    name: String,
    alive: Alive,
    remover: Pool,
}

impl Writes {
    /// `remover`: a thread for what may take long. Not the runtime's own: those look up names, too, and whoever ends
    /// waits for them.
    pub fn at(parent: &Held, name: String, alive: &Alive, remover: &Pool) -> Self {
        Writes {
            parent: parent.clone(),
            name,
            alive: alive.clone(),
            remover: remover.clone(),
        }
    }

    /// As the root of a member.
    pub fn root(&self, image: &Image) -> Result<OwnedFd, Trouble> {
        mounted(image.member_root(&self.changes(image)?))
    }

    pub fn volume(&self, image: &Image) -> Result<OwnedFd, Trouble> {
        mounted(image.rootfs(Some(&self.changes(image)?)))
    }

    fn changes(&self, image: &Image) -> Result<Changes, Trouble> {
        let changes = image.changes(&self.parent, &self.name);
        changes.map_err(|error| Trouble::failed(sentence(&error)))
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let (parent, name) = (self.parent.clone(), std::mem::take(&mut self.name));
        let alive = self.alive.clone();
        let remove = move |_| {
            if let Err(error) = discard_changes(&parent, &name) {
                tracing::debug!("{} stays: {error}", parent.path().join(&name).display());
            }
            drop(alive);
        };
        // It is queued, and nobody waits for the result; what is not done when we end is done by the next clean-up.
        drop(self.remover.run(remove));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(kind: v1::secret::Type, data: Option<&str>) -> v1::Secret {
        v1::Secret {
            r#type: Some(kind.into()),
            value: data.map(|data| v1::secret::Value {
                data: data.as_bytes().to_vec(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_removal_waits_for_no_thread_of_the_runtime_and_nobody_for_a_removal() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("web.root");
        std::fs::create_dir_all(path.join("upper/deep/deeper")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            // A name look-up that does not come to an end.
            let look_up = tokio::task::spawn_blocking(move || held.recv());
            let (alive, mut ended) = tokio::sync::mpsc::channel(1);
            drop(Writes::at(
                &Held::open(place.path()).unwrap(),
                "web.root".into(),
                &alive,
                &Pool::new(1),
            ));
            drop(alive);
            let removed = tokio::time::timeout(std::time::Duration::from_secs(20), ended.recv());
            let removed = removed.await;
            drop(release);
            assert_eq!(removed, Ok(None));
            assert!(!path.exists());
            look_up.await.unwrap().unwrap_err();
        });
    }

    fn refused(image: v1::Image) -> Trouble {
        let images = Images::new(&Config::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(images.get("image", &image)).unwrap_err()
    }

    #[test]
    fn p_06_a_secret_is_given_by_value_and_never_shown() {
        use v1::secret::Type;
        assert!(credentials("image", &secret(Type::Value, Some(r#"{"auths":{}}"#))).is_ok());
        for (kind, data, sentence) in [
            (Type::Reference, None, "REFERENCE; give its VALUE"),
            (Type::Value, None, "has no value"),
            (Type::Value, Some("{\"hunter2"), "image.docker.config: "),
        ] {
            let trouble = credentials("image", &secret(kind, data)).unwrap_err();
            assert!(
                trouble.invalid && trouble.message.contains(sentence),
                "{trouble:?}"
            );
            assert!(!trouble.message.contains("hunter2"), "{trouble:?}");
        }
    }

    #[test]
    fn images_that_cannot_be_are_refused_before_anything_is_opened() {
        let docker = |name: &str| v1::Image {
            r#type: v1::image::Type::Docker.into(),
            docker: Some(v1::image::Docker {
                name: name.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let appc = v1::Image {
            r#type: v1::image::Type::Appc.into(),
            ..Default::default()
        };
        for (image, sentence) in [
            (appc, "APPC are not supported"),
            (docker("Upper/Case"), "image: image reference \"Upper/Case\""),
            (docker(""), "it is empty"),
            (
                v1::Image {
                    docker: None,
                    ..docker("")
                },
                "image.docker: is missing",
            ),
        ] {
            let trouble = refused(image);
            assert!(
                trouble.invalid && trouble.message.contains(sentence),
                "{trouble:?}"
            );
        }
    }
}
