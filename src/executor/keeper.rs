//! The keepers: one task per member that owns it from its preparation to its end.
//!
//! ```text
//!  preparing ──Prepared──▶ gated ──release──▶ opening ──Held──▶ held ──begin──▶ running ──Exited──▶ gone
//!      │ discard             │ discard           │ discard       │ discard       ▲ stop, kill
//!      └─────────────────────┴───────────────────┴───────────────┴──Discarded──▶ gone
//! ```
//!
//! A keeper gives exactly one answer to each effect that asks for one, and the member ends with its keeper.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::{
    checks::{Checking, Checks, Wanted},
    last_words::Streams,
    provision::{Kept, Provided},
};
use crate::{
    container::{Gated, Held, LaunchError, Running, Runtime},
    group::{Event, Exit, Failure, MemberId, MemberSignal},
};

/// What a keeper is told to do with its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Release,
    Begin,
    Discard,
    Signal(MemberSignal),
}

#[derive(Debug)]
pub struct Keepers {
    orders: HashMap<MemberId, mpsc::UnboundedSender<Order>>,
    checks: Checks,
    answers: mpsc::UnboundedSender<Event>,
}

impl Keepers {
    /// Answers come out of the second value. `start` is when the executor started.
    pub fn new(start: Instant) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (answers, answers_in) = mpsc::unbounded_channel();
        let keepers = Keepers {
            orders: HashMap::new(),
            checks: Checks::new(start, answers.clone()),
            answers,
        };
        (keepers, answers_in)
    }

    /// Begins to prepare; members are prepared side by side. `provided` is the work that ends in a plan.
    pub fn prepare(
        &mut self,
        member: MemberId,
        wanted: Wanted,
        runtime: Arc<Runtime>,
        provided: impl Future<Output = Result<Provided, Failure>> + 'static,
    ) {
        let (orders, orders_in) = mpsc::unbounded_channel();
        self.orders.insert(member, orders);
        let keeper = Keeper {
            member,
            wanted,
            checks: self.checks.clone(),
            orders: orders_in,
            answers: self.answers.clone(),
        };
        tokio::task::spawn_local(keeper.keep(runtime, provided));
    }

    /// A member that could not even be begun.
    pub fn fail(&mut self, member: MemberId, failure: Failure) {
        self.answer(Event::PrepareFailed(member, failure));
    }

    pub fn release(&self, member: MemberId) {
        self.order(member, Order::Release);
    }

    pub fn begin(&self, member: MemberId) {
        self.order(member, Order::Begin);
    }

    pub fn discard(&self, member: MemberId) {
        self.order(member, Order::Discard);
    }

    pub fn signal(&self, member: MemberId, signal: MemberSignal) {
        self.order(member, Order::Signal(signal));
    }

    /// Nothing more will be asked of this member; if it still runs, it ends.
    pub fn forget(&mut self, member: MemberId) {
        self.orders.remove(&member);
    }

    fn order(&self, member: MemberId, order: Order) {
        // One that has just ended has given its answer already.
        let _ = self.orders.get(&member).map(|orders| orders.send(order));
    }

    fn answer(&self, event: Event) {
        // The shell outlives its keepers, but for the very end, when nobody listens any more.
        let _ = self.answers.send(event);
    }
}

struct Keeper {
    member: MemberId,
    wanted: Wanted,
    checks: Checks,
    orders: mpsc::UnboundedReceiver<Order>,
    answers: mpsc::UnboundedSender<Event>,
}

/// The member is to be given up, or its keeper forgotten, which is the same before it runs.
struct GivenUp;

impl Keeper {
    async fn keep(
        mut self,
        runtime: Arc<Runtime>,
        provided: impl Future<Output = Result<Provided, Failure>>,
    ) {
        // What the member stands on outlives it.
        let mut kept = None;
        let mut streams = None;
        let answer = match self.start(&runtime, provided, &mut kept, &mut streams).await {
            Err(GivenUp) => Event::Discarded(self.member),
            Ok(Err(failed)) => failed,
            Ok(Ok(mut running)) => {
                let checking = self.checks.begin(self.member, &self.wanted, &running);
                match self.watch(&mut running, checking).await {
                    Some(mut exit) => {
                        exit.words = streams.and_then(|streams| streams.last_words(&exit));
                        Event::Exited(self.member, exit)
                    }
                    None => return,
                }
            }
        };
        let _ = self.answers.send(answer);
    }

    /// Up to its first instruction; the failure is the answer to give.
    async fn start(
        &mut self,
        runtime: &Runtime,
        provided: impl Future<Output = Result<Provided, Failure>>,
        kept: &mut Option<Kept>,
        streams: &mut Option<Streams>,
    ) -> Result<Result<Running, Event>, GivenUp> {
        let plan = match unless_given_up(&mut self.orders, provided).await? {
            Ok(provided) => {
                *kept = Some(provided.kept);
                if let Some(infos) = provided.network_infos {
                    let member = Some(self.member);
                    let _ = self.answers.send(Event::Network { member, infos });
                }
                provided.plan
            }
            Err(failure) => return Ok(Err(Event::PrepareFailed(self.member, failure))),
        };
        let notes = plan.notes.clone();
        let mut gated: Gated = match unless_given_up(&mut self.orders, runtime.prepare(plan)).await? {
            Ok(gated) => gated,
            Err(error) => return Ok(Err(Event::PrepareFailed(self.member, failure(&error)))),
        };
        *streams = Some(Streams::new(gated.take_outputs(), notes));
        let _ = self.answers.send(Event::Prepared(self.member));
        if self.ordered(Order::Release).await.is_err() {
            gated.discard().await;
            return Err(GivenUp);
        }
        let held: Held = match unless_given_up(&mut self.orders, gated.execute()).await? {
            Ok(held) => held,
            Err(error) => return Ok(Err(Event::StartFailed(self.member, failure(&error)))),
        };
        let _ = self.answers.send(Event::Held(self.member));
        if self.ordered(Order::Begin).await.is_err() {
            held.discard().await;
            return Err(GivenUp);
        }
        Ok(Ok(held.begin()))
    }

    /// Waits for this order, unless the member is given up.
    async fn ordered(&mut self, wanted: Order) -> Result<(), GivenUp> {
        loop {
            match self.orders.recv().await {
                Some(order) if order == wanted => return Ok(()),
                Some(Order::Discard) | None => return Err(GivenUp),
                Some(Order::Release | Order::Begin | Order::Signal(_)) => {}
            }
        }
    }

    /// Until it ends; `None` if nobody wants to know any more. Its checks stop at the first sign of its end (H-21).
    async fn watch(&mut self, running: &mut Running, mut checking: Option<Checking>) -> Option<Exit> {
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                () = running.ends() => {
                    drop(checking.take());
                    return Some(running.wait().await);
                }
            };
            let order = order?;
            if let Order::Signal(_) = order {
                checking = None;
            }
            match order {
                Order::Signal(MemberSignal::Stop) => running.stop(),
                Order::Signal(MemberSignal::Kill) => running.kill(),
                // Nobody asks this of a member that runs.
                Order::Discard | Order::Release | Order::Begin => {}
            }
        }
    }
}

/// Does the work unless the member is given up meanwhile; dropping the work undoes it.
async fn unless_given_up<T>(
    orders: &mut mpsc::UnboundedReceiver<Order>,
    work: impl Future<Output = T>,
) -> Result<T, GivenUp> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Discard) | None => return Err(GivenUp),
                Some(Order::Release | Order::Begin | Order::Signal(_)) => {}
            },
            done = &mut work => return Ok(done),
        }
    }
}

fn failure(error: &LaunchError) -> Failure {
    Failure {
        message: super::sentence(error),
        invalid: error.invalid(),
    }
}
