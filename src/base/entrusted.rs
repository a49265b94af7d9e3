//! Files that tell us what to do: settings, credentials, filters. Whoever can write one of these decides what we do,
//! and we may be root; so it has to be root's or our own, and nobody else's to write.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::fs::{Mode, OFlags};

/// Opens such a file for reading, or says what is wrong with it; the path is for the caller to name.
pub fn open(path: &Path) -> io::Result<File> {
    // A FIFO would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    check(&file.metadata()?)?;
    Ok(file)
}

/// The same of what has been opened already.
pub fn check(found: &Metadata) -> io::Result<()> {
    if !found.is_file() {
        return Err(refused("it is not a regular file".to_owned()));
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != own {
        return Err(refused(format!(
            "it belongs to user {} and may say what that user likes; it has to be root's or ours (chown)",
            found.uid()
        )));
    }
    if found.mode() & 0o022 != 0 {
        return Err(refused(format!(
            "its mode {:04o} lets others write to it; take that right away (chmod go-w)",
            found.mode() & 0o7777
        )));
    }
    Ok(())
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn s6_only_what_nobody_else_can_write_tells_us_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "x").unwrap();
        let with = |mode: u32| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            open(&path).map_err(|error| error.to_string())
        };
        for mode in [0o600, 0o644, 0o400, 0o755] {
            with(mode).unwrap();
        }
        for mode in [0o620, 0o602, 0o666, 0o664] {
            let error = with(mode).unwrap_err();
            assert!(
                error.contains("lets others write to it") && error.contains("chmod go-w"),
                "{error}"
            );
        }
        with(0o600).unwrap();
        // What a link leads to is what counts.
        symlink(&path, place.path().join("link")).unwrap();
        open(&place.path().join("link")).unwrap();
        open(place.path()).unwrap_err();
        let fifo = place.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = open(&fifo).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            let error = open(&path).unwrap_err().to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
        }
    }
}
