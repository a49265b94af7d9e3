//! The shapes of answers (API reference, sections 1.2 and 1.4).

use axum::{
    Json,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::path::BadTarget;
use crate::{
    pod::{Kind, PodId, Violations},
    scheduler::{core::Refusal, service::Unavailable, standing::Standing},
};

/// What keeps the scheduler from its work, one header each; also with `/ping`, for those who have access.
pub const TROUBLE: HeaderName = HeaderName::from_static("podling-trouble");
const DEPLOYMENT: HeaderName = HeaderName::from_static("marathon-deployment-id");

/// The longest sentence of the framework below us that is passed on.
const LONGEST_SENTENCE: usize = 4 << 10;

/// What is turned away before it comes to us is told in the same shape as everything else.
async fn in_our_shape(response: Response<Body>) -> Response<Body> {
    let is_json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
    let status = response.status();
    let ours = response.headers().get(header::CONTENT_TYPE).is_some_and(is_json);
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, LONGEST_SENTENCE)
        .await
        .unwrap_or_default();
    let message = match text.is_empty() {
        true => status.canonical_reason().unwrap_or_default().into(),
        false => String::from_utf8_lossy(&text),
    };
    let mut shaped = Failure::new(status, json!({"message": message})).into_response();
    for (name, value) in &parts.headers {
        shaped.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    shaped.headers_mut().remove(header::CONTENT_LENGTH);
    shaped
}

/// What every answer carries.
pub(super) async fn headers(leader: String, response: Response<Body>) -> Response<Body> {
    let mut response = in_our_shape(response).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::EXPIRES, "0"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(leader) = HeaderValue::try_from(format!("http://{leader}")) {
        headers.insert(HeaderName::from_static("x-marathon-leader"), leader);
    }
    response
}

/// Tells what keeps the scheduler from its work; not for strangers, who learn from it where the master is.
pub(super) fn tell_troubles(standing: &Standing, headers: &mut HeaderMap) {
    for sentence in standing.sentences() {
        // Headers are ASCII; bodies are Marathon's, and have no place for it.
        let ascii: String = sentence
            .chars()
            .map(|char| if char.is_ascii_graphic() { char } else { ' ' })
            .collect();
        if let Ok(value) = HeaderValue::try_from(ascii) {
            headers.append(TROUBLE, value);
        }
    }
}

/// An answer to something that started a deployment.
pub(super) fn deployed(status: StatusCode, deployment: Uuid, answer: impl IntoResponse) -> Response {
    let mut response = (status, answer).into_response();
    if let Ok(id) = HeaderValue::try_from(deployment.to_string()) {
        response.headers_mut().insert(DEPLOYMENT, id);
    }
    response
}

/// What went wrong, as clients expect to hear it: always an object with a `message`.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: Value,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub fn new(status: StatusCode, body: Value) -> Self {
        Failure {
            status,
            body,
            header: None,
        }
    }

    /// With one more header.
    pub fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Failure {
            header: Some((name, value)),
            ..self
        }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::NOT_FOUND, json!({"message": message.into()}))
    }

    pub fn no_pod(id: &PodId) -> Self {
        Failure::not_found(format!("Pod '{id}' does not exist"))
    }

    /// `allow`: the methods that are known here; where it is empty, the router adds them.
    pub fn method(allow: &'static str) -> Self {
        let body = json!({"message": "this method is not known here"});
        let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, body);
        match allow {
            "" => failure,
            allow => failure.with(header::ALLOW, HeaderValue::from_static(allow)),
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, json!({"message": message.into()}))
    }

    pub fn unprocessable(message: impl Into<String>) -> Self {
        Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            json!({"message": message.into()}),
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<Violations> for Failure {
    fn from(violations: Violations) -> Self {
        let message = if violations.concern_the_shape() {
            "Invalid JSON"
        } else {
            "Object is not valid"
        };
        let details: Vec<Value> = violations
            .0
            .iter()
            .map(|violation| {
                let errors = match violation.kind {
                    // Marathon's clients know the key; people read the sentence.
                    Kind::Shape { key } => json!([key, violation.message]),
                    Kind::Rule => json!([violation.message]),
                };
                json!({"path": violation.place.slashed(), "errors": errors})
            })
            .collect();
        Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            json!({"message": message, "details": details}),
        )
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Exists(_) => Failure::new(StatusCode::CONFLICT, json!({"message": message})),
            Refusal::Unknown(_) | Refusal::NotQueued(_) => Failure::not_found(message),
            Refusal::Group { .. } => Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                json!({"message": "Object is not valid", "details": [{"path": "/id", "errors": [message]}]}),
            ),
            Refusal::Locked { deployment } => Failure::new(
                StatusCode::CONFLICT,
                json!({"message": message, "deployments": [{"id": deployment.to_string()}]}),
            ),
        }
    }
}

impl From<BadTarget> for Failure {
    fn from(error: BadTarget) -> Self {
        match error {
            BadTarget::Unknown(_) => Failure::not_found(error.to_string()),
            BadTarget::Pod(_) | BadTarget::Instance(_) => Failure::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                json!({"message": "Object is not valid", "details": [{"path": "/", "errors": [error.to_string()]}]}),
            ),
        }
    }
}

impl From<Unavailable> for Failure {
    fn from(error: Unavailable) -> Self {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"message": error.to_string()}),
        )
    }
}

/// Reads a body whatever its content type says; many clients say none.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    if body.is_empty() {
        return Err(Failure::bad_request("Please specify data in JSON format"));
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        // It is JSON, but not what belongs here.
        serde_json::error::Category::Data => Failure::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            json!({"message": "Invalid JSON", "details": [{"path": "/", "errors": [error.to_string()]}]}),
        ),
        _ => Failure::new(
            StatusCode::BAD_REQUEST,
            json!({"message": "Invalid JSON", "details": error.to_string()}),
        ),
    })
}
