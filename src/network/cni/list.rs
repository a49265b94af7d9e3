//! Configuration lists: found by the network's name in the directories that the operator named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// More than any list has; protects against a wrong file in the directory.
const FILE_LIMIT: u64 = 1 << 20;
const MOST_PLUGINS: usize = 64;

/// A network as a chain of plug-ins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List {
    pub name: String,
    pub cni_version: String,
    pub disable_check: bool,
    pub disable_gc: bool,
    pub plugins: Vec<Map<String, Value>>,
}

/// Why a file is not a usable list.
#[derive(Debug, thiserror::Error)]
#[error("CNI configuration {}: {what}", path.display())]
pub struct ListError {
    pub path: PathBuf,
    pub what: String,
}

/// Can this plug-in make use of that capability?
pub(super) fn can(plugin: &Map<String, Value>, capability: &str) -> bool {
    let capabilities = plugin.get("capabilities").and_then(Value::as_object);
    capabilities.and_then(|all| all.get(capability)) == Some(&Value::Bool(true))
}

impl List {
    /// Reads a list, or a single plug-in's configuration as a list of one.
    pub fn read(value: Value) -> Result<List, String> {
        let Value::Object(mut list) = value else {
            return Err("expected an object".to_owned());
        };
        let text = |key: &str| match list.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{key}: expected a string")),
        };
        let name = text("name")?.unwrap_or_default();
        crate::network::config::check_network_name(&name).map_err(|what| format!("name: {what}"))?;
        let cni_version = text("cniVersion")?.unwrap_or_else(|| "0.2.0".to_owned());
        if version(&cni_version).is_none() {
            return Err(format!(
                "cniVersion: `{cni_version}` is not a version such as 1.0.0"
            ));
        }
        // The specification has them as booleans, its own library also reads them from strings.
        let flag = |key: &str| {
            matches!(list.get(key), Some(Value::Bool(true))) || list.get(key) == Some(&"true".into())
        };
        let (disable_check, disable_gc) = (flag("disableCheck"), flag("disableGC"));
        let plugins = match list.remove("plugins") {
            Some(Value::Array(plugins)) => plugins,
            Some(_) => return Err("plugins: expected a list".to_owned()),
            None => vec![Value::Object(list)],
        };
        if plugins.is_empty() || plugins.len() > MOST_PLUGINS {
            return Err(format!("plugins: expected 1 to {MOST_PLUGINS}"));
        }
        let mut checked = Vec::new();
        for (index, plugin) in plugins.into_iter().enumerate() {
            let Value::Object(plugin) = plugin else {
                return Err(format!("plugins[{index}]: expected an object"));
            };
            let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind.is_empty() || kind.contains(['/', '\0']) || kind.starts_with('.') {
                return Err(format!("plugins[{index}].type: expected the name of a plug-in"));
            }
            checked.push(plugin);
        }
        Ok(List {
            name,
            cni_version,
            disable_check,
            disable_gc,
            plugins: checked,
        })
    }

    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        version(&self.cni_version).is_some_and(|own| own >= (major, minor))
    }

    /// Does anyone in the chain publish ports? Mesos' own port mapper reads them from `args`.
    pub fn can_publish(&self) -> bool {
        let mesos = |plugin: &Map<String, Value>| {
            plugin.get("type").and_then(Value::as_str) == Some("mesos-cni-port-mapper")
        };
        self.plugins
            .iter()
            .any(|plugin| can(plugin, "portMappings") || mesos(plugin))
    }
}

/// Major and minor.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??))
}

/// The lists of a node, read afresh at every look: operators change them under running executors.
#[derive(Debug, Clone)]
pub struct Lists {
    dirs: Vec<PathBuf>,
}

impl Lists {
    pub fn new(dirs: &[PathBuf]) -> Lists {
        Lists { dirs: dirs.to_vec() }
    }

    /// The first list of this name, in the order of directories and file names.
    pub fn find(&self, name: &str) -> Option<List> {
        self.iter().flatten().find(|list| list.name == name)
    }

    /// All lists, or why a file is not one.
    pub fn iter(&self) -> impl Iterator<Item = Result<List, ListError>> {
        self.dirs.iter().flat_map(|dir| {
            let mut files: Vec<PathBuf> = fs::read_dir(dir)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            files.retain(|path| {
                let extension = path.extension().and_then(|extension| extension.to_str());
                matches!(extension, Some("conflist" | "conf" | "json"))
            });
            files.sort();
            files.into_iter().map(|path| read_file(&path))
        })
    }
}

fn read_file(path: &Path) -> Result<List, ListError> {
    let fail = |what: String| ListError {
        path: path.to_owned(),
        what,
    };
    let size = fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    if !size.is_file() || size.len() > FILE_LIMIT {
        return Err(fail("is not a file of at most 1 MiB".to_owned()));
    }
    let text = fs::read(path).map_err(|error| fail(error.to_string()))?;
    let value = serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
    List::read(value).map_err(fail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_and_single_plugins_are_read() {
        let list = List::read(json!({
            "cniVersion": "1.0.0", "name": "front", "disableCheck": true,
            "plugins": [{"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": true}}],
        }))
        .unwrap();
        assert!(list.can_publish() && list.disable_check && list.at_least(0, 4) && !list.at_least(1, 1));
        let one = List::read(json!({"name": "one", "type": "ptp", "mtu": 1400})).unwrap();
        assert!(!one.can_publish() && !one.at_least(0, 3));
        assert_eq!(one.plugins[0]["mtu"], 1400);
        let mesos = json!({"name": "m", "type": "mesos-cni-port-mapper", "delegate": {"type": "bridge"}});
        assert!(List::read(mesos).unwrap().can_publish());
    }

    #[test]
    fn bad_lists_name_their_place() {
        for (list, sentence) in [
            (json!([]), "expected an object"),
            (json!({"type": "x"}), "name: a network's name is"),
            (json!({"name": "../x", "type": "x"}), "name: a network's name is"),
            (
                json!({"name": "x", "cniVersion": 1, "type": "x"}),
                "cniVersion: expected a string",
            ),
            (
                json!({"name": "x", "cniVersion": "new", "type": "x"}),
                "cniVersion: `new` is not",
            ),
            (json!({"name": "x", "plugins": {}}), "plugins: expected a list"),
            (json!({"name": "x", "plugins": []}), "plugins: expected 1 to 64"),
            (
                json!({"name": "x", "plugins": [1]}),
                "plugins[0]: expected an object",
            ),
            (
                json!({"name": "x", "plugins": [{"type": "../../bin/sh"}]}),
                "plugins[0].type: expected the name",
            ),
            (
                json!({"name": "x", "plugins": [{"type": ".."}]}),
                "plugins[0].type: expected the name",
            ),
            (json!({"name": "x"}), "plugins[0].type: expected the name"),
        ] {
            let error = List::read(list).unwrap_err();
            assert!(error.starts_with(sentence), "{error}");
        }
    }

    #[test]
    fn the_first_file_with_the_name_counts_and_broken_ones_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("20.conflist", r#"{"name": "a", "plugins": [{"type": "late"}]}"#);
        write("10.conflist", r#"{"name": "a", "plugins": [{"type": "early"}]}"#);
        write("05.conf", "{ not json");
        write("00.txt", r#"{"name": "a", "type": "ignored"}"#);
        let lists = Lists::new(&[dir.path().join("missing"), dir.path().to_owned()]);
        assert_eq!(lists.find("a").unwrap().plugins[0]["type"], "early");
        assert!(lists.find("b").is_none());
        assert_eq!(lists.iter().filter(Result::is_err).count(), 1);
    }
}
