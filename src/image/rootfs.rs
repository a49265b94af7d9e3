//! An image as a mounted root file system.

use std::{
    collections::HashSet,
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::{
        self as kernel, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags,
    },
};

use super::{
    digest::Digest,
    disk::{Disk, StoreError},
    fixes,
    unpack::Privilege,
};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

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
    #[error("overlayfs does not take {what}{hint}")]
    Overlay {
        what: String,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The directories an image is stacked from, and how overlayfs is to be told.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    /// Lowest first; never empty.
    layers: Vec<PathBuf>,
    privilege: Privilege,
    empty: PathBuf,
    scratch: PathBuf,
}

/// A mounted image that is attached nowhere yet.
#[derive(Debug)]
pub struct Rootfs {
    mount: OwnedFd,
    upper: Option<PathBuf>,
}

impl Rootfs {
    /// The mount, to be attached with `move_mount`.
    pub fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Gives the mount away. The directory for the member's writes is then the caller's to remove.
    pub fn into_mount(self) -> OwnedFd {
        self.mount
    }

    /// The directory that takes the member's writes.
    pub fn upper(&self) -> Option<&Path> {
        self.upper.as_deref()
    }
}

impl Stack {
    pub(super) fn assemble(
        disk: &Disk,
        manifest: Digest,
        diff_ids: &[Digest],
        privilege: Privilege,
    ) -> Result<Stack, RootfsError> {
        // From the top: of a layer that occurs twice only the upper one shows, and overlayfs refuses the second.
        let mut seen = HashSet::new();
        let mut from_top = Vec::new();
        let mut undescribed = false;
        let mut root_model = None;
        for diff_id in diff_ids.iter().rev() {
            if !seen.insert(*diff_id) {
                continue;
            }
            from_top.push(*diff_id);
            if let Some(record) = disk.layer(*diff_id)? {
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
        let mut layers: Vec<PathBuf> = from_top.iter().rev().map(directory).collect();
        undescribed |= root_model.is_some() && root_model.as_ref() != from_top.first();
        if undescribed && layers.len() > 1 {
            let root_model = root_model
                .as_ref()
                .or(from_top.first())
                .map(directory)
                .unwrap_or_default();
            layers.extend(fixes::layer(disk, manifest, &from_top, &root_model, privilege)?);
        }
        if layers.is_empty() {
            layers.push(disk.layout.empty().join("layer"));
        }
        Ok(Stack {
            layers,
            privilege,
            empty: disk.layout.empty().join("filler"),
            scratch: disk.layout.directory("tmp"),
        })
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Path> {
        self.layers.iter().map(PathBuf::as_path)
    }

    pub(super) fn mount(&self, upper: Option<&Path>) -> Result<Rootfs, RootfsError> {
        let writable = upper
            .zip(self.layers.last())
            .map(|(upper, top)| Writable::prepare(upper, top))
            .transpose()?;
        let mount = match self.mount_by_descriptors(writable.as_ref()) {
            // Kernels before 6.7 know no "lowerdir+", those before 5.2 no such calls at all.
            Err(Errno::INVAL | Errno::NOSYS) => self.mount_by_options(writable.as_ref())?,
            other => other.map_err(|error| self.refused(writable.as_ref(), error.into()))?,
        };
        Ok(Rootfs {
            mount,
            upper: upper.map(Path::to_owned),
        })
    }

    /// The layers from the top, as overlayfs wants them. Without a directory for writing it insists on two.
    fn lower(&self, writable: bool) -> impl Iterator<Item = &Path> {
        let filler = (!writable && self.layers.len() == 1).then_some(&self.empty);
        self.layers.iter().rev().chain(filler).map(PathBuf::as_path)
    }

    fn refused(&self, writable: Option<&Writable>, source: io::Error) -> RootfsError {
        RootfsError::Overlay {
            what: match writable {
                Some(writable) => format!("{} layers and {}", self.layers.len(), writable.path.display()),
                None => format!("{} layers", self.layers.len()),
            },
            hint: match writable {
                Some(_) => ": the sandbox must not lie on overlayfs itself or on a network file system",
                None => "",
            },
            source,
        }
    }

    /// One call for each layer, so nothing limits their number but overlayfs itself.
    fn mount_by_descriptors(&self, writable: Option<&Writable>) -> Result<OwnedFd, Errno> {
        match self.configure(writable, true) {
            // Old kernels know no "volatile"; it only saves syncs of files nobody will miss.
            Err(Errno::INVAL) if writable.is_some() => self.configure(writable, false),
            other => other,
        }
    }

    fn configure(&self, writable: Option<&Writable>, volatile: bool) -> Result<OwnedFd, Errno> {
        let context = kernel::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        kernel::fsconfig_set_string(&context, c"source", c"podling")?;
        for layer in self.lower(writable.is_some()) {
            let layer = rustix::fs::open(layer, DIRECTORY, Mode::empty())?;
            kernel::fsconfig_set_string(&context, c"lowerdir+", through_descriptor(&layer))?;
        }
        for option in self.flags() {
            match option.split_once('=') {
                Some((key, value)) => kernel::fsconfig_set_string(&context, key, value)?,
                None => kernel::fsconfig_set_flag(&context, *option)?,
            }
        }
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        match writable {
            Some(writable) => {
                kernel::fsconfig_set_string(&context, c"upperdir", through_descriptor(&writable.upper))?;
                kernel::fsconfig_set_string(&context, c"workdir", through_descriptor(&writable.work))?;
                if volatile {
                    kernel::fsconfig_set_flag(&context, c"volatile")?;
                }
            }
            None => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
        }
        kernel::fsconfig_create(&context)?;
        kernel::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// What makes overlayfs predictable: no following of redirects that a layer might bring, no index.
    fn flags(&self) -> &'static [&'static str] {
        match self.privilege {
            Privilege::Root => &["redirect_dir=nofollow", "index=off", "metacopy=off"],
            Privilege::User => &["userxattr"],
        }
    }

    /// The old way: one string of at most a page, so layers are named by short paths of descriptors, mounted at a
    /// place of our own and taken off it again.
    fn mount_by_options(&self, writable: Option<&Writable>) -> Result<OwnedFd, RootfsError> {
        let failed = |source: io::Error| self.refused(writable, source);
        let opened: Result<Vec<File>, io::Error> = self.lower(writable.is_some()).map(File::open).collect();
        let opened = opened.map_err(failed)?;
        let lower: Vec<String> = opened.iter().map(through_descriptor).collect();
        let mut options = format!("lowerdir={}", lower.join(":")).into_bytes();
        for flag in self.flags() {
            options.push(b',');
            options.extend_from_slice(flag.as_bytes());
        }
        let mut flags = MountFlags::NODEV;
        match writable {
            Some(Writable { upper, work, .. }) => {
                let (upper, work) = (through_descriptor(upper), through_descriptor(work));
                options.extend_from_slice(format!(",upperdir={upper},workdir={work}").as_bytes());
            }
            None => flags |= MountFlags::RDONLY,
        }
        let options = CString::new(options).map_err(|error| failed(error.into()))?;
        let place = self
            .scratch
            .join(format!("mount-{}-{}", std::process::id(), uuid::Uuid::new_v4()));
        fs::create_dir(&place).map_err(failed)?;
        let mounted =
            kernel::mount("podling", &place, "overlay", flags, Some(options.as_c_str())).and_then(|()| {
                let tree = kernel::open_tree(
                    rustix::fs::CWD,
                    &place,
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
                );
                kernel::unmount(&place, UnmountFlags::DETACH)?;
                tree
            });
        let _ = fs::remove_dir(&place);
        mounted.map_err(|error| failed(error.into()))
    }
}

/// The two directories overlayfs wants for writing.
#[derive(Debug)]
struct Writable {
    upper: File,
    work: File,
    path: PathBuf,
}

impl Writable {
    /// Fresh ones each time: a volatile upper directory cannot be used twice. The root of the stack looks like its
    /// upper directory, so that takes after `model`.
    fn prepare(directory: &Path, model: &Path) -> Result<Writable, RootfsError> {
        let failed = |step: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| RootfsError::Directory { step, path, source }
        };
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        private
            .recursive(true)
            .create(directory)
            .map_err(failed("make", directory))?;
        private.recursive(false);
        let make = |name: &str| {
            let path = directory.join(name);
            private.create(&path).map_err(failed("make", &path))?;
            File::open(&path).map_err(failed("open", &path))
        };
        let writable = Writable {
            upper: make("upper")?,
            work: make("work")?,
            path: directory.to_owned(),
        };
        let like = |model: &Path, upper: &File| -> io::Result<()> {
            let model = fs::metadata(model)?;
            // Without root everything is ours already.
            let _ = std::os::unix::fs::fchown(upper, Some(model.uid()), Some(model.gid()));
            upper.set_permissions(model.permissions())?;
            upper.set_modified(model.modified()?)
        };
        like(model, &writable.upper).map_err(failed("set the attributes of", directory))?;
        Ok(writable)
    }
}

/// A path that is short whatever the directory's own is: mount options have narrow limits, sandboxes long names.
fn through_descriptor(directory: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}
