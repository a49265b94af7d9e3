//! `podling-executor` is driven by what a real agent sent: the recorded environment, response header and events, with
//! only its addresses and directories exchanged. Of the acknowledgements the recorded ones are for somebody else's
//! updates and have to be ignored; the executor's own updates get their own.

use std::{
    collections::BTreeSet,
    fs::File,
    process::{Child, Command, ExitStatus, Stdio},
};

use podling::mesos::{
    codec::{Encoding, decode, encode},
    v1::{
        TaskState::{self, TaskKilled, TaskKilling, TaskRunning, TaskStarting},
        TaskStatus,
        executor::{Call, Event, call, event},
        task_status::Source,
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::recorded_agent::{PATIENCE, RecordedAgent, Request};

struct Executor {
    process: Child,
    encoding: Encoding,
    agent: RecordedAgent,
    told: Vec<TaskStatus>,
    sandbox: tempfile::TempDir,
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!(
                "{}",
                std::fs::read_to_string(self.sandbox.path().join("stderr")).unwrap_or_default()
            );
        }
    }
}

impl Executor {
    fn start(folder: &str, encoding: Encoding) -> Self {
        let agent = RecordedAgent::start(folder);
        let sandbox = tempfile::tempdir().unwrap();
        let file = format!(
            "{}/tests/fixtures/wire/{folder}/environment.txt",
            env!("CARGO_MANIFEST_DIR")
        );
        let recorded = std::fs::read_to_string(file).unwrap();
        let environment = recorded
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| {
                let value = match name {
                    "MESOS_DIRECTORY" | "MESOS_SANDBOX" | "PWD" => sandbox.path().to_str().unwrap().into(),
                    _ => value.replace("127.0.0.1:5051", &agent.address.to_string()),
                };
                (name, value)
            });
        let process = Command::new(env!("CARGO_BIN_EXE_podling-executor"))
            .env_clear()
            .envs(environment)
            .env(
                "PODLING_ENCODING",
                if encoding == Encoding::Json {
                    "json"
                } else {
                    "protobuf"
                },
            )
            .current_dir(sandbox.path())
            .stdin(Stdio::null())
            .stderr(File::create(sandbox.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Executor {
            process,
            encoding,
            agent,
            told: Vec::new(),
            sandbox,
        }
    }

    fn next_call(&mut self) -> Call {
        let request = self.agent.next();
        let call: Call = decode(&request.body, self.encoding).unwrap();
        is_as_an_agent_wants_it(&request, call.r#type(), self.encoding);
        assert_eq!(call.executor_id.value, "probe-executor");
        assert!(
            call.framework_id
                .value
                .starts_with("d624e5eb-0565-408a-82f8-07930aa756b2-004")
        );
        call
    }

    fn play(&mut self, records: std::ops::Range<usize>) {
        for place in records {
            let record = self.agent.records[place].clone();
            self.agent.play(&record);
        }
    }

    /// Takes and acknowledges updates until this task has told this state.
    fn wait_told(&mut self, task: &str, state: TaskState) {
        while !self.states(task).contains(&state) {
            let call = self.next_call();
            assert_eq!(call.r#type(), call::Type::Update);
            let status = call.update.unwrap().status;
            let acknowledged = event::Acknowledged {
                task_id: status.task_id.clone(),
                uuid: status.uuid.clone().unwrap(),
            };
            self.told.push(status);
            let event = Event {
                r#type: Some(event::Type::Acknowledged.into()),
                acknowledged: Some(acknowledged),
                ..Default::default()
            };
            let record = encode(&event, self.encoding);
            self.agent.play(&record);
        }
    }

    fn states(&self, task: &str) -> Vec<TaskState> {
        self.told
            .iter()
            .filter(|status| status.task_id.value == task)
            .map(TaskStatus::state)
            .collect()
    }

    fn end(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let ended = poll(
            &mut [PollFd::new(&process, PollFlags::IN)],
            Some(&PATIENCE.try_into().unwrap()),
        );
        assert_eq!(ended, Ok(1), "the executor goes on after everything was over");
        self.process.wait().unwrap()
    }
}

fn is_as_an_agent_wants_it(request: &Request, call: call::Type, encoding: Encoding) {
    assert_eq!(request.line, "POST /slave(1)/api/v1/executor HTTP/1.1");
    let header = |name: &str| {
        let mut values = request.headers.iter().filter_map(|header| {
            let (found, value) = header.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        });
        (values.next(), values.next())
    };
    assert_eq!(header("content-type"), (Some(encoding.media_type()), None));
    // Only what is to be answered with a body can be asked for in an encoding.
    let accept = (call == call::Type::Subscribe).then_some(encoding.media_type());
    assert_eq!(header("accept"), (accept, None));
    assert!(
        header("host")
            .0
            .is_some_and(|host| host.starts_with("127.0.0.1:")),
        "{request:?}"
    );
}

fn lives_through(folder: &str, encoding: Encoding) {
    let mut executor = Executor::start(folder, encoding);
    let types: Vec<_> = executor
        .agent
        .records
        .iter()
        .map(|record| decode::<Event>(record, encoding).unwrap().r#type())
        .collect();
    let place = |wanted| types.iter().position(|found| *found == wanted).unwrap();
    let (kill, shutdown) = (place(event::Type::Kill), place(event::Type::Shutdown));

    let call = executor.next_call();
    assert_eq!(call.r#type(), call::Type::Subscribe);
    let subscribe = call
        .subscribe
        .expect("an agent turns a SUBSCRIBE without it away");
    assert!(subscribe.unacknowledged_tasks.is_empty() && subscribe.unacknowledged_updates.is_empty());

    // SUBSCRIBED and LAUNCH_GROUP.
    executor.play(0..2);
    executor.wait_told("probe-task-0", TaskRunning);
    executor.wait_told("probe-task-1", TaskRunning);
    // Acknowledgements of nothing, a MESSAGE, KILL of the first task.
    executor.play(2..kill + 1);
    executor.wait_told("probe-task-0", TaskKilled);
    executor.wait_told("probe-task-1", TaskKilled);
    executor.play(kill + 1..shutdown + 1);
    let status = executor.end();
    assert!(status.success(), "{status}");

    assert_eq!(
        executor.states("probe-task-0"),
        [TaskStarting, TaskRunning, TaskKilling, TaskKilled]
    );
    let sibling = executor.states("probe-task-1");
    assert_eq!(sibling.first_chunk(), Some(&[TaskStarting, TaskRunning]));
    assert_eq!(sibling.last(), Some(&TaskKilled));
    let uuids: BTreeSet<_> = executor
        .told
        .iter()
        .map(|status| status.uuid.clone().unwrap())
        .collect();
    assert_eq!(
        uuids.len(),
        executor.told.len(),
        "every update has an id of its own"
    );
    for status in &executor.told {
        // What an agent turns away or drops.
        assert_eq!(status.uuid.as_ref().map(Vec::len), Some(16));
        assert_eq!(status.source(), Source::Executor);
        assert!(
            status
                .executor_id
                .as_ref()
                .is_none_or(|id| id.value == "probe-executor")
        );
        assert!(
            status
                .agent_id
                .as_ref()
                .is_none_or(|id| id.value == "d624e5eb-0565-408a-82f8-07930aa756b2-S0")
        );
    }
}

#[test]
fn a_real_agents_protobuf_stream_drives_our_executor() {
    lives_through("protobuf", Encoding::Protobuf);
}

#[test]
fn a_real_agents_json_stream_drives_our_executor() {
    lives_through("json", Encoding::Json);
}
