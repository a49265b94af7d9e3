//! Pods with checks: stable when they are well, and upgraded no faster than that.

use serde_json::json;

use super::{
    super::{
        status::{InstanceState, Overall},
        *,
    },
    world::*,
};
use crate::{
    mesos::v1::{self, TaskState},
    pod::{self, Pod, Profile},
};

fn checked(instances: usize, command: &str, minimum: f64) -> Pod {
    let check = json!({"exec": {"command": {"shell": "true"}}});
    let definition = json!({"id": "/p", "scaling": {"kind": "fixed", "instances": instances},
        "containers": [
            {"name": "a", "exec": {"command": {"shell": command}}, "resources": {"cpus": 0.4, "mem": 32}, "healthCheck": check},
            {"name": "b", "exec": {"command": {"shell": command}}, "resources": {"cpus": 0.4, "mem": 32}}],
        "scheduling": {"upgrade": {"minimumHealthCapacity": minimum, "maximumOverCapacity": 0},
            "backoff": {"backoff": 1, "backoffFactor": 1.15, "maxLaunchDelay": 60}}});
    pod::read(&definition, &Profile::default())
        .unwrap_or_else(|violations| panic!("{violations}"))
        .pod
}

impl World {
    /// Every running `a` that has not said anything yet, or all of them, say how they are.
    fn say(&mut self, healthy: bool, message: &str) {
        for id in self.live() {
            if id.contains(".a.") {
                let update = v1::TaskStatus {
                    healthy: Some(healthy),
                    message: Some(message.to_owned()),
                    ..status(&id, TaskState::TaskRunning)
                };
                self.step(Event::Update(Box::new(update)));
            }
        }
    }

    fn old(&self, command: &str) -> usize {
        let instances = self
            .core
            .all_instances()
            .filter(|instance| !instance.is_scheduled());
        let pods = instances.filter(|instance| {
            let state = &self.core.pods[&instance.pod.safe()];
            serde_json::to_string(&**state.edition_of(instance))
                .unwrap()
                .contains(command)
        });
        pods.filter(|instance| instance.condition == Condition::Running)
            .count()
    }
}

#[test]
fn a_checked_pod_is_stable_only_when_it_has_said_that_it_is_well() {
    let mut world = World::new();
    world.connect();
    world.command(Command::Create(checked(2, "x", 1.0))).unwrap();
    world.settle();
    let state = world.state("/p").unwrap();
    assert_eq!(state.status, Overall::Degraded);
    let instance = &state.instances[0];
    assert_eq!(instance.status, InstanceState::Degraded);
    assert_eq!(
        instance.message.as_deref(),
        Some("at least one container is not healthy")
    );
    let condition = &instance.containers[0].conditions[0];
    assert_eq!(
        (condition.value, condition.reason),
        ("false", "health-unreported-by-mesos")
    );
    assert_eq!(world.core.deployments().count(), 1, "it waits for health");

    world.say(true, "well");
    world.settle();
    let state = world.state("/p").unwrap();
    assert_eq!(state.status, Overall::Stable);
    let condition = &state.instances[0].containers[0].conditions[0];
    assert_eq!(
        (condition.value, condition.reason),
        ("true", "health-reported-by-mesos")
    );
    assert!(state.instances[0].containers[1].conditions.is_empty());
    assert_eq!(world.core.deployments().count(), 0);

    world.say(false, "GET / on port 80 → 503 after 2 ms, 1st of 3 failures");
    let state = world.state("/p").unwrap();
    assert_eq!(state.status, Overall::Degraded);
    assert_eq!(
        state.instances[0].containers[0].message.as_deref(),
        Some("GET / on port 80 → 503 after 2 ms, 1st of 3 failures")
    );
}

#[test]
fn an_upgrade_replaces_no_more_than_what_has_become_well() {
    let mut world = World::new();
    world.connect();
    world.command(Command::Create(checked(4, "old", 0.5))).unwrap();
    world.settle();
    world.say(true, "well");
    world.settle();
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);

    let update = Command::Update {
        pod: checked(4, "new", 0.5),
        force: false,
    };
    world.command(update).unwrap();
    world.settle();
    assert_eq!(
        (world.old("old"), world.old("new")),
        (2, 2),
        "half of them serve until the first of the new ones are well"
    );
    world.settle();
    assert_eq!((world.old("old"), world.old("new")), (2, 2));
    world.say(true, "well");
    world.settle();
    assert_eq!((world.old("old"), world.old("new")), (0, 4));
    assert_eq!(world.core.deployments().count(), 1);
    world.say(true, "well");
    world.settle();
    assert_eq!(world.core.deployments().count(), 0);
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
}

#[test]
fn what_has_finished_need_not_be_well() {
    let mut world = World::new();
    world.connect();
    world.command(Command::Create(checked(1, "x", 1.0))).unwrap();
    world.settle();
    world.say(false, "not yet");
    let a = world.live().into_iter().find(|id| id.contains(".a.")).unwrap();
    world.becomes(&a, TaskState::TaskFinished);
    world.round();
    assert_eq!(world.state("/p").unwrap().status, Overall::Stable);
}
