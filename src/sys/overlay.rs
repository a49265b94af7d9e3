//! A member's own view of shared layers: overlayfs as a detached mount, in no mount tree until the member's.
//!
//! Directories are named by descriptor (`/proc/self/fd/N`), which is short whatever the paths are, needs no
//! escaping, and cannot be exchanged under us.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
        open_tree,
    },
};

/// overlayfs follows no redirects that a layer might bring, and keeps no index of one member's changes for the next.
const AS_ROOT: [(&str, &str); 3] = [
    ("redirect_dir", "nofollow"),
    ("index", "off"),
    ("metacopy", "off"),
];
/// Its marks are then attributes that an ordinary user may set.
const AS_USER: &str = "userxattr";

/// Directories of one overlay, held open.
#[derive(Debug)]
pub struct Overlay {
    /// The topmost first.
    lower: Vec<OwnedFd>,
    writable: Option<Writable>,
    devices: bool,
    /// The layers are mounts that show mapped owners, and are in no tree.
    mapped: bool,
}

#[derive(Debug)]
struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(io::Error::from)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn by_descriptor(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

impl Overlay {
    /// Layers, the topmost first, and where changes go: an upper and a work directory. Without those it is read-only,
    /// and the kernel wants two layers.
    pub fn open<P: AsRef<Path>>(lower: &[P], writable: Option<(&Path, &Path)>) -> io::Result<Self> {
        let writable = match writable {
            Some((upper, work)) => Some(Writable {
                upper: open(upper)?,
                work: open(work)?,
            }),
            None => None,
        };
        Ok(Self {
            lower: lower
                .iter()
                .map(|path| open(path.as_ref()))
                .collect::<io::Result<_>>()?,
            writable,
            devices: false,
            mapped: false,
        })
    }

    /// Takes changes where these directories are, which are held already; `work` is overlayfs's own.
    pub fn changed_in(mut self, upper: BorrowedFd<'_>, work: BorrowedFd<'_>) -> io::Result<Self> {
        self.writable = Some(Writable {
            upper: upper.try_clone_to_owned()?,
            work: work.try_clone_to_owned()?,
        });
        Ok(self)
    }

    /// Shows the layers with the owners that users of that namespace have. What is changed is nobody else's and has
    /// them anyway.
    pub fn with_users(mut self, users: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        if let Some(users) = users {
            for layer in &mut self.lower {
                *layer = super::mount::mapped(layer.as_fd(), users)?;
            }
            self.mapped = true;
        }
        Ok(self)
    }

    /// Lets device nodes in it be opened; without this they are names only, for a member's devices are in `/dev`.
    pub fn with_devices(self, devices: bool) -> Self {
        Self { devices, ..self }
    }

    /// Mounts them. Nothing of the upper layer is kept after the member, so nothing of it is synced either
    /// (`volatile`), where the kernel knows how.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        match self.mount_by_layer(true) {
            Err(Errno::INVAL) => match self.mount_by_layer(false) {
                Err(Errno::INVAL) if self.mapped => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "owners mapped for a user namespace need Linux 6.15 or newer",
                )),
                // Before Linux 6.7 layers could only be given all at once.
                Err(Errno::INVAL) => self.mount_in_a_thread(),
                other => Ok(other?),
            },
            other => Ok(other?),
        }
    }

    fn mount_by_layer(&self, volatile: bool) -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in &self.lower {
            fsconfig_set_string(&context, "lowerdir+", by_descriptor(layer))?;
        }
        if rustix::process::geteuid().is_root() {
            for (key, value) in AS_ROOT {
                fsconfig_set_string(&context, key, value)?;
            }
        } else {
            fsconfig_set_flag(&context, AS_USER)?;
        }
        let mut attributes = MountAttrFlags::empty();
        attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !self.devices);
        match &self.writable {
            Some(Writable { upper, work }) => {
                fsconfig_set_string(&context, "upperdir", by_descriptor(upper))?;
                fsconfig_set_string(&context, "workdir", by_descriptor(work))?;
                if volatile {
                    fsconfig_set_flag(&context, "volatile")?;
                }
            }
            None => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// The old interface mounts on a place of a tree. A thread with a tree of its own has such places, and when it
    /// ends only our descriptor is left.
    fn mount_in_a_thread(&self) -> io::Result<OwnedFd> {
        std::thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                crate::sys::mount::separate_thread()?;
                mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
                self.reopened()?.mount_on_a_directory_of_its_own()
            });
            mounted
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the mounting thread was lost")))
        })
    }

    /// The same directories in the mount tree of this thread: overlayfs takes no others.
    fn reopened(&self) -> io::Result<Self> {
        let again = |directory: &OwnedFd| {
            let found = open(&std::fs::read_link(by_descriptor(directory))?)?;
            let which = |directory| rustix::fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino));
            match which(&found)? == which(directory)? {
                true => Ok(found),
                false => Err(io::Error::other("a directory was exchanged for another one")),
            }
        };
        Ok(Self {
            lower: self.lower.iter().map(again).collect::<io::Result<_>>()?,
            writable: match &self.writable {
                Some(Writable { upper, work }) => Some(Writable {
                    upper: again(upper)?,
                    work: again(work)?,
                }),
                None => None,
            },
            devices: self.devices,
            mapped: self.mapped,
        })
    }

    /// On the upper directory, or else on the topmost layer, which nobody else sees in this tree.
    fn mount_on_a_directory_of_its_own(&self) -> io::Result<OwnedFd> {
        let layers: Vec<_> = self.lower.iter().map(by_descriptor).collect();
        let mut options = format!("lowerdir={}", layers.join(":"));
        if rustix::process::geteuid().is_root() {
            for (key, value) in AS_ROOT {
                options.push_str(&format!(",{key}={value}"));
            }
        } else {
            options.push_str(&format!(",{AS_USER}"));
        }
        let nodev = match self.devices {
            true => MountFlags::empty(),
            false => MountFlags::NODEV,
        };
        let try_with = |place: &str, flags: MountFlags, options: String| -> io::Result<()> {
            let options = CString::new(options)?;
            Ok(mount(
                "overlay",
                place,
                "overlay",
                flags | nodev,
                Some(options.as_c_str()),
            )?)
        };
        let place = match (&self.writable, self.lower.first()) {
            (Some(Writable { upper, work }), _) => {
                let (place, work) = (by_descriptor(upper), by_descriptor(work));
                let options = format!("{options},upperdir={place},workdir={work}");
                try_with(&place, MountFlags::empty(), format!("{options},volatile"))
                    .or_else(|_| try_with(&place, MountFlags::empty(), options))?;
                place
            }
            (None, Some(top)) => {
                let place = by_descriptor(top);
                try_with(&place, MountFlags::RDONLY, options)?;
                place
            }
            (None, None) => return Err(Errno::INVAL.into()),
        };
        // The descriptor names what is below the new mount; its path, what is on top.
        let place = std::fs::read_link(&place)?;
        Ok(open_tree(
            CWD,
            &place,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(root: &Path, layers: usize) -> Overlay {
        let mut lower = Vec::new();
        for number in 0..layers {
            let path = root.join(format!("layer, with: odd\\name {number}"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join(format!("only{number}")), "").unwrap();
            std::fs::write(path.join("which"), number.to_string()).unwrap();
            lower.push(path);
        }
        for name in ["upper", "work"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        Overlay::open(&lower, Some((&root.join("upper"), &root.join("work")))).unwrap()
    }

    fn check(mount: OwnedFd, layers: usize) {
        let read = |name: String| {
            let file = rustix::fs::openat(&mount, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let mut text = vec![0; 16];
            let length = rustix::io::read(file, &mut text)?;
            text.truncate(length);
            Ok::<_, Errno>(text)
        };
        assert_eq!(read("which".into()).unwrap(), b"0");
        for number in 0..layers {
            read(format!("only{number}")).unwrap();
        }
        rustix::fs::openat(
            &mount,
            "new",
            OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RUSR,
        )
        .unwrap();
        let shown = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!shown.contains("layer"), "it shows up in our tree");
    }

    #[test]
    fn p_09_both_interfaces_give_the_same_over_many_layers() {
        for layers in [1, 130] {
            let root = tempfile::tempdir().unwrap();
            check(overlay(root.path(), layers).mount_by_layer(true).unwrap(), layers);
            assert!(root.path().join("upper/new").exists());
            let root = tempfile::tempdir().unwrap();
            check(overlay(root.path(), layers).mount_in_a_thread().unwrap(), layers);
            assert!(root.path().join("upper/new").exists());
        }
    }

    #[test]
    fn device_nodes_are_names_only_unless_they_are_wanted() {
        let root = tempfile::tempdir().unwrap();
        let with_devices = |name: &str, devices: bool| {
            std::fs::create_dir(root.path().join(name)).unwrap();
            overlay(&root.path().join(name), 1).with_devices(devices)
        };
        let opened = |mount: OwnedFd| {
            let null = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(
                &mount,
                "null",
                rustix::fs::FileType::CharacterDevice,
                Mode::RUSR,
                null,
            )
            .unwrap();
            rustix::fs::openat(&mount, "null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(drop)
        };
        assert_eq!(
            opened(with_devices("a", false).mount_by_layer(true).unwrap()),
            Err(Errno::ACCESS)
        );
        assert_eq!(
            opened(with_devices("b", false).mount_in_a_thread().unwrap()),
            Err(Errno::ACCESS)
        );
        assert_eq!(
            opened(with_devices("c", true).mount_by_layer(true).unwrap()),
            Ok(())
        );
        assert_eq!(
            opened(with_devices("d", true).mount_in_a_thread().unwrap()),
            Ok(())
        );
    }

    #[test]
    fn without_a_place_for_changes_it_is_read_only() {
        let root = tempfile::tempdir().unwrap();
        let both = overlay(root.path(), 2);
        let read_only = || Overlay {
            lower: both
                .lower
                .iter()
                .map(|layer| layer.try_clone().unwrap())
                .collect(),
            writable: None,
            devices: false,
            mapped: false,
        };
        for mounted in [
            read_only().mount_by_layer(true).unwrap(),
            read_only().mount_in_a_thread().unwrap(),
        ] {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let refused = rustix::fs::openat(&mounted, "new", flags, Mode::RUSR);
            assert_eq!(refused.unwrap_err(), Errno::ROFS);
            rustix::fs::openat(&mounted, "only1", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
    }
}
