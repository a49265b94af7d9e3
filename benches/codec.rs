//! What one message costs in each encoding: the status update that every state change sends, and the LAUNCH_GROUP of
//! ten members that starts a pod. `cargo bench --bench codec`

use divan::{Bencher, black_box, counter::BytesCount};
use podling::mesos::{
    codec::{Encoding, Message, decode, encode},
    recordio::{Decoder, frame},
    v1::{
        CommandInfo, Environment, ExecutorInfo, Label, Labels, Resource, TaskGroupInfo, TaskInfo, TaskState,
        TaskStatus, environment,
        executor::{Call, Event, call, event},
        executor_info, task_status, value,
    },
};

fn main() {
    divan::main();
}

const ENCODINGS: [Encoding; 2] = [Encoding::Protobuf, Encoding::Json];

#[divan::bench(args = ENCODINGS)]
fn status_update_encode(bencher: Bencher, encoding: Encoding) {
    encoding_of(bencher, &update(), encoding);
}

#[divan::bench(args = ENCODINGS)]
fn status_update_decode(bencher: Bencher, encoding: Encoding) {
    decoding_of(bencher, &update(), encoding);
}

#[divan::bench(args = ENCODINGS)]
fn launch_group_of_10_encode(bencher: Bencher, encoding: Encoding) {
    encoding_of(bencher, &launch_group(10), encoding);
}

#[divan::bench(args = ENCODINGS)]
fn launch_group_of_10_decode(bencher: Bencher, encoding: Encoding) {
    decoding_of(bencher, &launch_group(10), encoding);
}

/// Chunks as they come from a socket, and the worst case.
#[divan::bench(args = [1, 1460, 65536])]
fn recordio(bencher: Bencher, chunk: usize) {
    let record = frame(&encode(&launch_group(10), Encoding::Protobuf));
    let stream: Vec<u8> = record.repeat(100);
    bencher.counter(BytesCount::of_slice(&stream)).bench(|| {
        let mut decoder = Decoder::new(1 << 20);
        let mut records = 0;
        for chunk in stream.chunks(chunk) {
            decoder.push(chunk);
            while let Ok(Some(record)) = decoder.next_record() {
                black_box(record);
                records += 1;
            }
        }
        assert_eq!(records, 100);
    });
}

fn encoding_of<M: Message>(bencher: Bencher, message: &M, encoding: Encoding) {
    bencher
        .counter(BytesCount::of_slice(&encode(message, encoding)))
        .bench_local(|| encode(black_box(message), encoding));
}

fn decoding_of<M: Message>(bencher: Bencher, message: &M, encoding: Encoding) {
    let bytes = encode(message, encoding);
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| decode::<M>(black_box(&bytes), encoding));
}

fn update() -> Call {
    let status = TaskStatus {
        task_id: podling::mesos::v1::TaskId {
            value: "web.instance-8c5a.nginx".into(),
        },
        state: TaskState::TaskRunning.into(),
        source: Some(task_status::Source::Executor.into()),
        uuid: Some(vec![7; 16]),
        timestamp: Some(1795255245.1237187),
        healthy: Some(true),
        labels: Some(labels()),
        ..Default::default()
    };
    let mut call = Call {
        r#type: Some(call::Type::Update.into()),
        update: Some(call::Update { status }),
        ..Default::default()
    };
    call.executor_id.value = "instance-8c5a".into();
    call.framework_id.value = "d624e5eb-0565-408a-82f8-07930aa756b2-0041".into();
    call
}

fn launch_group(members: usize) -> Event {
    let tasks = (0..members).map(task).collect();
    Event {
        r#type: Some(event::Type::LaunchGroup.into()),
        launch_group: Some(event::LaunchGroup {
            task_group: TaskGroupInfo { tasks },
        }),
        ..Default::default()
    }
}

/// As large as a real one: the agent repeats the executor in every task.
fn task(number: usize) -> TaskInfo {
    let variables = (0..12)
        .map(|number| environment::Variable {
            name: format!("SETTING_{number}"),
            value: Some("a value of the usual length".into()),
            ..Default::default()
        })
        .collect();
    let executor = ExecutorInfo {
        r#type: Some(executor_info::Type::Custom.into()),
        resources: resources(),
        labels: Some(labels()),
        data: Some(br#"{"podling":1,"onFinish":"kill"}"#.as_slice().into()),
        ..Default::default()
    };
    let mut task = TaskInfo {
        name: format!("member-{number}"),
        resources: resources(),
        command: Some(CommandInfo {
            value: Some("exec /usr/bin/server --listen 0.0.0.0:8080".into()),
            environment: Some(Environment { variables }),
            ..Default::default()
        }),
        labels: Some(labels()),
        executor: Some(executor),
        ..Default::default()
    };
    task.task_id.value = format!("web.instance-8c5a.member-{number}");
    task.agent_id.value = "d624e5eb-0565-408a-82f8-07930aa756b2-S0".into();
    task
}

fn labels() -> Labels {
    let label = |key: &str, value: &str| Label {
        key: key.into(),
        value: Some(value.into()),
    };
    Labels {
        labels: vec![label("team", "storefront"), label("tier", "frontend")],
    }
}

fn resources() -> Vec<Resource> {
    [("cpus", 0.5), ("mem", 128.0), ("disk", 0.0)]
        .map(|(name, value)| Resource {
            name: name.into(),
            r#type: value::Type::Scalar.into(),
            scalar: Some(value::Scalar { value }),
            ..Default::default()
        })
        .into()
}
