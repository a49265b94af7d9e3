//! The agent's work directory, and its removal.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A directory, removed with this value if it was made for it alone.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    temporary: bool,
}

impl WorkDir {
    pub(super) fn kept(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(WorkDir {
            path: fs::canonicalize(path)?,
            temporary: false,
        })
    }

    pub(super) fn temporary() -> io::Result<Self> {
        let base = fs::canonicalize(std::env::temp_dir())?;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        // Short: the domain socket's whole path has to fit into 108 bytes.
        let path = base.join(format!("podling-agent-{}", unique.get(..12).unwrap_or(&unique)));
        fs::create_dir(&path)?;
        Ok(WorkDir {
            path,
            temporary: true,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        // Something may be mounted below: a volume of the host, for one. To remove the directory would then be to
        // remove what is in the volume.
        match mounts_below(&self.path) {
            Ok(mounts) if mounts.is_empty() => {
                if let Err(error) = fs::remove_dir_all(&self.path) {
                    tracing::warn!("cannot remove {}: {error}", self.path.display());
                }
            }
            Ok(mounts) => tracing::warn!("{} stays: {} is mounted", self.path.display(), mounts.join(", ")),
            Err(error) => tracing::warn!("{} stays: cannot read the mounts: {error}", self.path.display()),
        }
    }
}

pub(super) fn mounts_below(path: &Path) -> io::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    // Our own path has none of the characters that are escaped there.
    Ok(points
        .filter(|point| Path::new(point).starts_with(path))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_goes_and_a_given_one_stays() {
        let temporary = WorkDir::temporary().unwrap();
        let path = temporary.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        assert!(path.as_os_str().len() + "/agent.sock".len() < 108);

        let given = WorkDir::kept(&path.join("given")).unwrap();
        let inner = given.path().to_owned();
        drop(given);
        assert!(inner.is_dir());
        drop(temporary);
        assert!(!path.exists());
    }

    #[test]
    fn mounts_are_found_by_whole_names() {
        assert!(!mounts_below(Path::new("/proc")).unwrap().is_empty());
        assert!(mounts_below(Path::new("/pro")).unwrap().is_empty());
    }
}
