//! What the guides and the README say: every config is one, every command too.

use std::path::Path;

use goms::cli;

use super::load;

/// The blocks of code of a text in this language, each with the line where it begins.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    let fence = format!("```{language}");
    while let Some((at, line)) = lines.next() {
        if line == fence {
            let inner = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            found.push((at + 2, inner.collect::<Vec<_>>().join("\n")));
        } else if line.starts_with("```") {
            lines.by_ref().take_while(|(_, line)| *line != "```").for_each(drop);
        }
    }
    found
}

fn texts() -> Vec<(String, String)> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![("README.md".to_owned(), tree.join("README.md"))];
    for entry in std::fs::read_dir(tree.join("src/guide")).expect("src/guide") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            texts.push((path.file_name().expect("a name").to_string_lossy().into_owned(), path));
        }
    }
    texts.into_iter().map(|(name, path)| (name, std::fs::read_to_string(path).expect("a text"))).collect()
}

#[test]
fn every_config_of_a_guide_is_good() {
    let mut count = 0;
    for (name, text) in texts().into_iter().filter(|(name, _)| name != "README.md") {
        for (line, config) in blocks(&text, "yaml") {
            if let Err(errors) = load(&config, &[]) {
                panic!("{name}, line {line}: {errors}\n{config}");
            }
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
}

/// Words as a shell splits them, of what the guides use.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(end), _) if letter == end => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '>' | '|' | ';' | '&') if word.is_none() => break,
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_command_of_a_guide_is_one() {
    let mut count = 0;
    for (name, text) in texts() {
        for (at, block) in blocks(&text, "sh") {
            for (below, line) in block.lines().enumerate().filter(|(_, line)| line.starts_with("goms ")) {
                let words = words(&line.replace("REQUEST_ID", "6f1c9a52-2f0e-4b6b-9d0e-0f6a3c1d2b4e"));
                if let Err(error) = cli::parse(words.into_iter().map(Into::into)) {
                    panic!("{name}, line {}: `{line}`\n{error}", at + below);
                }
                count += 1;
            }
        }
    }
    assert!(count >= 50, "{count}");
}
