use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::mesos::{
    fuzz::{self, Entropy},
    table::Kind,
    v1::{
        CapabilityInfo, CommandInfo, ContainerId, DurationInfo, HealthCheck, NetworkInfo, Port, Resource,
        TaskId, TaskInfo, TaskState, TaskStatus, agent, container_info,
        executor::{Call, Event, event},
        task_status, value,
    },
    wire::{Reader, Value, Writer},
};

/// What the real agent sent and was sent, under `tests/fixtures/wire`.
fn samples(folder: &str, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/tests/fixtures/wire/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .map(|path| (path.to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn protobuf_sample_survives<M: Message + PartialEq + std::fmt::Debug>(name: &str, bytes: &[u8]) {
    let message: M = decode(bytes, Encoding::Protobuf).unwrap();
    assert_eq!(
        encode(&message, Encoding::Protobuf),
        known_fields(M::TABLE, bytes),
        "{name}"
    );
    let json = encode(&message, Encoding::Json);
    assert_eq!(decode::<M>(&json, Encoding::Json).unwrap(), message, "{name}");
}

/// The bytes without the one field that agents send though v1 does not have it (an old AgentInfo.checkpoint).
fn known_fields(table: &'static MessageTable, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut known) = (Reader(bytes), Writer::default());
    while let Some((number, value)) = reader.field().unwrap() {
        let kind = table.by_number(number).map(|(_, field)| field.kind);
        match (kind, value) {
            (None, Value::Varint(1)) if (table.name, number) == ("mesos.v1.AgentInfo", 7) => {}
            (Some(Kind::Message(inner)), Value::Bytes(bytes)) => {
                known.bytes_field(number, &known_fields(inner, bytes))
            }
            (Some(_), Value::Bytes(bytes)) => known.bytes_field(number, bytes),
            (Some(_), Value::Varint(value)) => known.varint_field(number, value),
            (Some(_), Value::Fixed64(bits)) => known.double_field(number, f64::from_bits(bits)),
            unexpected => panic!("{}: field {number}: {unexpected:?}", table.name),
        }
    }
    known.0
}

/// Compared as JSON values: order of members and spaces carry no meaning.
fn json_sample_survives<M: Message + PartialEq + std::fmt::Debug>(name: &str, text: &[u8], defaults: bool) {
    let message: M = decode(text, Encoding::Json).unwrap();
    let printed = if defaults {
        encode_with_defaults(&message, Encoding::Json)
    } else {
        encode(&message, Encoding::Json)
    };
    let mut original: serde_json::Value = serde_json::from_slice(text).unwrap();
    drop_empty_lists(&mut original);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&printed).unwrap(),
        original,
        "{name}"
    );
    let wire = encode(&message, Encoding::Protobuf);
    assert_eq!(decode::<M>(&wire, Encoding::Protobuf).unwrap(), message, "{name}");
}

fn drop_empty_lists(value: &mut serde_json::Value) {
    if let serde_json::Value::Object(members) = value {
        members.retain(|_, member| *member != serde_json::json!([]));
        members.values_mut().for_each(drop_empty_lists);
    }
}

#[test]
fn what_a_real_agent_sent_and_took_is_not_changed() {
    for (name, bytes) in samples("protobuf", "call-") {
        protobuf_sample_survives::<Call>(&name, &bytes);
    }
    for (name, bytes) in samples("protobuf", "event-") {
        protobuf_sample_survives::<Event>(&name, &bytes);
    }
    for (name, text) in samples("json", "call-") {
        json_sample_survives::<Call>(&name, &text, false);
    }
    for (name, text) in samples("json", "event-") {
        json_sample_survives::<Event>(&name, &text, true);
    }
}

#[test]
fn every_message_survives_both_encodings() {
    macro_rules! try_one {
        ($message:ty) => {
            let mut runner = TestRunner::new(Config {
                cases: 64,
                failure_persistence: None,
                ..Config::default()
            });
            runner
                .run(&vec(any::<u8>(), 0..400), |bytes| {
                    fuzz::survives::<$message>(&fuzz::arbitrary(<$message>::TABLE, &mut Entropy(&bytes)));
                    Ok(())
                })
                .unwrap();
        };
    }
    fuzz::each_message!(try_one);
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_survive(data in vec(any::<u8>(), 0..200)) {
        fuzz::protobuf(&data);
        fuzz::json(&data);
    }

    #[test]
    fn damaged_messages_are_refused_or_survive(
        seed in vec(any::<u8>(), 0..400),
        place in any::<Index>(),
        byte: u8,
        cut in any::<Index>(),
    ) {
        for table in [Call::TABLE, Event::TABLE] {
            let mut wire = fuzz::arbitrary(table, &mut Entropy(&seed));
            let mut text = Vec::new();
            json::print(table, &wire, Defaults::Printed, &mut text);
            for (bytes, target) in [(&mut wire, fuzz::protobuf as fn(&[u8])), (&mut text, fuzz::json)] {
                if bytes.is_empty() {
                    continue;
                }
                target(&bytes[..cut.index(bytes.len())]);
                let place = place.index(bytes.len());
                bytes[place] = byte;
                target(bytes);
            }
        }
    }
}

/// `{...}` in, the same message out in each form.
fn json<M: Message>(text: &str) -> Result<M, String> {
    decode(text.as_bytes(), Encoding::Json).map_err(|error| error.to_string())
}

#[test]
fn numbers_are_read_as_mesos_reads_them() {
    let int64 =
        |text: &str| json::<DurationInfo>(&format!(r#"{{"nanoseconds":{text}}}"#)).map(|it| it.nanoseconds);
    for (text, value) in [
        ("5", 5),
        (r#""5""#, 5),
        (r#""-7""#, -7),
        ("5.0", 5),
        ("5e3", 5000),
        ("-0", 0),
        ("9223372036854775807", i64::MAX),
        (r#""9223372036854775807""#, i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        assert_eq!(int64(text), Ok(value), "{text}");
    }
    for text in [
        "5.5",
        "1e19",
        "1e300",
        "-1e300",
        r#""5.0""#,
        r#""""#,
        r#"" 5""#,
        r#""five""#,
        "9223372036854775808",
        "true",
        "[5]",
        "{}",
    ] {
        let error = int64(text).unwrap_err();
        assert!(error.contains(".nanoseconds: "), "{error}");
        assert!(
            error.contains("expected a whole number of 64 bits at line 1 column"),
            "{error}"
        );
    }

    let uint32 = |text: &str| json::<Port>(&format!(r#"{{"number":{text}}}"#)).map(|it| it.number);
    assert_eq!(uint32("4294967295"), Ok(u32::MAX));
    for text in ["4294967296", "-1", r#""-1""#, "-1.0", "1e10"] {
        assert!(uint32(text).is_err(), "{text}");
    }

    let double = |text: &str| json::<value::Scalar>(&format!(r#"{{"value":{text}}}"#)).map(|it| it.value);
    for (text, value) in [
        ("1", 1.0),
        ("-1", -1.0),
        ("1795255245.1237187", 1795255245.1237187),
        ("18446744073709551615", u64::MAX as f64),
        (r#""Infinity""#, f64::INFINITY),
        (r#""-Infinity""#, f64::NEG_INFINITY),
    ] {
        assert_eq!(double(text), Ok(value), "{text}");
    }
    assert!(double(r#""NaN""#).unwrap().is_nan());
    for text in [r#""1.5""#, r#""infinity""#, "NaN", "Infinity", "1e400", "true"] {
        assert!(double(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_absent_null_or_unknown_is_unset() {
    let command = CommandInfo {
        value: Some("true".into()),
        ..Default::default()
    };
    for text in [
        r#"{"value":"true"}"#,
        r#"{"value":"true","user":null,"shell":null,"uris":null,"environment":null}"#,
        r#"{"value":"true","uris":[],"arguments":[null]}"#,
        r#"{"value":"true","zebra":{"deep":[1,{"x":"\ud83d\ude00"}]},"Value":5,"zebra":1}"#,
        " {\n\t\"value\" : \"true\" } ",
    ] {
        assert_eq!(json::<CommandInfo>(text), Ok(command.clone()), "{text}");
    }
    // camelCase is as unknown as any other name.
    let env = json::<TaskInfo>(
        r#"{"name":"a","taskId":{"value":"x"},"task_id":{"value":"y"},"agent_id":{"value":"z"}}"#,
    );
    assert_eq!(env.unwrap().task_id.value, "y");
}

#[test]
fn an_unknown_name_in_an_optional_enum_is_unset_and_in_a_required_one_an_error() {
    assert_eq!(json::<Event>(r#"{"type":"SUSPEND"}"#), Ok(Event::default()));
    let status = r#"{"task_id":{"value":"t"},"state":"TASK_RUNNING","reason":"REASON_BOREDOM","source":"SOURCE_EXECUTOR"}"#;
    let status = json::<TaskStatus>(status).unwrap();
    assert_eq!(
        (status.reason, status.source()),
        (None, task_status::Source::Executor)
    );

    let error = json::<TaskStatus>(r#"{"task_id":{"value":"t"},"state":"TASK_ASLEEP"}"#).unwrap_err();
    assert!(
        error.starts_with(
            "not a mesos.v1.TaskStatus: .state: `TASK_ASLEEP` is not a value of mesos.v1.TaskState"
        ),
        "{error}"
    );
    for state in ["1", "1.0", "true", "[]", "{}"] {
        let error =
            json::<TaskStatus>(&format!(r#"{{"task_id":{{"value":"t"}},"state":{state}}}"#)).unwrap_err();
        assert!(
            error.contains(".state: ") && error.contains("expected the name of an enum's value"),
            "{error}"
        );
    }
    let error = json::<TaskStatus>(r#"{"task_id":{"value":"t"},"state":null}"#).unwrap_err();
    assert!(error.contains("missing required field `state`"), "{error}");
}

#[test]
fn bytes_are_base64_with_padding() {
    let data = |text: &str| json::<event::Message>(&format!(r#"{{"data":"{text}"}}"#)).map(|it| it.data);
    assert_eq!(data(""), Ok(vec![]));
    assert_eq!(data("+/8="), Ok(vec![0xfb, 0xff]));
    for text in ["+/8", "-_8=", "+/8= ", "+/9=", "====", "é"] {
        let error = data(text).unwrap_err();
        assert!(error.contains(".data: not base64 with padding"), "{error}");
    }
}

#[test]
fn maps_are_objects_also_where_prost_leaves_zeros_out() {
    let text = r#"{"name":"a","task_id":{"value":"t"},"agent_id":{"value":"s"},"limits":{"":{"value":0.0},"cpus":{"value":"Infinity"}}}"#;
    let task: TaskInfo = json(text).unwrap();
    assert_eq!(task.limits[""], value::Scalar { value: 0.0 });
    assert_eq!(task.limits["cpus"], value::Scalar { value: f64::INFINITY });
    let members = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    assert_eq!(members(&encode(&task, Encoding::Json)), members(text.as_bytes()));

    let wrong =
        r#"{"name":"a","task_id":{"value":"t"},"agent_id":{"value":"s"},"limits":{"cpus":{"valu":1}}}"#;
    let error = json::<TaskInfo>(wrong).unwrap_err();
    assert!(
        error.contains(r#".limits["cpus"]: missing required field `value`"#),
        "{error}"
    );
    let absent = r#"{"name":"a","task_id":{"value":"t"},"agent_id":{"value":"s"},"limits":{"cpus":null}}"#;
    assert!(json::<TaskInfo>(absent).unwrap().limits.is_empty());
}

#[test]
fn what_is_printed_is_what_agents_print() {
    let command = CommandInfo {
        value: Some("a\u{1}\"é".into()),
        ..Default::default()
    };
    assert_eq!(encode(&command, Encoding::Json), r#"{"value":"a\u0001\"é"}"#);
    assert_eq!(
        encode_with_defaults(&command, Encoding::Json),
        r#"{"value":"a\u0001\"é","shell":true}"#
    );

    let check = HealthCheck {
        consecutive_failures: Some(7),
        ..Default::default()
    };
    assert_eq!(
        encode_with_defaults(&check, Encoding::Json),
        r#"{"consecutive_failures":7,"delay_seconds":15.0,"interval_seconds":10.0,"timeout_seconds":20.0,"grace_period_seconds":10.0}"#
    );
    // `role` has a default too, but is deprecated.
    let resource = Resource {
        name: "mem".into(),
        r#type: value::Type::Scalar.into(),
        ..Default::default()
    };
    assert_eq!(
        encode_with_defaults(&resource, Encoding::Json),
        r#"{"name":"mem","type":"SCALAR"}"#
    );
    let docker = container_info::DockerInfo {
        image: "a".into(),
        ..Default::default()
    };
    assert_eq!(
        encode_with_defaults(&docker, Encoding::Json),
        r#"{"image":"a","network":"HOST","privileged":false}"#
    );
    for (value, text) in [
        (64.0, "64.0"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (f64::INFINITY, r#""Infinity""#),
    ] {
        let printed = encode(&value::Scalar { value }, Encoding::Json);
        assert_eq!(printed, format!(r#"{{"value":{text}}}"#));
    }
    let range = value::Range {
        begin: u64::MAX,
        end: 0,
    };
    assert_eq!(
        encode(&range, Encoding::Json),
        r#"{"begin":18446744073709551615,"end":0}"#
    );
    assert_eq!(
        encode_with_defaults(&command, Encoding::Protobuf),
        encode(&command, Encoding::Protobuf)
    );
}

#[test]
fn a_number_without_a_name_is_printed_as_unset() {
    let status = TaskStatus {
        reason: Some(9999),
        ..Default::default()
    };
    assert!(!String::from_utf8_lossy(&encode(&status, Encoding::Json)).contains("reason"));
    let some = capabilities(&[9999, 1006, 9999, 1007]);
    assert_eq!(
        encode(&some, Encoding::Json),
        r#"{"capabilities":["SETGID","SETUID"]}"#
    );
    assert_eq!(encode(&capabilities(&[9999]), Encoding::Json), "{}");
}

fn capabilities(numbers: &[i32]) -> CapabilityInfo {
    CapabilityInfo {
        capabilities: numbers.to_vec(),
    }
}

#[test]
fn an_error_names_the_place() {
    let call = |labels: &str| {
        format!(
            r#"{{"type":"UPDATE","executor_id":{{"value":"e"}},"framework_id":{{"value":"f"}},
                "update":{{"status":{{"task_id":{{"value":"t"}},"state":"TASK_RUNNING","labels":{{"labels":{labels}}}}}}}}}"#
        )
    };
    for (labels, expected) in [
        (
            r#"[{"key":5}]"#,
            ".update.status.labels.labels[0].key: invalid type: integer `5`, expected a string",
        ),
        (
            r#"[{"key":"a"},{"value":"v"}]"#,
            ".update.status.labels.labels[1]: missing required field `key`",
        ),
        (
            r#"[{"key":"a"},[]]"#,
            ".update.status.labels.labels[1]: invalid type: sequence, expected an object",
        ),
        (
            r#"{"key":"a"}"#,
            ".update.status.labels.labels: invalid type: map, expected an array",
        ),
        (
            r#"[{"key":"a","key":"b"}]"#,
            ".update.status.labels.labels[0].key: given twice",
        ),
        (
            r#"[{"key":"a"}"#,
            ".update.status.labels.labels[1]: expected `,` or `]`",
        ),
    ] {
        let error = decode::<Call>(call(labels).as_bytes(), Encoding::Json).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("not a mesos.v1.executor.Call: {expected}")),
            "{error}"
        );
        assert!(error.to_string().contains(" at line 2 column "), "{error}");
    }
    assert_eq!(
        decode::<Call>(b"{}", Encoding::Json).unwrap_err().to_string(),
        "not a mesos.v1.executor.Call: missing required fields `executor_id`, `framework_id` at line 1 column 2"
    );

    // The same places in protobuf.
    let mut label = Writer::default();
    label.bytes_field(1, b"k");
    let mut labels = Writer::default();
    labels.bytes_field(1, &label.0);
    labels.bytes_field(1, &[]);
    let mut status = Writer::default();
    status.bytes_field(12, &labels.0);
    let error = decode::<TaskStatus>(&status.0, Encoding::Protobuf).unwrap_err();
    assert_eq!(error.path(), ".labels.labels[1]");
    assert_eq!(
        error.to_string(),
        "not a mesos.v1.TaskStatus: .labels.labels[1]: missing required field `key`"
    );
    let error = decode::<Call>(b"", Encoding::Protobuf).unwrap_err().to_string();
    assert_eq!(
        error,
        "not a mesos.v1.executor.Call: missing required fields `executor_id`, `framework_id`"
    );
}

#[test]
fn an_error_is_short_whatever_came() {
    let long = "x".repeat(1 << 20);
    for text in [
        format!(r#"{{"nanoseconds":"{long}"}}"#),
        format!(r#"{{"nanoseconds":5,"{long}"}}"#),
        long.clone(),
    ] {
        let error = json::<DurationInfo>(&text).unwrap_err();
        assert!(error.len() < 400, "{} bytes", error.len());
    }
    let task = format!(r#"{{"limits":{{"{long}":{{}}}}}}"#);
    let error = json::<TaskInfo>(&task).unwrap_err();
    assert!(
        error.len() < 400 && error.contains("missing required field `value`"),
        "{error}"
    );
}

#[test]
fn nesting_has_a_limit_in_both_encodings() {
    let nested = |depth: usize| {
        let mut id = ContainerId {
            value: "x".into(),
            parent: None,
        };
        for _ in 1..depth {
            id = ContainerId {
                value: "x".into(),
                parent: Some(Box::new(id)),
            };
        }
        id
    };
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let deepest = nested(wire::MAX_DEPTH);
        assert_eq!(
            decode::<ContainerId>(&encode(&deepest, encoding), encoding).as_ref(),
            Ok(&deepest)
        );
        let error =
            decode::<ContainerId>(&encode(&nested(wire::MAX_DEPTH + 1), encoding), encoding).unwrap_err();
        assert!(error.to_string().contains("nested more than 100 deep"), "{error}");
    }
    for hostile in [
        r#"{"parent":"#.repeat(200_000),
        format!(r#"{{"unknown":{}"#, "[".repeat(1_000_000)),
        format!(r#"{{"value":{}"#, "[".repeat(1_000_000)),
        r#"{"unknown":"#.repeat(200_000),
    ] {
        assert!(decode::<ContainerId>(hostile.as_bytes(), Encoding::Json).is_err());
    }
    let mut wire = vec![];
    for _ in 0..2000 {
        let mut outer = Writer::default();
        outer.bytes_field(2, &wire);
        wire = outer.0;
    }
    let error = decode::<ContainerId>(&wire, Encoding::Protobuf)
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("nested more than 100 deep"), "{error}");
}

#[test]
fn malformed_protobuf_is_refused_with_its_fault() {
    let nanoseconds = |bytes: &[u8]| decode::<DurationInfo>(bytes, Encoding::Protobuf);
    let overlong = |last: u8| [&[0x08][..], &[0xff; 9], &[last]].concat();
    assert_eq!(nanoseconds(&overlong(1)).unwrap().nanoseconds, -1);
    for (bytes, fault) in [
        (&[][..], "missing required field `nanoseconds`"),
        (&[0x08], ".nanoseconds"),
        (&[0x08, 0x80], "the message ends too early"),
        (&overlong(2), "a number has more than 64 bits"),
        (&overlong(0x81), "a number has more than 64 bits"),
        (
            &[0x0a, 0x01, 0x00],
            ".nanoseconds: expected a whole number of 64 bits, but the wire type does not fit",
        ),
        (
            &[0x0d, 0, 0, 0, 0],
            ".nanoseconds: expected a whole number of 64 bits, but the wire type does not fit",
        ),
        (&[0x0b, 0x0c], "wire type 3 is not in use"),
        (&[0x0e], "wire type 6 is not in use"),
        (&[0x00, 0x00], "field number 0 is not possible"),
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "field number",
        ),
        (
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "the message ends too early",
        ),
        (
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00],
            "the message ends too early",
        ),
    ] {
        let error = nanoseconds(bytes).unwrap_err().to_string();
        let expected = if fault == ".nanoseconds" {
            "the message ends too early"
        } else {
            fault
        };
        assert!(error.contains(expected), "{bytes:02x?}: {error}");
    }
    // Unknown fields of every other wire type are passed over.
    let unknown = [
        &[0x08, 5, 0x10, 1, 0x19][..],
        &[0; 8],
        &[0x22, 1, 0, 0x2d, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(nanoseconds(&unknown).unwrap().nanoseconds, 5);

    let error = decode::<TaskId>(&[0x0a, 0x02, 0xc3, 0x28], Encoding::Protobuf)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "not a mesos.v1.TaskID: .value: the text is not UTF-8");
    let error = json::<TaskId>("{\"value\":\"\\ud800\"}").unwrap_err();
    assert!(error.contains(".value: unexpected end of hex escape"), "{error}");
    let error = decode::<TaskId>(b"{\"value\":\"\xc3\x28\"}", Encoding::Json)
        .unwrap_err()
        .to_string();
    assert!(error.contains(".value: invalid unicode code point"), "{error}");
}

#[test]
fn a_required_enum_with_a_number_nobody_knows_is_missing() {
    let status = |state: u64| {
        let mut wire = Writer::default();
        wire.bytes_field(1, b"\x0a\x01t");
        wire.varint_field(2, state);
        decode::<TaskStatus>(&wire.0, Encoding::Protobuf).map_err(|error| error.to_string())
    };
    assert_eq!(status(1).unwrap().state(), TaskState::TaskRunning);
    assert_eq!(
        status(77),
        Err("not a mesos.v1.TaskStatus: missing required field `state`".into())
    );
    let twice = [&[0x0a, 0x03, 0x0a, 0x01, b't', 0x10, 1][..], &[0x10, 77]].concat();
    assert!(
        decode::<TaskStatus>(&twice, Encoding::Protobuf).is_err(),
        "the last value counts"
    );
    // In an optional one it reads as the first value: an event nobody knows is UNKNOWN.
    let event: Event = decode(&[0x08, 77], Encoding::Protobuf).unwrap();
    assert_eq!(event.r#type(), event::Type::Unknown);
}

#[test]
fn repeated_numbers_may_come_packed() {
    let info: CapabilityInfo = decode(&[0x0a, 0x04, 0xee, 0x07, 0xef, 0x07], Encoding::Protobuf).unwrap();
    assert_eq!(info, capabilities(&[1006, 1007]));
    let cut = decode::<CapabilityInfo>(&[0x0a, 0x03, 0xee, 0x07, 0xef], Encoding::Protobuf).unwrap_err();
    assert_eq!(
        cut.to_string(),
        "not a mesos.v1.CapabilityInfo: .capabilities[0]: the message ends too early"
    );
}

#[test]
fn messages_inside_one_are_counted() {
    // Two bytes each on the wire.
    let wire = [0x0a, 0x00].repeat(wire::MAX_MESSAGES);
    let error = decode::<agent::response::GetContainers>(&wire, Encoding::Protobuf)
        .unwrap_err()
        .to_string();
    assert!(error.contains("missing required"), "{error}");
    let wire = [0x2a, 0x00].repeat(wire::MAX_MESSAGES);
    let error = decode::<NetworkInfo>(&wire, Encoding::Protobuf)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("more than 4194304 messages inside one"),
        "{error}"
    );

    let error = decode::<TaskInfo>(&vec![0; MAX_MESSAGE + 1], Encoding::Protobuf)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "not a mesos.v1.TaskInfo: 67108865 bytes are more than the 67108864 allowed"
    );
}
