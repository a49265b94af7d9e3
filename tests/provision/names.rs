//! The files that give a member its names, over whatever its image has at their places (N-03 to N-05).

use std::{fs, os::unix::fs::symlink, path::Path};

use podling::mesos::v1::{ContainerInfo, container_info};

use super::support::{Place, from_image, on_a_node, run, said, task};

const SHOW: &str = "for f in hosts hostname resolv.conf; do echo $f:; cat /etc/$f; done";

/// What a member of the n-th pod of a node is to read, if it is called `shop`.
fn pod(n: usize) -> String {
    format!(
        "hosts:\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.70.0.{} shop\n\
         hostname:\nshop\nresolv.conf:\nnameserver 192.0.2.53\n",
        n + 1
    )
}

/// Shows its names from an image whose `/etc` was made by `etc`, in a pod with a network of its own or on the node's.
fn names(etc: impl FnOnce(&Path), own: bool) -> String {
    let place = Place::new().image("");
    let made = place.path("etc");
    fs::create_dir(&made).unwrap();
    etc(&made);
    place.umoci(&["insert", "--image", "layout:t", "etc", "/etc"]);
    let networks = "{ default_network = 'a', networks = { a = { subnets = ['10.70.0.0/24'], \
                    dns = { nameservers = ['192.0.2.53'] } } } }";
    let agent = place
        .agent()
        .env("PODLING_NETWORK", networks)
        .with_executor_info(|executor| {
            let mode = if own { "bridge" } else { "host" };
            let data = format!(r#"{{"podling":1,"network":{{"mode":"{mode}"}}}}"#);
            executor.data = Some(data.into_bytes().into());
            executor.container = Some(ContainerInfo {
                r#type: container_info::Type::Mesos.into(),
                hostname: Some("shop".to_owned()),
                ..Default::default()
            });
        });
    // Twice: what was made room for the first time is still in the image.
    let show = || from_image(task("first", Some(SHOW)), &place.reference());
    let mut second = show();
    second.name = "second".to_owned();
    second.task_id.value = "second".to_owned();
    let done = run(agent, [show(), second]);
    let (first, second) = (said(&done, "first"), said(&done, "second"));
    assert_eq!(first, second);
    first
}

#[test]
fn n_04_links_in_an_image_do_not_keep_a_member_from_its_names() {
    on_a_node(|| {
        let host =
            ["hosts", "hostname", "resolv.conf"].map(|name| fs::read(Path::new("/etc").join(name)).ok());
        let outside = tempfile::tempdir().unwrap();
        let precious = outside.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let kinds: [(&str, &str); 6] = [
            ("dangling", "../run/systemd/resolve/stub-resolv.conf"),
            ("absolute", "/data/text"),
            ("outside", "../../../../../../etc/passwd"),
            ("a path of the host", precious.to_str().unwrap()),
            ("a directory", "/bin"),
            ("itself", "/etc/hosts"),
        ];
        for (n, (kind, target)) in (1..).zip(kinds) {
            let linked = |etc: &Path| {
                for name in ["hosts", "hostname", "resolv.conf"] {
                    symlink(target, etc.join(name)).unwrap();
                }
            };
            assert_eq!(names(linked, true), pod(n), "{kind}");
        }
        let made = |etc: &Path| fs::create_dir(etc.join("resolv.conf")).unwrap();
        assert_eq!(names(made, true), pod(kinds.len() + 1));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        let after =
            ["hosts", "hostname", "resolv.conf"].map(|name| fs::read(Path::new("/etc").join(name)).ok());
        assert_eq!(after, host);
    });
}

#[test]
fn n_04_on_the_nodes_network_members_see_the_nodes_files() {
    on_a_node(|| {
        let linked = |etc: &Path| symlink("/nowhere", etc.join("resolv.conf")).unwrap();
        let text = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        let node = format!(
            "hosts:\n{}hostname:\n{}resolv.conf:\n{}",
            text("hosts"),
            text("hostname"),
            text("resolv.conf")
        );
        assert_eq!(names(linked, false), node);
    });
}

#[test]
fn n_03_n_05_a_member_without_an_image_has_the_pods_names_too() {
    on_a_node(|| {
        let place = Place::new();
        let networks = "{ default_network = 'a', networks = { a = { subnets = ['10.70.0.0/24'], \
                        dns = { nameservers = ['192.0.2.53'] } } } }";
        let agent = place
            .agent()
            .env("PODLING_NETWORK", networks)
            .with_executor_info(|executor| {
                executor.data = Some(br#"{"podling":1,"network":{"mode":"bridge"}}"#.to_vec().into());
                executor.container = Some(ContainerInfo {
                    r#type: container_info::Type::Mesos.into(),
                    hostname: Some("shop".to_owned()),
                    ..Default::default()
                });
            });
        let node = fs::read("/etc/hosts").unwrap();
        let done = run(
            agent,
            [task("shows", Some(SHOW)), task("named", Some("uname -n"))],
        );
        assert_eq!(said(&done, "shows"), pod(1));
        assert_eq!(said(&done, "named"), "shop\n");
        assert_eq!(fs::read("/etc/hosts").unwrap(), node);
    });
}
