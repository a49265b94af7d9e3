//! Names: of pods, of their instances, and of what Mesos sees of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The id of a pod: an absolute path such as `/team/web`, kept without doubled or trailing slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId(String);

/// Why a text is no pod id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPodId {
    #[error(
        "every part of the path holds lower-case letters, digits, dots and hyphens, and neither begins nor ends with a \
         hyphen or dot"
    )]
    Pattern,
    #[error("Path needs to be absolute")]
    Relative,
    #[error("Path must contain at least one path element")]
    Empty,
    #[error("must not end with any of the following reserved keywords: restart, tasks, versions, ., ..")]
    Reserved,
    #[error("a path is at most 255 characters long")]
    TooLong,
}

/// Task and executor ids hold the path and must stay under Mesos' 255 bytes; this leaves room for the rest.
const MAX_PATH: usize = 255;

impl PodId {
    /// Stands in for an id that broke a rule, so that the rest of the definition is still looked at.
    pub(super) fn unusable() -> Self {
        PodId("/".to_owned())
    }

    /// `team_web` of `/team/web`: the form that may stand in ids of tasks and executors.
    pub fn safe(&self) -> String {
        self.0.trim_start_matches('/').replace('/', "_")
    }

    /// The name services are found under: `web.team` of `/team/web`.
    pub fn discovery_name(&self) -> String {
        let mut parts: Vec<&str> = self.0.split('/').filter(|part| !part.is_empty()).collect();
        parts.reverse();
        parts.join(".")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

impl FromStr for PodId {
    type Err = BadPodId;

    fn from_str(text: &str) -> Result<Self, BadPodId> {
        if text.len() > MAX_PATH {
            return Err(BadPodId::TooLong);
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        let dots = |part: &str| part == ".." || part == ".";
        if parts
            .iter()
            .any(|part| !dots(part) && !part.split('.').all(is_label))
        {
            return Err(BadPodId::Pattern);
        }
        if !text.starts_with('/') {
            return Err(BadPodId::Relative);
        }
        match parts.last() {
            None => Err(BadPodId::Empty),
            Some(&("restart" | "tasks" | "versions" | "." | "..")) => Err(BadPodId::Reserved),
            // A path that climbs is relative in spirit: it names another pod than it shows.
            Some(_) if parts.iter().any(|part| dots(part)) => Err(BadPodId::Relative),
            Some(_) => Ok(PodId(format!("/{}", parts.join("/")))),
        }
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for PodId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PodId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// One running copy of a pod, over all its incarnations: `team_web.instance-<uuid>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    safe_path: String,
    uuid: Uuid,
}

const INSTANCE: &str = ".instance-";

impl InstanceId {
    pub fn new(pod: &PodId, uuid: Uuid) -> Self {
        InstanceId {
            safe_path: pod.safe(),
            uuid,
        }
    }

    /// The pod's path as task ids carry it; see [`PodId::safe`].
    pub fn safe_path(&self) -> &str {
        &self.safe_path
    }

    /// The executor keeps its id over all incarnations of the instance.
    pub fn executor_id(&self) -> String {
        format!("instance-{}.{}", self.safe_path, self.uuid)
    }

    /// The instance an executor runs; `None` for one that is not ours.
    pub fn of_executor(executor_id: &str) -> Option<Self> {
        let (safe_path, uuid) = executor_id.strip_prefix("instance-")?.rsplit_once('.')?;
        let uuid = Uuid::try_parse(uuid).ok()?;
        (!safe_path.is_empty() && safe_path.len() <= MAX_PATH).then(|| InstanceId {
            safe_path: safe_path.to_owned(),
            uuid,
        })
    }

    pub fn task_id(&self, container: &str, incarnation: u32) -> String {
        format!("{self}.{container}.{incarnation}")
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{INSTANCE}{}", self.safe_path, self.uuid)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance id has the form <pod>.instance-<uuid>")]
pub struct BadInstanceId;

impl FromStr for InstanceId {
    type Err = BadInstanceId;

    fn from_str(text: &str) -> Result<Self, BadInstanceId> {
        let (path, uuid) = text.rsplit_once(INSTANCE).ok_or(BadInstanceId)?;
        let uuid = Uuid::try_parse(uuid).map_err(|_| BadInstanceId)?;
        if path.is_empty() || path.len() > MAX_PATH {
            return Err(BadInstanceId);
        }
        Ok(InstanceId {
            safe_path: path.to_owned(),
            uuid,
        })
    }
}

/// What a task id says: instance, container, incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskName {
    pub instance: InstanceId,
    pub container: String,
    pub incarnation: u32,
}

/// `None` for a task that is not one of ours. Container names hold no dots, so the id splits from the right.
impl TaskName {
    pub fn parse(task_id: &str) -> Option<Self> {
        let (rest, incarnation) = task_id.rsplit_once('.')?;
        let (instance, container) = rest.rsplit_once('.')?;
        Some(TaskName {
            instance: instance.parse().ok()?,
            container: container.to_owned(),
            incarnation: incarnation.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6f1b2c3e-0b1a-11ee-8f7a-0242ac110002";

    #[test]
    fn ids_are_kept_without_superfluous_slashes() {
        for (text, id) in [
            ("/a", "/a"),
            ("//team//web/", "/team/web"),
            ("/a.b/c-d", "/a.b/c-d"),
        ] {
            assert_eq!(text.parse::<PodId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn what_is_no_pod_id_says_why() {
        for (text, why) in [
            ("relative", BadPodId::Relative),
            ("/", BadPodId::Empty),
            ("", BadPodId::Relative),
            ("/Upper", BadPodId::Pattern),
            ("/-a", BadPodId::Pattern),
            ("/a-", BadPodId::Pattern),
            ("/a_b", BadPodId::Pattern),
            ("/a\0b", BadPodId::Pattern),
            ("/a..b", BadPodId::Pattern),
            ("/a/versions", BadPodId::Reserved),
            ("/a/..", BadPodId::Reserved),
            ("/a/../b", BadPodId::Relative),
        ] {
            assert_eq!(text.parse::<PodId>(), Err(why), "{text:?}");
        }
        assert_eq!(
            format!("/{}", "a".repeat(255)).parse::<PodId>(),
            Err(BadPodId::TooLong)
        );
    }

    #[test]
    fn ids_for_mesos_follow_from_the_path_and_lead_back() {
        let pod: PodId = "/team/web".parse().unwrap();
        let instance = InstanceId::new(&pod, Uuid::parse_str(UUID).unwrap());
        assert_eq!(instance.to_string(), format!("team_web.instance-{UUID}"));
        assert_eq!(instance.executor_id(), format!("instance-team_web.{UUID}"));
        assert_eq!(instance.to_string().parse::<InstanceId>().as_ref(), Ok(&instance));
        assert_eq!(
            InstanceId::of_executor(&instance.executor_id()).as_ref(),
            Some(&instance)
        );
        for foreign in [
            "",
            "default",
            "instance-",
            "instance-web.7",
            &format!("instance-.{UUID}"),
        ] {
            assert_eq!(InstanceId::of_executor(foreign), None, "{foreign}");
        }
        let task = instance.task_id("nginx", 3);
        assert_eq!(task, format!("team_web.instance-{UUID}.nginx.3"));
        let name = TaskName::parse(&task).unwrap();
        assert_eq!(
            (name.instance, name.container.as_str(), name.incarnation),
            (instance, "nginx", 3)
        );
        assert_eq!(pod.discovery_name(), "web.team");
    }

    #[test]
    fn foreign_task_ids_are_not_ours() {
        for id in [
            "",
            "a",
            "a.b.c",
            "web.instance-1.nginx.1",
            "x.instance-zz.c.1",
            &format!("p.instance-{UUID}.c.x"),
        ] {
            assert_eq!(TaskName::parse(id), None, "{id}");
        }
    }
}
