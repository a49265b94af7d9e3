//! How values are written.

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use crate::{
    container::{
        plan::{CapabilitySet, Device},
        policy::{Access, Filters, HostVolumes},
        seccomp::caps,
    },
    mesos::duration,
};

pub(super) fn list(text: &str) -> Vec<String> {
    let entries = text.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| "is neither `true` nor `false`".to_owned())
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(duration) if duration.is_zero() => Err("must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err("is not a duration such as `250ms`, `5secs` or `10mins`".to_owned()),
    }
}

pub(super) fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("is not a whole number from {least} to {most}")),
    }
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err("is not an absolute path".to_owned())
    }
}

/// `all`, or names as in `CHOWN,NET_RAW`; nothing is none.
pub(super) fn capabilities(text: &str) -> Result<CapabilitySet, String> {
    if text == "all" {
        return Ok(CapabilitySet(u64::MAX));
    }
    list(text).iter().try_fold(CapabilitySet::EMPTY, |set, name| {
        let upper = name.to_ascii_uppercase();
        let bit = caps::bit(&format!("CAP_{}", upper.strip_prefix("CAP_").unwrap_or(&upper)));
        let bit = bit.ok_or_else(|| format!("has `{name}`, which is no capability"))?;
        Ok(CapabilitySet(set.0 | bit))
    })
}

pub fn show_capabilities(set: CapabilitySet) -> String {
    if set == CapabilitySet(u64::MAX) {
        return "all".to_owned();
    }
    let names: Vec<_> = set
        .numbers()
        .filter_map(caps::name)
        .map(|name| name.trim_start_matches("CAP_"))
        .collect();
    names.join(",")
}

/// `policy`: not decided here.
pub(super) fn or_policy<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match text {
        "policy" => Ok(None),
        text => read(text)
            .map(Some)
            .map_err(|problem| problem + ", and not `policy`"),
    }
}

pub(super) fn show_or_policy<T>(value: Option<&T>, show: impl FnOnce(&T) -> String) -> String {
    value.map_or("policy".to_owned(), show)
}

pub(super) fn filters(text: &str) -> Result<Filters, String> {
    match text {
        "any" => Ok(Filters::Any),
        "profiles" => Ok(Filters::Profiles),
        "default" => Ok(Filters::Default),
        _ => Err("is none of `any`, `profiles` and `default`".to_owned()),
    }
}

pub fn show_filters(filters: Filters) -> String {
    match filters {
        Filters::Any => "any",
        Filters::Profiles => "profiles",
        Filters::Default => "default",
    }
    .to_owned()
}

/// `none`, or places as in `/srv,/data:ro,/data/keys:none`.
pub(super) fn host_volumes(text: &str) -> Result<HostVolumes, String> {
    if text == "none" {
        return Ok(HostVolumes::default());
    }
    let rule = |entry: String| -> Result<(PathBuf, Access), String> {
        let (path, access) = match entry.rsplit_once(':') {
            Some((path, "ro")) => (path, Access::Read),
            Some((path, "rw")) => (path, Access::Write),
            Some((path, "none")) => (path, Access::None),
            _ => (entry.as_str(), Access::Write),
        };
        let path = absolute(path).map_err(|problem| format!("has `{entry}`, which {problem}"))?;
        match path.components().any(|part| part == Component::ParentDir) {
            true => Err(format!("has `{entry}`, which has `..` in it")),
            false => Ok((path, access)),
        }
    };
    Ok(HostVolumes::new(
        list(text).into_iter().map(rule).collect::<Result<Vec<_>, _>>()?,
    ))
}

pub fn show_host_volumes(volumes: &HostVolumes) -> String {
    if volumes.rules().is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<_> = volumes
        .rules()
        .iter()
        .map(|(path, access)| match access {
            Access::None => format!("{}:none", path.display()),
            Access::Read => format!("{}:ro", path.display()),
            Access::Write => path.display().to_string(),
        })
        .collect();
    shown.join(",")
}

/// Character devices as in `fuse=10:229,kvm=10:232`.
pub(super) fn devices(text: &str) -> Result<Vec<Device>, String> {
    let device = |entry: &String| -> Option<Device> {
        let (name, numbers) = entry.split_once('=')?;
        let (major, minor) = numbers.split_once(':')?;
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !name.split('/').all(plain) || name.contains('\0') {
            return None;
        }
        Some(Device {
            name: name.to_owned(),
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            mode: 0o666,
        })
    };
    let parse = |entry: &String| {
        device(entry).ok_or_else(|| format!("has `{entry}`, which is not `name=major:minor` below /dev"))
    };
    list(text).iter().map(parse).collect()
}

pub(super) fn show_devices(devices: &[Device]) -> String {
    let shown: Vec<_> = devices
        .iter()
        .map(|device| format!("{}={}:{}", device.name, device.major, device.minor))
        .collect();
    shown.join(",")
}
