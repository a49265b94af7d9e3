//! What a member finds around it: environment, sandbox, user.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use podling::mesos::v1::{self, TaskInfo, TaskState::*, environment::variable, resource::AllocationInfo};

use crate::support::*;

/// Runs tasks to their end and gives each one's standard output.
fn outputs(tasks: impl IntoIterator<Item = TaskInfo>) -> BTreeMap<String, String> {
    let tasks: Vec<TaskInfo> = tasks.into_iter().collect();
    let ids: Vec<String> = tasks.iter().map(|task| task.task_id.value.clone()).collect();
    let place = Place::new();
    let agent = agent()
        .work_dir(place.path())
        .task_group(group(tasks))
        .start()
        .unwrap();
    let sandbox = agent.sandbox().to_owned();
    good(&agent.finish());
    ids.into_iter()
        .map(|id| {
            let output = stdout(&sandbox, &id);
            (id, output)
        })
        .collect()
}

fn variables(output: &str) -> BTreeMap<&str, &str> {
    output.lines().filter_map(|line| line.split_once('=')).collect()
}

fn value(name: &str, value: &str) -> v1::environment::Variable {
    v1::environment::Variable {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    }
}

fn secret(name: &str, text: &str) -> v1::environment::Variable {
    v1::environment::Variable {
        name: name.into(),
        r#type: Some(variable::Type::Secret.into()),
        secret: Some(v1::Secret {
            r#type: Some(v1::secret::Type::Value.into()),
            value: Some(v1::secret::Value {
                data: text.as_bytes().to_vec(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn with_variables(mut task: TaskInfo, variables: Vec<v1::environment::Variable>) -> TaskInfo {
    let command = task.command.get_or_insert_default();
    command.environment = Some(v1::Environment { variables });
    task
}

#[test]
fn e_01_e_03_a_member_inherits_nothing_and_is_told_what_mesos_tells() {
    let outputs = outputs([task("a", "env")]);
    let seen = variables(&outputs["a"]);
    let names: Vec<&str> = seen
        .keys()
        .copied()
        .filter(|name| !["PWD", "_", "SHLVL"].contains(name))
        .collect();
    assert_eq!(
        names,
        [
            "MESOS_ALLOCATION_ROLE",
            "MESOS_CONTAINER_IP",
            "MESOS_SANDBOX",
            "PATH"
        ]
    );
    assert_eq!(seen["MESOS_CONTAINER_IP"], "127.0.0.1");
    assert_eq!(
        seen["PATH"],
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
}

#[test]
fn allocation_role_environment_variable_e_01_is_the_role_of_the_first_resource() {
    let mut of_role = task("a", "echo $MESOS_ALLOCATION_ROLE");
    for (resource, role) in of_role.resources.iter_mut().zip(["slaves/web", "other"]) {
        resource.allocation_info = Some(AllocationInfo {
            role: Some(role.into()),
        });
    }
    assert_eq!(outputs([of_role])["a"], "slaves/web\n");
}

#[test]
fn e_02_precedence_of_variables() {
    let chosen = with_variables(
        task("a", "env"),
        vec![
            value("TWICE", "first"),
            value("TWICE", "last"),
            value("BOTH", "value"),
            secret("BOTH", "secret"),
            secret("ONLY", "s3cret"),
            value("MESOS_CONTAINER_IP", "192.0.2.1"),
            value("PATH", "/bin:/usr/bin"),
        ],
    );
    let outputs = outputs([chosen]);
    let seen = variables(&outputs["a"]);
    assert_eq!(seen["TWICE"], "last");
    assert_eq!(seen["BOTH"], "value");
    assert_eq!(seen["ONLY"], "s3cret");
    assert_eq!(seen["MESOS_CONTAINER_IP"], "127.0.0.1");
    assert_eq!(seen["PATH"], "/bin:/usr/bin");
}

#[test]
fn e_04_e_10_e_11_a_member_stands_in_its_sandbox_and_reads_nothing() {
    let look = "pwd; echo $MESOS_SANDBOX; cat; echo file > mine; echo oops >&2";
    let place = Place::new();
    let agent = agent()
        .work_dir(place.path())
        .task_group(group([task("a", look)]))
        .start()
        .unwrap();
    let sandbox = agent.sandbox().to_owned();
    let outcome = agent.finish();
    good(&outcome);
    let own = sandbox.join("containers").join(container_of(last(&outcome, "a")));
    assert_eq!(stdout(&sandbox, "a"), format!("{0}\n{0}\n", own.display()));
    assert_eq!(fs::read_to_string(own.join("stderr")).unwrap(), "oops\n");
    assert_eq!(fs::read_to_string(own.join("mine")).unwrap(), "file\n");
}

#[test]
fn sandbox_ownership_e_06_e_12_the_sandbox_is_the_task_users() {
    let mut unprivileged = task("a", "id -u; echo mine > file");
    unprivileged.command.get_or_insert_default().user = Some("nobody".into());
    let place = Place::new();
    let agent = agent()
        .work_dir(place.path())
        .task_group(group([unprivileged]))
        .start()
        .unwrap();
    let sandbox = agent.sandbox().to_owned();
    let outcome = agent.finish();
    good(&outcome);
    let nobody = nix::unistd::User::from_name("nobody")
        .unwrap()
        .unwrap()
        .uid
        .as_raw();
    assert_eq!(stdout(&sandbox, "a"), format!("{nobody}\n"));
    let own = sandbox.join("containers").join(container_of(last(&outcome, "a")));
    let metadata = own.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (nobody, 0o750));
    for file in ["stdout", "stderr", "file"] {
        let found = own.join(file).metadata().unwrap();
        // Whatever the executor's umask is, and with the member's own.
        assert_eq!((found.uid(), found.mode() & 0o777), (nobody, 0o644), "{file}");
    }
    for directory in ["tasks", "containers"] {
        let found = sandbox.join(directory).metadata().unwrap();
        assert_eq!(found.mode() & 0o777, 0o755, "{directory}");
    }
}

#[test]
fn e_07_the_link_follows_a_task_id_that_comes_again() {
    let keeper = Sleeper::new();
    let agent = agent()
        .task_group(group([keeper.task("keeper")]))
        .start()
        .unwrap();
    let mut targets = Vec::new();
    for round in 1..=2 {
        agent.launch(group([task("again", "true")]));
        agent
            .wait_for("the task's end", |history| {
                let ends = history
                    .updates("again")
                    .iter()
                    .filter(|status| status.state() == TaskFinished)
                    .count();
                ends == round
            })
            .unwrap();
        targets.push(fs::read_link(agent.sandbox().join("tasks/again")).unwrap());
    }
    assert_ne!(targets[0], targets[1]);
    assert!(targets.iter().all(|target| target.is_dir()));
    agent.kill("keeper").unwrap();
    assert_eq!(agent.finish().exit.unwrap().code(), Some(0));
}

#[test]
fn the_black_box_tells_the_story_and_no_secret() {
    let told = with_variables(
        task("a", "exit 3"),
        vec![value("PASSWORD", "hunter2"), secret("KEY", "hunter3")],
    );
    let place = Place::new();
    let agent = agent()
        .work_dir(place.path())
        .task_group(group([told]))
        .start()
        .unwrap();
    let sandbox = agent.sandbox().to_owned();
    good(&agent.finish());
    let path = sandbox.join(".podling/blackbox.jsonl");
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    let text = fs::read_to_string(path).unwrap();
    assert!(!text.contains("hunter"), "{text}");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let words: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["cause"].as_str().or(line["effect"].as_str()))
        .collect();
    let place_of = |word: &str| {
        words
            .iter()
            .position(|other| *other == word)
            .unwrap_or_else(|| panic!("{word}: {text}"))
    };
    let story = [
        "subscribed",
        "launch_group",
        "prepare",
        "prepared",
        "release",
        "held",
        "begin",
        "exited",
        "forget",
        "exit",
    ];
    assert!(story.map(place_of).is_sorted(), "{text}");
    let times: Vec<u64> = lines.iter().filter_map(|line| line["us"].as_u64()).collect();
    assert!(times.len() == lines.len() && times.is_sorted());
}

#[test]
fn w_05_limits_that_are_not_held_are_said_in_the_first_status() {
    let without = agent().env("PODLING_CGROUPS", "none");
    let outcome = without
        .task_group(group([task("a", "true")]))
        .start()
        .unwrap()
        .finish();
    good(&outcome);
    let first = outcome.history.updates("a")[0];
    assert_eq!(first.state(), TaskStarting);
    let said = "not held here: limits of cpu, memory, processes (`podling node check` says why)";
    assert_eq!(first.message(), said);
    let outcome = agent()
        .task_group(group([task("a", "true")]))
        .start()
        .unwrap()
        .finish();
    good(&outcome);
    assert_eq!(outcome.history.updates("a")[0].message(), "");
}
