//! The network that a group's members share.

use std::path::{Path, PathBuf};

use podling::mesos::v1::{ContainerInfo, TaskState::TaskFailed, container_info, task_status::Reason};

use super::support::*;

#[test]
fn n_01_n_09_members_of_a_pod_share_an_address_and_their_localhost() {
    on_a_node(|| {
        let place = Place::new().image("");
        let serve = "busybox nc -l -p 7000 -e echo over localhost";
        let ask = "until busybox nc 127.0.0.1 7000; do busybox sleep 0.05; done; echo $MESOS_CONTAINER_IP; hostname";
        let mut server = from_image(task("server", Some(serve)), &place.reference());
        server.command.as_mut().unwrap().user = Some("0".to_owned());
        let agent = place.agent().with_executor_info(|executor| {
            let data = br#"{"podling":1,"network":{"mode":"bridge"}}"#;
            executor.data = Some(data.to_vec().into());
            executor.container = Some(ContainerInfo {
                r#type: container_info::Type::Mesos.into(),
                hostname: Some("shop".to_owned()),
                ..Default::default()
            });
        });
        let done = run(agent, [server, task("client", Some(ask))]);
        assert_eq!(said(&done, "client"), "over localhost\n10.167.0.2\nshop\n");
        for member in ["server", "client"] {
            let status = last(&done.0, member);
            let infos = &status.container_status.as_ref().unwrap().network_infos;
            assert_eq!(infos.len(), 1, "{infos:?}");
            assert_eq!(infos[0].name.as_deref(), Some("mesos-bridge"));
            assert_eq!(infos[0].ip_addresses[0].ip_address.as_deref(), Some("10.167.0.2"));
        }
        // The first update comes before there is a network, and does not pretend.
        let starting = done.0.history.updates("client")[0].container_status.as_ref();
        assert!(starting.is_none_or(|status| status.network_infos.is_empty()));
        // Gone with the pod: its interface, its address.
        assert!(!sh("ip -br link").contains("plv"));
        assert_eq!(
            below(Path::new("/run/podling/network/leases")),
            [] as [PathBuf; 0]
        );
    });
}

#[test]
fn a_network_that_nobody_knows_fails_the_group_before_anything_runs() {
    on_a_node(|| {
        let agent = Place::new().agent().with_executor_info(|executor| {
            let data = br#"{"podling":1,"network":{"networks":[{"name":"dcos"}]}}"#;
            executor.data = Some(data.to_vec().into());
        });
        let tasks = [task("a", Some("echo a byte")), task("b", Some("echo a byte"))];
        let (outcome, work) = run(agent, tasks);
        for id in ["a", "b"] {
            let status = last(&outcome, id);
            assert_eq!(
                (status.state(), status.reason()),
                (TaskFailed, Reason::TaskInvalid)
            );
            let message = status.message();
            assert!(message.contains("this node has no network `dcos`"), "{message}");
            assert_eq!(stdout(work.path(), id).unwrap_or_default(), "");
        }
    });
}
