//! What this build can run by now.
//!
//! A field whose capability is missing is refused with a sentence that names it; it is never accepted and then
//! ignored. As capabilities land, their switch goes on here and in the end away.

use super::{
    model::*,
    violation::{Place, Violations},
};

/// One switch for each capability that a definition can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Support {
    pub images: bool,
    pub container_networks: bool,
    pub secrets: bool,
    pub artifacts: bool,
    pub persistent_volumes: bool,
    pub constraints: bool,
    pub gpus: bool,
    /// Pods run with the rights of an ordinary user, who can make no networks and mount no images.
    pub ordinary_user: bool,
}

impl Default for Support {
    fn default() -> Self {
        Support {
            images: true,
            container_networks: true,
            ..Support::NOTHING
        }
    }
}

impl Support {
    /// Plain members on the host's root and network.
    pub const NOTHING: Support = Support {
        images: false,
        container_networks: false,
        secrets: false,
        artifacts: false,
        persistent_volumes: false,
        constraints: false,
        gpus: false,
        ordinary_user: false,
    };

    pub const EVERYTHING: Support = Support {
        images: true,
        container_networks: true,
        secrets: true,
        artifacts: true,
        persistent_volumes: true,
        constraints: true,
        gpus: true,
        ordinary_user: false,
    };

    pub(super) fn check(&self, pod: &Pod, out: &mut Violations) {
        let root = Place::root();
        let remote = pod
            .networks
            .iter()
            .any(|network| network.mode != NetworkMode::Host);
        if remote && self.container_networks && self.ordinary_user {
            let rule = "container networks need root; without it pods run on the host's network";
            out.rule(&root.field("networks"), rule);
        }
        for (index, container) in pod.containers.iter().enumerate() {
            if container.image.is_some() && self.images && self.ordinary_user {
                let rule = "images need root; without it members run on the host's file system";
                out.rule(&root.field("containers").item(index).field("image"), rule);
            }
        }
        let mut refuse = |supported: bool, asked: bool, place: Place, what: &str| {
            if asked && !supported {
                out.rule(&place, format!("{what} not supported by this version of podling"));
            }
        };
        refuse(
            self.secrets,
            !pod.secrets.is_empty(),
            root.field("secrets"),
            "secrets are",
        );
        refuse(
            self.container_networks,
            remote,
            root.field("networks"),
            "container networks are",
        );
        let constrained = !pod.scheduling.placement.constraints.is_empty();
        let place = root.field("scheduling").field("placement").field("constraints");
        refuse(self.constraints, constrained, place, "placement constraints are");
        for (index, volume) in pod.volumes.iter().enumerate() {
            let persistent = matches!(volume.kind, VolumeKind::Persistent { .. });
            let place = root.field("volumes").item(index).field("persistent");
            refuse(
                self.persistent_volumes,
                persistent,
                place,
                "persistent volumes are",
            );
        }
        for (index, container) in pod.containers.iter().enumerate() {
            let place = root.field("containers").item(index);
            refuse(
                self.images,
                container.image.is_some(),
                place.field("image"),
                "images are",
            );
            refuse(
                self.artifacts,
                !container.artifacts.is_empty(),
                place.field("artifacts"),
                "artifacts are",
            );
            let gpus = container.resources.gpus > 0;
            refuse(
                self.gpus,
                gpus,
                place.field("resources").field("gpus"),
                "gpus are",
            );
            let appc = container
                .image
                .as_ref()
                .is_some_and(|image| image.kind == ImageKind::Appc);
            refuse(
                false,
                appc,
                place.field("image").field("kind"),
                "images of kind APPC are",
            );
        }
    }
}
