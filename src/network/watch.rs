//! A look before every step, for tests that fail or kill there.

use std::{fmt, sync::Arc};

use super::NetworkError;

/// What is about to be done for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Namespace,
    /// Open the pod's journal.
    Lease,
    Address,
    Port,
    Bridge,
    /// Make the pair of interfaces.
    Link,
    /// Addresses and routes in the pod.
    Inside,
    Publish,
    /// Run the plug-ins of a CNI network.
    Attach,
    // And back:
    Detach,
    /// Take addresses and ports out of the table of rules.
    Withdraw,
    /// See the node's end of the pair go.
    Unlink,
    /// Give back names, addresses and ports.
    Release,
}

impl Step {
    /// In the order in which a launch takes them.
    pub const UP: [Step; 9] = [
        Step::Namespace,
        Step::Lease,
        Step::Address,
        Step::Port,
        Step::Bridge,
        Step::Link,
        Step::Inside,
        Step::Publish,
        Step::Attach,
    ];
    /// In the order in which an end takes them.
    pub const DOWN: [Step; 4] = [Step::Detach, Step::Withdraw, Step::Unlink, Step::Release];
}

type Look = dyn Fn(Step) -> bool + Send + Sync;

/// Nobody looks, unless a test does.
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<Look>>);

impl Watch {
    /// The step fails where `look` says no.
    pub fn new(look: impl Fn(Step) -> bool + Send + Sync + 'static) -> Watch {
        Watch(Some(Arc::new(look)))
    }

    pub(super) fn before(&self, step: Step) -> Result<(), NetworkError> {
        match &self.0 {
            Some(look) if !look(step) => Err(NetworkError::Injected { step }),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Watch(on)"
        } else {
            "Watch(off)"
        })
    }
}
