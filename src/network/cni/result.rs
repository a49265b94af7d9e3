//! What plug-ins print.

use std::net::IpAddr;

use serde_json::Value;

use super::list::version;
use crate::network::{config::Dns, subnet::parse_with_prefix};

/// Why what a plug-in printed is not a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    #[error("plug-in {plugin} printed no CNI result: {what}; it printed: {excerpt}")]
    Form {
        plugin: String,
        what: String,
        excerpt: String,
    },
    #[error("the result's {at} is {found}, not {wanted}")]
    Field {
        at: String,
        found: String,
        wanted: &'static str,
    },
    #[error("the result has more than {MOST} addresses")]
    TooMany,
}

/// Of addresses in a result.
const MOST: usize = 256;

/// Reads what a plug-in printed at ADD.
pub(super) fn parse(printed: &[u8], plugin: &str) -> Result<Value, ResultError> {
    let form = |what: String| ResultError::Form {
        plugin: plugin.to_owned(),
        what,
        excerpt: excerpt(printed),
    };
    match serde_json::from_slice(printed) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(form("expected an object".to_owned())),
        Err(error) => Err(form(error.to_string())),
    }
}

/// The first words of it, without what could play tricks on a terminal.
pub(super) fn excerpt(printed: &[u8]) -> String {
    const LENGTH: usize = 300;
    let text = String::from_utf8_lossy(printed.get(..LENGTH * 4).unwrap_or(printed))
        .trim()
        .to_owned();
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let short: String = text.chars().map(clean).take(LENGTH).collect();
    let short = short.trim().to_owned();
    if short.is_empty() {
        "nothing".to_owned()
    } else {
        short
    }
}

/// Does an answer to VERSION name this version or a later one?
pub(super) fn supports(printed: &[u8], major: u32, minor: u32) -> bool {
    let answer: Value = serde_json::from_slice(printed).unwrap_or_default();
    let versions = answer.get("supportedVersions").and_then(Value::as_array);
    let mut versions = versions
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter_map(version);
    versions.any(|one| one >= (major, minor))
}

/// What a result says about the pod's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub addresses: Vec<(IpAddr, u8)>,
    pub dns: Dns,
}

impl Outcome {
    /// Reads a result of any version for the interface of this name.
    pub fn read(result: &Value, interface: &str) -> Result<Outcome, ResultError> {
        let mut addresses = Vec::new();
        for (at, address) in claimed(result, interface)? {
            let text = address.as_str().unwrap_or_default();
            let parsed = parse_with_prefix(text).ok_or_else(|| ResultError::Field {
                at,
                found: excerpt(address.to_string().as_bytes()),
                wanted: "an address with a prefix such as 10.1.0.2/16",
            })?;
            addresses.push(parsed);
            if addresses.len() > MOST {
                return Err(ResultError::TooMany);
            }
        }
        Ok(Outcome {
            addresses,
            dns: dns(result.get("dns")),
        })
    }
}

/// The addresses of the result that belong to the interface, each with its place.
fn claimed<'a>(result: &'a Value, interface: &str) -> Result<Vec<(String, &'a Value)>, ResultError> {
    let mut all = Vec::new();
    // Versions 0.1 and 0.2 know one address of each family and no interfaces.
    for key in ["ip4", "ip6"] {
        if let Some(address) = result.get(key).and_then(|family| family.get("ip")) {
            all.push((format!("{key}.ip"), address));
        }
    }
    let Some(ips) = result.get("ips").filter(|ips| !ips.is_null()) else {
        return Ok(all);
    };
    let ips = ips.as_array().ok_or_else(|| ResultError::Field {
        at: "ips".to_owned(),
        found: excerpt(ips.to_string().as_bytes()),
        wanted: "a list",
    })?;
    let none = Vec::new();
    let interfaces = result
        .get("interfaces")
        .and_then(Value::as_array)
        .unwrap_or(&none);
    for (index, ip) in ips.iter().enumerate() {
        let at = format!("ips[{index}]");
        if let Some(number) = ip.get("interface").filter(|number| !number.is_null()) {
            let owner = number
                .as_u64()
                .and_then(|number| interfaces.get(usize::try_from(number).ok()?));
            let owner = owner.ok_or_else(|| ResultError::Field {
                at: format!("{at}.interface"),
                found: excerpt(number.to_string().as_bytes()),
                wanted: "the index of one of its interfaces",
            })?;
            let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
            // The node's own end of it, or the loopback.
            if text("name") != interface || text("sandbox").is_empty() {
                continue;
            }
        }
        all.push((format!("{at}.address"), ip.get("address").unwrap_or(&Value::Null)));
    }
    Ok(all)
}

fn dns(value: Option<&Value>) -> Dns {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let field = |key: &str| value.and_then(|dns| dns.get(key));
    let list = |key: &str| {
        let list = field(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(text).take(16).collect()
    };
    Dns {
        nameservers: list("nameservers"),
        domain: field("domain").and_then(text).filter(|domain| !domain.is_empty()),
        search: list("search"),
        options: list("options"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn addresses(result: Value) -> Result<Vec<String>, String> {
        let outcome = Outcome::read(&result, "eth0").map_err(|error| error.to_string())?;
        Ok(outcome
            .addresses
            .iter()
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect())
    }

    #[test]
    fn results_of_all_versions_are_read() {
        let now = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/proc/1/fd/3"},
                           {"name": "lo", "sandbox": "/proc/1/fd/3"}],
            "ips": [{"interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
                    {"interface": 2, "address": "fd00::5/64"},
                    {"interface": 3, "address": "127.0.0.1/8"},
                    {"interface": 0, "address": "10.1.0.1/16"},
                    {"address": "10.9.0.5/24"}],
            "dns": {"nameservers": ["10.1.0.1"], "domain": "", "search": ["a.org"]},
        });
        assert_eq!(
            addresses(now.clone()).unwrap(),
            ["10.1.0.5/16", "fd00::5/64", "10.9.0.5/24"]
        );
        let outcome = Outcome::read(&now, "eth0").unwrap();
        assert_eq!(
            (outcome.dns.nameservers, outcome.dns.domain),
            (vec!["10.1.0.1".to_owned()], None)
        );
        let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.5/16"}, "ip6": {"ip": "fd00::5/64"}});
        assert_eq!(addresses(old).unwrap(), ["10.1.0.5/16", "fd00::5/64"]);
        assert_eq!(
            addresses(json!({"cniVersion": "1.0.0", "ips": null})).unwrap(),
            [""; 0]
        );
    }

    #[test]
    fn what_is_not_a_result_is_told() {
        for (result, sentence) in [
            (json!({"ips": {}}), "the result's ips is {}, not a list"),
            (
                json!({"ips": [{"address": "10.1.0.5"}]}),
                "the result's ips[0].address is \"10.1.0.5\", not an address",
            ),
            (json!({"ips": [{}]}), "the result's ips[0].address is null"),
            (
                json!({"ips": [{"address": "10.1.0.5/8", "interface": 7}]}),
                "the result's ips[0].interface is 7, not",
            ),
            (json!({"ip4": {"ip": 5}}), "the result's ip4.ip is 5"),
        ] {
            let error = addresses(result).unwrap_err();
            assert!(error.starts_with(sentence), "{error}");
        }
        let many: Vec<Value> = (0..300).map(|_| json!({"address": "10.1.0.5/8"})).collect();
        assert_eq!(
            addresses(json!({"ips": many})).unwrap_err(),
            "the result has more than 256 addresses"
        );
        let garbage = parse(b"\x1b[2J<html>", "bad").unwrap_err().to_string();
        assert!(
            garbage.starts_with("plug-in bad printed no CNI result: "),
            "{garbage}"
        );
        assert!(garbage.ends_with("it printed: [2J<html>"), "{garbage}");
        assert!(
            parse(b"", "bad")
                .unwrap_err()
                .to_string()
                .ends_with("it printed: nothing")
        );
        assert!(parse(b"[]", "bad").is_err());
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(supports(br#"{"supportedVersions": ["0.4.0", "1.10.0"]}"#, 1, 1));
        assert!(!supports(br#"{"supportedVersions": ["0.4.0", "1.0.0"]}"#, 1, 1));
        assert!(!supports(b"garbage", 0, 0));
    }

    proptest! {
        #[test]
        fn l_7_any_bytes_are_a_result_or_refused(bytes: Vec<u8>, text in "\\PC*") {
            for printed in [bytes.as_slice(), text.as_bytes()] {
                if let Ok(value) = parse(printed, "p") {
                    let _ = Outcome::read(&value, "eth0");
                }
            }
        }
    }
}
