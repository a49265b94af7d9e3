//! What members write, whatever it is, on its way to people.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cluster::{Up, output, podling, write},
    once::job,
};

/// Runs a job to its end; everything it printed, as bytes.
fn once(commands: &[&str]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let file = write(place.path(), "job.json", &job(commands));
    let output = podling()
        .args(["up", "--once", "--listen", "127.0.0.1:0"])
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn nothing_a_member_writes_moves_the_cursor_or_is_mistaken_for_us() {
    let said = once(&[
        r"printf '\033[2J\033]0;owned\007\n'",
        "head -c 100000 /dev/urandom",
        "printf '/job c0 · FINISHED\\r\\n'; printf '10%%\\r50%%\\r100%%\\n'",
        "head -c 100000 /dev/zero | tr '\\0' 'x'",
    ]);
    let text = String::from_utf8(said).expect("what is shown is text");
    let odd = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert_eq!(odd, None);
    assert!(
        text.contains("/job c0 | \u{fffd}[2J\u{fffd}]0;owned\u{fffd}\n"),
        "{text}"
    );
    assert!(text.contains("/job c2 | /job c0 · FINISHED\n") && text.contains("/job c2 | 100%\n"));
    let longest = text.lines().map(str::len).max().unwrap();
    assert!((16_000..70_000).contains(&longest), "{longest}");
    let x: usize = text
        .lines()
        .filter_map(|line| line.strip_prefix("/job c3 | "))
        .map(str::len)
        .sum();
    assert_eq!(x, 100_000, "long lines come in pieces, and all of them");
}

#[test]
fn colours_are_for_terminals() {
    let place = tempfile::tempdir().unwrap();
    let file = write(place.path(), "job.json", &job(&["echo hello"]));
    let line = format!(
        "{} up --once --listen 127.0.0.1:0 {}",
        env!("CARGO_BIN_EXE_podling"),
        file.display()
    );
    let terminal = |colour: &str| {
        let mut script = std::process::Command::new("script");
        script
            .args(["-qec", &format!("{colour} {line}"), "/dev/null"])
            .stdin(Stdio::null());
        output(&mut script).1
    };
    let (coloured, plain, piped) = (
        terminal(""),
        terminal("NO_COLOR=1"),
        String::from_utf8(once(&["echo hello"])).unwrap(),
    );
    assert!(
        coloured.contains("\u{1b}[33m/job c0 |\u{1b}[0m hello"),
        "{coloured:?}"
    );
    assert!(coloured.contains("\u{1b}[32mRUNNING\u{1b}[0m"), "{coloured:?}");
    for text in [plain, piped] {
        assert!(
            text.contains("/job c0 | hello") && !text.contains('\u{1b}'),
            "{text:?}"
        );
    }
}

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A hundred megabytes that nobody reads stay where they are; then every line arrives.
#[test]
fn a_reader_that_stalls_costs_no_memory_and_misses_nothing() {
    let place = tempfile::tempdir().unwrap();
    const LINES: usize = 2_000_000;
    let command = format!("yes 'forty-nine bytes of a firehose, not counting its end' | head -{LINES}");
    let file = write(place.path(), "job.json", &job(&[&command]));
    let mut child = podling()
        .args(["up", "--once", "--listen", "127.0.0.1:0", "--state"])
        .arg(place.path().join("state"))
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The member writes at its own pace, whoever reads.
    let deadline = Instant::now() + Duration::from_secs(60);
    let written = || -> u64 {
        let all = walk(&place.path().join("state/work"));
        all.iter()
            .filter(|path| path.ends_with("stdout"))
            .map(|path| fs::metadata(path).map_or(0, |m| m.len()))
            .sum()
    };
    let mut most = 0;
    while written() < 100_000_000 {
        assert!(Instant::now() < deadline, "only {} bytes", written());
        most = most.max(resident_kb(child.id()));
        thread::sleep(Duration::from_millis(20));
    }
    most = most.max(resident_kb(child.id()));
    assert!(most < 64 << 10, "{most} kB");
    let lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert_eq!(lines.filter(|line| line.contains("| forty-nine")).count(), LINES);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Nor does it hold up an end.
#[test]
fn a_reader_that_stalls_does_not_hold_up_ctrl_c() {
    let place = tempfile::tempdir().unwrap();
    let file = write(place.path(), "job.json", &job(&["yes", "sleep 1000"]));
    let mut child = podling()
        .args(["up", "--follow", "--listen", "127.0.0.1:0"])
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut some = vec![0; 100_000];
    stdout.read_exact(&mut some).unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    for _ in 0..2 {
        kill(pid, Signal::SIGINT).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        // The last one, if the first two came while nobody was ready for a third.
        let _ = kill(pid, Signal::SIGINT);
        assert!(Instant::now() < deadline, "it waits for its reader");
        thread::sleep(Duration::from_millis(100));
    }
}

fn walk(top: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found
}

/// A pod that fails again and again leaves the last few of its sandboxes, not all.
#[test]
fn sandboxes_of_ended_instances_do_not_pile_up() {
    let place = tempfile::tempdir().unwrap();
    let pod = job(&["exit 1"]).replace(
        r#"{"id": "/job","#,
        r#"{"id": "/job", "scheduling": {"backoff": {"backoff": 0.01, "backoffFactor": 1}},"#,
    );
    let file = write(place.path(), "job.json", &pod);
    let state = place.path().join("state");
    let mut up = Up::start(&["--state", state.to_str().unwrap(), file.to_str().unwrap()]);
    // The first with its cause, the others as its repeats.
    for _ in 0..30 {
        up.wait_for("/job c0 · FAILED");
    }
    let black_boxes = walk(&state.join("work"))
        .iter()
        .filter(|path| path.ends_with("blackbox.jsonl"))
        .count();
    assert!((2..=22).contains(&black_boxes), "{black_boxes} sandboxes");
    assert_eq!(up.stop(), 0);
}

/// Whoever writes more than anybody can read is shown in parts, and neither the API nor Ctrl-C waits for it.
#[test]
fn a_member_that_floods_its_log_holds_up_nobody() {
    let place = tempfile::tempdir().unwrap();
    let flood = "yes | head -c 60000000; echo the end of it; exec sleep 1000.23";
    let file = write(
        place.path(),
        "job.json",
        &job(&[flood, "echo quiet; exec sleep 1000.24"]),
    );
    let mut up = Up::start(&["--follow", file.to_str().unwrap()]);
    let told = up.wait_for(" not shown");
    assert!(told.contains("/job c0 · … "), "{told}");
    up.wait_for("/job c0 | the end of it");
    if !up.seen.iter().any(|line| line == "/job c1 | quiet") {
        up.wait_for("/job c1 | quiet");
    }
    let shown = up
        .seen
        .iter()
        .filter(|line| line.starts_with("/job c0 | "))
        .count();
    assert!(shown < 30_000_000 / 2, "{shown} lines of the flood");
    assert_eq!(up.json(&["status", "job"])["instances"][0]["status"], "STABLE");
    assert_eq!(up.stop(), 0);
    assert_eq!(crate::cluster::processes("sleep 1000.23"), 0);
}

/// In the middle of a flood that has no end: an answer, and the end, before all of what was written by then is shown.
#[test]
fn the_api_answers_and_ctrl_c_works_in_the_middle_of_a_flood() {
    let place = tempfile::tempdir().unwrap();
    let flood = "while :; do yes a line of the flood | head -c 6000000; sleep 0.2; done";
    let file = write(place.path(), "job.json", &job(&[flood]));
    let mut up = Up::start(&["--follow", file.to_str().unwrap()]);
    up.wait_for(" not shown");
    for _ in 0..3 {
        assert_eq!(up.json(&["status", "job"])["instances"][0]["status"], "STABLE");
    }
    up.wait_for(" not shown");
    assert!(up.seen.iter().any(|line| line.contains("| a line of the flood")));
    // What is left to show by then is bounded, so this comes back.
    assert_eq!(up.stop(), 0);
}

/// A member's own colours, and nothing else that a terminal obeys, on a terminal; none in a pipe.
#[test]
fn colours_of_members_are_kept_on_a_terminal_and_left_out_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let command = r"printf '\033[32mgreen\033[2J\n'";
    let file = write(place.path(), "job.json", &job(&[command]));
    let line = format!(
        "{} up --once --listen 127.0.0.1:0 {}",
        env!("CARGO_BIN_EXE_podling"),
        file.display()
    );
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    let (_, terminal, _) = output(&mut script);
    assert!(
        terminal.contains(" \u{1b}[32mgreen\u{fffd}[2J\u{1b}[0m"),
        "{terminal:?}"
    );
    let piped = String::from_utf8(once(&[command])).unwrap();
    assert!(piped.contains("/job c0 | green\u{fffd}[2J\n"), "{piped:?}");
}
