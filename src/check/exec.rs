//! One look by a command inside the member.

use super::Sighting;
use crate::{
    container::{Entrance, ExecPlan, ExecStreams, last_line, plan},
    group::{ExitStatus, probe::Sight},
    mesos::v1::CommandInfo,
};

/// So much of what a command says is kept; the rest is read and dropped.
const MOST_OUTPUT: usize = 4 << 10;

pub(super) async fn look(command: &CommandInfo, entrance: &Entrance) -> Sighting {
    let (command, environment) = match plan::in_member(command) {
        Ok(planned) => planned,
        Err(error) => return (Sight::Failed(error.to_string()), None),
    };
    let plan = ExecPlan {
        command,
        environment,
        cwd: None,
        streams: ExecStreams::Null,
    };
    let captured = match entrance.capture_whole(plan, MOST_OUTPUT).await {
        Ok(captured) => captured,
        // H-18
        Err(error) if error.is_of_exec() => return (Sight::Failed(error.problem()), None),
        Err(error) => return (Sight::Untried(error.problem()), None),
    };
    let well = captured.status == ExitStatus::Code(0);
    if !well && !captured.output.trim_ascii().is_empty() {
        // H-17
        let more = if captured.truncated { " […]" } else { "" };
        tracing::info!(
            "a check of member `{}` says: {}{more}",
            entrance.member(),
            String::from_utf8_lossy(captured.output.trim_ascii_end()).escape_debug()
        );
    }
    let words = (!well).then(|| last_line(&captured.output, &[])).flatten();
    (Sight::Exited(captured.status), words)
}
