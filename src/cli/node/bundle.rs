//! `podling node bundle`: what a task would be as a container, in the words of the OCI runtime specification.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{
    cli::{Ended, Failure, loopback},
    container::{
        plan::{
            self, Context, Plan, Rootfs, UserSpec,
            bundle::{Surroundings, bundle},
        },
        profile_of,
        users::{Accounts, Identity},
    },
    executor::config::Effective,
    mesos::v1::TaskInfo,
};

/// The bundle is a directory with `config.json`, beside the root file system that is in it already, and an empty
/// sandbox. Settings are those of this node's executor.
#[derive(Debug, Args)]
pub(in crate::cli) struct BundleCommand {
    /// TaskGroupInfo in Mesos JSON, as for `podling loopback agent`
    #[arg(value_name = "FILE.json")]
    file: PathBuf,
    /// Which of its tasks, by id [default: the only one]
    #[arg(long)]
    task: Option<String>,
    /// The bundle
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The root file system [default: DIR/rootfs]
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
}

impl BundleCommand {
    pub(super) fn run(self) -> Ended {
        let settings = Effective::load(&std::env::vars_os().collect::<Vec<_>>())
            .map_err(Failure::usage)?
            .config
            .members;
        let task = self.task()?;
        let rootfs = self.rootfs.clone().unwrap_or_else(|| self.output.join("rootfs"));
        let rootfs = rootfs.canonicalize().map_err(|error| {
            let place = rootfs.display();
            Failure::usage(format!(
                "root file system {place}: {error}; unpack the task's image there first"
            ))
        })?;
        let output = self.output.canonicalize()?;
        let sandbox = output.join("sandbox");
        let context = Context {
            sandbox: sandbox.clone(),
            rootfs: Rootfs::Directory {
                path: rootfs.clone(),
                read_only: false,
            },
            ..Context::default()
        };
        let plan = plan::member(&task, None, &context, &settings.defaults)
            .map_err(|error| Failure::usage(format!("task {}: {error}", task.task_id.value)))?;
        let seccomp = profile_of(&plan, &settings.seccomp_profiles)?;
        let identity = identity(&plan, &rootfs)?;
        let around = Surroundings {
            identity: &identity,
            executor_sandbox: &output,
            seccomp: seccomp.as_ref().map(|(profile, env)| (profile, *env)),
        };
        let spec = bundle(&plan, &around)?;
        std::fs::create_dir_all(&sandbox)?;
        std::os::unix::fs::chown(&sandbox, Some(identity.uid), Some(identity.gid))?;
        spec.save(output.join("config.json"))?;
        println!("{}", output.join("config.json").display());
        Ok(ExitCode::SUCCESS)
    }

    fn task(&self) -> Result<TaskInfo, Failure> {
        let mut tasks = loopback::read_task_group(&self.file)?.tasks;
        let file = self.file.display();
        let ids: Vec<_> = tasks.iter().map(|task| task.task_id.value.clone()).collect();
        let at = match &self.task {
            Some(id) => ids.iter().position(|known| known == id),
            None if tasks.len() == 1 => Some(0),
            None => {
                let text = format!(
                    "{file} has {} tasks; name one with --task: {}",
                    tasks.len(),
                    ids.join(", ")
                );
                return Err(Failure::usage(text));
            }
        };
        match (at, &self.task) {
            (Some(at), _) => Ok(tasks.swap_remove(at)),
            (None, id) => {
                let id = id.as_deref().unwrap_or_default();
                Err(Failure::usage(format!(
                    "{file} has no task {id}; there are: {}",
                    ids.join(", ")
                )))
            }
        }
    }
}

/// Names mean what the root file system says.
fn identity(plan: &Plan, root: &Path) -> Result<Identity, Failure> {
    let UserSpec::Named { text, .. } = &plan.user else {
        return Ok(Identity::root());
    };
    Ok(Accounts::read(File::open(root)?.as_fd())?.find(text)?)
}
