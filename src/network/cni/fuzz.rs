//! See `network::fuzz`.
#![allow(clippy::panic)]

use super::{
    list::List,
    result::{Outcome, excerpt, parse, supports},
};

pub fn result(data: &[u8]) {
    let short = excerpt(data);
    assert!(short.chars().count() <= 300 && !short.contains(|c: char| c.is_control()));
    let _ = supports(data, 1, 0);
    match parse(data, "plug-in") {
        Ok(value) => match Outcome::read(&value, "eth0") {
            Ok(outcome) => assert!(outcome.addresses.len() <= 256),
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub fn list(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else {
        return;
    };
    match List::read(value) {
        Ok(list) => drop((list.at_least(1, 0), list.can_publish())),
        Err(what) => assert!(!what.is_empty()),
    }
}
