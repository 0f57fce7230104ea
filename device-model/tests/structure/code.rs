// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What of a Rust file counts for its structure: its code without comments, without the content of strings, and without
//! what is compiled for tests alone; and the paths in that code.

/// Attributes of items that are compiled for tests alone, as they begin.
const FOR_TESTS: [&str; 2] = ["#[cfg(test", "#[cfg(all(test"];

/// Returns the code of a file.
pub fn of(text: &str) -> String {
    without_tests(&without_comments(text))
}

/// Returns every path in the code that has at least two segments, and those of `use` declarations with one.
pub fn paths(code: &str) -> Vec<Path> {
    let mut paths = Vec::new();
    let mut rest = code;
    while let Some((before, declaration)) = split_at_word(rest, "use") {
        let Some((tree, after)) = declaration.split_once(';') else { break };
        paths.extend(plain(before));
        let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        expand(&[], &tree, &mut paths);
        rest = after;
    }
    paths.extend(plain(rest));
    paths
}

/// A path, and the name that a `use` declaration gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its segments.
    pub segments: Vec<String>,
    /// The name by which it is imported, if it is.
    pub imported_as: Option<String>,
}

/// Returns the names of the modules that the code declares in files where the language looks for them by itself.
pub fn modules(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = code;
    while let Some((before, after)) = split_at_word(rest, "mod") {
        let name: String = after.trim_start().chars().take_while(|character| is_word(*character)).collect();
        let is_file = after.trim_start()[name.len()..].trim_start().starts_with(';');
        let attributes = before.rsplit([';', '}']).next().unwrap_or_default();
        if is_file && !attributes.contains("#[path") {
            names.push(name);
        }
        rest = after;
    }
    names
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Splits the code at a word that stands alone.
fn split_at_word<'a>(code: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    code.match_indices(word).map(|(at, _)| (&code[..at], &code[at + word.len()..])).find(|(before, after)| {
        !before.ends_with(|character| is_word(character) || character == '#') && !after.starts_with(is_word)
    })
}

/// The paths in code that has no `use` declarations.
fn plain(code: &str) -> Vec<Path> {
    let is_part = |character: char| is_word(character) || character == ':';
    code.split(|character| !is_part(character))
        .map(|word| word.trim_matches(':').split("::").map(str::to_owned).collect::<Vec<_>>())
        .filter(|segments| segments.len() > 1 && segments.iter().all(|segment| !segment.is_empty()))
        .map(|segments| Path { segments, imported_as: None })
        .collect()
}

/// Adds the paths of a tree of imports.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Path>) {
    let tree = tree.trim();
    if let Some((prefix, branches)) = tree.split_once('{') {
        let mut segments = before.to_vec();
        segments.extend(prefix.split("::").map(str::trim).filter(|segment| !segment.is_empty()).map(str::to_owned));
        let branches = branches.trim_end().strip_suffix('}').unwrap_or(branches);
        let mut depth = 0;
        let split = branches.split(|character| {
            depth += i32::from(character == '{') - i32::from(character == '}');
            character == ',' && depth == 0
        });
        for branch in split.filter(|branch| !branch.trim().is_empty()) {
            expand(&segments, branch, paths);
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
    let mut segments = before.to_vec();
    segments.extend(path.split("::").map(|segment| segment.trim().to_owned()).filter(|segment| !segment.is_empty()));
    if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
        segments.pop();
    }
    let imported_as = alias.map(|alias| alias.trim().to_owned()).or_else(|| segments.last().cloned());
    paths.push(Path { segments, imported_as });
}

/// Empties strings and characters, too: what is in them is no code.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest).filter(|_| !code.ends_with(is_word)) {
            length
        } else if next == '"' {
            quoted(rest, '"')
        } else if next == '\'' && (rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'')) {
            quoted(rest, '\'')
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[length..];
    }
    code
}

/// The length of the string or character that the text begins with.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true; // the first quote
    for (at, character) in text.char_indices() {
        if character == quote && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

/// The length of the raw string that the text begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let body = hashes.trim_start_matches('#');
    let end = format!("\"{}", "#".repeat(hashes.len() - body.len()));
    let content = body.strip_prefix('"')?;
    let start = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    loop {
        let Some(at) = FOR_TESTS.iter().filter_map(|attribute| rest.find(attribute)).min() else {
            kept.push_str(rest);
            return kept;
        };
        kept.push_str(&rest[..at]);
        rest = &rest[at + item_length(&rest[at..])..];
    }
}

/// The length of the item that the code begins with: to its semicolon or to the end of its block.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        match character {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(character, ';' | '}') {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn what_is_code() {
    let text = "use a::{b, c::{self, d as e}}; // use x::y;\n/* x::z */ fn f<'a>() { g::h(\"x::\\\"w\", '\"', r#\"x::v\"#) }\n\
                #[cfg(test)]\nmod tests { use x::u; }\nmod m;\n#[path = \"x.rs\"] mod n;";
    let code = of(text);
    let path = |path: &str, imported_as: Option<&str>| Path {
        segments: path.split("::").map(str::to_owned).collect(),
        imported_as: imported_as.map(str::to_owned),
    };
    assert_eq!(
        paths(&code),
        [path("a::b", Some("b")), path("a::c", Some("c")), path("a::c::d", Some("e")), path("g::h", None)]
    );
    assert_eq!(modules(&code), ["m"]);
}
