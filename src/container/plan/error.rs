//! Refusals.

/// Why a task cannot be planned: its definition is at fault. Names the field as the definition spells it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PlanError {
    pub field: String,
    pub problem: String,
}

impl PlanError {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Text that goes to the kernel ends at the first NUL, so none may be inside.
pub(super) fn no_nul(field: &str, text: &str) -> Result<(), PlanError> {
    match text.contains('\0') {
        true => Err(PlanError::new(field, "contains a NUL character")),
        false => Ok(()),
    }
}
