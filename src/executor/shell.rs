//! The loop: what happens goes into the machine, what it wants is done.
//!
//! Everything that can happen ends up here, one at a time: notices from the session, answers from the keepers,
//! signals, deadlines. The machine turns each into effects, which are recorded and then carried out in order. The
//! shell itself knows nothing about groups.

use std::{
    net::IpAddr,
    path::PathBuf,
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
    checks::Wanted,
    config::Config,
    crash::CrashPoints,
    environment::Environment,
    keeper::Keepers,
    planner::Planner,
    provision::{self, Learned},
    sandbox::{Sandbox, SandboxError},
    sentence,
    session::{self, Calls, Notice, Session, SessionError},
};
use crate::{
    container::janitor,
    group::{Effect, Event, Failure, Machine, Settings, Stamp},
    mesos::v1::executor as wire,
    network, sys,
};

/// When launches are over, most likely.
const QUIET: Duration = Duration::from_secs(5);

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
    Shell::new(environment, config, start, sandbox, calls)
        .serve(notices)
        .await
}

struct Shell {
    environment: Environment,
    config: Config,
    start: Instant,
    machine: Machine,
    /// Gone when there is no agent to talk to any more.
    calls: Option<Calls>,
    subscribed: bool,
    keepers: Keepers,
    answers: mpsc::UnboundedReceiver<Event>,
    /// Opened while SUBSCRIBE travels, or with the first use.
    planner: Option<Planner>,
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
    /// Nothing has happened for a while.
    Quiet,
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
        let (keepers, answers) = Keepers::new(start);
        Shell {
            ip: address::own(&environment),
            environment,
            start,
            machine,
            calls: Some(calls),
            subscribed: false,
            keepers,
            answers,
            planner: None,
            config,
            sandbox,
            black_box,
            crash: CrashPoints::from_environment(),
            failure: None,
        }
    }

    async fn serve(mut self, mut notices: mpsc::Receiver<Notice>) -> Result<(), ShellError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(ShellError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ShellError::Signals)?;
        let mut quiet_at = Some(Instant::now() + QUIET);
        while !self.machine.is_done() {
            let quiet = async {
                match quiet_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
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
                () = quiet => Wake::Quiet,
            };
            quiet_at = match wake {
                Wake::Quiet => None,
                _ => Some(Instant::now() + QUIET),
            };
            match wake {
                // Most of what has been resident for the last launch is of no use now.
                Wake::Quiet => {
                    let _ = sys::memory::trim();
                }
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
        // Members that are still there go now, and then what they stand on.
        drop(self.keepers);
        if let Some(planner) = self.planner.take() {
            planner.release().await;
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
                if self.planner.is_none() {
                    // Let the session write SUBSCRIBE, and get ready while it travels.
                    tokio::task::yield_now().await;
                    self.planner();
                    tokio::spawn(sweep(self.config.run_dir.clone(), self.config.networks()));
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
                        let executor = &subscribed.executor_info;
                        let extras = self.machine.extras();
                        let network = extras.and_then(|extras| extras.network.clone());
                        let member = None;
                        let learned = match self.planner().learn(executor, network.as_ref()).await {
                            Learned::Shared { infos, .. } => Event::Network { member, infos },
                            // Told as soon as there is one.
                            Learned::Own => Event::Network {
                                member,
                                infos: Vec::new(),
                            },
                            Learned::Refused(why) => Event::NetworkRefused(why),
                        };
                        self.step(learned);
                        if let Some(what) = self.planner().lesser() {
                            self.step(Event::Lesser(what));
                        }
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
        let room = match effects
            .iter()
            .any(|effect| matches!(effect, Effect::Prepare { .. }))
        {
            true => self.planner().look_ahead(&effects),
            false => Ok(()),
        };
        for effect in effects {
            self.crash.before_effect();
            self.carry_out(effect, &room);
        }
    }

    /// `room`: whether the members that are to be prepared can be.
    fn carry_out(&mut self, effect: Effect, room: &Result<(), Failure>) {
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
            } => {
                let planned = room
                    .clone()
                    .and_then(|()| self.planner().plan(member, group, &container, &task));
                match planned {
                    Ok((runtime, provided)) => {
                        let extras = self.machine.extras();
                        let extra = extras.and_then(|extras| extras.checks.get(&task.name)).cloned();
                        let extra = extra.unwrap_or_default();
                        let wanted = Wanted { task, extra };
                        self.keepers.prepare(member, wanted, runtime, provided);
                    }
                    Err(failure) => self.keepers.fail(member, failure),
                }
            }
            Effect::Release(member) => {
                self.planner().link(member);
                self.keepers.release(member);
            }
            Effect::Begin(member) => self.keepers.begin(member),
            Effect::Discard(member) => self.keepers.discard(member),
            Effect::Signal(member, signal) => self.keepers.signal(member, signal),
            Effect::Forget(member) => {
                self.keepers.forget(member);
                self.planner().forget(member);
            }
            Effect::Note(note) => tracing::info!("{note}"),
            Effect::Exit => tracing::debug!("nothing is left to do"),
        }
    }

    fn planner(&mut self) -> &mut Planner {
        let (environment, config, ip) = (&self.environment, &self.config, self.ip);
        let sandbox = &mut self.sandbox;
        self.planner.get_or_insert_with(|| {
            let sandbox = sandbox.clone();
            Planner::open(environment.container_name(), config, sandbox, ip)
        })
    }
}

/// the agent destroys us when its grace period is over, so ours ends a little earlier.
fn own_grace(agents: Duration) -> Duration {
    agents.saturating_sub((agents / 10).min(Duration::from_millis(300)))
}

/// What dead executors have left on this node is removed by the next one that has a quiet moment.
async fn sweep(run: PathBuf, networks: network::Config) {
    tokio::time::sleep(QUIET).await;
    match tokio::task::spawn_blocking(move || janitor::sweep(&run)).await {
        Ok(Ok(report)) => {
            if !report.cleaned.is_empty() {
                tracing::info!("cleaned up after {}", report.cleaned.join(", "));
            }
            for failed in report.failed {
                tracing::warn!(
                    "a dead executor's {} stays: {}",
                    failed.path.display(),
                    failed.reason
                );
            }
        }
        Ok(Err(error)) => tracing::debug!("{}", sentence(&error)),
        Err(error) => tracing::error!("{}", sentence(&error)),
    }
    // Their processes are gone by now, and with them the namespaces' last users.
    provision::sweep(networks).await;
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
