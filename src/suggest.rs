//! The word that somebody probably meant: the nearest of those that are known, if it is near enough.

/// What is longer is no misspelt word, and would cost time to compare.
const LONGEST: usize = 64;

/// The known word that `typed` is a likely slip of: letters swapped, missing, doubled or in the wrong case, or only the
/// beginning of it. The first of several that are equally near.
pub fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let length = typed.chars().count();
    if length > LONGEST {
        return None;
    }
    let typed = typed.to_lowercase();
    let known: Vec<&str> = known
        .into_iter()
        .filter(|word| word.chars().count() <= LONGEST)
        .collect();
    let distance = |word: &'k str| (strsim::osa_distance(&typed, &word.to_lowercase()), word);
    let (distance, word) = known
        .iter()
        .copied()
        .map(distance)
        .min_by_key(|(distance, _)| *distance)?;
    // One slip in three letters; a word of which less is right was another word.
    let slips = (length / 3).max(1);
    if distance <= slips && distance < length {
        return Some(word);
    }
    // Or only its beginning: `env`, `force`.
    let begins = |word: &&str| length >= 3 && word.to_lowercase().starts_with(&typed);
    known.into_iter().find(begins)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_understood_and_other_words_are_not() {
        let known = ["containers", "labels", "user", "env", "environment", "hostPort"];
        for (typed, meant) in [
            ("container", Some("containers")),
            ("contaienrs", Some("containers")),
            ("Labels", Some("labels")),
            ("hostport", Some("hostPort")),
            ("usr", Some("user")),
            ("enviroment", Some("environment")),
            ("envir", Some("environment")),
            ("restart", None),
            ("x", None),
            ("", None),
            (&"containers".repeat(1000), None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
        assert_eq!(nearest("a", []), None);
    }
}
