//! Volumes: V-01…V-16, in strict list order.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::{Mount, MountSource, PlanError, Target, environment::secret_bytes, error::no_nul};
use crate::mesos::v1;

/// `images`: what volumes from images are mounted from, by their index; made by whoever has the images (V-11).
pub(super) fn plan(
    volumes: &[v1::Volume],
    images: &BTreeMap<usize, MountSource>,
) -> Result<Vec<Mount>, PlanError> {
    let mut mounts = Vec::with_capacity(volumes.len());
    let mut targets = BTreeSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let field = format!("container.volumes[{i}]");
        let mount = one(volume, &field, images.get(&i))?;
        // The sandbox has two names when there is an image.
        let seen = match &mount.target {
            Target::Root(path) => path.clone(),
            Target::Sandbox(path) => Path::new(super::SANDBOX_IN_IMAGE.trim_start_matches('/')).join(path),
        };
        if !targets.insert(seen) {
            return Err(PlanError::new(
                field + ".container_path",
                format!(
                    "{:?} is the target of another volume already",
                    volume.container_path
                ),
            ));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

fn one(volume: &v1::Volume, field: &str, image: Option<&MountSource>) -> Result<Mount, PlanError> {
    let read_only = match volume.mode() {
        v1::volume::Mode::Ro => true,
        v1::volume::Mode::Rw => false,
    };
    let mut forms = 0;
    forms += usize::from(volume.host_path.is_some());
    forms += usize::from(volume.image.is_some());
    forms += usize::from(volume.source.is_some());
    if forms != 1 {
        return Err(PlanError::new(
            field,
            "needs exactly one of host_path, image and source",
        ));
    }
    let source = if let Some(path) = &volume.host_path {
        // V-08
        let at = format!("{field}.host_path");
        no_nul(&at, path)?;
        match path.starts_with('/') {
            true => MountSource::Host(path.into()),
            false => MountSource::OwnSandbox(inside(&at, path)?),
        }
    } else if volume.image.is_some() {
        match image {
            Some(source) => source.clone(),
            None => return Err(PlanError::new(format!("{field}.image"), "is not at hand")),
        }
    } else {
        source(volume.source.as_ref(), &format!("{field}.source"))?
    };
    Ok(Mount {
        source,
        target: target(&volume.container_path, &format!("{field}.container_path"))?,
        read_only,
        field: field.to_owned(),
    })
}

fn source(source: Option<&v1::volume::Source>, field: &str) -> Result<MountSource, PlanError> {
    use v1::volume::source::Type;
    let missing = |name: &str| PlanError::new(format!("{field}.{name}"), "is missing");
    let Some(source) = source else {
        return Err(PlanError::new(field, "is missing"));
    };
    match source.r#type() {
        Type::SandboxPath => {
            let sandbox = source
                .sandbox_path
                .as_ref()
                .ok_or_else(|| missing("sandbox_path"))?;
            let at = format!("{field}.sandbox_path");
            let path = inside(&format!("{at}.path"), &sandbox.path)?;
            match sandbox.r#type() {
                v1::volume::source::sandbox_path::Type::Self_ => Ok(MountSource::OwnSandbox(path)),
                v1::volume::source::sandbox_path::Type::Parent => {
                    not_the_executors(&format!("{at}.path"), &path)?;
                    Ok(MountSource::ExecutorSandbox(path))
                }
                v1::volume::source::sandbox_path::Type::Unknown => {
                    Err(PlanError::new(at + ".type", "is neither SELF nor PARENT"))
                }
            }
        }
        Type::HostPath => {
            let host = source.host_path.as_ref().ok_or_else(|| missing("host_path"))?;
            let at = format!("{field}.host_path");
            no_nul(&format!("{at}.path"), &host.path)?;
            if !host.path.starts_with('/') {
                return Err(PlanError::new(
                    at + ".path",
                    format!("{:?} is not absolute", host.path),
                ));
            }
            let propagation = host.mount_propagation.as_ref().map(v1::MountPropagation::mode);
            if propagation == Some(v1::mount_propagation::Mode::Bidirectional) {
                return Err(PlanError::new(
                    at + ".mount_propagation.mode",
                    "BIDIRECTIONAL is not supported: mounts made by a member stay in it",
                ));
            }
            Ok(MountSource::Host(PathBuf::from(&host.path)))
        }
        Type::Secret => {
            let bytes = secret_bytes(&format!("{field}.secret"), source.secret.as_ref())?;
            Ok(MountSource::Secret(Arc::from(bytes)))
        }
        kind @ (Type::DockerVolume | Type::CsiVolume) => Err(PlanError::new(
            format!("{field}.type"),
            format!(
                "{} needs an isolator of the agent, which serves only its own containers",
                kind.as_str_name()
            ),
        )),
        Type::Unknown => Err(PlanError::new(format!("{field}.type"), "is missing or not known")),
    }
}

/// S2: who can write there could have us write elsewhere.
fn not_the_executors(field: &str, path: &Path) -> Result<(), PlanError> {
    match super::EXECUTORS_OWN.iter().find(|own| path.starts_with(own)) {
        None => Ok(()),
        Some(own) => Err(PlanError::new(
            field,
            format!("{path:?} is in {own:?}, which is the executor's own; take another name"),
        )),
    }
}

/// Where it appears (V-05). Without an image an absolute target is a place on the host that must exist.
fn target(path: &str, field: &str) -> Result<Target, PlanError> {
    match path.strip_prefix('/') {
        Some(rest) => Ok(Target::Root(inside(field, rest)?)),
        None => Ok(Target::Sandbox(inside(field, path)?)),
    }
}

/// A relative path of plain names, and at least one: nothing that could leave where it starts (V-03, V-06).
fn inside(field: &str, path: &str) -> Result<PathBuf, PlanError> {
    no_nul(field, path)?;
    if path.starts_with('/') {
        return Err(PlanError::new(
            field,
            format!("{path:?} is absolute; it must be relative to the sandbox"),
        ));
    }
    let mut plain = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(PlanError::new(field, format!("{path:?} must not contain \"..\""))),
        }
    }
    match plain.as_os_str().is_empty() {
        true => Err(PlanError::new(field, format!("{path:?} names no place"))),
        false => Ok(plain),
    }
}

/// Where a member finds what the kernel shows.
const KERNELS: [&str; 3] = ["proc", "sys", "dev"];

/// I-15: what an image declares as volumes become fresh directories of the member's sandbox, unless the task mounts
/// something there itself.
pub(super) fn of_image(declared: &[String], given: &[Mount]) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for path in declared {
        // An image is not worth refusing for a path that means nothing.
        let Ok(path) = inside("", path.trim_start_matches('/')) else {
            continue;
        };
        let target = Target::Root(path.clone());
        // Nor is what the kernel shows worth less than what an image would have there.
        if KERNELS.iter().any(|own| path.starts_with(own)) {
            continue;
        }
        if given.iter().chain(&mounts).any(|mount| mount.target == target) {
            continue;
        }
        let name = path.to_string_lossy().replace('/', "-");
        mounts.push(Mount {
            source: MountSource::OwnSandbox(Path::new(".volumes").join(name)),
            target,
            read_only: false,
            field: format!("the image's volume {path:?}"),
        });
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::volume::{
        Mode, Source,
        source::{HostPath, SandboxPath, Type, sandbox_path},
    };

    fn volume(container_path: &str, source: Source) -> v1::Volume {
        v1::Volume {
            mode: Mode::Rw as i32,
            container_path: container_path.into(),
            source: Some(source),
            ..Default::default()
        }
    }

    fn sandbox(kind: sandbox_path::Type, path: &str) -> Source {
        Source {
            r#type: Some(Type::SandboxPath as i32),
            sandbox_path: Some(SandboxPath {
                r#type: Some(kind as i32),
                path: path.into(),
            }),
            ..Default::default()
        }
    }

    fn host(path: &str) -> Source {
        Source {
            r#type: Some(Type::HostPath as i32),
            host_path: Some(HostPath {
                path: path.into(),
                mount_propagation: None,
            }),
            ..Default::default()
        }
    }

    fn planned(volumes: &[v1::Volume]) -> Result<Vec<Mount>, String> {
        plan(volumes, &BTreeMap::new()).map_err(|e| e.to_string())
    }

    #[test]
    fn v_01_v_02_sandbox_paths_of_both_kinds() {
        let mounts = planned(&[
            volume("/data", sandbox(sandbox_path::Type::Self_, "a/b")),
            volume("shared", sandbox(sandbox_path::Type::Parent, "./common")),
        ])
        .unwrap();
        assert!(matches!(&mounts[0].source, MountSource::OwnSandbox(path) if path == Path::new("a/b")));
        assert_eq!(mounts[0].target, Target::Root("data".into()));
        assert!(
            matches!(&mounts[1].source, MountSource::ExecutorSandbox(path) if path == Path::new("common"))
        );
        assert_eq!(mounts[1].target, Target::Sandbox("shared".into()));
    }

    #[test]
    fn v_03_v_06_nothing_leaves_its_base() {
        for path in ["/etc", "..", "a/../../b", "", "."] {
            let error = planned(&[volume("d", sandbox(sandbox_path::Type::Parent, path))]).unwrap_err();
            assert!(
                error.starts_with("container.volumes[0].source.sandbox_path.path: "),
                "{path:?}: {error}"
            );
        }
        for path in ["/", "", "../x", "/a/../../b", "a\0b"] {
            let path = path.replace("\\0", "\0");
            let error = planned(&[volume(&path, host("/srv"))]).unwrap_err();
            assert!(
                error.starts_with("container.volumes[0].container_path: "),
                "{path:?}: {error}"
            );
        }
    }

    #[test]
    fn s2_v_03_the_executors_own_places_are_no_volumes() {
        for path in [
            ".podling",
            ".podling/rootfs",
            "containers",
            "./containers/x",
            "tasks//a",
        ] {
            let error = planned(&[volume("d", sandbox(sandbox_path::Type::Parent, path))]).unwrap_err();
            assert!(error.contains("is the executor's own"), "{path:?}: {error}");
            // The same names in a member's own sandbox are the member's.
            planned(&[volume("/d", sandbox(sandbox_path::Type::Self_, path))]).unwrap();
        }
        planned(&[volume("d", sandbox(sandbox_path::Type::Parent, "data/.podling"))]).unwrap();
    }

    #[test]
    fn v_07_host_paths_are_absolute() {
        assert!(
            planned(&[volume("d", host("srv"))])
                .unwrap_err()
                .contains("is not absolute")
        );
    }

    #[test]
    fn v_08_legacy_host_path_and_exactly_one_form() {
        let legacy = |path: &str| v1::Volume {
            mode: Mode::Ro as i32,
            container_path: "/d".into(),
            host_path: Some(path.into()),
            ..Default::default()
        };
        let mounts = planned(&[legacy("/srv")]).unwrap();
        assert!(
            mounts[0].read_only
                && matches!(&mounts[0].source, MountSource::Host(path) if path == Path::new("/srv"))
        );
        let mounts = planned(&[legacy("own")]).unwrap();
        assert!(matches!(&mounts[0].source, MountSource::OwnSandbox(path) if path == Path::new("own")));
        let both = v1::Volume {
            source: Some(host("/srv")),
            ..legacy("/srv")
        };
        assert!(planned(&[both]).unwrap_err().contains("exactly one of"));
    }

    #[test]
    fn v_10_bidirectional_is_refused() {
        let mut source = host("/srv");
        source.host_path.as_mut().unwrap().mount_propagation = Some(v1::MountPropagation {
            mode: Some(v1::mount_propagation::Mode::Bidirectional as i32),
        });
        assert!(
            planned(&[volume("/d", source)])
                .unwrap_err()
                .contains("BIDIRECTIONAL")
        );
    }

    #[test]
    fn v_15_volumes_of_agent_isolators_are_refused() {
        for kind in [Type::DockerVolume, Type::CsiVolume] {
            let source = Source {
                r#type: Some(kind as i32),
                ..Default::default()
            };
            let error = planned(&[volume("/d", source)]).unwrap_err();
            assert!(
                error.starts_with(&format!(
                    "container.volumes[0].source.type: {}",
                    kind.as_str_name()
                )),
                "{error}"
            );
        }
    }

    #[test]
    fn v_16_order_is_kept_and_duplicates_are_refused_under_both_names() {
        let mounts = planned(&[
            volume("/a/b", host("/1")),
            volume("/a", host("/2")),
            volume("/a/c", host("/3")),
        ])
        .unwrap();
        let order: Vec<_> = mounts.iter().map(|m| m.target.clone()).collect();
        assert_eq!(order, ["a/b", "a", "a/c"].map(|path| Target::Root(path.into())));
        let error = planned(&[
            volume("/mnt/mesos/sandbox/x", host("/1")),
            volume("x", host("/2")),
        ])
        .unwrap_err();
        assert!(
            error.starts_with("container.volumes[1].container_path"),
            "{error}"
        );
    }

    #[test]
    fn i_15_image_volumes_are_fresh_directories_unless_given() {
        let given = planned(&[volume("/data", host("/1"))]).unwrap();
        let mounts = of_image(
            &[
                "/data".into(),
                "/var/lib/x/".into(),
                "/var/lib/x".into(),
                "/..".into(),
                "/proc".into(),
                "/sys/fs/cgroup".into(),
                "/dev/".into(),
            ],
            &given,
        );
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].target, Target::Root("var/lib/x".into()));
    }
}
