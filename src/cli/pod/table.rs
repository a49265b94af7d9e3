//! Pods for people.
//!
//! What is shown comes from a server, and some of it from members: everything is made fit for a terminal on its way
//! in, and nothing is relied on to be there.

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::{
    cli::text,
    pod::{Pod, Version},
};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

/// Without the room that tables leave on their left.
fn print(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A string of the answer, or a dash.
pub(super) fn word(value: &Value) -> String {
    text::line(value.as_str().unwrap_or("-"))
}

/// A sentence of the answer, on one line; empty if there is none.
pub(super) fn sentence(value: &Value) -> String {
    text::lines(value.as_str().unwrap_or_default()).replace('\n', " ")
}

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `2 instances`, `1 instance`.
pub(super) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// `2 containers, 3 instances, 0.4 cpus and 96 MiB each`.
pub(super) fn summary(pod: &Pod) -> String {
    let executor = &pod.executor_resources;
    let resources = pod.containers.iter().map(|container| container.resources);
    let (cpus, mem) = resources.fold((executor.cpus, executor.mem), |(cpus, mem), one| {
        (cpus + one.cpus, mem + one.mem)
    });
    format!(
        "{}, {}, {cpus:.3} cpus and {mem} MiB each",
        count(pod.containers.len(), "container"),
        count(pod.scaling.instances as usize, "instance"),
    )
}

/// The time between two of the answer's timestamps: `12s`, `3m`, `5h`, `2d`.
pub(super) fn age(since: &Value, now: &Value) -> String {
    let millis = |value: &Value| Some(value.as_str()?.parse::<Version>().ok()?.millis());
    match (millis(since), millis(now)) {
        (Some(since), Some(now)) => duration(now.saturating_sub(since).max(0)),
        _ => "-".to_owned(),
    }
}

fn duration(millis: i64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, millis % 1000 / 100),
        10..100 => format!("{seconds}s"),
        100..6000 => format!("{}m", seconds / 60),
        6000..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How many instances are stable, and how many are wanted.
pub(super) fn stable(status: &Value) -> (usize, u64) {
    let stable = items(&status["instances"])
        .iter()
        .filter(|instance| instance["status"] == "STABLE")
        .count();
    (
        stable,
        status["spec"]["scaling"]["instances"].as_u64().unwrap_or(0),
    )
}

/// What a pod's item of the launch queue means.
pub(super) fn waits_for(item: &Value) -> String {
    let left = item["delay"]["timeLeftSeconds"].as_u64().unwrap_or(0);
    match item["delay"]["overdue"] == false {
        true => format!("back-off, {left}s"),
        false => "an offer".to_owned(),
    }
}

/// The item of a pod in the launch queue.
pub(super) fn queued<'q>(queue: &'q Value, id: &Value) -> Option<&'q Value> {
    items(&queue["queue"])
        .iter()
        .find(|item| item["pod"]["id"] == *id)
}

pub(super) fn pods(statuses: &Value, queue: &Value) -> String {
    if items(statuses).is_empty() {
        return "no pods".to_owned();
    }
    let mut table = table(&["ID", "STATUS", "INSTANCES", "SINCE", "WAITS FOR", "VERSION"]);
    for status in items(statuses) {
        let (stable, wanted) = stable(status);
        table.add_row([
            word(&status["id"]),
            state(status),
            format!("{stable}/{wanted}"),
            age(&status["statusSince"], &status["lastUpdated"]),
            queued(queue, &status["id"]).map_or("-".to_owned(), waits_for),
            word(&status["spec"]["version"]),
        ]);
    }
    print(table)
}

/// Whether the last that was heard of it is that all members of an instance ended with 0.
fn ended_well(ended: &Value) -> bool {
    let containers = items(&ended["containers"]);
    let finished = |container: &Value| container["lastKnownState"] == "TASK_FINISHED";
    !containers.is_empty() && containers.iter().all(finished)
}

fn is_between_runs(status: &Value) -> bool {
    let waits = |instance: &Value| instance["status"] == "PENDING";
    status["status"] == "DEGRADED"
        && items(&status["instances"]).iter().all(waits)
        && items(&status["terminationHistory"])
            .last()
            .is_some_and(ended_well)
}

/// `STABLE`, or `STABLE, rolling 2/5, stuck` while instances are replaced. A pod that has done its work and is about to
/// be started again is not out of order.
fn state(status: &Value) -> String {
    let mut state = match is_between_runs(status) {
        true => "RESTARTING".to_owned(),
        false => word(&status["status"]),
    };
    let rollout = &status["rollout"];
    if let (Some(done), Some(wanted)) = (rollout["done"].as_u64(), rollout["wanted"].as_u64()) {
        state.push_str(&format!(", rolling {done}/{wanted}"));
        if rollout["stuck"].is_string() {
            state.push_str(", stuck");
        }
    }
    state
}

/// The version that an instance was launched from, which need not be the pod's.
pub(super) fn version(instance: &Value) -> String {
    let reference = word(&instance["specReference"]);
    match reference.rsplit_once("::versions/") {
        Some((_, version)) => version.to_owned(),
        None => "-".to_owned(),
    }
}

/// One line on the whole pod.
pub(super) fn headline(status: &Value) -> String {
    let (stable, wanted) = stable(status);
    let wanted = count(usize::try_from(wanted).unwrap_or(usize::MAX), "instance");
    format!(
        "{} is {}: {stable} of {wanted} stable",
        word(&status["id"]),
        state(status)
    )
}

/// The state, and whatever is known of why it is not better.
pub(super) fn pod(status: &Value) -> String {
    let mut lines = vec![headline(status)];
    let message = sentence(&status["message"]);
    if !message.is_empty() {
        lines.push(message);
    }
    let instances = items(&status["instances"]);
    if !instances.is_empty() {
        lines.push(String::new());
        lines.push(instances_table(instances, &status["lastUpdated"]));
    }
    for ended in items(&status["terminationHistory"]) {
        lines.push(String::new());
        lines.extend(last_failure(ended, &status["lastUpdated"]));
    }
    lines.join("\n")
}

fn instances_table(instances: &[Value], now: &Value) -> String {
    let mut table = table(&["INSTANCE", "STATUS", "SINCE", "VERSION", "WHERE", "MESSAGE"]);
    for instance in instances {
        let containers = items(&instance["containers"]);
        let message = sentence(&instance["message"]);
        // A member's own words are said beside the member.
        let said = containers
            .iter()
            .any(|container| container["message"] == instance["message"]);
        let message = if said { String::new() } else { message };
        table.add_row([
            word(&instance["id"]),
            word(&instance["status"]),
            age(&instance["statusSince"], now),
            version(instance),
            place(instance),
            message,
        ]);
        for container in containers {
            table.add_row([
                format!("  {}", word(&container["name"])),
                task_state(&container["status"]),
                age(&container["statusSince"], now),
                String::new(),
                endpoints(container),
                text::shorter(&sentence(&container["message"]), &word(&instance["id"])),
            ]);
        }
    }
    print(table)
}

/// The host, and the pod's own addresses there.
pub(super) fn place(instance: &Value) -> String {
    let own = items(&instance["networks"])
        .iter()
        .flat_map(|network| items(&network["addresses"]))
        .map(word);
    let places: Vec<String> = std::iter::once(word(&instance["agentHostname"]))
        .chain(own)
        .collect();
    places.join(" ")
}

/// `http:31005`, for whoever wants to call.
fn endpoints(container: &Value) -> String {
    let published = items(&container["endpoints"]).iter().filter_map(|endpoint| {
        let port = endpoint["allocatedHostPort"].as_u64()?;
        Some(format!("{}:{port}", word(&endpoint["name"])))
    });
    published.collect::<Vec<_>>().join(" ")
}

/// `RUNNING` for `TASK_RUNNING`.
pub(super) fn task_state(value: &Value) -> String {
    let state = word(value);
    state.strip_prefix("TASK_").unwrap_or(&state).to_owned()
}

/// How an instance failed, each member with its own words; the culprit is the one that FAILED.
pub(super) fn last_failure(ended: &Value, now: &Value) -> Vec<String> {
    let what = match ended_well(ended) {
        true => "last end, by itself and well",
        false => "last failure",
    };
    let mut lines = vec![format!(
        "{what}: {}, {} ago, after {}",
        word(&ended["instanceID"]),
        age(&ended["terminatedAt"], now),
        age(&ended["startedAt"], &ended["terminatedAt"]),
    )];
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for container in items(&ended["containers"]) {
        let id = word(&container["containerId"]);
        // `<instance>.<container>.<incarnation>`
        let name = id.rsplit('.').nth(1).unwrap_or(&id).to_owned();
        let message = sentence(&container["termination"]["message"]);
        table.add_row([
            format!("  {name}"),
            task_state(&container["lastKnownState"]),
            text::shorter(&message, &word(&ended["instanceID"])),
        ]);
    }
    if !items(&ended["containers"]).is_empty() {
        lines.push(print(table));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, words) in [
            (0, "0.0s"),
            (99, "99s"),
            (100, "1m"),
            (7199, "1h"),
            (172_800, "2d"),
        ] {
            assert_eq!(duration(seconds * 1000), words);
        }
        let now = json!("2024-05-01T10:01:40.000Z");
        assert_eq!(age(&json!("2024-05-01T10:00:30.000Z"), &now), "70s");
        assert_eq!(
            age(&json!("2024-05-01T10:02:00.000Z"), &now),
            "0.0s",
            "clocks differ"
        );
        assert_eq!(age(&json!(17), &now), "-");
    }

    #[test]
    fn answers_of_any_shape_are_shown_and_none_paints_on_the_terminal() {
        let hostile = json!({"id": "/a\u{1b}[2J", "status": 7, "instances": [{"id": null, "containers": [{"name": "x\n\ny",
            "message": "\u{1b}]0;t\u{7}"}]}, 3], "terminationHistory": [{"containers": [{}]}]});
        for shown in [pod(&hostile), pods(&json!([hostile, 5, null]), &Value::Null)] {
            assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
        }
        assert_eq!(pods(&json!([]), &json!({})), "no pods");
    }

    #[test]
    fn a_roll_that_is_stuck_is_seen_at_a_glance() {
        let status = json!({"id": "/a", "status": "STABLE", "spec": {"scaling": {"instances": 5}, "version": "v2"},
            "message": "rolling 2/5, stuck: no such image", "rollout": {"done": 2, "wanted": 5, "stuck": "no such image"},
            "instances": [{"id": "a.1", "status": "STABLE", "specReference": "/v2/pods/a::versions/v1", "containers": []}]});
        let shown = pod(&status);
        assert!(
            shown.starts_with("/a is STABLE, rolling 2/5, stuck: 1 of 5 instances stable\nrolling 2/5, stuck: no such image\n"),
            "{shown}"
        );
        assert!(shown.lines().last().unwrap().contains("v1"), "{shown}");
        let list = pods(&json!([status]), &Value::Null);
        assert!(list.contains("STABLE, rolling 2/5, stuck"), "{list}");
    }

    #[test]
    fn a_pod_that_has_done_its_work_has_not_failed() {
        let status = |state: &str| {
            json!({"id": "/a", "status": "DEGRADED", "spec": {"scaling": {"instances": 1}}, "instances": [],
                "terminationHistory": [{"instanceID": "a.instance-1", "containers": [
                {"containerId": "a.instance-1.web.2", "lastKnownState": "TASK_FINISHED",
                 "termination": {"message": "Command exited with status 0"}},
                {"containerId": "a.instance-1.side.2", "lastKnownState": state}]}]})
        };
        let shown = pod(&status("TASK_FINISHED"));
        assert!(
            shown.starts_with("/a is RESTARTING: 0 of 1 instance stable\n"),
            "{shown}"
        );
        assert!(
            shown.contains("last end, by itself and well: a.instance-1,"),
            "{shown}"
        );
        let shown = pod(&status("TASK_KILLED"));
        assert!(
            shown.starts_with("/a is DEGRADED") && shown.contains("last failure"),
            "{shown}"
        );
    }

    #[test]
    fn a_failure_names_its_member_and_its_words() {
        let status = json!({"id": "/a", "status": "DEGRADED", "spec": {"scaling": {"instances": 1}}, "instances": [],
            "lastUpdated": "2024-05-01T10:00:10.000Z", "terminationHistory": [{"instanceID": "a.instance-1",
            "startedAt": "2024-05-01T10:00:00.000Z", "terminatedAt": "2024-05-01T10:00:03.000Z", "containers": [
            {"containerId": "a.instance-1.web.2", "lastKnownState": "TASK_FAILED",
             "termination": {"message": "Command exited with status 3"}}]}]});
        assert_eq!(
            pod(&status),
            "/a is DEGRADED: 0 of 1 instance stable\n\nlast failure: a.instance-1, 7.0s ago, after 3.0s\n  \
             web  FAILED  Command exited with status 3"
        );
    }
}
