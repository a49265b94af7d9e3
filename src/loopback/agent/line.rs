//! One line of JSON for each event and call; the words in which a history is told.

use std::fmt;

use serde_json::{Value, json};

use super::journal::{Entry, History, What};
use crate::mesos::{
    codec::{self, Encoding},
    v1::{
        TaskState,
        executor::{Call, Event, call},
    },
};

/// The line of an event or call, or none for what is neither.
pub fn line(entry: &Entry) -> Option<String> {
    match &entry.what {
        What::Event(event) => Some(event_line(entry, event)),
        What::Call(call) => Some(call_line(entry, call, None)),
        What::Refused {
            status,
            call: Some(call),
            ..
        } => Some(call_line(entry, call, Some(*status))),
        _ => None,
    }
}

fn event_line(entry: &Entry, event: &Event) -> String {
    let launched = event.launch.as_ref().map(|launch| &launch.task.task_id.value);
    // Lines that name a task tell its story; that the agent has taken note is none of it, and in the body.
    let task = launched.or(event.kill.as_ref().map(|kill| &kill.task_id.value));
    let head = Head {
        entry,
        dir: "event",
        kind: event.r#type().as_str_name(),
        task: task.map(String::as_str),
        state: None,
        refused: None,
    };
    head.with(&without_secrets(codec::encode(event, Encoding::Json).into()))
}

fn call_line(entry: &Entry, call: &Call, refused: Option<u16>) -> String {
    let status = call.update.as_ref().map(|update| &update.status);
    let head = Head {
        entry,
        dir: "call",
        kind: call.r#type().as_str_name(),
        task: status.map(|status| status.task_id.value.as_str()),
        state: status.map(|status| status.state()),
        refused,
    };
    head.with(&codec::encode(call, Encoding::Json))
}

/// An event as it may be printed. The only thing that Mesos calls `{"value": {"data": …}}` is a secret.
fn without_secrets(body: Vec<u8>) -> Vec<u8> {
    // In base64, as bytes are in JSON: "[redacted]".
    const REDACTED: &str = "W3JlZGFjdGVkXQ==";
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if let Some(data) = fields.get_mut("value").and_then(|value| value.get_mut("data")) {
                    *data = REDACTED.into();
                }
                fields.values_mut().for_each(walk);
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    if !body.windows(6).any(|bytes| bytes == b"\"data\"") {
        return body;
    }
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut value) => {
            walk(&mut value);
            value.to_string().into_bytes()
        }
        // It has just been written; what cannot be read is not printed.
        Err(_) => b"null".to_vec(),
    }
}

struct Head<'h> {
    entry: &'h Entry,
    dir: &'static str,
    kind: &'static str,
    task: Option<&'h str>,
    state: Option<TaskState>,
    refused: Option<u16>,
}

impl Head<'_> {
    fn with(&self, body: &[u8]) -> String {
        let mut line = format!(
            "{{\"t_us\":{},\"dir\":\"{}\",\"type\":\"{}\"",
            self.entry.at.as_micros(),
            self.dir,
            self.kind
        );
        let mut add = |key: &str, value: &dyn fmt::Display| line.push_str(&format!(",\"{key}\":{value}"));
        if let Some(task) = self.task {
            add("task", &json!(task));
        }
        if let Some(state) = self.state {
            add("state", &json!(state.as_str_name()));
        }
        if let Some(status) = self.refused {
            add("refused", &status);
        }
        add("body", &String::from_utf8_lossy(body));
        line.push('}');
        line
    }
}

/// The history for a reader: what a failed test prints.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in self.entries() {
            writeln!(f, "{:>10.3} ms  {}", entry.at.as_secs_f64() * 1e3, entry.what)?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Event(event) => write!(f, "event {}", Brief(event)),
            What::Lost(event) => write!(f, "event {} lost: no stream", Brief(event)),
            What::Call(call) => tell_call(f, call),
            What::Refused {
                status,
                reason,
                call: Some(call),
            } => {
                tell_call(f, call)?;
                write!(f, ", answered {status} {reason}")
            }
            What::Refused { status, reason, .. } => write!(f, "request answered {status} {reason}"),
            What::Forwarded(status) => {
                write!(
                    f,
                    "to the master: {} {}",
                    status.task_id.value,
                    status.state().as_str_name()
                )?;
                match &status.message {
                    Some(message) => write!(f, " ({message})"),
                    None => Ok(()),
                }
            }
            What::Starting => f.write_str("the executor is started"),
            What::Started { pid } => write!(f, "the executor runs as process {pid}"),
            What::Exited { status, killed: None } => write!(f, "the executor ended: {status}"),
            What::Exited {
                status,
                killed: Some(why),
            } => write!(f, "the executor was killed ({why:?}): {status}"),
            What::Settled => f.write_str("the executor's account is closed"),
            What::Connected(link) => write!(f, "connection {link} opened"),
            What::Disconnected(link) => write!(f, "connection {link} closed"),
            What::StreamOpened(link, encoding) => {
                write!(f, "event stream on connection {link}, {encoding:?}")
            }
            What::StreamClosed(link) => write!(f, "event stream on connection {link} ended"),
            What::Agent(phase) => write!(f, "the agent is {phase:?}"),
            What::Violation(violation) => write!(f, "VIOLATION: {violation}"),
            What::Interrupted => f.write_str("interrupted"),
        }
    }
}

fn tell_call(f: &mut fmt::Formatter<'_>, call: &Call) -> fmt::Result {
    write!(f, "call {}", call.r#type().as_str_name())?;
    if let Some(call::Update { status }) = &call.update {
        write!(f, " {} {}", status.task_id.value, status.state().as_str_name())?;
        if let Some(message) = &status.message {
            write!(f, " ({message})")?;
        }
    }
    if let Some(subscribe) = &call.subscribe {
        let tasks = subscribe
            .unacknowledged_tasks
            .iter()
            .map(|task| task.task_id.value.as_str());
        let updates = subscribe.unacknowledged_updates.iter();
        let updates =
            updates.map(|u| format!("{} {}", u.status.task_id.value, u.status.state().as_str_name()));
        let (tasks, updates) = (tasks.collect::<Vec<_>>(), updates.collect::<Vec<_>>());
        write!(f, " tasks {tasks:?} updates {updates:?}")?;
    }
    Ok(())
}

struct Brief<'e>(&'e Event);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        f.write_str(event.r#type().as_str_name())?;
        if let Some(kill) = &event.kill {
            write!(f, " {}", kill.task_id.value)?;
        }
        if let Some(acknowledged) = &event.acknowledged {
            write!(f, " {}", acknowledged.task_id.value)?;
        }
        if let Some(launch) = &event.launch {
            write!(f, " {}", launch.task.task_id.value)?;
        }
        for task in event
            .launch_group
            .iter()
            .flat_map(|group| &group.task_group.tasks)
        {
            write!(f, " {}", task.task_id.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v_12_e_02_values_of_secrets_are_not_printed() {
        let body = br#"{"launch_group":{"tasks":[
            {"command":{"environment":{"variables":[{"name":"A","secret":{"type":"VALUE","value":{"data":"czNjcmV0"}}}]}}},
            {"volumes":[{"source":{"secret":{"value":{"data":"czNjcmV0"}}}}]},
            {"docker":{"config":{"type":"VALUE","value":{"data":"czNjcmV0"}}}}
        ]},"message":{"data":"aGk="}}"#;
        let printed = String::from_utf8(without_secrets(body.to_vec())).unwrap();
        assert!(!printed.contains("czNjcmV0"), "{printed}");
        assert_eq!(printed.matches("W3JlZGFjdGVkXQ==").count(), 3);
        assert!(printed.contains("aGk="), "{printed}");
        let plain = br#"{"type":"HEARTBEAT"}"#.to_vec();
        assert_eq!(without_secrets(plain.clone()), plain);
    }
}
