//! Which pod, and what of it, the rest of a URL means.
//!
//! Clients are sloppy: `/v2/pods/team/web`, `/v2/pods//team/web`, `/v2/pods/team/web/`, `/v2/pods//team/web/::status`
//! and percent-encoded forms all mean the same pod.

use crate::pod::{InstanceId, PodId, id::BadPodId};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    AllStatuses,
    Pod(PodId),
    Status(PodId),
    Versions(PodId),
    /// Not parsed yet: what is no date is told apart from what does not exist.
    Version(PodId, String),
    Instances(PodId),
    Instance(PodId, InstanceId),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadTarget {
    #[error("{0}")]
    Pod(#[from] BadPodId),
    #[error("{0}")]
    Instance(#[from] crate::pod::id::BadInstanceId),
    #[error("there is no `::{0}` of a pod")]
    Unknown(String),
}

/// `rest`: what follows `/v2/pods/`, already percent-decoded.
pub(super) fn parse(rest: &str) -> Result<Target, BadTarget> {
    let (id, part) = match rest.split_once("::") {
        None => (rest, None),
        Some((id, part)) => (id, Some(part.trim_end_matches('/'))),
    };
    let id = id.trim_matches('/');
    if id.is_empty() && part == Some("status") {
        return Ok(Target::AllStatuses);
    }
    let id: PodId = format!("/{id}").parse()?;
    let Some(part) = part else {
        return Ok(Target::Pod(id));
    };
    match part.split_once('/') {
        None => match part {
            "status" => Ok(Target::Status(id)),
            "versions" => Ok(Target::Versions(id)),
            "instances" => Ok(Target::Instances(id)),
            other => Err(BadTarget::Unknown(other.chars().take(40).collect())),
        },
        Some(("versions", version)) => Ok(Target::Version(id, version.to_owned())),
        Some(("instances", instance)) => Ok(Target::Instance(id, instance.parse()?)),
        Some((other, _)) => Err(BadTarget::Unknown(other.chars().take(40).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> PodId {
        "/team/web".parse().unwrap()
    }

    #[test]
    fn every_way_clients_write_a_pod_means_that_pod() {
        for rest in ["team/web", "/team/web", "team/web/", "//team/web//"] {
            assert_eq!(parse(rest), Ok(Target::Pod(web())), "{rest}");
        }
        for rest in ["team/web::status", "/team/web/::status", "team/web::status/"] {
            assert_eq!(parse(rest), Ok(Target::Status(web())), "{rest}");
        }
        assert_eq!(parse("::status"), Ok(Target::AllStatuses));
        assert_eq!(parse("/::status"), Ok(Target::AllStatuses));
        assert_eq!(parse("team/web::versions/"), Ok(Target::Versions(web())));
        let version = Target::Version(web(), "2017-01-03T18:21:19.31Z".to_owned());
        assert_eq!(parse("team/web::versions/2017-01-03T18:21:19.31Z"), Ok(version));
        assert_eq!(parse("team/web::instances"), Ok(Target::Instances(web())));
        let id = "team_web.instance-6f1b2c3e-0b1a-11ee-8f7a-0242ac110002";
        let instance = Target::Instance(web(), id.parse().unwrap());
        assert_eq!(parse(&format!("team/web::instances/{id}")), Ok(instance));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        assert_eq!(
            parse("a::nonsense"),
            Err(BadTarget::Unknown("nonsense".to_owned()))
        );
        assert_eq!(parse("A"), Err(BadTarget::Pod(BadPodId::Pattern)));
        assert_eq!(parse("::versions"), Err(BadTarget::Pod(BadPodId::Empty)));
        assert!(matches!(parse("a::instances/7"), Err(BadTarget::Instance(_))));
    }
}
