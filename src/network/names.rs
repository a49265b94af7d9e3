//! The files that give a pod its names: hosts, hostname, resolv.conf (N-03 to N-05). Pure.

use std::net::IpAddr;

use super::config::Dns;

/// Contents for a pod with a network of its own. In host mode members see the node's own files, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub hosts: String,
    pub hostname: String,
    pub resolv_conf: String,
}

/// The host name of a pod: what its definition says, else its container id, as far as the kernel can hold it.
pub fn hostname(asked: Option<&str>, container_id: &str) -> String {
    const LIMIT: usize = 64;
    let name = asked.unwrap_or(container_id);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .take(LIMIT)
        .collect();
    let name = name.trim_start_matches('-');
    if name.is_empty() {
        "pod".to_owned()
    } else {
        name.to_owned()
    }
}

/// Loopback for both families, then the pod's own name for each of its addresses.
pub fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for address in addresses {
        text.push_str(&format!("{address} {hostname}\n"));
    }
    text
}

/// Where a node keeps its own resolver configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeResolvers<'a> {
    /// `/etc/resolv.conf`.
    pub main: &'a str,
    /// `/run/systemd/resolve/resolv.conf`: the real servers when the main one names only a resolver on the loopback.
    pub upstream: Option<&'a str>,
}

/// The network's own DNS, else the operator's default, else the node's (N-05).
///
/// A pod in a network of its own does not reach the node's loopback, so name servers there are left out of the node's
/// file; if none remains, the upstream file serves.
pub fn resolv_conf(network: Option<&Dns>, default: Option<&Dns>, node: NodeResolvers<'_>) -> String {
    if let Some(dns) = [network, default]
        .into_iter()
        .flatten()
        .find(|dns| !dns.is_empty())
    {
        return written(dns);
    }
    let reachable = without_loopback(node.main);
    match node.upstream {
        Some(upstream) if !names_a_server(&reachable) => without_loopback(upstream),
        _ => reachable,
    }
}

fn written(dns: &Dns) -> String {
    // One word each: whatever a plug-in or an operator wrote, no value can begin a line of its own.
    let word = |text: &String| text.split_whitespace().next().map(str::to_owned);
    let words = |list: &[String]| list.iter().filter_map(word).collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    if let Some(domain) = dns.domain.as_ref().and_then(word) {
        text.push_str(&format!("domain {domain}\n"));
    }
    for (keyword, list) in [("search", words(&dns.search)), ("options", words(&dns.options))] {
        if !list.is_empty() {
            text.push_str(&format!("{keyword} {list}\n"));
        }
    }
    for server in dns.nameservers.iter().filter_map(word) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

fn server(line: &str) -> Option<&str> {
    line.trim().strip_prefix("nameserver")?.split_whitespace().next()
}

fn names_a_server(text: &str) -> bool {
    text.lines().any(|line| server(line).is_some())
}

fn without_loopback(text: &str) -> String {
    let is_loopback = |server: &str| {
        let bare = server.split('%').next().unwrap_or_default();
        bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let kept = text.lines().filter(|line| !server(line).is_some_and(is_loopback));
    kept.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dns(servers: &[&str]) -> Dns {
        Dns {
            nameservers: servers.iter().map(|&s| s.to_owned()).collect(),
            ..Dns::default()
        }
    }

    #[test]
    fn n_03_the_hostname_is_the_definitions_or_the_container_id() {
        assert_eq!(hostname(Some("web"), "4b1f"), "web");
        assert_eq!(hostname(None, "4b1f"), "4b1f");
        assert_eq!(hostname(None, "a/b c"), "a-b-c");
        assert_eq!(hostname(None, ""), "pod");
        assert_eq!(hostname(None, &"x".repeat(100)).len(), 64);
    }

    #[test]
    fn n_04_hosts_name_the_pod_for_each_of_its_addresses() {
        let addresses = ["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(
            hosts("web", &addresses),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.1.0.5 web\nfd00::5 web\n"
        );
    }

    #[test]
    fn n_05_the_networks_dns_wins_over_the_default_and_that_over_the_nodes() {
        let node = NodeResolvers {
            main: "nameserver 192.0.2.53\n",
            upstream: None,
        };
        assert_eq!(
            resolv_conf(Some(&dns(&["10.0.0.1"])), Some(&dns(&["10.0.0.2"])), node),
            "nameserver 10.0.0.1\n"
        );
        assert_eq!(
            resolv_conf(Some(&dns(&[])), Some(&dns(&["10.0.0.2"])), node),
            "nameserver 10.0.0.2\n"
        );
        assert_eq!(resolv_conf(None, None, node), "nameserver 192.0.2.53\n");
        let full = Dns {
            nameservers: vec!["10.0.0.1".into(), "fd00::1".into()],
            domain: Some("a.org".into()),
            search: vec!["a.org".into(), "b.org".into()],
            options: vec!["ndots:2".into()],
        };
        assert_eq!(
            resolv_conf(Some(&full), None, node),
            "domain a.org\nsearch a.org b.org\noptions ndots:2\nnameserver 10.0.0.1\nnameserver fd00::1\n"
        );
    }

    #[test]
    fn a_resolver_on_the_nodes_loopback_is_of_no_use_to_a_pod() {
        let main = "# by systemd\nnameserver 127.0.0.53\noptions edns0\n";
        let node = NodeResolvers {
            main,
            upstream: Some("nameserver 192.0.2.1\nnameserver ::1\n"),
        };
        assert_eq!(resolv_conf(None, None, node), "nameserver 192.0.2.1\n");
        let node = NodeResolvers {
            main: "nameserver 127.0.0.53\nnameserver 192.0.2.2\n",
            ..node
        };
        assert_eq!(resolv_conf(None, None, node), "nameserver 192.0.2.2\n");
        let node = NodeResolvers { main, upstream: None };
        assert_eq!(resolv_conf(None, None, node), "# by systemd\noptions edns0\n");
    }

    proptest! {
        #[test]
        fn no_value_begins_a_line_of_its_own(
            servers in prop::collection::vec("[a-z0-9.: \n\r\t]{0,12}", 1..4),
            search in prop::collection::vec("[a-z. \n\r]{0,12}", 0..3),
        ) {
            let dns = Dns { nameservers: servers, domain: None, search, options: vec![] };
            for line in resolv_conf(Some(&dns), Some(&dns), NodeResolvers::default()).lines() {
                prop_assert!(line.starts_with("nameserver ") || line.starts_with("search "), "{line}");
            }
        }

        #[test]
        fn a_hostname_always_fits(name in "\\PC*") {
            let name = hostname(Some(&name), "id");
            prop_assert!(super::super::request::check_hostname(&name).is_ok(), "{name}");
        }
    }
}
