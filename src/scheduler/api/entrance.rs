//! From connections to the router: who is let in is decided before anything of a request is looked at.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper::{body::Incoming, service::Service as _, service::service_fn};
use hyper_util::service::TowerToHyperService;
use serde_json::json;

use super::{
    Address, Context, LARGEST_BODY,
    answer::{Failure, headers, tell_troubles},
    router,
};
use crate::{
    door::{self, Caller, Crowd, Entry, Keeper, Limits, Listener, Refusal, TooLarge},
    scheduler::standing::Standing,
};

/// Tells nothing and changes nothing: whatever looks after servers asks it without a word.
const OPEN: &str = "/ping";

/// What a connection's requests need.
struct Entrance {
    router: Router,
    keeper: Keeper,
    address: Address,
    standing: Standing,
}

/// Serves the API to whom the keeper lets in, for ever.
pub async fn serve(listener: Listener, context: Context, keeper: Keeper) -> Infallible {
    let crowd = Crowd::new(Limits::part(4));
    let entrance = Arc::new(Entrance {
        address: context.address.clone(),
        standing: context.scheduler.standing().clone(),
        router: router(context),
        keeper,
    });
    loop {
        let guest = door::welcome(&listener, &crowd, entrance.keeper.peers()).await;
        let (entrance, idle) = (entrance.clone(), crowd.limits().idle);
        tokio::spawn(async move {
            let (caller, entry) = (guest.caller.clone(), guest.entry.clone());
            let service = service_fn(move |request| {
                let (entrance, caller, entry) = (entrance.clone(), caller.clone(), entry.clone());
                async move { Ok::<_, Infallible>(entrance.answer(&caller, &entry, request).await) }
            });
            guest.serve(idle, service).await;
        });
    }
}

impl Entrance {
    async fn answer(&self, caller: &Caller, entry: &Entry, request: Request<Incoming>) -> Response<Body> {
        entry.heard();
        let leader = self.address.told(request.headers());
        let (head, body) = request.into_parts();
        let open = head.uri.path() == OPEN;
        let verdict = match open {
            true => self.keeper.passes(&head, caller),
            false => self.keeper.admits(&head, caller).await,
        };
        if let Err(refusal) = verdict {
            door::discard(body, &head.headers);
            return headers(leader, Failure::from(refusal).into_response()).await;
        }
        let known = match open {
            // Asked only when there is something that strangers must not hear.
            true => self.standing.is_troubled() && self.keeper.admits(&head, caller).await.is_ok(),
            false => {
                entry.admit();
                true
            }
        };
        let mut response = match door::take_in(body, &head.headers, LARGEST_BODY).await {
            Ok(body) => {
                let request = Request::from_parts(head, Body::from(body));
                match TowerToHyperService::new(self.router.clone()).call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(error) => headers(leader, Failure::from(error).into_response()).await,
        };
        if known {
            tell_troubles(&self.standing, response.headers_mut());
        }
        response
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
        let failure = Failure::new(status, json!({"message": refusal.reason}));
        match refusal.challenge {
            Some(challenge) => failure.with(header::WWW_AUTHENTICATE, challenge),
            None => failure,
        }
    }
}

impl From<TooLarge> for Failure {
    fn from(error: TooLarge) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Failure::new(status, json!({"message": error.to_string()}))
    }
}
