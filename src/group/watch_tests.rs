//! Checks from the definition to what is told, on virtual time.

use super::*;
use crate::{
    group::{ExitStatus, extra_checks},
    mesos::v1::{CheckInfo, CommandInfo, HealthCheck, check_info, check_status_info, health_check},
};

const MEMBER: MemberId = MemberId(4);

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn health_check() -> HealthCheck {
    HealthCheck {
        r#type: Some(health_check::Type::Tcp.into()),
        tcp: Some(health_check::TcpCheckInfo {
            port: 80,
            ..Default::default()
        }),
        delay_seconds: Some(1.0),
        interval_seconds: Some(2.0),
        timeout_seconds: Some(0.5),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(2),
        ..Default::default()
    }
}

fn check(kind: check_info::Type) -> CheckInfo {
    CheckInfo {
        r#type: Some(kind.into()),
        command: (kind == check_info::Type::Command).then(|| check_info::Command {
            command: CommandInfo::default(),
        }),
        http: (kind == check_info::Type::Http).then_some(check_info::Http { port: 80, path: None }),
        tcp: (kind == check_info::Type::Tcp).then_some(check_info::Tcp { port: 80 }),
        ..Default::default()
    }
}

fn watch(health_check: Option<HealthCheck>, check: Option<CheckInfo>) -> Option<Watch> {
    let task = TaskInfo {
        health_check,
        check,
        ..Default::default()
    };
    Watch::of(MEMBER, &task, &[], at(10.0))
}

fn seen(sight: Sight) -> Seen {
    Seen {
        sight,
        took: Duration::from_millis(3),
        words: None,
    }
}

fn refused() -> Sight {
    Sight::Failed("connection refused".into())
}

#[test]
fn a_task_without_checks_is_not_watched() {
    assert!(watch(None, None).is_none());
    let untyped = HealthCheck::default();
    assert!(watch(Some(untyped), None).is_none());
}

#[test]
fn h_02_h_03_the_first_look_is_after_the_delay_and_the_next_counts_from_the_end_of_the_last() {
    let watch = watch(Some(health_check()), None).unwrap();
    assert_eq!(watch.count(), 1);
    assert_eq!(watch.first(0, 0), Some(at(11.0)));
    assert_eq!(watch.next(0, at(11.4)), Some(at(13.4)));
    assert_eq!(watch.timeout(0), Some(at(0.5)));
    assert_eq!((watch.first(1, 0), watch.next(1, at(0.0))), (None, None));
}

#[test]
fn h_05_h_06_g_06_failures_are_told_and_the_last_one_ends_the_member() {
    let mut watch = watch(Some(health_check()), None).unwrap();
    let first = watch.seen(0, at(11.0), &seen(refused()));
    let message = "TCP port 80 → connection refused after 3 ms, 1st of 2 failures";
    assert!(
        matches!(&first[..], [Event::Health { member: MEMBER, healthy: false, message: Some(told) }] if told == message),
        "{first:?}"
    );
    let second = watch.seen(0, at(13.0), &seen(refused()));
    let [
        Event::Health { healthy: false, .. },
        Event::Unhealthy { member, message },
    ] = &second[..]
    else {
        panic!("{second:?}")
    };
    assert_eq!(*member, MEMBER);
    assert_eq!(
        message,
        "TCP port 80 → connection refused after 3 ms, 2nd of 2 failures"
    );
}

#[test]
fn h_07_only_a_change_for_the_better_is_told() {
    let mut watch = watch(Some(health_check()), None).unwrap();
    let mut told = |sight| watch.seen(0, at(11.0), &seen(sight)).len();
    assert_eq!(
        [
            told(Sight::Connected),
            told(Sight::Connected),
            told(refused()),
            told(Sight::Connected)
        ],
        [1, 0, 1, 1]
    );
}

#[test]
fn h_18_what_could_not_be_tried_says_nothing() {
    let mut watch = watch(Some(health_check()), Some(check(check_info::Type::Tcp))).unwrap();
    for number in [0, 1] {
        let untried = seen(Sight::Untried("no socket".into()));
        assert!(watch.seen(number, at(11.0), &untried).is_empty());
    }
}

#[test]
fn c_02_c_03_c_04_results_of_general_checks() {
    let command = |exit_code| CheckStatusInfo {
        r#type: Some(check_info::Type::Command.into()),
        command: Some(check_status_info::Command { exit_code }),
        ..Default::default()
    };
    let http = |status_code| CheckStatusInfo {
        r#type: Some(check_info::Type::Http.into()),
        http: Some(check_status_info::Http { status_code }),
        ..Default::default()
    };
    let tcp = |succeeded| CheckStatusInfo {
        r#type: Some(check_info::Type::Tcp.into()),
        tcp: Some(check_status_info::Tcp { succeeded }),
        ..Default::default()
    };
    let exited = |code| Sight::Exited(ExitStatus::Code(code));
    let cases = [
        (
            check_info::Type::Command,
            vec![
                (Sight::TooLate, None),
                (exited(0), Some(command(Some(0)))),
                (exited(0), None),
                (exited(7), Some(command(Some(7)))),
                (Sight::Exited(ExitStatus::Signal(9)), Some(command(None))),
                (exited(7), Some(command(Some(7)))),
            ],
        ),
        (
            check_info::Type::Http,
            vec![
                (refused(), None),
                (Sight::Status(500), Some(http(Some(500)))),
                (Sight::Status(200), Some(http(Some(200)))),
                (Sight::TooLate, Some(http(None))),
            ],
        ),
        (
            check_info::Type::Tcp,
            vec![
                (Sight::Connected, Some(tcp(Some(true)))),
                (Sight::Connected, None),
                (refused(), Some(tcp(Some(false)))),
                (Sight::TooLate, Some(tcp(None))),
            ],
        ),
    ];
    for (kind, results) in cases {
        let mut watch = watch(None, Some(check(kind))).unwrap();
        for (sight, expected) in results {
            let events = watch.seen(0, at(11.0), &seen(sight.clone()));
            let told = match &events[..] {
                [] => None,
                [Event::Check { status, message, .. }] => {
                    assert!(message.as_ref().is_some_and(|message| message.contains(" → ")));
                    Some(*status)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(told, expected, "{kind:?} {sight:?}");
        }
    }
}

#[test]
fn c_07_checks_of_one_member_do_not_disturb_each_other() {
    let mut watch = watch(Some(health_check()), Some(check(check_info::Type::Http))).unwrap();
    assert_eq!(watch.count(), 2);
    assert_eq!(watch.seen(1, at(11.0), &seen(Sight::Status(500))).len(), 1);
    assert_eq!(watch.seen(0, at(11.0), &seen(Sight::Connected)).len(), 1);
    assert!(watch.seen(1, at(12.0), &seen(Sight::Status(500))).is_empty());
}

fn extra(checks: serde_json::Value) -> Watch {
    let checks = extra_checks::read(serde_json::json!({ "a": checks })).unwrap();
    let task = TaskInfo {
        health_check: Some(health_check()),
        ..Default::default()
    };
    Watch::of(MEMBER, &task, &checks["a"], at(10.0)).unwrap()
}

#[test]
fn a_member_is_well_when_every_health_check_says_so() {
    let mut watch = extra(serde_json::json!([{"kind": "health", "name": "db", "tcp": {"port": 5432}}]));
    assert!(
        watch.seen(0, at(11.0), &seen(Sight::Connected)).is_empty(),
        "the other has not looked"
    );
    let well = watch.seen(1, at(11.0), &seen(Sight::Connected));
    assert!(
        matches!(well[..], [Event::Health { healthy: true, .. }]),
        "{well:?}"
    );
    let sick = watch.seen(1, at(12.0), &seen(refused()));
    let [
        Event::Health {
            healthy: false,
            message: Some(message),
            ..
        },
    ] = &sick[..]
    else {
        panic!("{sick:?}")
    };
    assert!(
        message.starts_with("health (db): TCP port 5432 → connection refused"),
        "{message}"
    );
    assert_eq!(watch.seen(0, at(12.0), &seen(refused())).len(), 1);
    assert!(
        watch.seen(0, at(13.0), &seen(Sight::Connected)).is_empty(),
        "the other is still sick"
    );
    assert_eq!(watch.seen(1, at(13.0), &seen(Sight::Connected)).len(), 1);
}

#[test]
fn readiness_is_told_and_kills_nobody() {
    let mut watch = extra(
        serde_json::json!([{"kind": "readiness", "http": {"port": 80, "path": "/ready"}, "consecutiveFailures": 2}]),
    );
    let mut told = |sight| match &watch.seen(1, at(11.0), &seen(sight))[..] {
        [] => None,
        [Event::Ready { ready, status, .. }] => Some((*ready, status.unwrap().http.unwrap().status_code)),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(Sight::Status(503)), Some((false, Some(503))));
    assert_eq!(told(Sight::Status(503)), None);
    assert_eq!(told(Sight::Status(200)), Some((true, Some(200))));
    assert_eq!(told(Sight::Status(503)), None, "one failure is not too many");
    assert_eq!(told(Sight::Status(503)), Some((false, Some(503))));
    for _ in 0..10 {
        assert_eq!(told(refused()), None);
    }
    assert_eq!(told(Sight::Status(200)), Some((true, Some(200))));
}

#[test]
fn a_startup_check_suspends_the_others_and_their_time_begins_with_its_success() {
    let mut watch = extra(
        serde_json::json!([{"kind": "startup", "exec": {"shell": "x"}, "intervalSeconds": 1, "consecutiveFailures": 3}]),
    );
    let exited = |code| seen(Sight::Exited(ExitStatus::Code(code)));
    assert_eq!((watch.first(0, 0), watch.first(1, 0)), (None, Some(at(10.0))));
    for second in [10.0, 11.0] {
        assert!(watch.seen(1, at(second), &exited(1)).is_empty());
        assert_eq!(watch.next(1, at(second)), Some(at(second + 1.0)));
    }
    assert!(watch.seen(1, at(12.0), &exited(0)).is_empty());
    assert_eq!(watch.next(1, at(12.0)), None, "it has done its work");
    assert_eq!(watch.first(0, 0), Some(at(13.0)), "a second after the start");

    let mut never =
        extra(serde_json::json!([{"kind": "startup", "tcp": {"port": 1}, "consecutiveFailures": 2}]));
    assert!(never.seen(1, at(10.0), &seen(refused())).is_empty());
    let end = never.seen(1, at(11.0), &seen(refused()));
    let [Event::Unhealthy { message, .. }] = &end[..] else {
        panic!("{end:?}")
    };
    assert_eq!(
        message,
        "startup: TCP port 1 → connection refused after 3 ms, 2nd of 2 failures"
    );
}
