//! The shell round the core: carries out its effects, and is the one place that holds it.
//!
//! ```text
//!  REST, `podling up` ──requests──▶ ┌───────────┐ ──changes──▶ store (a thread of its own)
//!            master ───notices────▶ │   Core    │ ──calls────▶ master
//!                   deadline ─────▶ └───────────┘ ──notices──▶ whoever listens
//! ```
//!
//! Whatever is ready is taken in one batch; all changes of a batch go to the store in one transaction, and only then
//! are its calls made and its requests answered. Under load this is group commit, without load it is no delay.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::Instant,
};

use super::{
    core::{Accepted, Change, Command, Core, Effect, Event, Notice, Refusal, Settings, Stamp},
    store::{Store, StoreError},
};
use crate::pod::{Pod, PodId, Version};

/// Requests and events taken into one batch at the most.
const BATCH: usize = 256;
/// Requests that wait; beyond that callers wait.
const REQUESTS: usize = 1024;
/// Notices a slow listener may fall behind before it loses some.
const NOTICES: usize = 4096;

/// The way to the master: what it says, and what we say to it.
pub trait Master {
    /// The next event. May be dropped and called again at any time.
    fn next(&mut self) -> impl Future<Output = Result<Event, Replaced>>;

    /// The next event if it is here already.
    fn ready(&mut self) -> Option<Event>;

    /// Sends a call, or drops it when there is no subscription; the core repeats what matters.
    fn send(&mut self, effect: Effect);

    /// The framework's id, to subscribe with from now on; known once it is stored.
    fn remember(&mut self, framework: &str);
}

/// The master listens to another scheduler instead of us. To go on would be to evict each other without end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another scheduler has subscribed as framework {framework}, so this one ends; two schedulers need two stores, and \
     only one of them may have this framework's id"
)]
pub struct Replaced {
    pub framework: String,
}

type Question = Box<dyn FnOnce(&Core, Stamp) + Send>;

enum Request {
    Command(Box<Command>, oneshot::Sender<Result<Accepted, Refusal>>),
    Question(Question),
}

/// What goes wrong between a caller and the scheduler.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("the scheduler is shutting down")]
    Stopped,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What callers hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    store: StoreThread,
    notices: broadcast::Sender<Notice>,
}

impl Handle {
    pub async fn command(&self, command: Command) -> Result<Result<Accepted, Refusal>, Unavailable> {
        let (answer, receiver) = oneshot::channel();
        let request = Request::Command(Box::new(command), answer);
        self.requests
            .send(request)
            .await
            .map_err(|_| Unavailable::Stopped)?;
        receiver.await.map_err(|_| Unavailable::Stopped)
    }

    /// Looks at the core between two steps.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core, Stamp) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (answer, receiver) = oneshot::channel();
        let question: Question = Box::new(move |core, stamp| {
            // The caller may have gone away; then nobody wants the answer.
            let _ = answer.send(question(core, stamp));
        });
        self.requests
            .send(Request::Question(question))
            .await
            .map_err(|_| Unavailable::Stopped)?;
        receiver.await.map_err(|_| Unavailable::Stopped)
    }

    pub async fn versions(&self, id: PodId) -> Result<Vec<Version>, Unavailable> {
        self.store.call(move |store| store.versions(&id)).await
    }

    pub async fn version(&self, id: PodId, version: Version) -> Result<Option<Pod>, Unavailable> {
        self.store.call(move |store| store.version(&id, version)).await
    }

    /// Everything that happens from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}

type Job = Box<dyn FnOnce(&mut dyn Store) + Send>;

/// The store on a thread of its own, as its calls block. It ends with the last handle.
#[derive(Debug, Clone)]
struct StoreThread(std::sync::mpsc::Sender<Job>);

impl StoreThread {
    fn start(mut store: Box<dyn Store>) -> std::io::Result<Self> {
        let (jobs, queue) = std::sync::mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("store".to_owned())
            .stack_size(512 << 10)
            .spawn(move || {
                for job in queue {
                    job(&mut *store);
                }
            })?;
        Ok(StoreThread(jobs))
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let _ = answer.send(call(store));
        });
        self.0.send(job).map_err(|_| Unavailable::Stopped)?;
        Ok(receiver.await.map_err(|_| Unavailable::Stopped)??)
    }
}

/// The scheduler, ready to run.
#[derive(Debug)]
pub struct Service<M> {
    core: Core,
    master: M,
    store: StoreThread,
    requests: mpsc::Receiver<Request>,
    notices: broadcast::Sender<Notice>,
    begin: Instant,
}

/// What made the scheduler stop.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Going on would mean to act on what is not stored.
    #[error(transparent)]
    Store(StoreError),
    #[error("the store's thread has ended")]
    StoreGone,
    #[error("cannot start a thread for the store: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Replaced(#[from] Replaced),
}

impl From<Unavailable> for Fatal {
    fn from(error: Unavailable) -> Self {
        match error {
            Unavailable::Store(error) => Fatal::Store(error),
            Unavailable::Stopped => Fatal::StoreGone,
        }
    }
}

enum Input {
    Event(Event),
    Request(Request),
}

impl<M: Master> Service<M> {
    /// Loads what the store holds; `connect` is given the framework's id, if there is one.
    pub fn start(
        settings: Settings,
        mut store: Box<dyn Store>,
        connect: impl FnOnce(Option<&str>) -> M,
    ) -> Result<(Self, Handle), Fatal> {
        let saved = store.load().map_err(Fatal::Store)?;
        let master = connect(saved.framework.as_deref());
        let core = Core::restore(settings, saved, Duration::ZERO);
        let store = StoreThread::start(store).map_err(Fatal::Thread)?;
        let (requests, queue) = mpsc::channel(REQUESTS);
        let (notices, _) = broadcast::channel(NOTICES);
        let handle = Handle {
            requests,
            store: store.clone(),
            notices: notices.clone(),
        };
        Ok((
            Service {
                core,
                master,
                store,
                requests: queue,
                notices,
                begin: Instant::now(),
            },
            handle,
        ))
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self) -> Result<(), Fatal> {
        loop {
            let deadline = self.core.deadline().map(|deadline| self.begin + deadline);
            let tick = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let first = tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => Input::Request(request),
                    None => return Ok(()),
                },
                event = self.master.next() => Input::Event(event?),
                () = tick => Input::Event(Event::Tick),
            };
            let mut batch = VecDeque::from([first]);
            while batch.len() < BATCH {
                let event = self.master.ready().map(Input::Event);
                let request = self.requests.try_recv().ok().map(Input::Request);
                if event.is_none() && request.is_none() {
                    break;
                }
                batch.extend(event.into_iter().chain(request));
            }
            self.take(batch).await?;
        }
    }

    async fn take(&mut self, batch: VecDeque<Input>) -> Result<(), Fatal> {
        let mut changes: Vec<Change> = Vec::new();
        let mut sends = Vec::new();
        let mut answers = Vec::new();
        let mut questions = Vec::new();
        for input in batch {
            let stamp = self.stamp();
            let effects = match input {
                Input::Event(event) => self.core.step(stamp, event),
                Input::Request(Request::Command(command, caller)) => {
                    let (answer, effects) = self.core.command(stamp, *command);
                    answers.push((caller, answer));
                    effects
                }
                Input::Request(Request::Question(question)) => {
                    questions.push(question);
                    continue;
                }
            };
            for effect in effects {
                match effect {
                    Effect::Persist(more) => changes.extend(more),
                    effect => sends.push(effect),
                }
            }
        }
        if !changes.is_empty() {
            for change in &changes {
                if let Change::Framework(id) = change {
                    self.master.remember(id);
                }
            }
            self.store.call(move |store| store.apply(&changes)).await?;
        }
        for effect in sends {
            match effect {
                // Nobody may be listening.
                Effect::Publish(notice) => drop(self.notices.send(notice)),
                effect => self.master.send(effect),
            }
        }
        for (caller, answer) in answers {
            let _ = caller.send(answer);
        }
        // Answered last, so that nobody is told of what is not stored yet.
        for question in questions {
            let stamp = self.stamp();
            question(&self.core, stamp);
        }
        Ok(())
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            now: self.begin.elapsed(),
            wall: wall_clock(),
            entropy: uuid::Uuid::new_v4().as_u128(),
        }
    }
}

/// The time of day. A clock before 1970 or after the year 9999 shows as the epoch.
pub fn wall_clock() -> Version {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let millis = i64::try_from(since.as_millis()).unwrap_or(0);
    Version::from_millis(millis).unwrap_or(Version::EPOCH)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use serde_json::json;

    use super::*;
    use crate::{
        mesos::v1,
        pod::{self, Profile, task_group},
        scheduler::core::Saved,
    };

    /// A store that takes its time, and counts.
    #[derive(Default, Clone)]
    struct Slow {
        transactions: Arc<AtomicUsize>,
        stored: Arc<Mutex<BTreeSet<String>>>,
    }

    impl Store for Slow {
        fn load(&mut self) -> Result<Saved, StoreError> {
            Ok(Saved::default())
        }

        fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
            std::thread::sleep(Duration::from_millis(5));
            self.transactions.fetch_add(1, Ordering::SeqCst);
            for change in changes {
                if let Change::Pod(stored) = change {
                    self.stored.lock().unwrap().insert(stored.pod.id.to_string());
                }
            }
            Ok(())
        }

        fn versions(&mut self, _: &PodId) -> Result<Vec<Version>, StoreError> {
            Ok(Vec::new())
        }

        fn version(&mut self, _: &PodId, _: Version) -> Result<Option<Pod>, StoreError> {
            Ok(None)
        }
    }

    /// A master whose every word is here at once.
    struct Talkative(VecDeque<Event>);

    impl Master for Talkative {
        async fn next(&mut self) -> Result<Event, Replaced> {
            match self.0.pop_front() {
                Some(event) => Ok(event),
                None => std::future::pending().await,
            }
        }

        fn ready(&mut self) -> Option<Event> {
            self.0.pop_front()
        }

        fn send(&mut self, _: Effect) {}

        fn remember(&mut self, _: &str) {}
    }

    fn settings() -> Settings {
        Settings::new(task_group::Options {
            delivery: task_group::Delivery::AgentDefault,
            variable_prefix: String::new(),
            bridge_name: "b".to_owned(),
        })
    }

    #[tokio::test]
    async fn what_comes_together_is_stored_together_and_before_it_is_answered() {
        let store = Slow::default();
        let registered = |n: usize| {
            Event::Registered(v1::FrameworkId {
                value: format!("F{n}"),
            })
        };
        let master = Talkative((0..100).map(registered).collect());
        let (service, handle) = Service::start(settings(), Box::new(store.clone()), |_| master).unwrap();
        let running = tokio::spawn(service.run());
        let creations = (0..100).map(|n| {
            let (handle, store) = (handle.clone(), store.clone());
            tokio::spawn(async move {
                let definition = json!({"id": format!("/p{n}"), "containers":
                    [{"name": "c", "resources": {}, "exec": {"command": {"shell": "x"}}}]});
                let pod = pod::read(&definition, &Profile::default()).unwrap().pod;
                handle.command(Command::Create(pod)).await.unwrap().unwrap();
                assert!(store.stored.lock().unwrap().contains(&format!("/p{n}")));
            })
        });
        for creation in creations.collect::<Vec<_>>() {
            creation.await.unwrap();
        }
        let transactions = store.transactions.load(Ordering::SeqCst);
        assert!(transactions <= 10, "{transactions} transactions for 200 changes");
        drop(handle);
        running.await.unwrap().unwrap();
    }
}
