//! Running something more in a member.

use std::{sync::Arc, time::Duration};

use podling::{
    container::{
        Captured, ExecPlan, ExecStreams, Running,
        cgroup::Limits,
        plan::{Command, Plan, Rlimit, Terminal, UserSpec},
    },
    group::ExitStatus,
};

use crate::support::{World, exec, shell};

fn command(argv: &[&str]) -> ExecPlan {
    ExecPlan {
        command: Command {
            program: argv[0].into(),
            arguments: argv.iter().map(|&argument| argument.into()).collect(),
        },
        environment: vec![],
        cwd: None,
        streams: ExecStreams::Null,
    }
}

async fn say(running: &Running, line: &str) -> Captured {
    running
        .entrance()
        .unwrap()
        .capture(command(&["/bin/sh", "-c", line]), 1 << 16)
        .await
        .unwrap()
}

fn text(captured: &Captured) -> &str {
    assert_eq!(captured.status, ExitStatus::Code(0), "{captured:?}");
    std::str::from_utf8(&captured.output).unwrap().trim_end()
}

/// What a process can see of itself, but for what differs between any two processes.
const LOOK: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigIgn|SigBlk|Umask)' /proc/self/status; \
    cat /proc/self/limits; for n in /proc/self/ns/*; do readlink $n; done; pwd; cat /proc/self/cgroup; hostname; \
    cat /proc/self/oom_score_adj; echo $OWN; ls /proc/self/fd";

#[tokio::test]
async fn h_15_an_exec_sees_what_the_member_sees() {
    let world = World::new();
    let plans: [fn(&World, &str) -> Plan; 2] = [
        |world, line| world.plan(&shell(line)),
        |world, line| world.rooted_plan(&shell(line)),
    ];
    for plan in plans {
        let mut plan = plan(&world, &format!("{{ {LOOK}; }} > look; exec sleep 1000"));
        plan.hostname = Some("box".into());
        plan.oom_score_adj = Some(500);
        plan.umask = 0o027;
        plan.environment.push(("OWN".into(), "value".into()));
        plan.rlimits.push(Rlimit {
            resource: libc::RLIMIT_NOFILE,
            soft: Some(77),
            hard: Some(99),
        });
        plan.user = UserSpec::Named {
            text: "1234:4321".into(),
            host_too: false,
        };
        let look = plan.sandbox.join("look");
        let running = world.start(plan).await.unwrap();
        let inside = say(&running, LOOK).await;
        let own = loop {
            let own = std::fs::read_to_string(&look).unwrap_or_default();
            if own.lines().last().is_some_and(|last| last == "3" || last == "4")
                && own.contains("value\n0\n1\n2")
            {
                break own;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(
            text(&inside).lines().collect::<Vec<_>>(),
            own.lines().collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn h_15_own_environment_is_on_top_and_cwd_may_differ() {
    let world = World::new();
    let mut plan = world.plan(&exec(&["sleep", "1000"]));
    plan.environment
        .extend([("A".into(), "member".into()), ("B".into(), "member".into())]);
    let running = world.start(plan).await.unwrap();
    let mut plan = command(&["/bin/sh", "-c", "echo $A $B $C; pwd"]);
    plan.environment = vec![("B".into(), "check".into()), ("C".into(), "new".into())];
    plan.cwd = Some("/usr".into());
    let said = running.entrance().unwrap().capture(plan, 100).await.unwrap();
    assert_eq!(text(&said), "member check new\n/usr");
}

#[tokio::test]
async fn an_exec_s_end_and_output_are_told_and_bounded() {
    let world = World::new();
    let running = world.start(world.plan(&exec(&["sleep", "1000"]))).await.unwrap();
    assert_eq!(say(&running, "exit 3").await.status, ExitStatus::Code(3));
    assert_eq!(
        say(&running, "kill -SEGV $$").await.status,
        ExitStatus::Signal(libc::SIGSEGV)
    );
    let entrance = running.entrance().unwrap();
    let much = command(&["/bin/sh", "-c", "head -c 300000 /dev/zero; echo end >&2"]);
    let said = entrance.capture(much, 1000).await.unwrap();
    assert_eq!(
        (said.status, said.output.len(), said.truncated),
        (ExitStatus::Code(0), 1000, true)
    );
    let error = entrance.capture(command(&["/no/such"]), 10).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "member `web`: exec `/no/such`: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn a_background_process_does_not_hold_up_an_exec() {
    let world = World::new();
    let running = world.start(world.plan(&exec(&["sleep", "1000"]))).await.unwrap();
    let said = tokio::time::timeout(Duration::from_secs(20), say(&running, "sleep 1000 & echo done"))
        .await
        .unwrap();
    assert_eq!(text(&said), "done");
}

#[tokio::test]
async fn h_03_a_dropped_exec_is_killed_with_its_group() {
    let world = World::new();
    let running = world.start(world.plan(&exec(&["sleep", "1000"]))).await.unwrap();
    let entrance = running.entrance().unwrap();
    let count = || async {
        let said = say(&running, "ls /proc | grep -c '^[0-9]'").await;
        text(&said).parse::<u32>().unwrap()
    };
    let before = count().await;
    let mut executing = entrance
        .exec(command(&["/bin/sh", "-c", "sleep 1001; sleep 1002"]))
        .await
        .unwrap();
    while count().await < before + 2 {
        tokio::task::yield_now().await;
    }
    executing.kill();
    assert_eq!(executing.wait().await, ExitStatus::Signal(libc::SIGKILL));
    while count().await > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_exec_into_what_has_ended_is_an_error() {
    let world = World::new();
    let mut running = world.start(world.plan(&shell("true"))).await.unwrap();
    let entrance = running.entrance().unwrap();
    running.wait().await;
    let error = entrance
        .capture(command(&["true"]), 10)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "member `web`: enter the member: No such process (os error 3)"
    );
}

#[tokio::test]
async fn z_08_a_terminal_is_the_controlling_one_and_its_output_is_kept() {
    let world = World::new();
    for rooted in [false, true] {
        let line = "test -t 0 && test -t 1 && test -t 2 && echo shown > /dev/tty; stat -c %t:%T /proc/self/fd/0 > /dev/null";
        let mut plan = if rooted {
            world.rooted_plan(&shell(line))
        } else {
            world.plan(&shell(line))
        };
        plan.terminal = Some(Terminal { size: Some((33, 99)) });
        let done = world.run(plan).await;
        assert_eq!(done.said(), "shown");
    }
    let mut plan = world.plan(&shell("stty size"));
    plan.terminal = Some(Terminal { size: Some((33, 99)) });
    assert_eq!(world.run(plan).await.said(), "33 99");
}

#[tokio::test]
async fn an_exec_may_have_a_terminal() {
    let world = World::new();
    for rooted in [false, true] {
        let task = exec(&["sleep", "1000"]);
        let plan = if rooted {
            world.rooted_plan(&task)
        } else {
            world.plan(&task)
        };
        let running = world.start(plan).await.unwrap();
        let mut plan = command(&["/bin/sh", "-c", "read line; echo got $line"]);
        plan.streams = ExecStreams::Terminal(Terminal { size: None });
        let mut executing = running.entrance().unwrap().exec(plan).await.unwrap();
        let terminal = executing.terminal.take().unwrap();
        rustix::io::write(&terminal, b"input\n").unwrap();
        assert_eq!(executing.wait().await, ExitStatus::Code(0));
        // A terminal hands out what there is, in as many pieces as it was written in, and EIO behind the last.
        let mut shown = Vec::new();
        let mut piece = [0; 100];
        while let Ok(length @ 1..) = rustix::io::read(&terminal, &mut piece) {
            shown.extend_from_slice(&piece[..length]);
        }
        assert_eq!(std::str::from_utf8(&shown).unwrap(), "input\r\ngot input\r\n");
    }
}

#[tokio::test]
async fn l6_h_17_what_a_check_has_started_ends_with_it_wherever_it_hides() {
    let world = World::new();
    let group = world.group();
    let mut plan = world.plan(&exec(&["sleep", "1000"]));
    plan.cgroup = Some(Arc::new(group.member("m", &Limits::default()).unwrap()));
    let cgroup = Arc::downgrade(plan.cgroup.as_ref().unwrap());
    let running = world.start(plan).await.unwrap();
    let alive = || cgroup.upgrade().unwrap().procs().unwrap().len();
    let before = alive();
    let entrance = running.entrance().unwrap();
    // A daemon as daemons are made: of another session, and its parent is gone.
    let daemon = "setsid sh -c 'setsid sleep 1001 >/dev/null 2>&1 &' ; sleep 0.05";
    let said = entrance
        .capture_whole(command(&["/bin/sh", "-c", &format!("{daemon}; echo done")]), 100)
        .await
        .unwrap();
    assert_eq!(text(&said), "done");
    assert_eq!(alive(), before, "an end takes its daemons with it");
    // The same when it is given up half-way, and does not want to go.
    let stubborn = format!("trap '' TERM; {daemon}; sleep 1002");
    let given_up = entrance.capture_whole(command(&["/bin/sh", "-c", &stubborn]), 100);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), given_up)
            .await
            .is_err()
    );
    while alive() > before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It may use what its member may use, and is told so.
    let said = entrance
        .capture_whole(
            command(&["/bin/sh", "-c", "cat /proc/self/cgroup | grep -c exec-"]),
            100,
        )
        .await
        .unwrap();
    assert_ne!(text(&said), "0");
}
