//! What `podling up` leaves on the file system is its owner's, and nobody else's.

use std::{
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::cluster::{Up, output, podling, write};

/// Another user of this machine.
const NOBODY: u32 = 65534;

/// Everything below a directory, as its owner sees it.
fn everything(top: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![top.to_owned()]);
    while let Some(directory) = waiting.pop() {
        // What is there now may be gone in a moment.
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

/// Which of these another user can open, knowing their names.
fn opened_by_nobody(paths: &[PathBuf]) -> String {
    let script = "while IFS= read -r name; do if test -r \"$name\" || test -x \"$name\"; then echo \"$name\"; fi; done";
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script])
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    for path in paths {
        writeln!(stdin, "{}", path.display()).unwrap();
    }
    drop(stdin);
    String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap()
}

/// A set-uid file of a container's root was the host's root for every local user; and a member of another user knows
/// its own sandbox by its path all the same.
#[test]
fn s6_another_user_opens_nothing_and_a_member_of_another_user_reaches_its_own() {
    // Open to all, as a home may be: what is inside has to be closed by itself.
    let place = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let state = place.path().join("state");
    let pod = r#"{"id": "/two", "volumes": [{"name": "shared"}], "containers": [
        {"name": "root", "resources": {"cpus": 0.1, "mem": 32}, "volumeMounts": [{"name": "shared", "mountPath": "shared"}],
         "exec": {"command": {"shell": "cp /bin/sh tool; chmod 4755 tool; cp /bin/sh shared/tool; chmod 4755 shared/tool; echo ready; sleep 1000"}}},
        {"name": "other", "user": "nobody", "resources": {"cpus": 0.1, "mem": 32},
         "volumeMounts": [{"name": "shared", "mountPath": "shared"}],
         "exec": {"command": {"shell": "cd / && cd \"$MESOS_SANDBOX\" && echo x > \"$MESOS_SANDBOX/mine\" && cat mine && echo y > shared/mine && ls \"$MESOS_SANDBOX/../..\" ; pwd; id -u; echo reached; sleep 1000"}}}]}"#;
    let pod = write(place.path(), "two.json", pod);
    let mut up = Up::start(&[
        "--follow",
        "--state",
        state.to_str().unwrap(),
        pod.to_str().unwrap(),
    ]);
    up.wait_for("reached");
    let seen = up.seen.join("\n");
    assert!(seen.contains("65534"), "{seen}");
    let all = everything(&state);
    let sandbox = |file: &str| {
        all.iter()
            .find(|path| path.ends_with(file))
            .unwrap_or_else(|| panic!("{file}: {all:?}"))
    };
    assert_eq!(sandbox("mine").metadata().unwrap().uid(), NOBODY);
    assert!(all.len() > 20, "{all:?}");
    assert_eq!(opened_by_nobody(&all), "");
    assert_eq!(up.stop(), 0);
    // Neither what stays for the next time.
    assert_eq!(opened_by_nobody(&everything(&state)), "");
    assert_eq!(state.metadata().unwrap().mode() & 0o777, 0o700);
}

/// Root followed a planted `lock`, and ran a planted database.
#[test]
fn s6_a_state_directory_that_somebody_else_prepared_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let victim = place.path().join("victim");
    let prepared = |name: &str, prepare: &dyn Fn(&Path)| {
        let state = place.path().join(name);
        std::fs::create_dir(&state).unwrap();
        prepare(&state);
        state
    };
    let foreign = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
    for (state, why) in [
        (
            prepared("a", &|state| symlink(&victim, state.join("lock")).unwrap()),
            "lock is not a plain file",
        ),
        (
            prepared("b", &|state| symlink(&victim, state.join("state.db")).unwrap()),
            "state.db is not a plain file",
        ),
        (prepared("c", &foreign), "belongs to somebody else (user 65534)"),
        (
            prepared("d", &|state| {
                std::fs::write(state.join("state.db"), "").unwrap();
                foreign(&state.join("state.db"));
            }),
            "belongs to somebody else (user 65534)",
        ),
        (
            prepared("e", &|state| {
                let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
                std::fs::set_permissions(state, all).unwrap();
            }),
            "others may write to",
        ),
    ] {
        let mut command = podling();
        command
            .args(["up", "--listen", "127.0.0.1:0", "--state"])
            .arg(&state);
        let (code, _, stderr) = output(&mut command);
        assert_eq!(code, 1, "{why}: {stderr}");
        assert!(stderr.contains(why), "{why}: {stderr}");
    }
    assert!(!victim.exists());
}

/// A file system of its own that a member fills.
struct Tiny(tempfile::TempDir);

impl Tiny {
    /// Seen by this thread and what it starts only: others look at who mounts what.
    fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = Command::new("mount")
            .args(["--make-rprivate", "/"])
            .status()
            .unwrap();
        assert!(private.success());
        let place = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m,mode=0700", "podling-test"])
            .arg(place.path())
            .status()
            .unwrap();
        assert!(status.success());
        Tiny(place)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// One member's log ended the scheduler, and with it every pod.
#[test]
fn r5_a_member_that_fills_the_disk_ends_nothing_and_nothing_acknowledged_is_lost() {
    let tiny = Tiny::new();
    let state = tiny.0.path().join("state");
    let filler = r#"{"id": "/filler", "containers": [{"name": "c", "resources": {"cpus": 0.1, "mem": 32},
        "exec": {"command": {"shell": "cat /dev/zero > fill; echo filled; exec sleep 1000.81"}}}]}"#;
    let directory = tempfile::tempdir().unwrap();
    let filler = write(directory.path(), "filler.json", filler);
    let up = Up::start(&["--state", state.to_str().unwrap(), filler.to_str().unwrap()]);
    crate::cluster::await_processes("sleep\u{0}1000.81", 1);
    // Scaled to nothing, so that only the store grows.
    let add = |number: usize| {
        let text = format!(
            r#"{{"id": "/p{number}", "labels": {{"x": "{}"}}, "scaling": {{"kind": "fixed", "instances": 0}}, "containers": [{{"name": "c",
            "resources": {{"cpus": 0.1, "mem": 32}}, "exec": {{"command": {{"shell": "true"}}}}}}]}}"#,
            "y".repeat(50_000)
        );
        let file = write(directory.path(), "p.json", &text);
        up.pod(&["add", file.to_str().unwrap()])
    };
    let mut acknowledged = 0;
    let refused = loop {
        match add(acknowledged) {
            (0, ..) => acknowledged += 1,
            (_, _, refused) => break refused,
        }
    };
    assert!(acknowledged > 5, "the reserve holds some: {acknowledged}");
    assert!(refused.contains("503") && refused.contains("full"), "{refused}");
    let (code, _, said) = up.pod(&["list"]);
    assert!(
        code == 0 && said.contains("no change is taken on since"),
        "{said}"
    );
    assert_eq!(
        crate::cluster::processes("sleep\u{0}1000.81"),
        1,
        "nothing has ended"
    );
    let all = everything(&state);
    std::fs::remove_file(all.iter().find(|path| path.ends_with("fill")).unwrap()).unwrap();
    crate::cluster::await_processes("sleep\u{0}1000.81", 1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while add(acknowledged).0 != 0 {
        assert!(std::time::Instant::now() < deadline);
    }
    let ids = |up: &Up| up.json(&["list"]).as_array().unwrap().len();
    assert_eq!(ids(&up), acknowledged + 2);
    assert_eq!(up.stop(), 0);
    let up = Up::start(&["--state", state.to_str().unwrap()]);
    assert_eq!(ids(&up), acknowledged + 2);
    assert_eq!(up.stop(), 0);
}

/// Of one that was killed nothing stays for longer than until the next.
#[test]
fn n3_what_a_killed_one_left_is_removed_by_the_next_and_by_the_clean_up() {
    let temporary = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = podling();
        command
            .args(["up", "--listen", "127.0.0.1:0"])
            .env("TMPDIR", temporary.path());
        Up::of(command)
    };
    let places = || {
        std::fs::read_dir(temporary.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    };
    let killed = start();
    let left = places();
    assert_eq!(left.len(), 1, "{left:?}");
    killed.kill();
    assert_eq!(places(), left);
    let next = start();
    assert!(places().len() == 1 && places() != left, "{:?}", places());
    // What lives is left alone.
    let gc = || {
        let mut command = podling();
        command
            .args(["node", "gc", "--run-dir"])
            .arg(temporary.path().join("run"))
            .env("TMPDIR", temporary.path());
        let (code, stdout, stderr) = output(&mut command);
        assert_eq!(code, 0, "{stderr}");
        stdout
    };
    let lives = places();
    assert!(!gc().contains("removed"));
    assert!(lives.iter().all(|place| place.exists()));
    assert_eq!(next.stop(), 0);
    let killed = start();
    killed.kill();
    let said = gc();
    assert!(said.contains("removed"), "{said}");
    assert!(
        places().iter().all(|place| place.ends_with("run")),
        "{:?}",
        places()
    );
}
