//! What an operator says about images.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    registry::{CredentialError, Credentials, RegistryConfig},
    room::Reserve,
    store::StoreConfig,
    unpack::{Budget, DevicePolicy},
};

/// How much of layers that are not in use is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    Unlimited,
    Bytes(u64),
    /// Of the file system that the store is on, in hundredths.
    Share(u64),
}

impl Quota {
    /// For a store there, which need not be there yet.
    pub fn bytes(self, store: &Path) -> Option<u64> {
        match self {
            Quota::Unlimited => None,
            Quota::Bytes(bytes) => Some(bytes),
            Quota::Share(share) => {
                let found = store
                    .ancestors()
                    .find_map(|place| rustix::fs::statvfs(place).ok())?;
                let all = found.f_blocks.saturating_mul(found.f_frsize);
                Some(all / 100 * share)
            }
        }
    }
}

/// The `images_…` keys of the operator's configuration: the same for executors and for `podling image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorConfig {
    pub store: PathBuf,
    pub quota: Quota,
    pub reserve: Reserve,
    pub insecure: Vec<String>,
    pub mirrors: HashMap<String, Vec<String>>,
    /// In docker's own form; what a pod brings takes its place (P-06).
    pub credentials: Option<PathBuf>,
    pub authorities: Vec<PathBuf>,
    pub token_services: Vec<String>,
    pub devices: DevicePolicy,
    /// Bytes of one layer, unpacked.
    pub layer_limit: u64,
    /// Without progress for so long, a transfer is given up.
    pub stall: Duration,
    /// Members cannot write to their roots.
    pub read_only: bool,
}

impl Default for OperatorConfig {
    fn default() -> OperatorConfig {
        let store = StoreConfig::new("/var/lib/podling/images");
        OperatorConfig {
            store: store.root,
            quota: Quota::Share(25),
            reserve: Reserve(5),
            insecure: store.registries.insecure,
            mirrors: store.registries.mirrors,
            credentials: None,
            authorities: store.registries.authorities,
            token_services: store.registries.token_services,
            devices: store.devices,
            layer_limit: store.budget.bytes,
            stall: store.registries.patience.stall,
            read_only: false,
        }
    }
}

impl OperatorConfig {
    /// Reads what it names.
    pub fn store(&self) -> Result<StoreConfig, CredentialError> {
        let credentials = match &self.credentials {
            Some(path) => Credentials::load(path)?,
            None => Credentials::default(),
        };
        let mut registries = RegistryConfig {
            insecure: self.insecure.clone(),
            mirrors: self.mirrors.clone(),
            authorities: self.authorities.clone(),
            token_services: self.token_services.clone(),
            credentials,
            ..RegistryConfig::default()
        };
        registries.patience.stall = self.stall;
        Ok(StoreConfig {
            quota: self.quota.bytes(&self.store),
            reserve: self.reserve,
            devices: self.devices,
            budget: Budget {
                bytes: self.layer_limit,
                ..Budget::default()
            },
            registries,
            ..StoreConfig::new(&self.store)
        })
    }
}
