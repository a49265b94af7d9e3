//! A member's own view of shared layers: overlayfs as a detached mount, in no mount tree until the member's.
//!
//! Directories are named by descriptor (`/proc/self/fd/N`), which is short whatever the paths are, needs no
//! escaping, and cannot be exchanged under us.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
        open_tree,
    },
};

use super::tree;

/// Directories of one overlay, held open.
#[derive(Debug)]
pub(super) struct Directories {
    /// The topmost first.
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

fn by_descriptor(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

impl Directories {
    pub(super) fn open(lower: &[PathBuf], upper: &Path, work: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            tree::open(path)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        Ok(Self {
            lower: lower.iter().map(|path| open(path)).collect::<io::Result<_>>()?,
            upper: open(upper)?,
            work: open(work)?,
        })
    }

    /// Mounts them. Nothing of the upper layer is kept after the member, so nothing of it is synced either
    /// (`volatile`), where the kernel knows how.
    pub(super) fn mount(&self) -> io::Result<OwnedFd> {
        match self.mount_by_layer(true) {
            Err(Errno::INVAL) => match self.mount_by_layer(false) {
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
        fsconfig_set_string(&context, "upperdir", by_descriptor(&self.upper))?;
        fsconfig_set_string(&context, "workdir", by_descriptor(&self.work))?;
        if volatile {
            fsconfig_set_flag(&context, "volatile")?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// The old interface mounts on a place of a tree. A thread with a tree of its own has such places, and when it
    /// ends only our descriptor is left.
    fn mount_in_a_thread(&self) -> io::Result<OwnedFd> {
        std::thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                crate::sys::mount::separate_thread()?;
                mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
                self.reopened()?.mount_on_upper()
            });
            mounted
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the mounting thread was lost")))
        })
    }

    /// The same directories in the mount tree of this thread: overlayfs takes no others.
    fn reopened(&self) -> io::Result<Self> {
        let again = |directory: &OwnedFd| tree::open(&std::fs::read_link(by_descriptor(directory))?);
        Ok(Self {
            lower: self.lower.iter().map(again).collect::<io::Result<_>>()?,
            upper: again(&self.upper)?,
            work: again(&self.work)?,
        })
    }

    fn mount_on_upper(&self) -> io::Result<OwnedFd> {
        let layers: Vec<_> = self.lower.iter().map(by_descriptor).collect();
        let (upper, work) = (by_descriptor(&self.upper), by_descriptor(&self.work));
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", layers.join(":"));
        let try_with = |options: String| -> io::Result<()> {
            let options = CString::new(options)?;
            Ok(mount(
                "overlay",
                &upper,
                "overlay",
                MountFlags::empty(),
                Some(options.as_c_str()),
            )?)
        };
        try_with(format!("{options},volatile")).or_else(|_| try_with(options))?;
        // The descriptor names what is below the new mount; its path, what is on top.
        let place = std::fs::read_link(&upper)?;
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
    use rustix::fs::{Mode, OFlags};

    fn directories(root: &Path, layers: usize) -> Directories {
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
        Directories::open(&lower, &root.join("upper"), &root.join("work")).unwrap()
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
            check(
                directories(root.path(), layers).mount_by_layer(true).unwrap(),
                layers,
            );
            assert!(root.path().join("upper/new").exists());
            let root = tempfile::tempdir().unwrap();
            check(
                directories(root.path(), layers).mount_in_a_thread().unwrap(),
                layers,
            );
            assert!(root.path().join("upper/new").exists());
        }
    }
}
