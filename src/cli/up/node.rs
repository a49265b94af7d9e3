//! What executors are told of this machine, and what is left on it when the last has gone.

use std::{ffi::OsString, path::Path};

use crate::{
    cli::Failure,
    container::janitor,
    executor::config::{self, Config, Effective},
    image, network,
};

/// The networks that pods can name here: bridges of this machine under the names that clusters have for theirs.
const NETWORKS: &str = "{ default_network = \"mesos-bridge\", networks = { \
     mesos-bridge = { subnets = [\"10.167.0.0/16\"], bridge = \"podling0\" }, \
     dcos = { subnets = [\"10.168.0.0/16\"], bridge = \"podling1\" } } }";

/// The settings of the executors that `podling up` starts.
#[derive(Debug)]
pub(super) struct Settings {
    /// As they go into an executor's environment.
    pub variables: Vec<(String, String)>,
    config: Config,
}

impl Settings {
    /// What whoever starts us has in the environment is for executors too.
    pub fn read(
        ours: impl Iterator<Item = (String, String)>,
        root: bool,
        state: &Path,
    ) -> Result<Self, Failure> {
        let mut variables = vec![("PODLING_NETWORK".to_owned(), NETWORKS.to_owned())];
        let mut home = None;
        let mut data = None;
        let mut given = Vec::new();
        for (name, value) in ours {
            match name.as_str() {
                "HOME" => home = Some(value),
                "XDG_DATA_HOME" => data = Some(value),
                _ if name == config::FILE_VARIABLE
                    || config::KEYS.iter().any(|key| key.variable() == name) =>
                {
                    given.push((name, value));
                }
                _ => {}
            }
        }
        if !root {
            // The places of the whole node are not an ordinary user's.
            variables.push((
                "PODLING_RUN_DIR".to_owned(),
                state.join("run").display().to_string(),
            ));
            let data = data.or_else(|| home.map(|home| format!("{home}/.local/share")));
            if let Some(data) = data.filter(|data| data.starts_with('/')) {
                variables.push((
                    "PODLING_IMAGES_STORE".to_owned(),
                    format!("{data}/podling/images"),
                ));
            }
        }
        variables.retain(|(name, _)| !given.iter().any(|(theirs, _)| theirs == name));
        variables.extend(given);
        let words: Vec<(OsString, OsString)> = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        // What an executor would stumble over is said here, before one is started.
        let config = Effective::load(&words).map_err(Failure::usage)?.config;
        Ok(Settings { variables, config })
    }

    /// Takes back what executors left that could not do so themselves, and what they share: bridges and rules.
    /// Complaints, if there is something to complain about.
    pub async fn tidy(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let run_dir = self.config.run_dir.clone();
        if run_dir.join("executors").exists() {
            match tokio::task::spawn_blocking(move || janitor::sweep(&run_dir)).await {
                Ok(Ok(report)) => complaints.extend(
                    report
                        .failed
                        .iter()
                        .map(|failed| format!("{} stays: {}", failed.path.display(), failed.reason)),
                ),
                Ok(Err(error)) => complaints.push(Failure::from(error).to_string()),
                Err(error) => complaints.push(Failure::from(error).to_string()),
            }
        }
        if let Err(error) = image::drop_dead_leases(&self.config.images.store) {
            complaints.push(Failure::from(error).to_string());
        }
        if let Err(error) = self.dismantle().await {
            complaints.push(Failure::from(error).to_string());
        }
        complaints
    }

    /// Does nothing as long as a pod of this node uses the networks, be it somebody else's.
    async fn dismantle(&self) -> Result<(), network::NetworkError> {
        network::Manager::open(self.config.networks())?
            .dismantle()
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ours: &[(&str, &str)], root: bool) -> Vec<(String, String)> {
        let ours = ours
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        Settings::read(ours, root, Path::new("/state")).unwrap().variables
    }

    #[test]
    fn executors_know_the_networks_and_what_our_environment_says() {
        let plain = Settings::read(std::iter::empty(), true, Path::new("/state")).unwrap();
        let names: Vec<&String> = plain.config.network.config.networks.keys().collect();
        assert_eq!(names, ["dcos", "mesos-bridge"]);
        let given = read(
            &[
                ("PODLING_NETWORK", "{}"),
                ("PODLING_LOG", "debug"),
                ("PODLING_URL", "x"),
                ("HOME", "/"),
            ],
            true,
        );
        let expected = [("PODLING_NETWORK", "{}"), ("PODLING_LOG", "debug")];
        assert_eq!(
            given,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn an_ordinary_user_has_places_of_its_own() {
        let value = |variables: &[(String, String)], name: &str| {
            let found = variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let store = "PODLING_IMAGES_STORE";
        let user = read(&[("HOME", "/home/eve")], false);
        assert_eq!(
            value(&user, store).unwrap(),
            "/home/eve/.local/share/podling/images"
        );
        assert_eq!(value(&user, "PODLING_RUN_DIR").unwrap(), "/state/run");
        let user = read(&[("HOME", "/home/eve"), ("XDG_DATA_HOME", "/data")], false);
        assert_eq!(value(&user, store).unwrap(), "/data/podling/images");
        let user = read(&[("HOME", "/home/eve"), (store, "/mine")], false);
        assert_eq!(value(&user, store).unwrap(), "/mine");
        assert_eq!(value(&read(&[], false), store), None);
    }

    #[test]
    fn what_executors_would_stumble_over_is_told_at_once() {
        let ours = [("PODLING_PIDS_LIMIT".to_owned(), "many".to_owned())];
        let failure = Settings::read(ours.into_iter(), true, Path::new("/state")).unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)), "{failure}");
        assert!(failure.to_string().contains("PODLING_PIDS_LIMIT"), "{failure}");
    }
}
