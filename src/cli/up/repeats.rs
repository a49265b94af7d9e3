//! The same end again and again, told once.

use std::collections::BTreeMap;

/// Of so many members the last end is remembered.
const REMEMBERED: usize = 1000;

/// How members ended, by the label under which people know them.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: BTreeMap<String, (String, u64)>,
}

impl Repeats {
    /// How often in a row this one has ended so, this time included.
    pub fn count(&mut self, label: &str, how: &str) -> u64 {
        if self.last.len() >= REMEMBERED && !self.last.contains_key(label) {
            self.last.clear();
        }
        let (last, count) = self.last.entry(label.to_owned()).or_default();
        if last == how {
            *count += 1;
        } else {
            how.clone_into(last);
            *count = 1;
        }
        *count
    }

    /// Whether what leads up to the next end of `label`, or of a member of the instance `label`, has been told twice.
    pub fn is_known(&self, label: &str) -> bool {
        let from = self.last.range(label.to_owned()..);
        let theirs = from.take_while(|(known, _)| known.starts_with(label));
        theirs
            .filter(|(known, _)| {
                known
                    .strip_prefix(label)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
            .any(|(_, (_, count))| *count >= 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_counted_and_another_begins_anew() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.count("/a c", "FAILED: 3"), 1);
        assert!(!repeats.is_known("/a"));
        assert_eq!(repeats.count("/a c", "FAILED: 3"), 2);
        assert!(repeats.is_known("/a") && repeats.is_known("/a c"));
        assert!(!repeats.is_known("/a[2]") && !repeats.is_known("/") && !repeats.is_known("/b"));
        assert_eq!(repeats.count("/a c", "FAILED: 4"), 1);
        assert!(!repeats.is_known("/a"));
    }
}
