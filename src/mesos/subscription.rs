//! The connection that carries SUBSCRIBE and, as its endless answer, the events; the executor API and the scheduler
//! API have it in common.

use std::marker::PhantomData;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use super::{
    codec::{self, DecodeError, Encoding},
    recordio::{self, RecordError},
};

pub const STREAM_ID: HeaderName = HeaderName::from_static("mesos-stream-id");

/// What we read of the sentence that comes with a refusal.
const MAX_REFUSAL: usize = 4 << 10;

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the peer ended the event stream")]
    Ended,
    #[error("the event stream broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("SUBSCRIBE is not a valid request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the event stream is damaged: {0}")]
    Record(#[from] RecordError),
    #[error("an event cannot be read: {0}")]
    Event(#[from] DecodeError),
    #[error("the peer streams `{0}`, which we do not know")]
    MediaType(String),
}

/// What the agent or the master said to SUBSCRIBE.
#[derive(Debug)]
pub enum Reply<E> {
    Stream(Stream<E>),
    Refused {
        status: u16,
        text: String,
        /// Where the leading master is, if this is not it.
        location: Option<String>,
    },
}

/// The SUBSCRIBE request but for its body.
#[derive(Debug, Clone)]
pub struct SubscribeHead {
    pub path: String,
    pub host: String,
    pub encoding: Encoding,
    pub authorization: Option<HeaderValue>,
}

/// Ends the connection's task with the stream.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Events of type `E`, as they come.
#[derive(Debug)]
pub struct Stream<E> {
    /// The header every later call to a master has to repeat.
    pub id: Option<HeaderValue>,
    body: Incoming,
    records: recordio::Decoder,
    encoding: Encoding,
    _driver: Driver,
    _events: PhantomData<E>,
}

impl<E: codec::Message> Stream<E> {
    pub async fn subscribe(
        line: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        head: &SubscribeHead,
        call: Bytes,
        record_limit: usize,
    ) -> Result<Reply<E>, StreamError> {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(64 << 10)
            .handshake::<_, Full<Bytes>>(TokioIo::new(line))
            .await?;
        let driver = Driver(tokio::spawn(async move {
            // Its failure shows in the body as well.
            let _ = connection.await;
        }));
        let mut request = Request::post(&head.path)
            .header(HOST, &head.host)
            .header(CONTENT_TYPE, head.encoding.media_type())
            .header(ACCEPT, head.encoding.media_type());
        if let Some(authorization) = &head.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = sender.send_request(request.body(Full::new(call))?).await?;
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            let text = Limited::new(body, MAX_REFUSAL).collect().await;
            let text = text.map(|collected| collected.to_bytes()).unwrap_or_default();
            let location = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            return Ok(Reply::Refused {
                status: parts.status.as_u16(),
                text: String::from_utf8_lossy(&text).trim().to_owned(),
                location: location.map(str::to_owned),
            });
        }
        let media_type = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        let encoding = [Encoding::Protobuf, Encoding::Json]
            .into_iter()
            .find(|encoding| encoding.media_type() == media_type)
            .ok_or_else(|| StreamError::MediaType(media_type.escape_debug().to_string()))?;
        Ok(Reply::Stream(Stream {
            id: parts.headers.get(STREAM_ID).cloned(),
            body,
            records: recordio::Decoder::new(record_limit),
            encoding,
            _driver: driver,
            _events: PhantomData,
        }))
    }

    /// The next event. May be dropped and called again at any time.
    pub async fn next(&mut self) -> Result<E, StreamError> {
        loop {
            if let Some(record) = self.records.next_record()? {
                return Ok(codec::decode(&record, self.encoding)?);
            }
            match self.body.frame().await {
                None => return Err(StreamError::Ended),
                Some(frame) => {
                    if let Some(data) = frame?.data_ref() {
                        self.records.push(data);
                    }
                }
            }
        }
    }
}
