//! An image as a mounted root file system.

use std::{
    collections::HashSet,
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::Errno;

use super::{
    digest::Digest,
    disk::{Disk, LayerRecord, StoreError},
    fixes,
    unpack::{DevicePolicy, UnpackOptions, tree},
};
use crate::sys::{held::Held, mount, overlay::Overlay};

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot {step} {path} for the image's root")]
    Directory {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("overlayfs does not take {layers} layers{hint}")]
    Overlay {
        layers: usize,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The directories an image is stacked from.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    /// The topmost first; never empty.
    layers: Vec<PathBuf>,
    /// An empty directory, for where two layers are needed.
    filler: PathBuf,
    /// The operator wants the image's device nodes to be of use.
    devices: bool,
    /// The user namespace whose users own the files, instead of the host's.
    users: Option<Arc<OwnedFd>>,
}

/// Where a member's changes to its root go.
#[derive(Debug, Clone)]
pub struct Changes {
    pub upper: Held,
    pub work: Held,
}

/// A mounted image that is attached nowhere yet.
#[derive(Debug)]
pub struct Rootfs {
    mount: OwnedFd,
}

impl Rootfs {
    /// The mount, to be attached with `move_mount`.
    pub fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    pub fn into_mount(self) -> OwnedFd {
        self.mount
    }
}

impl Stack {
    pub(super) fn assemble(
        disk: &Disk,
        manifest: Digest,
        layers: &[(Digest, Option<LayerRecord>)],
        options: &UnpackOptions,
    ) -> Result<Stack, RootfsError> {
        // From the top: of a layer that occurs twice only the upper one shows, and overlayfs refuses the second.
        let mut seen = HashSet::new();
        let mut from_top = Vec::new();
        let mut undescribed = false;
        let mut root_model = None;
        for (diff_id, record) in layers.iter().rev() {
            if !seen.insert(*diff_id) {
                continue;
            }
            from_top.push(*diff_id);
            if let Some(record) = record {
                if record.root_described && root_model.is_none() {
                    root_model = Some(*diff_id);
                }
                undescribed |= record.implied().next().is_some();
                // Nothing below it shows. overlayfs itself does not look for the mark on a layer's root.
                if record.opaque_root {
                    break;
                }
            }
        }
        let directory = |diff_id: &Digest| disk.layout.layer(*diff_id).join("fs");
        let mut layers: Vec<PathBuf> = from_top.iter().map(directory).collect();
        undescribed |= root_model.is_some() && root_model.as_ref() != from_top.first();
        if undescribed && layers.len() > 1 {
            let root_model = root_model
                .as_ref()
                .or(from_top.first())
                .map(directory)
                .unwrap_or_default();
            let fix = fixes::layer(disk, manifest, &from_top, &root_model, options.privilege)?;
            layers.splice(0..0, fix);
        }
        if layers.is_empty() {
            layers.push(disk.layout.empty().join("layer"));
        }
        Ok(Stack {
            layers,
            filler: disk.layout.empty().join("filler"),
            devices: options.devices == DevicePolicy::Keep,
            users: None,
        })
    }

    pub(super) fn owned_by(self, users: Option<Arc<OwnedFd>>) -> Self {
        Stack { users, ..self }
    }

    fn users(&self) -> Option<BorrowedFd<'_>> {
        self.users.as_ref().map(|users| users.as_fd())
    }

    /// The topmost first.
    pub(super) fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    /// `ground` lies below the lowest layer.
    pub(super) fn mount(
        &self,
        changes: Option<&Changes>,
        ground: Option<&Path>,
    ) -> Result<Rootfs, RootfsError> {
        // Without a directory for changes overlayfs insists on two layers.
        let filler = (changes.is_none() && self.layers.len() == 1).then_some(self.filler.as_path());
        let layers = self.layers.iter().map(PathBuf::as_path);
        let lower: Vec<&Path> = layers.chain(ground.or(filler)).collect();
        let overlay = Overlay::open(&lower, None).and_then(|overlay| match changes {
            Some(changes) => overlay.changed_in(changes.upper.as_fd(), changes.work.as_fd()),
            None => Ok(overlay),
        });
        let mount = overlay
            .and_then(|overlay| overlay.with_devices(self.devices).with_users(self.users()))
            .and_then(|overlay| overlay.mount())
            .map_err(|source| RootfsError::Overlay {
                layers: lower.len(),
                hint: match changes {
                    Some(_) => {
                        " with a place for changes; that must not lie on overlayfs or a network file system"
                    }
                    None => "",
                },
                source,
            })?;
        Ok(Rootfs { mount })
    }

    /// Makes the directories for a member's changes, in a new one of that name. They must be fresh: overlayfs does not
    /// take them twice. The root of a stack looks like its upper directory, so that one takes after the topmost layer.
    pub(super) fn changes(&self, parent: &Held, name: &str) -> Result<Changes, RootfsError> {
        let failed =
            |step: &'static str, path: PathBuf| move |source| RootfsError::Directory { step, path, source };
        let make = |parent: &Held, name: &str| {
            let made = parent.fresh(name);
            made.map_err(failed("make", parent.path().join(name)))
        };
        let directory = make(parent, name)?;
        let changes = Changes {
            upper: make(&directory, "upper")?,
            work: make(&directory, "work")?,
        };
        if let Some(top) = self.layers.first() {
            take_after(top, &changes.upper, self.users())
                .map_err(failed("set the attributes of", changes.upper.path().to_owned()))?;
        }
        Ok(changes)
    }
}

/// Removes a directory that was prepared for changes with everything a member made in it, however deep. One that is
/// not there is well, too.
pub fn discard_changes(parent: &Held, name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    match tree::remove_entry(parent.as_fd(), &name, parent.as_fd()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn take_after(model: &Path, directory: &Held, users: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let model = match users {
        // With the owner that those users see.
        Some(users) => File::from(mount::mapped(File::open(model)?.as_fd(), users)?).metadata()?,
        None => fs::metadata(model)?,
    };
    // Without root everything is ours already.
    let _ = std::os::unix::fs::fchown(directory, Some(model.uid()), Some(model.gid()));
    let directory = File::from(directory.as_fd().try_clone_to_owned()?);
    directory.set_permissions(model.permissions())?;
    directory.set_modified(model.modified()?)
}
