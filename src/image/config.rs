//! What an operator says about images.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    registry::{CredentialError, Credentials, RegistryConfig},
    store::StoreConfig,
    unpack::DevicePolicy,
};

/// The `images` part of `/etc/podling/executor.toml`.
///
/// ```toml
/// [images]
/// directory = "/var/lib/podling/images"
/// quota_mb = 20000                         # of layers not in use; without it nothing is ever collected
/// docker_config = "/etc/podling/docker.json"
/// insecure_registries = ["registry.lab:5000"]
/// authorities = ["/etc/podling/registry-ca.pem"]   # else the machine's own
/// token_services = ["sso.example.org"]     # may see credentials though of another domain than the registry
/// devices = "drop"                         # device nodes in images: drop, keep, refuse
/// max_layer_mb = 65536
/// stall_seconds = 60                       # give up on a transfer without progress
///
/// [images.mirrors]
/// "docker.io" = ["mirror.example.org"]
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorConfig {
    pub directory: PathBuf,
    pub quota_mb: Option<u64>,
    /// In docker's own form; what a pod brings takes its place (P-06).
    pub docker_config: Option<PathBuf>,
    pub insecure_registries: Vec<String>,
    pub authorities: Vec<PathBuf>,
    pub token_services: Vec<String>,
    pub mirrors: HashMap<String, Vec<String>>,
    pub devices: DevicePolicy,
    pub max_layer_mb: u64,
    pub stall_seconds: u64,
}

impl Default for OperatorConfig {
    fn default() -> OperatorConfig {
        OperatorConfig {
            directory: PathBuf::from("/var/lib/podling/images"),
            quota_mb: None,
            docker_config: None,
            insecure_registries: Vec::new(),
            authorities: Vec::new(),
            token_services: Vec::new(),
            mirrors: HashMap::new(),
            devices: DevicePolicy::default(),
            max_layer_mb: 64 << 10,
            stall_seconds: 60,
        }
    }
}

impl OperatorConfig {
    /// Reads what it names, so that a mistake shows at the start and not at the first pull.
    pub fn store(&self) -> Result<StoreConfig, CredentialError> {
        let credentials = match &self.docker_config {
            Some(path) => Credentials::load(path)?,
            None => Credentials::default(),
        };
        let mut config = StoreConfig::new(&self.directory);
        config.quota = self.quota_mb.map(|mb| mb.saturating_mul(1 << 20));
        config.devices = self.devices;
        config.budget.bytes = self.max_layer_mb.saturating_mul(1 << 20).min(i64::MAX as u64);
        config.registries = RegistryConfig {
            insecure: self.insecure_registries.clone(),
            mirrors: self.mirrors.clone(),
            authorities: self.authorities.clone(),
            token_services: self.token_services.clone(),
            credentials,
            ..RegistryConfig::default()
        };
        config.registries.patience.stall = Duration::from_secs(self.stall_seconds.max(1));
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_read_and_mistakes_are_named() {
        let text = r#"
            directory = "/x"
            quota_mb = 1
            insecure_registries = ["registry.lab:5000"]
            devices = "refuse"
            stall_seconds = 5
            [mirrors]
            "docker.io" = ["mirror.example.org"]
        "#;
        let config: OperatorConfig = toml::from_str(text).unwrap();
        let store = config.store().unwrap();
        assert_eq!(store.quota, Some(1 << 20));
        assert_eq!(store.devices, DevicePolicy::Refuse);
        assert_eq!(store.registries.mirrors["docker.io"], ["mirror.example.org"]);
        assert_eq!(store.registries.patience.stall, Duration::from_secs(5));
        let error = toml::from_str::<OperatorConfig>("quota = 1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("quota"), "{error}");
    }
}
