//! One look over HTTP: a connection, a request, an answer, and as many redirects as are reasonable.

use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Sighting,
    redirect::Place,
    sockets::{Sockets, describe},
    tls,
};
use crate::group::probe::{HttpProbe, Sight, Tls};

/// No more of a body is read; what is behind that does not matter to a check.
const MOST_BODY: usize = 64 << 10;
/// The head of an answer fits in here.
const MOST_HEAD: usize = 16 << 10;
const MOST_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("podling/", env!("CARGO_PKG_VERSION"));

/// An answer, as far as a check looks at it.
struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: Vec<u8>,
}

pub(super) async fn look(probe: &HttpProbe, sockets: &Sockets) -> Sighting {
    let mut place = Place {
        tls: probe.tls.is_some(),
        address: probe.address,
        target: probe.target.clone(),
    };
    let Ok(mut method) = Method::from_bytes(probe.method.as_bytes()) else {
        return (Sight::Failed(format!("{:?} is no method", probe.method)), None);
    };
    let mut words = None;
    for _ in 0..=MOST_REDIRECTS {
        let answer = match ask(probe, &place, &method, sockets).await {
            Ok(answer) => answer,
            Err(sight) => return (sight, words),
        };
        let next = answer.location.as_deref().filter(|_| redirects(answer.status));
        let Some(location) = next else {
            return (verdict(probe, &answer), words);
        };
        // As browsers do.
        if matches!(answer.status.as_u16(), 301..=303) && method != Method::HEAD {
            method = Method::GET;
        }
        place = match place.follow(location) {
            Some(place) => place,
            // It has answered, and sends people elsewhere: whether that is good is for its status to say.
            None => return (verdict(probe, &answer), Some("a redirect to elsewhere".into())),
        };
        words = Some(format!("redirected to {}", place.target));
    }
    let many = format!("more than {MOST_REDIRECTS} redirects");
    (Sight::Failed(many), None)
}

fn redirects(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn verdict(probe: &HttpProbe, answer: &Answer) -> Sight {
    let status = answer.status.as_u16();
    match &probe.body {
        Some(wanted) if !contains(&answer.body, wanted.as_bytes()) => Sight::OddBody(status),
        _ => Sight::Status(status),
    }
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

async fn ask(probe: &HttpProbe, place: &Place, method: &Method, sockets: &Sockets) -> Result<Answer, Sight> {
    let request = request(probe, place, method)?;
    let keep_body = probe.body.is_some();
    let connection = sockets.connect(place.address).await?;
    if !place.tls {
        return exchange(connection, request, keep_body).await;
    }
    let wanted = probe.tls.as_ref().unwrap_or(&Tls::Anyone);
    let connection = tls::connect(wanted, place.address.ip(), connection).await?;
    exchange(connection, request, keep_body).await
}

fn request(probe: &HttpProbe, place: &Place, method: &Method) -> Result<Request<Empty<Bytes>>, Sight> {
    let failed = |what: String| Sight::Failed(format!("the request cannot be made: {what}"));
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(&place.host()).map_err(|error| failed(error.to_string()))?;
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    // Asked of themselves, not of what an operator wrote: a check is one connection.
    for (name, value) in &probe.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let value = HeaderValue::from_str(value).map_err(|error| failed(error.to_string()))?;
        headers.insert(name, value);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut request = Request::builder()
        .method(method)
        .uri(&place.target)
        .body(Empty::new())
        .map_err(|error| failed(error.to_string()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn exchange<C>(connection: C, request: Request<Empty<Bytes>>, keep_body: bool) -> Result<Answer, Sight>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEAD)
        .handshake(TokioIo::new(connection))
        .await
        .map_err(|error| Sight::Failed(sentence(&error)))?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        read(response, keep_body).await
    });
    let mut open = true;
    let answered = loop {
        tokio::select! {
            biased;
            answered = &mut answer => break answered,
            // Its errors reach whoever waits for the answer.
            _ = &mut connection, if open => open = false,
        }
    };
    answered.map_err(|error| Sight::Failed(sentence(&error)))
}

/// The answer, with its body up to the bound. A body that breaks off is no answer, as for curl.
async fn read(response: Response<Incoming>, keep_body: bool) -> Result<Answer, hyper::Error> {
    let (head, mut incoming) = response.into_parts();
    let location = head.headers.get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (mut body, mut read) = (Vec::new(), 0);
    while read < MOST_BODY
        && let Some(frame) = incoming.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            if keep_body {
                body.extend_from_slice(data.get(..MOST_BODY - read).unwrap_or(&data));
            }
            read += data.len();
        }
    }
    Ok(Answer {
        status: head.status,
        location,
        body,
    })
}

/// An error of hyper's by its cause, which says more.
fn sentence(error: &hyper::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        return describe(error);
    }
    if error.is_incomplete_message() {
        return "connection closed before the end of the answer".into();
    }
    if error.is_parse() {
        return format!("no HTTP: {cause}");
    }
    cause.to_string()
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
