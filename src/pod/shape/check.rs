//! Whether a container is well: by HTTP, TCP or a command.

use super::{
    super::{
        Profile,
        model::*,
        reader::{Fields, Node},
    },
    SECONDS,
    container::command,
};

fn seconds(fields: &mut Fields<'_>, name: &'static str, default: u32) -> u32 {
    let read = fields.read(name, |node| node.integer(0, SECONDS));
    read.and_then(|seconds| u32::try_from(seconds).ok())
        .unwrap_or(default)
}

pub(super) fn health_check(node: Node<'_>, profile: &Profile) -> Option<HealthCheck> {
    let mut fields = node.object()?;
    let probe = probe(&mut fields);
    let mut period = |name, default| seconds(&mut fields, name, default);
    let (grace_period_seconds, interval_seconds) =
        (period("gracePeriodSeconds", 300), period("intervalSeconds", 60));
    let (max_consecutive_failures, timeout_seconds) =
        (period("maxConsecutiveFailures", 3), period("timeoutSeconds", 20));
    let delay_seconds = period("delaySeconds", profile.health_delay_seconds);
    Some(HealthCheck {
        probe: probe?,
        grace_period_seconds,
        interval_seconds,
        max_consecutive_failures,
        timeout_seconds,
        delay_seconds,
    })
}

pub(super) fn check(node: Node<'_>, profile: &Profile) -> Option<Check> {
    let mut fields = node.object()?;
    let probe = probe(&mut fields);
    let interval_seconds = seconds(&mut fields, "intervalSeconds", 60);
    let timeout_seconds = seconds(&mut fields, "timeoutSeconds", 20);
    let delay_seconds = seconds(&mut fields, "delaySeconds", profile.health_delay_seconds);
    Some(Check {
        probe: probe?,
        interval_seconds,
        timeout_seconds,
        delay_seconds,
    })
}

/// Exactly one of `http`, `tcp` and `exec`.
fn probe(fields: &mut Fields<'_>) -> Option<Probe> {
    let http = fields.optional("http");
    let tcp = fields.optional("tcp");
    let exec = fields.optional("exec");
    match (http, tcp, exec) {
        (Some(node), None, None) => {
            let mut fields = node.object()?;
            let endpoint = fields.required("endpoint").and_then(|node| node.string());
            let path = fields.read("path", |node| node.text(1, 1024));
            let schemes = [("HTTP", Scheme::Http), ("HTTPS", Scheme::Https)];
            let scheme = fields
                .read("scheme", |node| node.one_of(&schemes))
                .unwrap_or(Scheme::Http);
            Some(Probe::Http {
                endpoint: endpoint?,
                path,
                scheme,
            })
        }
        (None, Some(node), None) => {
            let mut fields = node.object()?;
            Some(Probe::Tcp {
                endpoint: fields.required("endpoint")?.string()?,
            })
        }
        (None, None, Some(node)) => {
            let mut fields = node.object()?;
            let place = fields.required("command")?;
            match command(place.clone())? {
                Some(command) => Some(Probe::Exec { command }),
                None => {
                    place.wrong("error.minLength", "a check needs a command");
                    None
                }
            }
        }
        _ => {
            fields
                .node
                .rule("Only one of http, tcp, or command may be specified");
            None
        }
    }
}
