//! Bridges of built-in networks: made, mended and removed; and the settings of the node that they need.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    config::{Network, Stack, derived_mac},
    error::{NetworkError, kernel},
    lease::Locked,
    link::{self, Link},
    node::{Node, hold},
};
use crate::sys::netlink::{Batch, Socket};

/// A route at most this wide is somebody's way out (`0.0.0.0/1`, `2000::/3`), not a place that we would cut off.
const WAY_OUT: u8 = 7;

impl Node {
    /// The network's bridge, made or mended as far as needed.
    pub(super) fn bridge(&self, locked: &Locked<'_>, network: &Network) -> Result<Link, NetworkError> {
        let doing = |what: &str| {
            kernel(format!(
                "{what} bridge {} of network {}",
                network.bridge, network.name
            ))
        };
        if network.has_ipv4() {
            self.forwarding("net/ipv4/ip_forward", network)?;
        }
        if network.has_ipv6() {
            self.forwarding("net/ipv6/conf/all/forwarding", network)?;
        }
        let mut route = hold(&self.route);
        let found = link::find(&mut route, &network.bridge).map_err(doing("look for"))?;
        if found
            .as_ref()
            .is_some_and(|link| !is_bridge_of(link, &network.name))
        {
            return Err(NetworkError::ForeignBridge {
                name: network.bridge.clone(),
                network: network.name.clone(),
            });
        }
        let present = match &found {
            Some(link) => link::addresses(&mut route, link.index).map_err(doing("read the addresses of"))?,
            None => Vec::new(),
        };
        let missing: Vec<&Stack> = (network.stacks.iter())
            .filter(|stack| !present.iter().any(|assigned| assigned.address == stack.gateway))
            .collect();
        if !missing.is_empty() {
            check_overlap(&mut route, network, &missing, found.as_ref())?;
        }
        locked.note_bridge(network)?;
        let link = match found {
            Some(link) => link,
            None => {
                let mut batch = Batch::new();
                link::add_bridge(&mut batch, &network.bridge, network.bridge_mac, network.mtu);
                route.transact(&batch).map_err(doing("make"))?;
                let alias = format!("podling network {}", network.name);
                let mut batch = Batch::new();
                link::set_alias(&mut batch, &network.bridge, &alias);
                route.transact(&batch).map_err(doing("mark"))?;
                let made = link::find(&mut route, &network.bridge).map_err(doing("look for"))?;
                made.ok_or_else(|| doing("find")(io::Error::from_raw_os_error(libc::ENODEV).into()))?
            }
        };
        settle(network)?;
        let mut batch = Batch::new();
        if !link.up {
            link::set_up(&mut batch, link.index);
        }
        for stack in missing {
            link::add_address(&mut batch, link.index, stack.gateway, stack.subnet);
        }
        if !batch.is_empty() {
            route.transact(&batch).map_err(doing("set up"))?;
        }
        Ok(link)
    }

    /// The one setting that is the whole node's, not ours.
    fn forwarding(&self, key: &'static str, network: &Network) -> Result<(), NetworkError> {
        if setting_is(key, "1") {
            return Ok(());
        }
        if !self.enable_forwarding {
            return Err(NetworkError::NoForwarding {
                key,
                network: network.name.clone(),
            });
        }
        tracing::warn!(key, network = network.name, "turning on forwarding on this node");
        keep(key, "1")
    }

    /// Removes the table of rules and the bridges that were noted in this directory, unless a pod lives. Answers whether
    /// it did. A bridge that somebody has plugged something else into stays, and so does its note.
    pub(super) fn dismantle(&self) -> Result<bool, NetworkError> {
        let locked = self.store.lock()?;
        if locked.alive()? > 0 {
            return Ok(false);
        }
        self.ruleset(&locked)?
            .delete(&mut hold(&self.nft))
            .map_err(kernel("remove the nftables table of pods"))?;
        let mut route = hold(&self.route);
        for noted in locked.bridges()? {
            let doing = |what: &str| kernel(format!("{what} bridge {}", noted.name));
            let found = link::find(&mut route, &noted.name).map_err(doing("look for"))?;
            if let Some(link) = found.filter(|link| is_bridge_of(link, &noted.network)) {
                let links = link::all(&mut route).map_err(doing("look into"))?;
                if links.iter().any(|other| other.master == Some(link.index)) {
                    tracing::warn!(bridge = noted.name, "stays: it has interfaces that are not ours");
                    continue;
                }
                link::delete(&mut route, link.index).map_err(doing("remove"))?;
            }
            locked.forget_bridge(&noted.name)?;
        }
        locked.clear()?;
        Ok(true)
    }
}

/// What a bridge of ours looks like. The address follows from the network's name and is given in the very message that
/// makes the bridge, so there is no moment at which it cannot be told from others.
pub(super) fn is_bridge_of(link: &Link, network: &str) -> bool {
    link.kind.as_deref() == Some("bridge") && link.mac == Some(derived_mac(network))
}

/// A subnet that the node already uses elsewhere would cut that off, or a part of it.
fn check_overlap(
    route: &mut Socket,
    network: &Network,
    stacks: &[&Stack],
    own: Option<&Link>,
) -> Result<(), NetworkError> {
    let doing = || kernel("read the addresses of this node");
    let elsewhere = |link: u32| own.is_none_or(|own| own.index != link);
    let addresses = link::addresses(route, 0).map_err(doing())?;
    let routes = link::routes(route).unwrap_or_else(|error| {
        // Who has more of them than we read knows what is routed where.
        tracing::warn!(%error, "the routes of this node are not compared with its pods' networks");
        Vec::new()
    });
    for stack in stacks {
        let address = addresses
            .iter()
            .find(|assigned| elsewhere(assigned.link) && stack.subnet.contains(assigned.address))
            .map(|assigned| (assigned.link, format!("{}/{}", assigned.address, assigned.prefix)));
        let way = || {
            let route = routes.iter().find(|route| {
                elsewhere(route.link) && route.to.prefix() > WAY_OUT && route.to.overlaps(stack.subnet)
            });
            route.map(|route| (route.link, format!("the route to {}", route.to)))
        };
        if let Some((link, taken)) = address.or_else(way) {
            let links = link::all(route).map_err(doing())?;
            let link = links.into_iter().find(|other| other.index == link);
            return Err(NetworkError::Overlap {
                network: network.name.clone(),
                subnet: stack.subnet.to_string(),
                taken,
                interface: link.map(|link| link.name).unwrap_or_default(),
            });
        }
    }
    Ok(())
}

/// Settings of the bridge itself.
fn settle(network: &Network) -> Result<(), NetworkError> {
    let bridge = &network.bridge;
    if network.has_ipv4() {
        // Lets answers to connections from the node's own loopback to a published port come back.
        keep(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    }
    if Path::new("/proc/sys/net/ipv6").exists() {
        // No pod makes itself the node's router (the class of CVE-2020-13401).
        keep(&format!("net/ipv6/conf/{bridge}/accept_ra"), "0")?;
        let disabled = if network.has_ipv6() { "0" } else { "1" };
        keep(&format!("net/ipv6/conf/{bridge}/disable_ipv6"), disabled)?;
    }
    Ok(())
}

fn setting_is(key: &str, value: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/{key}")).is_ok_and(|text| text.trim() == value)
}

/// Sets what is not so yet.
fn keep(key: &str, value: &'static str) -> Result<(), NetworkError> {
    if setting_is(key, value) {
        return Ok(());
    }
    let path = PathBuf::from(format!("/proc/sys/{key}"));
    fs::write(&path, value).map_err(|cause| NetworkError::Setting { path, value, cause })
}
