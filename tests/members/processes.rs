//! S3: what of ours a member finds among the processes it sees, also one that may trace, and in a pod whose members
//! share their processes.

use podling::container::plan::{Capabilities, CapabilitySet, PidNamespace, Plan};

use crate::support::{World, exec, say, shell};

/// `CAP_SYS_PTRACE`, as a debugging sidecar has it.
const TRACER: CapabilitySet = CapabilitySet(CapabilitySet::DOCKER.0 | 1 << 19);

/// Members of one pod that may trace, with an image and without.
fn tracers(world: &World, shared: bool) -> [Plan; 2] {
    let task = exec(&["sleep", "1000"]);
    [world.rooted_plan(&task), world.plan(&task)].map(|mut plan| {
        plan.capabilities = Capabilities::bounded(TRACER);
        if shared {
            plan.namespaces.pid = PidNamespace::Shared("pod".into());
        }
        plan
    })
}

#[tokio::test]
async fn s3_the_first_process_of_a_pod_leads_nowhere() {
    let line = "ls -A /proc/1/root/ /proc/1/cwd/; echo x > /proc/1/root/x; cat /proc/1/root/etc/passwd; \
                cat /proc/1/environ; true";
    let world = World::new();
    for plan in tracers(&world, true) {
        let running = world.start(plan).await.unwrap();
        let (_, said) = say(&running, line).await;
        let found: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(found.first(), Some(&"/proc/1/cwd/:"), "{said}");
        assert!(!said.contains("root:x:0"), "{said}");
        // The listings are empty, and the rest are refusals.
        assert!(
            said.contains("/proc/1/root/x") && !said.contains("bin\n"),
            "{said}"
        );
    }
    // It is the empty root that makes it so.
    let world = World::weakened(&[
        "mount an empty root",
        "enter the root file system",
        "change the root",
        "let go of the old root",
        "change to the new root",
    ]);
    let [_, plan] = tracers(&world, true);
    let running = world.start(plan).await.unwrap();
    let (_, said) = say(&running, "cat /proc/1/root/etc/passwd").await;
    assert!(said.contains("root:x:0"), "the test would not notice: {said}");
}

/// Of each process but the shell's own: the sets of capabilities, promises, and descriptors.
const LOOK: &str = "for p in /proc/[0-9]*; do test $p = /proc/$$ && continue; \
    echo $(grep -E '^(Name|CapEff|CapPrm|CapInh|NoNewPrivs|Seccomp):' $p/status | while read a b; do echo $b; done) $(ls $p/fd | wc -l); done";

#[derive(Debug)]
struct Seen {
    name: String,
    capabilities: [u64; 3],
    promises: [u8; 2],
    descriptors: usize,
}

fn seen(said: &str) -> Vec<Seen> {
    let parse = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // Whoever ended meanwhile.
        let [
            name,
            inheritable,
            permitted,
            effective,
            promised,
            filtered,
            descriptors,
        ] = fields[..]
        else {
            return None;
        };
        let set = |text| u64::from_str_radix(text, 16).unwrap();
        Some(Seen {
            name: name.to_owned(),
            capabilities: [set(inheritable), set(permitted), set(effective)],
            promises: [promised, filtered].map(|text| text.parse().unwrap()),
            descriptors: descriptors.parse().unwrap(),
        })
    };
    said.lines().filter_map(parse).collect()
}

/// What is wrong with what can be seen from a member beside which another one waits at its gate.
async fn seen_beside_one_at_its_gate(world: &World) -> Vec<Seen> {
    let [first, second] = tracers(world, true);
    let first = world.start(first).await.unwrap();
    let second = world.runtime.prepare(second).await.unwrap();
    let (_, said) = say(&first, LOOK).await;
    let all = seen(&said);
    // The pod's first process, the task of the one, and what is to become the task of the other.
    assert_eq!(all.len(), 3, "{said}");
    second.discard().await;
    let too_much = |seen: &Seen| {
        let more = seen.capabilities.iter().any(|set| set & !TRACER.0 != 0);
        // Our own have what they tell and wait by, besides the three that a task has.
        let descriptors = if seen.name == "podling-init" { 5 } else { 3 };
        more || seen.promises != [1, 2] || seen.descriptors > descriptors
    };
    all.into_iter().filter(too_much).collect()
}

#[tokio::test]
async fn s3_whoever_is_on_the_way_into_a_pod_has_no_more_than_its_members() {
    let nothing = seen_beside_one_at_its_gate(&World::new()).await;
    assert!(nothing.is_empty(), "{nothing:?}");
    for left_out in [
        &["set the capabilities"][..],
        // Without the first the second is not to be had.
        &["give up new privileges", "install the system call filter"],
        &["install the system call filter"],
        &["close what is ours"],
    ] {
        let noticed = seen_beside_one_at_its_gate(&World::weakened(left_out)).await;
        assert!(!noticed.is_empty(), "the test would not notice: {left_out:?}");
    }
}

#[tokio::test]
async fn s3_of_what_is_run_in_a_member_nothing_but_the_command_is_ever_among_its_processes() {
    let world = World::new();
    for shared in [false, true] {
        for plan in tracers(&world, shared) {
            let running = world.start(plan).await.unwrap();
            let mut numbers = Vec::new();
            for _ in 0..5 {
                let (_, said) = say(&running, "echo $$").await;
                numbers.push(said.trim().parse::<u32>().unwrap());
            }
            // A process takes a number, however short it lives.
            let steps: Vec<u32> = numbers.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert_eq!(steps, [1; 4], "shared: {shared}: {numbers:?}");
        }
    }
    // It would be noticed: a shell that starts one process more.
    let [plan, _] = tracers(&world, false);
    let running = world.start(plan).await.unwrap();
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let (_, said) = say(&running, "(true); echo $$").await;
        numbers.push(said.trim().parse::<u32>().unwrap());
    }
    assert_eq!(numbers[1] - numbers[0], 2);
}

#[tokio::test]
async fn s3_a_script_that_names_its_own_process_as_interpreter_runs_nothing_of_ours() {
    // CVE-2019-5736 again: in the exec the kernel opens what is still the helper's program.
    let world = World::new();
    for plan in tracers(&world, true) {
        let mut running = world.start(plan).await.unwrap();
        say(&running, "printf '#!/proc/self/exe\\n' > run; chmod 755 run").await;
        let direct = podling::container::ExecPlan {
            command: podling::container::plan::Command {
                program: "./run".into(),
                arguments: vec!["./run".into()],
            },
            environment: vec![],
            cwd: None,
            streams: podling::container::ExecStreams::Null,
        };
        // What looks it up has no number there, and so no name for itself.
        let error = running
            .entrance()
            .unwrap()
            .capture(direct, 1000)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("find what runs `./run`"), "{error}");
        running.kill();
        running.wait().await;
    }
}

#[tokio::test]
async fn z_01_a_command_in_a_pod_of_shared_processes_is_signalled_and_told_of_as_any() {
    let world = World::new();
    for mut plan in tracers(&world, true) {
        plan.stop_signal = libc::SIGINT;
        let mut running = world.start(plan).await.unwrap();
        assert_eq!(
            say(&running, "exit 7").await.0,
            podling::group::ExitStatus::Code(7)
        );
        assert_eq!(
            say(&running, "kill -9 $$").await.0,
            podling::group::ExitStatus::Signal(9)
        );
        running.stop();
        assert_eq!(
            running.wait().await.status,
            podling::group::ExitStatus::Signal(libc::SIGINT)
        );
    }
    let done = {
        let mut plan = world.plan(&shell("exit 3"));
        plan.namespaces.pid = PidNamespace::Shared("other".into());
        world.run(plan).await
    };
    assert_eq!(done.exit.status, podling::group::ExitStatus::Code(3));
}
