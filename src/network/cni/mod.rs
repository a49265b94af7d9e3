//! Networks made by CNI plug-ins, as the Container Network Interface specification (0.3 to 1.1) says.
//!
//! A [`List`] of plug-ins is found by the network's name. [`Runner`] runs them: ADD in order, each given the result of
//! the one before; DEL in reverse order with the result kept from ADD; CHECK and GC where version and plug-in know them.
//! Every call has a time limit and bounded output. What a plug-in says about its interface is compared with the kernel
//! by the caller, not believed.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod list;
mod plugin;
mod result;

use std::{
    fs, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use list::{List, ListError, Lists};
pub use plugin::PluginError;
pub use result::{Outcome, ResultError};

use super::{
    config::CniConfig,
    lease::replace,
    request::{Attachment, PortMapping},
};
use plugin::{Call, Command};

#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error(transparent)]
    List(#[from] ListError),
    #[error("network {network}: {cause}")]
    Plugin {
        network: String,
        #[source]
        cause: PluginError,
    },
    #[error("network {network}: {cause}")]
    Result {
        network: String,
        #[source]
        cause: ResultError,
    },
    #[error("cannot {doing} {}: {cause}", path.display())]
    Cache {
        doing: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("network {network}: its plug-ins say that {interface} has {said}, but it has {found}")]
    Lie {
        network: String,
        interface: String,
        said: String,
        found: String,
    },
}

/// All that DEL needs to know of an attachment, kept beside its journal from before ADD on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub container_id: String,
    pub interface: String,
    list: List,
    args: Value,
    port_mappings: Value,
    /// What ADD gave; none while it runs or when it failed.
    result: Option<Value>,
}

impl Kept {
    /// `served` are the host ports that another network of the pod answers on.
    pub fn new(
        list: List,
        container_id: &str,
        interface: &str,
        attachment: &Attachment,
        served: &[PortMapping],
    ) -> Kept {
        let own: Vec<&PortMapping> = (attachment.port_mappings.iter())
            .filter(|mapping| {
                !served
                    .iter()
                    .any(|other| (other.protocol, other.host_port) == (mapping.protocol, mapping.host_port))
            })
            .collect();
        let mapping = |mapping: &&PortMapping| {
            json!({
                "hostPort": mapping.host_port,
                "containerPort": mapping.container_port,
                "protocol": mapping.protocol.as_str(),
            })
        };
        // The form in which Mesos hands a network's labels and ports to plug-ins (N-07).
        let mesos = |mapping: &&PortMapping| {
            json!({
                "host_port": mapping.host_port,
                "container_port": mapping.container_port,
                "protocol": mapping.protocol.as_str(),
            })
        };
        let labels = attachment.labels.iter();
        let labels: Vec<Value> = labels
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        let info = json!({
            "name": attachment.name,
            "labels": {"labels": labels},
            "port_mappings": own.iter().map(mesos).collect::<Vec<_>>(),
        });
        Kept {
            container_id: container_id.to_owned(),
            interface: interface.to_owned(),
            list,
            args: json!({"org.apache.mesos": {"network_info": info}}),
            port_mappings: own.iter().map(mapping).collect(),
            result: None,
        }
    }

    /// What ADD gave.
    pub fn outcome(&self) -> Result<Outcome, CniError> {
        let network = self.list.name.clone();
        Outcome::read(self.result.as_ref().unwrap_or(&Value::Null), &self.interface)
            .map_err(|cause| CniError::Result { network, cause })
    }

    pub fn network(&self) -> &str {
        &self.list.name
    }

    pub fn save(&self, path: &Path) -> Result<(), CniError> {
        let failed = |cause: io::Error| CniError::Cache {
            doing: "write",
            path: path.to_owned(),
            cause,
        };
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        replace(path, &text).map_err(failed)
    }

    /// `None` when it is not there or not ours; then there is nothing that could be undone with it.
    pub fn load(path: &Path) -> Option<Kept> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// What the plug-in reads from its standard input.
    fn input(&self, plugin: &Map<String, Value>, previous: Option<&Value>) -> Vec<u8> {
        let mut input = plugin.clone();
        let can_publish = list::can(plugin, "portMappings");
        input.remove("capabilities");
        input.insert("cniVersion".to_owned(), json!(self.list.cni_version));
        input.insert("name".to_owned(), json!(self.list.name));
        let mut args = match input.remove("args") {
            Some(Value::Object(args)) => args,
            _ => Map::new(),
        };
        args.extend(self.args.as_object().cloned().unwrap_or_default());
        input.insert("args".to_owned(), Value::Object(args));
        if can_publish && self.port_mappings.as_array().is_some_and(|all| !all.is_empty()) {
            input.insert(
                "runtimeConfig".to_owned(),
                json!({"portMappings": self.port_mappings}),
            );
        }
        if let Some(previous) = previous {
            input.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(input).to_string().into_bytes()
    }
}

/// Where plug-ins work.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// A path that leads to the pod's namespace; empty when that is gone already.
    pub namespace: &'a str,
    /// Held for as long as they do.
    pub lock: BorrowedFd<'a>,
}

/// Runs the plug-ins of one node.
#[derive(Debug, Clone)]
pub struct Runner {
    config: CniConfig,
}

impl Runner {
    pub fn new(config: &CniConfig) -> Runner {
        Runner {
            config: config.clone(),
        }
    }

    fn call<'a>(
        &'a self,
        kept: &'a Kept,
        plugin: &'a Map<String, Value>,
        command: Command,
        at: At<'a>,
        previous: Option<&Value>,
    ) -> Call<'a> {
        Call {
            config: &self.config,
            plugin: plugin.get("type").and_then(Value::as_str).unwrap_or_default(),
            command,
            container_id: &kept.container_id,
            interface: &kept.interface,
            namespace: at.namespace,
            input: kept.input(plugin, previous),
            lock: Some(at.lock),
        }
    }

    /// Runs all plug-ins of the list; the last one's result is kept.
    pub async fn add(&self, kept: &mut Kept, at: At<'_>) -> Result<(), CniError> {
        let network = kept.list.name.clone();
        let mut previous = None;
        for plugin in &kept.list.plugins {
            let call = self.call(kept, plugin, Command::Add, at, previous.as_ref());
            let printed = call.run().await.map_err(|cause| CniError::Plugin {
                network: network.clone(),
                cause,
            })?;
            let result = result::parse(&printed, call.plugin).map_err(|cause| CniError::Result {
                network: network.clone(),
                cause,
            })?;
            previous = Some(result);
        }
        kept.result = previous;
        Ok(())
    }

    /// Runs all plug-ins in reverse order, whatever each says; the first complaint is returned.
    pub async fn del(&self, kept: &Kept, at: At<'_>) -> Result<(), CniError> {
        let previous = kept.result.as_ref().filter(|_| kept.list.at_least(0, 4));
        let mut complaint = None;
        for plugin in kept.list.plugins.iter().rev() {
            let call = self.call(kept, plugin, Command::Del, at, previous);
            if let Err(cause) = call.run().await {
                complaint.get_or_insert(cause);
            }
        }
        let network = kept.list.name.clone();
        complaint.map_or(Ok(()), |cause| Err(CniError::Plugin { network, cause }))
    }

    /// Asks the plug-ins whether all is as ADD left it, if the list's version knows that question.
    pub async fn check(&self, kept: &Kept, at: At<'_>) -> Result<(), CniError> {
        if !kept.list.at_least(0, 4) || kept.list.disable_check {
            return Ok(());
        }
        for plugin in &kept.list.plugins {
            let call = self.call(kept, plugin, Command::Check, at, kept.result.as_ref());
            call.run().await.map_err(|cause| CniError::Plugin {
                network: kept.list.name.clone(),
                cause,
            })?;
        }
        Ok(())
    }

    /// Tells the plug-ins of a list which attachments (container id, interface) are alive, so that they give up what they
    /// hold for others. Only those plug-ins that say they know GC are asked.
    pub async fn gc(&self, list: &List, alive: &[(String, String)]) -> Result<(), CniError> {
        if !list.at_least(1, 1) || list.disable_gc {
            return Ok(());
        }
        let network = || list.name.clone();
        let alive: Vec<Value> = alive
            .iter()
            .map(|(container_id, interface)| json!({"containerID": container_id, "ifname": interface}))
            .collect();
        for plugin in &list.plugins {
            let mut input = plugin.clone();
            input.remove("capabilities");
            input.insert("cniVersion".to_owned(), json!(list.cni_version));
            input.insert("name".to_owned(), json!(list.name));
            input.insert("cni.dev/valid-attachments".to_owned(), json!(alive));
            let call = |command| Call {
                config: &self.config,
                plugin: plugin.get("type").and_then(Value::as_str).unwrap_or_default(),
                command,
                container_id: "",
                interface: "",
                namespace: "",
                input: Value::Object(input.clone()).to_string().into_bytes(),
                lock: None,
            };
            let failed = |cause| CniError::Plugin {
                network: network(),
                cause,
            };
            let version = call(Command::Version).run().await.map_err(failed)?;
            if result::supports(&version, 1, 1) {
                call(Command::Gc).run().await.map_err(failed)?;
            }
        }
        Ok(())
    }
}
