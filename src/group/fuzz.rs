//! What must hold for any bytes: the bodies of the fuzz targets in `fuzz/`, which the unit tests run as well.
#![allow(clippy::panic)]

use super::Extras;

/// `ExecutorInfo.data` is somebody else's, read, or refused by the name of a key; never a panic, and a refusal is short.
pub fn extras(data: &[u8]) {
    match Extras::parse(data) {
        Ok(extras) => {
            let written = serde_json::to_vec(&extras).unwrap_or_default();
            let again: Extras = serde_json::from_slice(&written).unwrap_or_default();
            assert_eq!(extras, again);
        }
        Err(error) => assert!(error.to_string().starts_with("executor.data: ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::nearly;

    proptest! {
        #[test]
        fn l_07_extras(bytes in nearly(*br#"{"podling": 1, "onFinish": "kill", "network": {"mode": "bridge", "name": "x"}}"#)) {
            extras(&bytes);
        }
    }
}
