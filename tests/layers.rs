//! The layout that src/lib.rs draws: which module may use which, and what stands in one file alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules, the lowest first: none uses one that stands behind it. What starts the program uses them all.
const LAYERS: [&str; 18] = [
    "text", "system", "sandbox", "queue", "mta", "config", "state", "request", "context", "primary", "listing",
    "flush", "report", "view", "web", "watch", "cgi", "cli",
];

/// The files that are above all modules.
const TOP: [&str; 2] = ["main", "lib"];

/// The only file that starts programs.
const STARTS_PROGRAMS: &str = "src/system/process.rs";

/// The most lines of a file, and the one file that may have more: its format has many branches, each with its source.
const LONGEST: usize = 500;
const LONGER: &str = "src/mta/sendmail.rs";

/// The most entries at the top of src.
const MOST_ENTRIES: usize = 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder of this project, by its path from there.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.into());
        }
    }
    found.sort();
    found
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "rs")
}

/// The program's source files: path and [`code`].
fn sources() -> Vec<(String, String)> {
    let sources = files("src").into_iter().filter(|path| is_rust(path)).map(|path| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path.to_str().unwrap().to_owned(), code(&text))
    });
    let sources: Vec<_> = sources.collect();
    assert!(sources.len() > 40, "{}", sources.len());
    sources
}

/// Rust without its comments and without what its literals hold; line ends stay.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !after_word) {
            length
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        code.extend(rest[..length].chars().filter(|c| *c == '\n'));
        rest = &rest[length..];
    }
    code
}

/// The length of a comment that may hold others.
fn comment(text: &str) -> usize {
    let mut depth = 0;
    for (at, _) in text.char_indices() {
        match &text[at..] {
            here if here.starts_with("/*") => depth += 1,
            here if here.starts_with("*/") && depth == 1 => return at + 2,
            here if here.starts_with("*/") => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a string in quotes.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

/// The length of `r"..."`, `br#"..."#` and the like.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let quoted = hashes.trim_start_matches('#');
    let end = format!("\"{}", "#".repeat(hashes.len() - quoted.len()));
    let begin = text.len() - quoted.strip_prefix('"')?.len();
    Some(text[begin..].find(&end).map_or(text.len(), |at| begin + at + end.len()))
}

/// The length of a character in quotes; of a lifetime, that of its quote.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let behind = at + escaped.len_utf8();
            text[behind..].find('\'').map_or(text.len(), |end| behind + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The words and signs of code, with the number of their line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let length = match rest.find(|c| !is_part(c)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            tokens.push((number + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// The modules at the top of the crate that a file names, with the line: by `crate::`, by as many `super::` as lead there,
/// and in the braces behind either. `depth` is how far below the top the file's own module is.
fn uses(code: &str, depth: usize) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let word = |at: usize| tokens.get(at).map_or("", |(_, word)| *word);
    let mut found = Vec::new();
    // How many braces are open, and at how many a module inside of the file began.
    let (mut open, mut modules) = (0, Vec::new());
    for at in 0..tokens.len() {
        match word(at) {
            "{" => {
                open += 1;
                if at > 1 && word(at - 2) == "mod" {
                    modules.push(open);
                }
            }
            "}" => {
                if modules.last() == Some(&open) {
                    modules.pop();
                }
                open -= 1;
            }
            "crate" if word(at + 1) == "::" => found.extend(first_names(&tokens, at + 2)),
            "super" if at < 2 || word(at - 1) != "::" || word(at - 2) != "super" => {
                let mut end = at;
                while word(end) == "super" && word(end + 1) == "::" {
                    end += 2;
                }
                if (end - at) / 2 >= depth + modules.len() {
                    found.extend(first_names(&tokens, end));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first names of the paths that begin here: one, or each in braces.
fn first_names(tokens: &[(usize, &str)], begin: usize) -> Vec<(usize, String)> {
    let owned = |(line, name): &(usize, &str)| (*line, (*name).to_owned());
    if tokens.get(begin).is_none_or(|(_, word)| *word != "{") {
        return tokens.get(begin).map(owned).into_iter().collect();
    }
    let mut depth = 0;
    let mut names = Vec::new();
    for pair in tokens[begin..].windows(2) {
        match pair[0].1 {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && ["{", ","].contains(&pair[0].1) && pair[1].1 != "}" {
            names.push(owned(&pair[1]));
        }
    }
    names
}

/// The names between `src/` and the ending; `mod` is its folder's.
fn module(path: &str) -> Vec<&str> {
    path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == name)
}

/// Each use of a higher module, and each module that is in no layer.
fn faults(path: &str, code: &str) -> Vec<String> {
    let module = module(path);
    if TOP.contains(&module[0]) && module.len() == 1 {
        return Vec::new();
    }
    let Some(own) = layer(module[0]) else { return vec![format!("{path}: {} is in no layer", module[0])] };
    let uses = uses(code, module.len()).into_iter().filter(|(_, name)| !["self", "*"].contains(&name.as_str()));
    uses.filter_map(|(line, name)| match layer(&name) {
        None => Some(format!("{path}:{line}: {name} is in no layer")),
        Some(used) if used > own => Some(format!("{path}:{line}: {} uses {name}, which is above it", module[0])),
        Some(_) => None,
    })
    .collect()
}

#[test]
fn no_module_uses_a_higher_one() {
    let faults: Vec<_> = sources().iter().flat_map(|(path, code)| faults(path, code)).collect();
    assert!(faults.is_empty(), "{} faults: {faults:#?}", faults.len());
}

#[test]
fn the_check_of_the_layers_sees_every_way_to_use_a_module() {
    let faults = |path: &str, text: &str| faults(path, &code(text)).len();
    for upwards in [
        "use crate::cli;",
        "pub(crate) use crate::cli::run as go;",
        "use crate::{text::short, cli};",
        "use crate::{\n    text::{short, count},\n    cli::{self},\n};",
        "fn f() { let x = '{'; crate::cli::run(); }",
        "use super::super::cli;",
        "use super::super::{text, cli};",
        "mod tests { use super::super::super::cli; }",
        "use crate::unheard_of::X;",
    ] {
        assert_eq!(faults("src/queue/mask.rs", upwards), 1, "{upwards}");
    }
    for harmless in [
        "use crate::text::{cli, short};",
        "use crate::{text::{cli}, queue, queue::filter};",
        "// crate::cli\n/* crate::cli /* */ crate::cli */ /// [`crate::cli`]\n",
        "const A: &str = \"\\\"crate::cli\"; const B: &str = r#\"crate::cli\"\"#; const C: char = '\"'; const D: &str = \"crate::cli\";",
        "fn f<'a>(text: &'a str, quote: char) -> bool { quote == '\\'' } // '\" crate::cli",
        "use super::cli; mod tests { use super::*; use super::super::cli; }",
        "use ::cgi::http; use xcrate::cli; use self::cli;",
    ] {
        assert_eq!(faults("src/queue/mask.rs", harmless), 0, "{harmless}");
    }
    assert_eq!(faults("src/unheard_of.rs", ""), 1);
    assert_eq!(faults("src/watch.rs", "use super::cli;"), 1);
    assert_eq!(faults("src/view/mod.rs", "use super::cli;"), 1);
    assert_eq!(faults("src/view/mod.rs", "mod tests { use super::*; } mod more {} use super::cgi;"), 1);
    assert_eq!(faults("src/main.rs", "use crate::cli;"), 0);
    // Lines are counted right behind everything that is left out.
    let text = "/*\n*/ const A: &str = \"\n\\\n\"; // \n use crate::cli;";
    assert_eq!(uses(&code(text), 1), [(5, "cli".to_owned())]);
}

#[test]
fn the_top_of_src_fits_on_a_screen() {
    let entries = fs::read_dir(root().join("src")).unwrap().count();
    assert!(entries <= MOST_ENTRIES, "{entries} entries");
}

#[test]
fn no_file_is_longer_than_can_be_read_in_one_go() {
    let is_code =
        |path: &PathBuf| is_rust(path) || ["sh", "css"].iter().any(|end| path.extension() == Some(end.as_ref()));
    let files = ["src", "tests", "benches"].into_iter().flat_map(files).filter(is_code);
    let lines = files.map(|path| (fs::read_to_string(root().join(&path)).unwrap().lines().count(), path));
    let too_long: Vec<_> =
        lines.filter(|(lines, path)| *lines > LONGEST && path.as_path() != Path::new(LONGER)).collect();
    assert!(too_long.is_empty(), "{too_long:?}");
}

/// The files whose code has one of these, as whole words and signs.
fn files_with(sought: &[&[&str]]) -> BTreeSet<String> {
    let has = |code: &str| {
        let words: Vec<_> = tokens(code).into_iter().map(|(_, word)| word).collect();
        sought.iter().any(|sought| words.windows(sought.len()).any(|part| part == *sought))
    };
    sources().into_iter().filter(|(_, code)| has(code)).map(|(path, _)| path).collect()
}

#[test]
fn what_the_compiler_does_not_check_is_in_one_file() {
    let files = files_with(&[&["unsafe"]]);
    assert!(files.len() <= 1, "{files:?}");
}

#[test]
fn one_file_alone_starts_programs() {
    // A thread's `spawn` takes what it runs.
    let files = files_with(&[
        &["Command", "::", "new"],
        &[".", "spawn", "(", ")"],
        &[".", "exec", "(", ")"],
        &["posix_spawn"],
        &["execv"],
        &["execve"],
        &["execvp"],
        &["fexecve"],
    ]);
    assert_eq!(files, BTreeSet::from([STARTS_PROGRAMS.to_owned()]));
}
