//! `docs/behaviour.md` against the names of the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = "docs/behaviour.md";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `H-15` → what its row says of it beside Mesos.
fn rows(page: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, id, _, beside, _] = cells[..]
            && is_id(id)
        {
            let before = rows.insert(id.to_owned(), beside.to_owned());
            assert_eq!(before, None, "{id} has two rows");
        }
    }
    rows
}

fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [letter, b'-', tens, ones]
        if letter.is_ascii_uppercase() && tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// The ids in the names of functions: `fn h_15_l_03_something` → H-15, L-03.
fn carried() -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                names(&path, &mut ids);
            }
        }
    }
    ids
}

fn names(file: &Path, ids: &mut BTreeSet<String>) {
    let text = fs::read_to_string(file).unwrap();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once("fn ") else {
            continue;
        };
        let name: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let words: Vec<&str> = name.split('_').collect();
        for pair in words.windows(2) {
            let id = format!("{}-{}", pair[0].to_uppercase(), pair[1]);
            if is_id(&id) {
                ids.insert(id);
            }
        }
    }
}

#[test]
fn every_id_that_a_test_carries_has_a_row_and_the_others_are_listed() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 150, "{} rows", rows.len());
    let carried = carried();
    let unknown: Vec<&String> = carried.iter().filter(|id| !rows.contains_key(*id)).collect();
    assert!(unknown.is_empty(), "without a row in {PAGE}: {unknown:?}");
    for (id, beside) in &rows {
        let known = ["match", "better", "differs", "later", "*note*"].contains(&beside.as_str());
        assert!(known, "{id}: {beside}");
    }
    let without: Vec<&str> = rows
        .iter()
        .filter(|(id, beside)| !carried.contains(*id) && !["later", "*note*"].contains(&beside.as_str()))
        .map(|(id, _)| id.as_str())
        .collect();
    let line = format!("\n{}.\n", without.join(", "));
    assert!(page.contains(&line), "{PAGE} should list{line}");
}
