//! Where a pod's names come from: `hosts`, `hostname` and `resolv.conf` as members see them (N-03 to N-05).

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat},
    io::Errno,
};

use crate::{
    container::plan::{Mount, MountSource, Rootfs, Target},
    network::names::Files,
    sys::held::Held,
};

/// As named below `/etc`.
pub const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Where such a file is in a root.
pub fn place(name: &str) -> PathBuf {
    Path::new("etc").join(name)
}

/// Where members find the node's own.
const NODE: &str = "/etc";

/// A pod's files, each held by its descriptor: what members are shown is what was written.
#[derive(Debug, Clone)]
pub struct Written([Arc<OwnedFd>; 3]);

impl Written {
    pub fn new(directory: &Held, files: &Files) -> io::Result<Written> {
        let write = |name, text: &String| {
            let file = directory.write(name, Mode::from_raw_mode(0o644), text.as_bytes())?;
            Ok::<_, io::Error>(Arc::new(file))
        };
        let [hosts, hostname, resolv_conf] = FILES;
        Ok(Written([
            write(hosts, &files.hosts)?,
            write(hostname, &files.hostname)?,
            write(resolv_conf, &files.resolv_conf)?,
        ]))
    }

    pub fn mounts(&self, rootfs: &Rootfs) -> Vec<Mount> {
        let sources = self.0.iter().map(|file| MountSource::Opened(Arc::clone(file)));
        mounts(sources, rootfs, false)
    }
}

/// The mounts that show a member the node's own files. They cannot be written to.
pub fn of_node(rootfs: &Rootfs) -> Vec<Mount> {
    let sources = FILES.map(|name| MountSource::Host(Path::new(NODE).join(name)));
    mounts(sources, rootfs, true)
}

/// On the host's root only those that are there can be covered.
fn mounts(sources: impl IntoIterator<Item = MountSource>, rootfs: &Rootfs, read_only: bool) -> Vec<Mount> {
    let places = FILES.map(place).into_iter().zip(sources);
    let places = places.filter(|(target, source)| {
        let there = match source {
            MountSource::Host(path) => path.exists(),
            _ => true,
        };
        there && (!rootfs.is_host() || Path::new("/").join(target).exists())
    });
    places
        .map(|(target, source)| Mount {
            read_only,
            field: format!("/{}", target.display()),
            source,
            target: Target::Root(target),
        })
        .collect()
}

/// A place in an image that no file can be put at.
#[derive(Debug, thiserror::Error)]
#[error("cannot make room at /{} of its image: {cause}", at.display())]
pub struct InTheWay {
    at: PathBuf,
    #[source]
    cause: io::Error,
}

/// Makes room in a member's root file system: what is at these places and is no file goes, above all symbolic links
/// (N-04). Images have links to where the resolver of some distribution would write, which lead nowhere here, or to
/// a file that is to stay as it is. `root` takes the member's own writes: the image itself stays whole.
pub fn make_room(root: &OwnedFd) -> Result<(), InTheWay> {
    let failed = |at: PathBuf| {
        move |errno: Errno| InTheWay {
            at,
            cause: errno.into(),
        }
    };
    let etc = || PathBuf::from("etc");
    // Found as whoever opens the files will find it: `/etc` may be a link within the image.
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match openat2(root, "etc", flags, Mode::empty(), how) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            return unless_it_is(root.as_fd(), "etc", FileType::Directory).map_err(failed(etc()));
        }
        Err(errno) => return Err(failed(etc())(errno)),
    };
    for name in FILES {
        unless_it_is(directory.as_fd(), name, FileType::RegularFile).map_err(failed(place(name)))?;
    }
    Ok(())
}

/// Removes what is there under this name unless it is of the right kind. The name itself is meant, not where it leads.
fn unless_it_is(directory: impl AsFd, name: &str, kind: FileType) -> rustix::io::Result<()> {
    let found = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => FileType::from_raw_mode(found.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    match found {
        _ if found == kind => Ok(()),
        FileType::Directory => unlinkat(directory, name, AtFlags::REMOVEDIR),
        _ => unlinkat(directory, name, AtFlags::empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn root(of: &tempfile::TempDir) -> OwnedFd {
        fs::File::open(of.path()).unwrap().into()
    }

    #[test]
    fn n_04_links_and_oddities_give_way_to_files() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir_all(etc.join("resolv.conf")).unwrap();
        symlink("../run/nowhere", etc.join("hostname")).unwrap();
        symlink(outside.path().join("precious"), etc.join("hosts")).unwrap();
        fs::write(etc.join("passwd"), "").unwrap();
        make_room(&root(&dir)).unwrap();
        let left: Vec<_> = fs::read_dir(&etc)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["passwd"]);
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn n_04_files_stay_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        make_room(&root(&dir)).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("hosts"), "text").unwrap();
        make_room(&root(&dir)).unwrap();
        assert_eq!(fs::read_to_string(etc.join("hosts")).unwrap(), "text");
    }

    #[test]
    fn n_04_etc_may_be_a_link_and_never_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        symlink("x", outside.path().join("hosts")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        // An absolute link starts from the image's root, where there is no such directory.
        symlink(outside.path(), &etc).unwrap();
        make_room(&root(&dir)).unwrap();
        assert!(!etc.is_symlink() && outside.path().join("hosts").is_symlink());
        fs::create_dir_all(dir.path().join("usr/etc")).unwrap();
        symlink("/usr/etc", &etc).unwrap();
        symlink("nowhere", dir.path().join("usr/etc/hosts")).unwrap();
        make_room(&root(&dir)).unwrap();
        assert!(etc.is_symlink() && !dir.path().join("usr/etc/hosts").is_symlink());
    }

    #[test]
    fn a_full_directory_in_the_way_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/hosts/full")).unwrap();
        let error = make_room(&root(&dir)).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot make room at /etc/hosts of its image: "),
            "{error}"
        );
    }
}
