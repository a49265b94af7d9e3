//! What can go wrong, as sentences for whoever started the pod.

use std::{io, path::PathBuf};

use super::{cni::CniError, config::ConfigError, lease::LeaseError, request::Protocol};
use crate::sys::netlink::Refused;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot make a network namespace: {0}; this needs root or CAP_SYS_ADMIN")]
    Namespace(#[source] io::Error),
    #[error("cannot {doing}: {cause}")]
    Kernel {
        doing: String,
        #[source]
        cause: Refused,
    },
    #[error("cannot set {path} to {value}: {cause}", path = path.display())]
    Setting {
        path: PathBuf,
        value: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error(
        "interface {name} exists already and is not ours; name another one with networks.{network}.bridge"
    )]
    ForeignBridge { name: String, network: String },
    #[error(
        "{subnet} of network {network} overlaps {taken} on interface {interface} of this node; choose another subnet"
    )]
    Overlap {
        network: String,
        subnet: String,
        taken: String,
        interface: String,
    },
    #[error(
        "{key} is 0 on this node and we may not change it (enable_forwarding = false): pods of network {network} would reach nobody"
    )]
    NoForwarding { key: &'static str, network: String },
    #[error("no free interface name for {interface} of pod {pod}")]
    NoInterfaceName { pod: String, interface: String },
    #[error(transparent)]
    Cni(#[from] CniError),
    #[error("network {network} has no CNI configuration any more")]
    ListGone { network: String },
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(
        "port {port}/{protocol} of this node is in use by {holder}; choose another hostPort, or 0 for any that is free"
    )]
    PortInUse {
        protocol: Protocol,
        port: u16,
        holder: String,
    },
    /// A test asked for it.
    #[error("step {step:?} was made to fail")]
    Injected { step: super::Step },
    #[error("what dead executors left behind was in the way of pod {pod} again and again; look into the log")]
    Crowded { pod: String },
    #[error("cannot start a thread for the pod's network: {0}")]
    Thread(#[source] io::Error),
    #[error("the work on the pod's network broke off")]
    BrokenOff,
}

/// For `map_err`: what was attempted, and the kernel's answer.
pub(super) fn kernel(doing: impl Into<String>) -> impl FnOnce(Refused) -> NetworkError {
    let doing = doing.into();
    move |cause| NetworkError::Kernel { doing, cause }
}
