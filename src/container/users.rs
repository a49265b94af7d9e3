//! Who a name is, according to the passwd and group files of a root file system (I-14).
//!
//! An own parser: static binaries cannot ask the C library, and an image's files are an attacker's files. Opened
//! inside the root, regular files only, bounded.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// Larger files are not read: real ones are a few kilobytes, those of large sites some megabytes.
const LIMIT: u64 = 16 << 20;

/// What a process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, each once.
    pub groups: Vec<u32>,
}

impl Identity {
    pub fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("user {0:?} is not in {1} of the root file system")]
    Unknown(String, &'static str),
    #[error("group {0:?} is not in /etc/group of the root file system")]
    UnknownGroup(String),
    /// 4294967295 means "unchanged" to the kernel: the process would stay root.
    #[error("{0:?} is no user or group id (they go up to 4294967294)")]
    OutOfRange(String),
    #[error("read {1} of the root file system")]
    Read(#[source] io::Error, &'static str),
    #[error("{0} of the root file system is not a regular file of at most 16 MiB")]
    Unfit(&'static str),
}

impl UserError {
    /// Somebody else's files may know the name.
    pub fn is_unknown(&self) -> bool {
        matches!(self, UserError::Unknown(..) | UserError::UnknownGroup(_))
    }
}

/// The two files, as far as they exist.
#[derive(Debug, Default)]
pub struct Accounts {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

impl Accounts {
    #[cfg(any(test, fuzzing))]
    pub(super) fn from_bytes(passwd: Vec<u8>, group: Vec<u8>) -> Self {
        Self { passwd, group }
    }

    pub fn read(root: BorrowedFd<'_>) -> Result<Self, UserError> {
        Ok(Self {
            passwd: read(root, "etc/passwd", "/etc/passwd")?,
            group: read(root, "etc/group", "/etc/group")?,
        })
    }

    /// Finds `user`, `uid`, `user:group` and their mixtures. The group of a number that nobody has is 0, as images
    /// expect it (I-14).
    pub fn find(&self, text: &str) -> Result<Identity, UserError> {
        self.look_up(text, |_| 0)
    }

    /// The same among the host's users, where group 0 is root's: a number that nobody has is its own group.
    pub fn find_on_host(&self, text: &str) -> Result<Identity, UserError> {
        self.look_up(text, |uid| uid)
    }

    fn look_up(&self, text: &str, group_of_nobody: fn(u32) -> u32) -> Result<Identity, UserError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) if !group.is_empty() => (user, Some(group)),
            Some((user, _)) => (user, None),
            None => (text, None),
        };
        // A name that looks like a number is looked up as a name first, as useradd allows it.
        let entry = lines(&self.passwd).find(|fields| fields.first() == Some(&user.as_bytes()));
        let (uid, primary, name) = match (entry.as_deref().and_then(account), id(user)?) {
            (Some((uid, gid)), _) => (uid, gid, Some(user.as_bytes().to_vec())),
            (None, Some(uid)) => {
                let by_id =
                    lines(&self.passwd).find(|fields| account(fields).is_some_and(|(known, _)| known == uid));
                let known = by_id.as_deref().and_then(account);
                let gid = known.map_or_else(|| group_of_nobody(uid), |(_, gid)| gid);
                (
                    uid,
                    gid,
                    by_id.and_then(|fields| fields.first().map(|name| name.to_vec())),
                )
            }
            // Every system has it, also one without files.
            (None, None) if user == "root" => (0, 0, Some(b"root".to_vec())),
            (None, None) => return Err(UserError::Unknown(user.into(), "/etc/passwd")),
        };
        if let Some(group) = group {
            let entry = lines(&self.group).find(|fields| fields.first() == Some(&group.as_bytes()));
            let gid = match (entry.and_then(|fields| number(fields.get(2)?)), id(group)?) {
                (Some(gid), _) | (None, Some(gid)) => gid,
                (None, None) if group == "root" => 0,
                (None, None) => return Err(UserError::UnknownGroup(group.into())),
            };
            // An explicit group is the whole truth: no others come along.
            return Ok(Identity {
                uid,
                gid,
                groups: vec![gid],
            });
        }
        let mut groups = vec![primary];
        if let Some(name) = name {
            for fields in lines(&self.group) {
                let members = fields.get(3).copied().unwrap_or_default();
                if members.split(|&byte| byte == b',').any(|member| member == name)
                    && let Some(gid) = fields.get(2).and_then(|field| number(field))
                    && !groups.contains(&gid)
                    && groups.len() < MAX_GROUPS
                {
                    groups.push(gid);
                }
            }
        }
        Ok(Identity {
            uid,
            gid: primary,
            groups,
        })
    }
}

/// NGROUPS_MAX
const MAX_GROUPS: usize = 65536;

fn read(root: BorrowedFd<'_>, path: &str, name: &'static str) -> Result<Vec<u8>, UserError> {
    let file = match open(root, path) {
        Ok(file) => File::from(file),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(Vec::new());
        }
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(UserError::Unfit(name)),
        Err(error) => return Err(UserError::Read(error, name)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| UserError::Read(errno.into(), name))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(UserError::Unfit(name));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| UserError::Read(error, name))?;
    match bytes.len() as u64 > LIMIT {
        true => Err(UserError::Unfit(name)),
        false => Ok(bytes),
    }
}

/// Never waits for the other end of a FIFO, never leaves the root.
fn open(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?)
}

/// Lines of at least four fields; comments and NIS marks are not entries.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty() && !matches!(line.first(), Some(b'#' | b'+' | b'-')))
        .map(|line| line.split(|&byte| byte == b':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 3)
}

/// uid and gid of a passwd line.
fn account(fields: &[&[u8]]) -> Option<(u32, u32)> {
    Some((number(fields.get(2)?)?, number(fields.get(3)?)?))
}

fn number(field: &[u8]) -> Option<u32> {
    id(std::str::from_utf8(field).ok()?).ok().flatten()
}

/// A decimal id; `None` if it is no number at all. Numbers that would wrap are errors, not names.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(UserError::OutOfRange(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn accounts() -> Accounts {
        Accounts {
            passwd: b"root:x:0:0:root:/root:/bin/sh\n# comment:x:1:1\nweb:x:33:34::/:\n+nis::::\nbad:x:abc:1\n1000:x:5:6::/:\n"
                .to_vec(),
            group: b"root:x:0:\nweb:x:34:\nlogs:x:50:other,web\nmore:x:51:web\nlogs2:x:50:web\nbroken\n".to_vec(),
        }
    }

    fn identity(uid: u32, gid: u32, groups: &[u32]) -> Identity {
        Identity {
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn i_14_names_numbers_and_groups() {
        let find = |text| accounts().find(text).unwrap();
        assert_eq!(find("web"), identity(33, 34, &[34, 50, 51]));
        assert_eq!(find("33"), identity(33, 34, &[34, 50, 51]));
        assert_eq!(find("web:logs"), identity(33, 50, &[50]));
        assert_eq!(find("web:7"), identity(33, 7, &[7]));
        assert_eq!(find("77"), identity(77, 0, &[0]));
        assert_eq!(find("77:88"), identity(77, 88, &[88]));
        assert_eq!(find("1000"), identity(5, 6, &[6]));
        assert_eq!(find("web:"), identity(33, 34, &[34, 50, 51]));
    }

    #[test]
    fn i_14_a_number_that_the_host_does_not_know_has_nothing_of_root() {
        let find = |text| accounts().find_on_host(text).unwrap();
        assert_eq!(find("77"), identity(77, 77, &[77]));
        assert_eq!(find("77:"), identity(77, 77, &[77]));
        assert_eq!(find("77:0"), identity(77, 0, &[0]));
        assert_eq!(find("33"), identity(33, 34, &[34, 50, 51]));
        assert_eq!(find("0"), identity(0, 0, &[0]));
    }

    #[test]
    fn i_14_root_needs_no_files() {
        assert_eq!(Accounts::default().find("root").unwrap(), identity(0, 0, &[0]));
        assert_eq!(Accounts::default().find("0:root").unwrap(), identity(0, 0, &[0]));
    }

    #[test]
    fn s3_uid_wrap_is_refused() {
        for text in [
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "1:4294967295",
            "99999999999999999999999",
        ] {
            assert!(
                matches!(accounts().find(text), Err(UserError::OutOfRange(_))),
                "{text}"
            );
        }
        assert!(accounts().find("-1").unwrap_err().is_unknown());
    }

    #[test]
    fn unknown_names_are_said() {
        let error = accounts().find("nobody").unwrap_err();
        assert_eq!(
            error.to_string(),
            "user \"nobody\" is not in /etc/passwd of the root file system"
        );
        let error = accounts().find("web:nogroup").unwrap_err();
        assert_eq!(
            error.to_string(),
            "group \"nogroup\" is not in /etc/group of the root file system"
        );
        assert!(accounts().find("bad").unwrap_err().is_unknown());
    }

    #[test]
    fn s3_fifo_for_passwd_neither_hangs_nor_counts() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let path = root.path().join("etc/passwd");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let root = File::open(root.path()).unwrap();
        assert!(matches!(
            Accounts::read(root.as_fd()),
            Err(UserError::Unfit("/etc/passwd"))
        ));
    }

    #[test]
    fn s2_a_link_for_passwd_stays_in_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/inside", root.path().join("etc/passwd")).unwrap();
        std::fs::write(root.path().join("inside"), "in:x:7:8::/:\n").unwrap();
        let dir = File::open(root.path()).unwrap();
        assert_eq!(Accounts::read(dir.as_fd()).unwrap().find("in").unwrap().uid, 7);
    }
}
