//! Health checks and general checks: the scenarios of Mesos' own tests that concern groups, by their names, and what
//! we do better.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use podling::{
    loopback::agent::Agent,
    mesos::v1::{
        CheckInfo, CommandInfo, Environment, HealthCheck, TaskInfo,
        TaskState::*,
        TaskStatus, check_info,
        environment::{self, Variable},
        health_check,
        task_status::Reason,
    },
};

use crate::support::*;

/// Quick, and patient enough for a machine under load.
fn health_check(kind: health_check::Type) -> HealthCheck {
    HealthCheck {
        r#type: Some(kind.into()),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        timeout_seconds: Some(20.0),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(3),
        ..Default::default()
    }
}

fn by_command(command: &str) -> HealthCheck {
    HealthCheck {
        command: Some(shell(command)),
        ..health_check(health_check::Type::Command)
    }
}

fn by_http(port: u16) -> HealthCheck {
    HealthCheck {
        http: Some(health_check::HttpCheckInfo {
            port: port.into(),
            path: Some("/ping".into()),
            ..Default::default()
        }),
        ..health_check(health_check::Type::Http)
    }
}

fn by_tcp(port: u16) -> HealthCheck {
    HealthCheck {
        tcp: Some(health_check::TcpCheckInfo {
            port: port.into(),
            ..Default::default()
        }),
        ..health_check(health_check::Type::Tcp)
    }
}

fn shell(command: &str) -> CommandInfo {
    CommandInfo {
        shell: Some(true),
        value: Some(command.into()),
        ..Default::default()
    }
}

fn check(command: CommandInfo) -> CheckInfo {
    CheckInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_info::Command { command }),
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        timeout_seconds: Some(20.0),
        ..Default::default()
    }
}

fn with(task: TaskInfo, health_check: HealthCheck) -> TaskInfo {
    TaskInfo {
        health_check: Some(health_check),
        ..task
    }
}

fn with_check(task: TaskInfo, check: CheckInfo) -> TaskInfo {
    TaskInfo {
        check: Some(check),
        ..task
    }
}

/// A server in this process, with a status that can be changed and a count of its requests.
struct Server {
    port: u16,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(status: u16) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            status: Arc::new(AtomicU16::new(status)),
            asked: Arc::default(),
        };
        let (status, asked) = (server.status.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let status = status.load(Ordering::SeqCst);
                let _ =
                    stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes());
            }
        });
        server
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Waits until the last thing told of a task is so.
#[track_caller]
fn wait_for(agent: &Agent, task: &str, is_so: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
    let last = || {
        agent
            .history()
            .updates(task)
            .last()
            .map(|status| (*status).clone())
    };
    assert!(
        within(|| last().is_some_and(|status| is_so(&status))),
        "{}",
        agent.history()
    );
    // It may have been told more than once.
    let history = agent.history();
    let so = history
        .updates(task)
        .into_iter()
        .rev()
        .find(|status| is_so(status))
        .cloned();
    so.unwrap()
}

fn exit_code(status: &TaskStatus) -> Option<i32> {
    status.check_status?.command?.exit_code
}

#[test]
fn h_06_h_08_g_06_too_many_failures_end_the_group_and_say_why() {
    let sick = with(
        Sleeper::new().task("sick"),
        by_command("echo cannot reach the database; exit 7"),
    );
    let well = with(Sleeper::new().task("well"), by_command("true"));
    let outcome = agent().task_group(group([sick, well])).start().unwrap().finish();
    good(&outcome);
    let told: Vec<_> = outcome
        .history
        .updates("sick")
        .into_iter()
        .filter(|status| status.reason == Some(Reason::TaskHealthCheckStatusUpdated.into()))
        .collect();
    assert_eq!(told.len(), 3, "{}", outcome.history);
    for (status, nth) in told.iter().zip(["1st", "2nd", "3rd"]) {
        let message = status.message.as_deref().unwrap();
        assert!(
            status.healthy == Some(false)
                && message.starts_with("command → status 7 after ")
                && message.ends_with(&format!(" ms (cannot reach the database), {nth} of 3 failures")),
            "{message}"
        );
    }
    let (sick, well) = (last(&outcome, "sick"), last(&outcome, "well"));
    assert_eq!(
        (sick.state(), sick.healthy, sick.reason),
        (TaskKilled, Some(false), None)
    );
    let message = sick.message.as_deref().unwrap();
    assert!(
        message.starts_with("killed because it was unhealthy: command → status 7"),
        "{message}"
    );
    assert!(
        message.contains("3rd of 3 failures; Command terminated"),
        "{message}"
    );
    assert_eq!((well.state(), well.healthy), (TaskKilled, Some(true)));
}

#[test]
fn healthy_task_via_http_tcp_and_command_h_07_h_09_is_told_once() {
    let server = Server::start(200);
    let agent = agent()
        .task_group(group([
            with(Sleeper::new().task("http"), by_http(server.port)),
            with(Sleeper::new().task("tcp"), by_tcp(server.port)),
            with(Sleeper::new().task("command"), by_command("true")),
        ]))
        .start()
        .unwrap();
    for task in ["http", "tcp", "command"] {
        wait_for(&agent, task, |status| status.healthy == Some(true));
    }
    let before = server.asked();
    assert!(within(|| server.asked() > before + 20));
    agent.kill("http").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    for task in ["http", "tcp", "command"] {
        assert_states(
            &outcome,
            task,
            &[TaskStarting, TaskRunning, TaskRunning, TaskKilling, TaskKilled],
        );
        let updates = outcome.history.updates(task);
        assert!(updates[..2].iter().all(|status| status.healthy.is_none()));
        assert!(updates[2..].iter().all(|status| status.healthy == Some(true)));
    }
}

#[test]
fn health_status_change_h_05_h_07_flapping_is_told_both_ways() {
    let server = Server::start(200);
    let never_too_many = HealthCheck {
        consecutive_failures: Some(u32::MAX),
        ..by_http(server.port)
    };
    let agent = agent()
        .task_group(group([with(Sleeper::new().task("a"), never_too_many)]))
        .start()
        .unwrap();
    wait_for(&agent, "a", |status| status.healthy == Some(true));
    server.status.store(503, Ordering::SeqCst);
    let sick = wait_for(&agent, "a", |status| status.healthy == Some(false));
    assert!(sick.message().starts_with("GET /ping on port "), "{sick:?}");
    assert!(sick.message().contains(" → 503 after "), "{sick:?}");
    server.status.store(200, Ordering::SeqCst);
    wait_for(&agent, "a", |status| status.healthy == Some(true));
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn grace_period_h_04_failures_before_the_first_success_do_not_count() {
    let server = Server::start(500);
    let graceful = HealthCheck {
        grace_period_seconds: Some(600.0),
        consecutive_failures: Some(1),
        ..by_http(server.port)
    };
    let agent = agent()
        .task_group(group([with(Sleeper::new().task("a"), graceful)]))
        .start()
        .unwrap();
    assert!(within(|| server.asked() >= 5));
    assert_eq!(agent.history().state("a"), Some(TaskRunning));
    server.status.store(200, Ordering::SeqCst);
    wait_for(&agent, "a", |status| status.healthy == Some(true));
    // HealthyToUnhealthyTransitionWithinGracePeriod
    server.status.store(500, Ordering::SeqCst);
    let outcome = agent.finish();
    good(&outcome);
    let last = last(&outcome, "a");
    assert_eq!((last.state(), last.healthy), (TaskKilled, Some(false)));
}

#[test]
fn h_21_no_look_is_taken_once_a_member_is_to_end() {
    let server = Server::start(200);
    let stubborn = TaskInfo {
        kill_policy: Some(grace(Duration::from_secs(1))),
        ..task("a", "trap '' TERM; while :; do sleep 0.1; done")
    };
    let agent = agent()
        .task_group(group([with(stubborn, by_http(server.port))]))
        .start()
        .unwrap();
    wait_for(&agent, "a", |status| status.healthy == Some(true));
    agent.kill("a").unwrap();
    agent.wait_told(&["a"], TaskKilling).unwrap();
    let (asked, then) = (server.asked(), std::time::Instant::now());
    server.status.store(500, Ordering::SeqCst);
    let outcome = agent.finish();
    good(&outcome);
    assert!(then.elapsed() > Duration::from_millis(500), "it had its grace");
    // One may have been under way.
    assert!(server.asked() <= asked + 1, "{} after {asked}", server.asked());
    assert_eq!(last(&outcome, "a").healthy, Some(true));
}

#[test]
fn h_21_a_member_that_ends_is_not_killed_for_being_sick() {
    // Its server goes with it; whoever looks at that moment is refused.
    let script = "exec python3 -c '
import http.server, os, threading, socketserver
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header(\"Content-Length\", \"0\"); self.end_headers()
        H.n += 1
        if H.n > 3: os._exit(3)
    def log_message(self, *a): pass
H.n = 0
s = socketserver.TCPServer((\"127.0.0.1\", PORT), H)
s.serve_forever()'";
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let look = HealthCheck {
            interval_seconds: Some(0.0),
            grace_period_seconds: Some(600.0),
            consecutive_failures: Some(2),
            ..by_http(port)
        };
        let task = with(task("a", &script.replace("PORT", &port.to_string())), look);
        let outcome = agent().task_group(group([task])).start().unwrap().finish();
        good(&outcome);
        let last = last(&outcome, "a");
        assert_eq!(last.state(), TaskFailed, "{}", outcome.history);
        assert!(
            last.message().starts_with("Command exited with status 3"),
            "{}",
            last.message()
        );
    }
}

#[test]
fn check_command_timeout_h_03_a_command_that_hangs_is_killed_and_counts() {
    let sleeper = Sleeper::new();
    let hanging = HealthCheck {
        timeout_seconds: Some(0.2),
        consecutive_failures: Some(2),
        ..by_command(&format!("trap '' TERM; {}", sleeper.command()))
    };
    let outcome = agent()
        .task_group(group([with(Sleeper::new().task("a"), hanging)]))
        .start()
        .unwrap()
        .finish();
    good(&outcome);
    let last = last(&outcome, "a");
    assert_eq!((last.state(), last.healthy), (TaskKilled, Some(false)));
    assert!(
        last.message().contains("command → no result after "),
        "{}",
        last.message()
    );
    assert!(sleeper.is_gone());
}

#[test]
fn h_16_h_18_h_19_how_commands_may_end() {
    for (command, words) in [
        (shell("kill -SEGV $$"), "command → SIGSEGV after "),
        (shell("kill -KILL $$"), "command → SIGKILL after "),
        (shell("exit 255"), "command → status 255 after "),
        (
            CommandInfo {
                shell: Some(false),
                value: Some("/no/such/program".into()),
                ..Default::default()
            },
            "command → exec `/no/such/program`: No such file or directory",
        ),
        (
            shell("head -c 1000000 /dev/zero | tr '\\0' x; exit 1"),
            "command → status 1 after ",
        ),
    ] {
        let check = HealthCheck {
            command: Some(command),
            consecutive_failures: Some(1),
            ..health_check(health_check::Type::Command)
        };
        let outcome = agent()
            .task_group(group([with(Sleeper::new().task("a"), check)]))
            .start()
            .unwrap()
            .finish();
        good(&outcome);
        let last = last(&outcome, "a");
        assert_eq!((last.state(), last.healthy), (TaskKilled, Some(false)), "{words}");
        assert!(
            last.message().contains(words),
            "{words} is not in {}",
            last.message()
        );
        assert!(last.message().len() < 1000, "what commands say is bounded");
    }
}

#[test]
fn healthy_task_non_shell_h_16_arguments_are_passed_as_they_are() {
    let check = HealthCheck {
        command: Some(CommandInfo {
            shell: Some(false),
            value: Some("test".into()),
            arguments: ["test", "a b", "=", "a b"].map(str::to_owned).into(),
            ..Default::default()
        }),
        ..health_check(health_check::Type::Command)
    };
    let agent = agent()
        .task_group(group([with(Sleeper::new().task("a"), check)]))
        .start()
        .unwrap();
    wait_for(&agent, "a", |status| status.healthy == Some(true));
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn environment_setup_h_15_c_08_a_command_sees_what_the_member_sees_and_its_own_on_top() {
    let variable = |name: &str, value: &str| Variable {
        name: name.into(),
        value: Some(value.into()),
        r#type: Some(environment::variable::Type::Value.into()),
        secret: None,
    };
    let mut task = task("a", "echo here > made; exec sleep 1000");
    let command = task.command.as_mut().unwrap();
    command.environment = Some(Environment {
        variables: vec![variable("OWN", "member"), variable("BOTH", "member")],
    });
    let looks = CommandInfo {
        environment: Some(Environment {
            variables: vec![variable("BOTH", "check"), variable("MORE", "check")],
        }),
        ..shell(
            "test \"$OWN $BOTH $MORE\" = 'member check check' || exit 8; test \"$(cat made)\" = here || exit 9",
        )
    };
    let health = HealthCheck {
        command: Some(looks.clone()),
        grace_period_seconds: Some(600.0),
        ..health_check(health_check::Type::Command)
    };
    let task = with_check(with(task, health), check(looks));
    let agent = agent().task_group(group([task])).start().unwrap();
    wait_for(&agent, "a", |status| {
        status.healthy == Some(true) && exit_code(status) == Some(0)
    });
    agent.kill("a").unwrap();
    good(&agent.finish());
}

#[test]
fn command_check_status_change_c_02_c_03_c_06_only_changes_are_told_and_nobody_is_killed() {
    let place = Place::new();
    let state = place.file("state");
    std::fs::write(&state, "0").unwrap();
    let line = format!("exit $(cat {})", state.display());
    let agent = agent()
        .task_group(group([with_check(Sleeper::new().task("a"), check(shell(&line)))]))
        .start()
        .unwrap();
    wait_for(&agent, "a", |status| exit_code(status) == Some(0));
    std::fs::write(&state, "7").unwrap();
    wait_for(&agent, "a", |status| exit_code(status) == Some(7));
    agent.kill("a").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    let updates = outcome.history.updates("a");
    assert!(updates[..2].iter().all(|status| {
        let empty = status.check_status.unwrap();
        empty.r#type() == check_info::Type::Command && empty.command.unwrap().exit_code.is_none()
    }));
    let results: Vec<_> = updates
        .iter()
        .filter(|status| status.reason == Some(Reason::TaskCheckStatusUpdated.into()))
        .map(|status| exit_code(status))
        .collect();
    assert_eq!(results, [Some(0), Some(7)]);
    // U-03
    assert_eq!(exit_code(last(&outcome, "a")), Some(7));
}

#[test]
fn http_and_tcp_checks_delivered_c_03_c_05_c_07_by_several_tasks_at_once() {
    let server = Server::start(404);
    let base = CheckInfo {
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.05),
        ..Default::default()
    };
    let http = CheckInfo {
        r#type: Some(check_info::Type::Http.into()),
        http: Some(check_info::Http {
            port: server.port.into(),
            path: Some("/x".into()),
        }),
        ..base.clone()
    };
    let tcp = |port: u16| CheckInfo {
        r#type: Some(check_info::Type::Tcp.into()),
        tcp: Some(check_info::Tcp { port: port.into() }),
        ..base.clone()
    };
    let agent = agent()
        .task_group(group([
            with_check(Sleeper::new().task("http"), http),
            with_check(Sleeper::new().task("open"), tcp(server.port)),
            with_check(Sleeper::new().task("closed"), tcp(1)),
        ]))
        .start()
        .unwrap();
    let result = |status: &TaskStatus| {
        let check = status.check_status.unwrap();
        (
            check.http.and_then(|http| http.status_code),
            check.tcp.and_then(|tcp| tcp.succeeded),
        )
    };
    wait_for(&agent, "http", |status| result(status) == (Some(404), None));
    wait_for(&agent, "open", |status| result(status) == (None, Some(true)));
    wait_for(&agent, "closed", |status| result(status) == (None, Some(false)));
    agent.kill("open").unwrap();
    good(&agent.finish());
}

#[test]
fn command_check_and_health_check_no_shadowing_u_03() {
    let server = Server::start(200);
    let task = with(Sleeper::new().task("a"), by_http(server.port));
    let agent = agent()
        .task_group(group([with_check(task, check(shell("exit 3")))]))
        .start()
        .unwrap();
    wait_for(&agent, "a", |status| {
        status.healthy == Some(true) && exit_code(status) == Some(3)
    });
    agent.kill("a").unwrap();
    let outcome = agent.finish();
    good(&outcome);
    let last = last(&outcome, "a");
    assert_eq!((last.healthy, exit_code(last)), (Some(true), Some(3)));
}

#[test]
fn s_11_checks_go_on_while_the_agent_is_away() {
    let server = Server::start(200);
    let agent = agent()
        .checkpoint()
        .task_group(group([with(Sleeper::new().task("a"), by_http(server.port))]))
        .start()
        .unwrap();
    wait_for(&agent, "a", |status| status.healthy == Some(true));
    agent.stop();
    let asked = server.asked();
    assert!(within(|| server.asked() > asked + 5), "nobody looks");
    // The kill does not wait for it either.
    server.status.store(500, Ordering::SeqCst);
    assert!(within(|| {
        let before = server.asked();
        std::thread::sleep(Duration::from_millis(300));
        server.asked() == before
    }));
    agent.restart().unwrap();
    let outcome = agent.finish();
    good(&outcome);
    let last = last(&outcome, "a");
    assert_eq!((last.state(), last.healthy), (TaskKilled, Some(false)));
}
