//! The documents at the top of the project: their links lead somewhere, and so they do where they are installed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

const DOCUMENTS: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

/// Where the links of a document lead within the project.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

#[test]
fn every_link_leads_to_a_file_of_the_project() {
    for document in DOCUMENTS {
        for link in links(&read(document)) {
            assert!(root().join(link).exists(), "{document}: {link}");
        }
    }
}

#[test]
fn the_readme_links_every_other_document() {
    let readme = read("README.md");
    let links = links(&readme);
    assert!(DOCUMENTS[1..].iter().all(|document| links.contains(document)), "{links:?}");
}

/// A path in backquotes that names a file of the project, such as `src/mta/mod.rs` or `mta/search.rs`.
#[test]
fn the_files_that_the_architecture_names_are_there() {
    let text = read("ARCHITECTURE.md");
    let words = text.split('`').skip(1).step_by(2);
    let paths: Vec<_> = words.filter(|word| word.contains('/') && word.ends_with(".rs")).collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        assert!(root().join(path).is_file() || root().join("src").join(path).is_file(), "{path}");
    }
}

/// The table of layers and the map of the crate name the modules in the order that tests/layers.rs keeps.
#[test]
fn the_layers_are_the_same_everywhere() {
    let test = read("tests/layers.rs");
    let list = test.split("const LAYERS").nth(1).unwrap().split("= [").nth(1).unwrap().split(']').next().unwrap();
    let layers: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    assert!(layers.len() > 10, "{layers:?}");
    let named = |text: &str, rows: &str| {
        let names = text.lines().filter_map(|line| line.strip_prefix(rows)?.split('`').nth(1).map(str::to_owned));
        names.filter(|name| layers.contains(&name.as_str())).take(layers.len()).collect::<Vec<_>>()
    };
    assert_eq!(named(&read("ARCHITECTURE.md"), "| "), layers);
    assert_eq!(named(&read("src/lib.rs"), "//! | "), layers);
}
