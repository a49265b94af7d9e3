//! Values that do not fit, one by one.

use super::*;

/// Section 5: shape violations, with Marathon's message id.
#[test]
fn each_wrong_shape_is_named_with_its_place_and_key() {
    for (pointer, value, place, key) in [
        ("/id", json!(7), "/id", "error.expected.jsstring"),
        ("/id", json!("/Upper"), "/id", "error.pattern"),
        ("/id", Value::Null, "/id", "error.path.missing"),
        ("/containers", json!({}), "/containers", "error.expected.jsarray"),
        (
            "/containers/0",
            json!(true),
            "/containers(1)",
            "error.expected.jsobject",
        ),
        (
            "/containers/0/name",
            json!("Upper"),
            "/containers(0)/name",
            "error.pattern",
        ),
        (
            "/containers/0/name",
            json!("a".repeat(64)),
            "/containers(0)/name",
            "error.maxLength",
        ),
        (
            "/containers/0/name",
            json!(""),
            "/containers(0)/name",
            "error.minLength",
        ),
        (
            "/containers/0/resources",
            Value::Null,
            "/containers(0)/resources",
            "error.path.missing",
        ),
        (
            "/containers/0/resources/cpus",
            json!("1"),
            "/containers(0)/resources/cpus",
            "error.expected.jsnumber",
        ),
        (
            "/containers/0/resources/cpus",
            json!(0),
            "/containers(0)/resources/cpus",
            "error.min",
        ),
        (
            "/containers/0/resources/gpus",
            json!(1.5),
            "/containers(0)/resources/gpus",
            "error.expected.int",
        ),
        (
            "/containers/0/tty",
            json!("yes"),
            "/containers(0)/tty",
            "error.expected.jsboolean",
        ),
        (
            "/containers/0/exec",
            json!({}),
            "/containers(0)/exec/command",
            "error.path.missing",
        ),
        (
            "/containers/0/exec",
            json!({"command": {}}),
            "/containers(0)/exec/command",
            "error.path.missing",
        ),
        (
            "/containers/0/exec",
            json!({"command": {"shell": "a", "argv": ["b"]}}),
            "/containers(0)/exec/command",
            "error.pattern",
        ),
        (
            "/containers/0/exec",
            json!({"command": {"argv": []}}),
            "/containers(0)/exec/command/argv",
            "error.minLength",
        ),
        (
            "/containers/0/exec",
            json!({"command": {"shell": "a\0b"}}),
            "/containers(0)/exec/command/shell",
            "error.pattern",
        ),
        (
            "/environment",
            json!({"A".repeat(255): "x"}),
            &format!("/environment/{}", "A".repeat(255)),
            "error.pattern",
        ),
        ("/labels", json!({"a": "b\0"}), "/labels/a", "error.pattern"),
        ("/labels", json!({"a\0": "b"}), "/labels/a\0", "error.pattern"),
        (
            "/containers/0/labels",
            json!({"a": "\0"}),
            "/containers(0)/labels/a",
            "error.pattern",
        ),
        ("/user", json!("a\0"), "/user", "error.pattern"),
        (
            "/containers/0/endpoints",
            json!([{"name": "a", "hostPort": 70_000}]),
            "/containers(0)/endpoints(0)/hostPort",
            "error.max",
        ),
        (
            "/containers/0/endpoints",
            json!([{"name": "a", "containerPort": 0}]),
            "/containers(0)/endpoints(0)/containerPort",
            "error.min",
        ),
        (
            "/containers/0/endpoints",
            json!([{"name": "a", "protocol": []}]),
            "/containers(0)/endpoints(0)/protocol",
            "error.minLength",
        ),
        (
            "/containers/0/image",
            json!({"kind": "OCI", "id": "x"}),
            "/containers(0)/image/kind",
            "error.unknown.enum.literal",
        ),
        (
            "/networks",
            json!([{"mode": "bridge"}]),
            "/networks(0)/mode",
            "error.unknown.enum.literal",
        ),
        (
            "/scaling",
            json!({"instances": 1}),
            "/scaling/kind",
            "error.path.missing",
        ),
        (
            "/scaling",
            json!({"kind": "Fixed"}),
            "/scaling",
            "error.unknown.enum.literal",
        ),
        (
            "/scaling",
            json!({"kind": "fixed", "instances": "2"}),
            "/scaling/instances",
            "error.expected.jsnumber",
        ),
        (
            "/scheduling",
            json!({"upgrade": {"minimumHealthCapacity": 1.1}}),
            "/scheduling/upgrade/minimumHealthCapacity",
            "error.max",
        ),
        (
            "/scheduling",
            json!({"unreachableStrategy": "off"}),
            "/scheduling/unreachableStrategy",
            "error.unknown.enum.literal",
        ),
        (
            "/environment",
            json!({"1BAD": "x"}),
            "/environment/1BAD",
            "error.pattern",
        ),
        (
            "/environment",
            json!({"A": 1}),
            "/environment/A",
            "error.expected.jsstring",
        ),
        (
            "/environment",
            json!({"A": {"secret": ""}}),
            "/environment/A/secret",
            "error.minLength",
        ),
        (
            "/executorResources",
            json!({"mem": 31}),
            "/executorResources/mem",
            "error.min",
        ),
        (
            "/secrets",
            json!("/fully/qualified/path/"),
            "/secrets",
            "error.expected.jsobject",
        ),
        (
            "/volumes",
            json!([{"name": "v", "host": 5}]),
            "/volumes(0)/host",
            "error.expected.jsstring",
        ),
        (
            "/version",
            json!("yesterday"),
            "/version",
            "error.expected.date.isoformat",
        ),
    ] {
        let violations = refused(&with(pointer, value.clone()));
        let found = violations.0.iter().any(|violation| {
            let slashed = violation.place.slashed();
            violation.kind == Kind::Shape { key }
                && (slashed == place || slashed.starts_with(&format!("{place}/")))
        });
        assert!(found, "{pointer} = {value}: {violations:?}");
    }
}
