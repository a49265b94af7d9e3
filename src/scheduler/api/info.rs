//! What this server is.

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{Context, answer::Failure};

pub(super) async fn ping() -> &'static str {
    "pong"
}

pub(super) async fn leader(State(context): State<Context>, headers: HeaderMap) -> Response {
    Json(json!({"leader": context.address.told(&headers)})).into_response()
}

/// Exactly Marathon's keys: its Python client raises on others.
pub(super) async fn info(State(context): State<Context>, headers: HeaderMap) -> Result<Response, Failure> {
    let ours = &context.framework;
    let framework = context
        .scheduler
        .ask(|core, _| core.framework().map(|id| id.value.clone()))
        .await?;
    Ok(Json(json!({
        "name": "podling",
        // Tools compare it with the Marathon they know; pods exist since 1.4.
        "version": "1.11.0",
        "buildref": concat!("podling ", env!("CARGO_PKG_VERSION")),
        "elected": true,
        "leader": context.address.told(&headers),
        "frameworkId": framework,
        "marathon_config": {
            "master": context.master,
            "checkpoint": true,
            "framework_name": ours.name,
            "mesos_user": ours.user,
            "hostname": ours.hostname,
            "webui_url": ours.webui_url,
            "mesos_role": context.profile.role,
            "default_network_name": context.profile.default_network,
        },
        "zookeeper_config": {},
        "http_config": {},
    }))
    .into_response())
}
