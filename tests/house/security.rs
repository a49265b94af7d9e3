//! `SECURITY.md` against the tests that it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = "SECURITY.md";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The rooms of tests, with the names of what is a test in each: `lib` for those beside the code.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let mut rooms = BTreeMap::new();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let folder = entry.unwrap().path();
        let room = folder.file_name().unwrap().to_string_lossy().into_owned();
        rooms.insert(room, below(&folder));
    }
    rooms.insert("lib".to_owned(), below(&root().join("src")));
    rooms
}

fn below(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                names.extend(named(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    names
}

/// Functions under `#[test]` and the like, and the rows of tables of which a macro makes tests.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut is_test, mut is_table) = (false, false);
    for line in text.lines() {
        let bare = line.trim_start();
        if bare.starts_with("#[") {
            is_test |= bare.starts_with("#[test]") || bare.starts_with("#[tokio::test");
            continue;
        }
        if let Some((_, rest)) = bare.split_once("fn ")
            && is_test
        {
            names.insert(word(rest));
        }
        is_test &= bare.is_empty() || bare.starts_with("//");
        match line {
            "}" => is_table = false,
            line if line.ends_with("! {") && !line.starts_with("macro_rules!") => is_table = true,
            _ => {}
        }
        let name = word(bare);
        if is_table && !name.is_empty() && bare[name.len()..].starts_with(": ") {
            names.insert(name);
        }
    }
    names
}

fn word(text: &str) -> String {
    let part = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_';
    text.chars().take_while(part).collect()
}

#[test]
fn every_class_has_its_tests_and_they_exist() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let (_, table) = page.split_once("<!-- classes -->\n").unwrap();
    let (table, _) = table.split_once("<!-- end of classes -->").unwrap();
    let tests = tests();
    let mut wrong = Vec::new();
    let mut classes = 0;
    for line in table.lines().skip(2) {
        classes += 1;
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, class, how, shown, _] = cells[..] else {
            panic!("no row of three: {line}")
        };
        assert!(!class.is_empty() && !how.is_empty(), "{line}");
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("{class}: no test"));
        }
        for name in named {
            let exists = name
                .split_once(' ')
                .is_some_and(|(room, name)| tests.get(room).is_some_and(|tests| tests.contains(name)));
            if !exists {
                wrong.push(format!("{class}: there is no test `{name}`"));
            }
        }
    }
    assert!(classes > 40, "{classes} classes");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_counts_as_a_test() {
    let text = "#[test]\nfn one() {}\nfn two() {}\n#[tokio::test(flavor = \"current_thread\")]\n#[ignore]\n// why\n\
                async fn three() {}\nhostile! {\n    four: Tree(&[]), |_| x;\n}\nfive: Tree\n";
    let names: Vec<String> = named(text).into_iter().collect();
    assert_eq!(names, ["four", "one", "three"]);
}
