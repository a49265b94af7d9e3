//! The loop: what happens goes into the machine, what it wants is done.
//!
//! Everything that can happen ends up here, one at a time: notices from the session, answers from the keepers,
//! signals, deadlines. The machine turns each into effects, which are recorded and then carried out in order. The
//! shell itself knows nothing about groups.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    address,
    blackbox::{self, BlackBox, Line},
    config::Config,
    crash::CrashPoints,
    environment::Environment,
    keeper::Keepers,
    sandbox::{Sandbox, SandboxError},
    sentence,
    session::{self, Calls, Notice, Session, SessionError},
};
use crate::{
    container::{Runtime, Setup, plan},
    group::{Effect, Event, Failure, GroupId, Machine, MemberId, Settings, Stamp},
    mesos::v1::{self, executor as wire},
};

#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Setup(#[from] session::SetupError),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Runs an executor to its end.
pub async fn run(environment: Environment, config: Config, start: Instant) -> Result<(), ShellError> {
    let sandbox = Sandbox::open(&environment.sandbox)?;
    // Then the agent: everything below happens while it looks at our SUBSCRIBE.
    let (calls, notices) = Session::start(&environment, &config)?;
    let mut shell = Shell::new(environment, config, start, sandbox, calls);
    shell.serve(notices).await
}

struct Shell {
    environment: Environment,
    start: Instant,
    machine: Machine,
    /// Gone when there is no agent to talk to any more.
    calls: Option<Calls>,
    subscribed: bool,
    keepers: Keepers,
    answers: mpsc::UnboundedReceiver<Event>,
    tasks: HashMap<MemberId, (String, String)>,
    /// Opened with the first use, so that SUBSCRIBE does not wait for it. A host that cannot run members says so
    /// in the status of each.
    runtime: Option<Result<Arc<Runtime>, String>>,
    defaults: plan::Defaults,
    sandbox: Sandbox,
    ip: Option<IpAddr>,
    black_box: BlackBox,
    crash: CrashPoints,
    failure: Option<SessionError>,
}

/// What woke the loop.
enum Wake {
    Notice(Option<Notice>),
    Event(Event),
}

impl Shell {
    fn new(environment: Environment, config: Config, start: Instant, sandbox: Sandbox, calls: Calls) -> Self {
        let machine = Machine::new(Settings {
            checkpoint: environment.recovery.is_some(),
            recovery_timeout: environment
                .recovery
                .map_or(Duration::ZERO, |recovery| recovery.timeout),
            shutdown_grace: own_grace(environment.shutdown_grace),
            launch_deadline: config.launch_deadline,
        });
        let private = sandbox
            .private()
            .inspect_err(|error| tracing::warn!("no black box: {error}"));
        let mut black_box = BlackBox::open(private.ok(), config.black_box_limit);
        black_box.begin(&blackbox::Begin {
            us: u64::try_from(start.elapsed().as_micros()).unwrap_or(0),
            begin: wall(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            framework: &environment.framework_id,
            executor: &environment.executor_id,
        });
        let (keepers, answers) = Keepers::new();
        Shell {
            ip: address::own(&environment),
            environment,
            start,
            machine,
            calls: Some(calls),
            subscribed: false,
            keepers,
            answers,
            tasks: HashMap::new(),
            runtime: None,
            defaults: plan::Defaults::default(),
            sandbox,
            black_box,
            crash: CrashPoints::from_environment(),
            failure: None,
        }
    }

    async fn serve(&mut self, mut notices: mpsc::Receiver<Notice>) -> Result<(), ShellError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(ShellError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ShellError::Signals)?;
        while !self.machine.is_done() {
            let deadline = self.machine.deadline();
            let tick = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until((self.start + deadline).into()).await,
                    None => std::future::pending().await,
                }
            };
            let wake = tokio::select! {
                biased;
                Some(answer) = self.answers.recv() => Wake::Event(answer),
                notice = notices.recv(), if self.calls.is_some() => Wake::Notice(notice),
                _ = terminate.recv() => Wake::Event(Event::Shutdown),
                _ = interrupt.recv() => Wake::Event(Event::Shutdown),
                () = tick => Wake::Event(Event::Tick),
            };
            match wake {
                Wake::Event(event) => self.step(event),
                Wake::Notice(Some(notice)) => self.hear(notice).await,
                Wake::Notice(None) => self.calls = None,
            }
            if !self.subscribed && self.calls.is_some() && !self.machine.seeks_agent() {
                self.calls = None;
            }
        }
        if let Some(calls) = self.calls.take() {
            calls.finish().await;
        }
        match self.failure.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    async fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Connected => {
                let unacknowledged = self.machine.subscribe();
                let again = (
                    unacknowledged.unacknowledged_tasks.len(),
                    unacknowledged.unacknowledged_updates.len(),
                );
                if let Some(calls) = &self.calls {
                    calls.subscribe(unacknowledged);
                }
                if self.runtime.is_none() {
                    // Let the session write SUBSCRIBE, and get ready while it travels.
                    tokio::task::yield_now().await;
                    let _ = self.runtime();
                }
                let message = format!("subscribing with {} tasks and {} updates", again.0, again.1);
                self.black_box
                    .fact(self.start.elapsed(), Line::fact("connected", &message));
            }
            Notice::Event(event) => {
                if let Some(event) = translate(*event) {
                    let subscribed = match &event {
                        Event::Subscribed(subscribed) => Some(subscribed.clone()),
                        _ => None,
                    };
                    self.step(event);
                    if let Some(subscribed) = subscribed {
                        self.subscribed = true;
                        let infos = address::network_infos(&subscribed.executor_info, self.ip);
                        self.step(Event::Network { member: None, infos });
                    }
                }
            }
            Notice::Disconnected { cause, comes_back } => {
                self.subscribed = false;
                tracing::warn!("lost the agent: {cause}");
                self.black_box
                    .fact(self.start.elapsed(), Line::fact("lost", &cause));
                if !comes_back {
                    self.calls = None;
                }
                self.step(Event::Disconnected);
            }
            Notice::Failed(error) => {
                tracing::error!("{}", sentence(&error));
                self.black_box
                    .fact(self.start.elapsed(), Line::fact("failed", &error.to_string()));
                self.failure = Some(error);
                self.calls = None;
                self.step(Event::Shutdown);
            }
        }
    }

    fn step(&mut self, event: Event) {
        let stamp = Stamp {
            now: self.start.elapsed(),
            wall: wall(),
            entropy: uuid::Uuid::new_v4().into_bytes(),
        };
        let cause = event.clone();
        let effects = self.machine.step(stamp, event);
        self.black_box.step(stamp.now, &cause, &effects);
        for effect in effects {
            self.crash.before_effect();
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(status) => {
                tracing::debug!(
                    task = status.task_id.value,
                    state = blackbox::state_name(&status),
                    "update"
                );
                if let Some(calls) = &self.calls {
                    calls.update(status);
                }
            }
            Effect::Prepare {
                member,
                group,
                container,
                task,
            } => match self.plan(group, &container, &task) {
                Ok((runtime, plan)) => {
                    self.tasks.insert(member, (task.task_id.value.clone(), container));
                    self.keepers.prepare(member, runtime, plan);
                }
                Err(failure) => self.keepers.fail(member, failure),
            },
            Effect::Release(member) => {
                if let Some((task, container)) = self.tasks.get(&member) {
                    // E-07; a missing convenience does not stop a pod.
                    if let Err(error) = self.sandbox.link(task, container) {
                        tracing::warn!("{}", sentence(&error));
                    }
                }
                self.keepers.release(member);
            }
            Effect::Discard(member) => self.keepers.discard(member),
            Effect::Signal(member, signal) => self.keepers.signal(member, signal),
            Effect::Forget(member) => {
                self.tasks.remove(&member);
                self.keepers.forget(member);
            }
            Effect::Note(note) => tracing::info!("{note}"),
            Effect::Exit => tracing::debug!("nothing is left to do"),
        }
    }

    /// Everything that is decided about a member before its preparation begins.
    fn plan(
        &mut self,
        group: GroupId,
        container: &str,
        task: &v1::TaskInfo,
    ) -> Result<(Arc<Runtime>, plan::Plan), Failure> {
        let failed = |message| Failure {
            message,
            invalid: false,
        };
        let runtime = self.runtime().map_err(failed)?;
        let sandbox = self
            .sandbox
            .member(container)
            .map_err(|error| failed(sentence(&error)))?;
        let context = plan::Context {
            sandbox,
            group: group.0.to_string(),
            container_ip: self.ip.map(|ip| ip.to_string()),
            ..plan::Context::default()
        };
        let plan = plan::member(task, None, &context, &self.defaults).map_err(|error| Failure {
            message: format!("member `{}`: {}", task.name.escape_debug(), sentence(&error)),
            invalid: true,
        })?;
        Ok((runtime, plan))
    }

    fn runtime(&mut self) -> Result<Arc<Runtime>, String> {
        let opened = self.runtime.get_or_insert_with(|| {
            let setup = Setup {
                name: self.environment.container_name().to_owned(),
                sandbox: self.sandbox.path().to_owned(),
            };
            Runtime::open(setup).map(Arc::new).map_err(|error| {
                let text = sentence(&error);
                tracing::error!("this host cannot run members: {text}");
                text
            })
        });
        opened.clone()
    }
}

/// the agent destroys us when its grace period is over, so ours ends a little earlier.
fn own_grace(agents: Duration) -> Duration {
    agents.saturating_sub((agents / 10).min(Duration::from_millis(300)))
}

/// Seconds since the epoch.
fn wall() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// From the wire to the machine; nothing for what asks for nothing (S-15) or lacks what it should carry.
fn translate(event: wire::Event) -> Option<Event> {
    use wire::event::Type;

    match event.r#type() {
        Type::Subscribed => event
            .subscribed
            .map(|subscribed| Event::Subscribed(Arc::new(subscribed))),
        // S-14: a group of one.
        Type::Launch => event.launch.map(|launch| Event::LaunchGroup(vec![launch.task])),
        Type::LaunchGroup => event
            .launch_group
            .map(|launch| Event::LaunchGroup(launch.task_group.tasks)),
        Type::Kill => event.kill.map(|kill| Event::Kill {
            task: kill.task_id.value,
            policy: kill.kill_policy,
        }),
        Type::Acknowledged => event.acknowledged.map(|acknowledged| Event::Acknowledged {
            task: acknowledged.task_id.value,
            uuid: acknowledged.uuid.to_vec(),
        }),
        Type::Shutdown => Some(Event::Shutdown),
        Type::Error => {
            let message = event.error.map(|error| error.message).unwrap_or_default();
            tracing::error!("the agent reports an error: {}", message.escape_debug());
            None
        }
        Type::Message | Type::Heartbeat | Type::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: wire::event::Type) -> wire::Event {
        wire::Event {
            r#type: Some(kind.into()),
            ..Default::default()
        }
    }

    #[test]
    fn s_14_a_single_launch_is_a_group_of_one() {
        let mut event = of(wire::event::Type::Launch);
        event.launch = Some(wire::event::Launch::default());
        assert!(matches!(translate(event), Some(Event::LaunchGroup(tasks)) if tasks.len() == 1));
    }

    #[test]
    fn s_15_what_asks_for_nothing_is_ignored() {
        use wire::event::Type;
        for kind in [Type::Message, Type::Error, Type::Heartbeat, Type::Unknown] {
            assert!(translate(of(kind)).is_none());
        }
        let unheard_of = wire::Event {
            r#type: Some(4711),
            ..Default::default()
        };
        assert!(translate(unheard_of).is_none());
        // Named, but without what the name promises.
        for kind in [
            Type::Subscribed,
            Type::Launch,
            Type::LaunchGroup,
            Type::Kill,
            Type::Acknowledged,
        ] {
            assert!(translate(of(kind)).is_none());
        }
    }
}
