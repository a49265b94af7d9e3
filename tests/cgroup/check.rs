//! `podling node check`, as an operator and as a script sees it (S8).

use std::process::Command;

fn check(settings: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("executor.toml");
    std::fs::write(&file, settings).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_podling"))
        .args(["node", "check"])
        .args(arguments)
        .env("PODLING_CONFIG", &file)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn finding<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["name"] == name).unwrap()
}

#[test]
fn s_8_a_machine_is_judged_with_the_settings_of_its_executors() {
    let (code, text) = check("cgroups = \"none\"\n", &["-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(finding(&report, "settings")["found"], "changed: cgroups");
    let findings = report["findings"].as_array().unwrap();
    let lesser = findings
        .iter()
        .find(|finding| finding["name"] == "cgroups")
        .unwrap();
    assert_eq!(lesser["grade"], "lesser", "{lesser}");
    for finding in findings {
        let good = finding["grade"] == "good";
        assert_eq!(
            finding["consequence"].is_null(),
            good,
            "each lack has its consequence: {finding}"
        );
    }
}

#[test]
fn s_8_settings_that_no_executor_would_take_are_missing() {
    let (code, text) = check("colour = \"red\"\n", &[]);
    assert_eq!(code, Some(1));
    let line = text.lines().find(|line| line.contains("settings")).unwrap();
    assert!(
        line.starts_with("missing") && line.contains("there is no key `colour`"),
        "{text}"
    );
    assert!(text.contains("no executor starts on this node"), "{text}");
}
