//! The scheduler API of the loopback master over plain sockets. What it decides is tested beside its core; here is what
//! only real connections and real executors can show.

mod conformance;
mod hostile;
mod life;

use std::{net::SocketAddr, time::Duration};

use podling::{
    loopback::{
        agent::CommandLine,
        master::{Access, Cluster, Options},
    },
    mesos::codec::Encoding,
};
use serde_json::{Value, json};

use crate::{
    Scratch,
    client::{Connection, Response, Stream, request},
};

const PATH: &str = "/api/v1/scheduler";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A cluster and the directory of its sandboxes.
struct Home {
    cluster: Cluster,
    _scratch: Scratch,
}

impl Home {
    fn new(agents: usize) -> Self {
        let scratch = Scratch::new();
        let cluster = Cluster::start(Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            agents,
            resources: "cpus:2;mem:512;disk:512;ports:[31000-31009]".to_owned(),
            default_executor: CommandLine::typed(env!("CARGO_BIN_EXE_podling-executor")),
            work_dir: scratch.0.clone(),
            executor_environment: Vec::new(),
            access: Access::default(),
        })
        .unwrap();
        Home {
            cluster,
            _scratch: scratch,
        }
    }

    fn connect(&self) -> Connection {
        Connection::to(self.cluster.address())
    }

    /// A whole exchange on a connection of its own.
    fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.connect().exchange(method, path, headers, body)
    }

    fn subscribe(&self, info: Value) -> Framework {
        Framework::subscribe(self, info)
    }

    /// One more framework is served as if nothing had been.
    fn still_serves(&self) {
        let mut framework = self.subscribe(json!({"user": "u", "name": "next"}));
        assert_eq!(framework.next("SUBSCRIBED")["type"], "SUBSCRIBED");
    }
}

/// A subscribed framework that speaks JSON.
struct Framework {
    id: String,
    stream_id: String,
    stream: Stream,
    calls: Connection,
}

impl Framework {
    fn subscribe(home: &Home, info: Value) -> Self {
        let mut call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}});
        if let Some(id) = info.get("id") {
            call["framework_id"] = id.clone();
        }
        let mut connection = home.connect();
        connection.write(&request("POST", PATH, &[JSON], call.to_string().as_bytes()));
        let head = connection.head().unwrap();
        assert_eq!(head.status, 200);
        let stream_id = head.headers["mesos-stream-id"].clone();
        let mut framework = Framework {
            id: String::new(),
            stream_id,
            stream: Stream::new(connection, head, Encoding::Json),
            calls: home.connect(),
        };
        let first = framework.any();
        if first["type"] == "SUBSCRIBED" {
            framework.id = first["subscribed"]["framework_id"]["value"]
                .as_str()
                .unwrap()
                .to_owned();
        }
        framework
    }

    fn any(&mut self) -> Value {
        serde_json::from_slice(&self.stream.next_record().unwrap()).unwrap()
    }

    /// The next event of this type; others are skipped.
    fn next(&mut self, kind: &str) -> Value {
        if kind == "SUBSCRIBED" && !self.id.is_empty() {
            return json!({"type": kind});
        }
        loop {
            let event = self.any();
            if event["type"] == kind {
                return event;
            }
        }
    }

    fn next_offer(&mut self) -> Value {
        self.next("OFFERS")["offers"]["offers"][0].clone()
    }

    /// The next status of a task in this state.
    fn next_state(&mut self, task: &str, state: &str) -> Value {
        loop {
            let status = self.next("UPDATE")["update"]["status"].clone();
            if status["uuid"].is_string() {
                let acknowledge = json!({"agent_id": status["agent_id"], "task_id": status["task_id"],
                    "uuid": status["uuid"]});
                self.call("ACKNOWLEDGE", Some(acknowledge));
            }
            if status["task_id"]["value"] == task && status["state"] == state {
                return status;
            }
        }
    }

    fn post(&mut self, stream_id: Option<&str>, kind: &str, body: Option<Value>) -> Response {
        let mut call = json!({"type": kind, "framework_id": {"value": self.id}});
        if let Some(body) = body {
            call[kind.to_lowercase()] = body;
        }
        let mut headers = vec![JSON];
        headers.extend(stream_id.map(|id| ("Mesos-Stream-Id", id)));
        self.calls
            .exchange("POST", PATH, &headers, call.to_string().as_bytes())
    }

    fn call(&mut self, kind: &str, body: Option<Value>) {
        let stream_id = self.stream_id.clone();
        let response = self.post(Some(&stream_id), kind, body);
        assert_eq!((response.status, response.body.as_str()), (202, ""), "{kind}");
    }

    /// Launches a group of shell commands, by name, on this offer.
    fn launch(&mut self, offer: &Value, executor: &str, tasks: &[(&str, &str)]) {
        let task = |(id, command): &(&str, &str)| {
            json!({"name": id, "task_id": {"value": id}, "agent_id": offer["agent_id"],
                "resources": scalars(0.1), "command": {"shell": true, "value": command}})
        };
        let tasks: Vec<Value> = tasks.iter().map(task).collect();
        let executor =
            json!({"type": "DEFAULT", "executor_id": {"value": executor}, "resources": scalars(0.1)});
        let operation = json!({"type": "LAUNCH_GROUP",
            "launch_group": {"executor": executor, "task_group": {"tasks": tasks}}});
        let accept = json!({"offer_ids": [offer["id"]], "operations": [operation],
            "filters": {"refuse_seconds": 0.0}});
        self.call("ACCEPT", Some(accept));
    }
}

fn scalars(cpus: f64) -> Value {
    let scalar = |name: &str, value: f64| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}});
    json!([scalar("cpus", cpus), scalar("mem", 32.0), scalar("disk", 1.0)])
}

fn info(failover_timeout: f64) -> Value {
    json!({"user": "u", "name": "n", "failover_timeout": failover_timeout,
        "capabilities": [{"type": "PARTITION_AWARE"}]})
}

/// Until this is so; a little later is fine, never is not.
fn eventually(what: &str, is: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
