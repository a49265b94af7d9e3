use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pod::{self, Profile, Support};

fn profile() -> Profile {
    Profile {
        support: Support {
            images: true,
            gpus: true,
            ..Support::default()
        },
        ..Profile::default()
    }
}

fn pod(containers: serde_json::Value) -> Pod {
    let definition = json!({"id": "/p", "containers": containers});
    pod::read(&definition, &profile())
        .unwrap_or_else(|violations| panic!("{violations}"))
        .pod
}

fn container(cpus: f64, endpoints: serde_json::Value) -> serde_json::Value {
    json!({"name": format!("c{}", milli(cpus)), "resources": {"cpus": cpus, "mem": 10},
        "exec": {"command": {"shell": "x"}}, "endpoints": endpoints})
}

fn resource(name: &str, value: f64, role: Option<&str>) -> v1::Resource {
    let reservation = |role: &str| v1::resource::ReservationInfo {
        role: Some(role.to_owned()),
        ..Default::default()
    };
    v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        reservations: role.map(reservation).into_iter().collect(),
        ..Default::default()
    }
}

fn ports(begin: u64, end: u64) -> v1::Resource {
    v1::Resource {
        name: "ports".to_owned(),
        r#type: v1::value::Type::Ranges as i32,
        ranges: Some(v1::value::Ranges {
            range: vec![v1::value::Range { begin, end }],
        }),
        ..Default::default()
    }
}

fn offer(resources: Vec<v1::Resource>) -> v1::Offer {
    v1::Offer {
        id: v1::OfferId {
            value: "o".to_owned(),
        },
        hostname: "h".to_owned(),
        resources,
        ..Default::default()
    }
}

fn roomy(cpus: f64) -> Vec<v1::Resource> {
    vec![
        resource("cpus", cpus, None),
        resource("mem", 1e6, None),
        resource("disk", 1e6, None),
    ]
}

fn take(pod: &Pod, resources: Vec<v1::Resource>) -> Result<Allocation, Vec<Refused>> {
    Pool::new(&offer(resources)).take(pod, &mut Chance::new(1))
}

fn reasons(refused: Result<Allocation, Vec<Refused>>) -> Vec<Reason> {
    refused
        .unwrap_err()
        .iter()
        .map(|refused| refused.reason)
        .collect()
}

#[test]
fn executor_and_containers_each_get_their_piece() {
    let allocation = take(
        &pod(json!([container(0.5, json!([])), container(1.0, json!([]))])),
        roomy(1.6),
    )
    .unwrap();
    let amount = |resources: &[v1::Resource], name: &str| {
        resources
            .iter()
            .filter(|r| r.name == name)
            .map(|r| r.scalar.unwrap().value)
            .sum::<f64>()
    };
    assert_eq!(amount(&allocation.executor, "cpus"), 0.1);
    assert_eq!(amount(&allocation.containers[0], "cpus"), 0.5);
    assert_eq!(amount(&allocation.containers[1], "cpus"), 1.0);
    assert!(
        allocation.containers[0]
            .iter()
            .all(|resource| resource.name != "disk"),
        "zero amounts are left out"
    );
}

#[test]
fn everything_that_is_missing_is_told() {
    let refused = take(
        &pod(json!([container(4.0, json!([]))])),
        vec![resource("cpus", 1.0, None)],
    );
    assert_eq!(
        reasons(refused),
        [
            Reason::InsufficientCpus,
            Reason::InsufficientMemory,
            Reason::InsufficientDisk
        ]
    );
}

#[test]
fn a_piece_is_never_composed_of_two_entries() {
    let halves = || vec![resource("cpus", 0.6, Some("*")), resource("cpus", 0.6, None)];
    let mut resources = roomy(0.0);
    resources.extend(halves());
    assert_eq!(
        reasons(take(&pod(json!([container(1.0, json!([]))])), resources)),
        [Reason::InsufficientCpus]
    );
}

#[test]
fn what_is_reserved_for_others_is_left_alone() {
    let mut resources = roomy(0.05);
    resources.push(resource("cpus", 10.0, Some("other")));
    assert_eq!(
        reasons(take(&pod(json!([container(1.0, json!([]))])), resources)),
        [Reason::InsufficientCpus]
    );
}

#[test]
fn roles_that_are_not_accepted_are_told_as_such() {
    let mut pod = pod(json!([container(1.0, json!([]))]));
    pod.scheduling.placement.accepted_resource_roles = vec!["slave_public".to_owned()];
    let refused = take(&pod, roomy(64.0)).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].reason, Reason::UnfulfilledRole);
    assert_eq!(
        refused[0].detail,
        "its resources are of role *, acceptedResourceRoles wants slave_public"
    );
}

#[test]
fn what_is_missing_is_told_in_exact_figures() {
    let words = |cpus: f64, resources: Vec<v1::Resource>| {
        let refused = take(&pod(json!([container(cpus, json!([]))])), resources).unwrap_err();
        refused.into_iter().next().unwrap().detail
    };
    assert_eq!(words(64.0, roomy(4.0)), "needs 64.1 cpus, 4 offered");
    let mut reserved = roomy(0.05);
    reserved.push(resource("cpus", 10.0, Some("other")));
    assert_eq!(
        words(1.2, reserved),
        "needs 1.3 cpus, 0.05 offered (10 more for other roles)"
    );
    let mut parts = roomy(0.6);
    parts.push(resource("cpus", 0.6, None));
    assert_eq!(
        words(1.0, parts),
        "needs 1.1 cpus, 1.2 offered in parts of 0.6 + 0.6, into which its pieces of 0.1 + 1 do not fit"
    );
}

#[test]
fn a_refused_instance_leaves_the_pool_as_it_was() {
    let mut pool = Pool::new(&offer(roomy(1.0)));
    let before = format!("{pool:?}");
    assert!(
        pool.take(
            &pod(json!([container(0.5, json!([])), container(2.0, json!([]))])),
            &mut Chance::new(1)
        )
        .is_err()
    );
    assert_eq!(format!("{pool:?}"), before);
}

#[test]
fn fixed_ports_have_to_be_offered() {
    let wish = |port: u16| pod(json!([container(0.1, json!([{"name": "w", "hostPort": port}]))]));
    let mut resources = roomy(1.0);
    resources.push(ports(31000, 31001));
    assert_eq!(
        take(&wish(31001), resources.clone()).unwrap().host_ports["w"],
        31001
    );
    assert_eq!(reasons(take(&wish(80), resources)), [Reason::InsufficientPorts]);
}

proptest! {
    /// W1: whatever the wishes and ranges, no port is given twice, and none that was not offered.
    #[test]
    fn w1_no_port_is_given_twice(
        sizes in prop::collection::vec((0u64..60_000, 0u64..12), 1..4),
        wishes in prop::collection::vec(prop_oneof![3 => Just(0u16), 1 => 1u16..60_000], 0..12),
        seed in any::<u128>(),
    ) {
        let mut fixed = BTreeSet::new();
        let wishes: Vec<u16> = wishes.into_iter().filter(|wish| *wish == 0 || fixed.insert(*wish)).collect();
        let mut resources = roomy(1000.0);
        let mut offered = BTreeSet::new();
        for (begin, size) in sizes {
            let fresh: Vec<u64> = (begin..=begin + size).take_while(|port| !offered.contains(port)).collect();
            if let (Some(first), Some(last)) = (fresh.first(), fresh.last()) {
                resources.push(ports(*first, *last));
                offered.extend(fresh);
            }
        }
        let endpoints: Vec<_> =
            wishes.iter().enumerate().map(|(i, wish)| json!({"name": format!("e{i}"), "hostPort": wish})).collect();
        let pod = pod(json!([container(0.1, json!(endpoints))]));
        let mut pool = Pool::new(&offer(resources));
        let mut chance = Chance::new(seed);
        let mut given = BTreeSet::new();
        while let Ok(allocation) = pool.take(&pod, &mut chance) {
            prop_assert_eq!(allocation.host_ports.len(), wishes.len());
            for (index, wish) in wishes.iter().enumerate() {
                let port = allocation.host_ports[&format!("e{index}")];
                prop_assert!(*wish == 0 || port == *wish);
                prop_assert!(offered.contains(&u64::from(port)));
                prop_assert!(given.insert(port), "{} twice", port);
                prop_assert!(*wish != 0 || !fixed.contains(&port));
            }
            if given.len() > 60 || wishes.is_empty() {
                break;
            }
        }
        // Refused for want of ports only when they really have run out.
        let free = offered.iter().filter(|port| !given.contains(&(**port as u16)) && !fixed.contains(&(**port as u16)));
        let random = wishes.iter().filter(|wish| **wish == 0).count();
        if fixed.is_empty() && !wishes.is_empty() && given.len() <= 60 {
            prop_assert!(free.count() < random);
        }
    }
}

#[test]
fn a_shape_is_all_that_an_offer_is_asked_for() {
    let checked = |change: fn(&mut Pod)| {
        let mut pod = pod(json!([container(0.5, json!([{"name": "w", "hostPort": 80}]))]));
        change(&mut pod);
        Shape::of(&pod)
    };
    let plain = checked(|_| ());
    let others: [fn(&mut Pod); 9] = [
        |pod| pod.role = "other".to_owned(),
        |pod| pod.scheduling.placement.accepted_resource_roles = vec!["other".to_owned()],
        |pod| pod.executor_resources.cpus += 1.0,
        |pod| pod.executor_resources.disk += 1.0,
        |pod| pod.containers[0].resources.mem += 1.0,
        |pod| pod.containers[0].resources.gpus += 1,
        |pod| pod.containers[0].endpoints[0].host_port = Some(81),
        |pod| pod.containers[0].endpoints[0].name = "v".to_owned(),
        |pod| pod.containers.push(pod.containers[0].clone()),
    ];
    for (index, other) in others.into_iter().enumerate() {
        assert_ne!(plain, checked(other), "{index}");
    }
    let same: [fn(&mut Pod); 2] = [
        |pod| pod.id = "/q".parse().unwrap(),
        |pod| pod.containers[0].endpoints[0].container_port = Some(7),
    ];
    for (index, same) in same.into_iter().enumerate() {
        assert_eq!(plain, checked(same), "{index}");
    }
}
