//! `podling pod explain`: why a pod does not run, in one answer.

use serde_json::{Value, json};

use super::table::{self, count, items, sentence, word};
use crate::{cli::text, pod::InstanceId};

/// Everything the server knows, for `-o json`. `instance`: only of this one.
pub(super) fn gather(mut status: Value, queue: &Value, instance: Option<&InstanceId>) -> Value {
    // Of all instances, whichever are told of.
    let headline = table::headline(&status);
    if let Some(instance) = instance {
        let name = instance.to_string();
        for (list, key) in [("instances", "id"), ("terminationHistory", "instanceID")] {
            if let Some(list) = status[list].as_array_mut() {
                list.retain(|one| one[key] == *name);
            }
        }
    }
    let queued = table::queued(queue, &status["id"]).cloned();
    json!({"headline": headline, "status": status, "queue": queued})
}

/// The same as a story: what is wanted, what holds it up, what went wrong.
pub(super) fn story(explained: &Value) -> String {
    let status = &explained["status"];
    let now = &status["lastUpdated"];
    let mut lines = vec![word(&explained["headline"])];
    let rolling = sentence(&status["message"]);
    if status["rollout"].is_object() && !rolling.is_empty() {
        lines.push(rolling);
    }
    if explained["queue"].is_object() {
        lines.push(String::new());
        lines.extend(waiting(&explained["queue"], now));
    }
    for instance in items(&status["instances"]) {
        // Said above, of all of them.
        if explained["queue"].is_object() && instance["status"] == "PENDING" {
            continue;
        }
        lines.push(String::new());
        lines.extend(instance_story(instance, now));
    }
    for ended in items(&status["terminationHistory"]) {
        lines.push(String::new());
        lines.extend(table::last_failure(ended, now));
    }
    lines.join("\n")
}

fn waiting(item: &Value, now: &Value) -> Vec<String> {
    let number = item["count"].as_u64().unwrap_or(0);
    let number = count(usize::try_from(number).unwrap_or(usize::MAX), "instance");
    let mut lines = vec![format!(
        "{number} to launch, since {}; waiting for {}",
        table::age(&item["since"], now),
        table::waits_for(item),
    )];
    let summary = &item["processedOffersSummary"];
    let looked_at = summary["processedOffersCount"].as_u64().unwrap_or(0);
    if looked_at == 0 {
        lines.push("  no offer has come yet".to_owned());
        return lines;
    }
    let refused = summary["unusedOffersCount"].as_u64().unwrap_or(0);
    lines.push(format!("  offers looked at: {looked_at}, unfit: {refused}"));
    // The latest of each host says it; older ones say the same.
    let mut hosts: Vec<String> = Vec::new();
    for unused in items(&item["lastUnusedOffers"]).iter().rev() {
        let host = word(&unused["offer"]["hostname"]);
        if hosts.contains(&host) {
            continue;
        }
        let reasons = items(&unused["reason"])
            .iter()
            .map(word)
            .collect::<Vec<_>>()
            .join(", ");
        let why = match sentence(&unused["message"]) {
            // Marathon gives the bare reasons.
            words if words.is_empty() => reasons,
            words => words,
        };
        lines.push(format!(
            "  {host}, {} ago: {why}",
            table::age(&unused["timestamp"], now)
        ));
        hosts.push(host);
    }
    lines
}

fn instance_story(instance: &Value, now: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} is {} for {} on {}, version {}",
        word(&instance["id"]),
        word(&instance["status"]),
        table::age(&instance["statusSince"], now),
        table::place(instance),
        table::version(instance),
    )];
    let containers = items(&instance["containers"]);
    let message = sentence(&instance["message"]);
    if !message.is_empty()
        && !containers
            .iter()
            .any(|container| container["message"] == instance["message"])
    {
        lines.push(format!("  {message}"));
    }
    for container in containers {
        let mut line = format!(
            "  {} is {} for {}",
            word(&container["name"]),
            table::task_state(&container["status"]),
            table::age(&container["statusSince"], now)
        );
        let message = sentence(&container["message"]);
        if !message.is_empty() {
            line.push_str(": ");
            line.push_str(&text::shorter(&message, &word(&instance["id"])));
        }
        let health = items(&container["conditions"])
            .iter()
            .find(|condition| condition["name"] == "healthy" && condition["value"] == "false");
        if let Some(health) = health {
            line.push_str(&format!(" (not healthy: {})", word(&health["reason"])));
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_told_once_a_host_with_their_figures() {
        let now = "2024-05-01T10:00:10.000Z";
        let offer = |host: &str, at: &str, message: &str| json!({"offer": {"hostname": host}, "timestamp": at, "reason": ["InsufficientCpus"], "message": message});
        let queue = json!({"queue": [{"pod": {"id": "/a"}, "count": 2, "since": "2024-05-01T10:00:00.000Z",
            "delay": {"timeLeftSeconds": 0, "overdue": true},
            "processedOffersSummary": {"processedOffersCount": 3, "unusedOffersCount": 3},
            "lastUnusedOffers": [offer("n1", "2024-05-01T10:00:01.000Z", "old"),
                offer("n2", "2024-05-01T10:00:02.000Z", ""), offer("n1", "2024-05-01T10:00:09.000Z", "8 cpus, 4 offered")]}]});
        let status = json!({"id": "/a", "status": "DEGRADED", "spec": {"scaling": {"instances": 2}}, "instances": [],
            "lastUpdated": now, "terminationHistory": []});
        assert_eq!(
            story(&gather(status, &queue, None)),
            "/a is DEGRADED: 0 of 2 instances stable\n\n2 instances to launch, since 10s; waiting for an offer\n  \
             offers looked at: 3, unfit: 3\n  n1, 1.0s ago: 8 cpus, 4 offered\n  n2, 8.0s ago: InsufficientCpus"
        );
    }

    #[test]
    fn only_the_instance_that_is_asked_for_is_told_of() {
        let id: InstanceId = "a.instance-6f1b2c3e-0b1a-11ee-8f7a-0242ac110002".parse().unwrap();
        let status = json!({"id": "/a", "status": "STABLE", "spec": {"scaling": {"instances": 2}},
            "instances": [{"id": id.to_string(), "status": "STABLE"}, {"id": "b", "status": "STABLE"}], "terminationHistory": [{"instanceID": "b"}]});
        let explained = gather(status, &json!({"queue": []}), Some(&id));
        assert!(story(&explained).starts_with("/a is STABLE: 2 of 2 instances stable\n"));
        assert_eq!(
            explained["status"]["instances"],
            json!([{"id": id.to_string(), "status": "STABLE"}])
        );
        assert_eq!(explained["status"]["terminationHistory"], json!([]));
        assert_eq!(explained["queue"], Value::Null);
    }
}
