//! Groups from launch to end: the scenarios of the default executor's own tests, by their names, and what we do
//! better.

use std::{fs, time::Duration};

use podling::{
    loopback::agent::Agent,
    mesos::{
        codec::Encoding,
        v1::{
            CommandInfo, ContainerInfo, DurationInfo, Image, LinuxInfo, TaskInfo, TaskState::*,
            container_info, framework_info::capability, image, task_status::Reason,
        },
    },
};

use crate::support::*;

#[test]
fn task_running_u_04_a_group_is_starting_then_running_and_its_files_are_found_by_task() {
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let sleepers = [Sleeper::new(), Sleeper::new()];
        let group = group([sleepers[0].task("a"), sleepers[1].task("b")]);
        let agent = agent().encoding(encoding).task_group(group).start().unwrap();
        agent.wait_told(&["a", "b"], TaskRunning).unwrap();
        for (sleeper, task) in sleepers.iter().zip(["a", "b"]) {
            assert!(sleeper.processes() > 0);
            let container = container_of(agent.history().updates(task)[0]);
            let target = fs::read_link(agent.sandbox().join("tasks").join(task)).unwrap();
            assert_eq!(target, agent.sandbox().join("containers").join(container));
            assert!(target.join("stdout").is_file() && target.join("stderr").is_file());
        }
        agent.kill("a").unwrap();
        let outcome = agent.finish();
        good(&outcome);
        for task in ["a", "b"] {
            assert_states(
                &outcome,
                task,
                &[TaskStarting, TaskRunning, TaskKilling, TaskKilled],
            );
        }
        assert!(sleepers.iter().all(Sleeper::is_gone));
    }
}

#[test]
fn l_02_starting_of_all_precedes_running_of_any() {
    let tasks = ["a", "b", "c"].map(|id| task(id, "true"));
    let outcome = agent().task_group(group(tasks)).start().unwrap().finish();
    good(&outcome);
    let told = |state| ["a", "b", "c"].map(|id| outcome.history.when_told(id, state).unwrap());
    assert!(told(TaskStarting).iter().max() < told(TaskRunning).iter().min());
}

#[test]
fn kill_task_k_01_k_09_l_04_a_kill_ends_one_group_and_not_another() {
    let [a, b, c, d] = [(); 4].map(|()| Sleeper::new());
    let agent = agent()
        .task_group(group([a.task("a"), b.task("b")]))
        .task_group(group([c.task("c"), d.task("d")]))
        .start()
        .unwrap();
    agent.wait_told(&["a", "b", "c", "d"], TaskRunning).unwrap();
    agent.kill("a").unwrap();
    agent.wait_told(&["a", "b"], TaskKilled).unwrap();
    assert!(c.processes() > 0 && d.processes() > 0);
    assert_eq!(agent.history().state("c"), Some(TaskRunning));
    agent.kill("d").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    for task in ["a", "b", "c", "d"] {
        assert_states(
            &outcome,
            task,
            &[TaskStarting, TaskRunning, TaskKilling, TaskKilled],
        );
    }
    assert_eq!(outcome.exit.unwrap().code(), Some(0));
}

#[test]
fn u_05_killing_is_told_only_to_frameworks_that_know_it() {
    let agent = agent()
        .capabilities(&[capability::Type::PartitionAware])
        .task_group(group([Sleeper::new().task("a")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.kill("a").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_states(&outcome, "a", &[TaskStarting, TaskRunning, TaskKilled]);
}

#[test]
fn kill_multiple_tasks_k_10_kills_at_the_same_time_end_each_task_once() {
    let tasks = ["a", "b", "c"];
    let agent = agent()
        .task_group(group(tasks.map(|id| Sleeper::new().task(id))))
        .start()
        .unwrap();
    agent.wait_told(&tasks, TaskRunning).unwrap();
    for task in tasks {
        // The later ones may have ended before their KILL is sent.
        let _ = agent.kill(task);
    }
    let outcome = agent.finish();
    good(&outcome);
    for task in tasks {
        assert_states(
            &outcome,
            task,
            &[TaskStarting, TaskRunning, TaskKilling, TaskKilled],
        );
    }
}

#[test]
fn kill_task_group_on_task_failure_g_02_g_11_one_failure_ends_the_group_and_says_so() {
    let sleepers = [Sleeper::new(), Sleeper::new()];
    let gate = Place::new();
    let failing = format!(
        "while ! test -e {}; do sleep 0.01; done; exit 7",
        gate.file("go").display()
    );
    let agent = agent()
        .task_group(group([
            task("bad", &failing),
            sleepers[0].task("b"),
            sleepers[1].task("c"),
        ]))
        .start()
        .unwrap();
    agent.wait_told(&["bad", "b", "c"], TaskRunning).unwrap();
    fs::write(gate.file("go"), "").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_states(&outcome, "bad", &[TaskStarting, TaskRunning, TaskFailed]);
    assert!(
        last(&outcome, "bad").message().contains('7'),
        "{:?}",
        last(&outcome, "bad")
    );
    for task in ["b", "c"] {
        assert_eq!(outcome.state(task), Some(TaskKilled));
        assert!(
            last(&outcome, task).message().contains("bad"),
            "{:?}",
            last(&outcome, task)
        );
    }
    assert!(sleepers.iter().all(Sleeper::is_gone));
}

#[test]
fn u_08_a_signal_is_told_by_name() {
    let outcome = agent()
        .task_group(group([task("a", "kill -SEGV $$")]))
        .start()
        .unwrap()
        .finish();
    good(&outcome);
    assert_eq!(outcome.state("a"), Some(TaskFailed));
    assert!(
        last(&outcome, "a").message().contains("SIGSEGV"),
        "{:?}",
        last(&outcome, "a")
    );
}

#[test]
fn g_01_a_member_that_finishes_leaves_the_others_running() {
    let sleeper = Sleeper::new();
    let agent = agent()
        .task_group(group([task("short", "exit 0"), sleeper.task("long")]))
        .start()
        .unwrap();
    agent.wait_told(&["short"], TaskFinished).unwrap();
    agent.wait_told(&["long"], TaskRunning).unwrap();
    assert!(sleeper.processes() > 0);
    assert!(agent.history().exit().is_none());
    agent.kill("long").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_states(&outcome, "short", &[TaskStarting, TaskRunning, TaskFinished]);
}

#[test]
fn task_uses_executor_a_task_may_repeat_its_executor() {
    let agent = agent().task_group(group([task("a", "true")])).start().unwrap();
    let executor = agent.facts().executor.clone();
    let mut repeated = task("b", "true");
    repeated.executor = Some(executor);
    agent.launch(group([repeated]));
    let outcome = agent.finish();
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert_eq!(outcome.state("a"), Some(TaskFinished));
}

#[test]
fn container_status_for_task_u_09_each_member_has_a_container_id_below_the_executors() {
    let agent = agent()
        .task_group(group([task("a", "true"), task("b", "true")]))
        .start()
        .unwrap();
    let parent = agent.facts().container_id.clone();
    let outcome = agent.finish();
    good(&outcome);
    for task in ["a", "b"] {
        for status in outcome.history.updates(task) {
            let container = status.container_status.as_ref().unwrap();
            let id = container.container_id.as_ref().unwrap();
            assert_eq!(id.parent.as_ref().unwrap().value, parent);
            assert_eq!(id.value, container_of(last(&outcome, task)));
            let address = &container.network_infos[0].ip_addresses[0];
            assert_eq!(address.ip_address(), "127.0.0.1");
        }
    }
    assert_ne!(
        container_of(last(&outcome, "a")),
        container_of(last(&outcome, "b"))
    );
}

#[test]
fn commit_suicide_on_task_failure_g_05_the_executor_ends_well_after_a_failure() {
    let outcome = agent()
        .task_group(group([task("a", "exit 1")]))
        .start()
        .unwrap()
        .finish();
    good(&outcome);
    assert_eq!(outcome.state("a"), Some(TaskFailed));
    assert_eq!(outcome.exit.unwrap().code(), Some(0));
}

#[test]
fn commit_suicide_on_kill_task_g_05_the_executor_ends_well_after_a_kill() {
    let agent = agent()
        .task_group(group([task("done", "exit 0"), Sleeper::new().task("killed")]))
        .start()
        .unwrap();
    agent.wait_told(&["done"], TaskFinished).unwrap();
    agent.wait_told(&["killed"], TaskRunning).unwrap();
    agent.kill("killed").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_eq!(outcome.state("done"), Some(TaskFinished));
    assert_eq!(outcome.state("killed"), Some(TaskKilled));
}

#[test]
fn max_completion_time_x_01_x_02_an_expired_task_fails_and_its_sibling_is_killed() {
    let mut limited = Sleeper::new().task("limited");
    limited.max_completion_time = Some(DurationInfo {
        nanoseconds: 200_000_000,
    });
    let outcome = agent()
        .task_group(group([limited, Sleeper::new().task("sibling")]))
        .start()
        .unwrap()
        .finish();
    good(&outcome);
    assert_states(&outcome, "limited", &[TaskStarting, TaskRunning, TaskFailed]);
    assert_eq!(
        last(&outcome, "limited").reason(),
        Reason::MaxCompletionTimeReached
    );
    assert_eq!(outcome.state("sibling"), Some(TaskKilled));
}

#[test]
fn resource_limitation_r_06_g_08_want_of_memory_is_told_with_the_limit() {
    // The one process that takes too much is not the last of its member.
    let mut hog = task("hog", "tail -c 300m /dev/zero | tail > /dev/null; sleep 1000");
    hog.container = Some(ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        linux_info: Some(LinuxInfo {
            share_cgroups: Some(false),
            ..Default::default()
        }),
        ..Default::default()
    });
    let outcome = agent()
        .task_group(group([hog, Sleeper::new().task("quiet")]))
        .start()
        .unwrap()
        .finish();
    good(&outcome);
    assert_eq!(outcome.state("hog"), Some(TaskFailed));
    let status = last(&outcome, "hog");
    assert_eq!(status.reason(), Reason::ContainerLimitationMemory, "{status:?}");
    let limit = &status.limitation.as_ref().unwrap().resources[0];
    assert_eq!((limit.name.as_str(), limit.scalar.unwrap().value), ("mem", 32.0));
    assert_eq!(outcome.state("quiet"), Some(TaskKilled));
}

#[test]
fn no_transition_from_killing_to_finished_k_08_exit_0_after_sigterm_is_killed() {
    let place = Place::new();
    let ready = place.file("ready");
    let polite = format!(
        "trap 'exit 0' TERM; touch {}; while true; do sleep 0.01; done",
        ready.display()
    );
    let agent = agent()
        .task_group(group([task("polite", &polite)]))
        .start()
        .unwrap();
    assert!(within(|| ready.exists()));
    agent.kill("polite").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_states(
        &outcome,
        "polite",
        &[TaskStarting, TaskRunning, TaskKilling, TaskKilled],
    );
}

/// Ignores SIGTERM once `ready` exists.
fn stubborn(place: &Place) -> String {
    format!(
        "trap '' TERM; touch {}; while true; do sleep 1000; done",
        place.file("ready").display()
    )
}

#[test]
fn k_02_l_3_who_ignores_sigterm_is_ended_after_its_grace() {
    let place = Place::new();
    let mut task = task("stubborn", &stubborn(&place));
    task.kill_policy = Some(grace(Duration::from_millis(100)));
    let agent = agent().task_group(group([task])).start().unwrap();
    assert!(within(|| place.file("ready").exists()));
    agent.kill("stubborn").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_eq!(outcome.state("stubborn"), Some(TaskKilled));
    let when = |state| outcome.history.when_told("stubborn", state).unwrap();
    assert!(when(TaskKilled) - when(TaskKilling) >= Duration::from_millis(90));
}

#[test]
fn k_05_k_12_a_second_kill_shortens_the_deadline() {
    let place = Place::new();
    let mut task = task("stubborn", &stubborn(&place));
    task.kill_policy = Some(grace(Duration::from_secs(600)));
    let agent = agent().task_group(group([task])).start().unwrap();
    assert!(within(|| place.file("ready").exists()));
    agent.kill("stubborn").unwrap();
    agent.wait_told(&["stubborn"], TaskKilling).unwrap();
    agent
        .kill_with("stubborn", Some(grace(Duration::from_millis(10))))
        .unwrap();
    good(&agent.finish());
}

#[test]
fn launch_group_failure_l_1_l_05_l_06_a_group_that_cannot_start_never_starts_and_harms_no_other() {
    type Spoil = fn(&mut TaskInfo);
    let causes: [(&str, Spoil); 4] = [
        ("no such user", |task| {
            command(task).user = Some("no-such-user-here".into());
        }),
        ("no such program", |task| {
            command(task).shell = Some(false);
            command(task).value = Some("/nonexistent/program".into());
        }),
        ("nothing to run", |task| command(task).value = None),
        ("an image that is nowhere", |task| {
            task.container = Some(with_image("127.0.0.1:1/none:x"))
        }),
    ];
    let sleeper = Sleeper::new();
    let agent = agent()
        .task_group(group([sleeper.task("other")]))
        .start()
        .unwrap();
    agent.wait_told(&["other"], TaskRunning).unwrap();
    let place = Place::new();
    for (number, (cause, spoil)) in causes.into_iter().enumerate() {
        let (bad, good) = (format!("bad{number}"), format!("good{number}"));
        let mut doomed = task(&bad, "true");
        spoil(&mut doomed);
        let witness = place.file(&good);
        agent.launch(group([
            doomed,
            task(&good, &format!("touch {}", witness.display())),
        ]));
        agent
            .wait_told(&[&bad], TaskFailed)
            .or_else(|_| agent.wait_told(&[&bad], TaskError))
            .unwrap();
        agent.wait_told(&[&good], TaskKilled).unwrap();
        let history = agent.history();
        let status = history.updates(&bad).last().copied().unwrap().clone();
        assert!(!history.states(&bad).contains(&TaskRunning), "{cause}");
        assert!(
            matches!(
                status.reason(),
                Reason::ContainerLaunchFailed | Reason::TaskInvalid
            ),
            "{cause}: {status:?}"
        );
        assert!(status.message().contains(&bad), "{cause}: {status:?}");
        let told = history
            .updates(&good)
            .last()
            .copied()
            .unwrap()
            .message()
            .to_owned();
        assert!(told.contains(&bad), "{cause}: {told}");
        assert!(!witness.exists(), "{cause}: the sibling ran");
    }
    assert_eq!(agent.history().state("other"), Some(TaskRunning));
    assert!(sleeper.processes() > 0);
    agent.kill("other").unwrap();
    good(&agent.finish());
}

fn command(task: &mut TaskInfo) -> &mut CommandInfo {
    task.command.get_or_insert_default()
}

fn with_image(name: &str) -> ContainerInfo {
    ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        mesos: Some(container_info::MesosInfo {
            image: Some(Image {
                r#type: image::Type::Docker.into(),
                docker: Some(image::Docker {
                    name: name.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

#[test]
fn l_12_a_task_that_is_launched_twice_is_left_alone() {
    let sleeper = Sleeper::new();
    let agent = agent().task_group(group([sleeper.task("a")])).start().unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    again(&agent);
    agent.kill("a").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_states(
        &outcome,
        "a",
        &[TaskStarting, TaskRunning, TaskKilling, TaskKilled],
    );
}

/// Repeats the LAUNCH_GROUP, and waits until the executor has read past it.
fn again(agent: &Agent) {
    let launch = agent
        .history()
        .events()
        .find(|event| event.launch_group.is_some())
        .unwrap()
        .clone();
    agent.send(launch);
    agent.launch(group([task("after", "true")]));
    agent.wait_told(&["after"], TaskFinished).unwrap();
}

#[test]
fn k_06_a_kill_for_an_unknown_or_finished_task_is_ignored() {
    use podling::mesos::v1::{TaskId, executor as wire};
    let agent = agent()
        .task_group(group([Sleeper::new().task("a"), task("done", "true")]))
        .start()
        .unwrap();
    agent.wait_told(&["a"], TaskRunning).unwrap();
    agent.wait_told(&["done"], TaskFinished).unwrap();
    for unknown in ["never heard of", "done"] {
        agent.send(wire::Event {
            r#type: Some(wire::event::Type::Kill.into()),
            kill: Some(wire::event::Kill {
                task_id: TaskId {
                    value: unknown.into(),
                },
                kill_policy: None,
            }),
            ..Default::default()
        });
    }
    agent.kill("a").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert_states(&outcome, "done", &[TaskStarting, TaskRunning, TaskFinished]);
}

#[test]
fn ten_members_start_and_end_together() {
    let ids: Vec<String> = (0..10).map(|number| format!("m{number}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let agent = agent()
        .task_group(group(ids.iter().map(|id| Sleeper::new().task(id))))
        .start()
        .unwrap();
    agent.wait_told(&names, TaskRunning).unwrap();
    agent.kill("m3").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    assert!(names.iter().all(|name| outcome.state(name) == Some(TaskKilled)));
}
