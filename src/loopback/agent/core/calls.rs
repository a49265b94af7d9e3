//! What the executor calls for: subscription, updates and their acknowledgement.

use std::{rc::Rc, sync::Arc};

use super::{
    super::{
        journal::What,
        link::{Events, Link},
        rules::Refusal,
        status,
        violation::Violation,
    },
    Core, SeatId,
    life::shutdown_event,
    seat::{Seat, State, Stream},
    wall,
};
use crate::mesos::{
    codec::Encoding,
    v1::{
        TaskId, TaskStatus,
        executor::{Call, Event, call, event},
        task_status::Reason,
    },
};

impl Core {
    /// Finds the executor that a call names.
    pub fn find(&self, call: &Call) -> Result<SeatId, Refusal> {
        let known = |seat: &&Seat| !seat.forgotten;
        let of_framework = |seat: &&Seat| seat.framework.id.as_ref() == Some(&call.framework_id);
        if !self.seats.values().filter(known).any(|seat| of_framework(&seat)) {
            return Err(Refusal::new(400, "Framework cannot be found"));
        }
        let mut latest_first = self.seats.iter().rev();
        let found = latest_first.find(|(_, seat)| {
            known(seat) && of_framework(seat) && seat.executor.executor_id == call.executor_id
        });
        found
            .map(|(id, _)| SeatId(*id))
            .ok_or_else(|| Refusal::new(400, "Executor cannot be found"))
    }

    pub fn is_registering(&self, id: SeatId) -> bool {
        self.seat(id).is_some_and(|seat| seat.state == State::Registering)
    }

    /// Installs a new stream in the place of an older one and brings both sides up to date.
    pub fn subscribe(
        &mut self,
        id: SeatId,
        subscribe: &call::Subscribe,
        link: &Rc<Link>,
        encoding: Encoding,
    ) -> Option<Events> {
        let me = self.me.clone();
        let on_close = Box::new(move |connection| {
            // A stream dies with its connection's task, never while the core is at work; were it so, the next
            // event would find the stream closed.
            if let Some(core) = me.upgrade()
                && let Ok(mut core) = core.try_borrow_mut()
            {
                core.stream_closed(connection);
            }
        });
        let (items, events) = Events::new(link.clone(), self.mischief.chunks, on_close);
        self.journal.record(What::StreamOpened(link.id, encoding));
        let seat = self.seats.get_mut(&id.0)?;
        seat.stream = Some(Stream {
            connection: link.id,
            encoding,
            items,
        });

        let pointless = seat.book.is_pointless();
        if matches!(seat.state, State::Terminating | State::Terminated) {
            self.send(id, shutdown_event());
        } else if pointless {
            // It was never given a task, and those that waited for it are gone (MESOS-8411).
            self.shutdown(id);
        }
        let seat = self.seats.get_mut(&id.0)?;
        if matches!(seat.state, State::Terminating | State::Terminated) {
            seat.stream = None;
            return Some(events);
        }

        seat.state = State::Running;
        seat.deadline = None;
        let subscribed = Event {
            r#type: Some(event::Type::Subscribed as i32),
            subscribed: Some(event::Subscribed {
                executor_info: (*seat.executor).clone(),
                framework_info: (*seat.framework).clone(),
                agent_info: self.identity.info.clone(),
                container_id: Some(seat.container.clone()),
            }),
            ..Default::default()
        };
        self.send(id, subscribed);
        self.beat(id);
        for update in &subscribe.unacknowledged_updates {
            self.update(id, &update.status);
        }
        let missing = self.seat(id)?.book.missing(subscribe.unacknowledged_tasks.iter());
        let message = "The task was not known to the executor that re-subscribed";
        self.end_tasks(id, &missing, self.dropped(id), Reason::AgentRestarted, message);
        self.deliver(id);
        Some(events)
    }

    pub(super) fn beat(&mut self, id: SeatId) {
        let timer = self.after(self.flags.heartbeat_interval, move |core| {
            let heartbeat = Event {
                r#type: Some(event::Type::Heartbeat as i32),
                ..Default::default()
            };
            core.send(id, heartbeat);
            core.beat(id);
        });
        if let Some(seat) = self.seats.get_mut(&id.0) {
            seat.heartbeat = Some(timer);
        }
    }

    /// Takes charge of a status: forwards and acknowledges it, unless it is one of those that are not.
    pub fn update(&mut self, id: SeatId, status: &TaskStatus) {
        let Some(seat) = self.seats.get_mut(&id.0) else {
            return;
        };
        let status = Arc::new(status.clone());
        let verdict = seat.book.update(&status);
        let received = seat.book.record(&status.task_id.value).and_then(|record| {
            let update = record
                .updates
                .iter()
                .find(|update| update.status.uuid == status.uuid);
            update.map(|update| update.received)
        });
        if let Some(violation) = verdict.violation {
            self.journal.record(What::Violation(violation));
        }
        if verdict.forward {
            let completed = self
                .known(id)
                .map(|known| status::complete((*status).clone(), &known, wall()));
            self.forward(id, Arc::new(completed.unwrap_or_default()));
        }
        let task = &status.task_id.value;
        if !verdict.acknowledge
            || self
                .mischief
                .swallows_ack(task, status.state(), received.unwrap_or(1))
        {
            return;
        }
        let uuid = status.uuid().to_vec();
        if self.mischief.withhold_acks {
            if let Some(seat) = self.seats.get_mut(&id.0) {
                seat.withheld.push((task.clone(), uuid));
            }
            return;
        }
        self.acknowledge(id, task, uuid);
    }

    pub(super) fn acknowledge(&mut self, id: SeatId, task: &str, uuid: Vec<u8>) {
        if let Some(seat) = self.seats.get_mut(&id.0) {
            seat.book.acknowledged(task, &uuid);
        }
        let acknowledged = event::Acknowledged {
            task_id: TaskId {
                value: task.to_owned(),
            },
            uuid,
        };
        let event = Event {
            r#type: Some(event::Type::Acknowledged as i32),
            acknowledged: Some(acknowledged),
            ..Default::default()
        };
        if self.mischief.ack_twice {
            self.send(id, event.clone());
        }
        self.send(id, event);
    }

    /// Lets all acknowledgements go that were held back, and holds back no more.
    pub fn release_acks(&mut self, id: SeatId) {
        self.mischief.withhold_acks = false;
        let held = self
            .seats
            .get_mut(&id.0)
            .map(|seat| std::mem::take(&mut seat.withheld));
        for (task, uuid) in held.into_iter().flatten() {
            self.acknowledge(id, &task, uuid);
        }
    }

    pub fn refused(&self, refusal: &Refusal, call: Option<Arc<Call>>) {
        self.journal.record(What::Refused {
            status: refusal.status,
            reason: refusal.reason.clone(),
            call,
        });
        if refusal.is_clients_fault() {
            self.journal.record(What::Violation(Violation::Refused {
                status: refusal.status,
                reason: refusal.reason.clone(),
            }));
        }
    }
}
