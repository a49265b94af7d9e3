//! Taking in a request's body, and getting rid of one.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    HeaderMap,
    body::{Body as _, Incoming},
    header::EXPECT,
};

/// For a whole body; the longest takes a second on a slow line.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is read on of a body that nobody wants, so that a client which writes first gets to read the answer.
const WASTE: u64 = 64 << 20;
const WASTED_TIME: Duration = Duration::from_secs(10);

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum TooLarge {
    #[error("the request body is longer than {0} bytes")]
    Length(usize),
    #[error("the request body did not come within {} seconds", PATIENCE.as_secs())]
    Slow,
    #[error("the request body broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl TooLarge {
    pub fn status(&self) -> u16 {
        match self {
            TooLarge::Length(_) => 413,
            TooLarge::Slow => 408,
            TooLarge::Broken(_) => 400,
        }
    }
}

/// The whole body. Of one that is too long the rest is read while the answer is on its way.
pub async fn take_in(mut body: Incoming, headers: &HeaderMap, limit: usize) -> Result<Bytes, TooLarge> {
    // What is announced as too long need not even be sent.
    if body.size_hint().lower() > limit as u64 {
        discard(body, headers);
        return Err(TooLarge::Length(limit));
    }
    let limited = Limited::new(&mut body, limit).collect();
    match tokio::time::timeout(PATIENCE, limited).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(body, headers);
            Err(TooLarge::Length(limit))
        }
        Ok(Err(error)) => Err(TooLarge::Broken(error)),
        Err(_) => Err(TooLarge::Slow),
    }
}

/// Reads what somebody has begun to send before it could know that it is not wanted, within reason.
pub fn discard(mut body: Incoming, headers: &HeaderMap) {
    // This client asks before it sends.
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    tokio::spawn(async move {
        let mut wasted = 0;
        let read = async {
            while let Some(Ok(frame)) = body.frame().await {
                wasted += frame.data_ref().map_or(0, |data| data.len() as u64);
                if wasted > WASTE {
                    return;
                }
            }
        };
        // However it ends: the connection ends with it, or goes on.
        let _ = tokio::time::timeout(WASTED_TIME, read).await;
    });
}
