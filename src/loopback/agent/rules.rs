//! What the executor API demands of a request (wire file, sections 2 and 5). Pure.

use crate::mesos::{
    codec::{self, Encoding},
    v1::{
        CheckStatusInfo, TaskState, check_info,
        executor::{Call, call},
        task_status::Source,
    },
};

/// A request that is turned away, and the text that says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::loopback) struct Refusal {
    pub status: u16,
    pub reason: String,
}

impl Refusal {
    pub(in crate::loopback) fn new(status: u16, reason: impl Into<String>) -> Self {
        Refusal {
            status,
            reason: reason.into(),
        }
    }

    /// Whether only a programming error of the client earns this answer, in this protocol. What an agent on its way
    /// up answers, and 403 to one who is not subscribed (yet), is everyday life.
    pub(super) fn is_clients_fault(&self) -> bool {
        matches!(self.status, 400 | 401 | 405 | 406 | 413 | 415 | 501)
    }
}

/// The encoding of a request body. The whole header is compared: even a `; charset=…` makes it another type.
pub(in crate::loopback) fn content_type(header: Option<&[u8]>) -> Result<Encoding, Refusal> {
    let header = header.ok_or_else(|| Refusal::new(400, "Expecting 'Content-Type' to be present"))?;
    [Encoding::Protobuf, Encoding::Json]
        .into_iter()
        .find(|encoding| encoding.media_type().as_bytes() == header)
        .ok_or_else(|| {
            Refusal::new(
                415,
                "Expecting 'Content-Type' of application/json or application/x-protobuf",
            )
        })
}

/// The encoding of the stream that answers SUBSCRIBE: JSON wherever it is accepted.
pub(in crate::loopback) fn accepted<'h>(
    headers: impl Iterator<Item = &'h [u8]>,
) -> Result<Encoding, Refusal> {
    let mut ranges = Vec::new();
    for header in headers {
        let text = std::str::from_utf8(header).unwrap_or_default();
        let types = text
            .split(',')
            .map(|range| range.split(';').next().unwrap_or_default().trim());
        ranges.extend(types.filter(|range| !range.is_empty()).map(str::to_owned));
    }
    if ranges.is_empty() {
        return Ok(Encoding::Json);
    }
    let accepts = |encoding: &Encoding| {
        ranges
            .iter()
            .any(|range| range == "*/*" || range == "application/*" || range == encoding.media_type())
    };
    [Encoding::Json, Encoding::Protobuf]
        .into_iter()
        .find(accepts)
        .ok_or_else(|| {
            Refusal::new(
                406,
                "Expecting 'Accept' to allow application/json or application/x-protobuf",
            )
        })
}

/// Reads and validates a call.
pub(super) fn call(body: &[u8], encoding: Encoding) -> Result<(Call, call::Type), Refusal> {
    let call: Call = codec::decode(body, encoding)
        .map_err(|error| Refusal::new(400, format!("Failed to parse body into Call: {error}")))?;
    let kind = validate(&call)
        .map_err(|reason| Refusal::new(400, format!("Failed to validate executor Call: {reason}")))?;
    Ok((call, kind))
}

fn validate(call: &Call) -> Result<call::Type, String> {
    let kind = call.r#type.and_then(|number| call::Type::try_from(number).ok());
    let kind = kind.ok_or("Expecting 'type' to be present")?;
    match kind {
        call::Type::Subscribe => {
            let subscribe = call
                .subscribe
                .as_ref()
                .ok_or("Expecting 'subscribe' to be present")?;
            for update in &subscribe.unacknowledged_updates {
                validate_update(call, update)?;
            }
        }
        call::Type::Update => {
            validate_update(
                call,
                call.update.as_ref().ok_or("Expecting 'update' to be present")?,
            )?;
        }
        call::Type::Message => {
            call.message.as_ref().ok_or("Expecting 'message' to be present")?;
        }
        call::Type::Heartbeat | call::Type::Unknown => {}
    }
    Ok(kind)
}

fn validate_update(call: &Call, update: &call::Update) -> Result<(), String> {
    let status = &update.status;
    let uuid = status.uuid.as_ref().ok_or("Expecting 'uuid' to be present")?;
    if uuid.len() != 16 {
        return Err(format!("Not a valid 'uuid': {} bytes instead of 16", uuid.len()));
    }
    if let Some(executor) = status.executor_id.as_ref().filter(|id| **id != call.executor_id) {
        return Err(format!(
            "ExecutorID in Call: {} does not match ExecutorID in TaskStatus: {}",
            call.executor_id.value, executor.value
        ));
    }
    if status.source != Some(Source::Executor as i32) {
        return Err(format!(
            "Received Call from executor {} with invalid source, expecting 'SOURCE_EXECUTOR'",
            call.executor_id.value
        ));
    }
    if status.state() == TaskState::TaskStaging {
        return Err(format!(
            "Received TASK_STAGING from executor {} which is not allowed",
            call.executor_id.value
        ));
    }
    status.check_status.as_ref().map_or(Ok(()), validate_check_status)
}

fn validate_check_status(check: &CheckStatusInfo) -> Result<(), String> {
    let kind = check
        .r#type
        .and_then(|number| check_info::Type::try_from(number).ok());
    let (name, present) = match kind {
        None => return Err("CheckStatusInfo must specify 'type'".into()),
        Some(check_info::Type::Unknown) => {
            return Err("'UNKNOWN' is not a valid type of CheckStatusInfo".into());
        }
        Some(check_info::Type::Command) => ("command", check.command.is_some()),
        Some(check_info::Type::Http) => ("http", check.http.is_some()),
        Some(check_info::Type::Tcp) => ("tcp", check.tcp.is_some()),
    };
    if present {
        Ok(())
    } else {
        Err(format!(
            "Expecting '{name}' to be set for this type of check status"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::{ExecutorId, FrameworkId, TaskId, TaskStatus, check_status_info};

    fn update() -> Call {
        let status = TaskStatus {
            task_id: TaskId { value: "t".into() },
            state: TaskState::TaskRunning as i32,
            source: Some(Source::Executor as i32),
            uuid: Some(vec![1; 16]),
            ..Default::default()
        };
        Call {
            executor_id: ExecutorId { value: "e".into() },
            framework_id: FrameworkId { value: "f".into() },
            r#type: Some(call::Type::Update as i32),
            update: Some(call::Update { status }),
            ..Default::default()
        }
    }

    fn broken(change: impl FnOnce(&mut TaskStatus)) -> String {
        let mut call = update();
        change(&mut call.update.as_mut().unwrap().status);
        validate(&call).unwrap_err()
    }

    #[test]
    fn content_types_are_compared_whole() {
        assert_eq!(content_type(Some(b"application/json")).unwrap(), Encoding::Json);
        assert_eq!(
            content_type(Some(b"application/x-protobuf")).unwrap(),
            Encoding::Protobuf
        );
        assert_eq!(
            content_type(Some(b"application/json; charset=utf-8"))
                .unwrap_err()
                .status,
            415
        );
        assert_eq!(content_type(Some(b"text/plain")).unwrap_err().status, 415);
        assert_eq!(content_type(None).unwrap_err().status, 400);
    }

    #[test]
    fn json_wins_wherever_it_is_accepted() {
        let accept = |text: &'static str| accepted([text.as_bytes()].into_iter()).map_err(|r| r.status);
        assert_eq!(accepted(std::iter::empty()).unwrap(), Encoding::Json);
        assert_eq!(accept("*/*"), Ok(Encoding::Json));
        assert_eq!(accept("application/*"), Ok(Encoding::Json));
        assert_eq!(
            accept("application/x-protobuf, application/json;q=0.1"),
            Ok(Encoding::Json)
        );
        assert_eq!(
            accept("text/html, application/x-protobuf"),
            Ok(Encoding::Protobuf)
        );
        assert_eq!(accept("foo"), Err(406));
        assert_eq!(accept("text/*"), Err(406));
    }

    #[test]
    fn each_kind_of_call_needs_its_part() {
        assert_eq!(validate(&update()), Ok(call::Type::Update));
        for kind in [call::Type::Subscribe, call::Type::Update, call::Type::Message] {
            let mut call = update();
            call.update = None;
            call.r#type = Some(kind as i32);
            assert!(validate(&call).is_err(), "{kind:?}");
        }
        for kind in [None, Some(99)] {
            let mut call = update();
            call.r#type = kind;
            assert!(validate(&call).unwrap_err().contains("'type'"));
        }
        let mut call = update();
        call.r#type = Some(call::Type::Heartbeat as i32);
        assert_eq!(validate(&call), Ok(call::Type::Heartbeat));
    }

    #[test]
    fn statuses_are_looked_at_closely() {
        assert!(broken(|s| s.uuid = None).contains("uuid"));
        assert!(broken(|s| s.uuid = Some(vec![1; 15])).contains("15 bytes"));
        assert!(broken(|s| s.source = None).contains("SOURCE_EXECUTOR"));
        assert!(broken(|s| s.source = Some(Source::Agent as i32)).contains("SOURCE_EXECUTOR"));
        assert!(broken(|s| s.state = TaskState::TaskStaging as i32).contains("TASK_STAGING"));
        assert!(
            broken(|s| s.executor_id = Some(ExecutorId { value: "x".into() })).contains("does not match")
        );
        let check = |kind: Option<check_info::Type>| CheckStatusInfo {
            r#type: kind.map(|k| k as i32),
            tcp: Some(check_status_info::Tcp::default()),
            ..Default::default()
        };
        assert!(broken(|s| s.check_status = Some(check(None))).contains("type"));
        assert!(
            broken(|s| s.check_status = Some(check(Some(check_info::Type::Unknown)))).contains("UNKNOWN")
        );
        assert!(broken(|s| s.check_status = Some(check(Some(check_info::Type::Http)))).contains("http"));
        let mut fine = update();
        fine.update.as_mut().unwrap().status.check_status = Some(check(Some(check_info::Type::Tcp)));
        assert!(validate(&fine).is_ok());
    }

    #[test]
    fn updates_inside_subscribe_are_validated_too() {
        let mut call = update();
        call.subscribe = Some(call::Subscribe {
            unacknowledged_updates: call.update.iter().cloned().collect(),
            ..Default::default()
        });
        call.r#type = Some(call::Type::Subscribe as i32);
        assert!(validate(&call).is_ok());
        call.subscribe.as_mut().unwrap().unacknowledged_updates[0]
            .status
            .uuid = None;
        assert!(validate(&call).is_err());
    }
}
