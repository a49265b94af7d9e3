//! What a node has for pods' networks, as `podling node check` tells it.

use super::{
    bridge::is_bridge_of,
    error::{NetworkError, kernel},
    link,
    nft::{ForwardChain, forward_chains},
    node::{Node, hold},
    ruleset::Found,
};

#[derive(Debug, Clone)]
pub struct Report {
    pub table: Found,
    /// Network, its bridge, and whether that exists and is up; of the networks that have had pods.
    pub bridges: Vec<(String, String, bool)>,
    pub pods_alive: usize,
    /// Journals of dead executors that the next clean-up takes back.
    pub pods_dead: usize,
    /// Chains of others that drop forwarded packets unless a rule of theirs accepts them.
    pub walls: Vec<Wall>,
}

/// Somebody else's chain that packets to and from pods must pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wall(String);

impl std::fmt::Display for Wall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Report {
    /// Changes nothing; where no pod has been since the machine started there is nothing to tell.
    pub(super) fn of(node: &Node) -> Result<Report, NetworkError> {
        let mut report = Report {
            table: Found::Missing,
            bridges: Vec::new(),
            pods_alive: 0,
            pods_dead: 0,
            walls: walls(node)?,
        };
        if !node.store.exists() {
            return Ok(report);
        }
        let locked = node.store.lock()?;
        (report.pods_alive, report.pods_dead) = (locked.alive()?, locked.stale()?.len());
        for noted in locked.bridges()? {
            let doing = kernel(format!("look for bridge {}", noted.name));
            let found = link::find(&mut hold(&node.route), &noted.name).map_err(doing)?;
            let up = found.is_some_and(|link| link.up && is_bridge_of(&link, &noted.network));
            report.bridges.push((noted.network, noted.name, up));
        }
        report.table = node
            .ruleset(&locked)?
            .find(&mut hold(&node.nft))
            .map_err(kernel("read the nftables table of pods"))?;
        Ok(report)
    }
}

pub(super) fn walls(node: &Node) -> Result<Vec<Wall>, NetworkError> {
    let chains = forward_chains(&mut hold(&node.nft)).map_err(kernel("read the chains of nftables"))?;
    let wall = |chain: ForwardChain| Wall(format!("{} {} {}", chain.family, chain.table, chain.name));
    Ok(chains.into_iter().filter(|chain| chain.drops).map(wall).collect())
}
