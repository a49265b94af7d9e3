//! What must hold for any bytes: the bodies of the fuzz targets in `fuzz/`, which the unit tests run as well.
#![allow(clippy::panic)]

use std::io::{Seek as _, Write as _};

use serde_json::Value;

use super::{Config, Request, cni, lease, request};

/// What a plug-in prints is a result or told in few words.
pub fn cni_result(data: &[u8]) {
    cni::fuzz::result(data);
}

/// A network configuration of somebody else's is a list or told with its place.
pub fn cni_list(data: &[u8]) {
    cni::fuzz::list(data);
}

/// A journal that was cut, or is not ours, is read as far as it is whole; what was read is written the same again.
pub fn lease_journal(data: &[u8]) {
    let Ok(mut file) = tempfile() else { return };
    let (Ok(()), Ok(())) = (file.write_all(data), file.rewind()) else {
        return;
    };
    let Ok(entries) = lease::read_entries(&mut file) else {
        return;
    };
    assert!(entries.len() <= data.iter().filter(|byte| **byte == b'\n').count());
    for entry in entries {
        let line = serde_json::to_vec(&entry).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<lease::Entry>(&line).ok(), Some(entry));
    }
}

/// The wish of a scheduler for a network is read or refused by its place.
pub fn wish(data: &[u8]) {
    let Ok(extras) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let Ok(networks) = Config::default().check() else {
        return;
    };
    if let Err(error) = Request::read(None, Some(&extras), &networks, &|_| None) {
        assert!(!error.to_string().is_empty());
    }
}

fn tempfile() -> std::io::Result<std::fs::File> {
    let file = rustix::fs::memfd_create("journal", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(file.into())
}

/// A host's name is taken or refused, and what is taken is safe in the files of a pod.
pub fn hostname(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if request::check_hostname(text).is_ok() {
        assert!(
            !text.is_empty() && text.len() <= 253 && !text.contains(|c: char| c.is_control() || c == ' ')
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::nearly;

    proptest! {
        #[test]
        fn cni_results(bytes in nearly(*br#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],
            "ips":[{"address":"10.1.0.2/16","interface":0}],"dns":{"nameservers":["1.1.1.1"]}}"#)) {
            cni_result(&bytes);
        }

        #[test]
        fn cni_lists(bytes in nearly(*br#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge",
            "capabilities":{"portMappings":true}}]}"#)) {
            cni_list(&bytes);
        }

        #[test]
        fn r4_lease_journals(bytes in nearly(*b"{\"holds\":\"pod\",\"pod\":\"p\",\"pid\":1}\n{\"holds\":\"address\",\
            \"network\":\"n\",\"address\":\"10.0.0.1\",\"leaving\":true}\n{\"holds\":\"published\"}\n")) {
            lease_journal(&bytes);
        }

        #[test]
        fn wishes(bytes in nearly(*br#"{"mode":"container","networks":[{"name":"n"}],"portMappings":[
            {"hostPort":80,"containerPort":80,"protocol":"tcp"}],"name":"n","ports":[]}"#)) {
            wish(&bytes);
        }

        #[test]
        fn hostnames(bytes in nearly(*b"a-host.of-some.example")) {
            hostname(&bytes);
        }
    }
}
