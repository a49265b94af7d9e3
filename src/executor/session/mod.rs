//! The conversation with the agent (wire file, sections 5, 6 and 10).
//!
//! One subscription takes two connections: SUBSCRIBE and its endless answer occupy the first, all other calls go
//! over the second, pipelined, so their order is kept and none waits for another's answer. Losing either loses
//! both. The session finds the agent, again and again if the framework checkpoints, and turns bytes into
//! [`Notice`]s; it decides nothing about tasks.
//!
//! ```text
//!            ┌────────────── pause ◀──────────────┐
//!            ▼                                    │ 503, 404, no answer
//!  dial both connections ─Connected─▶ SUBSCRIBE ──┤
//!            ▲                                    │ 200
//!            │ checkpoint                         ▼
//!            └───────── Disconnected ◀──── Event, Event, …
//! ```
//!
//! A subscription owns its connections, and the next one is only made when they are dropped: the end of an old
//! stream can therefore not be mistaken for the loss of the new one (S-16).

mod answers;
mod calls;
mod line;
mod tls;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::header::HeaderValue;
use tokio::{sync::mpsc, time::Instant};

use self::{
    calls::{CallLine, CallsError, RequestHead},
    line::{DialError, Dialer},
};
use super::{
    config::Config,
    environment::{Environment, Route},
};
use crate::mesos::{
    codec::{self, Encoding},
    subscription::{Reply, Stream, StreamError, SubscribeHead},
    v1::{self, executor as wire},
};

pub use self::tls::TlsError;

/// An agent that is there answers SUBSCRIBE at once.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// S-02: the pause before SUBSCRIBE is repeated to an agent that is not ready for its executors yet.
const NOT_READY_PAUSE: Duration = Duration::from_secs(1);
/// How long the last calls may take to leave when we end.
const PARTING: Duration = Duration::from_millis(100);
/// Events that wait for the shell; beyond that the agent waits.
const NOTICES: usize = 32;

/// What the session has to tell.
#[derive(Debug)]
pub enum Notice {
    /// The agent is there and wants a [`Calls::subscribe`] with what is unacknowledged now.
    Connected,
    Event(Box<wire::Event>),
    /// A subscription has ended. Calls made from now to the next `Connected` are dropped.
    Disconnected {
        cause: String,
        comes_back: bool,
    },
    /// There will be no more.
    Failed(SessionError),
}

/// Why there is no agent for us.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "no subscription with the agent at {place} within {} s, giving up: {last}",
        .limit.as_secs_f64()
    )]
    NeverReached {
        place: String,
        limit: Duration,
        last: String,
    },
    #[error("the agent at {place} refuses our subscription with {status}: {}", .text.escape_debug())]
    Refused {
        place: String,
        status: u16,
        text: String,
    },
}

/// Why a session cannot even begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the token cannot be sent in a header")]
    Token,
}

#[derive(Debug)]
enum Order {
    Subscribe(wire::call::Subscribe),
    Update(Arc<v1::TaskStatus>),
}

/// The way to make calls. Dropping it ends the session.
#[derive(Debug)]
pub struct Calls {
    orders: mpsc::UnboundedSender<Order>,
    task: tokio::task::JoinHandle<()>,
}

impl Calls {
    /// The answer to [`Notice::Connected`].
    pub fn subscribe(&self, unacknowledged: wire::call::Subscribe) {
        // Fails only when the session has failed, which is told by its notice.
        let _ = self.orders.send(Order::Subscribe(unacknowledged));
    }

    /// Posts an update behind the earlier ones.
    pub fn update(&self, status: Arc<v1::TaskStatus>) {
        let _ = self.orders.send(Order::Update(status));
    }

    /// Ends the session once the last calls have left, or cannot.
    pub async fn finish(self) {
        drop(self.orders);
        let _ = self.task.await;
    }
}

/// What a session is made of.
#[derive(Debug)]
pub struct Session {
    ids: (String, String),
    encoding: Encoding,
    dialer: Dialer,
    subscribe: SubscribeHead,
    call: RequestHead,
    record_limit: usize,
    registration_timeout: Duration,
    heartbeat_interval: Duration,
    answer_timeout: Duration,
    reconnect_pause: Duration,
    /// The longest pause the agent allows; none if a lost agent is the end.
    backoff_max: Option<Duration>,
    orders: mpsc::UnboundedReceiver<Order>,
    notices: mpsc::Sender<Notice>,
}

impl Session {
    /// Starts looking for the agent.
    pub fn start(
        environment: &Environment,
        config: &Config,
    ) -> Result<(Calls, mpsc::Receiver<Notice>), SetupError> {
        let ca_file: Option<PathBuf> = config.ca_file.clone();
        let dialer = Dialer::new(environment, ca_file.as_deref(), config.agent_name.as_deref())?;
        let host = match &environment.agent.route {
            Route::Tcp(address) => address.to_string(),
            Route::Unix(_) => String::new(),
        };
        let token = environment.token.as_ref().map(|token| token.expose());
        let authorization = match token {
            None => None,
            Some(token) => {
                let mut value =
                    HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| SetupError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let path = &environment.agent.path;
        let (orders, orders_in) = mpsc::unbounded_channel();
        let (notices, notices_in) = mpsc::channel(NOTICES);
        let session = Session {
            ids: (environment.framework_id.clone(), environment.executor_id.clone()),
            encoding: config.encoding,
            dialer,
            call: RequestHead::new(path, &host, config.encoding.media_type(), token),
            subscribe: SubscribeHead {
                path: path.clone(),
                host,
                encoding: config.encoding,
                authorization,
            },
            record_limit: config.record_limit,
            registration_timeout: config.registration_timeout,
            heartbeat_interval: config.heartbeat_interval,
            answer_timeout: config.answer_timeout,
            reconnect_pause: config.reconnect_pause,
            backoff_max: environment.recovery.map(|recovery| recovery.backoff_max),
            orders: orders_in,
            notices,
        };
        let task = tokio::spawn(session.run());
        Ok((Calls { orders, task }, notices_in))
    }

    async fn run(mut self) {
        let begin = Instant::now();
        let mut subscribed_once = false;
        let mut attempts = 0u32;
        loop {
            let attempt = self.attempt().await;
            let (last, pause) = match attempt {
                Err(Stop) => return,
                Ok(Life::Subscribed { cause, dismissed }) => {
                    subscribed_once = true;
                    attempts = 0;
                    let comes_back = self.backoff_max.is_some() && !dismissed;
                    if self
                        .tell(Notice::Disconnected { cause, comes_back })
                        .await
                        .is_err()
                        || !comes_back
                    {
                        return;
                    }
                    continue;
                }
                Ok(Life::Refused { status, text }) => {
                    let place = self.dialer.place();
                    let _ = self
                        .tell(Notice::Failed(SessionError::Refused { place, status, text }))
                        .await;
                    return;
                }
                Ok(Life::NotReady { status, text }) => {
                    tracing::info!(status, text, "the agent is not ready yet");
                    let pause = if subscribed_once {
                        self.random_pause()
                    } else {
                        NOT_READY_PAUSE
                    };
                    (format!("it answers {status}: {text}"), pause)
                }
                Ok(Life::Unreachable(cause)) => {
                    if attempts == 0 {
                        tracing::info!("{cause}; trying again");
                    }
                    (cause, self.random_pause())
                }
            };
            attempts = attempts.saturating_add(1);
            if !subscribed_once && begin.elapsed() + pause >= self.registration_timeout {
                let error = SessionError::NeverReached {
                    place: self.dialer.place(),
                    limit: self.registration_timeout,
                    last,
                };
                let _ = self.tell(Notice::Failed(error)).await;
                return;
            }
            if self.wait(pause).await.is_err() {
                return;
            }
        }
    }

    /// S-06, S-10: random in `[0, MESOS_SUBSCRIPTION_BACKOFF_MAX]` but never long, for a restarted agent waits
    /// only two seconds for its executors.
    fn random_pause(&self) -> Duration {
        let most = self
            .backoff_max
            .map_or(self.reconnect_pause, |most| most.min(self.reconnect_pause));
        let chance = uuid::Uuid::new_v4().as_u64_pair().0;
        most.mul_f64(chance as f64 / u64::MAX as f64)
    }

    /// Lets time pass; orders of an ended subscription are dropped meanwhile.
    async fn wait(&mut self, pause: Duration) -> Result<(), Stop> {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return Ok(()),
                order = self.orders.recv() => if order.is_none() { return Err(Stop) },
            }
        }
    }

    async fn tell(&self, notice: Notice) -> Result<(), Stop> {
        self.notices.send(notice).await.map_err(|_| Stop)
    }

    /// One pair of connections, from dialling to its end.
    async fn attempt(&mut self) -> Result<Life, Stop> {
        let (first, second) = {
            let both = async { tokio::try_join!(self.dialer.dial(), self.dialer.dial()) };
            match until_closed(&mut self.orders, both).await? {
                Ok(lines) => lines,
                Err(error) => return Ok(Life::unreachable(error)),
            }
        };
        self.tell(Notice::Connected).await?;
        let unacknowledged = loop {
            match self.orders.recv().await.ok_or(Stop)? {
                Order::Subscribe(unacknowledged) => break unacknowledged,
                // Made for a subscription that had ended; it is among the unacknowledged.
                Order::Update(_) => {}
            }
        };
        let call = self.encode(wire::Call {
            r#type: Some(wire::call::Type::Subscribe.into()),
            subscribe: Some(unacknowledged),
            ..self.blank()
        });
        let asked = tokio::time::timeout(
            SUBSCRIBE_TIMEOUT,
            Stream::subscribe(first, &self.subscribe, call, self.record_limit),
        );
        let stream = match until_closed(&mut self.orders, asked).await? {
            Err(_) => {
                return Ok(Life::Unreachable(
                    "the agent does not answer SUBSCRIBE".to_owned(),
                ));
            }
            Ok(Err(error)) => return Ok(Life::from_stream(error)),
            Ok(Ok(Reply::Stream(stream))) => stream,
            Ok(Ok(Reply::Refused { status, text, .. })) => {
                return Ok(match status {
                    404 | 503 => Life::NotReady { status, text },
                    _ => Life::Refused { status, text },
                });
            }
        };
        // Without checkpoints a lost connection is the end of every task; then only the kernel's word counts.
        let patience = self.backoff_max.map(|_| self.answer_timeout);
        let line = CallLine::new(second, self.call.clone(), patience);
        self.converse(stream, line).await
    }

    /// A subscription, until it ends.
    async fn converse(&mut self, mut stream: Stream<wire::Event>, mut line: CallLine) -> Result<Life, Stop> {
        let mut beat =
            tokio::time::interval_at(Instant::now() + self.heartbeat_interval, self.heartbeat_interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut subscribed = false;
        let cause = loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None => {
                        line.finish(PARTING).await;
                        return Err(Stop);
                    }
                    Some(Order::Update(status)) => {
                        let call = self.encode(wire::Call {
                            r#type: Some(wire::call::Type::Update.into()),
                            update: Some(wire::call::Update { status: Arc::unwrap_or_clone(status) }),
                            ..self.blank()
                        });
                        line.post(&call);
                    }
                    Some(Order::Subscribe(_)) => {}
                },
                end = line.drive() => break Lost::Calls(end),
                event = stream.next() => match event {
                    Err(error) => break Lost::Events(error),
                    Ok(event) => {
                        let first = !std::mem::replace(&mut subscribed, true);
                        let dismissed = first && event.r#type() == wire::event::Type::Shutdown;
                        self.tell(Notice::Event(Box::new(event))).await?;
                        if dismissed {
                            // S-17: the agent has no use for us.
                            return Ok(Life::Subscribed { cause: "the agent dismissed us".to_owned(), dismissed });
                        }
                    }
                },
                _ = beat.tick() => {
                    let call = self.encode(wire::Call {
                        r#type: Some(wire::call::Type::Heartbeat.into()),
                        ..self.blank()
                    });
                    line.post(&call);
                }
            }
        };
        Ok(match cause {
            Lost::Events(error) if !subscribed => Life::from_stream(error),
            Lost::Calls(error) if !subscribed => Life::Unreachable(error.to_string()),
            Lost::Events(error) => Life::Subscribed {
                cause: error.to_string(),
                dismissed: false,
            },
            Lost::Calls(error) => Life::Subscribed {
                cause: error.to_string(),
                dismissed: false,
            },
        })
    }

    fn blank(&self) -> wire::Call {
        let (framework, executor) = &self.ids;
        wire::Call {
            framework_id: v1::FrameworkId {
                value: framework.clone(),
            },
            executor_id: v1::ExecutorId {
                value: executor.clone(),
            },
            ..wire::Call::default()
        }
    }

    fn encode(&self, call: wire::Call) -> Bytes {
        codec::encode(&call, self.encoding)
    }
}

/// The shell has gone.
#[derive(Debug)]
struct Stop;

/// What became of one attempt.
enum Life {
    /// It was a subscription and has ended; `dismissed`: by a SHUTDOWN instead of SUBSCRIBED.
    Subscribed {
        cause: String,
        dismissed: bool,
    },
    NotReady {
        status: u16,
        text: String,
    },
    Refused {
        status: u16,
        text: String,
    },
    Unreachable(String),
}

impl Life {
    fn unreachable(error: DialError) -> Self {
        Life::Unreachable(error.to_string())
    }

    fn from_stream(error: StreamError) -> Self {
        Life::Unreachable(error.to_string())
    }
}

enum Lost {
    Events(StreamError),
    Calls(CallsError),
}

/// Runs `work`; gives up when the shell goes. Orders that come meanwhile belong to no subscription.
async fn until_closed<T>(
    orders: &mut mpsc::UnboundedReceiver<Order>,
    work: impl Future<Output = T>,
) -> Result<T, Stop> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            order = orders.recv() => if order.is_none() { return Err(Stop) },
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
