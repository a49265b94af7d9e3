//! What to exec: the table I-01…I-10 of command, arguments and image.

use oci_spec::image::ImageConfiguration;

use super::{Command, PlanError, error::no_nul};
use crate::mesos::v1;

/// The shell of shell-form commands (I-01).
const SHELL: &str = "/bin/sh";

pub(super) fn plan(
    command: Option<&v1::CommandInfo>,
    image: Option<&ImageConfiguration>,
) -> Result<Command, PlanError> {
    let config = image.and_then(|image| image.config().as_ref());
    let list =
        |list: Option<&Option<Vec<String>>>| list.and_then(Option::as_deref).unwrap_or_default().to_vec();
    let entrypoint = list(config.map(|config| config.entrypoint()));
    let cmd = list(config.map(|config| config.cmd()));

    let arguments = command.map_or(&[][..], |command| &command.arguments);
    let value = command.and_then(|command| command.value.as_deref());
    // I-09: no command at all and an image means "as it was built"; else Mesos' default holds.
    let shell = command.map_or(image.is_none(), v1::CommandInfo::shell);

    let planned = match (shell, value) {
        (true, Some(value)) => Command {
            program: SHELL.into(),
            arguments: vec![SHELL.into(), "-c".into(), value.into()],
        },
        (true, None) => {
            let problem = match image {
                Some(_) => "is missing; to run the image as it was built, set command.shell to false",
                None => "is missing: nothing says what to run",
            };
            return Err(PlanError::new("command.value", problem));
        }
        // I-04: argc 0 crashes programs, so argv[0] is the program then.
        (false, Some(value)) if arguments.is_empty() => Command {
            program: value.into(),
            arguments: vec![value.into()],
        },
        (false, Some(value)) => Command {
            program: value.into(),
            arguments: arguments.to_vec(),
        },
        (false, None) => {
            let mut line = match (entrypoint.is_empty(), arguments.is_empty()) {
                (false, true) => [entrypoint, cmd].concat(),
                (false, false) => [entrypoint, arguments.to_vec()].concat(),
                (true, true) => cmd,
                (true, false) => cmd.into_iter().take(1).chain(arguments.iter().cloned()).collect(),
            };
            // Without entry point and command of an image, arguments alone name no program.
            let bare = config.is_none_or(|config| {
                config.entrypoint().as_ref().is_none_or(Vec::is_empty)
                    && config.cmd().as_ref().is_none_or(Vec::is_empty)
            });
            if bare {
                line.clear();
            }
            match line.first() {
                Some(program) => Command {
                    program: program.clone(),
                    arguments: line,
                },
                None => {
                    return Err(PlanError::new(
                        "command.value",
                        "is missing, and the image names no executable (neither Entrypoint nor Cmd)",
                    ));
                }
            }
        }
    };
    if planned.program.is_empty() {
        return Err(PlanError::new("command.value", "is empty"));
    }
    no_nul("command.value", &planned.program)?;
    for (i, argument) in planned.arguments.iter().enumerate() {
        no_nul(&format!("command.arguments[{i}]"), argument)?;
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfiguration {
        let json = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Entrypoint": entrypoint, "Cmd": cmd},
        });
        serde_json::from_value(json).unwrap()
    }

    fn command(shell: Option<bool>, value: Option<&str>, arguments: &[&str]) -> v1::CommandInfo {
        v1::CommandInfo {
            shell,
            value: value.map(Into::into),
            arguments: arguments.iter().map(|&argument| argument.into()).collect(),
            ..Default::default()
        }
    }

    fn argv(
        command: v1::CommandInfo,
        image: Option<&ImageConfiguration>,
    ) -> Result<(String, Vec<String>), String> {
        plan(Some(&command), image)
            .map(|c| (c.program, c.arguments))
            .map_err(|e| e.to_string())
    }

    fn ok(program: &str, arguments: &[&str]) -> Result<(String, Vec<String>), String> {
        Ok((program.into(), arguments.iter().map(|&a| a.into()).collect()))
    }

    #[test]
    fn i_01_shell_form_ignores_image_and_arguments() {
        let image = image(&["/entry"], &["cmd"]);
        for given in [None, Some(true)] {
            assert_eq!(
                argv(command(given, Some("echo hi"), &["x"]), Some(&image)),
                ok("/bin/sh", &["/bin/sh", "-c", "echo hi"])
            );
        }
    }

    #[test]
    fn i_02_shell_without_value_is_an_error() {
        let error = argv(command(Some(true), None, &[]), None).unwrap_err();
        assert_eq!(error, "command.value: is missing: nothing says what to run");
        let error = argv(command(None, None, &[]), Some(&image(&["/entry"], &[]))).unwrap_err();
        assert!(error.contains("set command.shell to false"), "{error}");
    }

    #[test]
    fn i_03_arguments_are_argv_exactly() {
        assert_eq!(
            argv(command(Some(false), Some("/bin/x"), &["zero", "one"]), None),
            ok("/bin/x", &["zero", "one"])
        );
    }

    #[test]
    fn i_04_no_arguments_still_gives_argv_zero() {
        assert_eq!(
            argv(
                command(Some(false), Some("x"), &[]),
                Some(&image(&["/e"], &["c"]))
            ),
            ok("x", &["x"])
        );
    }

    #[test]
    fn i_05_i_06_entrypoint_with_arguments_or_cmd() {
        let image = image(&["/e", "-f"], &["c"]);
        assert_eq!(
            argv(command(Some(false), None, &["a"]), Some(&image)),
            ok("/e", &["/e", "-f", "a"])
        );
        assert_eq!(
            argv(command(Some(false), None, &[]), Some(&image)),
            ok("/e", &["/e", "-f", "c"])
        );
    }

    #[test]
    fn i_07_cmd_alone() {
        let image = image(&[], &["c", "d"]);
        assert_eq!(
            argv(command(Some(false), None, &[]), Some(&image)),
            ok("c", &["c", "d"])
        );
        assert_eq!(
            argv(command(Some(false), None, &["a"]), Some(&image)),
            ok("c", &["c", "a"])
        );
    }

    #[test]
    fn i_08_nothing_to_run() {
        for image in [None, Some(image(&[], &[]))] {
            for arguments in [&[][..], &["a"]] {
                let error = argv(command(Some(false), None, arguments), image.as_ref()).unwrap_err();
                assert!(error.contains("names no executable"), "{error}");
            }
        }
    }

    #[test]
    fn i_09_absent_command_runs_the_image_as_built() {
        let built = plan(None, Some(&image(&["/e"], &["c"]))).unwrap();
        assert_eq!(built.arguments, ["/e", "c"]);
        assert!(plan(None, None).is_err());
    }

    #[test]
    fn nul_is_refused() {
        let error = argv(command(Some(false), Some("x"), &["a", "b\0c"]), None).unwrap_err();
        assert_eq!(error, "command.arguments[1]: contains a NUL character");
    }
}
