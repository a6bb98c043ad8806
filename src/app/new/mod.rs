//! `goms new`: a small service in Rust that runs and is tested.

use std::path::{Path, PathBuf};

use super::{AppError, output};
use crate::cli::NewArgs;

/// Where each file goes, and what is in it.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("Cargo.toml.txt")),
    ("src/main.rs", include_str!("main.rs.txt")),
    ("goms.yml", include_str!("goms.yml.txt")),
    ("README.md", include_str!("README.md.txt")),
    (".gitignore", include_str!("gitignore.txt")),
];
/// Words of Rust that are no names of packages, names of crates that the project uses, and of nodes that are there anyway.
const TAKEN: [&str; 27] = [
    "as", "async", "await", "break", "const", "continue", "crate", "else", "enum", "fn", "for", "if", "impl", "in",
    "match", "mod", "move", "pub", "self", "static", "struct", "test", "use", "while", "goms", "gateway", "serde",
];

/// Writes the project into a new folder of its name.
///
/// # Errors
/// [`AppError::Usage`] for a name that is none of a package, a folder that is not empty, or a checkout that is none.
pub fn run(args: &NewArgs) -> Result<(), AppError> {
    check(&args.name)?;
    let folder = Path::new(&args.name);
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(AppError::Usage(format!("`{}` is here already; choose another name or remove it", args.name)));
    }
    let goms = match &args.goms {
        Some(path) => format!("{{ path = {} }}", quoted(&checkout(path)?)),
        None => quoted(env!("CARGO_PKG_VERSION")),
    };
    for (file, text) in FILES {
        let text = text.replace("{{name}}", &args.name).replace("{{Name}}", &pascal(&args.name));
        write(&folder.join(file), &text.replace("{{goms}}", &goms))?;
    }
    output::text(&format!(
        "{0}/ is a service with two routes, a method by RPC and tests.\n\n  cd {0}\n  cargo test\n  goms up\n",
        args.name
    ));
    Ok(())
}

/// A name of a service that is one of a package too.
fn check(name: &str) -> Result<(), AppError> {
    let fault = |why: &str| Err(AppError::Usage(format!("`{name}` is no name for a service's package: {why}")));
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match name {
        _ if !name.starts_with(|c: char| c.is_ascii_lowercase()) => fault("it must begin with a lower-case letter"),
        _ if !name.chars().all(is_plain) => fault("use lower-case letters, digits and `-`"),
        _ if name.len() > 64 => fault("it has more than 64 letters"),
        _ if TAKEN.contains(&name) => fault("the word is taken"),
        _ => Ok(()),
    }
}

fn checkout(path: &Path) -> Result<String, AppError> {
    let fault = |why: String| AppError::Usage(format!("`--goms {}` is no checkout of goms: {why}", path.display()));
    let whole: PathBuf = path.canonicalize().map_err(|error| fault(error.to_string()))?;
    let manifest = std::fs::read_to_string(whole.join("Cargo.toml")).map_err(|error| fault(error.to_string()))?;
    if !manifest.contains("name = \"goms\"") {
        return Err(fault("its Cargo.toml is of another package".to_owned()));
    }
    Ok(whole.display().to_string())
}

/// A basic string of TOML, which has JSON's escapes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `my-shop` → `MyShop`
fn pascal(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect()
}

fn write(path: &Path, text: &str) -> Result<(), AppError> {
    let fault = |error: std::io::Error| AppError::Unavailable(format!("cannot write {}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    std::fs::write(path, text).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["shop", "my-shop2", "s"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "Shop", "2shop", "my_shop", "../shop", "shop/a", "fn", "goms", "sh\u{f6}p", "-a"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(pascal("my-shop--2"), "MyShop2");
    }
}
