//! Operators' profiles: files in Docker's JSON format under one directory, asked for by name (Z-06).
//!
//! The name comes from the task and is hostile: it is one plain file name. The file comes from the operator and is
//! merely wrong at times: it is read within limits, and what we do not understand is an error that names it.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags};
use serde::Deserialize;

use super::{
    SeccompError, caps,
    profile::{Action, ArgTest, Comparison, Condition, Profile, Rule},
    syscalls::Arch,
};
use crate::base::entrusted;

const MAX_BYTES: u64 = 1 << 20;
const MAX_RULES: usize = 1024;
const MAX_NAMES: usize = 8192;
const MAX_ERRNO: u32 = 4095;

#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("{place}: {cause}")]
    Json { place: String, cause: serde_json::Error },
    #[error("{place}: {what}")]
    Rule { place: String, what: String },
}

/// Reads the profile called `name` in `directory`.
pub fn load(directory: &Path, name: &str) -> Result<Profile, SeccompError> {
    if name.is_empty() || name == "." || name == ".." || name.len() > 255 || name.contains(['/', '\0']) {
        return Err(SeccompError::Name { name: name.into() });
    }
    let path = directory.join(name);
    let read_error = |source: io::Error| SeccompError::Read {
        name: name.into(),
        path: path.clone(),
        source,
    };
    let not_a_file = |what| SeccompError::NotAFile {
        name: name.into(),
        path: path.clone(),
        what,
    };
    // A link could lead anywhere and a FIFO would make us wait: neither is followed nor opened for good.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::LOOP => not_a_file("a symbolic link, which is not followed"),
        errno => read_error(errno.into()),
    })?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| read_error(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not_a_file("not a regular file"));
    }
    let file = File::from(file);
    file.metadata()
        .and_then(|found| entrusted::check(&found))
        .map_err(read_error)?;
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(read_error)?;
    parse(&text).map_err(|source| SeccompError::Parse {
        name: name.into(),
        source,
    })
}

/// Reads a profile in Docker's format.
pub fn parse(text: &[u8]) -> Result<Profile, ParseError> {
    if text.len() as u64 > MAX_BYTES {
        return Err(ParseError::TooLarge);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let file: ProfileFile =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| ParseError::Json {
            place: error.path().to_string(),
            cause: error.into_inner(),
        })?;
    deserializer.end().map_err(|cause| ParseError::Json {
        place: "after the profile".into(),
        cause,
    })?;
    file.profile()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ProfileFile {
    default_action: String,
    default_errno_ret: Option<u32>,
    /// Both only widen a profile to further architectures, whose calls our filters refuse in any case.
    #[serde(default, rename = "architectures")]
    _architectures: serde::de::IgnoredAny,
    #[serde(default, rename = "archMap")]
    _arch_map: serde::de::IgnoredAny,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Option<Vec<RuleFile>>,
    #[serde(default, rename = "comment")]
    _comment: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RuleFile {
    #[serde(default)]
    names: Option<Vec<String>>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<ArgFile>>,
    #[serde(default)]
    includes: Option<FilterFile>,
    #[serde(default)]
    excludes: Option<FilterFile>,
    #[serde(default, rename = "comment")]
    _comment: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ArgFile {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FilterFile {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

fn wrong(place: impl Into<String>, what: impl Into<String>) -> ParseError {
    ParseError::Rule {
        place: place.into(),
        what: what.into(),
    }
}

impl ProfileFile {
    fn profile(self) -> Result<Profile, ParseError> {
        let default = action(&self.default_action, self.default_errno_ret)
            .map_err(|what| wrong("defaultAction", what))?;
        let mut log = false;
        for flag in &self.flags {
            match flag.as_str() {
                "SECCOMP_FILTER_FLAG_LOG" => log = true,
                // Filters go in while the member has one thread.
                "SECCOMP_FILTER_FLAG_TSYNC" => {}
                other => return Err(wrong("flags", format!("{other:?} is not supported"))),
            }
        }
        let files = self.syscalls.unwrap_or_default();
        if files.len() > MAX_RULES {
            return Err(wrong("syscalls", format!("more than {MAX_RULES} rules")));
        }
        let mut rules = Vec::new();
        let mut names = 0;
        for (at, file) in files.into_iter().enumerate() {
            let read = file
                .rules()
                .map_err(|(key, what)| wrong(format!("syscalls[{at}]{key}"), what))?;
            names += read.iter().map(|rule| rule.syscalls.len()).sum::<usize>();
            if names > MAX_NAMES {
                return Err(wrong("syscalls", format!("more than {MAX_NAMES} names")));
            }
            rules.extend(read);
        }
        Ok(Profile { default, rules, log })
    }
}

impl RuleFile {
    /// One rule, or one for each test if an argument is tested twice: Docker's runtimes take these as alternatives.
    fn rules(self) -> Result<Vec<Rule>, (String, String)> {
        let at = |key: &str, what: String| (format!(".{key}"), what);
        let names = match (self.names, self.name) {
            (Some(_), Some(_)) => return Err(at("name", "given together with names".into())),
            (Some(names), None) => names,
            (None, Some(name)) => vec![name],
            (None, None) => return Err(at("names", "missing".into())),
        };
        let action = action(&self.action, self.errno_ret).map_err(|what| at("action", what))?;
        let mut args = Vec::new();
        for (index, arg) in self.args.unwrap_or_default().iter().enumerate() {
            args.push(arg.test().map_err(|what| at(&format!("args[{index}]"), what))?);
        }
        if args.len() > 6 * 8 {
            return Err(at("args", "more than 48 tests".into()));
        }
        let when = condition(
            &self.includes.unwrap_or_default(),
            &self.excludes.unwrap_or_default(),
        )?;
        let rule = Rule {
            syscalls: names.into_iter().map(Cow::Owned).collect(),
            action,
            args,
            when,
        };
        let mut seen = 0u8;
        let twice = rule.args.iter().any(|test| {
            let before = seen;
            seen |= 1u8 << test.index;
            before == seen
        });
        match twice {
            false => Ok(vec![rule]),
            true => Ok(rule
                .args
                .iter()
                .map(|test| Rule {
                    args: vec![*test],
                    ..rule.clone()
                })
                .collect()),
        }
    }
}

impl ArgFile {
    fn test(&self) -> Result<ArgTest, String> {
        let index = u8::try_from(self.index).ok().filter(|index| *index < 6);
        let index = index.ok_or_else(|| format!("index {} is above 5", self.index))?;
        let (comparison, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (Comparison::Equal, self.value),
            "SCMP_CMP_NE" => (Comparison::NotEqual, self.value),
            "SCMP_CMP_LT" => (Comparison::Less, self.value),
            "SCMP_CMP_LE" => (Comparison::LessOrEqual, self.value),
            "SCMP_CMP_GT" => (Comparison::Greater, self.value),
            "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, self.value),
            "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual { mask: self.value }, self.value_two),
            other => return Err(format!("unknown comparison {other:?}")),
        };
        Ok(ArgTest {
            index,
            comparison,
            value,
        })
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, String> {
    let data = |default: u16| match errno {
        None => Ok(default),
        Some(value) if value <= MAX_ERRNO => Ok(value as u16),
        Some(value) => Err(format!("errno {value} is above {MAX_ERRNO}")),
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(data(1)?),
        "SCMP_ACT_TRAP" => Action::Trap(data(0)?),
        "SCMP_ACT_TRACE" => Action::Trace(data(0)?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_NOTIFY" => {
            return Err("SCMP_ACT_NOTIFY needs a listening process, which is not supported".into());
        }
        other => return Err(format!("unknown action {other:?}")),
    })
}

fn condition(includes: &FilterFile, excludes: &FilterFile) -> Result<Condition, (String, String)> {
    let caps = |key: &str, filter: &FilterFile| -> Result<u64, (String, String)> {
        let mut bits = 0;
        for name in filter.caps.iter().flatten() {
            bits |= caps::bit(name).ok_or_else(|| {
                (
                    format!(".{key}.caps"),
                    format!("unknown capability {name:?}; they are written like \"CAP_SYS_ADMIN\""),
                )
            })?;
        }
        Ok(bits)
    };
    let arches = |filter: &FilterFile| -> Vec<Arch> {
        let names = filter.arches.iter().flatten();
        names
            .filter_map(|name| {
                [Arch::X86_64, Arch::Aarch64]
                    .into_iter()
                    .find(|arch| arch.docker_name() == name)
            })
            .collect()
    };
    let kernel = |key: &str, filter: &FilterFile| match &filter.min_kernel {
        None => Ok(None),
        Some(text) => match kernel_version(text) {
            Some(version) => Ok(Some(version)),
            None => Err((
                format!(".{key}.minKernel"),
                format!("{text:?} is not a version like \"4.8\""),
            )),
        },
    };
    Ok(Condition {
        caps: caps("includes", includes)?,
        no_caps: caps("excludes", excludes)?,
        arches: match &includes.arches {
            Some(list) if !list.is_empty() => Some(arches(includes)),
            _ => None,
        },
        not_arches: arches(excludes),
        min_kernel: kernel("includes", includes)?,
        below_kernel: kernel("excludes", excludes)?,
    })
}

fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
