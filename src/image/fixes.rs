//! Attributes of directories that a layer uses without describing them.
//!
//! A layer may hold `tmp/file` and no entry for `tmp`. Unpacked alone it gets a plain `tmp`, and stacked on top that
//! one would hide the mode 1777 the layer below gave it. Such images get one more layer on top that holds nothing but
//! the directories in question, with the attributes of the uppermost layer that describes them.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::CString,
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self as kernel, Mode, OFlags, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use super::{
    digest::Digest,
    disk::Disk,
    rootfs::RootfsError,
    unpack::{Privilege, copied_xattrs},
};

/// One layer of the stack, for looking into it.
struct Level {
    root: File,
    implied: HashSet<Vec<u8>>,
}

/// What a layer has under a path.
enum Found {
    Directory {
        fd: OwnedFd,
        hides_below: bool,
    },
    /// Nothing, and what is below shows or not.
    Nothing {
        hides_below: bool,
    },
    /// Something that is no directory, or a whiteout.
    Other,
}

/// The extra layer an image needs, if it needs one. Made once for each image. `layers` come from the top; the root
/// of the image is to look like that of `root_model`.
pub(super) fn layer(
    disk: &Disk,
    manifest: Digest,
    layers: &[Digest],
    root_model: &Path,
    privilege: Privilege,
) -> Result<Option<PathBuf>, RootfsError> {
    let place = disk.layout.fix(manifest);
    if !place.exists() {
        make(disk, &place, layers, root_model, privilege)?;
    }
    let inside = place.join("fs");
    Ok(inside.exists().then_some(inside))
}

fn make(
    disk: &Disk,
    place: &Path,
    layers: &[Digest],
    root_model: &Path,
    privilege: Privilege,
) -> Result<(), RootfsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RootfsError::Directory {
            step: "describe directories in",
            path,
            source,
        }
    };
    let mut levels = Vec::new();
    for diff_id in layers {
        let path = disk.layout.layer(*diff_id).join("fs");
        let implied = disk.layer(*diff_id)?.map(|record| record.implied().collect());
        levels.push(Level {
            root: File::open(&path).map_err(failed(&path))?,
            implied: implied.unwrap_or_default(),
        });
    }
    let beside =
        disk.layout
            .directory("tmp")
            .join(format!("fix-{}-{}", std::process::id(), uuid::Uuid::new_v4()));
    let made = File::open(root_model)
        .map_err(failed(root_model))
        .and_then(|model| {
            describe(&beside, &levels, &model, privilege).map_err(|e| failed(&beside)(e.into()))
        });
    let moved = made.and_then(|()| match fs::rename(&beside, place) {
        Err(_) if place.exists() => Ok(()),
        other => other.map_err(failed(place)),
    });
    // Somebody else was faster, or it failed.
    let _ = fs::remove_dir_all(&beside);
    moved
}

fn describe(beside: &Path, levels: &[Level], root_model: &File, privilege: Privilege) -> Result<(), Errno> {
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    private.create(beside).map_err(io)?;
    // With its parents, since those would be hidden as well. Parents sort before children.
    let mut paths = BTreeSet::new();
    for path in levels.iter().flat_map(|level| &level.implied) {
        if needs_description(levels, path, privilege)? {
            for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                paths.insert(path.get(..at).unwrap_or_default().to_vec());
            }
            paths.insert(path.clone());
        }
    }
    let Some(top) = levels.first() else {
        return Ok(());
    };
    let root_is_right = kernel::fstat(&top.root)?.st_ino == kernel::fstat(root_model)?.st_ino;
    if paths.is_empty() && root_is_right {
        return Ok(());
    }
    let inside = beside.join("fs");
    private.create(&inside).map_err(io)?;
    let root = File::open(&inside).map_err(io)?;
    let mut made = Vec::new();
    for path in &paths {
        if let Some(model) = model(levels, path, privilege)? {
            let name = CString::new(path.as_slice()).map_err(|_| Errno::INVAL)?;
            kernel::mkdirat(&root, &*name, Mode::RWXU)?;
            made.push((name, model));
        }
    }
    // Children first: making a child changes its parent's times.
    for (name, model) in made.iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = kernel::openat(&root, &**name, flags, Mode::empty())?;
        copy_attributes(model.as_fd(), directory.as_fd(), privilege)?;
    }
    copy_attributes(root_model.as_fd(), root.as_fd(), privilege)
}

/// The uppermost layer with the directory does not describe it, and one below that shows through does.
fn needs_description(levels: &[Level], path: &[u8], privilege: Privilege) -> Result<bool, Errno> {
    let mut uppermost = true;
    for level in levels {
        match look(level, path, privilege)? {
            Found::Other => return Ok(false),
            Found::Nothing { hides_below: true } => return Ok(false),
            Found::Nothing { hides_below: false } => {}
            Found::Directory { hides_below, .. } => {
                let described = !level.implied.contains(path);
                if described || hides_below {
                    return Ok(described && !uppermost);
                }
                uppermost = false;
            }
        }
    }
    Ok(false)
}

/// The directory whose attributes show: the uppermost described one, else the uppermost.
fn model(levels: &[Level], path: &[u8], privilege: Privilege) -> Result<Option<OwnedFd>, Errno> {
    let mut uppermost = None;
    for level in levels {
        match look(level, path, privilege)? {
            Found::Other | Found::Nothing { hides_below: true } => break,
            Found::Nothing { hides_below: false } => {}
            Found::Directory { fd, .. } if !level.implied.contains(path) => return Ok(Some(fd)),
            Found::Directory { fd, hides_below } => {
                uppermost.get_or_insert(fd);
                if hides_below {
                    break;
                }
            }
        }
    }
    Ok(uppermost)
}

/// Walks down a path without following links: links of one layer are not what the stack shows.
fn look(level: &Level, path: &[u8], privilege: Privilege) -> Result<Found, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here: OwnedFd = kernel::openat(&level.root, c".", flags, Mode::empty())?;
    let mut hides_below = false;
    for component in path.split(|byte| *byte == b'/') {
        let name = CString::new(component).map_err(|_| Errno::INVAL)?;
        here = match kernel::openat(&here, &*name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(Found::Nothing { hides_below }),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Found::Other),
            Err(error) => return Err(error),
        };
        let mut mark = [0u8; 4];
        hides_below |= kernel::fgetxattr(&here, privilege.opaque_attribute(), &mut mark[..]).is_ok();
    }
    Ok(Found::Directory {
        fd: here,
        hides_below,
    })
}

fn copy_attributes(
    from: std::os::fd::BorrowedFd<'_>,
    to: std::os::fd::BorrowedFd<'_>,
    privilege: Privilege,
) -> Result<(), Errno> {
    let stat = kernel::fstat(from)?;
    if privilege == Privilege::Root {
        kernel::fchown(
            to,
            Some(kernel::Uid::from_raw(stat.st_uid)),
            Some(kernel::Gid::from_raw(stat.st_gid)),
        )?;
    }
    kernel::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (name, value) in copied_xattrs(from, privilege)? {
        kernel::fsetxattr(to, &*name, &value, XattrFlags::empty())?;
    }
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    kernel::futimens(
        to,
        &Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        },
    )
}
