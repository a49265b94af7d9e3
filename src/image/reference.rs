//! Image references by Docker's rules (P-01): `[registry[:port]/]repository[:tag][@digest]`, and the local kinds
//! `oci:DIRECTORY[:TAG]`, `oci-archive:FILE[:TAG]` and `docker-archive:FILE[:REFERENCE]`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::digest::{Digest, DigestError};

const DOCKER_HUB: &str = "docker.io";
/// Docker's own limits.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// Where an image is to come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// An image in a registry.
    Registry(RegistryReference),
    /// An OCI image layout directory.
    Layout { path: PathBuf, tag: Option<String> },
    /// The same in an archive.
    LayoutArchive { path: PathBuf, tag: Option<String> },
    /// An archive made by `docker save`.
    Archive { path: PathBuf, tag: Option<String> },
}

/// A normalised registry reference: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image reference {reference:?}: {problem}")]
pub struct ReferenceError {
    reference: String,
    problem: ReferenceProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceProblem {
    #[error("it is empty")]
    Empty,
    #[error("the name is longer than {MAX_NAME} characters")]
    TooLong,
    #[error("{0:?} is not a registry host with an optional port")]
    Registry(String),
    #[error(
        "{0:?} is not a repository path: lower-case letters and digits, separated by one of . _ __ - and by slashes"
    )]
    Repository(String),
    #[error("a repository must be named in lower case")]
    UpperCase,
    #[error("{0:?} is not a tag: up to {MAX_TAG} letters, digits, . _ -, starting with a letter, digit or _")]
    Tag(String),
    #[error("64 hexadecimal digits alone are an image id and cannot be pulled; put a repository before it")]
    BareId,
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error("the path is empty")]
    Path,
}

impl Reference {
    /// Tells the file that a local reference is looked up in from what it is after a change. `None`: nothing local, or
    /// nothing is there.
    pub(super) fn stamp(&self) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        let found = match self {
            Reference::Registry(_) => return None,
            Reference::Layout { path, .. } => path.join("index.json").metadata(),
            Reference::LayoutArchive { path, .. } | Reference::Archive { path, .. } => path.metadata(),
        };
        let found = found.ok()?;
        let (inode, size) = (found.ino(), found.size());
        Some(format!(
            "{inode} {size} {}.{:09}",
            found.ctime(),
            found.ctime_nsec()
        ))
    }
}

impl RegistryReference {
    /// Host and port as written, or `docker.io`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent only when a digest was given without one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What goes after `manifests/` in the registry's API: the digest wins over the tag.
    pub fn manifest_key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    fn parse(text: &str) -> Result<RegistryReference, ReferenceProblem> {
        if text.is_empty() {
            return Err(ReferenceProblem::Empty);
        }
        if text.len() == 64 && Digest::from_hex(text).is_ok() {
            return Err(ReferenceProblem::BareId);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to a port.
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest.get(after_slash..).and_then(|last| last.find(':')) {
            Some(colon) => {
                let (name, tag) = rest.split_at(after_slash + colon);
                (name, tag.strip_prefix(':'))
            }
            None => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceProblem::Tag(tag.to_owned()));
        }
        let (registry, path) = split_registry(name);
        if !is_registry(registry) {
            return Err(ReferenceProblem::Registry(registry.to_owned()));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceProblem::UpperCase);
        }
        if path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(ReferenceProblem::Repository(path.to_owned()));
        }
        let repository = if registry == DOCKER_HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        // Of the whole name, as Docker counts, also where parts of it were left out.
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(ReferenceProblem::TooLong);
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(RegistryReference {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

/// `a/b` has no registry; `a.b/c`, `a:1/c`, `localhost/c` and `Upper/c` have one.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            match first {
                "index.docker.io" | "registry-1.docker.io" => (DOCKER_HUB, rest),
                _ => (first, rest),
            }
        }
        _ => (DOCKER_HUB, name),
    }
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => registry
            .split_once(':')
            .map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    tag.len() <= MAX_TAG
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Runs of letters and digits between separators, where a separator is `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric)
        && bytes
            .iter()
            .all(|byte| alphanumeric(*byte) || matches!(byte, b'.' | b'_' | b'-'));
    ends_well
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
            })
}

impl Reference {
    /// The same, with a local path as somebody means it who is in the directory `base`.
    pub fn absolute(mut self, base: &Path) -> Reference {
        match &mut self {
            Reference::Registry(_) => {}
            Reference::Layout { path, .. }
            | Reference::LayoutArchive { path, .. }
            | Reference::Archive { path, .. } => *path = base.join(&*path),
        }
        self
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let local = |rest: &str| -> Result<(PathBuf, Option<String>), ReferenceProblem> {
            // The tag is what follows the first colon, so a path with a colon cannot be named; Docker's tools agree.
            let (path, tag) = rest
                .split_once(':')
                .map_or((rest, None), |(path, tag)| (path, Some(tag)));
            if path.is_empty() {
                return Err(ReferenceProblem::Path);
            }
            Ok((PathBuf::from(path), tag.map(str::to_owned)))
        };
        let parsed = if let Some(rest) = text.strip_prefix("oci:") {
            local(rest).map(|(path, tag)| Reference::Layout { path, tag })
        } else if let Some(rest) = text.strip_prefix("oci-archive:") {
            local(rest).map(|(path, tag)| Reference::LayoutArchive { path, tag })
        } else if let Some(rest) = text.strip_prefix("docker-archive:") {
            local(rest).map(|(path, tag)| Reference::Archive { path, tag })
        } else {
            let name = text.strip_prefix("docker://").unwrap_or(text);
            RegistryReference::parse(name).map(Reference::Registry)
        };
        parsed.map_err(|problem| ReferenceError {
            reference: text.chars().take(300).collect(),
            problem,
        })
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, tag) = match self {
            Reference::Registry(reference) => return reference.fmt(f),
            Reference::Layout { path, tag } => ("oci", path, tag),
            Reference::LayoutArchive { path, tag } => ("oci-archive", path, tag),
            Reference::Archive { path, tag } => ("docker-archive", path, tag),
        };
        write!(f, "{scheme}:{}", path.display())?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn p_01_references_are_normalised() {
        for (given, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("someone/thing", "docker.io/someone/thing:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox:x", "docker.io/library/busybox:x"),
            ("docker.io/someone/thing:x", "docker.io/someone/thing:x"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000/a/b/c:T_1.x-y", "localhost:5000/a/b/c:T_1.x-y"),
            ("r.example/a__b/c---d/e.f", "r.example/a__b/c---d/e.f:latest"),
            ("127.0.0.1:80/x", "127.0.0.1:80/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("docker://busybox", "docker.io/library/busybox:latest"),
            ("busybox:5000", "docker.io/library/busybox:5000"),
            ("Host/a", "Host/a:latest"),
        ] {
            assert_eq!(given.parse::<Reference>().unwrap().to_string(), want);
        }
    }

    #[test]
    fn p_01_a_digest_takes_the_place_of_the_default_tag() {
        let by_digest: Reference = format!("r.io/a@sha256:{HEX}").parse().unwrap();
        assert_eq!(by_digest.to_string(), format!("r.io/a@sha256:{HEX}"));
        let both: Reference = format!("r.io/a:t@sha256:{HEX}").parse().unwrap();
        let Reference::Registry(both) = both else { panic!() };
        assert_eq!(
            (both.tag(), both.manifest_key()),
            (Some("t"), format!("sha256:{HEX}"))
        );
    }

    #[test]
    fn local_sources() {
        assert_eq!(
            "oci:/a/b:tag".parse::<Reference>().unwrap(),
            Reference::Layout {
                path: "/a/b".into(),
                tag: Some("tag".into())
            }
        );
        assert_eq!(
            "docker-archive:x.tar:repo/a:1".parse::<Reference>().unwrap(),
            Reference::Archive {
                path: "x.tar".into(),
                tag: Some("repo/a:1".into())
            }
        );
        assert_eq!(
            "oci-archive:x.tar".parse::<Reference>().unwrap().to_string(),
            "oci-archive:x.tar"
        );
        assert!("oci:".parse::<Reference>().is_err());
    }

    #[test]
    fn local_paths_are_meant_from_somewhere() {
        for (given, want) in [
            ("oci:a:tag", "oci:/base/a:tag"),
            ("oci-archive:../a.tar", "oci-archive:/base/../a.tar"),
            ("docker-archive:/a.tar:x/y:z", "docker-archive:/a.tar:x/y:z"),
            ("a", "docker.io/library/a:latest"),
        ] {
            let absolute = given.parse::<Reference>().unwrap().absolute(Path::new("/base"));
            assert_eq!(absolute.to_string(), want);
        }
    }

    #[test]
    fn p_01_odd_references_are_refused() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        for odd in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a:tag:tag",
            "a@",
            "a@sha256:1",
            "Busybox",
            "r.io/Busybox",
            "a/../b",
            "..",
            "-a",
            "a-",
            "a._b",
            "a___b",
            "a..b",
            "a:.t",
            "a:-t",
            "a b",
            "a\n",
            "é",
            "r.io:/a",
            "r.io:99999/a",
            "r.io:x/a",
            "-r.io/a",
            "r..io/a",
            "[::1/a",
            "[::x]/a",
            "http://r.io/a",
            "user@r.io/a",
            HEX,
            &long,
            &long_tag,
        ] {
            assert!(odd.parse::<Reference>().is_err(), "{odd:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_display_is_a_fixed_point(text in "\\PC{0,40}|[a-z0-9./:@_-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let shown = reference.to_string();
                prop_assert_eq!(shown.parse::<Reference>().unwrap(), reference);
            }
        }
    }

    #[test]
    fn p_01_a_name_is_measured_with_the_parts_that_were_left_out() {
        let full = "docker.io/library/";
        let longest = "a".repeat(MAX_NAME - full.len());
        for name in [longest.clone(), format!("{full}{longest}")] {
            let reference: Reference = name.parse().unwrap();
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            let error = format!("{name}a").parse::<Reference>().unwrap_err();
            assert!(
                error.to_string().contains("longer than 255 characters"),
                "{error}"
            );
        }
    }
}
