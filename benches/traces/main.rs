//! Figures of the trace path for `scripts/bench traces`: each word measures one part beside its raw limit, in one run.
//!
//! `traces PART [key=value …]` prints one line of JSON a figure on standard output, and what it does on standard error.
//! A part is one module with `run(&Args)`.

mod consumer;
mod elastic;
mod embedded;
mod events;
mod publish;

use std::path::PathBuf;

/// What stands behind the part's name.
pub struct Args(Vec<(String, String)>);

impl Args {
    /// The value of `key`, if it was given.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of `key`, which the part cannot do without.
    pub fn need(&self, key: &str) -> &str {
        self.text(key).unwrap_or_else(|| fail(&format!("needs {key}=…")))
    }

    /// The number of `key`, or another.
    pub fn number(&self, key: &str, default: u64) -> u64 {
        self.text(key)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| fail(&format!("{key}={text} is no number"))))
    }

    /// A folder to work in: `dir`, or the system's for temporary files.
    pub fn dir(&self) -> PathBuf {
        self.text("dir").map_or_else(std::env::temp_dir, PathBuf::from)
    }
}

/// A figure of the table; see scripts/bench_traces.py.
#[derive(serde::Serialize)]
pub struct Figure<'a> {
    /// What was measured.
    pub figure: &'a str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'a str,
    /// The same without goms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<f64>,
    /// What the raw limit is one of.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub raw_figure: &'a str,
    /// What is wanted.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub aim: &'a str,
}

impl Figure<'_> {
    /// Prints it for scripts/bench.
    pub fn tell(&self) {
        println!("{}", serde_json::to_string(self).unwrap_or_else(|error| fail(&error.to_string())));
    }
}

/// Ends the program with a reason.
pub fn fail(reason: &str) -> ! {
    eprintln!("benches/traces: {reason}");
    std::process::exit(1);
}

fn main() {
    // cargo adds `--bench` where it runs this itself
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let args = Args(
        words.iter().filter_map(|word| word.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect(),
    );
    match words.first().map(String::as_str) {
        None => eprintln!("benches/traces: nothing to do; scripts/bench traces names the parts"),
        Some("consumer") => consumer::run(&args),
        Some("elastic") => elastic::run(&args),
        Some("embedded") => embedded::run(&args),
        Some("publish") => publish::run(&args),
        Some(unknown) => {
            eprintln!("benches/traces: unknown part `{unknown}`");
            std::process::exit(64);
        }
    }
}
