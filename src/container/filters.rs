//! System call filters, compiled once for each distinct use (Z-06).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    plan::{CapabilitySet, Plan, Seccomp},
    seccomp::{Arch, Env, Profile, Program, SeccompError, load},
};

/// The operator's replacement of the built-in default profile.
const DEFAULT_NAME: &str = "default.json";

/// Where profiles are when nobody has said where.
const NOWHERE: &str = "/etc/podling/seccomp";

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
        let profile = profile(self.directory.as_deref(), name.as_deref())?;
        let compile = |source| SeccompError::Compile {
            name: name.clone().unwrap_or_else(|| "default".into()),
            source,
        };
        let Some(arch) = Arch::native() else {
            // Nothing is known of this architecture's calls; the profile cannot mean anything.
            return Ok(None);
        };
        let env = env(arch, capabilities);
        let program = Arc::new(Program::compile(&profile, &env).map_err(compile)?);
        compiled.insert((name, capabilities), Arc::clone(&program));
        Ok(Some(program))
    }
}

/// A member's profile and what it is compiled for, for those who want it written down; nothing for the unconfined.
pub fn profile_of(plan: &Plan, directory: &Path) -> Result<Option<(Profile, Env)>, SeccompError> {
    let name = match &plan.seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default => None,
        Seccomp::Profile(name) => Some(name.as_str()),
    };
    let profile = profile(Some(directory), name)?;
    Ok(Arch::native().map(|arch| (profile, env(arch, plan.capabilities.bounding))))
}

fn profile(directory: Option<&Path>, name: Option<&str>) -> Result<Profile, SeccompError> {
    match (name, directory) {
        (Some(name), directory) => load(directory.unwrap_or(Path::new(NOWHERE)), name),
        (None, Some(directory)) if directory.join(DEFAULT_NAME).exists() => load(directory, DEFAULT_NAME),
        (None, _) => Ok(Profile::docker_default()),
    }
}

fn env(arch: Arch, capabilities: CapabilitySet) -> Env {
    Env {
        arch,
        caps: capabilities.0,
        kernel: kernel(),
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
