//! Marathon's pods API over HTTP.
//!
//! * `path`: which pod, and what of it, a sloppy URL means
//! * `address`: under which name others reach us
//! * `answer`: the headers every answer carries and the shapes errors have
//! * `entrance`: who gets here at all
//! * `pods`, `queue`, `info`: the endpoints

mod address;
mod answer;
mod entrance;
mod info;
mod path;
mod pods;
mod queue;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    routing::{any, delete, get},
};

pub use self::address::Address;
use self::answer::{Failure, headers};
pub use self::entrance::serve;
use super::service::Handle;
use crate::{mesos::v1, pod::Profile};

/// The largest body taken; Marathon's clients send definitions of some kilobytes.
const LARGEST_BODY: usize = 4 << 20;

/// What the endpoints need.
#[derive(Debug, Clone)]
pub struct Context {
    pub scheduler: Handle,
    pub profile: Arc<Profile>,
    /// How others reach us.
    pub address: Address,
    /// As the master knows us.
    pub framework: Arc<v1::FrameworkInfo>,
    /// Where the master is, as the operator named it.
    pub master: String,
}

/// The whole API.
pub fn router(context: Context) -> Router {
    let address = context.address.clone();
    Router::new()
        .route("/ping", get(info::ping))
        .route("/v2/info", get(info::info))
        .route("/v2/leader", get(info::leader))
        .route("/v2/pods", any(pods::collection))
        .route("/v2/pods/", any(pods::collection))
        .route("/v2/pods/{*rest}", any(pods::one))
        .route("/v2/queue", get(queue::queue))
        .route("/v2/queue/{*rest}", delete(queue::reset_delay))
        .route("/v2/deployments", get(queue::deployments))
        .fallback(async || Failure::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Failure::method(""))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let leader = address.told(request.headers());
            async move { headers(leader, next.run(request).await).await }
        }))
        .with_state(context)
}

#[cfg(test)]
mod tests;
