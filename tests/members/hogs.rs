//! S4: what one member takes, the others still have; what is run in a member is held to the member's limits.

use std::{path::PathBuf, sync::Arc, time::Duration};

use podling::{
    container::{
        ExecPlan, ExecStreams,
        cgroup::{Bound, GroupCgroup, Limits, MemberCgroup},
        plan::{Command, Plan},
    },
    group::{ExitStatus, Limit},
};

use crate::support::{World, exec, say, shell};

fn held(
    group: &GroupCgroup,
    name: &str,
    mut plan: Plan,
    limits: &Limits,
) -> (Plan, Arc<MemberCgroup>, PathBuf) {
    let cgroup = Arc::new(group.member(name, limits).unwrap());
    plan.cgroup = Some(Arc::clone(&cgroup));
    let path = cgroup.path();
    (plan, cgroup, path)
}

const EATER: &str = "x=$(head -c 200000000 /dev/zero | tr '\\0' x)";
const BOMB: &str = "f() { f | f & }; f; f; while :; do :; done";

#[tokio::test]
async fn s4_hogs_are_held_and_their_victim_goes_on() {
    let world = World::new();
    let group = world.group();
    let limits = Limits {
        weight: Some(1.0),
        quota: Some(Bound::At(0.05)),
        memory: Some(Bound::At(32 << 20)),
        no_swap: true,
        pids: Some(Bound::At(32)),
        ..Limits::default()
    };
    let (victim, victims, _) = held(&group, "victim", world.plan(&exec(&["sleep", "1000"])), &limits);
    let mut victim = world.start(victim).await.unwrap();
    for (name, line) in [
        ("cpu", "while :; do :; done & while :; do :; done"),
        ("pids", BOMB),
        ("memory", EATER),
    ] {
        let (hog, hogs, path) = held(&group, name, world.plan(&shell(line)), &limits);
        let mut hog = world.start(hog).await.unwrap();
        let met = || {
            let stats = hogs.stats();
            match name {
                "cpu" => stats.cpu.is_some_and(|cpu| cpu.throttled_periods >= 3),
                "pids" => stats.pids.is_some_and(|pids| pids.refused >= 3),
                _ => stats.memory.is_some_and(|memory| memory.oom_kills >= 1),
            }
        };
        let begin = std::time::Instant::now();
        while !met() {
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{name}: {:?}",
                hogs.stats()
            );
            assert_eq!(say(&victim, "echo here").await.1, "here\n", "{name}");
        }
        let stats = hogs.stats();
        assert!(stats.pids.unwrap().current <= 32, "{name}");
        assert!(stats.memory.unwrap().peak.unwrap_or(0) <= 32 << 20, "{name}");
        if name != "memory" {
            hog.kill();
        }
        let exit = hog.wait().await;
        let blamed = matches!(exit.limit, Some(Limit::Memory { .. }));
        assert_eq!(blamed, name == "memory", "{name}: {exit:?}");
        drop((hog, hogs));
        assert!(!path.exists(), "{name}");
    }
    let stats = victims.stats();
    assert_eq!(stats.memory.unwrap().oom_kills, 0);
    assert_eq!(stats.pids.unwrap().refused, 0);
    victim.stop();
    let exit = victim.wait().await;
    assert_eq!(
        (exit.status, exit.limit),
        (ExitStatus::Signal(libc::SIGTERM), None)
    );
}

#[tokio::test]
async fn s4_what_is_run_in_a_member_is_held_to_its_limits() {
    let world = World::new();
    let group = world.group();
    let limits = Limits {
        memory: Some(Bound::At(32 << 20)),
        no_swap: true,
        pids: Some(Bound::At(16)),
        ..Limits::default()
    };
    let mut plan = world.plan(&exec(&["sleep", "1000"]));
    plan.rlimits.push(podling::container::plan::Rlimit {
        resource: libc::RLIMIT_NOFILE,
        soft: Some(50),
        hard: Some(60),
    });
    let (plan, cgroup, _) = held(&group, "m", plan, &limits);
    let mut running = world.start(plan).await.unwrap();
    assert_eq!(say(&running, "ulimit -Sn; ulimit -Hn").await.1, "50\n60\n");
    // More processes than it may have.
    let (_, said) = say(
        &running,
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do sleep 0.2 & done; echo all",
    )
    .await;
    assert!(!said.contains("all"), "{said}");
    assert!(cgroup.stats().pids.unwrap().refused > 0);
    while cgroup.stats().pids.unwrap().current > 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Want of memory in it is the member's: it ends, and that is told.
    let eater = running.entrance().unwrap();
    let (eaten, exit) = tokio::join!(
        eater.capture(
            ExecPlan {
                command: Command {
                    program: "/bin/sh".into(),
                    arguments: ["sh", "-c", EATER].map(str::to_owned).into(),
                },
                environment: vec![],
                cwd: None,
                streams: ExecStreams::Null,
            },
            100
        ),
        running.wait()
    );
    assert!(!matches!(
        eaten.map(|eaten| eaten.status),
        Ok(ExitStatus::Code(0))
    ));
    assert!(matches!(exit.limit, Some(Limit::Memory { .. })), "{exit:?}");
}

/// L1 at its narrowest: what befalls a member on its way to the gate.
#[tokio::test]
async fn l1_a_member_that_dies_on_its_way_says_so_and_nothing_of_it_has_run() {
    let world = World::new();
    let group = world.group();
    let none = Limits::default();
    for (name, limits, sentence) in [
        // The kernel's own need for what it is born with.
        (
            "memory",
            Limits {
                memory: Some(Bound::At(64 << 10)),
                no_swap: true,
                ..none.clone()
            },
            [
                "was killed by signal 9 before it was started",
                "Cannot allocate memory",
            ],
        ),
        (
            "pids",
            Limits {
                pids: Some(Bound::At(1)),
                ..none.clone()
            },
            ["fork: Resource temporarily unavailable", "fork: "],
        ),
    ] {
        let (sibling, _, _) = held(&group, "sibling", world.plan(&shell("echo ran")), &none);
        let stdout = sibling.sandbox.join("stdout");
        let sibling = world.runtime.prepare(sibling).await.unwrap();
        let (plan, _, path) = held(&group, name, world.plan(&shell("echo ran")), &limits);
        let own = plan.sandbox.join("stdout");
        let error = world.runtime.prepare(plan).await.unwrap_err().to_string();
        assert!(
            error.starts_with("member `web`: ") && sentence.iter().any(|sentence| error.contains(sentence)),
            "{name}: {error}"
        );
        sibling.discard().await;
        for stdout in [stdout, own] {
            assert_eq!(std::fs::read(stdout).unwrap(), b"", "{name}");
        }
        assert!(!path.exists(), "{name}");
    }
}
