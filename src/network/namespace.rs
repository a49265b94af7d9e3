//! A pod's namespace, held by a descriptor.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
};

use super::{
    link,
    node::{Addresses, hold},
};
use crate::sys::{
    netlink::{Batch, Family, Refused, Socket},
    netns,
};

/// A pod's namespace, and a socket that speaks from inside it.
#[derive(Debug)]
pub(super) struct Namespace {
    fd: OwnedFd,
    pub(super) route: Witness,
}

/// Tells from outside what is inside.
#[derive(Debug, Clone)]
pub(super) struct Witness(pub(super) Arc<Mutex<Socket>>);

/// What containers may expect of a namespace of their own: any user may ping and listen on any port (as in Docker), no
/// neighbour makes itself our router, and addresses are usable at once.
const SETTINGS: [(&str, &str); 4] = [
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

impl Namespace {
    /// Blocks for about half a millisecond.
    pub fn create() -> io::Result<Namespace> {
        let (fd, route) = netns::create(|| {
            for (key, value) in SETTINGS {
                // Comforts: a kernel without IPv6 or a user namespace may refuse some of them.
                if let Err(error) = fs::write(format!("/proc/sys/{key}"), value) {
                    tracing::debug!(key, value, %error, "a pod goes without this setting");
                }
            }
            let mut route = Socket::open(Family::Route)?;
            let lo = link::find(&mut route, "lo").map_err(io::Error::other)?;
            let mut batch = Batch::new();
            link::set_up(&mut batch, lo.map_or(1, |lo| lo.index));
            route.transact(&batch).map_err(io::Error::other)?;
            Ok(route)
        })?;
        Ok(Namespace {
            fd,
            route: Witness(Arc::new(Mutex::new(route))),
        })
    }

    pub fn witness(&self) -> Witness {
        self.route.clone()
    }

    /// A path that leads here for as long as this process holds the namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Back to the kernel's defaults where ours suit only our own bridges: networks made by plug-ins may have routers that
    /// announce themselves, and addresses that others use too.
    pub fn expect_plugins(&self) -> io::Result<()> {
        netns::enter(&self.fd, || {
            for key in ["accept_ra", "accept_dad"] {
                // Without IPv6 there is nothing to set.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/default/{key}"), "1");
            }
            Ok(())
        })
    }
}

impl Witness {
    /// The addresses that an interface has; `None`: there is no such interface.
    pub fn addresses_of(&self, interface: &str) -> Result<Option<Addresses>, Refused> {
        let mut route = hold(&self.0);
        let Some(link) = link::find(&mut route, interface)? else {
            return Ok(None);
        };
        let assigned = link::addresses(&mut route, link.index)?;
        Ok(Some(
            assigned
                .iter()
                .map(|assigned| (assigned.address, assigned.prefix))
                .collect(),
        ))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
