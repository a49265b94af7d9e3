//! L1: what only the kernel's exec refuses. Siblings are executed and held by then; not one of them makes a step.

use std::{
    fs,
    io::Read,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use podling::mesos::v1::{
    ContainerInfo, Environment, LinuxInfo, RLimitInfo, SeccompInfo, TaskInfo,
    TaskState::*,
    container_info, environment,
    r_limit_info::{RLimit, r_limit::Type},
};

use crate::support::*;

/// How many groups; the long run is ten thousand.
const GROUPS: usize = 300;
/// As many as one executor gets.
const AT_ONE: usize = 250;

struct Cause {
    name: &'static str,
    spoil: Box<dyn Fn(&mut TaskInfo)>,
    /// What the status of the bad member says.
    says: &'static str,
}

fn container(task: &mut TaskInfo) -> &mut ContainerInfo {
    task.container.get_or_insert_with(|| ContainerInfo {
        r#type: container_info::Type::Mesos.into(),
        ..Default::default()
    })
}

fn program(task: &mut TaskInfo, path: &Path) {
    let command = task.command.get_or_insert_default();
    command.shell = Some(false);
    command.value = Some(path.display().to_string());
    command.arguments = vec![path.display().to_string()];
}

fn limit(task: &mut TaskInfo, kind: Type, most: u64) {
    container(task).rlimit_info = Some(RLimitInfo {
        rlimits: vec![RLimit {
            r#type: Some(kind.into()),
            soft: Some(most),
            hard: Some(most),
        }],
    });
}

/// A 64-bit ELF file: its header, one program header for each (kind, address), and what follows.
fn elf(machine: u16, kind: u8, entry: u64, segments: &[(u32, u64)], rest: &[u8]) -> Vec<u8> {
    let mut file = vec![0u8; 64];
    file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    file[16] = kind;
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[20] = 1;
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32] = 64;
    file[52] = 64;
    file[54] = 56;
    file[56] = segments.len() as u8;
    let at = 64 + 56 * segments.len() as u64;
    for (kind, address) in segments {
        let (offset, length) = match kind {
            3 => (at, rest.len() as u64),
            _ => (0, at + rest.len() as u64),
        };
        file.extend(kind.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        for word in [offset, *address, *address, length, length, 0x1000] {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(rest);
    file
}

/// A program of eleven instructions: nobody is quicker to write "ran" to its standard output.
fn quick() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let code = [
        0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
        0xbf, 1, 0, 0, 0, // mov edi, 1
        0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip + 16]
        0xba, 4, 0, 0, 0, // mov edx, 4
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
        0x0f, 0x05, // syscall
        b'r', b'a', b'n', b'\n',
    ];
    elf(62, 2, BASE + 64 + 56, &[(1, BASE)], &code)
}

const LOADER: &[u8] = b"/lib64/ld-none.so.9\0";

/// A file system on which nothing is executed.
struct NoExec(std::path::PathBuf);

impl NoExec {
    fn at(place: &Place) -> Self {
        let path = place.file("noexec");
        fs::create_dir(&path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "noexec", "podling-test"])
            .arg(&path)
            .status();
        assert!(status.unwrap().success());
        NoExec(path)
    }
}

impl Drop for NoExec {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What is in the way of some causes, as long as they are tried.
#[expect(dead_code, reason = "it is there to be there")]
struct Traps {
    busy: fs::File,
    noexec: NoExec,
    crowd: Crowd,
}

/// A process of user `nobody`, so that there is one more than a limit of none.
struct Crowd(std::process::Child);

impl Crowd {
    fn new() -> Self {
        Crowd(Command::new("sleep").arg("1000").uid(65534).spawn().unwrap())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn causes(place: &Place) -> (Vec<Cause>, Traps) {
    let file = |name: &str, content: &[u8], mode: u32| {
        let path = place.file(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let mut causes = Vec::new();
    let mut add = |name: &'static str, says: &'static str, spoil: Box<dyn Fn(&mut TaskInfo)>| {
        causes.push(Cause { name, spoil, says });
    };
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut foreign = busybox.clone();
    foreign[18] = 183;
    for (name, says, content) in [
        ("no-shebang", "neither a program nor a script", &b"echo ran\n"[..]),
        ("empty", "the file is empty", b""),
        ("no-name", "its first line names nothing", b"#!\necho ran\n"),
        (
            "no-interpreter",
            "`/no/such/one`, which its first line names: No such file",
            b"#!/no/such/one -x\n",
        ),
        (
            "dos",
            "`/bin/sh\\r`, which its first line names",
            b"#!/bin/sh\r\necho ran\r\n",
        ),
        ("foreign", "another processor (64-bit ARM)", &foreign),
        ("cut-early", "the file is cut off", &busybox[..200]),
        ("cut-late", "the file is cut off", &busybox[..busybox.len() / 2]),
        (
            "object",
            "an ELF file, but no program",
            &elf(62, 1, 0, &[(1, 0)], b""),
        ),
        (
            "no-loader",
            "`/lib64/ld-none.so.9`, the loader that it needs: No such file",
            &elf(62, 3, 0, &[(3, 0)], LOADER),
        ),
        (
            "bad-loader",
            "`/etc/passwd`, the loader that it needs",
            &elf(62, 3, 0, &[(3, 0)], b"/etc/passwd\0"),
        ),
        // From here on only the kernel can tell.
        ("at-address-zero", "exec `", &elf(62, 2, 120, &[(1, 0)], b"")),
        ("long-name", "exec `", &[b"#!/".as_slice(), &[b'x'; 400]].concat()),
    ] {
        let path = file(name, content, 0o755);
        add(name, says, Box::new(move |task| program(task, &path)));
    }
    let own = place.file("its-own-interpreter");
    let own = file(
        "its-own-interpreter",
        format!("#!{}\n", own.display()).as_bytes(),
        0o755,
    );
    add(
        "its own interpreter",
        "exec `",
        Box::new(move |task| program(task, &own)),
    );
    let plain = file("plain", b"#!/bin/sh\n", 0o644);
    let by_plain = file("by-plain", format!("#!{}\n", plain.display()).as_bytes(), 0o755);
    add(
        "an interpreter that may not be executed",
        "which its first line names: Permission denied",
        Box::new(move |task| program(task, &by_plain)),
    );
    let busy = file("busy", &busybox, 0o755);
    let held = fs::OpenOptions::new().append(true).open(&busy).unwrap();
    add(
        "open for writing",
        "Text file busy",
        Box::new(move |task| program(task, &busy)),
    );
    let noexec = NoExec::at(place);
    let there = noexec.0.join("true");
    fs::copy("/bin/busybox", &there).unwrap();
    add(
        "on a file system without execution",
        "Permission denied",
        Box::new(move |task| program(task, &there)),
    );

    add(
        "one argument too long",
        "argument 1 of the command has 131072 bytes",
        Box::new(|task| {
            let command = task.command.get_or_insert_default();
            command.shell = Some(false);
            command.value = Some("/bin/true".into());
            command.arguments = vec!["true".into(), "x".repeat(131072)];
        }),
    );
    add(
        "too many arguments",
        "arguments and environment take",
        Box::new(|task| {
            let command = task.command.get_or_insert_default();
            command.shell = Some(false);
            command.value = Some("/bin/true".into());
            command.arguments = vec!["x".repeat(100); 20_000];
            // A small stack leaves less room.
            limit(task, Type::RlmtStack, 4 << 20);
        }),
    );
    add(
        "one variable too long",
        "environment variable `LONG` has",
        Box::new(|task| {
            task.command.get_or_insert_default().environment = Some(Environment {
                variables: vec![environment::Variable {
                    name: "LONG".into(),
                    value: Some("x".repeat(140_000)),
                    ..Default::default()
                }],
            });
        }),
    );
    add(
        "no more processes for this user",
        "Resource temporarily unavailable",
        Box::new(|task| {
            task.command.get_or_insert_default().user = Some("nobody".into());
            limit(task, Type::RlmtNproc, 0);
        }),
    );
    add(
        "no room to load it",
        "exec `",
        Box::new(|task| limit(task, Type::RlmtAs, 4096)),
    );
    file(
        "no-exec.json",
        br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["execve"],"action":"SCMP_ACT_ERRNO"}]}"#,
        0o644,
    );
    file("exec-kills.json", br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["execve"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#, 0o644);
    for (name, says, profile) in [
        (
            "a filter that refuses exec",
            "Operation not permitted",
            "no-exec.json",
        ),
        (
            "a filter that kills for exec",
            "ended by signal 31",
            "exec-kills.json",
        ),
    ] {
        add(
            name,
            says,
            Box::new(move |task| {
                container(task).linux_info = Some(LinuxInfo {
                    seccomp: Some(SeccompInfo {
                        profile_name: Some(profile.into()),
                        unconfined: None,
                    }),
                    ..Default::default()
                });
            }),
        );
    }
    (
        causes,
        Traps {
            busy: held,
            noexec,
            crowd: Crowd::new(),
        },
    )
}

/// One group after the other, with one bad member each, between two siblings that are in a hurry.
fn tried(groups: usize) {
    let place = Place::new();
    let pipe = place.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let mut held = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    let quick_one = place.file("quick");
    fs::write(&quick_one, quick()).unwrap();
    fs::set_permissions(&quick_one, fs::Permissions::from_mode(0o755)).unwrap();
    let (causes, _traps) = causes(&place);
    assert!(causes.len() >= 12);
    let mut done = 0;
    while done < groups {
        let sleeper = Sleeper::new();
        let agent = agent()
            .env("PODLING_SECCOMP_PROFILES", place.path().to_str().unwrap())
            .task_group(group([sleeper.task("other")]))
            .start()
            .unwrap();
        agent.wait_told(&["other"], TaskRunning).unwrap();
        for number in done..groups.min(done + AT_ONE) {
            let cause = &causes[number % causes.len()];
            let name = cause.name;
            let (bad, siblings) = (
                format!("bad{number}"),
                [format!("a{number}"), format!("z{number}")],
            );
            let mut doomed = task(&bad, "echo ran");
            (cause.spoil)(&mut doomed);
            let mut first = task(&siblings[0], "");
            program(&mut first, &quick_one);
            let last = task(&siblings[1], &format!("echo ran; echo ran > {}", pipe.display()));
            // Whoever is first has the best chance.
            let members = match number / causes.len() % 3 {
                0 => [first, doomed, last],
                1 => [doomed, last, first],
                _ => [last, first, doomed],
            };
            agent.launch(group(members));
            agent
                .wait_told(&[&bad], TaskFailed)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let siblings = siblings.each_ref().map(String::as_str);
            agent.wait_told(&siblings, TaskKilled).unwrap();
            let history = agent.history();
            let status = history.updates(&bad).last().copied().unwrap().clone();
            assert!(
                status.message().contains(cause.says),
                "{name}: {}",
                status.message()
            );
            for id in siblings {
                assert_eq!(history.states(id), [TaskStarting, TaskKilled], "{name}");
            }
            let mut said = Vec::new();
            let error = held.read_to_end(&mut said).unwrap_err();
            assert_eq!(
                (error.kind(), said.len()),
                (std::io::ErrorKind::WouldBlock, 0),
                "{name}: a sibling ran"
            );
        }
        done = groups.min(done + AT_ONE);
        for container in fs::read_dir(agent.sandbox().join("containers"))
            .unwrap()
            .flatten()
        {
            let stdout = fs::read(container.path().join("stdout")).unwrap_or_default();
            assert_eq!(stdout, b"", "{}", container.path().display());
        }
        agent.kill("other").unwrap();
        good(&agent.finish());
    }
    println!(
        "{done} groups over {} causes: 0 bytes from siblings",
        causes.len()
    );
}

#[test]
fn l_1_what_only_execve_refuses_lets_no_sibling_make_a_step() {
    let groups = std::env::var("PODLING_GROUPS").map_or(GROUPS, |count| count.parse().unwrap());
    tried(groups);
}

/// The trap is armed: without a bad one between them, both siblings write.
#[test]
fn l_1_siblings_in_a_hurry_write_when_they_may() {
    let place = Place::new();
    let path = place.file("quick");
    fs::write(&path, quick()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut first = task("first", "");
    program(&mut first, &path);
    let work = Place::new();
    let agent = agent()
        .work_dir(work.path())
        .task_group(group([first, task("last", "echo ran")]))
        .start()
        .unwrap();
    let sandbox = agent.sandbox().to_owned();
    good(&agent.finish());
    assert_eq!(
        (stdout(&sandbox, "first"), stdout(&sandbox, "last")),
        ("ran\n".into(), "ran\n".into())
    );
}
