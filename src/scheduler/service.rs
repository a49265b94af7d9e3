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
//!
//! A store that cannot be written, on a full disk for one, is waited for. What was decided and could not be stored has
//! not happened: the core goes back to what the store holds, as if the scheduler had ended just before and started
//! again, and whoever asked for it is told that it was not done. Until there is room the master is left alone,
//! questions are answered, and changes are not taken on.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::Instant,
};

use super::{
    core::{Accepted, Change, Command, Core, Effect, Event, Notice, Refusal, Settings, Stamp},
    journal,
    standing::Standing,
    store::{Store, StoreError},
};
use crate::pod::{Pod, PodId, Version};

/// Requests and events taken into one batch at the most.
const BATCH: usize = 256;
/// Requests that wait; beyond that callers wait.
const REQUESTS: usize = 1024;
/// Between two tries to write to a store that could not be written.
const STORE_PAUSE: Duration = Duration::from_secs(1);
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

    /// Leaves the master: its offers go to others, and what it says comes again later.
    fn rest(&mut self) {}

    /// Subscribes anew after a rest.
    fn resume(&mut self) {}
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

/// Where the answer to a command goes.
type Answer = oneshot::Sender<Result<Result<Accepted, Refusal>, Unavailable>>;
type Question = Box<dyn FnOnce(&Core, Stamp) + Send>;

enum Request {
    Command(Box<Command>, Answer),
    Question(Question),
}

/// What goes wrong between a caller and the scheduler.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("the scheduler is shutting down")]
    Stopped,
    /// A change that was not made. What is known is told all the same.
    #[error("nothing was changed: {0}")]
    Waiting(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What callers hold. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    store: StoreThread,
    notices: broadcast::Sender<Notice>,
    standing: Standing,
}

impl Handle {
    /// What keeps the scheduler from its work.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub async fn command(&self, command: Command) -> Result<Result<Accepted, Refusal>, Unavailable> {
        let (answer, receiver) = oneshot::channel();
        let request = Request::Command(Box::new(command), answer);
        self.requests
            .send(request)
            .await
            .map_err(|_| Unavailable::Stopped)?;
        receiver.await.map_err(|_| Unavailable::Stopped)?
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
    settings: Settings,
    core: Core,
    master: M,
    store: StoreThread,
    requests: mpsc::Receiver<Request>,
    notices: broadcast::Sender<Notice>,
    standing: Standing,
    begin: Instant,
}

/// What made the scheduler stop.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error(transparent)]
    Store(StoreError),
    #[error("the store's thread has ended")]
    StoreGone,
    #[error("cannot start a thread for the store: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Replaced(#[from] Replaced),
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
        connect: impl FnOnce(Option<&str>, &Standing) -> M,
    ) -> Result<(Self, Handle), Fatal> {
        let saved = store.load().map_err(Fatal::Store)?;
        let standing = Standing::default();
        let master = connect(saved.framework.as_deref(), &standing);
        let core = Core::restore(settings.clone(), saved, Duration::ZERO);
        let store = StoreThread::start(store).map_err(Fatal::Thread)?;
        let (requests, queue) = mpsc::channel(REQUESTS);
        let (notices, _) = broadcast::channel(NOTICES);
        let handle = Handle {
            requests,
            store: store.clone(),
            notices: notices.clone(),
            standing: standing.clone(),
        };
        Ok((
            Service {
                settings,
                core,
                master,
                store,
                requests: queue,
                notices,
                standing,
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
            let mut questions = Vec::new();
            match self.take(batch, &mut questions).await {
                Ok(()) => {}
                Err(Unavailable::Store(error)) => {
                    if !self.wait_for_store(&error, questions).await? {
                        return Ok(());
                    }
                }
                Err(_) => return Err(Fatal::StoreGone),
            }
        }
    }

    /// The store cannot be written: what was decided last is forgotten, and nothing is decided until it can. False when
    /// every handle is gone.
    async fn wait_for_store(&mut self, error: &StoreError, asked: Vec<Question>) -> Result<bool, Fatal> {
        let why = error.to_string();
        tracing::error!("{why}; waiting until it can be written");
        self.standing.without_store(&why, wall_clock());
        self.master.rest();
        let mut questions = asked;
        let mut stale = true;
        let mut tries = tokio::time::interval(STORE_PAUSE);
        loop {
            if stale {
                match self.store.call(|store| store.load()).await {
                    Ok(saved) => {
                        self.core = Core::restore(self.settings.clone(), saved, self.begin.elapsed());
                        stale = false;
                    }
                    Err(Unavailable::Store(error)) => tracing::error!("{error}"),
                    Err(_) => return Err(Fatal::StoreGone),
                }
            }
            if !stale {
                for question in questions.drain(..) {
                    question(&self.core, self.stamp());
                }
            }
            tokio::select! {
                request = self.requests.recv() => match request {
                    None => return Ok(false),
                    Some(Request::Question(question)) => questions.push(question),
                    Some(Request::Command(_, caller)) => {
                        // Whoever has gone does not want to know.
                        let _ = caller.send(Err(Unavailable::Waiting(why.clone())));
                    }
                },
                // It comes again with the next subscription.
                event = self.master.next() => drop(event?),
                _ = tries.tick(), if !stale => match self.store.call(|store| store.probe()).await {
                    Ok(()) => break,
                    Err(Unavailable::Store(error)) => tracing::debug!("{error}"),
                    Err(_) => return Err(Fatal::StoreGone),
                },
                () = tokio::time::sleep(STORE_PAUSE), if stale => {}
            }
        }
        while self.master.ready().is_some() {}
        self.master.resume();
        self.standing.with_store();
        tracing::warn!("the store can be written again");
        Ok(true)
    }

    async fn take(
        &mut self,
        batch: VecDeque<Input>,
        questions: &mut Vec<Question>,
    ) -> Result<(), Unavailable> {
        let mut changes: Vec<Change> = Vec::new();
        let mut sends = Vec::new();
        let mut answers: Vec<(Answer, _)> = Vec::new();
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
            let framework = changes.iter().rev().find_map(|change| match change {
                Change::Framework(id) => Some(id.clone()),
                _ => None,
            });
            if let Err(error) = self.store.call(move |store| store.apply(&changes)).await {
                for (caller, _) in answers {
                    let _ = caller.send(Err(Unavailable::Waiting(error.to_string())));
                }
                return Err(error);
            }
            if let Some(id) = framework {
                self.master.remember(&id);
            }
        }
        for effect in sends {
            match effect {
                // Nobody may be listening.
                Effect::Publish(notice) => {
                    journal::tell(&notice);
                    drop(self.notices.send(notice));
                }
                effect => self.master.send(effect),
            }
        }
        for (caller, answer) in answers {
            let _ = caller.send(Ok(answer));
        }
        // Answered last, so that nobody is told of what is not stored yet.
        for question in questions.drain(..) {
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

        fn probe(&mut self) -> Result<(), StoreError> {
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

    /// A store on a disk that may be full.
    #[derive(Default, Clone)]
    struct Disk {
        full: Arc<std::sync::atomic::AtomicBool>,
        pods: Arc<Mutex<Vec<crate::scheduler::core::StoredPod>>>,
    }

    impl Disk {
        fn room(&self) -> Result<(), StoreError> {
            match self.full.load(Ordering::SeqCst) {
                true => Err(StoreError::NoFile {
                    place: "on a full disk".to_owned(),
                }),
                false => Ok(()),
            }
        }
    }

    impl Store for Disk {
        fn load(&mut self) -> Result<Saved, StoreError> {
            Ok(Saved {
                pods: self.pods.lock().unwrap().clone(),
                ..Saved::default()
            })
        }

        fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
            self.room()?;
            for change in changes {
                if let Change::Pod(stored) = change {
                    self.pods.lock().unwrap().push(stored.clone());
                }
            }
            Ok(())
        }

        fn probe(&mut self) -> Result<(), StoreError> {
            self.room()
        }

        fn versions(&mut self, _: &PodId) -> Result<Vec<Version>, StoreError> {
            Ok(Vec::new())
        }

        fn version(&mut self, _: &PodId, _: Version) -> Result<Option<Pod>, StoreError> {
            Ok(None)
        }
    }

    /// A master that notes what it is told.
    #[derive(Clone, Default)]
    struct Noting(Arc<Mutex<Vec<&'static str>>>);

    impl Master for Noting {
        async fn next(&mut self) -> Result<Event, Replaced> {
            std::future::pending().await
        }

        fn ready(&mut self) -> Option<Event> {
            None
        }

        fn send(&mut self, _: Effect) {
            self.0.lock().unwrap().push("call");
        }

        fn remember(&mut self, _: &str) {}

        fn rest(&mut self) {
            self.0.lock().unwrap().push("rest");
        }

        fn resume(&mut self) {
            self.0.lock().unwrap().push("resume");
        }
    }

    fn sleeper(name: &str) -> Command {
        let definition = json!({"id": name, "containers":
            [{"name": "c", "resources": {}, "exec": {"command": {"shell": "x"}}}]});
        Command::Create(pod::read(&definition, &Profile::default()).unwrap().pod)
    }

    #[tokio::test]
    async fn r5_a_full_disk_is_waited_for_and_what_was_not_stored_has_not_happened() {
        let (disk, master) = (Disk::default(), Noting::default());
        let noting = master.clone();
        let (service, handle) = Service::start(settings(), Box::new(disk.clone()), |_, _| noting).unwrap();
        let running = tokio::spawn(service.run());
        handle.command(sleeper("/first")).await.unwrap().unwrap();
        disk.full.store(true, Ordering::SeqCst);
        // The one that finds it out and those that come after are told the same.
        for name in ["/second", "/third"] {
            let refused = handle.command(sleeper(name)).await.unwrap_err();
            assert!(
                matches!(&refused, Unavailable::Waiting(why) if why.contains("on a full disk")),
                "{refused}"
            );
        }
        let known = async || {
            let ids = handle.ask(|core, _| {
                core.definitions()
                    .map(|pod| pod.id.to_string())
                    .collect::<Vec<_>>()
            });
            ids.await.unwrap()
        };
        assert_eq!(known().await, ["/first"]);
        let said = handle.standing().sentences();
        assert!(
            said.len() == 1 && said[0].starts_with("no change is taken on since"),
            "{said:?}"
        );
        disk.full.store(false, Ordering::SeqCst);
        // The next try comes by itself.
        while !handle.standing().sentences().is_empty() {
            tokio::task::yield_now().await;
        }
        handle.command(sleeper("/second")).await.unwrap().unwrap();
        assert_eq!(known().await, ["/first", "/second"]);
        assert_eq!(*master.0.lock().unwrap(), ["rest", "resume"]);
        drop(handle);
        running.await.unwrap().unwrap();
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
        let (service, handle) = Service::start(settings(), Box::new(store.clone()), |_, _| master).unwrap();
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
