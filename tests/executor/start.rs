//! From exec to the first connection: the environment, the configuration, the command line.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0LWNsYWltcw.bWFj";

fn executor(sandbox: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podling-executor"));
    command
        .env_clear()
        .env("MESOS_FRAMEWORK_ID", "framework")
        .env("MESOS_EXECUTOR_ID", "executor")
        .env("MESOS_SANDBOX", sandbox)
        .env("MESOS_DIRECTORY", sandbox)
        .env("MESOS_SLAVE_PID", "slave(1)@127.0.0.1:9")
        .env("PODLING_RUN_DIR", sandbox.join("run"))
        .current_dir(sandbox)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A listener nobody accepts from: connections stand, answers never come.
fn deaf_agent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let pid = format!("slave(1)@{}", listener.local_addr().expect("bound"));
    (listener, pid)
}

/// Ends the process with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It failed with a sentence, not with a panic.
fn assert_refused(output: &Output, expected: &str) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn s_01_what_is_missing_is_named_and_nothing_is_connected() {
    let sandbox = tempfile::tempdir().expect("dir");
    for name in [
        "MESOS_FRAMEWORK_ID",
        "MESOS_EXECUTOR_ID",
        "MESOS_SLAVE_PID",
        "MESOS_SANDBOX",
    ] {
        let output = executor(sandbox.path()).env_remove(name).output().expect("run");
        assert_refused(&output, name);
    }
    let output = executor(sandbox.path()).env_clear().output().expect("run");
    assert_refused(&output, "podling loopback agent");
}

#[test]
fn s_01_garbage_is_named() {
    let sandbox = tempfile::tempdir().expect("dir");
    let cases = [
        ("MESOS_SLAVE_PID", "slave(1)"),
        ("MESOS_CHECKPOINT", "maybe"),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "soon"),
        ("MESOS_SANDBOX", "not/absolute"),
        ("MESOS_SANDBOX", "/nonexistent/sandbox"),
        ("PODLING_ENCODING", "xml"),
        ("PODLING_CONFIG", "/nonexistent/executor.toml"),
        ("PODLING_RECORD_LIMIT", "-1"),
    ];
    for (name, value) in cases {
        let output = executor(sandbox.path()).env(name, value).output().expect("run");
        assert_refused(&output, value.trim_start_matches('-'));
    }
}

#[test]
fn an_unknown_key_of_the_configuration_is_named() {
    let sandbox = tempfile::tempdir().expect("dir");
    let file = sandbox.path().join("executor.toml");
    std::fs::write(&file, "colour = \"blue\"\n").expect("file");
    let output = executor(sandbox.path())
        .env("PODLING_CONFIG", &file)
        .output()
        .expect("run");
    assert_refused(&output, "colour");
}

#[test]
fn the_version_is_told_and_unknown_flags_are_ignored() {
    let sandbox = tempfile::tempdir().expect("dir");
    let output = executor(sandbox.path())
        .args(["--launcher_dir=/opt", "--version"])
        .output()
        .expect("run");
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = format!("podling-executor {}", podling::version::VERSION);
    assert_eq!(text.trim(), expected);
    assert!(expected.contains(env!("CARGO_PKG_VERSION")), "{expected}");
    assert!(expected.contains("-linux-"), "names its target: {expected}");

    let output = executor(sandbox.path())
        .args(["--launcher_dir=/opt/mesos/libexec", "--sandbox", "x", "word"])
        .env_remove("MESOS_SANDBOX")
        .output()
        .expect("run");
    assert_refused(&output, "MESOS_SANDBOX is not set");
}

#[test]
fn s_04_an_agent_that_never_comes_is_given_up_after_the_registration_timeout() {
    let sandbox = tempfile::tempdir().expect("dir");
    // The port of a listener that has gone again.
    let (listener, pid) = deaf_agent();
    drop(listener);
    let output = executor(sandbox.path())
        .env("MESOS_SLAVE_PID", &pid)
        .env("PODLING_REGISTRATION_TIMEOUT", "300ms")
        .output()
        .expect("run");
    assert_refused(&output, "no subscription with the agent");
    assert_refused(&output, pid.trim_start_matches("slave(1)@"));
}

#[test]
fn s_18_the_token_is_used_and_disappears_from_the_environment() {
    let sandbox = tempfile::tempdir().expect("dir");
    let (listener, pid) = deaf_agent();
    let child = executor(sandbox.path())
        .env("MESOS_SLAVE_PID", &pid)
        .env("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", TOKEN)
        .spawn()
        .expect("run");
    let process = Process(child);
    let (first, _) = listener.accept().expect("a connection");
    let (second, _) = listener.accept().expect("a connection");
    let head = subscribe_head([first, second]);
    assert!(head.contains(&format!("Bearer {TOKEN}")), "{head}");

    let environ = std::fs::read(format!("/proc/{}/environ", process.0.id())).expect("environ");
    let environ = String::from_utf8_lossy(&environ);
    assert!(
        environ.contains("MESOS_FRAMEWORK_ID=framework"),
        "the block is still readable: {environ}"
    );
    assert!(
        !environ.contains(TOKEN) && !environ.contains("c2VjcmV0"),
        "{environ}"
    );
}

/// Reads from whichever connection says something first.
fn subscribe_head(connections: [TcpStream; 2]) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    for connection in &connections {
        connection.set_nonblocking(true).expect("socket");
    }
    while Instant::now() < end {
        for mut connection in &connections {
            let mut bytes = [0; 4096];
            if let Ok(read @ 1..) = connection.read(&mut bytes) {
                return String::from_utf8_lossy(&bytes[..read]).into_owned();
            }
        }
        std::thread::yield_now();
    }
    String::from("nobody subscribed")
}

#[test]
fn q_06_sigterm_before_any_agent_came_is_a_clean_end() {
    let sandbox = tempfile::tempdir().expect("dir");
    let (listener, pid) = deaf_agent();
    let child = executor(sandbox.path())
        .env("MESOS_SLAVE_PID", &pid)
        .spawn()
        .expect("run");
    let mut process = Process(child);
    let connection = listener.accept().expect("a connection");
    let pid = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match process.0.try_wait().expect("waited") {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            status => break status.expect("it ended in time"),
        }
    };
    assert_eq!(status.code(), Some(0));
    drop(connection);
}
