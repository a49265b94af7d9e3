use std::os::unix::fs::symlink;

use super::*;
use crate::container::janitor::sweep;

fn world() -> (tempfile::TempDir, Register) {
    let run = tempfile::tempdir().unwrap();
    let register = Register::open(run.path()).unwrap();
    (run, register)
}

#[test]
fn n_03_a_living_executor_is_left_alone_and_keeps_its_name() {
    let (run, register) = world();
    let claim = register.claim("a").unwrap();
    let kept = run.path().join("kept");
    fs::create_dir(&kept).unwrap();
    claim.note(Leftover::directory(&kept).unwrap()).unwrap();
    let report = sweep(run.path()).unwrap();
    assert_eq!((report.alive, report.removed.len()), (1, 0), "{report:?}");
    assert!(kept.exists());
    match register.claim("a") {
        Err(JanitorError::Alive { pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    register.claim("b").unwrap();
}

#[test]
fn n_03_what_a_dead_executor_wrote_down_goes_with_the_next_sweep() {
    let (run, register) = world();
    let claim = register.claim("a").unwrap();
    let (directory, socket) = (run.path().join("upper"), run.path().join("socket"));
    claim
        .note(Leftover::Directory {
            path: directory.clone(),
            identity: None,
        })
        .unwrap();
    fs::create_dir_all(directory.join("deep/er")).unwrap();
    fs::write(directory.join("deep/er/file"), "x").unwrap();
    claim.note(Leftover::directory(&directory).unwrap()).unwrap();
    fs::write(&socket, "").unwrap();
    claim.note(Leftover::file(&socket).unwrap()).unwrap();
    drop(claim); // as death would
    let report = sweep(run.path()).unwrap();
    assert_eq!(report.cleaned, ["executor-a"]);
    assert_eq!(report.removed.len(), 2, "{report:?}");
    assert!(!directory.exists() && !socket.exists());
    assert_eq!(register.names().unwrap(), Vec::<OsString>::new());
    assert!(sweep(run.path()).unwrap().cleaned.is_empty());
}

#[test]
fn the_same_name_can_be_claimed_after_a_death() {
    let (run, register) = world();
    let claim = register.claim("a").unwrap();
    let left = run.path().join("left");
    fs::create_dir(&left).unwrap();
    claim.note(Leftover::directory(&left).unwrap()).unwrap();
    drop(claim);
    let again = register.claim("a").unwrap();
    assert!(!left.exists(), "the dead one was cleaned up after");
    again.release().unwrap();
    assert_eq!(register.names().unwrap(), Vec::<OsString>::new());
}

#[test]
fn an_orderly_end_leaves_no_entry_unless_something_is_left() {
    let (run, register) = world();
    let left = run.path().join("left");
    fs::create_dir(&left).unwrap();
    let claim = register.claim("a").unwrap();
    claim.note(Leftover::directory(&left).unwrap()).unwrap();
    claim.release().unwrap();
    assert_eq!(register.names().unwrap().len(), 1);
    assert_eq!(sweep(run.path()).unwrap().removed, [left]);
}

#[test]
fn torn_lines_other_boots_and_later_words() {
    let head = |boot: &str| format!(r#"{{"podling":1,"executor":"a","pid":1,"boot":"{boot}"}}"#);
    let cgroup = r#"{"holds":"cgroup","path":"/c","inode":null}"#;
    let confirmed = r#"{"holds":"cgroup","path":"/c","inode":7}"#;
    let directory = r#"{"holds":"directory","path":"/d","device":1,"inode":2}"#;
    let announced = r#"{"holds":"directory","path":"/e"}"#;
    let text = format!(
        "{}\n{cgroup}\n{directory}\n{announced}\n{confirmed}\n{{\"holds\":\"fi",
        head(&boot_id())
    );
    let path = |path: &str| PathBuf::from(path);
    let expected_directories = [
        Leftover::Directory {
            path: path("/d"),
            identity: Some(Identity { device: 1, inode: 2 }),
        },
        Leftover::Directory {
            path: path("/e"),
            identity: None,
        },
    ];
    let mut all = expected_directories.to_vec();
    all.push(Leftover::Cgroup {
        path: path("/c"),
        inode: Some(7),
    });
    assert_eq!(leftovers(&text), all);
    let before = text.replace(&boot_id(), "another");
    assert_eq!(leftovers(&before), expected_directories);
    for cut in 0..text.len() {
        leftovers(&text[..cut]);
    }
    // A version we do not know could mean anything.
    let newer = text.replace(r#""podling":1"#, r#""podling":2"#);
    assert!(
        !leftovers(&newer)
            .iter()
            .any(|left| matches!(left, Leftover::Cgroup { .. }))
    );
}

#[test]
fn n_03_planted_entries_are_not_obeyed() {
    let (run, register) = world();
    let victim = run.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "x").unwrap();
    let line = serde_json::to_string(&Leftover::directory(&victim).unwrap()).unwrap();
    let outside = run.path().join("planted");
    fs::write(&outside, line).unwrap();
    symlink(&outside, register.directory.join("executor-link")).unwrap();
    fs::create_dir(register.directory.join("executor-folder")).unwrap();
    rustix::fs::mkfifoat(
        CWD,
        register.directory.join("executor-fifo"),
        rustix::fs::Mode::RWXU,
    )
    .unwrap();
    let report = sweep(run.path()).unwrap();
    assert_eq!(report.removed, Vec::<PathBuf>::new());
    assert!(victim.join("file").exists());
}

#[test]
fn a_register_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let run = tempfile::tempdir().unwrap();
    fs::create_dir(run.path().join("executors")).unwrap();
    fs::set_permissions(run.path().join("executors"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        Register::open(run.path()),
        Err(JanitorError::Open { .. })
    ));
}
