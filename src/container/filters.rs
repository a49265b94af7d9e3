//! System call filters, compiled once for each distinct use (Z-06).

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    plan::{CapabilitySet, Seccomp},
    seccomp::{Arch, Env, Profile, Program, SeccompError, load},
};

/// The operator's replacement of the built-in default profile.
const DEFAULT_NAME: &str = "default.json";

#[derive(Debug, Default)]
pub(super) struct Filters {
    directory: Option<PathBuf>,
    /// A profile means something else with other capabilities.
    compiled: Mutex<HashMap<Key, Arc<Program>>>,
}

/// A profile by name, none for the default, and the bounding set it is for.
type Key = (Option<String>, CapabilitySet);

impl Filters {
    pub(super) fn from_directory(directory: PathBuf) -> Self {
        Self {
            directory: Some(directory),
            ..Self::default()
        }
    }

    pub(super) fn get(
        &self,
        choice: &Seccomp,
        capabilities: CapabilitySet,
    ) -> Result<Option<Arc<Program>>, SeccompError> {
        let name = match choice {
            Seccomp::Unconfined => return Ok(None),
            Seccomp::Default => None,
            Seccomp::Profile(name) => Some(name.clone()),
        };
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = compiled.get(&(name.clone(), capabilities)) {
            return Ok(Some(Arc::clone(program)));
        }
        let profile = self.profile(name.as_deref())?;
        let compile = |source| SeccompError::Compile {
            name: name.clone().unwrap_or_else(|| "default".into()),
            source,
        };
        let Some(arch) = Arch::native() else {
            // Nothing is known of this architecture's calls; the profile cannot mean anything.
            return Ok(None);
        };
        let env = Env {
            arch,
            caps: capabilities.0,
            kernel: kernel(),
        };
        let program = Arc::new(Program::compile(&profile, &env).map_err(compile)?);
        compiled.insert((name, capabilities), Arc::clone(&program));
        Ok(Some(program))
    }

    fn profile(&self, name: Option<&str>) -> Result<Profile, SeccompError> {
        match (name, &self.directory) {
            (Some(name), Some(directory)) => load(directory, name),
            (Some(name), None) => load(&PathBuf::from("/etc/podling/seccomp"), name),
            (None, Some(directory)) if directory.join(DEFAULT_NAME).exists() => load(directory, DEFAULT_NAME),
            (None, _) => Ok(Profile::docker_default()),
        }
    }
}

/// Major and minor version of the running kernel.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
