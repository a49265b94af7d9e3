//! `podling scheduler`: the scheduler of a real cluster.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::net::TcpListener;

use super::{Ended, Failure, guests::Guests, logging, signals::Interrupts};
use crate::{
    door::{Listener, raise_descriptors},
    mesos::{codec::Encoding, v1},
    pod::{self, Profile, task_group},
    scheduler::{
        api,
        core::Settings,
        master::{Identity, Session},
        service::{Fatal, Service},
        standing::Standing,
        store::Sqlite,
    },
};

const EXAMPLES: &str = "\
Examples:
  podling scheduler --master http://master:5050 --executor /usr/bin/podling-executor
  podling pod --url http://127.0.0.1:8080 list";

/// Takes pods over Marathon's API and has a Mesos master run them. A restarted scheduler finds its pods and their
/// instances again; ending it ends no pod.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
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

    /// Our name in the master's list of frameworks
    #[arg(
        long,
        visible_alias = "framework_name",
        env = "PODLING_FRAMEWORK_NAME",
        value_name = "NAME",
        default_value = "podling"
    )]
    framework_name: String,

    /// Who members are that name no user
    #[arg(
        long,
        alias = "mesos_user",
        env = "PODLING_USER",
        value_name = "NAME",
        default_value = "root"
    )]
    user: String,

    /// The roles in which the master offers us resources; the first is that of pods that name none
    #[arg(
        long = "role",
        alias = "mesos_role",
        env = "PODLING_ROLES",
        value_name = "ROLE",
        value_delimiter = ',',
        default_value = "*",
        value_parser = role
    )]
    roles: Vec<String>,

    /// The name of this machine for others [default: its own; to clients that find us at an address, that address]
    #[arg(long, env = "PODLING_HOSTNAME", value_name = "HOST", value_parser = host)]
    hostname: Option<String>,

    /// Where the master's page links to
    #[arg(long, alias = "webui_url", env = "PODLING_WEBUI_URL", value_name = "URL")]
    webui_url: Option<String>,

    /// Name given to container networks without one
    #[arg(long, env = "PODLING_DEFAULT_NETWORK", value_name = "NAME")]
    default_network: Option<String>,

    #[command(flatten)]
    guests: Guests,
}

fn role(text: &str) -> Result<String, String> {
    match pod::is_role(text) {
        true => Ok(text.to_owned()),
        false => Err("not the name of a role".to_owned()),
    }
}

/// A name or an address, without a port.
fn host(text: &str) -> Result<String, String> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match is_address || (!text.is_empty() && text.chars().all(letter)) {
        true => Ok(text.to_owned()),
        false => Err("expected the name or the address of a host, without a port".to_owned()),
    }
}

/// What a master gets to know of us.
#[derive(Debug)]
pub(super) struct Name {
    pub framework: String,
    pub user: String,
    pub roles: Vec<String>,
    pub hostname: Option<String>,
    pub webui_url: Option<String>,
}

impl Default for Name {
    fn default() -> Self {
        Name {
            framework: "podling".to_owned(),
            user: "root".to_owned(),
            roles: vec!["*".to_owned()],
            hostname: None,
            webui_url: None,
        }
    }
}

/// The framework, as masters get to know it.
pub(super) fn framework(name: Name) -> v1::FrameworkInfo {
    use v1::framework_info::{Capability, capability::Type};
    let capability = |kind: Type| Capability {
        r#type: Some(kind as i32),
    };
    let machine = || nix::unistd::gethostname().ok()?.into_string().ok();
    v1::FrameworkInfo {
        user: name.user,
        name: name.framework,
        checkpoint: Some(true),
        // A week: an operator's long weekend does not cost a cluster its pods.
        failover_timeout: Some(604_800.0),
        roles: name.roles,
        hostname: name.hostname.or_else(machine),
        webui_url: name.webui_url,
        capabilities: [Type::MultiRole, Type::PartitionAware, Type::TaskKillingState]
            .map(capability)
            .into(),
        ..Default::default()
    }
}

/// The same, to come back as.
pub(super) fn known_as(framework: v1::FrameworkInfo, id: Option<&str>) -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        id: id.map(|id| v1::FrameworkId { value: id.to_owned() }),
        ..framework
    }
}

/// An executor at that path of every agent.
fn installed(path: String) -> v1::CommandInfo {
    v1::CommandInfo {
        shell: Some(false),
        // The list is its whole argv: without it `ps` has no name to show.
        arguments: vec![path.clone()],
        value: Some(path),
        ..Default::default()
    }
}

/// What every scheduler of ours is started with; only where executors come from differs.
pub(super) fn settings(executor: Option<v1::CommandInfo>) -> Settings {
    let delivery = match executor {
        None => task_group::Delivery::AgentDefault,
        Some(command) => task_group::Delivery::Own(Box::new(command)),
    };
    Settings::new(task_group::Options {
        delivery,
        variable_prefix: String::new(),
        bridge_name: "mesos-bridge".to_owned(),
    })
}

impl SchedulerCommand {
    pub(super) fn run(self) -> Ended {
        logging::start("info")?;
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
        let door = self.guests.receive(self.listen, self.hostname.as_deref())?;
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", self.listen)))?;
        let address = listener.local_addr()?;
        let store = Sqlite::open(&self.store)?;
        let executor = self.executor.map(installed);
        let place = master.clone();
        let [first_role, ..] = self.roles.as_slice() else {
            return Err(Failure::usage("--role: name at least one"));
        };
        let role = first_role.clone();
        let name = Name {
            framework: self.framework_name,
            user: self.user,
            roles: self.roles.clone(),
            hostname: self.hostname.clone(),
            webui_url: self.webui_url,
        };
        let ours = framework(name);
        let known_to_master = ours.clone();
        let connect = move |known: Option<&str>, standing: &Standing| {
            Session::start(Identity {
                master: place,
                framework: known_as(known_to_master, known),
                encoding: Encoding::Protobuf,
                authorization: None,
                standing: standing.clone(),
            })
        };
        let (service, scheduler) = Service::start(settings(executor), Box::new(store), connect)?;
        let profile = Profile {
            role,
            roles: Some(self.roles),
            default_network: self.default_network,
            most_instances: self.max_instances,
            ..Profile::default()
        };
        let context = api::Context {
            scheduler,
            profile: Arc::new(profile),
            address: api::Address::new(address, self.hostname.as_deref()),
            framework: Arc::new(ours),
            master: format!("http://{master}"),
        };
        let (scheme, listener) = match door.tls {
            Some(tls) => ("https", Listener::Tls(listener, tls)),
            None => ("http", Listener::Tcp(listener)),
        };
        eprintln!("podling: pods API at {scheme}://{address}, master at http://{master}");
        tokio::select! {
            () = interrupts.next() => Ok(ExitCode::SUCCESS),
            ended = service.run() => match ended {
                // A service manager that starts it again would only turn the tables.
                Err(Fatal::Replaced(replaced)) => Err(Failure::usage(replaced)),
                Err(fatal) => Err(fatal.into()),
                Ok(()) => Err(Failure::failed("the scheduler ended by itself")),
            },
            never = api::serve(listener, context, door.keeper) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_of_ours_has_a_name_in_its_argv() {
        let settings = settings(Some(installed("/usr/bin/podling-executor".to_owned())));
        let task_group::Delivery::Own(command) = settings.launch.delivery else {
            panic!("{:?}", settings.launch.delivery);
        };
        assert_eq!(command.value(), "/usr/bin/podling-executor");
        assert_eq!(command.arguments, ["/usr/bin/podling-executor"]);
    }

    #[test]
    fn the_master_is_shown_what_the_operator_says() {
        let name = Name {
            framework: "pods".to_owned(),
            user: "nobody".to_owned(),
            roles: vec!["dev".to_owned(), "ops".to_owned()],
            hostname: Some("s.example".to_owned()),
            webui_url: Some("http://s.example/".to_owned()),
        };
        let shown = framework(name);
        assert_eq!((shown.name.as_str(), shown.user.as_str()), ("pods", "nobody"));
        assert_eq!(shown.roles, ["dev", "ops"]);
        assert_eq!(
            (shown.hostname(), shown.webui_url()),
            ("s.example", "http://s.example/")
        );
        assert!(
            !framework(Name::default()).hostname().is_empty(),
            "the machine's own"
        );
        for bad in ["", "a b", "a/b", "-a"] {
            assert!(role(bad).is_err(), "{bad}");
        }
        for (text, good) in [
            ("a.b", true),
            ("fd00::1", true),
            ("a:80", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(host(text).is_ok(), good, "{text}");
        }
    }
}
