//! Pods for people.

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::pod::Pod;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `2 containers, 3 instances, 0.4 cpus and 96 MiB each`.
pub(super) fn summary(pod: &Pod) -> String {
    let executor = &pod.executor_resources;
    let cpus: f64 = executor.cpus
        + pod
            .containers
            .iter()
            .map(|container| container.resources.cpus)
            .sum::<f64>();
    let mem: f64 = executor.mem
        + pod
            .containers
            .iter()
            .map(|container| container.resources.mem)
            .sum::<f64>();
    format!(
        "{} container(s), {} instance(s), {cpus:.3} cpus and {mem} MiB each",
        pod.containers.len(),
        pod.scaling.instances
    )
}

pub(super) fn pods(statuses: &Value) -> String {
    let mut table = table(&["ID", "STATUS", "INSTANCES", "VERSION", "SINCE"]);
    for status in items(statuses) {
        let stable = items(&status["instances"])
            .iter()
            .filter(|instance| instance["status"] == "STABLE")
            .count();
        let wanted = &status["spec"]["scaling"]["instances"];
        table.add_row([
            text(&status["id"]),
            text(&status["status"]),
            &format!("{stable}/{wanted}"),
            text(&status["spec"]["version"]),
            text(&status["statusSince"]),
        ]);
    }
    table.trim_fmt()
}

pub(super) fn pod(status: &Value) -> String {
    let mut lines = vec![format!("{} is {}", text(&status["id"]), text(&status["status"]))];
    lines.extend(status["message"].as_str().map(str::to_owned));
    let mut table = table(&["INSTANCE", "CONTAINER", "STATUS", "SINCE", "HOST", "MESSAGE"]);
    for instance in items(&status["instances"]) {
        let host = text(&instance["agentHostname"]);
        let message = instance["message"].as_str().unwrap_or_default();
        table.add_row([
            text(&instance["id"]),
            "",
            text(&instance["status"]),
            text(&instance["statusSince"]),
            host,
            message,
        ]);
        for container in items(&instance["containers"]) {
            let message = container["message"].as_str().unwrap_or_default();
            let since = text(&container["statusSince"]);
            table.add_row([
                "",
                text(&container["name"]),
                text(&container["status"]),
                since,
                "",
                message,
            ]);
        }
    }
    if !items(&status["instances"]).is_empty() {
        lines.push(table.trim_fmt());
    }
    for ended in items(&status["terminationHistory"]) {
        lines.push(format!(
            "last failure: {} at {}{}",
            text(&ended["instanceID"]),
            text(&ended["terminatedAt"]),
            ended["message"]
                .as_str()
                .map(|message| format!(": {message}"))
                .unwrap_or_default()
        ));
    }
    lines.join("\n")
}
