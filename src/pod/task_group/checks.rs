//! What the executor is to look at, and how often (mapping reference, section 11).

use super::{Launch, network};
use crate::{
    mesos::v1::{self, check_info, health_check},
    pod::model::{Check, Command, Container, HealthCheck, Probe, Scheme},
};

pub(super) fn health_check(
    launch: &Launch<'_>,
    container: &Container,
    check: &HealthCheck,
) -> v1::HealthCheck {
    let four = Some(v1::network_info::Protocol::IPv4 as i32);
    let base = v1::HealthCheck {
        delay_seconds: Some(check.delay_seconds.into()),
        interval_seconds: Some(check.interval_seconds.into()),
        timeout_seconds: Some(check.timeout_seconds.into()),
        grace_period_seconds: Some(check.grace_period_seconds.into()),
        consecutive_failures: Some(check.max_consecutive_failures),
        ..Default::default()
    };
    match &check.probe {
        Probe::Http {
            endpoint,
            path,
            scheme,
        } => v1::HealthCheck {
            r#type: Some(health_check::Type::Http as i32),
            http: Some(health_check::HttpCheckInfo {
                protocol: four,
                scheme: Some(match scheme {
                    Scheme::Http => "http".to_owned(),
                    Scheme::Https => "https".to_owned(),
                }),
                port: port(launch, container, endpoint),
                path: path.clone(),
                statuses: Vec::new(),
            }),
            ..base
        },
        Probe::Tcp { endpoint } => v1::HealthCheck {
            r#type: Some(health_check::Type::Tcp as i32),
            tcp: Some(health_check::TcpCheckInfo {
                protocol: four,
                port: port(launch, container, endpoint),
            }),
            ..base
        },
        Probe::Exec { command } => v1::HealthCheck {
            r#type: Some(health_check::Type::Command as i32),
            command: Some(in_container(command)),
            ..base
        },
    }
}

/// Marathon takes these and drops them.
pub(super) fn check(launch: &Launch<'_>, container: &Container, check: &Check) -> v1::CheckInfo {
    let base = v1::CheckInfo {
        delay_seconds: Some(check.delay_seconds.into()),
        interval_seconds: Some(check.interval_seconds.into()),
        timeout_seconds: Some(check.timeout_seconds.into()),
        ..Default::default()
    };
    match &check.probe {
        // A check of Mesos knows no scheme; the rules have refused https.
        Probe::Http { endpoint, path, .. } => v1::CheckInfo {
            r#type: Some(check_info::Type::Http as i32),
            http: Some(check_info::Http {
                port: port(launch, container, endpoint),
                path: path.clone(),
            }),
            ..base
        },
        Probe::Tcp { endpoint } => v1::CheckInfo {
            r#type: Some(check_info::Type::Tcp as i32),
            tcp: Some(check_info::Tcp {
                port: port(launch, container, endpoint),
            }),
            ..base
        },
        Probe::Exec { command } => v1::CheckInfo {
            r#type: Some(check_info::Type::Command as i32),
            command: Some(check_info::Command {
                command: in_container(command),
            }),
            ..base
        },
    }
}

/// Checks are made from inside. An endpoint without any port is refused by the executor, which names the field.
fn port(launch: &Launch<'_>, container: &Container, endpoint: &str) -> u32 {
    let endpoint = container.endpoints.iter().find(|known| known.name == endpoint);
    let port = endpoint.and_then(|endpoint| network::port_inside(launch, endpoint));
    port.map_or(0, u32::from)
}

fn in_container(command: &Command) -> v1::CommandInfo {
    match command {
        Command::Shell(text) => v1::CommandInfo {
            shell: Some(true),
            value: Some(text.clone()),
            ..Default::default()
        },
        Command::Argv(arguments) => v1::CommandInfo {
            shell: Some(false),
            value: arguments.first().cloned(),
            arguments: arguments.clone(),
            ..Default::default()
        },
    }
}
