//! What a scheduler may ask of us beyond Mesos: versioned JSON in `ExecutorInfo.data`.
//!
//! ```json
//! {"podling": 1, "onFinish": "kill", "network": {…}, "checks": {…}}
//! ```
//!
//! Data without the key `podling` belongs to somebody else and is left alone. Data with it is ours, and then
//! every key must be known: a wish that is silently ignored is worse than a refusal.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::extra_checks::{self, ExtraChecks};

/// Our own wishes of a scheduler, for all groups of an executor. Absent means plain Mesos semantics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Extras {
    pub on_finish: OnFinish,
    /// As given; the network module knows what it means.
    pub network: Option<Value>,
    /// Checks beyond those of Mesos.
    pub checks: ExtraChecks,
}

/// What a member that finished well means for the rest of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFinish {
    /// The others go on, as in Mesos (G-01).
    #[default]
    Continue,
    /// Any end ends all.
    Kill,
}

/// Why extras cannot be obeyed; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("executor.data: {0}")]
pub struct ExtrasError(String);

/// The version of the format.
const VERSION: u64 = 1;

/// Keys that are reserved for what this executor cannot do yet.
const LATER: [&str; 4] = ["order", "conditions", "restart", "logs"];

impl Extras {
    pub fn parse(data: &[u8]) -> Result<Extras, ExtrasError> {
        let Ok(Value::Object(map)) = serde_json::from_slice(data) else {
            return Ok(Extras::default());
        };
        match map.get("podling") {
            None => return Ok(Extras::default()),
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(other) => {
                return Err(ExtrasError(format!(
                    "podling: this executor understands version {VERSION}, not {other}"
                )));
            }
        }
        let mut extras = Extras::default();
        for (key, value) in map {
            match key.as_str() {
                "podling" => {}
                "onFinish" => {
                    extras.on_finish = match value.as_str() {
                        Some("continue") => OnFinish::Continue,
                        Some("kill") => OnFinish::Kill,
                        _ => {
                            return Err(ExtrasError(format!(
                                "onFinish: must be \"continue\" or \"kill\", not {value}"
                            )));
                        }
                    }
                }
                "network" => extras.network = Some(value),
                "checks" => extras.checks = extra_checks::read(value).map_err(ExtrasError)?,
                later if LATER.contains(&later) => {
                    return Err(ExtrasError(format!(
                        "{later}: not supported yet by this executor"
                    )));
                }
                unknown => return Err(ExtrasError(format!("{unknown}: unknown key"))),
            }
        }
        Ok(extras)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(data: &str) -> String {
        Extras::parse(data.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn data_of_others_means_plain_mesos() {
        for data in [
            "",
            "hello",
            "[1]",
            "{",
            "null",
            "{\"marathon\":1,\"onFinish\":\"kill\"}",
            "\u{0}\u{1}",
        ] {
            assert_eq!(Extras::parse(data.as_bytes()), Ok(Extras::default()), "{data}");
        }
    }

    #[test]
    fn every_key_that_is_known_arrives() {
        let extras =
            Extras::parse(br#"{"podling":1,"onFinish":"kill","network":{"mode":"bridge"}}"#).unwrap();
        assert_eq!(extras.on_finish, OnFinish::Kill);
        assert_eq!(extras.network, Some(serde_json::json!({"mode": "bridge"})));
        assert_eq!(Extras::parse(br#"{"podling":1}"#), Ok(Extras::default()));
        let checks = br#"{"podling":1,"checks":{"web":[{"kind":"health","tcp":{"port":80}}]}}"#;
        assert_eq!(Extras::parse(checks).unwrap().checks["web"].len(), 1);
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_name() {
        assert_eq!(
            error(r#"{"podling":1,"onfinish":"kill"}"#),
            "executor.data: onfinish: unknown key"
        );
        assert_eq!(
            error(r#"{"podling":1,"restart":{}}"#),
            "executor.data: restart: not supported yet by this executor"
        );
        assert_eq!(
            error(r#"{"podling":1,"checks":{"web":[{"kind":"health"}]}}"#),
            "executor.data: checks.web[0]: needs exactly one of http, tcp and exec"
        );
        assert!(error(r#"{"podling":2}"#).contains("version 1, not 2"));
        assert!(error(r#"{"podling":"1"}"#).contains("not \"1\""));
        assert!(error(r#"{"podling":1,"onFinish":true}"#).contains("onFinish: must be"));
    }

    #[test]
    fn l_07_deep_nesting_is_not_followed() {
        let deep = format!(
            "{{\"podling\":1,\"network\":{}1{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(Extras::parse(deep.as_bytes()), Ok(Extras::default()));
    }
}
