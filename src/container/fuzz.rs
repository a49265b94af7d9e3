//! What must hold for any bytes: the bodies of the fuzz targets in `fuzz/`, which the unit tests run as well.
#![allow(clippy::panic)]

use super::{cgroup, seccomp, users::Accounts};

/// The mount table and our places in it: what is found lies below what is mounted.
pub fn cgroup_files(data: &[u8]) {
    cgroup::fuzz::files(data);
}

/// A profile is compiled, or refused with its place.
pub fn seccomp_profile(data: &[u8]) {
    match seccomp::parse(data) {
        Ok(profile) => drop(format!("{profile:?}")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An image's /etc/passwd and /etc/group, and who is asked for: no id wraps.
pub fn accounts(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let (wanted, passwd, group) = (part(), part(), part());
    let Ok(wanted) = String::from_utf8(wanted) else {
        return;
    };
    if let Ok(identity) = Accounts::from_bytes(passwd, group).find(&wanted) {
        assert!(identity.uid != u32::MAX && identity.gid != u32::MAX);
        assert!(!identity.groups.contains(&u32::MAX) && identity.groups.len() <= 65_536);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::nearly;

    proptest! {
        #[test]
        fn files_of_cgroups(bytes in nearly(*b"31 23 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
            42 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\x004:cpu:/a/b\n0::/c\n\x00anon 12\nfile 3\n\
            some avg10=0.00 avg60=0.12 avg300=1.00 total=5\n")) {
            cgroup_files(&bytes);
        }

        #[test]
        fn seccomp_profiles(bytes in nearly(*br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"syscalls":[
            {"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#)) {
            seccomp_profile(&bytes);
        }

        #[test]
        fn s3_uid_wrap_accounts(bytes in nearly(*b"web:staff\0root:x:0:0::/:\nweb:x:1000:1001::/:\n\0staff:x:50:web\n")) {
            accounts(&bytes);
        }
    }
}
