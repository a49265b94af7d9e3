//! The sources, as far as the plan of the house is concerned with them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of `src/`, without what the plan has nothing to say about: comments, texts, and code for tests only.
pub struct Source {
    /// Below `src/`.
    pub path: PathBuf,
    pub code: String,
}

impl Source {
    /// Every file that becomes part of the library.
    pub fn all() -> Vec<Source> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let below = path.strip_prefix(&root).unwrap().to_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") && !is_for_tests(&below) {
                    let code = without_tests(&blank(&fs::read_to_string(&path).unwrap()));
                    sources.push(Source { path: below, code });
                }
            }
        }
        assert!(sources.len() > 100, "this is not the house");
        sources
    }

    /// The room on the ground plan: the folder or file right below `src/`.
    pub fn room(&self) -> String {
        let first = self.path.iter().next().unwrap().to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }

    /// The rooms it names, with the line of each.
    pub fn arrows(&self) -> Vec<(usize, String)> {
        let mut arrows = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + "crate::".len()..];
            arrows.extend(heads(rest).into_iter().map(|head| (line, head)));
        }
        arrows
    }

    /// The first line that has a word, whole.
    pub fn line_with(&self, word: &str) -> Option<usize> {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        self.code
            .match_indices(word)
            .find(|(at, _)| {
                let before = self.code[..*at].chars().next_back();
                let after = self.code[at + word.len()..].chars().next();
                !before.is_some_and(part) && !after.is_some_and(part)
            })
            .map(|(at, _)| self.code[..at].matches('\n').count() + 1)
    }
}

fn is_for_tests(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    path.iter().any(|part| part == "tests") || name == "tests" || name.ends_with("_tests") || name == "fuzz"
}

/// The first names of a path that may be a group: `a::b` and `{a::{b, c}, d}`.
fn heads(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut heads = vec![name(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    // Behind the last comma there may be nothing.
    heads.retain(|head| !head.is_empty());
    heads
}

/// Comments and the insides of texts become blanks, line for line.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => text_length(rest),
            'r' if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_length(rest),
            '\'' => character_length(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let (taken, left) = rest.split_at(length);
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = left;
        }
    }
    code
}

fn text_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`; zero if it is none.
fn raw_length(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = 2 + hashes;
    text[begin..]
        .find(&end)
        .map_or(text.len(), |at| begin + at + end.len())
}

/// A character, not a lifetime; zero if it is none.
fn character_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => text[3..].find('\'').map_or(0, |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Without the modules that only tests have.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = match (item.find('{'), item.find(';')) {
            (Some(open), semicolon) if semicolon.is_none_or(|semicolon| open < semicolon) => {
                closing(item, open)
            }
            (_, semicolon) => semicolon.map_or(item.len(), |semicolon| semicolon + 1),
        };
        kept.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    kept + rest
}

fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn what_the_plan_is_held_against_is_the_code_and_nothing_else() {
    let text = "use crate::{a::{b, c}, d}; // crate::e\nconst X: &str = \"crate::f\";\n#[cfg(test)]\nmod tests { \
                use crate::g; }\nfn h<'a>(_: &'a str) -> char { crate::i::j('\\'') }\n";
    let source = Source {
        path: PathBuf::from("room/file.rs"),
        code: without_tests(&blank(text)),
    };
    let arrows: Vec<(usize, String)> = source.arrows();
    let seen: Vec<(usize, &str)> = arrows.iter().map(|(line, head)| (*line, head.as_str())).collect();
    assert_eq!(seen, [(1, "a"), (1, "d"), (5, "i")]);
    assert_eq!(source.room(), "room");
    assert_eq!(source.line_with("char"), Some(5));
    assert_eq!(source.line_with("cha"), None);
}
