use std::os::unix::fs::symlink;

use super::*;

fn rule(body: &str) -> Result<Profile, ParseError> {
    parse(format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{body}]}}"#).as_bytes())
}

#[test]
fn a_profile_in_dockers_format_is_read() {
    let profile = parse(
        br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"comment":"ours",
             "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
             "syscalls":[
               {"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":null,"includes":{},"excludes":{}},
               {"name":"bpf","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"],"arches":["amd64","s390"]}},
               {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390x"]},
                "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
               {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}}]}"#,
    )
    .unwrap();
    assert_eq!(profile.default, Action::Errno(38));
    assert_eq!(profile.rules.len(), 4);
    assert_eq!(profile.rules[1].when.caps, caps::BPF);
    assert_eq!(profile.rules[1].when.arches, Some(vec![Arch::X86_64]));
    assert_eq!(profile.rules[2].when.no_caps, caps::SYS_ADMIN);
    assert_eq!(
        profile.rules[2].args[0].comparison,
        Comparison::MaskedEqual { mask: 0x7e02_0000 }
    );
    assert_eq!(profile.rules[3].when.min_kernel, Some((4, 8)));
}

#[test]
fn an_argument_tested_twice_means_alternatives() {
    let profile = rule(
        r#"{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}"#,
    )
    .unwrap();
    assert_eq!(profile.rules.len(), 2);
    assert!(profile.rules.iter().all(|rule| rule.args.len() == 1));
}

#[test]
fn what_is_not_understood_is_an_error_with_its_place() {
    for (body, expected) in [
        (
            r#"{"names":["read"],"action":"SCMP_ACT_NO"}"#,
            "syscalls[0].action: unknown action",
        ),
        (
            r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#,
            "syscalls[0].action: SCMP_ACT_NOTIFY needs",
        ),
        (r#"{"action":"SCMP_ACT_ALLOW"}"#, "syscalls[0].names: missing"),
        (
            r#"{"names":["read"],"name":"read","action":"SCMP_ACT_ALLOW"}"#,
            "syscalls[0].name: given together",
        ),
        (
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#,
            "syscalls[0].args[0]: index 6 is above 5",
        ),
        (
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"=="}]}"#,
            "syscalls[0].args[0]: unknown comparison",
        ),
        (
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["SYS_ADMIN"]}}"#,
            "syscalls[0].includes.caps: unknown capability",
        ),
        (
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"new"}}"#,
            "syscalls[0].excludes.minKernel",
        ),
        (
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","listener":1}"#,
            "syscalls[0].listener",
        ),
        (
            r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4096}"#,
            "errno 4096 is above 4095",
        ),
    ] {
        let error = rule(body).unwrap_err().to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
    assert!(parse(b"{\"defaultAction\":\"SCMP_ACT_ALLOW\"} x").is_err());
    assert!(parse(&vec![b' '; MAX_BYTES as usize + 1]).is_err());
}

#[test]
fn z_06_a_profile_name_never_leads_out_of_the_directory() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("seccomp");
    std::fs::create_dir(&directory).unwrap();
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
    std::fs::write(home.path().join("outside"), text).unwrap();
    std::fs::write(directory.join("plain"), text).unwrap();
    symlink("../outside", directory.join("link")).unwrap();
    std::fs::create_dir(directory.join("folder")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, directory.join("fifo"), Mode::RUSR).unwrap();

    assert_eq!(load(&directory, "plain").unwrap().default, Action::Allow);
    for name in [
        "",
        ".",
        "..",
        "../outside",
        "/etc/passwd",
        "a/b",
        "nul\0",
        &"x".repeat(300),
    ] {
        assert!(
            matches!(load(&directory, name), Err(SeccompError::Name { .. })),
            "{name:?}"
        );
    }
    for name in ["link", "folder", "fifo"] {
        assert!(
            matches!(load(&directory, name), Err(SeccompError::NotAFile { .. })),
            "{name:?}"
        );
    }
    assert!(matches!(
        load(&directory, "absent"),
        Err(SeccompError::Read { .. })
    ));
}

#[test]
fn s6_a_profile_that_others_may_write_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("own.json");
    std::fs::write(&path, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    load(place.path(), "own.json").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o662)).unwrap();
    let error = load(place.path(), "own.json").unwrap_err().to_string();
    assert!(
        error.contains(path.to_str().unwrap()) && error.contains("chmod go-w"),
        "{error}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_fail(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        key in "[a-zA-Z]{1,12}",
        value in "(null|-1|1e999|18446744073709551616|\"x\"|\\[\\]|\\{\\})",
    ) {
        let _ = parse(&bytes);
        let _ = rule(&format!(r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","{key}":{value}}}"#));
        let _ = rule(&format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{{"index":{value},"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
        ));
    }
}
