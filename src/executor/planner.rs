//! Everything that is decided and made for a member before its preparation begins.

use std::{collections::HashMap, net::IpAddr, path::PathBuf, sync::Arc};

use super::{
    cgroups::{Cgroups, Place},
    config::Config,
    provision::{self, Draft, Learned, Provided, Provisioner},
    sandbox::Sandbox,
    sentence,
};
use crate::{
    container::{IdRange, MappedUsers, Runtime, Setup, plan},
    group::{Effect, Failure, GroupId, MemberId},
    mesos::v1,
};

#[derive(Debug)]
pub struct Planner {
    /// A host that cannot run members says so in the status of each.
    runtime: Result<Arc<Runtime>, String>,
    cgroups: Cgroups,
    defaults: Arc<plan::Defaults>,
    /// Users of members' own, if the operator wants that; made with the first member.
    range: Option<IdRange>,
    users: Option<Arc<MappedUsers>>,
    provisioner: Provisioner,
    ip: Option<IpAddr>,
    /// The agent has put us into a network (N-01).
    network_of_agent: bool,
    sandbox: Sandbox,
    /// Task and container of the members that are there.
    members: HashMap<MemberId, (String, String)>,
}

impl Planner {
    /// `name`: the executor's container id, for what is ours on this node.
    pub fn open(name: &str, config: &Config, sandbox: Sandbox, ip: Option<IpAddr>) -> Self {
        let setup = Setup {
            name: name.to_owned(),
            sandbox: sandbox.path().to_owned(),
        };
        let private = sandbox.private().map_err(|error| sentence(&error));
        let profiles = config.members.seccomp_profiles.clone();
        let runtime = Runtime::open(setup).map(|runtime| Arc::new(runtime.with_seccomp_profiles(profiles)));
        let runtime = runtime.map_err(|error| {
            let text = sentence(&error);
            tracing::error!("this host cannot run members: {text}");
            text
        });
        Planner {
            runtime,
            cgroups: Cgroups::open(name, &config.cgroups, &config.run_dir),
            defaults: Arc::new(config.members.defaults.clone()),
            range: config.members.users,
            users: None,
            provisioner: Provisioner::new(config, name, private),
            ip,
            network_of_agent: is_apart(),
            sandbox,
            members: HashMap::new(),
        }
    }

    /// Looks at what is about to be done: members that are prepared together get room together. If there is none,
    /// that is what becomes of each of them.
    pub fn look_ahead(&mut self, effects: &[Effect]) -> Result<(), Failure> {
        let arriving = effects.iter().filter_map(|effect| match effect {
            Effect::Prepare { member, task, .. } => Some((*member, task.as_ref())),
            _ => None,
        });
        self.cgroups
            .expect(arriving)
            .map_err(|error| failed(sentence(&error)))
    }

    /// Reads what this executor is to have for a network; see [`Provisioner::learn`].
    pub async fn learn(
        &mut self,
        executor: &v1::ExecutorInfo,
        network: Option<&serde_json::Value>,
    ) -> Learned {
        let learned = self.provisioner.learn(executor, network, self.ip).await;
        if let Learned::Shared { address, .. } = &learned {
            self.ip = *address;
        }
        learned
    }

    /// What members are not held to on this node, in a sentence; `None`: to all that they ask for.
    pub fn lesser(&self) -> Option<String> {
        self.cgroups.lesser()
    }

    /// What is known at once about a member, and the work that makes its plan of it.
    pub fn plan(
        &mut self,
        member: MemberId,
        group: GroupId,
        container: &str,
        task: &Arc<v1::TaskInfo>,
    ) -> Result<
        (
            Arc<Runtime>,
            impl Future<Output = Result<Provided, Failure>> + 'static,
        ),
        Failure,
    > {
        let of_member = |text: String| format!("member `{}`: {text}", task.name.escape_debug());
        let runtime = self.runtime.clone().map_err(failed)?;
        let users = self.users(&runtime).map_err(of_member).map_err(failed)?;
        let sandbox: PathBuf = self
            .sandbox
            .member(container)
            .map_err(|error| failed(sentence(&error)))?;
        let place = self.cgroups.member(member, container);
        let Place {
            cgroup,
            view,
            oom_score_adj,
        } = place.map_err(|error| failed(of_member(sentence(&error))))?;
        if provision::has_images(task) {
            let made = self.provisioner.make_writes();
            if let Some(new) = made.map_err(of_member).map_err(failed)? {
                self.cgroups.note_directory(new);
            }
        }
        let context = plan::Context {
            sandbox,
            group: group.0.to_string(),
            network_of_agent: self.network_of_agent,
            container_ip: self.ip.map(|ip| ip.to_string()),
            users,
            cgroup,
            // Without privileges trees are taken by path, which these lose with the host's mounts. Its names and mounts
            // agree as well.
            cgroup_view: view.filter(|_| !runtime.is_rootless()),
            oom_score_adj,
            ..plan::Context::default()
        };
        let draft = Draft {
            task: task.clone(),
            context,
            defaults: self.defaults.clone(),
        };
        self.members
            .insert(member, (task.task_id.value.clone(), container.to_owned()));
        Ok((runtime, self.provisioner.provide(group, container, draft)))
    }

    fn users(&mut self, runtime: &Runtime) -> Result<Option<Arc<MappedUsers>>, String> {
        let Some(range) = self.range else {
            return Ok(None);
        };
        let users = match &self.users {
            Some(users) => Arc::clone(users),
            None => Arc::new(runtime.map_users(range).map_err(|error| sentence(&error))?),
        };
        Ok(Some(Arc::clone(self.users.insert(users))))
    }

    /// E-07, for a member that is about to run. A missing convenience does not stop a pod.
    pub fn link(&self, member: MemberId) {
        if let Some((task, container)) = self.members.get(&member)
            && let Err(error) = self.sandbox.link(task, container)
        {
            tracing::warn!("{}", sentence(&error));
        }
    }

    pub fn forget(&mut self, member: MemberId) {
        self.members.remove(&member);
        self.cgroups.forget(member);
    }

    /// The executor ends in an orderly way, after all its members.
    pub async fn release(self) {
        self.provisioner.finish().await;
        self.cgroups.release();
    }
}

/// Whether our network is another than that of the first process that we see, which is the host's unless the agent hides
/// that from us. What an executor asks for by name says nothing: an agent may not know of networks at all.
fn is_apart() -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net"));
    matches!((network("self"), network("1")), (Ok(own), Ok(first)) if own != first)
}

fn failed(message: String) -> Failure {
    Failure {
        message,
        invalid: false,
    }
}
