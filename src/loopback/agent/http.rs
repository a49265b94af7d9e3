//! From a request to an answer (wire file, sections 1, 2, 8 and 9).

use std::{cell::RefCell, convert::Infallible, rc::Rc, sync::Arc};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};

use super::{
    core::Core,
    journal::{Phase, What},
    link::{Answer, Events, Link, Order, Use},
    rules::{self, Refusal},
    server::Visit,
    token::Claims,
};
use crate::door;
use crate::mesos::{
    codec::Encoding,
    v1::executor::{Call, call},
};

/// What a call comes to.
enum Outcome {
    Accepted,
    Stream(Box<Events>, Encoding),
    /// Processed, but the connection is cut instead of an answer.
    Silence,
}

pub(super) async fn handle(
    core: Rc<RefCell<Core>>,
    link: Rc<Link>,
    visit: &Visit,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let (head, body) = request.into_parts();
    let (limit, token_needed) = {
        let core = core.borrow();
        (core.flags.max_body, core.identity.token_needed)
    };
    visit.entry.heard();
    // A token is looked at later: what it has to say depends on the call. Without one it has to be the owner.
    let by_token = token_needed || head.headers.contains_key(AUTHORIZATION);
    let verdict = match by_token {
        true => visit.keeper.passes(&head, &visit.caller),
        false => visit.keeper.admits(&head, &visit.caller).await,
    };
    if !by_token && verdict.is_ok() {
        visit.entry.admit();
    }
    let body = match verdict {
        Ok(()) => door::take_in(body, &head.headers, limit)
            .await
            .map_err(|error| Refusal::new(error.status(), format!("Cannot take the request body: {error}"))),
        Err(refusal) => {
            door::discard(body, &head.headers);
            Err(Refusal::new(refusal.status, refusal.reason))
        }
    };
    let mut call = None;
    let answered = body.and_then(|body| answer(&core, &link, &head, &body, &mut call));
    if answered.is_ok() {
        visit.entry.admit();
    }
    match answered {
        Ok(Outcome::Accepted) => Ok(respond(StatusCode::ACCEPTED, None)),
        Ok(Outcome::Stream(events, encoding)) => {
            let mut response = Response::new(Answer::Events(events));
            let kind = HeaderValue::from_static(encoding.media_type());
            response.headers_mut().insert(CONTENT_TYPE, kind);
            Ok(response)
        }
        Ok(Outcome::Silence) => {
            link.order(Order::Cut);
            std::future::pending().await
        }
        Err(refusal) => {
            core.borrow().refused(&refusal, call);
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = respond(status, Some(refusal.reason));
            match status {
                StatusCode::METHOD_NOT_ALLOWED => {
                    response
                        .headers_mut()
                        .insert(ALLOW, HeaderValue::from_static("POST"));
                }
                StatusCode::UNAUTHORIZED => {
                    let challenge = HeaderValue::from_static("Bearer realm=\"mesos-agent-executor\"");
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                _ => {}
            }
            Ok(response)
        }
    }
}

fn respond(status: StatusCode, text: Option<String>) -> Response<Answer> {
    let plain = text.is_some();
    let mut response = Response::new(Answer::Whole(text.map(Bytes::from)));
    *response.status_mut() = status;
    if plain {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

fn answer(
    core: &RefCell<Core>,
    link: &Rc<Link>,
    head: &hyper::http::request::Parts,
    body: &Bytes,
    read: &mut Option<Arc<Call>>,
) -> Result<Outcome, Refusal> {
    // The time of arrival: the body is complete, nothing has been done with it.
    let mut core = core.borrow_mut();
    let arrived = core.journal.now();
    // Read before it is known whether anybody wants it: what is turned away is told too.
    let parsed = rules::content_type(header(&head.headers, CONTENT_TYPE))
        .and_then(|encoding| rules::call(body, encoding))
        .map(|(call, kind)| (Arc::new(call), kind));
    *read = parsed.as_ref().ok().map(|(call, _)| call.clone());

    route(head.uri.path(), &core.identity.process, link.domain)?;
    match core.phase() {
        Phase::Away | Phase::Absent => return Err(Refusal::new(404, "")),
        Phase::Starting => return Err(unrecovered()),
        Phase::Recovering | Phase::Up => {}
    }
    let shown = header(&head.headers, AUTHORIZATION);
    let claims = match shown.is_some() || core.identity.token_needed {
        true => {
            let claims = core.identity.secret.verify(shown);
            Some(claims.ok_or_else(|| Refusal::new(401, "No valid token of this executor"))?)
        }
        false => None,
    };
    if head.method != Method::POST {
        return Err(Refusal::new(
            405,
            format!("Expecting 'POST', received '{}'", head.method),
        ));
    }
    let (call, kind) = parsed?;

    let accepted = match kind {
        call::Type::Subscribe => {
            if let Some(status) = core.mischief.subscribe_answers.pop_front() {
                return Err(Refusal::new(status, "Try again"));
            }
            Some(rules::accepted(
                head.headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes),
            )?)
        }
        _ if core.phase() == Phase::Recovering => return Err(unrecovered()),
        _ => None,
    };
    if kind != call::Type::Heartbeat {
        check_claims(&call, claims.as_ref())?;
    }
    let taken_in = What::Call(call.clone());
    let seat = match kind {
        call::Type::Heartbeat => None,
        call::Type::Unknown => return Err(Refusal::new(501, "Received 'UNKNOWN' call")),
        _ => Some(core.find(&call)?),
    };
    if let Some(id) = seat {
        check_container(&core, id, claims.as_ref())?;
        if accepted.is_none() && core.is_registering(id) {
            return Err(Refusal::new(403, "Executor is not subscribed"));
        }
    }
    core.journal.record_at(arrived, taken_in);

    if let (Some(id), Some(encoding), Some(subscribe)) = (seat, accepted, &call.subscribe) {
        link.used.set(Use::Stream);
        let events = core
            .subscribe(id, subscribe, link, encoding)
            .ok_or_else(|| Refusal::new(400, "Executor cannot be found"))?;
        return Ok(Outcome::Stream(Box::new(events), encoding));
    }
    link.used.set(Use::Calls);
    link.calls.set(link.calls.get() + 1);
    if let (Some(id), Some(update)) = (seat, &call.update) {
        core.update(id, &update.status);
    }
    if let (Some(id), Some(message)) = (seat, &call.message) {
        core.said(id, message.data.clone());
    }
    if core
        .mischief
        .cut_calls_after
        .is_some_and(|calls| link.calls.get() >= calls)
    {
        core.mischief.cut_calls_after = None;
        return Ok(Outcome::Silence);
    }
    Ok(Outcome::Accepted)
}

fn header(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&[u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}

fn unrecovered() -> Refusal {
    Refusal::new(503, "Agent has not finished recovery")
}

/// TCP has the agent's own path and the short one; the domain socket only the first.
fn route(path: &str, process: &str, domain: bool) -> Result<(), Refusal> {
    let own = path.strip_prefix('/').and_then(|path| path.strip_prefix(process));
    match own {
        Some("/api/v1/executor") => Ok(()),
        Some("/api/v1") => Err(Refusal::new(501, "The loopback agent has no operator API")),
        _ if domain => Err(Refusal::new(
            403,
            "Only the agent's own API is served on the domain socket",
        )),
        _ if path == "/api/v1/executor" => Ok(()),
        _ => Err(Refusal::new(404, "")),
    }
}

fn check_claims(call: &Call, claims: Option<&Claims>) -> Result<(), Refusal> {
    let mismatch = claims.is_some_and(|claims| {
        claims.framework != call.framework_id.value || claims.executor != call.executor_id.value
    });
    match mismatch {
        true => Err(Refusal::new(
            403,
            "The token was not made for this framework and executor",
        )),
        false => Ok(()),
    }
}

fn check_container(core: &Core, id: super::core::SeatId, claims: Option<&Claims>) -> Result<(), Refusal> {
    let container = core.seat(id).map(|seat| seat.container.value.as_str());
    match claims.is_some_and(|claims| Some(claims.container.as_str()) != container) {
        true => Err(Refusal::new(403, "The token was not made for this container")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_exact_and_the_socket_has_only_the_full_one() {
        let status = |path: &str, domain| route(path, "slave(7)", domain).map_err(|r| r.status);
        assert_eq!(status("/slave(7)/api/v1/executor", false), Ok(()));
        assert_eq!(status("/slave(7)/api/v1/executor", true), Ok(()));
        assert_eq!(status("/api/v1/executor", false), Ok(()));
        assert_eq!(status("/api/v1/executor", true), Err(403));
        for wrong in [
            "/slave(1)/api/v1/executor",
            "/api/v1/executor/",
            "/",
            "/slave(7)/api/v1/executor/",
        ] {
            assert_eq!(status(wrong, false), Err(404), "{wrong}");
            assert_eq!(status(wrong, true), Err(403), "{wrong}");
        }
        assert_eq!(status("/slave(7)/api/v1", true), Err(501));
    }
}
