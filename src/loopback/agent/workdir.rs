//! The agent's work directory, and its removal.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::base::remove;

/// A directory, removed with this value if it was made for it alone.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    temporary: bool,
}

impl WorkDir {
    pub(super) fn kept(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
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
        DirBuilder::new().mode(0o700).create(&path)?;
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
        if let Err(error) = remove::tree(&self.path) {
            tracing::warn!("{} stays: {error}", self.path.display());
        }
    }
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
}
