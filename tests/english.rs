//! What people read is plain English: none of the words that foreign sentences of this project were made of.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Words that no reader meets, each with a better one.
const HOUSE_WORDS: [(&str, &str); 16] = [
    ("tell", "say, show"),
    ("tells", "says, shows"),
    ("told", "said; distinguished"),
    ("whoever", "anyone who"),
    ("anew", "again"),
    ("once more", "again"),
    ("any more", "(leave it out)"),
    ("anymore", "(leave it out)"),
    ("cage", "sandbox"),
    ("caged", "sandboxed"),
    ("is none", "is not one"),
    ("who comes", "the next"),
    ("fall-back", "backup"),
    ("spool", "queue"),
    ("such an attempt", "an attempt"),
    ("it all the same", "it anyway"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The literals of a source file before its tests, without comments. Paths and names of files are no sentences.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let mut literals = Vec::new();
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                let _ = chars.by_ref().find(|c| *c == '\n');
            }
            // A character's own quotes: `'"'`.
            '\'' if chars.peek() == Some(&'"') => drop(chars.by_ref().nth(1)),
            '"' => {
                let mut literal = String::new();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => literal.extend(chars.next().filter(|c| !c.is_whitespace()).map(|_| ' ')),
                        c => literal.push(c),
                    }
                }
                literals.push(literal);
            }
            _ => {}
        }
    }
    literals
}

/// The first house word in a text, if there is one, as a word of its own.
fn house_word(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let is_part = |c: char| c.is_alphanumeric() || "_-/.".contains(c);
    HOUSE_WORDS.map(|(word, _)| word).into_iter().find(|word| {
        text.match_indices(word).any(|(at, _)| {
            !text[..at].ends_with(is_part)
                && !text[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || "_-/".contains(c))
        })
    })
}

#[test]
fn nothing_that_the_program_says_has_a_house_word() {
    let mut found = Vec::new();
    let mut seen = 0;
    for file in files("src", ".rs") {
        for literal in literals(&fs::read_to_string(&file).unwrap()) {
            seen += 1;
            if let Some(word) = house_word(&literal).filter(|_| literal.contains(' ')) {
                found.push(format!("{}: {word}: {literal:?}", file.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(seen > 2000, "{seen} literals");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_document_for_users_has_a_house_word() {
    let mut found = Vec::new();
    let documents = files("man", "").into_iter().chain(files("docs", ".md")).chain(files("examples", "README.md"));
    for file in documents.chain([root().join("README.md"), root().join("examples/bartleby.toml")]) {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if let Some(word) = house_word(line) {
                found.push(format!("{}:{}: {word}: {line}", file.strip_prefix(root()).unwrap().display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_test_is_named_by_a_house_word() {
    let mut found = Vec::new();
    let mut seen = 0;
    for file in files("src", ".rs").into_iter().chain(files("tests", ".rs")) {
        let source = fs::read_to_string(&file).unwrap();
        for (attribute, name) in source.lines().zip(source.lines().skip(1)) {
            let Some(name) = name.trim_start().strip_prefix("fn ").filter(|_| attribute.trim() == "#[test]") else {
                continue;
            };
            let name = name.split('(').next().unwrap();
            seen += 1;
            if let Some(word) = house_word(&name.replace('_', " ")) {
                found.push(format!("{word}: {name}"));
            }
        }
    }
    assert!(seen > 500, "{seen} tests");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_house_word_is_found_where_it_is_a_word() {
    assert_eq!(house_word("As Exim Tells us"), Some("tells"));
    assert_eq!(house_word("nobody\n  reads it any more."), Some("any more"));
    for fine in ["/var/spool/mqueue", "storyteller", "a tell-tale", "spool_directory"] {
        assert_eq!(house_word(fine), None, "{fine}");
    }
    let source = "// \"told\"\nlet a = \"one \\\"two\\\"\"; let b = '\"'; let c = \"three\";\n#[cfg(test)] \"told\"";
    assert_eq!(literals(source), ["one  two ", "three"]);
}
