//! Members whose images come from registries, and what becomes of a group when one does not.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use podling::{
    loopback::agent::AgentBuilder,
    mesos::v1::{
        Secret, TaskInfo,
        TaskState::{TaskFailed, TaskKilled},
        secret,
        task_status::Reason,
    },
};

use super::{
    build::{TestImage, digest},
    fake::{Content, End, FakeRegistry, PARTS, Part, Reply, Request},
    registry::DockerRegistry,
    support::*,
};

/// A password may hold a colon.
const AUTH: &str = "user:canary:word";
/// `canary:word` by bcrypt.
const PASSWORDS: &str = "user:$2b$04$sDXK/Y96zZGx/ADoUd6r..4KOmNjURC1gY.QBpdL3bgK9vxidU21e\n";

fn basic() -> String {
    format!("Basic {}", BASE64_STANDARD.encode(AUTH))
}

/// A docker config.json.
fn credentials(registry: &str, auth: &str) -> String {
    let auth = BASE64_STANDARD.encode(auth);
    format!(r#"{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}"#)
}

fn with_secret(mut task: TaskInfo, config: &str) -> TaskInfo {
    image_of(&mut task).docker.as_mut().unwrap().config = Some(Secret {
        r#type: Some(secret::Type::Value.into()),
        value: Some(secret::Value {
            data: config.as_bytes().to_vec(),
        }),
        ..Default::default()
    });
    task
}

/// Runs a member beside one that must not run, and gives the sentence in which the first one failed.
#[track_caller]
fn fails(agent: AgentBuilder, web: TaskInfo, store: &Path) -> String {
    let (outcome, work) = run(agent, [web, task("beside", Some("echo a byte"))]);
    let failed = last(&outcome, "web");
    assert_eq!(
        (failed.state(), failed.reason()),
        (TaskFailed, Reason::ContainerLaunchFailed),
        "{failed:?}"
    );
    let killed = last(&outcome, "beside");
    assert_eq!(killed.state(), TaskKilled);
    assert!(killed.message().contains("web"), "{killed:?}");
    assert_eq!(stdout(work.path(), "beside").unwrap_or_default(), "");
    assert_clean(store);
    let message = failed.message().to_owned();
    assert!(
        message.starts_with("member `web`: image ") && !message.contains("canary"),
        "{message}"
    );
    message
}

/// Neither layers nor half of one, nor anything that a crash would leave.
#[track_caller]
fn assert_clean(store: &Path) {
    for part in ["layers", "tmp", "images"] {
        assert_eq!(below(&store.join(part)), [] as [std::path::PathBuf; 0]);
    }
}

#[test]
fn a_member_from_docker_registry() {
    let registry = DockerRegistry::start();
    registry.push("some/web", "1", &saying("pulled"));
    let place = Place::new();
    let by_tag = format!("{}/some/web:1", registry.address);
    let by_digest = format!("{}/some/web@{}", registry.address, saying("pulled").digest());
    let members = [("a", &by_tag), ("b", &by_digest), ("c", &by_tag)];
    let done = run(
        place.agent(),
        members.map(|(id, reference)| from_image(task(id, None), reference)),
    );
    for (id, _) in members {
        assert_eq!(said(&done, id), "pulled\n");
    }
}

#[test]
fn p_05_a_cached_image_is_not_asked_for_again_unless_forced() {
    let registry = DockerRegistry::start();
    let place = Place::new();
    let web = from_image(
        task("web", Some("cat /text; echo mine >/text")),
        &format!("{}/web", registry.address),
    );
    registry.push("web", "latest", &saying("first\n"));
    assert_eq!(said(&run(place.agent(), [web.clone()]), "web"), "first\n");
    registry.push("web", "latest", &saying("second\n"));
    // Neither what the source has now, nor what the last member wrote.
    assert_eq!(said(&run(place.agent(), [web.clone()]), "web"), "first\n");
    let mut forced = web.clone();
    image_of(&mut forced).cached = Some(false);
    assert_eq!(said(&run(place.agent(), [forced.clone()]), "web"), "second\n");
    drop(registry);
    assert_eq!(said(&run(place.agent(), [web]), "web"), "second\n");
    let (outcome, _work) = run(place.agent(), [forced]);
    assert!(
        last(&outcome, "web").message().contains("cannot connect"),
        "{outcome}"
    );
}

#[test]
fn p_03_p_06_credentials_of_the_task_and_of_the_node() {
    let place = Place::new();
    fs::write(place.path("passwords"), PASSWORDS).unwrap();
    let mut registry = DockerRegistry::start_with(&format!(
        "auth: {{htpasswd: {{realm: tests, path: {}}}}}",
        place.path("passwords").display()
    ));
    registry.push_as(&basic(), "web", "x", &saying("private"));
    let web = || from_image(task("web", None), &format!("{}/web:x", registry.address));
    let (good, bad) = (
        credentials(&registry.address, AUTH),
        credentials(&registry.address, "user:other"),
    );

    let message = fails(place.agent(), web(), &place.path("store"));
    assert!(message.contains("wants credentials"), "{message}");
    let message = fails(place.agent(), with_secret(web(), &bad), &place.path("store"));
    assert!(message.contains("refuses the credentials"), "{message}");
    let done = run(place.agent(), [with_secret(web(), &good)]);
    assert_eq!(said(&done, "web"), "private\n");

    // The node's are for those who bring none; the task's own go before them.
    let node = |name: &str, config: &str| {
        let path = place.path(&format!("{name}.json"));
        fs::write(&path, config).unwrap();
        let agent = place
            .agent()
            .env("PODLING_IMAGES_CREDENTIALS", path.to_str().unwrap());
        agent.env("PODLING_IMAGES_STORE", place.path(name).to_str().unwrap())
    };
    assert_eq!(said(&run(node("good", &good), [web()]), "web"), "private\n");
    assert_eq!(
        said(&run(node("bad", &bad), [with_secret(web(), &good)]), "web"),
        "private\n"
    );
    fails(
        node("other", &good),
        with_secret(web(), &bad),
        &place.path("other"),
    );
}

#[test]
fn p_03_credentials_are_exchanged_for_a_token() {
    let content = Content::of(saying("for a token"));
    let service = FakeRegistry::start(
        |request, _| match request.header("authorization") == Some(&basic()) {
            true => Reply::ok("application/json", br#"{"token":"good"}"#),
            false => Reply::status("401 Unauthorized", ""),
        },
    );
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"tests\",scope=\"repository:a:pull\"\n",
        service.address
    );
    let registry = FakeRegistry::start(move |request, _| match request.header("authorization") {
        Some("Bearer good") => Reply::good(&content, request),
        _ => Reply::status("401 Unauthorized", &challenge),
    });
    let place = Place::new();
    let address = registry.address.to_string();
    let web = from_image(task("web", None), &format!("{address}/a:tag"));
    let done = run(place.agent(), [with_secret(web, &credentials(&address, AUTH))]);
    assert_eq!(said(&done, "web"), "for a token\n");
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.header("authorization") != Some(&basic()))
    );
}

#[test]
fn mirrors_and_registries_without_tls_are_the_operator_s_to_name() {
    let good = |text: &str| {
        let content = Content::of(saying(text));
        move |request: &Request, _: usize| Reply::good(&content, request)
    };
    let mirror = FakeRegistry::start(good("mirrored"));
    let place = Place::new();
    let agent = place
        .agent()
        .env("PODLING_IMAGES_MIRRORS", &format!("docker.io={}", mirror.address));
    assert_eq!(
        said(
            &run(agent, [from_image(task("web", None), "some/web:tag")]),
            "web"
        ),
        "mirrored\n"
    );

    let plain = FakeRegistry::start_at("127.0.0.2", good("plain"));
    let web = from_image(task("web", None), &format!("{}/web:tag", plain.address));
    let place = Place::new();
    let message = fails(place.agent(), web.clone(), &place.path("store"));
    assert!(message.contains("TLS"), "{message}");
    let agent = place
        .agent()
        .env("PODLING_IMAGES_INSECURE", &plain.address.to_string());
    assert_eq!(said(&run(agent, [web]), "web"), "plain\n");
}

#[test]
fn p_13_a_pull_that_fails_is_told_with_member_image_and_cause() {
    let content = Arc::new(Content::of(saying("unused")));
    let unlike = |part: Part, bytes: fn(&mut Vec<u8>)| {
        let content = content.clone();
        move |request: &Request, _: usize| {
            let (kind, mut body) = content.answer(request).unwrap_or_default();
            if request.part(&content) == Some(part) {
                bytes(&mut body);
            }
            Reply::ok(kind, &body)
        }
    };
    let flip = |body: &mut Vec<u8>| body[9] ^= 1;
    type Behaviour = Box<dyn Fn(&Request, usize) -> Reply + Send + Sync>;
    let always = |line: &'static str| -> Behaviour { Box::new(move |_, _| Reply::status(line, "")) };
    let wrong = digest(b"another");
    let cases: [(&str, Behaviour, &str); 8] = [
        ("a:tag", always("404 Not Found"), "404"),
        ("a:tag", always("403 Forbidden"), "403"),
        ("a:tag", always("401 Unauthorized"), "authentication"),
        (
            "a:tag",
            Box::new(unlike(Part::Tag, |body| body.truncate(20))),
            "manifest",
        ),
        (
            "a:tag",
            Box::new(unlike(Part::Manifest, flip)),
            "damaged or replaced on the way",
        ),
        (
            "a:tag",
            Box::new(unlike(Part::Config, flip)),
            "damaged or replaced on the way",
        ),
        ("a:tag", Box::new(unlike(Part::Layer, flip)), "layer sha256:"),
        (
            &format!("a@{wrong}"),
            Box::new(unlike(Part::Tag, |_| {})),
            "damaged or replaced on the way",
        ),
    ];
    for (reference, behaviour, cause) in cases {
        let registry = FakeRegistry::start(behaviour);
        let place = Place::new();
        let reference = format!("{}/{reference}", registry.address);
        let message = fails(
            place.agent(),
            from_image(task("web", None), &reference),
            &place.path("store"),
        );
        assert!(
            message.contains(&reference) && message.contains(cause),
            "{message}"
        );
    }
    // Somebody was there a moment ago.
    let address = FakeRegistry::start(|_, _| Reply::status("404 Not Found", "")).address;
    let place = Place::new();
    let web = from_image(task("web", None), &format!("{address}/a:tag"));
    let message = fails(place.agent(), web, &place.path("store"));
    assert!(
        message.contains("cannot connect to") && message.contains("refused"),
        "{message}"
    );
}

#[test]
fn l_15_p_13_a_stalled_registry_ends_with_its_stall_time() {
    let registry = FakeRegistry::start(|_, _| {
        Reply::new("HTTP/1.1 200 OK\nContent-Length: 99\n\n", b"{").end(End::Stall)
    });
    let place = Place::new();
    let agent = place.agent().env("PODLING_IMAGES_STALL", "50ms");
    let web = from_image(task("web", None), &format!("{}/a:tag", registry.address));
    let message = fails(agent, web, &place.path("store"));
    assert!(message.contains("50ms"), "{message}");
}

/// KILL and SHUTDOWN while each part of an image is on its way.
#[test]
fn k_01_q_01_a_kill_ends_a_pull_at_once_and_leaves_nothing() {
    let content = Arc::new(Content::of(large()));
    for part in PARTS {
        for kill in [true, false] {
            let stalled = content.clone();
            let registry = FakeRegistry::start(move |request, _| {
                let mut reply = Reply::good(&stalled, request);
                if request.part(&stalled) == Some(part) {
                    reply.bytes.truncate(reply.bytes.len() / 2);
                    reply.end = End::Stall;
                }
                reply
            });
            let place = Place::new();
            let work = tempfile::tempdir().unwrap();
            let agent = started(
                place.agent(),
                work.path(),
                [
                    from_image(task("web", None), &format!("{}/a:tag", registry.address)),
                    task("beside", Some("echo a byte")),
                ],
            );
            until("the request that stalls", || {
                let asked = registry.requests();
                asked.iter().any(|request| request.part(&content) == Some(part))
            });
            let start = Instant::now();
            match kill {
                true => agent.kill("web").unwrap(),
                false => agent.shutdown(),
            }
            let outcome = agent.finish();
            // The stall would take a minute.
            assert!(start.elapsed() < Duration::from_secs(20), "{part:?}");
            assert!(outcome.violations.is_empty(), "{outcome}");
            for id in ["web", "beside"] {
                assert_eq!(last(&outcome, id).state(), TaskKilled, "{part:?}");
                assert_eq!(stdout(work.path(), id).unwrap_or_default(), "");
            }
            assert_clean(&place.path("store"));
        }
    }
}

/// More than goes into the pipes between a registry and a disk.
fn large() -> TestImage {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()
    });
    let noise: Vec<u8> = noise.take(1 << 18).flatten().collect();
    image(
        &serde_json::json!({"Cmd": ["/bin/true"]}),
        super::build::Layer::new().file("noise", noise),
    )
}

#[test]
fn p_06_a_secret_by_reference_is_refused_with_a_sentence() {
    let place = Place::new();
    let mut web = from_image(task("web", None), "127.0.0.1:1/none:x");
    image_of(&mut web).docker.as_mut().unwrap().config = Some(Secret {
        r#type: Some(secret::Type::Reference.into()),
        reference: Some(secret::Reference {
            name: "pull".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    });
    let (outcome, _work) = run(place.agent(), [web]);
    let status = last(&outcome, "web");
    let message = status.message();
    assert!(
        message.contains("secret of type REFERENCE; give its VALUE"),
        "{message}"
    );
    assert_eq!(status.reason(), Reason::TaskInvalid);
}

#[test]
fn p_01_a_name_that_is_no_reference_is_told_with_its_place() {
    let (outcome, _work) = run(
        Place::new().agent(),
        [from_image(task("web", None), "Not/A//Name")],
    );
    let status = last(&outcome, "web");
    assert_eq!(
        (status.state(), status.reason()),
        (TaskFailed, Reason::TaskInvalid)
    );
    assert!(status.message().contains("container.mesos.image") && status.message().contains("Not/A//Name"));
}
