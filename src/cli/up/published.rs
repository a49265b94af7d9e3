//! Where pods answer, for whoever wants to try them.

use crate::{
    pod::{InstanceId, Pod, PodId, task_group::HostPorts},
    scheduler::{
        core::{Condition, Notice},
        service::{Handle, Unavailable},
    },
};

/// What an instance that runs by now has published on this machine, one line for each endpoint; none of another notice.
pub(super) async fn by(
    scheduler: &Handle,
    notice: &Notice,
) -> Result<Option<(PodId, InstanceId, Vec<String>)>, Unavailable> {
    let Notice::InstanceChanged {
        pod,
        instance,
        condition: Condition::Running,
        ..
    } = notice
    else {
        return Ok(None);
    };
    let (pod, instance) = (pod.clone(), instance.clone());
    scheduler
        .ask(move |core, _| {
            let definition = core.definition(&pod)?;
            let placed = core.instance(&instance)?.placed.as_ref()?;
            let lines = lines(definition, &placed.host_ports);
            (!lines.is_empty()).then_some((pod, instance, lines))
        })
        .await
}

fn lines(pod: &Pod, ports: &HostPorts) -> Vec<String> {
    let endpoints = pod.containers.iter().flat_map(|container| {
        let name = &container.name;
        container.endpoints.iter().map(move |endpoint| (name, endpoint))
    });
    endpoints
        .filter_map(|(container, endpoint)| {
            let port = ports.get(&endpoint.name)?;
            let speaks = |protocol: &str| endpoint.protocol.iter().any(|one| one == protocol);
            let mut ways = Vec::new();
            if speaks("https") {
                ways.push(format!("https://127.0.0.1:{port}/"));
            } else if speaks("http") || endpoint.name.contains("http") || endpoint.name.contains("web") {
                ways.push(format!("http://127.0.0.1:{port}/"));
            } else if speaks("tcp") || endpoint.protocol.is_empty() {
                ways.push(format!("127.0.0.1:{port}"));
            }
            if speaks("udp") {
                ways.push(format!("127.0.0.1:{port} by UDP"));
            }
            Some(format!(
                "endpoint {} of {container}: {}",
                endpoint.name,
                ways.join(", ")
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Profile;

    #[test]
    fn endpoints_are_told_as_one_can_use_them() {
        let definition = serde_json::json!({"id": "/p", "networks": [{"mode": "host"}], "containers": [{"name": "c",
            "resources": {"cpus": 0.1, "mem": 32}, "exec": {"command": {"shell": "x"}}, "endpoints": [
            {"name": "http", "hostPort": 0, "protocol": ["tcp"]}, {"name": "dns", "hostPort": 53, "protocol": ["udp", "tcp"]},
            {"name": "db", "hostPort": 5432}]}]});
        let pod = crate::pod::read(&definition, &Profile::default()).unwrap().pod;
        let ports = [("http", 31005), ("dns", 53)].map(|(name, port)| (name.to_owned(), port));
        assert_eq!(
            lines(&pod, &ports.into_iter().collect()),
            [
                "endpoint http of c: http://127.0.0.1:31005/",
                "endpoint dns of c: 127.0.0.1:53, 127.0.0.1:53 by UDP",
            ]
        );
    }
}
