//! The connection that carries every call but SUBSCRIBE, in order and without waiting for each other's answers.

use std::{collections::VecDeque, io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::Instant,
};

use super::{
    answers::{AnswerError, Answers},
    line::Line,
};

/// More unanswered calls than this mean that nobody is there to answer.
const MAX_UNANSWERED: usize = 4096;

/// The part of a request head that never changes.
#[derive(Clone)]
pub struct RequestHead(Vec<u8>);

impl std::fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may carry the token.
        f.write_str("RequestHead(…)")
    }
}

impl RequestHead {
    pub fn new(path: &str, host: &str, media_type: &str, token: Option<&str>) -> Self {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\n");
        if let Some(token) = token {
            head.push_str("Authorization: Bearer ");
            head.push_str(token);
            head.push_str("\r\n");
        }
        head.push_str("Content-Length: ");
        RequestHead(head.into_bytes())
    }
}

/// Why the connection is over.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    #[error("the agent closed the connection for calls")]
    Closed,
    #[error("the connection for calls broke: {0}")]
    Broken(#[from] io::Error),
    #[error("{0}")]
    Answer(#[from] AnswerError),
    #[error("the agent answered a call with {status}: {}", .text.escape_debug())]
    Unsubscribed { status: u16, text: String },
    #[error("the agent did not answer a call within {} s", .0.as_secs_f64())]
    Unanswered(Duration),
    #[error("the agent left {MAX_UNANSWERED} calls unanswered")]
    TooMany,
}

#[derive(Debug)]
pub struct CallLine {
    reader: ReadHalf<Line>,
    writer: WriteHalf<Line>,
    head: RequestHead,
    outbox: BytesMut,
    unflushed: bool,
    answers: Answers,
    /// When each call without an answer was made, oldest first.
    unanswered: VecDeque<Instant>,
    patience: Option<Duration>,
}

impl CallLine {
    /// `patience`: how long an answer may take, if we can afford to lose the connection.
    pub fn new(line: Line, head: RequestHead, patience: Option<Duration>) -> Self {
        let (reader, writer) = tokio::io::split(line);
        CallLine {
            reader,
            writer,
            head,
            outbox: BytesMut::new(),
            unflushed: false,
            answers: Answers::new(),
            unanswered: VecDeque::new(),
            patience,
        }
    }

    /// Queues a call behind the others; [`CallLine::drive`] sends it. Head and body leave in one segment.
    pub fn post(&mut self, body: &[u8]) {
        self.outbox.extend_from_slice(&self.head.0);
        self.outbox
            .extend_from_slice(format!("{}\r\n\r\n", body.len()).as_bytes());
        self.outbox.extend_from_slice(body);
        self.unanswered.push_back(Instant::now());
    }

    /// Sends and listens until the connection is over. May be dropped and called again at any time.
    pub async fn drive(&mut self) -> CallsError {
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    /// What is still on its way gets a moment to leave before the connection is closed: closing a socket with
    /// unread answers would reset it, and the agent could lose calls it has not read yet.
    pub async fn finish(mut self, limit: Duration) {
        let _ = tokio::time::timeout(limit, async {
            while !self.unanswered.is_empty() {
                if self.turn().await.is_err() {
                    return;
                }
            }
            let _ = self.writer.shutdown().await;
        })
        .await;
    }

    async fn turn(&mut self) -> Result<(), CallsError> {
        if self.unanswered.len() > MAX_UNANSWERED {
            return Err(CallsError::TooMany);
        }
        let due = match (self.unanswered.front(), self.patience) {
            (Some(oldest), Some(patience)) => Some((*oldest + patience, patience)),
            _ => None,
        };
        let overdue = async {
            match due {
                Some((due, _)) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let something_to_send = self.unflushed || !self.outbox.is_empty();
        let sending = async {
            if self.outbox.is_empty() {
                self.writer.flush().await.map(|()| true)
            } else {
                self.writer.write_buf(&mut self.outbox).await.map(|_| false)
            }
        };
        tokio::select! {
            biased;
            result = sending, if something_to_send => {
                self.unflushed = !result?;
            }
            read = self.reader.read_buf(&mut self.answers.buffer) => {
                if read? == 0 {
                    return Err(CallsError::Closed);
                }
                self.take_answers()?;
            }
            () = overdue => {
                return Err(CallsError::Unanswered(due.map_or(Duration::ZERO, |(_, patience)| patience)));
            }
        }
        Ok(())
    }

    fn take_answers(&mut self) -> Result<(), CallsError> {
        while let Some(answer) = self.answers.next()? {
            self.unanswered.pop_front();
            match answer.status {
                200..=299 => {}
                // Not subscribed (any more), broken, or not recovered yet: the remedy is to subscribe again.
                403 | 500 | 503 => {
                    return Err(CallsError::Unsubscribed {
                        status: answer.status,
                        text: answer.text,
                    });
                }
                // Repeating the call would not help; the update is sent again with the next subscription.
                status => tracing::error!(status, text = answer.text, "the agent refused a call"),
            }
        }
        Ok(())
    }
}
