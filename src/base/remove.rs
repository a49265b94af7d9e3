//! Removing a tree in which somebody could do what they liked: however deep, closed to its own user, full of links.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat},
    io::Errno,
};

/// How a directory is opened to be looked into: itself, and no link in its place.
pub const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes a directory with everything in it, or nothing if something is mounted below: to remove that would be to
/// remove what is in the volume.
pub fn tree(path: &Path) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    if let Some(mounted) = mounts_below(&path)?.first() {
        return Err(io::Error::other(format!("{} is mounted", mounted.display())));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let parent = rustix::fs::open(parent, DIRECTORY, Mode::empty())?;
    if !rustix::process::geteuid().is_root() {
        open_up(&parent, name)?;
    }
    empty(&openat(&parent, name, DIRECTORY, Mode::empty())?)?;
    Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}

/// Where something is mounted, at a place or below it.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let points = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points
        .map(unescape)
        .filter(|point| point.starts_with(path))
        .collect())
}

/// Blanks and the like are written as `\ooo` there.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(out).into()
}

/// Empties a directory however deep it is: a directory that is not empty moves up to the top and waits for its turn,
/// so that we never hold more than two open. Neither links nor mounts are followed: entering a mounted directory
/// would show another device, and moving one fails.
pub fn empty(top: &OwnedFd) -> io::Result<()> {
    let device = rustix::fs::fstat(top)?.st_dev;
    let root = rustix::process::geteuid().is_root();
    let mut graves = 0u64;
    let mut waiting: VecDeque<OsString> = VecDeque::new();
    clear(top, top, &mut graves, &mut waiting, root)?;
    while let Some(name) = waiting.pop_front() {
        let inner = openat(top, &name, DIRECTORY, Mode::empty())?;
        if rustix::fs::fstat(&inner)?.st_dev != device {
            return Err(io::Error::other("another file system is mounted inside"));
        }
        clear(top, &inner, &mut graves, &mut waiting, root)?;
        drop(inner);
        unlinkat(top, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Removes the files of one directory; its directories go to, or stay at, the top.
fn clear(
    top: &OwnedFd,
    directory: &OwnedFd,
    graves: &mut u64,
    waiting: &mut VecDeque<OsString>,
    root: bool,
) -> io::Result<()> {
    let names: Vec<(OsString, FileType)> = Dir::read_from(directory)?
        .map(|entry| {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            Ok((name, entry.file_type()))
        })
        .collect::<io::Result<_>>()?;
    for (name, kind) in names {
        if name == "." || name == ".." {
            continue;
        }
        if !is_directory(directory, &name, kind)? {
            gone(unlinkat(directory, &name, AtFlags::empty()))?;
            continue;
        }
        match unlinkat(directory, &name, AtFlags::REMOVEDIR) {
            // What was in it may end, and remove it, meanwhile.
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        if !root {
            open_up(directory, &name)?;
        }
        waiting.push_back(match std::ptr::eq(top, directory) {
            true => name,
            false => bury(top, directory, &name, graves)?,
        });
    }
    Ok(())
}

fn is_directory(parent: &OwnedFd, name: &OsStr, kind: FileType) -> io::Result<bool> {
    Ok(match kind {
        FileType::Unknown => {
            let stat = statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        }
        kind => kind == FileType::Directory,
    })
}

/// Moves a directory to the top under a name that is free.
fn bury(top: &OwnedFd, from: &OwnedFd, name: &OsStr, graves: &mut u64) -> io::Result<OsString> {
    loop {
        let grave = OsString::from(format!(".podling-{graves}"));
        *graves += 1;
        match rustix::fs::renameat_with(from, name, top, &grave, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(grave),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Somebody else may have removed it meanwhile.
fn gone(removed: Result<(), Errno>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A directory may be closed to its own user, whom we are; root need not care.
fn open_up(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = openat(parent, name, flags, Mode::empty())?;
    // What only names a place cannot be changed but through its name here.
    rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), Mode::RWXU)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn trees_go_deeper_than_paths_and_descriptors_and_no_link_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let (path, outside) = (home.path().join("tree"), home.path().join("outside"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, path.join("link")).unwrap();
        let mut at = rustix::fs::open(&path, DIRECTORY, Mode::empty()).unwrap();
        // More than a process may hold open, and longer than a path may be.
        for _ in 0..3000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        tree(&path).unwrap();
        assert!(!path.exists() && outside.join("kept").exists());
    }

    #[test]
    fn directories_closed_to_their_own_user_go() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tree");
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        fs::write(path.join("a/b/c/file"), "x").unwrap();
        for closed in ["a/b/c", "a/b", "a", ""] {
            fs::set_permissions(path.join(closed), fs::Permissions::from_mode(0o0)).unwrap();
        }
        let parent = rustix::fs::open(home.path(), DIRECTORY, Mode::empty()).unwrap();
        open_up(&parent, OsStr::new("tree")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        tree(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn mounts_are_found_by_whole_names() {
        assert!(!mounts_below(Path::new("/proc")).unwrap().is_empty());
        assert!(mounts_below(Path::new("/pro")).unwrap().is_empty());
        assert_eq!(unescape(b"/a\\040b\\"), Path::new("/a b\\"));
    }
}
