//! `podling scheduler`: the scheduler of a real cluster.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::net::TcpListener;

use super::{Ended, Failure, signals::Interrupts};
use crate::{
    door::{Keeper, Names, Peers, Started, raise_descriptors},
    mesos::{codec::Encoding, v1},
    pod::{self, Profile, task_group},
    scheduler::{
        api,
        core::Settings,
        master::{Identity, Session},
        service::Service,
        store::Sqlite,
    },
};

/// Takes pods over Marathon's API and has a Mesos master run them. A restarted scheduler finds its pods and their
/// instances again; ending it ends no pod.
#[derive(Debug, Args)]
pub(super) struct SchedulerCommand {
    /// A master; it names the leading one if it is not
    #[arg(long, env = "PODLING_MASTER", value_name = "http://HOST:PORT")]
    master: String,

    /// Where the pods API listens
    #[arg(
        long,
        env = "PODLING_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,

    /// The file that holds all state
    #[arg(
        long,
        env = "PODLING_STORE",
        value_name = "PATH",
        default_value = "/var/lib/podling/scheduler.db"
    )]
    store: PathBuf,

    /// Where agents have podling-executor [default: whatever they have as their default executor]
    #[arg(long, env = "PODLING_EXECUTOR", value_name = "PATH")]
    executor: Option<String>,

    /// How many instances a pod may ask for at the most
    #[arg(
        long,
        env = "PODLING_MAX_INSTANCES",
        value_name = "N",
        default_value_t = pod::MOST_INSTANCES,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    max_instances: u32,

    /// Name given to container networks without one
    #[arg(long, env = "PODLING_DEFAULT_NETWORK", value_name = "NAME")]
    default_network: Option<String>,
}

/// The framework, as masters get to know it.
pub(super) fn framework(id: Option<&str>) -> v1::FrameworkInfo {
    use v1::framework_info::{Capability, capability::Type};
    let capability = |kind: Type| Capability {
        r#type: Some(kind as i32),
    };
    v1::FrameworkInfo {
        user: "root".to_owned(),
        name: "podling".to_owned(),
        id: id.map(|id| v1::FrameworkId { value: id.to_owned() }),
        checkpoint: Some(true),
        // A week: an operator's long weekend does not cost a cluster its pods.
        failover_timeout: Some(604_800.0),
        roles: vec!["*".to_owned()],
        capabilities: [Type::MultiRole, Type::PartitionAware, Type::TaskKillingState]
            .map(capability)
            .into(),
        ..Default::default()
    }
}

/// What every scheduler of ours is started with; only where executors come from differs.
pub(super) fn settings(executor: Option<String>) -> Settings {
    let delivery = match executor {
        None => task_group::Delivery::AgentDefault,
        Some(path) => {
            let command = v1::CommandInfo {
                shell: Some(false),
                value: Some(path),
                ..Default::default()
            };
            task_group::Delivery::Own(Box::new(command))
        }
    };
    Settings::new(task_group::Options {
        delivery,
        variable_prefix: String::new(),
        bridge_name: "mesos-bridge".to_owned(),
    })
}

impl SchedulerCommand {
    pub(super) fn run(self) -> Ended {
        let place = self
            .master
            .strip_prefix("http://")
            .unwrap_or(&self.master)
            .trim_end_matches('/');
        if self.master.starts_with("zk://") || self.master.starts_with("https://") {
            let kind = self.master.split("://").next().unwrap_or_default();
            return Err(Failure::usage(format!(
                "--master: {kind}:// is not supported yet; name a master as http://HOST:PORT"
            )));
        }
        let port = place
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if port.is_none_or(|(host, _)| host.is_empty() || host.contains(['/', '@'])) {
            return Err(Failure::usage(format!(
                "--master {}: expected http://HOST:PORT",
                self.master
            )));
        }
        let master = place.to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.serve(master))
    }

    async fn serve(self, master: String) -> Ended {
        let mut interrupts = Interrupts::listen()?;
        raise_descriptors();
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", self.listen)))?;
        let address = listener.local_addr()?.to_string();
        let store = Sqlite::open(&self.store)?;
        let place = master.clone();
        let connect = move |known: Option<&str>| {
            Session::start(Identity {
                master: place,
                framework: framework(known),
                encoding: Encoding::Protobuf,
                authorization: None,
            })
        };
        let (service, scheduler) = Service::start(settings(self.executor), Box::new(store), connect)?;
        let profile = Profile {
            default_network: self.default_network,
            most_instances: self.max_instances,
            ..Profile::default()
        };
        let keeper = Keeper::new(Names::default(), None, Peers::open(Started::default()));
        let context = api::Context {
            scheduler,
            profile: Arc::new(profile),
            address: address.clone(),
            master: format!("http://{master}"),
        };
        eprintln!("podling: pods API at http://{address}, master at http://{master}");
        tokio::select! {
            () = interrupts.next() => Ok(ExitCode::SUCCESS),
            ended = service.run() => match ended {
                Err(fatal) => Err(fatal.into()),
                Ok(()) => Err(Failure::failed("the scheduler ended by itself")),
            },
            never = api::serve(listener, context, keeper) => match never {},
        }
    }
}
