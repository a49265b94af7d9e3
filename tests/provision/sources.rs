//! Images without a registry, through the executor and through `podling up`.

use std::{fs, process::Command};

use super::{build::Layer, support::*};

fn skopeo(from: &str, to: &str) {
    let output = Command::new("skopeo")
        .args(["copy", "--insecure-policy", from, to])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The same image as a layout, as an archive of one, and as docker saves it.
fn everywhere(place: &Place, text: &str) -> Vec<String> {
    let layout = place.layout("layout", &saying(text));
    let archive = |kind: &str, tag: &str| {
        let reference = format!("{kind}:{}:{tag}", place.path(&format!("{kind}.tar")).display());
        skopeo(&layout, &reference);
        reference
    };
    vec![
        layout.clone(),
        archive("oci-archive", "some"),
        archive("docker-archive", "a/b:some"),
    ]
}

#[test]
fn p_07_a_member_from_each_local_source() {
    let place = Place::new();
    for reference in everywhere(&place, "from a file") {
        let done = run(place.agent(), [from_image(task("web", None), &reference)]);
        assert_eq!(said(&done, "web"), "from a file\n", "{reference}");
    }
}

#[test]
fn p_07_podling_up_runs_each_local_source() {
    let place = Place::new();
    for (number, reference) in everywhere(&place, "from a file").into_iter().enumerate() {
        let pod = serde_json::json!({
            "id": format!("/shop-{number}"),
            "containers": [{
                "name": "web",
                "resources": {"cpus": 0.1, "mem": 32},
                "image": {"kind": "DOCKER", "id": reference},
            }],
        });
        let text = up(&place, &pod);
        assert!(text.contains("from a file"), "{reference}: {text}");
    }
    // As it is typed by somebody who is there.
    for reference in ["oci:layout:t", "oci-archive:oci-archive.tar:some"] {
        let container = serde_json::json!({
            "name": "web", "resources": {"cpus": 0.1, "mem": 32}, "image": {"kind": "DOCKER", "id": reference},
        });
        let text = up(
            &place,
            &serde_json::json!({"id": "/here", "containers": [container]}),
        );
        assert!(text.contains("from a file"), "{reference}: {text}");
    }
}

#[test]
fn up_runs_an_image_on_a_network() {
    on_a_node(|| {
        let place = Place::new().image("from the layout\n");
        let pod = serde_json::json!({
            "id": "/shop",
            "networks": [{"mode": "container", "name": "dcos"}],
            "containers": [{
                "name": "web",
                "resources": {"cpus": 0.1, "mem": 32},
                "image": {"kind": "DOCKER", "id": place.reference()},
            }],
        });
        let text = up(&place, &pod);
        assert!(text.contains("from the layout"), "{text}");
        assert!(text.contains("/shop web · RUNNING"), "{text}");
        let links = sh("ip -br link");
        assert!(
            !links.contains("podling"),
            "up takes its bridges with it: {links}"
        );
    });
}

fn up(place: &Place, pod: &serde_json::Value) -> String {
    let file = place.path("pod.json");
    fs::write(&file, pod.to_string()).unwrap();
    let output = Command::new(PODLING)
        .args(["up", "--once", "--listen", "127.0.0.1:0"])
        .arg(&file)
        .current_dir(place.path(""))
        .env("PODLING_IMAGES_STORE", place.path("store"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn v_11_a_volume_may_be_an_image() {
    use podling::mesos::v1::{Image, Volume, image, volume::Mode};
    let place = Place::new();
    let data = place.layout(
        "data",
        &super::support::image(&serde_json::json!({}), Layer::new().file("data", "kept\n")),
    );
    let web = place.layout("layout", &saying("unused"));
    let volume = |path: &str, mode: Mode| Volume {
        container_path: path.to_owned(),
        mode: mode.into(),
        image: Some(Image {
            r#type: image::Type::Docker.into(),
            docker: Some(image::Docker {
                name: data.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let script = "cat /ro/data; echo new 2>/dev/null >/ro/data || echo refused; echo new >/rw/data; cat /rw/data /again/data";
    let mut member = from_image(task("web", Some(script)), &web);
    member.container.as_mut().unwrap().volumes = vec![
        volume("/ro", Mode::Ro),
        volume("/rw", Mode::Rw),
        volume("/again", Mode::Rw),
    ];
    assert_eq!(
        said(&run(place.agent(), [member]), "web"),
        "kept\nrefused\nnew\nkept\n"
    );
}
