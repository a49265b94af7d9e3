//! What must hold for any definition: the bodies of the fuzz targets in `fuzz/`, which the unit tests run as well.
#![allow(clippy::panic)]

use serde_json::Value;
use uuid::Uuid;

use super::{
    InstanceId, Pod, Profile, Version, read,
    task_group::{Allocation, Delivery, Launch, Options, Target},
};
use crate::{group::validate, mesos::v1};

/// A definition is refused, or it is the same when it is written and read again, and its task group is one that our
/// own executor takes.
pub fn definition(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let profile = Profile::default();
    let Ok(definition) = read(&value, &profile) else {
        return;
    };
    let written = serde_json::to_value(&definition.pod).unwrap_or_default();
    match read(&written, &profile) {
        Ok(again) => assert_eq!(again.pod, definition.pod, "{written}"),
        Err(violations) => panic!("what was accepted is refused: {violations}: {written}"),
    }
    let group = launch(&definition.pod);
    let faults = validate::group(&group.task_group.tasks, &group.executor);
    assert!(
        faults.is_empty(),
        "accepted, and cannot run: {}: {written}",
        faults[0]
    );
}

/// As a scheduler would send it, with as many resources as it wants.
fn launch(pod: &Pod) -> v1::offer::operation::LaunchGroup {
    let scalar = |name: &str, value: f64| v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    };
    let wants = |cpus, mem, disk| vec![scalar("cpus", cpus), scalar("mem", mem), scalar("disk", disk)];
    let executor = &pod.executor_resources;
    let endpoints = pod.containers.iter().flat_map(|container| &container.endpoints);
    let ports = endpoints.filter_map(|endpoint| Some((endpoint.name.clone(), endpoint.host_port?)));
    let target = Target {
        framework: v1::FrameworkId {
            value: "F".to_owned(),
        },
        agent: v1::AgentId {
            value: "A".to_owned(),
        },
        hostname: "host".to_owned(),
        allocation: Allocation {
            executor: wants(executor.cpus, executor.mem, executor.disk),
            containers: pod
                .containers
                .iter()
                .map(|container| &container.resources)
                .map(|wanted| wants(wanted.cpus, wanted.mem, wanted.disk))
                .collect(),
            ports: Vec::new(),
            host_ports: ports.map(|(name, port)| (name, port.max(1024))).collect(),
        },
    };
    let options = Options {
        delivery: Delivery::Own(Box::default()),
        variable_prefix: String::new(),
        bridge_name: "mesos-bridge".to_owned(),
    };
    let instance = InstanceId::new(&pod.id, Uuid::nil());
    Launch {
        pod,
        version: Version::EPOCH,
        instance: &instance,
        incarnation: u32::MAX,
        target: &target,
        options: &options,
    }
    .operation()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::tests::nearly;

    fn rich() -> Vec<u8> {
        json!({"id": "/a/b", "labels": {"l": "v"}, "environment": {"E": "x"}, "user": "nobody",
            "containers": [{"name": "c", "resources": {"cpus": 0.1, "mem": 32, "disk": 1},
                "exec": {"command": {"shell": "sleep 1"}}, "volumeMounts": [{"name": "v", "mountPath": "p"}],
                "endpoints": [{"name": "e", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"]}]}],
            "volumes": [{"name": "v"}], "networks": [{"mode": "container", "name": "n"}],
            "scaling": {"kind": "fixed", "instances": 2},
            "scheduling": {"backoff": {"backoff": 1, "backoffFactor": 1.5, "maxLaunchDelay": 60},
                "placement": {"acceptedResourceRoles": ["*"]}, "killSelection": "OLDEST_FIRST"}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn the_rich_one_is_accepted() {
        let value: Value = serde_json::from_slice(&rich()).unwrap();
        read(&value, &Profile::default()).unwrap_or_else(|violations| panic!("{violations}"));
        definition(&rich());
    }

    proptest! {
        #[test]
        fn definitions(bytes in nearly(rich())) {
            definition(&bytes);
        }

        /// Each text and number of a good definition once replaced by something else.
        #[test]
        fn definitions_with_other_values(place in 0usize..60, text in "\\PC{0,300}", number: f64, which: bool) {
            let mut value: Value = serde_json::from_slice(&rich()).unwrap();
            let mut left = place;
            replace(&mut value, &mut left, &if which { json!(text) } else { json!(number) });
            definition(value.to_string().as_bytes());
        }
    }

    fn replace(value: &mut Value, left: &mut usize, by: &Value) {
        match value {
            Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, left, by)),
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, left, by)),
            _ => {
                if *left == 0 {
                    *value = by.clone();
                }
                *left = left.wrapping_sub(1);
            }
        }
    }
}
