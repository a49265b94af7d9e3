//! Counts what is on a node with `ip`, `nft` and `ls`, knowing nothing of our own accounts.

use std::{collections::BTreeSet, time::Duration};

use crate::support::sh;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    links: BTreeSet<String>,
    addresses: BTreeSet<String>,
    routes: BTreeSet<String>,
    /// Rules and elements of all tables but the plug-ins' empty chains.
    rules: BTreeSet<String>,
    leases: BTreeSet<String>,
    namespaces: usize,
}

fn lines(script: &str) -> BTreeSet<String> {
    sh(script).lines().map(|line| line.trim().to_owned()).collect()
}

impl Witness {
    pub fn look() -> Witness {
        Witness {
            links: lines("ip -o link | sed 's/^[0-9]*: //; s/[@:].*//'"),
            addresses: lines("ip -o addr | sed 's/^[0-9]*: //; s/ *valid_lft.*//' | grep -v fe80: || true"),
            routes: lines(
                "ip route show table all | grep -v fe80: || true; ip -6 route show table all | grep -vE 'fe80:|ff00:' || true",
            ),
            rules: lines("nft -s list ruleset"),
            leases: lines(
                "cd /run/podling/network 2>/dev/null && find leases addresses ports cni -type f -o -type l || true",
            ),
            namespaces: namespaces_of_this_process(),
        }
    }

    /// Differences to what there was, those on the given interfaces and the laid but empty table of ours aside.
    fn differences(&self, infrastructure: &[&str]) -> Vec<String> {
        let now = Witness::look();
        let ours = |line: &str| infrastructure.iter().any(|name| line.contains(name));
        let mut all = Vec::new();
        for (what, before, after) in [
            ("link", &self.links, &now.links),
            ("address", &self.addresses, &now.addresses),
            ("route", &self.routes, &now.routes),
            ("file", &self.leases, &now.leases),
        ] {
            all.extend(
                before
                    .difference(after)
                    .filter(|line| !ours(line))
                    .map(|line| format!("lost {what} {line}")),
            );
            all.extend(
                after
                    .difference(before)
                    .filter(|line| !ours(line))
                    .map(|line| format!("new {what} {line}")),
            );
        }
        // Of the rules: what speaks of pods. Laid chains, empty sets and the bridges' names may stay.
        let speaks = |line: &&String| {
            let pod = [
                "10.70.", "10.71.", "10.72.", "10.73.", "10.74.", "fd70:", "fd73:", "dport 31", ". 31",
            ];
            pod.iter().any(|word| line.contains(word))
        };
        all.extend(
            now.rules
                .difference(&self.rules)
                .filter(speaks)
                .map(|line| format!("new rule {line}")),
        );
        if now.namespaces != self.namespaces {
            all.push(format!(
                "{} namespaces held, before {}",
                now.namespaces, self.namespaces
            ));
        }
        all
    }

    /// Nothing is different but what is laid once per node: our bridge, and those named.
    #[track_caller]
    pub fn assert_only_infrastructure_remains(&self, others: &[&str]) {
        let mut infrastructure = vec!["plb"];
        infrastructure.extend(others);
        let differences = self.differences(&infrastructure);
        assert!(differences.is_empty(), "{differences:#?}");
    }

    pub async fn wait_until_only_infrastructure_remains(&self, others: &[&str]) {
        let mut infrastructure = vec!["plb"];
        infrastructure.extend(others);
        for _ in 0..1000 {
            if self.differences(&infrastructure).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:#?}", self.differences(&infrastructure));
    }
}

/// Descriptors of network namespaces that this test's thread group holds. Tests run side by side in one process: only
/// namespaces of this test's own pods count, so it is asked who has an end of a wire here.
fn namespaces_of_this_process() -> usize {
    sh("ip -o link | grep -c 'link-netnsid' || true")
        .trim()
        .parse()
        .unwrap()
}
