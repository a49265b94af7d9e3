//! The agent's thread: what it holds, how it is set up, and what it does when asked.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{Arc, mpsc},
};

use tokio::{runtime, sync::mpsc as queue, task::LocalSet};

use super::{
    Action, Facts, StartError, TaskRecord,
    book::Launch,
    builder::{self, LaunchRequest, Plan},
    core::{Core, SeatId},
    journal::{Journal, Phase},
    server::{Doors, Port},
    workdir::WorkDir,
};

/// Something to be done on the agent's thread.
pub(super) type Command = Box<dyn FnOnce(&Rc<Station>) + Send>;

/// What the agent's thread holds.
pub(super) struct Station {
    pub core: Rc<RefCell<Core>>,
    pub seat: SeatId,
    port: Port,
    doors: RefCell<Option<Doors>>,
}

impl Station {
    pub(super) fn launch(&self, launch: LaunchRequest) {
        let mut core = self.core.borrow_mut();
        let agent = core.identity.id.clone();
        let Some(executor) = core.seat(self.seat).map(|seat| seat.executor.clone()) else {
            return;
        };
        let complete = |task| Arc::new(builder::complete_task(task, &agent, &executor));
        let launch = match launch {
            LaunchRequest::Task(task) => Launch::Task(complete(*task)),
            LaunchRequest::Group(group) => Launch::Group(group.tasks.into_iter().map(complete).collect()),
        };
        core.launch(self.seat, launch);
    }

    pub(super) fn tasks(&self) -> Vec<TaskRecord> {
        let core = self.core.borrow();
        core.seat(self.seat)
            .map(|seat| seat.tasks().to_vec())
            .unwrap_or_default()
    }

    pub(super) fn leave(&self) {
        *self.doors.borrow_mut() = None;
        self.core.borrow_mut().go_away();
    }

    pub(super) fn arrive(&self, phase: Phase) -> io::Result<()> {
        match phase {
            Phase::Away => self.leave(),
            Phase::Absent | Phase::Starting => {
                self.core.borrow_mut().set_phase(phase);
                self.open()?;
            }
            Phase::Recovering | Phase::Up => {
                self.core.borrow_mut().recover();
                self.open()?;
            }
        }
        Ok(())
    }

    pub(super) fn open(&self) -> io::Result<()> {
        let mut doors = self.doors.borrow_mut();
        if doors.is_none() {
            let socket = self.core.borrow().identity.domain_socket.clone();
            *doors = Some(Doors::open(&self.core, &self.port, socket.as_deref())?);
        }
        Ok(())
    }

    pub(super) async fn act(&self, action: Action) {
        match action {
            Action::Kill(task) => {
                if let Err(error) = self.core.borrow_mut().kill(self.seat, &task, None) {
                    tracing::warn!("{error}");
                }
            }
            Action::Shutdown => self.core.borrow_mut().shutdown(self.seat),
            Action::Restart(pause) => {
                self.leave();
                for phase in [Phase::Absent, Phase::Starting, Phase::Recovering] {
                    tokio::time::sleep(pause).await;
                    if let Err(error) = self.arrive(phase) {
                        tracing::error!("the agent cannot come back: {error}");
                    }
                }
            }
        }
    }
}

/// The agent's thread.
pub(super) fn run(
    plan: Plan,
    journal: Arc<Journal>,
    mut inbox: queue::UnboundedReceiver<Command>,
    ready: mpsc::SyncSender<Result<Facts, StartError>>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::Thread(error)));
            return;
        }
    };
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async move {
        let (station, facts, _work_dir) = match set_up(plan, journal) {
            Ok(set_up) => set_up,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(facts));
        while let Some(command) = inbox.recv().await {
            command(&station);
        }
        // Executors are killed and reaped before their directory goes.
        station.core.borrow_mut().dissolve();
    });
}

fn set_up(mut plan: Plan, journal: Arc<Journal>) -> Result<(Rc<Station>, Facts, WorkDir), StartError> {
    let listen = |address: String| move |source| StartError::Listen { address, source };
    let port = Port::reserve(plan.address).map_err(listen(plan.address.to_string()))?;
    let identity = plan.identity(&port)?;
    let framework_id = plan.framework.id.get_or_insert_default().clone();
    plan.executor
        .framework_id
        .get_or_insert_with(|| framework_id.clone());
    plan.executor.resources.iter_mut().for_each(builder::allocate);

    let core = Core::new(journal, plan.flags, identity, plan.mischief);
    let doors = {
        let (address, socket) = {
            let core = core.borrow();
            (
                core.identity.address.to_string(),
                core.identity.domain_socket.clone(),
            )
        };
        Doors::open(&core, &port, socket.as_deref()).map_err(listen(address))?
    };
    let executor = plan.executor.clone();
    let started = core
        .borrow_mut()
        .run_executor(plan.framework, plan.executor, &plan.command);
    let seat = started.map_err(|source| StartError::Executor {
        command: plan.command.to_string(),
        source,
    })?;
    let facts = {
        let core = core.borrow();
        let (identity, seat) = (&core.identity, core.seat(seat));
        Facts {
            agent_id: identity.id.clone(),
            framework_id: framework_id.value,
            executor,
            container_id: seat.map(|seat| seat.container.value.clone()).unwrap_or_default(),
            sandbox: seat.map(|seat| seat.sandbox.clone()).unwrap_or_default(),
            endpoint: identity.address,
            agent_pid: identity.pid(),
            domain_socket: identity.domain_socket.clone(),
            pid: seat.and_then(|seat| seat.pid()).unwrap_or_default(),
        }
    };
    let station = Rc::new(Station {
        core,
        seat,
        port,
        doors: RefCell::new(Some(doors)),
    });
    for launch in plan.launches {
        station.launch(launch);
    }
    Ok((station, facts, plan.work_dir))
}
