//! Files that images are kept in outside of registries: in a directory, or in one archive.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use super::{SourceError, input::LayerInput};
use crate::image::{
    document::MAX_DOCUMENT,
    unpack::{Archive, ArchiveError, Budget, Compression, Kind},
};

const MAX_ARCHIVE_ENTRIES: usize = 100_000;

/// Named files.
#[derive(Debug)]
pub(super) enum Files {
    Directory(PathBuf),
    Tarball(Tarball),
}

impl Files {
    /// What sentences name.
    pub(super) fn path(&self) -> &Path {
        match self {
            Files::Directory(path) => path,
            Files::Tarball(tarball) => &tarball.path,
        }
    }

    /// A whole small file.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        match self {
            Files::Directory(path) => {
                let path = path.join(name);
                read_document(&path, open_file(&path))
            }
            Files::Tarball(tarball) => tarball.document(name),
        }
    }

    pub(super) fn layer(&self, name: &str) -> Result<LayerInput, SourceError> {
        match self {
            Files::Directory(path) => {
                let path = path.join(name);
                let file = open_file(&path).map_err(|source| SourceError::File { path, source })?;
                Ok(LayerInput::file(file, u64::MAX))
            }
            Files::Tarball(tarball) => tarball.layer(tarball.section(name)?),
        }
    }
}

/// An archive, and what lies where in it.
#[derive(Debug)]
pub(super) struct Tarball {
    pub(super) path: PathBuf,
    members: HashMap<PathBuf, Member>,
}

/// Where a file lies in an archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    offset: u64,
    pub(super) length: u64,
}

#[derive(Debug)]
enum Member {
    File(Section),
    Link(PathBuf),
}

impl Tarball {
    /// Reads the archive once to learn what lies where. Blocks.
    pub(super) fn open(path: &Path) -> Result<Tarball, SourceError> {
        let mut tarball = Tarball {
            path: path.to_owned(),
            members: HashMap::new(),
        };
        let mut file = BufReader::with_capacity(128 << 10, open_file(path).map_err(tarball.failed())?);
        let start = file.fill_buf().map_err(tarball.failed())?;
        if Compression::of(start.get(..4).unwrap_or_default()) != Compression::None {
            return Err(tarball.unusable("it is compressed; unpack it first"));
        }
        let budget = Budget {
            bytes: u64::MAX >> 1,
            ..Budget::default()
        };
        let mut archive = Archive::new(file, &budget);
        loop {
            let entry = match archive.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(tarball),
                Err(ArchiveError::Read(source)) => return Err(tarball.failed()(source)),
                Err(error) => return Err(tarball.unusable(error.to_string())),
            };
            let member = match entry.kind {
                Kind::File if entry.segments.is_none() => Member::File(Section {
                    offset: archive.offset(),
                    length: entry.size,
                }),
                // Layers that occur twice are saved once.
                Kind::Symlink => Member::Link(PathBuf::from(OsStr::from_bytes(&entry.link))),
                _ => continue,
            };
            if tarball.members.len() >= MAX_ARCHIVE_ENTRIES {
                return Err(tarball.unusable(format!("it has more than {MAX_ARCHIVE_ENTRIES} members")));
            }
            // `./index.json` and `index.json` are one name.
            let name = Path::new(OsStr::from_bytes(&entry.name));
            let name = name.components().filter(|part| *part != Component::CurDir);
            tarball.members.insert(name.collect(), member);
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(Path::new(name))
    }

    pub(super) fn section(&self, name: &str) -> Result<Section, SourceError> {
        self.find(name)
            .ok_or_else(|| self.unusable(format!("it has no {name}")))
    }

    fn find(&self, name: &str) -> Option<Section> {
        let path = Path::new(name);
        let target = match self.members.get(path)? {
            Member::File(section) => return Some(*section),
            Member::Link(target) => target,
        };
        let mut resolved = path.parent().unwrap_or(Path::new("")).to_owned();
        for component in target.components() {
            match component {
                Component::Normal(part) => resolved.push(part),
                Component::ParentDir => drop(resolved.pop()),
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        match self.members.get(&resolved)? {
            Member::File(section) => Some(*section),
            Member::Link(_) => None,
        }
    }

    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let section = self.section(name)?;
        read_document(&self.path.join(name), self.open_at(section))
    }

    pub(super) fn layer(&self, section: Section) -> Result<LayerInput, SourceError> {
        let file = self.open_at(section).map_err(self.failed())?;
        Ok(LayerInput::file(file.into_inner(), section.length))
    }

    fn open_at(&self, section: Section) -> io::Result<io::Take<File>> {
        let mut file = open_file(&self.path)?;
        file.seek(SeekFrom::Start(section.offset))?;
        Ok(file.take(section.length))
    }

    pub(super) fn unusable(&self, why: impl Into<String>) -> SourceError {
        SourceError::NotAnArchive {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    fn failed(&self) -> impl Fn(io::Error) -> SourceError + use<> {
        let path = self.path.clone();
        move |source| SourceError::File {
            path: path.clone(),
            source,
        }
    }
}

/// What could have been asked for.
pub(super) fn offered<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.take(10).map(String::as_str).collect();
    match names.is_empty() {
        true => "none with a name".to_owned(),
        false => names.join(", "),
    }
}

/// Only plain files: a pipe or device in a directory given to us must not make us wait.
fn open_file(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a plain file"))
    }
}

fn read_document(path: &Path, opened: io::Result<impl Read>) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    opened
        .and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes))
        .map_err(|source| SourceError::File {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(SourceError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}
