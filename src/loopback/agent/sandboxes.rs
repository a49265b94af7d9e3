//! What ended executors leave for people to look at: the last few sandboxes, not all of them.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use crate::base::remove;

/// So many sandboxes of ended executors an agent keeps.
const KEPT: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    ended: VecDeque<PathBuf>,
}

impl Sandboxes {
    /// Keeps this one, and lets go of the oldest if there are too many now.
    pub(super) fn ended(&mut self, sandbox: PathBuf) {
        self.ended.push_back(sandbox);
        if self.ended.len() > KEPT
            && let Some(oldest) = self.ended.pop_front()
        {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = let_go(&oldest) {
                    tracing::warn!("sandbox {} stays: {error}", oldest.display());
                }
            });
        }
    }
}

/// Removes `…/executors/<executor>/runs/<container>`, and what is above it if that was the executor's last run.
fn let_go(sandbox: &Path) -> io::Result<()> {
    remove::tree(sandbox)?;
    let Some(runs) = sandbox.parent() else {
        return Ok(());
    };
    let latest = runs.join("latest");
    if fs::read_link(&latest).is_ok_and(|name| Some(name.as_os_str()) == sandbox.file_name()) {
        fs::remove_file(&latest)?;
    }
    // Fails as long as there are other runs.
    if fs::remove_dir(runs).is_ok()
        && let Some(executor) = runs.parent()
    {
        fs::remove_dir(executor)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn the_last_few_stay() {
        let place = tempfile::tempdir().unwrap();
        let runs = place.path().join("executors/e/runs");
        let run = |number: usize| runs.join(number.to_string());
        let mut sandboxes = Sandboxes::default();
        for number in 0..KEPT + 3 {
            fs::create_dir_all(run(number).join("tasks")).unwrap();
            let _ = fs::remove_file(runs.join("latest"));
            symlink(number.to_string(), runs.join("latest")).unwrap();
            sandboxes.ended(run(number));
        }
        while run(2).exists() {
            tokio::task::yield_now().await;
        }
        assert!((3..KEPT + 3).all(|number| run(number).is_dir()) && runs.join("latest").exists());
    }

    #[test]
    fn an_executors_last_run_takes_its_directory_along() {
        let place = tempfile::tempdir().unwrap();
        let executor = place.path().join("executors/e");
        fs::create_dir_all(executor.join("runs/a")).unwrap();
        fs::create_dir_all(executor.join("runs/b")).unwrap();
        symlink("b", executor.join("runs/latest")).unwrap();
        let_go(&executor.join("runs/a")).unwrap();
        assert!(executor.join("runs/latest").is_dir());
        let_go(&executor.join("runs/b")).unwrap();
        assert!(!executor.exists() && place.path().join("executors").is_dir());
    }
}
