//! Applies archive entries to a directory, in overlayfs's form.
//!
//! A layer is unpacked alone, not on top of the layers below it, so that layers can be unpacked in parallel and shared
//! by every image that has them. Everything it says about lower layers is therefore kept as overlayfs says it: a
//! removed name is a 0:0 character device, a directory that hides what is below carries the opaque attribute.
//!
//! No path is ever used outside the kernel's own in-root resolution: a parent directory is opened with
//! `RESOLVE_IN_ROOT`, and the last component is used relative to that descriptor and never followed.

mod attributes;
mod directories;
mod names;

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{self as kernel, AtFlags, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};

pub(in crate::image) use self::attributes::copied_xattrs;
pub(super) use self::names::printable;
use self::{
    attributes::{
        finish_directory, group, ignore_unsupported, kept_xattrs, node_attributes, own_ids, owner, times,
    },
    directories::{make_directory, make_opaque, open_directory, resolve},
    names::{c_name, clean, join, path_of},
};
use super::{
    UnpackError, UnpackOptions,
    archive::{Archive, Entry, Kind, Segment, Timestamp},
    budget::{Budget, OverBudget},
    spill::{DirectoryRecord, Spill},
    sums::{Sum, SumWriter},
    tree,
};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// AUFS's own bookkeeping, which some builders left in layers. It has no meaning for anyone else.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// What to do with device nodes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicePolicy {
    /// Leave them out: a container's devices come from its own `/dev`.
    #[default]
    Drop,
    /// Make them, which needs root.
    Keep,
    /// Refuse the layer.
    Refuse,
}

/// With what rights files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Owners, devices and trusted attributes as the layer has them.
    Root,
    /// Everything belongs to us; overlayfs is mounted with `userxattr`.
    User,
}

impl Privilege {
    pub fn current() -> Privilege {
        if rustix::process::geteuid().is_root() {
            Privilege::Root
        } else {
            Privilege::User
        }
    }

    pub fn opaque_attribute(self) -> &'static CStr {
        match self {
            Privilege::Root => c"trusted.overlay.opaque",
            Privilege::User => c"user.overlay.opaque",
        }
    }
}

/// Why an entry cannot be part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its name is empty")]
    EmptyName,
    #[error("its name goes up with \"..\"")]
    ParentTraversal,
    #[error("its link target goes up with \"..\"")]
    LinkTraversal,
    #[error("a file cannot take the place of the layer's root")]
    Root,
    #[error("a parent of it is not a directory")]
    ParentNotDirectory,
    #[error("it is a whiteout that names no file")]
    WhiteoutName,
    #[error("it lies below a whiteout")]
    BelowWhiteout,
    #[error("it is a hard link to something that is not in this layer")]
    LinkTargetMissing,
    #[error("it is a hard link to a directory or a whiteout")]
    LinkTargetKind,
    #[error("it is a device, and devices in images are not allowed here")]
    Device,
    #[error("it is the device 0:0, which is overlayfs's mark for a removed file")]
    WhiteoutDevice,
    #[error("it is a link without a target")]
    EmptyLink,
}

/// What was learned about the layer besides its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub entries: u64,
    pub bytes: u64,
    /// Directories that were needed but never described. Lower layers may know what they look like.
    pub implied: BTreeSet<Vec<u8>>,
    /// The layer hides everything below it.
    pub opaque_root: bool,
    /// The layer has an entry for its root.
    pub root_described: bool,
    pub dropped_devices: u64,
    /// How many files there are in the end, hard links counted once; unknown if whole directories were replaced.
    pub files: Option<u64>,
}

/// The inside of one layer while it is being unpacked.
#[derive(Debug)]
pub struct Applier<'a> {
    root: BorrowedFd<'a>,
    directories: Spill<'a>,
    /// The parent used last: archives are in tree order, so the next entry most likely has the same.
    cached: Option<(Vec<u8>, OwnedFd)>,
    budget: &'a Budget,
    devices: DevicePolicy,
    privilege: Privilege,
    /// Who owns what this thread makes.
    own: (u32, u32),
    /// The thread's umask is 0, so modes given at creation are final.
    exact_modes: bool,
    sums: Option<SumWriter>,
    applied: Applied,
}

type Step<T> = Result<T, UnpackError>;

impl<'a> Applier<'a> {
    /// `root` is the empty directory that becomes the layer; `scratch` is outside it and takes nameless files.
    pub fn new(
        root: BorrowedFd<'a>,
        scratch: BorrowedFd<'a>,
        sums: Option<File>,
        options: &'a UnpackOptions,
    ) -> Applier<'a> {
        Applier {
            root,
            directories: Spill::new(scratch),
            cached: None,
            budget: &options.budget,
            devices: options.devices,
            privilege: options.privilege,
            own: own_ids(),
            exact_modes: options.exact_modes,
            sums: sums.map(SumWriter::new),
            applied: Applied {
                files: Some(0),
                ..Applied::default()
            },
        }
    }

    /// Applies one entry, reading its data from the archive.
    pub fn apply<R: io::BufRead>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Step<()> {
        self.applied.entries += 1;
        if self.applied.entries > self.budget.entries {
            return Err(OverBudget::Entries(self.budget.entries).into());
        }
        self.applied.bytes = self.applied.bytes.saturating_add(entry.size);
        if self.applied.bytes > self.budget.bytes {
            return Err(OverBudget::Bytes(self.budget.bytes).into());
        }
        let path = clean(&entry.name).map_err(|refusal| refuse(entry, refusal))?;
        let Some(name) = path.last().copied() else {
            return self.root_entry(entry);
        };
        let parents = path.get(..path.len() - 1).unwrap_or_default();
        if let Some(odd) = parents.iter().find(|part| part.starts_with(WHITEOUT_PREFIX)) {
            return match odd.starts_with(AUFS_PREFIX) {
                true => Ok(()),
                false => Err(refuse(entry, Refusal::BelowWhiteout)),
            };
        }
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(entry, parents, name);
        }
        self.place(entry, parents, name, archive)
    }

    /// Sets the attributes of directories. Nothing may be applied afterwards.
    pub fn finish(self) -> Step<Applied> {
        let Applier {
            root,
            directories,
            privilege,
            applied,
            sums,
            ..
        } = self;
        sums.map_or(Ok(()), SumWriter::finish)
            .map_err(|error| UnpackError::io("note the checksums of files", b"", error))?;
        // The same layer is to be the same tree wherever it is unpacked, so what nobody described has a fixed time.
        let undescribed = (!applied.root_described).then_some(&b"."[..]);
        for path in applied.implied.iter().map(Vec::as_slice).chain(undescribed) {
            if let Ok(directory) = resolve(root, path) {
                kernel::futimens(&directory, &times(Timestamp::default()))
                    .map_err(|error| UnpackError::io("set the time of the directory", path, error))?;
            }
        }
        directories
            .replay(|record| finish_directory(root, privilege, &record))
            .map_err(|error| UnpackError::io("set the attributes of directories", b"", error))?;
        Ok(applied)
    }

    fn root_entry(&mut self, entry: &Entry) -> Step<()> {
        if entry.kind != Kind::Directory {
            return Err(refuse(entry, Refusal::Root));
        }
        let root = self.root;
        self.applied.root_described = true;
        self.record_directory(entry, Vec::new(), root)
    }

    fn whiteout(&mut self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> Step<()> {
        if name == OPAQUE_MARKER {
            if parents.is_empty() {
                self.applied.opaque_root = true;
                return Ok(());
            }
            let privilege = self.privilege;
            let parent = self.parent(entry, parents)?;
            return make_opaque(parent, privilege)
                .map_err(|e| UnpackError::io("mark as opaque", &entry.name, e));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT_PREFIX).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(entry, Refusal::WhiteoutName));
        }
        let hidden = c_name(entry, hidden)?;
        let privilege = self.privilege;
        let parent = self.parent(entry, parents)?;
        let made = kernel::mknodat(parent, &*hidden, FileType::CharacterDevice, Mode::empty(), 0);
        match made {
            Ok(()) => Ok(()),
            // A whiteout is about the layers below: what this layer itself has under the name stays, and a directory
            // of its own hides the one below. Files and links do that by being there.
            Err(Errno::EXIST) => match open_directory(parent, &hidden) {
                Ok(directory) => make_opaque(directory.as_fd(), privilege),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
        .map_err(|error| UnpackError::io("make the whiteout", &entry.name, error))
    }

    fn place<R: io::BufRead>(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &[u8],
        archive: &mut Archive<R>,
    ) -> Step<()> {
        let name = c_name(entry, name)?;
        match entry.kind {
            Kind::Directory => self.directory(entry, parents, &name),
            Kind::File => self.file(entry, parents, &name, archive),
            Kind::HardLink => self.hard_link(entry, parents, &name),
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(refuse(entry, Refusal::EmptyLink));
                }
                let target = c_name(entry, &entry.link)?;
                self.node(entry, parents, &name, |parent, name| {
                    kernel::symlinkat(&*target, parent, name)
                })
            }
            Kind::Fifo => self.node(entry, parents, &name, |parent, name| {
                kernel::mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            }),
            Kind::CharDevice { major: 0, minor: 0 } => Err(refuse(entry, Refusal::WhiteoutDevice)),
            Kind::CharDevice { major, minor } => {
                self.device(entry, parents, &name, FileType::CharacterDevice, major, minor)
            }
            Kind::BlockDevice { major, minor } => {
                self.device(entry, parents, &name, FileType::BlockDevice, major, minor)
            }
        }
    }

    fn device(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &CStr,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Step<()> {
        match (self.devices, self.privilege) {
            (DevicePolicy::Refuse, _) => Err(refuse(entry, Refusal::Device)),
            (DevicePolicy::Drop, _) | (DevicePolicy::Keep, Privilege::User) => {
                // The name is in the layer, so what a lower layer has under it must not show.
                self.applied.dropped_devices += 1;
                self.node_inner(entry, parents, name, |parent, name| {
                    kernel::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                })
                .map(|_| ())
            }
            (DevicePolicy::Keep, Privilege::Root) => self.node(entry, parents, name, |parent, name| {
                let device = kernel::makedev(major, minor);
                kernel::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
            }),
        }
    }

    fn directory(&mut self, entry: &Entry, parents: &[&[u8]], name: &CStr) -> Step<()> {
        let path = join(parents, name);
        let privilege = self.privilege;
        let parent = self.parent(entry, parents)?;
        let made = make_directory(parent, name, privilege);
        let directory = match made {
            Ok(directory) => directory,
            Err(Errno::NOTDIR | Errno::LOOP | Errno::EXIST) => {
                // Something else stands here; the later entry wins.
                self.clear(parents, name)
                    .and_then(|parent| make_directory(parent, name, privilege))
                    .map_err(|error| UnpackError::io("make the directory", &entry.name, error))?
            }
            Err(error) => return Err(UnpackError::io("make the directory", &entry.name, error)),
        };
        self.applied.implied.remove(&path);
        self.record_directory(entry, path, directory.as_fd())
    }

    fn record_directory(&mut self, entry: &Entry, path: Vec<u8>, directory: BorrowedFd<'_>) -> Step<()> {
        let failed =
            |error: io::Error| UnpackError::io("note the attributes of the directory", &entry.name, error);
        let inode = kernel::fstat(directory)
            .map_err(|error| failed(error.into()))?
            .st_ino;
        self.directories
            .push(&DirectoryRecord {
                path,
                inode,
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                mtime: entry.mtime,
                xattrs: entry.xattrs.clone(),
            })
            .map_err(failed)
    }

    fn file<R: io::BufRead>(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &CStr,
        archive: &mut Archive<R>,
    ) -> Step<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let create = |parent: BorrowedFd<'_>| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            kernel::openat(parent, name, flags, mode)
        };
        let parent = self.parent(entry, parents)?;
        let file = match create(parent) {
            Err(Errno::EXIST) => self.clear(parents, name).and_then(create),
            other => other,
        }
        .map_err(|error| UnpackError::io("create the file", &entry.name, error))?;
        let sum = write_data(entry, file.as_fd(), archive, self.sums.is_some())?;
        self.file_attributes(entry, file.as_fd())
            .map_err(|error| UnpackError::io("set the attributes of the file", &entry.name, error))?;
        self.applied.files = self.applied.files.map(|files| files + 1);
        if let Some(sums) = &mut self.sums {
            sums.push(file.as_fd(), sum)
                .map_err(|error| UnpackError::io("note the checksum of the file", &entry.name, error))?;
        }
        Ok(())
    }

    /// Owner first, since changing it clears set-id bits and capabilities; times last.
    fn file_attributes(&self, entry: &Entry, file: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.privilege == Privilege::Root && (entry.uid, entry.gid) != self.own {
            kernel::fchown(file, owner(entry.uid), group(entry.gid))?;
        }
        if entry.mode & 0o7000 != 0 || !self.exact_modes {
            kernel::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        }
        for (name, value) in kept_xattrs(&entry.xattrs, self.privilege) {
            ignore_unsupported(
                kernel::fsetxattr(file, &*name, value, XattrFlags::empty()),
                self.privilege,
            )?;
        }
        kernel::futimens(file, &times(entry.mtime))
    }

    fn hard_link(&mut self, entry: &Entry, parents: &[&[u8]], name: &CStr) -> Step<()> {
        if entry.link.is_empty() {
            return Err(refuse(entry, Refusal::EmptyLink));
        }
        let target = clean(&entry.link).map_err(|refusal| match refusal {
            Refusal::ParentTraversal => refuse(entry, Refusal::LinkTraversal),
            _ => refuse(entry, Refusal::LinkTargetKind),
        })?;
        let (Some(target_name), target_parents) =
            (target.last(), target.get(..target.len().saturating_sub(1)))
        else {
            return Err(refuse(entry, Refusal::LinkTargetKind));
        };
        let target_name = c_name(entry, target_name)?;
        let missing = || refuse(entry, Refusal::LinkTargetMissing);
        let target_parent =
            resolve(self.root, &path_of(target_parents.unwrap_or_default())).map_err(|_| missing())?;
        let source = kernel::statat(&target_parent, &*target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| missing())?;
        let kind = FileType::from_raw_mode(source.st_mode);
        if kind == FileType::Directory || (kind == FileType::CharacterDevice && source.st_rdev == 0) {
            return Err(refuse(entry, Refusal::LinkTargetKind));
        }
        let link = |parent: BorrowedFd<'_>| {
            kernel::linkat(&target_parent, &*target_name, parent, name, AtFlags::empty())
        };
        let parent = self.parent(entry, parents)?;
        match link(parent) {
            Err(Errno::EXIST) => {
                let there = kernel::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
                // A link to itself, or one said twice, is there already.
                if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino)) {
                    return Ok(());
                }
                self.clear(parents, name).and_then(link)
            }
            other => other,
        }
        .map_err(|error| match error {
            Errno::NOENT => missing(),
            error => UnpackError::io("make the hard link", &entry.name, error),
        })
    }

    /// Makes something that is neither file nor directory and sets its attributes through its parent.
    fn node(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &CStr,
        make: impl Fn(BorrowedFd<'_>, &CStr) -> Result<(), Errno>,
    ) -> Step<()> {
        let privilege = self.privilege;
        let parent = self.node_inner(entry, parents, name, make)?;
        node_attributes(entry, parent, name, privilege)
            .map_err(|error| UnpackError::io("set the attributes", &entry.name, error))
    }

    fn node_inner(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &CStr,
        make: impl Fn(BorrowedFd<'_>, &CStr) -> Result<(), Errno>,
    ) -> Step<BorrowedFd<'_>> {
        let failed = |error| UnpackError::io("make the node", &entry.name, error);
        let parent = self.parent(entry, parents)?;
        match make(parent, name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let parent = self.clear(parents, name).map_err(failed)?;
                make(parent, name).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        self.parent(entry, parents)
    }

    /// Removes what stands under a name, so that a later entry can take its place, and gives the parent back.
    fn clear(&mut self, parents: &[&[u8]], name: &CStr) -> Result<BorrowedFd<'_>, Errno> {
        // What was removed may have been on the way to the cached parent.
        self.cached = None;
        let path = path_of(parents);
        let parent = resolve(self.root, &path)?;
        let stat = kernel::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.applied.files = None,
            FileType::RegularFile if stat.st_nlink == 1 => {
                self.applied.files = self.applied.files.map(|files| files.saturating_sub(1));
            }
            _ => {}
        }
        tree::remove_entry(parent.as_fd(), name, self.root)?;
        let gone = join(parents, name);
        self.forget_implied(&gone);
        Ok(self.cached.insert((path, parent)).1.as_fd())
    }

    /// Forgets a removed path and everything below it.
    fn forget_implied(&mut self, gone: &[u8]) {
        self.applied.implied.remove(gone);
        // Everything below sorts between "gone/" and "gone0", '0' being the byte after '/'.
        let (first, end) = ([gone, b"/"].concat(), [gone, b"0"].concat());
        let below: Vec<Vec<u8>> = self.applied.implied.range(first..end).cloned().collect();
        for path in below {
            self.applied.implied.remove(&path);
        }
    }

    /// Opens the directory an entry goes into, making what is missing.
    fn parent(&mut self, entry: &Entry, parents: &[&[u8]]) -> Step<BorrowedFd<'_>> {
        if parents.is_empty() {
            return Ok(self.root);
        }
        let path = path_of(parents);
        if self.cached.as_ref().is_none_or(|(cached, _)| *cached != path) {
            let parent = match resolve(self.root, &path) {
                Ok(parent) => parent,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(entry, parents)?,
                Err(error) => return Err(UnpackError::io("open the parent directory", &entry.name, error)),
            };
            self.cached = Some((path, parent));
        }
        match &self.cached {
            Some((_, parent)) => Ok(parent.as_fd()),
            None => Ok(self.root),
        }
    }

    /// Layers may leave out the entries of parent directories.
    fn make_parents(&mut self, entry: &Entry, parents: &[&[u8]]) -> Step<OwnedFd> {
        let failed = |error| UnpackError::io("make the parent directory", &entry.name, error);
        let mut above = resolve(self.root, c".").map_err(failed)?;
        for depth in 1..=parents.len() {
            let so_far = parents.get(..depth).unwrap_or_default();
            let here = match resolve(self.root, &path_of(so_far)) {
                Ok(here) => here,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let name = c_name(entry, so_far.last().copied().unwrap_or_default())?;
                    let made =
                        make_directory(above.as_fd(), &name, self.privilege).map_err(
                            |error| match error {
                                Errno::NOTDIR | Errno::LOOP | Errno::EXIST => {
                                    refuse(entry, Refusal::ParentNotDirectory)
                                }
                                error => failed(error),
                            },
                        )?;
                    if self.applied.implied.len() >= self.budget.implied_directories {
                        return Err(OverBudget::ImpliedDirectories(self.budget.implied_directories).into());
                    }
                    kernel::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed)?;
                    self.applied.implied.insert(so_far.join(&b'/'));
                    made
                }
                Err(error) => return Err(failed(error)),
            };
            above = here;
        }
        Ok(above)
    }
}

fn refuse(entry: &Entry, refusal: Refusal) -> UnpackError {
    UnpackError::Entry {
        name: printable(&entry.name),
        refusal,
    }
}

/// Writes the data of a file and gives its checksum, of the holes too.
fn write_data<R: io::BufRead>(
    entry: &Entry,
    file: BorrowedFd<'_>,
    archive: &mut Archive<R>,
    with_sum: bool,
) -> Step<Sum> {
    let failed = |error: Errno| UnpackError::io("write the file", &entry.name, error);
    let mut sum = Sum::default();
    let whole = [Segment {
        offset: 0,
        length: entry.size,
    }];
    let segments = entry.segments.as_deref().unwrap_or(&whole);
    let mut data = archive.data();
    let mut end = 0;
    for segment in segments {
        let (mut offset, mut left) = (segment.offset, segment.length);
        if with_sum {
            sum.hole(offset - end);
        }
        while left > 0 {
            let run = data.run()?;
            let run = run.get(..left.min(run.len() as u64) as usize).unwrap_or(run);
            if run.is_empty() {
                break;
            }
            let written = match rustix::io::pwrite(file, run, offset) {
                Ok(0) => return Err(failed(Errno::NOSPC)),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(error)),
            };
            if with_sum {
                sum.update(run.get(..written).unwrap_or_default());
            }
            data.consume(written);
            offset += written as u64;
            left -= written as u64;
        }
        end = offset;
    }
    if entry.segments.is_some() {
        kernel::ftruncate(file, entry.size).map_err(failed)?;
        if with_sum {
            sum.hole(entry.size - end);
        }
    }
    Ok(sum)
}
