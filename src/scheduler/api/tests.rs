//! The API as clients see it, on a real service and store; the master never says a word.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Address, Context, answer::tell_troubles, router};
use crate::{
    pod::{Profile, task_group},
    scheduler::{
        core::{Effect, Event, Settings},
        service::{Master, Replaced, Service},
        standing::Standing,
        store::Sqlite,
    },
};

/// A cluster without a leading master.
struct NoMaster;

impl Master for NoMaster {
    async fn next(&mut self) -> Result<Event, Replaced> {
        std::future::pending().await
    }

    fn ready(&mut self) -> Option<Event> {
        None
    }

    fn send(&mut self, _: Effect) {}

    fn remember(&mut self, _: &str) {}
}

struct Api {
    router: axum::Router,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    fn start() -> Self {
        Api::listening("127.0.0.1:8080", Some("here"))
    }

    fn listening(listen: &str, hostname: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("state.db")).unwrap();
        let settings = Settings::new(task_group::Options {
            delivery: task_group::Delivery::AgentDefault,
            variable_prefix: String::new(),
            bridge_name: "b".to_owned(),
        });
        let (service, scheduler) = Service::start(settings, Box::new(store), |_, _| NoMaster).unwrap();
        tokio::spawn(service.run());
        let context = Context {
            scheduler,
            profile: Arc::new(Profile::default()),
            address: Address::new(listen.parse().unwrap(), hostname),
            framework: Arc::default(),
            master: "http://there:5050".to_owned(),
        };
        Api {
            router: router(context),
            _directory: directory,
        }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(body.into())
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, pod: &Value) -> Answer {
        self.send(Method::POST, "/v2/pods", pod.to_string()).await
    }
}

fn pod(command: &str, instances: u32) -> Value {
    json!({"id": "/team/web", "scaling": {"kind": "fixed", "instances": instances},
        "containers": [{"name": "c", "resources": {"cpus": 0.1, "mem": 32}, "exec": {"command": {"shell": command}}}]})
}

#[test]
fn what_keeps_the_scheduler_from_its_work_is_told_in_headers() {
    let standing = Standing::default();
    let told = || {
        let mut headers = HeaderMap::new();
        tell_troubles(&standing, &mut headers);
        let told = headers.get_all("Podling-Trouble").iter();
        told.map(|told| told.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(told().is_empty() && !standing.is_troubled());
    let since = crate::pod::Version::EPOCH;
    standing.without_master("m:5050", "Connection refused", since);
    standing.without_master("m:5050", "no route\nto höst", since.next());
    standing.without_store("it is full", since);
    assert_eq!(
        told(),
        [
            "no change is taken on since 1970-01-01T00:00:00.000Z: it is full",
            "not connected to the master m:5050 since 1970-01-01T00:00:00.000Z: no route to h st"
        ]
    );
    standing.with_master();
    standing.with_store();
    assert!(told().is_empty() && !standing.is_troubled());
}

/// One such request made the API silent and took all memory.
#[tokio::test]
async fn instances_without_bound_are_refused_with_their_place() {
    let api = Api::start();
    assert_eq!(api.post(&pod("x", 10_000)).await.status, StatusCode::CREATED);
    for many in [10_001, i32::MAX as u32, u32::MAX] {
        let scale = pod("x", many).to_string();
        let update = api.send(Method::PUT, "/v2/pods/team/web?force=true", scale).await;
        for answer in [update, api.post(&pod("x", many)).await] {
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(
                answer.body["details"][0]["path"], "/scaling/instances",
                "{}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn a_pod_is_created_found_and_removed() {
    let api = Api::start();
    assert_eq!(
        api.send(Method::HEAD, "/v2/pods", Body::empty()).await.status,
        StatusCode::OK
    );
    let created = api.post(&pod("x", 1)).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert!(created.headers.contains_key("Marathon-Deployment-Id"));
    assert_eq!(created.headers["Location"], "http://here:8080/team/web");
    assert_eq!(created.headers["X-Marathon-Leader"], "http://here:8080");
    assert_eq!(created.body["executorResources"]["mem"], 32.0);

    for path in [
        "/v2/pods/team/web",
        "/v2/pods//team/web",
        "/v2/pods/team%2Fweb",
        "/v2/pods/team/web/",
    ] {
        assert_eq!(api.get(path).await.body["id"], "/team/web", "{path}");
    }
    assert_eq!(api.get("/v2/pods").await.body.as_array().unwrap().len(), 1);
    let status = api.get("/v2/pods/team/web::status").await.body;
    assert_eq!(
        (&status["status"], &status["instances"][0]["status"]),
        (&json!("DEGRADED"), &json!("PENDING"))
    );
    assert_eq!(
        api.get("/v2/pods/::status").await.body.as_array().unwrap().len(),
        1
    );
    assert_eq!(api.get("/v2/queue").await.body["queue"][0]["count"], 1);
    let deployments = api.get("/v2/deployments").await.body;
    assert_eq!(deployments[0]["affectedPods"], json!(["/team/web"]));

    let removed = api
        .send(Method::DELETE, "/v2/pods/team/web?force=true", Body::empty())
        .await;
    assert_eq!(removed.status, StatusCode::ACCEPTED);
    assert_eq!(
        removed.headers["Location"],
        removed.headers["Marathon-Deployment-Id"]
    );
    let gone = api.get("/v2/pods/team/web").await;
    assert_eq!(
        (gone.status, gone.body),
        (
            StatusCode::NOT_FOUND,
            json!({"message": "Pod '/team/web' does not exist"})
        )
    );
}

#[tokio::test]
async fn versions_grow_with_each_change_and_can_be_read_back() {
    let api = Api::start();
    let first = api.post(&pod("x", 1)).await.body;
    for (change, count) in [(pod("x", 2), 2), (pod("y", 2), 3), (pod("y", 2), 3)] {
        let answer = api
            .send(Method::PUT, "/v2/pods/team/web?force=true", change.to_string())
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.headers.contains_key("Marathon-Deployment-Id"));
        let versions = api.get("/v2/pods/team/web::versions").await.body;
        assert_eq!(versions.as_array().unwrap().len(), count);
    }
    let version = first["version"].as_str().unwrap();
    let path = format!("/v2/pods/team/web::versions/{version}");
    assert_eq!(api.get(&path).await.body, first);
    assert_eq!(
        api.get("/v2/pods/team/web::versions/2001-01-01T00:00:00Z")
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.get("/v2/pods/team/web::versions/new").await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(
        api.get("/v2/pods/other::versions").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn errors_have_the_shapes_clients_parse() {
    let api = Api::start();
    let post = async |body: &str| api.send(Method::POST, "/v2/pods", body.to_owned()).await;

    let broken = post("{").await;
    assert_eq!(
        (broken.status, &broken.body["message"]),
        (StatusCode::BAD_REQUEST, &json!("Invalid JSON"))
    );
    assert!(broken.body["details"].is_string());
    let empty = post("").await;
    assert_eq!(
        empty.body,
        json!({"message": "Please specify data in JSON format"})
    );

    let shape = post(r#"{"id": "/a", "containers": [{"name": "A", "resources": {}}]}"#).await;
    assert_eq!(
        (shape.status, &shape.body["message"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("Invalid JSON"))
    );
    assert_eq!(shape.body["details"][0]["path"], "/containers(0)/name");
    assert_eq!(shape.body["details"][0]["errors"][0], "error.pattern");

    let rule = post(r#"{"id": "relative", "containers": []}"#).await;
    assert_eq!(
        (rule.status, &rule.body["message"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("Object is not valid"))
    );
    assert_eq!(
        rule.body["details"][0],
        json!({"path": "/id", "errors": ["Path needs to be absolute"]})
    );

    api.post(&pod("x", 1)).await;
    let twice = api.post(&pod("x", 1)).await;
    assert_eq!(twice.body["message"], "A pod with id [/team/web] already exists.");
    assert_eq!(twice.status, StatusCode::CONFLICT);

    let locked = api
        .send(Method::PUT, "/v2/pods/team/web", pod("y", 1).to_string())
        .await;
    assert_eq!(locked.status, StatusCode::CONFLICT);
    assert!(locked.body["deployments"][0]["id"].is_string());

    let mismatch = api
        .send(Method::PUT, "/v2/pods/other", pod("y", 1).to_string())
        .await;
    assert_eq!(mismatch.status, StatusCode::BAD_REQUEST);

    let unknown = api.send(Method::DELETE, "/v2/pods/other", Body::empty()).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(
        api.get("/v2/nothing").await.body["message"],
        "there is nothing at this path"
    );
    assert_eq!(
        api.send(Method::PATCH, "/v2/pods/team/web", Body::empty())
            .await
            .status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        api.send(Method::POST, "/ping", Body::empty()).await.body["message"],
        "this method is not known here"
    );
}

#[tokio::test]
async fn instances_are_killed_by_their_ids() {
    let api = Api::start();
    api.post(&pod("x", 1)).await;
    let status = api.get("/v2/pods/team/web::status").await.body;
    let id = status["instances"][0]["id"].as_str().unwrap().to_owned();
    let one = api
        .send(
            Method::DELETE,
            &format!("/v2/pods/team/web::instances/{id}"),
            Body::empty(),
        )
        .await;
    assert_eq!(
        (one.status, &one.body["instanceId"]),
        (StatusCode::OK, &json!(id))
    );
    let stranger = "team_web.instance-6f1b2c3e-0b1a-11ee-8f7a-0242ac110002";
    let body = json!([id, stranger]).to_string();
    let many = api
        .send(Method::DELETE, "/v2/pods/team/web::instances", body)
        .await;
    assert_eq!(many.body.as_array().unwrap().len(), 1);
    let path = format!("/v2/pods/team/web::instances/{stranger}");
    let missing = api.send(Method::DELETE, &path, Body::empty()).await;
    assert_eq!(
        missing.body,
        json!({"message": format!("Task '{stranger}' does not exist")})
    );
    let malformed = api
        .send(Method::DELETE, "/v2/pods/team/web::instances/7", Body::empty())
        .await;
    assert_eq!(malformed.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let api = Api::start();
    assert_eq!(api.get("/v2/leader").await.body, json!({"leader": "here:8080"}));
    let info = api.get("/v2/info").await.body;
    let mut keys: Vec<&String> = info.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "buildref",
            "elected",
            "frameworkId",
            "http_config",
            "leader",
            "marathon_config",
            "name",
            "version",
            "zookeeper_config"
        ]
    );
    assert_eq!(api.get("/ping").await.status, StatusCode::OK);
}

/// Whatever goes wrong, and wherever, clients find an object with a `message`.
#[tokio::test]
async fn every_refusal_has_a_message_and_every_answer_its_headers() {
    let api = Api::start();
    let huge = vec![b' '; 5 << 20];
    for (method, path, body, status) in [
        (Method::POST, "/v2/pods", huge, 413),
        (Method::GET, "/v2/pods/%ff", vec![], 400),
        (Method::GET, "/v2/pods/UPPER", vec![], 422),
        (Method::GET, "/v2/pods/a::nonsense", vec![], 404),
        (Method::GET, "/v2/pods/a?force=true&force=false", vec![], 400),
        (Method::DELETE, "/v2/pods", vec![], 405),
        (Method::POST, "/v2/pods/a", vec![], 405),
        (Method::GET, "/v2/pods/a::instances", vec![], 405),
        (Method::DELETE, "/v2/pods/a::instances", b"{}".to_vec(), 422),
        (Method::DELETE, "/v2/pods/a::instances", b"[1]".to_vec(), 422),
        (Method::DELETE, "/v2/pods/a::instances", b"[".to_vec(), 400),
        (Method::DELETE, "/v2/pods/a::instances", b"[]".to_vec(), 404),
        (Method::PUT, "/v2/pods/a::status", vec![], 405),
        (Method::DELETE, "/v2/info", vec![], 405),
        (Method::GET, "/", vec![], 404),
    ] {
        let answer = api.send(method.clone(), path, body).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(
            answer.body["message"].is_string(),
            "{method} {path}: {}",
            answer.body
        );
        assert_eq!(
            answer.headers["content-type"], "application/json",
            "{method} {path}"
        );
        assert!(
            status != 405 || !answer.headers["allow"].is_empty(),
            "{method} {path}"
        );
        for (name, value) in [
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("pragma", "no-cache"),
            ("expires", "0"),
            ("x-marathon-leader", "http://here:8080"),
        ] {
            assert_eq!(answer.headers[name], value, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let api = Api::start();
    api.post(&pod("x", 1)).await;
    for (path, status) in [
        ("/v2/pods", 200),
        ("/v2/pods/", 200),
        ("/v2/pods/team/web", 200),
        ("/v2/pods/team/web::status", 200),
        ("/v2/pods/other", 404),
        ("/v2/pods/other::status", 404),
    ] {
        let answer = api.send(Method::HEAD, path, Body::empty()).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_pod_that_is_put_is_created() {
    let api = Api::start();
    let answer = api
        .send(Method::PUT, "/v2/pods//team/web/", pod("x", 1).to_string())
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.headers.contains_key("Marathon-Deployment-Id"));
    assert!(!answer.headers.contains_key("Location"));
    assert_eq!(api.get("/v2/pods/team/web").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_locked_pod_yields_to_force() {
    let api = Api::start();
    api.post(&pod("x", 1)).await;
    for (query, status) in [
        ("", 409),
        ("?force=false", 409),
        ("?force=True", 200),
        ("?force", 200),
    ] {
        let path = format!("/v2/pods/team/web{query}");
        let change = pod(&format!("x {query}"), 1).to_string();
        let answer = api.send(Method::PUT, &path, change).await;
        assert_eq!(answer.status, status, "{query}");
    }
    assert_eq!(
        api.send(Method::DELETE, "/v2/pods/team/web", Body::empty())
            .await
            .status,
        409
    );
}

#[tokio::test]
async fn the_history_outlives_the_pod_but_is_listed_only_with_it() {
    let api = Api::start();
    let first = api.post(&pod("x", 0)).await.body["version"]
        .as_str()
        .unwrap()
        .to_owned();
    api.send(Method::DELETE, "/v2/pods/team/web?force=true", Body::empty())
        .await;
    assert_eq!(api.get("/v2/pods/team/web::versions").await.status, 404);
    let path = format!("/v2/pods/team/web::versions/{first}");
    assert_eq!(api.get(&path).await.status, 200);
    let offset = path.replace('Z', "%2B00:00");
    assert_eq!(api.get(&offset).await.status, 200, "any offset is understood");
    api.post(&pod("y", 0)).await;
    let versions = api.get("/v2/pods/team/web::versions").await.body;
    assert_eq!(versions.as_array().unwrap().len(), 2);
    assert_eq!(versions[0], first);
}

#[tokio::test]
async fn who_listens_everywhere_is_where_the_caller_found_it() {
    let api = Api::listening("0.0.0.0:8080", None);
    let ask = async |method: Method, path: &str, body: String| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "pods.example:80");
        let response = api
            .router
            .clone()
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (
            parts.headers,
            serde_json::from_slice::<Value>(&bytes).unwrap_or_default(),
        )
    };
    let (headers, _) = ask(Method::POST, "/v2/pods", pod("x", 1).to_string()).await;
    assert_eq!(headers["location"], "http://pods.example:80/team/web");
    assert_eq!(headers["x-marathon-leader"], "http://pods.example:80");
    let (_, leader) = ask(Method::GET, "/v2/leader", String::new()).await;
    assert_eq!(leader, json!({"leader": "pods.example:80"}));
    let (_, info) = ask(Method::GET, "/v2/info", String::new()).await;
    assert_eq!(info["leader"], "pods.example:80");
}

#[tokio::test]
async fn fields_without_effect_are_told_in_headers_only() {
    let api = Api::start();
    let mut misspelt = pod("x", 1);
    misspelt["enviroment"] = json!({"A": "b"});
    misspelt["\u{e9}\"\n"] = json!(1);
    misspelt["version"] = json!("2017-01-03T18:21:19.310Z");
    for answer in [
        api.post(&misspelt).await,
        api.send(Method::PUT, "/v2/pods/team/web?force", misspelt.to_string())
            .await,
    ] {
        let warnings: Vec<_> = answer
            .headers
            .get_all("Warning")
            .iter()
            .map(|w| w.to_str().unwrap())
            .collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        let meant = "299 podling \"enviroment is not a field of a pod and has no effect; did you mean `environment`?\"";
        assert!(warnings.contains(&meant), "{warnings:?}");
        assert!(answer.body.get("warnings").is_none() && answer.body["id"] == "/team/web");
    }
    let fine = api
        .send(Method::PUT, "/v2/pods/team/web?force", pod("y", 1).to_string())
        .await;
    assert!(!fine.headers.contains_key("Warning"));
}

#[tokio::test]
async fn a_group_is_no_pod() {
    let api = Api::start();
    api.post(&pod("x", 1)).await;
    let mut group = pod("x", 1);
    group["id"] = json!("/team");
    for answer in [
        api.post(&group).await,
        api.send(Method::PUT, "/v2/pods/team", group.to_string()).await,
    ] {
        assert_eq!(answer.status, 422);
        assert_eq!(answer.body["message"], "Object is not valid");
        assert_eq!(answer.body["details"][0]["path"], "/id");
        let words = answer.body["details"][0]["errors"][0].as_str().unwrap();
        assert!(
            words.starts_with("Groups and Pods may not have the same identifier"),
            "{words}"
        );
    }
}

#[tokio::test]
async fn the_delay_of_what_waits_is_lifted() {
    let api = Api::start();
    api.post(&pod("x", 1)).await;
    for path in ["/v2/queue/team/web/delay", "/v2/queue//team/web/delay"] {
        assert_eq!(
            api.send(Method::DELETE, path, Body::empty()).await.status,
            204,
            "{path}"
        );
    }
    let unknown = api.send(Method::DELETE, "/v2/queue/x/delay", Body::empty()).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(
        unknown.body,
        json!({"message": "Application /x not found in tasks queue."})
    );
    assert_eq!(
        api.send(Method::DELETE, "/v2/queue/x", Body::empty())
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_queue_names_every_reason_even_those_that_did_not_occur() {
    let api = Api::start();
    api.post(&pod("x", 1)).await;
    let queue = api.get("/v2/queue").await.body;
    let steps = queue["queue"][0]["processedOffersSummary"]["rejectSummaryLastOffers"]
        .as_array()
        .unwrap()
        .clone();
    let reasons: Vec<_> = steps
        .iter()
        .map(|step| step["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        [
            "UnfulfilledRole",
            "UnfulfilledConstraint",
            "NoCorrespondingReservationFound",
            "AgentMaintenance",
            "InsufficientCpus",
            "InsufficientMemory",
            "InsufficientDisk",
            "InsufficientGpus",
            "InsufficientPorts",
            "DeclinedScarceResources"
        ]
    );
    assert!(
        steps
            .iter()
            .all(|step| step["declined"] == 0 && step["processed"] == 0)
    );
}
