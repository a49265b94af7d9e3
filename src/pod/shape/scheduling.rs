//! How many instances, where, when, and how they are replaced.

use serde_json::Value;

use super::{
    super::{Profile, model::*, reader::Node},
    SECONDS, bounded,
};

pub(super) fn scaling(node: Node<'_>) -> Option<Scaling> {
    let mut fields = node.object()?;
    let kind = fields.required("kind")?;
    if kind.string()? != "fixed" {
        kind.wrong("error.unknown.enum.literal", "only `fixed` is a kind of scaling");
        return None;
    }
    // Negative counts are a broken rule in Marathon, not a broken shape.
    let instances = match fields.optional("instances") {
        None => 1,
        Some(node) => {
            let count = node.integer(i64::MIN, i64::from(u32::MAX))?;
            match u32::try_from(count) {
                Ok(count) => count,
                Err(_) => {
                    node.rule(format!("got {count}, expected 0 or more"));
                    0
                }
            }
        }
    };
    // An echo of the seeds: accepted, without effect.
    fields.optional("maxInstances");
    Some(Scaling {
        kind: ScalingKind::Fixed,
        instances,
    })
}

pub(super) fn default_scheduling(profile: &Profile) -> Scheduling {
    Scheduling {
        backoff: default_backoff(profile),
        upgrade: Upgrade {
            minimum_health_capacity: 1.0,
            maximum_over_capacity: 1.0,
        },
        placement: Placement::default(),
        kill_selection: KillSelection::YoungestFirst,
        unreachable_strategy: default_unreachable(profile),
    }
}

fn default_backoff(profile: &Profile) -> Backoff {
    Backoff {
        backoff: 1.0,
        backoff_factor: 1.15,
        max_launch_delay: profile.max_launch_delay,
    }
}

fn default_unreachable(profile: &Profile) -> UnreachableStrategy {
    UnreachableStrategy::Replace {
        inactive_after_seconds: profile.inactive_after_seconds,
        expunge_after_seconds: profile.expunge_after_seconds,
    }
}

pub(super) fn scheduling(node: Node<'_>, profile: &Profile) -> Option<Scheduling> {
    let mut fields = node.object()?;
    let default = default_scheduling(profile);
    let backoff = fields.read("backoff", |node| {
        let mut fields = node.object()?;
        let default = default_backoff(profile);
        let mut seconds = |name, default| fields.read(name, |node| node.number(0.0, 1e9)).unwrap_or(default);
        Some(Backoff {
            backoff: seconds("backoff", default.backoff),
            backoff_factor: seconds("backoffFactor", default.backoff_factor),
            max_launch_delay: seconds("maxLaunchDelay", default.max_launch_delay),
        })
    });
    let upgrade = fields.read("upgrade", |node| {
        let mut fields = node.object()?;
        let mut share = |name| fields.read(name, |node| node.number(0.0, 1.0)).unwrap_or(1.0);
        Some(Upgrade {
            minimum_health_capacity: share("minimumHealthCapacity"),
            maximum_over_capacity: share("maximumOverCapacity"),
        })
    });
    let placement = fields.read("placement", |node| {
        let mut fields = node.object()?;
        Some(Placement {
            constraints: bounded(&mut fields, "constraints", constraint),
            accepted_resource_roles: bounded(&mut fields, "acceptedResourceRoles", |node| node.string()),
        })
    });
    let words = [
        ("YOUNGEST_FIRST", KillSelection::YoungestFirst),
        ("OLDEST_FIRST", KillSelection::OldestFirst),
    ];
    let kill_selection = fields.read("killSelection", |node| node.one_of(&words));
    let unreachable = fields.read("unreachableStrategy", |node| unreachable(node, profile));
    Some(Scheduling {
        backoff: backoff.unwrap_or(default.backoff),
        upgrade: upgrade.unwrap_or(default.upgrade),
        placement: placement.unwrap_or_default(),
        kill_selection: kill_selection.unwrap_or(default.kill_selection),
        unreachable_strategy: unreachable.unwrap_or(default.unreachable_strategy),
    })
}

fn unreachable(node: Node<'_>, profile: &Profile) -> Option<UnreachableStrategy> {
    if node.raw().is_string() {
        node.one_of(&[("disabled", ())])?;
        return Some(UnreachableStrategy::Disabled(Disabled::Disabled));
    }
    let mut fields = node.object()?;
    let mut seconds = |name, default| match fields.read(name, |node| node.integer(0, SECONDS)) {
        Some(seconds) => seconds.unsigned_abs(),
        None => default,
    };
    Some(UnreachableStrategy::Replace {
        inactive_after_seconds: seconds("inactiveAfterSeconds", profile.inactive_after_seconds),
        expunge_after_seconds: seconds("expungeAfterSeconds", profile.expunge_after_seconds),
    })
}

const OPERATORS: [(&str, Operator); 7] = [
    ("UNIQUE", Operator::Unique),
    ("CLUSTER", Operator::Cluster),
    ("GROUP_BY", Operator::GroupBy),
    ("LIKE", Operator::Like),
    ("UNLIKE", Operator::Unlike),
    ("MAX_PER", Operator::MaxPer),
    ("IS", Operator::Is),
];

/// An object, or the list form that apps use and the seeds' table names.
fn constraint(node: Node<'_>) -> Option<Constraint> {
    if let Value::Array(items) = node.raw() {
        if !(2..=3).contains(&items.len()) {
            node.wrong(
                "error.pattern",
                "a constraint in list form is [field, operator] or [field, operator, value]",
            );
            return None;
        }
        let mut field_name = None;
        let mut operator = None;
        let mut value = None;
        let mut index = 0;
        node.list(|item| {
            match index {
                0 => field_name = item.string(),
                1 => operator = item.one_of(&OPERATORS),
                _ => value = item.string(),
            }
            index += 1;
            Some(())
        })?;
        return Some(Constraint {
            field_name: field_name?,
            operator: operator?,
            value,
        });
    }
    let mut fields = node.object()?;
    let field_name = fields.required("fieldName").and_then(|node| node.string());
    let operator = fields
        .required("operator")
        .and_then(|node| node.one_of(&OPERATORS));
    let value = fields.read("value", |node| node.string());
    Some(Constraint {
        field_name: field_name?,
        operator: operator?,
        value,
    })
}
