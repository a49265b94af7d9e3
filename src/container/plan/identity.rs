//! Who a member is: user (E-12, I-13, I-14) and capabilities (Z-03, Z-04).

use std::fmt;

use oci_spec::image::ImageConfiguration;

use super::{PlanError, error::no_nul, member::Defaults};
use crate::mesos::v1;

/// Whom to become. Names are looked up when the root file system is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSpec {
    /// The executor's own user and groups.
    Inherit,
    /// `user`, `uid`, `user:group`, `uid:gid` …
    Named {
        text: String,
        /// A name that the image does not know may be one of the host's: the command names users of the cluster,
        /// an image only its own.
        host_too: bool,
    },
}

/// Capabilities by number, bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    pub const EMPTY: Self = Self(0);

    /// What Docker gives to a container: enough to be root of one's own files, not of the machine.
    pub const DOCKER: Self = Self::of(&[
        0,  // CHOWN
        1,  // DAC_OVERRIDE
        3,  // FOWNER
        4,  // FSETID
        5,  // KILL
        6,  // SETGID
        7,  // SETUID
        8,  // SETPCAP
        10, // NET_BIND_SERVICE
        13, // NET_RAW
        18, // SYS_CHROOT
        27, // MKNOD
        29, // AUDIT_WRITE
        31, // SETFCAP
    ]);

    pub const fn of(numbers: &[u8]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < numbers.len() {
            bits |= 1 << (numbers[i] & 63);
            i += 1;
        }
        Self(bits)
    }

    pub const fn contains(self, number: u32) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }

    pub const fn is_subset(self, of: Self) -> bool {
        self.0 & !of.0 == 0
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The members of the set, in order.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |&number| self.contains(number))
    }
}

/// The five sets a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub bounding: CapabilitySet,
    pub effective: CapabilitySet,
    pub permitted: CapabilitySet,
    pub inheritable: CapabilitySet,
    pub ambient: CapabilitySet,
}

impl Capabilities {
    /// What a root user has within a bounding set, and any other user has not: nothing is inheritable, so that no
    /// file of an image can hand it on (CVE-2022-24769).
    pub const fn bounded(bounding: CapabilitySet) -> Self {
        Self {
            bounding,
            effective: bounding,
            permitted: bounding,
            inheritable: CapabilitySet::EMPTY,
            ambient: CapabilitySet::EMPTY,
        }
    }
}

pub(super) fn user(
    command: Option<&v1::CommandInfo>,
    image: Option<&ImageConfiguration>,
    defaults: &Defaults,
) -> Result<UserSpec, PlanError> {
    if let Some(text) = command.and_then(|command| command.user.as_deref()) {
        no_nul("command.user", text)?;
        if text.is_empty() {
            return Err(PlanError::new("command.user", "is empty"));
        }
        return Ok(UserSpec::Named {
            text: text.into(),
            host_too: true,
        });
    }
    let of_image = image
        .and_then(|image| image.config().as_ref()?.user().as_deref())
        .filter(|user| !user.is_empty());
    match of_image {
        Some(text) if defaults.image_user => {
            no_nul("the image's User", text)?;
            Ok(UserSpec::Named {
                text: text.into(),
                host_too: false,
            })
        }
        _ => Ok(UserSpec::Inherit),
    }
}

pub(super) fn capabilities(
    linux: Option<&v1::LinuxInfo>,
    defaults: &Defaults,
) -> Result<Capabilities, PlanError> {
    const AT: &str = "container.linux_info";
    let unasked = defaults.given_capabilities();
    let Some(linux) = linux else {
        return Ok(Capabilities::bounded(unasked));
    };
    #[allow(deprecated)]
    let old = linux.capability_info.as_ref();
    if old.is_some() && (linux.effective_capabilities.is_some() || linux.bounding_capabilities.is_some()) {
        return Err(PlanError::new(
            format!("{AT}.capability_info"),
            "is the deprecated form and excludes effective_capabilities and bounding_capabilities",
        ));
    }
    let effective = match (old, &linux.effective_capabilities) {
        (Some(old), _) => Some(set(old, &format!("{AT}.capability_info"))?),
        (None, Some(new)) => Some(set(new, &format!("{AT}.effective_capabilities"))?),
        (None, None) => None,
    };
    let bounding = match &linux.bounding_capabilities {
        Some(bounding) => Some(set(bounding, &format!("{AT}.bounding_capabilities"))?),
        None => None,
    };
    let planned = match (effective, bounding) {
        (None, None) => Capabilities::bounded(unasked),
        (None, Some(bounding)) => Capabilities {
            bounding,
            ..Capabilities::bounded(bounding.and(unasked))
        },
        (Some(effective), bounding) => {
            let bounding = bounding.unwrap_or(effective);
            if !effective.is_subset(bounding) {
                return Err(PlanError::new(
                    format!("{AT}.effective_capabilities"),
                    not_in_bounding(effective.without(bounding)),
                ));
            }
            Capabilities {
                bounding,
                effective,
                permitted: effective,
                inheritable: effective,
                ambient: effective,
            }
        }
    };
    Ok(planned)
}

fn set(info: &v1::CapabilityInfo, field: &str) -> Result<CapabilitySet, PlanError> {
    let mut bits = 0;
    for (i, &number) in info.capabilities.iter().enumerate() {
        // Z-12: the kernel's number plus 1000.
        match v1::capability_info::Capability::try_from(number) {
            Ok(v1::capability_info::Capability::Unknown) | Err(_) => {
                return Err(PlanError::new(
                    format!("{field}.capabilities[{i}]"),
                    format!("{number} is no capability"),
                ));
            }
            Ok(_) => bits |= 1u64 << ((number - 1000) & 63),
        }
    }
    Ok(CapabilitySet(bits))
}

fn not_in_bounding(more: CapabilitySet) -> String {
    let verb = if more.0.count_ones() == 1 { "is" } else { "are" };
    format!("{more} {verb} not in bounding_capabilities")
}

/// Their names as definitions spell them.
impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, number) in self.numbers().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match v1::capability_info::Capability::try_from(number as i32 + 1000) {
                Ok(capability) => write!(f, "{comma}{}", capability.as_str_name())?,
                Err(_) => write!(f, "{comma}{number}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::capability_info::Capability as C;

    fn info(capabilities: &[C]) -> Option<v1::CapabilityInfo> {
        Some(v1::CapabilityInfo {
            capabilities: capabilities.iter().map(|&c| c as i32).collect(),
        })
    }

    fn plan(linux: v1::LinuxInfo) -> Result<Capabilities, String> {
        capabilities(Some(&linux), &Defaults::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn z_04_default_is_docker_s_and_nothing_is_inheritable() {
        let caps = capabilities(None, &Defaults::default()).unwrap();
        assert_eq!(caps.bounding.0, 0xa80425fb);
        assert_eq!(
            (caps.inheritable, caps.ambient),
            (CapabilitySet::EMPTY, CapabilitySet::EMPTY)
        );
        assert_eq!(plan(v1::LinuxInfo::default()).unwrap(), caps);
    }

    #[test]
    fn z_03_effective_fills_every_set() {
        let caps = plan(v1::LinuxInfo {
            effective_capabilities: info(&[C::NetAdmin, C::Chown]),
            ..Default::default()
        })
        .unwrap();
        let both = CapabilitySet::of(&[0, 12]);
        assert_eq!(
            caps,
            Capabilities {
                bounding: both,
                effective: both,
                permitted: both,
                inheritable: both,
                ambient: both
            }
        );
    }

    #[test]
    fn z_03_effective_must_be_within_bounding() {
        let error = plan(v1::LinuxInfo {
            effective_capabilities: info(&[C::NetAdmin, C::Chown]),
            bounding_capabilities: info(&[C::Chown]),
            ..Default::default()
        })
        .unwrap_err();
        assert_eq!(
            error,
            "container.linux_info.effective_capabilities: NET_ADMIN is not in bounding_capabilities"
        );
    }

    #[test]
    fn z_03_the_deprecated_field_excludes_the_others() {
        #[allow(deprecated)]
        let linux = v1::LinuxInfo {
            capability_info: info(&[C::Chown]),
            bounding_capabilities: info(&[C::Chown]),
            ..Default::default()
        };
        assert!(plan(linux).unwrap_err().contains("deprecated"));
    }

    #[test]
    fn z_12_unknown_numbers_are_refused() {
        let linux = v1::LinuxInfo {
            effective_capabilities: Some(v1::CapabilityInfo {
                capabilities: vec![12],
            }),
            ..Default::default()
        };
        assert!(plan(linux).unwrap_err().contains("12 is no capability"));
    }
}
