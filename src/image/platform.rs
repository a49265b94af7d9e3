//! Which of an index's images runs here.

use std::{fmt, str::FromStr};

use oci_spec::image::{Arch, Os};

/// Operating system, architecture and variant in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform {0:?} is not of the form os/architecture[/variant]")]
pub struct PlatformError(String);

impl Platform {
    /// The machine this program was built for.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an offered platform fits: `None` if it cannot run here, else the higher the better.
    ///
    /// A machine runs older variants of its architecture (arm v7 runs v6) and 32-bit x86 on amd64.
    pub fn fitness(&self, os: &Os, architecture: &Arch, variant: Option<&str>) -> Option<u32> {
        if os.to_string() != self.os {
            return None;
        }
        let architecture = architecture.to_string();
        if architecture == "386" && self.architecture == "amd64" {
            return Some(1);
        }
        if architecture != self.architecture {
            return None;
        }
        let level = |variant: &str| {
            variant
                .strip_prefix('v')
                .and_then(|number| number.parse::<u32>().ok())
        };
        match (
            self.variant.as_deref(),
            variant.filter(|offered| !offered.is_empty()),
        ) {
            (Some(mine), Some(offered)) if mine == offered => Some(1000),
            (_, None) => Some(500),
            (Some(mine), Some(offered)) => match (level(mine), level(offered)) {
                (Some(mine), Some(offered)) if offered < mine => Some(offered.min(400) + 10),
                _ => None,
            },
            // amd64 without a stated variant: v1 is everyone's, higher ones might not run.
            (None, Some("v1")) => Some(400),
            (None, Some(_)) => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let well_formed = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match parts.as_slice() {
            [os, architecture] if [os, architecture].into_iter().all(well_formed) => Ok(Platform {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: None,
            }),
            [os, architecture, variant] if parts.iter().all(well_formed) => Ok(Platform {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: Some((*variant).to_owned()),
            }),
            _ => Err(PlatformError(text.chars().take(100).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_fitting_platform_wins() {
        let fits = |mine: &str, os: &str, arch: &str, variant: Option<&str>| {
            mine.parse::<Platform>()
                .unwrap()
                .fitness(&os.into(), &arch.into(), variant)
        };
        assert!(fits("linux/amd64", "linux", "amd64", None) > fits("linux/amd64", "linux", "386", None));
        assert_eq!(fits("linux/amd64", "linux", "amd64", Some("v3")), None);
        assert_eq!(fits("linux/amd64", "windows", "amd64", None), None);
        assert_eq!(fits("linux/amd64", "linux", "arm64", Some("v8")), None);
        assert_eq!(fits("linux/amd64", "unknown", "unknown", None), None);
        let arm = |variant| fits("linux/arm/v7", "linux", "arm", variant);
        assert!(arm(Some("v7")) > arm(None));
        assert!(arm(None) > arm(Some("v6")));
        assert!(arm(Some("v6")) > arm(Some("v5")));
        assert_eq!(arm(Some("v8")), None);
    }
}
