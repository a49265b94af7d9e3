//! What an agent can be told to do badly (wire file, section 18), and how that looks on the wire.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::mesos::{
    codec::{self, Encoding},
    v1::{FrameworkInfo, TaskState, executor::Event, framework_info},
};

/// An enum number and a field number that no version of the protocol has.
const TOMORROW: i32 = 9999;
const NAME_OF_TOMORROW: &str = "SOMETHING_OF_TOMORROW";

/// How records are cut into HTTP chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chunks {
    #[default]
    OnePerRecord,
    /// A new chunk after this many bytes.
    Every(usize),
    /// All records that are ready share a chunk.
    Coalesced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckFault {
    /// Not acknowledged, however often it comes.
    Never,
    /// The first acknowledgement gets lost.
    LoseFirst,
}

#[derive(Debug, Clone)]
pub(super) struct AckRule {
    pub task: Option<String>,
    pub states: Vec<TaskState>,
    pub fault: AckFault,
}

/// All switches; the default is an honest agent.
#[derive(Debug, Clone, Default)]
pub(super) struct Mischief {
    /// Given to the first SUBSCRIBE calls, one each.
    pub subscribe_answers: VecDeque<u16>,
    pub chunks: Chunks,
    /// Bytes per write to the socket.
    pub segment: Option<usize>,
    /// Leave out defaults in JSON, which real agents print.
    pub bare_json: bool,
    pub unknown_fields: bool,
    pub unknown_enum: bool,
    /// An event of unknown type goes before each that has one.
    pub unknown_events: bool,
    pub acks: Vec<AckRule>,
    /// Acknowledgements wait until they are let go.
    pub withhold_acks: bool,
    pub ack_twice: bool,
    /// The connection for calls is cut with the n-th call processed and unanswered; once.
    pub cut_calls_after: Option<u32>,
}

impl Mischief {
    /// Whether the acknowledgement of this update, received so many times, is kept back for good.
    pub(super) fn swallows_ack(&self, task: &str, state: TaskState, received: u32) -> bool {
        self.acks.iter().any(|rule| {
            rule.task.as_deref().is_none_or(|t| t == task)
                && rule.states.contains(&state)
                && match rule.fault {
                    AckFault::Never => true,
                    AckFault::LoseFirst => received == 1,
                }
        })
    }

    /// An event's payload, told as badly as wanted.
    pub(super) fn payload(&self, event: &Event, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Protobuf => {
                let mut payload = match self.unknown_enum {
                    true => codec::encode(&with_strange_capability(event), encoding),
                    false => codec::encode(event, encoding),
                };
                if self.unknown_fields {
                    // Tag of field 9999, length-delimited; then length and text.
                    payload = [&payload[..], &[0xfa, 0xf0, 0x04, 0x03], b"new"].concat().into();
                }
                payload
            }
            Encoding::Json => {
                let payload = match self.bare_json {
                    true => codec::encode(event, encoding),
                    false => codec::encode_with_defaults(event, encoding),
                };
                if !self.unknown_fields && !self.unknown_enum {
                    return payload;
                }
                // What our own codec wrote is JSON; if not, it is best seen as it is.
                let Ok(mut value) = serde_json::from_slice::<Value>(&payload) else {
                    return payload;
                };
                if self.unknown_enum {
                    add_capability(&mut value);
                }
                if self.unknown_fields {
                    add_fields(&mut value);
                }
                value.to_string().into()
            }
        }
    }

    /// An event of a type that no client knows.
    pub(super) fn unknown_event(encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Protobuf => {
                let event = Event {
                    r#type: Some(TOMORROW),
                    ..Default::default()
                };
                codec::encode(&event, encoding)
            }
            Encoding::Json => {
                let event =
                    serde_json::json!({"type": NAME_OF_TOMORROW, "something_of_tomorrow": {"value": 1}});
                event.to_string().into()
            }
        }
    }
}

fn with_strange_capability(event: &Event) -> Event {
    let mut event = event.clone();
    if let Some(subscribed) = &mut event.subscribed {
        let FrameworkInfo { capabilities, .. } = &mut subscribed.framework_info;
        capabilities.push(framework_info::Capability {
            r#type: Some(TOMORROW),
        });
    }
    event
}

fn add_capability(event: &mut Value) {
    let strange = serde_json::json!({"type": NAME_OF_TOMORROW});
    if let Some(capabilities) = event.pointer_mut("/subscribed/framework_info/capabilities") {
        capabilities
            .as_array_mut()
            .into_iter()
            .for_each(|list| list.push(strange.clone()));
    }
}

fn add_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(add_fields);
            let strange = Map::from_iter([("depth".to_owned(), Value::from(1))]);
            fields.insert("field_of_tomorrow".to_owned(), Value::Object(strange));
        }
        Value::Array(values) => values.iter_mut().for_each(add_fields),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::executor::event;

    fn subscribed() -> Event {
        let framework_info = FrameworkInfo {
            capabilities: vec![framework_info::Capability { r#type: Some(2) }],
            ..Default::default()
        };
        Event {
            r#type: Some(event::Type::Subscribed as i32),
            subscribed: Some(event::Subscribed {
                framework_info,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_future_changes_the_bytes_but_not_the_meaning() {
        let mischief = Mischief {
            unknown_fields: true,
            unknown_enum: true,
            ..Default::default()
        };
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let payload = mischief.payload(&subscribed(), encoding);
            assert_ne!(payload, Mischief::default().payload(&subscribed(), encoding));
            let read: Event = codec::decode(&payload, encoding).unwrap();
            let capabilities = &read.subscribed.unwrap().framework_info.capabilities;
            assert_eq!(capabilities.len(), 2);
            assert_eq!(capabilities[0].r#type, Some(2));
        }
    }

    #[test]
    fn an_event_of_tomorrow_has_no_type_we_know() {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let event: Event = codec::decode(&Mischief::unknown_event(encoding), encoding).unwrap();
            assert_eq!(event.r#type(), event::Type::Unknown);
        }
    }

    #[test]
    fn json_carries_defaults_as_real_agents_print_them_unless_bare() {
        let text = |bare_json| {
            let mischief = Mischief {
                bare_json,
                ..Default::default()
            };
            String::from_utf8(mischief.payload(&subscribed(), Encoding::Json).to_vec()).unwrap()
        };
        assert!(text(false).contains("\"checkpoint\":false"));
        assert!(!text(true).contains("checkpoint"));
    }

    #[test]
    fn ack_faults_match_task_and_state() {
        let rule = |fault| Mischief {
            acks: vec![AckRule {
                task: Some("a".into()),
                states: vec![TaskState::TaskRunning],
                fault,
            }],
            ..Default::default()
        };
        let never = rule(AckFault::Never);
        assert!(never.swallows_ack("a", TaskState::TaskRunning, 7));
        assert!(!never.swallows_ack("b", TaskState::TaskRunning, 1));
        assert!(!never.swallows_ack("a", TaskState::TaskStarting, 1));
        let first = rule(AckFault::LoseFirst);
        assert!(first.swallows_ack("a", TaskState::TaskRunning, 1));
        assert!(!first.swallows_ack("a", TaskState::TaskRunning, 2));
    }
}
