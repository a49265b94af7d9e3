//! A member from its image's configuration: the table I-01 to I-15, through the executor.

use podling::mesos::v1::{
    CommandInfo, Environment, KillPolicy, TaskInfo,
    TaskState::{TaskFailed, TaskKilled, TaskRunning},
    environment::Variable,
    task_status::Reason,
};
use serde_json::json;

use super::{build::Layer, support::*};

/// Says its arguments.
const ENTRYPOINT: [&str; 4] = ["/bin/sh", "-c", "echo $0 $*", "entry"];

fn command(shell: bool, value: Option<&str>, arguments: &[&str]) -> CommandInfo {
    CommandInfo {
        shell: Some(shell),
        value: value.map(str::to_owned),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        ..Default::default()
    }
}

fn with(id: &str, command: CommandInfo, reference: &str) -> TaskInfo {
    let mut task = from_image(task(id, None), reference);
    task.command = Some(command);
    task
}

/// What one member says that runs as `config` has it, or as `command` does instead.
fn says(config: &serde_json::Value, command: Option<CommandInfo>) -> String {
    let place = Place::new();
    let reference = place.layout("layout", &image(config, Layer::new()));
    let mut web = from_image(task("web", None), &reference);
    web.command = command;
    said(&run(place.agent(), [web]), "web")
}

/// Why a member cannot be launched.
fn refused(config: &serde_json::Value, command: CommandInfo) -> String {
    let place = Place::new();
    let reference = place.layout("layout", &image(config, Layer::new()));
    let (outcome, _work) = run(place.agent(), [with("web", command, &reference)]);
    let status = last(&outcome, "web");
    assert_eq!(
        (status.state(), status.reason()),
        (TaskFailed, Reason::TaskInvalid),
        "{status:?}"
    );
    status.message().to_owned()
}

#[test]
fn i_01_a_shell_command_leaves_entrypoint_cmd_and_arguments_aside() {
    let config = json!({"Entrypoint": ENTRYPOINT, "Cmd": ["cmd"]});
    let given = command(true, Some("echo shell $0 $#"), &["argument"]);
    assert_eq!(says(&config, Some(given)), "shell /bin/sh 0\n");
}

#[test]
fn i_02_a_shell_command_without_words_fails_the_launch() {
    let config = json!({"Entrypoint": ENTRYPOINT, "Cmd": ["cmd"]});
    let message = refused(&config, command(true, None, &[]));
    assert!(
        message.contains("member `web`: command.value") && message.contains("shell to false"),
        "{message}"
    );
}

#[test]
fn i_03_arguments_are_the_whole_argv() {
    // busybox goes by its argv[0].
    let given = command(false, Some("/bin/busybox"), &["echo", "given"]);
    assert_eq!(says(&json!({"Entrypoint": ENTRYPOINT}), Some(given)), "given\n");
}

#[test]
fn i_04_without_arguments_argv_0_is_the_program() {
    let config = json!({"Entrypoint": ENTRYPOINT, "Cmd": ["cmd"], "User": "77"});
    let said = says(&config, Some(command(false, Some("/bin/id"), &[])));
    assert!(said.starts_with("uid=77 gid=0(root)"), "{said}");
}

#[test]
fn i_05_arguments_take_the_place_of_cmd() {
    let config = json!({"Entrypoint": ENTRYPOINT, "Cmd": ["cmd"]});
    assert_eq!(
        says(&config, Some(command(false, None, &["one", "two"]))),
        "entry one two\n"
    );
}

#[test]
fn i_06_entrypoint_and_cmd() {
    let config = json!({"Entrypoint": ENTRYPOINT, "Cmd": ["cmd", "more"]});
    assert_eq!(says(&config, Some(command(false, None, &[]))), "entry cmd more\n");
}

#[test]
fn i_07_cmd_alone_and_with_arguments() {
    let config = json!({"Cmd": ["/bin/echo", "cmd"]});
    assert_eq!(says(&config, Some(command(false, None, &[]))), "cmd\n");
    assert_eq!(
        says(&config, Some(command(false, None, &["argument"]))),
        "argument\n"
    );
}

#[test]
fn i_08_nothing_to_run_fails_the_launch() {
    let message = refused(&json!({}), command(false, None, &["argument"]));
    assert!(message.contains("names no executable"), "{message}");
}

#[test]
fn i_09_a_task_without_a_command_runs_its_image_as_built() {
    assert_eq!(
        says(&json!({"Entrypoint": ENTRYPOINT, "Cmd": ["cmd"]}), None),
        "entry cmd\n"
    );
}

#[test]
fn i_10_entrypoint_and_cmd_are_no_shell_s() {
    assert_eq!(says(&json!({"Cmd": ["/bin/echo", "$PATH *"]}), None), "$PATH *\n");
}

#[test]
fn i_11_programs_are_looked_up_inside_by_the_member_s_own_path() {
    let place = Place::new();
    let tools = Layer::new()
        .dir("opt/", 0o755)
        .symlink("opt/tool", "/bin/echo")
        .symlink("opt/echo", "/bin/echo");
    let config = json!({"Entrypoint": ["echo"], "Env": ["PATH=/nowhere"]});
    let reference = place.layout("layout", &image(&config, tools));
    let mut found = with("found", command(false, None, &["looked up"]), &reference);
    found.command.as_mut().unwrap().environment = Some(Environment {
        variables: vec![Variable {
            name: "PATH".to_owned(),
            value: Some("/opt".to_owned()),
            ..Default::default()
        }],
    });
    assert_eq!(said(&run(place.agent(), [found]), "found"), "looked up\n");
    let (outcome, _work) = run(
        place.agent(),
        [with("lost", command(false, None, &[]), &reference)],
    );
    let message = last(&outcome, "lost").message();
    assert!(
        message.contains("member `lost`") && message.contains("`echo`"),
        "{message}"
    );
}

#[test]
fn i_12_the_working_directory_is_the_image_s_and_made_if_need_be() {
    let show = ["/bin/sh", "-c", "pwd; stat -c %u:%a ."];
    let there = json!({"Cmd": show, "WorkingDir": "/tmp", "User": "app"});
    assert_eq!(says(&there, None), "/tmp\n0:1777\n");
    let missing = json!({"Cmd": show, "WorkingDir": "/not/there/yet", "User": "app"});
    assert_eq!(says(&missing, None), "/not/there/yet\n0:755\n");
    let none = json!({"Cmd": ["/bin/sh", "-c", "pwd"], "User": "app"});
    assert_eq!(says(&none, None), "/mnt/mesos/sandbox\n");
}

#[test]
fn i_13_the_command_s_user_goes_before_the_image_s() {
    let config =
        json!({"Cmd": ["/bin/sh", "-c", "id -u; id -g; id -G; touch mine; stat -c %u mine"], "User": "app"});
    assert_eq!(says(&config, None), "1234\n5678\n5678 99\n1234\n");
    let mut given = command(false, None, &[]);
    given.user = Some("4321:8765".to_owned());
    assert_eq!(says(&config, Some(given)), "4321\n8765\n8765\n4321\n");
}

#[test]
fn i_14_a_user_whom_the_image_does_not_know_fails_the_launch() {
    // Known to every host.
    let place = Place::new();
    let reference = place.layout(
        "layout",
        &image(&json!({"Cmd": ["id"], "User": "daemon"}), Layer::new()),
    );
    let (outcome, _work) = run(place.agent(), [from_image(task("web", None), &reference)]);
    let status = last(&outcome, "web");
    assert_eq!(status.state(), TaskFailed);
    assert!(
        status.message().contains("member `web`") && status.message().contains("daemon"),
        "{status:?}"
    );
}

#[test]
fn i_15_volumes_are_fresh_and_the_member_s_own() {
    let config = json!({
        "Cmd": ["/bin/sh", "-c", "ls /var/data; stat -c %u:%a /var/data; echo x >/var/data/mine; cat /var/data/mine"],
        "Volumes": {"/var/data": {}}, "User": "app", "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "false"]},
    });
    let place = Place::new();
    let reference = place.layout("layout", &image(&config, Layer::new().dir("var/", 0o755)));
    let members = ["a", "b"].map(|id| from_image(task(id, None), &reference));
    let done = run(place.agent(), members);
    for id in ["a", "b"] {
        assert_eq!(said(&done, id), "1234:755\nx\n");
    }
}

#[test]
fn i_15_k_13_a_kill_sends_the_image_s_stop_signal() {
    let trap =
        "trap 'echo usr1; exit' USR1; trap 'echo term; exit' TERM; echo ready; while :; do sleep 0.1; done";
    let config = json!({"Cmd": ["/bin/sh", "-c", trap], "StopSignal": "SIGUSR1"});
    let place = Place::new();
    let reference = place.layout("layout", &image(&config, Layer::new()));
    let web = from_image(task("web", None), &reference);
    let work = tempfile::tempdir().unwrap();
    let agent = started(place.agent(), work.path(), [web]);
    agent.wait_told(&["web"], TaskRunning).unwrap();
    // It runs from its exec on; the shell needs a moment more.
    until("the traps are set", || {
        stdout(work.path(), "web").is_some_and(|text| text == "ready\n")
    });
    let patient = KillPolicy {
        grace_period: Some(podling::mesos::v1::DurationInfo {
            nanoseconds: 60_000_000_000,
        }),
    };
    agent.kill_with("web", Some(patient)).unwrap();
    let outcome = agent.finish();
    assert_eq!(last(&outcome, "web").state(), TaskKilled);
    assert_eq!(stdout(work.path(), "web").unwrap(), "ready\nusr1\n");
}

#[test]
fn e_05_the_command_s_environment_goes_over_the_image_s() {
    let config = json!({"Cmd": ["/bin/sh", "-c", "echo $IMAGE $BOTH $OWN"], "Env": ["IMAGE=i", "BOTH=i", "PATH=/bin"]});
    let mut given = command(false, None, &[]);
    given.environment = Some(Environment {
        variables: [("BOTH", "c"), ("OWN", "c")]
            .map(|(name, value)| Variable {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                ..Default::default()
            })
            .to_vec(),
    });
    assert_eq!(says(&config, Some(given)), "i c c\n");
}
