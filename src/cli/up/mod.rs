//! `podling up`: everything on one machine, with one command.
//!
//! Loopback master and agents, the scheduler with its store and API, and real executors; every hop is real HTTP.

mod logs;
mod show;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use tokio::{net::TcpListener, sync::broadcast::error::RecvError};

use self::show::Show;
use super::{
    Ended, Failure, definition,
    loopback::own_executor,
    master::RESOURCES,
    scheduler::{framework, settings},
    signals::Interrupts,
};
use crate::{
    executor,
    loopback::master::{Cluster, Options},
    mesos::codec::Encoding,
    pod::{Pod, Profile},
    scheduler::{
        api,
        core::{Command, Condition, Notice},
        master::{Identity, Session},
        service::{Handle, Service},
        store::Sqlite,
    },
};

/// Runs pods on this machine until Ctrl-C, which ends them and leaves nothing behind; a second Ctrl-C does not wait.
#[derive(Debug, Args)]
pub(super) struct Up {
    /// Pod definitions, JSON or YAML
    #[arg(value_name = "POD.json|.yaml")]
    files: Vec<PathBuf>,

    /// Where the pods API listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    agents: u16,

    /// Keep pods and sandboxes here for the next time [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Show what members write even when standard output is not a terminal
    #[arg(long)]
    follow: bool,

    /// End when every instance has ended: with 0 if all of them finished, else with 1
    #[arg(long)]
    once: bool,
}

/// A directory that goes with us, unless somebody named it.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    temporary: bool,
}

impl WorkDir {
    pub fn open(named: Option<&Path>) -> Result<Self, Failure> {
        let (path, temporary) = match named {
            Some(path) => (path.to_owned(), false),
            None => {
                let unique = uuid::Uuid::new_v4().simple().to_string();
                (
                    std::env::temp_dir().join(format!("podling-{}", unique.get(..12).unwrap_or(&unique))),
                    true,
                )
            }
        };
        std::fs::create_dir_all(&path)
            .and_then(|()| path.canonicalize())
            .map(|path| WorkDir { path, temporary })
            .map_err(|error| Failure::failed(format!("cannot use {}: {error}", path.display())))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("podling: {} stays: {error}", self.path.display());
        }
    }
}

/// The networks that pods can name here: bridges of this machine under the names that clusters have for theirs.
const NETWORKS: &str = "{ default_network = \"mesos-bridge\", networks = { \
     mesos-bridge = { subnets = [\"10.167.0.0/16\"], bridge = \"podling0\" }, \
     dcos = { subnets = [\"10.168.0.0/16\"], bridge = \"podling1\" } } }";

/// Settings of executors that whoever starts us has in the environment are theirs too.
fn executor_environment(ours: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut settings = vec![("PODLING_NETWORK".to_owned(), NETWORKS.to_owned())];
    for (name, value) in ours {
        if name == executor::config::FILE_VARIABLE
            || executor::config::KEYS.iter().any(|key| key.variable() == name)
        {
            settings.retain(|(known, _)| *known != name);
            settings.push((name, value));
        }
    }
    settings
}

impl Up {
    pub(super) fn run(self) -> Ended {
        let profile = Profile::default();
        // Nothing is started before everything is known to be right.
        let pods: Vec<Pod> = self
            .files
            .iter()
            .map(|file| definition::pod_with_warnings(file, &profile))
            .collect::<Result<_, _>>()?;
        if self.once && pods.is_empty() {
            return Err(Failure::usage(
                "--once needs a pod definition: without one there is nothing to end",
            ));
        }
        for (index, pod) in pods.iter().enumerate() {
            if pods.iter().take(index).any(|earlier| earlier.id == pod.id) {
                return Err(Failure::usage(format!("pod {} is defined twice", pod.id)));
            }
        }
        let executor = own_executor()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.bring_up(profile, pods, executor))
    }

    async fn bring_up(self, profile: Profile, pods: Vec<Pod>, executor: String) -> Ended {
        let mut interrupts = Interrupts::listen()?;
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", self.listen)))?;
        let address = listener.local_addr()?.to_string();
        let state = WorkDir::open(self.state.as_deref())?;
        let work_dir = state.path().join("work");
        std::fs::create_dir_all(&work_dir)?;
        let store = Sqlite::open(&state.path().join("state.db"))?;
        let cluster = Cluster::start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agents: usize::from(self.agents),
            resources: RESOURCES.to_owned(),
            default_executor: executor.clone(),
            work_dir: work_dir.clone(),
            executor_environment: executor_environment(std::env::vars()),
        })?;

        let mut settings = settings(Some(executor));
        settings.relaunch = !self.once;
        let master = cluster.address().to_string();
        let connect = |known: Option<&str>| {
            Session::start(Identity {
                master: master.clone(),
                framework: framework(known),
                encoding: Encoding::Protobuf,
            })
        };
        let (service, scheduler) = Service::start(settings, Box::new(store), connect)?;
        let notices = scheduler.notices();
        let mut service = tokio::spawn(service.run());
        let context = api::Context {
            scheduler: scheduler.clone(),
            profile: Arc::new(profile),
            address: address.clone(),
            master: format!("http://{master}"),
        };
        let api = tokio::spawn(axum::serve(listener, api::router(context)).into_future());

        let mut show = Show::new(self.follow || self.once);
        show.began(&address, self.agents, &work_dir);
        let deployed = deploy(&scheduler, pods).await;
        let outcome = match deployed {
            Err(failure) => Err(failure),
            Ok(()) => tokio::select! {
                () = interrupts.next() => Ok(ExitCode::SUCCESS),
                ended = watch(&scheduler, notices, &mut show, &work_dir, self.once) => ended,
                stopped = &mut service => Err(match stopped {
                    Ok(Err(fatal)) => fatal.into(),
                    _ => Failure::failed("the scheduler ended by itself"),
                }),
            },
        };
        // The scheduler goes first: what ends from now on must not be started again.
        api.abort();
        service.abort();
        drop(scheduler);
        show.ending();
        tokio::select! {
            () = cluster.drain() => {}
            () = interrupts.next() => cluster.destroy_all(),
        }
        drop(cluster);
        show.finish(&work_dir);
        outcome
    }
}

/// Hands the definitions to the scheduler; those it knows from last time are updated.
async fn deploy(scheduler: &Handle, pods: Vec<Pod>) -> Result<(), Failure> {
    for pod in pods {
        let id = pod.id.clone();
        scheduler
            .command(Command::Update { pod, force: true })
            .await?
            .map_err(|refusal| Failure::failed(format!("pod {id}: {refusal}")))?;
    }
    Ok(())
}

/// Shows what happens. Ends only with `once`, when every instance has.
async fn watch(
    scheduler: &Handle,
    mut notices: tokio::sync::broadcast::Receiver<Notice>,
    show: &mut Show,
    work_dir: &Path,
    once: bool,
) -> Ended {
    loop {
        let more = show.until_output();
        let notice = tokio::select! {
            notice = notices.recv() => notice,
            () = more => {
                show.output();
                continue;
            }
        };
        match notice {
            Ok(notice) => {
                show.notice(&notice, work_dir);
                if once
                    && matches!(&notice, Notice::StatusUpdate { status, .. } if Condition::of(status.state()).is_terminal())
                    && let Some(good) = verdict(scheduler).await?
                {
                    return Ok(if good {
                        ExitCode::SUCCESS
                    } else {
                        ExitCode::FAILURE
                    });
                }
            }
            Err(RecvError::Lagged(count)) => show.lagged(count),
            Err(RecvError::Closed) => return Err(Failure::failed("the scheduler ended by itself")),
        }
    }
}

/// None while something runs or waits; then whether all instances finished.
async fn verdict(scheduler: &Handle) -> Result<Option<bool>, Failure> {
    let conditions = scheduler
        .ask(|core, _| {
            let instances = core.all_instances();
            instances
                .map(|instance| (instance.is_over(), instance.condition))
                .collect::<Vec<_>>()
        })
        .await?;
    if conditions.iter().any(|(over, _)| !over) {
        return Ok(None);
    }
    Ok(Some(
        conditions
            .iter()
            .all(|(_, condition)| *condition == Condition::Finished),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executors_know_the_networks_and_what_our_environment_says() {
        let network = executor::config::KEYS.iter().find(|key| key.name == "network");
        let variable = network.map(executor::config::Key::variable).unwrap();
        let plain = executor_environment(std::iter::empty());
        assert_eq!(plain, [(variable.clone(), NETWORKS.to_owned())]);
        let variables: Vec<_> = plain
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let effective = executor::config::Effective::load(&variables).unwrap();
        assert_eq!(
            effective
                .config
                .network
                .config
                .networks
                .keys()
                .collect::<Vec<_>>(),
            ["dcos", "mesos-bridge"]
        );
        let ours = [
            ("PODLING_NETWORK", "{}"),
            ("PODLING_LOG", "debug"),
            ("PODLING_URL", "x"),
            ("HOME", "/"),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let given = executor_environment(ours.into_iter());
        assert_eq!(
            given,
            [
                ("PODLING_NETWORK".to_owned(), "{}".to_owned()),
                ("PODLING_LOG".to_owned(), "debug".to_owned())
            ]
        );
    }
}
