//! What `podling node` says and does about pods' networks.

use std::{env, path::Path};

use super::Failure;
use crate::{
    container::{
        host::{Finding, Grade},
        janitor::{Failed, Report},
    },
    executor::config::{self, Effective},
    network::{self, Manager, NetworkError, ruleset::Found},
};

/// As executors of this node are configured.
fn configured(run_dir: Option<&Path>) -> Result<network::Config, config::ConfigError> {
    let variables: Vec<_> = env::vars_os().collect();
    let mut config = Effective::load(&variables)?.config;
    if let Some(run_dir) = run_dir {
        config.run_dir = run_dir.to_owned();
    }
    Ok(config.networks())
}

fn wait_for<T>(work: impl Future<Output = Result<T, NetworkError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work)?)
}

/// Takes back what dead executors held; with `all` also what the node has for pods that may come.
pub(super) fn clean_up(run_dir: &Path, all: bool, report: &mut Report) -> Result<(), Failure> {
    let config = configured(Some(run_dir))?;
    let state_dir = config.state_dir().to_owned();
    let manager = Manager::open(config)?;
    let mut failed = |error: Failure| {
        report.failed.push(Failed {
            path: state_dir.clone(),
            reason: error.to_string(),
        });
    };
    match wait_for(manager.reclaim()) {
        Ok(count) => report.networks = count,
        Err(error) => {
            failed(error);
            return Ok(());
        }
    }
    if all && let Err(error) = wait_for(dismantle(&manager)) {
        failed(error);
    }
    Ok(())
}

async fn dismantle(manager: &Manager) -> Result<(), NetworkError> {
    if !manager.dismantle().await? {
        eprintln!("podling: bridges and rules stay: pods of this node use them");
    }
    Ok(())
}

/// How the node's networks are; needs the rights to ask for it.
pub(super) fn findings(findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let mut add = |name, grade, found: String, consequence| {
        findings.push(Finding {
            name,
            grade,
            found,
            consequence,
        });
    };
    // Settings that cannot be read are told already.
    let Ok(config) = configured(None) else {
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let manager = Manager::open(config)?;
    let report = match wait_for(manager.report()) {
        Ok(report) => report,
        Err(error) => {
            add(
                "pod-networks",
                Grade::Lesser,
                error.to_string(),
                Some("nothing can be said about the networks of pods"),
            );
            return Ok(());
        }
    };
    let (alive, dead) = (report.pods_alive, report.pods_dead);
    match dead {
        0 => add("pod-networks", Grade::Good, format!("of {alive} pods"), None),
        _ => add(
            "pod-networks",
            Grade::Lesser,
            format!("of {alive} pods, and of {dead} whose executors are gone"),
            Some("those keep addresses and ports until a pod needs them: `podling node gc` takes them back"),
        ),
    }
    let (grade, found, consequence) = match report.table {
        Found::Whole => (Grade::Good, "as they were laid", None),
        Found::Missing if alive == 0 => (Grade::Good, "none: laid with the first pod", None),
        found => (
            Grade::Lesser,
            if found == Found::Missing {
                "removed"
            } else {
                "changed"
            },
            Some(
                "published ports and the way out of pods do not work as they should; the next start of a pod lays the \
                 rules anew, and so does `podling node gc`",
            ),
        ),
    };
    add("pod-rules", grade, found.to_owned(), consequence);
    let down = report.bridges.iter().filter(|(_, _, up)| !up);
    let down: Vec<String> = down
        .map(|(network, bridge, _)| format!("{bridge} of network {network} is gone or down"))
        .collect();
    if !down.is_empty() {
        add(
            "pod-bridges",
            Grade::Lesser,
            down.join(", "),
            Some(
                "its pods reach nobody; the next pod there has it made anew, but those that were in it stay cut off",
            ),
        );
    }
    if !report.walls.is_empty() {
        let walls: Vec<String> = report.walls.iter().map(ToString::to_string).collect();
        add(
            "firewall",
            Grade::Lesser,
            format!("forwarded packets are dropped by chain {}", walls.join(", ")),
            Some(
                "unless it accepts what comes from and goes to our bridges, pods reach nobody; see docs/network.md",
            ),
        );
    }
    Ok(())
}
