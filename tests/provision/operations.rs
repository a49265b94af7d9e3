//! S2: what the executor does by name in its sandbox, as a tracer saw it. A new operation fails this test, until it is
//! written down here with what shows that nobody can bend it.

use std::{collections::BTreeSet, fs, path::Path};

use podling::mesos::v1::{
    ContainerInfo, TaskInfo, Volume, container_info,
    volume::{
        Mode, Source,
        source::{SandboxPath, Type, sandbox_path},
    },
};

use super::support::{EXECUTOR, Place, from_image, on_a_node, run, said, task};

/// Call and name, found from a descriptor. `ID` is a container's, `*` is whatever a member made.
///
/// | what | cannot be bent, because |
/// |---|---|
/// | `.podling` and all in it | `sys::held`: from the descriptor, new or ours, no links; `s_2_what_is_held_stays_that…` |
/// | places in a member's sandbox that volumes are mounted at | `s2_mount_targets_while_an_attacker_renames` |
/// | `containers`, a member's sandbox, its volumes | `container::tree::make_directory`: `s2_renames_by_somebody_else…` |
/// | `stdout`, `stderr` | `container::tree::append`: `s2_links_in_the_way…`, `s3_a_fifo_for_a_log_file…` |
/// | `tasks` | `executor::sandbox`: `s_2_bent_directories_are_not_followed` |
const KNOWN: [&str; 33] = [
    "fchownat containers",
    "fchownat containers/ID",
    "fchownat containers/ID/own",
    "fchownat shared",
    "mkdirat .podling",
    "mkdirat .podling/network-0",
    "mkdirat .podling/rootfs",
    "mkdirat .podling/rootfs/ID.root",
    "mkdirat .podling/rootfs/ID.root/upper",
    "mkdirat .podling/rootfs/ID.root/work",
    "mkdirat containers",
    "mkdirat containers/ID",
    "mkdirat containers/ID/own",
    "mkdirat containers/ID/shared",
    "mkdirat shared",
    "mkdirat tasks",
    "openat .podling/blackbox.jsonl",
    "openat .podling/network-0/hostname",
    "openat .podling/network-0/hosts",
    "openat .podling/network-0/resolv.conf",
    "openat2 containers/ID/stderr",
    "openat2 containers/ID/stdout",
    "renameat tasks/.new-ID",
    "symlinkat tasks/.new-ID",
    "unlinkat .podling/network-0/hostname",
    "unlinkat .podling/network-0/hosts",
    "unlinkat .podling/network-0/resolv.conf",
    "unlinkat .podling/rootfs",
    "unlinkat .podling/rootfs/ID.root",
    "unlinkat .podling/rootfs/ID.root/upper",
    "unlinkat .podling/rootfs/ID.root/upper/*",
    "unlinkat .podling/rootfs/ID.root/work",
    "unlinkat .podling/rootfs/ID.root/work/*",
];

fn volume(kind: sandbox_path::Type, name: &str) -> Volume {
    Volume {
        mode: Mode::Rw.into(),
        container_path: name.to_owned(),
        source: Some(Source {
            r#type: Some(Type::SandboxPath.into()),
            sandbox_path: Some(SandboxPath {
                r#type: Some(kind.into()),
                path: name.to_owned(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn with_volumes(mut task: TaskInfo) -> TaskInfo {
    let container = task.container.get_or_insert_with(|| ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        ..Default::default()
    });
    container.volumes = vec![
        volume(sandbox_path::Type::Parent, "shared"),
        volume(sandbox_path::Type::Self_, "own"),
    ];
    task
}

/// Calls that make, change or remove something, and their first two arguments, or the first if it is a path.
fn changes(trace: &str) -> impl Iterator<Item = (&str, &str)> {
    let change = |call: &str, rest: &str| match call {
        "open" | "openat" | "openat2" => ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
            .iter()
            .any(|flag| rest.contains(flag)),
        call => [
            "mk", "rename", "unlink", "rmdir", "link", "symlink", "chmod", "fchmodat", "chown", "fchownat",
            "lchown", "truncate", "mount",
        ]
        .iter()
        .any(|start| call.starts_with(start)),
    };
    trace
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .filter(move |(call, rest)| change(call, rest))
}

/// `NUMBER</directory>, "name"` as a path, if the directory is below `sandbox`. What is found from the working
/// directory, which is the sandbox, is not among what is known.
fn by_descriptor(rest: &str, sandbox: &str) -> Option<String> {
    let (from, rest) = rest.split_once('<')?;
    let (directory, rest) = rest.split_once('>')?;
    let name = rest.split('"').nth(1)?;
    let inside = directory.strip_prefix(sandbox)?;
    if name.starts_with('/') {
        return None;
    }
    let path = format!("{inside}/{name}").trim_matches('/').to_owned();
    Some(match from {
        "AT_FDCWD" => format!("{from} {path}"),
        _ => path,
    })
}

/// Without what is different in each run.
fn plain(path: &str) -> String {
    let part = |part: &str| {
        let id = |text: &str| text.len() >= 36 && text.chars().filter(|c| *c == '-').count() >= 4;
        let prefix = part.strip_prefix(".new-").map_or("", |_| ".new-");
        let rest = part.trim_start_matches(".new-");
        match rest.split_once('.') {
            Some((name, kind)) if id(name) => format!("{prefix}ID.{kind}"),
            None if id(rest) => format!("{prefix}ID"),
            _ => part.to_owned(),
        }
    };
    let parts: Vec<String> = path.split('/').map(part).collect();
    match &parts[..] {
        [own, rootfs, id, kind, _, ..] if rootfs == "rootfs" => format!("{own}/{rootfs}/{id}/{kind}/*"),
        parts => parts.join("/"),
    }
}

#[test]
fn s2_every_operation_in_the_sandbox_is_known_and_goes_by_descriptor() {
    on_a_node(|| {
        let place = Place::new().image("");
        let trace = place.path("trace");
        let networks = "{ default_network = 'a', networks = { a = { subnets = ['10.71.0.0/24'] } } }";
        let run_dir = place.path("run");
        let agent = place
            .agent()
            .env("PODLING_NETWORK", networks)
            .env("PODLING_RUN_DIR", run_dir.to_str().unwrap())
            .executor_argv([
                "strace",
                "-f",
                "-qq",
                "-y",
                "-s",
                "4096",
                "-e",
                "trace=%file,%desc",
                "-e",
                "trace=!read,write,close,mmap,fcntl,poll,ppoll,epoll_wait,epoll_ctl,ioctl",
                "-o",
                trace.to_str().unwrap(),
                EXECUTOR,
            ])
            .with_executor_info(|executor| {
                executor.data = Some(br#"{"podling":1,"network":{"mode":"bridge"}}"#.to_vec().into());
            });
        let tasks = [
            with_volumes(from_image(
                task("first", Some("touch /made; echo done")),
                &place.reference(),
            )),
            with_volumes(task("second", Some("echo done"))),
        ];
        let done = run(agent, tasks);
        assert_eq!(said(&done, "first"), "done\n");
        let work = fs::canonicalize(done.1.path()).unwrap();
        let trace = fs::read_to_string(&trace).unwrap();
        let sandbox = sandbox_in(&trace, &work);
        let mut found = BTreeSet::new();
        for (call, rest) in changes(&trace) {
            // Never by a path that leads through the sandbox.
            let path = rest.split('"').nth(1).unwrap_or_default();
            assert!(
                !Path::new(path).starts_with(&work) || call.starts_with("symlink"),
                "{call}({rest}"
            );
            if let Some(path) = by_descriptor(rest, &sandbox) {
                found.insert(format!("{call} {}", plain(&path)));
            }
        }
        let known: BTreeSet<String> = KNOWN.into_iter().map(str::to_owned).collect();
        assert_eq!(found, known);
    });
}

/// The directory in which the executor makes its own.
fn sandbox_in(trace: &str, work: &Path) -> String {
    let line = trace.lines().find(|line| line.contains("\".podling\""));
    let directory = line.and_then(|line| line.split_once('<')?.1.split_once('>'));
    let directory = directory.expect("it makes its own directory").0;
    assert!(Path::new(directory).starts_with(work), "{directory}");
    directory.to_owned()
}
