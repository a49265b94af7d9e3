//! The v1 scheduler API over HTTP (wire file, sections 2 and 15).

use std::{
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE},
    service::service_fn,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_local,
};

use super::{Station, core::Refusal};
use crate::{
    door::{self, Caller, Crowd, Entry, Keeper, Limits, Listener},
    group::validate,
    loopback::agent::rules,
    mesos::{
        codec::{self, Encoding},
        recordio,
        subscription::STREAM_ID,
        v1::scheduler::{Call, Event, call},
    },
};

const LARGEST_BODY: usize = 64 << 20;
/// Tell nothing and change nothing.
const PUBLIC: [&str; 4] = ["/health", "/master/health", "/version", "/master/version"];
/// The longest `Mesos-Stream-Id` a master looks at.
const LONGEST_STREAM_ID: usize = 128;

/// The open event streams, by framework.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<String, Stream>);

#[derive(Debug)]
struct Stream {
    encoding: Encoding,
    records: UnboundedSender<Bytes>,
}

impl Streams {
    pub fn send(&self, framework: &str, event: &Event) {
        if let Some(stream) = self.0.get(framework) {
            // A stream whose reader is gone is about to be told so.
            let _ = stream
                .records
                .send(recordio::frame(&codec::encode(event, stream.encoding)));
        }
    }

    pub fn close(&mut self, framework: &str) {
        self.0.remove(framework);
    }

    pub fn open(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

pub(super) async fn serve(station: Rc<RefCell<Station>>, listener: Listener, keeper: Keeper) {
    // Schedulers leave the connection for calls idle for as long as they like.
    let crowd = Crowd::new(Limits::part(8).with_patient_friends());
    loop {
        let guest = door::welcome(&listener, &crowd, keeper.peers()).await;
        let (station, keeper, idle) = (station.clone(), keeper.clone(), crowd.limits().idle);
        spawn_local(async move {
            let (caller, entry) = (guest.caller.clone(), guest.entry.clone());
            let service = service_fn(|request| handle(station.clone(), &keeper, (&caller, &entry), request));
            guest.serve(idle, service).await;
        });
    }
}

/// A whole answer, or the events of a subscription.
enum Answer {
    Whole(Option<Bytes>),
    Events {
        records: UnboundedReceiver<Bytes>,
        _ended: Ended,
    },
}

/// Tells the master that a stream has ended, whichever way.
struct Ended {
    station: Rc<RefCell<Station>>,
    framework: String,
    stream: String,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let station = self.station.clone();
        let (framework, stream) = (
            std::mem::take(&mut self.framework),
            std::mem::take(&mut self.stream),
        );
        // The stream may end while the station is in the middle of something.
        spawn_local(async move {
            let mut station = station.borrow_mut();
            if station.core.is_stream(&framework, &stream) {
                station.streams.close(&framework);
            }
            station.step(|core, out| core.disconnected(&framework, &stream, out));
        });
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            Answer::Whole(bytes) => Poll::Ready(bytes.take()),
            Answer::Events { records, .. } => records.poll_recv(cx),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Answer::Events { .. } => SizeHint::default(),
        }
    }
}

async fn handle(
    station: Rc<RefCell<Station>>,
    keeper: &Keeper,
    (caller, entry): (&Caller, &Entry),
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let (head, body) = request.into_parts();
    entry.heard();
    let open = PUBLIC.contains(&head.uri.path());
    let verdict = match open {
        true => keeper.passes(&head, caller),
        false => keeper.admits(&head, caller).await,
    };
    if let Err(refusal) = verdict {
        door::discard(body, &head.headers);
        return Ok(kept_out(refusal));
    }
    if !open {
        entry.admit();
    }
    let answer = match door::take_in(body, &head.headers, LARGEST_BODY).await {
        Ok(body) => answer(&station, &head, &body),
        Err(error) => Err(Refusal {
            status: error.status(),
            reason: format!("Cannot take the request body: {error}"),
        }),
    };
    Ok(answer.unwrap_or_else(|refusal| {
        let mut response = Response::new(Answer::Whole(Some(Bytes::from(refusal.reason))));
        *response.status_mut() =
            StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if refusal.status == 405 {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }))
}

fn kept_out(refusal: door::Refusal) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(Bytes::from(refusal.reason))));
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
    if let Some(challenge) = refusal.challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

impl From<rules::Refusal> for Refusal {
    fn from(refusal: rules::Refusal) -> Self {
        Refusal {
            status: refusal.status,
            reason: refusal.reason,
        }
    }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    headers.get(name).map(HeaderValue::as_bytes)
}

fn refusal(status: u16, reason: impl Into<String>) -> Refusal {
    Refusal {
        status,
        reason: reason.into(),
    }
}

fn answer(
    station: &Rc<RefCell<Station>>,
    head: &hyper::http::request::Parts,
    body: &Bytes,
) -> Result<Response<Answer>, Refusal> {
    match head.uri.path() {
        "/api/v1/scheduler" | "/master/api/v1/scheduler" => {}
        "/health" | "/master/health" => return Ok(Response::new(Answer::Whole(None))),
        // Clients decide by it what they may ask for.
        "/version" | "/master/version" => {
            let version = Bytes::from_static(br#"{"version":"1.11.0"}"#);
            let mut response = Response::new(Answer::Whole(Some(version)));
            let json = HeaderValue::from_static(Encoding::Json.media_type());
            response.headers_mut().insert(CONTENT_TYPE, json);
            return Ok(response);
        }
        _ => return Err(refusal(404, "")),
    }
    if head.method != Method::POST {
        return Err(refusal(
            405,
            format!("Expecting 'POST', received '{}'", head.method),
        ));
    }
    let encoding = rules::content_type(header(&head.headers, CONTENT_TYPE))?;
    let call: Call = codec::decode(body, encoding)
        .map_err(|error| refusal(400, format!("Failed to parse body into Call: {error}")))?;
    let stream = header(&head.headers, STREAM_ID).map(|id| String::from_utf8_lossy(id).into_owned());
    if call.r#type.is_none() {
        return Err(refusal(
            400,
            "Failed to validate scheduler::Call: Expecting 'type' to be present",
        ));
    }
    if call.r#type() == call::Type::Subscribe {
        if stream.is_some() {
            return Err(refusal(
                400,
                "Subscribe calls should not include the 'Mesos-Stream-Id' header",
            ));
        }
        let accepted = rules::accepted(head.headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes))?;
        return subscribe(station, &call, accepted);
    }
    let framework = call
        .framework_id
        .as_ref()
        .ok_or_else(|| refusal(400, "Expecting 'framework_id' to be present"))?;
    let stream = stream.filter(|id| id.len() <= LONGEST_STREAM_ID).ok_or_else(|| {
        refusal(
            400,
            "All non-subscribe calls should include the 'Mesos-Stream-Id' header",
        )
    })?;
    let mut station = station.borrow_mut();
    if !station.core.is_known(&framework.value) {
        return Err(refusal(400, "Framework cannot be found"));
    }
    if !station.core.is_subscribed(&framework.value) {
        return Err(refusal(403, "Framework is not subscribed"));
    }
    if !station.core.is_stream(&framework.value, &stream) {
        let reason = "The stream ID included in this request didn't match the stream ID currently associated with framework";
        return Err(refusal(400, reason));
    }
    station.step(|core, out| core.call(&framework.value, &call, out))?;
    let mut response = Response::new(Answer::Whole(None));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn subscribe(
    station: &Rc<RefCell<Station>>,
    call: &Call,
    encoding: Encoding,
) -> Result<Response<Answer>, Refusal> {
    let body = call.subscribe.as_ref();
    let body = body.ok_or_else(|| refusal(400, "Expecting 'subscribe' to be present"))?;
    if body.framework_info.id != call.framework_id {
        return Err(refusal(
            400,
            "'framework_id' differs from 'subscribe.framework_info.id'",
        ));
    }
    if let Some(problem) = call
        .framework_id
        .as_ref()
        .and_then(|id| validate::id_problem(&id.value))
    {
        return Err(refusal(400, format!("'framework_id' {problem}")));
    }
    let stream = uuid::Uuid::new_v4().to_string();
    let (records, reader) = unbounded_channel();
    let framework = {
        let mut station = station.borrow_mut();
        let framework = station.step(|core, out| core.subscribe(body, &stream, out))?;
        station
            .streams
            .0
            .insert(framework.clone(), Stream { encoding, records });
        station.step(|core, out| core.welcome(&framework, out));
        framework
    };
    let id = HeaderValue::try_from(&stream).map_err(|_| refusal(500, "no stream id"))?;
    let ended = Ended {
        station: station.clone(),
        framework,
        stream,
    };
    let mut response = Response::new(Answer::Events {
        records: reader,
        _ended: ended,
    });
    let kind = HeaderValue::from_static(encoding.media_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(STREAM_ID, id);
    Ok(response)
}
