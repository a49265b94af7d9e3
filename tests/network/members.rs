//! Pods from end to end: the loopback agent, real executors, real members.
//!
//! A member is this very program, see [`a_peer`]: it serves or asks in whatever network it finds itself, without
//! any privilege.

use std::{env, fs, net::IpAddr, path::Path, thread, time::Duration};

use podling::{
    loopback::agent::{Agent, AgentBuilder, Outcome},
    mesos::v1::{
        CommandInfo, Environment, NetworkInfo, Resource, TaskGroupInfo, TaskId, TaskInfo, TaskStatus,
        environment, value,
    },
};
use serde_json::{Value, json};

use crate::support::{Server, ask_here};

pub const EXECUTOR: &str = env!("CARGO_BIN_EXE_podling-executor");
const PART: &str = "PODLING_TEST_PEER";

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What members run. `serve NAME PORT` answers for ever; `ask ADDRESS PORT …` asks each in turn, patiently, and ends.
#[test]
#[ignore = "run by members of pods"]
fn a_peer() {
    let Ok(part) = env::var(PART) else { return };
    let words: Vec<&str> = part.split(' ').collect();
    println!("told ip {}", env::var("MESOS_CONTAINER_IP").unwrap_or_default());
    println!(
        "told net {}",
        fs::read_link("/proc/self/ns/net").unwrap().display()
    );
    match words.as_slice() {
        ["serve", name, port] => {
            let _server = Server::here(name, port.parse().unwrap());
            loop {
                thread::park();
            }
        }
        ["ask", targets @ ..] => {
            for target in targets.chunks(2) {
                let (to, port): (IpAddr, u16) = (target[0].parse().unwrap(), target[1].parse().unwrap());
                println!("told {}", patiently(|| ask_here(to, port).ok()));
            }
        }
        _ => panic!("{part}"),
    }
}

pub fn patiently<T>(mut question: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(answer) = question() {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no answer");
}

pub fn peer(id: &str, part: &str) -> TaskInfo {
    let program = env::current_exe().unwrap();
    let command = format!(
        "exec '{}' --exact members::a_peer --ignored --nocapture --quiet",
        program.display()
    );
    let part = environment::Variable {
        name: PART.to_owned(),
        value: Some(part.to_owned()),
        ..Default::default()
    };
    let mut task = shell(id, &command);
    task.command.as_mut().unwrap().environment = Some(Environment {
        variables: vec![part],
    });
    task
}

pub fn shell(id: &str, command: &str) -> TaskInfo {
    let scalar = |name: &str, amount: f64| Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value: amount }),
        ..Default::default()
    };
    TaskInfo {
        name: id.to_owned(),
        task_id: TaskId { value: id.to_owned() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 256.0)],
        command: Some(CommandInfo {
            shell: Some(true),
            value: Some(command.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn group(tasks: impl IntoIterator<Item = TaskInfo>) -> TaskGroupInfo {
    TaskGroupInfo {
        tasks: tasks.into_iter().collect(),
    }
}

/// An agent whose operator has configured these networks, and whose scheduler asks for `network`.
pub fn agent(operator: &str, network: Value) -> AgentBuilder {
    Agent::builder()
        .executor_argv([EXECUTOR])
        .patience(PATIENCE)
        .env("PODLING_NETWORK", operator)
        .with_executor_info(|executor| {
            let data = json!({"podling": 1, "network": network}).to_string();
            executor.data = Some(data.into_bytes().into());
        })
}

/// One network `a` of ours.
pub fn bridge(subnets: &str) -> String {
    format!("{{ default_network = 'a', networks = {{ a = {{ subnets = [{subnets}] }} }} }}")
}

/// Port 80 of the pod on this port of the node, by TCP and UDP.
pub fn published(network: &str, port: u16) -> Value {
    json!({"name": network, "portMappings": [
        {"hostPort": port, "containerPort": 80},
        {"hostPort": port, "containerPort": 80, "protocol": "udp"},
    ]})
}

/// The rest of the first line of what a member told that begins so: `ip`, `net`, or who answered.
#[track_caller]
pub fn told(sandbox: &Path, task: &str, what: &str) -> String {
    let text = fs::read_to_string(sandbox.join("tasks").join(task).join("stdout")).unwrap_or_default();
    let told = text.lines().filter_map(|line| line.strip_prefix("told "));
    let found = told.filter_map(|line| line.strip_prefix(what)).next();
    found
        .unwrap_or_else(|| panic!("{task} has not told {what:?}: {text}"))
        .trim()
        .to_owned()
}

pub fn infos(status: &TaskStatus) -> &[NetworkInfo] {
    status
        .container_status
        .as_ref()
        .map(|status| status.network_infos.as_slice())
        .unwrap_or_default()
}

/// Networks and addresses of a status.
pub fn addresses(status: &TaskStatus) -> Vec<(&str, Vec<&str>)> {
    infos(status)
        .iter()
        .map(|info| {
            (
                info.name(),
                info.ip_addresses
                    .iter()
                    .map(|address| address.ip_address())
                    .collect(),
            )
        })
        .collect()
}

#[track_caller]
pub fn finish(agent: Agent) -> Outcome {
    let outcome = agent.finish();
    assert!(
        outcome.is_good() && outcome.violations.is_empty(),
        "{outcome}\n{}",
        outcome.history
    );
    outcome
}

pub fn last<'a>(outcome: &'a Outcome, task: &str) -> &'a TaskStatus {
    outcome.history.updates(task).last().unwrap()
}

/// A list of plug-ins for a node's CNI.
pub fn conflist(name: &str, plugins: Value) {
    fs::create_dir_all("/run/net.d").unwrap();
    let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins});
    fs::write(format!("/run/net.d/{name}.conflist"), list.to_string()).unwrap();
}

/// A node with nothing but plug-ins.
pub const PLUGINS: &str = "{ default_network = '', networks = {}, cni = { config_dirs = ['/run/net.d'], \
                       plugin_dirs = ['/run/plugins', '/usr/lib/cni'] } }";
