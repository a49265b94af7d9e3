//! `/v2/pods` and all below it.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Context,
    answer::{Failure, deployed, read},
    path::{self, Target},
};
use crate::{
    pod::{self, Ignored, InstanceId, Pod, PodId, Version},
    scheduler::core::{Accepted, Command, Instance},
};

/// Parameters we know; others are ignored. Clients write `true`, `True` or just the name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    force: Option<String>,
    wipe: Option<String>,
}

fn is_set(parameter: &Option<String>) -> bool {
    parameter
        .as_ref()
        .is_some_and(|value| value.is_empty() || value.eq_ignore_ascii_case("true"))
}

pub(super) async fn collection(
    State(context): State<Context>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    match method {
        Method::HEAD => Ok(StatusCode::OK.into_response()),
        Method::GET => {
            let pods = context
                .scheduler
                .ask(|core, _| core.definitions().cloned().collect::<Vec<_>>())
                .await?;
            Ok(Json(pods).into_response())
        }
        Method::POST => create(&context, &headers, &body).await,
        _ => Err(Failure::method("GET, HEAD, POST")),
    }
}

pub(super) async fn one(
    State(context): State<Context>,
    method: Method,
    Path(rest): Path<String>,
    Query(parameters): Query<Parameters>,
    body: Bytes,
) -> Result<Response, Failure> {
    let target = path::parse(&rest)?;
    // The server leaves the body of its answer away.
    let method = if method == Method::HEAD {
        Method::GET
    } else {
        method
    };
    match (method, target) {
        (Method::GET, Target::AllStatuses) => {
            let statuses = context
                .scheduler
                .ask(|core, stamp| core.statuses(stamp.wall))
                .await?;
            Ok(Json(statuses).into_response())
        }
        (Method::GET, Target::Pod(id)) => {
            let asked = id.clone();
            let pod = context
                .scheduler
                .ask(move |core, _| core.definition(&asked).cloned())
                .await?;
            Ok(Json(pod.ok_or_else(|| Failure::no_pod(&id))?).into_response())
        }
        (Method::GET, Target::Status(id)) => {
            let asked = id.clone();
            let status = context
                .scheduler
                .ask(move |core, stamp| core.status(&asked, stamp.wall))
                .await?;
            Ok(Json(status.ok_or_else(|| Failure::no_pod(&id))?).into_response())
        }
        (Method::GET, Target::Versions(id)) => versions(&context, id).await,
        (Method::GET, Target::Version(id, text)) => version(&context, id, &text).await,
        (Method::PUT, Target::Pod(id)) => update(&context, id, is_set(&parameters.force), &body).await,
        (Method::DELETE, Target::Pod(id)) => {
            let command = Command::Remove {
                id,
                force: is_set(&parameters.force),
            };
            let accepted = context.scheduler.command(command).await??;
            let mut response = deployed(StatusCode::ACCEPTED, accepted.deployment, ());
            // The bare id, relative to the request, as Marathon has it.
            locate(&mut response, &accepted.deployment.to_string());
            Ok(response)
        }
        (Method::DELETE, Target::Instance(id, instance)) => {
            let killed = kill(&context, id, vec![instance.clone()], is_set(&parameters.wipe)).await?;
            let killed = killed
                .instances
                .first()
                .map(|instance| view(killed.pod.as_deref(), instance));
            let missing = || Failure::not_found(format!("Task '{instance}' does not exist"));
            Ok(Json(killed.ok_or_else(missing)?).into_response())
        }
        (Method::DELETE, Target::Instances(id)) => {
            let ids: Vec<String> = read(&body)?;
            let parsed = ids
                .iter()
                .map(|id| id.parse())
                .collect::<Result<Vec<InstanceId>, _>>();
            let ids = parsed.map_err(path::BadTarget::from)?;
            let killed = kill(&context, id, ids, is_set(&parameters.wipe)).await?;
            let view = |instance: &Instance| view(killed.pod.as_deref(), instance);
            Ok(Json(killed.instances.iter().map(view).collect::<Vec<_>>()).into_response())
        }
        (_, Target::Pod(_)) => Err(Failure::method("GET, HEAD, PUT, DELETE")),
        (_, Target::Instance(..) | Target::Instances(_)) => Err(Failure::method("DELETE")),
        _ => Err(Failure::method("GET, HEAD")),
    }
}

fn locate(response: &mut Response, place: &str) {
    if let Ok(value) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}

fn definition(context: &Context, body: &Bytes) -> Result<pod::Definition, Failure> {
    let value: Value = read(body)?;
    Ok(pod::read(&value, &context.profile)?)
}

/// As many fields without effect are named, and each at no more than this length.
const WARNINGS: usize = 16;
const LONGEST_WARNING: usize = 300;

/// Says in headers, which no client minds, what of a definition has no effect.
fn warn(response: &mut Response, ignored: &[Ignored]) {
    for ignored in ignored.iter().filter(|one| !one.is_harmless()).take(WARNINGS) {
        // Somebody else's words, made fit for a header.
        let words: String = ignored
            .to_string()
            .escape_default()
            .take(LONGEST_WARNING)
            .collect();
        if let Ok(value) = HeaderValue::try_from(format!("299 podling \"{}\"", words.replace('"', "'"))) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

async fn create(context: &Context, headers: &HeaderMap, body: &Bytes) -> Result<Response, Failure> {
    let pod::Definition { pod, ignored } = definition(context, body)?;
    let place = format!("http://{}{}", context.address.told(headers), pod.id);
    let Accepted { deployment, pod, .. } = context.scheduler.command(Command::Create(pod)).await??;
    let mut response = deployed(StatusCode::CREATED, deployment, Json(pod));
    locate(&mut response, &place);
    warn(&mut response, &ignored);
    Ok(response)
}

async fn update(context: &Context, id: PodId, force: bool, body: &Bytes) -> Result<Response, Failure> {
    let pod::Definition { pod, ignored } = definition(context, body)?;
    if pod.id != id {
        let message = format!("'{id}' does not match definition's id ('{}')", pod.id);
        return Err(Failure::bad_request(message));
    }
    let Accepted { deployment, pod, .. } = context
        .scheduler
        .command(Command::Update { pod, force })
        .await??;
    let mut response = deployed(StatusCode::OK, deployment, Json(pod));
    warn(&mut response, &ignored);
    Ok(response)
}

async fn versions(context: &Context, id: PodId) -> Result<Response, Failure> {
    let asked = id.clone();
    if !context
        .scheduler
        .ask(move |core, _| core.definition(&asked).is_some())
        .await?
    {
        return Err(Failure::no_pod(&id));
    }
    Ok(Json(context.scheduler.versions(id).await?).into_response())
}

async fn version(context: &Context, id: PodId, text: &str) -> Result<Response, Failure> {
    let version: Version = text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Failure::unprocessable(format!(
            "Invalid timestamp provided '{shown}'. Expecting ISO-8601 datetime string."
        ))
    })?;
    let pod = context.scheduler.version(id.clone(), version).await?;
    let missing = || Failure::not_found(format!("Version '{version}' of pod '{id}' does not exist"));
    Ok(Json(pod.ok_or_else(missing)?).into_response())
}

async fn kill(
    context: &Context,
    pod: PodId,
    instances: Vec<InstanceId>,
    wipe: bool,
) -> Result<Accepted, Failure> {
    let unknown = Failure::not_found(format!("Path '{pod}' does not exist"));
    let command = Command::Kill { pod, instances, wipe };
    context.scheduler.command(command).await?.map_err(|_| unknown)
}

/// An instance in the API's words, as it was when the call came.
fn view(pod: Option<&Pod>, instance: &Instance) -> Value {
    let checks = pod.is_some_and(|pod| pod.containers.iter().any(|c| c.health_check.is_some()));
    let healthy = checks.then(|| instance.tasks.values().all(|task| task.healthy != Some(false)));
    json!({
        "instanceId": instance.id.to_string(),
        "state": {
            "condition": instance.condition,
            "since": instance.since,
            "activeSince": instance.active_since,
            "healthy": healthy,
            "goal": instance.goal,
        },
        "agentInfo": instance.placed.as_ref().map(|placed| json!({
            "host": placed.host, "agentId": placed.agent, "attributes": [],
        })),
        "runSpecVersion": instance.version,
        "unreachableStrategy": pod.map(|pod| pod.scheduling.unreachable_strategy),
    })
}
