//! From the start of an executor to the end of its tasks.

use std::{io, process::ExitStatus, sync::Arc, time::Duration};

use super::{
    super::{
        book::{Book, KillVerdict, Launch},
        journal::{Killed, Phase, What},
        process::{self, CommandLine, Executor, Surroundings},
        token::Claims,
    },
    Core, SeatId, Up,
    seat::{Seat, State},
};
use crate::mesos::v1::{
    ContainerId, ExecutorInfo, FrameworkInfo, KillPolicy, TaskGroupInfo, TaskId, TaskInfo, TaskState,
    executor::{Event, event},
    task_status::Reason,
};

impl Core {
    /// Starts an executor.
    pub fn run_executor(
        &mut self,
        framework: FrameworkInfo,
        executor: ExecutorInfo,
        command: &CommandLine,
    ) -> io::Result<SeatId> {
        let framework_id = framework.id.clone().unwrap_or_default().value;
        let container = ContainerId {
            value: uuid::Uuid::new_v4().to_string(),
            parent: None,
        };
        let sandbox = process::make_sandbox(
            &self.identity.work_dir,
            &self.identity.id,
            &framework_id,
            &executor.executor_id.value,
            &container.value,
        )?;
        let claims = || Claims {
            framework: framework_id.clone(),
            executor: executor.executor_id.value.clone(),
            container: container.value.clone(),
        };
        let recovery = (
            self.flags.recovery_timeout,
            self.flags.executor_reregistration_timeout,
        );
        let environment = process::environment(&Surroundings {
            framework: &framework_id,
            executor: &executor,
            agent: &self.identity.id,
            agent_pid: &self.identity.pid(),
            endpoint: self.identity.address,
            sandbox: &sandbox,
            domain_socket: self.identity.domain_socket.as_deref(),
            token: Some(self.identity.secret.sign(&claims())),
            shutdown_grace: self.grace(&executor),
            recovery: framework.checkpoint().then_some(recovery),
            operator: &self.flags.executor_environment,
        });

        self.journal.record(What::Starting);
        let process = Executor::spawn(command, &environment, &sandbox, self.identity.started.clone())?;
        let end = process.watch()?;
        self.journal.record(What::Started { pid: process.pid() });

        let id = SeatId(self.next_seat);
        self.next_seat += 1;
        let capabilities = framework.capabilities.iter().filter_map(|c| c.r#type).collect();
        let seat = Seat {
            framework: Arc::new(framework),
            executor: Arc::new(executor),
            container,
            sandbox,
            state: State::Registering,
            book: Book::new(self.identity.id.clone(), capabilities),
            stream: None,
            process: Some(process),
            deadline: None,
            heartbeat: None,
            withheld: Vec::new(),
            killed: None,
            unseen_exit: None,
            forgotten: false,
        };
        self.seats.insert(id.0, seat);
        let me = self.me.clone();
        tokio::task::spawn_local(async move {
            let ended = end.readable().await.is_ok();
            if let Some(core) = me.upgrade().filter(|_| ended) {
                core.borrow_mut().executor_ended(id);
            }
        });
        let timeout = self.flags.executor_registration_timeout;
        self.arm(id, timeout, move |core| {
            core.destroy(id, Killed::RegistrationTimeout)
        });
        Ok(id)
    }

    /// Brings tasks to an executor as soon as it is subscribed.
    pub fn launch(&mut self, id: SeatId, launch: Launch) {
        let Some(seat) = self.seats.get_mut(&id.0) else {
            return;
        };
        seat.book.enqueue(launch);
        match seat.state {
            State::Registering => {}
            State::Running => self.deliver(id),
            State::Terminating | State::Terminated => {
                let withdrawn = seat.book.withdraw_queue();
                let message = "The executor is terminating or has terminated";
                self.end_tasks(
                    id,
                    &withdrawn,
                    self.dropped(id),
                    Reason::ExecutorTerminated,
                    message,
                );
            }
        }
    }

    pub(super) fn deliver(&mut self, id: SeatId) {
        while let Some(launch) = self.seats.get_mut(&id.0).and_then(|seat| seat.book.deliver()) {
            let owned = |task: Arc<TaskInfo>| Arc::unwrap_or_clone(task);
            let event = match launch {
                Launch::Task(task) => Event {
                    r#type: Some(event::Type::Launch as i32),
                    launch: Some(event::Launch { task: owned(task) }),
                    ..Default::default()
                },
                Launch::Group(tasks) => Event {
                    r#type: Some(event::Type::LaunchGroup as i32),
                    launch_group: Some(event::LaunchGroup {
                        task_group: TaskGroupInfo {
                            tasks: tasks.into_iter().map(owned).collect(),
                        },
                    }),
                    ..Default::default()
                },
            };
            self.send(id, event);
        }
    }

    pub fn kill(&mut self, id: SeatId, task: &str, policy: Option<KillPolicy>) -> Result<(), UnknownTask> {
        let Some(seat) = self.seats.get_mut(&id.0) else {
            return Err(UnknownTask(task.to_owned()));
        };
        match seat.book.kill(task) {
            KillVerdict::Unknown => return Err(UnknownTask(task.to_owned())),
            KillVerdict::Withdrawn(tasks) => {
                let message = "Killed before delivery to the executor";
                self.end_tasks(
                    id,
                    &tasks,
                    TaskState::TaskKilled,
                    Reason::TaskKilledDuringLaunch,
                    message,
                );
            }
            KillVerdict::Deliver if seat.state == State::Terminated => {}
            KillVerdict::Deliver => {
                let kill = event::Kill {
                    task_id: TaskId {
                        value: task.to_owned(),
                    },
                    kill_policy: policy,
                };
                let event = Event {
                    r#type: Some(event::Type::Kill as i32),
                    kill: Some(kill),
                    ..Default::default()
                };
                self.send(id, event);
            }
        }
        Ok(())
    }

    /// Sends SHUTDOWN and gives the executor its grace period.
    pub fn shutdown(&mut self, id: SeatId) {
        let Some(seat) = self.seats.get_mut(&id.0) else {
            return;
        };
        if matches!(seat.state, State::Terminating | State::Terminated) {
            return;
        }
        seat.state = State::Terminating;
        let executor = seat.executor.clone();
        self.send(id, shutdown_event());
        self.arm(id, self.grace(&executor), move |core| {
            core.destroy(id, Killed::ShutdownGrace)
        });
    }

    /// Kills an executor and all that is left of it; what follows from that comes with its exit.
    pub fn destroy(&mut self, id: SeatId, why: Killed) {
        let Some(seat) = self.seats.get_mut(&id.0) else {
            return;
        };
        if let Some(process) = &seat.process {
            seat.killed.get_or_insert(why);
            process.destroy();
        }
    }

    pub fn destroy_all(&mut self) {
        for id in self.all() {
            self.destroy(id, Killed::Harness);
        }
    }

    /// The end of the agent itself: kills and reaps every executor.
    pub fn dissolve(&mut self) {
        self.seats.clear();
    }

    pub(super) fn grace(&self, executor: &ExecutorInfo) -> Duration {
        let own = executor.shutdown_grace_period.as_ref();
        own.map_or(self.flags.executor_shutdown_grace_period, |period| {
            Duration::from_nanos(u64::try_from(period.nanoseconds).unwrap_or(0))
        })
    }

    pub(super) fn executor_ended(&mut self, id: SeatId) {
        let away = self.phase == Phase::Away;
        let Some(seat) = self.seats.get_mut(&id.0) else {
            return;
        };
        let Some(mut process) = seat.process.take() else {
            return;
        };
        match process.reap() {
            Ok(status) => {
                let killed = seat.killed;
                self.journal.record(What::Exited { status, killed });
                if away && !seat.forgotten {
                    seat.unseen_exit = Some(status);
                } else {
                    self.settle(id, status);
                }
            }
            Err(error) => tracing::error!("cannot wait for the executor: {error}"),
        }
    }

    /// Draws the conclusions from an exit: terminal states for what had none.
    pub(super) fn settle(&mut self, id: SeatId, status: ExitStatus) {
        let Some(seat) = self.seats.get_mut(&id.0) else {
            return;
        };
        seat.state = State::Terminated;
        seat.stream = None;
        seat.deadline = None;
        seat.heartbeat = None;
        let (live, killed) = (seat.book.live(), seat.killed);
        if !seat.forgotten {
            let reason = match killed {
                Some(Killed::RegistrationTimeout) => Reason::ExecutorRegistrationTimeout,
                Some(Killed::ReregistrationTimeout) => Reason::ExecutorReregistrationTimeout,
                _ => Reason::ExecutorTerminated,
            };
            let message = match killed {
                Some(Killed::RegistrationTimeout) => "The executor did not register in time".to_owned(),
                Some(Killed::ReregistrationTimeout) => "The executor did not re-register in time".to_owned(),
                _ => format!("The executor terminated: {status}"),
            };
            self.end_tasks(id, &live, TaskState::TaskFailed, reason, &message);
        }
        self.journal.record(What::Settled);
        self.report(id, Up::Ended(status));
    }
}

pub(super) fn shutdown_event() -> Event {
    Event {
        r#type: Some(event::Type::Shutdown as i32),
        ..Default::default()
    }
}

/// A KILL for a task that this executor was never given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no task {0} was launched on this executor; an agent sends no KILL for it")]
pub struct UnknownTask(pub String);
