//! `podling up`: everything on one machine, with one command.
//!
//! Loopback master and agents, the scheduler with its store and API, and real executors; every hop is real HTTP.

mod listen;
mod logs;
mod node;
mod printer;
mod published;
mod repeats;
mod show;
mod state;
mod waiting;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio::{
    net::TcpListener,
    sync::broadcast::{Receiver, error::RecvError},
};

use self::show::Show;
pub(super) use self::state::{WorkDir, sweep};
use super::{
    Ended, Failure, definition,
    executor::OwnExecutor,
    failure,
    guests::names,
    logging,
    master::RESOURCES,
    scheduler::{Name, framework, known_as, settings},
    signals::Interrupts,
    slips,
};
use crate::{
    door::{Guard, Keeper, Listener, Peers, Token, raise_descriptors},
    image::Reference,
    loopback::{
        agent::CommandLine,
        master::{Access, Cluster, Options},
    },
    mesos::codec::Encoding,
    pod::{self, Pod, Profile},
    scheduler::{
        api,
        core::{Command, Condition, Notice},
        master::{Identity, Session},
        service::{Handle, Service},
        standing::Standing,
        store::Sqlite,
    },
};

/// Runs pods on this machine until Ctrl-C, which ends them and leaves nothing behind; a second Ctrl-C does not wait.
///
/// A pod is a service: when its members end, by themselves or not, it is started again. With --once it is a job.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Up {
    /// Pod definitions, JSON or YAML
    #[arg(value_name = "POD.json|.yaml")]
    files: Vec<PathBuf>,

    /// Where the pods API listens [default: 127.0.0.1:8080, or another port if that one is taken]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,

    /// How many agents the cluster has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    agents: u16,

    /// How many instances a pod may ask for at the most
    #[arg(
        long,
        env = "PODLING_MAX_INSTANCES",
        value_name = "N",
        default_value_t = pod::MOST_INSTANCES,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    max_instances: u32,

    /// Keep pods and sandboxes here for the next time [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Show what members write even when standard output is not a terminal
    #[arg(long)]
    follow: bool,

    /// End when every instance has ended: with 0 if all of them finished, else with 1
    #[arg(long)]
    once: bool,

    /// A name or address by which clients reach us, beside our own; may be given more than once
    #[arg(long, env = "PODLING_HOSTNAME", value_name = "NAME", value_delimiter = ',')]
    hostname: Vec<String>,

    /// Let everybody use the API: other users, members, web pages, and everybody else who reaches it
    #[arg(long)]
    insecure: bool,
}

const EXAMPLES: &str = "\
Examples:
  podling up examples/hello.json            run a pod and show what its members write
  podling up --once examples/hello.json     the same as a job: ends with the pod, 0 if all went well
  podling up --state ./state web.yaml       keep pods and sandboxes for the next time
  podling pod list                          in another terminal: what runs";

impl Up {
    pub(super) fn run(self) -> Ended {
        // What its screen tells anyway is not for standard error, too.
        logging::start("warn,podling::scheduler::journal=off")?;
        let root = nix::unistd::geteuid().is_root();
        let mut profile = Profile::default();
        profile.support.ordinary_user = !root;
        profile.most_instances = self.max_instances;
        profile.roles = Some(Name::default().roles);
        // Nothing is started before everything is known to be right.
        let mut pods: Vec<Pod> = self
            .files
            .iter()
            .map(|file| definition::pods(file, &profile, definition::Unknown::Warn))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        let here = std::env::current_dir()?;
        for container in pods.iter_mut().flat_map(|pod| &mut pod.containers) {
            if let Some(image) = &mut container.image
                && let Ok(reference) = image.id.parse::<Reference>()
                && !matches!(reference, Reference::Registry(_))
            {
                // Executors are somewhere else.
                image.id = reference.absolute(&here).to_string();
            }
        }
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
        slips::complain_of_variables();
        let executor = OwnExecutor::find()?;
        raise_descriptors();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.bring_up(profile, pods, executor))
    }

    async fn bring_up(self, profile: Profile, pods: Vec<Pod>, executor: OwnExecutor) -> Ended {
        let mut interrupts = Interrupts::listen()?;
        let listener = listen::listen(self.listen).await?;
        let root = !profile.support.ordinary_user;
        let (_, stays) = sweep(&std::env::temp_dir());
        for (path, error) in stays {
            failure::complain(format_args!("{} stays: {error}", path.display()));
        }
        let state = WorkDir::open(self.state.as_deref())?;
        let ours = std::env::vars_os();
        let ours =
            ours.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let node = node::Settings::read(ours, root, state.path())?;
        let work_dir = state.sandboxes()?;
        // Of the master: known to nobody but us.
        let access = Access {
            token: Some(Token::random()),
            ..Access::default()
        };
        let keeper = self.keeper(&state, &access)?;
        let cluster = Cluster::start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agents: usize::from(self.agents),
            resources: RESOURCES.to_owned(),
            default_executor: CommandLine::Argv(executor.argv()),
            work_dir: work_dir.clone(),
            executor_environment: node.variables.clone(),
            access: access.clone(),
        })?;

        let address = listener.local_addr()?;
        let socket = socket(state.path());
        let mut show = Show::new(self.follow || self.once, self.once, &work_dir)?;
        show.began(address, self.agents, &pods, root);
        if !self.once {
            show.hints(address, pods.is_empty());
        }
        let (outcome, asked) = tokio::select! {
            ended = self.live(profile, pods, executor, (listener, socket, keeper), &access, &state, &cluster, &mut show) => (ended, false),
            () = interrupts.next() => (Ok(self.broken_off()), true),
            () = printer::reader_gone() => (Ok(self.broken_off()), true),
        };
        // With what has just been dropped the scheduler is gone: what ends from now on is not started again.
        show.ending(asked);
        tokio::select! {
            () = drain(&cluster, &mut show) => {}
            () = interrupts.next() => cluster.destroy_all(),
        }
        drop(cluster);
        for complaint in node.tidy().await {
            failure::complain(complaint);
        }
        tokio::select! {
            () = show.finish() => {}
            () = interrupts.next() => {}
        }
        outcome
    }

    /// Who may use the API: whoever can read the token, and the owner.
    fn keeper(&self, state: &WorkDir, access: &Access) -> Result<Keeper, Failure> {
        if self.insecure {
            failure::complain("--insecure: whoever reaches the API can run commands as this user");
            return Ok(Keeper::insecure());
        }
        let token = Token::keep(&state.path().join("token"))?;
        Ok(Keeper::new(Guard {
            names: names(self.hostname.iter().map(String::as_str)),
            token: Some(token),
            peers: Peers::open(access.started.clone()),
            ..Guard::default()
        }))
    }

    /// The exit code if somebody wants an end before there is one.
    fn broken_off(&self) -> ExitCode {
        match self.once {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        }
    }

    /// Runs the scheduler and its API until something ends them; with `--once`, until every instance has ended.
    #[expect(clippy::too_many_arguments, reason = "everything that lives, in one place")]
    async fn live(
        &self,
        profile: Profile,
        pods: Vec<Pod>,
        executor: OwnExecutor,
        (listener, socket, keeper): (TcpListener, Option<Listener>, Keeper),
        access: &Access,
        state: &WorkDir,
        cluster: &Cluster,
        show: &mut Show,
    ) -> Ended {
        let store = Sqlite::open(&state.path().join("state.db"))?;
        let mut settings = settings(Some(executor.command()));
        settings.relaunch = !self.once;
        // The agents of an earlier run never come back.
        settings.agents_return = Duration::ZERO;
        let master = cluster.address().to_string();
        let ours = framework(Name::default());
        let connect = |known: Option<&str>, standing: &Standing| {
            Session::start(Identity {
                master: master.clone(),
                framework: known_as(ours.clone(), known),
                encoding: Encoding::Protobuf,
                authorization: access.token.as_ref().and_then(Token::authorization),
                standing: standing.clone(),
            })
        };
        let (service, scheduler) = Service::start(settings, Box::new(store), connect)?;
        let notices = scheduler.notices();
        let context = api::Context {
            scheduler: scheduler.clone(),
            profile: Arc::new(profile),
            address: api::Address::new(listener.local_addr()?, None),
            framework: Arc::new(ours.clone()),
            master: format!("http://{master}"),
        };
        // Tasks of their own, and gone with this function however it ends.
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { service.run().await.map_err(Failure::from) });
        for listener in [Some(Listener::Tcp(listener)), socket].into_iter().flatten() {
            let (context, keeper) = (context.clone(), keeper.clone());
            tasks.spawn(async move { match api::serve(listener, context, keeper).await {} });
        }
        let show_all = async {
            deploy(&scheduler, pods).await?;
            self.watch(&scheduler, notices, show).await
        };
        tokio::select! {
            ended = show_all => ended,
            stopped = tasks.join_next() => Err(match stopped {
                Some(Ok(Err(failure))) => failure,
                _ => Failure::failed("the scheduler ended by itself"),
            }),
        }
    }

    /// Shows what happens. Ends only with `--once`, when every instance has.
    async fn watch(&self, scheduler: &Handle, mut notices: Receiver<Notice>, show: &mut Show) -> Ended {
        let mut waiting = waiting::Waiting::default();
        loop {
            let more = show.until_output();
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = waiting.next_look() => {
                    for (pod, why) in waiting.look(scheduler).await? {
                        show.unfit(&pod, &why);
                    }
                    continue;
                }
                () = more => {
                    show.output();
                    // The API and the scheduler live on this thread too.
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let may_be_the_end = match &notice {
                Ok(Notice::StatusUpdate { status, .. }) => Condition::of(status.state()).is_terminal(),
                // Of a pod that has no instances there will be no update.
                Ok(Notice::DeploymentSuccess { .. }) | Err(RecvError::Lagged(_)) => true,
                _ => false,
            };
            match notice {
                Ok(notice) => {
                    let back_off = waiting.back_off(scheduler, &notice).await?;
                    show.notice(&notice, back_off.as_deref()).await;
                    if let Some((pod, instance, endpoints)) = published::by(scheduler, &notice).await? {
                        show.endpoints(&pod, &instance, endpoints);
                    }
                }
                Err(RecvError::Lagged(count)) => show.lagged(count),
                Err(RecvError::Closed) => return Err(Failure::failed("the scheduler ended by itself")),
            }
            if self.once
                && may_be_the_end
                && let Some(good) = verdict(scheduler).await?
            {
                // Several updates may have come at once; all that led here has been told by now.
                while let Ok(notice) = notices.try_recv() {
                    show.notice(&notice, None).await;
                }
                return Ok(match good {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::FAILURE,
                });
            }
        }
    }
}

/// Sends all executors home and waits until the last has gone, showing what members have to say to it.
async fn drain(cluster: &Cluster, show: &mut Show) {
    let mut empty = std::pin::pin!(cluster.drain());
    loop {
        let more = show.until_output();
        tokio::select! {
            () = &mut empty => return,
            () = more => {
                show.output();
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The API for programs that would rather not use a port. Pods run without it.
fn socket(state: &Path) -> Option<Listener> {
    let path = state.join("api.sock");
    Listener::unix(&path)
        .inspect_err(|error| failure::complain(format_args!("cannot listen on {}: {error}", path.display())))
        .ok()
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
