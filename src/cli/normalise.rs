//! The originals' spellings: `-http_port 8080`, `--http_port=8080`, `-version` → `--http-port`, `--version`.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::Command;

/// Rewrites the spelling of long flags that `command` (or a command under it) knows. Nothing after `--` is touched, nor
/// are short flags.
pub fn normalise(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut known = Known { long: BTreeSet::new(), short: BTreeSet::from(['h', 'V']) };
    known.long.extend(["help".to_owned(), "version".to_owned()]);
    known.read(command);
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut ended = false;
    out.extend(args.map(|arg| {
        ended = ended || arg == "--";
        if ended { arg } else { known.rewrite(arg) }
    }));
    out
}

struct Known {
    long: BTreeSet<String>,
    short: BTreeSet<char>,
}

impl Known {
    fn read(&mut self, command: &Command) {
        for arg in command.get_arguments() {
            self.long.extend(arg.get_long().map(str::to_owned));
            self.long.extend(arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned));
            self.short.extend(arg.get_short_and_visible_aliases().unwrap_or_default());
        }
        for inner in command.get_subcommands() {
            self.read(inner);
        }
    }

    fn rewrite(&self, arg: OsString) -> OsString {
        let Some(text) = arg.to_str() else { return arg };
        let (dashes, rest) = match (text.strip_prefix("--"), text.strip_prefix('-')) {
            (Some(rest), _) => (2, rest),
            (None, Some(rest)) => (1, rest),
            (None, None) => return arg,
        };
        let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
        let dashed = name.replace('_', "-");
        let known = name.len() > 1 && self.long.contains(&dashed);
        // `-http_prt` is no cluster of short flags (it would be read as `-h`): as `--http-prt`, it gets a suggestion.
        let misspelt = dashes == 1
            && name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && !name.chars().all(|c| self.short.contains(&c));
        match (known || misspelt, value) {
            (false, _) => arg,
            (true, None) => format!("--{dashed}").into(),
            (true, Some(value)) => format!("--{dashed}={value}").into(),
        }
    }
}
