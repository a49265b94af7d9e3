//! `podling pod`: pods of a scheduler, ours or a Marathon.

mod explain;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use super::{
    Ended, Failure,
    client::{self, Client},
    colour,
    definition::{self, Unknown},
    failure,
    line::Access,
};
use crate::pod::{InstanceId, PodId, Profile};

const EXAMPLES: &str = "\
Examples:
  podling pod add web.json                  create a pod
  podling pod list                          all pods
  podling pod status web                    one of them, its instances and members
  podling pod explain web                   why it does not run
  podling pod remove web                    end it
  curl http://127.0.0.1:8080/v2/pods        the same without podling";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Pod {
    /// The scheduler
    #[arg(
        long,
        global = true,
        env = "PODLING_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    url: String,

    #[command(flatten)]
    access: Access,

    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a pod from a definition
    Add {
        file: PathBuf,
        /// Refuse fields that have no effect, rather than point at them
        #[arg(long)]
        strict: bool,
    },
    /// Replace a pod's definition
    Update {
        file: PathBuf,
        /// Even while a deployment of it runs
        #[arg(long)]
        force: bool,
        /// Refuse fields that have no effect, rather than point at them
        #[arg(long)]
        strict: bool,
    },
    /// Check a definition without a scheduler, and print it with every default
    Validate {
        file: PathBuf,
        /// Refuse fields that have no effect, rather than point at them
        #[arg(long)]
        strict: bool,
    },
    /// All pods
    List,
    /// The definition of a pod
    Show { id: String },
    /// The state of a pod and its instances
    Status { id: String },
    /// Why a pod, or one instance of it, does not run: offers and what they lack, members and their last words
    Explain {
        #[arg(value_name = "ID[/INSTANCE]")]
        id: String,
    },
    /// The versions of a pod
    Versions { id: String },
    /// Remove a pod and all its instances
    Remove {
        id: String,
        /// Even while a deployment of it runs
        #[arg(long)]
        force: bool,
    },
    /// Kill instances, or all of a pod's; they are launched again
    Kill {
        id: String,
        #[arg(value_name = "INSTANCE")]
        instances: Vec<String>,
        /// Others take their place
        #[arg(long)]
        wipe: bool,
    },
}

fn unknown(strict: bool) -> Unknown {
    match strict {
        true => Unknown::Refuse,
        false => Unknown::Warn,
    }
}

fn is_queue(value: &Value) -> bool {
    value["queue"].is_array()
}

/// An id from the command line; the slash in front may be left out.
fn pod_id(text: &str) -> Result<PodId, Failure> {
    let id = if text.starts_with('/') {
        text.to_owned()
    } else {
        format!("/{text}")
    };
    id.parse()
        .map_err(|error| Failure::usage(format!("pod id {text}: {error}")))
}

/// `web`, `/web` or `/web/web.instance-…`.
fn pod_and_instance(text: &str) -> Result<(PodId, Option<InstanceId>), Failure> {
    match text.rsplit_once('/') {
        Some((pod, instance)) if instance.contains(".instance-") => {
            let instance = instance
                .parse()
                .map_err(|error| Failure::usage(format!("instance {instance}: {error}")))?;
            Ok((pod_id(pod)?, Some(instance)))
        }
        _ => Ok((pod_id(text)?, None)),
    }
}

impl Pod {
    pub(super) fn run(self) -> Ended {
        let client = Client::new(&self.url, &self.access)?;
        match &self.command {
            Command::Add { file, strict } => {
                let body = definition::value_to_send(file, unknown(*strict))?;
                self.deploy(&client, Method::POST, "/v2/pods", Some(&body))
            }
            Command::Update { file, force, strict } => {
                let body = definition::value_to_send(file, unknown(*strict))?;
                let id = body["id"]
                    .as_str()
                    .ok_or_else(|| Failure::usage(format!("{}: id: is required", file.display())))?;
                let path = format!("/v2/pods{}?force={force}", pod_id(id)?);
                self.deploy(&client, Method::PUT, &path, Some(&body))
            }
            Command::Validate { file, strict } => {
                let pods = definition::pods(file, &Profile::default(), unknown(*strict))?;
                let value = match pods.as_slice() {
                    [pod] => serde_json::to_value(pod)?,
                    pods => serde_json::to_value(pods)?,
                };
                self.print(&value, |_| {
                    let line = |pod| format!("{}: valid, {}", file.display(), table::summary(pod));
                    pods.iter().map(line).collect::<Vec<_>>().join("\n")
                })
            }
            Command::List => {
                let statuses = client.get("/v2/pods/::status", client::are_pods)?;
                // Not worth a failure: it only tells what waits.
                let queue = client.get("/v2/queue", is_queue).unwrap_or_default();
                self.print(&statuses, |statuses| table::pods(statuses, &queue))
            }
            Command::Explain { id } => {
                let (id, instance) = pod_and_instance(id)?;
                let status = client.get(&format!("/v2/pods{id}::status"), client::is_pod)?;
                let queue = client.get("/v2/queue?embed=lastUnusedOffers", is_queue)?;
                if let Some(instance) = &instance
                    && !table::items(&status["instances"])
                        .iter()
                        .any(|known| known["id"] == instance.to_string())
                {
                    return Err(Failure::failed(format!("pod {id} has no instance {instance}")));
                }
                let explained = explain::gather(status, &queue, instance.as_ref());
                self.print(&explained, explain::story)
            }
            Command::Show { id } => {
                let pod = client.get(&format!("/v2/pods{}", pod_id(id)?), client::is_pod)?;
                self.print(&pod, |pod| serde_json::to_string_pretty(pod).unwrap_or_default())
            }
            Command::Status { id } => self.print(
                &client.get(&format!("/v2/pods{}::status", pod_id(id)?), client::is_pod)?,
                table::pod,
            ),
            Command::Versions { id } => {
                let versions =
                    client.get(&format!("/v2/pods{}::versions", pod_id(id)?), client::are_words)?;
                self.print(&versions, |versions| {
                    let lines: Vec<&str> = versions
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    lines.join("\n")
                })
            }
            Command::Remove { id, force } => {
                let path = format!("/v2/pods{}?force={force}", pod_id(id)?);
                self.deploy(&client, Method::DELETE, &path, None)
            }
            Command::Kill { id, instances, wipe } => self.kill(&client, &pod_id(id)?, instances, *wipe),
        }
    }

    fn kill(&self, client: &Client, id: &PodId, instances: &[String], wipe: bool) -> Ended {
        let mut ids = Vec::new();
        for instance in instances {
            let parsed: InstanceId = instance
                .parse()
                .map_err(|error| Failure::usage(format!("instance {instance}: {error}")))?;
            ids.push(parsed.to_string());
        }
        if ids.is_empty() {
            let status = client.get(&format!("/v2/pods{id}::status"), client::is_pod)?;
            let all = status["instances"].as_array().into_iter().flatten();
            ids.extend(
                all.filter_map(|instance| instance["id"].as_str())
                    .map(str::to_owned),
            );
        }
        let path = format!("/v2/pods{id}::instances?wipe={wipe}");
        let killed = client.call(Method::DELETE, &path, Some(&json!(ids)))?.body;
        let count = killed.as_array().map(Vec::len);
        let count = count.ok_or_else(|| client.no_scheduler(&path))?;
        self.print(&killed, |_| {
            format!("killing {} of {id}", table::count(count, "instance"))
        })?;
        if count < ids.len() {
            return Err(Failure::failed(format!(
                "{} of {} named of {id}: no such instance",
                ids.len() - count,
                ids.len()
            )));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks for a change, which the server makes a deployment of.
    fn deploy(&self, client: &Client, method: Method, path: &str, body: Option<&Value>) -> Ended {
        let answer = client.call(method, path, body)?;
        let id = answer.deployment.ok_or_else(|| client.no_scheduler(path))?;
        let mut value = match answer.body {
            Value::Object(pod) => Value::Object(pod),
            _ => json!({}),
        };
        value["deploymentId"] = json!(id);
        self.print(&value, |_| format!("Created deployment {id}"))
    }

    fn print(&self, value: &Value, table: impl FnOnce(&Value) -> String) -> Ended {
        failure::answer(&match self.output {
            Output::Table => format!("{}\n", colour::of_answer(table(value))),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
            Output::Yaml => serde_saphyr::to_string(value)?,
        })
    }
}
