//! Values that fit but break a rule, one by one.

use super::*;

/// Section 6: broken rules.
#[test]
fn each_broken_rule_is_named_with_its_place() {
    let container = |extra: Value| {
        let mut container = json!({"name": "b", "resources": {}, "exec": {"command": {"shell": "x"}}});
        container
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        container
    };
    let two = |extra: Value| json!([simple()["containers"][0], container(extra)]);
    let volume = json!([{"name": "v"}]);
    for (change, place, words) in [
        (json!({"id": "relative"}), "/id", "absolute"),
        (json!({"id": "/"}), "/id", "at least one path element"),
        (json!({"id": "/a/versions"}), "/id", "reserved keywords"),
        (json!({"user": ""}), "/user", "must not be empty"),
        (json!({"containers": []}), "/containers", "must not be empty"),
        (
            json!({"containers": two(json!({"name": "sleep1"}))}),
            "/containers",
            "unique",
        ),
        (
            json!({"containers": [{"name": "a", "resources": {}}]}),
            "/containers(0)",
            "nothing to run",
        ),
        (
            json!({"scaling": {"kind": "fixed", "instances": -1}}),
            "/scaling/instances",
            "got -1, expected 0 or more",
        ),
        (
            json!({"scaling": {"kind": "fixed", "instances": 10_001}}),
            "/scaling/instances",
            "got 10001, expected 10000 or fewer",
        ),
        (
            json!({"volumes": volume}),
            "/volumes(0)",
            "referenced by at least one container",
        ),
        (
            json!({"containers": two(json!({"volumeMounts": [{"name": "v", "mountPath": "x"}]}))}),
            "/containers(1)/volumeMounts(0)/name",
            "should exist",
        ),
        (
            json!({"volumes": volume, "containers": two(json!({"volumeMounts":
                [{"name": "v", "mountPath": "x"}, {"name": "v", "mountPath": "x/"}]}))}),
            "/containers(1)/volumeMounts(1)/mountPath",
            "volumeMounts[0] as well",
        ),
        (
            json!({"volumes": volume, "containers": two(json!({"volumeMounts": [{"name": "v", "mountPath": "a/../../x"}]}))}),
            "/containers(1)/volumeMounts(0)/mountPath",
            "..",
        ),
        (
            json!({"volumes": [{"name": "v"}, {"name": "v"}],
                "containers": two(json!({"volumeMounts": [{"name": "v", "mountPath": "x"}]}))}),
            "/volumes",
            "volume names must be unique",
        ),
        (
            json!({"environment": {"A": {"secret": "k"}}}),
            "/environment/A/secret",
            "undefined secret",
        ),
        (
            json!({"containers": two(json!({"image": {"kind": "DOCKER", "id": "x", "pullConfig": {"secret": "k"}}}))}),
            "/containers(1)/image/pullConfig",
            "existing secret",
        ),
        (
            json!({"networks": [{"mode": "host", "name": "x"}]}),
            "/networks",
            "may not have names",
        ),
        (
            json!({"networks": [{"mode": "container/bridge", "name": "x"}]}),
            "/networks",
            "may not have names",
        ),
        (
            json!({"networks": [{"name": "x"}, {"name": "x"}]}),
            "/networks",
            "Duplicate networks",
        ),
        (
            json!({"networks": [{"mode": "host"}, {"name": "x"}]}),
            "/networks",
            "single host network",
        ),
        (
            json!({"containers": two(json!({"endpoints": [{"name": "w", "containerPort": 80}]}))}),
            "/containers(1)/endpoints(0)/containerPort",
            "not allowed when using host-mode",
        ),
        (
            json!({"networks": [{"name": "n"}], "containers": two(json!({"endpoints": [{"name": "w"}]}))}),
            "/containers(1)/endpoints(0)/containerPort",
            "required when using container-mode",
        ),
        (
            json!({"networks": [{"name": "n"}],
                "containers": two(json!({"endpoints": [{"name": "w", "containerPort": 1, "networkNames": ["m"]}]}))}),
            "/containers(1)/endpoints(0)/networkNames(0)",
            "is not one of (n)",
        ),
        (
            json!({"networks": [{"name": "n"}, {"name": "m"}],
                "containers": two(json!({"endpoints": [{"name": "w", "containerPort": 1, "hostPort": 2}]}))}),
            "/containers(1)/endpoints(0)",
            "single item list",
        ),
        (
            json!({"containers": two(json!({"endpoints": [{"name": "w", "hostPort": 2}, {"name": "v", "hostPort": 2}]}))}),
            "/",
            "host ports must be unique",
        ),
        (
            json!({"containers": two(json!({"endpoints": [{"name": "w", "protocol": ["tcp", "tcp"]}]}))}),
            "/containers(1)/endpoints(0)/protocol",
            "Duplicate protocols",
        ),
        (
            json!({"containers": two(json!({"healthCheck": {"intervalSeconds": 2, "exec": {"command": {"shell": "x"}}}}))}),
            "/containers(1)/healthCheck/timeoutSeconds",
            "got 20, expected less than 2",
        ),
        (
            json!({"containers": two(json!({"healthCheck": {"http": {"endpoint": "zz"}}}))}),
            "/containers(1)/healthCheck/http/endpoint",
            "contained in the container endpoints",
        ),
        (
            json!({"networks": [{"name": "n"}],
                "containers": two(json!({"endpoints": [{"name": "w"}], "healthCheck": {"tcp": {"endpoint": "w"}}}))}),
            "/containers(1)/healthCheck/tcp/endpoint",
            "`w` has no port that could be checked",
        ),
        (
            json!({"containers": two(json!({"endpoints": [{"name": "w", "hostPort": 0}],
                "check": {"http": {"endpoint": "w", "scheme": "HTTPS"}}}))}),
            "/containers(1)/check/http/scheme",
            "healthCheck knows HTTPS",
        ),
        (
            json!({"containers": two(json!({"healthCheck": {}}))}),
            "/containers(1)/healthCheck",
            "Only one of http",
        ),
        (
            json!({"containers": two(json!({"resourceLimits": {"cpus": 0.5}}))}),
            "/containers(1)/resourceLimits/cpus",
            "greater than or equal to requested resource (1.0)",
        ),
        (
            json!({"containers": two(json!({"resourceLimits": {"mem": "much"}}))}),
            "/containers(1)/resourceLimits/mem",
            "'much' is an invalid resource limit",
        ),
        (
            json!({"legacySharedCgroups": true, "containers": two(json!({"resourceLimits": {"mem": "unlimited"}}))}),
            "/containers(1)/resourceLimits",
            "legacySharedCgroups",
        ),
        (
            json!({"containers": two(json!({"linuxInfo": {"seccomp": {"unconfined": false}}}))}),
            "/containers(1)/linuxInfo",
            "must be true when Profile is NOT defined",
        ),
        (
            json!({"linuxInfo": {"seccomp": {"unconfined": true}}}),
            "/linuxInfo",
            "not supported",
        ),
        (
            json!({"linuxInfo": {"ipcInfo": {"mode": "share_parent", "shmSize": 1}}}),
            "/linuxInfo",
            "shmSize can NOT be set",
        ),
        (
            json!({"scheduling": {"unreachableStrategy": {"inactiveAfterSeconds": 10, "expungeAfterSeconds": 5}}}),
            "/scheduling/unreachableStrategy/expungeAfterSeconds",
            "5 is below inactiveAfterSeconds",
        ),
        (
            json!({"scheduling": {"placement": {"constraints": [{"fieldName": "h", "operator": "MAX_PER", "value": "x"}]}}}),
            "/scheduling/placement/constraints(0)",
            "integer value",
        ),
        (
            json!({"scheduling": {"placement": {"acceptedResourceRoles": ["a b"]}}}),
            "/acceptedResourceRoles",
            "not the name of a role",
        ),
    ] {
        let mut pod = simple();
        pod.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let violations = refused(&pod);
        let found = violations.0.iter().any(|violation| {
            violation.kind == Kind::Rule
                && violation.place.slashed() == place
                && violation.message.contains(words)
        });
        assert!(found, "{change}: {violations:?}");
    }
}
