//! The environment: E-01…E-05. Nothing is inherited from the executor.

use oci_spec::image::ImageConfiguration;

use super::{PlanError, error::no_nul, member::Context};
use crate::mesos::v1;

pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables, each once, and notes about what was overwritten.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub variables: Vec<(String, String)>,
    pub notes: Vec<String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.variables.push((name.into(), value.into())),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.variables.iter().any(|(known, _)| known == name)
    }

    /// A command's own variables: values win over secrets.
    fn take(&mut self, variables: &[v1::environment::Variable]) -> Result<(), PlanError> {
        for secrets in [true, false] {
            for (i, variable) in variables.iter().enumerate() {
                let field = format!("command.environment.variables[{i}]");
                let secret = match variable.r#type() {
                    v1::environment::variable::Type::Value => false,
                    v1::environment::variable::Type::Secret => true,
                    v1::environment::variable::Type::Unknown => {
                        return Err(PlanError::new(field + ".type", "is neither VALUE nor SECRET"));
                    }
                };
                if secret != secrets {
                    continue;
                }
                let value = match secret {
                    true => secret_text(&field, variable.secret.as_ref())?,
                    false => variable
                        .value
                        .as_deref()
                        .ok_or_else(|| PlanError::new(format!("{field}.value"), "is missing"))?,
                };
                if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
                    return Err(PlanError::new(field + ".name", "is empty or contains '=' or NUL"));
                }
                no_nul(&format!("{field}.value"), value)?;
                if self.has(&variable.name) {
                    self.notes
                        .push(format!("overwriting environment variable {}", variable.name));
                }
                self.set(&variable.name, value);
            }
        }
        Ok(())
    }
}

/// What a command that is run in a member has on top of the member's environment (H-15, C-08).
pub(super) fn on_top(command: &v1::CommandInfo) -> Result<Vec<(String, String)>, PlanError> {
    let mut environment = Environment::default();
    if let Some(own) = &command.environment {
        environment.take(&own.variables)?;
    }
    Ok(environment.variables)
}

/// Weakest first (E-02): image, secrets, values, then what Mesos says itself. `sandbox` is the member's view of it.
pub(super) fn plan(
    task: &v1::TaskInfo,
    image: Option<&ImageConfiguration>,
    context: &Context,
    sandbox: &str,
) -> Result<Environment, PlanError> {
    let mut environment = Environment::default();
    for entry in image
        .and_then(|image| image.config().as_ref()?.env().as_ref())
        .into_iter()
        .flatten()
    {
        match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() && !entry.contains('\0') => environment.set(name, value),
            _ => environment.notes.push(format!(
                "image environment entry without a name is left out: {entry:?}"
            )),
        }
    }
    // Only the task may say something else, not the image.
    environment.set("MESOS_SANDBOX", sandbox);

    let variables = task
        .command
        .as_ref()
        .and_then(|command| command.environment.as_ref())
        .map_or(&[][..], |e| &e.variables);
    environment.take(variables)?;
    if let Some(address) = &context.container_ip {
        environment.set("MESOS_CONTAINER_IP", address);
    }
    let role = task
        .resources
        .first()
        .and_then(|resource| resource.allocation_info.as_ref()?.role.as_deref());
    if let Some(role) = role {
        environment.set("MESOS_ALLOCATION_ROLE", role);
    }
    if !environment.has("PATH") {
        environment.set("PATH", DEFAULT_PATH);
    }
    Ok(environment)
}

/// The text of a secret that travels by value (V-13); its bytes never get into an error.
fn secret_text<'a>(field: &str, secret: Option<&'a v1::Secret>) -> Result<&'a str, PlanError> {
    let bytes = secret_bytes(&format!("{field}.secret"), secret)?;
    std::str::from_utf8(bytes)
        .map_err(|_| PlanError::new(format!("{field}.secret.value"), "is not UTF-8 text"))
}

pub(super) fn secret_bytes<'a>(field: &str, secret: Option<&'a v1::Secret>) -> Result<&'a [u8], PlanError> {
    match secret {
        Some(v1::Secret {
            value: Some(value), ..
        }) => Ok(&value.data),
        Some(v1::Secret {
            reference: Some(reference),
            ..
        }) => Err(PlanError::new(
            format!("{field}.reference"),
            format!(
                "secret {:?} cannot be resolved: a custom executor gets references unresolved; send it by value",
                reference.name
            ),
        )),
        _ => Err(PlanError::new(field, "has neither value nor reference")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> v1::environment::Variable {
        v1::environment::Variable {
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        }
    }

    fn secret(name: &str, value: &[u8]) -> v1::environment::Variable {
        v1::environment::Variable {
            name: name.into(),
            r#type: Some(v1::environment::variable::Type::Secret as i32),
            secret: Some(v1::Secret {
                r#type: Some(v1::secret::Type::Value as i32),
                value: Some(v1::secret::Value { data: value.to_vec() }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn task(variables: Vec<v1::environment::Variable>) -> v1::TaskInfo {
        v1::TaskInfo {
            command: Some(v1::CommandInfo {
                environment: Some(v1::Environment { variables }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn image(env: &[&str]) -> ImageConfiguration {
        let json = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": {"Env": env},
        });
        serde_json::from_value(json).unwrap()
    }

    fn get<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
        environment
            .variables
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    #[test]
    fn e_01_role_ip_path_and_sandbox_are_given() {
        let mut task = task(vec![]);
        task.resources.push(v1::Resource {
            allocation_info: Some(v1::resource::AllocationInfo {
                role: Some("prod".into()),
            }),
            ..Default::default()
        });
        let context = Context {
            container_ip: Some("10.1.2.3".into()),
            ..Context::default()
        };
        let environment = plan(&task, None, &context, "/sand").unwrap();
        assert_eq!(get(&environment, "MESOS_ALLOCATION_ROLE"), Some("prod"));
        assert_eq!(get(&environment, "MESOS_CONTAINER_IP"), Some("10.1.2.3"));
        assert_eq!(get(&environment, "MESOS_SANDBOX"), Some("/sand"));
        assert_eq!(get(&environment, "PATH"), Some(DEFAULT_PATH));
        assert_eq!(environment.variables.len(), 4);
    }

    #[test]
    fn e_02_precedence_and_overwriting_notes() {
        let image = image(&["A=image", "B=image", "MESOS_SANDBOX=/evil", "PATH=/only"]);
        let task = task(vec![
            variable("B", "value"),
            variable("S", "value wins"),
            secret("S", b"secret loses"),
            variable("B", "last"),
            variable("MESOS_CONTAINER_IP", "task"),
        ]);
        let context = Context {
            container_ip: Some("mesos wins".into()),
            ..Context::default()
        };
        let environment = plan(&task, Some(&image), &context, "/mnt/mesos/sandbox").unwrap();
        assert_eq!(get(&environment, "A"), Some("image"));
        assert_eq!(get(&environment, "B"), Some("last"));
        assert_eq!(get(&environment, "S"), Some("value wins"));
        assert_eq!(get(&environment, "MESOS_SANDBOX"), Some("/mnt/mesos/sandbox"));
        assert_eq!(get(&environment, "MESOS_CONTAINER_IP"), Some("mesos wins"));
        assert_eq!(get(&environment, "PATH"), Some("/only"));
        assert_eq!(
            environment.notes,
            [
                "overwriting environment variable B",
                "overwriting environment variable S",
                "overwriting environment variable B"
            ]
        );
    }

    #[test]
    fn e_05_image_entry_without_equals_is_skipped_with_a_note() {
        let environment = plan(
            &task(vec![]),
            Some(&image(&["NOTHING", "=x", "A="])),
            &Context::default(),
            "/s",
        )
        .unwrap();
        assert_eq!(get(&environment, "A"), Some(""));
        assert_eq!(environment.notes.len(), 2);
    }

    #[test]
    fn d_02_v_13_secrets_by_value_only_and_without_nul() {
        let mut by_reference = secret("S", b"");
        by_reference.secret = Some(v1::Secret {
            reference: Some(v1::secret::Reference {
                name: "db".into(),
                key: None,
            }),
            ..Default::default()
        });
        let refused = |variable| {
            plan(&task(vec![variable]), None, &Context::default(), "/s")
                .unwrap_err()
                .to_string()
        };
        let error = refused(by_reference);
        assert!(
            error.starts_with("command.environment.variables[0].secret.reference: secret \"db\""),
            "{error}"
        );
        let error = refused(secret("S", b"hush\0hush"));
        assert!(error.contains("NUL") && !error.contains("hush"), "{error}");
    }
}
