//! The launch plan: everything about a member, decided before anything is done.

/// One member, completely described.
#[derive(Debug, Clone)]
pub struct Plan {}
