//! Who a member is, by how its user is written and whether it has an image: the table of `docs/members.md`.

use podling::container::plan::UserSpec;

use crate::support::{World, shell};

/// On the host's root: the user as the task names it, and `uid gid groups` or the refusal.
const ON_THE_HOST: &[(Option<&str>, &str)] = &[
    (None, "0 0 EXECUTOR"),
    (Some("root"), "0 0 GROUPS_OF_ROOT"),
    (Some("nobody"), "65534 65534 65534"),
    (Some("65534"), "65534 65534 65534"),
    // Nobody the host knows: nothing of root's.
    (Some("54321"), "54321 54321 54321"),
    (Some("54321:54322"), "54321 54322 54322"),
    (Some("nobody:54322"), "65534 54322 54322"),
    (
        Some("no-such-user"),
        "user \"no-such-user\" is not in /etc/passwd",
    ),
    (
        Some("nobody:no-such-group"),
        "group \"no-such-group\" is not in /etc/group",
    ),
    (Some("4294967295"), "no user or group id"),
    (Some("-1"), "user \"-1\" is not in /etc/passwd"),
];

/// With an image that knows `app` (1234, group 1235, also in 1300).
const WITH_AN_IMAGE: &[(Option<&str>, &str)] = &[
    (None, "0 0 EXECUTOR"),
    (Some("root"), "0 0 0"),
    (Some("app"), "1234 1235 1235 1300"),
    (Some("1234"), "1234 1235 1235 1300"),
    (Some("app:extra"), "1234 1300 1300"),
    // Group 0 is the image's, and images for such users are built for that.
    (Some("54321"), "54321 0 0"),
    (Some("54321:54322"), "54321 54322 54322"),
    // The host's, for the image does not know it.
    (Some("nobody"), "65534 65534 65534"),
    (
        Some("no-such-user"),
        "user \"no-such-user\" is not in /etc/passwd",
    ),
    (Some("4294967295"), "no user or group id"),
];

#[tokio::test]
async fn i_13_i_14_who_a_member_is() {
    let world = World::new();
    let executor = rustix::process::getgroups().unwrap();
    let executor: Vec<_> = executor.iter().map(|group| group.as_raw().to_string()).collect();
    for (rooted, table) in [(false, ON_THE_HOST), (true, WITH_AN_IMAGE)] {
        for (user, expected) in table {
            let task = shell(
                "while read -r key value more; do case $key in Uid:|Gid:) echo $value;; Groups:) echo $value $more;; esac; done < /proc/self/status",
            );
            let mut plan = if rooted {
                world.rooted_plan(&task)
            } else {
                world.plan(&task)
            };
            if let Some(text) = user {
                plan.user = UserSpec::Named {
                    text: (*text).into(),
                    host_too: true,
                };
            }
            let said = match world.runtime.prepare(plan.clone()).await {
                Ok(gated) => {
                    gated.release().await.unwrap().wait().await;
                    let said = std::fs::read_to_string(plan.sandbox.join("stdout")).unwrap();
                    said.split_whitespace().collect::<Vec<_>>().join(" ")
                }
                Err(error) => sentence(&error),
            };
            let of_root = said.starts_with("0 0 0") && *expected == "0 0 GROUPS_OF_ROOT";
            let expected = expected.replace("EXECUTOR", &executor.join(" "));
            assert!(
                of_root || said == expected.trim() || said.contains(&expected) && expected.contains(" "),
                "image {rooted}, user {user:?}: {said}"
            );
        }
    }
}

fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What group 0 would give: files that only root and its group may read.
#[tokio::test]
async fn i_14_a_number_that_nobody_has_reads_nothing_of_roots_group() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let secret = world.sandbox().join("secret");
    std::fs::write(&secret, "of root's group").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
    for (user, readable) in [("54321:0", true), ("54321", false)] {
        let mut plan = world.plan(&shell(&format!("cat {} || echo refused", secret.display())));
        plan.user = UserSpec::Named {
            text: user.into(),
            host_too: true,
        };
        let done = world.run(plan).await;
        assert_eq!(done.said() == "of root's group", readable, "{done:?}");
    }
}
