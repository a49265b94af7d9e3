//! `podling loopback master`: a cluster for any scheduler.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Ended, Failure, executor::OwnExecutor, failure, signals::Interrupts, slips};
use crate::{
    door::raise_descriptors,
    loopback::{
        agent::CommandLine,
        master::{Access, Cluster, Options},
    },
};

pub(super) const RESOURCES: &str = "cpus:4;mem:8192;disk:10240;ports:[31000-32000]";

/// Serves the v1 scheduler API, offers the resources of its agents, and runs real executors, until Ctrl-C. A second
/// Ctrl-C does not wait for them.
#[derive(Debug, Args)]
pub(super) struct MasterCommand {
    /// Where schedulers connect
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5050")]
    listen: SocketAddr,

    /// How many agents the cluster has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    agents: u16,

    /// What each agent offers
    #[arg(long, value_name = "RESOURCES", default_value = RESOURCES)]
    resources: String,

    /// Command line of executors of type DEFAULT [default: podling-executor beside this program, else this program]
    #[arg(long, value_name = "CMD")]
    executor: Option<String>,

    /// Keep the sandboxes below this directory [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,

    /// Let everybody in: other users, and everybody else who reaches the address
    #[arg(long)]
    insecure: bool,
}

impl MasterCommand {
    pub(super) fn run(self) -> Ended {
        if self.insecure {
            failure::complain("--insecure: whoever reaches the master can run commands as this user");
        } else if !self.listen.ip().is_loopback() {
            return Err(Failure::usage(format!(
                "--listen {}: only this user's schedulers on this machine are let in; --insecure lets in everybody",
                self.listen
            )));
        }
        raise_descriptors();
        slips::complain_of_resources("--resources", &self.resources);
        slips::complain_of_variables();
        let default_executor = match self.executor {
            Some(command) => CommandLine::typed(&command),
            None => CommandLine::Argv(OwnExecutor::find()?.argv()),
        };
        let work_dir = super::up::WorkDir::open(self.work_dir.as_deref())?;
        let cluster = Cluster::start(Options {
            listen: self.listen,
            agents: usize::from(self.agents),
            resources: self.resources,
            default_executor,
            work_dir: work_dir.path().to_owned(),
            executor_environment: Vec::new(),
            access: Access {
                insecure: self.insecure,
                ..Access::default()
            },
        })
        .map_err(|error| match error {
            crate::loopback::master::StartError::Resources(error) => Failure::usage(error),
            error => error.into(),
        })?;
        failure::answer(&format!("master at {}\n", cluster.address()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut interrupts = Interrupts::listen()?;
            interrupts.next().await;
            failure::complain(format_args!(
                "ending {} agent(s); once more to hurry",
                self.agents
            ));
            tokio::select! {
                () = cluster.drain() => {}
                () = interrupts.next() => cluster.destroy_all(),
            }
            drop(cluster);
            Ok(ExitCode::SUCCESS)
        })
    }
}
