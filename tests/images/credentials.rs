//! Credentials go where they belong and nowhere else (I5, P-03, P-06).

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use podling::image::{Credentials, Image, PullError, PullOptions};

use super::{
    build::{Layer, TestImage},
    fake::{Content, FakeRegistry, Reply, Request},
    pull::TestStore,
    registry::DockerRegistry,
};

const USER: &str = "user";
/// A password may hold a colon.
const PASSWORD: &str = "canary:word";

fn basic() -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

fn config(registry: &str) -> String {
    let auth = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    format!(r#"{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}"#)
}

fn content() -> Content {
    Content::of(TestImage::docker(vec![Layer::new().file("private", "").tar()]))
}

fn pull(store: &TestStore, registry: &str) -> Result<Image, PullError> {
    let options = PullOptions {
        credentials: Some(Credentials::parse(config(registry).as_bytes()).unwrap()),
        ..PullOptions::default()
    };
    store.pull_with(&format!("{registry}/a:tag"), &options)
}

fn sentence(result: Result<Image, PullError>) -> String {
    let error = anyhow::Error::new(result.unwrap_err());
    let sentence = format!("{error:#} {error:?}");
    assert!(!sentence.contains("canary"), "a secret in an error: {sentence}");
    sentence
}

fn has_secret(request: &Request) -> bool {
    request.header("authorization").is_some() || String::from_utf8_lossy(&request.body).contains("canary")
}

#[test]
fn p_03_basic_against_docker_registry() {
    let directory = tempfile::tempdir().unwrap();
    let passwords = directory.path().join("htpasswd");
    // `canary:word` by bcrypt.
    std::fs::write(&passwords, format!("{USER}:{BCRYPT}\n")).unwrap();
    let mut registry = DockerRegistry::start_with(&format!(
        "auth: {{htpasswd: {{realm: tests, path: {}}}}}",
        passwords.display()
    ));
    registry.push_as(
        &basic(),
        "a",
        "tag",
        &TestImage::docker(vec![Layer::new().file("private", "").tar()]),
    );
    let store = TestStore::new();
    let refused = store.pull(&format!("{}/a:tag", registry.address));
    assert!(sentence(refused).contains("wants credentials"));
    let options = PullOptions {
        credentials: Some(
            Credentials::parse(
                format!(
                    r#"{{"auths":{{"{}":{{"username":"{USER}","password":"canary"}}}}}}"#,
                    registry.address
                )
                .as_bytes(),
            )
            .unwrap(),
        ),
        ..PullOptions::default()
    };
    let wrong = store.pull_with(&format!("{}/a:tag", registry.address), &options);
    assert!(sentence(wrong).contains("refuses the credentials"));
    pull(&store, &registry.address).unwrap();
}

/// A registry with a token service; the token is good for so many requests.
fn with_token_service(realm_host: &str, good_for: usize) -> (FakeRegistry, FakeRegistry) {
    let content = content();
    let service = FakeRegistry::start_at(realm_host, move |request, number| {
        if request.header("authorization") != Some(&basic()) {
            return Reply::status("401 Unauthorized", "");
        }
        assert!(
            request.target.contains("scope=repository%3Aa%3Apull"),
            "{}",
            request.target
        );
        assert!(request.target.contains("service=tests"), "{}", request.target);
        Reply::ok(
            "application/json",
            format!(r#"{{"token":"token-{number}"}}"#).as_bytes(),
        )
    });
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"tests\",scope=\"repository:a:pull\"\n",
        service.address
    );
    let uses = std::sync::Mutex::new(std::collections::HashMap::<String, usize>::new());
    let registry = FakeRegistry::start(move |request, _| {
        let token = request.header("authorization").unwrap_or_default().to_owned();
        let mut uses = uses.lock().unwrap();
        let used = uses.entry(token.clone()).or_default();
        if token.starts_with("Bearer token-") && *used < good_for {
            *used += 1;
            return Reply::good(&content, request);
        }
        Reply::status("401 Unauthorized", &challenge)
    });
    (registry, service)
}

#[test]
fn p_03_a_token_from_the_token_service() {
    let (registry, service) = with_token_service("127.0.0.1", usize::MAX);
    pull(&TestStore::new(), &registry.address.to_string()).unwrap();
    assert_eq!(service.requests().len(), 1, "one token is enough for a pull");
    let secrets = registry.requests().into_iter().filter(|request| {
        request
            .header("authorization")
            .is_some_and(|value| value.starts_with("Basic"))
    });
    assert_eq!(secrets.count(), 0, "the registry has no need for the password");
}

#[test]
fn p_03_a_token_that_expires_in_the_middle_is_renewed() {
    let (registry, service) = with_token_service("127.0.0.1", 1);
    pull(&TestStore::new(), &registry.address.to_string()).unwrap();
    assert!(service.requests().len() >= 3);
}

#[test]
fn i5_tokens_that_are_never_accepted_end_the_pull() {
    let (registry, service) = with_token_service("127.0.0.1", 0);
    assert!(
        sentence(pull(&TestStore::new(), &registry.address.to_string())).contains("refuses the credentials")
    );
    assert!(service.requests().len() <= 4);
}

#[test]
fn i5_a_token_service_on_a_strange_host_sees_no_credentials() {
    let (registry, service) = with_token_service("127.0.0.2", usize::MAX);
    let refused = pull(&TestStore::new(), &registry.address.to_string());
    assert!(sentence(refused).contains("does not belong to the registry"));
    assert_eq!(service.requests().len(), 0);
    // Unless the operator trusts it.
    let trusting = TestStore::with(|config| config.registries.token_services.push("127.0.0.2".into()));
    pull(&trusting, &registry.address.to_string()).unwrap();
    assert!(service.requests().iter().all(has_secret));
}

#[test]
fn i5_a_redirect_takes_no_credentials_along() {
    for host in ["127.0.0.2", "127.0.0.1"] {
        let content = content();
        let served = content.clone();
        let storage = FakeRegistry::start_at(host, move |request, _| Reply::good(&served, request));
        let place = storage.address;
        let registry = FakeRegistry::start(move |request, _| {
            if request.header("authorization") != Some(&basic()) {
                return Reply::status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\n");
            }
            Reply::status(
                "307 Temporary Redirect",
                &format!("Location: http://{place}{}\n", request.target),
            )
        });
        pull(&TestStore::new(), &registry.address.to_string()).unwrap();
        assert!(storage.requests().len() >= 3);
        assert!(
            !storage.requests().iter().any(has_secret),
            "the storage at {host} saw a secret"
        );
    }
}

#[test]
fn i5_a_strange_host_asking_for_credentials_after_a_redirect_gets_none() {
    let thief = FakeRegistry::start_at("127.0.0.2", |_, _| {
        Reply::status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"give\"\n")
    });
    let place = thief.address;
    let registry =
        FakeRegistry::start(move |_, _| Reply::status("302 Found", &format!("Location: http://{place}/x\n")));
    sentence(pull(&TestStore::new(), &registry.address.to_string()));
    assert!(!thief.requests().iter().any(has_secret));
}

#[test]
fn i5_foreign_layer_urls_are_not_visited() {
    let stranger = FakeRegistry::start_at("127.0.0.2", |_, _| Reply::status("404 Not Found", ""));
    let mut content = content();
    let mut manifest: serde_json::Value = serde_json::from_slice(&content.image.manifest).unwrap();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/layer", stranger.address)]);
    content.image.manifest = serde_json::to_vec(&manifest).unwrap();
    let content = Content::of(content.image);
    let registry = FakeRegistry::start(move |request, _| Reply::good(&content, request));
    pull(&TestStore::new(), &registry.address.to_string()).unwrap();
    assert_eq!(stranger.requests().len(), 0);
}

#[test]
fn i5_credentials_of_one_registry_are_not_shown_to_another() {
    let content = content();
    let registry = FakeRegistry::start(move |request, _| Reply::good(&content, request));
    let asking = FakeRegistry::start(|_, _| {
        Reply::status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\n")
    });
    let options = PullOptions {
        credentials: Some(Credentials::parse(config(&registry.address.to_string()).as_bytes()).unwrap()),
        ..PullOptions::default()
    };
    let refused = TestStore::new().pull_with(&format!("{}/a:tag", asking.address), &options);
    assert!(sentence(refused).contains("wants credentials"));
    assert!(!asking.requests().iter().any(has_secret));
}

#[test]
fn mirrors_come_first_and_the_registry_itself_last() {
    let content = content();
    let served = content.clone();
    let registry = FakeRegistry::start(move |request, _| Reply::good(&content, request));
    let mirror = FakeRegistry::start(move |request, number| match number {
        0 => Reply::status("404 Not Found", ""),
        _ => Reply::good(&served, request),
    });
    let (name, mirror_name) = (registry.address.to_string(), mirror.address.to_string());
    let store = TestStore::with(|config| {
        config
            .registries
            .mirrors
            .insert(name.clone(), vec!["127.0.0.1:1".into(), mirror_name]);
        config.registries.retry.attempts = 1;
    });
    store.pull(&format!("{name}/a:tag")).unwrap();
    assert_eq!(registry.requests().len(), 1, "the mirror had the rest");
    assert!(mirror.requests().len() >= 4);
}

/// Runs `podling image pull` with a credential helper of ours in the path.
fn pull_with_helper(directory: &Path, script: &str, registry: &FakeRegistry) -> (Output, Duration) {
    let helper = directory.join("docker-credential-tests");
    std::fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let authfile = directory.join("config.json");
    std::fs::write(
        &authfile,
        format!(r#"{{"credHelpers":{{"{}":"tests"}}}}"#, registry.address),
    )
    .unwrap();
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_podling"))
        .args(["image", "pull", "--store"])
        .arg(directory.join("store"))
        .arg("--authfile")
        .arg(&authfile)
        .arg(format!("{}/a:tag", registry.address))
        .env("PATH", format!("{}:/usr/bin:/bin", directory.display()))
        .output()
        .unwrap();
    (output, start.elapsed())
}

fn private_registry() -> FakeRegistry {
    let content = content();
    FakeRegistry::start(
        move |request, _| match request.header("authorization") == Some(&basic()) {
            true => Reply::good(&content, request),
            false => Reply::status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\n"),
        },
    )
}

#[test]
fn p_06_a_credential_helper_is_asked_for_the_registry() {
    let directory = tempfile::tempdir().unwrap();
    let registry = private_registry();
    let script = format!(
        "read server; [ \"$1\" = get ] && [ \"$server\" = {} ] && echo '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'",
        registry.address
    );
    let (output, _) = pull_with_helper(directory.path(), &script, &registry);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("sha256:"));
}

#[test]
fn i5_helpers_that_fail_print_garbage_or_too_much_are_told_and_not_quoted() {
    for (script, words) in [
        ("echo canary", "no credential"),
        ("echo '{\"Username\":\"canary\"}'", "no credential"),
        ("echo canary >&2; exit 3", "failed"),
        ("head -c 1000000 /dev/zero; exit 0", "no credential"),
        ("kill -9 $$", "failed"),
        (
            "echo 'credentials not found in native keychain'; exit 1",
            "wants credentials",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let registry = private_registry();
        let (output, _) = pull_with_helper(directory.path(), script, &registry);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{script}: {told}");
        assert!(told.contains(words), "{script}: {told}");
        assert!(!told.contains("canary"), "{script}: {told}");
        assert!(!registry.requests().iter().any(has_secret));
    }
}

/// bcrypt of [`PASSWORD`].
const BCRYPT: &str = "$2b$04$sDXK/Y96zZGx/ADoUd6r..4KOmNjURC1gY.QBpdL3bgK9vxidU21e";
