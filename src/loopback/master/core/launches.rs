//! What is used of offers, and what is wrong with that.

use super::{
    super::amounts::Amounts,
    Core, Down, Out, demands,
    frameworks::Executor,
    tasks::{Made, Task},
};
use crate::{
    group::validate,
    mesos::v1::{
        self, TaskState,
        framework_info::capability,
        offer::operation::{Launch, LaunchGroup},
        scheduler::call,
        task_status::Reason,
    },
};

/// Why a launch comes to nothing, and what its tasks end as.
type Rejected = (TaskState, Reason, String);

fn rejected(reason: Reason) -> impl Fn(String) -> Rejected {
    move |message| (TaskState::TaskError, reason, message)
}

/// What is left of the offers of one ACCEPT.
struct Pool {
    agent: usize,
    left: Amounts,
}

impl Core {
    pub(super) fn accept(&mut self, id: &str, accept: &call::Accept, out: &mut Out) {
        let valid = self.joint(id, &accept.offer_ids);
        let mut pool: Option<Pool> = None;
        for offer in &accept.offer_ids {
            let Some(offer) = self.claim(id, &offer.value) else {
                continue;
            };
            let Ok(()) = valid else {
                self.release(offer.agent, &offer.amounts);
                continue;
            };
            let pool = pool.get_or_insert_with(|| Pool {
                agent: offer.agent,
                left: Amounts::default(),
            });
            pool.left.add(&offer.amounts);
        }
        let mut pool = match (valid, pool) {
            (Ok(()), Some(pool)) => pool,
            (Ok(()), None) => return self.invalid_offers(id, accept, "No offers specified", out),
            (Err(problem), _) => return self.invalid_offers(id, accept, &problem, out),
        };
        for operation in &accept.operations {
            match (&operation.launch_group, &operation.launch) {
                (Some(group), _) => self.launch_group(id, &mut pool, group, out),
                (None, Some(launch)) => self.launch(id, &mut pool, launch, out),
                // Reservations and volumes are not what this cluster is for.
                (None, None) => {}
            }
        }
        self.give_back(id, pool.agent, pool.left, accept.filters.as_ref());
    }

    /// Whether these offers are all of this framework and one agent, each named once.
    fn joint(&self, id: &str, offers: &[v1::OfferId]) -> Result<(), String> {
        let mut agent = None;
        for (index, offer_id) in offers.iter().enumerate() {
            let offer = self
                .offers
                .get(&offer_id.value)
                .filter(|offer| offer.framework == id);
            let offer = offer.ok_or_else(|| format!("Offer {} is no longer valid", offer_id.value))?;
            if *agent.get_or_insert(offer.agent) != offer.agent {
                return Err("Aggregated offers must belong to one single agent".to_owned());
            }
            if offers.iter().take(index).any(|earlier| earlier == offer_id) {
                return Err(format!("Duplicate offer {} in offer list", offer_id.value));
            }
        }
        Ok(())
    }

    fn invalid_offers(&mut self, id: &str, accept: &call::Accept, problem: &str, out: &mut Out) {
        let state = self.dropped(id);
        let message = format!("Task launched with invalid offers: {problem}");
        for operation in &accept.operations {
            let groups = operation
                .launch_group
                .iter()
                .flat_map(|group| &group.task_group.tasks);
            let singles = operation.launch.iter().flat_map(|launch| &launch.task_infos);
            for task in groups.chain(singles) {
                let reason = Reason::InvalidOffers;
                self.tell(
                    id,
                    &task.task_id.value,
                    Made {
                        state,
                        reason,
                        message: &message,
                        agent: self.agent(&task.agent_id),
                    },
                    out,
                );
            }
        }
    }

    /// DROPPED, or its name for frameworks that do not know it.
    pub(super) fn dropped(&self, id: &str) -> TaskState {
        let aware = |framework: &super::Framework| framework.is_capable_of(capability::Type::PartitionAware);
        match self.frameworks.get(id).is_some_and(aware) {
            true => TaskState::TaskDropped,
            false => TaskState::TaskLost,
        }
    }

    /// All tasks or none.
    fn launch_group(&mut self, id: &str, pool: &mut Pool, group: &LaunchGroup, out: &mut Out) {
        let tasks = &group.task_group.tasks;
        let launched = self.start(id, pool, group.executor.clone(), tasks, false, out);
        self.reject(id, pool.agent, tasks, launched, out);
    }

    /// Each task by itself: one that is wrong does not keep the next from running.
    fn launch(&mut self, id: &str, pool: &mut Pool, launch: &Launch, out: &mut Out) {
        for task in &launch.task_infos {
            let tasks = std::slice::from_ref(task);
            let launched = demands::executor_of(task)
                .map_err(rejected(Reason::TaskInvalid))
                .and_then(|executor| self.start(id, pool, executor, tasks, true, out));
            self.reject(id, pool.agent, tasks, launched, out);
        }
    }

    fn reject(
        &self,
        id: &str,
        agent: usize,
        tasks: &[v1::TaskInfo],
        launched: Result<(), Rejected>,
        out: &mut Out,
    ) {
        let Err((state, reason, message)) = launched else {
            return;
        };
        for task in tasks {
            let made = Made {
                state,
                reason,
                message: &message,
                agent: Some(agent),
            };
            self.tell(id, &task.task_id.value, made, out);
        }
    }

    fn start(
        &mut self,
        id: &str,
        pool: &mut Pool,
        mut executor: v1::ExecutorInfo,
        tasks: &[v1::TaskInfo],
        singly: bool,
        out: &mut Out,
    ) -> Result<(), Rejected> {
        let invalid = match singly {
            true => rejected(Reason::TaskInvalid),
            false => rejected(Reason::TaskGroupInvalid),
        };
        let invalid = |message: String| invalid(message);
        let agent = pool.agent;
        let own_id = v1::FrameworkId { value: id.to_owned() };
        if executor
            .framework_id
            .as_ref()
            .is_some_and(|given| *given != own_id)
        {
            return Err(invalid("ExecutorInfo has an invalid framework id".to_owned()));
        }
        executor.framework_id = Some(own_id);
        let (host, framework) = match (self.agents.get(agent), self.frameworks.get_mut(id)) {
            (Some(host), Some(framework)) => (host, framework),
            _ => return Err(invalid("The agent or the framework has gone".to_owned())),
        };
        let mut faults: Vec<String> = demands::faults(tasks, &executor, &host.id, singly);
        faults.extend(
            validate::group(tasks, &executor)
                .iter()
                .chain(&validate::disagreements(tasks))
                .map(ToString::to_string),
        );
        if !faults.is_empty() {
            return Err(invalid(faults.join("; ")));
        }
        let known = |task: &&v1::TaskInfo| framework.tasks.contains_key(&task.task_id.value);
        if let Some(twice) = tasks.iter().find(known) {
            return Err(invalid(format!("Task has duplicate ID: {}", twice.task_id.value)));
        }
        let key = (agent, executor.executor_id.value.clone());
        let running = framework.executors.get(&key);
        if running.is_some_and(|running| running.info != executor) {
            return Err(invalid(format!(
                "ExecutorInfo is not compatible with the existing executor {} on this agent",
                key.1
            )));
        }
        let own = Amounts::of(&executor.resources);
        let mut needed = match running {
            Some(_) => Amounts::default(),
            None => own.clone(),
        };
        let pieces: Vec<Amounts> = tasks.iter().map(|task| Amounts::of(&task.resources)).collect();
        pieces.iter().for_each(|piece| needed.add(piece));
        if !pool.left.hold(&needed) {
            return Err(invalid(format!(
                "Total resources {needed} required by the tasks and their executor are more than available {}",
                pool.left
            )));
        }
        pool.left.take(&needed);
        framework
            .executors
            .entry(key.clone())
            .or_insert_with(|| Executor {
                info: executor.clone(),
                resources: own,
            });
        for (task, resources) in tasks.iter().zip(pieces) {
            let started = Task::new(agent, key.1.clone(), resources);
            framework.tasks.insert(task.task_id.value.clone(), started);
        }
        out.down.push(Down::Launch {
            agent,
            framework: Box::new(framework.info.clone()),
            executor: Box::new(executor),
            tasks: tasks.to_vec(),
            singly,
        });
        Ok(())
    }
}
