//! What must hold for any bytes at all: the bodies of the fuzz targets in `fuzz/`, which the unit tests run as well.
//! Each takes bytes and panics if the property does not hold.
#![allow(clippy::panic)]

use std::io::{self, BufRead};

use super::{
    document::{Configuration, Document, choose},
    platform::Platform,
    reference::Reference,
    registry::{Credentials, parse_challenge},
    unpack::{Archive, Budget, unpacked},
};

/// Small enough that what goes over it is found quickly.
fn budget() -> Budget {
    Budget {
        bytes: 1 << 20,
        header: 64 << 10,
        ratio: 100,
        ratio_free: 64 << 10,
        ..Budget::default()
    }
}

/// An archive is read to its end or refused; no entry has more data than there are bytes, whatever its header says,
/// and no name or link is longer than it may be.
pub fn archive(data: &[u8]) {
    let budget = budget();
    let mut archive = Archive::new(data, &budget);
    let mut sum = 0;
    while let Ok(Some(entry)) = archive.next() {
        assert!(entry.name.len() <= budget.path && entry.link.len() <= budget.path);
        assert!(!entry.name.contains(&0) && !entry.link.contains(&0));
        assert!(entry.uid != u32::MAX && entry.gid != u32::MAX);
        assert!(entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000);
        assert!(entry.xattrs.len() <= budget.xattrs && entry.size <= budget.bytes);
        let stored = io::copy(&mut archive.data(), &mut io::sink()).unwrap_or(0);
        if let Some(segments) = &entry.segments {
            let end = segments.last().map_or(0, |last| last.offset + last.length);
            assert!(end <= entry.size);
        } else {
            assert!(stored <= entry.size);
        }
        sum += stored;
    }
    assert!(sum <= data.len() as u64);
}

/// However a layer is packed, what comes out stays within the budget, and the same bytes give the same digests.
pub fn packing(data: &[u8]) {
    let once = |chunk: usize| {
        let mut stream = unpacked(
            io::BufReader::with_capacity(chunk, data),
            data.len() as u64,
            &budget(),
        )
        .ok()?;
        let mut produced = 0;
        loop {
            let run = stream.fill_buf().ok()?.len();
            if run == 0 {
                break;
            }
            produced += run as u64;
            stream.consume(run);
        }
        assert!(produced <= budget().bytes);
        stream.finish().ok()
    };
    assert_eq!(once(7), once(64 << 10));
}

/// Documents are read or refused, and what an index leads to is one of its own.
pub fn document(data: &[u8]) {
    let platform = Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: None,
    };
    if let Ok(Document::Index(index)) = Document::parse(data, None)
        && let Ok(choice) = choose(&index, &platform)
    {
        let is_there = |entry: &oci_spec::image::Descriptor| {
            entry.digest().to_string() == choice.blob.digest.to_string()
        };
        assert!(index.manifests().iter().any(is_there));
    }
    if let Ok(configuration) = Configuration::parse(data, &platform) {
        assert_eq!(
            configuration.diff_ids.len(),
            configuration.image.rootfs().diff_ids().len()
        );
    }
    let _ = Credentials::parse(data);
}

/// A reference is refused, or stays what it is when it is written and read again.
pub fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(reference) = text.parse::<Reference>() {
        let again = reference.to_string().parse::<Reference>();
        assert_eq!(again.ok(), Some(reference));
    }
}

/// Any header is read, and nothing is taken for a challenge that is not in it.
pub fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lower = text.to_ascii_lowercase();
    for challenge in parse_challenge(&text) {
        let word = match challenge {
            super::registry::Challenge::Basic => "basic",
            super::registry::Challenge::Bearer { .. } => "bearer",
        };
        assert!(lower.contains(word));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::nearly;

    fn some_archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(600);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "long/".repeat(39) + "f", &[7u8; 600][..])
            .unwrap();
        builder
            .append_data(&mut header, "short", &[8u8; 600][..])
            .unwrap();
        builder.into_inner().unwrap()
    }

    fn packed() -> Vec<u8> {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&some_archive()).unwrap();
        encoder.finish().unwrap()
    }

    const INDEX: &[u8] =
        br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "size":3,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "platform":{"os":"linux","architecture":"amd64"}}]}"#;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn archives(bytes in nearly(some_archive())) {
            archive(&bytes);
        }

        #[test]
        fn packings(bytes in nearly(packed())) {
            packing(&bytes);
        }

        #[test]
        fn zstd_packings(bytes in nearly(zstd::encode_all(&some_archive()[..], 3).unwrap())) {
            packing(&bytes);
        }

        #[test]
        fn documents(bytes in nearly(INDEX.to_vec())) {
            document(&bytes);
        }

        #[test]
        fn references(bytes in nearly(b"registry.example:5000/some/thing_1:tag@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_vec())) {
            reference(&bytes);
        }

        #[test]
        fn challenges(bytes in nearly(b"Bearer realm=\"https://a/b\",service=\"c\", Basic realm=\"d\"".to_vec())) {
            challenge(&bytes);
        }
    }
}
