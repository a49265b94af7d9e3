//! Namespaces, limits of the process, terminal: Z-01, Z-02, Z-07, Z-08.

use super::{IpcNamespace, Namespaces, Network, PidNamespace, PlanError, Rlimit, Terminal, member::Context};
use crate::mesos::v1;

pub(super) fn namespaces(linux: Option<&v1::LinuxInfo>, context: &Context) -> Result<Namespaces, PlanError> {
    const AT: &str = "container.linux_info";
    let ipc_mode = linux.map_or(v1::linux_info::IpcMode::Unknown, v1::LinuxInfo::ipc_mode);
    let shm_size = linux.and_then(|linux| linux.shm_size);
    let ipc = match (ipc_mode, shm_size) {
        (v1::linux_info::IpcMode::Private, size) => IpcNamespace::Private {
            shm_size: size.map(|megabytes| u64::from(megabytes) << 20),
        },
        (_, Some(_)) => {
            return Err(PlanError::new(format!("{AT}.shm_size"), "needs ipc_mode PRIVATE"));
        }
        (v1::linux_info::IpcMode::ShareParent, None) => IpcNamespace::Parent,
        // Who has the host's root has all of the host's, as in Mesos; an image knows nothing of it.
        (v1::linux_info::IpcMode::Unknown, None) if context.rootfs.is_host() => IpcNamespace::Parent,
        (v1::linux_info::IpcMode::Unknown, None) => IpcNamespace::Shared(context.group.clone()),
    };
    let pid = match linux.is_some_and(v1::LinuxInfo::share_pid_namespace) {
        true => PidNamespace::Shared(context.group.clone()),
        false => PidNamespace::Own,
    };
    let network = context.network.clone().map_or(Network::Host, Network::Join);
    Ok(Namespaces {
        pid,
        ipc,
        network,
        users: context.users.clone(),
    })
}

pub(super) fn rlimits(info: Option<&v1::RLimitInfo>) -> Result<Vec<Rlimit>, PlanError> {
    use v1::r_limit_info::r_limit::Type;
    let mut planned: Vec<Rlimit> = Vec::new();
    for (i, limit) in info.map_or(&[][..], |info| &info.rlimits).iter().enumerate() {
        let field = format!("container.rlimit_info.rlimits[{i}]");
        let resource = match limit.r#type() {
            Type::Unknown => return Err(PlanError::new(field + ".type", "is missing or not known")),
            Type::RlmtAs => libc::RLIMIT_AS,
            Type::RlmtCore => libc::RLIMIT_CORE,
            Type::RlmtCpu => libc::RLIMIT_CPU,
            Type::RlmtData => libc::RLIMIT_DATA,
            Type::RlmtFsize => libc::RLIMIT_FSIZE,
            Type::RlmtLocks => libc::RLIMIT_LOCKS,
            Type::RlmtMemlock => libc::RLIMIT_MEMLOCK,
            Type::RlmtMsgqueue => libc::RLIMIT_MSGQUEUE,
            Type::RlmtNice => libc::RLIMIT_NICE,
            Type::RlmtNofile => libc::RLIMIT_NOFILE,
            Type::RlmtNproc => libc::RLIMIT_NPROC,
            Type::RlmtRss => libc::RLIMIT_RSS,
            Type::RlmtRtprio => libc::RLIMIT_RTPRIO,
            Type::RlmtRttime => libc::RLIMIT_RTTIME,
            Type::RlmtSigpending => libc::RLIMIT_SIGPENDING,
            Type::RlmtStack => libc::RLIMIT_STACK,
        } as u32;
        match (limit.soft, limit.hard) {
            (Some(soft), Some(hard)) if soft > hard => {
                return Err(PlanError::new(
                    field,
                    format!("soft limit {soft} is above hard limit {hard}"),
                ));
            }
            (Some(_), None) => return Err(PlanError::new(field, "has a soft limit but no hard one")),
            (None, Some(_)) => return Err(PlanError::new(field, "has a hard limit but no soft one")),
            (soft, hard) => {
                if planned.iter().any(|known| known.resource == resource) {
                    return Err(PlanError::new(
                        field,
                        format!("{} is given twice", limit.r#type().as_str_name()),
                    ));
                }
                planned.push(Rlimit { resource, soft, hard });
            }
        }
    }
    Ok(planned)
}

pub(super) fn terminal(info: Option<&v1::TtyInfo>) -> Result<Option<Terminal>, PlanError> {
    let Some(info) = info else { return Ok(None) };
    let size = match &info.window_size {
        None => None,
        Some(size) => match (u16::try_from(size.rows), u16::try_from(size.columns)) {
            (Ok(rows), Ok(columns)) => Some((rows, columns)),
            _ => {
                return Err(PlanError::new(
                    "container.tty_info.window_size",
                    "has more than 65535 rows or columns",
                ));
            }
        },
    };
    Ok(Some(Terminal { size }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::plan::Rootfs;
    use v1::{linux_info::IpcMode, r_limit_info::r_limit::Type};

    fn limit(kind: Type, soft: Option<u64>, hard: Option<u64>) -> v1::r_limit_info::RLimit {
        v1::r_limit_info::RLimit {
            r#type: Some(kind as i32),
            soft,
            hard,
        }
    }

    #[test]
    fn z_07_both_or_neither_and_soft_within_hard() {
        let plan = |given| rlimits(Some(&v1::RLimitInfo { rlimits: given })).map_err(|e| e.to_string());
        let given = plan(vec![
            limit(Type::RlmtNofile, Some(10), Some(20)),
            limit(Type::RlmtCore, None, None),
        ])
        .unwrap();
        assert_eq!(given[0].soft, Some(10));
        assert_eq!((given[1].soft, given[1].hard), (None, None));
        for (soft, hard) in [(Some(1), None), (None, Some(1)), (Some(2), Some(1))] {
            let error = plan(vec![limit(Type::RlmtCpu, soft, hard)]).unwrap_err();
            assert!(error.starts_with("container.rlimit_info.rlimits[0]: "), "{error}");
        }
        assert!(
            plan(vec![
                limit(Type::RlmtCpu, None, None),
                limit(Type::RlmtCpu, None, None)
            ])
            .is_err()
        );
    }

    #[test]
    fn z_02_shm_size_is_for_private_ipc_only() {
        let linux = |mode: Option<IpcMode>, shm_size| v1::LinuxInfo {
            ipc_mode: mode.map(|mode| mode as i32),
            shm_size,
            ..Default::default()
        };
        let plan = |linux| {
            namespaces(Some(&linux), &Context::default())
                .map(|n| n.ipc)
                .map_err(|e| e.to_string())
        };
        assert_eq!(
            plan(linux(Some(IpcMode::Private), Some(2))),
            Ok(IpcNamespace::Private {
                shm_size: Some(2 << 20)
            })
        );
        assert_eq!(
            plan(linux(Some(IpcMode::ShareParent), None)),
            Ok(IpcNamespace::Parent)
        );
        assert_eq!(plan(linux(None, None)), Ok(IpcNamespace::Parent));
        let of_image = Context {
            group: "7".into(),
            rootfs: Rootfs::Directory {
                path: "/image".into(),
                read_only: false,
            },
            ..Context::default()
        };
        let planned = namespaces(None, &of_image).unwrap();
        assert_eq!(planned.ipc, IpcNamespace::Shared("7".into()));
        for mode in [Some(IpcMode::ShareParent), None] {
            assert!(
                plan(linux(mode, Some(2)))
                    .unwrap_err()
                    .contains("needs ipc_mode PRIVATE")
            );
        }
    }

    #[test]
    fn z_08_window_size_fits() {
        let tty = |rows, columns| v1::TtyInfo {
            window_size: Some(v1::tty_info::WindowSize { rows, columns }),
        };
        assert_eq!(
            terminal(Some(&tty(25, 80))).unwrap(),
            Some(Terminal { size: Some((25, 80)) })
        );
        assert!(terminal(Some(&tty(70000, 80))).is_err());
        assert_eq!(terminal(None).unwrap(), None);
    }
}
