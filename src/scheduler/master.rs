//! The conversation with the leading master (wire file, section 15).
//!
//! ```text
//!  resolve ─▶ dial ─▶ SUBSCRIBE ─┬─ 307 ─▶ dial the leader it names
//!     ▲                          ├─ 503 ─▶ pause
//!     │ pause, growing           └─ 200 ─▶ events; calls over a connection of their own, one after the other
//!     └───────────────────────────────────── either lost, or no heartbeat for five intervals
//! ```
//!
//! Calls made while there is no subscription are dropped: the core asks again for what matters.

use std::{convert::Infallible, future::pending, io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle, time::Instant};

use super::{
    core::{Effect, Event},
    service::{self, Replaced, wall_clock},
    standing::Standing,
};
use crate::mesos::{
    codec::{self, Encoding},
    subscription::{Reply, STREAM_ID, Stream, StreamError, SubscribeHead},
    v1::{self, scheduler as wire},
};

const PATH: &str = "/api/v1/scheduler";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The reference library's longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A chain of masters that all point at another one is a loop.
const MOST_REDIRECTS: usize = 5;
/// Heartbeats missed before the stream counts as dead.
const MISSED_BEATS: u32 = 5;
/// Offers of a large cluster come in one record.
const LARGEST_RECORD: usize = 256 << 20;
/// What we read of the sentence that comes with a refusal.
const LONGEST_REFUSAL: usize = 4 << 10;
/// What comes while one batch is being stored is the next batch.
const EVENTS: usize = 256;
/// What a master says to a framework that stayed away for longer than its failover timeout, or was torn down.
const REMOVED: &str = "Framework has been removed";
/// What it says to one whose place another subscription with the same id has taken.
const REPLACED: &str = "failed over";

/// Who we are to the master.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `host:port` of a master; it names the leader if it is not.
    pub master: String,
    pub framework: v1::FrameworkInfo,
    pub encoding: Encoding,
    /// Shown with every call, to a master that asks for it.
    pub authorization: Option<HeaderValue>,
    /// Told when there is no subscription, and why.
    pub standing: Standing,
}

/// The session as the scheduler's shell holds it. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Session {
    events: mpsc::Receiver<Event>,
    calls: mpsc::UnboundedSender<Order>,
    /// Ends by itself only when the master has taken another in our place.
    task: JoinHandle<Option<Replaced>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
enum Order {
    Call(Box<wire::Call>),
    Remember(String),
    Rest,
    Resume,
}

impl Session {
    /// Starts looking for the master.
    pub fn start(identity: Identity) -> Self {
        let (calls, orders) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::channel(EVENTS);
        let seeker = Seeker {
            identity,
            orders,
            events: sender,
            resting: false,
        };
        Session {
            events,
            calls,
            task: tokio::spawn(seeker.run()),
        }
    }
}

impl service::Master for Session {
    async fn next(&mut self) -> Result<Event, Replaced> {
        if let Some(event) = self.events.recv().await {
            return Ok(event);
        }
        match (&mut self.task).await {
            Ok(Some(replaced)) => Err(replaced),
            // Only when the task was aborted with us.
            _ => pending().await,
        }
    }

    fn ready(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    fn send(&mut self, effect: Effect) {
        if let Some(call) = call(effect) {
            // Fails only when the task is gone, which it is only with us.
            let _ = self.calls.send(Order::Call(Box::new(call)));
        }
    }

    fn remember(&mut self, framework: &str) {
        let _ = self.calls.send(Order::Remember(framework.to_owned()));
    }

    fn rest(&mut self) {
        let _ = self.calls.send(Order::Rest);
    }

    fn resume(&mut self) {
        let _ = self.calls.send(Order::Resume);
    }
}

/// The call an effect asks for; none for those that are not for the master.
fn call(effect: Effect) -> Option<wire::Call> {
    use wire::call::{self, Type};
    let blank = |kind: Type| wire::Call {
        r#type: Some(kind as i32),
        ..Default::default()
    };
    let call = match effect {
        Effect::Accept { offer, operations } => wire::Call {
            accept: Some(call::Accept {
                offer_ids: vec![offer],
                operations,
                filters: Some(v1::Filters {
                    refuse_seconds: Some(0.0),
                }),
            }),
            ..blank(Type::Accept)
        },
        Effect::Decline { offers, refuse } => wire::Call {
            decline: Some(call::Decline {
                offer_ids: offers,
                filters: Some(v1::Filters {
                    refuse_seconds: Some(refuse.as_secs_f64()),
                }),
            }),
            ..blank(Type::Decline)
        },
        Effect::Kill { task, agent } => wire::Call {
            kill: Some(call::Kill {
                task_id: task,
                agent_id: agent,
                ..Default::default()
            }),
            ..blank(Type::Kill)
        },
        Effect::Shutdown { executor, agent } => wire::Call {
            shutdown: Some(call::Shutdown {
                executor_id: executor,
                agent_id: agent,
            }),
            ..blank(Type::Shutdown)
        },
        Effect::Acknowledge { task, agent, uuid } => wire::Call {
            acknowledge: Some(call::Acknowledge {
                task_id: task,
                agent_id: agent,
                uuid,
            }),
            ..blank(Type::Acknowledge)
        },
        Effect::Reconcile(tasks) => {
            let task = |(task_id, agent_id)| call::reconcile::Task { task_id, agent_id };
            let tasks = tasks.into_iter().map(task).collect();
            wire::Call {
                reconcile: Some(call::Reconcile { tasks }),
                ..blank(Type::Reconcile)
            }
        }
        Effect::Revive => blank(Type::Revive),
        Effect::Suppress => blank(Type::Suppress),
        Effect::Persist(_) | Effect::Publish(_) => return None,
    };
    Some(call)
}

/// Why a subscription is over, or never came about.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("cannot reach the master at {place}: {source}")]
    Unreachable { place: String, source: io::Error },
    #[error("the master at {0} does not answer")]
    Silent(String),
    #[error("the master at {place} answers {status}: {text}")]
    Refused {
        place: String,
        status: u16,
        text: String,
    },
    #[error("masters point at each other without end")]
    Loop,
    #[error("the master at {0} says that another one leads, but not which")]
    NoLeader(String),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("the master refuses us: {0}")]
    Error(String),
    #[error("no heartbeat for {} s", .0.as_secs())]
    Silence(Duration),
    #[error("the scheduler waits for its store")]
    Resting,
    /// The session was dropped.
    #[error("the scheduler ends")]
    Stopped,
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the connection for calls broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("a call was refused with {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("the master closed the connection for calls")]
    Closed,
    #[error("a call was not answered in time")]
    Silent,
    #[error("a call is not a valid request: {0}")]
    Request(#[from] hyper::http::Error),
}

struct Seeker {
    identity: Identity,
    orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::Sender<Event>,
    /// Not to subscribe before we are told to.
    resting: bool,
}

impl Seeker {
    async fn run(mut self) -> Option<Replaced> {
        let mut pause = FIRST_PAUSE;
        let mut told = None;
        let begin = wall_clock();
        self.identity
            .standing
            .without_master(&self.identity.master, "no answer yet", begin);
        loop {
            while self.resting {
                match self.orders.recv().await {
                    Some(order) => self.note(order),
                    None => return None,
                }
            }
            let mut subscribed = false;
            let lost = self.subscription(&mut subscribed).await;
            if matches!(lost, Lost::Stopped) {
                return None;
            }
            if let Lost::Error(message) = &lost
                && message.contains(REPLACED)
                && let Some(id) = self.identity.framework.id.take()
            {
                return Some(Replaced { framework: id.value });
            }
            if let Lost::Error(message) = &lost
                && message.contains(REMOVED)
                && let Some(old) = self.identity.framework.id.take()
            {
                // All that was ours has been killed. As a newcomer we learn that, and launch it again.
                tracing::warn!("the master has removed framework {}; registering anew", old.value);
                continue;
            }
            if subscribed {
                (pause, told) = (FIRST_PAUSE, None);
                if self.events.send(Event::Disconnected).await.is_err() {
                    return None;
                }
            }
            let why = lost.to_string();
            let place = &self.identity.master;
            self.identity.standing.without_master(place, &why, wall_clock());
            if told.as_ref() != Some(&why) {
                tracing::warn!("not connected to the master {place}: {why}; trying again");
                told = Some(why);
            }
            // Jitter, so that many schedulers do not come back in step.
            let chance = uuid::Uuid::new_v4().as_u64_pair().0 as f64 / u64::MAX as f64;
            tokio::time::sleep(pause.mul_f64(0.5 + chance / 2.0)).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            while let Ok(order) = self.orders.try_recv() {
                self.note(order);
            }
        }
    }

    /// What still matters of an order when there is nobody to send it to.
    fn note(&mut self, order: Order) {
        match order {
            Order::Remember(id) => self.identity.framework.id = Some(v1::FrameworkId { value: id }),
            Order::Rest => self.resting = true,
            Order::Resume => self.resting = false,
            Order::Call(_) => {}
        }
    }

    /// One subscription, from looking for the leader to its end.
    async fn subscription(&mut self, subscribed: &mut bool) -> Lost {
        let (place, stream) = match self.find().await {
            Ok(found) => found,
            Err(lost) => return lost,
        };
        match self.converse(&place, stream, subscribed).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    /// Follows the masters' advice to the one that takes us.
    async fn find(&mut self) -> Result<(String, Stream<wire::Event>), Lost> {
        let mut place = self.identity.master.clone();
        for _ in 0..MOST_REDIRECTS {
            let line = dial(&place).await?;
            let head = SubscribeHead {
                path: PATH.to_owned(),
                host: place.clone(),
                encoding: self.identity.encoding,
                authorization: self.identity.authorization.clone(),
            };
            let call = wire::Call {
                r#type: Some(wire::call::Type::Subscribe as i32),
                framework_id: self.identity.framework.id.clone(),
                subscribe: Some(wire::call::Subscribe {
                    framework_info: self.identity.framework.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let call = codec::encode(&call, self.identity.encoding);
            let asked = Stream::subscribe(line, &head, call, LARGEST_RECORD);
            let reply = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
            match reply.map_err(|_| Lost::Silent(place.clone()))?? {
                Reply::Stream(stream) => return Ok((place, stream)),
                Reply::Refused {
                    status: 307 | 302,
                    location,
                    ..
                } => {
                    let leader = location.as_deref().and_then(authority);
                    place = leader.ok_or(Lost::NoLeader(place))?;
                }
                Reply::Refused { status, text, .. } => return Err(Lost::Refused { place, status, text }),
            }
        }
        Err(Lost::Loop)
    }

    async fn converse(
        &mut self,
        place: &str,
        mut stream: Stream<wire::Event>,
        subscribed: &mut bool,
    ) -> Result<Infallible, Lost> {
        let mut calls = Calls::new(place, &self.identity, stream.id.clone()).await?;
        let mut silence = ANSWER_TIMEOUT.saturating_mul(MISSED_BEATS);
        let mut alive = Instant::now();
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Err(Lost::Stopped),
                    Some(Order::Call(mut call)) => {
                        call.framework_id = self.identity.framework.id.clone();
                        calls.post(&call);
                    }
                    Some(order) => {
                        self.note(order);
                        if self.resting {
                            return Err(Lost::Resting);
                        }
                    }
                },
                error = calls.failure() => return Err(error.into()),
                event = stream.next() => {
                    alive = Instant::now();
                    let event = event?;
                    if let Some(beat) = event.subscribed.as_ref().and_then(|s| s.heartbeat_interval_seconds) {
                        let beat = Duration::try_from_secs_f64(beat).unwrap_or(ANSWER_TIMEOUT);
                        silence = beat.saturating_mul(MISSED_BEATS);
                    }
                    self.take(event, subscribed).await?;
                }
                () = tokio::time::sleep_until(alive + silence) => return Err(Lost::Silence(silence)),
            }
        }
    }

    async fn take(&mut self, event: wire::Event, subscribed: &mut bool) -> Result<(), Lost> {
        use wire::event::Type;
        let event = match event.r#type() {
            Type::Subscribed => {
                let Some(body) = event.subscribed else {
                    return Ok(());
                };
                *subscribed = true;
                self.identity.standing.with_master();
                tracing::info!(
                    "connected to the master {} as framework {}",
                    self.identity.master,
                    body.framework_id.value
                );
                self.identity.framework.id = Some(body.framework_id.clone());
                Event::Registered(body.framework_id)
            }
            Type::Offers => Event::Offers(event.offers.map(|offers| offers.offers).unwrap_or_default()),
            Type::Update => match event.update {
                Some(update) => Event::Update(Box::new(update.status)),
                None => return Ok(()),
            },
            Type::Error => {
                let message = event.error.map(|error| error.message).unwrap_or_default();
                return Err(Lost::Error(message));
            }
            Type::Failure => match event.failure.and_then(|failure| failure.executor_id) {
                Some(executor) => Event::ExecutorEnded(executor),
                // The failure of an agent shows in its tasks.
                None => return Ok(()),
            },
            Type::Rescind => match event.rescind {
                Some(rescind) => Event::Rescinded(rescind.offer_id),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        self.events.send(event).await.map_err(|_| Lost::Stopped)
    }
}

async fn dial(place: &str) -> Result<TcpStream, Lost> {
    let unreachable = |source| Lost::Unreachable {
        place: place.to_owned(),
        source,
    };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await;
    let line = connected
        .map_err(|_| Lost::Silent(place.to_owned()))?
        .map_err(unreachable)?;
    line.set_nodelay(true).map_err(unreachable)?;
    Ok(line)
}

/// `host:port` of the leader: Mesos writes `//host:port/path`, its documents `host:port`, proxies a whole URL.
fn authority(location: &str) -> Option<String> {
    let rest = location.split_once("//").map_or(location, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = authority.rsplit_once(':')?;
    let sound = !host.is_empty() && !host.contains('@') && port.parse::<u16>().is_ok();
    sound.then(|| authority.to_owned())
}

/// The connection for calls: each waits for the answer to the one before, so their order is kept.
struct Calls {
    queue: mpsc::UnboundedSender<Bytes>,
    encoding: Encoding,
    /// Ends with the first failure.
    task: JoinHandle<CallError>,
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Calls {
    async fn new(place: &str, identity: &Identity, stream_id: Option<HeaderValue>) -> Result<Self, Lost> {
        let encoding = identity.encoding;
        let line = dial(place).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(line))
            .await
            .map_err(CallError::from)?;
        let (queue, bodies) = mpsc::unbounded_channel();
        let head = CallHead {
            place: place.to_owned(),
            encoding,
            stream_id,
            authorization: identity.authorization.clone(),
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                // Its failure shows in the next call as well.
                _ = connection => CallError::Closed,
                error = head.make_all(sender, bodies) => error,
            }
        });
        Ok(Calls {
            queue,
            encoding,
            task,
        })
    }

    fn post(&self, call: &wire::Call) {
        // Fails only when the task has ended, which `failure` tells.
        let _ = self.queue.send(codec::encode(call, self.encoding));
    }

    /// Waits for the connection to be of no more use.
    async fn failure(&mut self) -> CallError {
        (&mut self.task).await.unwrap_or(CallError::Closed)
    }
}

/// What every call begins with.
struct CallHead {
    place: String,
    encoding: Encoding,
    stream_id: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
}

impl CallHead {
    async fn make_all(
        &self,
        mut sender: http1::SendRequest<Full<Bytes>>,
        mut bodies: mpsc::UnboundedReceiver<Bytes>,
    ) -> CallError {
        while let Some(body) = bodies.recv().await {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.make(&mut sender, body)).await;
            if let Err(error) = answer.unwrap_or(Err(CallError::Silent)) {
                return error;
            }
        }
        CallError::Closed
    }

    async fn make(&self, sender: &mut http1::SendRequest<Full<Bytes>>, body: Bytes) -> Result<(), CallError> {
        let media_type = self.encoding.media_type();
        let mut request = Request::post(PATH)
            .header(HOST, &self.place)
            .header(CONTENT_TYPE, media_type);
        if let Some(id) = &self.stream_id {
            request = request.header(STREAM_ID, id);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        sender.ready().await?;
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_REFUSAL)
            .collect()
            .await;
        if status.is_success() {
            return Ok(());
        }
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        Err(CallError::Refused {
            status: status.as_u16(),
            text: text.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn every_way_masters_name_their_leader_is_understood() {
        for location in [
            "m2.example:5050",
            "//m2.example:5050",
            "//m2.example:5050/api/v1/scheduler",
            "http://m2.example:5050/x?y",
        ] {
            assert_eq!(
                authority(location).as_deref(),
                Some("m2.example:5050"),
                "{location}"
            );
        }
        assert_eq!(authority("//[::1]:5050/").as_deref(), Some("[::1]:5050"));
        for location in ["", "//", "/api", "//host", "//user@host:1", "//host:99999"] {
            assert_eq!(authority(location), None, "{location}");
        }
    }
}
